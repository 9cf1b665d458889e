"""Search: what is found, whether it fits, and what is said where nothing does."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from recorded import FOLDER, needed

import nshot
from nshot import search
from nshot.embeddings import Embeddings, open_writer
from nshot.errors import RequestError, StoreError
from nshot.search.product import pairs, top
from nshot.sketchbook import drawing, scenes, words
from nshot.types import Floats
from nshot.unit import normalize


def some(rows: int, dimension: int = 32, seed: int = 0) -> Floats:
    return normalize(np.random.default_rng(seed).standard_normal((rows, dimension)))


@pytest.fixture(scope="module")
def drawn() -> tuple[nshot.Model, Embeddings]:
    clip = nshot.load("sketchbook")
    scenery = [scenes.sample(9_000_000 + i, pairs=words.PAIRS, several=0) for i in range(60)]
    photos = clip.embed([drawing.draw(scene) for scene in scenery])
    return clip, photos.with_labels([f"{s.things[0].colour} {s.things[0].shape}" for s in scenery])


@pytest.mark.parametrize("kind", [np.float32, np.float16])
def test_a_search_is_the_plain_product(kind: type) -> None:
    vectors: NDArray[Any] = some(70_000).astype(kind)
    queries = some(6, seed=1)
    rows, cosines = top(vectors, queries, 15)
    plain = vectors.astype(np.float32) @ queries.T
    order = np.argsort(-plain, axis=0, kind="stable")[:15].T
    np.testing.assert_array_equal(rows, order)
    np.testing.assert_allclose(cosines, np.take_along_axis(plain.T, order, 1), atol=1e-6)


def test_float16_is_searched_without_numkong_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, queries = some(3000).astype(np.float16), some(3, seed=1)
    quick = top(vectors, queries, 5)
    monkeypatch.setattr("nshot.search.product.numkong", lambda: None)
    np.testing.assert_array_equal(top(vectors, queries, 5)[0], quick[0])


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("extra", [True, False])
def test_a_search_finds_the_best_in_whatever_order_the_rows_lie(
    monkeypatch: pytest.MonkeyPatch, kind: type, extra: bool
) -> None:
    if not extra:
        monkeypatch.setattr("nshot.search.product.numkong", lambda: None)
    query = some(5, 16, seed=1)
    vectors = some(9000, 16)
    rising = vectors[np.argsort(vectors @ query[0])]  # each part is over the edge of all before it
    equal = np.repeat(vectors[:3], 3000, axis=0)
    tiny = vectors.copy()
    tiny[:, 3:] *= 1e-6  # as float16 they have no full exponent
    for rows in (rising, equal, normalize(tiny)):
        held: NDArray[Any] = rows.astype(kind)
        found, cosines = top(held, query, 7)
        plain = held.astype(np.float32) @ query.T
        np.testing.assert_allclose(cosines, -np.sort(-plain, axis=0)[:7].T, atol=1e-6)
        if rows is equal:
            assert found[0].tolist() == sorted(found[0].tolist())  # equal ones as they lie


def test_all_near_pairs_are_found_once_and_no_other() -> None:
    vectors = some(5000)
    vectors[4000:4100] = vectors[:100]
    first, second, cosines, least = pairs(vectors, 0.999)
    assert sorted(zip(first.tolist(), second.tolist(), strict=True)) == [(i, i + 4000) for i in range(100)]
    assert cosines.min() > 0.999
    assert least == 0.999


def test_too_many_pairs_are_thinned_to_the_nearest_and_it_is_told() -> None:
    vectors = some(300, 4)
    first, _, cosines, least = pairs(vectors, -1.0, most=50)
    every = np.sort((vectors @ vectors.T)[np.triu_indices(300, 1)])
    assert len(first) == 50
    assert least == pytest.approx(float(cosines.min())) == pytest.approx(float(every[-50]), abs=1e-6)


def test_what_is_drawn_is_found_and_said_to_fit(drawn: tuple[nshot.Model, Embeddings]) -> None:
    clip, photos = drawn
    answers = {label: clip.search(photos, f"a {label}", n=5) for label in photos.classes[:12]}
    assert np.mean([photos.label[hits[0].row] == label for label, hits in answers.items()]) > 0.9
    assert np.mean([bool(hits.fits) for hits in answers.values()]) > 0.8
    hits = next(hits for hits in answers.values() if hits.fits)
    assert [hit.rank for hit in hits] == [1, 2, 3, 4, 5]
    assert set(hits[0].to_dict()) == {"query", "rank", "source", "score", "cosine", "fits"}


def test_nonsense_fits_nothing(drawn: tuple[nshot.Model, Embeddings]) -> None:
    clip, photos = drawn
    hits = clip.search(photos, "xyzzy blorf")
    assert hits.fits is False
    assert not any(hit.fits for hit in hits)
    assert "nothing here fits" in repr(hits)


def test_an_image_finds_its_like_and_not_itself(drawn: tuple[nshot.Model, Embeddings]) -> None:
    clip, photos = drawn
    hits = clip.search(photos, like=photos[3], n=59)
    assert photos.sources[3] not in [hit.source for hit in hits]
    assert hits.fits is None
    expected = np.argsort(-(photos.vectors @ photos.vectors[3]))
    assert [hit.row for hit in hits] == [row for row in expected.tolist() if row != 3]


def test_what_is_not_wanted_goes_down(drawn: tuple[nshot.Model, Embeddings]) -> None:
    clip, photos = drawn
    red = {row for row, label in enumerate(photos.label) if label.startswith("red")}
    for_all = [hit.row for hit in clip.search(photos, "a circle", n=60)]
    without = [hit.row for hit in clip.search(photos, "a circle", against="red", n=60)]
    assert sum(map(without.index, red)) > sum(map(for_all.index, red))


def test_diverse_hits_are_further_from_each_other() -> None:
    middle = some(1)[0]
    near = normalize(middle + 0.02 * some(20, seed=1))  # copies of one another
    wide = normalize(middle + 0.9 * some(20, seed=2))
    photos = Embeddings.of(np.concatenate([near, wide]))
    query = search.compose("t", texts=middle)
    plain = [hit.row for hit in search.search(photos, query, 5)]
    varied = [hit.row for hit in search.search(photos, query, 5, diversity=0.6)]
    assert all(row < 20 for row in plain)
    assert sum(row >= 20 for row in varied) >= 2
    assert varied[0] == plain[0]


def test_a_filter_leaves_only_what_it_allows() -> None:
    photos = Embeddings.of(some(50))
    hits = search.search(photos, search.compose("t", texts=some(1, seed=3)), 50, where=np.arange(50) % 2 == 0)
    assert {hit.row for hit in hits} == set(range(0, 50, 2))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "something to look for"),
        ({"texts": [[1.0, 0.0]], "against": [[1.0, 0.0], [1.0, 0.0]]}, None),
        ({"texts": [[1.0, 0.0]], "like": [[-1.0, 0.0]]}, "cancel"),
    ],
)
def test_a_question_of_nothing_is_refused(asked: dict[str, list[list[float]]], said: str | None) -> None:
    if said is None:
        search.compose("t", **asked)
        return
    with pytest.raises(RequestError, match=said):
        search.compose("t", **asked)


def test_a_question_of_another_model_is_refused() -> None:
    with pytest.raises(RequestError, match="different models"):
        search.search(Embeddings.of(some(3, 8)), search.compose("t", texts=some(1, 16)))


def test_each_image_gets_its_neighbours() -> None:
    photos = Embeddings.of(some(20), sources=[f"{i}.jpg" for i in range(20)])
    answers = search.nearest(photos, 3)
    products = photos.vectors @ photos.vectors.T
    np.fill_diagonal(products, -2)
    assert [hits.query for hits in answers] == list(photos.sources)
    assert [hits[0].row for hits in answers] == products.argmax(axis=1).tolist()


# An index on disk


def test_an_index_answers_as_the_vectors_do(tmp_path: Path) -> None:
    photos = Embeddings.of(some(2000), sources=[f"ä{i}\n" for i in range(2000)])
    index = search.Index.build(photos, tmp_path / "index")
    query = search.compose("t", texts=some(1, seed=1), generic_texts=some(9, seed=2))
    plain, held = search.search(photos, query), search.search(index, query)
    assert [hit.source for hit in plain] == [hit.source for hit in held]
    np.testing.assert_allclose([h.cosine for h in plain], [h.cosine for h in held], atol=2e-3)


def test_a_damaged_index_is_refused_and_made_again(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npz"
    photos = Embeddings.of(some(500))
    with open_writer(path) as writer:
        for item in photos:
            writer.write(item)
    search.Index.beside(path)
    folder = Path(f"{path}.index")
    for name in ("vectors.npy", "sources", "index.json"):
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])
        with pytest.raises(StoreError, match="build it again"):
            search.Index.open(folder)
        assert search.Index.beside(path).top(photos.vectors[:1], 1)[0].tolist() == [[0]]


def test_an_index_of_a_file_that_changed_is_made_again(tmp_path: Path) -> None:
    path = tmp_path / "vectors.npz"
    for rows in (20, 30):
        with open_writer(path) as writer:
            for item in Embeddings.of(some(rows)):
                writer.write(item)
        assert len(search.Index.beside(path)) == rows


def test_a_row_that_is_no_unit_vector_is_not_answered_with(tmp_path: Path) -> None:
    index = search.Index.build(Embeddings.of(some(100)), tmp_path / "index")
    held = np.load(tmp_path / "index" / "vectors.npy", mmap_mode="r+")
    held[7] = 5.0
    held.flush()
    with pytest.raises(StoreError, match="damaged"):
        search.Index.open(tmp_path / "index").top(some(1, seed=4), 100)
    assert len(index) == 100


def test_an_inverted_file_says_what_it_misses(tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="needs the [search] extra")
    photos = Embeddings.of(some(3000))
    index = search.Index.build(photos, tmp_path / "index", texts=some(20, seed=5))
    assert index.recall is not None
    assert 0.5 < index.recall <= 1.0


def test_an_inverted_file_that_is_damaged_or_that_somebody_else_made_is_not_looked_into(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faiss = pytest.importorskip("faiss", reason="needs the [search] extra")
    photos, texts = Embeddings.of(some(400)), some(20, seed=5)
    path = tmp_path / "vectors.npz"
    with open_writer(path) as writer:
        for item in photos:
            writer.write(item)
    index = search.Index.beside(path, texts=texts)
    assert index.recall is not None
    assert search.Index.beside(path).recall == index.recall
    exact = index.exact().top(texts, 5)
    monkeypatch.setattr(faiss, "deserialize_index", None)  # nothing of it is read
    monkeypatch.setenv("NSHOT_CACHE", str(tmp_path / "somebody_else"))
    other = search.Index.beside(path)
    assert other.recall is None
    assert np.array_equal(other.top(texts, 5)[0], exact[0])
    monkeypatch.undo()
    lists = tmp_path / "vectors.npz.index" / "lists.faiss"
    lists.write_bytes(b"rubbish")
    damaged = search.Index.beside(path)
    assert damaged.recall is None
    assert np.array_equal(damaged.top(texts, 5)[0], exact[0])
    assert search.Index.beside(path, texts=texts).recall is not None  # made again
    assert lists.read_bytes() != b"rubbish"


def test_a_search_without_a_place_for_the_key_looks_at_every_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("faiss", reason="needs the [search] extra")
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("NSHOT_CACHE", str(tmp_path / "file" / "cache"))
    index = search.Index.build(Embeddings.of(some(400)), tmp_path / "index", texts=some(20, seed=5))
    assert index.recall is None
    assert not (tmp_path / "index" / "lists.faiss").exists()


@pytest.mark.parametrize("names", [b'"a"\n' * 3, b"\xff\n" * 20, b"[" * 5000 + b"\n" + b'"a"\n' * 19])
def test_names_of_an_index_that_somebody_changed_are_an_error(tmp_path: Path, names: bytes) -> None:
    """Also where the checksum was made to fit."""
    folder = tmp_path / "index"
    search.Index.build(Embeddings.of(some(20)), folder)
    (folder / "sources").write_bytes(names)
    about = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps(about | {"names": zlib.crc32(names)}))
    with pytest.raises(StoreError, match="again"):
        list(search.Index.open(folder).sources)


def test_a_row_of_an_index_that_is_no_number_is_an_error_and_no_warning(tmp_path: Path) -> None:
    search.Index.build(Embeddings.of(some(20)), tmp_path / "index")
    held = np.load(tmp_path / "index" / "vectors.npy", mmap_mode="r+")
    held[7, 0], held[8, 1], held[8, 2] = np.nan, np.inf, -np.inf
    held.flush()
    with pytest.raises(StoreError, match="damaged"):
        search.Index.open(tmp_path / "index").top(some(1, seed=4), 20)


def test_more_than_the_lists_hold_is_found_by_looking_at_everything(tmp_path: Path) -> None:
    pytest.importorskip("faiss", reason="needs the [search] extra")
    photos = Embeddings.of(some(400))
    index = search.Index.build(photos, tmp_path / "index", texts=some(20, seed=5))
    rows, cosines = index.top(some(2, seed=6), 400)
    assert [sorted(found) for found in rows.tolist()] == [list(range(400))] * 2
    assert (np.diff(cosines, axis=1) <= 0).all()
    assert index.exact().recall is None


_BUILD = """
import os, sys
import numpy as np
from nshot import search
from nshot.embeddings import Embeddings
from nshot.search import index

rows = np.load(sys.argv[1])
at = int(sys.argv[3])
steps = 0

def counted(name, call):
    def step(*args, **options):
        global steps
        steps += 1
        if steps == at:
            os.kill(os.getpid(), 9)
        return call(*args, **options)
    return step

for place, name in ((index, "_put"), (index, "_write"), (index.shutil, "rmtree"), (index.Path, "rename"),
                    (os, "fsync"), (index, "_make_lists")):
    setattr(place, name, counted(name, getattr(place, name)))
search.Index.build(Embeddings.of(rows), sys.argv[2])
"""


def test_a_build_that_is_killed_leaves_the_old_index_or_the_new_one_or_none(tmp_path: Path) -> None:
    import subprocess
    import sys

    old, new = some(60), some(60, seed=1)
    np.save(tmp_path / "new.npy", new)
    folder = tmp_path / "index"
    killed = 0
    for at in range(1, 30):
        search.Index.build(Embeddings.of(old), folder)
        asked = [sys.executable, "-c", _BUILD, str(tmp_path / "new.npy"), str(folder), str(at)]
        code = subprocess.run(asked, check=False).returncode
        killed += code == -9
        try:
            held = np.asarray(search.Index.open(folder).vectors, np.float32)
            assert any(np.allclose(held, rows, atol=1e-3) for rows in (old, new))
        except StoreError:
            assert not folder.exists()  # between the one and the other: made again
        index = search.Index.build(Embeddings.of(new), folder)  # whatever is left does not hinder
        np.testing.assert_allclose(np.asarray(index.vectors, np.float32), new, atol=1e-3)
        if code == 0:
            break
    assert killed >= 5
    assert code == 0


def test_a_folder_of_other_things_is_not_taken_for_an_index(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RequestError, match="holds other things"):
        search.Index.build(Embeddings.of(some(5)), tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


# Real vectors


@needed
def test_captions_find_their_photographs_as_the_plain_product_does() -> None:
    with np.load(FOLDER / "flickr8k_vitb32.npz") as data:
        images, texts, own = (
            normalize(data["image_embeds"]),
            normalize(data["text_embeds"]),
            data["caption_image"],
        )
    rows, _ = top(images, texts, 1)
    assert (rows[:, 0] == own).mean() == (np.argmax(texts @ images.T, axis=1) == own).mean() > 0.85


# Clusters


def blobs(k: int = 4, each: int = 30) -> Embeddings:
    centres = some(k, 40, seed=7)
    rows = np.concatenate([centre + 0.05 * some(each, 40, seed=8 + i) for i, centre in enumerate(centres)])
    return Embeddings.of(rows, [str(i) for i in range(k) for _ in range(each)])


def test_clusters_are_what_belongs_together() -> None:
    photos = blobs()
    found = search.cluster(photos, 4)
    for each in found.clusters:
        assert len({photos.label[row] for row in each.rows}) == 1
        assert list(each.distances) == sorted(each.distances)
        assert 0.9 < each.tightness <= 1.0
    assert sum(map(len, found.clusters)) == len(photos)
    record = next(found.records())
    assert set(record) == {"cluster", "name", "source", "distance"}
    json.dumps(record)


def test_the_same_seed_gives_the_same_clusters() -> None:
    photos = Embeddings.of(some(200))
    np.testing.assert_array_equal(
        search.cluster(photos, 7, seed=3).labels, search.cluster(photos, 7, seed=3).labels
    )


def test_an_outlier_is_told_last() -> None:
    photos = blobs(2)
    odd = Embeddings.of(
        np.concatenate([photos.vectors, normalize(photos.vectors[:1] + some(1, 40, seed=99))])
    )
    found = search.cluster(odd, 2)
    cluster = next(each for each in found.clusters if 60 in each.rows)
    assert cluster.rows[-1] == 60
    assert cluster.outliers >= 1


def test_clusters_are_named_by_what_sets_them_apart() -> None:
    # every text lies toward "thing", and every image as well: only what is left of them tells
    photos = blobs(3)
    middles = np.stack([photos.vectors[30 * i : 30 * i + 30].mean(axis=0) for i in range(3)])
    away = 3 * some(1, 40, seed=50)
    names = ["thing", "a", "b", "c"]
    vectors = normalize(np.concatenate([middles.mean(axis=0)[None], middles]) + away)
    found = search.cluster(photos, 3, names=names, name_vectors=vectors)
    told = {photos.label[each.medoid]: each.name for each in found.clusters}
    assert told == {"0": "a", "1": "b", "2": "c"}
    assert sorted(search.suggest_labels(found)) == ["a", "b", "c"]


def test_fewer_clusters_come_of_joining_the_nearest() -> None:
    found = search.cluster(blobs(4), 8)
    assert len(np.unique(search.joined(found, 4))) == 4
    np.testing.assert_array_equal(search.joined(found, 8), found.labels)


@pytest.mark.parametrize("k", [0, 11])
def test_a_number_of_clusters_that_cannot_be_is_refused(k: int) -> None:
    with pytest.raises(RequestError, match="between 1 and 10"):
        search.cluster(Embeddings.of(some(10)), k)


def test_equal_images_are_clustered_without_a_hang() -> None:
    assert sum(map(len, search.cluster(Embeddings.of(np.ones((9, 4))), 3).clusters)) == 9
