"""Every error that nshot raises on purpose, one tree:

    NshotError
     ├─ RequestError              the request itself is wrong: nothing was answered (exit status 2)
     │   ├─ LabelError            a label is empty, given twice, or too long for the model
     │   ├─ TemplateError         a prompt template without a place for the label
     │   ├─ SourceError           what should list pictures cannot be listed
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
     └─ PictureError              one picture cannot be answered (the others are; exit status 1)
         ├─ UnreadablePicture     not there, or not to be read
         ├─ UndecodablePicture    read, but not a picture that can be decoded
         ├─ PictureTooLarge       more bytes or pixels than the limit
         └─ FetchError            a URL did not give a picture
             └─ ForbiddenAddress  a URL that points into a private network

A message says what is wrong, names the file or the label, and says what to do.
"""

from __future__ import annotations


class NshotError(Exception):
    """The root: ``except nshot.NshotError`` catches everything that nshot raises on purpose."""


class RequestError(NshotError):
    """The request itself is wrong, so nothing was answered."""


class LabelError(RequestError):
    """A label is empty, given twice, or too long for the model."""


class TemplateError(RequestError):
    """A prompt template without a place for the label."""


class SourceError(RequestError):
    """What should list pictures (a folder, an archive, a table) cannot be listed."""


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


class PictureError(NshotError):
    """One picture cannot be answered; the others are."""


class UnreadablePicture(PictureError):
    """A picture that is not there, or not to be read."""


class UndecodablePicture(PictureError):
    """Bytes that are not a picture, or a damaged one."""


class PictureTooLarge(PictureError):
    """More bytes or pixels than the limit."""


class FetchError(PictureError):
    """A URL did not give a picture."""


class ForbiddenAddress(FetchError):
    """A URL that points to an address which is not globally routable."""
