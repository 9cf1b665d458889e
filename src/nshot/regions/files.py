"""A folder of images that are drawn, each named after the image that it shows."""

from __future__ import annotations

import io
import re
from collections import Counter
from pathlib import Path

from PIL import Image

from nshot.atomic import make_folder, write_bytes

_LONGEST = 120  # characters of one part of a name


class DrawnFolder:
    """Writes drawings; an image's own folders come along: ``out/photos/cat/1.jpg.heatmap.jpg``.

    A drawing of an earlier run is replaced. An image that is listed twice has two drawings.

    Args:
        folder: made if it is not there.
        ending: what tells a drawing from an image, such as "heatmap".

    Raises:
        OutputError: the folder is a file, or cannot be made.
    """

    def __init__(self, folder: Path, ending: str) -> None:
        make_folder(folder)
        self.folder = folder
        self.ending = ending
        self._used: Counter[str] = Counter()

    def write(self, source: str, image: Image.Image) -> Path:
        """Write the drawing of an image as a whole or not at all, and say where.

        Raises:
            OutputError: it cannot be written there.
        """
        path = self.folder / self.name(source)
        make_folder(path.parent)
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=90)
        write_bytes(path, buffer.getvalue())
        return path

    def name(self, source: str) -> str:
        """The drawing's name in the folder: the source's, without what leads out of the folder."""
        parts = [part for part in re.split(r"[\\/]+", source) if part not in ("", ".", "..")]
        safe = [re.sub(r"[^\w.,+()@ -]", "_", part)[-_LONGEST:] for part in parts] or ["image"]
        name = "/".join(safe)
        self._used[name.casefold()] += 1
        count = self._used[name.casefold()]
        return f"{name}{'' if count == 1 else f'-{count}'}.{self.ending}.jpg"
