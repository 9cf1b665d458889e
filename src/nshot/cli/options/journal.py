"""``--journal`` and its companions: what somebody has put right on the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nshot.cli.options.packing import Command, packed
from nshot.errors import RequestError

if TYPE_CHECKING:
    from nshot.server.session import Word


@dataclass(frozen=True, slots=True)
class JournalOptions:
    """What ``--journal`` and its companions say."""

    journal_file: Path | None
    corrected: bool
    facet: str | None

    def check(self) -> None:
        """Refuse its companions without it.

        Raises:
            RequestError: ``--corrected`` or ``--facet`` alone.
        """
        for given, name in ((self.corrected, "--corrected"), (self.facet, "--facet")):
            if given and self.journal_file is None:
                raise RequestError(f"{name} needs --journal")

    def words(self) -> Mapping[str, Word] | None:
        """What was said: digest of the image's content -> the word on it; None without a journal."""
        if self.journal_file is None:
            return None
        from nshot.server.session import LABELS, read_words

        return read_words(self.journal_file).of(self.facet or LABELS).said


FACET = click.option(
    "--facet", metavar="NAME", help="With --journal: the corrections of this facet, where several were asked."
)

_JOURNAL = (
    click.option(
        "--journal",
        "journal_file",
        type=click.Path(path_type=Path, exists=True),
        metavar="FILE_OR_FOLDER",
        help="Corrections made on the page of nshot serve: what a person said counts before the model.",
    ),
    click.option("--corrected", is_flag=True, help="With --journal: only what somebody has spoken about."),
    FACET,
)


def journal_options(command: Command) -> Command:
    """Add --journal, --corrected and --facet; the command gets ``journal_options: JournalOptions``."""
    return packed("journal_options", JournalOptions, _JOURNAL)(command)
