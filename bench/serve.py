"""What `nshot serve --model` keeps of the offline pipeline, and what it loses: nothing, it should.

    python bench/serve.py --model sketchbook [--seconds 10]
    python bench/serve.py --model CHECKPOINT --only speed,peer --precision f32 --peer PYTHON
    python bench/serve.py --only overload --minutes 10

Servers in processes of their own, clients on the same machine. Processor time is told beside images per
second, since the clients share the processors with the server. What is compared is measured in turns, so that
other work on the machine weighs on all alike; the figures are medians over the rounds, with the rounds beside
them. The peer is `serve_peer.py`, run by the interpreter that is named.
"""

from __future__ import annotations

import argparse
import asyncio
import atexit
import base64
import io
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

import nshot

LABELS = ["circle", "star", "square", "moon"]


def photos(count: int) -> list[bytes]:
    """JPEGs of 640 x 480 with some detail, about 60 kB each."""
    made = []
    for seed in range(count):
        random = np.random.default_rng(seed)
        small = Image.fromarray(random.integers(0, 256, (60, 80, 3), dtype=np.uint8))
        grain = random.normal(0, 8, (480, 640, 3))
        pixels = np.asarray(small.resize((640, 480), Image.Resampling.BICUBIC)) + grain
        buffer = io.BytesIO()
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=80)
        made.append(buffer.getvalue())
    return made


class Process:
    """A server in a session of its own, so that what it started is counted and stopped with it."""

    address = ""

    def __init__(self, command: list[str], **options: Any) -> None:
        self.process = subprocess.Popen(command, start_new_session=True, **options)
        atexit.register(self._end)

    def _end(self) -> None:
        """Leave nothing behind, whatever happens to the bench."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def seconds(self) -> float:
        """Processor time so far, of all its processes."""
        ticks = 0
        for path in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):
                fields = path.read_text().rpartition(")")[2].split()
                if int(fields[3]) == self.process.pid:
                    ticks += int(fields[11]) + int(fields[12])
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Resident MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) // 1024  # type: ignore[index]


class Server(Process):
    """nshot."""

    path = "/v1/classify"

    def __init__(self, model: str, *options: str) -> None:
        command = [sys.executable, "-m", "nshot", "serve", "--model", model, "--port", "0", *options]
        super().__init__(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"http://[\d.:]+", line):
                self.address = found[0]
                break
        self.reading = subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=subprocess.DEVNULL)
        httpx.get(f"{self.address}/ready", timeout=120).raise_for_status()

    def stop(self) -> int:
        """The exit status after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        self.reading.wait(10)
        return status


class Peer(Process):
    """LitServe with open_clip."""

    path = "/predict"

    def __init__(self, python: str, *options: str) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        program = str(Path(__file__).with_name("serve_peer.py"))
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        environment = os.environ | {"PYTHONPATH": os.environ.get("NSHOT_PEER_PATH", "")}
        super().__init__([python, program, "--port", str(port), *options], env=environment, **quiet)
        self.address = f"http://127.0.0.1:{port}"
        for _ in range(240):
            time.sleep(0.5)
            with suppress(httpx.HTTPError):
                httpx.get(f"{self.address}/health", timeout=5).raise_for_status()
                return
        raise SystemExit("the peer does not start")

    def stop(self) -> None:
        """All of it."""
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)


def body(images: list[bytes]) -> bytes:
    return json.dumps(
        {"images": [base64.b64encode(each).decode() for each in images], "labels": LABELS}
    ).encode()


async def load(
    address: str, clients: int, seconds: float, bodies: list[bytes], path: str = "/v1/classify"
) -> tuple[Counter[object], list[float]]:
    """Closed loop: each client asks again as soon as it is answered, or, after a 429, a moment later."""
    told: Counter[object] = Counter()
    times: list[float] = []
    until = time.perf_counter() + seconds

    async def client(number: int) -> None:
        async with httpx.AsyncClient(timeout=120) as session:
            while time.perf_counter() < until:
                begun = time.perf_counter()
                try:
                    answer = await session.post(
                        f"{address}{path}",
                        content=bodies[number % len(bodies)],
                        headers={"Content-Type": "application/json"},
                    )
                    told[answer.status_code] += 1
                    if answer.status_code == 200:
                        times.append(time.perf_counter() - begun)
                    else:
                        await asyncio.sleep(0.05)
                except httpx.HTTPError as error:
                    told[type(error).__name__] += 1
                    if isinstance(error, httpx.ConnectError):
                        return
                number += clients

    await asyncio.gather(*map(client, range(clients)))
    return told, times


def offline(clip: nshot.Model, images: list[bytes], seconds: float) -> tuple[float, float]:
    """Images per second, and processor milliseconds per image."""
    list(clip.embed_images(images[:32]))
    done, begun, used = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - begun < seconds:
        done += len(list(clip.embed_images(images)))
    return done / (time.perf_counter() - begun), 1000 * (time.process_time() - used) / done


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="sketchbook")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["auto", "f32", "bf16"], default="auto")
    parser.add_argument("--only", default="equality,speed,bad,sigterm,overload")
    parser.add_argument("--peer", metavar="PYTHON", help="an interpreter with litserve, open_clip and torch")
    parser.add_argument("--peer-workers", default="1")
    parser.add_argument("--minutes", type=float, default=0.5, help="of overload")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    images = photos(64)
    precision = ("--precision", chosen.precision)
    clip = nshot.load(chosen.model, store=False, precision=chosen.precision)
    parts = chosen.only.split(",")
    if set(parts) & {"equality", "speed", "bad"}:
        server = Server(chosen.model, *precision)
        if "equality" in parts:
            equality(server, clip, images)
        if "speed" in parts:
            options = ("--precision", clip.encoder.precision, "--workers", chosen.peer_workers)
            peer = None if chosen.peer is None else Peer(chosen.peer, *options)
            speed(server, peer, clip, images, chosen.seconds, chosen.rounds)
            if peer is not None:
                peer.stop()
        if "bad" in parts:
            bad(server, clip, images)
        print("exit status after SIGTERM:", server.stop())
    if "sigterm" in parts:
        sigterm(chosen.model, images)
    if "overload" in parts:
        overload(chosen.model, images, 60 * chosen.minutes)


def equality(server: Server, clip: nshot.Model, images: list[bytes]) -> None:
    """Hugging Face's client against the library."""
    from huggingface_hub import InferenceClient

    client = InferenceClient(model=server.address)
    most, same = 0.0, 0
    for data in images:
        answer = client.zero_shot_image_classification(data, LABELS, hypothesis_template="a photo of a {}")
        (expected,) = clip.classify(data, LABELS)
        theirs = {each.label: each.score for each in answer}
        most = max(most, *(abs(theirs[each.label] - each.score) for each in expected.predictions))
        same += answer[0].label == expected.label
    print(f"Hugging Face's client: {same} of {len(images)} labels equal, scores differ by at most {most:.1e}")


def speed(
    server: Server, peer: Peer | None, clip: nshot.Model, images: list[bytes], seconds: float, rounds: int
) -> None:
    """32 clients and one, against the pipeline and the peer, in turns."""
    bodies = [body([data]) for data in images]
    rates: dict[str, list[float]] = {}
    used: dict[str, list[float]] = {}
    for _ in range(rounds):
        rate, cpu = offline(clip, images, seconds)
        rates.setdefault("offline", []).append(rate)
        used.setdefault("offline", []).append(cpu)
        for each in (server, peer):
            if each is None:
                continue
            asyncio.run(load(each.address, 32, 1, bodies, each.path))
            before = each.seconds()
            told, times = asyncio.run(load(each.address, 32, seconds, bodies, each.path))
            if set(told) != {200}:
                print(f"   {type(each).__name__}: {dict(told)}")
            rates.setdefault(type(each).__name__, []).append(len(times) / seconds)
            used.setdefault(type(each).__name__, []).append(1000 * (each.seconds() - before) / len(times))
    print(f"{clip.encoder.precision}, 32 clients, {rounds} rounds of {seconds:g} s each in turns:")
    for name, found in rates.items():
        told_rates = " ".join(f"{rate:.1f}" for rate in found)
        print(
            f"   {name:8} {told_rates} images/s, {statistics.median(used[name]):.1f} processor ms per image"
        )
    for name in list(rates)[0::2]:
        against(rates, used, name)
    one(server, clip, images, bodies, seconds, rounds)


def against(rates: dict[str, list[float]], used: dict[str, list[float]], name: str) -> None:
    """The server's rate as a share of another's, round by round."""
    ratios = [ours / theirs for ours, theirs in zip(rates["Server"], rates[name], strict=True)]
    times = [theirs / ours for ours, theirs in zip(used["Server"], used[name], strict=True)]
    told = " ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"   against {name}: {statistics.median(ratios):.2f} ({told}) of its images/s,")
    print(f"      {statistics.median(times):.2f} by processor time per image")


def one(
    server: Server, clip: nshot.Model, images: list[bytes], bodies: list[bytes], seconds: float, rounds: int
) -> None:
    """One client against one image offline, in turns."""
    ratios, pairs = [], []
    for _ in range(rounds):
        _, times = asyncio.run(load(server.address, 1, seconds / 2, bodies))
        alone: list[float] = []
        until = time.perf_counter() + seconds / 2
        while time.perf_counter() < until:
            begun = time.perf_counter()
            list(clip.embed_images([images[len(alone) % len(images)]]))
            alone.append(time.perf_counter() - begun)
        served, usual = statistics.median(times), statistics.median(alone)
        pairs.append(f"{1000 * served:.1f}/{1000 * usual:.1f}")
        ratios.append(served / usual)
    told = " ".join(pairs)
    print(f"one client: p50 {statistics.median(ratios):.2f} x offline ({told} ms)")


def bad(server: Server, clip: nshot.Model, images: list[bytes]) -> None:
    """100 batches of 32 with one bad image each."""
    expected = [each.label for each in clip.classify(images, LABELS)]
    right = named = 0
    with httpx.Client(timeout=120) as client:
        for number in range(100):
            place, start = number % 32, number % 32
            batch = images[start : start + 32]
            batch[place] = batch[place][: 100 + number]
            results = client.post(f"{server.address}/v1/classify", content=body(batch)).json()["results"]
            named += [each["index"] for each in results if each["status"] == "error"] == [place]
            right += sum(
                each["status"] == "ok" and each["label"] == expected[start + each["index"]]
                for each in results
            )
    print(
        f"one bad image in each of 100 batches of 32: {right} right answers, {named} errors that name theirs"
    )


def sigterm(model: str, images: list[bytes], times: int = 20) -> None:
    """SIGTERM under the load of eight clients; what was accepted must be answered."""
    bodies = [body([data]) for data in images]
    told: Counter[object] = Counter()
    exits: Counter[int] = Counter()

    async def once(server: Server) -> None:
        task = asyncio.create_task(load(server.address, 8, 3.0, bodies))
        await asyncio.sleep(1.0)
        server.process.send_signal(signal.SIGTERM)
        told.update((await task)[0])

    for _ in range(times):
        server = Server(model)
        asyncio.run(once(server))
        exits[server.process.wait(60)] += 1
        server.reading.wait(10)
    print(f"SIGTERM x {times}, 8 clients: answers {dict(told)}, exit status {dict(exits)}")
    print("   (ConnectError: a new connection after the end; anything else that is no 200 is a lost request)")


def overload(model: str, images: list[bytes], seconds: float) -> None:
    """Twice as many images under way as may wait, for so many seconds."""
    server = Server(model, "--max-waiting", "32")
    bodies = [body(images[k : k + 4]) for k in range(0, 32, 4)]
    asyncio.run(load(server.address, 8, min(seconds / 4, 20), bodies))
    memory, told = [server.memory()], Counter[object]()
    for _ in range(10):
        more, _ = asyncio.run(load(server.address, 16, seconds / 10, bodies))
        told += more
        memory.append(server.memory())
    begun = time.perf_counter()
    ready = httpx.get(f"{server.address}/ready", timeout=10).status_code
    print(f"16 clients x 4 images, 32 may wait, {seconds:.0f} s: {dict(told)}")
    print(f"   memory {' '.join(map(str, memory))} MB")
    print(f"   /ready {ready} after {time.perf_counter() - begun:.2f} s")
    server.stop()


if __name__ == "__main__":
    main()
