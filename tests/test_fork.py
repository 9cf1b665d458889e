"""A loaded model in a forked process, under multiprocessing, and in a torch DataLoader's workers."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nshot

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="forking is POSIX")

_INSIDE = "NSHOT_TEST_FORK"
fresh = pytest.mark.skipif(
    _INSIDE not in os.environ, reason="run by the first test, in an interpreter of its own"
)


def test_a_model_works_after_a_fork_of_a_program_that_loaded_one() -> None:
    """In a program of its own: a child that collects other tests' models waits for their threads."""
    if _INSIDE in os.environ:
        pytest.skip("this is that interpreter")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    done = subprocess.run(
        command, env=os.environ | {_INSIDE: "1"}, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-3000:]


_held: dict[str, Any] = {}


def vectors(photos: Path) -> Any:
    return np.stack([each.vector for each in _held["clip"].embed_images(photos)])


def work(photos: Path) -> Any:
    signal.alarm(60)  # a worker that hangs is killed, and the test fails
    return vectors(photos)


@fresh
@pytest.mark.parametrize("store", [False, True])
def test_a_model_that_was_used_works_in_forked_workers(
    tiny: Path, photos: Path, tmp_path: Path, store: bool
) -> None:
    _held["clip"] = nshot.load(tiny, store=tmp_path / "store.sqlite" if store else False)
    expected = vectors(photos)
    expected_texts = _held["clip"].embed_texts(["cat"])
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # Python 3.12 and later: forking with threads about
        with multiprocessing.get_context("fork").Pool(2) as pool:
            for found in pool.map_async(work, [photos] * 3).get(120):
                assert np.array_equal(found, expected)
    assert np.array_equal(vectors(photos), expected)
    assert np.array_equal(_held["clip"].embed_texts(["cat"]), expected_texts)


def loaded_and_used(folder: Path, photos: Path) -> Any:
    signal.alarm(120)
    clip = nshot.load(folder)
    return np.asarray(clip.embed(photos).vectors)


@fresh
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


@fresh
@pytest.mark.skipif(find_spec("torch") is None, reason="needs torch")
def test_a_torch_data_loader_embeds_in_its_workers(tiny: Path, photos: Path) -> None:
    from torch.utils.data import DataLoader

    clip = nshot.load(tiny)
    _held["clip"] = clip
    expected = vectors(photos)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        loader: Any = DataLoader(Photos(clip, photos), batch_size=4, num_workers=2, timeout=100)
        found = np.concatenate([batch.numpy() for batch in loader])
    assert np.array_equal(found, expected)
