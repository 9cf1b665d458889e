"""The store of vectors: what was put is found again, bit for bit, whatever happened in between."""

from __future__ import annotations

import hashlib
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from nshot.errors import StoreError
from nshot.store.memory import Memory
from nshot.store.store import Stamp, Store, default_path
from nshot.types import Floats

RECIPE = "recipe-a"

WRITER = """
import hashlib, sys
import numpy as np
from nshot.store.memory import Memory
from nshot.store.store import Store
name, count = sys.argv[2], int(sys.argv[3])
store = Store(sys.argv[1])
for batch in range(count):
    digests = [hashlib.sha256(f"{name}-{batch}-{row}".encode()).digest() for row in range(16)]
    vectors = {d: np.random.default_rng(list(d)).standard_normal(512).astype("float32") for d in digests}
    store.put_vectors(vectors, "recipe-a")
    print(batch, flush=True)  # told only after the transaction
"""


def digest(name: object) -> bytes:
    return hashlib.sha256(str(name).encode()).digest()


def vector_of(key: bytes) -> Floats:
    """An image's vector made of its digest, so that any reader can tell whether it is the right one."""
    return np.random.default_rng(list(key)).standard_normal(512).astype(np.float32)


def some(count: int, prefix: str = "") -> dict[bytes, Floats]:
    return {digest(f"{prefix}{n}"): vector_of(digest(f"{prefix}{n}")) for n in range(count)}


def old_stamp(path: Path) -> Stamp:
    """The stamp of a file that was last changed a minute ago."""
    past = time.time_ns() - 60 * 10**9
    os.utime(path, ns=(past, past))
    return Stamp.of(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


def test_vectors_come_back_bit_for_bit_after_reopening(path: Path) -> None:
    vectors = some(2000)
    with Store(path) as store:
        store.put_vectors(vectors, RECIPE)
    with Store(path) as store:
        found = store.vectors([*vectors, digest("unknown")], RECIPE)
    assert found.keys() == vectors.keys()
    assert all(found[key].tobytes() == vectors[key].tobytes() for key in vectors)
    assert found[digest("0")].dtype == np.float32


def test_a_vector_is_found_only_under_its_own_recipe(path: Path) -> None:
    key = digest("picture")
    with Store(path) as store:
        store.put_vectors({key: np.ones(4, np.float32)}, "a")
        store.put_vectors({key: np.zeros(4, np.float32)}, "b")
        assert store.vectors([key], "a")[key].tolist() == [1, 1, 1, 1]
        assert store.vectors([key], "b")[key].tolist() == [0, 0, 0, 0]
        assert store.vectors([key], "c") == {}


def test_texts_are_known_by_encoder_and_are_not_taken_for_images(path: Path) -> None:
    vectors = {"a photo of a cat": vector_of(b"1"), "写真 🐈": vector_of(b"2"), "\udcff": vector_of(b"3")}
    with Store(path) as store:
        store.put_texts("encoder", vectors)
        found = store.texts("encoder", [*vectors, "a photo of a dog"])
        assert {text: vector.tobytes() for text, vector in found.items()} == {
            text: vector.tobytes() for text, vector in vectors.items()
        }
        assert store.texts("another encoder", list(vectors)) == {}
        assert store.vectors([hashlib.sha256(b"a photo of a cat").digest()], "encoder") == {}


def test_an_unchanged_file_is_known_and_a_changed_one_is_not(tmp_path: Path, path: Path) -> None:
    image = tmp_path / "katze 🐈.jpg"
    image.write_bytes(b"first")
    stamp = old_stamp(image)
    with Store(path) as store:
        store.put_files({stamp: digest("first")})
        assert store.known_files([stamp]) == {str(image): digest("first")}
        assert store.known_files([stamp._replace(size=6)]) == {}
        assert store.known_files([stamp._replace(mtime_ns=stamp.mtime_ns + 1)]) == {}
        store.put_files({stamp._replace(size=6): digest("second")})
        assert store.known_files([stamp._replace(size=6)]) == {str(image): digest("second")}


def test_a_file_changed_just_before_it_was_read_is_not_trusted(tmp_path: Path, path: Path) -> None:
    image = tmp_path / "a.jpg"
    image.write_bytes(b"first")
    now = Stamp.of(image)
    image.write_bytes(b"2.nd!")  # within one tick of a coarse clock: size and mtime stay
    os.utime(image, ns=(now.mtime_ns, now.mtime_ns))
    with Store(path) as store:
        store.put_files({now: digest("first")})
        assert store.known_files([Stamp.of(image)]) == {}
        future = now._replace(mtime_ns=now.taken_ns + 10**12)
        store.put_files({future: digest("first")})
        assert store.known_files([future]) == {}


def test_names_that_are_not_utf8_are_known_too(tmp_path: Path, path: Path) -> None:
    image = tmp_path / os.fsdecode(b"caf\xe9.jpg")
    try:
        image.write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    stamp = old_stamp(image)
    with Store(path) as store:
        store.put_files({stamp: digest("x")})
        assert store.known_files([stamp]) == {stamp.path: digest("x")}


def test_a_relative_path_is_known_from_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.jpg").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert Stamp.of("a.jpg").path == str(tmp_path / "a.jpg")


def test_asking_a_store_that_does_not_exist_creates_nothing(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "store.sqlite"
    with Store(path) as store:
        assert store.vectors([digest("a")], RECIPE) == {}
        assert store.texts("encoder", ["a"]) == {}
        assert store.known_files([Stamp("/a", 1, 2, 3)]) == {}
        info = store.info()
        assert (info.bytes, info.vectors, info.texts, info.files, info.recipes) == (0, 0, 0, 0, {})
        store.clear()
        store.put_vectors({}, RECIPE)
        assert not path.parent.exists()
        store.put_vectors(some(1), RECIPE)
    assert path.exists()


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX")
def test_a_store_is_private_to_its_user(path: Path) -> None:
    with Store(path) as store:
        store.put_vectors(some(1), RECIPE)
        for file in path.parent.iterdir():
            assert file.stat().st_mode & 0o077 == 0, file.name


def test_the_usual_place_is_in_the_cache_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSHOT_CACHE", str(tmp_path))
    assert default_path() == tmp_path / "store.sqlite"


def test_info_counts_and_clear_of_a_recipe_keeps_the_rest(tmp_path: Path, path: Path) -> None:
    image = tmp_path / "a.jpg"
    image.write_bytes(b"x")
    stamp = old_stamp(image)
    with Store(path) as store:
        store.put_vectors(some(300), "a")
        store.put_vectors(some(3), "b")
        store.put_texts("a", {"cat": vector_of(b"1")})
        store.put_files({stamp: digest("x")})
        info = store.info()
        assert (info.path, info.vectors, info.texts, info.files) == (path, 303, 1, 1)
        assert info.recipes == {"a": 300, "b": 3}
        assert info.bytes > 300 * 2048
        store.clear("a")
        assert store.info().recipes == {"b": 3}
        assert store.info().texts == 1
        assert store.vectors(list(some(3)), "b").keys() == some(3).keys()
        store.clear()
        assert (store.info().vectors, store.info().texts, store.info().files) == (0, 0, 0)
        assert store.info().bytes < 300_000


def test_a_kill_at_any_moment_loses_no_row_that_was_told_and_damages_none(path: Path) -> None:
    told = -1
    for attempt in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, path, f"run{attempt}", "100000"], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            assert writer.stdout.readline()
            time.sleep(0.01 + 0.037 * attempt)
            writer.send_signal(signal.SIGKILL)
            told = int(([b"0", *writer.stdout.read().splitlines()])[-1])
        batches = {
            batch: [digest(f"run{attempt}-{batch}-{row}") for row in range(16)] for batch in range(told + 3)
        }
        with Store(path) as store:
            found = store.vectors([key for keys in batches.values() for key in keys], RECIPE)
        for batch, keys in batches.items():
            assert sum(key in found for key in keys) == 16 or batch > told
            assert sum(key in found for key in keys) in (0, 16)
        assert all(found[key].tobytes() == vector_of(key).tobytes() for key in found)
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


def test_a_kill_while_the_store_is_created_leaves_a_store(tmp_path: Path) -> None:
    for attempt in range(4):
        path = tmp_path / f"{attempt}.sqlite"
        with subprocess.Popen(
            [sys.executable, "-c", WRITER, path, "first", "3"], stdout=subprocess.DEVNULL
        ) as writer:
            deadline = time.monotonic() + 20
            while not path.exists() and time.monotonic() < deadline:
                time.sleep(0.0001)
            time.sleep(0.001 * attempt)
            writer.kill()
        with Store(path) as store:
            store.vectors([digest("a")], RECIPE)
            store.put_vectors(some(2), RECIPE)
            assert store.vectors(list(some(2)), RECIPE).keys() == some(2).keys()


def test_two_processes_that_create_and_fill_one_store_at_once_lose_nothing(path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, path, name, "40"], stdout=subprocess.DEVNULL)
        for name in ("one", "two", "same", "same")
    ]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0, 0, 0]
    keys = [
        digest(f"{name}-{batch}-{row}")
        for name in ("one", "two", "same")
        for batch in range(40)
        for row in range(16)
    ]
    with Store(path) as store:
        found = store.vectors(keys, RECIPE)
        assert store.info().vectors == len(keys)
    assert all(found[key].tobytes() == vector_of(key).tobytes() for key in keys)


def test_threads_share_one_store(path: Path) -> None:
    errors: list[BaseException] = []

    def work(name: str) -> None:
        try:
            for batch in range(10):
                vectors = some(8, f"{name}-{batch}-")
                store.put_vectors(vectors, RECIPE)
                assert store.vectors(list(vectors), RECIPE).keys() == vectors.keys()
        except BaseException as error:
            errors.append(error)

    with Store(path) as store:
        threads = [threading.Thread(target=work, args=(str(n),)) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not errors
        assert store.info().vectors == 4 * 10 * 8


def test_a_recipe_cleared_by_another_process_is_not_confused_with_a_later_one(path: Path) -> None:
    with Store(path) as one, Store(path) as other:
        one.put_vectors(some(1), "a")
        other.clear("a")
        other.put_vectors(some(1, "x"), "b")
        one.put_vectors(some(2), "a")
        assert one.info().recipes == {"b": 1, "a": 2}
        assert one.vectors(list(some(2)), "b") == {}


def test_a_file_that_is_no_store_is_refused_and_never_removed(path: Path) -> None:
    path.write_bytes(b"my thesis" * 1000)
    foreign = path.with_name("other.db")
    with sqlite3.connect(foreign) as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    for file in (path, foreign):
        before = file.read_bytes()
        with Store(file) as store:
            with pytest.raises(StoreError, match=rf"{file.name} is not a store of nshot.*--no-store"):
                store.vectors([digest("a")], RECIPE)
            with pytest.raises(StoreError, match="is not a store of nshot"):
                store.put_vectors(some(1), RECIPE)
            with pytest.raises(StoreError, match="is not a store of nshot"):
                store.clear()
        assert file.read_bytes() == before


def test_a_damaged_store_says_so_and_can_be_cleared(path: Path) -> None:
    vectors = some(500)
    with Store(path) as store:
        store.put_vectors(vectors, RECIPE)
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\x5a" * (len(content) // 2) + content[100 + len(content) // 2 :])
    with Store(path) as store:
        with pytest.raises(StoreError, match=r"store\.sqlite is damaged.*`nshot store clear`.*--no-store"):
            store.vectors(list(vectors), RECIPE)
        with pytest.raises(StoreError, match="is damaged"):
            store.clear(RECIPE)
        store.clear()
        store.put_vectors(some(1), RECIPE)
        assert store.info().vectors == 1


def test_a_flipped_bit_in_a_vector_makes_it_unknown_not_wrong(path: Path) -> None:
    vectors = some(3)
    with Store(path) as store:
        store.put_vectors(vectors, RECIPE)
    content = bytearray(path.read_bytes())
    content[content.index(vectors[digest("1")].tobytes()) + 77] ^= 4
    path.write_bytes(content)
    with Store(path) as store:
        assert store.vectors(list(vectors), RECIPE).keys() == {digest("0"), digest("2")}
        store.put_vectors(vectors, RECIPE)
        assert store.vectors(list(vectors), RECIPE).keys() == vectors.keys()


def test_a_store_of_another_version_says_so_and_can_be_cleared(path: Path) -> None:
    with Store(path) as store:
        store.put_vectors(some(1), RECIPE)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    with Store(path) as store:
        with pytest.raises(StoreError, match=r"has format 99.*`nshot store clear`"):
            store.put_vectors(some(1), RECIPE)
        store.clear()
        store.put_vectors(some(1), RECIPE)


def test_a_full_disk_is_a_store_error_and_what_was_kept_stays(path: Path) -> None:
    with Store(path) as store:
        store.put_vectors(some(10), RECIPE)
        limit = resource.getrlimit(resource.RLIMIT_FSIZE)
        before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, limit[1]))
        try:
            with pytest.raises(StoreError, match=r"store\.sqlite cannot be used.*--no-store"):
                store.put_vectors(some(2000, "more"), RECIPE)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            signal.signal(signal.SIGXFSZ, before)
        assert store.vectors(list(some(10)), RECIPE).keys() == some(10).keys()
        store.put_vectors(some(20), RECIPE)
        assert store.info().vectors == 20


def test_a_place_where_no_store_can_be_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path, tmp_path / "file" / "store.sqlite"):
        with Store(path) as store, pytest.raises(StoreError, match="cannot be used"):
            store.put_vectors(some(1), RECIPE)


def test_a_store_in_a_read_only_place_is_read_and_refuses_to_write() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with Store(folder / "store.sqlite") as store:
            store.put_vectors(some(3), RECIPE)
        (folder / "store.sqlite").chmod(0o444)
        folder.chmod(0o555)
        child = os.fork()
        if child == 0:
            status = 1
            try:
                if os.geteuid() == 0:
                    os.setuid(65534)  # root may write anywhere
                with Store(folder / "store.sqlite") as store:
                    if store.vectors(list(some(3)), RECIPE).keys() == some(3).keys():
                        status = 2
                    try:
                        store.put_vectors(some(4), RECIPE)
                    except StoreError:
                        status += 1
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        folder.chmod(0o755)


def test_a_batch_of_lookups_is_one_query_per_chunk_and_not_one_per_file(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = some(2048)
    stamps = [Stamp(f"/photos/2024/{n}.jpg", n, 2, 10**10) for n in range(2048)]
    with Store(path) as store:
        store.put_vectors(vectors, RECIPE)
        store.put_files(dict(zip(stamps, vectors, strict=True)))
        asked: list[str] = []
        with store._database.connected(write=False) as connection:
            assert connection is not None
            connection.set_trace_callback(asked.append)
        known = store.known_files(stamps)
        assert len(store.vectors(list(known.values()), RECIPE)) == 2048
        assert len([query for query in asked if query.startswith("SELECT")]) <= 2 * (2048 // 900 + 1)


OLD_FORM = """
PRAGMA page_size = 16384;
CREATE TABLE recipes (id INTEGER PRIMARY KEY, kind TEXT, digest TEXT, UNIQUE (kind, digest));
CREATE TABLE vectors (
    key BLOB, recipe INTEGER, vector BLOB, checksum INTEGER, PRIMARY KEY (key, recipe));
CREATE TABLE files (path BLOB PRIMARY KEY, size INTEGER, mtime_ns INTEGER, digest BLOB) WITHOUT ROWID;
PRAGMA application_id = 1853057135;
PRAGMA user_version = 1;
INSERT INTO recipes VALUES (1, 'picture', 'recipe-a');
"""


def test_a_store_of_the_first_form_is_read_and_brought_to_the_form_of_now(path: Path) -> None:
    vectors = some(3)
    stamp = Stamp("/a.jpg", 1, 2, 10**11)
    with sqlite3.connect(path) as connection:
        connection.executescript(OLD_FORM)
        for key, vector in vectors.items():
            blob = vector.tobytes()
            checksum = zlib.crc32(blob, zlib.crc32(key)) ^ (key == digest("1"))
            connection.execute("INSERT INTO vectors VALUES (?, 1, ?, ?)", (key, blob, checksum))
        connection.execute("INSERT INTO files VALUES (?, 1, 2, ?)", (b"/a.jpg", digest("0")))
    connection.close()
    sound = {digest("0"), digest("2")}
    with Store(path) as store:
        assert store.vectors(list(vectors), RECIPE).keys() == sound
        store.put_texts("encoder", {"cat": vector_of(b"1")})
        assert store.vectors(list(vectors), RECIPE).keys() == sound
        assert store.known_files([stamp]) == {"/a.jpg": digest("0")}
    with Store(path) as store:
        found = store.vectors(list(vectors), RECIPE)
        assert found.keys() == sound
        assert all(found[key].tobytes() == vectors[key].tobytes() for key in found)


def test_vectors_of_swapped_recipes_are_unknown(path: Path) -> None:
    with Store(path) as store:
        store.put_vectors(some(3), "a")
        store.put_vectors({key: -vector for key, vector in some(3).items()}, "b")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE OR IGNORE recipes SET digest = 'c' WHERE digest = 'a'")
        connection.execute("UPDATE recipes SET digest = 'a' WHERE digest = 'b'")
    connection.close()
    with Store(path) as store:
        assert store.vectors(list(some(3)), "a") == {}


def test_a_damaged_store_is_set_aside_and_a_new_one_begun(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Store(path) as store:
        store.put_vectors(some(500), RECIPE)
    content = path.read_bytes()
    path.write_bytes(content[:100] + b"\x5a" * (len(content) - 100))
    memory = Memory(Store(path))
    assert memory.vectors(list(some(3)), RECIPE) == {}
    memory.keep(some(3), {}, RECIPE)
    assert memory.vectors(list(some(3)), RECIPE).keys() == some(3).keys()
    assert path.with_name("store.sqlite.damaged").read_bytes()[100:200] == b"\x5a" * 100
    (said,) = caplog.messages
    assert "store.sqlite is damaged" in said
    assert "set aside as" in said
    assert "store.sqlite.damaged" in said


def test_a_store_that_another_process_keeps_locked_is_done_without(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("nshot.store.database._BUSY", 0.05)
    with Store(path) as store:
        store.put_vectors(some(3), RECIPE)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA locking_mode = EXCLUSIVE")
    connection.execute("BEGIN EXCLUSIVE")
    memory = Memory(Store(path))
    memory.keep(some(4), {}, RECIPE)
    memory.keep(some(4), {}, RECIPE)
    assert not memory
    assert "kept busy by another process" in caplog.text
    assert "Going on without it" in caplog.text
    connection.close()


def test_a_store_is_opened_anew_in_a_forked_process(path: Path) -> None:
    with Store(path) as store:
        store.put_vectors(some(3), RECIPE)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            with suppress(BaseException):
                store.put_vectors(some(1, "child"), RECIPE)
                os._exit(len(store.vectors(list(some(3)), RECIPE)))
            os._exit(99)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3
        assert store.vectors(list(some(1, "child")), RECIPE).keys() == some(1, "child").keys()
