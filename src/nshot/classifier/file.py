"""A classifier in one file: its matrix, what decides on top of it, how it was made, and the model it
belongs to.

The file is safetensors: ``matrix``, ``scale`` and ``bias`` as tensors, all else as JSON in its metadata.
Nothing in it is run when it is read.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nshot.atomic import check_output, replace, writing
from nshot.classifier.classifier import Classifier
from nshot.decision.decision import Decision
from nshot.errors import RequestError

FORMAT = "nshot-classifier/1"


@dataclass(frozen=True, slots=True, eq=False)
class SavedClassifier:
    """What one file holds.

    Attributes:
        classifier: the labelled matrix.
        model: the model's name, as a person would give it to ``--model``.
        decision: thresholds, temperature and the like, as ``nshot calibrate`` made them; None without.
        recipe: how the classifier was made.
    """

    classifier: Classifier
    model: str
    decision: Mapping[str, Any] | None = None
    recipe: Mapping[str, Any] = field(default_factory=dict)

    def check_model(self, space: str | None, model: str, *, name: str = "the classifier") -> None:
        """Refuse vectors of another model.

        Args:
            space: that of the vectors to classify; None if unknown.
            model: the name of the model that makes them.
            name: what to call this classifier in the error, its file for one.

        Raises:
            RequestError: they differ; both models are named.
        """
        mine = self.classifier.space
        if mine is None or space is None or mine == space:
            return
        raise RequestError(
            f"{name} belongs to {self.model} (weights {mine[:12]}), and the model in use is {model} "
            f"(weights {space[:12]}): use --model {self.model}, or fit again"
        )


def save(
    path: str | Path,
    classifier: Classifier,
    *,
    model: str,
    decision: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
) -> None:
    """Write a classifier; the file is there as a whole or not at all.

    Args:
        path: where to; conventionally ``.nshot``.
        classifier: what to write.
        model: the model's name.
        decision: as ``Decision.to_dict`` gives it; the classifier's own by default.
        recipe: anything JSON, given back as it is.

    Raises:
        OutputError: it cannot be written there.
    """
    from safetensors.numpy import save as to_bytes

    if decision is None and classifier.decision is not None:
        decision = classifier.decision.to_dict()
    real = check_output(path)
    tensors = {
        "matrix": np.array(classifier.matrix, dtype=np.float32, order="C"),
        "scale": np.array(classifier.scale, dtype=np.float32, order="C"),
        "bias": np.array(classifier.bias, dtype=np.float32, order="C"),
    }
    told = {
        "labels": list(classifier.labels),
        "activation": classifier.activation,
        "space": classifier.space,
        "model": model,
        "decision": decision,
        "recipe": dict(recipe or {}),
    }
    metadata = {name: json.dumps(value, ensure_ascii=False) for name, value in told.items()}
    content = to_bytes(tensors, metadata={"format": FORMAT, **metadata})
    with writing(path):
        handle, temporary = tempfile.mkstemp(prefix=f".{real.name}.", dir=real.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(temporary).chmod(0o666 & ~_umask())
            replace(Path(temporary), real)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()
            raise


def load(path: str | Path) -> SavedClassifier:
    """Read a classifier that ``save`` wrote.

    Raises:
        RequestError: there is no such file, or it is not a classifier of nshot's.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise RequestError(f"there is no classifier file {path}")
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise RequestError(f"{path} is not a classifier that this version of nshot can read")
            tensors = {name: file.get_tensor(name) for name in ("matrix", "scale", "bias")}
        told = {name: json.loads(value) for name, value in metadata.items() if name != "format"}
        classifier = Classifier(
            told["labels"],
            tensors["matrix"],
            scale=tensors["scale"],
            bias=tensors["bias"],
            activation=told["activation"],
            space=told["space"] if "space" in told else told["fingerprint"],
            decision=None if told["decision"] is None else Decision.from_dict(told["decision"]),
        )
        return SavedClassifier(classifier, told["model"], told["decision"], told["recipe"])
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise RequestError(f"{path} is not a classifier file, or a damaged one: {error}") from error


def _umask() -> int:
    """The mask for new files: there is no way to ask but to set it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
