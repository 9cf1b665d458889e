"""What the page does, without HTTP: read images, answer questions, keep what a person says, learn from it."""

from nshot.server.session.acts import LABELS, Entry
from nshot.server.session.asked import Question
from nshot.server.session.journal import JOURNAL, Journal, ReadOnly, find_journal, read_words
from nshot.server.session.session import Session
from nshot.server.session.words import Word, corrected

__all__ = [
    "JOURNAL",
    "LABELS",
    "Entry",
    "Journal",
    "Question",
    "ReadOnly",
    "Session",
    "Word",
    "corrected",
    "find_journal",
    "read_words",
]
