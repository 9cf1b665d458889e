"""What other libraries do with the same images and labels: each way a person would write it.

    python bench/peers.py WAY --model M --images FOLDER --labels FILE [--count N] [--json]

Prints one JSON object: seconds, processor time and images/s after a warm-up, and the process's own start-up.
"product" is the limit: the machine's own matrix product by torch, in GFLOP/s, in f32 and bf16.
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

START = time.perf_counter()


def documented_pipeline(model: str, labels: list[str], files: list[str], **options: Any) -> Any:
    """As transformers' own documentation writes it: pipeline(...)(images, candidate_labels=...)."""
    from transformers import pipeline

    classify = pipeline("zero-shot-image-classification", model=model, device="cpu")
    return lambda some: classify(
        some, candidate_labels=labels, hypothesis_template="a photo of a {}", **options
    )


def tutorial(model: str, labels: list[str], files: list[str], bf16: bool = False) -> Any:
    """Labels encoded once, images in batches of 32, dot product: the tutorial's way, batched."""
    import torch
    from PIL import Image
    from transformers import CLIPModel, CLIPProcessor

    kind = torch.bfloat16 if bf16 else torch.float32
    clip = CLIPModel.from_pretrained(model, dtype=kind).eval()
    processor = CLIPProcessor.from_pretrained(model)
    with torch.inference_mode():
        texts = processor(
            text=[f"a photo of a {label}" for label in labels], return_tensors="pt", padding=True
        )
        rows = clip.get_text_features(**texts).pooler_output
        rows = rows / rows.norm(dim=-1, keepdim=True)

    def classify(some: list[str]) -> list[int]:
        best: list[int] = []
        with torch.inference_mode():
            for start in range(0, len(some), 32):
                images = [Image.open(path) for path in some[start : start + 32]]
                pixels = processor(images=images, return_tensors="pt")["pixel_values"].to(kind)
                vectors = clip.get_image_features(pixel_values=pixels).pooler_output
                vectors = vectors / vectors.norm(dim=-1, keepdim=True)
                best += (vectors @ rows.T).argmax(dim=-1).tolist()
        return best

    return classify


def open_clip_library() -> Any:
    """The library, with a torchvision that stands apart (``make bench``) where none is installed.

    A torchvision of another build of torch cannot load its compiled operations, which open_clip never calls:
    they are declared and left empty.
    """
    import importlib.util
    import re
    import sys

    import torch

    if importlib.util.find_spec("torchvision") is None:
        sys.path.append(str(Path(sys.prefix) / "apart"))
        spec = importlib.util.find_spec("torchvision")
        if spec is None or spec.origin is None:
            raise SystemExit("torchvision, which open_clip needs, is not installed")
        text = Path(spec.origin).with_name("_meta_registrations.py").read_text()
        library = torch.library.Library("torchvision", "DEF")
        for pair in set(re.findall(r'register_fake\("torchvision::(\w+)"\)|register_meta\("(\w+)"', text)):
            library.define(f"{''.join(pair)}(Tensor x) -> Tensor")
        sys.modules["nshot_torchvision_operations"] = library
    import open_clip

    return open_clip


def open_clip(model: str, labels: list[str], files: list[str], bf16: bool = False) -> Any:
    """open_clip's own README: preprocess each image, encode_image in batches of 32. Weights are random."""
    import torch
    from PIL import Image

    library = open_clip_library()
    kind = torch.bfloat16 if bf16 else torch.float32
    clip, _, preprocess = library.create_model_and_transforms(
        "ViT-B-32-quickgelu", precision="bf16" if bf16 else "fp32"
    )
    clip.eval()
    tokenizer = library.get_tokenizer("ViT-B-32-quickgelu")
    with torch.inference_mode():
        rows = clip.encode_text(tokenizer([f"a photo of a {label}" for label in labels]), normalize=True)

    def classify(some: list[str]) -> list[int]:
        best: list[int] = []
        with torch.inference_mode():
            for start in range(0, len(some), 32):
                pixels = torch.stack([preprocess(Image.open(path)) for path in some[start : start + 32]])
                vectors = clip.encode_image(pixels.to(kind), normalize=True)
                best += (vectors @ rows.T).argmax(dim=-1).tolist()
        return best

    return classify


def sentence_transformers(model: str, labels: list[str], files: list[str]) -> Any:
    """SentenceTransformer over a CLIP, as its documentation writes it, in its batches of 32."""
    from PIL import Image
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import CLIPModel

    clip = SentenceTransformer(modules=[CLIPModel(model)], device="cpu")
    rows = clip.encode([f"a photo of a {label}" for label in labels], normalize_embeddings=True)

    def classify(some: list[str]) -> list[int]:
        best: list[int] = []
        for start in range(0, len(some), 32):
            images = [Image.open(path) for path in some[start : start + 32]]
            best += (clip.encode(images, normalize_embeddings=True) @ rows.T).argmax(axis=-1).tolist()
        return best

    return classify


def onnx(model: str, labels: list[str], files: list[str]) -> Any:
    """The image tower exported to ONNX and run by ONNX Runtime, in batches of 32."""
    import tempfile

    import onnxruntime
    import torch
    from PIL import Image
    from transformers import CLIPModel, CLIPProcessor

    clip = CLIPModel.from_pretrained(model, attn_implementation="eager").eval().requires_grad_(False)
    processor = CLIPProcessor.from_pretrained(model)

    class Tower(torch.nn.Module):  # type: ignore[misc]
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = clip.get_image_features(pixel_values=pixels).pooler_output
            return found / found.norm(dim=-1, keepdim=True)

    with torch.inference_mode():
        texts = [f"a photo of a {label}" for label in labels]
        found = clip.get_text_features(**processor(text=texts, return_tensors="pt", padding=True))
        rows = (found.pooler_output / found.pooler_output.norm(dim=-1, keepdim=True)).numpy()
    path = Path(tempfile.mkdtemp()) / "tower.onnx"
    side = clip.config.vision_config.image_size
    torch.onnx.export(
        Tower(),
        (torch.zeros(2, 3, side, side),),
        str(path),
        input_names=["pixels"],
        dynamic_axes={"pixels": {0: "n"}},
        dynamo=False,
    )
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def classify(some: list[str]) -> list[int]:
        best: list[int] = []
        for start in range(0, len(some), 32):
            images = [Image.open(each) for each in some[start : start + 32]]
            pixels = processor(images=images, return_tensors="np")["pixel_values"]
            best += (session.run(None, {"pixels": pixels})[0] @ rows.T).argmax(axis=-1).tolist()
        return best

    return classify


def product() -> dict[str, float]:
    """GFLOP/s of the machine's own matrix product, the best of some, by torch; bf16 where it is native."""
    import torch

    found = {}
    for name, kind in (("f32", torch.float32), ("bf16", torch.bfloat16)):
        one, other = (torch.rand(2048, 2048).to(kind) for _ in range(2))
        times, processor = [], []
        for _ in range(8):
            begun, used = time.perf_counter(), time.process_time()
            one @ other
            times.append(time.perf_counter() - begun)
            processor.append(time.process_time() - used)
        found[f"gflops_{name}"] = 2 * 2048**3 / min(times) / 1e9
        found[f"gflops_{name}_per_processor_second"] = 2 * 2048**3 / min(processor) / 1e9
    return found


WAYS: dict[str, Callable[..., Any]] = {
    "pipeline": documented_pipeline,
    "pipeline-32": lambda *given: documented_pipeline(*given, batch_size=32),
    "tutorial": tutorial,
    "tutorial-bf16": functools.partial(tutorial, bf16=True),
    "open_clip": open_clip,
    "open_clip-bf16": functools.partial(open_clip, bf16=True),
    "sentence-transformers": sentence_transformers,
    "onnx": onnx,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("way", choices=[*WAYS, "product"])
    parser.add_argument("--model")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--labels", type=Path)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--warm-up", type=int, default=4)
    args = parser.parse_args()

    if args.way == "product":
        print(json.dumps(product()))
        return
    labels = args.labels.read_text().splitlines()
    files = sorted(str(path) for path in args.images.iterdir())
    classify = WAYS[args.way](args.model, labels, files)
    loaded = time.perf_counter()
    if args.warm_up:
        classify(files[: args.warm_up])
    begun, used = time.perf_counter(), time.process_time()
    answers = classify(files[: args.count])
    seconds, used = time.perf_counter() - begun, time.process_time() - used
    print(
        json.dumps(
            {
                "images": len(answers),
                "seconds": seconds,
                "processor_ms": 1000 * used / len(answers),
                "rate": len(answers) / seconds,
                "load_s": loaded - START,
                "process_s": time.perf_counter() - START,
                "answers": answers,
            }
        )
    )


if __name__ == "__main__":
    main()
