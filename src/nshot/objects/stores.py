"""A URL of an object store -> the store, one object's bytes, a listing; foreign errors end here."""

from __future__ import annotations

import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import lru_cache
from queue import SimpleQueue
from typing import Any, NamedTuple

from nshot.errors import RequestError
from nshot.extras import obstore
from nshot.objects import settings

SCHEMES = ("s3", "gs", "az")

_READ_TIMEOUT = "10s"  # without a byte
_PATIENCE = 30  # seconds in which a request is tried again
_PAGE = 1000  # names asked for at once: what the stores give at most
_UNSAYABLE = re.compile(r'(?:invalid path|parse path): .*?Path "(.*?)"(?: contained|:)', re.DOTALL)
_REFUSED = {
    "ExpiredToken": "the credentials have expired: renew them, and run it again",
    "InvalidAccessKeyId": "the store does not know these credentials",
    "SignatureDoesNotMatch": "the store does not accept the secret key of these credentials",
    "RequestTimeTooSkewed": "the clock of this machine is wrong, which the store refuses: set it",
}


class StoreFailure(Exception):
    """A store did not do what was asked of it.

    Attributes:
        kind: "missing", "denied", "changed", "exists", "name" (obstore cannot say the name of an object), or
            "failed".
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class Meta(NamedTuple):
    """What a store says of an object.

    Attributes:
        key: its name within the bucket.
        size: bytes.
        mark: a number that changes whenever the object does (of its ETag and time), never negative.
        tag: its ETag, where it has one.
    """

    key: str
    size: int
    mark: int
    tag: str | None


class Place(NamedTuple):
    """An address in a store.

    Attributes:
        scheme: one of ``SCHEMES``.
        bucket: the bucket, or Azure's container.
        key: the object, or the beginning of the names in a folder; "" for the whole bucket.
    """

    scheme: str
    bucket: str
    key: str

    @classmethod
    def of(cls, url: str) -> Place:
        """The address that a URL says; the key is taken as it stands, nothing in it is unquoted.

        Raises:
            RequestError: it names no bucket.
        """
        scheme, _, rest = url.partition("://")
        bucket, _, key = rest.partition("/")
        if not bucket:
            raise RequestError(f"{url} names no bucket: write {scheme}://BUCKET/NAME")
        return cls(scheme.lower(), bucket, key)

    def url(self, key: str) -> str:
        """The URL of another object in the same bucket."""
        return f"{self.scheme}://{self.bucket}/{key}"

    @property
    def store(self) -> Any:
        """The store, made once in a process.

        Raises:
            RequestError: its settings are wrong.
            MissingExtra: obstore is not installed.
        """
        return _store(self.scheme, self.bucket, os.getpid())

    def head(self) -> Meta:
        """What the store says of the object.

        Raises:
            StoreFailure: it is not there, or not to be read.
        """
        with asking(self):
            return _meta(answered(obstore().head, self.store, self.key))

    def read(
        self,
        max_bytes: int,
        too_large: Callable[[int], Exception],
        before_more: tuple[int, Callable[[], object]] | None = None,
        told: Callable[[Meta], object] = lambda _: None,
    ) -> bytes:
        """All of the object, in one request; a body that is cut off is asked for again from there.

        Args:
            max_bytes: the most to read; the size is known before the body comes.
            too_large: the error for an object of more bytes.
            before_more: (bytes, what to call once before more than these are held).
            told: called with what the store says of the version that is read.

        Raises:
            StoreFailure: it is not there, not to be read, or did not come.
        """
        with asking(self):
            answer = obstore().get(self.store, self.key)
            size = answer.meta["size"]
            told(_meta(answer.meta))
            if size > max_bytes:
                raise too_large(size)
            if before_more is not None and size > before_more[0]:
                before_more[1]()
            data = bytes(answer.bytes())
        if len(data) != size:
            raise StoreFailure("failed", f"cut off after {len(data):,} of {size:,} bytes")
        return data

    def read_range(self, start: int, end: int, tag: str | None) -> bytes:
        """The object's bytes from one place up to another, of the version with this ETag.

        Raises:
            StoreFailure: as ``read``; or the object has changed meanwhile.
        """
        options: dict[str, Any] = {"range": (start, end)}
        if tag is not None:
            options["if_match"] = tag
        with asking(self):
            answer = answered(obstore().get, self.store, self.key, options=options)
            data = bytes(answered(answer.bytes))
        if len(data) != end - start:
            raise StoreFailure("failed", f"cut off after {start + len(data):,} bytes")
        return data

    def listing(self, after: str | None = None) -> Iterator[Meta]:
        """The objects below the key, as below a folder, by name, in pages.

        Args:
            after: only those whose key comes after this one.

        Raises:
            StoreFailure: the bucket is not there, or cannot be listed.
        """
        prefix = self.key.rstrip("/")
        with asking(self):
            pages = iter(obstore().list(self.store, prefix=prefix or None, offset=after, chunk_size=_PAGE))
        while True:
            with asking(self):
                page = answered(next, pages, None)
            if page is None:
                return
            yield from map(_meta, page)

    def level(self) -> tuple[list[str], list[Meta]]:
        """What lies right below the key, as in a folder: the names of the folders, and the objects.

        Raises:
            StoreFailure: the bucket is not there, or cannot be listed.
        """
        prefix = self.key.rstrip("/")
        with asking(self):
            found = answered(obstore().list_with_delimiter, self.store, prefix=prefix or None)
        folders = sorted(each.rstrip("/").rpartition("/")[2] for each in found["common_prefixes"])
        return folders, sorted(map(_meta, found["objects"]))


def is_object_url(name: object) -> bool:
    """Whether a name is a URL of an object store."""
    return isinstance(name, str) and name[:5].lower().startswith(tuple(f"{each}://" for each in SCHEMES))


@contextmanager
def asking(place: Place) -> Iterator[None]:
    """Within it, what goes wrong with a store is a StoreFailure."""
    errors = obstore().exceptions
    try:
        yield
    except (errors.BaseError, OSError, ValueError) as error:
        raise _failure(place, error) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise StoreFailure("failed", f"obstore gave up: {_short(str(error))}") from error


def answered(ask: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    """What a call of obstore's answers, during which Ctrl-C is heard.

    Python hears signals in its first thread alone, and only when a call that waits outside of Python returns.
    """
    if threading.current_thread() is not threading.main_thread():
        return ask(*arguments, **named)
    said: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

    def call() -> None:
        try:
            said.put((ask(*arguments, **named), None))
        except BaseException as error:
            said.put((None, error))

    threading.Thread(target=call, name="nshot-store", daemon=True).start()
    answer, error = said.get()
    if error is not None:
        raise error
    return answer


def _failure(place: Place, error: Exception) -> StoreFailure:
    """What is told of obstore's error."""
    errors, said = obstore().exceptions, " ".join(str(error).split())
    if settings.METADATA in said:
        known, public = settings.CREDENTIALS[place.scheme], settings.PUBLIC[place.scheme]
        message = f"this machine has no role to ask with: set {known}; or {public} for what anybody may read"
        return StoreFailure("denied", message)
    if "NoSuchBucket" in said or "ContainerNotFound" in said:
        return StoreFailure("missing", f"there is no bucket {place.bucket}, or not in this region")
    if isinstance(error, FileNotFoundError):
        return StoreFailure("missing", f"there is no object {place.url(place.key)}")
    if (name := _UNSAYABLE.search(str(error))) is not None:
        return StoreFailure("name", unsayable(name[1]))
    if (why := _refused(said)) is not None:
        return StoreFailure("denied", why)
    if isinstance(error, (errors.PermissionDeniedError, errors.UnauthenticatedError)) or any(
        each in said for each in ("403 Forbidden", "AccessDenied")
    ):
        return StoreFailure("denied", f"the store denies access{_without_credentials(place)}")
    if isinstance(error, errors.PreconditionError):
        return StoreFailure("changed", "the object was changed while it was read")
    if isinstance(error, errors.AlreadyExistsError):
        return StoreFailure("exists", "it is there already")
    if "301 Moved" in said or "PermanentRedirect" in said:
        return StoreFailure("failed", f"the bucket {place.bucket} is in another region: set AWS_REGION to it")
    return StoreFailure("failed", f"the store gave no answer{_at(place)}: {_short(said)}")


def _at(place: Place) -> str:
    """Where a store is asked, if that is not where its company has it."""
    endpoint = settings.of(place.scheme).endpoint
    return f" at {endpoint}" if endpoint else ""


def unsayable(name: str) -> str:
    """What is said of an object, or of many, whose name obstore cannot say to a store."""
    return (
        f"the name {name!r} has an empty part between slashes, a dot as a part or a control character, which "
        "obstore cannot ask for: rename what is called so"
    )


def _refused(said: str) -> str | None:
    """Why a store refuses what it would else allow, where it says so."""
    for code, why in _REFUSED.items():
        if code in said:
            return why
    return None


def _short(said: str) -> str:
    """The part of obstore's message that tells what happened, without its debugging output."""
    said = said.partition("Debug source:")[0].strip()
    _, found, rest = said.partition(" - ")
    said = rest if found else said
    return said if len(said) <= 200 else f"{said[:200]}..."


def _without_credentials(place: Place) -> str:
    if settings.of(place.scheme).given.get("skip_signature"):
        return f" without credentials: set {settings.CREDENTIALS[place.scheme]}"
    return ""


def _meta(found: Any) -> Meta:
    tag, modified = found["e_tag"], found["last_modified"]
    # whole seconds: a listing may tell parts of them, and an answer to a read does not
    told = f"{tag} {int(modified.timestamp()) if modified is not None else ''}".encode()
    return Meta(
        found["path"], found["size"], int.from_bytes(hashlib.sha256(told).digest()[:7], "big"), tag or None
    )


@lru_cache(maxsize=64)
def _store(scheme: str, bucket: str, _process: int) -> Any:
    library = obstore()
    said = settings.of(scheme)
    client: dict[str, Any] = {
        "connect_timeout": "5s",
        "read_timeout": _READ_TIMEOUT,
        "timeout": "300s",
        "user_agent": "nshot",
    }
    if said.plain:
        client["allow_http"] = True
    # Eight tries of what is refused at once, for half a minute: of what hangs that is three tries.
    retries = {
        "max_retries": 8,
        "retry_timeout": timedelta(seconds=_PATIENCE),
        "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=8), "base": 2},
    }
    try:
        return library.store.from_url(
            f"{scheme}://{bucket}", client_options=client, retry_config=retries, **said.given
        )
    except (library.exceptions.BaseError, ValueError, OSError, TypeError) as error:
        raise RequestError(f"{scheme}://{bucket}: {_short(' '.join(str(error).split()))}") from error
