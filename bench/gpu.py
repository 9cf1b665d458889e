"""A GPU: images/s of the image tower alone and end to end, with transformers and open_clip in the same run.

    python bench/gpu.py --model CHECKPOINT --images FOLDER            # on a machine with a cuda GPU
    python bench/gpu.py --model CHECKPOINT --images FOLDER --device cpu --rows 16 --rounds 2   # the same code

Each way runs in turn in one process, on the same random pixels (the tower alone: pixels on the host, vectors
back on the host) and on the same files (end to end). "product" is the GPU's own product of two 8192 x 8192
matrices in bf16, and "share" what each way's multiplications come to against it. A peer that is not installed
is a row that says so. Weights of open_clip are random: time does not depend on them.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import nshot
from nshot import encoders
from nshot.encoders import Device
from nshot.models.checkpoint import find
from nshot.models.operations import gflop


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", type=Path, required=True, help="a folder of images, for end to end")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--rows", type=int, default=256, help="images in a batch")
    parser.add_argument("--rounds", type=int, default=20, help="batches that are timed")
    parser.add_argument("--open-clip", default="ViT-B-32-quickgelu", help="the same architecture there")
    args = parser.parse_args()
    print(json.dumps(measured(args), indent=1))


def measured(args: argparse.Namespace) -> dict[str, Any]:
    """Every figure."""
    device: Device = args.device
    checkpoint = find(args.model)
    side = checkpoint.config.vision.image_size
    pixels = np.random.default_rng(0).integers(0, 256, (args.rows, 3, side, side), np.uint8)
    limit = product(device)
    work = gflop(checkpoint.config.vision) / 1000
    rows: dict[str, Any] = {}
    for name, make in ways(args, device).items():
        try:
            encode, whole = make()
            alone = rate(encode, pixels, args.rounds, device)
            rows[name] = {
                "tower alone, images/s": round(alone, 1),
                "share of the product": round(alone * work / limit, 3),
                "end to end, images/s": round(whole(), 1),
            }
        except (ImportError, SystemExit) as missing:
            rows[name] = {"missing": str(missing)}
    name = torch.cuda.get_device_name() if device == "cuda" else device
    return {"device": name, "product, bf16 TFLOP/s": round(limit, 2), "ways": rows}


def ways(args: argparse.Namespace, device: Device) -> dict[str, Callable[[], tuple[Any, Any]]]:
    """Each way: what makes (pixels -> vectors, () -> images/s end to end)."""
    files = sorted(path for path in args.images.iterdir() if path.is_file())

    def ours(precision: encoders.Precision, *, compiled: bool) -> tuple[Any, Any]:
        encoder = encoders.load(
            find(args.model), device=device, precision=precision, runtime="torch", compiled=compiled
        )
        model = nshot.load(args.model, device="cpu")
        whole = nshot.Embedder(model.checkpoint, encoder, model.preprocessor, batch_size=args.rows)
        return encoder.encode_images, lambda: timed(lambda: whole.embed(files), len(files))

    def transformers() -> tuple[Any, Any]:
        from transformers import CLIPModel, CLIPProcessor

        clip = CLIPModel.from_pretrained(args.model, dtype=torch.bfloat16).to(device).eval()
        processor = CLIPProcessor.from_pretrained(args.model)

        def encode(pixels: Any) -> Any:
            with torch.inference_mode():
                x = torch.from_numpy(pixels).to(device).to(torch.bfloat16) / 255
                return clip.get_image_features(pixel_values=x).pooler_output.float().cpu().numpy()

        def whole() -> None:
            for start in range(0, len(files), args.rows):
                images = [Image.open(path) for path in files[start : start + args.rows]]
                values = processor(images=images, return_tensors="pt")["pixel_values"]
                with torch.inference_mode():
                    clip.get_image_features(
                        pixel_values=values.to(device, torch.bfloat16)
                    ).pooler_output.cpu()

        return encode, lambda: timed(whole, len(files))

    def open_clip() -> tuple[Any, Any]:
        library = importlib.import_module("peers").open_clip_library()  # beside this file
        clip, _, preprocess = library.create_model_and_transforms(
            args.open_clip, precision="bf16", device=device
        )
        clip.eval()

        def encode(pixels: Any) -> Any:
            with torch.inference_mode():
                x = torch.from_numpy(pixels).to(device).to(torch.bfloat16) / 255
                return clip.encode_image(x, normalize=True).float().cpu().numpy()

        def whole() -> None:
            for start in range(0, len(files), args.rows):
                values = torch.stack(
                    [preprocess(Image.open(path)) for path in files[start : start + args.rows]]
                )
                with torch.inference_mode():
                    clip.encode_image(values.to(device, torch.bfloat16), normalize=True).cpu()

        return encode, lambda: timed(whole, len(files))

    return {
        "nshot, bf16": lambda: ours("bf16", compiled=False),
        "nshot, bf16, compiled": lambda: ours("bf16", compiled=True),
        "nshot, f32": lambda: ours("f32", compiled=False),
        "transformers, bf16": transformers,
        "open_clip, bf16": open_clip,
    }


def rate(encode: Callable[[Any], Any], pixels: Any, rounds: int, device: str) -> float:
    """Images/s after two batches that warm up."""
    for _ in range(2):
        encode(pixels)
    return timed(lambda: [encode(pixels) for _ in range(rounds)], rounds * len(pixels))


def timed(act: Callable[[], Any], count: int) -> float:
    """Of so many images, per second."""
    begun = time.perf_counter()
    act()
    return count / (time.perf_counter() - begun)


def product(device: str) -> float:
    """TFLOP/s of a matrix product in bf16, the best of some."""
    side = 8192 if device == "cuda" else 1024
    one, other = (torch.rand(side, side, device=device).to(torch.bfloat16) for _ in range(2))
    times = []
    for _ in range(10):
        begun = time.perf_counter()
        (one @ other)[0, 0].item()  # waits for it
        times.append(time.perf_counter() - begun)
    return 2 * side**3 / min(times) / 1e12


if __name__ == "__main__":
    main()
