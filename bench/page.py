"""The page of nshot serve over 40,000 images, in headless Chromium: what a person waits for.

    .venv-browser/bin/python bench/page.py FOLDER [--labels "circle, star"] [--model sketchbook]

Prints first paint, answers asked anew, a label key to its mark, frames while scrolling, memory. Everything is
measured in the page itself; the folder is indexed first, if it is not yet.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

# every question is a new one, of words that were encoded before: each word beside all labels but one
_ASK = """const [words, done] = arguments; (async () => { const p = nshotPage, out = [], all = p.app.labels;
  for (const word of words) { p.app.draft = word; await p.ask(); }
  for (const word of words) for (const left of [0, 1, 2]) {
    p.app.labels = all.filter((_, k) => k !== left); p.app.draft = word;
    const began = performance.now(); await p.ask();
    await new Promise(r => requestAnimationFrame(() => setTimeout(r))); out.push(performance.now() - began); }
  p.app.labels = all; p.app.draft = ""; await p.ask(); done(out); })()"""
_SORT = """const [words, done] = arguments; (async () => { const p = nshotPage, out = [], all = p.app.labels;
  for (const word of words) for (const left of [3, 4, 5]) {
    p.app.labels = all.filter((_, k) => k !== left); p.app.draft = word;
    const began = performance.now(); await p.ask(); p.sort();
    await new Promise(r => requestAnimationFrame(() => setTimeout(r))); out.push(performance.now() - began); }
  p.app.labels = all; p.app.draft = ""; await p.ask(); p.sort(); done(out); })()"""
_KEY = """const done = arguments[0]; (async () => { const out = []; nshotPage.grid.list.focus();
  for (let k = 0; k < 20; k++) {
    const key = {key: "1", code: "Digit1", bubbles: true}, began = performance.now();
    document.activeElement.dispatchEvent(new KeyboardEvent("keydown", key));
    out.push(performance.now() - began);
    await new Promise(r => setTimeout(r, 60)); }
  for (let k = 0; k < 20; k++) nshotPage.act("undo");
  done(out); })()"""
_SCROLL = """const done = arguments[0], box = document.getElementById("scroll");
  nshotPage.act("order", "folder"); const speed = 3 * box.clientHeight / 1000, out = [];
  const first = performance.now(); let last = first;
  const frame = (now) => { out.push(now - last); last = now; box.scrollTop = (now - first) * speed;
    if (now - first < 10000) requestAnimationFrame(frame); else { out.shift(); done(out); } };
  requestAnimationFrame(frame);"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--labels", default="circle, square, triangle, star, heart, ring")
    parser.add_argument("--model", default="sketchbook")
    parser.add_argument("--port", type=int, default=7899)
    asked = parser.parse_args()
    command = [
        sys.executable,
        "-m",
        "nshot",
        "serve",
        str(asked.folder),
        "--model",
        asked.model,
        "--no-open",
        "-q",
    ]
    command += ["--labels", asked.labels, "--template", "a drawing of a {}", "--port", str(asked.port)]
    server = subprocess.Popen(command)
    address = f"http://127.0.0.1:{asked.port}/"
    try:
        while json.loads(_read(f"{address}api/state")).get("phase") != "ready":
            time.sleep(0.5)
        measure(address, server.pid)
    finally:
        server.terminate()
        server.wait()


def measure(address: str, server: int) -> None:
    """Print every figure."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    driver: Any = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(shutil.which("chromedriver"))
    )
    driver.set_script_timeout(60)
    driver.set_window_size(1600, 900)
    paints, answered = [], []
    for _ in range(4):
        driver.get("about:blank")
        driver.get(address)
        while driver.execute_script(
            "return globalThis.nshotPage?.app.answer?.rows !== nshotPage?.app.state.rows"
        ):
            time.sleep(0.02)
        answered.append(driver.execute_script("return performance.now()"))
        paints.append(driver.execute_script("return performance.getEntriesByType('paint')[0].startTime"))
    rows = driver.execute_script("return nshotPage.rows.n")
    print(f"{rows:,} images, load {os.getloadavg()[0]:.1f}")
    _told("first paint, ms", paints[1:])
    _told("open to all answers, ms", answered[1:])
    known = ["tree", "fish", "house", "cross"]
    _told("a label whose words are known, typed, to the counts, ms", driver.execute_async_script(_ASK, known))
    _told("the same, and sorted into the grid, ms", driver.execute_async_script(_SORT, known))
    _told("a label key to its mark, ms", driver.execute_async_script(_KEY))
    frames = driver.execute_async_script(_SCROLL)
    share = sum(frame < 34 for frame in frames) / len(frames)
    print(f"three screens a second: {share:.1%} of {len(frames)} frames under 34 ms")
    print("cells in the document:", driver.execute_script("return document.querySelectorAll('.cell').length"))
    print(f"JS heap: {driver.execute_script('return performance.memory.usedJSHeapSize') / 1e6:.0f} MB")
    print(f"the page's process: {_renderer():.0f} MB; the server: {_memory(server):.0f} MB")
    driver.quit()


def _told(what: str, values: list[float]) -> None:
    ordered = sorted(values)
    print(f"{what}: median {ordered[len(ordered) // 2]:.0f}, {ordered[0]:.0f} to {ordered[-1]:.0f}")


def _read(address: str) -> bytes:
    try:
        with urlopen(address, timeout=10) as answer:
            data: bytes = answer.read()
            return data
    except OSError:
        return b"{}"


def _memory(pid: int) -> float:
    """Memory of a process in MB: its own, and its share of what it shares with others (PSS)."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1000
    return float("nan")


def _renderer() -> float:
    """The largest of Chromium's page processes, in MB."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if b"--type=renderer" in (folder / "cmdline").read_bytes():
                    found.append(_memory(int(folder.name)))
            except OSError:
                continue
    return max(found, default=float("nan"))


if __name__ == "__main__":
    main()
