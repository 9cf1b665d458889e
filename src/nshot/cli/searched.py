"""What search, duplicates and cluster share: their options; sources in, embeddings out; records and pages."""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nshot.atomic import check_output
from nshot.cli.options import (
    Command,
    Listing,
    ModelOptions,
    into_stores,
    model_options,
    progress,
    say,
    source_arguments,
    talk_options,
    tell_failure,
    tell_remarks,
)
from nshot.errors import OutputError, RequestError
from nshot.images.remarks import Remarks
from nshot.types import Failure

if TYPE_CHECKING:
    from nshot.embeddings import Embeddings
    from nshot.model import Model


@dataclass(frozen=True, slots=True)
class Asked:
    """What every one of these commands is given."""

    sources: tuple[str, ...]
    listing: Listing
    format: str | None
    output: Path | None
    model_options: ModelOptions
    quiet: bool
    verbose: bool

    def kind(self, *inputs: str | Path | None) -> str:
        """How answers are written; the output is checked, before any work, to be no input.

        Raises:
            OutputError: an ending that says no format, or an output that is an input.
        """
        return format_of(self.format, self.output, [*self.sources, *inputs])

    def load(self) -> Model:
        """The model."""
        return self.listing.over(self.model_options, self.sources).load(quiet=self.quiet)

    def embedded(self, model: Model, images: Iterable[Any] | None = None) -> Embeddings:
        """The images' vectors; each failure is told, and an empty request refused.

        Args:
            model: the model.
            images: the listing, where it was filtered already.

        Raises:
            RequestError: no image, or none that can be read.
        """
        found = self._stored(model) if images is None else None
        if found is not None:
            return found
        remarks = Remarks()
        listed = self.listing.open(model, self.sources, remarks) if images is None else images

        def told() -> Iterable[Any]:
            for item in progress(model.embed_images(listed), shown=not self.quiet, sources=self.sources):
                if isinstance(item, Failure) and not self.quiet:
                    tell_failure(item)
                yield item

        found = model.collect(told())
        tell_remarks(remarks, quiet=self.quiet)
        if not len(found):
            raise RequestError(f"no image that can be read in {' '.join(self.sources)}")
        return found

    def _stored(self, model: Model) -> Embeddings | None:
        """The vectors of folders of parts, where there is nothing else; each failure is told."""
        found = model.stored(self.sources)
        if found is None:
            return None
        for failure in () if self.quiet else found.failures.values():
            tell_failure(failure)
        if not len(found):
            raise RequestError(f"no image that can be read in {' '.join(self.sources)}")
        return found

    def again(self, model: Model) -> Iterable[Any] | None:
        """The images listed once more, to be shown or compared; None where that cannot be done.

        They cannot where they came from standard input, and in files of vectors there are no images.
        """
        from nshot.embeddings import is_vector_file

        if "-" in self.sources or all(map(is_vector_file, self.sources)):
            return None
        return self.listing.open(model, self.sources, Remarks())

    def say(self, message: str) -> None:
        """A note, unless the person wants quiet."""
        if not self.quiet:
            say(message)

    def write(
        self, records: Iterable[dict[str, Any]], columns: Sequence[str], kind: str, table: Iterable[str]
    ) -> None:
        """Records in a format for programs, or the lines of a table for a person."""
        from nshot.output.records import write_records, write_whole

        if kind != "table":
            write_records(records, columns, kind, self.output, sys.stdout.buffer)
            return
        text = "".join(line + "\n" for line in table).encode("utf-8", "backslashreplace")
        if self.output is not None:
            write_whole(self.output, text)
            return
        sys.stdout.buffer.write(text)
        sys.stdout.buffer.flush()

    def write_page(self, html: str) -> None:
        """A page into its file."""
        from nshot.output.records import write_whole

        assert self.output is not None  # a page without a file was refused
        write_whole(self.output, html.encode("utf-8", "backslashreplace"))
        self.say(f"the page is {self.output}")


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


OUTPUT = (
    click.option(
        "--format",
        type=click.Choice(["table", "jsonl", "csv", "parquet", "html"]),
        help="How answers are written.  [default: by the name of -o, else table]",
    ),
    click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Where answers go."),
)


def asked_options(command: Command) -> Command:
    """Add what these commands share, SOURCE... to -v; the command gets it as ``asked: Asked``."""

    @functools.wraps(command)
    def wrapped(**values: Any) -> Any:
        asked = Asked(**{field: values.pop(field) for field in Asked.__dataclass_fields__})
        return command(asked=asked, **values)

    made = model_options(talk_options(into_stores(wrapped)))
    for option in reversed(OUTPUT):
        made = option(made)
    return source_arguments(made)
