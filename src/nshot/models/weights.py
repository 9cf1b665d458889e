"""Weight files -> float32 tensors, memory-mapped."""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nshot.errors import CorruptCheckpoint, brief
from nshot.models.family import Place
from nshot.models.files import settings_of
from nshot.types import Floats

# numpy has no bfloat16: its bits are read as uint16, a type that no checkpoint's weights have
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4"}


_LARGEST_HEADER = 10**8  # bytes, as the format's own reader has it
_MOST_AXES = 8


class Tensors(Mapping[str, Floats]):
    """The tensors that a model needs, by nshot's names, each float32 and read-only.

    One stored as float32 is a view into the mapped file and takes no memory of its own, and so is a part of
    one; one stored as float16 or bfloat16 is widened, and one stored the other way round is turned, each time
    that it is asked for. What else the files hold, such as old ones' ``position_ids``, is left out.

    Raises:
        CorruptCheckpoint: a tensor is missing or has another shape, or a file is damaged.
        UnsafeCheckpoint: a pickle wants more than tensors.
    """

    def __init__(self, paths: Sequence[Path], places: Mapping[str, Place]) -> None:
        stored: dict[str, NDArray[Any]] = {}
        for path in paths:
            stored |= read_weights(path)
        prefix = _prefix(stored)
        self._stored: dict[str, NDArray[Any]] = {}
        names = ", ".join(str(path) for path in paths)
        for name, place in places.items():
            value = stored.get(prefix + place.name, stored.get(place.name))
            if value is None:
                raise CorruptCheckpoint(f"{names}: the tensor {place.name} is missing.")
            part = value[slice(*place.rows)] if place.rows else value
            if place.transpose:
                part = part.T
            if _long(part.shape) == _long(place.shape):  # one number may be stored as a list of one
                part = part.reshape(place.shape)
            if part.shape != place.shape:
                raise CorruptCheckpoint(
                    f"{names}: the tensor {place.name} has the shape {value.shape}, "
                    f"and by config.json {place.shape}."
                )
            self._stored[name] = part

    def __getitem__(self, name: str) -> Floats:
        return _widened(self._stored[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def maps(self) -> list[mmap.mmap]:
        """The mapped files behind the tensors, for whoever wants to let go of their pages."""
        found: dict[int, mmap.mmap] = {}
        for value in self._stored.values():
            base: Any = value
            while isinstance(base, np.ndarray):
                base = base.base
            base = base.obj if isinstance(base, memoryview) else base
            if isinstance(base, mmap.mmap):
                found[id(base)] = base
        return list(found.values())

    def rows(self, name: str, rows: NDArray[np.int64]) -> Floats:
        """Rows of a table, of which nothing else is read: int64[...] -> float32[..., width]."""
        return _widened(self._stored[name][rows])


def read_weights(path: Path) -> dict[str, NDArray[Any]]:
    """All tensors of one file as they are stored: read-only views into it, bfloat16 as uint16."""
    with path.open("rb") as file:
        if file.read(40).startswith(b"version https://git-lfs"):
            raise CorruptCheckpoint(f"{path} is only a pointer of Git LFS: run `git lfs pull` in its folder.")
    if path.suffix == ".bin":
        from nshot.models.unpickle import read_bin

        return read_bin(path)
    return _read_safetensors(path)


def _read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    """Views into a file that is a length (8 bytes), a JSON header of that length, and the values."""
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        length = int.from_bytes(mapped[:8], "little")
        if length > len(mapped) - 8:
            raise ValueError("its header is cut off")
        if length > _LARGEST_HEADER:
            raise ValueError(f"a header of {length:,} bytes")
        header = settings_of(mapped[8 : 8 + length])
        header.pop("__metadata__", None)
        tensors: dict[str, NDArray[Any]] = {}
        for name, entry in header.items():
            if entry["dtype"] not in _DTYPES:
                continue  # if it is needed, it will be missed
            dtype, shape, (start, end) = (
                np.dtype(_DTYPES[entry["dtype"]]),
                entry["shape"],
                entry["data_offsets"],
            )
            if len(shape) > _MOST_AXES or any(type(n) is not int or n >= 2**63 for n in (start, end, *shape)):
                raise ValueError(f"the place of {name} makes no sense")
            count = math.prod(shape)
            if min((0, start, *shape)) < 0 or end - start != count * dtype.itemsize:
                raise ValueError(f"the place of {name} does not fit its shape")
            if 8 + length + end > len(mapped):
                raise ValueError(f"it ends within {name}")
            data = np.frombuffer(mapped, dtype, count, 8 + length + start) if count else np.empty(0, dtype)
            tensors[name] = data.reshape(shape)
        return tensors
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise CorruptCheckpoint(
            f"{path} is damaged or incomplete: {brief(error)}. Fetch it again."
        ) from error


def _prefix(names: Mapping[str, Any]) -> str:
    """What stands before every name where the model was saved as a part of another one: usually nothing."""
    scale = min((name for name in names if name.endswith("logit_scale")), key=len, default="logit_scale")
    return scale.removesuffix("logit_scale")


def _long(shape: Sequence[int]) -> list[int]:
    return [size for size in shape if size != 1]


def _widened(values: NDArray[Any]) -> Floats:
    if values.ndim:
        values = np.ascontiguousarray(values)
    if values.dtype == np.uint16:
        bits = values.astype(np.uint32)
        bits <<= np.uint32(16)  # in place, which also keeps a scalar an array
        widened = bits.view(np.float32)
    else:
        widened = values.astype(np.float32, copy=False)
    widened.flags.writeable = False
    return widened
