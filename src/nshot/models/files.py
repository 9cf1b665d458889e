"""The files of a checkpoint, as the layouts of the Hub name them, and their settings."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NotRequired, Protocol, TypedDict

from nshot import errors
from nshot.bounded import parsed, weight
from nshot.errors import CorruptCheckpoint, NshotError, UnsupportedArchitecture, brief
from nshot.models.ops import Gelu

_GELUS: dict[str, Gelu] = {
    "quick_gelu": "quick_gelu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",  # the same formula
    "gelu_fast": "gelu_tanh",
}

NONSENSE = (*errors.NONSENSE, AssertionError)
"""What settings of other types than they should be lead to, in whatever way they are used."""

LARGEST = 2**26  # bytes: an index of a thousand shards has a hundredth of it
_HEAVIEST = 2**29  # bytes of memory: small lists take thirty times their text

# The most that a setting may be, by what its name contains. Time and memory grow with each of these.
_MOST = {
    "vocab": 10**8,
    "layers": 1000,
    "heads": 10_000,
    "depth": 1000,
    "image_size": 10_000,
    "patch_size": 10_000,
    "crop_size": 10_000,
    "edge": 10_000,
    "height": 10_000,
    "width": 1_000_000,
    "hidden_size": 1_000_000,
    "position": 100_000,
    "context": 100_000,
}


TRANSFORMERS_WEIGHTS: tuple[str, ...] = (
    "model.safetensors",
    "pytorch_model.bin",
    "model.fp16.safetensors",
    "pytorch_model.fp16.bin",
)


class Files(Protocol):
    """The files of one checkpoint."""

    def __call__(self, name: str) -> Path | None:
        """A file, fetched if need be; None where there is no such file."""

    def elsewhere(self, repository: str) -> Files:
        """The files of another repository of the Hub."""


class Folder:
    """The files of a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str) -> Path | None:
        """See ``Files``."""
        path = self.folder / name
        return path if path.is_file() else None

    def elsewhere(self, repository: str) -> Files:
        """See ``Files``: from the cache if it is there."""
        from nshot.models import hub

        return hub.Repository(repository).files(cached=None)


class Inside:
    """The files of a folder among those of a checkpoint, and where it lacks one, those above."""

    def __init__(self, files: Files, folder: str) -> None:
        self._files = files
        self._folder = folder

    @classmethod
    def of(cls, files: Files, folder: str) -> Files:
        """The files themselves where the folder has no name."""
        return cls(files, folder) if folder else files

    def __call__(self, name: str) -> Path | None:
        """See ``Files``."""
        return self._files(self._folder + name) or self._files(name)

    def elsewhere(self, repository: str) -> Files:
        """See ``Files``."""
        return self._files.elsewhere(repository)


class TokenizerFiles(TypedDict):
    """What a tokenizer is made from: tokenizer.json, else vocab.json and merges.txt, else spiece.model."""

    tokenizer_json: Path | None
    vocab: Path | None
    merges: Path | None
    spiece: NotRequired[Path]


def read_json(path: Path, kind: type[Any] = dict) -> Any:
    """A table of settings, or a list.

    Raises:
        CorruptCheckpoint: it is not one.
    """
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"more than {LARGEST:,} bytes")
        content = settings_of(path.read_bytes())
    except ValueError as error:
        raise CorruptCheckpoint(f"{path} is not JSON: {brief(error)}. Fetch it again.") from error
    if not isinstance(content, kind):
        raise CorruptCheckpoint(f"{path} should be a table of settings.")
    _check_numbers(content, path)
    return content


def settings_of(text: bytes) -> Any:
    """What JSON says that is a part of a model.

    Raises:
        ValueError: it is none, is nested too deeply, or takes more memory than any model's.
    """
    if (heavy := weight([text])) > _HEAVIEST:
        raise ValueError(f"reading it would take about {heavy / 1e6:,.0f} MB")
    return parsed(text)


@contextmanager
def sensible(path: Path) -> Iterator[None]:
    """Whatever settings of other types than they should be lead to is one line that names their file.

    Raises:
        CorruptCheckpoint: a setting makes no sense.
    """
    try:
        yield
    except NshotError:
        raise
    except NONSENSE as error:
        raise CorruptCheckpoint(
            f"{path} holds a setting that makes no sense ({brief(error)}). Fetch it again."
        ) from error


@contextmanager
def spelling(file: Path | str) -> Iterator[None]:
    """Whatever the tokenizers package runs into is one line that names the file.

    It raises no narrower error than Exception, and what panics in its Rust is not even that.

    Raises:
        CorruptCheckpoint: the file is damaged.
    """
    try:
        yield
    except NshotError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise CorruptCheckpoint(f"{file} is missing or damaged: {brief(error)}. Fetch it again.") from error


def _check_numbers(settings: Any, where: Path, name: str = "") -> None:
    """Refuse a number that no model has, before anything of its size is made."""
    if isinstance(settings, Mapping):
        for key, value in settings.items():
            _check_numbers(value, where, str(key))
    elif isinstance(settings, list):
        for value in settings[:100]:
            _check_numbers(value, where, name)
    elif isinstance(settings, (int, float)) and "max_length" not in name:  # which says 10^30 for none
        most = next((most for part, most in _MOST.items() if part in name), math.inf)
        small = isinstance(settings, float) or settings.bit_length() < 64
        if not small or not math.isfinite(settings) or settings > most:
            shown = settings if small else "a number of more than 64 bits"
            raise CorruptCheckpoint(f"{where}: {name or 'a setting'} is {shown}, which no model has.")


def image_processor(files: Files) -> Mapping[str, Any] | None:
    """The image processor's settings."""
    path = processor_file(files)
    if path is None:
        return None
    settings: Mapping[str, Any] = read_json(path)
    return settings["image_processor"] if path.name == "processor_config.json" else settings


def processor_file(files: Files) -> Path | None:
    """Where the image processor's settings are. As transformers does: of two files, the newer form counts."""
    newer = files("processor_config.json")
    if newer is not None and isinstance(read_json(newer).get("image_processor"), dict):
        return newer
    return files("preprocessor_config.json")


def vocabulary(files: Files) -> TokenizerFiles | None:
    """The tokenizer's files."""
    files("tokenizer_config.json")  # for the tokenizer, which looks beside its own file
    if tokenizer_json := files("tokenizer.json"):
        return TokenizerFiles(tokenizer_json=tokenizer_json, vocab=None, merges=None)
    vocab, merges = files("vocab.json"), files("merges.txt")
    if vocab and merges:
        return TokenizerFiles(tokenizer_json=None, vocab=vocab, merges=merges)
    if spiece := files("spiece.model"):
        return TokenizerFiles(tokenizer_json=None, vocab=None, merges=None, spiece=spiece)
    return None


def section(config: Mapping[str, Any], name: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """One tower's settings. As in transformers, a ``text_config_dict`` replaces all of ``text_config``."""
    override = config.get(f"{name}_dict")
    given = (config.get(name) or {}) if override is None else override
    return dict(defaults) | {key: given[key] for key in defaults if given.get(key) is not None}


def tower(settings: Mapping[str, Any], where: str) -> dict[str, Any]:
    """What every tower of transformers' layout says of itself."""
    activation = settings["hidden_act"]
    if activation not in _GELUS:
        raise UnsupportedArchitecture(
            f"{where}: the activation {activation}; nshot knows {', '.join(_GELUS)}."
        )
    return {
        "hidden_size": int(settings["hidden_size"]),
        "intermediate_size": int(settings["intermediate_size"]),
        "layers": int(settings["num_hidden_layers"]),
        "heads": int(settings["num_attention_heads"]),
        "activation": _GELUS[activation],
        "layer_norm_eps": float(settings["layer_norm_eps"]),
    }


def side(size: Any, where: str) -> int:
    """The side of a square, which may be written as [height, width]."""
    height, width = size if isinstance(size, list) else (size, size)
    if height != width:
        raise UnsupportedArchitecture(f"{where}: {height} x {width}; nshot knows square images and patches.")
    return int(height)
