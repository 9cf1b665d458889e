"""What ``nshot evaluate`` was asked."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import nshot
from nshot.atomic import make_folder
from nshot.cli.data import DataOptions
from nshot.cli.facets import facets_path
from nshot.cli.options import DecisionOptions, LabelOptions, ModelOptions
from nshot.cli.staged import CascadeOptions
from nshot.errors import OutputError
from nshot.labels.prompts import DEFAULT_TEMPLATE

if TYPE_CHECKING:
    from nshot.embedder import Embedder

LEARNT = "several labels are measured at thresholds that were learnt on other images"
_MODULES = {"pillow": "PIL"}
_WRITTEN = (
    *("index.html", "report.json", "predictions.parquet", "predictions.csv"),
    *("doubts.csv", "duplicates.csv", "in-training.csv"),
)


@dataclass(frozen=True, slots=True)
class Request:
    """The options of the command, each as it was given."""

    data_options: DataOptions
    output: Path | None
    training: str | None
    compare: str | None
    boxes: Path | None
    seed: int
    label_options: LabelOptions
    facets_given: str | None
    tree_file: Path | None
    rank: str | None
    classifier_file: Path | None
    decision_options: DecisionOptions
    model_options: ModelOptions
    cascade_options: CascadeOptions
    quiet: bool
    verbose: bool

    @property
    def own_model(self) -> ModelOptions:
        """The model's options, with a revision that is the model's own and not DATA's."""
        return self.data_options.of_model(self.model_options)

    def make_folder(self) -> None:
        """Make the report's folder, before any image is read.

        Raises:
            OutputError: it cannot be made, or a file of the report would be written over one that is read.
        """
        if self.output is None:
            return
        make_folder(self.output)
        places = {self.output.resolve(), *((self.output / name).resolve() for name in _WRITTEN)}
        for given in self._inputs():
            if given is not None and Path(given).resolve() in places:
                raise OutputError(
                    f"{given} is read by this command, and a report in {self.output} would be written over "
                    "it: name another folder with -o"
                )

    def _inputs(self) -> Sequence[Path | str | None]:
        others = (
            self.training,
            self.tree_file,
            self.boxes,
            self.classifier_file,
            facets_path(self.facets_given),
        )
        return self.data_options.inputs(self.label_options, *others)

    def facts(
        self, embedder: Embedder, templates: Sequence[str], more: Mapping[str, object]
    ) -> dict[str, object]:
        """What was run, with what: enough to run it again.

        Args:
            embedder: the model.
            templates: what the labels were written into; none: the default.
            more: further facts; None takes another one away.
        """
        from datetime import datetime

        encoder = embedder.encoder
        installed = ("numpy", "pillow", "openvino", "torch", "transformers")
        versions = [f"nshot {nshot.__version__}", f"Python {platform.python_version()}"]
        versions += [f"{name} {version(name)}" for name in installed if find_spec(_MODULES.get(name, name))]
        found = {
            "data": self.data_options.data,
            "model": embedder.name,
            "revision": embedder.checkpoint.revision,
            "weights (sha256)": embedder.checkpoint.digest,
            "recipe": embedder.recipe.digest,
            "device and precision": f"{encoder.device}, {encoder.precision}",
            "decode and fit": f"{self.model_options.decode}, {self.model_options.fit}",
            "templates": " | ".join(templates or (DEFAULT_TEMPLATE,)),
            "seed": self.seed,
            "versions": ", ".join(versions),
            "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            **more,
        }
        return {name: value for name, value in found.items() if value is not None}


def table_name() -> str:
    """The file of predictions: Parquet where it can be written, else CSV."""
    return "predictions.parquet" if find_spec("pyarrow") else "predictions.csv"
