"""A folder that is written into, on disk or in an object store: every name in it is a whole file or none."""

from __future__ import annotations

import io
import os
import secrets
import socket
import sys
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

from nshot.atomic import replace, writing
from nshot.errors import OutputError, SourceError
from nshot.extras import obstore
from nshot.objects.file import ObjectFile
from nshot.objects.stores import Place, StoreFailure, answered, asking, is_object_url

_STALE = 86_400  # seconds after which a draft of another machine is nobody's
_OWN: set[str] = set()  # the drafts that this process is writing
# A store takes a name only if nobody has it where one request holds all the bytes. What is larger goes up in
# pieces, after a look whether the name is free.
_AT_ONCE = 2**26


class Folder(ABC):
    """Files by their names, without further folders.

    Attributes:
        name: as a person would write it, ending in a slash.
    """

    name: str

    @abstractmethod
    def files(self) -> dict[str, int]:
        """The files that are there: name -> bytes, by name; hidden ones are left out.

        Raises:
            SourceError: it cannot be listed.
        """

    @abstractmethod
    def exists(self, name: str) -> bool:
        """Whether there is a file of this name.

        Raises:
            SourceError: the place cannot be asked.
        """

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """A file to be read from anywhere.

        Raises:
            OSError: it is not there, or cannot be read.
        """

    @abstractmethod
    def drafting(self, name: str, *, over: bool = True) -> AbstractContextManager[Path]:
        """A local file to be written; it takes the name when the block ends well, and else is gone.

        Args:
            name: the file.
            over: whether it may take the place of one that is there; else that one stays, and ours is gone.

        Raises:
            OutputError: it cannot be written there.
        """

    def here(self, name: str) -> Path | None:
        """Where a file is on this machine, for a reader that is faster with it; None: it is elsewhere."""
        return None

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file, if it is there.

        Raises:
            OutputError: it cannot be removed.
        """

    @abstractmethod
    def is_at(self, place: str) -> bool:
        """Whether a path or a URL means this folder."""

    def clear(self, name: str) -> None:  # noqa: B027  (a store has no drafts)
        """Remove drafts of a file that killed processes left: of this machine at once, of others in time."""

    def path(self, name: str) -> str:
        """A file as a person would write it."""
        return f"{self.name}{name}"


def open_folder(name: str | os.PathLike[str], *, make: bool = False) -> Folder:
    """A folder on disk, or one in an object store by its URL.

    Args:
        name: where.
        make: make it if it is not there.

    Raises:
        OutputError: it is a file, or cannot be made.
    """
    text = os.fspath(name)
    if is_object_url(text):
        return _InStore(Place.of(text))
    path = Path(text)
    if make:
        if path.exists() and not path.is_dir():
            raise OutputError(f"{text} is a file, and a folder is needed there")
        with writing(text):
            path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise OutputError(f"{text} cannot be written (no permission, or a read-only place)")
    return _OnDisk(path, text)


@contextmanager
def uploaded(url: str) -> Iterator[Path]:
    """A local file of the object's name, which is uploaded when the block ends well.

    Raises:
        OutputError: it cannot be written there.
    """
    place = Place.of(url)
    above, _, name = place.key.rpartition("/")
    folder = open_folder(place.url(above) if above else f"{place.scheme}://{place.bucket}")
    with tempfile.TemporaryDirectory(prefix="nshot-") as here:
        local = Path(here, name)
        yield local
        if local.exists():
            with folder.drafting(name) as draft:
                local.replace(draft)


def _host() -> str:
    """The machine, as it stands in the name of a draft."""
    return socket.gethostname().replace(".", "-")[:40]


class _OnDisk(Folder):
    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self.name = f"{name.rstrip('/')}/"

    def files(self) -> dict[str, int]:
        try:
            with os.scandir(self._path) as entries:
                found = {entry.name: entry.stat().st_size for entry in entries if _counts(entry)}
        except OSError as error:
            raise SourceError(f"cannot list {self.name}: {error.strerror or error}") from error
        return dict(sorted(found.items()))

    def exists(self, name: str) -> bool:
        return (self._path / name).is_file()

    def open(self, name: str) -> BinaryIO:
        return (self._path / name).open("rb")

    def here(self, name: str) -> Path | None:
        return self._path / name

    @contextmanager
    def drafting(self, name: str, *, over: bool = True) -> Iterator[Path]:
        draft = self._path / f".{name}.{_host()}.{os.getpid()}.{secrets.token_hex(3)}.part"
        self.clear(name)
        with writing(self.path(name)):
            try:
                _OWN.add(draft.name)
                draft.open("wb").close()
                yield draft
                if over:
                    replace(draft, self._path / name)
                else:
                    self._put(draft, self._path / name)
                self._settle()
            finally:
                draft.unlink(missing_ok=True)
                _OWN.discard(draft.name)

    def _put(self, draft: Path, path: Path) -> None:
        """Take a name that nobody has."""
        with draft.open("rb+") as file:
            os.fsync(file.fileno())
        try:
            os.link(draft, path)
        except FileExistsError:
            return
        except OSError:  # a file system without links
            if not path.exists():
                draft.replace(path)

    def _settle(self) -> None:
        """The name itself on the disk, where the system can do that."""
        with suppress(OSError):
            folder = os.open(self._path, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def clear(self, name: str) -> None:
        host = _host()
        with suppress(OSError):
            for left in self._path.glob(f".{name}.*.part"):
                *_, owner, process, _, _ = left.name.rsplit(".", 4)
                if owner == host and process.isdecimal():
                    # a container that is started again has the number of the one that was killed
                    own = int(process) == os.getpid()
                    gone = left.name not in _OWN if own else not _alive(int(process))
                else:
                    gone = time.time() - left.stat().st_mtime > _STALE
                if gone:
                    left.unlink(missing_ok=True)

    def is_at(self, place: str) -> bool:
        with suppress(OSError, ValueError):
            return os.path.samefile(self._path, place or ".")  # noqa: PTH121
        return False

    def remove(self, name: str) -> None:
        with writing(self.path(name)):
            (self._path / name).unlink(missing_ok=True)


class _InStore(Folder):
    def __init__(self, place: Place) -> None:
        key = f"{place.key.rstrip('/')}/" if place.key.strip("/") else ""
        self._place = place._replace(key=key)
        self.name = self._place.url(key)

    def _at(self, name: str) -> Place:
        return self._place._replace(key=f"{self._place.key}{name}")

    def files(self) -> dict[str, int]:
        found = {}
        try:
            for meta in self._place.listing():
                name = meta.key.removeprefix(self._place.key)
                if name and "/" not in name and not name.startswith("."):
                    found[name] = meta.size
        except StoreFailure as error:
            raise SourceError(f"cannot list {self.name}: {error}") from error
        return found

    def exists(self, name: str) -> bool:
        try:
            self._at(name).head()
        except StoreFailure as error:
            if error.kind == "missing":
                return False
            raise SourceError(f"{self.path(name)}: {error}") from error
        return True

    def open(self, name: str) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(ObjectFile(self._at(name)), 2**16))

    @contextmanager
    def drafting(self, name: str, *, over: bool = True) -> Iterator[Path]:
        with writing(f"a draft of {self.path(name)}"), tempfile.TemporaryDirectory(prefix="nshot-") as folder:
            draft = Path(folder, "draft")
            draft.touch()
            yield draft
            place = self._at(name)
            at_once = not over and draft.stat().st_size <= _AT_ONCE
            if not over and not at_once and self.exists(name):
                return
            try:
                with asking(place):
                    if at_once:
                        how = {"mode": "create", "use_multipart": False}
                        answered(obstore().put, place.store, place.key, draft.read_bytes(), **how)
                    else:
                        answered(obstore().put, place.store, place.key, draft)
            except StoreFailure as error:
                if error.kind != "exists" or over:
                    raise OutputError(f"cannot write {self.path(name)}: {error}") from error

    def is_at(self, place: str) -> bool:
        return is_object_url(place) and Place.of(f"{place.rstrip('/')}/") == self._place

    def remove(self, name: str) -> None:
        place = self._at(name)
        try:
            with asking(place):
                answered(obstore().delete, place.store, place.key)
        except StoreFailure as error:
            if error.kind != "missing":
                raise OutputError(f"cannot remove {self.path(name)}: {error}") from error


def _counts(entry: os.DirEntry[str]) -> bool:
    return not entry.name.startswith(".") and entry.is_file()


def _alive(process: int) -> bool:
    if sys.platform == "win32":  # there the question would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True
