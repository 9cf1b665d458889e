"""A classifier in one file: arrays, and everything else as JSON beside them.

The file is safetensors: ``matrix``, ``scale`` and ``bias`` as tensors, all else as JSON in its metadata.
Nothing in it is run when it is read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nshot.atomic import check_output, write_bytes
from nshot.bounded import weighed
from nshot.errors import NONSENSE, RequestError, brief
from nshot.types import Floats

FORMAT = "nshot-classifier/1"
FACETS = "nshot-facets/1"  # several classifiers: their arrays are numbered, "0.matrix", "1.matrix" ...
CASCADE = "nshot-cascade/1"  # two stages: a matrix over both models' vectors, and what is told of the first
TREE = "nshot-tree/1"  # a classifier with the tree above its labels
_HELD = {FACETS: "several facets", TREE: "a tree of labels", CASCADE: "a cascade of two models"}
ARRAYS = ("matrix", "scale", "bias")


def write(
    path: str | Path, arrays: Mapping[str, NDArray[Any]], told: Mapping[str, Any], *, format: str = FORMAT
) -> None:
    """Write the arrays and what is told of them; the file is there as a whole or not at all.

    Raises:
        OutputError: it cannot be written there.
    """
    from safetensors.numpy import save

    real = check_output(path)
    tensors = {name: np.array(array, dtype=np.float32, order="C") for name, array in arrays.items()}
    metadata = {name: json.dumps(value, ensure_ascii=False) for name, value in told.items()}
    write_bytes(real, _ordered(save(tensors, metadata={"format": format, **metadata})))


def _ordered(data: bytes) -> bytes:
    """The same file with what is told in its order: safetensors writes it in another one each time."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + data[end:]


def format_of(path: str | Path) -> str | None:
    """Which of the formats a file has; None for whatever else it is."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            return (file.metadata() or {}).get("format")
    except (SafetensorError, OSError):
        return None


def is_cascade(path: str | Path) -> bool:
    """Whether a file holds a cascade of two models."""
    return format_of(path) == CASCADE


def read(path: str | Path, *, format: str = FORMAT) -> tuple[dict[str, Floats], dict[str, Any]]:
    """What ``write`` wrote: the arrays, and what is told of them.

    Raises:
        RequestError: there is no such file, or it is not a classifier of nshot's.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise RequestError(f"there is no classifier file {path}")
    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            if (found := metadata.get("format")) != format and found in _HELD:
                held = _HELD[found]
                raise RequestError(f"{path} holds {held}, where one classifier is wanted")
            if metadata.get("format") != format:
                raise RequestError(f"{path} is not a classifier that this version of nshot can read")
            names = ARRAYS if format == FORMAT else tuple(file.keys())
            arrays = {name: file.get_tensor(name) for name in names}
        return arrays, {name: weighed(value) for name, value in metadata.items() if name != "format"}
    except RequestError:
        raise
    except (SafetensorError, OSError, *NONSENSE) as error:
        raise damaged(path, error) from error


@contextmanager
def opening(path: str | Path) -> Iterator[None]:
    """Whatever is wrong with what a file holds is an error that names the file.

    Raises:
        RequestError: of the same kind, where nshot says itself what is wrong.
    """
    try:
        yield
    except RequestError as error:
        raise type(error)(f"{path}: {error}") from error
    except (*NONSENSE, AssertionError) as error:
        raise damaged(path, error) from error


def damaged(path: str | Path, error: Exception) -> RequestError:
    """What a file that holds something else means to a person."""
    return RequestError(f"{path} is not a classifier file, or a damaged one: {brief(error)}")


_CALIBRATE: Mapping[str, tuple[type, ...]] = {
    "reject": (str, type(None)),
    "wrong": (float, int),
    "coverage": (float, int, type(None)),
    "surest": (float, int, type(None)),
    "kind": (str,),
    "randomized": (bool,),
}


def check_made(made: Any) -> dict[str, Any]:
    """How a classifier was made, as far as later commands go on with it; the rest may say anything.

    Raises:
        TypeError: it is of another form.
    """
    if not isinstance(made, dict):
        raise TypeError("how it was made is no table")
    asked = made.get("asked") or {"labels": {}, "templates": []}
    background = made.get("background") or []
    calibrate = made.get("calibrate") or {}
    fits = (
        _are_texts(made.get("templates") or [])
        and (_are_texts(background) or _is_phrases(background))
        and isinstance(asked, dict)
        and _is_phrases(asked.get("labels"))
        and _are_texts(asked.get("templates"))
        and isinstance(calibrate, dict)
        and all(isinstance(value, _CALIBRATE.get(name, ())) for name, value in calibrate.items())
    )
    if not fits:
        raise TypeError("how it was made is damaged: its templates, background, calibration or question")
    return made


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_phrases(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_are_texts, value.values()))
