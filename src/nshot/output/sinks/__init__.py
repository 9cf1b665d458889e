"""Answers out: a table for a person; JSON, JSON lines, CSV, TSV or Parquet for a program.

    record (Prediction | Failure) -> format -> bytes -> file or stream, whole records only

A file that is being written has a note beside it, ``FILE.run``, which says what was asked. It goes when the
run is complete; while it is there, ``resume`` goes on with the file, and only with the same request.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from nshot.atomic import Lock, check_output
from nshot.errors import OutputError, RequestError
from nshot.output.sinks.formats import Csv, FacetCsv, Format, Jsonl, Record
from nshot.output.sinks.sink import Sink
from nshot.output.sinks.target import FileTarget, StreamTarget

__all__ = ["FORMATS", "Record", "Sink", "format_by_name", "open_sink"]

FORMATS = ("table", "jsonl", "json", "csv", "tsv", "parquet", "coco", "labelstudio")

_ENDINGS = {
    **{".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".tsv": "tsv"},
    **{".parquet": "parquet", ".txt": "table"},
}
_SPREADSHEETS = (".xlsx", ".xls", ".ods", ".numbers")
_SHORT = 12  # digits of the request's digest that each record holds


def format_by_name(output: str | Path) -> str:
    """The format that the name of an output file asks for.

    Raises:
        OutputError: an ending that says no format.
    """
    path = Path(output)
    ending = path.suffix.lower()
    if ending in _ENDINGS:
        return _ENDINGS[ending]
    if path.exists() and not path.is_file():  # a device or a pipe
        return "table"
    known = "name it .jsonl, .json, .csv, .tsv, .parquet or .txt (the table as on the screen)"
    if ending in _SPREADSHEETS:
        raise OutputError(f"{output}: nshot writes no {ending}; name it .csv, which spreadsheets open")
    says = f"the ending {ending} says" if ending else "a name without an ending says"
    raise OutputError(f"{output}: {says} no format; {known}, or give --format")


@dataclass(frozen=True, slots=True)
class _Kind:
    """What the answers are like, which sets the columns of a format; see ``open_sink``."""

    top_k: int
    decided: bool
    calibrated: bool
    placed: bool
    staged: bool
    kept: Sequence[str]
    facets: Mapping[str, tuple[bool, bool]] | None


def open_sink(
    format: str,
    output: str | Path | None = None,
    *,
    top_k: int,
    resume: bool = False,
    request: str = "",
    labels: Collection[str] = (),
    stream: BinaryIO | None = None,
    width: int | None = None,
    color: bool | None = None,
    decided: bool = False,
    calibrated: bool = False,
    kept: Sequence[str] = (),
    facets: Mapping[str, tuple[bool, bool]] | None = None,
    facet_labels: Mapping[str, Sequence[str]] | None = None,
    placed: bool = False,
    staged: bool = False,
    many: bool = False,
) -> Sink:
    """A sink for answers; nothing is written, nor an existing file touched, before the first record.

    Args:
        format: one of ``FORMATS``.
        output: the file; None for the stream. It is locked against other runs until the sink is closed.
        top_k: labels per image, which sets the columns of a CSV.
        resume: go on with what an interrupted run left in ``output``; its answers are in ``Sink.answered``.
        request: what was asked (a digest of labels, model and options): a run is only resumed with the same.
            Each record of a file holds its first digits as ``run``, so that a finished one is compared too.
        labels: all that can be answered; what is resumed must not hold others. Not looked at if empty.
        stream: where answers go without ``output``; standard output by default.
        width: columns of the table; the terminal's by default, 80 where there is none.
        color: colours in the table; by default where the stream is a terminal, unless NO_COLOR is set.
        decided: the answers are ``Decided``, which sets the columns of a CSV and of Parquet.
        calibrated: their scores are probabilities, and called so.
        kept: columns of the input that go along with the answers, where a format has columns.
        facets: the answers are ``Faceted``: each facet's name -> whether it is decided, whether calibrated.
        facet_labels: all that each facet can answer, for the categories of COCO.
        placed: the answers are ``Placed``; ``decided`` holds for them too.
        staged: the answers are a cascade's, and say which model each is of.
        many: the answers are plain ones, and come many at once (``Sink.take``), not as a
            table; names of what is answered are not kept.

    Raises:
        OutputError: the answers cannot go there, another run writes there, or it cannot be resumed.
        MissingExtra: Parquet without pyarrow.
    """
    if format not in FORMATS:
        raise RequestError(f"no format {format!r}: there are {', '.join(FORMATS)}")
    if format in ("coco", "labelstudio"):
        from nshot.output.annotations import AnnotationSink

        if output is None or resume:
            raise OutputError(f"{format} is written as a whole: name a file with -o, without --resume")
        return AnnotationSink(format, check_output(output), facet_labels or list(labels))
    if resume and output is None:
        raise OutputError("only a file can be resumed: name it with -o")
    if resume and format == "table":
        raise OutputError("a table cannot be resumed: use --format jsonl, json, csv, tsv or parquet")
    if output is None and format in ("json", "parquet"):
        raise OutputError(f"{'Parquet' if format == 'parquet' else 'JSON'} needs a file: name it with -o")
    kind = _Kind(top_k, decided, calibrated, placed, staged, kept, facets)
    path = None if output is None else check_output(output)
    if path is None or (path.exists() and not path.is_file()):  # a stream, a device or a pipe
        if resume:
            raise OutputError(f"{output} is not a regular file, so it cannot be resumed")
        if format in ("json", "parquet"):
            raise OutputError(f"{output} is not a regular file, so {format} cannot go there")
        target = StreamTarget(path or stream or sys.stdout.buffer)
        lines = _lines(format, "", kind)  # what cannot be resumed needs no run
        return Sink(lines or _table(target.stream, width, color, calibrated), target)
    lock = Lock(path)
    try:
        return _file_sink(format, path, lock, kind, resume, request, labels, width, color, many)
    except BaseException:
        lock.release()
        raise


def _file_sink(
    format: str,
    path: Path,
    lock: Lock,
    kind: _Kind,
    resume: bool,
    request: str,
    labels: Collection[str],
    width: int | None,
    color: bool | None,
    many: bool,
) -> Sink:
    run = request[:_SHORT]
    if format == "json":
        from nshot.output.sinks.journaled import JsonSink

        return JsonSink(
            path, resume=resume, request=request, run=run, labels=labels, lock=lock, names=not many
        )
    if format == "parquet":
        from nshot.output.sinks.parquet import BatchedParquetSink, FacetParquetSink, ParquetSink

        journal: dict[str, Any] = {
            "resume": resume,
            "request": request,
            "run": run,
            "labels": labels,
            "lock": lock,
        }
        if many:
            return BatchedParquetSink(path, names=False, **journal)
        if kind.facets is not None:
            return FacetParquetSink(path, facets=kind.facets, kept=kind.kept, **journal)
        return ParquetSink(
            path,
            decided=kind.decided,
            calibrated=kind.calibrated,
            placed=kind.placed,
            staged=kind.staged,
            kept=kind.kept,
            **journal,
        )
    file = FileTarget(path, request=request, resumable=format != "table")
    if (lines := _lines(format, run, kind)) is not None:
        return Sink(lines, file, resume=resume, labels=labels, run=run, lock=lock, names=not many)
    return Sink(_table(None, width, color, kind.calibrated), file, lock=lock)


def _lines(format: str, run: str, kind: _Kind) -> Format | None:
    """What is written line by line for a program; None for a person's table, and for what needs a journal."""
    if format == "jsonl":
        return Jsonl(run)
    if format in ("csv", "tsv"):
        delimiter = "," if format == "csv" else "\t"
        if kind.facets is not None:
            return FacetCsv(kind.facets, delimiter=delimiter, run=run, kept=kind.kept)
        return Csv(
            kind.top_k,
            decided=kind.decided,
            calibrated=kind.calibrated,
            placed=kind.placed,
            staged=kind.staged,
            delimiter=delimiter,
            run=run,
            kept=kind.kept,
        )
    return None


def _table(terminal: BinaryIO | None, width: int | None, color: bool | None, calibrated: bool) -> Format:
    from nshot.output.sinks.table import Table, wants_color, width_of

    return Table(
        width=width_of(terminal) if width is None else width,
        color=wants_color(terminal) if color is None else color,
        calibrated=calibrated,
    )
