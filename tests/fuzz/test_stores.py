"""Damaged stores: every question is answered, and no answer is wrong."""

from __future__ import annotations

import hashlib
import random
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

from fuzz.attack import rounds
from nshot.errors import StoreError
from nshot.store.memory import Memory
from nshot.store.store import Stamp, Store
from nshot.types import Floats

RECIPES = ("one", "two")
STAMPS = [Stamp(f"/photos/{n}.jpg", 1000 + n, 10**15, 2 * 10**18) for n in range(40)]
WORDS = ("cat", "dog", "hot dog")


def digest(name: object) -> bytes:
    return hashlib.sha256(str(name).encode()).digest()


KEYS = [digest(n) for n in range(40)]


def vector(key: bytes, recipe: str) -> Floats:
    seed = list(digest(key.hex() + recipe))
    return np.random.default_rng(seed).standard_normal(128).astype(np.float32)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("store") / "store.sqlite"
    with Store(path) as store:
        for recipe in RECIPES:
            store.put_vectors({key: vector(key, recipe) for key in KEYS}, recipe)
            store.put_texts(recipe, {word: vector(word.encode(), recipe) for word in WORDS})
        store.put_files(dict(zip(STAMPS, KEYS, strict=True)))
    return path


def damage(path: Path, source: random.Random) -> None:
    """One of what the disk, a crash or another program may do to the file."""
    content = bytearray(path.read_bytes())
    pages = len(content) // 16384
    match source.randrange(10):
        case 0 | 1:
            content[source.randrange(len(content))] ^= 1 << source.randrange(8)
        case 2:
            content[source.randrange(source.choice((100, 2000)))] = source.randrange(256)
        case 3:
            for _ in range(20):
                content[source.randrange(len(content))] = source.randrange(256)
        case 4:
            start = source.randrange(pages) * 16384
            content[start : start + 16384] = source.choice((bytes(16384), source.randbytes(16384)))
        case 5:
            one, two = source.randrange(pages) * 16384, source.randrange(pages) * 16384
            content[one : one + 16384], content[two : two + 16384] = (
                content[two : two + 16384],
                content[one : one + 16384],
            )
        case 6:
            del content[source.randrange(len(content)) :]
        case _:
            alter(path, source)
            return
    path.write_bytes(content)


def alter(path: Path, source: random.Random) -> None:
    """Damage that SQLite itself finds sound: values, types, tables."""
    places = {
        "vectors": ("key", "recipe", "vector", "checksum"),
        "recipes": ("id", "kind", "digest"),
        "files": ("path", "size", "mtime_ns", "digest", "checksum"),
    }
    table = source.choice(list(places))
    column = source.choice(places[table])
    value = source.choice(("NULL", "7", "'text'", "x'00'", "1e999", "zeroblob(1000)", "-1", "x'ff80'"))
    statements = [
        f"UPDATE {table} SET {column} = {value}",
        f"UPDATE OR IGNORE {table} SET {column} = {value} WHERE random() % 3 = 0",
        "UPDATE recipes SET id = -id; UPDATE recipes SET id = CASE id WHEN -1 THEN 3 ELSE 1 END",
        "UPDATE vectors SET vector = (SELECT vector FROM vectors ORDER BY random() LIMIT 1)",
        "UPDATE vectors SET recipe = 5 - recipe",
        "UPDATE files SET digest = (SELECT digest FROM files ORDER BY random() LIMIT 1)",
        "UPDATE files SET size = size + 1, mtime_ns = 3",
        f"DROP TABLE {table}",
        f"ALTER TABLE {table} RENAME COLUMN {column} TO other",
        f"CREATE TABLE copy AS SELECT * FROM {table}; DROP TABLE {table}; ALTER TABLE copy RENAME TO {table}",
        f"ALTER TABLE {table} RENAME TO t; CREATE VIEW {table} AS SELECT * FROM t",
        f"PRAGMA user_version = {source.choice((0, 1, 3, 99, -1))}",
        "PRAGMA application_id = 7",
        "PRAGMA writable_schema = 1; UPDATE sqlite_master "
        f"SET sql = replace(sql, 'e', '{source.choice('aü%')}')",
        "PRAGMA writable_schema = 1; UPDATE sqlite_master "
        f"SET rootpage = {source.randrange(9)} WHERE name = '{table}'",
        f"DELETE FROM {table} WHERE random() % 2 = 0",
    ]
    connection = sqlite3.connect(path)
    try:
        connection.executescript(source.choice(statements))
    except sqlite3.Error:
        connection.rollback()
    finally:
        connection.close()


def ask(memory: Memory) -> int:
    """Every question there is; how many were known, and all of those rightly."""
    known = 0
    for recipe in RECIPES:
        found = memory.vectors(KEYS, recipe)
        for key, value in found.items():
            assert value.tobytes() == vector(key, recipe).tobytes(), "a wrong vector"
        texts = memory.texts(WORDS, recipe)
        for word, value in texts.items():
            assert value.tobytes() == vector(word.encode(), recipe).tobytes(), "a wrong text"
        known += len(found) + len(texts)
    files = memory.known_files(STAMPS)
    for stamp, key in zip(STAMPS, KEYS, strict=True):
        assert files.get(stamp.path) in (None, key), "a wrong file"
    return known + len(files)


def test_a_damaged_store_gives_no_wrong_vector_and_ends_no_run(whole: Path, tmp_path: Path) -> None:
    everything = 2 * (len(KEYS) + len(WORDS)) + len(STAMPS)
    path = tmp_path / "store.sqlite"
    complete = refused = 0
    for seed in range(rounds(60, 20_000)):
        for old in tmp_path.iterdir():
            old.unlink()
        shutil.copy(whole, path)
        damage(path, random.Random(seed))
        content = path.read_bytes()
        try:
            memory = Memory(Store(path))
        except StoreError:  # the one thing that ends a run: it looks like somebody else's file
            assert path.read_bytes() == content, seed
            refused += 1
            continue
        try:
            ask(memory)
            for recipe in RECIPES:
                memory.keep({key: vector(key, recipe) for key in KEYS}, {}, recipe)
                memory.keep_texts({word: vector(word.encode(), recipe) for word in WORDS}, recipe)
            memory.keep({}, dict(zip(STAMPS, KEYS, strict=True)), RECIPES[0])
            complete += ask(memory) == everything
            again = Memory(Store(path))
            ask(again)
            with Store(path) as store:
                try:
                    store.info()
                    store.clear()
                except StoreError:
                    store.clear()
                assert store.info().vectors == 0, seed
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    assert complete > 0.8 * rounds(60, 20_000)
    assert refused <= 0.005 * rounds(60, 20_000)
