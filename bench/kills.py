"""Ends classify, embed, sort, tag and store clear at random moments, by KILL, TERM and INT, and goes on.

python bench/kills.py [kills per command] [images]

After every kill the same command is run again (classify with --resume where there is an output), and what is
there then is compared with a run that nobody disturbed: the answers, the vectors, the tree of files. sort and
tag are taken back as well, and the images compared byte for byte. One line per command; exit status 1 where
anything was lost.
"""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_LABELS = ("--labels", "circle, square, star", "--reject", "off", "--quiet")


def main() -> None:
    """Print one line per command."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a background job starts ignores it
    kills, images = (int(number) for number in (*sys.argv[1:], "50", "200")[:2])
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        photos = folder / "photos"
        photos.mkdir()
        rng = np.random.default_rng(0)
        for number in range(images):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((96, 96)).save(photos / f"{number:04}.png")
        trials = (classify, embed, sort, tag, clear)
        lost = sum([_killed(trial.__name__, trial(folder, photos), kills) for trial in trials])
    sys.exit(1 if lost else 0)


class Trial:
    """One command, and what is right about what it leaves.

    Args:
        command: its arguments.
        again: those with which it goes on after a kill.
        reset: what brings the state back to where it begins.
        state: what there is after a whole run.
        safe: what must hold right after a kill.
    """

    def __init__(
        self,
        command: list[str],
        again: Callable[[], list[str]],
        reset: Callable[[], None],
        state: Callable[[], object],
        safe: Callable[[], bool] = lambda: True,
    ) -> None:
        self.command, self.again, self.reset, self.state, self.safe = command, again, reset, state, safe


def _killed(name: str, trial: Trial, kills: int) -> int:
    rng = random.Random(name)
    took = 60.0
    for _ in range(2):  # the first run has to read everything from the disk
        trial.reset()
        begun = time.monotonic()
        _run(trial.command)
        took = min(took, time.monotonic() - begun)
    expected = trial.state()
    bad, ends = 0, Counter[str]()
    for number in range(kills):
        trial.reset()
        with subprocess.Popen(
            _python(trial.command), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as run:
            time.sleep(rng.uniform(0.2, 0.9) * took)
            run.send_signal(_SIGNALS[number % len(_SIGNALS)])
        ends[str(run.returncode)] += 1
        fine = trial.safe()
        _run(trial.again(), quiet=True)  # sort has nothing left to do where the kill came late
        fine = fine and trial.state() == expected
        if not fine:
            bad += 1
    told = ", ".join(f"{status}: {count}" for status, count in sorted(ends.items()))
    print(f"{name}: {kills} kills, {bad} lost or changed something (exit statuses {told})", flush=True)
    return bad


def classify(folder: Path, photos: Path) -> Trial:
    output = folder / "answers.jsonl"
    command = ["classify", str(photos), *_LABELS, "-o", str(output), "--no-store"]

    def state() -> object:
        return [json.loads(line) for line in output.read_text().splitlines()]

    def again() -> list[str]:
        left = any(each.name.startswith(output.name) for each in folder.iterdir())
        return [*command, "--resume"] if left else command

    return Trial(command, again, lambda: _remove(folder, output.name), state)


def embed(folder: Path, photos: Path) -> Trial:
    output = folder / "vectors.npz"
    command = ["embed", str(photos), "-o", str(output), "--quiet", "--store", str(folder / "embed.sqlite")]

    def state() -> object:
        with np.load(output) as found:
            return {name: found[name].tobytes() for name in found.files}

    def reset() -> None:
        _remove(folder, output.name)
        _remove(folder, "embed.sqlite")

    return Trial(command, lambda: command, reset, state)


def sort(folder: Path, photos: Path) -> Trial:
    own, target = folder / "to sort", folder / "sorted"
    command = ["sort", str(own), str(target), *_LABELS, "--move", "--store", str(folder / "store.sqlite")]
    before = _tree(photos)

    def reset() -> None:
        shutil.rmtree(own, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(photos, own)

    def state() -> object:
        there = {name: data for name, data in _tree(target).items() if name.endswith(".png")}
        while any(target.glob(".nshot*")):
            if not _run(["sort", "--undo", str(own), str(target)]):
                break
        return there, _tree(own) == before

    def safe() -> bool:
        return sorted(_contents(own) + _contents(target)) == sorted(before.values())

    return Trial(command, lambda: command, reset, state, safe)


def tag(folder: Path, photos: Path) -> Trial:
    own = folder / "to tag"
    command = ["tag", str(own), *_LABELS, "--write", "--store", str(folder / "store.sqlite")]
    before = _tree(photos)

    def reset() -> None:
        shutil.rmtree(own, ignore_errors=True)
        shutil.copytree(photos, own)

    def state() -> object:
        there = {name: data for name, data in _tree(own).items() if name.endswith(".xmp")}
        while any(own.glob(".nshot*")):
            if not _run(["tag", "--undo", str(own)]):
                break
        return there, _tree(own) == before

    def safe() -> bool:
        return {name: data for name, data in _tree(own).items() if name.endswith(".png")} == before

    return Trial(command, lambda: command, reset, state, safe)


def clear(folder: Path, photos: Path) -> Trial:
    store, full = folder / "clear.sqlite", folder / "full.sqlite"
    _run(["embed", str(photos), "-o", str(folder / "full.npz"), "--quiet", "--store", str(full)])
    command = ["store", "clear", "--store", str(store)]
    known = _vectors(folder / "full.npz")

    def reset() -> None:
        _remove(folder, store.name)
        shutil.copy(full, store)

    def safe() -> bool:
        """Whatever is left of it, the answers are the same."""
        output = folder / "after.npz"
        _remove(folder, output.name)
        fine = _run(["embed", str(photos), "-o", str(output), "--quiet", "--store", str(store)])
        return fine and _vectors(output) == known

    def state() -> object:
        return [each.name for each in folder.iterdir() if each.name.startswith(store.name)]

    return Trial(command, lambda: command, reset, state, safe)


def _python(command: list[str]) -> list[str]:
    model = [] if command[0] == "store" or "--undo" in command else ["--model", "sketchbook"]
    return [sys.executable, "-m", "nshot", *command, *model]


def _run(command: list[str], *, quiet: bool = False) -> bool:
    done = subprocess.run(_python(command), capture_output=True, text=True, check=False)
    if done.returncode != 0 and not quiet:
        print(f"{' '.join(command)}: {done.returncode}: {done.stderr[-500:]}", file=sys.stderr)
    return done.returncode == 0


def _vectors(path: Path) -> bytes:
    with np.load(path) as found:
        return bytes(found["vectors"].tobytes())


def _remove(folder: Path, name: str) -> None:
    for each in folder.iterdir():
        if each.name.startswith((name, f".{name}")):
            shutil.rmtree(each) if each.is_dir() else each.unlink()


def _tree(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not path.name.startswith(".nshot")}


def _contents(folder: Path) -> list[bytes]:
    return [data for name, data in _tree(folder).items() if name.endswith(".png")] if folder.exists() else []


if __name__ == "__main__":
    main()
