"""A training run from data to checkpoint, with its report."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nshot.atomic import replace, writing
from nshot.errors import OutputError, RequestError
from nshot.images.preprocess import Preprocessor
from nshot.labels.prompts import DEFAULT_TEMPLATE
from nshot.metrics import paired_gain
from nshot.paths import cache_dir
from nshot.sketchbook import caption, sample
from nshot.sketchbook.pairs import drawings as sketchbook_drawings
from nshot.sketchbook.pairs import scene_seed
from nshot.train import checkpoints, state
from nshot.train.adapters import adapted
from nshot.train.batches import Towers
from nshot.train.blend import SHARES, Point, recommended
from nshot.train.blend import blend as blended
from nshot.train.data import Images, Pair, Pairs, Sketchbook, prepared, reopened
from nshot.train.exam import Exam, Mark, few_shot, locked
from nshot.train.feeding import Feeder
from nshot.train.listing import is_classes, listed
from nshot.train.log import Log
from nshot.train.loop import Progress, fit
from nshot.train.options import Options
from nshot.train.processes import Processes
from nshot.types import Failure

_STATE = "training"  # in the output folder, while the run lasts
_REPORT = "training.json"
_GRAPH = 2**31  # bytes of activations above which a batch is encoded twice
_LONG = 500_000  # images above which half a minute of compiling for a GPU pays
_EXAMINED = 500  # of the sketchbook: drawings of a seed that training does not use
_EXAM_SEED = 1_000_003
_EVERY = 500  # steps between two exams, at most; an epoch where it is shorter


@dataclass(frozen=True, slots=True)
class Report:
    """How a run went; ``training.json`` beside the model holds it too.

    Attributes:
        steps: optimizer steps done.
        kept: the step whose weights did best on held-out images, and were kept.
        images: in the training set.
        failures: images that could not be used and were left out.
        figures: model ("zero-shot", "fine-tuned", "blended 0.5", or "trained") -> what was measured
            ("held-out", "untouched") -> the share of images nearest to their own text, in [0, 1].
        curve: after fine-tuning, every blend of the weights before and after.
        share: the blend that was written; None: no blend.
        reason: why that one, in words.
        worth: for a folder of classes, whether fine-tuning named more of the held-out images than ``nshot
            fit`` on the model as it was, in words; its figure is the row "few-shot".
    """

    steps: int
    kept: int
    images: int
    failures: tuple[Failure, ...]
    figures: dict[str, dict[str, float]]
    curve: tuple[Point, ...] = ()
    share: float | None = None
    reason: str = ""
    worth: str = ""


def train(
    data: str | Path | Iterable[Pair],
    output: str | Path,
    *,
    start: str | Path | None = None,
    config: dict[str, Any] | None = None,
    options: Options = Options(),  # noqa: B008  (frozen)
    blend: float | None = None,
    held_out: float | None = None,
    untouched: str | Path | Iterable[Pair] | None = None,
    templates: Sequence[str] = (DEFAULT_TEMPLATE,),
    image_column: str | None = None,
    caption_column: str | None = None,
    drawings: int = 300_000,
    tensorboard: str | Path | None = None,
    resume: bool = False,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Report:
    """Train a CLIP or SigLIP model on images with captions, and write it as a checkpoint.

    Args:
        data: a table (.csv, .tsv, .parquet, .jsonl) of images and captions, webdataset .tar files, a folder
            with a folder per class, "sketchbook", or (image, caption or captions) in Python; an image is a
            path, encoded bytes, a PIL image or uint8[height, width, 3].
        output: the folder for the checkpoint, and for the run's state while it lasts.
        start: a checkpoint to go on from, with its own loss: CLIP or SigLIP in transformers' layout. Without
            it the model is CLIP's, the weights are random and the vocabulary is learnt.
        config: of a new model, in the form of transformers' CLIPConfig; without it the sketchbook's.
        options: how to train.
        blend: where to stop between the weights before (0) and after (1); needs ``start``. None is the point
            that the curve recommends.
        held_out: the share of the data, at most 1000 images, that is measured on and not trained on; None is
            0.05, and 0.2 where a checkpoint is gone on from.
        untouched: images that the model should not get worse at, as ``data``; measured only.
        templates: what a folder's class names are written into.
        image_column: a table's column of images.
        caption_column: a table's column of captions.
        drawings: how many images of the sketchbook.
        tensorboard: a folder for TensorBoard's logs; ``training.csv`` is written in any case.
        resume: go on where a killed run of the same data, start and options stood.
        report: is told the progress every few seconds, in the first of several processes.

    Raises:
        RequestError: something in the request is wrong, or training diverged.
        OutputError: a file cannot be written, or the disk is full; the run can be resumed.
        MissingExtra: LoRA or TensorBoard is asked for and not installed.
    """
    if blend is not None and (start is None or not 0 <= blend <= 1):
        raise RequestError("blend is a share between 0 and 1 of the way from the start, a checkpoint")
    if held_out is not None and not 0 <= held_out < 1:
        raise RequestError(f"held_out {held_out} is a share of the data, below 1")
    if start is not None and config is not None:
        raise RequestError("a model that goes on from a checkpoint has that checkpoint's configuration")
    if start is None and (options.lora or options.part not in (None, "all")):
        raise RequestError("LoRA, and training a part, go on from a checkpoint: name one as the start")
    output, share = Path(output), (0.05 if start is None else 0.2) if held_out is None else held_out
    read = partial(listed, templates=templates, image_column=image_column, caption_column=caption_column)
    processes, settings = Processes(), config or checkpoints.SMALL
    begin = checkpoints.of(start) if start is not None else None
    size = None if begin else int(settings.get("vision_config", {}).get("image_size", 224))
    preprocessor = Preprocessor.from_config(begin.preprocessor if begin else {}, size=size)

    def opened(given: Any, name: str, folder: Path) -> Images:
        by_class = isinstance(given, (str, Path)) and is_classes(given)
        kind = {"by_class": by_class, "balanced": by_class if options.balanced is None else options.balanced}
        if processes.rank > 0:  # the first has made it
            return reopened(folder / name, preprocessor, **kind)
        pairs = read(given) if isinstance(given, (str, Path)) else given
        return prepared(pairs, preprocessor, folder / name, **kind)

    with _state(output, resume, processes) as folder:
        if processes.rank > 0:
            processes.wait()  # until the first has made the folder and decoded the images
        training: Pairs
        failures: tuple[Failure, ...] = ()
        if data == "sketchbook":
            training, held = Sketchbook(cache_dir(), drawings, options.seed), _drawn(_EXAMINED)
            digest = f"sketchbook, {drawings} drawings"
        else:
            everything = opened(data, "data", folder)
            failures, digest = everything.failures, everything.digest
            training, held = everything.split(share, options.seed)
        exams = [Exam("held-out", held)] if len(held) else []
        if untouched is not None:
            exams.append(Exam("untouched", opened(untouched, "untouched", folder)))
        if processes.rank == 0:
            processes.wait()
        by_class = isinstance(training, Images) and training.by_class
        width = begin.model.config.vision_config.hidden_size if begin else None
        options = options.settled(len(training), width, by_class)
        begin = begin or checkpoints.anew(settings, training.corpus(), options.seed)
        recipe = _recipe(options, digest, begin, len(training), share, processes)
        if finished := _finished(output, resume, recipe):
            shutil.rmtree(folder, ignore_errors=True)
            return finished
        model = begin.model.to(processes.device).train()
        if options.checkpointing:
            for tower in (model.vision_model, model.text_model):
                tower.encoder.gradient_checkpointing = True
        twice = _is_large(model, options, processes) if options.twice is None else options.twice
        towers, feeder = _towers(begin, options, processes, twice), _feeder(begin, options, processes)
        if options.part == "text":  # each image has one vector, whatever the epoch
            own = folder / f"vectors-{processes.rank}"
            exams = [
                Exam(each.name, locked(each.images, towers, processes, own.with_suffix(f".{each.name}")))
                for each in exams
            ]
            held = exams[0].images if len(held) else held
            if isinstance(training, Images) and options.crop == 1 and not options.jitter:
                training = locked(training, towers, processes, own.with_suffix(".training"))

        def marks() -> dict[str, Mark]:
            return {exam.name: exam.take(towers, feeder) for exam in exams}

        figures: dict[str, dict[str, float]] = {}
        probe = None
        if start is not None:
            figures["zero-shot"] = _shares(marks())
            if by_class and isinstance(training, Images) and len(held):
                probe = few_shot(towers, feeder, training, held)
                figures["few-shot"] = {"held-out": float(probe.mean())}
        wrapped = adapted(model, options)
        steps = options.steps or 1
        torch.set_flush_denormal(True)
        with writing(output):
            output.mkdir(parents=True, exist_ok=True)
        done, kept = fit(
            model,
            towers,
            lambda first: feeder.batches(training, options.size, first, steps),
            steps=steps,
            every=max(1, min(_EVERY, len(training) // options.size)),
            lr=options.lr or 0.0,
            options=options,
            twice=twice,
            processes=processes,
            folder=folder,
            recipe=recipe,
            resume=resume,
            examine=(lambda: exams[0].take(towers, feeder)) if len(held) else None,
            log=lambda step: Log(
                output / "training.csv", None if tensorboard is None else Path(tensorboard), step
            ),
            report=report,
        )
        if wrapped is not None:
            wrapped.merge_and_unload()
        figures["trained" if start is None else "fine-tuned"] = _shares(marks())
        curve: list[Point] = []
        reason, worth = "" if blend is None else "as asked for", ""
        if start is not None:
            before, after = checkpoints.of(start).model.state_dict(), model.state_dict()
            after = {name: weight.detach().cpu().clone() for name, weight in after.items()}
            first: dict[str, Mark] = {}
            for each in SHARES:
                model.load_state_dict(blended(before, after, each))
                row = marks()
                first = first or row
                curve.append(_point(each, row, first))
            if blend is None:
                blend, reason = recommended(curve)
            model.load_state_dict(blended(before, after, blend))
            row = marks()
            figures[f"blended {blend:g}"] = _shares(row)
            if probe is not None:
                worth = _worth(row["held-out"], probe)
        result = Report(done, kept, len(training), failures, figures, tuple(curve), blend, reason, worth)
        processes.wait()
        if processes.rank == 0:
            content = json.dumps({"recipe": recipe, **asdict(result)}, indent=2)
            with writing(output / _REPORT):
                part = folder / _REPORT  # what a killed process leaves of it goes with the state
                part.write_text(content + "\n", encoding="utf-8")
                replace(part, output / _REPORT)
            checkpoints.write(begin, output, half=options.half)
            shutil.rmtree(folder)
        return result


def _shares(marks: Mapping[str, Mark]) -> dict[str, float]:
    return {name: mark.accuracy for name, mark in marks.items()}


def _point(share: float, marks: Mapping[str, Mark], before: Mapping[str, Mark]) -> Point:
    found = _shares(marks)
    lost = None
    if "untouched" in marks:
        lost = -paired_gain(marks["untouched"].right, before["untouched"].right).low
    return Point(share, found.get("held-out"), found.get("untouched"), lost)


def _worth(tuned: Mark, probe: NDArray[np.bool_]) -> str:
    low, high = paired_gain(tuned.right, probe)
    said = f"{100 * low:+.1f} to {100 * high:+.1f} points against `nshot fit`, on {len(probe)} images"
    if low > 0:
        return f"fine-tuning is worth it: {said}"
    return f"fine-tuning is not worth it: {said}; use `nshot fit`, which takes seconds"


@contextmanager
def _state(output: Path, resume: bool, processes: Processes) -> Iterator[Path]:
    """The folder of the run's state. A request that turns out to be wrong leaves none."""
    folder, fresh = output / _STATE, not output.exists()
    if processes.rank == 0:
        if (output / "config.json").exists() and not (resume and (output / _REPORT).exists()):
            raise OutputError(f"{output} holds a model already: choose another folder, or remove it")
        if folder.exists() and not resume:
            raise OutputError(f"{folder} is of a run that did not end: add --resume to go on, or remove it")
        with writing(output):
            folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except RequestError:
        if processes.rank == 0 and not state.kept(folder):
            shutil.rmtree(folder, ignore_errors=True)
            (output / "training.csv").unlink(missing_ok=True)
            with suppress(OSError):
                if fresh:
                    output.rmdir()
        raise


def _finished(output: Path, resume: bool, recipe: Mapping[str, Any]) -> Report | None:
    """The report of a run that was killed, if at all, after its model was whole."""
    if not resume or not (output / "config.json").exists():
        return None
    path = output / _REPORT
    with state.reading(path):
        content = json.loads(path.read_text(encoding="utf-8"))
        state.compare(path, content.pop("recipe"), json.loads(json.dumps(recipe)))
        failures = tuple(
            Failure(each["source"], each["type"], each["message"]) for each in content["failures"]
        )
        curve = tuple(Point(**each) for each in content["curve"])
        return Report(**{**content, "failures": failures, "curve": curve})


def _drawn(count: int) -> Images:
    """New drawings with one full caption each: retrieval tells them apart."""
    pixels = sketchbook_drawings(cache_dir(), count, _EXAM_SEED)
    numbers = [scene_seed(_EXAM_SEED, index) for index in range(count)]
    return Images(
        pixels, [[caption(sample(number), number, full=True)] for number in numbers], np.arange(count)
    )


def _towers(begin: checkpoints.Start, options: Options, processes: Processes, twice: bool) -> Towers:
    mean, std = begin.mean, begin.std
    if processes.device.type != "cpu":
        long = (options.steps or 1) * options.size > _LONG
        return Towers(
            begin.model,
            mean=mean,
            std=std,
            threads=1,
            piece=options.piece or 1024,
            compiled=long if options.compile is None else options.compile,
            bf16=torch.cuda.is_bf16_supported(),
        )
    threads = options.threads or max(1, (os.cpu_count() or 1) // processes.count)
    return Towers(
        begin.model,
        mean=mean,
        std=std,
        threads=threads,
        piece=options.piece or min(32 if twice else 64, math.ceil(options.size / processes.count / threads)),
        compiled=bool(options.compile),
        bf16=_cpu_has_bf16(),
    )


def _cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself; where it does not, float32 is faster."""
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def _feeder(begin: checkpoints.Start, options: Options, processes: Processes) -> Feeder:
    cores = options.threads or max(1, (os.cpu_count() or 1) // processes.count)
    return Feeder(
        begin.tokenizer,
        begin.config.text.ends,
        seed=options.seed,
        crop=options.crop,
        jitter=options.jitter,
        threads=1 if processes.device.type == "cpu" else min(8, cores),
        rank=processes.rank,
        processes=processes.count,
    )


def _is_large(model: Any, options: Options, processes: Processes) -> bool:
    """Whether the activations of one process's part of a batch take more than ``_GRAPH`` bytes, roughly:
    some 20 values of the tower's width for each position and layer, and the attention between positions.
    """
    vision = model.config.vision_config
    positions = (vision.image_size // vision.patch_size) ** 2 + 1
    values = positions * (20 * vision.hidden_size + 3 * positions * vision.num_attention_heads)
    return bool(4 * values * vision.num_hidden_layers * options.size / processes.count > _GRAPH)


def _recipe(
    options: Options, data: str, begin: checkpoints.Start, images: int, share: float, processes: Processes
) -> dict[str, Any]:
    """What must be the same for a run to be resumed: all that changes the weights."""
    same = asdict(options)
    for free in ("threads", "minutes", "epochs", "compile", "half", "twice", "checkpointing"):
        same.pop(free)
    templates = hashlib.sha256(json.dumps(data).encode()).hexdigest()[:12]
    about = {"data": templates, "images": images, "held_out": share, "start": begin.digest[:12]}
    return {**about, **same, "processes": processes.count}
