"""The recipes of docs/scale.md, as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs" / "scale.md"


def blocks(language: str) -> list[str]:
    """The blocks of code in a language, in the page's order."""
    return re.findall(
        rf"^```{language}\n(.*?)^```$", DOCS.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def changed(text: str, changes: dict[str, str]) -> str:
    """A recipe for this machine: each of these words is there, and is replaced."""
    for word, other in changes.items():
        assert word in text, f"docs/scale.md does not hold {word!r} any more"
        text = text.replace(word, other)
    return text
