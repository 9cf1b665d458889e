"""Images into folders by their labels: a plan, a journal, and the way back."""

from nshot.output.sorting.journal import JOURNAL, Mode, Move
from nshot.output.sorting.names import UNSURE, folder_names
from nshot.output.sorting.sorting import Undone, carry_out, plan, undo

__all__ = ["JOURNAL", "UNSURE", "Mode", "Move", "Undone", "carry_out", "folder_names", "plan", "undo"]
