"""Images per second end to end, each family beside its reference in torch, in one run, alternating.

    .venv-parity/bin/python bench/families.py [--images 64] [--rounds 3]
    .venv-parity/bin/python bench/families.py --product   # the towers alone against the machine's own product
    .venv-parity/bin/python bench/families.py --fraction [--precision auto]   # the same end to end, all cores
    .venv-parity/bin/python bench/families.py --memory    # SigLIP 2 base with its 256,000 tokens

Weights are random, of the full sizes of the image towers: arithmetic and cost are those of the published
models. From JPEG files of 640x480 in memory to vectors. The reference decodes with Pillow, prepares with its
own processor and runs in batches of 16 in torch f32. Processor seconds are compared too: they hold on a busy
machine. The product is numpy's of two float32 matrices of 1536 rows, on one core, in turns with the tower on
one core: floating-point operations per processor second, the median of the ratios of neighbours.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parents[1] / "src")]

from layouts import word_tokenizer, write  # noqa: E402
from open_clip_reference import load as load_open_clip  # noqa: E402

import nshot  # noqa: E402
from nshot.encoders import Precision  # noqa: E402
from nshot.model import Model  # noqa: E402
from nshot.models.operations import gflop  # noqa: E402

Reference = Callable[[list[bytes]], int]
Times = list[tuple[float, float]]  # wall and processor seconds


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", default="f32", choices=["f32", "auto"])
    parser.add_argument("--product", action="store_true")
    parser.add_argument("--fraction", action="store_true")
    parser.add_argument("--memory", action="store_true")
    args = parser.parse_args()
    if args.product:
        product(args.rounds)
    elif args.fraction:
        fraction(args.rounds, args.precision)
    elif args.memory:
        memory()
    else:
        speed(args.images, args.rounds, args.precision)


def speed(images: int, rounds: int, precision: Precision) -> None:
    """Each family beside its reference."""
    files = _photos(images)
    print(f"{'family':24} {'images/s':>10} {'reference':>10} {'times':>6} {'processor s, times':>20}")
    with tempfile.TemporaryDirectory() as top:
        kinds: dict[str, Callable[[Path], Reference]] = {
            "SigLIP B/16 (SigLIP 2)": _siglip,
            "DataComp B/32": lambda folder: _open_clip(folder, "ViT-B-32"),
            "MobileCLIP2-S0": lambda folder: _open_clip(folder, "MobileCLIP2-S0"),
        }
        for number, (name, make) in enumerate(kinds.items()):
            folder = Path(top) / str(number)
            folder.mkdir()
            reference = make(folder)
            model = nshot.load(folder, device="cpu", precision=precision)
            ours, theirs = _times(model, reference, files, rounds)
            wall, processor = (min(t[i] for t in theirs) / min(t[i] for t in ours) for i in (0, 1))
            rate, beside = (len(files) / min(t[0] for t in times) for times in (ours, theirs))
            print(f"{name:24} {rate:10.1f} {beside:10.1f} {wall:6.2f} {processor:20.2f}", flush=True)


def product(rounds: int) -> None:
    """How much of the machine's own product a tower reaches."""
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((1536, 1536), np.float32) for _ in range(2))
    width, layers, inner = 768, 12, 3072
    for name, positions, patch in (("CLIP B/32", 50, 32), ("SigLIP B/16", 196, 16)):
        with tempfile.TemporaryDirectory() as folder:
            _transformers(Path(folder), name)
            model = nshot.load(folder, device="cpu", precision="f32", threads=1)
            pixels = np.zeros((16, 3, 224, 224), np.uint8)
            each = layers * (2 * positions * (4 * width**2 + 2 * width * inner) + 4 * positions**2 * width)
            each += 2 * positions * width * 3 * patch**2
            ratios = []
            model.encoder.encode_images(pixels)
            for _ in range(5 * rounds):
                begun = time.process_time()
                for _ in range(4):
                    left @ right
                between = time.process_time()
                model.encoder.encode_images(pixels)
                ended = time.process_time()
                own = 4 * 2 * 1536**3 / (between - begun)
                ratios.append(len(pixels) * each / (ended - between) / own)
            print(
                f"{name:12} {np.median(ratios):.2f} of the product ({min(ratios):.2f} to {max(ratios):.2f})"
            )


def fraction(rounds: int, precision: Precision) -> None:
    """From files of 640x480 to vectors on all cores, against torch's product of 2048 rows, in turns."""
    import torch

    files = _photos(64)
    names = {"CLIP B/32": 64, "CLIP B/16": 32, "CLIP L/14": 12, "SigLIP B/16 (SigLIP 2)": 32}
    for name, images in names.items():
        with tempfile.TemporaryDirectory() as folder:
            _transformers(Path(folder), name)
            model = nshot.load(folder, device="cpu", precision=precision)
            kind = torch.bfloat16 if model.encoder.precision == "bf16" else torch.float32
            left, right = (torch.rand(2048, 2048).to(kind) for _ in range(2))
            model.embed([data + b"warm" for data in files[:images]])
            rates, products = [], []
            for number in range(3 * rounds):
                begun = time.perf_counter()
                for _ in range(8):
                    left @ right
                between = time.perf_counter()
                # other files to the memory of vectors
                model.embed([data + number.to_bytes(2, "big") for data in files[:images]])
                rates.append(images / (time.perf_counter() - between))
                products.append(8 * 2 * 2048**3 / (between - begun) / 1e9)
            each = gflop(model.checkpoint.config.vision)
            ratios = [rate * each / own for rate, own in zip(rates, products, strict=True)]
            print(
                f"{name:24} {model.encoder.precision} {np.median(rates):6.2f} images/s of {each:.1f} GFLOP, "
                f"product {np.median(products):.0f} GFLOP/s: {np.median(ratios):.2f} of it "
                f"({min(ratios):.2f} to {max(ratios):.2f})",
                flush=True,
            )


def memory() -> None:
    """What a process grows by while both towers of SigLIP 2 base work, its table of 786 MB beside."""
    with tempfile.TemporaryDirectory() as folder:
        _transformers(Path(folder), "SigLIP 2")
        for run in ("first, which compiles", "second"):
            command = [sys.executable, "-c", _GROWTH, folder]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            print(f"{run}: {done.stdout.strip()}")


_GROWTH = """
import io, resource, sys
import numpy as np, openvino
from PIL import Image
import nshot
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
model = nshot.load(sys.argv[1], device="cpu", precision="f32")
model.embed_texts(["a cat", "a dog"])
noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
Image.fromarray(noise).save(file := io.BytesIO(), "JPEG")
model.embed([file.getvalue() + bytes([number]) for number in range(34)])
grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
config = model.checkpoint.config
runs = sum(4 * int(np.prod(p.shape)) for name, p in config.tensors().items() if name != config.text.table)
print(f"{grown / 1e6:.0f} MB at most, {grown / runs:.2f} times the {runs / 1e6:.0f} MB of weights that run")
"""


def _transformers(folder: Path, name: str) -> None:
    """A checkpoint of full size with random weights, in transformers' layout."""
    import transformers

    text = {"vocab_size": 256_000 if name == "SigLIP 2" else 1000}
    text |= {} if name == "SigLIP 2" else {"num_hidden_layers": 1}
    if name.startswith("CLIP"):
        image = {
            "CLIP B/16": {"patch_size": 16},
            "CLIP L/14": {
                "patch_size": 14,
                "hidden_size": 1024,
                "intermediate_size": 4096,
                "num_hidden_layers": 24,
                "num_attention_heads": 16,
            },
        }.get(name, {})
        model = transformers.CLIPModel(transformers.CLIPConfig(text_config=text, vision_config=image))
        processor = transformers.CLIPImageProcessorPil()
    else:
        model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text))
        processor = transformers.SiglipImageProcessorPil()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    word_tokenizer(folder)
    if name.startswith("CLIP"):
        from nshot.train.vocabulary import learn

        learn(["a cat"]).save(str(folder / "tokenizer.json"))


def _times(model: Model, reference: Reference, files: list[bytes], rounds: int) -> tuple[Times, Times]:
    ours: Times = []
    theirs: Times = []

    def own(data: list[bytes]) -> int:
        return len(model.embed(data))

    for number in range(rounds + 1):
        for run, times in ((own, ours), (reference, theirs)):
            wall, processor = time.perf_counter(), time.process_time()
            assert run(files) == len(files)
            if number:  # the first warms up
                times.append((time.perf_counter() - wall, time.process_time() - processor))
        files[:] = [data + b"\0" for data in files]  # other files to the memory of vectors
    return ours, theirs


def _photos(count: int) -> list[bytes]:
    random = np.random.default_rng(0)
    files = []
    for _ in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (24, 32, 3), np.uint8))
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(buffer := io.BytesIO(), "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def _siglip(folder: Path) -> Reference:
    import torch
    import transformers

    config = transformers.SiglipConfig(text_config={"vocab_size": 1000, "num_hidden_layers": 1})
    model = transformers.SiglipModel(config).eval()
    model.save_pretrained(folder)
    processor = transformers.SiglipImageProcessorPil()
    processor.save_pretrained(folder)
    word_tokenizer(folder)

    def run(files: list[bytes]) -> int:
        done = 0
        with torch.inference_mode():
            for start in range(0, len(files), 16):
                images = [Image.open(io.BytesIO(data)).convert("RGB") for data in files[start : start + 16]]
                values = processor(images=images, return_tensors="pt")["pixel_values"]
                done += len(model.get_image_features(pixel_values=values).pooler_output)
        return done

    return run


def _open_clip(folder: Path, name: str) -> Reference:
    import torch
    from safetensors.torch import save_file

    open_clip, _ = load_open_clip()
    from open_clip.transform import image_transform

    config = json.loads((Path(open_clip.__file__).parent / "model_configs" / f"{name}.json").read_text())
    config["text_cfg"] |= {"layers": 1, "vocab_size": 1000}
    given = {key: value for key, value in config.items() if key != "custom_text"}
    model = (open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP)(**given).eval()
    preprocess = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"}
    write(folder / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": preprocess})
    state = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    word_tokenizer(folder)
    size = config["vision_cfg"]["image_size"]
    transform = image_transform(size, False, mean=(0.5,) * 3, std=(0.5,) * 3)

    def run(files: list[bytes]) -> int:
        done = 0
        with torch.inference_mode():
            for start in range(0, len(files), 16):
                images = [Image.open(io.BytesIO(data)) for data in files[start : start + 16]]
                done += len(model.encode_image(torch.stack([transform(image) for image in images])))
        return done

    return run


if __name__ == "__main__":
    main()
