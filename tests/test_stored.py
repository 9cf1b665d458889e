"""Folders of vectors that are larger than memory: read a row group at a time, and the same answers."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nshot
from nshot.embeddings import stored as folders_stored
from nshot.embeddings.part_writer import PartWriter
from nshot.embeddings.parts import Parts, part_name
from nshot.errors import RequestError
from nshot.evaluation.evaluation import evaluate
from nshot.few_shot import select
from nshot.types import Embedded, Failure
from nshot.unit import normalize

pytest.importorskip("pyarrow", reason="parts are Parquet: they need pyarrow")
module = sys.modules["nshot.embeddings.stored"]

LABELS = ("cat", "dog", "owl")
SOME = np.random.default_rng(0).normal(size=(3, 16))


def write(folder: Path, count: int, *, per: int = 40, dimension: int = 16, fail: int | None = None) -> Path:
    """A folder of labelled vectors around three centres; every so-and-so-many-th is a failure."""
    rng = np.random.default_rng(1)
    centres = np.random.default_rng(0).normal(size=(3, dimension))
    folder.mkdir()
    for number, start in enumerate(range(0, count, per)):
        rows = range(start, min(start + per, count))
        writer = PartWriter(
            folder / part_name(number),
            dimension=dimension,
            width="float32",
            labelled=True,
            meta={"nshot": 1, "dimension": dimension, "classes": LABELS},
        )
        vectors = normalize(centres[[row % 3 for row in rows]] + rng.normal(size=(len(rows), dimension)))
        for row, vector in zip(rows, vectors, strict=True):
            own = (LABELS[row % 3],)
            if fail is not None and row % fail == 0:
                writer.write(Failure(f"{row}.jpg", "UndecodableImage", "no image", own))
            else:
                writer.write(Embedded(f"{row}.jpg", vector, own, digest=row.to_bytes(32, "big")))
        writer.finish()
    return folder


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[Any, Any]]:
    """A folder's embeddings in memory, and as they are where they stay on the disk."""

    def read(count: int = 300, **options: Any) -> tuple[nshot.Embeddings, nshot.Embeddings]:
        folder = write(tmp_path / "v", count, **options)
        held = nshot.open(folder)
        monkeypatch.setattr(module, "HELD", 0)
        there = nshot.open(folder)
        assert isinstance(held, nshot.Embeddings)
        assert isinstance(there, nshot.Embeddings)
        assert isinstance(held.vectors, np.ndarray)
        assert hasattr(there.vectors, "take_rows")
        return held, there

    return read


def test_a_folder_that_stays_on_the_disk_is_the_same_embeddings(both: Callable[..., tuple[Any, Any]]) -> None:
    held, there = both(fail=7)
    assert there.vectors.shape == held.vectors.shape
    assert list(there.sources) == list(held.sources)
    assert there.sources[-1] == held.sources[-1]
    assert there.sources[3:9] == held.sources[3:9]
    assert list(there.digests) == list(held.digests)
    assert (there.labels, there.classes, there.failures) == (held.labels, held.classes, held.failures)
    assert np.array_equal(there.positions, held.positions)
    assert [type(each) for each in there.records()] == [type(each) for each in held.records()]
    for key in (5, -1, slice(10, 90), slice(None, None, 7), [3, 200, 3], np.arange(len(held)) % 2 == 0):
        assert np.array_equal(there.vectors[key], held.vectors[key])
    assert np.array_equal(there.vectors[30:50, 2], held.vectors[30:50, 2])
    assert np.array_equal(np.asarray(there), held.vectors)
    assert np.allclose(there.vectors @ held.vectors[0], held.vectors @ held.vectors[0])
    assert np.allclose(there.vectors.mean(axis=0), held.vectors.mean(axis=0))
    some = there[[4, 2, 250]]
    assert list(some.sources) == [held.sources[row] for row in (4, 2, 250)]
    assert np.array_equal(np.asarray(some), held.vectors[[4, 2, 250]])
    assert some[1].source == held.sources[2]


def test_what_is_measured_is_the_same_on_the_disk(
    both: Callable[..., tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, there = both(fail=11)
    asked = nshot.Classifier(LABELS, SOME, 20.0)
    other = {"another": nshot.Classifier(LABELS, SOME + 0.3, 20.0)}
    first, second = (evaluate(asked, images, other) for images in (held, there))
    assert first.figures == second.figures
    assert first.rivals == second.rivals
    assert first.suspects == second.suspects
    assert np.allclose(first.scores, second.scores)
    assert np.array_equal(select(held.vectors, asked, 20), select(there.vectors, asked, 20))
    assert nshot.duplicates(held).groups == nshot.duplicates(there).groups
    one, two = (nshot.cluster(images, 3, seed=1) for images in (held, there))
    assert np.array_equal(one.labels, two.labels)
    assert list(one.records()) == list(two.records())
    fitted = [nshot.fit(images, seed=0).report.candidate for images in (held, there)]
    assert fitted[0] == fitted[1]
    reports = [nshot.calibrate(asked, images, coverage=0.9).report for images in (held, there)]
    assert reports[0] == reports[1]
    # more scores than are held at once: doubtful labels are looked for in a second reading
    monkeypatch.setattr("nshot.evaluation.label_errors._TEMPERED", 300)
    third = evaluate(asked, there, other)
    assert third.figures == first.figures
    rows = [each.row for each in third.suspects]
    assert rows
    assert set(rows[:3]) & {each.row for each in first.suspects}


def test_a_random_part_is_enough_to_calibrate_and_to_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib

    calibrating = importlib.import_module("nshot.classifier.calibrating")
    examples_module = importlib.import_module("nshot.few_shot.examples")
    labels = ["cat"] * 2 + ["dog"] * 500 + ["owl"] * 498
    images = nshot.Embeddings.of(np.random.default_rng(0).normal(size=(1000, 16)), labels)
    assert calibrating.enough(nshot.Classifier(LABELS, SOME, 20.0), images) is images
    assert examples_module.enough(images) is images
    monkeypatch.setattr(calibrating, "_ROOM", 0)
    monkeypatch.setattr(calibrating, "_LEAST", 100)
    some = calibrating.enough(nshot.Classifier(LABELS, SOME, 20.0), images)
    assert len(some) == 100
    assert sorted(some.sources, key=images.sources.index) == list(some.sources)
    monkeypatch.setattr(examples_module, "_ROOM", 16 * 102)
    drawn = examples_module.enough(images)
    assert [drawn.label.count(label) for label in LABELS] == [2, 50, 50]


def test_a_part_that_is_damaged_is_a_failure_behind_those_before_it(
    both: Callable[..., tuple[Any, Any]], tmp_path: Path
) -> None:
    both()
    path = tmp_path / "v" / part_name(2)
    path.write_bytes(path.read_bytes()[:-40])
    there = nshot.open(tmp_path / "v")
    assert isinstance(there, nshot.Embeddings)
    assert len(there) == 260
    assert [(place, each.type) for place, each in there.failures.items()] == [(80, "DamagedShard")]
    assert there.positions[79:81].tolist() == [79, 81]


def test_folders_of_two_models_are_not_put_together(tmp_path: Path) -> None:
    for name, space in (("a", "1" * 64), ("b", "2" * 64)):
        (tmp_path / name).mkdir()
        writer = PartWriter(
            tmp_path / name / part_name(0),
            dimension=4,
            width="float32",
            labelled=False,
            meta={"nshot": 1, "space": space},
        )
        writer.write(Embedded("x.jpg", np.eye(4, dtype=np.float32)[0]))
        writer.finish()
    with pytest.raises(RequestError, match="different models"):
        folders_stored([Parts(tmp_path / "a"), Parts(tmp_path / "b")])


def test_vectors_of_two_lengths_are_not_put_together(tmp_path: Path) -> None:
    folder, other = write(tmp_path / "a", 80), write(tmp_path / "b", 80, dimension=8)
    with pytest.raises(RequestError, match="vectors of different models"):
        folders_stored([Parts(folder), Parts(other)])
    (other / part_name(1)).replace(folder / part_name(1))
    found = folders_stored([Parts(folder)])
    assert found.vectors.shape == (40, 16)
    (failure,) = found.failures.values()
    assert "vectors of 8 numbers, and others hold 16" in failure.message


def test_too_many_images_are_not_compared_each_with_each(
    both: Callable[..., tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import importlib

    monkeypatch.setattr(importlib.import_module("nshot.search.duplicates"), "_COMPARED", 100)
    _, there = both()
    with pytest.raises(RequestError, match="too many to compare each with each"):
        nshot.duplicates(there)
    assert len(nshot.duplicates(there, kinds=["same"])) == 0


def test_neighbours_are_looked_for_by_parts_and_among_too_many_not_at_all(
    both: Callable[..., tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nshot.search import nearest, neighbours

    held, there = both()
    products = held.vectors @ held.vectors.T
    np.fill_diagonal(products, -np.inf)
    monkeypatch.setattr("nshot.search.product._MINE", 70)
    monkeypatch.setattr("nshot.search.product._OTHERS", 90)
    monkeypatch.setattr(type(there.vectors), "__array__", None)  # nobody reads all of them
    rows, cosines = neighbours(there.vectors, 7)
    assert np.array_equal(rows, np.argsort(-products, axis=1, kind="stable")[:, :7])
    assert np.allclose(cosines, -np.sort(-products, axis=1)[:, :7], atol=1e-6)
    assert [list(hits) for hits in nearest(there, 3)][:2] == [list(hits) for hits in nearest(held, 3)][:2]
    monkeypatch.setattr("nshot.search.searching._COMPARED", 100)
    with pytest.raises(RequestError, match="too many to compare each with each"):
        nearest(there)


def test_one_vector_of_many_is_read_without_a_list_of_all_rows(
    both: Callable[..., tuple[Any, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, there = both()
    monkeypatch.setattr(module.np, "arange", None)
    assert np.array_equal(there.vectors[-2], held.vectors[-2])
    with pytest.raises(IndexError):
        there.vectors[300]


_PEAK = """
import resource, sys
import numpy as np
import nshot
import nshot.embeddings
sys.modules["nshot.embeddings.stored"].HELD = 0
images = nshot.open(sys.argv[2])
assert not isinstance(images.vectors, np.ndarray)
centres = np.random.default_rng(0).normal(size=(3, images.dimension))
asked = nshot.Classifier(("cat", "dog", "owl"), centres, 20.0)
if sys.argv[1] == "evaluate":
    from nshot.evaluation.evaluation import evaluate
    from nshot.evaluation.files import write_predictions
    from pathlib import Path
    found = evaluate(asked, images, {"other": asked})
    write_predictions(Path(sys.argv[2], "predictions.csv"), found)
elif sys.argv[1] == "calibrate":
    import nshot.classifier.calibrating as calibrating
    calibrating._ROOM, calibrating._LEAST = 0, 5000
    sys.modules["nshot.classifier.calibrating"].calibrate(asked, images)
elif sys.argv[1] == "select":
    from nshot.few_shot import select
    assert len(select(images.vectors, asked, 20)) == 20
elif sys.argv[1] == "duplicates":
    assert not len(nshot.duplicates(images, kinds=["same"]))
elif sys.argv[1] == "cluster":
    assert len(nshot.cluster(images, 3)) == 3
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.fixture(scope="module")
def small_and_large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of 10,000 and of 90,000 vectors; the second is 82 MB larger."""
    folder = tmp_path_factory.mktemp("vectors")
    small, large = (write(folder / f"{n}", n, per=10_000, dimension=256) for n in (10_000, 90_000))
    return small, large


@pytest.mark.parametrize("what", ["evaluate", "calibrate", "select", "duplicates", "cluster"])
def test_nine_times_the_vectors_take_little_more_memory(
    small_and_large: tuple[Path, Path], what: str
) -> None:
    """What grows are labels, places and figures: some hundred bytes per image, not its vector."""
    peaks = []
    for folder in small_and_large:
        done = subprocess.run(
            [sys.executable, "-c", _PEAK, what, str(folder)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] - peaks[0] < 41, peaks  # half of what the vectors take
