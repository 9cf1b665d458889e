"""What a run needs to go on after it was killed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from nshot import atomic
from nshot.errors import NshotError, OutputError, RequestError, brief

_NAME = "state.pt"


def kept(folder: Path) -> bool:
    """Whether there is a state to go on from."""
    return (folder / _NAME).exists()


def save(folder: Path, recipe: Mapping[str, Any], content: Mapping[str, Any]) -> None:
    """Keep the run's state: whole or, if killed meanwhile, the one before.

    Raises:
        OutputError: it cannot be written; the state before stays.
    """
    part = folder / f"{_NAME}.part"
    try:
        with part.open("wb") as file:
            torch.save({"recipe": json.dumps(recipe), **content}, file)
        atomic.replace(part, folder / _NAME)
    except (OSError, RuntimeError) as error:  # torch says RuntimeError where the disk is full
        before = "go on from the state before with --resume" if kept(folder) else "run the command again"
        raise OutputError(
            f"the state of the run cannot be kept in {folder} ({_why(error)}): make room, then {before}"
        ) from error
    finally:
        part.unlink(missing_ok=True)


def restore(folder: Path, recipe: Mapping[str, Any], device: Any) -> dict[str, Any] | None:
    """A kept state; None where nothing was kept.

    Raises:
        RequestError: the state is damaged, or of a run with other options, data or start.
    """
    if not kept(folder):
        return None
    path = folder / _NAME
    with reading(path):
        saved: dict[str, Any] = torch.load(path, weights_only=True, map_location=device)
        before = json.loads(saved["recipe"])
    compare(path, before, recipe)
    return saved


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever a file that was cut off or changed leads to is one line that names it.

    Raises:
        RequestError: it is damaged.
    """
    try:
        yield
    except NshotError:
        raise
    except Exception as error:  # torch and pickle raise whatever their parsing runs into
        raise RequestError(
            f"{path} is damaged ({brief(error)}): remove {path.parent} to begin anew"
        ) from error


def compare(path: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse a run that is not the one before, and name what differs.

    Raises:
        RequestError: it differs.
    """
    differ = [
        f"{name}: {before.get(name)!r} then, {now.get(name)!r} now"
        for name in {**before, **now}
        if before.get(name) != now.get(name)
    ]
    if differ:
        raise RequestError(
            f"{path} is of another run ({'; '.join(differ)}): resume with what it was started with, or "
            f"remove {path.parent} to begin anew"
        )


def _why(error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error).splitlines()[0]
