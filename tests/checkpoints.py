"""Tiny seeded checkpoints in the layout of the Hub's CLIPModel, for tests and for the demo.

The weights are random, so the answers mean nothing; the files, their names and their formats are real.
Needs numpy alone.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensors = Mapping[str, NDArray[Any]]

WORDS = ("a", "photo", "of", "the", "cat", "dog", "car", "bird", "bus", "red", "blue", "diagram", "an", "in")
START, END = "<|startoftext|>", "<|endoftext|>"


def tiny_checkpoint(
    folder: str | Path,
    *,
    seed: int = 0,
    format: str = "safetensors",
    dtype: str = "float32",
    activation: str = "quick_gelu",
    image_size: int = 32,
    patch_size: int = 16,
    projection_dim: int = 24,
    layers: int = 2,
    text_size: int = 32,
    vision_size: int = 48,
    heads: int = 4,
    context: int = 77,
    eos_token_id: int | None = 2,
    logit_scale: float = 4.6052,
    position_ids: bool = False,
) -> Path:
    """Write a checkpoint of about 110 thousand random weights into ``folder``, made if need be; return it.

    Args:
        folder: where to write.
        seed: of the weights; the tokenizer is always the same.
        format: "safetensors", "sharded" (two safetensors files and their index) or "bin" (torch's zip).
        dtype: of the stored weights: "float32", "float16" or "bfloat16".
        activation: ``hidden_act`` of both towers, "quick_gelu" or "gelu".
        image_size: side of the image, in pixels.
        patch_size: side of a patch, in pixels.
        projection_dim: length of the vectors.
        layers: of each tower.
        text_size: hidden size of the text tower.
        vision_size: hidden size of the vision tower.
        heads: of each tower.
        context: tokens in a text.
        eos_token_id: 2 is the convention of 2021 (pool at the largest id); None writes the vocabulary's own.
        logit_scale: as stored, before ``exp``.
        position_ids: also store the buffers that old checkpoints carry.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary, merges = _bpe()
    end = vocabulary[END]
    shared = {"hidden_act": activation, "num_attention_heads": heads, "num_hidden_layers": layers}
    shared |= {"layer_norm_eps": 1e-05, "projection_dim": projection_dim}
    text = shared | {
        "model_type": "clip_text_model",
        "bos_token_id": 0 if eos_token_id == 2 else vocabulary[START],
        "eos_token_id": end if eos_token_id is None else eos_token_id,
        "pad_token_id": 1,
        "hidden_size": text_size,
        "intermediate_size": 4 * text_size,
        "max_position_embeddings": context,
        "vocab_size": len(vocabulary),
    }
    vision = shared | {
        "model_type": "clip_vision_model",
        "hidden_size": vision_size,
        "intermediate_size": 4 * vision_size,
        "image_size": image_size,
        "patch_size": patch_size,
    }
    config = {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "logit_scale_init_value": 2.6592,
        "projection_dim": projection_dim,
        "text_config": text,
        "torch_dtype": dtype,
        "vision_config": vision,
    }
    preprocessor = {
        "crop_size": image_size,
        "do_center_crop": True,
        "do_normalize": True,
        "do_resize": True,
        "feature_extractor_type": "CLIPFeatureExtractor",
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "resample": 3,
        "size": image_size,
    }
    tokenizer_config = {
        "unk_token": END,
        "bos_token": START,
        "eos_token": END,
        "pad_token": END,
        "add_prefix_space": False,
        "do_lower_case": True,
        "model_max_length": context,
        "tokenizer_class": "CLIPTokenizer",
    }
    for name, content in {
        "config.json": config,
        "preprocessor_config.json": preprocessor,
        "tokenizer_config.json": tokenizer_config,
        "tokenizer.json": _tokenizer_json(vocabulary, merges),
        "vocab.json": vocabulary,
    }.items():
        (folder / name).write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")

    tensors = random_tensors(config, seed=seed)
    tensors["logit_scale"] = np.asarray(logit_scale, np.float32)
    stored = {name: to_dtype(value, dtype) for name, value in tensors.items()}
    if position_ids:
        stored["text_model.embeddings.position_ids"] = np.arange(context, dtype=np.int64)[None]
        patches = (image_size // patch_size) ** 2
        stored["vision_model.embeddings.position_ids"] = np.arange(patches + 1, dtype=np.int64)[None]
    if format == "safetensors":
        write_safetensors(folder / "model.safetensors", stored)
    elif format == "bin":
        write_bin(folder / "pytorch_model.bin", stored)
    elif format == "sharded":
        names = sorted(stored)
        shards = {
            "model-00001-of-00002.safetensors": names[::2],
            "model-00002-of-00002.safetensors": names[1::2],
        }
        for shard, members in shards.items():
            write_safetensors(folder / shard, {name: stored[name] for name in members})
        weight_map = {name: shard for shard, members in shards.items() for name in members}
        index = {"metadata": {}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    else:
        raise ValueError(f"unknown format {format!r}")
    return folder


def random_tensors(config: Mapping[str, Any], *, seed: int) -> dict[str, NDArray[np.float32]]:
    """The float32 tensors of a CLIPModel with this config, scaled so that inputs differ in their vectors."""
    random = np.random.default_rng(seed)

    def normal(*shape: int, std: float) -> NDArray[np.float32]:
        return random.standard_normal(shape, np.float32) * np.float32(std)

    tensors: dict[str, NDArray[np.float32]] = {}

    def linear(name: str, outputs: int, inputs: int, *, bias: bool = True) -> None:
        tensors[f"{name}.weight"] = normal(outputs, inputs, std=inputs**-0.5)
        if bias:
            tensors[f"{name}.bias"] = normal(outputs, std=0.1)

    def norm(name: str, size: int) -> None:
        tensors[f"{name}.weight"] = 1 + normal(size, std=0.1)
        tensors[f"{name}.bias"] = normal(size, std=0.1)

    for tower in ("text", "vision"):
        part = config[f"{tower}_config"]
        size = part["hidden_size"]
        for layer in range(part["num_hidden_layers"]):
            prefix = f"{tower}_model.encoder.layers.{layer}"
            for part_name in ("q_proj", "k_proj", "v_proj", "out_proj"):
                linear(f"{prefix}.self_attn.{part_name}", size, size)
            linear(f"{prefix}.mlp.fc1", part["intermediate_size"], size)
            linear(f"{prefix}.mlp.fc2", size, part["intermediate_size"])
            norm(f"{prefix}.layer_norm1", size)
            norm(f"{prefix}.layer_norm2", size)
        linear(
            f"{'text' if tower == 'text' else 'visual'}_projection",
            config["projection_dim"],
            size,
            bias=False,
        )

    text, vision = config["text_config"], config["vision_config"]
    embeddings = "text_model.embeddings"
    tensors[f"{embeddings}.token_embedding.weight"] = normal(text["vocab_size"], text["hidden_size"], std=0.5)
    context = text["max_position_embeddings"]
    tensors[f"{embeddings}.position_embedding.weight"] = normal(context, text["hidden_size"], std=0.2)
    norm("text_model.final_layer_norm", text["hidden_size"])

    embeddings, size, patch = "vision_model.embeddings", vision["hidden_size"], vision["patch_size"]
    tensors[f"{embeddings}.class_embedding"] = normal(size, std=0.5)
    tensors[f"{embeddings}.patch_embedding.weight"] = normal(
        size, 3, patch, patch, std=(3 * patch * patch) ** -0.5
    )
    patches = (vision["image_size"] // patch) ** 2
    tensors[f"{embeddings}.position_embedding.weight"] = normal(patches + 1, size, std=0.2)
    norm("vision_model.pre_layrnorm", size)  # spelt so in the real ones
    norm("vision_model.post_layernorm", size)
    tensors["logit_scale"] = np.asarray(config["logit_scale_init_value"], np.float32)
    return tensors


# --- weight files -----------------------------------------------------------------------------------------

_SAFETENSORS_NAMES = {"<f4": "F32", "<f2": "F16", "<u2": "BF16", "<i8": "I64"}
_TORCH_STORAGES = {
    "<f4": "FloatStorage",
    "<f2": "HalfStorage",
    "<u2": "BFloat16Storage",
    "<i8": "LongStorage",
}


def to_dtype(values: NDArray[Any], dtype: str) -> NDArray[Any]:
    """``values`` as they are stored: bfloat16, which numpy lacks, as uint16 (the upper half of a float32)."""
    if dtype != "bfloat16":
        return values.astype(dtype)
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)  # round half to even


def write_safetensors(path: Path, tensors: Tensors) -> None:
    """Write tensors; uint16 means bfloat16."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, value in tensors.items():
        start, end = end, end + value.nbytes
        dtype = _SAFETENSORS_NAMES[value.dtype.str]
        header[name] = {"dtype": dtype, "shape": value.shape, "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)  # keeps the tensors aligned
    with path.open("wb") as file:
        file.write(len(encoded).to_bytes(8, "little") + encoded)
        file.writelines(value.tobytes() for value in tensors.values())


def write_bin(path: Path, tensors: Tensors, *, compression: int = zipfile.ZIP_STORED) -> None:
    """Write tensors as ``torch.save`` does, a zip of a pickle and of raw files; uint16 means bfloat16."""
    pickled = io.BytesIO()
    pickled.write(b"\x80\x02ccollections\nOrderedDict\n)R(")
    for key, (name, value) in enumerate(tensors.items()):
        strides = [stride // value.itemsize for stride in np.ascontiguousarray(value).strides[: value.ndim]]
        storage = _TORCH_STORAGES[value.dtype.str]
        pickled.write(_string(name))
        pickled.write(tensor_opcodes(storage, str(key), value.size, 0, value.shape, strides))
    pickled.write(b"u.")
    write_zip(
        path, pickled.getvalue(), [value.tobytes() for value in tensors.values()], compression=compression
    )


def write_zip(
    path: Path, pickled: bytes, storages: Sequence[bytes], *, compression: int = zipfile.ZIP_STORED
) -> None:
    """Write the zip around a pickle, whatever is in it."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/byteorder", "little")
        for key, data in enumerate(storages):
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", "3\n")


def tensor_opcodes(
    storage: str, key: str, numel: int, offset: int, shape: Sequence[int], strides: Sequence[int]
) -> bytes:
    """The pickle of one tensor, as torch writes it."""
    persistent = b"(" + _string("storage") + f"ctorch\n{storage}\n".encode() + _string(key) + _string("cpu")
    persistent += _integer(numel) + b"tQ"
    layout = _integer(offset) + _tuple(shape) + _tuple(strides) + b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + persistent + layout + b"tR"


def _string(text: str) -> bytes:
    data = text.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def _integer(number: int) -> bytes:
    if number < 2**31:
        return b"J" + number.to_bytes(4, "little", signed=True)
    data = number.to_bytes(number.bit_length() // 8 + 1, "little")
    return b"\x8a" + bytes([len(data)]) + data


def _tuple(numbers: Sequence[int]) -> bytes:
    return b"(" + b"".join(map(_integer, numbers)) + b"t"


# --- tokenizer --------------------------------------------------------------------------------------------


def _bpe() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """A vocabulary in CLIP's order (bytes, bytes that end a word, merges, the two specials), and its merges.

    Every word of WORDS is one token; any other text falls back to its bytes.
    """
    printable = [
        *range(ord("!"), ord("~") + 1),
        *range(ord("¡"), ord("¬") + 1),
        *range(ord("®"), ord("ÿ") + 1),
    ]
    letters = [chr(byte) for byte in printable] + [chr(256 + n) for n in range(256 - len(printable))]
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        symbols = [*word[:-1], f"{word[-1]}</w>"]
        for pair in merges:
            symbols = _merged(symbols, pair)
        while len(symbols) > 1:
            merges.append((symbols[0], symbols[1]))
            symbols = _merged(symbols, merges[-1])
    tokens = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        *("".join(pair) for pair in merges),
        START,
        END,
    ]
    return {token: number for number, token in enumerate(tokens)}, merges


def _merged(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    result: list[str] = []
    for symbol in symbols:
        if result and (result[-1], symbol) == pair:
            result[-1] += symbol
        else:
            result.append(symbol)
    return result


def _tokenizer_json(vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> dict[str, Any]:
    """The pipeline of CLIP's own tokenizer.json around a vocabulary."""
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    words = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    split = {"type": "Split", "pattern": {"Regex": words}, "behavior": "Removed", "invert": True}
    replace = {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": vocabulary[token], "content": token, **flags} for token in (START, END)],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}, replace, {"type": "Lowercase"}]},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": {
            "type": "RobertaProcessing",
            "sep": [END, vocabulary[END]],
            "cls": [START, vocabulary[START]],
            "trim_offsets": False,
            "add_prefix_space": False,
        },
        "decoder": byte_level | {"add_prefix_space": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": END,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>",
            "fuse_unk": False,
            "vocab": vocabulary,
            "merges": [list(pair) for pair in merges],
        },
    }


def half_size(out: Path) -> Path:
    """The sketchbook's model at half the size of its images: a quarter of the work, other answers."""
    import shutil

    from safetensors.numpy import load_file, save_file

    from nshot.models.checkpoint import BUILT_IN

    shutil.copytree(BUILT_IN["sketchbook"], out)
    tensors = load_file(out / "model.safetensors")
    positions = "vision_model.embeddings.position_embedding.weight"
    places = tensors[positions].astype(np.float32)
    grid = places[1:].reshape(3, 2, 3, 2, -1).mean(axis=(1, 3)).reshape(9, -1)
    tensors[positions] = np.concatenate([places[:1], grid]).astype(np.float16)
    save_file(tensors, out / "model.safetensors")
    config = json.loads((out / "config.json").read_text())
    config["vision_config"]["image_size"] = 24
    (out / "config.json").write_text(json.dumps(config))
    preprocessor = out / "preprocessor_config.json"
    preprocessor.write_text(preprocessor.read_text().replace("48", "24"))
    return out
