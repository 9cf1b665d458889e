"""Beyond one machine, measured: ``python bench/scale.py [PART ...]``.

Parts: ask, commands, names, faults, store, kill, cluster; all of them by default. Sizes are arguments:
``ask=2000000`` and ``commands=2000000`` vectors, ``names=1000000`` names, ``faults=400``, ``store=20000``
objects, ``kill=5`` times, ``cluster=4000`` images. Servers are stand-ins on 127.0.0.1. Processor time is
compared, not the clock, where nothing else is said.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "cluster")]

SIZES = {
    "ask": 2_000_000,
    "commands": 2_000_000,
    "names": 1_000_000,
    "faults": 400,
    "store": 20_000,
    "kill": 5,
    "cluster": 4_000,
}
MODEL = os.environ.get("NSHOT_BENCH_MODEL", "sketchbook")


def main() -> None:
    """Run the parts that were named."""
    sizes = dict(SIZES)
    wanted = []
    for argument in sys.argv[1:]:
        name, _, size = argument.partition("=")
        wanted.append(name)
        sizes[name] = int(size) if size else sizes[name]
    parts = {
        "ask": ask,
        "commands": commands,
        "names": names,
        "faults": faults,
        "store": store,
        "kill": kill,
        "cluster": cluster,
    }
    for name in wanted or list(parts):
        with tempfile.TemporaryDirectory(prefix="nshot-bench-") as folder:
            print(f"\n{name} ({sizes[name]:,})", flush=True)
            parts[name](sizes[name], Path(folder))


def peak() -> float:
    """The most memory that this process had so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


def processor(call: Callable[[], Any]) -> tuple[float, float, Any]:
    """Processor seconds and seconds of a call, those of child processes that ended among them."""

    def spent() -> float:
        own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime

    begun, at = spent(), time.perf_counter()
    result = call()
    return spent() - begun, time.perf_counter() - at, result


def vectors(
    folder: Path, count: int, per: int = 16_384, dimension: int = 512, labels: tuple[str, ...] = ()
) -> np.ndarray[Any, Any]:
    """A folder of parts: vectors around a thousand centres, or one per label; the centres, as rows."""
    from nshot.embeddings.part_writer import PartWriter
    from nshot.embeddings.parts import part_name
    from nshot.types import Embedded

    rng = np.random.default_rng(0)
    centres = rng.standard_normal((len(labels) or 1000, dimension), dtype=np.float32)
    folder.mkdir()
    for number, start in enumerate(range(0, count, per)):
        rows = min(per, count - start)
        which = rng.integers(0, len(centres), rows)
        held = 0.35 * centres[which] + rng.standard_normal((rows, dimension), dtype=np.float32)
        held /= np.linalg.norm(held, axis=1, keepdims=True)
        writer = PartWriter(
            folder / part_name(number),
            dimension=dimension,
            width="float32",
            labelled=bool(labels),
            meta={"nshot": 1, "shard": number, "dimension": dimension},
        )
        for row in range(rows):
            own = (labels[which[row]],) if labels else None
            digest = (start + row).to_bytes(32, "big")
            writer.write(Embedded(f"s3://bucket/photos/{start + row:09}.jpg", held[row], own, digest=digest))
        writer.finish()
    return centres


def ask(count: int, folder: Path) -> None:
    """Stored vectors asked with 1000 labels, and the bare product of the same blocks in the same run."""
    centres = vectors(folder / "vectors", count)
    np.save(folder / "labels.npy", centres)
    code = f"""
import os, resource, time
from functools import partial
import numpy as np
from nshot.classifier.classifier import Classifier
from nshot.distributed.asking import Asking
from nshot.distributed.into_file import ask_into
from nshot.embeddings.parts import Parts
from nshot.output.sinks import open_sink
centres = np.load({str(folder / "labels.npy")!r})
classifier = Classifier([f"label {{row}}" for row in range(1000)], centres, 100.0)
parts = Parts({str(folder / "vectors")!r})
count = {count}
table = np.ascontiguousarray(classifier.matrix.T)
block = next(parts.blocks(0)).vectors.copy()
def timed(call):
    cpu, at = time.process_time(), time.perf_counter()
    call()
    return (time.process_time() - cpu) / count * 1e6, (time.perf_counter() - at) / count * 1e6
def bare():
    done = 0
    while done < count:
        block @ table
        done += len(block)
def into_folder():
    assert sum(part.rows for part in Asking(parts, {str(folder / "answers")!r}, classifier).run()) == count
def into_file(format):
    path = {str(folder)!r} + "/answers." + format
    same = dict(request="r" * 40, labels=classifier.labels, many=True)
    with open_sink(format, path, top_k=5, **same) as sink:
        assert sum(written.rows for written in ask_into(sink, [parts], classifier, 5)) == count
    os.unlink(path)
product = timed(bare)
for name in ("folder", "jsonl", "csv", "parquet"):
    answers = timed(into_folder if name == "folder" else partial(into_file, name))
    again = timed(bare)
    for what, place in (("processor", 0), ("clock", 1)):
        mean = (product[place] + again[place]) / 2
        print(f"into {{name}}, {{what}}: product {{product[place]:.1f}} and {{again[place]:.1f}} us per "
              f"image, asked {{answers[place]:.1f}} us: {{mean / answers[place]:.0%}} of its speed")
    product = again
print(f"peak {{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f}} MB")
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def commands(count: int, folder: Path) -> None:
    """The most memory that each command takes over a folder of labelled vectors."""
    from checkpoints import tiny_checkpoint

    import nshot

    words = "star ring house tree car dog cat bird fish boat shoe hat cup book lamp chair table clock key"
    labels = tuple(words.split())
    centres = vectors(folder / "v", count, labels=labels)
    nshot.Classifier(labels, centres, 100.0).save(folder / "c.nshot")
    tiny_checkpoint(folder / "model", projection_dim=512)
    asked, place = ["--classifier", str(folder / "c.nshot")], str(folder / "v")
    for command in (
        ["evaluate", place, *asked, "-o", str(folder / "report")],
        ["calibrate", place, *asked, "--reject", "cosine", "-o", str(folder / "calibrated.nshot")],
        ["fit", place, "-o", str(folder / "fitted.nshot")],
        ["next", place, *asked],
        ["search", place, "--text", "a star", "--label", "star"],
        ["duplicates", place, "--kind", "same"],
        ["cluster", place, "-k", "20", "-o", str(folder / "clusters.jsonl")],
    ):
        code = (
            "import resource, sys; from nshot.cli import run; status = run(sys.argv[1:]); "
            "told = resource.getrusage(resource.RUSAGE_SELF); "
            "print(f'\\n{status} {told.ru_maxrss / 1e3:.0f} {told.ru_utime + told.ru_stime:.0f}')"
        )
        model = ["--model", str(folder / "model"), "--no-store", "--quiet"]
        done = subprocess.run([sys.executable, "-c", code, *command, *model], capture_output=True, text=True)
        status, most, spent = done.stdout.split()[-3:]
        print(f"{command[0]}: {most} MB at most, {spent} s of processor, exit status {status}", flush=True)


def names(count: int, folder: Path) -> None:
    """So many names listed from a stand-in, planned, and the same after a cut."""
    import pytest
    from object_stores import FaultyStore, forget, use

    import nshot
    from nshot.distributed.run import Request, planned

    store = FaultyStore()

    def page(after: str, most: int) -> list[str]:
        first = int(after[-12:-4]) + 1 if after else 0
        return [f"photos/{number:08}.jpg" for number in range(first, min(first + most, count))]

    store.names = page
    patch = pytest.MonkeyPatch()
    model = nshot.load(MODEL)
    with store.serving() as endpoint:
        use(patch, endpoint)
        before = peak()
        request = Request(["s3://bucket/photos/"])
        half: list[int] = []

        def told(listed: int) -> None:
            half.append(listed)
            if listed >= count // 2:
                raise KeyboardInterrupt

        try:
            planned(folder / "v", request, model, told=told)
        except KeyboardInterrupt:
            pages = store.lists
        cpu, _, plan = processor(lambda: planned(folder / "v", request, model))
        print(
            f"{plan.images:,} names in {plan.shards:,} shards; cut off at {half[-1]:,}, {pages:,} pages, "
            f"then {store.lists - pages:,} more; second half {cpu:.0f} s of processor, the server's among "
            f"them; memory grew by {peak() - before:.0f} MB; plan {_size(folder / 'v') / 1e6:.0f} MB"
        )
    patch.undo()
    forget()


def faults(count: int, folder: Path) -> None:
    """503, cut, hang, 403 and 404 in 5 % of the reads; every image must be accounted for."""
    import pytest
    from object_stores import FaultyStore, forget, use

    import nshot

    store, chance = FaultyStore(), random.Random(0)
    photo = _photos(folder / "photos", 1)[0].read_bytes()
    kinds = ("503", "cut", "hang", "403", "404")
    lost = {}
    for number in range(count):
        key = f"photos/{number:05}.jpg"
        store.objects[key] = photo
        if chance.random() < 0.05:
            kind = kinds[len(store.faults) % 5]
            once = kind in ("503", "cut", "hang")
            store.faults[key] = lambda before, kind=kind, once=once: (  # type: ignore[misc]
                kind if before == 0 or not once else None
            )
            if not once:
                lost[f"s3://bucket/{key}"] = kind
    patch = pytest.MonkeyPatch()
    with store.serving() as endpoint:
        use(patch, endpoint)
        _, seconds, found = processor(lambda: list(nshot.load(MODEL).embed_images("s3://bucket/photos/")))
    failed = {each.source for each in found if each.vector is None}
    print(
        f"{len(found):,} records for {count:,} objects, {len(store.faults)} of them with a fault; "
        f"{len(failed)} failed, {'just those' if failed == set(lost) else 'NOT those'} that cannot be read; "
        f"{seconds:.0f} s by the clock"
    )
    patch.undo()
    forget()


def store(count: int, folder: Path) -> None:
    """Objects of moto's server against the same from disk: images per processor second of this process."""
    import obstore
    import pytest
    from object_stores import forget, use

    import nshot
    from nshot.objects import Place

    some = _photos(folder / "photos", min(count, 200))
    patch = pytest.MonkeyPatch()
    # a process of its own: the server's time is not ours
    with subprocess.Popen(
        [sys.executable, "-c", _MOTO, str(ROOT / "tests")],
        stdout=subprocess.PIPE,
        stdin=subprocess.PIPE,
        text=True,
    ) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        try:
            use(patch, server.stdout.readline().strip())
            place = Place.of("s3://bucket/photos")
            for number in range(count):
                obstore.put(place.store, f"photos/{number:06}.jpg", some[number % len(some)])
            disk = folder / "disk"
            disk.mkdir()
            for number in range(count):
                os.link(some[number % len(some)], disk / f"{number:06}.jpg")
            model = nshot.load(MODEL)
            list(model.embed_images(some[:32]))
            figures = {}
            for what, spec in (("disk", f"{disk}"), ("store", "s3://bucket/photos/")):
                first: list[float] = []
                at, before = time.perf_counter(), peak()

                def every(spec: str = spec, first: list[float] = first, at: float = at) -> int:
                    seen = 0
                    for _ in model.embed_images(spec):
                        seen += 1
                        if not first:
                            first.append(time.perf_counter() - at)
                    return seen

                cpu, seconds, seen = processor(every)
                assert seen == count
                figures[what] = cpu
                print(
                    f"{what}: {count / cpu:.0f} images per processor second, {count / seconds:.0f} by the "
                    f"clock; first record after {first[0]:.1f} s; memory grew by {peak() - before:.0f} MB"
                )
            print(f"store against disk: {figures['disk'] / figures['store']:.1%} by processor time")
        finally:
            server.stdin.close()
    patch.undo()
    forget()


_MOTO = """
import sys
sys.path.insert(0, sys.argv[1])
from object_stores import moto_server
with moto_server() as endpoint:
    print(endpoint, flush=True)
    sys.stdin.read()
"""


def kill(times: int, folder: Path) -> None:
    """Kill -9 without Ray, at any time, then again: of one process, and of two jobs of ``--shard i/2``."""
    photos, clean, killed = folder / "photos", folder / "clean", folder / "killed"
    _photos(photos, 400)

    def command(output: Path, job: str | None = None) -> list[str]:
        kept = ["--shard-size", "10", "--model", MODEL, "--no-store", "--quiet"]
        kept += [] if job is None else ["--shard", job]
        return [sys.executable, "-m", "nshot", "embed", str(photos), "-o", str(output), *kept]

    _, took, _ = processor(lambda: subprocess.run(command(clean), check=True, stdout=subprocess.DEVNULL))
    chance, equal, kills = random.Random(1), 0, 0
    for _ in range(times):
        shutil.rmtree(killed, ignore_errors=True)
        for _ in range(4):
            process = subprocess.Popen(command(killed), stdout=subprocess.DEVNULL)
            try:
                process.wait(chance.random() * took)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                kills += 1
        subprocess.run(command(killed), check=True, stdout=subprocess.DEVNULL)
        equal += _bytes(clean) == _bytes(killed)
    print(f"one process: {equal} of {times} folders equal, byte by byte, after {kills} kills")
    equal = kills = 0
    for _ in range(times):
        shutil.rmtree(killed, ignore_errors=True)
        for round_ in range(5):
            jobs = [
                subprocess.Popen(command(killed, job), stdout=subprocess.DEVNULL) for job in ("1/2", "2/2")
            ]
            for process in jobs:
                try:
                    process.wait(None if round_ == 4 else chance.random() * took)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()
                    kills += 1
        subprocess.run([sys.executable, "-m", "nshot", "shards", "verify", str(killed)], check=True)
        equal += _bytes(clean) == _bytes(killed)
    print(f"two jobs of --shard: {equal} of {times} folders equal, byte by byte, after {kills} kills")


def cluster(count: int, folder: Path) -> None:
    """Two Ray nodes with a core each against one process: images per processor second while running."""
    from two_nodes import Nodes, environment

    photos = folder / "photos"
    _photos(photos, count)
    home = folder / "home"
    home.mkdir()
    kept = ["--shard-size", "200", "--model", MODEL, "--no-store", "--quiet"]
    embed = [sys.executable, "-m", "nshot", "embed", str(photos), *kept, "-o"]
    empty = folder / "empty"
    _photos(empty, 1)
    few = [sys.executable, "-m", "nshot", "embed", str(empty), *kept, "-o"]
    nodes = Nodes(environment(home))
    try:
        one, _, _ = processor(lambda: subprocess.run([*embed, str(folder / "one")], check=True))
        start, _, _ = processor(lambda: subprocess.run([*few, str(folder / "few")], check=True))
        ray = ["--ray", nodes.address]
        before = _spent(nodes)
        with _watching() as starting:
            subprocess.run([*few, str(folder / "few-ray"), *ray], check=True)
        middle = _spent(nodes)
        with _watching() as seen:
            driver, _, _ = processor(lambda: subprocess.run([*embed, str(folder / "two"), *ray], check=True))
        after = _spent(nodes)
    finally:
        nodes.stop()
    same = _bytes(folder / "one") == _bytes(folder / "two")
    loading = max(starting.values())
    busy = sum(seen.values()) - len(seen) * loading
    print(
        f"one process: {one - start:.1f} s of processor for {count:,} images, and {start:.1f} s to start; "
        f"two nodes: {busy:.1f} s in the {len(seen)} workers while running, {loading:.1f} s each to "
        f"start; the cluster's own processes "
        f"{after - middle:.1f} s in all, {middle - before:.1f} s of them to start and end, the driver "
        f"{driver:.1f} s; {'equal' if same else 'NOT EQUAL'}, byte by byte; "
        f"{(one - start) / busy:.0%} of one process's images per processor second"
    )


class _watching:  # noqa: N801
    """Processor seconds of each worker that lived meanwhile, as they were last seen."""

    def __enter__(self) -> dict[int, float]:
        import threading

        self._stop = threading.Event()
        self._seen: dict[int, float] = {}
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self._seen

    def _watch(self) -> None:
        from two_nodes import workers

        while not self._stop.wait(0.05):
            for process in workers():
                if (spent := _of(process)) is not None:
                    self._seen[process] = spent

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _of(process: int) -> float | None:
    """Processor seconds of a process so far."""
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _spent(_: Any) -> float:
    """Processor seconds of the cluster's own processes."""
    total = 0.0
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                name = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if b"raylet" in name or b"gcs_server" in name or b"/ray/" in name:
                total += _of(int(entry.name)) or 0.0
    return total


def _photos(folder: Path, count: int) -> list[Path]:
    """Images of 640 x 480, as photographs are in size and detail."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    made = []
    for number in range(min(count, 50)):
        small = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        path = folder / f"{number:05}.jpg"
        small.resize((640, 480), Image.Resampling.BICUBIC).save(path, quality=90)
        made.append(path)
    for number in range(50, count):
        path = folder / f"{number:05}.jpg"
        os.link(made[number % 50], path)
        made.append(path)
    return made


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


if __name__ == "__main__":
    main()
