"""The code for cuda on a machine that has none: torch is told "cuda" and computes on the CPU.

What comes down without waiting stays away until its stream was waited for, and what goes up must not be
overwritten before: the copies of a GPU, at their latest.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import tiny_checkpoint

from nshot import encoders
from nshot.errors import DeviceError
from nshot.models.checkpoint import find
from nshot.types import Pixels

torch = pytest.importorskip("torch", reason="the [torch] extra is not installed")
TorchFunctionMode: Any = importlib.import_module("torch.overrides").TorchFunctionMode
pytest.importorskip("transformers", reason="the [torch] extra is not installed")
pytestmark = pytest.mark.parity


class Pretended:
    """A GPU that is none.

    Attributes:
        waits: how often a stream was waited for.
        pinned: how many blocks of pinned memory were asked for.
    """

    def __init__(self) -> None:
        self.waits = self.pinned = 0
        self._later: list[tuple[Any, Any]] = []
        self._going_up: list[tuple[Any, Any]] = []

    def synchronize(self) -> None:
        for host, was in self._going_up:
            assert torch.equal(host, was), "pinned memory was overwritten while it was read"
        for host, values in self._later:
            host.copy_(values)
        self._later.clear()
        self._going_up.clear()
        self.waits += 1

    @contextmanager
    def here(self) -> Iterator[None]:
        gpu = self

        class Mode(TorchFunctionMode):  # type: ignore[misc]
            def __torch_function__(self, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                kwargs = dict(kwargs or {})
                later = kwargs.pop("non_blocking", False)
                if kwargs.pop("pin_memory", False):
                    gpu.pinned += 1
                    return f(*args, **kwargs).fill_(0x7F)  # never zero by chance
                if f is torch.Tensor.copy_ and later:
                    gpu._later.append((args[0], args[1].clone()))
                    return args[0]
                up = f is torch.Tensor.to and later
                if up:
                    gpu._going_up.append((args[0], args[0].clone()))
                args = tuple("cpu" if isinstance(each, str) and each == "cuda" else each for each in args)
                kwargs = {key: "cpu" if str(each) == "cuda" else each for key, each in kwargs.items()}
                return f(*args, **kwargs).clone() if up else f(*args, **kwargs)

        with Mode():
            yield


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Pretended:
    made, autocast = Pretended(), torch.autocast
    monkeypatch.setattr("nshot.encoders.torch._devices", lambda: ["cuda", "cpu"])
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda _=True: True)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: made)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    for name in ("synchronize", "empty_cache"):
        monkeypatch.setattr(torch.cuda, name, lambda: None)
    monkeypatch.setattr(torch, "autocast", lambda _, kind: autocast("cpu", kind))
    return made


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NSHOT_CACHE", str(tmp_path / "cache"))
    made = tmp_path / "clip"
    made.mkdir()
    tiny_checkpoint(made)
    return made


def pixels_of(folder: Path, rows: int) -> Pixels:
    side = find(folder).config.vision.image_size
    return np.random.default_rng(0).integers(0, 256, (rows, 3, side, side), np.uint8)


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_through_pinned_memory_and_streams_the_vectors_are_those_of_the_cpu(
    folder: Path, gpu: Pretended, precision: encoders.Precision
) -> None:
    plain = encoders.load(find(folder), device="cpu", precision=precision, runtime="torch")
    with gpu.here():
        encoder = encoders.load(find(folder), device="cuda", precision=precision)
        assert (encoder.device, encoder.precision, encoder.streams) == ("cuda", precision, 2)
        for rows in (300, 7, 300):  # more than a batch, fewer in the same memory, and as many again
            pixels = pixels_of(folder, rows)
            found = encoder.encode_images(pixels)
            np.testing.assert_allclose(found, plain.encode_images(pixels), rtol=0, atol=1e-6)
        tokens = np.full((5, find(folder).config.text.context), 3)
        tokens[:, 4] = tokens.max() + np.arange(5)
        np.testing.assert_allclose(
            encoder.encode_tokens(tokens), plain.encode_tokens(tokens), rtol=0, atol=1e-6
        )
        vectors, patches = encoder.encode_patches(pixels_of(folder, 3))
        expected = plain.encode_patches(pixels_of(folder, 3))
        np.testing.assert_allclose(vectors, expected[0], rtol=0, atol=1e-6)
        np.testing.assert_allclose(patches, expected[1], rtol=0, atol=1e-6)
    assert gpu.pinned > 0
    assert gpu.waits == 2 + 1 + 2 + 1 + 1  # once for each batch


def test_on_a_gpu_auto_is_bf16_and_batches_are_sized_by_their_patches(folder: Path, gpu: Pretended) -> None:
    with gpu.here():
        encoder = encoders.load(find(folder), device="cuda")
    assert encoder.precision == "bf16"
    assert encoder.batch == 256


def test_a_gpu_without_room_is_an_error_and_one_with_little_gives_smaller_batches(
    folder: Path, gpu: Pretended, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels, tower = pixels_of(folder, 20), find(folder).config.vision
    plain = encoders.load(find(folder), device="cpu", precision="f32", runtime="torch").encode_images(pixels)
    room = 5

    def short(ops: Any, weights: Any, x: Any) -> Any:
        if len(x) > room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return tower(ops, weights, x)

    with gpu.here():
        encoder = encoders.load(find(folder), device="cuda", precision="f32")
        monkeypatch.setattr(encoder, "_tower", short)
        np.testing.assert_allclose(encoder.encode_images(pixels), plain, rtol=0, atol=1e-6)
        room = 0
        with pytest.raises(DeviceError, match="too short for one image"):
            encoder.encode_images(pixels)


def test_in_bf16_matrices_lie_in_half_the_memory_and_vectors_are_the_same_bits(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = pixels_of(folder, 9)
    encoder = encoders.load(find(folder), device="cpu", precision="bf16", runtime="torch")
    found = encoder.encode_images(pixels)
    weights: dict[str, Any] = encoder._loaded["images"]  # type: ignore[attr-defined]
    low = {name for name, each in weights.items() if each.dtype == torch.bfloat16}
    assert "vision_model.embeddings.patch_embedding.weight" in low
    assert any("fc1.weight" in name for name in low)
    assert not any("norm" in name or "position" in name or name.endswith("bias") for name in low)
    monkeypatch.setattr("nshot.encoders.torch.multiplied", lambda *_: frozenset())
    autocast = encoders.load(find(folder), device="cpu", precision="bf16", runtime="torch")
    assert np.array_equal(autocast.encode_images(pixels), found)
