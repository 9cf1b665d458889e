"""The wheel, as somebody gets it who installs nothing else: run in its environment, from another folder."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import nshot
from nshot import sketchbook


def main() -> None:
    """Classify, embed, ask the vectors again and make a report, with the installed command."""
    source_tree = Path(__file__).resolve().parents[1]
    installed = Path(nshot.__file__).resolve()
    assert source_tree / "src" not in installed.parents, f"the source tree is on the path: {installed}"
    command = Path(sys.executable).parent / "nshot"
    with tempfile.TemporaryDirectory() as folder:
        exhibits = [exhibit for exhibit in sketchbook.exhibition() if exhibit.novelty == "pair"]
        for number, exhibit in enumerate(exhibits):
            place = Path(folder, "drawings", exhibit.label)
            place.mkdir(parents=True, exist_ok=True)
            sketchbook.draw(exhibit.scene, 128).save(place / f"{number}.png")
        labels = ", ".join(sorted({exhibit.label for exhibit in exhibits}))

        def run(*args: str) -> str:
            done = subprocess.run([command, *args], cwd=folder, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"nshot {' '.join(args)}: {done.stderr}"
            return done.stdout

        assert run("--version").strip() == f"nshot, version {nshot.__version__}"
        asked = ("--model", "sketchbook", "--no-store", "-q")
        lines = run("classify", "drawings", "--labels", labels, "--format", "jsonl", *asked).splitlines()
        answers = [json.loads(line) for line in lines]
        right = sum(Path(answer["source"]).parent.name == answer["label"] for answer in answers)
        assert right >= 0.8 * len(exhibits), f"{right} of {len(exhibits)} right"
        run("embed", "drawings", "-o", "vectors.npz", *asked)
        again = run("classify", "vectors.npz", "--labels", labels, "--format", "jsonl", *asked).splitlines()
        assert [json.loads(line)["label"] for line in again] == [answer["label"] for answer in answers]
        run("evaluate", "drawings", "-o", "report", *asked)
        assert "<html" in Path(folder, "report", "index.html").read_text(encoding="utf-8")
    print(f"nshot {nshot.__version__} from the wheel: {right} of {len(exhibits)} right")


if __name__ == "__main__":
    main()
