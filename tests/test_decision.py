"""Decisions: probabilities that hold, "none of these", only the surest, sets with the wanted coverage."""

from __future__ import annotations

import json
import runpy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nshot.classifier.classifier import Classifier
from nshot.decision import (
    RULES,
    Calibration,
    CalibrationReport,
    Decision,
    Rejection,
    Surest,
    default_rejection,
    fit_calibration,
    fit_conformal,
    fit_decision,
    fit_surest,
)
from nshot.decision.background import unlike
from nshot.decision.conformal import Kind
from nshot.decision.rejection import threshold_for
from nshot.decision.softmax import activate
from nshot.errors import RequestError
from nshot.metrics import auroc, nll, reliability
from nshot.types import Decided, Prediction
from nshot.unit import normalize

RECORDED = Path(__file__).parents[1].parent / "shared" / "data" / "recorded"
LABELS = ["a", "b", "c", "d"]
Array = np.ndarray[Any, np.dtype[Any]]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def world(rng: np.random.Generator, n: int = 600, labels: int = 4) -> tuple[Classifier, Array, Array]:
    """A classifier whose scale is far too high for its images, the images, and their labels."""
    matrix = rng.normal(size=(labels, 32))
    targets = rng.integers(labels, size=n)
    vectors = matrix[targets] + rng.normal(size=(n, 32)) * 2.2
    return Classifier([chr(97 + k) for k in range(labels)], matrix, scale=60.0), vectors, targets


def decided(classifier: Classifier, vectors: Array, decision: Decision) -> list[Decided]:
    answers = classifier.with_decision(decision).predict(vectors)
    assert all(isinstance(answer, Decided) for answer in answers)
    return answers  # type: ignore[return-value]


def fit_for(classifier: Classifier, x: Array, y: Array, **options: Any) -> tuple[Decision, CalibrationReport]:
    """``fit_decision`` for a classifier's arrays."""
    options |= {name: classifier.compare(each) for name, each in options.items() if name == "none"}
    return fit_decision(classifier.compare(x), y, classifier.matrix, **options)


# Calibration


def test_overconfident_scores_become_probabilities_that_hold_on_other_images(
    rng: np.random.Generator,
) -> None:
    classifier, vectors, targets = world(rng)
    logits = classifier.logits(vectors)
    fitted = fit_calibration(logits[:300], targets[:300])
    before = activate(logits[300:], "softmax")
    after = activate(fitted.apply(logits[300:]), "softmax")
    correct = before.argmax(axis=1) == targets[300:]
    assert fitted.temperature > 2
    assert nll(after, targets[300:]) < nll(before, targets[300:])
    assert reliability(after.max(axis=1), correct).error < reliability(before.max(axis=1), correct).error / 2


def test_the_temperature_is_where_the_likelihood_is_best(rng: np.random.Generator) -> None:
    classifier, vectors, targets = world(rng, n=5000)
    logits = classifier.logits(vectors)
    found = fit_calibration(logits, targets).temperature
    grid = np.exp(np.linspace(np.log(found) - 0.5, np.log(found) + 0.5, 101))
    losses = [nll(activate(logits / t, "softmax"), targets) for t in grid]
    assert grid[int(np.argmin(losses))] == pytest.approx(found, rel=0.02)


def test_a_few_images_all_of_them_right_make_nothing_certain(rng: np.random.Generator) -> None:
    logits = np.array([[5.0, 0.0], [0.0, 4.0], [6.0, 0.0]])
    fitted = fit_calibration(logits, [0, 1, 0])
    assert activate(fitted.apply(logits), "softmax").max() < 0.95


def test_sigmoid_models_get_a_bias_as_well(rng: np.random.Generator) -> None:
    classifier, vectors, targets = world(rng, n=2000)
    shifted = Classifier(classifier.labels, classifier.matrix, 10.0, -20.0, "sigmoid")
    logits = shifted.logits(vectors)
    fitted = fit_calibration(logits, targets, "sigmoid")
    own = np.zeros(logits.shape)
    own[np.arange(len(own)), targets] = 1

    def loss(c: Calibration) -> float:
        p = activate(c.apply(logits), "sigmoid")
        return float(-np.mean(own * np.log(p) + (1 - own) * np.log1p(-p)))

    best = loss(fitted)
    assert best < loss(Calibration(1.0))
    for other in (
        replace(fitted, temperature=fitted.temperature * 1.1),
        replace(fitted, bias=fitted.bias + 0.2),
    ):
        assert best < loss(other)
    assert activate(fitted.apply(logits), "sigmoid").sum() == pytest.approx(len(targets), rel=0.02)


def test_calibration_changes_no_best_label(rng: np.random.Generator) -> None:
    classifier, vectors, _ = world(rng, n=50)
    plain = [p.label for p in classifier.predict(vectors) if isinstance(p, Prediction)]
    assert plain == [p.label for p in decided(classifier, vectors, Decision(Calibration(7.0)))]


# None of these


def test_every_rule_tells_strangers_from_images_of_the_labels(rng: np.random.Generator) -> None:
    classifier, vectors, _ = world(rng)
    strangers = rng.normal(size=(300, 32)) * 2.5
    background = normalize(rng.normal(size=(40, 32)))
    for rule in RULES:
        asked = Rejection(rule, 0.0, unlike(background, classifier.matrix) if rule == "background" else None)
        known, unknown = (asked.evidence(classifier.compare(x)) for x in (vectors, strangers))
        assert auroc(known, unknown) > 0.6, rule


def test_the_evidence_of_each_rule_is_what_it_says() -> None:
    classifier = Classifier(["right", "up"], [[1, 0, 0], [0, 1, 0]], scale=10.0)
    image, background = np.array([[0.6, 0.0, 0.8]]), np.array([[0, 0, 1], [0, 0, -1]], np.float32)
    energy = np.log(np.exp(6) + np.exp(0)) / 10
    expected = {
        "cosine": 0.6,
        "margin": 0.6,
        "energy": energy,
        "background": energy - 0.75 * np.log(np.exp(8) + np.exp(-8)) / 10 + 0.007 * energy / 0.8,
    }
    for rule in RULES:
        asked = Rejection(rule, 0.0, background if rule == "background" else None)
        assert asked.evidence(classifier.compare(image)) == pytest.approx([expected[rule]], abs=1e-6)


def test_a_threshold_keeps_wrong_acceptances_at_the_wanted_rate(rng: np.random.Generator) -> None:
    rates = []
    for _ in range(300):
        unknown = rng.normal(size=199)
        rates.append(np.mean(rng.normal(size=200) >= threshold_for([], unknown, wrong=0.1)))
    assert np.mean(rates) == pytest.approx(0.1, abs=0.005)


def test_without_strangers_the_threshold_keeps_the_wanted_share(rng: np.random.Generator) -> None:
    known = rng.normal(size=1000)
    assert np.mean(known >= threshold_for(known, None, kept=0.9)) == pytest.approx(0.9)


def test_a_rate_that_so_few_images_cannot_tell_is_refused_with_the_number_needed() -> None:
    with pytest.raises(RequestError, match="at least 19 images"):
        threshold_for([], [0.1, 0.2], wrong=0.05)


def test_an_image_under_the_threshold_is_none_of_these(rng: np.random.Generator) -> None:
    classifier, vectors, _ = world(rng, n=20)
    cosines = classifier.cosines(vectors).max(axis=1)
    threshold = float(np.median(cosines))
    answers = decided(classifier, vectors, Decision(rejection=Rejection("cosine", threshold)))
    assert [a.answer for a in answers] == ["label" if c >= threshold else "none" for c in cosines]
    for answer in answers:
        assert (answer.label is None) == (answer.answer == "none") == (answer.labels == ())
        assert len(answer.predictions) == 4  # what it would have been stays to be seen


def test_the_background_leaves_out_what_a_label_means_itself(rng: np.random.Generator) -> None:
    background = rng.normal(size=(60, 64))
    kept = unlike(background, background[7:8] + 0.1 * rng.normal(size=64))
    near = kept @ (background[7] / np.linalg.norm(background[7]))
    assert 50 < len(kept) < 60
    assert near.max() < 0.9


def test_a_background_of_another_model_is_refused(rng: np.random.Generator) -> None:
    classifier, vectors, _ = world(rng, n=3)
    rule = Rejection("background", 0.0, np.ones((5, 8), np.float32))
    with pytest.raises(RequestError, match="another model"):
        rule.evidence(classifier.compare(vectors))


# Only the surest


def test_only_the_surest_are_answered_and_the_rest_are_unsure(rng: np.random.Generator) -> None:
    classifier, vectors, targets = world(rng)
    scores = classifier.scores(vectors)
    surest = fit_surest(scores.max(axis=1), scores.argmax(axis=1) == targets, 0.7)
    answers = decided(classifier, vectors, Decision(surest=surest))
    answered = [a.answer == "label" for a in answers]
    assert np.mean(answered) == pytest.approx(0.7, abs=0.01)
    right = np.array([a.label == LABELS[t] for a, t in zip(answers, targets, strict=True)])
    assert 1 - right[answered].mean() == pytest.approx(surest.risk, abs=0.01)
    assert surest.risk < np.mean(scores.argmax(axis=1) != targets)


# Sets


@pytest.mark.parametrize("kind", ["least", "adaptive"])
@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
def test_sets_hold_the_right_label_as_often_as_asked(
    rng: np.random.Generator, coverage: float, kind: Kind
) -> None:
    covered = []
    for _ in range(40):
        classifier, vectors, targets = world(rng, n=300)
        chance = classifier.scores(vectors)
        made = fit_conformal(chance[:150], vectors[:150], targets[:150], kind=kind)
        found = made.sets(chance[150:], vectors[150:], coverage)
        covered.append(np.mean([t in s for t, s in zip(targets[150:], found, strict=True)]))
    assert np.mean(covered) == pytest.approx(coverage, abs=0.015)


def test_sets_are_the_smallest_of_their_coverage_by_default(rng: np.random.Generator) -> None:
    classifier, vectors, targets = world(rng, n=2000)
    chance = activate(classifier.logits(vectors) / 4, "softmax")
    size = {}
    kinds: tuple[Kind, ...] = ("least", "adaptive")
    for kind in kinds:
        made = fit_conformal(chance[:1000], vectors[:1000], targets[:1000], kind=kind)
        size[kind] = np.mean([len(s) for s in made.sets(chance[1000:], vectors[1000:], 0.95)])
    assert size["least"] < size["adaptive"]


def test_with_enough_images_of_every_label_each_label_is_covered_by_itself(rng: np.random.Generator) -> None:
    covered: dict[int, list[float]] = {}
    for _ in range(60):
        classifier, vectors, targets = world(rng, n=1200)
        vectors[targets == 0] += 1.5 * rng.normal(size=(np.sum(targets == 0), vectors.shape[1]))
        chance = classifier.scores(vectors)
        for count in (100, 600):
            made = fit_conformal(chance[:count], vectors[:count], targets[:count])
            found = made.sets(chance[600:], vectors[600:], 0.9)
            own = [0 in s for t, s in zip(targets[600:], found, strict=True) if t == 0]
            covered.setdefault(count, []).append(float(np.mean(own)))
    assert np.mean(covered[100]) < 0.87  # a harder label pays for the others
    assert np.mean(covered[600]) == pytest.approx(0.9, abs=0.02)


def test_wrong_labels_among_the_images_leave_the_scores_as_they_are(rng: np.random.Generator) -> None:
    classifier, vectors, targets = world(rng, n=240)
    targets = classifier.logits(vectors).argmax(axis=1)
    wrong = rng.random(240) < 0.1
    targets[wrong] = (targets[wrong] + 1) % 4
    sharp = Classifier(classifier.labels, classifier.matrix, scale=classifier.scale / 4)
    decision, report = fit_for(sharp, vectors, targets, reject=None)
    assert report.after is not None
    if decision.calibration is None:
        assert report.temperature is None
        assert any("kept as they are" in note for note in report.notes)
    else:
        assert report.after.brier <= report.before.brier
        assert report.after.ece <= report.before.ece
        assert report.after.nll < report.before.nll


def test_sets_that_are_not_randomized_are_never_empty_and_cover_at_least_as_much(
    rng: np.random.Generator,
) -> None:
    classifier, vectors, targets = world(rng, n=2000)
    chance = classifier.scores(vectors)
    made = fit_conformal(chance[:1000], vectors[:1000], targets[:1000], randomized=False)
    found = made.sets(chance[1000:], vectors[1000:], 0.6)
    assert all(found)
    assert np.mean([t in s for t, s in zip(targets[1000:], found, strict=True)]) > 0.6


def test_a_vector_has_the_same_set_alone_and_among_others(rng: np.random.Generator) -> None:
    classifier, vectors, targets = world(rng, n=300)
    kinds: tuple[Kind, ...] = ("least", "adaptive")
    for kind in kinds:
        sets = fit_conformal(classifier.scores(vectors), vectors, targets, kind=kind)
        decision = Decision(sets=sets, coverage=0.9)
        together = [a.labels for a in decided(classifier, vectors, decision)]
        assert together == [decided(classifier, v, decision)[0].labels for v in vectors]
        assert {len(labels) for labels in together} >= {0, 1, 2}


def test_too_few_images_make_sets_of_every_label(rng: np.random.Generator) -> None:
    classifier, vectors, targets = world(rng, n=8)
    sets = fit_conformal(classifier.scores(vectors), vectors, targets)
    assert all(len(a.labels) == 4 for a in decided(classifier, vectors, Decision(sets=sets, coverage=0.9)))


def test_a_set_is_told_as_one_and_its_label_only_where_it_is_alone(rng: np.random.Generator) -> None:
    classifier, vectors, targets = world(rng, n=300)
    sets = fit_conformal(classifier.scores(vectors), vectors, targets)
    decision = Decision(rejection=Rejection("cosine", 2.0), sets=sets).with_coverage(0.9)
    for answer in decided(classifier, vectors, decision):
        assert answer.answer == "set"
        assert answer.label == (answer.labels[0] if len(answer.labels) == 1 else None)


def test_a_coverage_without_labelled_images_says_what_to_do() -> None:
    with pytest.raises(RequestError, match="nshot calibrate"):
        Decision().with_coverage(0.9)
    with pytest.raises(RequestError, match="between 0 and 1"):
        Decision().with_coverage(90)


# The whole


def test_a_decision_survives_json_and_answers_the_same(rng: np.random.Generator) -> None:
    classifier, vectors, targets = world(rng)
    background = normalize(rng.normal(size=(40, 32)))
    decision, _ = fit_for(
        classifier,
        vectors,
        targets,
        background=background,
        coverage=None,
        surest=0.8,
        wrong=0.2,
    )
    again = Decision.from_dict(json.loads(json.dumps(decision.to_dict())))
    assert decided(classifier, vectors, again) == decided(classifier, vectors, decision)
    kinds = {a.answer for a in decided(classifier, vectors, again)}
    assert kinds == {"label", "none", "unsure"}
    assert decided(classifier, vectors, again.with_coverage(0.7)) == decided(
        classifier, vectors, decision.with_coverage(0.7)
    )


@pytest.mark.parametrize("damage", [{"version": 2}, {"calibration": {"warmth": 1}}, {"sets": {"scores": []}}])
def test_a_damaged_or_later_decision_is_refused(damage: dict[str, Any]) -> None:
    with pytest.raises(RequestError):
        Decision.from_dict({**Decision().to_dict(), **damage})


def test_a_record_speaks_of_a_probability_only_when_calibrated(rng: np.random.Generator) -> None:
    classifier, vectors, _ = world(rng, n=1)
    (plain,) = classifier.predict(vectors, top_k=1)
    assert list(plain.to_dict()) == ["source", "label", "score", "cosine", "margin", "predictions"]
    surest = Surest(0.5, 2.0, 0.0)
    (unsure,) = classifier.with_decision(Decision(surest=surest)).predict(vectors, top_k=1)
    assert list(unsure.to_dict()) == [
        "source", "label", "answer", "labels", "score", "cosine", "margin", "predictions",
    ]  # fmt: skip
    assert (unsure.to_dict()["label"], unsure.to_dict()["answer"]) == (None, "unsure")
    (sure,) = classifier.with_decision(Decision(Calibration(2.0))).predict(vectors, top_k=1)
    record = sure.to_dict()
    assert "score" not in record
    assert record["probability"] == record["predictions"][0]["probability"]


def test_fitting_measures_on_images_held_out(rng: np.random.Generator) -> None:
    classifier, vectors, targets = world(rng, n=800)
    strangers = rng.normal(size=(300, 32)) * 2.5
    decision, report = fit_for(
        classifier,
        vectors,
        targets,
        none=strangers,
        background=normalize(rng.normal(size=(40, 32))),
        wrong=0.1,
    )
    assert report.after is not None
    assert report.after.ece < report.before.ece / 2
    assert report.accepted == pytest.approx(0.1, abs=0.05)
    assert report.covered == pytest.approx(0.9, abs=0.03)
    assert {rule.rule for rule in report.rules} == set(RULES)
    assert decision.rejection is not None
    answers = decided(classifier, rng.normal(size=(1000, 32)) * 2.5, decision)
    assert np.mean([a.answer == "label" for a in answers]) == pytest.approx(0.1, abs=0.05)
    json.dumps(report.to_dict(), allow_nan=False)


def test_without_strangers_each_label_is_left_out_in_turn(rng: np.random.Generator) -> None:
    classifier, vectors, targets = world(rng, n=800, labels=6)
    decision, report = fit_for(classifier, vectors, targets, reject="cosine", wrong=0.2)
    assert report.none_images == 0
    assert report.accepted == pytest.approx(0.2, abs=0.05)
    assert decision.rejection is not None


def test_a_single_label_can_be_rejected_but_not_calibrated(rng: np.random.Generator) -> None:
    one = Classifier(["cat"], rng.normal(size=(1, 16)), 100.0)
    vectors = one.matrix + rng.normal(size=(50, 16)) * 0.2
    decision, report = fit_for(
        one,
        vectors,
        np.zeros(50, int),
        none=rng.normal(size=(50, 16)),
        reject="cosine",
    )
    assert decision.calibration is None
    assert any("single label" in note for note in report.notes)
    assert {a.answer for a in decided(one, -vectors, decision)} == {"none"}


# On recorded vectors


@pytest.mark.skipif(not RECORDED.exists(), reason="needs the recorded vectors in ../shared/data")
def test_the_figures_of_the_recorded_vectors_hold() -> None:
    bench = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "bench" / "decisions.py")))
    data = bench.Recorded(RECORDED)
    figures = bench.calibration(data, draws=10)
    assert figures["ece calibrated"] <= max(figures["ece"] / 2, 0.02)
    assert bench.sets(data, 0.9, randomized=True)["covered"] == pytest.approx(0.9, abs=0.015)
    for row in bench.rejection(data):
        assert row["background"][0] >= max(row[rule][0] for rule in RULES) - 0.03, row["task"]
    assert bench.search(data) > 0.83
    assert default_rejection(data.classifier(bench.NAMES).matrix, data.background).background is not None
