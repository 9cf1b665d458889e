"""The Encoder protocol and the one selector of a runtime."""

from __future__ import annotations

import hashlib
import importlib.util
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

import numpy as np

from nshot.errors import DeviceError, MissingExtra
from nshot.types import Floats, Pixels, Tokens

if TYPE_CHECKING:
    from nshot.models.checkpoint import Checkpoint

Device: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]
Precision: TypeAlias = Literal["auto", "f32", "bf16", "f32-small", "int8"]
CPU_ONLY = ("f32-small", "int8")
"""Precisions that torch does not have."""

Runtime: TypeAlias = Literal["auto", "openvino", "torch"]


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What a detector says of each patch of each image, before any question is known.

    Attributes:
        boxes: float32[n,p,4], middle x and y, width and height, as shares of the padded square's side.
        objectness: float32[n,p], logits of showing a thing at all.
        classes: float32[n,p,d], vectors of what is there, of unit norm.
        shift: float32[n,p], added to a cosine.
        scale: float32[n,p], what the sum is multiplied by, positive.
    """

    boxes: Floats
    objectness: Floats
    classes: Floats
    shift: Floats
    scale: Floats

    @classmethod
    def of(cls, found: Sequence[Floats]) -> Detections:
        """What a graph gave: the last axis of all but boxes and classes is 1, and classes have any length."""
        boxes, objectness, classes, shift, scale = found
        length = np.linalg.norm(classes, axis=-1, keepdims=True)
        return cls(
            boxes, objectness[..., 0], classes / (length + np.float32(1e-6)), shift[..., 0], scale[..., 0]
        )

    def logits(self, queries: Floats) -> Floats:
        """How well each box fits each query: float32[q,d] of unit norm -> float32[n,p,q]."""
        found: Floats = (self.classes @ queries.T + self.shift[..., None]) * self.scale[..., None]
        return found


class Encoder(Protocol):
    """Two towers that put images and texts into one space. Safe to use from several threads at once."""

    fingerprint: str
    """Digest of the weights and of all else that changes a vector: normalisation, graph, precision."""

    device: str
    """Where it runs: "cpu", "cuda" or "mps"."""

    precision: str
    """What it computes in, "f32" or "bf16": what runs, which may be more exact than what was asked for."""

    dimension: int
    """Length d of the vectors."""

    streams: int
    """How many calls of ``encode_images`` at once pay off."""

    batch: int
    """How many images a call should bring; any number will do, and gives the same vectors."""

    def encode_images(self, pixels: Pixels) -> Floats:
        """uint8[n,3,s,s] (RGB, not normalised) -> float32[n,d], unit norm."""

    def encode_patches(self, pixels: Pixels) -> tuple[Floats, Floats]:
        """The same vectors, bit for bit, and a vector per patch: float32[n,d], float32[n,p,d], unit norm.

        Patches go row by row from the upper left; ``ImageTower.grid`` says how many there are in a row.
        """

    def encode_tokens(self, tokens: Tokens) -> Floats:
        """int64[n,context] -> float32[n,d], unit norm."""

    def detect(self, pixels: Floats) -> Detections:
        """float32[n,3,s,s], normalised as the checkpoint says -> what is in each; of detectors alone."""


def load(
    checkpoint: Checkpoint,
    *,
    device: Device = "auto",
    precision: Precision = "auto",
    runtime: Runtime = "auto",
    threads: int | None = None,
    compiled: bool = False,
) -> Encoder:
    """Choose a runtime for a checkpoint. No tower is built before it is first used.

    Args:
        checkpoint: from ``nshot.models.checkpoint.find``.
        device: "auto" takes a GPU where the machine has one and torch sees it, else the CPU.
        precision: "auto" is bf16 where the processor or the GPU computes in it natively, else f32. On a
            CPU "bf16" asks for no more than "auto" does: without native bf16 it runs in f32, which is
            faster there and more exact. ``Encoder.precision`` says which. "f32-small" holds the weights in 8
            bits and computes in f32: a third of the memory, on the CPU alone. "int8" is the form that
            ``nshot.classifier.quantising.quantise`` has made on one's own images, likewise.
        runtime: "auto" is OpenVINO on a CPU and torch on a GPU.
        threads: the most that OpenVINO computes with; all cores of this process by default.
        compiled: have torch compile the image tower first, which takes a minute or so; OpenVINO always does.

    Raises:
        DeviceError: the device is not there, or the runtime does not serve it.
        MissingExtra: the runtime is not installed.
    """
    for name, value, known in (
        ("device", device, ("auto", "cpu", "cuda", "mps")),
        ("precision", precision, ("auto", "f32", "bf16", "f32-small", "int8")),
        ("runtime", runtime, ("auto", "openvino", "torch")),
    ):
        if value not in known:
            raise DeviceError(f"no {name} is called {value!r}: choose one of {', '.join(known)}.")
    if runtime == "openvino" and device in ("cuda", "mps"):
        raise DeviceError(f"OpenVINO runs on the CPU here: for {device}, leave the runtime to nshot.")
    if precision in CPU_ONLY:
        if runtime == "torch" or device in ("cuda", "mps"):
            raise DeviceError(f"the precision {precision} is for OpenVINO on the CPU, not for {device}.")
        device, runtime = "cpu", "openvino"
    if runtime == "torch" or device in ("cuda", "mps") or (runtime == device == "auto" and _may_have_gpu()):
        if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
            raise MissingExtra(
                "torch and transformers are not installed, and GPUs need them. "
                'Install them with: pip install "nshot[torch]"'
            )
        from nshot.encoders.torch import TorchEncoder, best_device

        chosen = best_device() if device == "auto" else device
        if runtime == "torch" or chosen != "cpu":
            return TorchEncoder(checkpoint, chosen, precision, compiled=compiled)
    if importlib.util.find_spec("openvino") is None:
        raise MissingExtra("openvino is not installed. Install it with: pip install openvino")
    from nshot.encoders.openvino import OpenVINOEncoder

    return OpenVINOEncoder(checkpoint, precision, threads=threads)


def gpus() -> str:
    """The GPUs that nshot could compute on here, or why there are none."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        return 'not looked for: GPUs need torch and transformers, pip install "nshot[torch]"'
    from nshot.encoders.torch import describe

    found = describe()
    if not found and _may_have_gpu():
        return "there seems to be one, but this build of torch sees none: install torch with CUDA or ROCm"
    return "; ".join(found) or "none that torch sees"


def check_int8(checkpoint: Checkpoint) -> None:
    """Refuse an int8 form that gives too few of the answers of f32, or does not pay on this machine.

    Raises:
        DeviceError: there is no form, less than 98 % of its answers are those of f32, or it is not faster.
    """
    from nshot.encoders import int8

    int8.check(checkpoint)


def digest_of(checkpoint: Checkpoint, *parts: str) -> str:
    """A digest of the weights, of the normalisation, of the family's rules, and of what else is named."""
    mean, std = checkpoint.image_mean, checkpoint.image_std
    return hashlib.sha256(
        repr((checkpoint.digest, mean, std, *checkpoint.rules, *parts)).encode()
    ).hexdigest()


def _may_have_gpu() -> bool:
    """Whether to spend the seconds that ``import torch`` takes: it is installed, and there is some GPU."""
    if importlib.util.find_spec("torch") is None or importlib.util.find_spec("transformers") is None:
        return False
    if sys.platform == "darwin":
        return platform.machine() == "arm64"
    if sys.platform == "win32":
        return Path(r"C:\Windows\System32\nvcuda.dll").exists()
    return Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists() or Path("/dev/dxg").exists()
