"""Texts as the models' own code cleans them before it makes tokens of them."""

from __future__ import annotations

import html
import string
from collections.abc import Callable
from typing import TypeAlias

Clean: TypeAlias = Callable[[str], str]

_PUNCTUATION = str.maketrans("", "", string.punctuation)


def canonical(text: str) -> str:
    """SigLIP's form: "_" becomes a space, ASCII punctuation goes, lower case, single spaces.

    As in big_vision's ``canonicalize_text``. transformers' own tokenizer of SigLIP 1 makes "hotdog" of
    "hot_dog", and that of SigLIP 2 keeps the punctuation: the models were trained on neither.
    """
    return " ".join(text.replace("_", " ").translate(_PUNCTUATION).lower().split())


def repaired_and_canonical(text: str) -> str:
    """The same after ``repaired``: open_clip's "canonicalize"."""
    return canonical(repaired(text))


def repaired_lower(text: str) -> str:
    """Repaired, single spaces, lower case: what open_clip's own tokenizer reads."""
    return " ".join(repaired(text).split()).lower()


def repaired_spaces(text: str) -> str:
    """Repaired, single spaces: what open_clip gives other tokenizers, unless told otherwise."""
    return " ".join(repaired(text).split())


def repaired(text: str) -> str:
    """As OpenAI's and open_clip's code does it: ftfy mends wrong encodings, curly quotes, wide letters;
    the entities of HTML, even if escaped twice, become what they mean.
    """
    if "&" in text or not (text.isascii() and text.isprintable()):  # ftfy changes nothing else
        import ftfy

        text = ftfy.fix_text(text)
    return html.unescape(html.unescape(text)).strip()
