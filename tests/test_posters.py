"""Recorded film posters: what another program made of them with CLIP, and with SigLIP, from the same vectors.

The texts' vectors are not recorded. CLIP's are solved for: of all unit rows that give the recorded
similarities, any will do. SigLIP's similarities are not recorded, and its predictions alone pin nothing.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from nshot.classifier.classifier import Classifier
from nshot.types import Activation

FILE = Path(__file__).parents[2] / "shared" / "data" / "recorded2" / "posters99_siglip.npz"


def unit_rows(images: NDArray[np.float64], cosines: NDArray[np.float64]) -> NDArray[np.float64]:
    """Unit rows with these cosines: the shortest ones, lengthened by what is square to every image.

    Raises:
        AssertionError: the shortest are longer than 1, so that the numbers are no cosines of these images.
    """
    shortest = np.linalg.lstsq(images, cosines, rcond=None)[0].T
    lengths = np.linalg.norm(shortest, axis=1)
    assert (lengths <= 1).all()
    square = np.linalg.svd(images)[2][len(images)]
    rows: NDArray[np.float64] = shortest + np.sqrt(1 - lengths**2)[:, None] * square
    return rows


def reproduce(
    images: NDArray[np.float64],
    cosines: NDArray[np.float64],
    predicted: NDArray[np.int16],
    activation: Activation,
) -> None:
    labels = [f"label {k}" for k in range(cosines.shape[1])]
    scale, bias = (100.0, 0.0) if activation == "softmax" else (117.0, -12.9)
    classifier = Classifier(labels, unit_rows(images, cosines), scale=scale, bias=bias, activation=activation)
    logits = classifier.logits(images)
    np.testing.assert_allclose((logits - bias) / scale, cosines, atol=1e-6)
    answers = classifier.predict(images.astype(np.float32), top_k=len(labels))
    assert [answer.label for answer in answers] == [labels[k] for k in predicted]
    for answer, row in zip(answers, logits, strict=True):
        shares = np.exp(row - row.max()) / np.exp(row - row.max()).sum()
        each = shares if activation == "softmax" else 1 / (1 + np.exp(-row))
        found = {label: score for label, score, _ in answer.predictions}
        np.testing.assert_allclose([found[label] for label in labels], each, rtol=1e-4)


@pytest.mark.skipif(not FILE.is_file(), reason="the recorded posters are not on this machine")
@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_recorded_similarities_and_predictions_come_out_of_the_recorded_vectors(
    activation: Activation,
) -> None:
    with np.load(FILE) as data:
        images = data["clip_vitb32_embeds"].astype(np.float64)
        similarities, predicted = data["clip_genre_similarity"].astype(np.float64), data["clip_predicted"]
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    reproduce(images, similarities, predicted, activation)


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_the_same_for_vectors_of_our_own(activation: Activation) -> None:
    random = np.random.default_rng(0)
    images, texts = random.standard_normal((9, 32)), random.standard_normal((3, 32))
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    cosines = images @ texts.T
    reproduce(images, cosines, cosines.argmax(axis=1).astype(np.int16), activation)
