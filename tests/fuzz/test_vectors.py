"""Vectors, classifiers, indexes and shards: what nshot writes itself, and somebody else may have changed."""

from __future__ import annotations

import io
import json
import random
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuzz.attack import attack, one_line
from fuzz.damage import mutated, mutated_json
from fuzz.test_models import header_changed
from fuzz.test_tables import parquet_changed
from nshot.classifier.cascade import CascadeClassifier
from nshot.classifier.classifier import Classifier
from nshot.classifier.facets import Facets, open_classifier
from nshot.classifier.tree import Placing, TreeClassifier
from nshot.decision.calibration import Calibration
from nshot.decision.conformal import Conformal
from nshot.decision.decision import Decision, Surest
from nshot.decision.rejection import Rejection
from nshot.decision.several import Several
from nshot.embeddings import is_vector_file, read_vectors
from nshot.embeddings.embeddings import Embeddings
from nshot.errors import NshotError
from nshot.labels.tree import Tree
from nshot.regions.kept import Kept
from nshot.search.index import Index
from nshot.types import Prediction

META = {
    "nshot": 1,
    "model": "m",
    "space": "s",
    "encoder": "e",
    "preprocessing": "p",
    "classes": ["a"],
    "multi": False,
}
FAILURES = {"failures": [[1, "x.jpg", "UndecodableImage", "bad"]]}
needs_pyarrow = pytest.mark.skipif(not find_spec("pyarrow"), reason="needs pyarrow")


def rows() -> Any:
    return np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)


def read_vector_file(path: Path) -> None:
    if is_vector_file(path):
        found = read_vectors(path)
        assert np.isfinite(found.vectors).all()


def attack_file(
    reader: str,
    path: Path,
    whole: bytes,
    change: Callable[[bytes, random.Random], bytes],
    read: Callable[[Path], object],
    short: int,
    *,
    named: bool = False,
) -> None:
    def written(data: bytes) -> None:
        path.write_bytes(data)
        read(path)

    attack(
        reader, lambda source: change(whole, source), written, short=short, named=path.name if named else ""
    )


def npz(packed: bool, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    (np.savez_compressed if packed else np.savez)(buffer, **arrays)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["stored.npz", "packed.npz", "plain.npy"])
def test_arrays_of_vectors(kind: str, room: Path) -> None:
    names = np.array(list("abcde"))
    if kind == "plain.npy":
        buffer = io.BytesIO()
        np.save(buffer, rows())
        whole = buffer.getvalue()
    elif kind == "stored.npz":
        whole = npz(False, vectors=rows(), sources=names, meta=np.array(json.dumps(META | FAILURES)))
    else:
        digests = np.zeros((5, 32), np.uint8)
        whole = npz(True, vectors=rows(), labels=names, digests=digests, class_names=names)
    attack_file(f"vectors, {kind}", room / kind, whole, npy_changed, read_vector_file, 60)


def npy_changed(data: bytes, source: random.Random) -> bytes:
    """Damage anywhere, and to what an array says of its shape and type."""
    if source.randrange(2):
        return mutated(data, source)
    place = data.find(b"NUMPY")
    head = bytearray(data[place : place + 120])
    told = source.choice(
        (
            *(
                (b"<f4", b"|O8"),
                (b"<f4", b"<f2"),
                (b"<f4", b"<c8"),
                (b"<f4", b"<M8"),
                (b"<f4", b"|V4"),
                (b"<f4", b"<U1"),
            ),
            *(
                (b"(5, 8)", b"(-5, 8)"),
                (b"(5, 8)", b"(10**9,)"),
                (b"(5, 8)", b"(5,)"),
                (b"False", b"True"),
                (b"(5, 8)", b"()"),
            ),
            *(
                (b"(5, 8)", b"(999999999, 8)"),
                (b"(5, 8)", b"(0, 8)"),
                (b"'descr'", b"'other'"),
                (b"(5, 8)", b"(5, 0)"),
            ),
        )
    )
    head = head.replace(*told)
    return data[:place] + bytes(head) + data[place + 120 :]


def test_what_arrays_say_of_themselves(room: Path) -> None:
    told = json.dumps(META | FAILURES | {"notes": True, "multi": True}).encode()
    labels = np.array(['["a"]', '["b", "c"]', "[]"])
    notes = np.array(["", '["turned"]', ""])

    def made(source: random.Random) -> bytes:
        meta = np.array(mutated_json(told, source).decode("utf-8", "replace"))
        own = (
            labels
            if source.randrange(3)
            else np.array([mutated_json(b'["a"]', source).decode("utf-8", "replace")] * 3)
        )
        beside = {"labels": own, "notes": notes} if source.randrange(2) else {}
        return npz(
            False, vectors=np.eye(3, 8, dtype=np.float32), sources=np.array(list("abc")), meta=meta, **beside
        )

    def read(data: bytes) -> None:
        path = room / "x.npz"
        path.write_bytes(data)
        read_vector_file(path)

    attack("vectors, metadata", made, read, short=100)


def in_parquet(metadata: dict[str, str], **columns: Any) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    table = pa.table(columns).replace_schema_metadata(metadata)
    parquet.write_table(table, sink, row_group_size=3)
    return bytes(sink.getvalue().to_pybytes())


@needs_pyarrow
def test_vectors_in_parquet(room: Path) -> None:
    whole = in_parquet(
        {"nshot": json.dumps(META)},
        source=list("abcde"),
        embedding=[*rows()[:4].tolist(), None],
        labels=[["x"], ["y"], [], None, ["x"]],
        digest=[b"1" * 32] * 5,
        error=[None] * 4 + ["UndecodableImage: bad"],
        notes=[["turned"]] * 5,
    )

    def change(data: bytes, source: random.Random) -> bytes:
        if source.randrange(2):
            return parquet_changed(data, source)
        return in_parquet(
            {"nshot": mutated_json(json.dumps(META).encode(), source).decode("utf-8", "replace")},
            **{source.choice(("source", "path", "x")): odd_column(source), "embedding": odd_column(source)},
        )

    attack_file("vectors, Parquet", room / "x.parquet", whole, change, read_vector_file, 60)


def odd_column(source: random.Random) -> list[Any]:
    """Three cells of some kind."""
    return source.choice(
        (
            *(
                ["a", "b", "c"],
                [1, 2, 3],
                [None] * 3,
                [b"\xff", b"", b"x"],
                [[1.0, 0.0]] * 3,
                [[1.0], [1.0, 2.0], None],
            ),
            *(
                [[float("nan")] * 2] * 3,
                [[]] * 3,
                [["a"]] * 3,
                [[None, 1.0]] * 3,
                [{"a": 1}] * 3,
                [[0.0, 0.0]] * 3,
            ),
            *([[1e308, 1e308]] * 3, [True, False, None], [[[1.0]]] * 3, [1.5, 2.5, float("inf")]),
        )
    )


@needs_pyarrow
@pytest.mark.parametrize("damaged", ["manifest.parquet", "part-00000.parquet"])
def test_a_folder_of_shards(damaged: str, room: Path) -> None:
    """A plan and its parts: read as vectors, looked at by those who make shards, and verified."""
    from nshot.distributed.plan import Plan, check_same
    from nshot.distributed.shards import leftover, looked_at, verify
    from nshot.objects import open_folder

    kinds: dict[str, Any] = {
        "shard": np.array([0, 0, 1], np.int32),
        "kind": ["image", "failed", "whole"],
        "source": ["a.jpg", "b/", "c.tar"],
        "address": [None, None, "/x/c.tar"],
        "size": [7351, None, 5],
        "mark": [None, 3, None],
        "labels": [["x"], None, []],
        "domain": ["d", None, None],
        "error": [None, "UnreadableImage: gone", None],
    }
    told = META | {"plan": "f" * 64, "shards": 2, "images": 3, "request": {"sources": ["a"]}, "dimension": 8}
    part = told | {"shard": 0, "rows": 5, "failed": 1, "digest": "0" * 64, "kinds": {"UndecodableImage": 1}}
    files = {
        "manifest.parquet": in_parquet({"nshot": json.dumps(told)}, **kinds),
        "part-00000.parquet": in_parquet(
            {"nshot": json.dumps(part)},
            source=list("abcde"),
            embedding=[*rows()[:4].tolist(), None],
            error=[None] * 4 + ["UndecodableImage: bad"],
        ),
    }
    for name, data in files.items():
        (room / name).write_bytes(data)

    def change(data: bytes, source: random.Random) -> bytes:
        if source.randrange(2):
            return parquet_changed(data, source)
        own = told if damaged == "manifest.parquet" else part
        said = {"nshot": mutated_json(json.dumps(own).encode(), source).decode("utf-8", "replace")}
        if damaged != "manifest.parquet":
            return in_parquet(
                said, source=odd_column(source), embedding=odd_column(source), error=odd_column(source)
            )
        columns = {name: list(cells) for name, cells in kinds.items()}
        if source.randrange(2):
            columns[source.choice(sorted(columns))] = odd_column(source)
        if source.randrange(4) == 0:
            del columns[source.choice(sorted(columns))]
        return in_parquet(said, **columns)

    def read(path: Path) -> None:
        try:
            found = read_vectors(room)
            for start in range(0, min(len(found), 20), 2):  # they are read when they are asked for
                assert np.isfinite(np.asarray(found.vectors[start : start + 2])).all()
            _ = list(found.sources), found.labels, found.failures
        except NshotError as error:
            one_line(error)
        plan = Plan.open(open_folder(room))
        if plan is not None:
            numbers = range(min(plan.shards, 3))
            list(plan.entries(numbers))
            list(looked_at(plan, numbers))
            list(verify(plan, numbers))
            leftover(plan)
            check_same(plan, {"sources": ["a"]})

    attack_file(f"shards, {damaged}", room / damaged, files[damaged], change, read, 40)


def classifiers() -> dict[str, Classifier | Facets | TreeClassifier]:
    one = Classifier(["cat", "dog"], np.eye(2, 8, dtype=np.float32), scale=100.0, model="m", space="s")
    tree = Tree([("animal", "cat"), ("animal", "dog")])
    three = ["cat", "dog", "fox"]
    rule = Rejection("background", -0.5, np.eye(4, 8, 4, dtype=np.float32))
    scores, own = tuple(n / 120 for n in range(120)), (0, 1, 2) * 40
    sets = Conformal(scores, own, "least", True, 3)
    adaptive = Decision(sets=Conformal(scores, own, "adaptive"), coverage=0.9)
    decided = Decision(Calibration(2.0, 0.1), rule, Surest(0.9, 0.4, 0.05), sets)
    any_number = Several(np.array([0.1, 0.2, 0.3]), np.array([20, 30, 2]), 10, np.ones((5, 8), np.float32))
    matrix = np.eye(3, 8, dtype=np.float32)
    above = Classifier(["animal"], np.eye(1, 8, dtype=np.float32), scale=100.0, model="m")

    checked = {"images": 100, "agreement": 0.99, "interval": [0.95, 1.0], "went on": 0.3}
    promised = {"agree": 0.99, "learnt on": 500, "checked": checked, "precision": "f32"}

    def with_decision(decision: Decision) -> Classifier:
        made = Classifier(three, matrix, 100.0, model="m", space="s", decision=decision)
        return made.with_provenance(made={"images": 9, "templates": ["a {}"]}, examples=[b"1" * 32])

    return {
        "one": one,
        "decided": with_decision(decided),
        "sets": with_decision(adaptive),
        "several": with_decision(Decision(several=any_number)),
        "facets": Facets({"subject": one, "place": one}),
        "tree": TreeClassifier(one, tree, Placing((0.1, 0.9), 0.9, 0.5), inner=above),
        "cascade": CascadeClassifier.of(
            one, one.with_decision(Decision(Calibration(2.0), Rejection("energy", 0.1))), 1.5, promised
        ),
    }


@pytest.mark.parametrize("kind", ["one", "decided", "sets", "several", "facets", "tree", "cascade"])
def test_classifiers(kind: str, room: Path) -> None:
    path = room / "x.nshot"
    classifiers()[kind].save(path)

    def change(data: bytes, source: random.Random) -> bytes:
        """What is told is JSON within the header's JSON."""
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        told = header["__metadata__"]
        name = source.choice(sorted(told))
        if source.randrange(4) == 0:
            return arrays_changed(data, source)
        if source.randrange(3) == 0 or name == "format":
            return header_changed(data, source)
        told[name] = mutated_json(told[name].encode(), source).decode("utf-8", "replace")
        said = json.dumps(header).encode()
        return len(said).to_bytes(8, "little") + said + data[8 + length :]

    attack_file(f".nshot, {kind}", path, path.read_bytes(), change, opened_and_asked, 60, named=True)


def arrays_changed(data: bytes, source: random.Random) -> bytes:
    """A whole safetensors file, one of whose arrays holds other numbers, or is of another type or shape."""
    from safetensors.numpy import load, save

    length = int.from_bytes(data[:8], "little")
    told = json.loads(data[8 : 8 + length]).get("__metadata__")
    arrays = {name: array.copy() for name, array in load(data).items()}
    name = source.choice(sorted(arrays))
    array = arrays[name]
    match source.randrange(8):
        case 0 | 1 | 2:
            number = source.choice(ODD_NUMBERS)
            array.flat[source.randrange(array.size)] = number
            if source.randrange(2):
                array[...] = number
        case 3:
            with np.errstate(over="ignore"):
                arrays[name] = array.astype(source.choice(("f2", "f8", "i8", "i1", "u1", "?")))
        case 4:
            arrays[name] = array.T[: source.randrange(1, 9)]
        case 5:
            arrays[name] = np.concatenate([array, array]) if array.ndim else array.reshape(1)
        case 6:
            arrays[source.choice(sorted(arrays))] = array
        case 7:
            arrays[source.choice(("bias", "other", "9.matrix", ""))] = arrays.pop(name)
    return bytes(save({each: np.ascontiguousarray(held) for each, held in arrays.items()}, metadata=told))


ODD_NUMBERS = (
    *(float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 1e-40, 1e-30),
    *(3e38, -3e38, 1e20, -1),
)


def opened_and_asked(path: Path) -> None:
    """What it opens as can be asked and gives scores, or it was refused."""
    found = open_classifier(path)
    width = 16 if isinstance(found, CascadeClassifier) else 8
    images = np.zeros((3, width), np.float32)
    images[0, 0] = images[1, 1] = images[2, width - 1] = 1
    if getattr(found, "dimension", 0) not in (0, width):
        return
    for answer in found.predict(images):
        for told in answer.predictions if isinstance(answer, Prediction) else ():
            assert 0 <= told.score <= 1, told
            assert abs(told.cosine) <= 1.01 or isinstance(found, CascadeClassifier), told


@pytest.mark.parametrize("damaged", ["index.json", "sources", "vectors.npy"])
def test_indexes(damaged: str, room: Path) -> None:
    images = Embeddings.of(unit_rows(5), sources=list("abcde"))
    folder = room / "x.index"
    Index.build(images, folder)
    path = folder / damaged

    def change(data: bytes, source: random.Random) -> bytes:
        if damaged == "index.json":
            return mutated_json(data, source)
        if damaged == "sources" or source.randrange(2):
            return mutated(data, source)
        vectors = np.load(io.BytesIO(data)).astype(np.float32)
        vectors.flat[source.randrange(vectors.size)] = source.choice((*ODD_NUMBERS[:-3], 6e4))
        buffer = io.BytesIO()
        with np.errstate(over="ignore"):
            np.save(buffer, vectors.astype(np.float16))
        return buffer.getvalue()

    def written(data: bytes) -> None:
        path.write_bytes(data)
        if damaged == "sources":  # whoever changes the names can change their checksum
            about = json.loads((folder / "index.json").read_bytes())
            (folder / "index.json").write_text(json.dumps(about | {"names": zlib.crc32(data)}))
        search(folder)

    whole = path.read_bytes()
    attack(f"index, {damaged}", lambda source: change(whole, source), written, short=60)


@pytest.mark.skipif(not find_spec("faiss"), reason="needs faiss")
@pytest.mark.parametrize("damaged", ["index.json", "lists.faiss"])
def test_inverted_files(damaged: str, room: Path) -> None:
    """What is not as this person left it is not looked into; what the index says of it may be anything."""
    images = Embeddings.of(unit_rows(200), sources=[str(n) for n in range(200)])
    folder = room / "x.index"
    Index.build(images, folder, texts=unit_rows(3))
    path = folder / damaged
    whole = path.read_bytes()

    def written(data: bytes) -> None:
        path.write_bytes(data)
        found = search(folder)
        assert damaged == "index.json" or data == whole or found.recall is None

    change = mutated_json if damaged == "index.json" else mutated
    attack(f"inverted file, {damaged}", lambda source: change(whole, source), written, short=60)


def unit_rows(count: int) -> Any:
    made = np.random.default_rng(count).standard_normal((count, 8))
    return (made / np.linalg.norm(made, axis=1, keepdims=True)).astype(np.float32)


def search(folder: Path) -> Index:
    """As a command does; what is found is there, and is as near as it is said to be."""
    found = Index.open(folder)
    rows, cosines = found.top(unit_rows(2), 3)
    for row, cosine in zip(rows.ravel(), cosines.ravel(), strict=True):
        assert isinstance(found.sources[int(row)], str)
        assert abs(cosine) <= 1.01
    assert len(list(found.sources)) == len(found)
    assert found.recall is None or 0 <= found.recall <= 1
    return found


def test_what_a_store_keeps_of_regions() -> None:
    whole = Kept(
        (8, 6), ("turned",), {"grid": np.ones((2, 3), np.float16), "boxes": np.zeros((1, 4), np.float32)}
    )

    def made(source: random.Random) -> bytes:
        data = whole.to_bytes()
        if source.randrange(2):
            return mutated(data, source)
        length = int.from_bytes(data[:4], "little")
        head = mutated_json(data[4 : 4 + length], source)
        return len(head).to_bytes(4, "little") + head + data[4 + length :]

    attack("regions in a store", made, Kept.from_bytes, short=100)
