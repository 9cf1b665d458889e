"""Examples' vectors -> a Classifier: the rungs of the ladder above zero-shot."""

from nshot.few_shot.adapting import Adapted, adapt
from nshot.few_shot.adding import with_labels
from nshot.few_shot.candidates import METHODS, Method
from nshot.few_shot.fitting import Fitted, fit
from nshot.few_shot.selecting import select

__all__ = ["METHODS", "Adapted", "Fitted", "Method", "adapt", "fit", "select", "with_labels"]
