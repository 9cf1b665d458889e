"""What search, duplicates and cluster share: sources in, embeddings out; records, tables and pages."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nshot.atomic import check_output
from nshot.cli.options import Listing, into_stores, progress, say, tell_failure, tell_remarks
from nshot.errors import OutputError, RequestError
from nshot.images.remarks import Remarks
from nshot.types import Failure

if TYPE_CHECKING:
    from nshot.embeddings import Embeddings
    from nshot.model import Model


def embedded(
    model: Model,
    sources: Sequence[str],
    listing: Listing,
    images: Iterable[Any] | None = None,
    *,
    quiet: bool,
) -> Embeddings:
    """The images' vectors; each failure is told, and an empty request refused.

    Args:
        model: the model.
        sources: what was named.
        listing: how it is listed.
        images: the listing, where it was filtered already.
        quiet: say nothing.

    Raises:
        RequestError: no image, or none that can be read.
    """
    remarks = Remarks()
    listed = listing.open(model, sources, remarks) if images is None else images

    def told() -> Iterable[Any]:
        for item in progress(model.embed_images(listed), shown=not quiet, sources=sources):
            if isinstance(item, Failure) and not quiet:
                tell_failure(item)
            yield item

    found = model.collect(told())
    tell_remarks(remarks, quiet=quiet)
    if not len(found):
        raise RequestError(f"no image that can be read in {' '.join(sources)}")
    return found


_FORMATS = {".jsonl": "jsonl", ".csv": "csv", ".parquet": "parquet", ".html": "html", ".htm": "html"}
_FORMATS |= {".txt": "table", "": "table"}


def format_of(format: str | None, output: Path | None, inputs: Iterable[str | Path | None]) -> str:
    """The format asked for, or the one that the output's name says; the output is checked before any work.

    Raises:
        OutputError: an ending that says no format, or an output that is an input.
    """
    if output is not None:
        check_output(output, inputs)
    if format is None and output is not None:
        format = "table" if not output.is_file() and output.exists() else _FORMATS.get(output.suffix.lower())
        if format is None:
            raise OutputError(
                f"{output}: {output.suffix} is no format that is written here: name it .jsonl, .csv, "
                ".parquet, .html or .txt, or say --format"
            )
    if format == "html" and output is None:
        raise RequestError("a page needs a file: name it with -o FILE.html")
    return format or "table"


def write(
    records: Iterable[dict[str, Any]],
    columns: Sequence[str],
    format: str,
    output: Path | None,
    table: Iterable[str],
) -> None:
    """Records in a format for programs, or the lines of a table for a person."""
    from nshot.output.records import write_records, write_whole

    if format != "table":
        write_records(records, columns, format, output, sys.stdout.buffer)
        return
    text = "".join(line + "\n" for line in table).encode("utf-8", "backslashreplace")
    if output is not None:
        write_whole(output, text)
        return
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()


def write_page(html: str, output: Path, *, quiet: bool) -> None:
    """A page into its file."""
    from nshot.output.records import write_whole

    write_whole(output, html.encode("utf-8", "backslashreplace"))
    if not quiet:
        say(f"the page is {output}")


OUTPUT = (
    click.option(
        "--format",
        type=click.Choice(["table", "jsonl", "csv", "parquet", "html"]),
        help="How answers are written.  [default: by the name of -o, else table]",
    ),
    click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Where answers go."),
)


def output_options(command: Any) -> Any:
    """Add --format and -o; the command gets ``format`` and ``output``."""
    command = into_stores(command)
    for option in reversed(OUTPUT):
        command = option(command)
    return command
