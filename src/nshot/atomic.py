"""Files that answers go to: checked before any image is read, errors translated, replaced as a whole."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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


@contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A draft beside a file, which takes its place when the block ends well, and else is gone.

    The file keeps its permissions; a new one gets those that any new file would get.

    Raises:
        OutputError: it cannot be written there; what went wrong is named.
    """
    real = check_output(path)
    with writing(path):
        handle, name = tempfile.mkstemp(prefix=f".{real.name}.", suffix=".part", dir=real.parent)
        os.close(handle)
        draft = Path(name)
        try:
            draft.chmod(real.stat().st_mode if real.exists() else 0o666 & ~_umask())
            yield draft
            replace(draft, real)
        except BaseException:
            with suppress(FileNotFoundError):
                draft.unlink()
            raise


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write a file as a whole or not at all.

    Raises:
        OutputError: it cannot be written there.
    """
    with replacing(path) as draft:
        draft.write_bytes(content)


def _umask() -> int:
    """The mask for new files: there is no way to ask but to set it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
