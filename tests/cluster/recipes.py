"""The recipes of docs/scale.md, as they stand there."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from two_nodes import environment

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


def made_photos(folder: Path, count: int) -> Path:
    """So many images in a new folder, the same at each call."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 256, (96, 128, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04}.jpg", quality=90)
    return folder


def shell(home: Path, **programs: str) -> dict[str, str]:
    """An environment in which these programs are modules of this Python, and not what else is installed."""
    folder = home / "bin"
    folder.mkdir()
    for name, module in programs.items():
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {module} "$@"\n')
        program.chmod(0o755)
    return os.environ | environment(home) | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
