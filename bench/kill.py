"""kill -9 at moments of a training run, --resume, and the weights of a run that nobody killed.

    make parity's python bench/kill.py --moments 30

A moment is a file of the run that is about to be opened for writing, renamed or removed, or a folder made.
All renames are among thirty moments, the rest are spread evenly. Each run is a process of its own that kills
itself. Exit status 1 where a run cannot be resumed or ends with other weights.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPModel  # noqa: F401  (imported once, for all processes)

from nshot import sketchbook
from nshot.train import Options, train

_EVENTS = ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir")
_OPTIONS = Options(steps=8, batch=8, seed=3, threads=1, minutes=0, lr=1e-3)
_SIDE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_CONFIG: dict[str, Any] = {
    "projection_dim": 16,
    "text_config": {**_SIDE, "max_position_embeddings": 24},
    "vision_config": {**_SIDE, "image_size": 24, "patch_size": 8},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moments", type=int, default=30)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        log = folder / "events"
        assert apart(partial(run, folder / "whole", log=log)) == 0
        events = log.read_text().split()
        renames = [place for place, event in enumerate(events, 1) if event == "os.rename"]
        others = [place for place in range(1, len(events) + 1) if place not in renames]
        first = spread(renames, args.moments if args.moments > len(renames) else args.moments // 2)
        chosen = sorted({*first, *spread(others, args.moments - len(first))})
        whole = load_file(folder / "whole" / "model.safetensors")
        failed = []
        for moment in chosen:
            output = folder / str(moment)
            killed = apart(partial(run, output, kill_at=moment))
            ended = apart(partial(run, output, resume=True))
            same = False
            if ended == 0:
                found = load_file(output / "model.safetensors")
                same = all(torch.equal(whole[key], found[key]) for key in whole)
            left = [path.name for path in output.rglob("*") if path.suffix == ".part" or path.is_dir()]
            if killed != -signal.SIGKILL or not same or left:
                failed.append(moment)
                print(f"moment {moment} ({events[moment - 1]}): exit {killed}, resumed {ended}, left {left}")
        print(
            f"killed at {len(chosen)} of {len(events)} moments, {len(set(chosen) & set(renames))} of "
            f"{len(renames)} renames among them: {len(chosen) - len(failed)} resumed with equal weights"
        )
    sys.exit(bool(failed))


def spread(places: list[int], count: int) -> list[int]:
    """Some of the places, evenly."""
    count = min(count, len(places))
    return [places[number * len(places) // count] for number in range(count)]


def run(output: Path, *, kill_at: int = 0, resume: bool = False, log: Path | None = None) -> None:
    """Train; with ``kill_at`` up to that moment, and with ``log`` write down what each moment was."""
    count = 0
    written = None if log is None else log.open("w")

    def hook(event: str, args: tuple[Any, ...]) -> None:
        nonlocal count
        if event not in _EVENTS or not str(args[0]).startswith(str(output)):
            return
        if event == "open" and not (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR)):
            return
        count += 1
        if written is not None:
            print(event, file=written, flush=True)
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)
    scenes = [sketchbook.sample(number) for number in range(24)]
    pairs: list[tuple[Image.Image, str]] = [
        (sketchbook.draw(scene, 24), sketchbook.caption(scene, 0)) for scene in scenes
    ]
    train(pairs, output, config=_CONFIG, options=_OPTIONS, resume=resume)


def apart(job: Callable[[], None]) -> int:
    """In a process of its own: its exit status, or the signal that ended it, below zero."""
    child = os.fork()
    if child == 0:
        try:
            job()
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    main()
