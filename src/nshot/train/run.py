"""One training run, from the request to the files and the report."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from nshot.errors import OutputError, RequestError
from nshot.images.preprocess import Preprocessor
from nshot.labels.prompts import DEFAULT_TEMPLATE
from nshot.paths import cache_dir
from nshot.sketchbook.pairs import drawings as sketchbook_drawings
from nshot.train import checkpoints
from nshot.train.batches import Batch, Towers
from nshot.train.blend import blend as blended
from nshot.train.data import Images, Pairs, Sketchbook, listed, prepared, split
from nshot.train.exam import Exam
from nshot.train.feeding import Feeder
from nshot.train.loop import Progress, fit
from nshot.train.options import Options
from nshot.train.processes import Processes, started
from nshot.types import Failure

_STATE = "training"  # in the output folder, while the run lasts
_GRAPH = 2**31  # bytes of activations above which a batch is encoded twice
_LONG = 500_000  # images above which half a minute of compiling for a GPU pays
_EXAMINED = 500  # of the sketchbook: drawings of a seed that training does not use
_EXAM_SEED = 1_000_003


@dataclass(frozen=True, slots=True)
class Report:
    """How a run went.

    Attributes:
        steps: optimizer steps.
        images: in the training set.
        failures: images that could not be read and were left out.
        figures: model ("zero-shot", "fine-tuned", "blended 0.5", or "trained") -> what was measured
            ("held-out", "untouched") -> the share of images nearest to their own text, in [0, 1].
    """

    steps: int
    images: int
    failures: tuple[Failure, ...]
    figures: dict[str, dict[str, float]]


def run(
    data: str | Path | Iterable[tuple[Any, str | Sequence[str]]],
    output: Path,
    *,
    start: str | Path | None,
    config: dict[str, Any] | None,
    options: Options,
    blend: float | None,
    held_out: float,
    untouched: str | Path | None,
    templates: Sequence[str] | None,
    image_column: str | None,
    caption_column: str | None,
    drawings: int,
    resume: bool,
    report: Callable[[Progress], None],
) -> Report:
    """Do what ``nshot.train.train`` describes."""
    if blend is not None and (start is None or not 0 <= blend <= 1):
        raise RequestError(
            "blend is a share between 0 and 1 of the way from the checkpoint given as the start"
        )
    if not 0 <= held_out < 1:
        raise RequestError(f"held_out {held_out} is a share of the data, below 1")
    if start is not None and config is not None:
        raise RequestError("a model that goes on from a checkpoint has that checkpoint's configuration")
    processes = started()
    if processes.rank > 0:
        processes.wait()  # until the first has made the folder and decoded the images
    folder = _prepared_folder(output, resume or processes.rank > 0)
    reading = {"templates": templates, "image_column": image_column, "caption_column": caption_column}
    settings = config or checkpoints.SMALL

    training: Pairs
    failures: list[Failure] = []
    begin = checkpoints.of(start) if start is not None else None
    preprocessor = Preprocessor.from_config(
        begin.preprocessor if begin else {}, size=None if begin else _edge(settings)
    )
    if data == "sketchbook":
        training = Sketchbook(cache_dir(), drawings, options.seed)
        held = _drawn(_EXAMINED)
    else:
        kept = _kept(data, preprocessor, folder / "data", reading)
        failures = kept.failures
        training, held = split(kept, held_out, options.seed)
    if len(training) < options.batch:
        raise RequestError(
            f"{len(training)} images are fewer than a batch of {options.batch}: give a smaller batch"
        )
    if untouched is not None:
        exams = [Exam("untouched", _kept(str(untouched), preprocessor, folder / "untouched", reading))]
    else:
        exams = []
    if processes.rank == 0:
        processes.wait()
    begin = begin or checkpoints.anew(settings, training.corpus(), options.seed)

    if len(held):
        exams.insert(0, Exam("held-out", held))
    model = begin.model.to("cuda" if torch.cuda.is_available() else "cpu").train()
    steps = options.steps_for(len(training))
    twice = _is_large(model, options, processes) if options.twice is None else options.twice
    towers = _towers(model, options, steps, processes, twice)
    feeder = _feeder(begin, options, processes)

    def measured() -> dict[str, float]:
        return {exam.name: exam.take(towers, feeder) for exam in exams}

    figures = {"zero-shot": measured()} if start is not None else {}
    before = copy.deepcopy(model.state_dict())
    _freeze(model, options)
    recipe = _recipe(options, steps, len(training), begin.files, processes)

    def batches(first: int) -> Iterator[Batch]:
        return feeder.batches(training, options.batch, first, steps)

    torch.set_flush_denormal(True)
    fit(
        model,
        towers,
        batches,
        steps=steps,
        lr=options.lr or (1e-3 if start is None else 1e-4),
        options=options,
        twice=twice,
        processes=processes,
        folder=folder,
        recipe=recipe,
        resume=resume,
        examine=lambda: exams[0].take(towers, feeder) if exams else None,
        report=report,
    )
    figures["trained" if start is None else "fine-tuned"] = measured()
    if blend is not None:
        model.load_state_dict(blended(before, model.state_dict(), blend))
        figures[f"blended {blend:g}"] = measured()
    processes.wait()
    if processes.rank == 0:
        checkpoints.write(begin, output, half=options.half)
        shutil.rmtree(folder)
    return Report(steps, len(training), tuple(failures), figures)


def _prepared_folder(output: Path, resume: bool) -> Path:
    folder = output / _STATE
    if (output / "config.json").exists():
        raise OutputError(f"{output} holds a model already: choose another folder, or remove it")
    if folder.exists() and not resume:
        raise OutputError(f"{folder} is of a run that did not end: add --resume to go on, or remove it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output} cannot be written: {error}") from error
    return folder


def _kept(data: Any, preprocessor: Preprocessor, folder: Path, reading: dict[str, Any]) -> Images:
    if isinstance(data, (str, Path)):
        settings = {**reading, "templates": reading["templates"] or [DEFAULT_TEMPLATE]}
        data = listed(Path(data), **settings)
    return prepared(data, preprocessor, folder)


def _drawn(count: int) -> Images:
    """New drawings with one full caption each: retrieval tells them apart."""
    from nshot.sketchbook import caption, sample
    from nshot.sketchbook.pairs import scene_seed

    pixels = sketchbook_drawings(cache_dir(), count, _EXAM_SEED)
    numbers = [scene_seed(_EXAM_SEED, index) for index in range(count)]
    return Images(pixels, [[caption(sample(number), number, full=True)] for number in numbers])


def _edge(settings: dict[str, Any]) -> int:
    return int(settings.get("vision_config", {}).get("image_size", 224))


def _towers(model: Any, options: Options, steps: int, processes: Processes, twice: bool) -> Towers:
    if next(model.parameters()).device.type != "cpu":
        long = steps * options.batch > _LONG
        return Towers(
            model,
            threads=1,
            piece=options.piece or 1024,
            compiled=long if options.compile is None else options.compile,
            bf16=torch.cuda.is_bf16_supported(),
        )
    bf16 = _cpu_has_bf16()
    threads = options.threads or max(1, (os.cpu_count() or 1) // processes.count)
    return Towers(
        model,
        threads=threads,
        piece=options.piece or min(32 if twice else 64, math.ceil(options.batch / processes.count / threads)),
        compiled=bool(options.compile),
        bf16=bf16,
    )


def _cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 itself; where it does not, float32 is faster."""
    return bool(getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)())


def _feeder(begin: checkpoints.Start, options: Options, processes: Processes) -> Feeder:
    return Feeder(
        begin.tokenizer,
        context=begin.model.config.text_config.max_position_embeddings,
        mean=begin.preprocessor["image_mean"],
        std=begin.preprocessor["image_std"],
        seed=options.seed,
        crop=options.crop,
        jitter=options.jitter,
        rank=processes.rank,
        processes=processes.count,
    )


def _freeze(model: Any, options: Options) -> None:
    """Only what is trained asks for a gradient."""
    for name, parameter in model.named_parameters():
        projects = name in ("visual_projection.weight", "text_projection.weight", "logit_scale")
        parameter.requires_grad_(options.part == "all" or projects)


def _is_large(model: Any, options: Options, processes: Processes) -> bool:
    """Whether the activations of one process's part of a batch take more than ``_GRAPH`` bytes, roughly:
    some 20 values of the tower's width for each position and layer, and the attention between positions.
    """
    vision = model.config.vision_config
    positions = (vision.image_size // vision.patch_size) ** 2 + 1
    values = positions * (20 * vision.hidden_size + 3 * positions * vision.num_attention_heads)
    return bool(4 * values * vision.num_hidden_layers * options.batch / processes.count > _GRAPH)


def _recipe(options: Options, steps: int, images: int, files: dict[str, bytes], processes: Processes) -> str:
    """What must be the same for a run to be resumed: all that changes the weights."""
    same = {**asdict(options), "steps": steps, "images": images, "processes": processes.count}
    for free in ("threads", "minutes", "epochs", "compile", "half", "twice"):
        same.pop(free)
    digest = hashlib.sha256(b"".join(files[name] for name in sorted(files)))
    return json.dumps({**same, "files": digest.hexdigest()[:12]}, sort_keys=True)
