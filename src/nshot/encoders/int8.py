"""The image tower in 8 bits: calibrated on a person's own images, kept, and found again.

Weights and activations of the linear maps are quantised; the convolution that cuts an image into patches
stays in f32, since nearly all of the loss comes from it. Texts stay in f32 too: they are encoded once. What
the form is worth is measured by ``nshot.classifier.quantising`` and kept beside it.

An activation's range is the largest that any image of the calibration shows, and large features are shared
out evenly between weights and activations (SmoothQuant, Xiao et al. 2022, alpha 0.5). The library's own
choices, the mean over images of each one's range and alpha 0.95, hold for images like those that they saw
alone: calibrated on drawings of single things, 6 % of the answers on drawings of several changed
(``bench/README.md``).
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, redirect_stdout, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nshot import extras
from nshot.atomic import replace, write_bytes, writing
from nshot.encoders import Encoder, digest_of, forks, openvino_graph
from nshot.encoders.runtime import ov
from nshot.errors import DeviceError, OutputError
from nshot.paths import cache_dir
from nshot.types import Pixels

if TYPE_CHECKING:
    from nshot.models.checkpoint import Checkpoint

LEAST = 0.98
"""The share of answers that must be those of f32: a form below it is for a cascade's first stage alone."""

PAYS = 1.1
"""How many times as fast as f32 int8 must be on this machine to be used by itself."""

_FORM = "3"  # to be raised by whatever makes other forms: an older one is not found again
_SMOOTH = 0.5  # SmoothQuant's alpha
_ROUNDS = 3  # of timing: the quickest counts


def record(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """What is kept of a checkpoint's int8 form: files, their digest, a report; None where there is none."""
    try:
        found: dict[str, Any] = json.loads(_place(checkpoint).read_text())
        files = [_place(checkpoint).parent / name for name in found["files"]]
        whole = all(file.is_file() for file in files) and isinstance(found["digest"], str)
        whole &= found["of"] == _place(checkpoint).stem  # not another model's, under this one's name
        return found | {"files": files} if whole else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def required(checkpoint: Checkpoint) -> dict[str, Any]:
    """The same, which must be there.

    Raises:
        DeviceError: it is not.
    """
    found = record(checkpoint)
    if found is None:
        raise DeviceError(
            f"there is no int8 form of {checkpoint.name} yet. Make one on images like those that will be "
            f"asked: nshot quantise IMAGES --labels-file LABELS --model {checkpoint.name}"
        )
    return found


def read(checkpoint: Checkpoint) -> ov.Model:
    """The quantised image tower.

    Raises:
        DeviceError: there is none, or its files are damaged.
    """
    found = required(checkpoint)
    if _digest(found["files"]) != found["digest"]:
        raise DeviceError(f"the int8 form of {checkpoint.name} is damaged: make it anew with nshot quantise")
    return ov.Core().read_model(str(found["files"][0]))


def quantise(checkpoint: Checkpoint, pixels: Pixels, *, progress: bool = False) -> None:
    """Quantise the image tower, calibrated on uint8[n,3,s,s], and keep it in the place of an earlier one.

    Args:
        checkpoint: the model.
        pixels: what activations are measured on.
        progress: let the library show on stderr how far it is.

    Raises:
        MissingExtra: nncf is not installed.
        OutputError: it cannot be kept.
    """
    nncf, place = extras.nncf(), _place(checkpoint)
    with writing(place.parent):  # rather now than after minutes
        place.parent.mkdir(parents=True, exist_ok=True)
    graph = openvino_graph.image_tower(
        checkpoint.config.vision, checkpoint.open_tensors(), checkpoint.image_mean, checkpoint.image_std
    )
    nncf.set_log_level(logging.ERROR)
    ranges, more = nncf.quantization.range_estimator, nncf.quantization.advanced_parameters
    rows = [pixels[row : row + 1] for row in range(len(pixels))]
    with ExitStack() as until_done:
        shown = sys.stderr if progress else until_done.enter_context(Path(os.devnull).open("w"))
        until_done.enter_context(redirect_stdout(shown))
        quantised = nncf.quantize(
            graph,
            nncf.Dataset(rows),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(rows),
            ignored_scope=nncf.IgnoredScope(types=["Convolution", "GroupConvolution"], validate=False),
            advanced_parameters=more.AdvancedQuantizationParameters(
                activations_range_estimator_params=ranges.RangeEstimatorParametersSet.MINMAX,
                smooth_quant_alphas=more.AdvancedSmoothQuantParameters(matmul=_SMOOTH),
            ),
        )
    # names of their own are others in each run: the same images are to give the same bytes, and digest
    quantised.set_friendly_name("int8")
    quantised.outputs[0].tensor.set_names({"vectors"})
    for number, node in enumerate(quantised.get_ordered_ops()):
        node.set_friendly_name(f"{node.get_type_name()} {number}")
    with writing(place.parent), tempfile.TemporaryDirectory(dir=place.parent) as folder:
        made = [Path(folder) / "tower.xml", Path(folder) / "tower.bin"]
        try:
            ov.save_model(quantised, str(made[0]), compress_to_fp16=False)
        except RuntimeError as error:  # it does not say what is wrong with the disk
            raise OutputError(f"cannot write {place.parent}: is the disk full? ({error})") from error
        digest = _digest(made)
        files = [f"{place.stem}-{digest[:16]}{file.suffix}" for file in made]
        for file, name in zip(made, files, strict=True):
            replace(file, place.parent / name)
    old = record(checkpoint)
    _keep(checkpoint, files, digest)
    for file in () if old is None else old["files"]:
        if file.name not in files:
            file.unlink(missing_ok=True)


def keep_report(checkpoint: Checkpoint, report: dict[str, Any]) -> None:
    """Keep what was measured of the form that is there."""
    found = required(checkpoint)
    _keep(checkpoint, [file.name for file in found["files"]], found["digest"], report=report)


def _keep(checkpoint: Checkpoint, files: list[str], digest: str, **more: Any) -> None:
    place = _place(checkpoint)
    told = {"of": place.stem, "files": files, "digest": digest, **more}
    write_bytes(place, json.dumps(told, indent=1).encode())


def check(checkpoint: Checkpoint) -> None:
    """Refuse a form that gives too few of f32's answers, or is not faster than f32 on this machine.

    Where it was measured on another kind of processor, it is timed again, and that is kept.

    Raises:
        DeviceError: its agreement is below ``LEAST``, its gain below ``PAYS``, or it was never measured; or
            there is no form.
    """
    report = required(checkpoint).get("report")
    if not report:  # a run was stopped in between
        raise DeviceError(
            f"the int8 form of {checkpoint.name} was never measured, since nshot quantise was stopped: run "
            "it again"
        )
    if report["agreement"] < LEAST:
        raise DeviceError(
            f"int8 is refused for {checkpoint.name}: {report['agreement']:.1%} of its answers were those of "
            f"f32 on the images that it was measured on, and {LEAST:.0%} are asked. It may stand first in a "
            "cascade: --first int8"
        )
    if report["processor"] != processor():
        from nshot.encoders import load

        both = {name: load(checkpoint, device="cpu", precision=name) for name in ("f32", "int8")}
        side = checkpoint.config.vision.image_size
        pixels = np.random.default_rng(0).integers(0, 256, (2 * both["f32"].batch, 3, side, side), np.uint8)
        found = timed(both, pixels)
        report |= {"milliseconds": found, "gain": found["f32"] / found["int8"], "processor": processor()}
        with suppress(OutputError):  # the cache folder may be for reading alone
            keep_report(checkpoint, report)
    if report["gain"] < PAYS:
        raise DeviceError(
            f"int8 does not pay for {checkpoint.name} on this machine: it is {report['gain']:.2f} times as "
            "fast as f32, and less exact. Leave out --precision int8"
        )


def timed(encoders: Mapping[str, Encoder], pixels: Pixels) -> dict[str, float]:
    """Processor time per image of each, in milliseconds: in turn, the quickest of a few rounds."""
    times: dict[str, list[float]] = {name: [] for name in encoders}
    for _ in range(_ROUNDS):
        for name, encoder in encoders.items():
            begun = time.process_time()
            encoder.encode_images(pixels)
            times[name].append(time.process_time() - begun)
    return {name: 1000 * min(each) / len(pixels) for name, each in times.items()}


def processor() -> str:
    """The processor of this machine, as OpenVINO names it."""
    with forks.gate:
        return str(forks.core().get_property("CPU", "FULL_DEVICE_NAME"))


def _place(checkpoint: Checkpoint) -> Path:
    key = digest_of(checkpoint, "int8", _FORM, openvino_graph.VERSION)
    return cache_dir() / "int8" / f"{checkpoint.digest[:16]}-{key[:16]}.json"


def _digest(files: list[Path]) -> str:
    found = hashlib.sha256()
    for file in files:
        found.update(file.read_bytes())
    return found.hexdigest()
