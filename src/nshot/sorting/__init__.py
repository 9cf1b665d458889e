"""Pictures into folders by their labels: a plan, a journal, and the way back."""

from nshot.sorting.journal import JOURNAL, Mode, Move
from nshot.sorting.names import UNSURE, folder_names
from nshot.sorting.sorting import Undone, carry_out, plan, undo

__all__ = ["JOURNAL", "UNSURE", "Mode", "Move", "Undone", "carry_out", "folder_names", "plan", "undo"]
