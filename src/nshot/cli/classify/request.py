"""What ``nshot classify`` was asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nshot.atomic import check_output
from nshot.cli.facets import facets_path
from nshot.cli.options import DecisionOptions, JournalOptions, LabelOptions, Listing, ModelOptions
from nshot.cli.staged import CascadeOptions


@dataclass(frozen=True, slots=True)
class Request:
    """The options of the command, each as it was given; None where it was not."""

    sources: tuple[str, ...]
    listing: Listing
    label_options: LabelOptions
    classifier_file: Path | None
    facets_given: str | None
    tree_file: Path | None
    rank: str | None
    decision_options: DecisionOptions
    model_options: ModelOptions
    cascade_options: CascadeOptions
    top_k: int | None
    adapt: bool
    keep_columns: bool
    heatmaps: Path | None
    journal_options: JournalOptions
    ray: str | None
    format: Any
    output: Path | None
    resume: bool
    quiet: bool
    verbose: bool

    def check_output(self) -> None:
        """Refuse to write over what is read, rather now than after a download.

        Raises:
            OutputError: the file is named.
        """
        if self.output is None:
            return
        labels, decision = self.label_options, self.decision_options
        files = (
            *(self.classifier_file, facets_path(self.facets_given), self.tree_file, labels.label_vectors),
            *(labels.labels_file, labels.templates, decision.background_file),
        )
        check_output(self.output, [*self.sources, *files])
