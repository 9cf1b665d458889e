"""Every reader, given damaged files: what it gives is right or an error of nshot's in one line, and soon."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable
from copy import deepcopy
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import tiny_checkpoint
from PIL import Image

from fuzz.rounds import mutated, rounds
from nshot.classifier.classifier import Classifier
from nshot.embeddings import is_vector_file, read_vectors
from nshot.errors import NshotError
from nshot.images.preprocess import Preprocessor
from nshot.images.sources import expand
from nshot.labels.files import read_labels
from nshot.models.checkpoint import find
from nshot.models.weights import read_weights
from nshot.output.sorting import JOURNAL, carry_out, plan, undo
from nshot.types import Limits

SECONDS = 10.0  # of processor time, for any one input
LIMITS = Limits(max_bytes=2**20)


def image() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(buffer, "JPEG")
    return buffer.getvalue()


def read_sources(path: Path) -> None:
    """List a table or an archive, and read what it lists."""
    for source in expand([path], limits=LIMITS):
        try:
            source.read()
        except NshotError as error:
            one_line(error)


def read_checkpoint(path: Path) -> None:
    """All that loading a model reads of its folder."""
    checkpoint = find(path.parent)
    Preprocessor.from_config(checkpoint.preprocessor)
    _ = checkpoint.image_mean, checkpoint.image_std
    checkpoint.tokenizer()
    if path.suffix in (".safetensors", ".bin", ".json"):
        checkpoint.tensors()


def read_vector_file(path: Path) -> None:
    if is_vector_file(path):
        read_vectors(path)


def one_line(error: NshotError, name: str = "") -> None:
    assert 0 < len(str(error)) < 1500
    # a configuration may only turn out wrong against the weights
    assert name in str(error) or (name and "model.safetensors" in str(error))
    assert "\n" not in str(error)


def attacked(
    path: Path,
    whole: bytes,
    read: Callable[[Path], object],
    count: int,
    change: Callable[[bytes, random.Random], bytes],
    *,
    named: bool = False,
) -> None:
    """Read `count` damaged versions of a file, each within its time; an error may have to name it."""
    before = threading.active_count()
    for seed in range(count):
        data = change(whole, random.Random(f"{path.name}-{seed}"))
        path.write_bytes(data)
        begun = os.times()
        try:
            read(path)
        except NshotError as error:
            one_line(error, path.name if named else "")
        except BaseException as error:
            error.add_note(f"{path.name}, seed {seed}")
            raise
        ended = os.times()
        assert ended.user + ended.system - begun.user - begun.system < SECONDS, f"{path.name}, seed {seed}"
    path.write_bytes(whole)
    read(path)
    assert threading.active_count() <= before + 2


def archives(folder: Path) -> dict[str, bytes]:
    made: dict[str, bytes] = {}
    for name, mode in (("x.tar", "w"), ("x.tar.gz", "w:gz"), ("x.tar.xz", "w:xz"), ("x.tar.bz2", "w:bz2")):
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
            for number in range(4):
                info = tarfile.TarInfo(f"{'ü' * 50 * (number % 2)}{number}.jpg")
                info.size = len(image())
                archive.addfile(info, io.BytesIO(image()))
        made[name] = buffer.getvalue()
    for name, method in (
        ("x.zip", zipfile.ZIP_DEFLATED),
        ("y.zip", zipfile.ZIP_LZMA),
        ("z.zip", zipfile.ZIP_BZIP2),
    ):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", method) as archive:
            for number in range(4):
                archive.writestr(f"{number}.jpg", image())
        made[name] = buffer.getvalue()
    return made


def tables(folder: Path) -> dict[str, bytes]:
    rows = [("a.jpg", "cat"), ('b, "c".jpg', "dög"), ("d.jpg", "x")]
    made = {
        "x.csv": "image,label\n" + "".join('"{}",{}\n'.format(a.replace('"', '""'), b) for a, b in rows),
        "x.tsv": "path\tlabel\n" + "".join(f"{a}\t{b}\n" for a, b in rows),
        "x.jsonl": "".join(json.dumps({"image": a, "label": b}) + "\n" for a, b in rows),
        "x.json": json.dumps([{"image": a, "label": b} for a, b in rows]),
        "y.json": json.dumps(
            {
                "images": [{"id": 1, "file_name": "a.jpg"}],
                "annotations": [{"image_id": 1, "category_id": 2}],
                "categories": [{"id": 2, "name": "cat"}],
            }
        ),
        "x.xml": '<annotations><image name="a.jpg"><tag label="cat"/></image></annotations>',
    }
    found = {name: text.encode() for name, text in made.items()}
    if find_spec("pyarrow"):
        import pyarrow as pa
        from pyarrow import parquet

        for name, column in (
            ("x.parquet", [{"bytes": image(), "path": "a"}] * 3),
            ("y.parquet", ["a.jpg"] * 5),
        ):
            sink = pa.BufferOutputStream()
            parquet.write_table(pa.table({"image": column, "label": list(range(len(column)))}), sink)
            found[name] = sink.getvalue().to_pybytes()
    return found


@pytest.mark.parametrize("name", sorted(archives(Path())))
def test_damaged_archives_end_in_failures(name: str, tmp_path: Path) -> None:
    attacked(tmp_path / name, archives(tmp_path)[name], read_sources, rounds(40), mutated)


@pytest.mark.parametrize("name", sorted(tables(Path())))
def test_damaged_tables_end_in_failures(name: str, tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(image())
    change = mutated if name.endswith(".parquet") or not name.endswith(("json", "jsonl")) else mutated_json
    attacked(tmp_path / name, tables(tmp_path)[name], read_sources, rounds(60), change)


def test_damaged_labels_files_end_in_an_error(tmp_path: Path) -> None:
    text = b'cat\ndog, hot\n"x", y\n'
    attacked(tmp_path / "labels.txt", text, read_labels, rounds(100), mutated)
    table = json.dumps({"cat": ["kitten", "a photo of a cat"], "dog": []}).encode()
    attacked(tmp_path / "labels.json", table, read_labels, rounds(100), mutated_json)


NONSENSE: list[Any] = [
    *(
        None,
        True,
        -1,
        0,
        10**6,
        10**9,
        10**400,
        3 * 10**7,
        -1e308,
        1e308,
        0.5,
        "",
        "x" * 300,
        "1",
        [],
        [[]],
        {},
    ),
    *([1, 2], {"a": 1}, {"shortest_edge": 10**6}, {"height": -1, "width": 10**7}, float("inf"), float("nan")),
    [10**400, 10**400],
]


def mutated_json(data: bytes, source: random.Random) -> bytes:
    """JSON with a value, or a few bytes, that should not be there."""
    if source.randrange(4) == 0:
        return mutated(data, source)
    try:
        lines = [json.loads(line) for line in data.splitlines()]
    except ValueError:
        lines = [json.loads(data)]
    for _ in range(source.choice((1, 1, 3))):
        number = source.randrange(len(lines))
        places: list[tuple[Any, Any]] = []
        waiting = [lines[number]]
        while waiting:
            value = waiting.pop()
            keys = (
                list(value)
                if isinstance(value, dict)
                else range(len(value))
                if isinstance(value, list)
                else ()
            )
            places += [(value, key) for key in keys]
            waiting += [value[key] for key in keys]
        if not places:
            lines[number] = deepcopy(source.choice(NONSENSE))
            continue
        holder, key = source.choice(places)
        if isinstance(holder, dict) and source.randrange(5) == 0:
            del holder[key]
        else:
            holder[key] = deepcopy(source.choice(NONSENSE))
    text = "\n".join(json.dumps(line) for line in lines)
    if source.randrange(10) == 0:
        text = text.replace("1", "1" * source.choice((4000, 5000)), 1).replace("0.5", "1e999")
    if source.randrange(30) == 0:
        text = "[" * 100_000 + text
    return text.encode()


@pytest.mark.parametrize(
    "name", ["config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json"]
)
def test_damaged_settings_of_a_model_are_one_line_that_names_it(name: str, tmp_path: Path) -> None:
    tiny_checkpoint(tmp_path)
    path = tmp_path / name
    whole = path.read_bytes() if path.exists() else json.dumps({"pad_token": {"content": "!"}}).encode()
    attacked(path, whole, read_checkpoint, rounds(60, 100_000), mutated_json, named=True)


def header_changed(data: bytes, source: random.Random) -> bytes:
    """A safetensors file whose header says something else, of the length that it has then."""
    if source.randrange(3) == 0:
        return mutated(data, source)
    length = int.from_bytes(data[:8], "little")
    header = mutated_json(data[8 : 8 + length], source)
    return len(header).to_bytes(8, "little") + header + data[8 + length :]


def test_damaged_weights_are_one_line_that_names_them(tmp_path: Path) -> None:
    from safetensors.numpy import save

    whole = save({"a": np.ones((2, 3), np.float32), "b": np.ones(4, np.float16)}, metadata={"x": "y"})
    attacked(tmp_path / "model.safetensors", whole, read_weights, rounds(300), header_changed)


def pickled() -> bytes:
    """A pytorch_model.bin as torch.save writes one, of two tensors."""
    body = (
        b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(X\x01\x00\x00\x00aq\x02ctorch._utils\n_rebuild_tensor_v2\n"
        b"q\x03((X\x07\x00\x00\x00storageq\x04ctorch\nFloatStorage\nq\x05X\x01\x00\x00\x000q\x06X\x03\x00\x00\x00cpu"
        b"q\x07K\x06tq\x08QK\x00K\x02K\x03\x86q\x09K\x03K\x01\x86q\x0a\x89h\x00)Rq\x0btq\x0cRq\x0du."
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", body)
        archive.writestr("archive/data/0", np.arange(6, dtype="<f4").tobytes())
    return buffer.getvalue()


def pickle_changed(data: bytes, source: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        body, values = archive.read("archive/data.pkl"), archive.read("archive/data/0")
    match source.randrange(6):
        case 0:
            return mutated(data, source)
        case 1:
            body = crafted(source)
        case _:
            body = mutated(body, source)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", body)
        archive.writestr("archive/data/0", values)
    return buffer.getvalue()


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
            b"\x80\x02" + b"N0" * 600_000 + b".",
            pickle.dumps({"a": [1] * 1000, (1, 2): os.getcwd}),
        ]
    )


def test_damaged_and_crafted_pickles_are_one_line_and_run_nothing(tmp_path: Path) -> None:
    read = read_weights(_written(tmp_path / "pytorch_model.bin", pickled()))
    assert read["a"].tolist() == [[0, 1, 2], [3, 4, 5]]
    attacked(tmp_path / "pytorch_model.bin", pickled(), read_weights, rounds(60), pickle_changed)


def _written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def test_damaged_classifiers_are_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.nshot"
    Classifier(["cat", "dog"], np.eye(2, 8, dtype=np.float32), scale=100.0, model="m").save(path)
    attacked(path, path.read_bytes(), Classifier.open, rounds(150), header_changed)


def test_damaged_vector_files_are_one_line(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    meta = json.dumps(
        {"nshot": 1, "model": "m", "space": "s", "failures": [[1, "x.jpg", "UndecodableImage", "bad"]]}
    )
    whole, packed = io.BytesIO(), io.BytesIO()
    np.savez(whole, vectors=rows, sources=np.array(list("abcde")), meta=np.array(meta))
    np.savez_compressed(packed, vectors=rows, labels=np.array(list("abcde")))
    plain = io.BytesIO()
    np.save(plain, rows)
    for name, buffer in (("x.npz", whole), ("y.npz", packed), ("x.npy", plain)):
        attacked(tmp_path / name, buffer.getvalue(), read_vector_file, rounds(100, 33_000), mutated)


def meta_changed(data: bytes, source: random.Random) -> bytes:
    buffer = io.BytesIO()
    rows = np.eye(3, 8, dtype=np.float32)
    np.savez(
        buffer,
        vectors=rows,
        sources=np.array(list("abc")),
        meta=np.array(mutated_json(data, source).decode("utf-8", "replace")),
    )
    return buffer.getvalue()


def test_nonsense_in_what_a_vector_file_says_of_itself_is_one_line(tmp_path: Path) -> None:
    meta = {"nshot": 1, "model": "m", "space": "s", "encoder": "e", "preprocessing": "p", "classes": ["a"]}
    told = json.dumps(meta | {"failures": [[1, "x.jpg", "UndecodableImage", "bad"]], "multi": False}).encode()
    for seed in range(rounds(100)):
        path = _written(tmp_path / "x.npz", meta_changed(told, random.Random(seed)))
        try:
            read_vector_file(path)
        except NshotError as error:
            one_line(error)


def test_damaged_journals_undo_nothing_outside_of_their_folder(tmp_path: Path) -> None:
    for seed in range(rounds(60, 20_000)):
        folder = tmp_path / str(seed)
        photos, target = folder / "photos", folder / "sorted"
        photos.mkdir(parents=True)
        (folder / "bystander").write_bytes(b"bystander")
        for name in "abc":
            (photos / f"{name}.jpg").write_bytes(name.encode())
        files = [(path, "cat") for path in sorted(photos.iterdir())]
        carry_out(plan(files, target, {"cat": "cat"}), target, "move")
        journal = target / JOURNAL
        journal.write_bytes(mutated_json(journal.read_bytes(), random.Random(seed)))
        try:
            undo(target, [photos])
        except NshotError as error:
            one_line(error)
        held = sorted(path.read_bytes() for path in folder.rglob("*.jpg"))
        assert held == [b"a", b"b", b"c"], seed
        assert sorted(path.name for path in folder.iterdir()) in (
            ["bystander", "photos"],
            ["bystander", "photos", "sorted"],
        ), seed


def test_a_gzip_bomb_and_its_kin_take_little_memory(tmp_path: Path) -> None:
    bomb = zlib.compressobj(9, wbits=31)
    zeros = bytes(2**20)
    packed = b"".join(bomb.compress(zeros) for _ in range(300)) + bomb.flush()
    (tmp_path / "x.tar.gz").write_bytes(packed)
    try:
        read_sources(tmp_path / "x.tar.gz")
    except NshotError as error:
        one_line(error)


@pytest.mark.parametrize(
    "text", ["a" + " " * 500_000 + "b\nc", "1" + " " * 500_000 + "2\n", "item {" * 100_000]
)
def test_a_labels_file_that_expressions_could_search_forever_is_read_at_once(
    tmp_path: Path, text: str
) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(text)
    begun = os.times()
    assert len(read_labels(path)) <= 2
    ended = os.times()
    assert ended.user - begun.user < SECONDS
