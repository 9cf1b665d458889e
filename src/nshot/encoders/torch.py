"""CLIP as transformers runs it, for GPUs; on a CPU the reference that the other runtime is held to."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import CLIPConfig, CLIPModel
from transformers.utils import logging

from nshot.encoders import Precision, digest_of
from nshot.errors import DeviceError
from nshot.types import Floats, Pixels, Tokens

if TYPE_CHECKING:
    from nshot.models.checkpoint import Checkpoint


def best_device() -> str:
    """The first that torch sees here of cuda, mps and cpu."""
    return next(name for name in ("cuda", "mps", "cpu") if name in _devices())


class TorchEncoder:
    """transformers' CLIPModel, loaded when it is first used; see ``nshot.encoders.Encoder``.

    Args:
        checkpoint: from ``nshot.models.checkpoint.find``.
        device: "cuda", "mps" or "cpu".
        precision: "bf16" is torch's autocast; "auto" is bf16 on a cuda GPU that has it, else f32.

    Raises:
        DeviceError: torch does not see the device.
    """

    streams = 1

    def __init__(self, checkpoint: Checkpoint, device: str, precision: Precision = "auto") -> None:
        if device not in _devices():
            raise DeviceError(
                f"torch {torch.__version__} sees no {device} device here: it has {' and '.join(_devices())}."
            )
        if precision == "auto":
            precision = "bf16" if device == "cuda" and torch.cuda.is_bf16_supported(False) else "f32"
        self.device = device
        self.precision: str = precision
        self.dimension = checkpoint.config.projection_dim
        self.batch = 16 if device == "cpu" else 64
        self.fingerprint = digest_of(checkpoint, "torch", self.precision)
        self._checkpoint = checkpoint
        self._lock = threading.Lock()
        self._loaded: Any = None
        self._shift, self._scale = (
            torch.tensor(values, device=device).view(1, 3, 1, 1)
            for values in (checkpoint.image_mean, checkpoint.image_std)
        )

    def encode_images(self, pixels: Pixels) -> Floats:
        """uint8[n,3,s,s] (RGB, not normalised) -> float32[n,d], unit norm."""

        def run(part: Any) -> Any:
            normalised = (part.float() / 255 - self._shift) / self._scale
            return self._model().get_image_features(pixel_values=normalised)

        return self._batches(pixels, run)

    def encode_tokens(self, tokens: Tokens) -> Floats:
        """int64[n,context] -> float32[n,d], unit norm."""
        return self._batches(tokens, lambda part: self._model().get_text_features(input_ids=part))

    def _batches(self, rows: NDArray[Any], run: Any) -> Floats:
        vectors = np.empty((len(rows), self.dimension), np.float32)
        with ExitStack() as context:
            context.enter_context(torch.inference_mode())
            # f32 means f32: cudnn would take TensorFloat-32 for the patches
            context.enter_context(torch.backends.cudnn.flags(enabled=True, allow_tf32=False))
            if self.precision == "bf16":
                context.enter_context(torch.autocast(self.device, torch.bfloat16))
            for start in range(0, len(rows), self.batch):
                part = torch.from_numpy(np.array(rows[start : start + self.batch])).to(self.device)
                found = run(part).pooler_output.float()
                found = found / found.norm(dim=-1, keepdim=True).clamp_min(1e-6)
                vectors[start : start + self.batch] = found.cpu().numpy()
        return vectors

    def _model(self) -> Any:
        with self._lock:
            if self._loaded is None:
                with _no_progress_bar():
                    # nshot's own reader of weights: nothing is executed, and any place of the files will do
                    tensors = self._checkpoint.tensors()
                    model = CLIPModel.from_pretrained(
                        None,
                        config=CLIPConfig.from_pretrained(self._checkpoint.folder, local_files_only=True),
                        state_dict={name: torch.tensor(value) for name, value in tensors.items()},
                        dtype=torch.float32,
                    )
                self._loaded = model.eval().to(self.device)
            return self._loaded


@contextmanager
def _no_progress_bar() -> Iterator[None]:
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


def _devices() -> list[str]:
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [name for name, available in there.items() if available]
