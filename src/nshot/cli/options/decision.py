"""``--coverage``, ``--reject``, ``--multi`` and their companions: what is answered, and when nothing is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from nshot.cli.options.packing import Command, packed
from nshot.cli.refusing import leave_out
from nshot.errors import RequestError
from nshot.labels.files import read_labels
from nshot.labels.prompts import Labels, split_labels


@dataclass(frozen=True, slots=True)
class DecisionOptions:
    """What ``--coverage``, ``--reject`` and their companions say."""

    coverage: float | None
    reject: Any
    threshold: float | None
    background: str | None
    background_file: Path | None
    multi: bool = False

    @property
    def rules(self) -> dict[str, object]:
        """What was said about "none of these", by the options' names; "threshold" is also --multi's."""
        return {
            "reject": self.reject,
            "threshold": self.threshold,
            "background": self.background,
            "background_file": self.background_file,
        }

    def check(self, *, several: bool) -> None:
        """Refuse what contradicts itself, or has nothing to act on.

        Args:
            several: an image may show any number of the labels, or of those of a facet.

        Raises:
            RequestError: the options that do not go together are named.
        """
        if self.coverage is not None:
            leave_out("with --coverage the answer is a set of labels, from which no rule takes", **self.rules)
        if self.reject == "off":
            leave_out("--reject off answers always", **{**self.rules, "reject": None})
        if self.reject != "background" and not (several or self.multi):
            leave_out(
                "a background is what the background rule compares with (--reject background)",
                background=self.background,
                background_file=self.background_file,
            )

    def words(self) -> Labels:
        """The background labels: those given, or everyday ones.

        Raises:
            RequestError: given twice, or a file that cannot be read.
        """
        from nshot.decision import EVERYDAY

        if self.background is not None and self.background_file is not None:
            raise RequestError(
                "give the background with --background or with --background-file, not with both"
            )
        if self.background_file is not None:
            return read_labels(self.background_file)
        return EVERYDAY if self.background is None else split_labels(self.background)


MULTI = click.option(
    "--multi",
    is_flag=True,
    help="An image may show any number of the labels; each is decided by itself.",
)

_DECISION = (
    MULTI,
    click.option(
        "--coverage",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        metavar="SHARE",
        help="Answer with sets of labels that hold the right one this often, such as 0.9; needs a classifier "
        "that nshot calibrate has seen.",
    ),
    click.option(
        "--reject",
        type=click.Choice(["background", "cosine", "margin", "energy", "off"]),
        help='The rule that says "none of these". background needs no threshold; off answers always.',
    ),
    click.option(
        "--threshold",
        type=float,
        metavar="T",
        help="The threshold of that rule: an image below it shows none of the labels. With --multi: the "
        "score from which a label is shown, 0.05 unless it was learnt.",
    ),
    click.option(
        "--background",
        metavar='"A, B"',
        help="What else there may be in the images, for the background rule.  [default: everyday things]",
    ),
    click.option(
        "--background-file",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="The same from a file, one per line.",
    ),
)


def decision_options(command: Command) -> Command:
    """Add --coverage, --reject and more; the command gets them as ``decision_options: DecisionOptions``."""
    return packed("decision_options", DecisionOptions, _DECISION)(command)
