"""``SOURCE...`` and how it is listed."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nshot.cli.options.model import ModelOptions
from nshot.cli.options.packing import Command, packed
from nshot.images.remarks import Remarks
from nshot.types import Embedded, Failure

if TYPE_CHECKING:
    from nshot.embedder import Embedder
    from nshot.images.sources import Source


@dataclass(frozen=True, slots=True)
class Listing:
    """How SOURCE is listed."""

    image_column: str | None
    image_root: Path | None
    strict: bool

    def open(
        self, model: Embedder, sources: Sequence[str], remarks: Remarks, *, keep_columns: bool = False
    ) -> Iterator[Source | Embedded | Failure]:
        """What the sources name, checked now and listed later; ``remarks`` says what was passed over."""
        return model.sources(
            sources,
            stdin=sys.stdin.buffer,
            image_column=self.image_column,
            image_root=self.image_root,
            strict=self.strict,
            keep_columns=keep_columns,
            remarks=remarks,
        )

    def over(self, model_options: ModelOptions, sources: Sequence[str]) -> ModelOptions:
        """The model's options with these images, which can be listed more than once unless they are piped."""
        if "-" in sources:
            return model_options
        return replace(model_options, asked=lambda model: self.open(model, sources, Remarks()))

    def labelled(self, sources: Sequence[str], remarks: Remarks) -> Iterator[Source]:
        """The images of labelled data, with their labels."""
        from nshot.datasets.labelled import Columns, open_labelled

        for source in sources:
            data = open_labelled(
                source, columns=Columns(self.image_column), image_root=self.image_root, strict=self.strict
            )
            yield from data
            for line in (*data.remarks.news(), *data.remarks.counts()):
                remarks.note(line)


IMAGE_COLUMN = click.option(
    "--image-column", metavar="NAME", help="The column of a table that holds the images."
)

IMAGE_ROOT = click.option(
    "--image-root",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="FOLDER",
    help="The folder that names of images in a table are relative to.  [default: the table's own]",
)

STRICT = click.option(
    "--strict",
    is_flag=True,
    help="Files in folders that are no images (sidecars, videos ...) are failures, not skipped.",
)

_SOURCES = (IMAGE_COLUMN, IMAGE_ROOT, STRICT)


def source_arguments(command: Command) -> Command:
    """Add SOURCE... and how it is listed; the command gets ``sources`` and ``listing: Listing``."""
    argument = click.argument("sources", nargs=-1, required=True, metavar="SOURCE...")
    return argument(packed("listing", Listing, _SOURCES)(command))


def listing_options(command: Command) -> Command:
    """Add how images are listed, to a command with arguments of its own; it gets ``listing: Listing``."""
    return packed("listing", Listing, _SOURCES)(command)
