"""What a store keeps of an image's regions: arrays and a few words, as bytes."""

from __future__ import annotations

import hashlib
import json
import math
import operator
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nshot.errors import NONSENSE
from nshot.store.memory import Memory
from nshot.store.store import Stamp

_HEAD = struct.Struct("<I")


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """One image's regions.

    Attributes:
        size: width and height of the upright image, in pixels.
        notes: what decoding did that a person should know.
        arrays: by name.
    """

    size: tuple[int, int]
    notes: tuple[str, ...]
    arrays: Mapping[str, NDArray[Any]]

    def to_bytes(self) -> bytes:
        """As the store keeps it; arrays as they are, whatever their precision."""
        held = {name: np.ascontiguousarray(array) for name, array in self.arrays.items()}
        shapes = [(name, array.dtype.str, array.shape) for name, array in held.items()]
        head = json.dumps({"size": self.size, "notes": self.notes, "arrays": shapes}).encode()
        return b"".join([_HEAD.pack(len(head)), head, *(array.tobytes() for array in held.values())])

    @classmethod
    def from_bytes(cls, content: bytes) -> Kept | None:
        """What was kept; its arrays lie in ``content``. None where it makes no sense."""
        try:
            (length,) = _HEAD.unpack_from(content)
            place = _HEAD.size + length
            told = json.loads(content[_HEAD.size : place])
            arrays = {}
            for name, kind, shape in told["arrays"]:
                count = math.prod(map(operator.index, shape))
                if count < 0:
                    raise ValueError("a shape that is none")
                arrays[name] = np.frombuffer(content, np.dtype(kind), count, place).reshape(shape)
                place += arrays[name].nbytes
            width, height = told["size"]
            return cls((int(width), int(height)), tuple(map(str, told["notes"])), arrays)
        except (struct.error, SyntaxError, *NONSENSE):  # numpy reads some kinds as Python does
            return None


class Shelf:
    """The regions of one recipe in a store.

    Args:
        memory: the store, or none.
        recipe: everything but the image's bytes that changes what is kept.
    """

    def __init__(self, memory: Memory, *recipe: object) -> None:
        self._memory = memory
        self._recipe = hashlib.sha256(repr(recipe).encode()).hexdigest()

    def recall(self, digest: bytes) -> Kept | None:
        """What is known of an image, by the sha256 of its bytes."""
        content = self._memory.regions(digest, self._recipe)
        return None if content is None else Kept.from_bytes(content)

    def digest_of(self, stamp: Stamp) -> bytes | None:
        """The sha256 of a file's bytes, if it is unchanged since it was read."""
        return self._memory.known_files([stamp]).get(stamp.path)

    def keep(self, digest: bytes, kept: Kept, stamp: Stamp | None) -> None:
        """Remember an image."""
        if self._memory:
            files = {} if stamp is None else {stamp: digest}
            self._memory.keep_regions(digest, kept.to_bytes(), files, self._recipe)
