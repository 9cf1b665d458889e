"""What strangers send is bounded: listings, requests, vectors and records; and Ctrl-C at any time."""

from __future__ import annotations

import gzip
import io
import json
import os
import signal
import struct
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from checkpoints import tiny_checkpoint
from hub_server import hub_server
from PIL import Image

from nshot.bounded import lines, weight
from nshot.embeddings import Embeddings
from nshot.embeddings.reader import read_vectors
from nshot.errors import CorruptCheckpoint, ImageError, NshotError, RequestError, SourceError
from nshot.images import delimited, hub, records, tables
from nshot.images.archives import _gz, tar_members
from nshot.images.cost import cost
from nshot.images.footer import row_groups
from nshot.images.prepare import header
from nshot.images.resolve import Resolver
from nshot.images.sources import Source
from nshot.models.checkpoint import find
from nshot.models.files import read_json
from nshot.models.weights import read_weights
from nshot.types import Limits


def shared(text: str, rows: int) -> Any:
    """A column of pyarrow that says the same text in each row and holds it once."""
    pa = pytest.importorskip("pyarrow")
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([text]))


@pytest.mark.parametrize(
    ("unit", "count"), [("0.5", 5000), ("[]", 5000), ("{}", 5000), ('{"a": 1.5}', 2000), ('"é\\ud83d"', 2000)]
)
def test_json_never_takes_more_memory_than_it_is_weighed_to_take(unit: str, count: int) -> None:
    import tracemalloc

    data = ("[" + ",".join([unit] * count) + "]").encode()
    tracemalloc.start()
    try:
        content = json.loads(data.decode())
        assert len(data) + tracemalloc.get_traced_memory()[1] <= weight([data]) + 10_000
        assert len(content) == count
    finally:
        tracemalloc.stop()


def test_an_immense_listing_of_the_hub_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    for number in range(50):
        (tmp_path / f"{number}.png").write_bytes(b"x")
    monkeypatch.setattr(hub, "_MOST_BYTES", 1000)
    with hub_server() as served:
        monkeypatch.setattr(constants, "ENDPOINT", served.endpoint)
        served.models["datasets/lab/birds"] = {"main": tmp_path}
        with pytest.raises(SourceError, match="list of files has more than"):
            hub.files_of("lab/birds", "main", 5.0)
        monkeypatch.setattr(hub, "_MOST_BYTES", 2**20)
        assert len(hub.files_of("lab/birds", "main", 5.0)[0]) == 50


@pytest.mark.parametrize("kind", ["vectors", "rows"])
def test_a_small_file_of_vectors_that_unpacks_to_gigabytes_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "vectors.npz"
    shape = (600_000, 256) if kind == "vectors" else (2_000_000, 1)
    np.savez_compressed(path, vectors=np.zeros(shape, np.float16))
    with pytest.raises(SourceError, match="no file of vectors"):
        read_vectors(path)


def test_a_page_of_vectors_that_claims_gigabytes_is_refused_before_they_are_taken(tmp_path: Path) -> None:
    """The head of a page, a few bytes in front of the data, is not covered by what the file's end says."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "vectors.parquet"
    table = pa.table({"source": ["a.jpg"] * 3, "embedding": [[1.0, 0.0]] * 3})
    parquet.write_table(table, path, use_dictionary=False)
    data = path.read_bytes()
    with path.open("rb") as file:
        ((_, (_, chunk)),) = row_groups(file)
    at = chunk.begin
    assert data[at : at + 3 : 2] == b"\x15\x15"  # two fields of 32 bits: what page it is, its size
    length = next(n for n in range(1, 6) if data[at + 2 + n] < 128)
    size = bytes([0xFE, 0xFF, 0xFF, 0xFF, 0x0F])  # 2**31 - 1, as Thrift writes it
    path.write_bytes(data[: at + 3] + size + data[at + 3 + length :])
    with pytest.raises(SourceError, match=r"unpacks from .* to 2,147,\d\d\d,\d\d\d bytes"):
        read_vectors(path)


@pytest.mark.parametrize("name", ["vectors.npz", "pytorch_model.bin"])
def test_a_zip_s_directory_that_would_fill_the_memory_is_refused(tmp_path: Path, name: str) -> None:
    """Python keeps some 650 bytes for an entry, whatever the entry holds."""
    path, entries = tmp_path / name, 400_000
    entry = (
        b"PK\x01\x02"
        + struct.pack("<HHHHHHIIIHHHHHII", 20, 20, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0)
        + b"a"
    )
    end = struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, len(entry) * entries, 0, 0)
    path.write_bytes(entry * entries + b"PK\x05\x06" + end)
    with pytest.raises(NshotError, match=f"{name}.* (directory of|table of contents)"):
        read_weights(path) if name.endswith(".bin") else read_vectors(path)


@pytest.mark.parametrize("context", [2**31, 10**6])
def test_a_text_of_gigabytes_that_a_config_asks_for_is_refused(tmp_path: Path, context: int) -> None:
    """Each text takes that many numbers, whatever it says: it was 17 GB."""
    tiny_checkpoint(tmp_path)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["text_config"]["max_position_embeddings"] = context
    path.write_text(json.dumps(config))
    with pytest.raises(CorruptCheckpoint, match=r"config\.json: max_position_embeddings is .* no model has"):
        find(tmp_path)


def test_settings_and_headers_that_would_fill_the_memory_are_refused(tmp_path: Path) -> None:
    """Small lists take thirty times their text."""
    lists = b'{"a":[' + b"[]," * 7_000_000 + b"[]]}"
    settings, weights = tmp_path / "config.json", tmp_path / "model.safetensors"
    settings.write_bytes(lists)
    weights.write_bytes(len(lists).to_bytes(8, "little") + lists)
    with pytest.raises(CorruptCheckpoint, match=r"config\.json .* would take about .* MB"):
        read_json(settings)
    with pytest.raises(CorruptCheckpoint, match=r"model\.safetensors .* would take about .* MB"):
        read_weights(weights)


def test_vectors_whose_names_are_one_text_for_all_rows_are_refused(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "vectors.parquet"
    vector = pa.array([[1.0, 2.0]] * 400, pa.list_(pa.float32()))
    pq.write_table(
        pa.table({"source": shared("a" * 1_000_000, 400), "vector": vector}), path, store_schema=False
    )
    with pytest.raises(SourceError, match="no file of vectors"):
        read_vectors(path)
    pq.write_table(pa.table({"source": ["a" * 10] * 400, "vector": vector}), path)
    assert isinstance(read_vectors(path), Embeddings)


def test_a_text_that_all_rows_of_a_parquet_file_share_is_not_repeated_in_memory(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "table.parquet"
    label = shared("a" * 2_000_000, 3000)
    pq.write_table(pa.table({"image": ["0.png"] * 3000, "label": label}), path, store_schema=False)
    before = pa.total_allocated_bytes()
    table = tables.open_table(path)
    rows = table.rows("image", "label")
    assert next(rows) == ("0.png", None)
    assert pa.total_allocated_bytes() - before < 200_000_000
    assert "read as none" in table.notes[0]


def test_a_line_of_json_that_would_fill_the_memory_is_no_record(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    heavy = '{"image": "1.png", "x": [' + "{}," * 700_000 + "1]}"
    path.write_text('{"image": "0.png"}\n' + heavy + '\n{"image": "2.png"}\n')
    found = records.read(path, 900_000_000)
    assert [row.get("image") for row in found.rows] == ["0.png", None, "2.png"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_in_the_place_of_a_sidecar_keeps_nobody_waiting(tmp_path: Path) -> None:
    from nshot.output.tagging import plan_tags

    os.mkfifo(tmp_path / "a.png.xmp")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    tags, failed = plan_tags([(tmp_path / "a.png", ["cat"])])
    assert tags == []
    assert failed == [(str(tmp_path / "a.png.xmp"), "not a regular file")]


def test_a_header_is_read_as_images_are_decoded(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    image = Image.new("RGB", (30, 20))
    exif = image.getexif()
    exif[0x0112], exif[0x0132] = 6, "2024:01:02 03:04:05"
    image.save(path, exif=exif)
    assert header(Source.file(str(path)).read()) == ((20, 30), "2024:01:02 03:04:05")
    image.save(tmp_path / "a.pcx")  # a rare format: in a process of its own
    assert header((tmp_path / "a.pcx").read_bytes()).size == (30, 20)
    with pytest.raises(ImageError):  # Pillow alone would open it
        header(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")


def test_requests_of_brackets_are_refused_before_they_fill_the_memory() -> None:
    pytest.importorskip("starlette")
    pytest.importorskip("httpx")
    from starlette.applications import Starlette
    from starlette.testclient import TestClient

    from nshot.server.bounds import Bounds
    from nshot.server.endpoint import Endpoint

    nobody = Endpoint(lambda: pytest.fail("asked"), bounds=Bounds(body=1_000_000, bodies=2_000_000))
    nobody._there = lambda: (None, None, None)  # type: ignore[assignment,method-assign,return-value]
    with TestClient(Starlette(routes=nobody.routes())) as client:
        answer = client.post("/v1/classify", content=b"[" + b"[]," * 100_000 + b"1]")
        assert answer.status_code == 413
        assert "memory" in answer.json()["error"]
        assert client.post("/v1/classify", content=b"[[],[]]").status_code == 400
        nobody._bodies.held = 1_900_000  # what other requests hold
        assert client.post("/v1/classify", content=b"[" + b"[]," * 2_000 + b"1]").status_code == 429
        assert nobody._bodies.held == 1_900_000


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
@pytest.mark.parametrize("moment", ["importing", "converted", "cleared", "lost", "ended"])
def test_ctrl_c_at_any_moment_is_no_traceback(moment: str, tmp_path: Path) -> None:
    hit = "import os, signal; os.kill(os.getpid(), signal.SIGINT)"
    program = {
        "importing": f"import click; click.group = lambda *a, **k: exec({hit!r})",
        "converted": "import nshot.cli as c\n"  # as libraries in C make an ImportError of it
        f"def main(begins):\n begins()\n try:\n  exec({hit!r})\n"
        " except KeyboardInterrupt:\n  raise ImportError\n"
        "c.main = main",
        "cleared": "import time, weakref, nshot.cli as c\nclass Some: pass\n"  # where nothing can be raised
        f"def main(begins):\n begins()\n some = Some()\n weakref.finalize(some, exec, {hit!r})\n"
        " del some\n time.sleep(60)\n"
        "c.main = main",
        "lost": "import time, weakref, nshot.__main__ as m, nshot.cli as c\nclass Some: pass\n"  # twice
        "soon, times = m._soon, []\n"
        f"def twice():\n times.append(0)\n if len(times) == 1: exec({hit!r})\n soon()\n"
        "m._soon = twice\n"
        f"def main(begins):\n begins()\n some = Some()\n weakref.finalize(some, exec, {hit!r})\n"
        " del some\n time.sleep(60)\n"
        "c.main = main",
        "ended": f"import atexit; atexit.register(lambda: exec({hit!r})); import nshot.cli as c\n"
        "def main(begins):\n begins(); raise SystemExit(1)\nc.main = main",
    }[moment]
    program += "\nfrom nshot.__main__ import main\nmain()"
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children ignore it
    try:
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    finally:
        signal.signal(signal.SIGINT, heard)
    assert "Traceback" not in run.stderr
    assert run.returncode == (1 if moment == "ended" else 130)
    assert run.stderr == ("" if moment == "ended" else "nshot: interrupted\n")


def test_ctrl_c_is_nothing_once_the_command_is_over() -> None:
    from nshot.__main__ import _CtrlC, main

    ctrl_c = _CtrlC()
    ctrl_c.begin()
    at_work = SimpleNamespace(f_code=test_ctrl_c_is_nothing_once_the_command_is_over.__code__, f_back=None)
    with pytest.raises(KeyboardInterrupt):
        ctrl_c(signal.SIGINT, at_work)  # type: ignore[arg-type]
    ctrl_c(signal.SIGINT, SimpleNamespace(f_code=main.__code__, f_back=None))  # type: ignore[arg-type]


def test_words_from_a_device_without_an_end_are_refused() -> None:
    from nshot.labels.files import read_labels

    if not Path("/dev/zero").exists():
        pytest.skip("no such device here")
    with pytest.raises(RequestError, match="larger than"):
        read_labels("/dev/zero")


BRACKETS = b"[" + b"[]," * 100_000 + b"1]"  # fifty times as much in memory


def test_a_line_is_weighed_before_anybody_reads_what_it_says() -> None:
    file = io.BytesIO(b'{"a": 1}\n' + b'{"x": ' + BRACKETS + b"}\n")
    found = lines(file, 1_000_000)
    assert next(found) == b'{"a": 1}\n'
    with pytest.raises(ValueError, match="more than 1 MB of memory"):
        next(found)
    with pytest.raises(ValueError, match="more than 1 MB"):
        next(lines(io.BytesIO(b"x" * 2_000_000), 1_000_000))
    assert list(lines(io.BytesIO(b"a\n\nb"), 1000)) == [b"a\n", b"\n", b"b"]


def test_a_journal_of_the_page_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    from nshot.server.session import JOURNAL, Journal, read_words

    path = tmp_path / JOURNAL
    act = {"id": "a", "digests": ["5e" * 32] * 2000, "now": {"label": "cat"}}
    acts = [json.dumps(act | {"id": str(number)}) for number in range(5)]
    path.write_text("\n".join(['{"nshot_journal": 1}', *acts, '{"id": "torn']))
    for read in (Journal, read_words):
        with pytest.raises(RequestError, match=r"nshot-journal\.jsonl says takes more than 2 MB.*--memory"):
            read(path, memory=2_000_000)
    assert read_words(path, memory=8_000_000).said.keys() == {"5e" * 32}
    journal = Journal(path, memory=8_000_000)
    assert len(journal.lines) == 5
    journal.close()
    assert path.read_text().splitlines()[-1] == acts[-1]  # what was torn was never acknowledged
    path.write_bytes(b'{"id": "a", "x": ' + BRACKETS + b"}\n")
    with pytest.raises(RequestError, match="takes more than 2 MB"):
        read_words(path, memory=2_000_000)


def test_a_journal_of_tags_does_not_hold_what_it_can_read_again(tmp_path: Path) -> None:
    from nshot.output.tagging import tagging

    journal = tmp_path / tagging.JOURNAL
    journal.write_bytes(b'{"version": 1, "x": ' + BRACKETS * 20 + b"}\n")
    with pytest.raises(RequestError, match=r"nshot-tag\.jsonl is damaged \(a line of it takes more"):
        tagging.undo_tags(tmp_path)


def test_a_person_s_own_journal_of_a_sort_is_taken_back_however_large_and_no_other(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nshot.output.sorting import carry_out, plan, undo
    from nshot.output.sorting.journal import JOURNAL

    monkeypatch.setenv("NSHOT_CACHE", str(tmp_path / "cache"))
    before = sorted(path.name for path in photos.iterdir())
    target = tmp_path / "sorted"
    carry_out(
        plan([(path, "cat") for path in sorted(photos.iterdir())], target, {"cat": "cat"}), target, "move"
    )
    assert not list(photos.iterdir())
    journal = target / JOURNAL
    own = journal.read_bytes()
    journal.write_bytes(own.replace(b'"mode": "move"', b'"mode":  "move"'))  # the seal is of the bytes
    with pytest.raises(RequestError, match=r"nshot-sort\.jsonl, which you did not write.*more than 0 MB"):
        undo(target, [photos], memory=1000)
    journal.write_bytes(own)
    assert undo(target, memory=1000).restored == len(before)
    assert sorted(path.name for path in photos.iterdir()) == before


def test_answers_that_are_resumed_are_read_a_line_at_a_time(tmp_path: Path) -> None:
    from nshot.output.sinks.formats import Csv, Jsonl

    heavy = b'{"source": "a.png", "x": ' + BRACKETS * 20 + b"}\n"
    with pytest.raises(ValueError, match="a line of it takes more"):
        list(Jsonl().read(io.BytesIO(heavy)))
    csv = Csv(1)
    endless = csv.header + b'a.png,"' + b"x\n" * 2**22 + b"y" * 2**26
    with pytest.raises(ValueError, match="without an end"):
        list(csv.read(io.BytesIO(endless)))


@pytest.mark.parametrize(
    "line",
    [
        '0.png,"a""b\n',  # open to the end
        'x","z\n',  # closes a cell and opens another
        '0.png,"a\n',  # the next one breaks it
        '0.png",b,"c\n',
    ],
)
def test_each_line_is_looked_at_once_however_many_open_a_quotation_mark(line: str) -> None:
    def looked_at(count: int, monkeypatch: pytest.MonkeyPatch) -> int:
        seen = 0

        class Counted(delimited._Ahead):
            def _within(self, first: str) -> Iterator[str]:
                nonlocal seen
                for each in super()._within(first):
                    seen += 1
                    yield each

        monkeypatch.setattr(delimited, "_Ahead", Counted)
        lines = [line] * count + ["end,1\n"]
        found = list(delimited._records(lines, ",", 2, lambda _: None, Path("x.csv")))
        assert len(found) == count + 1
        return seen

    with pytest.MonkeyPatch.context() as patched:
        assert looked_at(3000, patched) < 3 * 3000 + 2


def test_millions_of_blank_lines_take_no_time_and_lines_keep_their_numbers() -> None:
    text = "image,label\n" + "\n \n" * 500_000 + '0.png,a\n\n1.png,"b\n'
    assert len(list(delimited.lines_of(io.StringIO(text)))) < 100
    notes: list[str] = []
    found = list(delimited._records(io.StringIO(text), ",", 2, notes.append, Path("x.csv")))
    assert found == [(1, ["image", "label"]), (1_000_002, ["0.png", "a"]), (1_000_004, ["1.png", "b"])]
    assert "line 1000004:" in notes[0]


@pytest.mark.parametrize("size", [3, 7, 1000])
def test_lines_are_the_same_in_blocks_of_any_size(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "_PART", size)
    for text in ("", "\n", "a", "a\n\n \nb", "\n\nabc\n\ndef\n", "a \n \t\n\nlong line\n  x\n", "   "):
        found = list(delimited.lines_of(io.StringIO(text)))
        assert "".join(found) == text
        assert [line.rstrip("\n") for line in found if line.strip()] == [
            line for line in text.split("\n") if line.strip()
        ]


def test_a_first_line_that_is_nested_too_deeply_is_one_row(tmp_path: Path) -> None:
    path = tmp_path / "table.jsonl"
    path.write_text('{"image": ' + "[" * 100_000 + '\n{"image": "0.png"}\n{"image": "1.png"}\n')
    found = records.read(path, 900_000_000)
    assert [row.get("image") for row in found.rows] == [None, "0.png", "1.png"]
    assert found.notes == [f"{path}: its first line is no JSON object"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
@pytest.mark.parametrize("kind", ["link", "pipe", "dangling"])
def test_a_journal_in_a_folder_from_elsewhere_leads_to_no_other_file(tmp_path: Path, kind: str) -> None:
    from nshot.output import sorting, tagging
    from nshot.output.sorting.journal import JOURNAL as SORTED
    from nshot.output.tagging.tagging import JOURNAL as TAGGED
    from nshot.server.session import JOURNAL, Journal

    folder, victim = tmp_path / "folder", tmp_path / "victim"
    folder.mkdir()
    victim.write_text("the person's own\nwithout an end")
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    for name in (SORTED, TAGGED, JOURNAL):
        if kind == "pipe":
            os.mkfifo(folder / name)
        else:
            (folder / name).symlink_to(victim if kind == "link" else tmp_path / "made")
    tags, _ = tagging.plan_tags([(folder / "a.png", ["cat"])])
    Image.new("RGB", (8, 8)).save(tmp_path / "b.png")
    moves = sorting.plan([(tmp_path / "b.png", "cat")], folder, {"cat": "cat"})
    for act in (
        lambda: sorting.carry_out(moves, folder, "copy"),
        lambda: sorting.undo(folder),
        lambda: tagging.write_tags(tags, folder),
        lambda: tagging.undo_tags(folder),
        lambda: Journal(folder / JOURNAL),
    ):
        with pytest.raises(RequestError, match=r"is a link, a pipe or a folder|nothing to undo"):
            act()
    assert victim.read_text() == "the person's own\nwithout an end"
    assert not (tmp_path / "made").exists()
    assert not (folder / "cat").exists()


def test_a_sidecar_that_is_a_link_is_left_alone(tmp_path: Path) -> None:
    from nshot.output.tagging import plan_tags

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    plain, failed = plan_tags([(tmp_path / "a.png", ["cat"])])
    assert not failed
    (tmp_path / "elsewhere.xmp").write_bytes(plain[0].after)
    (tmp_path / "a.png.xmp").symlink_to(tmp_path / "elsewhere.xmp")
    tags, failed = plan_tags([(tmp_path / "a.png", ["dog"])])
    assert tags == []
    assert "it is a link" in failed[0][1]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with names here")
def test_a_pipe_in_the_place_of_a_store_keeps_nobody_waiting(tmp_path: Path) -> None:
    from nshot.errors import StoreError
    from nshot.store.store import Store

    os.mkfifo(tmp_path / "store.sqlite")
    with pytest.raises(StoreError, match="a pipe or a device"):
        Store(tmp_path / "store.sqlite").known_files([])
    with pytest.raises(StoreError, match="a pipe or a device"):
        Store(tmp_path / "store.sqlite").info()


def test_a_jpeg_of_hundreds_of_exif_blocks_is_refused_before_they_are_put_together() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    data = buffer.getvalue()
    block = b"\xff\xe1\x00\x10Exif\0\0MM\0*\0\0\0\x08"
    assert cost(data[:2] + block * 3 + data[2:], Limits()).alone is False
    with pytest.raises(ImageError, match="more than 64 blocks of EXIF"):
        cost(data[:2] + block * 65 + data[2:], Limits())


def test_a_jpeg_padded_within_its_scan_is_refused() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "JPEG")
    data = buffer.getvalue()
    assert cost(data[:-2] + b"\xff" * 1000 + data[-2:], Limits()).alone is False
    with pytest.raises(ImageError, match="padding within it"):
        cost(data[:-2] + b"\xff" * 2**16 + data[-2:], Limits())


@pytest.mark.parametrize("where", ["name", "comment", "padding"])
def test_a_gz_header_without_an_end_is_refused_not_read_a_byte_at_a_time(tmp_path: Path, where: str) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("a.png"), io.BytesIO())
    path = tmp_path / "a.tar.gz"
    whole = gzip.compress(data.getvalue()[:-1024])
    if where == "padding":
        path.write_bytes(whole + bytes(2**21))
        assert [member.name for member in tar_members(path, 1000)] == ["a.png"]
        with path.open("rb") as file, pytest.raises(gzip.BadGzipFile, match="without an end"):
            _gz(file).read()
        return
    path.write_bytes(whole[:3] + (b"\x08" if where == "name" else b"\x10") + whole[4:10] + b"a" * 2**21)
    with pytest.raises(SourceError, match="without an end"):
        tar_members(path, 1000)


def test_a_large_page_that_unpacks_from_little_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "table.parquet"
    monkeypatch.setattr(tables, "_LARGE_PAGE", 2**20)
    kinds = {"use_dictionary": False, "compression": "zstd"}
    pq.write_table(pa.table({"image": [b"\0" * 100_000 + os.urandom(10_000)] * 20}), path, **kinds)
    with pytest.raises(SourceError, match="which no column of images does"):
        next(tables.open_table(path).rows("image"))
    pq.write_table(pa.table({"image": [os.urandom(100_000) for _ in range(20)]}), path, **kinds)
    assert len(list(tables.open_table(path).rows("image"))) == 20


def test_a_name_of_thousands_of_folders_is_looked_for_in_few_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    is_file = os.path.isfile

    def counted(path: str) -> bool:
        nonlocal asked
        asked += 1
        return is_file(path)

    monkeypatch.setattr(os.path, "isfile", counted)
    resolver = Resolver(str(tmp_path))
    assert resolver.find("a/" * 100_000 + "b.png") is None
    assert resolver.find("a/" * 2000 + "b.png") is None
    assert asked < 1000


def test_a_member_with_holes_is_no_image(tmp_path: Path) -> None:
    """Half a kilobyte stands for as much as an image may take, as often as it is repeated."""
    header = bytearray(tarfile.TarInfo("holes.png").tobuf(tarfile.GNU_FORMAT))
    header[156:157] = b"S"
    header[386:398] = header[398:410] = b"00000000000\0"  # one piece of nothing
    header[483:495] = b"%011o\0" % 200_000_000
    header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:]))
    path = tmp_path / "a.tar"
    path.write_bytes(bytes(header) * 50 + bytes(1024))
    found = list(tar_members(path, 2**28))
    assert len(found) == 50
    for member in found:
        with pytest.raises(ImageError, match="a file with holes"):
            member()
