"""What ``nshot calibrate`` was asked."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nshot.atomic import check_output, write_bytes
from nshot.cli.data import DataOptions
from nshot.cli.facets import facets_path
from nshot.cli.options import DecisionOptions, LabelOptions, ModelOptions, say
from nshot.cli.options.talk import echo
from nshot.cli.refusing import leave_out
from nshot.cli.staged import CascadeOptions

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.classifier.facets import Facets
    from nshot.classifier.tree import TreeClassifier
    from nshot.embeddings import Embeddings
    from nshot.model import Model

PREFERRED = ("val", "test", "train")
"""The part that is read where DATA is divided: rather not what was learnt from."""


@dataclass(frozen=True, slots=True)
class Request:
    """The options of the command, each as it was given; None where it was not."""

    data_options: DataOptions
    classifier_file: Path | None
    label_options: LabelOptions
    facets_given: str | None
    tree_file: Path | None
    output: Path | None
    strangers: tuple[str, ...]
    reject: Any
    wrong: float | None
    coverage: float | None
    surest: float | None
    kind: Any
    multi: bool
    never_empty: bool
    background: str | None
    background_file: Path | None
    report: Path | None
    seed: int
    model_options: ModelOptions
    cascade_options: CascadeOptions
    quiet: bool
    verbose: bool

    @property
    def own_model(self) -> ModelOptions:
        """The model's options, with a revision that is the model's own and not DATA's."""
        return self.data_options.of_model(self.model_options)

    @property
    def words(self) -> DecisionOptions:
        """The background."""
        return DecisionOptions(None, None, None, self.background, self.background_file)

    @property
    def rule(self) -> str | None:
        """The rule that is learnt; None: none."""
        return None if self.reject == "off" else self.reject or "background"

    @property
    def needs_background(self) -> bool:
        """Whether there is a background, which its rule needs, and all rules are compared with."""
        return self.rule == "background" or not (self.background is None and self.background_file is None)

    def learning(self) -> dict[str, Any]:
        """What ``nshot.calibrate`` takes.

        Raises:
            RequestError: options that contradict each other.
        """
        if self.rule is None:
            leave_out("without a rule (--reject off) nothing is wrongly answered", wrong=self.wrong)
        return {
            "reject": self.rule,
            "wrong": 0.05 if self.wrong is None else self.wrong,
            "coverage": self.coverage,
            "surest": self.surest,
            "kind": self.kind or "least",
            "randomized": not self.never_empty,
            "seed": self.seed,
        }

    def given_learning(self) -> dict[str, object]:
        """What was given of it, by the options' names."""
        return {
            "none": self.strangers,
            "reject": self.reject,
            "wrong": self.wrong,
            "surest": self.surest,
            "sets": self.kind,
            "never_empty": self.never_empty,
        }

    def check_outputs(self) -> None:
        """Refuse to write over what is read; a classifier may be calibrated in its place.

        Raises:
            OutputError: the file is named.
        """
        read = self.data_options.inputs(self.label_options, self.background_file, *self.strangers)
        read += [facets_path(self.facets_given), self.tree_file]
        if self.output is not None:
            check_output(self.output, read)
        if self.report is not None:
            check_output(self.report, [*read, self.classifier_file, self.output])

    def embed_none(self, model: Model) -> Embeddings | None:
        """The images that show none of the labels; None without --none."""
        return model.embed(model.sources(self.strangers)) if self.strangers else None

    def write_report(self, told: Mapping[str, Any]) -> None:
        """Every figure, where --report says."""
        if self.report is not None:
            write_bytes(self.report, (json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode())

    def save(self, made: Classifier | Facets | TreeClassifier) -> None:
        """Write what was made, and say where; else that nothing was saved."""
        if (path := self.output or self.classifier_file) is None:
            say("nothing was saved: name a file with -o")
            return
        made.save(path)
        echo(f"\n{path}")
