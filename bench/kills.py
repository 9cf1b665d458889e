"""Ends commands at random moments, by KILL, TERM and INT in turn, and goes on.

python bench/kills.py [kills of each signal] [images] [command or signal ...]

The signals are KILL, TERM and INT; the commands classify, embed, shards (embed into a folder), fit, sort,
tag, clear (store clear) and serve; all of them by default. After every kill the same command is run again
(classify with --resume where there is an output), and what is there then is compared with a run that nobody
disturbed: the answers, the vectors, the classifier, the tree of files. sort and tag are taken back as well,
and the images compared byte for byte. Of serve's page every correction that was answered with 200 has to be
in its journal, and the next server goes on with that. One line per command; exit status 1 where anything
was lost.
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
from collections.abc import Callable, Sequence
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from threading import Timer
from urllib.request import Request, urlopen

import numpy as np
from PIL import Image

_SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
_LABELS = ("--labels", "circle, square, star", "--reject", "off", "--quiet")


def main() -> None:
    """Print one line per command."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a background job starts ignores it
    kills, images = (int(number) for number in (*sys.argv[1:3], "50", "200")[:2])
    signals = [each for each in _SIGNALS if each.name[3:] in sys.argv[3:]] or list(_SIGNALS)
    wanted = [word for word in sys.argv[3:] if not word.isupper()]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        photos = folder / "photos"
        photos.mkdir()
        rng = np.random.default_rng(0)
        for number in range(images):
            pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).resize((96, 96)).save(photos / f"{number:04}.png")
        lost = 0
        for trial in (classify, embed, shards, fit, sort, tag, clear):
            if not wanted or trial.__name__ in wanted:
                lost += _killed(trial.__name__, trial(folder, photos), signals * kills)
        if not wanted or "serve" in wanted:
            lost += serve(folder, photos, signals * kills)
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


def _killed(name: str, trial: Trial, kills: Sequence[signal.Signals]) -> int:
    rng = random.Random(name)
    took = 60.0
    for _ in range(2):  # the first run has to read everything from the disk
        trial.reset()
        begun = time.monotonic()
        _run(trial.command)
        took = min(took, time.monotonic() - begun)
    expected = trial.state()
    bad, ends = 0, Counter[str]()
    for number, sent in enumerate(kills):
        trial.reset()
        with subprocess.Popen(
            _python(trial.command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as run:
            time.sleep(rng.uniform(0.2, 0.95) * took)
            run.send_signal(sent)
            _, said = run.communicate()
        if run.returncode == 0:  # it had ended: runs take less time now than they did
            took = max(0.8 * took, 0.5)
        else:
            took *= 1.02
        ends[f"{sent.name} {run.returncode}"] += 1
        fine = trial.safe() and "Traceback" not in said
        _run(trial.again(), quiet=True)  # sort has nothing left to do where the kill came late
        fine = fine and trial.state() == expected
        if not fine:
            bad += 1
            print(
                f"{name}, kill {number} by {sent.name}, exit status {run.returncode}: {said[-500:]}",
                flush=True,
            )
    _tell(name, len(kills), bad, ends)
    return bad


def _tell(name: str, kills: int, bad: int, ends: Counter[str]) -> None:
    told = ", ".join(f"{status}: {count}" for status, count in sorted(ends.items()))
    print(f"{name}: {kills} kills, {bad} lost or changed something (exit statuses {told})", flush=True)


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


def shards(folder: Path, photos: Path) -> Trial:
    output = folder / "parts"
    command = ["embed", str(photos), "-o", f"{output}/", "--quiet", "--shard-size", "20", "--no-store"]

    def state() -> object:
        return {path.name: path.read_bytes() for path in output.iterdir()}

    def safe() -> bool:
        """What has its name is whole."""
        there = {path.name: path.read_bytes() for path in output.glob("part-*.parquet")}
        return there.items() <= whole.items()

    _remove(folder, output.name)
    _run(command)
    whole = {path.name: path.read_bytes() for path in output.iterdir()}
    return Trial(command, lambda: command, lambda: _remove(folder, output.name), state, safe)


def fit(folder: Path, photos: Path) -> Trial:
    own, output = folder / "to fit", folder / "own.nshot"
    for number, path in enumerate(sorted(photos.iterdir())):
        place = own / ("circle", "star")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    command = ["fit", str(own), "-o", str(output), "--quiet", "--store", str(folder / "fit.sqlite")]

    def reset() -> None:
        _remove(folder, output.name)
        _remove(folder, "fit.sqlite")

    def state() -> object:
        """The header, whose order is never the same, and the arrays."""
        data = output.read_bytes()
        end = 8 + int.from_bytes(data[:8], "little")
        return json.loads(data[8:end]), data[end:]

    def safe() -> bool:
        """What has its name is whole."""
        return not output.exists() or state() == whole

    reset()
    _run(command)
    whole = state()
    return Trial(command, lambda: command, reset, state, safe)


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


def serve(folder: Path, photos: Path, kills: Sequence[signal.Signals]) -> int:
    """Corrections are said to the page one after the other until it is killed; all that it took are kept."""
    from nshot.server.session import Journal

    rng = random.Random("serve")
    journal = folder / "journal.jsonl"
    command = ["serve", str(photos), "--labels", "circle, star", "--no-open", "--port", "0"]
    command += ["--journal", str(journal), "--store", str(folder / "store.sqlite")]
    bad, ends, said, number = 0, Counter[str](), list[str](), 0
    for kill, sent in enumerate(kills):
        with subprocess.Popen(
            _python(command), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        ) as run:
            assert run.stderr is not None
            address = run.stderr.readline().split()[0].rstrip("/")
            images = _images(address)
            end = Timer(rng.uniform(0, 0.5), run.send_signal, (sent,))
            end.start()
            with suppress(OSError, HTTPException):  # it is gone
                while run.poll() is None:
                    id, digest = str(number), images[number % len(images)]
                    label = rng.choice(("circle", "star"))
                    number += 1
                    act = {"id": id, "digests": [digest], "now": {"label": label}}
                    _post(f"{address}/api/acts", {"acts": [act]})
                    said.append(id)
            end.join()
            _, rest = run.communicate()
        ends[f"{sent.name} {run.returncode}"] += 1
        opened = Journal(journal)  # as the next server does
        kept = [str(line["id"]) for line in opened.lines if "id" in line]
        opened.close()
        asked = [id for id in kept if id not in set(said)]  # kept, and killed before it could answer
        if not set(said) <= set(kept) or len(kept) != len(set(kept)) or "Traceback" in rest:
            bad += 1
            print(f"serve, kill {kill} by {sent.name}: {len(set(said) - set(kept))} lost, {rest[-500:]}")
        said += asked
    _tell(f"serve, {len(said)} corrections", len(kills), bad, ends)
    return bad


def _images(address: str) -> list[str]:
    """The digests of the images that are on the page, once there are some."""
    while True:
        with urlopen(f"{address}/api/rows", timeout=60) as answer:
            data = answer.read()
        if count := int.from_bytes(data[:4], "little"):
            return [data[4 + 32 * row : 36 + 32 * row].hex() for row in range(count)]
        time.sleep(0.05)


def _post(url: str, body: object) -> None:
    """Ask, and be answered with 200."""
    kind = {"Content-Type": "application/json"}
    with urlopen(Request(url, json.dumps(body).encode(), kind), timeout=60) as answer:
        answer.read()


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
