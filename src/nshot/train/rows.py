"""Rows of numbers in a file: pixels, and the vectors of a tower that is locked."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from nshot.errors import RequestError


class RowFile:
    """float32 or uint8[m, *shape] in a file, of which rows are read when they are asked for.

    A memory map would count every page that was ever touched as this process's memory.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], kind: Literal["uint8", "float32"]) -> None:
        self._path, self._shape, self._kind = path, shape, kind

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        found = np.empty((len(rows), *self._shape), self._kind)
        length = found[0].nbytes if len(rows) else 0
        with self._path.open("rb", buffering=0) as file:
            for image, row in zip(found, rows.tolist(), strict=True):
                file.seek(row * length)
                if file.readinto(image.data) != length:
                    raise RequestError(f"{self._path} was cut off while it was in use: run the command again")
        return found
