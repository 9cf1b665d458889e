"""Files of a model on the Hugging Face Hub: from the local cache, or downloaded into it.

All settings of huggingface_hub hold: HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE ...
A cached file is found by the cache's documented layout, without the client, whose import takes a third of
a second.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, TypeVar
from urllib.parse import unquote

from huggingface_hub import constants

from nshot.errors import CheckpointError, CheckpointNotFound, CorruptCheckpoint, HubUnavailable
from nshot.models.digests import file_digest

T = TypeVar("T")
Trouble: TypeAlias = Literal["gated", "absent", "revision", "name", "refused", "network"]

_PATIENCE = 4.0  # seconds for the first answer, name resolution included


class Pin(NamedTuple):
    """Where a repository's model.safetensors stands when its main has none, and what it must be."""

    revision: str
    sha256: str


PINS = {
    "openai/clip-vit-base-patch32": Pin(
        "refs/pr/15", "99d28a652e6ec46629ab7047a0ac82c69b1fe11e0ce672c43af65d3a9a3fc05d"
    ),
}


@dataclass(frozen=True)
class Repository:
    """One revision of a model on the Hub.

    Attributes:
        name: "owner/model".
        revision: a branch, a tag, a commit or a reference such as refs/pr/15.
        progress: draw the download of large files on stderr.
    """

    name: str
    revision: str = "main"
    progress: bool = False

    def files(self, *, cached: bool | None) -> HubFiles:
        """Its files: those in the cache, those that the Hub has now, or (None) either, the cache first."""
        return HubFiles(self, cached)

    def cached(self, file: str) -> Path | None:
        """The local copy of a file, or None. Asks nobody; a copy that is not the pinned one is removed."""
        revision, sha256 = self._place(file)
        path = self._snapshot(revision) / file
        if not path.is_file():
            return None
        if sha256 and file_digest(path) != sha256:
            _remove(path)
            return None
        return path

    def has_weights(self) -> bool:
        """Whether a file of weights is in the cache; asks nobody."""
        names = (
            "model.safetensors",
            "pytorch_model.bin",
            "open_clip_model.safetensors",
            "open_clip_pytorch_model.bin",
        )
        files = [name for single in names for name in (single, f"{single}.index.json")]
        return any((self._snapshot(self._place(file)[0]) / file).is_file() for file in files)

    def download(self, file: str) -> Path | None:
        """The file as the Hub has it now, fetched if need be, or None where the Hub has no such file.

        Raises:
            HubUnavailable: offline, or no answer; within 5 seconds if it is the first contact.
            CheckpointNotFound: no such repository or revision, or not for this user.
            CorruptCheckpoint: what came is not what was announced, or not the pinned file.
        """
        revision, sha256 = self._place(file)
        if constants.HF_HUB_OFFLINE:
            raise HubUnavailable(
                f"{self._state()}, and HF_HUB_OFFLINE is set. "
                "Unset it once to fetch the model, or give a folder that holds one."
            )
        try:
            return self._fetched(file, revision, sha256)
        except CorruptCheckpoint:
            raise
        except Exception as error:
            raise self._translated(error, file, revision) from error

    def _place(self, file: str) -> tuple[str, str | None]:
        """The revision to take a file from, and its digest where that is pinned."""
        pin = PINS.get(self.name)
        if pin and file == "model.safetensors" and self.revision == "main":
            return pin
        return self.revision, None

    def _snapshot(self, revision: str) -> Path:
        root = Path(constants.HF_HUB_CACHE) / f"models--{self.name.replace('/', '--')}"
        reference = root / "refs" / revision
        commit = reference.read_text().strip() if reference.is_file() else revision
        return root / "snapshots" / commit

    def _state(self) -> str:
        kind = "is only partly cached" if self._snapshot(self.revision).is_dir() else "is not cached"
        return f"{self.name} {kind} on this machine"

    def _fetched(self, file: str, revision: str, sha256: str | None) -> Path | None:
        # hf_hub_download repeats a failing first contact for half a minute, and none of its timeouts covers
        # name resolution: ask once, with a limit, before
        changed = constants.HF_HUB_ETAG_TIMEOUT != constants.DEFAULT_ETAG_TIMEOUT
        patience = float(constants.HF_HUB_ETAG_TIMEOUT) if changed else _PATIENCE
        try:
            within(patience, lambda: self._contact(file, revision, patience))
            from huggingface_hub import hf_hub_download

            with _chatter(self.progress and not file.endswith((".json", ".txt"))):
                path = Path(hf_hub_download(self.name, file, revision=revision))
        except FileNotFoundError:  # the client's LocalEntryNotFoundError, which is an EntryNotFoundError too
            raise
        except Exception as error:
            from huggingface_hub.errors import EntryNotFoundError

            if isinstance(error, EntryNotFoundError):
                return None
            raise
        expected = sha256 or _announced(path)
        if expected and file_digest(path) != expected:
            _remove(path)
            raise CorruptCheckpoint(
                f"{file} of {self.name} ({revision}) is not what it should be: its sha256 is not {expected}. "
                "The download was removed. Try again; if it stays so, do not use this source."
            )
        return path

    def _contact(self, file: str, revision: str, timeout: float) -> None:
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        get_hf_file_metadata(hf_hub_url(self.name, file, revision=revision), timeout=timeout)

    def _translated(self, error: Exception, file: str, revision: str) -> CheckpointError:
        """What an error of huggingface_hub, or of what it stands on, means to the user."""
        kind, reason = trouble(error)
        login = "log in with `hf auth login` or set HF_TOKEN"
        said = {
            "gated": f"{self.name} is gated: accept its terms at {constants.ENDPOINT}/{self.name}, "
            f"then {login}.",
            "absent": f"no model {self.name} on the Hub ({constants.ENDPOINT}), and no such folder here. "
            f"If it is private, {login}.",
            "revision": f"{self.name} has no revision {revision}.",
            "name": f"{self.name} is neither a folder nor a model's name on the Hub.",
            "refused": f"the Hub refuses {self.name} to you ({reason}): {login}.",
        }
        if kind in said:
            return CheckpointNotFound(said[kind])
        return HubUnavailable(
            f"{self._state()}, and {file} cannot be fetched from {constants.ENDPOINT} ({reason}). "
            "Check the network and HF_ENDPOINT and try again, or give a folder that holds the model."
        )


def trouble(error: Exception) -> tuple[Trouble, str]:
    """What kind of trouble an error of huggingface_hub (or of what it stands on) is, and its reason."""
    from huggingface_hub import errors

    status = error.response.status_code if isinstance(error, errors.HfHubHTTPError) else None
    kinds: tuple[tuple[type[Exception], Trouble], ...] = (
        (errors.GatedRepoError, "gated"),
        (errors.RepositoryNotFoundError, "absent"),
        (errors.RevisionNotFoundError, "revision"),
        (errors.HFValidationError, "name"),
    )
    if status in (401, 403) and not isinstance(error, tuple(kind for kind, _ in kinds)):
        return "refused", str(status)
    reason = str(error.__cause__ or error).strip().partition("\n")[0] or type(error).__name__
    return next((name for kind, name in kinds if isinstance(error, kind)), "network"), reason


class HubFiles:
    """Files of a repository; see ``nshot.models.files.Files``."""

    def __init__(self, repository: Repository, cached: bool | None) -> None:
        self.repository = repository
        self._cached = cached

    def __call__(self, name: str) -> Path | None:
        """See ``Files``."""
        if self._cached is not False and (path := self.repository.cached(name)):
            return path
        return None if self._cached else self.repository.download(name)

    def elsewhere(self, repository: str) -> HubFiles:
        """See ``Files``."""
        return Repository(repository, progress=self.repository.progress).files(cached=self._cached)


def named(text: str) -> tuple[str, str | None]:
    """A repository and perhaps a revision, of an id, of open_clip's "hf-hub:" or of a page's address."""
    text = text.removeprefix("hf-hub:")
    match = re.fullmatch(
        r"(?:hf://|(?:https?://)?(?:www\.)?(?:huggingface\.co|hf\.co)/|"
        + re.escape(constants.ENDPOINT.rstrip("/"))
        + r"/)([\w.-]+/[\w.-]+)(?:/(?:tree|blob|resolve|commit)/([^?#]+?))?/?(?:[?#].*)?",
        text,
    )
    if not match:
        return text, None
    revision = match[2] and unquote(match[2])
    if revision and not revision.startswith("refs/"):
        revision = revision.partition("/")[0]
    return match[1], revision


def is_name(text: str) -> bool:
    """Whether a text could name a model on the Hub: "owner/model" or, for some old ones, "model"."""
    return re.fullmatch(r"(\w[\w.-]*/)?\w[\w.-]*", text, re.ASCII) is not None and ".." not in text


def _announced(path: Path) -> str | None:
    """The sha256 by which the Hub announced a large file: the cache names its copy so."""
    name = path.readlink().name if path.is_symlink() else ""
    return name if re.fullmatch(r"[0-9a-f]{64}", name) else None


def _remove(path: Path) -> None:
    """Take a file out of the cache: its place in the snapshot, and the copy behind that."""
    copy = path.resolve()
    path.unlink(missing_ok=True)
    copy.unlink(missing_ok=True)


def within(seconds: float, call: Callable[[], T]) -> T:
    """The call's result or error, or TimeoutError; a call that hangs is left behind."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(call())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True, name="nshot-hub").start()
    try:
        return answer.result(seconds)
    except TimeoutError as error:
        raise TimeoutError(f"no answer within {seconds:g} s") from error


def under_way(name: str) -> int | None:
    """Bytes that a download of a Hub model has brought so far; None where none is under way."""
    blobs = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "blobs"
    parts = list(blobs.glob("*.incomplete"))
    sizes = []
    for part in parts:
        with contextlib.suppress(OSError):  # just finished
            stat = part.stat()
            sizes.append(min(stat.st_size, getattr(stat, "st_blocks", stat.st_size) * 512))
    return sum(sizes) if sizes else None


@contextlib.contextmanager
def _chatter(allowed: bool) -> Iterator[None]:
    """Let huggingface_hub draw and warn on stderr, or not."""
    from huggingface_hub import utils as untyped

    utils: Any = untyped
    if allowed:
        yield
        return
    level = utils.logging.get_verbosity()
    bars = constants.HF_HUB_DISABLE_PROGRESS_BARS is None and not utils.are_progress_bars_disabled()
    utils.logging.set_verbosity_error()
    if bars:
        utils.disable_progress_bars()
    try:
        yield
    finally:
        utils.logging.set_verbosity(level)
        if bars:
            utils.enable_progress_bars()
