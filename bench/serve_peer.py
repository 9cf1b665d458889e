"""The peer of `bench/serve.py`: LitServe with open_clip, as its documentation writes a batched server.

    python bench/serve_peer.py --port 8000 [--precision bf16] [--workers 1]

ViT-B/32 with seeded random weights: the arithmetic of the real one. It needs litserve, open_clip and torch,
in an environment of its own. Answers ``{"images": [base64], "labels": [...]}`` like nshot's own route.
"""

import argparse
import base64
import importlib.util
import io
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import litserve
import torch


def _open_clip() -> Any:
    """open_clip; PyPI's torchvision does not load its compiled operations beside a CPU build of torch.

    None of them is needed here, so that they are declared and left empty.
    """
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        raise SystemExit("open_clip needs torchvision")
    text = Path(spec.origin).with_name("_meta_registrations.py").read_text()
    names = set(re.findall(r'register_fake\("torchvision::(\w+)"\)|register_meta\("(\w+)"', text))
    library = torch.library.Library("torchvision", "DEF")
    for pair in names:
        with suppress(RuntimeError):  # it is there
            library.define(f"{''.join(pair)}(Tensor x) -> Tensor")
    _kept.append(library)
    import open_clip

    return open_clip


_kept: list[Any] = []


class Clip(litserve.LitAPI):  # type: ignore[misc]
    def __init__(self, precision: str, batch: int, timeout: float) -> None:
        super().__init__(max_batch_size=batch, batch_timeout=timeout)
        self.precision = precision

    def setup(self, device: str) -> None:
        open_clip = _open_clip()
        torch.manual_seed(0)
        torch.set_num_threads(os.cpu_count() or 1)
        self.model, _, self.preprocess = open_clip.create_model_and_transforms("ViT-B-32-quickgelu")
        self.model = self.model.eval()
        self.dtype = torch.bfloat16 if self.precision == "bf16" else torch.float32
        self.model = self.model.to(self.dtype)
        self.tokenizer = open_clip.get_tokenizer("ViT-B-32-quickgelu")
        self.known: dict[tuple[str, ...], Any] = {}

    def rows(self, labels: tuple[str, ...]) -> Any:
        if labels not in self.known:
            texts = self.tokenizer([f"a photo of a {label}" for label in labels])
            with torch.inference_mode():
                rows = self.model.encode_text(texts).float()
            self.known[labels] = rows / rows.norm(dim=-1, keepdim=True)
        return self.known[labels]

    def decode_request(self, request: dict[str, Any]) -> tuple[Any, tuple[str, ...]]:
        from PIL import Image

        image = Image.open(io.BytesIO(base64.b64decode(request["images"][0])))
        return self.preprocess(image), tuple(request["labels"])

    def predict(self, batch: list[tuple[Any, tuple[str, ...]]]) -> list[dict[str, float]]:
        with torch.inference_mode():
            pixels = torch.stack([pixels for pixels, _ in batch]).to(self.dtype)
            vectors = self.model.encode_image(pixels).float()
            vectors = vectors / vectors.norm(dim=-1, keepdim=True)
            answers = []
            for vector, (_, labels) in zip(vectors, batch, strict=True):
                scores = (100 * vector @ self.rows(labels).T).softmax(dim=-1)
                answers.append(dict(zip(labels, scores.tolist(), strict=True)))
        return answers

    def batch(self, inputs: list[Any]) -> list[Any]:
        return inputs

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: dict[str, float]) -> dict[str, Any]:
        return {"results": [output]}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--precision", choices=["f32", "bf16"], default="f32")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--wait", type=float, default=0.005, help="seconds that a batch waits for company")
    chosen = parser.parse_args()
    api = Clip(chosen.precision, chosen.batch, chosen.wait)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=chosen.workers, timeout=120)
    server.run(host="127.0.0.1", port=chosen.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
