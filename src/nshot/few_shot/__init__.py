"""Examples' vectors -> a Classifier: the rungs of the ladder above zero-shot."""

from nshot.few_shot.candidates import METHODS, Method
from nshot.few_shot.fitting import Fitted, fit

__all__ = ["METHODS", "Fitted", "Method", "fit"]
