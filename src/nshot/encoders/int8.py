"""The image tower in 8 bits: calibrated on a person's own images, kept, and found again.

Weights and activations of the linear maps are quantised; the convolution that cuts an image into patches
stays in f32, since nearly all of the loss comes from it. Texts stay in f32 too: they are encoded once. What
the form is worth is measured by ``nshot.classifier.quantising`` and kept beside it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nshot import extras
from nshot.atomic import write_bytes
from nshot.encoders import digest_of, openvino_graph
from nshot.encoders.runtime import ov
from nshot.errors import DeviceError
from nshot.paths import cache_dir
from nshot.types import Pixels

if TYPE_CHECKING:
    from nshot.models.checkpoint import Checkpoint

LEAST = 0.98
"""The share of answers that must be those of f32: a form below it is for a cascade's first stage alone."""


def record(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """What is kept of a checkpoint's int8 form: files, their digest, a report; None where there is none."""
    try:
        found: dict[str, Any] = json.loads(_place(checkpoint).read_text())
        files = [_place(checkpoint).parent / name for name in found["files"]]
        whole = all(file.is_file() for file in files) and isinstance(found["digest"], str)
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
            f"there is no int8 form of {checkpoint.name} yet: nshot quantise makes one, on images of your own"
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


def quantise(checkpoint: Checkpoint, pixels: Pixels) -> None:
    """Quantise the image tower, calibrated on uint8[n,3,s,s], and keep it in the place of an earlier one.

    Raises:
        MissingExtra: nncf is not installed.
        OSError: it cannot be kept.
    """
    nncf = extras.nncf()
    graph = openvino_graph.image_tower(
        checkpoint.config.vision, checkpoint.open_tensors(), checkpoint.image_mean, checkpoint.image_std
    )
    nncf.set_log_level(logging.ERROR)
    rows = [pixels[row : row + 1] for row in range(len(pixels))]
    with redirect_stdout(sys.stderr):  # where its progress belongs
        quantised = nncf.quantize(
            graph,
            nncf.Dataset(rows),
            preset=nncf.QuantizationPreset.MIXED,
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(rows),
            ignored_scope=nncf.IgnoredScope(types=["Convolution", "GroupConvolution"], validate=False),
        )
    place = _place(checkpoint)
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place.parent) as folder:
        made = [Path(folder) / "tower.xml", Path(folder) / "tower.bin"]
        ov.save_model(quantised, str(made[0]), compress_to_fp16=False)
        digest = _digest(made)
        files = [f"{place.stem}-{digest[:16]}{file.suffix}" for file in made]
        for file, name in zip(made, files, strict=True):
            file.replace(place.parent / name)
    old = record(checkpoint)
    write_bytes(place, json.dumps({"files": files, "digest": digest}).encode())
    for file in () if old is None else old["files"]:
        if file.name not in files:
            file.unlink(missing_ok=True)


def keep_report(checkpoint: Checkpoint, report: dict[str, Any]) -> None:
    """Keep what was measured of the form that is there."""
    found = required(checkpoint)
    told = {"files": [file.name for file in found["files"]], "digest": found["digest"], "report": report}
    write_bytes(_place(checkpoint), json.dumps(told, indent=1).encode())


def check(checkpoint: Checkpoint) -> None:
    """Refuse a form that was measured and gives too few of f32's answers.

    Raises:
        DeviceError: its agreement is below ``LEAST``, or there is no form.
    """
    report = required(checkpoint).get("report") or {}
    if (agreement := report.get("agreement")) is not None and agreement < LEAST:
        raise DeviceError(
            f"int8 is refused for {checkpoint.name}: {agreement:.1%} of its answers were those of f32 on the "
            f"images that it was measured on, and {LEAST:.0%} are asked. It may stand first in a cascade: "
            "--first int8"
        )


def _place(checkpoint: Checkpoint) -> Path:
    key = digest_of(checkpoint, "int8", openvino_graph.VERSION)
    return cache_dir() / "int8" / f"{checkpoint.digest[:16]}-{key[:16]}.json"


def _digest(files: list[Path]) -> str:
    found = hashlib.sha256()
    for file in files:
        found.update(file.read_bytes())
    return found.hexdigest()
