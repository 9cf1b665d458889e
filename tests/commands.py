"""The command line as a test runs it, in this process; the fixture ``cli`` is in conftest.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple


class Ran(NamedTuple):
    code: int
    out: str
    err: str


Cli = Callable[..., Ran]
