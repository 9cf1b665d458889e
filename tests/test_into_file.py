"""Large folders of vectors asked into one file: by blocks, the same bytes, resumed where they were left."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import tiny_checkpoint

from nshot.classifier import bulk
from nshot.classifier.classifier import Classifier
from nshot.cli import run
from nshot.distributed import into_file
from nshot.embeddings.part_writer import PartWriter
from nshot.embeddings.parts import Parts, part_name
from nshot.embeddings.stored import HELD
from nshot.errors import OutputError
from nshot.output.sinks import open_sink
from nshot.output.sinks.sink import Sink
from nshot.types import Embedded, Failure, Floats
from nshot.unit import normalize

pa = pytest.importorskip("pyarrow", reason="parts are Parquet: they need pyarrow")

FORMATS = ["jsonl", "json", "csv", "tsv", "parquet"]
LABELS = ("cat", 'hot, "dog"', "=owl", "猫 \\x41", "bus\t")
NAMES = [
    "a.jpg",
    'b "2".jpg',
    "c, d.jpg",
    "猫.jpg",
    "e\\x0af.jpg",
    "'=g",
    " h",
    "i ",
    "",
    "j\\k.jpg",
    "-l",
    "é",
]


def asked(labels: tuple[str, ...] = LABELS, dimension: int = 16) -> Classifier:
    return Classifier(labels, np.random.default_rng(0).normal(size=(len(labels), dimension)), 20.0)


def write(folder: Path, count: int, *, per: int = 50, fail: int = 7, note: int = 5) -> Path:
    """A folder of vectors with odd names; some images have failed, some have notes."""
    rng = np.random.default_rng(1)
    folder.mkdir()
    for number, start in enumerate(range(0, count, per)):
        rows = range(start, min(start + per, count))
        writer = PartWriter(
            folder / part_name(number),
            dimension=16,
            width="float32",
            labelled=False,
            meta={"nshot": 1, "dimension": 16},
        )
        for row in rows:
            name = f"{NAMES[row % len(NAMES)]}{row}"
            notes = ("the first frame",) if row % note == note - 1 else ()
            if row % fail == fail - 1:
                writer.write(Failure(name, "UndecodableImage", 'no "image"\n', notes=notes))
            else:
                writer.write(Embedded(name, normalize(rng.normal(size=(1, 16)))[0], notes=notes))
        writer.finish()
    return folder


def into(path: Path, folders: list[Path], classifier: Classifier, top_k: int = 3, **options: Any) -> None:
    """What the command does."""
    parts = [Parts(folder) for folder in folders]
    stop = options.pop("stop", None)
    with open_sink(
        path.suffix[1:],
        path,
        top_k=min(top_k, len(classifier.labels)),
        request="r" * 40,
        labels=classifier.labels,
        many=True,
        **options,
    ) as sink:
        for number, _ in enumerate(into_file.ask_into(sink, parts, classifier, top_k, cores=2)):
            if number == stop:
                raise KeyboardInterrupt


def one_by_one(
    path: Path, folders: list[Path], classifier: Classifier, top_k: int = 3, **options: Any
) -> None:
    """The same answers, through the sink for single records."""

    def records() -> Iterator[Any]:
        for folder in folders:
            for number in Parts(folder).numbers():
                for block in Parts(folder).blocks(number):
                    answers = bulk.ask(classifier, block.vectors, top_k)
                    place = itertools.count()
                    for record in block.records():
                        if isinstance(record, Failure):
                            yield record
                        else:
                            row = next(place)
                            yield into_file._record(
                                record.source, classifier.labels, answers, row, record.notes
                            )

    with open_sink(
        path.suffix[1:],
        path,
        top_k=min(top_k, len(classifier.labels)),
        request="r" * 40,
        labels=classifier.labels,
        **options,
    ) as sink:
        left = sink.answered.copy()
        for record in records():
            if left[record.source] > 0:
                left[record.source] -= 1
            else:
                sink.write(record)


def beside(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.glob(f"*{path.name}*"))


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("labels", [LABELS, ("cat",), ("cat", "dog")])
def test_answers_by_blocks_are_the_bytes_of_answers_one_by_one(
    tmp_path: Path, format: str, labels: tuple[str, ...]
) -> None:
    folder, plain = write(tmp_path / "v", 120), write(tmp_path / "w", 60, fail=99, note=99)
    for top_k in (1, 3, 9):
        one, many = tmp_path / f"one.{format}", tmp_path / f"many.{format}"
        for make, path in ((one_by_one, one), (into, many)):
            make(path, [folder, plain], asked(labels), top_k)
        assert one.read_bytes() == many.read_bytes()
        assert beside(many) == [many.name]


def test_numbers_are_written_as_python_writes_them(tmp_path: Path) -> None:
    from nshot.output.sinks.formats import number
    from nshot.output.sinks.many import _Digits, _text, _words

    rng = np.random.default_rng(0)
    values = rng.uniform(-1, 1, 20_000).astype(np.float32)
    values[:6] = [0, -0.0, 1, -1, 1e-9, -1e-9]
    values[6:500] = (np.arange(494) + 0.5) / 2**20  # halves of the last decimal among them
    values[500:520] = 2**-7 * np.arange(20)
    assert _text(_Digits(_words(values), values)).to_pylist() == [number(each) for each in values.tolist()]
    with pytest.raises(ValueError, match="finite"):
        _words(np.array([np.nan], np.float32))


@pytest.mark.parametrize("format", FORMATS)
def test_what_was_interrupted_goes_on_and_gives_the_same_bytes(tmp_path: Path, format: str) -> None:
    folder, whole, cut = write(tmp_path / "v", 300), tmp_path / f"whole.{format}", tmp_path / f"cut.{format}"
    into(whole, [folder], asked())
    for stop in (0, 2):
        with pytest.raises(KeyboardInterrupt):
            into(cut, [folder], asked(), resume=stop > 0, stop=stop)
        assert beside(cut) != [cut.name]
    # a kill in the middle of a write: the last record, or batch, is torn
    growing = cut if format in ("jsonl", "csv", "tsv") else tmp_path / f"cut.{format}.journal"
    growing.write_bytes(growing.read_bytes()[:-7])
    into(cut, [folder], asked(), resume=True)
    assert cut.read_bytes() == whole.read_bytes()
    assert beside(cut) == [cut.name]
    into(cut, [folder], asked(), resume=True)  # nothing left to do
    assert cut.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_what_was_begun_one_by_one_or_in_another_order_goes_on(tmp_path: Path, format: str) -> None:
    first, second = write(tmp_path / "v", 100), write(tmp_path / "w", 120)
    path = tmp_path / f"a.{format}"
    ways: list[Callable[..., None]] = [into, one_by_one]
    for begin, go_on in itertools.product(ways, ways):
        with pytest.raises(KeyboardInterrupt):
            into(path, [second], asked(), stop=1) if begin is into else _interrupted(path, second)
        go_on(path, [first, second], asked(), resume=True)
        other = tmp_path / f"b.{format}"
        into(other, [first, second], asked())
        rows = [sorted(_rows(each)) for each in (path, other)]
        assert rows[0] == rows[1]
        assert beside(path) == [path.name]
        path.unlink()


def _interrupted(path: Path, folder: Path) -> None:
    with open_sink(path.suffix[1:], path, top_k=3, request="r" * 40, labels=LABELS) as sink:
        block = next(Parts(folder).blocks(0))
        answers = bulk.ask(asked(), block.vectors, 3)
        sink.write(into_file._record(next(block.records()).source, LABELS, answers, 0, ()))
        raise KeyboardInterrupt


def _rows(path: Path) -> list[str]:
    if path.suffix == ".parquet":
        return [json.dumps(row) for row in pa.parquet.read_table(path).to_pylist()]
    return path.read_text().splitlines()


def test_a_journal_of_another_request_is_not_gone_on_with(tmp_path: Path) -> None:
    folder, path = write(tmp_path / "v", 100), tmp_path / "a.parquet"
    with pytest.raises(KeyboardInterrupt):
        into(path, [folder], asked(), stop=0)
    before = (tmp_path / "a.parquet.journal").read_bytes()
    for many in (False, True):
        with pytest.raises(OutputError, match="another request"):
            open_sink("parquet", path, top_k=3, request="other", labels=LABELS, many=many, resume=True)
    assert (tmp_path / "a.parquet.journal").read_bytes() == before


def test_a_shard_that_is_missing_or_damaged_is_a_record(tmp_path: Path) -> None:
    folder, path = write(tmp_path / "v", 150, note=99, fail=99), tmp_path / "a.jsonl"
    (folder / part_name(1)).write_bytes(b"PAR1")
    into(path, [folder], asked())
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [row for row, record in enumerate(records) if "error" in record] == [50]
    assert records[50]["error"]["type"] == "DamagedShard"
    made = write(tmp_path / "w", 150, note=99, fail=99)
    (folder / part_name(1)).write_bytes((made / part_name(1)).read_bytes())
    into(path, [folder], asked(), resume=True)
    after = [json.loads(line)["source"] for line in path.read_text().splitlines()]
    assert after[:101] == [record["source"] for record in records]
    assert len(after) == 151


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet", "stdout"])
def test_the_command_asks_a_large_folder_by_blocks_and_a_small_one_as_ever(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    folder = write(tmp_path / "v", 90)
    tiny_checkpoint(tmp_path / "model", projection_dim=16)
    asked().save(tmp_path / "c.nshot")
    command = ["classify", str(folder), "--classifier", str(tmp_path / "c.nshot"), "--quiet", "--no-store"]
    command += ["--model", str(tmp_path / "model")]
    calls: list[int] = []
    take = Sink.take

    def counted(sink: Sink, data: bytes, failed: int) -> None:
        calls.append(failed)
        take(sink, data, failed)

    monkeypatch.setattr(Sink, "take", counted)
    told = []
    for held in (HELD, 0):
        monkeypatch.setattr(into_file, "HELD", held)
        path = tmp_path / f"{held}.{format}"
        there = ["--format", "jsonl"] if format == "stdout" else ["-o", str(path)]
        assert run([*command, *there]) == 1  # some have failed
        path.write_text(capsys.readouterr().out) if format == "stdout" else capsys.readouterr()
        told.append(_rows(path))
        assert len(calls) == (0 if held else 2)
    assert len(told[0]) == len(told[1])
    for one, many in zip(*told, strict=True):
        numbers = [[float(each) for each in re.findall(r"-?\d\.\d{5,}", line)] for line in (one, many)]
        assert numbers[0] == pytest.approx(numbers[1], abs=2e-6)
        assert re.sub(r"-?\d\.\d{5,}(e-\d+)?", "", one) == re.sub(r"-?\d\.\d{5,}(e-\d+)?", "", many)


def test_a_label_whose_scale_is_nothing_is_told_with_its_own_cosine() -> None:
    rows = np.random.default_rng(0).normal(size=(3, 16))
    classifier = Classifier(("a", "b", "c"), rows, [20.0, 0.0, 5.0], [0.0, 50.0, 0.0])
    vectors: Floats = normalize(np.random.default_rng(1).normal(size=(50, 16)))
    answers = bulk.ask(classifier, vectors, 3)
    for row, expected in enumerate(classifier.predict(vectors, top_k=3)):
        assert answers.cosines[row] == pytest.approx([t.cosine for t in expected.predictions], abs=1e-6)
        assert answers.margins[row] == pytest.approx(expected.margin, abs=1e-6)
