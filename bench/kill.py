"""kill -9 in the middle of `nshot train`, --resume, and the same weights as a run that nobody killed.

make parity's python bench/kill.py
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors.numpy import load_file

STEPS = 120


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start(folder / "whole").wait()
        kills = 0
        running = start(folder / "parts")
        while running.poll() is None:
            time.sleep(20)
            if running.poll() is None and kills < 3:
                os.kill(running.pid, signal.SIGKILL)
                running.wait()
                kills += 1
                running = start(folder / "parts", "--resume")
        one, two = (load_file(folder / each / "model.safetensors") for each in ("whole", "parts"))
        worst = max(float(abs(one[key] - two[key]).max()) for key in one)
        print(f"{STEPS} steps, killed {kills} times: weights differ by at most {worst:g}")


def start(output: Path, *more: str) -> subprocess.Popen[bytes]:
    """A run over a few drawings that keeps its state every two seconds."""
    command = [sys.executable, "-m", "nshot", "train", "sketchbook", "-o", str(output), "--drawings", "4000"]
    options = ["--steps", str(STEPS), "--minutes", "0.03", "--quiet"]
    return subprocess.Popen([*command, *options, *more])


if __name__ == "__main__":
    main()
