"""The Encoder protocol and the one selector of a runtime."""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from nshot.types import Floats, Pixels, Tokens

Device: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]
Precision: TypeAlias = Literal["auto", "f32", "bf16"]


class Encoder(Protocol):
    """Two towers that put pictures and texts into one space."""

    fingerprint: str
    """Digest of the weights and of everything else that changes a vector (graph version, precision)."""

    def encode_images(self, pixels: Pixels) -> Floats:
        """uint8[n,3,s,s] (RGB, not normalised) -> float32[n,d], unit norm."""

    def encode_tokens(self, tokens: Tokens) -> Floats:
        """int64[n,context] -> float32[n,d], unit norm."""
