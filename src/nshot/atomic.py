"""Files that answers go to: checked before any image is read, errors translated, replaced as a whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nshot.errors import OutputError


def check_output(path: str | os.PathLike[str]) -> Path:
    """The file that writing to this path would change, symbolic links followed; nothing is touched yet.

    Raises:
        OutputError: a folder is missing, the path is a folder, or nothing may be written there.
    """
    if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():
        return Path(path)  # a device or a pipe: what its link points to may have no name of its own
    real = Path(os.path.realpath(path))
    if real.is_dir():
        raise OutputError(f"{path} is a folder: name a file in it")
    if not real.parent.is_dir():
        raise OutputError(f"there is no folder {real.parent} to write {real.name} into: make it first")
    if not os.access(real if real.exists() else real.parent, os.W_OK):
        raise OutputError(
            f"{path} cannot be written (no permission, or a read-only place): name another file with -o"
        )
    return real


@contextmanager
def writing(name: str | os.PathLike[str]) -> Iterator[None]:
    """Within it, what goes wrong with an output is an OutputError that names it.

    A BrokenPipeError passes: a reader such as ``head`` that has seen enough is not an error to tell.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"cannot write {os.fspath(name)}: {error.strerror or error}") from error


def replace(temporary: Path, path: Path) -> None:
    """Put a finished file in the place of another: a reader, or a crash, sees the old one or the new one."""
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
