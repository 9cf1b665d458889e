"""Image classification without training: images and labels in plain words in, answers out.

    import nshot

    clip = nshot.load("openai/clip-vit-base-patch32")
    classifier = nshot.zero_shot(clip, ["cat", "dog"], templates=["a photo of a {}"])
    for prediction in classifier.predict(clip.embed_images(["a.jpg", "b.jpg"])):
        print(prediction.source, prediction.label, prediction.score)

``import nshot`` loads no runtime: each public name is imported when it is first used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Classifier": "classifier.classifier",
    "Decided": "types",
    "Decision": "decision",
    "Embedded": "types",
    "Embedder": "embedder",
    "Failure": "types",
    "LabelScore": "types",
    "Limits": "types",
    "NshotError": "errors",
    "Prediction": "types",
    "Source": "images.sources",
    "load": "embedder",
    "zero_shot": "classifier.zero_shot",
}

__all__ = ["__version__", *sorted(_HOMES)]

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier as Classifier
    from nshot.classifier.zero_shot import zero_shot as zero_shot
    from nshot.decision import Decision as Decision
    from nshot.embedder import Embedder as Embedder
    from nshot.embedder import load as load
    from nshot.errors import NshotError as NshotError
    from nshot.images.decode import Limits as Limits
    from nshot.images.sources import Source as Source
    from nshot.types import Decided as Decided
    from nshot.types import Embedded as Embedded
    from nshot.types import Failure as Failure
    from nshot.types import LabelScore as LabelScore
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
