"""A folder in memory, where there is such a place, and a table of what was measured."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fuzz.attack import TOLD

_MEMORY = Path("/dev/shm")  # where it is a disk, a hundred thousand files take minutes


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """An empty folder for the inputs, quick to write to."""
    if not os.access(_MEMORY, os.W_OK):
        yield tmp_path
        return
    folder = Path(tempfile.mkdtemp(prefix="nshot-fuzz-", dir=_MEMORY))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was measured, where that was asked for at length."""
    if not os.environ.get("NSHOT_FUZZ") or not TOLD:
        return
    terminalreporter.section("what was read")
    terminalreporter.line(
        f"{'reader':<44}{'inputs':>9}{'refused':>9}{'slowest':>10}{'peak':>9}{'held':>9}  seeds of both"
    )
    for told in TOLD:
        terminalreporter.line(
            f"{told.reader:<44}{told.inputs:>9,}{told.refused:>9,}{told.slowest:>8.2f} s"
            f"{told.peak / 2**20:>6.1f} MB{told.held / 2**20:>6.1f} MB  {told.worst}"
        )
