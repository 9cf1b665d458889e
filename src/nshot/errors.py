"""Every error that nshot raises on purpose, one tree:

    NshotError
     ├─ RequestError              the request itself is wrong: nothing was answered (exit status 2)
     │   ├─ LabelError            a label is empty, given twice, or too long for the model
     │   ├─ TemplateError         a prompt template without a place for the label
     │   ├─ SourceError           what should list images cannot be listed
     │   ├─ OutputError           the answers cannot be written where they should go
     │   ├─ StoreError            the vector store cannot be used
     │   ├─ MissingExtra          an optional dependency is not installed
     │   ├─ TrainingDiverged      training went wrong and was stopped; the last good state is kept
     │   ├─ DeviceError           the device or the precision asked for is not there
     │   └─ CheckpointError       a model cannot be used
     │       ├─ CheckpointNotFound       no such folder, repository, revision or file
     │       ├─ HubUnavailable           not cached here, and the Hub cannot be reached
     │       ├─ CorruptCheckpoint        a file is damaged, incomplete, or not the one pinned
     │       ├─ UnsafeCheckpoint         a pickle wants to run something
     │       └─ UnsupportedArchitecture  a model that nshot does not know
     └─ ImageError              one image cannot be answered (the others are; exit status 1)
         ├─ UnreadableImage     not there, or not to be read
         ├─ UndecodableImage    read, but not an image that can be decoded
         ├─ ImageTooLarge       more bytes or pixels than the limit
         └─ FetchError            a URL did not give an image
             └─ ForbiddenAddress  a URL that points into a private network

A message says what is wrong, names the file or the label, and says what to do.
"""

from __future__ import annotations

NONSENSE = (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError)
"""What content of other types, sizes or depth than it should be ends in, in whatever way it is used."""

_BEARABLE = 1200  # characters of a message
_ENDING = 300  # of them its end


def brief(error: BaseException) -> str:
    """What an error of a library's says, on one line of bearable length."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    said = " ".join(reason[:2000].split())
    return said if 0 < len(said) <= 160 else f"{said[:160]}..." if said else type(error).__name__


def bearable(name: str) -> str:
    """A name as it is where that is one line of bearable length; else its beginning, with escapes."""
    return name if len(name) <= 300 and name.isprintable() else repr(name[:200])[1:-1] + "..."


class NshotError(Exception):
    """The root: ``except nshot.NshotError`` catches everything that nshot raises on purpose.

    Its message is one line of bearable length, whatever the names and texts are that it repeats.
    """

    def __init__(self, message: object = "") -> None:
        said = str(message).replace("\r", "\\r").replace("\n", "\\n")
        if len(said) > _BEARABLE:  # what is wrong is at the beginning, what to do at the end
            said = f"{said[: _BEARABLE - _ENDING]}...{said[-_ENDING:]}"
        super().__init__(said)


class RequestError(NshotError):
    """The request itself is wrong, so nothing was answered."""


class LabelError(RequestError):
    """A label is empty, given twice, or too long for the model."""


class TemplateError(RequestError):
    """A prompt template without a place for the label."""


class SourceError(RequestError):
    """What should list images (a folder, an archive, a table) cannot be listed."""


class OutputError(RequestError):
    """The answers cannot be written where they should go."""


class StoreError(RequestError):
    """The vector store cannot be used."""


class MissingExtra(RequestError):
    """An optional dependency is not installed; the message holds the command that installs it."""


class TrainingDiverged(RequestError):
    """Training went wrong and was stopped; the message says where the last good state is kept."""


class DeviceError(RequestError):
    """The device or the precision asked for is not there."""


class CheckpointError(RequestError):
    """A model cannot be used."""


class CheckpointNotFound(CheckpointError):
    """No such folder, repository, revision or file."""


class HubUnavailable(CheckpointError):
    """The model is not cached here, and the Hub cannot be reached."""


class CorruptCheckpoint(CheckpointError):
    """A file of the model is damaged, incomplete, or not the one that is pinned."""


class UnsafeCheckpoint(CheckpointError):
    """A pickled file of the model wants to run something; nshot never does."""


class UnsupportedArchitecture(CheckpointError):
    """A model that nshot does not know."""


class ImageError(NshotError):
    """One image cannot be answered; the others are."""


class UnreadableImage(ImageError):
    """An image that is not there, or not to be read."""


class UndecodableImage(ImageError):
    """Bytes that are not an image, or a damaged one."""


class ImageTooLarge(ImageError):
    """More bytes or pixels than the limit."""


class FetchError(ImageError):
    """A URL did not give an image."""


class ForbiddenAddress(FetchError):
    """A URL that points to an address which is not globally routable."""
