"""A GPU: images/s of the image tower alone and end to end, with transformers and open_clip in the same run.

    python bench/gpu.py                                  # on a machine with a cuda GPU: no network is needed
    python bench/gpu.py --arch L/14 --minutes 7
    python bench/gpu.py --device cpu --arch tiny --rows 16 --rounds 2 --images 32   # the same code, anywhere

Weights are random and of full size, unless ``--model`` names a checkpoint: time does not depend on them. The
images are JPEGs of 640x480 made here, unless ``--images-from`` names a folder. Each way runs in turn, in one
process:

    tower alone   pixels (bytes, on the host) to vectors on the host, in batches of ``--rows``
    end to end    files to vectors; nshot as it decodes by itself, a peer by torch's DataLoader with a worker
                  per core and pinned memory, which is the best that its users write; once to warm up
    share         the tower's multiplications against the GPU's own product of two square matrices, in the
                  same precision and the same run
    cosine        nshot's vectors with those of f32 on the CPU: the least of 64 images

"decoding alone" are files to pixels without a model, by threads and by processes: the most that end to end
can be. A peer that is not installed, and a way for which no time is left, is a row that says so. The table is
printed, and bench/out/gpu.json has it all.
"""

from __future__ import annotations

import argparse
import importlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1] / "src")]

import nshot  # noqa: E402
from nshot import encoders  # noqa: E402
from nshot.models.checkpoint import find  # noqa: E402
from nshot.models.operations import gflop  # noqa: E402
from nshot.types import Floats, Pixels  # noqa: E402

OUT = Path(__file__).parent / "out"
CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Way(NamedTuple):
    """One way to make vectors of images.

    Attributes:
        precision: of the product that it is held against.
        encode: uint8[n,3,s,s] -> float32[n,d].
        whole: files -> how many vectors.
        at_once: calls of ``encode`` at once that pay.
    """

    precision: str
    encode: Callable[[Pixels], Any]
    whole: Callable[[list[Path]], int]
    at_once: int = 1


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default="B/32", choices=["B/32", "B/16", "L/14", "tiny"])
    parser.add_argument("--model", help="a checkpoint of that architecture, in the place of random weights")
    parser.add_argument("--images-from", type=Path, help="a folder of images, for end to end")
    parser.add_argument("--images", type=int, default=4000, help="files, end to end")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=256, help="images in a batch")
    parser.add_argument("--rounds", type=int, default=20, help="batches that are timed")
    parser.add_argument("--minutes", type=float, default=7.0, help="no way is begun after so long")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(args, Path(folder))
    OUT.mkdir(exist_ok=True)
    (OUT / "gpu.json").write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


def measured(args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Every figure."""
    end = time.monotonic() + 60 * args.minutes
    if args.model is None:
        (folder / "model").mkdir()
        args.model = str(random_checkpoint(folder / "model", args.arch))
    files = photographs(args.images_from, folder / "images", args.images)
    tower = find(args.model).config.vision
    pixels = np.random.default_rng(0).integers(
        0, 256, (args.rows, 3, tower.image_size, tower.image_size), np.uint8
    )
    limits = {kind: product(args.device, kind) for kind in ("bf16", "f32")}
    exact = encoders.load(find(args.model), device="cpu", precision="f32", runtime="torch")
    expected = exact.encode_images(pixels[:64])
    rows: dict[str, Any] = {}
    for name, make in ways(args).items():
        if time.monotonic() > end:
            rows[name] = {"missing": "no time was left"}
            continue
        print(f"... {name}", file=sys.stderr, flush=True)
        try:
            way = make()
            alone = rate(way, pixels, args.rounds)
            share = alone * gflop(tower) / 1000 / limits[way.precision]
            rows[name] = {"tower alone, images/s": round(alone, 1), "share": round(share, 3)}
            rows[name]["end to end, images/s"] = round(end_to_end(way, files), 1)
            if name.startswith("nshot"):
                both = way.encode(pixels[:64]) * expected
                rows[name]["cosine"] = round(float(both.sum(axis=1).min()), 6)
        except (ImportError, SystemExit, RuntimeError) as missing:
            rows.setdefault(name, {})["missing"] = f"{type(missing).__name__}: {missing}"[:200]
    decoders = {
        how: round(decoding(args, files, processes=how == "processes"), 1) for how in ("threads", "processes")
    }
    return {
        "device": torch.cuda.get_device_name() if args.device == "cuda" else args.device,
        "cores": CORES,
        "torch": torch.__version__,
        "architecture": args.arch,
        "gflop": round(gflop(tower), 2),
        "rows": args.rows,
        "files": len(files),
        "product, TFLOP/s": {kind: round(each, 2) for kind, each in limits.items()},
        "decoding alone, images/s": decoders,
        "ways": rows,
    }


def ways(args: argparse.Namespace) -> dict[str, Callable[[], Way]]:
    """Each way, by name: what makes it."""
    return {
        "nshot, bf16": partial(ours, args, "bf16"),
        "transformers, bf16": partial(transformers, args),
        "open_clip, bf16": partial(open_clip, args),
        "nshot, f32": partial(ours, args, "f32"),
        "nshot, bf16, compiled": partial(ours, args, "bf16", compiled=True),
        "transformers, bf16, compiled": partial(transformers, args, compiled=True),
    }


def ours(args: argparse.Namespace, precision: encoders.Precision, *, compiled: bool = False) -> Way:
    encoder = encoders.load(
        find(args.model), device=args.device, precision=precision, runtime="torch", compiled=compiled
    )
    embedder = embedder_of(args, encoder)
    whole: Callable[[list[Path]], int] = lambda files: len(embedder.embed(files))  # noqa: E731
    return Way(precision, encoder.encode_images, whole, encoder.streams)


def embedder_of(args: argparse.Namespace, encoder: Any, processes: bool | None = None) -> nshot.Embedder:
    model = nshot.load(args.model, device="cpu")
    return nshot.Embedder(
        model.checkpoint, encoder, model.preprocessor, batch_size=args.rows, processes=processes
    )


def transformers(args: argparse.Namespace, *, compiled: bool = False) -> Way:
    from transformers import AutoImageProcessor, CLIPModel

    clip = CLIPModel.from_pretrained(args.model, dtype=torch.bfloat16).to(args.device).eval()
    processor = AutoImageProcessor.from_pretrained(args.model)
    features = torch.compile(clip.get_image_features) if compiled else clip.get_image_features

    def vectors(values: torch.Tensor) -> Any:
        found = features(pixel_values=values.to(args.device, torch.bfloat16, non_blocking=True)).pooler_output
        return (found / found.norm(dim=-1, keepdim=True)).float().cpu().numpy()

    return of_peer(args, vectors, Prepared(processor))


def open_clip(args: argparse.Namespace) -> Way:
    library = importlib.import_module("peers").open_clip_library()  # beside this file
    name = {"B/16": "ViT-B-16-quickgelu", "L/14": "ViT-L-14-quickgelu"}.get(args.arch, "ViT-B-32-quickgelu")
    clip, _, preprocess = library.create_model_and_transforms(name, precision="bf16", device=args.device)
    clip.eval()

    def vectors(values: torch.Tensor) -> Any:
        values = values.to(args.device, torch.bfloat16, non_blocking=True)
        return clip.encode_image(values, normalize=True).float().cpu().numpy()

    return of_peer(args, vectors, preprocess, side=clip.visual.image_size[0])


def of_peer(
    args: argparse.Namespace, vectors: Callable[[torch.Tensor], Any], prepare: Any, side: int | None = None
) -> Way:
    """A peer's vectors of pixel values, and its way to prepare one image."""

    def encode(pixels: Pixels) -> Any:
        if side is not None and side != pixels.shape[-1]:  # random weights of another size
            pixels = np.zeros((len(pixels), 3, side, side), np.uint8)
        with torch.inference_mode():
            return vectors(torch.from_numpy(pixels) / 255)

    loaders: list[Any] = []  # its workers start in the warm-up and stay

    def whole(files: list[Path]) -> int:
        if not loaders:
            loaders.append(
                torch.utils.data.DataLoader(
                    Files(files, prepare),
                    batch_size=args.rows,
                    num_workers=CORES if CORES > 2 else 0,
                    persistent_workers=CORES > 2,
                    pin_memory=args.device == "cuda",
                )
            )
        with torch.inference_mode():
            return sum(len(vectors(values)) for values in loaders[0])

    return Way("bf16", encode, whole)


class Files(torch.utils.data.Dataset):  # type: ignore[misc]
    """Images as a peer prepares them, one at a time."""

    def __init__(self, files: list[Path], prepare: Callable[[Image.Image], torch.Tensor]) -> None:
        self.files = files
        self.prepare = prepare

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> torch.Tensor:
        torch.set_num_threads(1)
        return self.prepare(Image.open(self.files[number]))


class Prepared:
    """transformers' image processor for one image."""

    def __init__(self, processor: Any) -> None:
        self.processor = processor

    def __call__(self, image: Image.Image) -> torch.Tensor:
        values: torch.Tensor = self.processor(images=image, return_tensors="pt")["pixel_values"][0]
        return values


class Nothing:
    """An encoder that does no work: what is left is reading and decoding."""

    fingerprint, device, precision, dimension, streams = "nothing", "cpu", "f32", 4, 2

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def encode_images(self, pixels: Pixels) -> Floats:
        return np.full((len(pixels), self.dimension), 0.5, np.float32)


def decoding(args: argparse.Namespace, files: list[Path], *, processes: bool) -> float:
    """Files to pixels by nshot's own pipeline, images/s."""
    embedder = embedder_of(args, Nothing(args.rows), processes)
    embedder.embed(files[: 4 * CORES])
    return timed(lambda: embedder.embed(files), len(files))


def rate(way: Way, pixels: Pixels, rounds: int) -> float:
    """Images/s after a few batches that warm up."""
    with ThreadPoolExecutor(way.at_once) as pool:
        for _ in pool.map(way.encode, [pixels] * 2 * way.at_once):
            pass
        return timed(lambda: list(pool.map(way.encode, [pixels] * rounds)), rounds * len(pixels))


def end_to_end(way: Way, files: list[Path]) -> float:
    way.whole(files)  # warms up, and starts the processes that decode
    return timed(lambda: way.whole(files), len(files))


def timed(act: Callable[[], object], count: int) -> float:
    """Of so many images, per second."""
    begun = time.perf_counter()
    act()
    return count / (time.perf_counter() - begun)


def product(device: str, kind: str) -> float:
    """TFLOP/s of a matrix product, the best of some."""
    side = 8192 if device == "cuda" else 1024
    type_ = torch.bfloat16 if kind == "bf16" else torch.float32
    one, other = (torch.rand(side, side, device=device).to(type_) for _ in range(2))
    times = []
    for _ in range(10):
        begun = time.perf_counter()
        (one @ other)[0, 0].item()  # waits for it
        times.append(time.perf_counter() - begun)
    return 2 * side**3 / min(times) / 1e12


def random_checkpoint(folder: Path, arch: str) -> Path:
    """A CLIP with random weights in transformers' layout."""
    if arch == "tiny":
        from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel
        from transformers.models.clip import CLIPTextConfig

        sizes = {
            "hidden_size": 64,
            "intermediate_size": 256,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        }
        config = CLIPConfig(
            text_config=CLIPTextConfig(vocab_size=1000, **sizes).to_dict(), vision_config=sizes
        )
        CLIPModel(config).save_pretrained(folder)
        CLIPImageProcessor().save_pretrained(folder)
        (folder / "tokenizer.json").write_text("{}")  # not read here
        return folder
    importlib.import_module("families")._transformers(folder, f"CLIP {arch}")
    return folder


def photographs(given: Path | None, folder: Path, count: int) -> list[Path]:
    """So many files: those of a folder, over again where they are fewer, or JPEGs of 640x480 made here."""
    if given is None:
        folder.mkdir()
        random = np.random.default_rng(0)
        for number in range(min(count, 400)):
            coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8))
            image = np.asarray(coarse.resize((640, 480), Image.Resampling.BICUBIC)).astype(np.int16)
            image += random.integers(-8, 9, (480, 640, 1), np.int16)  # as much detail as a photograph has
            Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(
                file := io.BytesIO(), "JPEG", quality=90
            )
            (folder / f"{number:04}.jpg").write_bytes(file.getvalue())
        given = folder
    files = sorted(path for path in given.iterdir() if path.is_file())
    return [files[number % len(files)] for number in range(count)]


def table(found: dict[str, Any]) -> str:
    """As bench/README.md shows it."""
    columns = ["tower alone, images/s", "share", "end to end, images/s", "cosine"]
    rows: list[Iterable[str]] = [["way", *columns], ["---"] * 5]
    for name, each in found["ways"].items():
        told = [str(each.get(column, "")) for column in columns]
        rows.append([name, *told[:-1], each.get("missing", told[-1])])
    limits, alone = found["product, TFLOP/s"], found["decoding alone, images/s"]
    return "\n".join(
        [
            f"{found['device']}, {found['cores']} cores, torch {found['torch']}; CLIP {found['architecture']}"
            f" of {found['gflop']} GFLOP per image, batches of {found['rows']}. The device's own product:",
            f"{limits['bf16']} TFLOP/s in bf16, {limits['f32']} in f32. Decoding alone: {alone['threads']}",
            f"images/s by threads, {alone['processes']} by processes.",
            "",
            *("| " + " | ".join(row) + " |" for row in rows),
        ]
    )


if __name__ == "__main__":
    main()
