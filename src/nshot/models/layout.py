"""Which files of a folder or a repository make the checkpoint; and what to say of those that cannot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from nshot.errors import CheckpointNotFound, CorruptCheckpoint, UnsupportedArchitecture
from nshot.models.family import Family, ModelConfig
from nshot.models.files import NONSENSE, Files, Inside, TokenizerFiles, processor_file, read_json, sensible

FAMILIES = ("clip.Clip", "siglip.Siglip", "clip.MetaClip2", "owlv2.Owlv2")
"""The kinds of models in transformers' layout, where config.json tells them apart; see ``family``."""

OPEN_CLIP = "open_clip.OpenClip"
"""What stands beside an open_clip_config.json."""

KNOWN = (
    "nshot reads CLIPModel (OpenAI's, LAION's, MetaCLIP's) and SiglipModel checkpoints (SigLIP, and SigLIP 2 "
    "at fixed sizes) in the layout of transformers, and in open_clip's plain transformers, SigLIP, the "
    "Perception Encoder and MobileCLIP"
)

_CLASSIFIER = (
    "a classifier of fixed labels without a text tower. Take the {} that it was made from, and "
    "nshot fit learns labels from examples"
)
_HALF = "one tower of two, and nshot needs both: one for images and one for labels in words"

_INSTEAD = {
    "CLIPForImageClassification": _CLASSIFIER.format("CLIPModel"),
    "SiglipForImageClassification": _CLASSIFIER.format("SiglipModel"),
    "CLIPVisionModel": _HALF,
    "CLIPVisionModelWithProjection": _HALF,
    "CLIPTextModel": _HALF,
    "CLIPTextModelWithProjection": _HALF,
    "SiglipVisionModel": _HALF,
    "SiglipTextModel": _HALF,
    "Siglip2Model": "a NaFlex model, for images of any shape. Take one of a fixed size, such as "
    "google/siglip2-base-patch16-256, which does as well on ordinary images",
    "OwlViTForObjectDetection": "a detector of objects, and nshot reads the one that followed it, OWLv2",
}

# weights in other forms, and what to do about them
_FOREIGN = {
    "flax_model.msgpack": "Flax",
    "tf_model.h5": "TensorFlow",
    "onnx/model.onnx": "ONNX",
    "model.onnx": "ONNX",
    "onnx/vision_model.onnx": "ONNX",
    "openvino_model.xml": "OpenVINO",
    "model.ckpt.index": "TensorFlow",
    "model_index.json": "diffusers",
}


class Found(NamedTuple):
    """The chosen files of a checkpoint, and what its settings mean."""

    settings: Path
    config: ModelConfig
    preprocessor: Mapping[str, Any]
    processor: Path
    vocabulary: TokenizerFiles
    weights: tuple[Path, ...]


@cache
def family(name: str) -> Family:
    """A kind of models by its place in ``nshot.models``, imported when a checkpoint may be of it."""
    module, _, kind = name.partition(".")
    found: Family = getattr(import_module(f"nshot.models.{module}"), kind)()
    return found


def choose(name: str, files: Files) -> Found:
    """Find a checkpoint among files.

    A repository may hold one model in both layouts: transformers' counts, if it is whole.

    Raises:
        CheckpointNotFound: a file is missing.
        CorruptCheckpoint: a file is damaged.
        UnsupportedArchitecture: another kind of model.
    """
    refusal: UnsupportedArchitecture | CheckpointNotFound | None = None
    for place, settings, kind in _candidates(files):
        table = read_json(settings)
        if kind is None:
            with sensible(settings):
                refusal = _refused(settings, table)
            continue
        try:
            return _read(name, settings, kind, table, Inside.of(files, place))
        except CheckpointNotFound as error:
            refusal = refusal or error
    raise refusal or CheckpointNotFound(f"{name} has no config.json or open_clip_config.json. {KNOWN}.")


def _candidates(files: Files) -> Iterator[tuple[str, Path, Family | None]]:
    """The settings that are there, in which folder, and who reads them: transformers' first."""
    for place in chain([""], _modules(files)):
        settings = files(f"{place}config.json")
        if settings is not None:
            with sensible(settings):
                table = read_json(settings)
                kind = next((kind for kind in map(family, FAMILIES) if kind.claims(table)), None)
            yield place, settings, kind
            break
    settings = files("open_clip_config.json")
    if settings is not None:
        open_clip = family(OPEN_CLIP)
        with sensible(settings):
            claimed = open_clip.claims(read_json(settings))
        if not claimed:
            raise CorruptCheckpoint(f"{settings} lacks embed_dim, vision_cfg or text_cfg. Fetch it again.")
        yield "", settings, open_clip


def _modules(files: Files) -> Iterator[str]:
    """Folders of a sentence-transformers model that may hold a CLIP."""
    path = files("modules.json")
    if path is None:
        return
    try:
        found = [f"{module['path']}/" for module in read_json(path, list) if module.get("path")]
        if any(place.startswith("/") or ".." in place.split("/") for place in found):
            raise ValueError("a module outside of its folder")
        yield from found
    except NONSENSE as error:
        raise CorruptCheckpoint(f"{path} does not list modules. Fetch it again.") from error


def _read(name: str, settings: Path, kind: Family, table: Mapping[str, Any], files: Files) -> Found:
    with sensible(settings):
        config = kind.read(table, str(settings))  # another architecture: said before its weights come
    own = settings.name == "open_clip_config.json"  # it tells of the images as well
    processor = (None if own else processor_file(files)) or settings
    with sensible(processor):
        preprocessor = kind.preprocessor(files, config)
    if preprocessor is None:
        raise _missing(name, "preprocessor_config.json", files)
    vocabulary = kind.vocabulary(files, config)
    if vocabulary is None:
        raise _missing(name, "tokenizer.json, nor vocab.json and merges.txt", files)
    return Found(settings, config, preprocessor, processor, vocabulary, _weights(name, kind.weights, files))


def _weights(name: str, names: tuple[str, ...], files: Files) -> tuple[Path, ...]:
    for single in names:
        if path := files(single):
            return (path,)
        stem, _, variant = single.rpartition(".fp16.") if ".fp16." in single else (single, "", "")
        index = files(f"{stem}.{variant}.index.fp16.json" if variant else f"{single}.index.json")
        if index:
            shards = [(shard, files(shard)) for shard in _shards(index)]
            absent = [shard for shard, path in shards if path is None]
            if absent:
                raise _missing(name, f"{', '.join(absent)}, which {index} lists", files)
            return tuple(path for _, path in shards if path)
    raise _missing(name, ", nor ".join(each for each in names if ".fp16." not in each), files)


def _missing(name: str, what: str, files: Files) -> CheckpointNotFound:
    there = sorted({form for file, form in _FOREIGN.items() if files(file)})
    also = ""
    if there == ["diffusers"]:
        also = " This is a pipeline of diffusers, which makes images."
    elif there:
        also = (
            f" There are files of {' and '.join(there)}, which nshot does not read: in Python, "
            "transformers' from_pretrained and save_pretrained make model.safetensors of most of them."
        )
    return CheckpointNotFound(f"{name} has no {what}.{also} {KNOWN}.")


def _refused(settings: Path, table: Mapping[str, Any]) -> UnsupportedArchitecture:
    architectures = list(map(str, table.get("architectures") or []))
    kind = table.get("model_type")
    named = ", ".join(architectures) or kind
    if named is None and isinstance(table.get("architecture"), str):  # timm's own config.json
        return UnsupportedArchitecture(
            f"{settings}: this is timm's {table['architecture']}, an image tower without texts. {KNOWN}."
        )
    instead = next((_INSTEAD[each] for each in architectures if each in _INSTEAD), None)
    if instead is None and kind == "siglip2":
        instead = _INSTEAD["Siglip2Model"]
    if instead:
        return UnsupportedArchitecture(f"{settings}: this is {named}, {instead}. {KNOWN}.")
    return UnsupportedArchitecture(
        f"{settings}: this is {named or 'a model without a name'}, which nshot does not know. {KNOWN}."
    )


def _shards(index: Path) -> list[str]:
    """The files that an index names; each must stand beside it."""
    table = read_json(index).get("weight_map")
    shards = sorted(set(map(str, table.values()))) if isinstance(table, dict) else []
    suffix = ".bin" if ".bin." in index.name else ".safetensors"
    if not shards or any(
        len(shard) > 200 or "/" in shard or "\\" in shard or Path(shard).suffix != suffix for shard in shards
    ):
        raise CorruptCheckpoint(f"{index} does not list weight files beside it. Fetch it again.")
    return shards
