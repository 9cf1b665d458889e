"""A Hub id or a folder -> a checkpoint: its config, and its files, found and checked."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nshot.errors import CheckpointNotFound, CorruptCheckpoint, UnsupportedArchitecture
from nshot.models.clip import Clip
from nshot.models.digests import file_digest
from nshot.models.family import Family, Get, ModelConfig, TokenizerFiles
from nshot.models.files import read_json
from nshot.models.weights import Tensors

if TYPE_CHECKING:
    from nshot.models.tokenizer import Tokenizer

Mean: TypeAlias = tuple[float, float, float]

DEFAULT_MODEL = "openai/clip-vit-base-patch32"

BUILT_IN = {"sketchbook": Path(__file__).parents[1] / "sketchbook" / "checkpoint"}
"""Models that come with nshot."""

FAMILIES: tuple[Family, ...] = (Clip(),)
"""The kinds of models that nshot knows; the first one that claims a checkpoint reads it."""

# what transformers' CLIPImageProcessor assumes where a preprocessor_config.json is silent
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this machine; made by ``find``.

    Attributes:
        name: as the user gave it: a Hub id or a folder.
        settings: config.json, or what stands for it.
        revision: the commit, for a model of the Hub.
        config: what its family read: the towers, and what surrounds them.
        preprocessor: the image processor's settings, in transformers' form of 2021 or of now.
        weights: the files that hold the tensors, as many as there are shards.
        vocabulary: the tokenizer's files.
    """

    name: str
    settings: Path
    revision: str | None
    config: ModelConfig
    preprocessor: Mapping[str, Any]
    weights: tuple[Path, ...]
    vocabulary: TokenizerFiles

    @property
    def folder(self) -> Path:
        """Where the settings are."""
        return self.settings.parent

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
        return math.exp(self.tensors()["logit_scale"].item())

    @property
    def logit_bias(self) -> float:
        """What is added to the scaled cosines: 0 for CLIP, about -10 for SigLIP."""
        return self.tensors()["logit_bias"].item() if self.config.has_bias else 0.0

    @cached_property
    def digest(self) -> str:
        """Hexadecimal sha256 of config.json and the weight files; a file that stays is read only once."""
        parts = [file_digest(path) for path in (self.settings, *self.weights)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def tensors(self) -> Tensors:
        """Every tensor of the model by nshot's name, float32 and read-only, mapped from the files.

        Raises:
            CorruptCheckpoint: one is missing or of another shape than config.json says, or a file is damaged.
            UnsafeCheckpoint: a pytorch_model.bin wants to run something.
        """
        return self._tensors

    @cached_property
    def _tensors(self) -> Tensors:
        return self.open_tensors()

    def open_tensors(self) -> Tensors:
        """The same through a mapping of the files of its own, whose pages leave memory with it."""
        return Tensors(self.weights, self.config.tensors())

    def tokenizer(self) -> Tokenizer:
        """Texts -> tokens, as the model was trained.

        Raises:
            CorruptCheckpoint: a file is damaged.
        """
        return self.config.family.tokenizer(self.vocabulary, self.config)

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
        return _checkpoint(name, None, lambda file: _existing(folder / file))
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
        return _checkpoint(name, repository.name, repository.cached)
    except CheckpointNotFound:
        return _checkpoint(name, repository.name, repository.download)


def _checkpoint(name: str, repository: str | None, get: Get) -> Checkpoint:
    """Choose a checkpoint's files by asking ``get`` for each."""

    def missing(what: str) -> CheckpointNotFound:
        return CheckpointNotFound(
            f"{name} has no {what}. nshot reads checkpoints in the layout of transformers."
        )

    settings = get("config.json")
    if settings is None:
        raise missing("config.json")
    family, table = _family(settings)
    config = family.read(table, str(settings))  # another architecture: said before its weights come
    preprocessor = family.preprocessor(get, config)
    if preprocessor is None:
        raise missing("preprocessor_config.json")
    factor = preprocessor.get("rescale_factor", 1 / 255)
    if preprocessor.get("do_rescale") is False or not math.isclose(factor, 1 / 255):
        raise UnsupportedArchitecture(
            f"the image processor of {name} wants pixel values other than 0 to 255 scaled to 0 to 1."
        )
    vocabulary = family.vocabulary(get)
    if vocabulary is None:
        raise missing("tokenizer.json, nor vocab.json and merges.txt")
    weights = _weights(family.weights, get, missing)
    revision = settings.parent.name if repository else None
    return Checkpoint(name, settings, revision, config, preprocessor, weights, vocabulary)


def _family(settings: Path) -> tuple[Family, dict[str, Any]]:
    table = read_json(settings)
    for family in FAMILIES:
        if family.claims(table):
            return family, table
    named = ", ".join(map(str, table.get("architectures") or [])) or table.get("model_type")
    raise UnsupportedArchitecture(
        f"{settings}: this is {named or 'a model without a name'}, which nshot does not know. It reads "
        "CLIPModel checkpoints, both towers, in the layout of transformers: OpenAI's CLIP ViT-B/32, B/16, "
        "L/14, L/14@336, LAION's, and their kin."
    )


def _weights(
    names: tuple[str, ...], get: Get, missing: Callable[[str], CheckpointNotFound]
) -> tuple[Path, ...]:
    for single in names:
        if path := get(single):
            return (path,)
        if index := get(f"{single}.index.json"):
            shards = [(shard, get(shard)) for shard in _shards(index)]
            absent = [shard for shard, path in shards if path is None]
            if absent:
                raise missing(", ".join(absent))
            return tuple(path for _, path in shards if path)
    raise missing(", nor ".join(names))


def _shards(index: Path) -> list[str]:
    """The files that an index names; each must stand beside it."""
    table = read_json(index).get("weight_map")
    shards = sorted(set(map(str, table.values()))) if isinstance(table, dict) else []
    suffix = Path(index.name.removesuffix(".index.json")).suffix
    if not shards or any("/" in shard or "\\" in shard or Path(shard).suffix != suffix for shard in shards):
        raise CorruptCheckpoint(f"{index} does not list weight files beside it. Fetch it again.")
    return shards


def _existing(path: Path) -> Path | None:
    return path if path.is_file() else None


def _looks_like_a_path(name: str) -> bool:
    return (
        name.startswith((".", "~", os.sep, "/")) or "\\" in name or name.count("/") > 1 or name.endswith("/")
    )
