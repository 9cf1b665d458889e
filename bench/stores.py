"""Damages stores and asks through each: every image answered, no wrong vector, no error.

python bench/stores.py [stores] [images]

A store of images and labels is copied and damaged in one of five ways in turn: a byte, a row, a page, a
column, the end of the file. Then the same folder is embedded and classified through it, twice, as the first
run may mend what it finds. Every vector and every answer is compared with that of a run without a store. One
line per kind of damage; exit status 1 where anything was wrong.
"""

from __future__ import annotations

import logging
import random
import shutil
import sqlite3
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import numpy as np
from PIL import Image

import nshot
from nshot.errors import StoreError

_PAGE = 16384
_LABELS = ["circle", "square", "star"]
_COLUMNS = {
    "vectors": ("key", "recipe", "vector", "checksum"),
    "recipes": ("id", "kind", "digest"),
    "files": ("path", "size", "mtime_ns", "digest", "checksum"),
}
_VALUES = ("NULL", "7", "-1", "1e999", "'text'", "x'00'", "x'ff80'", "zeroblob(1000)", "randomblob(32)")


def a_byte(path: Path, source: random.Random) -> None:
    """One byte, anywhere or within the first pages."""
    content = bytearray(path.read_bytes())
    content[source.randrange(source.choice((100, 2000, len(content), len(content))))] = source.randrange(256)
    path.write_bytes(content)


def a_row(path: Path, source: random.Random) -> None:
    """A row with other values, another's values, or none."""
    table = source.choice(list(_COLUMNS))
    column = source.choice(_COLUMNS[table])
    which = f"WHERE rowid = (SELECT rowid FROM {table} ORDER BY random() LIMIT 1)"
    if table == "files":
        which = "WHERE path = (SELECT path FROM files ORDER BY random() LIMIT 1)"
    another = f"(SELECT {column} FROM {table} ORDER BY random() LIMIT 1)"
    value = source.choice((*_VALUES, another, another))
    change = f"UPDATE OR REPLACE {table} SET {column} = {value} {which}"
    _execute(path, source.choice((change, change, change, f"DELETE FROM {table} {which}")))


def a_page(path: Path, source: random.Random) -> None:
    """A page of zeros, of noise, or in another's place."""
    content = bytearray(path.read_bytes())
    pages = len(content) // _PAGE
    one, two = source.randrange(pages) * _PAGE, source.randrange(pages) * _PAGE
    before = bytes(content[two : two + _PAGE])
    content[one : one + _PAGE] = source.choice((bytes(_PAGE), source.randbytes(_PAGE), before))
    path.write_bytes(content)


def a_column(path: Path, source: random.Random) -> None:
    """A whole column of another type, shifted, renamed, or its table gone."""
    table = source.choice(list(_COLUMNS))
    column = source.choice(_COLUMNS[table])
    statements = [f"UPDATE OR IGNORE {table} SET {column} = {value}" for value in _VALUES]
    statements += [
        f"UPDATE {table} SET {column} = (SELECT {column} FROM {table} ORDER BY random() LIMIT 1)",
        "UPDATE vectors SET recipe = (SELECT max(id) + 1 FROM recipes) - recipe",
        "UPDATE recipes SET id = -id; UPDATE recipes SET id = (SELECT max(-id) + 1 FROM recipes) + id",
        f"ALTER TABLE {table} RENAME COLUMN {column} TO other",
        f"DROP TABLE {table}",
        f"ALTER TABLE {table} RENAME TO t; CREATE VIEW {table} AS SELECT * FROM t",
    ]
    _execute(path, source.choice(statements))


def truncated(path: Path, source: random.Random) -> None:
    """The end of the file is gone."""
    content = path.read_bytes()
    path.write_bytes(content[: source.randrange(source.choice((200, len(content))))])


def _execute(path: Path, statements: str) -> None:
    connection = sqlite3.connect(path)
    try:
        connection.executescript(statements)
    except sqlite3.Error:
        connection.rollback()
    finally:
        connection.close()


class Heard(logging.Handler):
    """What the runs warned of."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        self.said.append(record.getMessage())


def main() -> None:
    """Print one line per kind of damage."""
    stores, images = (int(number) for number in (*sys.argv[1:], "1000", "12")[:2])
    heard = Heard()
    logging.getLogger("nshot").addHandler(heard)
    logging.getLogger("nshot").propagate = False
    kinds = (a_byte, a_row, a_page, a_column, truncated)
    totals: dict[str, Counter[str]] = {kind.__name__: Counter() for kind in kinds}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        photos = _photos(folder / "photos", images)
        right = _asked(photos, None)
        whole, path = folder / "whole.sqlite", folder / "store" / "store.sqlite"
        assert _asked(photos, whole) == right
        for number in range(stores):
            kind = kinds[number % len(kinds)]
            shutil.rmtree(path.parent, ignore_errors=True)
            path.parent.mkdir()
            shutil.copy(whole, path)
            kind(path, random.Random(number))
            heard.said.clear()
            try:
                fine = all(_asked(photos, path) == right for _ in range(2))
                aside = any(path.parent.glob("*.damaged*"))
                what = "wrong" if not fine else "set aside" if aside else "kept"
            except StoreError:
                what = "refused"
            except Exception:
                traceback.print_exc()
                what = "an error"
            if what in ("wrong", "an error"):
                print(f"store {number}, {kind.__name__}: {what} ({'; '.join(heard.said)})", flush=True)
            totals[kind.__name__][what] += 1
    for name, total in totals.items():
        told = ", ".join(f"{count} {what}" for what, count in sorted(total.items()))
        print(f"{name}: {total.total()} stores, {told}", flush=True)
    sys.exit(any(total["wrong"] + total["an error"] for total in totals.values()))


def _photos(folder: Path, count: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(folder / f"{number:03}.png")
    time.sleep(2.1)  # a file that was changed just now is read again, whatever the store says
    return folder


def _asked(photos: Path, store: Path | None) -> object:
    """Every vector and every answer of a run with this store."""
    model = nshot.load("sketchbook", store=False if store is None else store)
    vectors = model.embed(photos)
    assert not vectors.failures
    answers = [repr(answer) for answer in model.classify(photos, _LABELS)]
    return vectors.sources, vectors.vectors.tobytes(), answers


if __name__ == "__main__":
    main()
