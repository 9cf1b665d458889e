"""Images of 12 megapixels: processor time of two checkouts in turns, with peers beside them.

    git worktree add ../before COMMIT
    python bench/decode.py --photos PHOTOS --before ../before

From a photograph, images of 4000 x 3000 pixels are made under bench/out/decode: JPEG of three amounts of
detail, progressive, grey, turned by EXIF, with a colour profile; PNG, WebP, TIFF. Each checkout runs in a
process of its own, over all files by turns, and the least of its times counts: the machine may be busy. What
is timed goes from bytes in memory to the square that an encoder takes, in one thread. Peers: Pillow as
transformers' image processor drives it, and torchvision's decoder and resize where it is installed.

    python bench/decode.py --photos PHOTOS --threads

shows how much two threads do more than one: what holds Python's lock they cannot do at once.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OUT = HERE / "out" / "decode"
SIZE = (4000, 3000)
MODES = ("exact", "fast")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--photos", type=Path, help="a folder of photographs")
    parser.add_argument("--before", type=Path, help="another checkout")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="files whose names hold this")
    parser.add_argument("--threads", action="store_true")
    parser.add_argument("--work", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.work:
        with ThreadPoolExecutor(1) as pool:  # as nshot does: its memory is not the main thread's
            print(json.dumps(pool.submit(worked, args.work[0], args.work[1:]).result()))
        return
    if args.photos is None:
        parser.error("--photos is missing")
    files = [str(path) for path in images(args.photos) if args.only in path.name]
    if args.threads:
        threads(files)
        return
    found: dict[str, dict[str, Any]] = {}
    checkouts = {"now": HERE.parent} | ({"before": args.before} if args.before else {})
    for number in range(args.rounds):
        print(f"... round {number + 1} of {args.rounds}", file=sys.stderr)
        for name, checkout in checkouts.items():
            for mode in MODES:
                add(found, f"{mode}, {name}", asked(mode, files, checkout))
        for peer in ("pillow", "torchvision"):
            add(found, peer, asked(peer, files, HERE.parent))
    (OUT / "decode.json").write_text(json.dumps(found, indent=1) + "\n")
    print(table(files, {way: each for way, each in found.items() if each}))


def asked(way: str, files: list[str], checkout: Path) -> dict[str, Any]:
    """The least milliseconds per file, and a digest of the pixels, by a process of that checkout."""
    done = subprocess.run(
        [sys.executable, __file__, "--work", way, *files],
        env=os.environ | {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        check=True,
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def add(found: dict[str, dict[str, Any]], way: str, told: dict[str, Any]) -> None:
    for name, each in told.items():
        best = found.setdefault(way, {}).setdefault(name, each)
        best["ms"] = min(best["ms"], each["ms"])


def worked(way: str, files: list[str]) -> dict[str, Any]:
    try:
        make = maker(way)
    except ImportError:
        return {}
    found = {}
    for file in files:
        data = Path(file).read_bytes()
        try:
            pixels = make(data)
        except (RuntimeError, ValueError):  # a format that the peer does not read
            continue
        times = []
        for _ in range(2):
            begun = time.process_time()
            make(data)
            times.append(1000 * (time.process_time() - begun))
        digest = hashlib.sha256(pixels.tobytes()).hexdigest()
        found[Path(file).name] = {"ms": min(times), "digest": digest}
    return found


def maker(way: str) -> Callable[[bytes], Any]:
    """Bytes -> uint8[3, 224, 224]."""
    if way in MODES:
        from nshot.images.prepare import prepare
        from nshot.images.preprocess import Preprocessor
        from nshot.types import DEFAULT_LIMITS

        preprocessor = Preprocessor.from_config({}, decode=way)  # type: ignore[arg-type]
        return lambda data: prepare(data, preprocessor, DEFAULT_LIMITS).pixels
    if way == "torchvision":
        import torch
        import torchvision.transforms.v2.functional as functional
        from torchvision.io import ImageReadMode, decode_image

        torch.set_num_threads(1)

        def with_torch(data: bytes) -> Any:
            image = decode_image(
                torch.frombuffer(bytearray(data), dtype=torch.uint8),
                ImageReadMode.RGB,
                apply_exif_orientation=True,
            )
            bicubic = functional.InterpolationMode.BICUBIC
            resized = functional.resize(image, [224], interpolation=bicubic, antialias=True)
            return functional.center_crop(resized, [224, 224]).numpy()

        return with_torch
    import numpy as np
    from PIL import Image, ImageOps

    def with_pillow(data: bytes) -> Any:
        image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
        width, height = image.size
        size = (224, int(224 * height / width)) if width <= height else (int(224 * width / height), 224)
        left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
        kept = image.resize(size, Image.Resampling.BICUBIC).crop((left, top, left + 224, top + 224))
        return np.ascontiguousarray(np.asarray(kept).transpose(2, 0, 1))

    return with_pillow


def images(photos: Path) -> list[Path]:
    """The files, made at the first call."""
    import numpy as np
    from PIL import Image, ImageCms, ImageOps

    if (OUT / "made").exists():
        return sorted(path for path in OUT.iterdir() if path.stem[0].isdigit())
    OUT.mkdir(parents=True, exist_ok=True)
    taken = [path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg")]
    largest = max(taken, key=lambda path: path.stat().st_size)
    smooth = ImageOps.fit(Image.open(largest).convert("RGB"), SIZE)
    grain = np.random.default_rng(0).normal(0, 1, (SIZE[1], SIZE[0], 1)).astype(np.float32)
    pixels = np.asarray(smooth).astype(np.float32)
    some, much = (
        Image.fromarray(np.clip(np.rint(pixels + by * grain), 0, 255).astype(np.uint8)) for by in (3, 7)
    )
    turned = Image.Exif()
    turned[0x0112] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    smooth.save(OUT / "01-smooth.jpg", quality=80)
    some.save(OUT / "02-grain.jpg", quality=90)
    much.save(OUT / "03-more-grain.jpg", quality=92)
    some.save(OUT / "04-turned.jpg", quality=90, exif=turned)
    some.transpose(Image.Transpose.ROTATE_90).save(OUT / "05-portrait.jpg", quality=90)
    some.save(OUT / "06-444.jpg", quality=90, subsampling=0)
    some.save(OUT / "07-srgb-profile.jpg", quality=90, icc_profile=profile)
    some.convert("L").save(OUT / "08-grey.jpg", quality=90)
    some.save(OUT / "09-progressive.jpg", quality=90, progressive=True)
    some.save(OUT / "10.png")
    some.save(OUT / "11.webp", quality=85)
    some.save(OUT / "12-lzw.tif", compression="tiff_lzw")
    some.save(OUT / "13-plain.tif")
    (OUT / "made").touch()
    return images(photos)


def table(files: list[str], found: dict[str, dict[str, Any]]) -> str:
    ways = list(found)
    rows = [["file", "MB", *ways]]
    for file in files:
        name = Path(file).name
        row = [name, f"{Path(file).stat().st_size / 1e6:.1f}"]
        row += [f"{found[way][name]['ms']:.0f}" if name in found[way] else "" for way in ways]
        rows.append(row)
    text = "\n".join("| " + " | ".join(row) + " |" for row in [rows[0], ["---"] * len(rows[0]), *rows[1:]])
    for mode in MODES:
        now, before = found[f"{mode}, now"], found.get(f"{mode}, before")
        for other, name in ((before, "before"), (found["pillow"], "Pillow")):
            if other:
                ratios = sorted(other[each]["ms"] / now[each]["ms"] for each in now)
                same = sum(other[each]["digest"] == now[each]["digest"] for each in now)
                text += (
                    f"\n{mode} against {name}: {ratios[0]:.2f} to {ratios[-1]:.2f} times, "
                    f"in the middle {ratios[len(ratios) // 2]:.2f}; the same pixels in {same} of {len(now)}"
                )
    return text


def threads(files: list[str]) -> None:
    """Images per second of one and of two threads, by turns; the best of each."""
    for mode in MODES:
        make = maker(mode)
        for file in files:
            data = Path(file).read_bytes()
            best = {1: 1e9, 2: 1e9}
            for _ in range(4):
                for count in best:
                    with ThreadPoolExecutor(count) as pool:
                        begun = time.perf_counter()
                        list(pool.map(make, [data] * 8))
                        best[count] = min(best[count], time.perf_counter() - begun)
            print(f"{mode:5} {Path(file).name:22} two threads: {best[1] / best[2]:.2f} times one", flush=True)


if __name__ == "__main__":
    main()
