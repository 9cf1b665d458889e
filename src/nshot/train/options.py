"""How to train."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Literal, TypeAlias

from nshot.errors import RequestError

Part: TypeAlias = Literal["all", "text", "projections"]

_BATCH = 128
_EPOCHS = 20.0  # of fine-tuning
_PATIENCE = 6  # exams, one per epoch as a rule


@dataclass(frozen=True, slots=True)
class Options:
    """How to train; the defaults from scratch are the sketchbook's recipe.

    Attributes:
        steps: optimizer steps; ``epochs`` counts where it is None.
        epochs: passes over the data; None is 1 from scratch and 20 from a checkpoint.
        batch: images that are told apart from each other at each step, over all processes; None is 128, or
            an eighth of a smaller set.
        lr: the highest learning rate; None is 1e-3 from scratch. From a checkpoint it is 1e-5 for all weights
            of a tower of width 768, and more in a narrower one; five times that for the text tower alone, ten
            times for the projections and LoRA.
        warmup: steps until it is reached; None is 150, or a tenth of a short run.
        decay: AdamW's weight decay; gains, biases and the temperature have none.
        clip: the gradient's greatest norm.
        seed: of the first weights, the order of the data and the augmentation.
        part: train all weights, the text tower alone (the image tower is locked: Zhai et al., "LiT", 2022),
            or the projections alone; None is the text tower for a folder of classes that a checkpoint goes on
            with, which loses least of what the model knew, and all weights otherwise.
        lora: the rank of adapters that are trained in place of the weights (Hu et al., "LoRA", 2021), and
            merged into them at the end; 0 is none.
        balanced: each class as often as any other; None is yes for a folder of classes.
        crop: the least share of an image's area that a random resized crop keeps; 1 is no crop.
        jitter: how far brightness and saturation vary, as a share; 0 is not at all, so that colours stay what
            the captions say.
        patience: exams on held-out images without a better one after which the run ends; 0 is never, None is
            6 from a checkpoint and never from scratch.
        threads: cores; None is all of them.
        piece: images that go through a tower at once; None is a core's share of the batch, at most 64, or
            32 where each batch is encoded twice.
        compile: fuse the image tower's operations with ``torch.compile``; None is long runs on a GPU.
        twice: encode each batch twice, to hold one piece's activations in memory instead of the batch's; None
            where the batch's would take more than 2 GiB.
        checkpointing: keep no layer's activations, and make them again for the gradient (Chen et al.,
            "Training Deep Nets with Sublinear Memory Cost", 2016): a third slower, for a piece that fits.
        minutes: time between two saved states.
        half: write float16.
    """

    steps: int | None = None
    epochs: float | None = None
    batch: int | None = None
    lr: float | None = None
    warmup: int | None = None
    decay: float = 0.1
    clip: float = 1.0
    seed: int = 0
    part: Part | None = None
    lora: int = 0
    balanced: bool | None = None
    crop: float = 1.0
    jitter: float = 0.0
    patience: int | None = None
    threads: int | None = None
    piece: int | None = None
    compile: bool | None = None
    twice: bool | None = None
    checkpointing: bool = False
    minutes: float = 5.0
    half: bool = False

    def __post_init__(self) -> None:
        least = {"steps": 1, "epochs": 1e-9, "batch": 2, "lr": 0, "warmup": 0, "decay": 0, "clip": 1e-9}
        least |= {"threads": 1, "piece": 1, "minutes": 0, "jitter": 0, "crop": 1e-9, "seed": 0}
        least |= {"lora": 0, "patience": 0}
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and field.name in least and not value >= least[field.name]:
                raise RequestError(f"{field.name} {value} is too small")
        if self.crop > 1:
            raise RequestError(f"crop {self.crop} is a share of the image: at most 1")
        if self.part not in (None, "all", "text", "projections"):
            raise RequestError(f"{self.part!r} cannot be trained alone: choose all, text or projections")
        if self.lora and self.part not in (None, "all"):
            raise RequestError(f"LoRA trains adapters in both towers: leave out {self.part!r}")

    @property
    def size(self) -> int:
        """The batch, once it is settled."""
        return self.batch or _BATCH

    def settled(self, images: int, width: int | None, by_class: bool = False) -> Options:
        """The same with what was left open decided.

        Args:
            images: in the training set.
            width: of the image tower of the checkpoint that is gone on from; None: from scratch.
            by_class: whether it is a folder of classes.

        Raises:
            RequestError: fewer images than a batch.
        """
        batch = self.batch or min(_BATCH, max(2, images // 8))
        if images < batch:
            raise RequestError(
                f"{images} images to train on are fewer than a batch of {batch}: give a smaller batch"
            )
        epochs = self.epochs or (1.0 if width is None else _EPOCHS)
        text = by_class and width is not None and not self.lora
        part: Part = self.part or ("text" if text else "all")
        times = 10 if self.lora or part == "projections" else 5 if part == "text" else 1
        rate = 1e-3 if width is None else times * 1e-5 * (768 / width)
        return replace(
            self,
            batch=batch,
            part=part,
            epochs=epochs,
            steps=self.steps or max(1, round(epochs * (images // batch))),
            lr=self.lr or rate,
            patience=(0 if width is None else _PATIENCE) if self.patience is None else self.patience,
        )
