"""`nshot doctor`: what a bug report needs."""

from __future__ import annotations

import platform
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import click
import numpy as np

import nshot
from nshot.cli.help import Command
from nshot.cli.options import ModelOptions, model_options, talk_options
from nshot.cli.options.talk import echo
from nshot.cli.store import readable
from nshot.errors import DeviceError, NshotError
from nshot.types import Pixels

if TYPE_CHECKING:
    from nshot.encoders import Encoder
    from nshot.models.checkpoint import Checkpoint

_PACKAGES = ("numpy", "pillow", "openvino", "tokenizers", "huggingface-hub", "click", "tqdm")
_EXTRAS = ("pyarrow", "torch", "transformers", "scikit-learn")
_TEXTS = ("a cat", "a photo of a dog", "two red cars before a house", "a diagram")
_FEATURES = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimd",
    "bf16",
)


@click.command("doctor", cls=Command, short_help="Say what runs here, and whether the runtimes agree.")
@model_options
@talk_options
def command(model_options: ModelOptions, quiet: bool, verbose: bool) -> int:
    """Say what runs here: versions, processor, runtime, precision, store; which precision is the fastest; and
    whether bf16 and f32, and the runtimes with each other, agree on the model. Put its output into a bug
    report.

    Exit status: 0 all is well, 1 something disagrees, 2 the model cannot be used.
    """
    from nshot.encoders import gpus
    from nshot.images.resample import in_use
    from nshot.paths import cache_dir
    from nshot.store.store import Store, default_path

    _tell("nshot", nshot.__version__)
    _tell("python", f"{platform.python_version()} on {platform.platform()}")
    for package in _PACKAGES + _EXTRAS:
        if (found := _version(package)) or package in _PACKAGES:
            _tell(package, found or "not installed")
    _tell("processor", _processor())
    _tell("gpu", gpus())
    _tell("large images", f"resized by {in_use()}")
    _tell("cache", str(cache_dir()))
    try:
        store = Store(model_options.store or default_path()).info()
        _tell("store", f"{store.path}: {readable(store.bytes)}, {store.vectors} images, {store.texts} texts")
    except NshotError as error:
        _tell("store", str(error))

    embedder = model_options.load(quiet=quiet)
    checkpoint = embedder.checkpoint
    _tell("model", f"{embedder.name}{f' at {checkpoint.revision}' if checkpoint.revision else ''}")
    config = checkpoint.config
    _tell("", f"{config.family.name}, {config.vision.image_size} px, vectors of {embedder.dimension}")
    _tell("", f"weights {embedder.space[:16]}, logit scale {embedder.logit_scale:.2f}")
    _tell(
        "runs as",
        f"{type(embedder.encoder).__name__}, {embedder.encoder.device}, {embedder.encoder.precision}",
    )
    _pays(checkpoint)
    return 0 if _agreement(checkpoint) else 1


def _pays(checkpoint: Checkpoint) -> None:
    """Processor time of an image in each precision that runs here, in turn; int8 where its form was made."""
    from nshot import encoders

    found = {"f32": encoders.load(checkpoint, device="cpu", precision="f32", runtime="openvino")}
    for name in ("bf16", "f32-small", "int8"):
        try:
            other = encoders.load(checkpoint, device="cpu", precision=name, runtime="openvino")
        except DeviceError:
            continue  # no int8 form yet
        if other.precision == name:
            found[name] = other
    pixels = _images(checkpoint, found["f32"].batch)
    times: dict[str, list[float]] = {name: [] for name in found}
    for turn in range(4):
        for name, encoder in found.items():
            begun = time.process_time()
            encoder.encode_images(pixels)
            if turn:  # the first one loads
                times[name].append((time.process_time() - begun) * 1000 / len(pixels))
    exact = min(times["f32"])
    for name, each in times.items():
        gain = "" if name == "f32" else f", {exact / min(each):.1f} times as fast as f32"
        gain += _kept(checkpoint) if name == "int8" else ""
        _tell("what pays" if name == "f32" else "", f"{name}: {min(each):.2f} ms per image{gain}")
    if "int8" not in found:
        fast = [name for name in ("avx512_vnni", "avx_vnni", "amx_int8") if name in _flags()]
        said = (
            f"has {' and '.join(fast)}: int8 may pay" if fast else "has no 8-bit products: int8 seldom pays"
        )
        _tell("", f"this processor {said}; nshot quantise measures it on your images")


def _kept(checkpoint: Checkpoint) -> str:
    """How many answers of f32 the int8 form keeps, as it was measured when it was made."""
    from nshot.encoders.int8 import LEAST, record

    report = (record(checkpoint) or {}).get("report") or {}
    if "agreement" not in report:
        return ""
    refused = "" if report["agreement"] >= LEAST else ": refused, but as a first stage (--first int8)"
    return f", {report['agreement']:.1%} of its answers were those of f32{refused}"


def _agreement(checkpoint: Checkpoint) -> bool:
    """Compare what can run here with f32 on OpenVINO, on the same seeded pixels and the same texts."""
    from nshot import encoders

    reference = encoders.load(checkpoint, device="cpu", precision="f32", runtime="openvino")
    others: list[tuple[str, Encoder, float]] = []
    low = encoders.load(checkpoint, device="cpu", precision="bf16", runtime="openvino")
    if low.precision == "bf16":
        others.append(("OpenVINO bf16", low, 0.999))
    else:
        _tell("agreement", "bf16 is not native to this processor, so f32 runs in its place")
    if _version("torch") and _version("transformers"):
        others.append(
            ("torch f32", encoders.load(checkpoint, device="cpu", precision="f32", runtime="torch"), 0.99999)
        )
    well = True
    for name, encoder, least in others:
        images, texts = (
            float(np.min(np.sum(mine * theirs, axis=1)))
            for mine, theirs in zip(
                _encoded(checkpoint, encoder), _encoded(checkpoint, reference), strict=True
            )
        )
        fine = min(images, texts) >= least
        well &= fine
        _tell(
            "agreement",
            f"{name} with OpenVINO f32: cosine {images:.6f} (images), {texts:.6f} (texts)"
            + ("" if fine else f": BELOW {least}, please report this"),
        )
    return well


def _encoded(checkpoint: Checkpoint, encoder: Encoder) -> tuple[np.ndarray, np.ndarray]:
    tokens = checkpoint.tokenizer().encode(_TEXTS)
    return encoder.encode_images(_images(checkpoint, 4)), encoder.encode_tokens(tokens)


def _images(checkpoint: Checkpoint, count: int) -> Pixels:
    rng = np.random.default_rng(0)
    side = checkpoint.config.vision.image_size
    coarse = rng.integers(0, 256, (count, 3, 8, 8), dtype=np.uint8)  # blocks of colour: images, not noise
    pixels = np.repeat(np.repeat(coarse, -(-side // 8), axis=2), -(-side // 8), axis=3)
    return np.ascontiguousarray(pixels[:, :, :side, :side])


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.exists() else ""
    name = next(
        (line.split(":", 1)[1].strip() for line in text.splitlines() if line.startswith("model name")), ""
    )
    flags = _flags()
    features = " ".join(feature for feature in _FEATURES if feature in flags)
    from os import cpu_count

    return f"{name or platform.processor() or platform.machine()}, {cpu_count()} cores {features}".strip()


def _flags() -> set[str]:
    """What the processor can do, by Linux's names."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return set(" ".join(line for line in lines if line.startswith(("flags", "Features"))).split())


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _tell(name: str, value: str) -> None:
    echo(f"{name:<16} {value}")
    sys.stdout.flush()
