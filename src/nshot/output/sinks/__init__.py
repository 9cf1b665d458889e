"""Answers out: a table for a person; JSONL, CSV or Parquet for a program.

    record (Prediction | Failure) -> format -> bytes -> file or stream, whole records only

A file that is being written has a note beside it, ``FILE.run``, which says what was asked. It goes when the
run is complete; while it is there, ``resume`` goes on with the file, and only with the same request.
"""

from __future__ import annotations

import sys
from collections.abc import Collection
from pathlib import Path
from typing import BinaryIO

from nshot.atomic import check_output
from nshot.errors import OutputError, RequestError
from nshot.output.sinks.formats import Csv, Jsonl, Record
from nshot.output.sinks.sink import Sink
from nshot.output.sinks.target import FileTarget, StreamTarget

__all__ = ["FORMATS", "Record", "Sink", "open_sink"]

FORMATS = ("table", "jsonl", "csv", "parquet")


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
) -> Sink:
    """A sink for answers; nothing is written, nor an existing file touched, before the first record.

    Args:
        format: one of ``FORMATS``.
        output: the file; None for the stream.
        top_k: labels told of each image, which sets the columns of a CSV.
        resume: go on with what an interrupted run left in ``output``; its answers are in ``Sink.answered``.
        request: what was asked (a digest of labels, model and options): a run is only resumed with the same.
        labels: all that can be answered; what is resumed must not hold others. Not looked at if empty.
        stream: where answers go without ``output``; standard output by default.
        width: columns of the table; the terminal's by default, 80 where there is none.
        color: colours in the table; by default where the stream is a terminal, unless NO_COLOR is set.
        decided: the answers are ``Decided``, which sets the columns of a CSV and of Parquet.
        calibrated: their scores are probabilities, and called so.

    Raises:
        OutputError: the answers cannot go there, or what is there cannot be resumed.
        MissingExtra: Parquet without pyarrow.
    """
    if format not in FORMATS:
        raise RequestError(f"no format {format!r}: there are {', '.join(FORMATS)}")
    if resume and output is None:
        raise OutputError("only a file can be resumed: name it with -o")
    if resume and format == "table":
        raise OutputError("a table cannot be resumed: use --format jsonl, csv or parquet")

    if output is None:
        if format == "parquet":
            raise OutputError("Parquet needs a file: name it with -o")
        target: StreamTarget | FileTarget = StreamTarget(stream or sys.stdout.buffer)
    else:
        path = check_output(output)
        if format == "parquet":
            from nshot.output.sinks.parquet import ParquetSink

            return ParquetSink(
                path,
                resume=resume,
                request=request,
                labels=labels,
                decided=decided,
                calibrated=calibrated,
            )
        if path.exists() and not path.is_file():  # a device or a pipe
            if resume:
                raise OutputError(f"{output} is not a regular file, so it cannot be resumed")
            target = StreamTarget(path)
        else:
            target = FileTarget(path, request=request, resumable=format != "table")

    if format == "jsonl":
        return Sink(Jsonl(), target, resume=resume, labels=labels)
    if format == "csv":
        columns = Csv(top_k, decided=decided, calibrated=calibrated)
        return Sink(columns, target, resume=resume, labels=labels)
    from nshot.output.sinks.table import Table, wants_color, width_of

    terminal = target.stream if isinstance(target, StreamTarget) else None
    return Sink(
        Table(
            width=width_of(terminal) if width is None else width,
            color=wants_color(terminal) if color is None else color,
            calibrated=calibrated,
        ),
        target,
    )
