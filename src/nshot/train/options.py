"""How to train."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal, TypeAlias

from nshot.errors import RequestError

Part: TypeAlias = Literal["all", "projections"]


@dataclass(frozen=True, slots=True)
class Options:
    """How to train; the defaults are the sketchbook's recipe.

    Attributes:
        steps: optimizer steps; ``epochs`` counts where it is None.
        epochs: passes over the data.
        batch: images that are told apart from each other at each step, over all processes.
        lr: the highest learning rate; None is 1e-3 from scratch and 1e-4 from a checkpoint.
        warmup: steps until it is reached; None is 150, or a tenth of a short run.
        decay: AdamW's weight decay; gains, biases and the temperature have none.
        clip: the gradient's greatest norm.
        seed: of the first weights, the order of the data and the augmentation.
        part: train all weights, or the projections alone.
        crop: the least share of an image's area that a random resized crop keeps; 1 is no crop.
        jitter: how far brightness and saturation vary, as a share; 0, since colour is meaning.
        threads: cores; None is all of them.
        piece: images that go through a tower at once; None is a core's share of the batch, at most 64, or
            32 where each batch is encoded twice.
        compile: fuse the image tower's operations with ``torch.compile``; None is long runs on a GPU.
        twice: encode each batch twice, to hold one piece's activations in memory instead of the batch's; None
            where the batch's would take more than 2 GiB.
        minutes: time between two saved states.
        half: write float16.
    """

    steps: int | None = None
    epochs: float = 1.0
    batch: int = 128
    lr: float | None = None
    warmup: int | None = None
    decay: float = 0.1
    clip: float = 1.0
    seed: int = 0
    part: Part = "all"
    crop: float = 1.0
    jitter: float = 0.0
    threads: int | None = None
    piece: int | None = None
    compile: bool | None = None
    twice: bool | None = None
    minutes: float = 5.0
    half: bool = False

    def __post_init__(self) -> None:
        least = {"steps": 1, "epochs": 1e-9, "batch": 2, "lr": 0, "warmup": 0, "decay": 0, "clip": 1e-9}
        least |= {"threads": 1, "piece": 1, "minutes": 0, "jitter": 0, "crop": 1e-9, "seed": 0}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and field.name in least and not value >= least[field.name]:
                raise RequestError(f"{field.name} {value} is too small")
        if self.crop > 1:
            raise RequestError(f"crop {self.crop} is a share of the image: at most 1")
        if self.part not in ("all", "projections"):
            raise RequestError(f"{self.part!r} cannot be trained alone: choose all or projections")

    def steps_for(self, images: int) -> int:
        """Optimizer steps over a training set of so many images."""
        return self.steps or max(1, round(self.epochs * (images // self.batch)))
