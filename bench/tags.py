"""Kills ``write_tags`` and ``undo_tags`` 20 times on 500 images, takes all back, and asks exiftool.

python bench/tags.py [images] [kills]
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nshot.output.tagging import JOURNAL, keywords_of, plan_tags, undo_tags, with_keywords, write_tags

_CHILD = """
import sys
from pathlib import Path
from nshot.output.tagging import plan_tags, undo_tags, write_tags
folder = Path(sys.argv[1])
print("begun", flush=True)
if sys.argv[2] == "undo":
    undo_tags(folder)
else:
    labels = {path: ["animal/dog", "red"] for path in sorted(folder.rglob("*.jpg"))}
    write_tags(plan_tags(labels.items())[0], folder)
"""


def main() -> None:
    """Print one line per figure."""
    images, kills = (int(argument) for argument in (*sys.argv[1:], "500", "20")[:2])
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for number in range(images):
            (folder / f"{number}.jpg").write_bytes(b"an image")
            if number % 2:
                old = with_keywords(None, [f"mine {number}"])
                (folder / f"{number}.jpg.xmp").write_bytes(old + b"\n" * (number % 5))
        before = _state(folder)
        lost = 0
        for _ in range(kills):
            what = rng.choice(["write", "write", "undo"]) if (folder / JOURNAL).exists() else "write"
            child = subprocess.Popen(
                [sys.executable, "-c", _CHILD, str(folder), what], stdout=subprocess.PIPE
            )
            assert child.stdout is not None
            child.stdout.readline()
            time.sleep(rng.uniform(0, 0.4))
            child.kill()
            child.wait()
            for name, (content, _) in before.items():
                if name.endswith(".xmp"):
                    lost += not set(keywords_of(content)) <= set(keywords_of((folder / name).read_bytes()))
        print(f"keywords lost after {kills} kills: {lost}")
        left = 0
        while (folder / JOURNAL).exists():
            left += len(undo_tags(folder).left)
        print(f"undone: {_state(folder) == before} (byte for byte, with times), left alone: {left}")
        images_with = [(path, ["animal/dog", "red"]) for path in sorted(folder.glob("*.jpg"))]
        write_tags(plan_tags(images_with)[0], folder)
        if shutil.which("exiftool"):
            asked = ["exiftool", "-j", "-Subject", "-HierarchicalSubject", "-TagsList", "-ext", "xmp", place]
            read = json.loads(subprocess.run(asked, capture_output=True, check=True).stdout)
            right = sum(
                {"animal", "dog", "red"} <= set(each["Subject"])
                and each["HierarchicalSubject"] == "animal|dog"
                and each["TagsList"] == "animal/dog"
                for each in read
            )
            print(f"read back by exiftool: {right} of {images}")
        undo_tags(folder)
        print(f"undone: {_state(folder) == before}")


def _state(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        path.name: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.iterdir())
        if not path.name.endswith(".lock")
    }


if __name__ == "__main__":
    main()
