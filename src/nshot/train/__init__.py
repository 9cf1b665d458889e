"""Contrastive training: matching images and texts brought together, all others pushed apart.

    from nshot.train import Options, train

    train([("a.jpg", "a red star"), ("b.jpg", "a blue fish")], "my-clip", options=Options(epochs=30))

Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (2021). Needs the
[torch] extra; what it writes is read without.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nshot.errors import MissingExtra
from nshot.train.options import Options

if TYPE_CHECKING:
    from nshot.train.run import Report

__all__ = ["Options", "train"]


def train(
    data: str | Path | Iterable[tuple[Any, str | Sequence[str]]],
    output: str | Path,
    *,
    start: str | Path | None = None,
    config: dict[str, Any] | None = None,
    options: Options = Options(),  # noqa: B008  (frozen)
    blend: float | None = None,
    held_out: float = 0.05,
    untouched: str | Path | None = None,
    templates: Sequence[str] | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    drawings: int = 300_000,
    resume: bool = False,
    report: Callable[[Any], None] = lambda progress: None,
) -> Report:
    """Train a CLIP model on images with captions, and write it as a checkpoint.

    Args:
        data: a table (.csv, .tsv, .parquet) of images and captions, a folder with a folder for each class,
            "sketchbook", or (image, caption or captions) in Python; an image is a path, encoded bytes, a
            PIL image or uint8[height, width, 3].
        output: the folder for the checkpoint, and for the run's state while it lasts.
        start: a checkpoint to go on from; without it the weights are random and the vocabulary is learnt.
        config: of a new model, in the form of transformers' CLIPConfig; without it the sketchbook's.
        options: how to train.
        blend: where to stop between the weights before (0) and after (1); needs ``start``.
        held_out: the share of the data, at most 1000 images, that is measured on and not trained on.
        untouched: a table or folder that the model should not get worse at; measured only.
        templates: what a folder's class names are written into.
        image_column: a table's column of images.
        caption_column: a table's column of captions.
        drawings: how many images of the sketchbook.
        resume: go on where a killed run of the same options stood.
        report: is told the progress every few seconds.

    Raises:
        MissingExtra: torch or transformers is not installed.
        RequestError: something in the request is wrong, or training diverged.
    """
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise MissingExtra('training needs torch and transformers: pip install "nshot[torch]"') from error
    from nshot.train.run import run

    return run(
        data,
        Path(output),
        start=start,
        config=config,
        options=options,
        blend=blend,
        held_out=held_out,
        untouched=untouched,
        templates=templates,
        image_column=image_column,
        caption_column=caption_column,
        drawings=drawings,
        resume=resume,
        report=report,
    )
