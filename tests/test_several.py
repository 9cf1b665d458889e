"""Several labels per image: each decided by itself, learnt from images that show any number of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from commands import Cli
from recorded import FOLDER

import nshot
from nshot.classifier.several import calibrate_several, several_labels, several_zero_shot
from nshot.decision import Decision
from nshot.decision.several import (
    Several,
    common_threshold,
    fit_thresholds,
    held_out,
    own_threshold,
)
from nshot.embeddings import Embeddings
from nshot.errors import LabelError, RequestError
from nshot.metrics import average_precisions, per_label
from nshot.sketchbook import COLOURS, SHAPES, draw, sample
from nshot.types import Decided
from nshot.unit import normalize

WORDS = [*COLOURS, *SHAPES]


def tags_of(number: int) -> tuple[str, ...]:
    """What a drawing shows: the colours and shapes of its things."""
    return tuple(sorted({word for thing in sample(number).things for word in (thing.colour, thing.shape)}))


@pytest.fixture(scope="module")
def clip() -> nshot.Model:
    return nshot.load("sketchbook", precision="f32")


@pytest.fixture(scope="module")
def drawings(clip: nshot.Model) -> Embeddings:
    """400 drawings with the colours and shapes of their things."""
    numbers = range(700_000, 700_400)
    images = clip.embed([draw(sample(number), 24) for number in numbers])
    return images.with_labels([tags_of(number) for number in numbers], classes=WORDS)


@pytest.fixture
def tagged(tmp_path: Path) -> Path:
    """A folder of 60 drawings with a table of their tags."""
    (tmp_path / "images").mkdir()
    rows = ["file,tags"]
    for number in range(60):
        draw(sample(700_000 + number), 24).save(tmp_path / "images" / f"{number}.png")
        rows.append(f"images/{number}.png,{';'.join(tags_of(700_000 + number))}")
    (tmp_path / "tags.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def macro_f1(shown: np.ndarray, truth: np.ndarray) -> float:
    return float(np.nanmean(per_label(shown, truth).f1))


def truth_of(images: Embeddings, labels: tuple[str, ...]) -> np.ndarray:
    return np.array([[label in own for label in labels] for own in images.labels or ()])


# What is answered


def test_an_image_is_answered_with_every_label_that_it_shows(clip: nshot.Model) -> None:
    number = next(n for n in range(1000) if len(tags_of(n)) == 2)
    [answer] = clip.classify([draw(sample(number), 96)], WORDS, multi=True)
    assert isinstance(answer, Decided)
    assert (answer.answer, answer.label) == ("several", None)
    assert set(tags_of(number)) <= set(answer.labels)
    assert answer.labels[0] == answer.predictions[0].label


def test_without_examples_a_score_is_the_share_among_labels_and_background(clip: nshot.Model) -> None:
    asked = several_zero_shot(clip, ["star", "ring"], background=["house", "tree"])
    images = clip.embed([draw(sample(3), 24)])
    together = nshot.zero_shot(clip, ["star", "ring", "house", "tree"]).scores(images.vectors)
    assert np.allclose(asked.scores(images.vectors), together[:, :2], atol=1e-6)


def test_a_background_word_that_means_a_label_does_not_stand_against_it(clip: nshot.Model) -> None:
    words = [*WORDS[:12], "house"]
    asked = several_zero_shot(clip, ["house", "red"], background=words)
    assert asked.decision is not None
    assert asked.decision.several is not None
    assert asked.decision.several.rivals is not None
    assert len(asked.decision.several.rivals) < 2 + len(words)


def test_labels_with_fewer_than_twenty_images_are_ranked_and_never_answered(drawings: Embeddings) -> None:
    fitted = nshot.fit(drawings[:200], multi=True)
    several = fitted.decision.several  # type: ignore[union-attr]
    assert several is not None
    counts = np.array([sum(label in own for own in (drawings.labels or ())[:200]) for label in fitted.labels])
    assert (several.decided == (counts >= 20)).all()
    assert not several.decided.all()
    never = {label for label, one in zip(fitted.labels, several.decided, strict=True) if not one}
    answers = fitted.predict(drawings, top_k=len(fitted.labels))
    assert not any(never & set(answer.labels or ()) for answer in answers if isinstance(answer, Decided))
    assert never <= {p.label for p in answers[0].predictions}


def test_where_no_label_can_be_decided_the_answer_says_so(drawings: Embeddings) -> None:
    few = drawings[:15]
    fitted = nshot.fit(few, multi=True)
    answers = [answer for answer in fitted.predict(few) if isinstance(answer, Decided)]
    assert [answer.answer for answer in answers] == ["ranked"] * len(few)
    assert all(answer.labels == () and answer.predictions for answer in answers)


def test_a_classifier_of_several_labels_comes_back_from_its_file(
    clip: nshot.Model, drawings: Embeddings, tmp_path: Path
) -> None:
    fitted = nshot.fit(drawings, several_zero_shot(clip, WORDS), multi=True)
    fitted.save(tmp_path / "tags.nshot")
    opened = nshot.open(tmp_path / "tags.nshot")
    assert isinstance(opened, nshot.Classifier)
    assert list(opened.predict(drawings)) == list(fitted.predict(drawings))


def test_labels_of_a_sigmoid_model_stand_alone() -> None:
    plain = nshot.Classifier(["a", "b"], np.eye(2), scale=10.0, bias=-5.0, activation="sigmoid")
    asked = several_labels(plain, None, threshold=0.5)
    assert np.allclose(asked.scores(np.eye(2)), plain.scores(np.eye(2)))
    [one, both] = asked.predict(np.array([[1.0, 0.0], [1.0, 1.0]]))
    assert isinstance(one, Decided)
    assert isinstance(both, Decided)
    assert one.labels == ("a",)
    assert both.labels == ("a", "b")


# What is learnt


def test_thresholds_are_mixed_by_how_many_images_a_label_has() -> None:
    generator = np.random.default_rng(0)
    truth = np.zeros((200, 2), dtype=bool)
    truth[:90, 0] = truth[:5, 1] = True
    evidence = generator.normal(size=(200, 2)) + 2.0 * truth + np.array([0.0, 3.0])
    found, common = fit_thresholds(evidence, truth), common_threshold(evidence, truth)
    for k, positives in enumerate((90, 5)):
        weight = positives / (positives + 10)
        own = own_threshold(evidence[:, k], truth[:, k])
        assert np.isclose(found[k], weight * own + (1 - weight) * common)


def test_thresholds_do_not_depend_on_the_images_they_are_measured_on() -> None:
    generator = np.random.default_rng(1)
    truth = generator.random((60, 3)) < 0.3
    evidence = generator.normal(size=(60, 3)) + truth
    shown = held_out(evidence, truth)
    changed = evidence.copy()
    changed[0] += 100.0  # only how image 0 itself is answered may follow from this, and the others' folds
    assert held_out(changed, truth)[0].all()
    assert shown.shape == truth.shape


def test_examples_make_answers_better_than_prompts_alone(clip: nshot.Model, drawings: Embeddings) -> None:
    shown, rest = drawings[:200], drawings[200:]
    zero = several_zero_shot(clip, WORDS)
    fitted = nshot.fit(shown, zero, multi=True)
    truth = truth_of(rest, fitted.labels)
    known = truth.any(axis=0)
    before, after = (average_precisions(c.logits(rest.vectors), truth)[known].mean() for c in (zero, fitted))
    assert after > before
    several = fitted.decision.several  # type: ignore[union-attr]
    unlearnt = zero.decision.several.shown(zero.logits(rest.vectors))  # type: ignore[union-attr]
    learnt = fitted.logits(rest.vectors) >= several.thresholds  # type: ignore[union-attr]
    assert macro_f1(learnt[:, known], truth[:, known]) > macro_f1(unlearnt[:, known], truth[:, known])


def test_calibrating_keeps_the_scores_and_learns_thresholds(clip: nshot.Model, drawings: Embeddings) -> None:
    zero = several_zero_shot(clip, WORDS)
    calibrated = nshot.calibrate(zero, drawings, multi=True)
    assert np.array_equal(zero.scores(drawings.vectors), calibrated.scores(drawings.vectors))
    report = calibrated.report
    assert report.images == len(drawings)
    assert 0 < report.mean_f1 <= 1
    low, high = report.per_label.f1_interval[0]
    assert low <= report.per_label.f1[0] <= high


@pytest.mark.skipif(not FOLDER.is_dir(), reason="the recorded vectors are not on this machine")
def test_shrunk_thresholds_beat_one_tuned_threshold_on_micrographs() -> None:
    with np.load(FOLDER.parent / "recorded2" / "micrographs_vitb32.npz") as data:
        vectors, tags = normalize(data["image_embeds"]), data["tag_matrix"]
    labels = [tuple(str(k) for k in np.flatnonzero(row)) for row in tags]
    images = Embeddings.of(vectors, labels=labels)
    gains = []
    for seed in range(6):
        order = np.random.default_rng(seed).permutation(len(vectors))
        shown, rest = order[:260].tolist(), order[260:]
        fitted = nshot.fit(images[shown], multi=True, seed=seed)
        place = [int(label) for label in fitted.labels]
        learnt, truth = tags[shown][:, place], tags[rest][:, place]
        known = np.flatnonzero((learnt.sum(axis=0) >= 2) & truth.any(axis=0))
        held, evidence = fitted.report.evidence[:, known], fitted.logits(vectors[rest])[:, known]
        ways = fit_thresholds(held, learnt[:, known]), common_threshold(held, learnt[:, known])
        shrunk, tuned = (macro_f1(evidence >= at, truth[:, known]) for at in ways)
        gains.append(shrunk - tuned)
    assert np.mean(gains) > 0


# What is refused


def test_several_labels_and_one_label_do_not_mix() -> None:
    plain = nshot.Classifier(["a", "b"], np.eye(2), scale=10.0)
    with pytest.raises(RequestError, match="no other rule"):
        Decision(several=Several.unlearnt(2), coverage=0.9)
    with pytest.raises(RequestError, match="one label per image"):
        several_labels(plain.with_decision(Decision()), None)
    with pytest.raises(RequestError, match="between 0 and 1"):
        Several.unlearnt(2, threshold=1.5)


def test_learning_needs_images_that_show_the_labels(drawings: Embeddings) -> None:
    other = nshot.Classifier(["a", "b"], np.eye(2, drawings.dimension), scale=10.0)
    with pytest.raises(RequestError, match="no image has a label"):
        calibrate_several(other, drawings)
    with pytest.raises(LabelError, match="neither an example nor a prompt"):
        nshot.fit(drawings, multi=True, labels=[*WORDS, "unicorn"])
    with pytest.raises(RequestError, match="one method"):
        nshot.fit(drawings, multi=True, method="probe")


# On the command line


def test_classify_fit_calibrate_and_evaluate_take_several_labels(cli: Cli, tagged: Path) -> None:
    common = ("--label-separator", ";", "--model", "sketchbook")
    code, out, err = cli("calibrate", "tags.csv", *common, "--multi", "-o", "tags.nshot", cwd=tagged)
    assert code == 0, err
    assert "mean average precision" in out
    assert "ranked, not decided, since fewer than 20 images" in err
    code, out, err = cli("fit", "tags.csv", *common, "--multi", "-o", "fitted.nshot", cwd=tagged)
    assert code == 0, err
    for file in ("tags.nshot", "fitted.nshot"):
        code, out, err = cli(
            "classify",
            "images",
            "--classifier",
            file,
            "--model",
            "sketchbook",
            "--format",
            "jsonl",
            cwd=tagged,
        )
        records = [json.loads(line) for line in out.splitlines()]
        assert code == 0, err
        assert all(isinstance(record["labels"], list) for record in records)
        assert {record["answer"] for record in records} <= {"several", "none", "ranked"}
    code, out, err = cli("evaluate", "tags.csv", *common, "-o", "report", cwd=tagged)
    assert code == 0, err
    assert "mean F1" in out
    page = (tagged / "report" / "index.html").read_text()
    assert "Labels that occur together" in page
    told = json.loads((tagged / "report" / "report.json").read_text())
    assert told["figures"]["mean_f1"] > 0
    assert {"f1", "f1_interval"} <= told["per_class"][0].keys()
    assert told["together"]


def test_answers_in_a_table_hold_all_labels(cli: Cli, tagged: Path) -> None:
    code, _, err = cli(
        *("classify", "images", "--labels", ", ".join(WORDS), "--multi", "--model", "sketchbook"),
        *("-o", "out.csv"),
        cwd=tagged,
    )
    assert code == 0, err
    assert "nshot calibrate DATA --multi" in err
    rows = list(csv.DictReader((tagged / "out.csv").read_text().splitlines()))
    found = {int(Path(row["source"]).stem): row["labels"].split("; ") for row in rows}
    right = sum(set(tags_of(700_000 + number)) <= set(own) for number, own in found.items())
    assert right > len(rows) / 2


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (("classify", "images", "--coverage", "0.9"), "--coverage belongs to one label per image"),
        (("classify", "images", "--reject", "cosine"), "--reject belongs to one label per image"),
        (("classify", "images", "--threshold", "2"), "between 0 and 1"),
        (("classify", "images", "--threshold", "0"), "between 0 and 1"),
        (("sort", "images", "out"), "nshot tag"),
    ],
)
def test_what_does_not_go_with_several_labels_is_refused(
    cli: Cli, tagged: Path, command: tuple[str, ...], says: str
) -> None:
    code, _, err = cli(*command, "--labels", "red, star", "--multi", "--model", "sketchbook", cwd=tagged)
    assert code == 2
    assert says in err


def test_tag_writes_all_labels_as_keywords(cli: Cli, tagged: Path) -> None:
    code, _, err = cli(
        *("tag", "images/0.png", "--labels", ", ".join(WORDS), "--multi", "--model", "sketchbook", "--write"),
        cwd=tagged,
    )
    assert code == 0, err
    sidecar = (tagged / "images" / "0.png.xmp").read_text()
    assert all(f"<rdf:li>{word}</rdf:li>" in sidecar for word in tags_of(700_000))
