"""Files that something is written into: checked before the work, locked, replaced as a whole."""

from __future__ import annotations

import os
import secrets
import shutil
import stat
import sys
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from nshot.errors import OutputError

_BLOCK = 2**20
_IMAGES = (b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8", b"II*\0", b"MM\0*")


def check_output(path: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str] | None] = ()) -> Path:
    """The file that writing to this path would change, symbolic links followed; nothing is touched yet.

    Args:
        path: where the output goes.
        inputs: what the command reads; the output must be none of it.

    Raises:
        OutputError: a folder is missing, the path is a folder, an image or an input, or nothing may be
            written there.
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
    if real.exists() and _is_image(real):
        raise OutputError(f"{path} is an image, which would be lost: name another file with -o")
    for given in inputs:
        if given is not None and real.exists() and same_file(real, given):
            raise OutputError(f"{path} is read by this command too: name another file with -o")
    return real


def same_file(one: str | os.PathLike[str], other: str | os.PathLike[str]) -> bool:
    """Whether two paths name one file, whether it is there yet or not."""
    with suppress(ValueError):  # no path at all
        try:
            return Path(one).samefile(other)
        except OSError:  # one of them is not there
            return os.path.realpath(one) == os.path.realpath(other)
    return False


def _is_image(path: Path) -> bool:
    """Whether a file begins as images do: nothing that is written over with -o does."""
    with suppress(OSError), path.open("rb") as file:
        head = file.read(16)
        return head.startswith(_IMAGES) or head[8:12] == b"WEBP" or head[4:8] in (b"ftyp", b"jP  ")
    return False


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


def make_folder(path: Path) -> None:
    """The folder that a report goes into, made if it is not there.

    Raises:
        OutputError: it is a file, or cannot be made.
    """
    if path.exists() and not path.is_dir():
        raise OutputError(f"{path} is a file: -o names the folder that the report goes into")
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)


@contextmanager
def replacing(path: str | os.PathLike[str], *, locked: bool = False) -> Iterator[Path]:
    """A draft beside a file, which takes its place when the block ends well, and else is gone.

    The file keeps its permissions; a new one gets those that any new file would get.

    Args:
        path: the file.
        locked: nobody else writes this file now, so its draft may have one name always: what a kill left
            behind is overwritten the next time.

    Raises:
        OutputError: it cannot be written there; what went wrong is named.
    """
    real = check_output(path)
    part = real.with_name(f".{real.name[:100]}.{'' if locked else secrets.token_hex(4) + '.'}part")
    with writing(path):
        try:
            part.open("wb").close()
            if real.exists():
                part.chmod(real.stat().st_mode & 0o7777)
            yield part
            replace(part, real)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def write_bytes(path: str | os.PathLike[str], content: bytes, *, locked: bool = False) -> None:
    """Write a file as a whole or not at all; see ``replacing``.

    Raises:
        OutputError: it cannot be written there.
    """
    with replacing(path, locked=locked) as part:
        part.write_bytes(content)


def own_file(path: Path) -> None:
    """Refuse a journal that is no file of its own.

    Whoever made the folder could have another file of the person's cut and written to through a link, and a
    pipe would keep everybody waiting.

    Raises:
        OutputError: it is a link, a pipe, a folder or a device.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISREG(path.lstat().st_mode):
            raise OutputError(f"{path} is a link, a pipe or a folder, where a journal is kept: remove it")


def cut_torn_line(path: Path) -> None:
    """Cut off a last line that a kill tore, so that what is appended stands on its own."""
    with path.open("rb+") as file:
        size = begin = end = file.seek(0, os.SEEK_END)
        whole = 0
        while end and not whole:
            begin = max(0, end - _BLOCK)
            file.seek(begin)
            whole = file.read(end - begin).rfind(b"\n") + 1
            end = begin
        if begin + whole < size:
            file.truncate(begin + whole)


class Lock:
    """An output that one process at a time may write: ``FILE.lock`` beside it, gone when it is released.

    The system lets go of the lock when its process ends, however it ends; a file that was left behind locks
    nobody out.

    Raises:
        OutputError: another process writes there.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(f"{path}.lock")
        self._file: BinaryIO | None = None
        with writing(path):
            while self._file is None:
                file = self.path.open("ab")
                try:
                    if not _lock(file):
                        raise OutputError(
                            f"another nshot is writing {path}: wait for it, or name another file with -o"
                        )
                    with suppress(
                        FileNotFoundError
                    ):  # released and removed meanwhile: what we hold is nothing
                        if os.path.samestat(os.fstat(file.fileno()), self.path.stat()):
                            self._file = file
                finally:
                    if self._file is None:
                        file.close()

    def release(self) -> None:
        """Let others write; a second call does nothing."""
        if self._file is not None:
            with suppress(
                OSError
            ):  # Windows keeps a file that is open; an empty one that is left locks nobody out
                self.path.unlink()
            self._file.close()
            self._file = None

    def __del__(self) -> None:
        self.release()


def _lock(file: BinaryIO) -> bool:
    """Take the lock of an open file without waiting; whether it was free."""
    if sys.platform == "win32":
        import msvcrt

        try:
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


class Scratch:
    """A temporary folder that is there as long as this object is, and goes without a word.

    Attributes:
        path: the folder.
    """

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="nshot-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)
