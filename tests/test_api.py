"""What a person writes in a notebook, as they would write it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nshot
from nshot import sketchbook
from nshot.errors import RequestError

SHAPES = ("circle", "square", "star", "heart")


@pytest.fixture(scope="module")
def clip() -> nshot.Model:
    return nshot.load("sketchbook", precision="f32")


@pytest.fixture(scope="module")
def by_shape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder per shape, eight drawings each."""
    folder = tmp_path_factory.mktemp("drawings")
    for shape in SHAPES:
        (folder / shape).mkdir()
        pairs = [pair for pair in sketchbook.SEEN_PAIRS if pair[1] == shape]
        for number in range(8):
            scene = sketchbook.sample(number, pairs=pairs, several=0)
            sketchbook.draw(scene, 128).save(folder / shape / f"{number}.png")
    return folder


@pytest.fixture
def photos(by_shape: Path, tmp_path: Path) -> Path:
    """Three drawings and a broken file between them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, shape in (("a", "circle"), ("c", "star"), ("d", "heart")):
        (folder / f"{name}.png").write_bytes((by_shape / shape / "0.png").read_bytes())
    (folder / "b.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    return folder


def test_a_loop_over_the_answers_survives_a_broken_file(clip: nshot.Model, photos: Path) -> None:
    lines = [
        f"{prediction.source} {prediction.label} {prediction.score:.2f}"
        for prediction in clip.classify(photos, SHAPES)
    ]
    assert [line.split()[1] for line in lines] == ["circle", "None", "star", "heart"]


def test_the_answers_show_themselves_in_columns_and_in_a_notebook(clip: nshot.Model, photos: Path) -> None:
    answers = clip.classify(photos, SHAPES)
    assert [failure.source for failure in answers.failures] == [str(photos / "b.png")]
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = answers.to_pandas()
    assert frame["label"].fillna("failed").tolist() == ["circle", "failed", "star", "heart"]
    assert frame["score"].notna().tolist() == [True, False, True, True]
    assert {"label", "score"} <= set(pandas.DataFrame(answers[:1]).columns)
    table = pytest.importorskip("pyarrow", reason="pyarrow is not installed") and answers.to_arrow()
    assert table.column("label").to_pylist() == ["circle", None, "star", "heart"]
    shown = answers._repr_html_()
    assert shown.count("<img ") == 3
    assert "circle" in shown
    assert "failed: " in shown
    assert "circle" in repr(answers)


def test_a_file_name_is_escaped_in_the_notebooks_table(clip: nshot.Model, tmp_path: Path) -> None:
    (tmp_path / "<script>.png").write_bytes(b"not an image")
    assert "<script>" not in clip.classify(tmp_path / "<script>.png", SHAPES)._repr_html_()


def test_embedded_once_and_asked_twice_gives_what_asking_directly_gives(
    clip: nshot.Model, photos: Path
) -> None:
    embedded = clip.embed(photos)
    assert np.asarray(embedded).shape == (3, clip.dimension)
    assert embedded.failures[1].source == str(photos / "b.png")
    zero = nshot.zero_shot(clip, SHAPES)
    assert zero.predict(embedded) == clip.classify(photos, SHAPES)
    assert zero.predict(embedded) == clip.classify(embedded, zero)
    assert math.isclose(sum(zero.scores(embedded)[0]), 1.0)


def test_fit_evaluate_calibrate_save_and_open(clip: nshot.Model, by_shape: Path, tmp_path: Path) -> None:
    examples = clip.embed(nshot.open_labelled(by_shape))
    assert examples.classes == tuple(sorted(SHAPES))
    zero = nshot.zero_shot(clip, examples.classes, templates=["a {}"])
    few = nshot.fit(examples, zero)
    assert few.report.examples == dict.fromkeys(examples.classes, 8)
    assert len(few.examples) == 32  # known again by their bytes
    few.save(tmp_path / "shapes.nshot")
    again = nshot.open(tmp_path / "shapes.nshot")
    assert isinstance(again, nshot.Classifier)
    assert again.predict(examples) == few.predict(examples)
    assert again.examples == few.examples
    evaluation = nshot.evaluate(few, examples)
    assert evaluation.figures["top_1"] > 0.9
    calibrated = nshot.calibrate(zero, examples)
    assert calibrated.decision is not None
    assert calibrated.decision.rejection is not None
    without = nshot.calibrate(zero, examples, reject=None).decision
    assert without is not None
    assert without.rejection is None
    told = [answer.score for answer in calibrated.predict(examples)]
    assert np.allclose(calibrated.scores(examples).max(axis=1), told)  # what predict says, scores says
    assert repr(few) == "<Classifier: 4 labels (circle, heart, square, star) x 128, sketchbook>"


def test_names_and_files_of_vectors_are_no_embeddings_and_the_message_says_what_to_do(
    clip: nshot.Model, photos: Path, tmp_path: Path
) -> None:
    zero = nshot.zero_shot(clip, SHAPES)
    for names in (["a.jpg"], "a.jpg", photos, np.array(["a.jpg"])):
        with pytest.raises(RequestError, match=r"predict takes embeddings, not names such as .*clip\.embed"):
            zero.predict(names)  # type: ignore[arg-type]
    from nshot.embeddings import open_writer

    with open_writer(tmp_path / "v.npz", recipe=clip.recipe, model=clip.name) as writer:
        for record in clip.embed_images(photos):
            writer.write(record)
    found = nshot.open(tmp_path / "v.npz")
    assert isinstance(found, nshot.Embeddings)
    assert zero.predict(found) == zero.predict(clip.embed(photos))


def test_vectors_of_another_model_of_the_same_width_are_refused_where_they_say_so(
    clip: nshot.Model, photos: Path
) -> None:
    from dataclasses import replace

    zero = nshot.zero_shot(clip, SHAPES)
    embedded = clip.embed(photos)
    assert embedded.recipe is not None
    foreign = replace(embedded, recipe=replace(embedded.recipe, space="0" * 64), model="laion/other")
    for ask in (zero.predict, lambda e: nshot.evaluate(zero, e.with_labels(["star"] * 3))):
        with pytest.raises(RequestError, match="laion/other"):
            ask(foreign)
    assert len(zero.predict(np.asarray(foreign))) == 3  # a bare array cannot tell, and passes


def test_an_image_in_memory_is_classified_like_its_file(clip: nshot.Model, photos: Path) -> None:
    path = photos / "a.png"
    image = Image.open(path)
    forms: list[Any] = [str(path), path.read_bytes(), image, np.asarray(image)]
    assert {clip.classify(form, SHAPES)[0].label for form in forms} == {"circle"}
