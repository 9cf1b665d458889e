"""Where bytes go: a stream, or a file that an interrupted run can go on with."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from nshot.atomic import replacing, writing
from nshot.errors import OutputError


class StreamTarget:
    """A stream, a device or a pipe: what is written is gone. A path is opened at the first bytes."""

    def __init__(self, stream: BinaryIO | Path) -> None:
        self.stream = None if isinstance(stream, Path) else stream
        self._path = stream if isinstance(stream, Path) else None
        self._name = str(self._path or "to standard output")

    def begin(self, keep: int | None) -> None:
        """Open it."""
        if self._path is not None:
            with writing(self._name):
                self.stream = self._path.open("wb", buffering=0)

    def append(self, data: bytearray) -> None:
        """Write, flush, and empty ``data``."""
        assert self.stream is not None
        rest = memoryview(bytes(data))
        del data[:]  # first: a stream takes nothing back, so an interrupt must not make us repeat it
        with writing(self._name):
            while rest:
                rest = rest[self.stream.write(rest) :]
            self.stream.flush()

    def close(self) -> None:
        """Close what was opened here."""
        if self._path is not None and self.stream is not None:
            self.stream.close()

    def complete(self) -> None:
        """Nothing to tidy up."""


class FileTarget:
    """A file of whole records; a note beside it says which request it answers, until that is complete.

    A kill may come between any two steps, so an old file is emptied before the note says that what is in it
    belongs to this request.
    """

    def __init__(self, path: Path, *, request: str, resumable: bool = True, note: Path | None = None) -> None:
        self.path = path
        self.note = note or Path(f"{path}.run")
        self._request = request
        self._resumable = resumable
        self._file: BinaryIO | None = None
        self._end = 0

    def check_resumable(self, whole: int) -> None:
        """Whether the file, of which so many bytes are whole records, can be continued.

        Raises:
            OutputError: it answers another request, or is not ours to cut.
        """
        if self.note.exists():
            if whole and not self._is_of_this_request():
                raise OutputError(
                    f"{self.path} was begun with another request (labels, model or options): "
                    "repeat that one, name another file with -o, or leave out --resume to start over"
                )
        elif self.path.exists() and self.path.stat().st_size != whole:
            raise OutputError(f"{self.path} does not end in a whole record, and no run left it unfinished")

    def _is_of_this_request(self) -> bool:
        request = self._request.encode()
        with self.note.open("rb") as file:
            return file.read(len(request) + 1) == request

    def begin(self, keep: int | None) -> None:
        """Open the file: emptied, or cut to the bytes of an earlier run that are kept."""
        with self._noted(), writing(self.path):
            self._file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666), "rb+", buffering=0)
            self._end = keep or 0
            self._file.truncate(self._end)

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Put down the request, on a disk that has room for it, around what empties the file.

        Where there is no room, what the file held before stays; and no other request's answers are ever
        under this one's note.
        """
        if not self._resumable:
            yield
            return
        with replacing(self.note, locked=True) as part:
            part.write_bytes(self._request.encode())
            yield

    def append(self, data: bytearray) -> None:
        """Write at the end of what is known to be whole, and empty ``data``; on failure, cut back to that."""
        assert self._file is not None
        with writing(self.path):
            try:
                # at a place of our own: what an interrupt makes us write again lands where it was
                self._file.seek(self._end)
                rest = memoryview(bytes(data))
                while rest:
                    rest = rest[self._file.write(rest) :]
            except OSError:
                self._file.truncate(self._end)
                raise
        end = self._end + len(data)
        # no call between the two, hence no interrupt: both happen or neither
        self._end = end
        del data[:]

    def close(self) -> None:
        """Close the file, all of it on the disk."""
        assert self._file is not None
        with writing(self.path), self._file:
            os.fsync(self._file.fileno())

    def complete(self) -> None:
        """The request is answered: the note goes."""
        if self._resumable:
            with writing(self.note):
                self.note.unlink(missing_ok=True)
