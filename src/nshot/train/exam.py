"""What a model knows: each image of a set looks for its own text among the set's texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812
from numpy.typing import NDArray
from torch import Tensor

from nshot.atomic import writing
from nshot.classifier.classifier import Classifier
from nshot.few_shot import fit
from nshot.train.batches import Towers
from nshot.train.data import Images
from nshot.train.feeding import Feeder
from nshot.train.processes import Processes
from nshot.train.rows import RowFile

_AT_ONCE = 512


class Mark(NamedTuple):
    """How an exam went; of two, the greater is the better.

    Attributes:
        accuracy: the share of images whose own text is the nearest, in [0, 1].
        certainty: the mean log-likelihood of the own text, in nats: it tells equals apart.
        right: bool[n], which images.
    """

    accuracy: float
    certainty: float
    right: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Exam:
    """Images that were not trained on, and the distinct texts to choose from.

    A text is one or several captions whose vectors are averaged: the prompts of a class, or one caption.
    """

    name: str
    images: Images

    def take(self, towers: Towers, feeder: Feeder) -> Mark:
        """How the model does now."""
        own = self.images.texts()
        numbers = {text: number for number, text in enumerate(dict.fromkeys(own))}
        targets = torch.tensor([numbers[text] for text in own])
        texts = F.normalize(mean_vectors(towers, feeder, list(numbers)), dim=1)
        logits = torch.from_numpy(vectors(towers, self.images)) @ texts.t()
        own_logits = (float(towers.model.logit_scale.detach().exp()) * logits).log_softmax(1)
        right = (logits.argmax(dim=1) == targets).numpy()
        certainty = own_logits.gather(1, targets[:, None]).mean()
        return Mark(float(right.mean()), float(certainty), right)


def few_shot(towers: Towers, feeder: Feeder, training: Images, held: Images) -> NDArray[np.bool_]:
    """bool[n], which held-out images of classes ``nshot fit`` names right with the model as it is.

    Its examples are the training images, and its prompts the classes' own.
    """
    texts = list(dict.fromkeys((*training.texts(), *held.texts())))
    labels = {text: str(number) for number, text in enumerate(texts)}
    scale = float(towers.model.logit_scale.detach().exp())
    prompts = Classifier(list(labels.values()), mean_vectors(towers, feeder, texts).numpy(), scale)
    found = fit(vectors(towers, training), [labels[text] for text in training.texts()], prompts).classifier
    logits = found.scale * (vectors(towers, held) @ found.matrix.T) + found.bias
    named = [found.labels[place] for place in logits.argmax(axis=1).tolist()]
    return np.array([name == labels[text] for name, text in zip(named, held.texts(), strict=True)])


def locked(images: Images, towers: Towers, processes: Processes, path: Path) -> Images:
    """The same set with vectors in place of images, encoded once: for an image tower that is not trained.

    Args:
        images: what to encode.
        towers: the model.
        processes: those that share the work; each keeps all vectors.
        path: the file that holds them, by row.

    Raises:
        OutputError: it cannot be written.
    """
    dimension = 0
    with writing(path), path.open("wb") as file:
        for start in range(0, len(images), _AT_ONCE * processes.count):
            rows = images.rows[start : start + _AT_ONCE * processes.count]
            mine = replace(images, rows=rows[processes.rank :: processes.count])
            parts = processes.gathered(torch.from_numpy(vectors(towers, mine)))
            dimension = parts[0].shape[1]
            for rank, part in enumerate(parts):
                for row, vector in zip(rows[rank :: processes.count].tolist(), part.numpy(), strict=True):
                    file.seek(row * vector.nbytes)
                    file.write(vector)
    return replace(images, pixels=RowFile(path, (dimension,), "float32"))


def vectors(towers: Towers, images: Images) -> NDArray[np.float32]:
    """The images' vectors, float32[n,d] of unit norm."""
    parts = [torch.empty(0, towers.dimension)]
    for start in range(0, len(images), _AT_ONCE):
        pixels = torch.from_numpy(images.read(start, start + _AT_ONCE))
        parts.append(F.normalize(towers.encode_images(pixels).cpu(), dim=1))
    found: NDArray[np.float32] = torch.cat(parts).numpy()
    return found


def mean_vectors(towers: Towers, feeder: Feeder, texts: Sequence[Sequence[str]]) -> Tensor:
    """The mean of each text's captions, float32[n,d], not of unit norm."""
    captions = list(dict.fromkeys(caption for each in texts for caption in each))
    found = F.normalize(towers.encode_texts(*feeder.spelt(captions)).cpu(), dim=1)
    rows = {caption: row for row, caption in enumerate(captions)}
    return torch.stack([found[[rows[caption] for caption in each]].mean(dim=0) for each in texts])
