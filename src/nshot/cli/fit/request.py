"""What ``nshot fit`` was asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nshot.cli.data import DataOptions
from nshot.cli.facets import facets_path
from nshot.cli.options import DecisionOptions, LabelOptions, ModelOptions

METHODS = ("auto", "zero-shot", "probe", "pulled", "gaussian")
NO_DECISION = DecisionOptions(None, None, None, None, None)
PREFERRED = ("train", "val", "test")
"""The part that is read where DATA is divided."""


@dataclass(frozen=True, slots=True)
class Request:
    """The options of the command, each as it was given; None where it was not."""

    data_options: DataOptions
    output: Path
    method: Any
    strength: float | None
    seed: int
    journal_file: Path | None
    test: str | None
    facet: str | None
    multi: bool
    label_options: LabelOptions
    facets_given: str | None
    tree_file: Path | None
    model_options: ModelOptions
    quiet: bool
    verbose: bool

    @property
    def own_model(self) -> ModelOptions:
        """The model's options, with a revision that is the model's own and not DATA's."""
        return self.data_options.of_model(self.model_options)

    def learning(self) -> dict[str, Any]:
        """What ``nshot.fit`` takes."""
        return {"method": self.method or "auto", "strength": self.strength, "seed": self.seed}

    def check_output(self) -> None:
        """Refuse to write over what is read.

        Raises:
            OutputError: the file is named.
        """
        from nshot.atomic import check_output

        read = self.data_options.inputs(self.label_options, self.journal_file)
        check_output(self.output, [*read, facets_path(self.facets_given), self.tree_file])
