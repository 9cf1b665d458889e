"""Two models as one: the promise, the answers, what is said where it does not pay, and the file."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import shutil
from collections import Counter
from dataclasses import replace
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from checkpoints import half_size
from PIL import Image

import nshot
from nshot import cli
from nshot.classifier.cascade import Cascade, CascadeClassifier, verdicts_of
from nshot.classifier.cascading import Cascaded, cascade
from nshot.classifier.classifier import Classifier
from nshot.decision import Decision, Rejection, default_rejection
from nshot.decision.staging import check, learn, margins_of, needed
from nshot.errors import LabelError, RequestError
from nshot.models.checkpoint import find
from nshot.models.operations import gflop
from nshot.sketchbook import draw, sample
from nshot.types import Embedded

LABELS = ["red circle", "blue square", "green star", "yellow triangle", "purple heart", "black cross"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSHOT_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def smaller(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return half_size(tmp_path_factory.mktemp("cascade") / "smaller")


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawings")
    for number in range(340):
        draw(sample(7_000_000 + number)).save(folder / f"{number:03}.png")
    return folder


def staged(smaller: Path, images: Path, agree: float) -> tuple[Cascaded, nshot.Model, nshot.Model]:
    first, last = nshot.load(smaller, precision="f32"), nshot.load("sketchbook", precision="f32")
    stages = [(model, nshot.zero_shot(model, LABELS)) for model in (first, last)]
    return cascade(stages[0], stages[1], str(images), agree=agree), first, last


# --- the promise ------------------------------------------------------------------------------------------


def test_the_promise_holds_in_at_least_ninety_of_a_hundred_draws() -> None:
    rng = np.random.default_rng(0)
    margins = rng.exponential(2.0, 200_000)
    same = rng.random(200_000) > 0.3 * np.exp(-2 * margins)  # the surer, the more alike: .94 in all
    kept = fewer = 0
    for _ in range(100):
        rows = rng.integers(0, len(margins), 500)
        found = check(margins, same, learn(margins[rows], same[rows], 0.99))
        kept += found.agreement >= 0.99
        fewer += found.went_on < 0.8
    assert kept >= 90
    assert fewer >= 90  # and not by sending everything on


def test_too_few_images_promise_nothing() -> None:
    assert needed(0.99) == 299
    assert learn(np.ones(298), np.ones(298, bool), 0.99) == math.inf
    assert learn(np.ones(299), np.ones(299, bool), 0.99) == 0


def test_sure_and_wrong_images_stop_the_search() -> None:
    margins, same = np.linspace(0, 10, 1000), np.ones(1000, bool)
    same[700:760] = False
    assert margins[759] < learn(margins, same, 0.99) < 10


@pytest.mark.parametrize("agree", [0.0, 1.0, 99])
def test_an_agreement_that_is_no_share_is_refused(agree: float) -> None:
    with pytest.raises(RequestError, match="between 0 and 1"):
        learn(np.ones(500), np.ones(500, bool), agree)


# --- the answers ------------------------------------------------------------------------------------------


def test_an_image_is_answered_by_the_first_stage_where_it_is_sure_and_else_by_the_last(
    smaller: Path, drawings: Path
) -> None:
    found, first, last = staged(smaller, drawings, 0.5)
    assert found.pays
    assert isinstance(found.model, Cascade)
    assert isinstance(found.classifier, CascadeClassifier)
    files = sorted(drawings.iterdir())[:60]
    images = [*files[:30], drawings / "missing.png", *files[30:]]
    small, large = (nshot.zero_shot(model, LABELS) for model in (first, last))
    own = first.embed(files)
    margins = margins_of(small.logits(own.vectors))
    threshold = float(np.median(margins))
    classifier = CascadeClassifier.of(small, large, threshold, {})
    answers = list(classifier.predict(Cascade(first, last, classifier).embed_images(images)))
    assert [answer.source for answer in answers] == [str(path) for path in images]
    assert isinstance(answers.pop(30), nshot.Failure)
    early, late = list(small.predict(own)), list(large.predict(last.embed(files)))
    for answer, margin, one, other in zip(answers, margins, early, late, strict=True):
        meant = one if margin >= threshold else other
        assert answer.label == meant.label
        assert answer.score == pytest.approx(meant.score, abs=1e-6)


def test_the_share_that_goes_on_is_counted_and_work_falls(smaller: Path, drawings: Path) -> None:
    found, _, _ = staged(smaller, drawings, 0.5)
    assert isinstance(found.model, Cascade)
    assert found.checked is not None
    assert found.work < 0.9
    assert "go on" in found.reason
    assert "times fewer operations" in found.reason
    embedded = found.model.embed(str(drawings))
    assert len(embedded) == found.model.asked == 340
    went_on = embedded.vectors[:, found.model.first.dimension :].any(axis=1)
    assert went_on.sum() == found.model.sent


def test_where_the_first_stage_agrees_too_little_it_says_that_it_does_not_pay(
    smaller: Path, drawings: Path
) -> None:
    found, first, last = staged(smaller, drawings, 0.99)
    assert not found.pays
    assert "does not pay" in found.reason
    cost = gflop(first.checkpoint.config.vision) / gflop(last.checkpoint.config.vision)
    assert found.checked is not None
    assert f"itself take {cost + found.checked.went_on:.0%} of the operations of sketchbook" in found.reason
    assert found.model.recipe == last.recipe


def test_a_first_model_that_is_no_cheaper_is_told_before_anything_is_asked(smaller: Path) -> None:
    first, last = nshot.load("sketchbook", precision="f32"), nshot.load(smaller, precision="f32")
    stages = [(model, nshot.zero_shot(model, LABELS)) for model in (first, last)]
    found = cascade(stages[0], stages[1], "there-is-no-such-folder/", agree=0.5)
    assert not found.pays
    assert found.model is last
    assert "the first model must be the cheaper one" in found.reason
    assert "% of the operations of" in found.reason


def test_a_few_images_are_too_few_and_all_are_asked_of_the_last(smaller: Path, drawings: Path) -> None:
    found, _, last = staged(smaller, sorted(drawings.iterdir())[0], 0.99)
    assert not found.pays
    assert "too few" in found.reason
    assert found.model is not None
    assert found.model.name == last.name


def test_each_stage_keeps_its_own_vectors_in_the_store(smaller: Path, drawings: Path, tmp_path: Path) -> None:
    from nshot.store.store import Store

    first, last = (
        nshot.load(name, precision="f32", store=tmp_path / "s") for name in (smaller, "sketchbook")
    )
    small, large = (nshot.zero_shot(model, LABELS) for model in (first, last))
    classifier = CascadeClassifier.of(small, large, 5.0, {})
    model = Cascade(first, last, classifier)
    model.embed(str(drawings))
    assert 0 < model.sent < 340
    for stage, count in ((first, 340), (last, model.sent)):
        digests = [hashlib.sha256(path.read_bytes()).digest() for path in drawings.iterdir()]
        assert len(Store(tmp_path / "s").vectors(digests, stage.recipe.digest)) == count


def test_labels_may_stand_in_another_order_and_must_be_the_same(smaller: Path, drawings: Path) -> None:
    first, last = nshot.load(smaller, precision="f32"), nshot.load("sketchbook", precision="f32")
    small, large = nshot.zero_shot(first, LABELS[::-1]), nshot.zero_shot(last, LABELS)
    with pytest.raises(LabelError, match="red circle"):
        cascade((first, nshot.zero_shot(first, LABELS[1:])), (last, large), str(drawings))
    classifier = CascadeClassifier.of(small, large, 0.0, {})
    image = sorted(drawings.iterdir())[0]
    vectors = Cascade(first, last, classifier).embed([image]).vectors
    told = dict(zip(classifier.labels, classifier.scores(vectors)[0], strict=True))
    own = dict(zip(small.labels, small.scores(first.embed([image]).vectors)[0], strict=True))
    assert told == pytest.approx(own)


def test_a_first_stage_under_softmax_keeps_its_scores_before_a_last_one_under_sigmoid() -> None:
    rng = np.random.default_rng(0)
    small = Classifier(["a", "b", "c"], rng.normal(size=(3, 8)), 30.0, 0.0, "softmax")
    large = Classifier(["a", "b", "c"], rng.normal(size=(3, 4)), 100.0, -12.0, "sigmoid")
    both = CascadeClassifier.of(small, large, 1.0, {})
    vector = rng.normal(size=8)
    vectors = np.zeros((2, 12), np.float32)
    vectors[0, :8], vectors[1, 8:] = vector, rng.normal(size=4)
    scores = both.scores(vectors)
    np.testing.assert_allclose(scores[0], small.scores(vector[None])[0], atol=1e-6)
    np.testing.assert_allclose(scores[1], large.scores(vectors[1:, 8:])[0], atol=1e-6)


def test_a_cascade_is_saved_and_opened_again(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    small = Classifier(["a", "b"], rng.normal(size=(2, 8)), 30.0, 0.0, "softmax", "one", model="small")
    large = Classifier(
        ["a", "b"], rng.normal(size=(2, 4)), [90.0, 100.0], -1.0, "softmax", "two", model="large"
    )
    both = CascadeClassifier.of(small, large, 1.25, {"precision": "f32"})
    both.save(tmp_path / "both.nshot")
    found = nshot.open(tmp_path / "both.nshot")
    assert isinstance(found, CascadeClassifier)
    vectors = np.zeros((2, 12), np.float32)
    vectors[0, :8], vectors[1, 8:] = rng.normal(size=8), rng.normal(size=4)
    np.testing.assert_allclose(found.scores(vectors), both.scores(vectors), atol=1e-6)
    assert found.threshold == 1.25
    assert found.last.space == "two"
    assert isinstance(found.with_decision(None), CascadeClassifier)
    with pytest.raises(RequestError, match="a cascade of two models"):
        Classifier.open(tmp_path / "both.nshot")


# --- decisions --------------------------------------------------------------------------------------------


def test_a_cascade_with_a_scale_of_zero_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    one = Classifier(["a", "b"], np.eye(2, 8), scale=100.0)
    path = tmp_path / "x.nshot"
    CascadeClassifier.of(one, Classifier(["a", "b"], np.eye(2, 8), scale=[0.0, 1.0]), 1.5, {}).save(path)
    with pytest.raises(RequestError, match=r"x\.nshot.*a scale of zero"):
        CascadeClassifier.open(path)


def test_none_of_these_is_an_answer_that_the_promise_holds_for(smaller: Path, drawings: Path) -> None:
    first, last = nshot.load(smaller, precision="f32"), nshot.load("sketchbook", precision="f32")
    words = ["dog", "cat", "house", "car", "tree", "person", "boat", "chair"]
    rows = [nshot.zero_shot(model, words).matrix for model in (first, last)]
    small, large = (nshot.zero_shot(model, LABELS) for model in (first, last))
    usual = default_rejection(large.matrix, rows[1])
    evidence = usual.evidence(large.compare(last.embed(str(drawings)).vectors))
    large = large.with_decision(Decision(rejection=replace(usual, threshold=float(np.median(evidence)))))
    found = cascade(
        (first, small), (last, large), str(drawings), agree=0.5, cost=0.1, background=(rows[0], rows[1])
    )
    both = found.classifier
    assert isinstance(both, CascadeClassifier), found.reason
    # an image that goes on gets the very answer of the last stage, "none of these" among them
    late = last.embed(str(drawings)).vectors
    joined = np.stack([both.joined(np.zeros(first.dimension, np.float32), each) for each in late])
    alone = [each.answer for each in verdicts_of(large, late)]
    assert [each.answer for each in both.verdicts(joined)] == alone
    assert {"none", "label"} <= set(alone)
    # the first stage never answers "none of these": such images go on
    early = first.embed(str(drawings)).vectors
    padded = np.pad(early, ((0, 0), (0, last.dimension)))
    rejected = np.array([each.answer == "none" for each in both.verdicts(padded)])
    assert rejected.any()
    assert (both.margins(early)[rejected] < 0).all()
    with pytest.raises(RequestError, match="which texts this classifier's rule has is not known"):
        cascade((first, small), (last, large), str(drawings), agree=0.5)


def test_one_model_in_two_precisions_says_none_of_these_at_once(drawings: Path) -> None:
    last = nshot.load("sketchbook", precision="f32")
    large = nshot.zero_shot(last, LABELS)
    rows = nshot.zero_shot(last, ["dog", "cat", "house", "car", "tree", "person", "boat", "chair"]).matrix
    usual = default_rejection(large.matrix, rows)
    vectors = last.embed(str(drawings)).vectors
    line = float(np.median(usual.evidence(large.compare(vectors))))
    large = large.with_decision(Decision(rejection=replace(usual, threshold=line)))
    assert usual.background is not None
    plain = large.with_decision(None)
    both = CascadeClassifier.of(plain, large, 1.0, {}, usual.background)
    margins = both.margins(vectors)
    rejected = np.array([each.answer == "none" for each in verdicts_of(large, vectors)])
    assert (margins >= 0).all()
    assert (margins[rejected] > 1.0).any()
    padded = np.stack([both.joined(each) for each in vectors])
    assert [each.answer for each in both.verdicts(padded)] == [
        each.answer for each in verdicts_of(large, vectors)
    ]


def test_a_calibration_is_learnt_on_the_cascade_s_own_scores(smaller: Path, drawings: Path) -> None:
    first, last = nshot.load(smaller, precision="f32"), nshot.load("sketchbook", precision="f32")
    small, large = (nshot.zero_shot(model, LABELS) for model in (first, last))
    small = Classifier(LABELS, small.matrix, 2 * small.scale, 0.0, "softmax", small.space)  # of another scale
    both = CascadeClassifier.of(small, large, 2.0, {})
    images = Cascade(first, last, both).embed(str(drawings))
    told = [LABELS[number % len(LABELS)] for number in range(len(images))]
    rows = nshot.zero_shot(last, LABELS)  # any labels will do
    assert rows.labels == both.labels
    report = nshot.calibrate(both, images.with_labels(told), reject="cosine", wrong=0.4).report
    targets = np.arange(len(images)) % len(LABELS)
    own = both.scores(images.vectors)[np.arange(len(images)), targets]
    assert report.before.nll == pytest.approx(-np.log(own).mean(), rel=1e-6)


def test_the_background_rule_of_a_cascade_is_that_of_the_stage_that_answers(
    smaller: Path, drawings: Path
) -> None:
    first, last = nshot.load(smaller, precision="f32"), nshot.load("sketchbook", precision="f32")
    small, large = (nshot.zero_shot(model, LABELS) for model in (first, last))
    both = CascadeClassifier.of(small, large, 0.0, {})
    model = Cascade(first, last, both)
    rows = model.background(["dog", "house", "car"])
    rule = Rejection("background", 0.0, rows)
    early, late = first.embed(str(drawings)).vectors, last.embed(str(drawings)).vectors
    for stage, own, vectors, joined in (
        (small, first, early, [both.joined(each) for each in early]),
        (large, last, late, [both.joined(np.ones(first.dimension, np.float32), each) for each in late]),
    ):
        alone = Rejection("background", 0.0, nshot.zero_shot(own, ["dog", "house", "car"]).matrix)
        np.testing.assert_allclose(
            rule.evidence(both.compare(np.stack(joined))), alone.evidence(stage.compare(vectors)), atol=1e-5
        )


# --- the command ------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    status = cli.run([str(each) for each in arguments])
    return status, *capsys.readouterr()


def test_classify_says_what_the_first_model_is_believed_for(
    smaller: Path, drawings: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--labels", ", ".join(LABELS), "--model", "sketchbook", "--no-store", "--format", "jsonl")
    status, out, err = run(capsys, "classify", drawings, *words, "--first", smaller, "--agree", 0.5)
    assert status == 0, err
    assert len(out.splitlines()) == 340
    assert "times fewer operations" in err
    assert "of 340 images went on to sketchbook" in err


def test_each_record_of_a_file_says_which_model_answered(
    smaller: Path, drawings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, last = (nshot.load(name, precision="f32") for name in (smaller, "sketchbook"))
    small, large = (nshot.zero_shot(model, LABELS) for model in (first, last))
    (images := tmp_path / "images").mkdir()
    for path in sorted(drawings.iterdir())[:20]:
        shutil.copy(path, images)
    margins = margins_of(small.logits(first.embed(str(images)).vectors))
    (images / "broken.png").write_bytes(b"no image")
    made = {"precision": "f32", "last precision": "f32"}
    both = CascadeClassifier.of(small, large, float(np.median(margins)), made)
    both.save(tmp_path / "plain.nshot")
    both.with_decision(Decision(rejection=Rejection("cosine", 0.1))).save(tmp_path / "decided.nshot")
    formats = ["jsonl", "json", "csv", "tsv", *(["parquet"] if find_spec("pyarrow") else [])]
    for kind, format in product(("plain", "decided"), formats):
        output = tmp_path / f"{kind}.{format}"
        asked = ("classify", images, "--classifier", tmp_path / f"{kind}.nshot", "--no-store", "-o", output)
        status, _, err = run(capsys, *asked, "--precision", "f32")
        assert status == 1, err
        assert "10 of 20 images went on to sketchbook" in err
        rows = {Path(row["source"]).name: row for row in rows_of(output)}
        assert not rows.pop("broken.png").get("stage")
        assert Counter(row["stage"] for row in rows.values()) == {str(smaller): 10, "sketchbook": 10}
        answers = both.predict(Cascade(first, last, both).embed(str(images)))
        assert {name: row["stage"] for name, row in rows.items()} == {
            Path(each.source).name: each.stage for each in answers if isinstance(each, nshot.Prediction)
        }
        before = output.read_bytes()
        status, _, err = run(capsys, *asked, "--precision", "f32", "--resume")
        assert (status, output.read_bytes()) == (1, before), err
    words = ("--labels", ", ".join(LABELS), "--model", "sketchbook", "--no-store")
    for format in formats:
        run(capsys, "classify", images, *words, "-o", tmp_path / f"one.{format}")
        assert not any("stage" in row for row in rows_of(tmp_path / f"one.{format}"))


def rows_of(output: Path) -> list[dict[str, Any]]:
    if output.suffix == ".parquet":
        from pyarrow import parquet

        found: list[dict[str, Any]] = parquet.read_table(output).to_pylist()
        return found
    text = output.read_text()
    if output.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    if output.suffix == ".json":
        return list(json.loads(text))
    return list(csv.DictReader(io.StringIO(text), delimiter="," if output.suffix == ".csv" else "\t"))


def test_answers_in_python_say_which_model_answered(smaller: Path, drawings: Path) -> None:
    found, first, _ = staged(smaller, drawings, 0.5)
    embedded = found.model.embed(str(drawings))
    answers = found.classifier.predict(embedded)
    assert isinstance(found.classifier, CascadeClassifier)
    stages = found.classifier.answered_by(embedded.vectors)
    assert len(set(stages)) == 2
    assert answers.to_columns()["stage"] == stages
    assert [answer.to_dict()["stage"] for answer in answers] == stages
    alone = nshot.zero_shot(first, LABELS).predict(first.embed(str(drawings)))
    assert "stage" not in alone.to_columns()
    assert "stage" not in alone[0].to_dict()


def test_calibrate_keeps_a_cascade_and_classify_takes_it(
    smaller: Path, drawings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = nshot.load("sketchbook", precision="f32")
    zero = nshot.zero_shot(last, LABELS)
    data = tmp_path / "data"
    for answer in zero.predict(last.embed(str(drawings))):
        (data / str(answer.label)).mkdir(parents=True, exist_ok=True)
        shutil.copy(answer.source, data / str(answer.label))
    settings = ("--model", "sketchbook", "--no-store")
    saved = tmp_path / "both.nshot"
    status, _, err = run(
        capsys, "calibrate", data, *settings, "--first", smaller, "--agree", 0.5, "-o", saved
    )
    assert status == 0, err
    status, out, err = run(
        capsys, "classify", drawings, "--classifier", saved, "--no-store", "--format", "jsonl"
    )
    assert status == 0, err
    assert len(out.splitlines()) == 340
    assert "images went on" in err
    report = tmp_path / "report"
    status, out, err = run(capsys, "evaluate", data, "--classifier", saved, "--no-store", "-o", report)
    assert status == 0, err
    (table,) = report.glob("predictions.*")
    assert {row["stage"] for row in rows_of(table)} == {str(smaller), "sketchbook"}


def test_a_saved_cascade_says_where_its_promise_was_learnt_with_other_settings(
    smaller: Path, drawings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, _, _ = staged(smaller, drawings, 0.5)
    found.classifier.save(tmp_path / "both.nshot")
    words = ("--classifier", tmp_path / "both.nshot", "--no-store", "--format", "jsonl")
    image = sorted(drawings.iterdir())[0]
    status, _, err = run(capsys, "classify", image, *words, "--precision", "f32")
    assert status == 0, err
    assert "promised to be those of sketchbook" in err
    assert "not promised" not in err
    for other in (("--precision", "f32", "--fit", "pad"), ("--precision", "f32-small")):
        status, _, err = run(capsys, "classify", image, *words, *other)
        assert status == 0, err
        assert "is not promised with these" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--agree", "0.9"), "add --first"),
        (("--first", "sketchbook"), "the same model"),
        (("--first", "f32-small", "--adapt"), "leave out --adapt"),
        (("--first", "missing.nshot"), "no classifier file missing.nshot"),
        (("--first", "in8"), "did you mean int8"),
        (("--first", "f32-small", "--multi"), "this is several labels per image"),
        (("--first", "f32-small", "--tree", "tree.json"), "this is a tree of labels"),
        (("--first", "f32-small", "--facets", "weather"), "this is several questions"),
    ],
)
def test_a_request_that_makes_no_cascade_says_why(
    drawings: Path, arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--labels", ", ".join(LABELS), "--model", "sketchbook", "--no-store")
    status, _, err = run(capsys, "classify", drawings, *words, *arguments)
    assert status == 2
    assert said in err


def test_one_model_in_two_precisions_is_one_word(drawings: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--labels", ", ".join(LABELS), "--model", "sketchbook", "--no-store", "--precision", "f32")
    status, out, err = run(capsys, "classify", drawings, *words, "--first", "f32-small", "--format", "jsonl")
    assert status == 0, err
    assert "sketchbook in f32-small" in err
    assert "sketchbook in f32" in err
    assert len(out.splitlines()) == 340


def test_every_command_answers_with_a_cascade_as_with_one_classifier(
    smaller: Path, drawings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--labels", ", ".join(LABELS), "--model", "sketchbook", "--no-store")
    first = ("--first", smaller, "--agree", 0.5)
    told = {}
    for reject in ((), ("--reject", "background")):
        status, out, err = run(capsys, "classify", drawings, *words, *first, *reject, "--format", "jsonl")
        assert status == 0, err
        told[reject] = {row["source"]: row["label"] for row in map(json.loads, out.splitlines())}
    assert told[()] != told["--reject", "background"]
    status, out, err = run(capsys, "tag", drawings, *words, *first)
    assert status == 0, err
    assert f"{sum(label is not None for label in told['--reject', 'background'].values())} of 340" in out
    status, out, err = run(capsys, "sort", drawings, tmp_path / "sorted", *words, *first, "--reject", "off")
    assert status == 0, err
    assert "images went on to sketchbook" in err
    assert f"{list(told[()].values()).count('red circle'):,}" in out
    table = tmp_path / "t.csv"
    table.write_text("\n".join(["image,label", *(f"{name},{label}" for name, label in told[()].items())]))
    status, out, err = run(capsys, "evaluate", table, *words, *first)
    assert status == 0, err
    assert "100.0" in out
    status, out, err = run(capsys, "sort", tmp_path / "s", "--table", table, "--first", smaller)
    assert status == 2
    assert "leave out --first" in err


def test_a_saved_cascade_of_two_precisions_takes_no_other(
    drawings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    zero = nshot.zero_shot(nshot.load("sketchbook", precision="f32"), LABELS)
    made = {"precision": "f32-small", "last precision": "f32"}
    CascadeClassifier.of(zero, zero, 1.0, made).save(tmp_path / "both.nshot")
    image = sorted(drawings.iterdir())[0]
    words = ("classify", image, "--classifier", tmp_path / "both.nshot", "--no-store")
    status, _, err = run(capsys, *words, "--precision", "bf16")
    assert status == 2
    assert "is a cascade of sketchbook in f32-small and sketchbook in f32: leave out --precision" in err
    status, _, err = run(capsys, *words)
    assert status == 0, err


def test_both_stages_may_be_classifier_files(
    smaller: Path, drawings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, model in (("small", smaller), ("large", "sketchbook")):
        clip = nshot.load(model, precision="f32")
        examples = clip.embed(sorted(drawings.iterdir())[:60])
        zero = nshot.zero_shot(clip, LABELS)
        own = [str(each.label) for each in zero.predict(examples)]
        nshot.fit(examples.with_labels(own), zero).save(tmp_path / f"{name}.nshot")
    stages = ("--classifier", tmp_path / "large.nshot", "--first", tmp_path / "small.nshot", "--agree", 0.5)
    status, out, err = run(capsys, "classify", drawings, *stages, "--no-store", "--format", "jsonl")
    assert status == 0, err
    assert "times fewer operations" in err
    assert "of 340 images went on to sketchbook" in err
    large = nshot.open(tmp_path / "large.nshot")
    assert isinstance(large, Classifier)
    wanted = large.predict(nshot.load("sketchbook").embed(str(drawings)))
    told = [json.loads(line)["label"] for line in out.splitlines()]
    assert np.mean([a == b.label for a, b in zip(told, wanted, strict=True)]) >= 0.5


REFUSED = [
    ("classify", "--multi", "several labels per image"),
    ("classify", "--adapt", "what is adapted is of one model"),
    ("classify", "--first f32-small", "a cascade already"),
    ("classify", "--model other", "leave out --model"),
    ("classify", "--heatmaps maps", "one model"),
    ("calibrate", "--multi", "several labels per image"),
    ("evaluate", "--multi", "several labels per image"),
    ("evaluate", "--first f32-small", "a cascade already"),
    ("next", "", "one model"),
    ("locate", "", "one model"),
    ("robustness", "-o report", "a cascade of two models"),
]


@pytest.mark.parametrize(("command", "options", "said"), REFUSED)
def test_what_a_cascade_cannot_be_asked_is_refused_by_a_sentence(
    smaller: Path,
    drawings: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
    options: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    first, last = nshot.load(smaller, precision="f32"), nshot.load("sketchbook", precision="f32")
    small, large = (nshot.zero_shot(model, LABELS) for model in (first, last))
    both = CascadeClassifier.of(small, large, 1.0, {"precision": "f32", "last precision": "f32"})
    both.save("both.nshot")
    names = sorted(drawings.iterdir())[:12]
    rows = [f"{name},{LABELS[k % 6]}" for k, name in enumerate(names)]
    Path("t.csv").write_text("\n".join(["image,label", *rows]))
    status, _, err = run(
        capsys, command, "t.csv", "--classifier", "both.nshot", "--no-store", *options.split()
    )
    assert status == 2
    assert said in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("command", "options", "said"), [*REFUSED[:3], *REFUSED[7:10], ("quantise", "", "one model")]
)
def test_what_a_cascade_cannot_be_asked_is_refused_before_its_models_are_loaded(
    drawings: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    options: str,
    said: str,
) -> None:
    rng = np.random.default_rng(0)
    small, large = (
        Classifier(LABELS, rng.normal(size=(6, 8)), 30.0, space=each, model=f"there-is-no-{each}")
        for each in ("one", "two")
    )
    CascadeClassifier.of(small, large, 1.0, {}).save(tmp_path / "both.nshot")
    image = sorted(drawings.iterdir())[0]
    asked = (image, "--classifier", tmp_path / "both.nshot", "--no-store", *options.split())
    status, _, err = run(capsys, command, *asked)
    assert status == 2
    assert said in err


def test_trees_facets_and_fitting_take_classifiers_of_one_model(smaller: Path, drawings: Path) -> None:
    from nshot.classifier.tree import TreeClassifier
    from nshot.labels.tree import Tree

    first, last = nshot.load(smaller, precision="f32"), nshot.load("sketchbook", precision="f32")
    small, large = (nshot.zero_shot(model, LABELS) for model in (first, last))
    both = CascadeClassifier.of(small, large, 1.0, {})
    images = Cascade(first, last, both).embed(sorted(drawings.iterdir())[:12])
    examples = images.with_labels([LABELS[k % 6] for k in range(12)])
    tree = Tree([("all", label) for label in LABELS])
    for ask in (
        lambda: nshot.Facets({"what": both}),
        lambda: TreeClassifier(both, tree),
        lambda: nshot.fit(examples, both),
        lambda: nshot.calibrate(both, examples, multi=True),
        lambda: cascade((last, both), (last, large), str(drawings)),
    ):
        with pytest.raises(RequestError, match="one model, and this classifier is a cascade of two"):
            ask()
    with pytest.raises(RequestError, match=r"is a cascade of .* and sketchbook, and the vectors are of"):
        last.classify(sorted(drawings.iterdir())[0], both)


# --- the work ---------------------------------------------------------------------------------------------


def test_operations_are_counted_as_the_towers_sizes_say(smaller: Path) -> None:
    vision = find("sketchbook").config.vision
    layer = 4 * 128 * 128 + 2 * 128 * 512
    tokens = 37
    products = 36 * 3 * 64 * 128 + 3 * tokens * layer + 3 * 2 * tokens**2 * 128
    last = 2 * tokens * 128**2 + 2 * 128**2 + 2 * 128 * 512 + 2 * tokens * 128  # but one row of queries
    assert gflop(vision) == pytest.approx(2 * (products + last + 128 * 128) / 1e9, rel=1e-6)
    assert gflop(find(smaller).config.vision) < 0.3 * gflop(vision)


def test_an_image_in_memory_goes_through_both_stages(smaller: Path) -> None:
    first, last = nshot.load(smaller, precision="f32"), nshot.load("sketchbook", precision="f32")
    small, large = (nshot.zero_shot(model, LABELS) for model in (first, last))
    model = Cascade(first, last, CascadeClassifier.of(small, large, math.inf, {}))
    (found,) = model.embed_images(Image.new("RGB", (48, 48), "red"))
    assert isinstance(found, Embedded)
    assert found.vector[128:].any()


def test_a_file_that_holds_facets_takes_no_first_stage(
    drawings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = nshot.load("sketchbook", precision="f32")
    saved = tmp_path / "facets.nshot"
    nshot.Facets({"what": nshot.zero_shot(last, LABELS)}).save(saved)
    for command in ("classify", "evaluate"):
        status, _, err = run(capsys, command, drawings, "--classifier", saved, "--first", "f32-small")
        assert status == 2
        assert "this is several questions" in err
