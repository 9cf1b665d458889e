"""Images that are files of a data set on the Hugging Face Hub: ``hf://datasets/owner/name[@revision]/folder/``.

They are listed at once and downloaded into the Hub's own cache when they are read.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from nshot.bounded import parsed, weight
from nshot.errors import FetchError, ImageTooLarge, SourceError, UnreadableImage, brief
from nshot.images.kinds import left_behind, no_image
from nshot.images.remarks import Remarks
from nshot.types import DEFAULT_LIMITS

PREFIX = "hf://datasets/"
_PATIENCE = 10.0  # seconds for the next part of the list of files
_LONGEST = 120.0  # seconds for all of it
_MOST_BYTES = 2**27  # of it: a million files take about 60 MB


class Place(NamedTuple):
    """A file or a folder of a data set.

    Attributes:
        repository: "owner/name".
        revision: branch, tag or commit; None: the main one.
        path: within the repository.
    """

    repository: str
    revision: str | None
    path: str

    @classmethod
    def of(cls, url: str) -> Place:
        """The place that a URL says.

        Raises:
            SourceError: it names no data set.
        """
        owner, _, rest = url.removeprefix(PREFIX).partition("/")
        name, _, path = rest.partition("/")
        name, _, revision = name.partition("@")
        if not owner or not name:
            raise SourceError(f"{url} names no data set: write {PREFIX}OWNER/NAME/FOLDER/")
        return cls(f"{owner}/{name}", revision.replace("%2F", "/") or None, path)

    def url(self, path: str) -> str:
        """The URL of another file in the same data set."""
        at = "" if self.revision is None else "@" + self.revision.replace("/", "%2F")
        return f"{PREFIX}{self.repository}{at}/{path}"


def is_hub(name: object) -> bool:
    """Whether a name is a place in a data set on the Hub."""
    return isinstance(name, str) and name.startswith(PREFIX)


def listed(url: str, remarks: Remarks, *, strict: bool = False) -> Iterator[tuple[str, int, str | None]]:
    """The images in a folder, by name: URL, what changes whenever the data set does, and why it is no image.

    Raises:
        SourceError: there is no such data set or folder, or the Hub cannot be reached.
    """
    place = Place.of(url)
    try:
        files, commit = files_of(place.repository, place.revision or "main", _PATIENCE)
    except Exception as error:  # whatever the client runs into, the list cannot be had
        raise SourceError(f"{url} cannot be listed: {brief(error)}") from error
    below = f"{place.path.rstrip('/')}/" if place.path else ""
    files.sort()
    wanted = [file for file in files if file == place.path or file.startswith(below)]
    if not wanted:
        raise SourceError(f"{url}: the data set has no such file or folder")
    return _images(place, wanted, commit, remarks, strict=strict)


def files_of(name: str, revision: str, patience: float) -> tuple[list[str], str]:
    """All files of a data set at a revision, and the commit that this is.

    Args:
        name: "owner/name".
        revision: a branch, a tag or a commit.
        patience: seconds to wait for the Hub, each time that it is waited for.

    Raises:
        SourceError: the list is longer than any that can be used.
        Exception: whatever the Hub's client raises.
    """
    from huggingface_hub import constants
    from huggingface_hub import utils as untyped

    utils: Any = untyped
    utils.validate_repo_id(name)
    url = f"{constants.ENDPOINT}/api/datasets/{name}/revision/{quote(revision, safe='')}"
    headers = utils.build_hf_headers() | {"accept-encoding": "identity"}  # packed, it could be of any length
    until = time.monotonic() + _LONGEST
    body = io.BytesIO()
    with utils.get_session().stream("GET", url, headers=headers, timeout=patience) as answer:
        utils.hf_raise_for_status(answer)
        for block in answer.iter_raw():
            body.write(block)
            if body.tell() > _MOST_BYTES:
                raise SourceError(f"its list of files has more than {_MOST_BYTES / 1e6:,.0f} MB")
            if time.monotonic() > until:
                raise TimeoutError(f"its list of files takes longer than {_LONGEST:g} s")
    data = body.getvalue()
    if weight([data]) > DEFAULT_LIMITS.memory:
        raise SourceError("its list of files takes more memory than there is for it")
    told = parsed(data)
    files = [str(file["rfilename"]) for file in told.get("siblings") or ()]
    return files, str(told.get("sha") or "")


def _images(
    place: Place, files: list[str], commit: str, remarks: Remarks, *, strict: bool
) -> Iterator[tuple[str, int, str | None]]:
    for file in files:
        parts = file.split("/")
        if any(part.startswith(".") or left_behind(part) for part in parts):
            continue
        kind = no_image(file)
        if kind is not None and not strict:
            remarks.skipped.kinds[kind] += 1
            continue
        mark = int.from_bytes(hashlib.sha256(f"{commit} {file}".encode()).digest()[:7], "big")
        yield place.url(file), mark, kind


def read(url: str, max_bytes: int, *, before_more: tuple[int, Callable[[], object]] | None = None) -> bytes:
    """The bytes of a file, from the Hub's cache or downloaded into it.

    Args:
        url: which.
        max_bytes: the most to take.
        before_more: (bytes, what to call once before more than these are held).

    Raises:
        ImageTooLarge: more than max_bytes.
        UnreadableImage: there is no such file.
        FetchError: it could not be had.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    place = Place.of(url)
    try:
        path = Path(
            hf_hub_download(place.repository, place.path, repo_type="dataset", revision=place.revision)
        )
        size = os.stat(path).st_size  # noqa: PTH116
        if size > max_bytes:
            raise ImageTooLarge(f"{size:,} bytes are more than the limit of {max_bytes:,} bytes")
        if before_more is not None and size > before_more[0]:
            before_more[1]()
        return path.read_bytes()
    except ImageTooLarge:
        raise
    except LocalEntryNotFoundError as error:
        raise FetchError("the Hub cannot be reached, and it is not cached") from error
    except EntryNotFoundError as error:
        raise UnreadableImage("the data set has no such file") from error
    except Exception as error:
        raise FetchError(f"the Hub gave no answer: {brief(error)}") from error
