"""A Hub id or a folder -> a checkpoint: its config, and its files, found and checked."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nshot.errors import (
    CheckpointError,
    CheckpointNotFound,
    CorruptCheckpoint,
    HubUnavailable,
    NshotError,
    UnsupportedArchitecture,
    brief,
)
from nshot.images.preprocess import Preprocessor
from nshot.models.catalogue import SHORT, full_name
from nshot.models.digests import file_digest
from nshot.models.family import ModelConfig
from nshot.models.files import NONSENSE, Folder, TokenizerFiles, sensible
from nshot.models.layout import Found, choose
from nshot.models.transformer import TextTransformer
from nshot.models.weights import Tensors

if TYPE_CHECKING:
    from nshot.models.hub import Repository
    from nshot.models.tokenizer import Tokenizer

Mean: TypeAlias = tuple[float, float, float]

DEFAULT_MODEL = "openai/clip-vit-base-patch32"

BUILT_IN = {"sketchbook": Path(__file__).parents[1] / "sketchbook" / "checkpoint"}
"""Models that come with nshot."""

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
        processor: the file that the preprocessor's settings are from.
    """

    name: str
    settings: Path
    revision: str | None
    config: ModelConfig
    preprocessor: Mapping[str, Any]
    weights: tuple[Path, ...]
    vocabulary: TokenizerFiles
    processor: Path

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

    @cached_property
    def rules(self) -> tuple[str, ...]:
        """What else changes a vector, beside weights, settings and normalisation: code and vocabulary.

        Empty for CLIP, whose stored vectors are older than this.
        """
        family = self.config.family
        if not family.version:
            return ()
        files = [path for path in self.vocabulary.values() if isinstance(path, Path)]
        return (f"{family.name} {family.version}", *map(file_digest, files))

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
        text = self.config.text
        end = text.eos_token_id if isinstance(text, TextTransformer) and text.pool == "eos" else None
        return self.config.family.tokenizer(self.vocabulary, self.config).fitting(
            text.vocab_size, end, self.settings
        )

    def _normalisation(self, key: str, default: Mean, none: Mean) -> Mean:
        if self.preprocessor.get("do_normalize") is False:
            return none
        values = self.preprocessor.get(key) or default
        numbers = isinstance(values, list | tuple) and all(isinstance(each, (int, float)) for each in values)
        if not numbers or len(values) != 3:
            raise CorruptCheckpoint(
                f"{self.processor}: {key} should be three numbers, not {str(values)[:80]}."
            )
        return float(values[0]), float(values[1]), float(values[2])


def find(model: str | Path, revision: str | None = None, *, progress: bool = False) -> Checkpoint:
    """Find a checkpoint: a folder, or a model of the Hub, from the local cache or downloaded into it.

    Weights are safetensors, one file or sharded, else torch's .bin, read without running anything.
    A model that is in the cache is found there without asking the Hub.

    Args:
        model: a folder in the layout of transformers, sentence-transformers or open_clip; a Hub id such as
            "openai/clip-vit-base-patch32", or the address of its page; a short name of ``nshot models``; or
            "sketchbook", the small model that comes with nshot (a folder of that name is "./sketchbook").
        revision: a branch, tag, commit or reference of the Hub; main if not given.
        progress: draw downloads on stderr.

    Raises:
        CheckpointNotFound: no such folder, model, revision or file.
        HubUnavailable: not cached, and the Hub cannot be reached, or HF_HUB_OFFLINE is set.
        CorruptCheckpoint: a file is damaged, or not the one that is pinned.
        UnsupportedArchitecture: a kind of model that nshot does not know.
        CheckpointError: a file that may not be read.
    """
    try:
        return _find(model, revision, progress)
    except NshotError:
        raise
    except OSError as error:
        raise CheckpointError(f"{error.filename or model} cannot be read: {brief(error)}") from error
    except NONSENSE as error:
        raise CorruptCheckpoint(
            f"{model}: a setting of it makes no sense ({brief(error)}). Fetch it again."
        ) from error


def _find(model: str | Path, revision: str | None, progress: bool) -> Checkpoint:
    name = full_name(str(model).removeprefix("local-dir:"))
    place = BUILT_IN.get(name) or Path(name).expanduser()
    if place.is_dir():
        if revision is not None:
            raise CheckpointNotFound(f"{name} is a folder, and has no revisions: leave out {revision!r}.")
        return _checkpoint(name, None, choose(name, Folder(place)))
    if place.is_file():
        raise CheckpointNotFound(f"{name} is a file: give the folder that holds it and its config.json.")
    from nshot.models import hub

    repository, named = hub.named(name)
    if isinstance(model, Path) or str(model).startswith("local-dir:") or _looks_like_a_path(repository):
        raise CheckpointNotFound(f"no such folder: {name}")
    if not hub.is_name(repository):
        raise CheckpointNotFound(
            f"{name!r} is neither a folder nor a name on the Hub, such as {DEFAULT_MODEL}."
        )
    if named and revision and named != revision:
        raise CheckpointNotFound(f"{name} names the revision {named}, and {revision!r} is asked for.")
    there = hub.Repository(repository, revision or named or "main", progress)
    try:
        found = _chosen(there)
    except (CheckpointNotFound, HubUnavailable) as error:
        near = get_close_matches(name, [*BUILT_IN, *SHORT], 1) if "/" not in name else []
        if near:
            raise type(error)(f"did you mean {near[0]}? {error}") from error
        raise
    return _checkpoint(repository, found.settings.parent.name, found)


def _chosen(repository: Repository) -> Found:
    """The files of a repository, from the cache if all of them are there."""
    try:
        return choose(repository.name, repository.files(cached=True))
    except CheckpointNotFound:
        return choose(repository.name, repository.files(cached=False))
    except UnsupportedArchitecture as refusal:  # unless it is open_clip's, and that file is not cached
        try:
            return choose(repository.name, repository.files(cached=False))
        except HubUnavailable:
            raise refusal from None


def _checkpoint(name: str, revision: str | None, found: Found) -> Checkpoint:
    for path in found.weights:  # they are opened much later
        with path.open("rb"):
            pass
    preprocessor, config = found.preprocessor, found.config
    with sensible(found.processor):
        factor = preprocessor.get("rescale_factor", 1 / 255)
        if preprocessor.get("do_rescale") is False or not math.isclose(factor, 1 / 255):
            raise UnsupportedArchitecture(
                f"the image processor of {name} wants pixel values other than 0 to 255 scaled to 0 to 1."
            )
        try:
            made = Preprocessor.from_config(preprocessor, size=config.vision.image_size).size
        except CheckpointError as error:
            raise type(error)(f"{found.processor}: {error}") from error
    if made != config.vision.image_size:
        raise CorruptCheckpoint(
            f"{name}: the image processor makes squares of {made} pixels, and the model takes "
            f"{config.vision.image_size}. Set crop_size, or size where nothing is cropped, to "
            f"{config.vision.image_size} in {found.processor}."
        )
    return Checkpoint(
        name,
        found.settings,
        revision,
        config,
        preprocessor,
        found.weights,
        found.vocabulary,
        found.processor,
    )


def _looks_like_a_path(name: str) -> bool:
    return (
        name.startswith((".", "~", os.sep, "/")) or "\\" in name or name.count("/") > 1 or name.endswith("/")
    )
