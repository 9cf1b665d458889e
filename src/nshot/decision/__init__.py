"""When to believe an answer: calibration, "none of these", answering only the surest, sets of labels.

    logits --Calibration--> probabilities --+--> Conformal:  a set of labels with guaranteed coverage
                                            |
    cosines, background --Rejection--> "none of these"?  --Surest--> "unsure"?  --> one label

    logits, background --Several--> every label that an image shows, each decided by itself

A ``Decision`` holds those that were fitted. It is part of a ``Classifier`` and of its file, and needs numpy
alone.
"""

from nshot.decision.background import EVERYDAY
from nshot.decision.calibration import Calibration, fit_calibration
from nshot.decision.conformal import Conformal, fit_conformal
from nshot.decision.decision import Decision, Surest, Verdict, fit_surest
from nshot.decision.fit import CalibrationReport, fit_decision
from nshot.decision.rejection import RULES, Rejection, Rule, default_rejection
from nshot.decision.several import Several

__all__ = [
    "EVERYDAY",
    "RULES",
    "Calibration",
    "CalibrationReport",
    "Conformal",
    "Decision",
    "Rejection",
    "Rule",
    "Several",
    "Surest",
    "Verdict",
    "default_rejection",
    "fit_calibration",
    "fit_conformal",
    "fit_decision",
    "fit_surest",
]
