"""A loaded model in a forked process, under multiprocessing, and in a torch DataLoader's workers."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nshot

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="forking is POSIX"),
    # Python 3.12 and later: forking with threads about
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]

_held: dict[str, Any] = {}


def vectors(photos: Path) -> Any:
    return np.stack([each.vector for each in _held["clip"].embed_images(photos)])


def work(photos: Path) -> Any:
    signal.alarm(60)  # a worker that hangs is killed, and the test fails
    return vectors(photos)


@pytest.mark.parametrize("store", [False, True])
def test_a_model_that_was_used_works_in_forked_workers(
    tiny: Path, photos: Path, tmp_path: Path, store: bool
) -> None:
    _held["clip"] = nshot.load(tiny, store=tmp_path / "store.sqlite" if store else False)
    expected = vectors(photos)
    expected_texts = _held["clip"].embed_texts(["cat"])
    with multiprocessing.get_context("fork").Pool(2) as pool:
        for found in pool.map_async(work, [photos] * 3).get(120):
            assert np.array_equal(found, expected)
    assert np.array_equal(vectors(photos), expected)
    assert np.array_equal(_held["clip"].embed_texts(["cat"]), expected_texts)


def in_child(act: Callable[[], None]) -> int:
    """What a forked child that does this ends with: 0, 1 for an exception, -14 where it hangs."""
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            act()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_fork_after_several_models_of_which_some_are_gone(tiny: Path, photos: Path) -> None:
    clips = [nshot.load(tiny, store=False) for _ in range(3)]
    for clip in clips:
        expected, words = clip.embed(photos).vectors, clip.embed_texts(["cat"])
    gc.disable()
    try:
        ring: list[Any] = [clips.pop().encoder]
        ring.append(ring)
        del clips[1:], clip, ring  # one is gone, and one is waiting for the collector

        def act() -> None:
            gc.collect()
            assert np.array_equal(clips[0].embed(photos).vectors, expected)
            assert np.array_equal(clips[0].embed_texts(["cat"]), words)
            other = nshot.load(tiny, store=False)
            assert np.array_equal(other.embed(photos).vectors, expected)
            del other
            assert in_child(lambda: _check(clips[0], photos, expected)) == 0

        assert in_child(act) == 0
    finally:
        gc.enable()
    _check(clips[0], photos, expected)


def _check(clip: Any, photos: Path, expected: Any) -> None:
    assert np.array_equal(clip.embed(photos).vectors, expected)


def test_a_fork_while_other_threads_load_and_embed(tiny: Path, photos: Path) -> None:
    clip = nshot.load(tiny, store=False)
    expected = clip.embed(photos).vectors
    stop = threading.Event()

    def busy() -> None:
        while not stop.is_set():
            nshot.load(tiny, store=False).embed(photos)

    thread = threading.Thread(target=busy)
    thread.start()
    try:
        for _ in range(10):
            assert in_child(lambda: _check(clip, photos, expected)) == 0
    finally:
        stop.set()
        thread.join()


def test_what_a_parent_began_is_refused_in_a_child(
    tiny: Path, photos: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    stream = nshot.load(tiny, store=False, batch_size=4).embed_images(photos)
    next(stream)
    assert in_child(lambda: [None for _ in stream].clear()) == 1
    assert "DeviceError: these vectors were begun in another process" in capfd.readouterr().err
    assert len(list(stream)) == 11


def test_a_child_that_ends_as_programs_do_ends(tiny: Path, photos: Path) -> None:
    program = (
        "import os, signal, sys, nshot\n"
        "clip = nshot.load(sys.argv[1], store=False)\n"
        "clip.embed(sys.argv[2])\n"
        "if child := os.fork():\n"
        "    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
        "signal.alarm(60)\n"
        "clip.embed(sys.argv[2])\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", program, str(tiny), str(photos)]
    assert subprocess.run(command, timeout=120).returncode == 0


def loaded_and_used(folder: Path, photos: Path) -> Any:
    signal.alarm(120)
    clip = nshot.load(folder)
    return np.asarray(clip.embed(photos).vectors)


def test_a_spawned_process_loads_its_own(tiny: Path, photos: Path) -> None:
    _held["clip"] = nshot.load(tiny)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found = pool.starmap_async(loaded_and_used, [(tiny, photos)]).get(180)
    assert np.array_equal(found[0], vectors(photos))


class Photos:
    """A torch data set that embeds in its workers."""

    def __init__(self, clip: Any, photos: Path) -> None:
        self.clip = clip
        self.paths = sorted(photos.iterdir())

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> Any:
        (found,) = self.clip.embed_images(self.paths[number])
        return np.array(found.vector)


@pytest.mark.skipif(find_spec("torch") is None, reason="needs torch")
def test_a_torch_data_loader_embeds_in_its_workers(tiny: Path, photos: Path) -> None:
    from torch.utils.data import DataLoader

    clip = nshot.load(tiny)
    _held["clip"] = clip
    expected = vectors(photos)
    loader: Any = DataLoader(Photos(clip, photos), batch_size=4, num_workers=2, timeout=100)
    found = np.concatenate([batch.numpy() for batch in loader])
    assert np.array_equal(found, expected)
