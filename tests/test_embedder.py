"""Images to vectors: in order, once, the same in any batch, and never stopped by one of them."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nshot
from nshot import encoders
from nshot.errors import LabelError, RequestError, SourceError, StoreError
from nshot.images import apart, decode
from nshot.types import Embedded, Failure


def vectors(results: Iterator[Embedded | Failure]) -> np.ndarray:
    found = list(results)
    assert all(isinstance(result, Embedded) for result in found), found
    return np.stack([result.vector for result in found if isinstance(result, Embedded)])


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> nshot.Embedder:
    from checkpoints import tiny_checkpoint

    folder = tmp_path_factory.mktemp("model")
    tiny_checkpoint(folder)
    return nshot.load(folder, precision="f32")


def test_a_folder_gives_one_unit_vector_an_image_in_order(clip: nshot.Embedder, photos: Path) -> None:
    results = list(clip.embed_images(photos))
    assert [result.source for result in results] == [str(path) for path in sorted(photos.iterdir())]
    found = vectors(iter(results))
    assert found.shape == (12, clip.dimension)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1.0, atol=1e-6)


def test_answers_do_not_depend_on_batch_size_or_workers(tiny: Path, photos: Path) -> None:
    several = [
        vectors(nshot.load(tiny, precision="f32", batch_size=batch, workers=workers).embed_images(photos))
        for batch, workers in ((1, 1), (5, 2), (64, 7))
    ]
    np.testing.assert_allclose(several[1], several[0], atol=1e-6)
    np.testing.assert_allclose(several[2], several[0], atol=1e-6)


def test_decoding_in_processes_gives_the_same_vectors_and_the_same_failures(
    tiny: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "05b.jpg").write_bytes(b"\xff\xd8 no image")
    (photos / "05c.png").write_bytes((photos / "04.png").read_bytes()[:60])
    threads = list(nshot.load(tiny, device="cpu", workers=2).embed_images(photos))
    starved: list[int] = []
    own = apart.done

    def watched(work: Any, data: bytes, allowance: int, allowed: apart.Time) -> Any:
        try:
            return own(work, data, allowance, allowed)
        except apart.Starved:
            starved.append(len(data))
            raise

    def not_here(*_: object, **__: object) -> None:
        raise AssertionError("it was decoded in this process")

    monkeypatch.setattr("nshot.images.prepare.decode", not_here)
    monkeypatch.setattr(apart, "done", watched)
    clip = nshot.load(tiny, device="cpu", workers=2, processes=True)
    assert clip.processes
    processes = list(clip.embed_images(photos))
    assert not starved  # what a modest image may take is enough for it: none is decoded twice
    assert [type(each) for each in processes] == [type(each) for each in threads]
    for one, other in zip(threads, processes, strict=True):
        assert one.source == other.source
        if isinstance(one, Failure):
            assert one == other
        else:
            assert isinstance(other, nshot.Embedded)
            assert np.array_equal(one.vector, other.vector)
    assert sum(isinstance(each, Failure) for each in processes) == 2


def test_a_gpu_that_many_threads_decode_for_has_them_decode_in_processes(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = encoders.load

    def pretended(*given: Any, **options: Any) -> encoders.Encoder:
        encoder = own(*given, **{**options, "device": "cpu"})
        encoder.device = options["device"]
        return encoder

    monkeypatch.setattr(encoders, "load", pretended)
    assert nshot.load(tiny, device="cuda", workers=16).processes
    assert not nshot.load(tiny, device="cuda", workers=4).processes
    assert not nshot.load(tiny, device="cpu", workers=16).processes
    assert not nshot.load(tiny, device="cuda", workers=16, processes=False).processes


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system binds no process to cores")
def test_no_more_threads_decode_than_there_are_cores_to_use(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quota = tmp_path / "cpu.max"
    monkeypatch.setattr("nshot.images.budget._QUOTA", quota)
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(8)})
    for said, cores in (
        (None, 8),
        ("max 100000\n", 8),
        ("250000 100000\n", 3),
        ("5000 100000", 1),
        ("what", 8),
        ("1 0", 8),
        ("9900000 100000", 8),
    ):
        if said is not None:
            quota.write_text(said)
        assert nshot.load(tiny, device="cpu").workers == cores
    quota.write_text("200000 100000\n")
    at_once, most, lock = 0, 0, threading.Lock()
    own = decode.decode

    def watched(data: bytes, **settings: Any) -> Any:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        try:
            return own(data, **settings)
        finally:
            with lock:
                at_once -= 1

    monkeypatch.setattr("nshot.images.prepare.decode", watched)
    images = np.random.default_rng(0).integers(0, 256, (40, 120, 160, 3), np.uint8)
    assert len(nshot.load(tiny, device="cpu").embed(images)) == 40
    assert 1 <= most <= 2


def test_compiled_is_handed_to_the_runtime(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    own = encoders.load

    def watched(*given: Any, compiled: bool, **options: Any) -> encoders.Encoder:
        asked.append(compiled)
        return own(*given, **options)

    monkeypatch.setattr(encoders, "load", watched)
    nshot.load(tiny)
    nshot.load(tiny, compiled=True)
    assert asked == [False, True]


def test_every_form_of_an_image_gives_the_same_vector(clip: nshot.Embedder, photos: Path) -> None:
    file = photos / "01.png"
    image = Image.open(file)
    forms: list[Any] = [file, str(file), file.read_bytes(), image, np.asarray(image)]
    found = vectors(clip.embed_images(forms))
    np.testing.assert_array_equal(found, np.broadcast_to(found[0], found.shape))
    np.testing.assert_array_equal(vectors(clip.embed_images(file)), found[:1])


def test_one_bad_image_is_a_failure_in_its_place(clip: nshot.Embedder, photos: Path) -> None:
    (photos / "03.jpg").write_bytes(b"\xff\xd8\xff\xe0 broken")
    results = list(clip.embed_images([photos, photos / "missing.jpg"]))
    failed = [(number, result) for number, result in enumerate(results) if isinstance(result, Failure)]
    assert [number for number, _ in failed] == [3, 12]
    assert "03.jpg" in failed[0][1].source
    assert failed[0][1].type == "UndecodableImage"
    assert len(results) == 13


def test_texts_get_one_unit_vector_each_whatever_stands_beside_them(clip: nshot.Embedder) -> None:
    together = clip.embed_texts(["a cat", "a photo of a dog", "a cat"])
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-6)
    np.testing.assert_array_equal(together[0], together[2])
    np.testing.assert_allclose(clip.embed_texts(["a photo of a dog"])[0], together[1], atol=1e-6)
    assert clip.embed_texts([]).shape == (0, clip.dimension)


def test_a_label_over_the_context_length_is_named(clip: nshot.Embedder) -> None:
    endless = "zx " * 100 + "end"
    with pytest.raises(LabelError, match="end"):
        nshot.zero_shot(clip, ["cat", endless])


def test_adding_a_label_leaves_the_other_cosines_as_they_were(clip: nshot.Embedder, photos: Path) -> None:
    found = vectors(clip.embed_images(photos))
    two = nshot.zero_shot(clip, ["cat", "dog"]).cosines(found)
    three = nshot.zero_shot(clip, ["cat", "dog", "fish"]).cosines(found)
    np.testing.assert_array_equal(three[:, :2], two)


def test_several_templates_are_averaged_as_unit_vectors(clip: nshot.Embedder) -> None:
    templates = ["a photo of a {}", "{}", "the {} in a very long sentence with many words"]
    row = nshot.zero_shot(clip, ["cat"], templates).matrix[0]
    mean = clip.embed_texts([template.replace("{}", "cat") for template in templates]).mean(axis=0)
    np.testing.assert_allclose(row, mean / np.linalg.norm(mean), atol=1e-6)


def test_the_checkpoints_own_logit_scale_is_used(tmp_path: Path) -> None:
    from checkpoints import tiny_checkpoint

    tiny_checkpoint(tmp_path, logit_scale=4.05)
    clip = nshot.load(tmp_path)
    assert float(nshot.zero_shot(clip, ["cat"]).scale[0]) == pytest.approx(np.exp(4.05))


class Counting:
    """An encoder that counts what it is asked."""

    def __init__(self, encoder: object) -> None:
        self.encoder = encoder
        self.images = 0
        self.texts = 0
        self.lock = threading.Lock()

    def __getattr__(self, name: str) -> object:
        return getattr(self.encoder, name)

    def encode_images(self, pixels: np.ndarray) -> np.ndarray:
        with self.lock:
            self.images += len(pixels)
        return self.encoder.encode_images(pixels)  # type: ignore[attr-defined, no-any-return]

    def encode_tokens(self, tokens: np.ndarray) -> np.ndarray:
        self.texts += len(tokens)
        return self.encoder.encode_tokens(tokens)  # type: ignore[attr-defined, no-any-return]


def counted(tiny: Path, store: Path, **options: object) -> tuple[nshot.Embedder, Counting]:
    clip = nshot.load(tiny, store=store, **options)  # type: ignore[arg-type]
    clip.encoder = counting = Counting(clip.encoder)  # type: ignore[assignment]
    return clip, counting


def test_what_the_store_knows_is_not_encoded_again(tiny: Path, photos: Path, tmp_path: Path) -> None:
    first, counting = counted(tiny, tmp_path / "store")
    fresh = vectors(first.embed_images(photos))
    nshot.zero_shot(first, ["cat", "dog"])
    assert (counting.images, counting.texts) == (12, 2)

    again, counting = counted(tiny, tmp_path / "store")
    np.testing.assert_array_equal(vectors(again.embed_images(photos)), fresh)
    nshot.zero_shot(again, ["dog", "fish", "cat"])
    assert (counting.images, counting.texts) == (0, 1)


def test_an_image_that_moved_is_known_and_one_that_changed_is_not(
    tiny: Path, photos: Path, tmp_path: Path
) -> None:
    first, _ = counted(tiny, tmp_path / "store")
    fresh = vectors(first.embed_images(photos))
    shutil.copy(photos / "00.jpg", photos / "zz.jpg")
    shutil.copy(photos / "01.png", photos / "02.webp")
    again, counting = counted(tiny, tmp_path / "store")
    found = vectors(again.embed_images(photos))
    assert counting.images == 0
    np.testing.assert_array_equal(found[12], fresh[0])
    np.testing.assert_array_equal(found[2], fresh[1])


def test_another_recipe_is_another_vector(tiny: Path, photos: Path, tmp_path: Path) -> None:
    cropped, _ = counted(tiny, tmp_path / "store")
    squashed, counting = counted(tiny, tmp_path / "store", fit="squash")
    first = vectors(cropped.embed_images(photos))
    assert not np.allclose(vectors(squashed.embed_images(photos)), first)
    assert counting.images == 12


def test_a_store_that_breaks_on_the_way_costs_no_answer(
    tiny: Path,
    photos: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clip = nshot.load(tiny, store=tmp_path / "store")

    def full(*_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr("nshot.store.store.Store.put_vectors", full)
    assert len(vectors(clip.embed_images(photos))) == 12
    assert [record.message for record in caplog.records] == [
        "the disk is full. Going on without it: no answer is lost."
    ]


def test_a_file_that_is_no_store_is_told_at_once(tiny: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.jpg").write_bytes(b"an image, not a store" * 10)
    with pytest.raises(StoreError, match=r"mine\.jpg"):
        nshot.load(tiny, store=tmp_path / "mine.jpg")


def test_reading_ahead_is_bounded(clip: nshot.Embedder) -> None:
    asked = 0

    def endless() -> Iterator[np.ndarray]:
        nonlocal asked
        while True:
            asked += 1
            yield np.zeros((8, 8, 3), np.uint8)

    results = clip.embed_images(endless())
    next(results)
    assert asked <= clip.batch_size * (clip.encoder.streams + 1) * 2 + 2
    results.close()  # type: ignore[attr-defined]


def test_what_a_command_line_names_is_checked_before_anything_is_read(
    clip: nshot.Embedder, photos: Path
) -> None:
    with pytest.raises(SourceError, match="nowhere"):
        clip.sources([photos, photos / "nowhere"])


@pytest.mark.parametrize("option", ["batch_size", "workers"])
def test_sizes_under_one_are_refused(tiny: Path, option: str) -> None:
    with pytest.raises(RequestError, match=option):
        nshot.load(tiny, **{option: 0})  # type: ignore[arg-type]


def test_labels_that_the_model_can_hardly_tell_apart_are_named_closest_first() -> None:
    from nshot.classifier.zero_shot import near_synonyms

    rows = np.array([[1, 0, 0], [0, 1, 0], [1, 0.1, 0], [0, 1, 0.2]])
    classifier = nshot.Classifier(["couch", "cat", "sofa", "kitten"], rows, scale=1.0)
    pairs, count = near_synonyms(classifier)
    assert [(first, second) for first, second, _ in pairs] == [("couch", "sofa"), ("cat", "kitten")]
    assert pairs[0][2] == pytest.approx(1 / np.sqrt(1.01))
    assert count == 2
    assert near_synonyms(classifier, most=1) == (pairs[:1], 2)
    assert near_synonyms(classifier, threshold=0.999) == ([], 0)
