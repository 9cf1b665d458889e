"""What several test files share: a tiny seeded checkpoint, some images, and a cache folder of their own."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from checkpoints import tiny_checkpoint
from commands import Cli, Ran
from PIL import Image

from nshot.cli import run


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP checkpoint with random weights: its answers mean nothing, and are always the same."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_checkpoint(folder)
    return folder


@pytest.fixture(scope="session")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _own_cache(_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the person's own cache."""
    monkeypatch.setenv("NSHOT_CACHE", str(_cache))


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """What a command set up for its messages does not outlive its test."""
    logger = logging.getLogger("nshot")
    level, handlers = logger.level, logger.handlers[:]
    yield
    logger.setLevel(level)
    logger.handlers[:] = handlers


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of twelve small images, all different, of several formats and shapes."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(12):
        height, width = rng.integers(20, 90, 2)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.{('jpg', 'png', 'webp')[number % 3]}")
    return folder


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line in a folder: its exit status and what it wrote."""

    def ran(*args: str, cwd: Path) -> Ran:
        monkeypatch.chdir(cwd)
        code = run(list(args))
        return Ran(code, *capsys.readouterr())

    return ran
