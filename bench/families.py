"""Images per second end to end, each family beside its reference in torch, in one run, alternating.

    .venv-parity/bin/python bench/families.py [--images 64] [--rounds 3]

Weights are random, of the full sizes of the image towers: arithmetic and cost are those of the published
models. From JPEG files of 640x480 in memory to vectors. The reference decodes with Pillow, prepares with its
own processor and runs in batches of 16 in torch f32. Processor seconds are compared too: they hold on a busy
machine.
"""

from __future__ import annotations

import argparse
import io
import json
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
from nshot.model import Model  # noqa: E402

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
    args = parser.parse_args()
    files = _photos(args.images)
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
            model = nshot.load(folder, device="cpu", precision=args.precision)
            ours, theirs = _times(model, reference, files, args.rounds)
            wall, processor = (min(t[i] for t in theirs) / min(t[i] for t in ours) for i in (0, 1))
            speed, beside = (len(files) / min(t[0] for t in times) for times in (ours, theirs))
            print(f"{name:24} {speed:10.1f} {beside:10.1f} {wall:6.2f} {processor:20.2f}", flush=True)


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
