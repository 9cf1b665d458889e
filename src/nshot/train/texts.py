"""The text tower fine-tuned on images' vectors: what `nshot train` does with a folder of classes by default.

The image tower is locked (Zhai et al., "LiT", 2022), so vectors that were made once are all that is needed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from nshot.errors import RequestError
from nshot.train import checkpoints
from nshot.train.adapters import adapted
from nshot.train.batches import Towers
from nshot.train.blend import blend
from nshot.train.data import Images
from nshot.train.exam import Exam, mean_vectors
from nshot.train.feeding import Feeder
from nshot.train.loop import fit
from nshot.train.options import Options
from nshot.train.processes import Processes
from nshot.unit import normalize

_HELD_OUT = 0.2
_BLEND = 0.5  # where no untouched images say what is lost
_TIMED = 3  # steps


class TextTuner:
    """Fine-tunes a checkpoint's text tower, again and again from the same weights.

    Args:
        start: a CLIP or SigLIP checkpoint in transformers' layout.
        prompts: label -> its prompts.
        options: how to train; the part is the text tower.

    Raises:
        CheckpointError: the checkpoint cannot be found or read, or is of another kind.
    """

    def __init__(
        self,
        start: str | Path,
        prompts: Mapping[str, Sequence[str]],
        options: Options = Options(),  # noqa: B008
    ) -> None:
        begin = checkpoints.of(start)
        self._model = begin.model
        self._prompts = {label: tuple(texts) for label, texts in prompts.items()}
        self._options = options
        self._processes = Processes()
        adapted(self._model, Options(part="text"))
        self._before = {name: value.clone() for name, value in self._model.state_dict().items()}
        threads = options.threads or torch.get_num_threads()
        self._towers = Towers(self._model, mean=begin.mean, std=begin.std, threads=threads, piece=16)
        self._feeder = Feeder(begin.tokenizer, begin.config.text.ends, seed=options.seed)
        self._width = begin.model.config.vision_config.hidden_size

    def __call__(self, vectors: ArrayLike, labels_of: Sequence[str]) -> NDArray[np.float32]:
        """Train on labelled vectors, a fifth of which are held out to know when to stop.

        Args:
            vectors: float32[n,d], of the same model's image tower.
            labels_of: the label of each; every one has a prompt.

        Returns:
            the labels' vectors by the weights halfway between those before and after, float32[k,d] of unit
            norm, in the order of the prompts.

        Raises:
            RequestError: too few images, or a label without a prompt.
        """
        training, held = self._images(vectors, labels_of).split(_HELD_OUT, self._options.seed)
        exam = Exam("held-out", held) if len(held) else None
        self._fit(training, exam)
        after = {name: value.clone() for name, value in self._model.state_dict().items()}
        self._model.load_state_dict(blend(self._before, after, _BLEND))
        found = mean_vectors(self._towers, self._feeder, list(self._prompts.values()))
        return normalize(found.numpy(), names=list(self._prompts))

    def seconds(self, vectors: ArrayLike, labels_of: Sequence[str]) -> float:
        """Processor time of the whole training on these vectors at most, from a few of its steps."""
        training = self._images(vectors, labels_of)
        steps = self._settled(training).steps or 1
        if steps <= _TIMED:
            return self._fit(training, None)
        self._fit(training, None, steps=1)  # the first is slower
        return self._fit(training, None, steps=_TIMED) / _TIMED * steps

    def _images(self, vectors: ArrayLike, labels_of: Sequence[str]) -> Images:
        if unknown := sorted(set(labels_of) - set(self._prompts)):
            raise RequestError(f"no prompt for {', '.join(map(repr, unknown[:5]))}")
        rows = np.asarray(vectors, np.float32)
        captions = [self._prompts[label] for label in labels_of]
        return Images(rows, captions, np.arange(len(rows)), by_class=True, balanced=True)

    def _settled(self, training: Images) -> Options:
        return self._options.settled(len(training), self._width, by_class=True)

    def _fit(self, training: Images, exam: Exam | None, steps: int | None = None) -> float:
        """Trains from the first weights; returns the processor time that it took, in seconds."""
        self._model.load_state_dict(self._before)
        options = self._settled(training)
        wanted = steps or options.steps or 1
        begun = time.process_time()
        fit(
            self._model,
            self._towers,
            lambda first: self._feeder.batches(training, options.size, first, wanted),
            steps=wanted,
            every=max(1, len(training) // options.size),
            lr=options.lr or 0.0,
            options=options,
            twice=False,
            processes=self._processes,
            folder=None,
            recipe={},
            resume=False,
            examine=None if exam is None else lambda: exam.take(self._towers, self._feeder),
            log=None,
            report=lambda progress: None,
        )
        return time.process_time() - begun
