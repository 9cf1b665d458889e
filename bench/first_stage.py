"""A first stage for the sketchbook's model: its tower over images of 24 pixels, taught to give its vectors.

    python bench/first_stage.py bench/out/first      # needs torch; some minutes

It sees 9 patches where the shipped model sees 36, and takes a quarter of the operations. It starts from the
shipped weights, with the places of four patches averaged into one, and learns from drawings alone: its vector
of a drawing, and its answer among 144 labels, should be the shipped model's. ``bench/cascade.py`` puts it in
front of that model.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SEED = 4_000_000
NAMED = "a picture of a {}"
POSITIONS = "vision_model.embeddings.position_embedding.weight"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--drawings", type=int, default=12_000)
    parser.add_argument("--epochs", type=int, default=30)
    args = parser.parse_args()
    make(args.out, args.drawings, args.epochs)


def make(out: Path, count: int, epochs: int) -> None:
    """Write the checkpoint, in the layout of transformers."""
    import torch
    from safetensors.torch import load_file, save_file
    from transformers import CLIPConfig, CLIPVisionModelWithProjection

    import nshot
    from nshot import encoders
    from nshot.models.checkpoint import find
    from nshot.sketchbook import COLOURS, SHAPES
    from nshot.sketchbook.pairs import drawings

    torch.manual_seed(0)
    shipped = find("sketchbook")
    copy_of(shipped.folder, out)
    pixels = drawings(out.parent / "drawings", count, SEED)
    target = torch.from_numpy(encoders.load(shipped, device="cpu", precision="f32").encode_images(pixels))
    small = torch.from_numpy(halved(pixels))
    tensors = load_file(out / "model.safetensors")
    config = CLIPConfig.from_pretrained(out)
    config.vision_config.projection_dim = config.projection_dim
    model = CLIPVisionModelWithProjection(config.vision_config)
    own = {name: tensors[name].float() for name in model.state_dict() if name in tensors}
    model.load_state_dict(own, strict=False)
    mean, std = (torch.tensor(each).view(1, 3, 1, 1) for each in (shipped.image_mean, shipped.image_std))
    labels = nshot.zero_shot(
        nshot.load("sketchbook", precision="f32"), [f"{a} {b}" for a in COLOURS for b in SHAPES], [NAMED]
    )
    rows_of = torch.from_numpy(labels.matrix).T * float(labels.scale[0])
    wanted = (target @ rows_of).softmax(dim=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-3)
    steps = epochs * (count // 256)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
    for epoch in range(epochs):
        total = 0.0
        for rows in torch.randperm(count)[: count // 256 * 256].split(256):
            vectors = model(pixel_values=(small[rows].float() / 255 - mean) / std).image_embeds
            vectors = torch.nn.functional.normalize(vectors, dim=1)
            cosine = (vectors * target[rows]).sum(dim=1).mean()
            answers = (vectors @ rows_of).log_softmax(dim=1)
            loss = 1 - cosine - (wanted[rows] * answers).sum(dim=1).mean() / 4
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += cosine.item()
        print(f"epoch {epoch + 1}: cosine with the shipped model {total * 256 / count:.4f}", flush=True)
    learnt = {name: value.half() for name, value in model.state_dict().items() if name in tensors}
    save_file(tensors | learnt, out / "model.safetensors", metadata={"format": "pt"})


def copy_of(folder: Path, out: Path) -> None:
    """The shipped checkpoint at half its image size."""
    from safetensors.numpy import load_file, save_file

    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(folder, out)
    tensors = load_file(out / "model.safetensors")
    places = tensors[POSITIONS].astype(np.float32)
    side = round((len(places) - 1) ** 0.5)
    grid = places[1:].reshape(side // 2, 2, side // 2, 2, -1).mean(axis=(1, 3)).reshape(side**2 // 4, -1)
    tensors[POSITIONS] = np.concatenate([places[:1], grid]).astype(tensors[POSITIONS].dtype)
    save_file(tensors, out / "model.safetensors", metadata={"format": "pt"})
    for name, part in (("config.json", "vision_config"), ("preprocessor_config.json", None)):
        settings: dict[str, Any] = json.loads((out / name).read_text())
        _halve(settings if part is None else settings[part])
        (out / name).write_text(json.dumps(settings, indent=2))


def _halve(settings: dict[str, Any]) -> None:
    for name in ("image_size", "size", "crop_size"):
        if isinstance(value := settings.get(name), dict):
            settings[name] = {key: side // 2 for key, side in value.items()}
        elif isinstance(value, int):
            settings[name] = value // 2


def halved(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8[n,3,s,s] at half the size, as the checkpoint's own image processor makes it."""
    from PIL import Image

    side = pixels.shape[2] // 2
    images = (Image.fromarray(each.transpose(1, 2, 0)) for each in pixels)
    small = [np.asarray(image.resize((side, side), Image.Resampling.BICUBIC)) for image in images]
    return np.stack(small).transpose(0, 3, 1, 2)


if __name__ == "__main__":
    main()
