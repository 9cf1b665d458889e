"""Files whose content is of another type, size or depth than any program writes: one line that names them.

Each of these was found by the attacks in ``tests/fuzz``.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nshot.classifier.classifier import Classifier
from nshot.classifier.facets import Facets, open_classifier
from nshot.embeddings.embeddings import Embeddings
from nshot.errors import LabelError, NshotError, OutputError, RequestError, SourceError, StoreError
from nshot.evaluation.boxes import read_boxes
from nshot.images.delimited import open_delimited
from nshot.images.footer import largest_page, row_groups
from nshot.images.sources import expand
from nshot.images.tables import open_table
from nshot.labels.facets import read_facets
from nshot.labels.files import read_label_file
from nshot.labels.lint import check
from nshot.labels.prompts import read_templates, split_labels
from nshot.labels.tree import read_tree
from nshot.models.files import Folder
from nshot.models.layout import choose
from nshot.output.sinks import open_sink
from nshot.output.tagging.tagging import JOURNAL as TAGS
from nshot.output.tagging.tagging import undo_tags
from nshot.regions.kept import Kept
from nshot.regions.thresholds import read_thresholds
from nshot.search.index import Index

DEEP = '{"a": ' * 100_000
HUGE = "1" * 5000
needs_pyarrow = pytest.mark.skipif(not find_spec("pyarrow"), reason="needs pyarrow")


def fails(read: Callable[[Path], object], path: Path, content: str | bytes) -> str:
    """What a reader says of a file; that is one bearable line which names it."""
    path.write_bytes(content.encode("utf-8", "surrogatepass") if isinstance(content, str) else content)
    with pytest.raises(NshotError) as caught:
        read(path)
    said = str(caught.value)
    assert path.name in said
    assert "\n" not in said
    assert len(said) < 1500
    return said


def test_a_message_is_one_line_of_bearable_length_whatever_it_repeats() -> None:
    said = str(SourceError("a\nb " + "x" * 10_000 + " write one per line"))
    assert said.startswith("a\\nb xxx")
    assert said.endswith(" write one per line")
    assert len(said) < 1300


@pytest.mark.parametrize(
    ("read", "name"),
    [
        (read_thresholds, "a.json"),
        (read_facets, "a.json"),
        (read_tree, "a.json"),
        (read_label_file, "a.json"),
        (lambda path: read_boxes(path, path), "a.json"),
        (lambda path: expand([path]), "a.json"),
    ],
)
@pytest.mark.parametrize("content", [DEEP, f'{{"a": {HUGE}}}', '{"a": 1e999, "b": [[1]]}'])
def test_json_that_no_program_writes(
    read: Callable[[Path], object], name: str, content: str, tmp_path: Path
) -> None:
    fails(read, tmp_path / name, content)


def test_templates_nested_too_deeply(tmp_path: Path) -> None:
    fails(read_templates, tmp_path / "a.json", "[" * 100_000)


@pytest.mark.parametrize("number", ["1e999", "1" + "0" * 400])
def test_boxes_and_thresholds_of_numbers_that_are_too_large(number: str, tmp_path: Path) -> None:
    fails(
        read_thresholds,
        tmp_path / "t.json",
        f'{{"thresholds": {{"a": {{"score": [{number}], "missed": 0}}}}}}',
    )
    image = f'{{"id": 1, "width": {number}, "height": 1, "file_name": "a"}}'
    told = f'{{"categories": [], "annotations": [], "images": [{image}]}}'
    if number == "1e999":
        fails(lambda path: read_boxes(path, path), tmp_path / "b.json", told)


def test_labels_by_numbers_of_thousands_of_digits(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(f"{HUGE} cat\n2 dog\n")
    assert read_label_file(tmp_path / "a.txt").labels
    fails(read_label_file, tmp_path / "b.yaml", f"names:\n  {HUGE}: cat\n")
    fails(read_label_file, tmp_path / "c.json", f'{{"{HUGE}": ["x", 1]}}')


def test_no_label_at_all_is_said() -> None:
    with pytest.raises(LabelError, match="no label given"):
        check([])
    with pytest.raises(LabelError, match="cannot be taken apart"):
        split_labels('"' + "x" * 200_000)


def test_a_label_of_blanks_is_judged_in_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nshot.labels.lint._LONGEST", 20_002)  # where it is refused for its length
    begun = os.times()
    check(["a" + " " * 20_000 + "b", "cat"], alone=True)
    assert os.times().user - begun.user < 2


def test_many_labels_of_one_name_are_refused_in_a_moment() -> None:
    begun = os.times()
    with pytest.raises(LabelError, match="given twice: 'x'"):
        Classifier(["x"] * 50_000, np.ones((50_000, 2), np.float32), scale=1.0)
    assert os.times().user - begun.user < 2


def test_a_long_cell_in_quotes_is_a_cell(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('image,label\n"' + "x" * 200_000 + '" y,cat\n')
    assert len(list(open_delimited(path, frozenset({"image", "label"})).rows())) == 1


def test_a_sparse_member_whose_map_is_cut_off(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.jpg")
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[156:157] = b"S"
    block[482] = 1  # the map goes on in a further block, which is not there
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block[:512])
    path = tmp_path / "x.tar"
    path.write_bytes(bytes(block[:512]) + b"1")
    with pytest.raises(SourceError, match=r"x\.tar is not a tar archive that can be read"):
        expand([path])


def test_a_classifier_that_holds_something_else_is_named(tmp_path: Path) -> None:
    one = Classifier(["cat", "dog"], np.eye(2, 8, dtype=np.float32), scale=100.0)
    for made in (one, Facets({"a": one})):
        path = tmp_path / "x.nshot"
        made.save(path)
        data = path.read_bytes()
        length = int.from_bytes(data[:8], "little")
        for old, new in (
            (b"softmax", b"softmix"),
            (b"dog", b"cat"),
            (b'\\"cat\\"', b"      3"),
            (b'\\"cat\\"', b'["cat"]'),
        ):
            if len(old) == len(new) and old in data[8 : 8 + length]:
                fails(
                    open_classifier,
                    path,
                    data[:8] + data[8 : 8 + length].replace(old, new) + data[8 + length :],
                )


def test_regions_of_a_kind_that_is_no_number_s_are_not_known() -> None:
    whole = Kept((8, 6), (), {"grid": np.ones((2, 3), np.float16)}).to_bytes()
    assert Kept.from_bytes(whole) is not None
    assert Kept.from_bytes(whole.replace(b"<f2", b"01,")) is None


def test_a_bias_too_large_for_a_classifier_is_refused() -> None:
    with pytest.raises(RequestError, match="bias must be one finite number"):
        Classifier(["a"], np.eye(1, 8, dtype=np.float32), scale=100.0, model="m", bias=1e300)


def test_an_index_whose_vectors_begin_a_byte_too_early_is_damaged(tmp_path: Path) -> None:
    """No product takes numbers that lie between two places: it was a traceback when something was asked."""
    folder = tmp_path / "x.index"
    Index.build(Embeddings.of(np.eye(3, 8, dtype=np.float32), sources=list("abc")), folder)
    data = bytearray((folder / "vectors.npy").read_bytes())
    data[8] -= 1  # the length of the header, of which the last bytes are blank
    (folder / "vectors.npy").write_bytes(data)
    with pytest.raises(StoreError, match=r"x\.index cannot be used"):
        Index.open(folder)


def test_an_index_that_tells_nonsense_of_itself(tmp_path: Path) -> None:
    folder = tmp_path / "x.index"
    Index.build(Embeddings.of(np.eye(3, 8, dtype=np.float32), sources=list("abc")), folder)
    about = json.loads((folder / "index.json").read_bytes())
    for told in (
        DEEP,
        json.dumps(about | {"recipe": [1]}),
        json.dumps({k: v for k, v in about.items() if k != "model"}),
    ):
        (folder / "index.json").write_text(told)
        with pytest.raises(NshotError, match=r"x\.index cannot be used"):
            Index.open(folder)


@pytest.mark.parametrize(
    "arrays", [[["a", "<f4", [10**30]]], [["a", "<f4", [float("inf")]]], [["a", "<f4", [-1]]], {"a": 1}]
)
def test_regions_in_a_store_that_make_no_sense_are_none(arrays: Any) -> None:
    head = json.dumps({"size": [1, 2], "notes": [], "arrays": arrays}).encode()
    assert Kept.from_bytes(len(head).to_bytes(4, "little") + head + bytes(64)) is None
    deep = DEEP.encode()
    assert Kept.from_bytes(len(deep).to_bytes(4, "little") + deep) is None


@pytest.mark.parametrize(
    "entry",
    [
        DEEP,
        '{"sidecar": "a.xmp", "before": "eJwDAAAAAAE=", "after": "0", "mtime_ns": "x"}',
        '{"undone": "0"}',
    ],
)
def test_a_journal_of_tags_that_is_damaged_takes_nothing_back(entry: str, tmp_path: Path) -> None:
    lines = ['{"version": 1, "sidecars": 1}', entry, '{"begun": true}']
    fails(lambda path: undo_tags(path.parent), tmp_path / TAGS, "\n".join(lines) + "\n")


def test_a_journal_of_tags_does_not_unpack_to_gigabytes(tmp_path: Path) -> None:
    import base64
    import zlib

    packed = base64.b64encode(zlib.compress(bytes(2**26), 9)).decode()
    entry = json.dumps({"sidecar": "a.xmp", "before": packed, "after": "0", "mtime_ns": 5})
    lines = ['{"version": 1, "sidecars": 1}', entry, '{"begun": true}']
    assert "larger than any" in fails(
        lambda path: undo_tags(path.parent), tmp_path / TAGS, "\n".join(lines) + "\n"
    )


@pytest.mark.parametrize(
    "line",
    [
        DEEP,
        '{"id": "1", "undo": "0"}',
        '{"id": "1", "undo": {"a": 1}}',
        '{"id": "1", "at": null, "digests": ["a"], "now": null}',
        '{"id": "1", "digests": 5, "now": null}',
        '{"id": "1", "digests": [["a"]], "now": null}',
        '{"id": "1", "digests": ["a"], "sample": "many"}',
        '{"id": "1", "digests": ["a"], "note": ["x"]}',
        '{"id": "1", "take": 3}',
    ],
)
def test_a_journal_of_the_page_that_is_damaged_says_in_which_line(line: str, tmp_path: Path) -> None:
    pytest.importorskip("starlette")
    from nshot.server.session.journal import Journal, read_words

    said = fails(read_words, tmp_path / "j.jsonl", '{"nshot_journal": 1}\n' + line + "\n")
    assert said.startswith("line 2 of ")
    with pytest.raises(OutputError, match=r"line 2 of .*j\.jsonl"):
        Journal(tmp_path / "j.jsonl")


def test_an_act_about_one_image_many_times_is_read_in_a_moment(tmp_path: Path) -> None:
    pytest.importorskip("starlette")
    from nshot.server.session.journal import read_words
    from nshot.server.session.words import Word

    path = tmp_path / "j.jsonl"
    path.write_text(json.dumps({"id": "1", "digests": ["ab"] * 20_000, "now": {"label": "cat"}}) + "\n")
    begun = os.times()
    assert read_words(path).said == {"ab": Word("label", "cat")}
    assert os.times().user - begun.user < 2


@pytest.mark.parametrize("format", ["jsonl", "json"])
@pytest.mark.parametrize(
    "record",
    [
        {"source": "a", "predictions": [{"label": ["x"]}]},
        {"source": "a", "predictions": [], "run": ["x"]},
        {"source": "a", "error": "bad"},
        {"source": "a", "error": {"type": 1, "message": "x"}},
    ],
)
def test_answers_that_nshot_has_not_written_are_not_gone_on_with(
    format: str, record: Any, tmp_path: Path
) -> None:
    text = json.dumps(record) + "\n"
    fails(
        lambda path: open_sink(format, path, top_k=1, resume=True, request="f" * 64, labels=["x"]),
        tmp_path / f"x.{format}",
        text if format == "jsonl" else f"[\n{text}]\n",
    )


def parquet(metadata: dict[str, str], **columns: Any) -> bytes:
    import pyarrow as pa
    from pyarrow import parquet

    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns).replace_schema_metadata(metadata), sink, row_group_size=2)
    return bytes(sink.getvalue().to_pybytes())


@needs_pyarrow
def test_a_footer_tells_what_pyarrow_tells() -> None:
    from pyarrow import parquet as pq

    data = parquet({}, number=np.arange(5, dtype=np.int32), pair=[{"bytes": b"x" * 50, "path": None}] * 5)
    groups = row_groups(io.BytesIO(data))
    known = pq.ParquetFile(io.BytesIO(data)).metadata
    assert [rows for rows, _ in groups] == [2, 2, 1]
    for group, (_, chunks) in enumerate(groups):
        for place, chunk in enumerate(chunks):
            same = known.row_group(group).column(place)
            assert ".".join(chunk.path) == same.path_in_schema
            assert (chunk.unpacked, chunk.packed) == (
                same.total_uncompressed_size,
                same.total_compressed_size,
            )
            assert (chunk.start, chunk.values) == (same.data_page_offset, same.num_values)
    assert [int.from_bytes(chunks[0].most or b"", "little") for _, chunks in groups] == [1, 3, 4]


@needs_pyarrow
def test_a_damaged_or_encrypted_footer_is_an_error_and_not_the_end_of_the_process(tmp_path: Path) -> None:
    data = parquet({}, image=["a.jpg", "b.jpg"])
    length = int.from_bytes(data[-8:-4], "little")
    for wrong in (data[:-4] + b"PARE", data[:-8] + b"\xff" * 4 + b"PAR1", data[:40], b"PAR1", b""):
        with pytest.raises(ValueError, match="it "):
            row_groups(io.BytesIO(wrong))
    for place in range(len(data) - 8 - length, len(data) - 8):
        for value in (0, 0x7F, 0xFF):
            changed = bytearray(data)
            changed[place] = value
            path = tmp_path / "x.parquet"
            path.write_bytes(changed)
            with suppress(NshotError):
                list(expand([path]))


@needs_pyarrow
@pytest.mark.parametrize(
    "told",
    [
        {"plan": "f", "shards": 10**9, "request": {}},
        {"plan": "f", "shards": True, "request": {}},
        {"plan": "f", "shards": 1, "request": [1]},
        {"plan": "f", "shards": 1},
    ],
)
def test_a_plan_of_more_shards_than_rows_is_none(told: Any, tmp_path: Path) -> None:
    from nshot.distributed.plan import Plan
    from nshot.objects import open_folder

    (tmp_path / "manifest.parquet").write_bytes(
        parquet({"nshot": json.dumps(told)}, shard=np.zeros(2, np.int32))
    )
    with pytest.raises(SourceError, match=r"manifest\.parquet is no plan that nshot made"):
        Plan.open(open_folder(tmp_path))


def test_a_module_outside_of_the_model_s_folder_is_refused(tmp_path: Path) -> None:
    fails(
        lambda path: choose("x", Folder(path.parent)),
        tmp_path / "modules.json",
        '[{"path": "../elsewhere", "type": "x"}]',
    )


def test_a_table_of_numbers_without_a_name_holds_no_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_text("id,label\n0,\n1,\n")
    with pytest.raises(LabelError, match=r"labels\.csv"):
        read_label_file(path)
    path.write_text("id,label\n0,cat\n1,\n2,dog\n")
    assert read_label_file(path).labels == ["cat", "dog"]


def test_a_tree_with_an_immense_cell_names_its_file(tmp_path: Path) -> None:
    path = tmp_path / "tree.csv"
    path.write_text("animal,dog\nanimal," + "x" * 200_000)
    with pytest.raises(LabelError, match=r"tree\.csv"):
        read_tree(path)


@pytest.mark.skipif(find_spec("pyarrow") is None, reason="needs pyarrow")
def test_a_page_that_claims_gigabytes_is_refused_before_they_are_taken(tmp_path: Path) -> None:
    """The head of a page, three numbers in front of the data, is not covered by what the footer says."""
    data = parquet({}, image=["a.jpg", "b.jpg"])
    ((_, (chunk,)),) = row_groups(io.BytesIO(data))
    assert largest_page(io.BytesIO(data), chunk) < 1000
    at = chunk.begin
    assert data[at : at + 3 : 2] == b"\x15\x15"  # two fields of 32 bits: what page it is, its size
    size = bytes([0xFE, 0xFF, 0xFF, 0xFF, 0x0F])  # 2**31 - 1, as Thrift writes it
    length = next(n for n in range(1, 6) if data[at + 2 + n] < 128)
    path = tmp_path / "x.parquet"
    path.write_bytes(data[: at + 3] + size + data[at + 3 + length :])
    with pytest.raises(SourceError, match=r"unpacks from .* to 2,147,483,647 bytes"):
        list(open_table(path).rows("image"))
