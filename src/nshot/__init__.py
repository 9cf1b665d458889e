"""Image classification without training: images and labels in plain words in, answers out.

    import nshot

    clip = nshot.load("openai/clip-vit-base-patch32")
    for prediction in clip.classify("photos/", ["cat", "dog"]):
        print(prediction.source, prediction.label, prediction.score)

``import nshot`` loads no runtime: each public name is imported when it is first used.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as in typing, whose import is a third of the time before Ctrl-C is answered well
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Classifier": "classifier.classifier",
    "Decided": "types",
    "Decision": "decision",
    "Detector": "regions.detector",
    "Embedded": "types",
    "Embedder": "embedder",
    "Embeddings": "embeddings",
    "Faceted": "types",
    "Facets": "classifier.facets",
    "Failure": "types",
    "LabelScore": "types",
    "Located": "types",
    "Limits": "types",
    "Model": "model",
    "NshotError": "errors",
    "Placed": "types",
    "Prediction": "types",
    "Predictions": "classifier.predictions",
    "Source": "images.sources",
    "TreeClassifier": "classifier.tree",
    "calibrate": "classifier.calibrating",
    "cascade": "classifier.cascading",
    "cluster": "search.clusters",
    "duplicates": "search.duplicates",
    "evaluate": "evaluation.evaluation",
    "fit": "few_shot.examples",
    "load": "model",
    "load_detector": "regions.detector",
    "open": "model",
    "open_labelled": "datasets.labelled",
    "quantise": "classifier.quantising",
    "zero_shot": "classifier.zero_shot",
}

__all__ = ["__version__", *sorted(_HOMES)]  # pinned in tests/test_public_names.py

if TYPE_CHECKING:
    from nshot.classifier.calibrating import calibrate as calibrate
    from nshot.classifier.cascading import cascade as cascade
    from nshot.classifier.classifier import Classifier as Classifier
    from nshot.classifier.facets import Facets as Facets
    from nshot.classifier.predictions import Predictions as Predictions
    from nshot.classifier.quantising import quantise as quantise
    from nshot.classifier.tree import TreeClassifier as TreeClassifier
    from nshot.classifier.zero_shot import zero_shot as zero_shot
    from nshot.datasets.labelled import open_labelled as open_labelled
    from nshot.decision import Decision as Decision
    from nshot.embedder import Embedder as Embedder
    from nshot.embeddings import Embeddings as Embeddings
    from nshot.errors import NshotError as NshotError
    from nshot.evaluation.evaluation import evaluate as evaluate
    from nshot.few_shot.examples import fit as fit
    from nshot.images.sources import Source as Source
    from nshot.model import Model as Model
    from nshot.model import load as load
    from nshot.model import open as open
    from nshot.regions.detector import Detector as Detector
    from nshot.regions.detector import load_detector as load_detector
    from nshot.search.clusters import cluster as cluster
    from nshot.search.duplicates import duplicates as duplicates
    from nshot.types import Decided as Decided
    from nshot.types import Embedded as Embedded
    from nshot.types import Faceted as Faceted
    from nshot.types import Failure as Failure
    from nshot.types import LabelScore as LabelScore
    from nshot.types import Limits as Limits
    from nshot.types import Located as Located
    from nshot.types import Placed as Placed
    from nshot.types import Prediction as Prediction


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nshot' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f"nshot.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
