"""What transformers does with the same images and labels: each way a person would write it.

    python bench/peers.py WAY --model M --images FOLDER --labels FILE [--count N] [--json]

Prints one JSON object: seconds and images/s after a warm-up, and the process's own start-up times.
"""

from __future__ import annotations

import argparse
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


def tutorial(model: str, labels: list[str], files: list[str]) -> Any:
    """Labels encoded once, images in batches of 32, dot product: the tutorial's way, batched."""
    import torch
    from PIL import Image
    from transformers import CLIPModel, CLIPProcessor

    clip = CLIPModel.from_pretrained(model).eval()
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
                pixels = processor(images=images, return_tensors="pt")["pixel_values"]
                vectors = clip.get_image_features(pixel_values=pixels).pooler_output
                vectors = vectors / vectors.norm(dim=-1, keepdim=True)
                best += (vectors @ rows.T).argmax(dim=-1).tolist()
        return best

    return classify


WAYS: dict[str, Callable[..., Any]] = {
    "pipeline": documented_pipeline,
    "pipeline-32": lambda *given: documented_pipeline(*given, batch_size=32),
    "tutorial": tutorial,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("way", choices=WAYS)
    parser.add_argument("--model", required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--labels", type=Path, required=True)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--warm-up", type=int, default=4)
    args = parser.parse_args()

    labels = args.labels.read_text().splitlines()
    files = sorted(str(path) for path in args.images.iterdir())
    classify = WAYS[args.way](args.model, labels, files)
    loaded = time.perf_counter()
    if args.warm_up:
        classify(files[: args.warm_up])
    begun = time.perf_counter()
    answers = classify(files[: args.count])
    seconds = time.perf_counter() - begun
    print(
        json.dumps(
            {
                "images": len(answers),
                "seconds": seconds,
                "rate": len(answers) / seconds,
                "load_s": loaded - START,
                "process_s": time.perf_counter() - START,
                "answers": answers,
            }
        )
    )


if __name__ == "__main__":
    main()
