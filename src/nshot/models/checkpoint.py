"""A Hub id or a folder -> a checkpoint: its config, and its files, found and checked."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias, TypedDict

from nshot.errors import CheckpointNotFound, CorruptCheckpoint, UnsupportedArchitecture
from nshot.models.clip import ClipConfig
from nshot.models.digests import file_digest
from nshot.models.weights import Tensors
from nshot.types import Floats

Mean: TypeAlias = tuple[float, float, float]

DEFAULT_MODEL = "openai/clip-vit-base-patch32"

BUILT_IN = {"sketchbook": Path(__file__).parents[1] / "sketchbook" / "checkpoint"}
"""Models that come with nshot."""

# what transformers' CLIPImageProcessor assumes where a preprocessor_config.json is silent
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


class TokenizerFiles(TypedDict):
    """What a tokenizer is made from: tokenizer.json, else vocab.json and merges.txt."""

    tokenizer_json: Path | None
    vocab: Path | None
    merges: Path | None


@dataclass(frozen=True)
class Checkpoint:
    """A CLIPModel checkpoint on this machine; made by ``find``.

    Attributes:
        name: as the user gave it: a Hub id or a folder.
        folder: where config.json is.
        revision: the commit, for a model of the Hub.
        config: sizes of the model.
        preprocessor: the image processor's settings, in the form of 2021 or of now.
        weights: the files that hold the tensors, as many as there are shards.
        tokenizer: the tokenizer's files.
    """

    name: str
    folder: Path
    revision: str | None
    config: ClipConfig
    preprocessor: dict[str, Any]
    weights: tuple[Path, ...]
    tokenizer: TokenizerFiles

    @property
    def image_mean(self) -> Mean:
        """What is taken from each channel's value in [0, 1]."""
        return self._normalisation("image_mean", _MEAN, (0.0, 0.0, 0.0))

    @property
    def image_std(self) -> Mean:
        """What the rest is divided by."""
        return self._normalisation("image_std", _STD, (1.0, 1.0, 1.0))

    @property
    def logit_scale(self) -> float:
        """The factor of cosines before the softmax: exp of the stored value; about 100 for OpenAI's."""
        return math.exp(float(self.tensors()["logit_scale"]))

    @cached_property
    def digest(self) -> str:
        """Hexadecimal sha256 of config.json and the weight files; a file that stays is read only once."""
        parts = [file_digest(path) for path in (self.folder / "config.json", *self.weights)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def tensors(self) -> Mapping[str, Floats]:
        """Every tensor of the model, float32 and read-only, mapped from the files and not copied.

        Raises:
            CorruptCheckpoint: one is missing or of another shape than config.json says, or a file is damaged.
            UnsafeCheckpoint: a pytorch_model.bin wants to run something.
        """
        return self._tensors

    @cached_property
    def _tensors(self) -> Tensors:
        return Tensors(self.weights, self.config.shapes())

    def tokenizer_files(self) -> TokenizerFiles:
        """For ``Tokenizer.from_files(**checkpoint.tokenizer_files(), context=...)``."""
        return self.tokenizer

    def _normalisation(self, key: str, default: Mean, none: Mean) -> Mean:
        if self.preprocessor.get("do_normalize") is False:
            return none
        values = self.preprocessor.get(key) or default
        if not isinstance(values, list | tuple) or len(values) != 3:
            raise CorruptCheckpoint(f"{self.name}: {key} should be three numbers, not {values!r}.")
        return float(values[0]), float(values[1]), float(values[2])


def find(model: str | Path, revision: str | None = None, *, progress: bool = False) -> Checkpoint:
    """Find a checkpoint: a folder, or a model of the Hub, from the local cache or downloaded into it.

    Weights are model.safetensors, one or sharded, else pytorch_model.bin, read without running anything.
    A model that is in the cache is found there without asking the Hub.

    Args:
        model: a folder in the layout of transformers, a Hub id such as "openai/clip-vit-base-patch32", or
            "sketchbook", the small model that comes with nshot (a folder of that name is "./sketchbook").
        revision: a branch, tag, commit or reference of the Hub; main if not given.
        progress: draw downloads on stderr.

    Raises:
        CheckpointNotFound: no such folder, model, revision or file.
        HubUnavailable: not cached, and the Hub cannot be reached, or HF_HUB_OFFLINE is set.
        CorruptCheckpoint: a file is damaged, or not the one that is pinned.
        UnsupportedArchitecture: another kind of model than CLIP.
    """
    name = str(model)
    folder = BUILT_IN.get(name) or Path(model).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise CheckpointNotFound(f"{name} is a folder, and has no revisions: leave out {revision!r}.")
        return _checkpoint(name, None, _files(name, lambda file: _existing(folder / file)))
    if folder.is_file():
        raise CheckpointNotFound(f"{name} is a file: give the folder that holds it and its config.json.")
    from nshot.models import hub

    if isinstance(model, Path) or _looks_like_a_path(name):
        raise CheckpointNotFound(f"no such folder: {name}")
    if not hub.is_name(name):
        raise CheckpointNotFound(
            f"{name!r} is neither a folder nor a name on the Hub, such as {DEFAULT_MODEL}."
        )
    repository = hub.Repository(name, revision or "main", progress)
    try:
        files = _files(name, repository.cached)
    except CheckpointNotFound:
        files = _files(name, repository.download)
    return _checkpoint(name, files.config.parent.name, files)


class _Files(NamedTuple):
    config: Path
    preprocessor: Path
    tokenizer: TokenizerFiles
    weights: tuple[Path, ...]


def _files(name: str, get: Callable[[str], Path | None]) -> _Files:
    """Choose a checkpoint's files by asking ``get`` for each; it answers None for one that is not there."""

    def missing(what: str) -> CheckpointNotFound:
        return CheckpointNotFound(
            f"{name} has no {what}. nshot reads checkpoints in the layout of transformers."
        )

    config = get("config.json")
    if config is None:
        raise missing("config.json")
    ClipConfig.from_dict(
        _json(config), where=str(config)
    )  # another architecture: said before its weights come
    # as transformers does: of the two, the newer form counts
    preprocessor = get("processor_config.json")
    if preprocessor is None or not isinstance(_json(preprocessor).get("image_processor"), dict):
        preprocessor = get("preprocessor_config.json")
    if preprocessor is None:
        raise missing("preprocessor_config.json")
    if tokenizer_json := get("tokenizer.json"):
        tokenizer = TokenizerFiles(tokenizer_json=tokenizer_json, vocab=None, merges=None)
    else:
        tokenizer = TokenizerFiles(tokenizer_json=None, vocab=get("vocab.json"), merges=get("merges.txt"))
        if not (tokenizer["vocab"] and tokenizer["merges"]):
            raise missing("tokenizer.json, nor vocab.json and merges.txt")
    get("tokenizer_config.json")  # for the tokenizer, which looks beside its own file
    for single in ("model.safetensors", "pytorch_model.bin"):
        if path := get(single):
            return _Files(config, preprocessor, tokenizer, (path,))
        if index := get(f"{single}.index.json"):
            shards = [(shard, get(shard)) for shard in _shards(index)]
            absent = [shard for shard, path in shards if path is None]
            if absent:
                raise missing(", ".join(absent))
            return _Files(config, preprocessor, tokenizer, tuple(path for _, path in shards if path))
    raise missing("model.safetensors, nor pytorch_model.bin")


def _checkpoint(name: str, revision: str | None, files: _Files) -> Checkpoint:
    settings = _json(files.preprocessor)
    preprocessor = (
        settings.get("image_processor") if files.preprocessor.name == "processor_config.json" else settings
    )
    assert isinstance(preprocessor, dict)  # so chosen by _files
    factor = preprocessor.get("rescale_factor", 1 / 255)
    if preprocessor.get("do_rescale") is False or not math.isclose(factor, 1 / 255):
        raise UnsupportedArchitecture(
            f"{files.preprocessor}: pixel values other than 0 to 255 scaled to 0 to 1."
        )
    return Checkpoint(
        name=name,
        folder=files.config.parent,
        revision=revision,
        config=ClipConfig.from_dict(_json(files.config), where=str(files.config)),
        preprocessor=preprocessor,
        weights=files.weights,
        tokenizer=files.tokenizer,
    )


def _shards(index: Path) -> list[str]:
    """The files that an index names; each must stand beside it."""
    table = _json(index).get("weight_map")
    shards = sorted(set(map(str, table.values()))) if isinstance(table, dict) else []
    suffix = Path(index.name.removesuffix(".index.json")).suffix
    if not shards or any("/" in shard or "\\" in shard or Path(shard).suffix != suffix for shard in shards):
        raise CorruptCheckpoint(f"{index} does not list weight files beside it. Fetch it again.")
    return shards


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise CorruptCheckpoint(f"{path} is not JSON: {error}. Fetch it again.") from error
    if not isinstance(content, dict):
        raise CorruptCheckpoint(f"{path} should be a table of settings.")
    return content


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _looks_like_a_path(name: str) -> bool:
    return (
        name.startswith((".", "~", os.sep, "/")) or "\\" in name or name.count("/") > 1 or name.endswith("/")
    )
