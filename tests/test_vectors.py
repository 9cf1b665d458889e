"""Files of vectors: what is written is read again, and others' arrays are taken as they come."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nshot.embeddings import is_vector_file, open_writer, read_vectors
from nshot.errors import MissingExtra, OutputError, SourceError
from nshot.types import Embedded, Failure, Floats, Recipe

RECORDED = Path(__file__).parents[1].parent / "shared" / "data" / "recorded"
FORMATS = ["npz", "parquet"]
RECIPE = Recipe("encoder", "pixels", "weights")


def unit_rows(count: int, features: int = 8, seed: int = 0) -> Floats:
    rows = np.random.default_rng(seed).standard_normal((count, features))
    unit: Floats = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return unit


def write(path: Path, items: list[Embedded | Failure]) -> None:
    with open_writer(path, recipe=RECIPE, model="some/clip") as writer:
        for item in items:
            writer.write(item)


@pytest.fixture
def items() -> list[Embedded | Failure]:
    rows = unit_rows(5000)
    items: list[Embedded | Failure] = [Embedded(f"bilder/猫 {n}.jpg", row) for n, row in enumerate(rows)]
    items.insert(0, Failure("first.jpg", "UnreadableImage", "not there"))
    items.insert(4100, Failure("middle.jpg", "FetchError", "no answer\nat all"))
    return [*items, Failure("last.jpg", "UndecodableImage", "not an image")]


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_is_read_again_in_order_and_bit_for_bit(
    tmp_path: Path, format: str, items: list[Embedded | Failure]
) -> None:
    path = tmp_path / f"out.{format}"
    write(path, items)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert is_vector_file(path)
    file = read_vectors(path)
    assert (file.recipe, file.model, len(file), file.asked) == (RECIPE, "some/clip", 5000, 5003)
    assert file.vectors.dtype == np.float32
    for ours, theirs in zip(items, file.records(), strict=True):
        assert ours.source == theirs.source
        if isinstance(ours, Embedded):
            assert isinstance(theirs, Embedded)
            assert ours.vector.tobytes() == theirs.vector.tobytes()
        else:
            assert isinstance(theirs, Failure)
            assert ours == theirs


@pytest.mark.parametrize("format", FORMATS)
def test_equal_vectors_make_equal_files(tmp_path: Path, format: str, items: list[Embedded | Failure]) -> None:
    write(tmp_path / f"a.{format}", items)
    write(tmp_path / f"b.{format}", items)
    assert (tmp_path / f"a.{format}").read_bytes() == (tmp_path / f"b.{format}").read_bytes()


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("items", [[], [Failure("a.jpg", "FetchError", "no")]], ids=["nothing", "failures"])
def test_a_file_without_a_single_vector_is_a_file(
    tmp_path: Path, format: str, items: list[Embedded | Failure]
) -> None:
    path = tmp_path / f"out.{format}"
    write(path, items)
    assert is_vector_file(path)
    assert list(read_vectors(path).records()) == items


def test_numpy_reads_what_is_written_without_nshot(tmp_path: Path) -> None:
    rows = unit_rows(3)
    write(tmp_path / "out.npz", [Embedded(name, row) for name, row in zip("abc", rows, strict=True)])
    with np.load(tmp_path / "out.npz", allow_pickle=False) as archive:
        assert archive["sources"].tolist() == ["a", "b", "c"]
        assert np.array_equal(archive["vectors"], rows)


@pytest.mark.parametrize("format", FORMATS)
def test_names_that_are_not_utf8_or_hold_control_characters_come_back(tmp_path: Path, format: str) -> None:
    name = os.fsdecode(b"caf\xe9\x1b[2J\n.jpg")
    write(tmp_path / f"out.{format}", [Embedded(name, unit_rows(1)[0]), Failure(name, "FetchError", name)])
    read = read_vectors(tmp_path / f"out.{format}")
    assert read.sources == (name,)
    assert read.failures[1].source == name


@pytest.mark.parametrize("format", FORMATS)
def test_two_writers_of_one_file_are_refused(tmp_path: Path, format: str) -> None:
    with open_writer(tmp_path / f"out.{format}") as first:
        with pytest.raises(OutputError, match="another nshot is writing"):
            open_writer(tmp_path / f"out.{format}")
        first.write(Embedded("a", unit_rows(1)[0]))
    assert [path.name for path in tmp_path.iterdir()] == [f"out.{format}"]


@pytest.mark.parametrize("format", FORMATS)
def test_an_interrupted_writer_leaves_the_old_file_and_no_litter(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"out.{format}"
    write(path, [Embedded("old", unit_rows(1)[0])])
    writer = open_writer(path).__enter__()
    writer.write(Embedded("new", unit_rows(1)[0]))
    writer.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
    assert read_vectors(path).sources == ("old",)


@pytest.mark.parametrize("format", FORMATS)
def test_a_killed_writer_leaves_nothing_under_the_name(tmp_path: Path, format: str) -> None:
    code = """
import sys, numpy as np
from nshot.types import Embedded
from nshot.embeddings import open_writer
with open_writer(sys.argv[1]) as writer:
    for n in range(10**9):
        writer.write(Embedded(str(n), np.ones(512, np.float32)))
        if n == 9000: print("on my way", flush=True)
"""
    path = tmp_path / f"out.{format}"
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline()
        writer.send_signal(signal.SIGKILL)
    assert not path.exists()
    write(path, [Embedded("a", unit_rows(1)[0])])
    assert read_vectors(path).sources == ("a",)


@pytest.mark.parametrize("format", FORMATS)
def test_vectors_of_different_lengths_do_not_go_into_one_file(tmp_path: Path, format: str) -> None:
    path = tmp_path / f"out.{format}"
    with open_writer(path) as writer:
        writer.write(Embedded("a.jpg", unit_rows(1, 8)[0]))
        with pytest.raises(OutputError, match=r"of b\.jpg has 9 features"):
            writer.write(Embedded("b.jpg", unit_rows(1, 9)[0]))
    assert read_vectors(path).sources == ("a.jpg",)


def test_an_output_that_cannot_be_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    (tmp_path / "folder.npz").mkdir()
    for name, reason in (
        ("out.txt", r"written as \.npz or \.parquet"),
        ("out", r"written as \.npz or \.parquet"),
        ("folder.npz", "is a folder"),
        ("missing/out.npz", r"there is no folder .*missing"),
    ):
        with pytest.raises(OutputError, match=reason):
            open_writer(tmp_path / name)


def test_parquet_without_pyarrow_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "out.parquet", [Embedded("a", unit_rows(1)[0])])
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for use in (open_writer, is_vector_file, read_vectors):
        with pytest.raises(MissingExtra, match=r'pip install "nshot\[data\]"'):
            use(tmp_path / "out.parquet")


@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8"])
def test_a_plain_array_is_made_of_unit_rows_along_the_features(tmp_path: Path, dtype: str) -> None:
    array = (unit_rows(7) * np.arange(1, 8)[:, None] * 3).astype(dtype)
    np.save(tmp_path / "plain.npy", np.asfortranarray(array))
    file = read_vectors(tmp_path / "plain.npy")
    assert file.sources == tuple(f"{tmp_path}/plain.npy#{row}" for row in range(7))
    assert (file.recipe, file.model, file.failures) == (None, None, {})
    assert np.allclose(np.linalg.norm(file.vectors, axis=1), 1, atol=1e-6)
    assert np.allclose(file.vectors, unit_rows(7), atol=2e-3 if dtype == "<f2" else 1e-6)


def test_rows_too_long_or_too_short_to_be_squared_are_vectors(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.array([[3e300, 4e300], [3e-300, 4e-300]]))
    assert np.allclose(read_vectors(tmp_path / "a.npy").vectors, [[0.6, 0.8], [0.6, 0.8]])


def test_rows_without_a_direction_are_failures_that_name_the_row(tmp_path: Path) -> None:
    array = np.full((5, 4), 0.5, np.float32)
    array[1], array[3, 2], array[4, 0] = 0, np.nan, np.inf
    np.save(tmp_path / "a.npy", array)
    file = read_vectors(tmp_path / "a.npy")
    assert [type(item).__name__ for item in file.records()] == [
        "Embedded",
        "Failure",
        "Embedded",
        "Failure",
        "Failure",
    ]
    assert "row 1" in file.failures[1].message
    assert "all zeros" in file.failures[1].message
    assert "row 3" in file.failures[3].message
    assert "not finite" in file.failures[3].message
    assert file.failures[4].source.endswith("a.npy#4")
    assert file.vectors.shape == (2, 4)


def test_the_array_in_an_npz_is_found_by_its_name_or_by_being_the_only_one(tmp_path: Path) -> None:
    rows, other = unit_rows(3), unit_rows(9)
    for arrays in (
        {"image_embeds": rows, "text_embeds": other},
        {"vectors": rows, "embeddings": other},
        {"x": rows, "labels": np.arange(3), "images": np.zeros((3, 2, 2, 3), np.uint8)},
    ):
        np.savez(tmp_path / "a.npz", **arrays)
        assert is_vector_file(tmp_path / "a.npz")
        assert np.array_equal(read_vectors(tmp_path / "a.npz").vectors, rows)
    np.savez(tmp_path / "a.npz", x=rows, y=other)
    with pytest.raises(SourceError, match="2 two-dimensional arrays"):
        read_vectors(tmp_path / "a.npz")


def test_somebody_elses_parquet_with_a_list_column_is_read(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = unit_rows(3)
    for kind in (pa.list_(pa.float32()), pa.list_(pa.float64(), 8), pa.large_list(pa.float32())):
        vector = pa.array([rows[0].tolist(), None, rows[2].tolist()], kind)
        parquet.write_table(pa.table({"vector": vector, "n": [1, 2, 3]}), tmp_path / "a.parquet")
        assert is_vector_file(tmp_path / "a.parquet")
        file = read_vectors(tmp_path / "a.parquet")
        assert np.array_equal(file.vectors, rows[[0, 2]])
        assert file.failures.keys() == {1}
    parquet.write_table(pa.table({"vector": [[1.0], [1.0, 2.0]]}), tmp_path / "a.parquet")
    with pytest.raises(SourceError, match="different lengths: 1, 2"):
        read_vectors(tmp_path / "a.parquet")


def test_other_files_are_not_taken_for_vectors(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    pa = pytest.importorskip("pyarrow")
    parquet.write_table(pa.table({"image": [b"x"], "vector": ["a"]}), tmp_path / "images.npz")
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        archive.writestr("a.npy", b"")
        archive.writestr("a.jpg", b"")
    with zipfile.ZipFile(tmp_path / "empty.zip", "w"):
        pass
    (tmp_path / "a.npy").write_bytes(b"\xff\xd8\xff an image by a wrong name")
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04torn")
    (tmp_path / "torn.parquet").write_bytes(b"PAR1torn")
    os.mkfifo(tmp_path / "pipe")
    for file in [*tmp_path.iterdir(), tmp_path, tmp_path / "missing", Path("http://example.org/a.npy")]:
        assert not is_vector_file(file), file
    np.save(tmp_path / "a.jpg", unit_rows(1))
    (tmp_path / "a.jpg.npy").rename(tmp_path / "a.jpg")
    assert is_vector_file(tmp_path / "a.jpg")


def array_bytes(array: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (array_bytes(np.zeros(3, np.float32)), r"shape \(3,\)"),
        (array_bytes(np.zeros((3, 4), np.uint8)), "uint8"),
        (array_bytes(np.array([{}], dtype=object), allow_pickle=True), "allow_pickle"),
        (array_bytes(np.ones((9, 9), np.float32))[:-5], "is damaged"),
        (
            array_bytes(np.ones((9, 9), np.float32)).replace(b"(9, 9)", b"(9, 999999999999999999)"),
            "is damaged",
        ),
        (b"", "is damaged"),
        (b"PK\x03\x04torn", "is damaged"),
        (b"PAR1torn", "no column 'embedding'"),
    ],
)
def test_what_holds_no_vectors_is_a_source_error_that_names_the_file(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(SourceError, match=reason) as caught:
        read_vectors(tmp_path / "a.npy")
    assert "a.npy" in str(caught.value)


def test_a_missing_file_is_a_source_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot read .*a\.npz: No such file"):
        read_vectors(tmp_path / "a.npz")


@pytest.mark.skipif(not RECORDED.is_dir(), reason="no recorded vectors beside the project")
def test_recorded_vectors_are_read_whatever_else_is_in_their_file() -> None:
    for name, count in (("cifar10", 300), ("photos50", 25), ("flickr8k", 60)):
        vectors = read_vectors(RECORDED / f"{name}_vitb32.npz").vectors
        assert vectors.shape == (count, 512)
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("format", FORMATS)
def test_labels_domains_and_digests_stay_with_their_image(tmp_path: Path, format: str) -> None:
    rows = unit_rows(3)
    several: list[Embedded | Failure] = [
        Embedded("a", rows[0], ("cat", "dog"), "photo", b"\x01" * 32),
        Failure("b", "FetchError", "no"),
        Embedded("c", rows[1], (), None, None),
        Embedded("d", rows[2], ("cat",), "sketch", b"\x02" * 32),
    ]
    write(tmp_path / f"several.{format}", several)
    read = read_vectors(tmp_path / f"several.{format}")
    assert read.labels == (("cat", "dog"), (), ("cat",))
    assert read.multi
    assert read.classes == ("cat", "dog")
    assert read.digests == (b"\x01" * 32, None, b"\x02" * 32)
    assert read.positions.tolist() == [0, 2, 3]
    write(tmp_path / f"one.{format}", [Embedded("a", rows[0], ("cat",)), Embedded("b", rows[1], ("dog",))])
    assert read_vectors(tmp_path / f"one.{format}").label == ("cat", "dog")
    if format == "npz":
        with np.load(tmp_path / "one.npz", allow_pickle=False) as archive:
            assert archive["labels"].tolist() == ["cat", "dog"]


@pytest.mark.parametrize("format", FORMATS)
def test_what_decoding_did_with_an_image_stays_with_its_vector(tmp_path: Path, format: str) -> None:
    rows = unit_rows(3)
    items: list[Embedded | Failure] = [
        Embedded("a", rows[0], notes=("page 1 of 3", "scaled from a range: 0 to 4095")),
        Failure("b", "FetchError", "no"),
        Embedded("c", rows[1]),
        Embedded("d", rows[2], notes=("white is zero",)),
    ]
    write(tmp_path / f"noted.{format}", items)
    read = read_vectors(tmp_path / f"noted.{format}")
    assert read.notes == (("page 1 of 3", "scaled from a range: 0 to 4095"), (), ("white is zero",))
    assert [item.notes for item in read.records()] == [item.notes for item in items]
    assert read[[2, 1]].notes == (("white is zero",), ())
    write(tmp_path / f"plain.{format}", [Embedded("a", rows[0])])
    assert read_vectors(tmp_path / f"plain.{format}").notes is None
