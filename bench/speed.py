"""Speed and memory of nshot with its peers beside it, in one run on one machine: a table per kind of machine.

    make bench MODEL=./checkpoint PHOTOS=./photographs

Needs the torch extra's environment (``make bench`` makes it), a CLIP checkpoint (a Hub id or a folder) and a
folder of any photographs, from which images of 640x480 and of 12 megapixels are made under bench/out.
Each measurement runs in a process of its own. Prints the tables of README, with the headline above them: the
fraction of the machine's own product, and the ratio to the best peer. bench/out/speed.json has it all.
``--only peers`` runs the first of them alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OUT = HERE / "out"
TEN = ["cat", "dog", "church", "fish", "guitar", "shirt", "elephant", "house", "person", "chain saw"]

PEERS = {
    "onnx": "image tower exported to ONNX, ONNX Runtime, batches of 32",
    "sentence-transformers": "sentence-transformers, batches of 32",
    "open_clip": "open_clip, batches of 32",
    "tutorial": "CLIPProcessor and CLIPModel by hand, batches of 32",
    "pipeline-32": "`pipeline(...)` with `batch_size=32`",
    "pipeline": "`pipeline(...)` as documented",
    "tutorial-bf16": "CLIPProcessor and CLIPModel by hand, bf16, batches of 32",
    "open_clip-bf16": "open_clip, bf16, batches of 32",
}
"""Each way of peers.py, in words."""

STEADY = """
import json, sys, time
import nshot
model, folder, count, decode, precision = sys.argv[1:6]
from pathlib import Path
files = sorted(Path(folder).iterdir())[:int(count)]
clip = nshot.load(model, decode=decode, precision=precision)
classifier = nshot.zero_shot(clip, Path(sys.argv[6]).read_text().splitlines())
for _ in classifier.predict(clip.embed_images(files[:32])): pass
from nshot.models.operations import gflop
begun, used = time.perf_counter(), time.process_time()
answers = classifier.predict(clip.embed_images(files))
seconds, used = time.perf_counter() - begun, time.process_time() - used
print(json.dumps({"images": len(answers), "seconds": seconds, "rate": len(answers) / seconds,
                  "processor_ms": 1000 * used / len(answers), "gflop": gflop(clip.checkpoint.config.vision),
                  "precision": clip.encoder.precision, "answers": [a.to_dict() for a in answers]}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="openai/clip-vit-base-patch32")
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--only", help="run the measurements whose names hold this")
    args = parser.parse_args()
    if not args.photos.is_dir():
        parser.error(f"{args.photos} is no folder of photographs")

    bench = Bench(args.model, args.photos)
    results: dict[str, Any] = {"machine": machine()}
    for measure in (
        bench.agreement,
        bench.peers,
        bench.large_jpegs,
        bench.one_image,
        bench.thousand_labels,
        bench.asked_again,
        bench.memory,
        bench.light_import,
    ):
        if args.only and args.only not in measure.__name__:
            continue
        print(f"... {measure.__name__}", file=sys.stderr)
        results[measure.__name__] = measure()
        print(json.dumps({measure.__name__: results[measure.__name__]}, indent=1), file=sys.stderr)
    (OUT / "speed.json").write_text(json.dumps(results, indent=1) + "\n")
    print(table(results))


class Bench:
    """The images, the labels, and one method a row."""

    def __init__(self, model: str, photos: Path) -> None:
        self.model = str(Path(model).resolve()) if Path(model).exists() else model
        OUT.mkdir(exist_ok=True)
        self.vga = images(photos, OUT / "640x480", 400, (640, 480))
        self.large = images(photos, OUT / "12mp", 48, (4000, 3000))
        self.ten = lines(OUT / "ten.txt", TEN)
        self.thousand = lines(OUT / "thousand.txt", [f"{a} number {i}" for i in range(100) for a in TEN])

    def agreement(self) -> dict[str, Any]:
        """The same best label, order and scores as the pipeline."""
        ours = self._steady(self.vga, 32, self.ten, precision="f32")["answers"]
        theirs = self._peer("pipeline", self.vga, 32, self.ten)["answers"]
        worst, order = 0.0, True
        for mine, other in zip(ours, theirs, strict=True):
            told = mine["predictions"]
            order &= [p["label"] for p in told] == [p["label"] for p in other[: len(told)]]
            worst = max(worst, *(abs(p["score"] - q["score"]) for p, q in zip(told, other, strict=False)))
        return {"same_order": order, "largest_score_difference": worst}

    def peers(self) -> dict[str, Any]:
        """Every peer's best batches and the machine's own product, nshot before and after them.

        Where other work runs beside it, the processor time per image is the figure to read.
        """
        found: dict[str, Any] = {
            "product": last_json(run([sys.executable, str(HERE / "peers.py"), "product"]))
        }
        for name, precision in (("nshot_f32", "f32"), ("nshot_auto", "auto")):
            found[name] = _told(self._steady(self.vga, 96, self.ten, precision=precision))
        for way in PEERS:
            try:
                found[way] = _told(self._peer(way, self.vga, 64, self.ten, warm_up=32))
            except SystemExit as missing:
                found[way] = {"missing": str(missing).strip().splitlines()[-1]}
            print(f"... {way}: {found[way]}", file=sys.stderr)
        found["nshot_f32_again"] = _told(self._steady(self.vga, 96, self.ten, precision="f32"))
        return found

    def large_jpegs(self) -> dict[str, Any]:
        """JPEGs of 12 megapixels."""
        return {
            "nshot_fast": self._steady(self.large, 48, self.ten, decode="fast")["rate"],
            "nshot_exact": self._steady(self.large, 48, self.ten)["rate"],
            "pipeline": self._peer("pipeline", self.large, 24, self.ten)["rate"],
        }

    def one_image(self) -> dict[str, Any]:
        """The whole process, one image, ten labels."""
        cache = fresh(OUT / "cache")
        image = str(sorted(self.vga.iterdir())[0])
        again = [str(path) for path in sorted(self.vga.iterdir())[1:4]]
        command = ["classify", "--labels-file", str(self.ten), "--model", self.model, "--format", "jsonl"]
        first = timed(lambda: self._nshot([*command, image], cache))
        second = [timed(lambda p=p: self._nshot([*command, p], cache)) for p in again]  # type: ignore[misc]
        peer = [timed(lambda: self._peer("pipeline", self.vga, 1, self.ten, warm_up=0)) for _ in range(2)]
        return {"nshot_first_s": first, "nshot_second_s": min(second), "transformers_s": min(peer)}

    def thousand_labels(self) -> dict[str, Any]:
        """1000 labels whose vectors are known, 100 images."""
        cache = fresh(OUT / "cache")
        few = fresh(OUT / "hundred")
        for path in sorted(self.vga.iterdir())[:100]:
            shutil.copy(path, few)
        command = [
            "classify",
            "--labels-file",
            str(self.thousand),
            "--model",
            self.model,
            "--format",
            "jsonl",
        ]
        self._nshot([*command, str(sorted(few.iterdir())[0])], cache)
        ours = timed(lambda: self._nshot([*command, str(few)], cache))
        theirs = self._peer("pipeline", few, 3, self.thousand, warm_up=0)
        return {"nshot_s": ours, "pipeline_s_for_100": theirs["seconds"] / 3 * 100}

    def asked_again(self) -> dict[str, Any]:
        """20,000 unchanged images, stored, asked again with other labels."""
        cache = fresh(OUT / "cache")
        many = fresh(OUT / "many")
        vectors = fill_store(self.model, self.vga, many, 20_000, cache)
        command = [
            "classify",
            str(many),
            "--model",
            self.model,
            "--format",
            "jsonl",
            "-o",
            str(OUT / "many.jsonl"),
        ]
        self._nshot([*command, "--labels", "cat, dog"], cache)
        seconds = timed(lambda: self._nshot([*command, "--labels-file", str(self.ten)], cache))
        without = timed(lambda: self._nshot([*command[:-2], "--labels-file", str(self.ten)], cache))
        shutil.rmtree(many)
        return {
            "images": vectors,
            "process_s": seconds,
            "rate": vectors / seconds,
            "rate_again": vectors / without,
        }

    def memory(self) -> dict[str, Any]:
        """Peak resident memory of the command over 1000 and over 4000 images."""
        peaks = {}
        for count in (1000, 4000):
            listing = lines(
                OUT / "list.txt", [str(p) for p in sorted(self.vga.iterdir())] * (count // 400 + 1)
            )
            listing.write_text("\n".join(listing.read_text().splitlines()[:count]))
            peaks[str(count)] = peak_mb(
                [
                    *("classify", "-", "--labels-file", str(self.ten), "--model", self.model),
                    *("--no-store", "--format", "jsonl", "-o", str(OUT / "memory.jsonl")),
                ],
                listing,
            )
        return peaks

    def light_import(self) -> dict[str, Any]:
        """``import nshot`` over bare Python."""
        bare = min(timed(lambda: python("pass")) for _ in range(7))
        ours = min(timed(lambda: python("import nshot")) for _ in range(7))
        return {"ms": (ours - bare) * 1000}

    def _steady(
        self, folder: Path, count: int, labels: Path, *, decode: str = "exact", precision: str = "auto"
    ) -> dict[str, Any]:
        return last_json(python(STEADY, self.model, str(folder), str(count), decode, precision, str(labels)))

    def _peer(self, way: str, folder: Path, count: int, labels: Path, warm_up: int = 4) -> dict[str, Any]:
        arguments = ["--model", self.model, "--images", str(folder), "--labels", str(labels)]
        arguments += ["--count", str(count), "--warm-up", str(warm_up)]
        return last_json(run([sys.executable, str(HERE / "peers.py"), way, *arguments]))

    def _nshot(self, arguments: list[str], cache: Path) -> str:
        return run([sys.executable, "-m", "nshot", *arguments], NSHOT_CACHE=str(cache))


def _told(found: dict[str, Any]) -> dict[str, Any]:
    return {name: found[name] for name in ("rate", "processor_ms", "gflop", "precision") if name in found}


def images(photos: Path, folder: Path, count: int, size: tuple[int, int]) -> Path:
    """So many JPEGs of that size, made from the photographs, turned and cropped so that no two are alike."""
    from PIL import Image, ImageOps

    if folder.exists() and len(list(folder.iterdir())) == count:
        return folder
    fresh(folder)
    originals = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
    for number in range(count):
        original = Image.open(originals[number % len(originals)]).convert("RGB")
        if number >= len(originals):
            original = ImageOps.mirror(original)
        ImageOps.fit(original, size).save(folder / f"{number:05}.jpg", quality=90)
    return folder


def fill_store(model: str, source: Path, folder: Path, count: int, cache: Path) -> int:
    """So many image files whose vectors the store knows.

    Encoding 20,000 images only to ask for them again would take the bench ten minutes, so 400 are encoded
    and the others get random unit vectors under their own digests; asking for them costs the same.
    """
    code = """
import hashlib, sys, time
from pathlib import Path
import numpy as np
import nshot
from nshot.store.store import Stamp, Store, default_path
model, source, folder, count = sys.argv[1:5]
clip = nshot.load(model, store=True)
store = Store(default_path())
originals = [path.read_bytes() for path in sorted(Path(source).iterdir())]
rng = np.random.default_rng(0)
files, vectors = {}, {}
import os
for number in range(int(count)):
    path = Path(folder) / f"{number:06}.jpg"
    data = originals[number % len(originals)] + number.to_bytes(4, "big")
    path.write_bytes(data)
    os.utime(path, (1e9, 1e9))
    digest = hashlib.sha256(data).digest()
    vector = rng.normal(size=clip.dimension).astype(np.float32)
    vectors[digest] = vector / np.linalg.norm(vector)
    files[Stamp.of(path)] = digest
store.put_vectors(vectors, clip.recipe.digest)
store.put_files(files)
print(len(files))
"""
    return int(python(code, model, str(source), str(folder), str(count), NSHOT_CACHE=str(cache)))


def peak_mb(arguments: list[str], listing: Path) -> float:
    """Peak resident memory, in MB, of one nshot command reading the list on its standard input."""
    with listing.open() as stdin:
        process = subprocess.Popen(
            [sys.executable, "-m", "nshot", *arguments], stdin=stdin, stderr=subprocess.PIPE
        )
        _, status, usage = os.wait4(process.pid, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise SystemExit(f"{arguments} failed: {process.stderr.read().decode() if process.stderr else ''}")
    return (
        usage.ru_maxrss
        / (1e6 if sys.platform == "darwin" else 1e3)
        * (1 if sys.platform == "darwin" else 1.024)
    )


def python(code: str, *arguments: str, **environment: str) -> str:
    return run([sys.executable, "-c", code, *arguments], **environment)


def run(command: list[str], **environment: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment, check=False)
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stderr}")
    return done.stdout


def last_json(output: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return found


def timed(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def lines(path: Path, content: list[str]) -> Path:
    path.write_text("\n".join(content) + "\n")
    return path


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def machine() -> dict[str, Any]:
    import openvino
    import torch
    import transformers

    info = Path("/proc/cpuinfo")
    flags = info.read_text() if info.exists() else ""
    return {
        "processor": next(
            (line.split(": ")[1] for line in flags.splitlines() if line.startswith("model name")),
            platform.machine(),
        ),
        "cores": os.cpu_count(),
        "features": [name for name in ("avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16") if name in flags],
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "python": platform.python_version(),
        "openvino": openvino.__version__.split("-")[0],
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "peak_of_this_script_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
    }


def table(results: dict[str, Any]) -> str:
    """The rows as README shows them."""
    rows = [("what", "nshot", "transformers", "ratio")]
    first = beside_peers(results["peers"], results["machine"]) if "peers" in results else ""

    def rate(name: str, ours: float, theirs: float) -> None:
        rows.append((name, f"{ours:.1f}/s", f"{theirs:.1f}/s", f"{ours / theirs:.1f}x"))

    def seconds(name: str, ours: float, theirs: float) -> None:
        rows.append((name, f"{ours:.2f} s", f"{theirs:.2f} s", f"{theirs / ours:.1f}x"))

    if large := results.get("large_jpegs"):
        rate("12-megapixel JPEGs, --decode fast", large["nshot_fast"], large["pipeline"])
        rate("12-megapixel JPEGs, --decode exact", large["nshot_exact"], large["pipeline"])
    if one := results.get("one_image"):
        seconds("one image, whole process, second run", one["nshot_second_s"], one["transformers_s"])
    if thousand := results.get("thousand_labels"):
        seconds("1000 known labels, 100 images", thousand["nshot_s"], thousand["pipeline_s_for_100"])
    if again := results.get("asked_again"):
        rows.append(("20,000 stored images, other labels", f"{again['rate']:.0f}/s", "", ""))
    if memory := results.get("memory"):
        rows.append(
            ("peak memory, 1000 / 4000 images", f"{memory['1000']:.0f} / {memory['4000']:.0f} MB", "", "")
        )
    if light := results.get("light_import"):
        rows.append(("import, over bare Python", f"{light['ms']:.0f} ms", "", ""))
    others = _lines(rows) if len(rows) > 1 else ""
    return "\n\n".join(part for part in (first, others) if part)


def beside_peers(peers: dict[str, Any], machine: dict[str, Any]) -> str:
    """The headline, the fraction of the limit and the ratio to the best peer, and the table they are from."""
    product, low = peers["product"], peers["nshot_auto"]["precision"] == "bf16"
    runs = [peers["nshot_f32"], peers["nshot_f32_again"]]
    ours = {
        "f32": {**runs[0], **{key: sum(run[key] for run in runs) / 2 for key in ("rate", "processor_ms")}}
    }
    if low:
        ours["bf16"] = peers["nshot_auto"]
    of = {way: "bf16" if way.endswith("bf16") else "f32" for way in PEERS if "rate" in peers[way]}
    rows = [("way", "in", "images/s", "processor ms per image", "of the product", "nshot against it")]
    said = []
    for kind, each in ours.items():
        share = each["rate"] * each["gflop"] / product[f"gflops_{kind}"]
        figures = (f"{each['rate']:.1f}", f"{each['processor_ms']:.1f}", f"{share:.2f}")
        rows.append((f"nshot, {kind}", kind, *figures, ""))
        words = f"in {kind} {share:.0%} of the machine's own product"
        if rivals := [way for way in of if of[way] == kind]:
            best = max(rivals, key=lambda way: float(peers[way]["rate"]))
            words += f" and {each['rate'] / peers[best]['rate']:.2f} times the best peer ({best})"
        said.append(words)
    for way, words in PEERS.items():
        each, kind = peers[way], of.get(way, "f32")
        if way not in of:
            rows.append((words, "", "", "", "", each["missing"]))
        else:
            share = each["rate"] * runs[0]["gflop"] / product[f"gflops_{kind}"]
            beside = f"{ours[kind]['rate'] / each['rate']:.2f}x" if kind in ours else ""
            figures = (f"{each['rate']:.1f}", f"{each['processor_ms']:.1f}", f"{share:.2f}")
            rows.append((words, kind, *figures, beside))
    limits = " and ".join(f"{product[f'gflops_{kind}']:.0f} GFLOP/s in {kind}" for kind in ours)
    return (
        f"{machine['processor']}, {machine['cores']} cores: {'; '.join(said)}.\n\n{_lines(rows)}\n\n"
        f"The product: {limits}, torch's own of two matrices of 2048 rows, in the same run; an image is "
        f"{runs[0]['gflop']:.1f} GFLOP. End to end, JPEG files of 640x480 to answers."
    )


def _lines(rows: Sequence[tuple[str, ...]]) -> str:
    lined = [rows[0], ("---",) * len(rows[0]), *rows[1:]]
    return "\n".join("| " + " | ".join(row) + " |" for row in lined)


if __name__ == "__main__":
    main()
