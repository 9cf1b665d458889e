"""What a model's folder holds: settings, vocabularies, weights, pickles; what is wrong is named."""

from __future__ import annotations

import io
import json
import math
import os
import pickle
import random
import zipfile
from pathlib import Path

import numpy as np
import pytest
from checkpoints import tiny_checkpoint
from layouts import OPEN_CLIP_TINY, sentence_transformers, tiny_open_clip, tiny_owlv2, tiny_siglip
from PIL import Image

import nshot
from fuzz.attack import attack
from fuzz.damage import mutated, mutated_json, mutated_text
from nshot.images.preprocess import Preprocessor
from nshot.models.checkpoint import find
from nshot.models.files import TokenizerFiles
from nshot.models.tokenizer import Tokenizer
from nshot.models.weights import read_weights

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
SETTINGS = ("config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")


def read_checkpoint(path: Path, *, texts: bool = True) -> None:
    """All that loading a model reads of its folder."""
    checkpoint = find(path.parent)
    Preprocessor.from_config(checkpoint.preprocessor)
    _ = checkpoint.image_mean, checkpoint.image_std
    if texts:
        checkpoint.tokenizer().encode(["a photo of a cat"], cut=True)
    if path.suffix in (".safetensors", ".bin", ".json"):
        checkpoint.tensors()
        _ = checkpoint.logit_scale


def attack_settings(name: str, whole: bytes, room: Path, short: int, *, of: str = "") -> None:
    path = room / name

    def read(data: bytes) -> None:
        path.write_bytes(data)
        # of a tokenizer, other settings tell little more than how long its rows are, and it is slow to read
        read_checkpoint(path, texts=name.startswith(("tokenizer", "vocab", "merges")) or len(data) % 8 == 0)

    change = mutated_json if name.endswith(".json") else mutated_text
    named = "" if name == "modules.json" else name  # which names folders, that are or are not there
    attack(f"settings, {of}{name}", lambda source: change(whole, source), read, short=short, named=named)


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_clip(name: str, room: Path) -> None:
    tiny_checkpoint(room)
    attack_settings(name, (room / name).read_bytes(), room, 60)


def test_a_model_that_is_loaded_embeds(room: Path) -> None:
    """Settings that pass: both towers are built and asked, and give unit vectors or one line."""
    tiny_checkpoint(room, layers=1)
    wholes = {name: (room / name).read_bytes() for name in SETTINGS}

    def change(source: random.Random) -> dict[str, bytes]:
        name = source.choice(SETTINGS)
        return wholes | {name: mutated_json(wholes[name], source)}

    def read(files: dict[str, bytes]) -> None:
        for name, data in files.items():
            (room / name).write_bytes(data)
        model = nshot.load(room, store=False)
        vectors = [model.embed_texts(["a photo of a cat", "zebra \U0001f993"]), model.embed([IMAGE]).vectors]
        lengths = np.linalg.norm(np.concatenate(vectors), axis=1)
        assert np.allclose(lengths, 1, atol=1e-3), lengths

    attack("models, loaded", change, read, short=4, long=2000)


@pytest.mark.parametrize("name", ["vocab.json", "merges.txt"])
def test_vocabularies(name: str, room: Path) -> None:
    tiny_checkpoint(room)
    (room / "tokenizer.json").unlink()
    attack_settings(name, (room / name).read_bytes(), room, 30)


def test_an_index_of_shards(room: Path) -> None:
    tiny_checkpoint(room, format="sharded")
    name = "model.safetensors.index.json"
    attack_settings(name, (room / name).read_bytes(), room, 30)


OPEN_CLIP = {
    "mean": [0.5, 0.5, 0.5],
    "std": [0.5, 0.5, 0.5],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}


def test_settings_of_open_clip(room: Path) -> None:
    tiny_open_clip(room, model={**OPEN_CLIP_TINY, "quick_gelu": True}, preprocess=OPEN_CLIP)
    name = "open_clip_config.json"
    attack_settings(name, (room / name).read_bytes(), room, 60)


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json", "tokenizer.json"])
def test_settings_of_siglip(name: str, room: Path) -> None:
    tiny_siglip(room)
    attack_settings(name, (room / name).read_bytes(), room, 30, of="SigLIP's ")


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
def test_settings_of_owlv2(name: str, room: Path) -> None:
    tiny_owlv2(room)
    attack_settings(name, (room / name).read_bytes(), room, 30, of="OWLv2's ")


def test_modules_of_sentence_transformers(room: Path) -> None:
    sentence_transformers(room)
    attack_settings("modules.json", (room / "modules.json").read_bytes(), room, 30)


def header_changed(data: bytes, source: random.Random) -> bytes:
    """A safetensors file whose header says something else, of the length that it has then."""
    if source.randrange(3) == 0:
        return mutated(data, source)
    length = int.from_bytes(data[:8], "little")
    header = mutated_json(data[8 : 8 + length], source)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def test_safetensors(room: Path) -> None:
    from safetensors.numpy import save

    whole = save({"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.float16)}, metadata={"x": "y"})
    path = room / "model.safetensors"

    def change(source: random.Random) -> bytes:
        if source.randrange(3):
            return header_changed(whole, source)
        entries = {}
        for name in "abc"[: source.randrange(1, 4)]:
            kind = source.choice(
                ("F64", "F32", "F16", "BF16", "I64", "I32", "U8", "BOOL", "F8_E4M3", "F4", "C64")
            )
            shape = [
                source.choice((0, 1, 2, 3, 4, 8, 2**31, 2**32, 2**62))
                for _ in range(source.choice((0, 1, 2, 2, 9)))
            ]
            start = source.choice((0, 0, 1, 4, 8, 24, 31, 2**63 - 8))
            end = (
                start + math.prod(shape) * source.choice((1, 2, 2, 4, 4, 8)) + source.choice((0, 0, 0, 1, -1))
            )
            entries[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
        header = json.dumps(entries).encode()
        return len(header).to_bytes(8, "little") + header + bytes(32)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        for tensor in read_weights(path).values():
            assert tensor.nbytes <= len(data)
            np.nan_to_num(tensor).max(initial=0)  # all of it is there

    attack("safetensors", change, read, short=300, named=path.name)


BODY = (
    b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(X\x01\x00\x00\x00aq\x02ctorch._utils\n_rebuild_tensor_v2\n"
    b"q\x03((X\x07\x00\x00\x00storageq\x04ctorch\nFloatStorage\nq\x05X\x01\x00\x00\x000q\x06X\x03\x00\x00\x00cpu"
    b"q\x07K\x06tq\x08QK\x00K\x02K\x03\x86q\x09K\x03K\x01\x86q\x0a\x89h\x00)Rq\x0btq\x0cRq\x0du."
)
"""The pickle in a pytorch_model.bin, as torch.save writes one, of a tensor."""


def pickled(body: bytes = BODY) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", body)
        archive.writestr("archive/data/0", np.arange(6, dtype="<f4").tobytes())
    return buffer.getvalue()


_CODES = (
    b"(.0123lMNKJIFGUTXcqrhjtRbou}])\x80\x81\x85\x86\x87\x88\x89\x8a\x8b\x8c\x93\x94\x95Qap\x00\x01\x02\x05"
)


def pickle_changed(source: random.Random) -> bytes:
    match source.randrange(14):
        case 0 | 1:
            return mutated(pickled(), source)
        case 2:
            return pickled(crafted(source))
        case 3 | 4 | 5:  # operations put in, or instead of others
            body = bytearray(BODY)
            for _ in range(source.choice((1, 2, 4))):
                place = source.randrange(2, len(body))
                body[place : place + source.randrange(2)] = bytes([source.choice(_CODES)])
            return pickled(bytes(body))
        case 6:
            return pickled(
                b"\x80\x02" + bytes(source.choice(_CODES) for _ in range(source.choice((5, 40)))) + b"."
            )
        case 7:
            return pickled(BODY.replace(*source.choice(_REPLACED)))
        case 8:
            return tensors_in(source)
        case _:
            return pickled(mutated(BODY, source))


def tensors_in(source: random.Random) -> bytes:
    """Several tensors of any type, place, shape and strides, in storages that they share."""
    numbers = (0, 1, 2, 3, 5, 6, 255, 2**16, 2**31 - 1, 2**31, 2**62, 2**63, 2**64, -1, -(2**31), 10**30)

    def few() -> list[int]:
        return [
            source.choice(numbers[: source.choice((3, 6, 16))])
            for _ in range(source.choice((0, 1, 2, 2, 3, 9)))
        ]

    def whole(number: int) -> bytes:
        size = number.bit_length() // 8 + 1
        return b"\x8a" + bytes([size]) + number.to_bytes(size, "little", signed=True)

    body = b"\x80\x02}("
    for name in range(source.choice((1, 2, 5))):
        shape, strides = few(), few()
        strides = (strides * 9)[: len(shape)] if source.randrange(4) else strides
        kind = source.choice(
            ("Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Char", "Byte", "Bool")
        )
        body += (
            b"X\x01\x00\x00\x00" + b"%d" % name + b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00"
        )
        body += (
            b"storagectorch\n"
            + kind.encode()
            + b"Storage\nX\x01\x00\x00\x00"
            + source.choice((b"0", b"0", b"1"))
        )
        body += b"X\x03\x00\x00\x00cpu" + whole(source.choice((0, 1, 6, 6, 24, 25, 2**40))) + b"tQ"
        body += whole(source.choice(numbers[: source.choice((2, 16))]))
        for sizes in (shape, strides):
            body += b"(" + b"".join(map(whole, sizes)) + b"t"
        body += b"\x89ccollections\nOrderedDict\n)RtR"
    return pickled(body + b"u.")


_REPLACED = (
    (b"FloatStorage", b"BFloat16Storage"),
    (b"FloatStorage", b"system"),
    (b"torch._utils", b"os"),
    (b"K\x06t", b"K\xfft"),
    (b"K\x02K\x03\x86", b"J\xff\xff\xff\x7fK\x03\x86"),
    (b"K\x03K\x01\x86", b"K\x00K\x00\x86"),
    (b"K\x02K\x03\x86", b"]"),
    (b"K\x02K\x03\x86", b"K\x00K\x00\x86"),
    (b"0q\x06", b"9q\x06"),
    (b"QK\x00", b"QJ\xff\xff\xff\xff"),
    (b"K\x03K\x01\x86", b"\x8a\x09" + b"\x7f" * 9 + b"K\x01\x86"),
    (b"X\x01\x00\x00\x00a", b"K\x01"),
    (b"_v2", b""),
)


def crafted(source: random.Random) -> bytes:
    """Pickles that end a careless reader: deep, shared a million times over, or that would run something."""
    deep = b"\x80\x02)" + b"\x85" * source.choice((1000, 200_000))
    shared = b"\x80\x02)q\x00" + b"".join(b"h%ch%c\x86q%c" % (n, n, n + 1) for n in range(60))
    return source.choice(
        [
            deep + b".",
            b"\x80\x02}" + deep[2:] + b"K\x01s.",
            b"\x80\x02ccollections\nOrderedDict\n](" + deep[2:] + b"K\x01te\x85R.",
            shared + b".",
            b"\x80\x02}" + shared[2:] + b"K\x01s.",
            shared + b"K\x01\x93.",
            shared + b"Q.",
            b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00id\x85R.",
            *([b"\x80\x02" + b"N0" * 600_000 + b"."] if source.randrange(20) == 0 else []),
            pickle.dumps({"a": [1] * 1000, (1, 2): os.getcwd}),
            pickle.dumps({"a": [1] * 100, "b": ("x",) * 30}, source.randrange(2, 6)),
        ]
    )


def test_pickles_are_one_line_and_run_nothing(room: Path) -> None:
    path = room / "pytorch_model.bin"
    path.write_bytes(pickled())
    assert read_weights(path)["a"].tolist() == [[0, 1, 2], [3, 4, 5]]

    def read(data: bytes) -> None:
        path.write_bytes(data)
        for tensor in read_weights(path).values():
            assert tensor.nbytes <= 2**24 + len(data), tensor.shape
            np.count_nonzero(tensor)  # all of it is there

    attack("pickles", pickle_changed, read, short=150, named=path.name)


def sentencepiece() -> bytes:
    """A model of five pieces, which makes letters small by a table of the kind that such files hold."""

    def field(number: int, data: bytes) -> bytes:
        assert len(data) < 2**14
        size = bytes([len(data)]) if len(data) < 128 else bytes([len(data) & 127 | 128, len(data) >> 7])
        return bytes([number << 3 | 2]) + size + data

    pieces = b""
    for text, kind in (("<unk>", 2), ("</s>", 3), ("▁a", 1), ("cat", 1), ("▁", 1)):
        piece = field(1, text.encode()) + b"\x15" + np.float32(-1.5).tobytes() + bytes([3 << 3, kind])
        pieces += field(1, piece)
    return pieces + field(2, b"\x18\x01\x98\x02\x00") + field(3, b"\x0a\x05ident" + field(2, charsmap()))


def charsmap() -> bytes:
    """A double array in which A to Z lead to a to z, and those texts."""
    units = np.zeros(256, "<u4")
    units[0] = 1 << 10  # the root's children are at its place, 0, with 1 << 0 and their letter
    for place, letter in enumerate(range(ord("A"), ord("Z") + 1)):
        units[1 ^ letter] = (
            1 << 8 | letter | (1 ^ letter ^ 200 + place) << 10
        )  # a leaf is there, at 200 + place
        units[200 + place] = 1 << 31 | 2 * place
    texts = b"".join(bytes([letter, 0]) for letter in range(ord("a"), ord("z") + 1))
    return (4 * len(units)).to_bytes(4, "little") + units.tobytes() + texts


def test_sentencepiece(room: Path) -> None:
    path = room / "spiece.model"
    whole = sentencepiece()
    table = whole.index(charsmap())

    def change(source: random.Random) -> bytes:
        """Damage anywhere, or to the table of letters alone, which must stay as long as it is."""
        if source.randrange(3):
            return mutated(whole, source)
        data = bytearray(whole)
        for _ in range(source.choice((1, 3, 30))):
            place = source.randrange(table, len(data) - 4)
            data[place : place + 4] = source.choice((b"\xff" * 4, bytes(4), source.randbytes(4)))
        return bytes(data)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        files = TokenizerFiles(tokenizer_json=None, vocab=None, merges=None, spiece=path)
        Tokenizer.as_stored(files, context=16, only_end=True).encode(["a CAT, of Ünïts and \u3000"], cut=True)

    attack("sentencepiece", change, read, short=100, named=path.name)
