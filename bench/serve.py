"""What `nshot serve --model` keeps of the offline pipeline, and what it loses: nothing, it should.

    python bench/serve.py --model sketchbook [--seconds 10]

One server in a process of its own, clients on the same machine. Processor time is told beside images per
second, since the clients share the processors with the server.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import io
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

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


class Server:
    """A server in a process of its own."""

    def __init__(self, model: str, *options: str) -> None:
        command = [sys.executable, "-m", "nshot", "serve", "--model", model, "--port", "0", *options]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        for line in self.process.stderr:
            if found := re.search(r"http://[\d.:]+", line):
                self.address = found[0]
                break
        self.reading = subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=subprocess.DEVNULL)
        httpx.get(f"{self.address}/ready", timeout=120).raise_for_status()

    def seconds(self) -> float:
        """Processor time so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self) -> int:
        """Resident MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) // 1024  # type: ignore[index]

    def stop(self) -> int:
        """The exit status after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        self.reading.wait(10)
        return status


def body(images: list[bytes]) -> bytes:
    return json.dumps(
        {"images": [base64.b64encode(each).decode() for each in images], "labels": LABELS}
    ).encode()


async def load(
    address: str, clients: int, seconds: float, bodies: list[bytes]
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
                        f"{address}/v1/classify", content=bodies[number % len(bodies)]
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
    parser.add_argument("--only", default="equality,speed,bad,sigterm,overload")
    chosen = parser.parse_args()
    images = photos(64)
    clip = nshot.load(chosen.model, store=False)
    parts = chosen.only.split(",")
    if set(parts) & {"equality", "speed", "bad"}:
        server = Server(chosen.model)
        if "equality" in parts:
            equality(server, clip, images)
        if "speed" in parts:
            speed(server, clip, images, chosen.seconds)
        if "bad" in parts:
            bad(server, clip, images)
        print("exit status after SIGTERM:", server.stop())
    if "sigterm" in parts:
        sigterm(chosen.model, images)
    if "overload" in parts:
        overload(chosen.model, images, chosen.seconds)


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


def speed(server: Server, clip: nshot.Model, images: list[bytes], seconds: float) -> None:
    """32 clients and one, against the pipeline in the same run; offline before and after."""
    bodies = [body([data]) for data in images]
    first = offline(clip, images, seconds / 2)
    used = server.seconds()
    told, times = asyncio.run(load(server.address, 32, seconds, bodies))
    used = 1000 * (server.seconds() - used) / len(times)
    second = offline(clip, images, seconds / 2)
    rate, cpu = (statistics.mean(pair) for pair in zip(first, second, strict=True))
    print(f"offline {rate:.0f} images/s, {cpu:.1f} processor ms per image")
    ratio = len(times) / seconds / rate
    print(f"32 clients {len(times) / seconds:.0f} images/s ({ratio:.0%}), server {used:.1f} ms per image")
    print(f"   ({cpu / used:.0%} of the offline processor time), {dict(told)}")
    _, one = asyncio.run(load(server.address, 1, seconds / 2, bodies))
    alone = []
    for data in images:
        begun = time.perf_counter()
        list(clip.embed_images([data]))
        alone.append(time.perf_counter() - begun)
    served, usual = statistics.median(one), statistics.median(alone)
    print(f"one client: p50 {1000 * served:.1f} ms, offline {1000 * usual:.1f} ms ({served / usual:.2f})")


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
    """Twice as many images under way as may wait."""
    server = Server(model, "--max-waiting", "32")
    bodies = [body(images[k : k + 4]) for k in range(0, 32, 4)]
    asyncio.run(load(server.address, 8, seconds / 4, bodies))
    before = server.memory()
    told, _ = asyncio.run(load(server.address, 16, seconds, bodies))
    between = server.memory()
    more, _ = asyncio.run(load(server.address, 16, seconds, bodies))
    begun = time.perf_counter()
    ready = httpx.get(f"{server.address}/ready", timeout=10).status_code
    print(f"16 clients x 4 images, 32 may wait: {dict(told + more)}")
    print(f"   memory {before}, {between}, {server.memory()} MB")
    print(f"   /ready {ready} after {time.perf_counter() - begun:.2f} s")
    server.stop()


if __name__ == "__main__":
    main()
