"""Images that may show any number of labels, on the page: answers, corrections, learning, taking away."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import nshot
from nshot import sketchbook
from nshot.classifier.classifier import Classifier
from nshot.classifier.several import several_zero_shot
from nshot.cli import run
from nshot.errors import RequestError
from nshot.metrics import clustered_wilson, wilson
from nshot.server.session import JOURNAL, Journal, Question, Session, Word, read_words, several, taking_away
from nshot.types import CORRECTED, Decided

LABELS = ("circle", "star", "heart", "tree")
TEMPLATE = "a drawing of a {}"
ASKED = Question.of(LABELS, templates=(TEMPLATE,), multi=True)
ASK = ["--labels", ", ".join(LABELS), "--multi", "--template", TEMPLATE, "--model", "sketchbook", "-q"]


@pytest.fixture(scope="module")
def clip() -> nshot.Embedder:
    return nshot.load("sketchbook")


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 drawings, named by the shapes that they show, and a broken file."""
    folder = tmp_path_factory.mktemp("several") / "photos"
    folder.mkdir()
    for number in range(60):
        shape = (*LABELS, "fish")[number % 5]
        pairs = [pair for pair in sketchbook.PAIRS if pair[1] == shape]
        scene = sketchbook.sample(7_300_000 + number, pairs=pairs, several=0)
        sketchbook.draw(scene, 96).save(folder / f"{number:03}-{shape}.jpg")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 torn")
    return folder


@pytest.fixture
def session(clip: nshot.Embedder, drawings: Path, tmp_path: Path) -> Iterator[Session]:
    made = Session(lambda: clip, [str(drawings)], Journal(tmp_path / JOURNAL), by="ann")
    made.start()
    assert made.wait(60)
    yield made
    made.close()


def truth_of(session: Session, row: int) -> list[str]:
    shape = session.images.rows[row].name.rsplit("-")[-1].split(".")[0]
    return [shape] if shape in LABELS else []


def said_of(session: Session, rows: list[int], *, asked: tuple[str, ...] = LABELS) -> None:
    """The truth of some images, in one act."""
    act = {
        "id": f"{rows[0]} {len(rows)} {len(asked)}",
        "digests": [session.images.rows[row].digest for row in rows],
        "each": [{"labels": truth_of(session, row)} for row in rows],
        "asked": list(asked),
    }
    session.say([act])


def readable(session: Session) -> list[int]:
    return np.flatnonzero(session.images.snapshot().read).tolist()


def test_answers_are_those_of_the_library(session: Session, clip: nshot.Embedder) -> None:
    asked, answers = session.ask(ASKED)
    assert answers.shown is not None
    images = session.images.snapshot()
    own = several_zero_shot(clip, list(LABELS), (TEMPLATE,))
    rows = readable(session)
    there = several.sets(answers.shown, len(LABELS))
    some = 0
    for row, record in zip(rows, own.predict(images.vectors[rows]), strict=True):
        assert isinstance(record, Decided)
        mine = [LABELS[place] for place in there.labels[there.of[row]]]
        assert set(mine) == set(record.labels)
        if mine:
            assert LABELS[answers.label[row]] == record.labels[0]
            assert abs(answers.score[row] - record.score) < 1e-4
        some += len(mine)
    assert some > 20
    lost = np.flatnonzero(~images.read)
    assert there.labels[there.of[lost[0]]] == []
    evidence = np.concatenate([part for _, part in session.questions.each(asked, images)])[rows]
    assert np.abs(evidence - own.logits(images.vectors[rows])).max() < 1e-3


def test_a_label_that_is_an_everyday_word_too_stands_against_the_others_once(
    session: Session, clip: nshot.Embedder
) -> None:
    images, rows = session.images.snapshot(), readable(session)
    names = ["fish", "tree", "star"]  # of which two are among the everyday words
    asked, _ = session.ask(Question.of(names, templates=(TEMPLATE,), multi=True))
    evidence = np.concatenate([part for _, part in session.questions.each(asked, images)])[rows]
    own = several_zero_shot(clip, names, (TEMPLATE,))
    assert np.abs(evidence - own.logits(images.vectors[rows])).max() < 1e-3


@pytest.mark.parametrize("labels", [3, 12, 70])
def test_each_combination_of_labels_is_told_once(labels: int) -> None:
    shown = np.random.default_rng(0).random((200, labels)) < 2 / labels
    there = several.sets(np.packbits(shown, axis=1), labels)
    assert len({tuple(each) for each in there.labels}) == len(there.labels)
    for row in range(200):
        assert there.labels[there.of[row]] == np.flatnonzero(shown[row]).tolist()
    assert several.sets(np.packbits(shown[:0], axis=1), labels).labels == []


def test_a_selection_of_images_that_are_not_alike_is_one_act_with_one_undo(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    journal = Journal(path)
    asked = ["cat", "dog"]
    journal.append([{"id": "1", "digests": ["aa"], "now": {"labels": ["cat"]}, "asked": asked}], by="ann")
    each = [{"labels": ["cat", "dog"]}, {"labels": []}, None]
    journal.append([{"id": "2", "digests": ["aa", "bb", "cc"], "each": each, "asked": asked}], by="bob")
    both, none = (Word("labels", labels=own, asked=("cat", "dog")) for own in (("cat", "dog"), ()))
    assert journal.state.said == {"aa": both, "bb": none}
    journal.close()
    journal = Journal(path)
    assert journal.state.said == {"aa": both, "bb": none}
    journal.append([{"id": "3", "undo": "2"}], by="ann")
    assert journal.state.said == {"aa": both._replace(labels=("cat",))}
    journal.append([{"id": "4", "redo": "2"}], by="ann")
    assert journal.state.said == {"aa": both, "bb": none}
    journal.close()
    second = json.loads(path.read_text().splitlines()[2])
    assert second["by"] == "bob"
    assert second["was"] == [{"labels": ["cat"]}, None, None]
    assert second["asked"] == "1"  # the list of labels is written once, not with every act


@pytest.mark.parametrize(
    ("act", "why"),
    [
        ({"now": {"labels": ["cow"]}, "asked": ["cat"]}, "'cow' is not among the labels"),
        ({"now": {"labels": "cat"}}, "list of labels"),
        ({"now": {"labels": [" "]}}, "list of labels"),
        ({"each": [{"labels": []}]}, "each is a list"),
        ({"each": {"labels": []}}, "each is a list"),
        ({"now": {"labels": []}, "asked": 5}, "list of labels"),
    ],
)
def test_an_act_of_no_known_form_is_refused(tmp_path: Path, act: dict[str, object], why: str) -> None:
    journal = Journal(tmp_path / JOURNAL)
    with pytest.raises(RequestError, match=why):
        journal.append([{"id": "1", "digests": ["aa", "bb"], **act}], by="ann")
    journal.close()
    assert read_words(tmp_path / JOURNAL).said == {}


def test_a_label_that_few_images_showed_is_ranked_and_not_answered_any_more(session: Session) -> None:
    _, before = session.ask(ASKED)
    assert session.learn(ASKED) is None
    rows = readable(session)
    said_of(session, rows[:40])
    proposal = session.learn(ASKED)
    assert proposal is not None
    assert [each["decided"] for each in proposal.labels] == [False] * 4
    assert all(0 < each["images"] < 20 for each in proposal.labels)
    assert proposal.left == []
    assert proposal.asked.several is not None
    later = session.questions.answers(proposal.asked, session.images.snapshot())
    assert later.shown is not None
    assert not later.shown.any()
    shown = [row for row in rows[40:] if before.shown is not None and before.shown[row].any()]
    assert proposal.changed == len(shown)  # what somebody has spoken about is not counted
    session.take(proposal.token, "take it")
    order = session.ranked(session.ask(ASKED)[0].key, LABELS.index("star")).tolist()
    assert sorted(order) == rows
    stars = [row for row in rows if truth_of(session, row) == ["star"]]
    assert len(set(order[: len(stars)]) & set(stars)) >= len(stars) - 2
    with pytest.raises(RequestError, match="no such label"):
        session.ranked(session.ask(ASKED)[0].key, 4)


def test_what_was_said_before_a_label_was_asked_teaches_nothing_of_it(session: Session) -> None:
    rows = readable(session)
    said_of(session, [row for row in rows[:30] if truth_of(session, row) != ["tree"]], asked=LABELS[:3])
    assert session.learn(ASKED) is None
    three = Question.of(LABELS[:3], templates=(TEMPLATE,), multi=True)
    assert session.learn(three) is not None
    said_of(session, rows[30:50])
    proposal = session.learn(ASKED)
    assert proposal is not None
    assert proposal.examples == 20
    assert len(proposal.left) == len([row for row in rows[:30] if truth_of(session, row) != ["tree"]])


def test_a_taken_classifier_answers_alike_on_the_command_line(
    session: Session, drawings: Path, tmp_path: Path
) -> None:
    said_of(session, readable(session)[:50])
    proposal = session.learn(ASKED)
    assert proposal is not None
    session.take(proposal.token, "take it")
    asked, answers = session.ask(ASKED)
    assert asked.learnt
    saved = Classifier.open(session.state()["taken"]["labels"])
    assert saved.several is not None
    assert saved.several.positives is not None
    rows = readable(session)
    evidence = np.concatenate([part for _, part in session.questions.each(asked, session.images.snapshot())])
    assert np.abs(evidence[rows] - saved.logits(session.images.snapshot().vectors[rows])).max() < 1e-3
    turned = Question.of(LABELS[::-1], templates=(TEMPLATE,), multi=True)
    other, swapped = session.ask(turned)
    assert other.learnt
    assert other.several is not None
    assert other.several.thresholds.tolist() == saved.several.thresholds[::-1].tolist()
    assert np.abs(swapped.score - answers.score).max() < 1e-4
    fewer, _ = session.ask(Question.of(LABELS[:2], templates=(TEMPLATE,), multi=True))
    assert not fewer.learnt
    assert any("other labels" in note for note in fewer.notes)
    alone, _ = session.ask(Question.of(LABELS, templates=(TEMPLATE,)))
    assert not alone.learnt
    assert any("any number of labels" in note for note in alone.notes)
    session.close()
    out = tmp_path / "made.nshot"
    journal = ["--journal", str(session.journal.path)]
    assert run(["fit", str(drawings), *journal, *ASK, "-o", str(out)]) == 1  # an image could not be read
    fitted = Classifier.open(out)
    assert np.allclose(fitted.matrix, saved.matrix, atol=1e-6)
    assert fitted.several is not None
    assert np.allclose(fitted.several.thresholds, saved.several.thresholds, atol=1e-6)


def test_an_audit_tells_of_each_label_and_of_all_together(session: Session) -> None:
    rows, total, found = session.audit(ASKED)
    assert (len(rows), total, found.asked) == (60, 60, 0)
    act = {
        "id": "audit",
        "digests": [session.images.rows[row].digest for row in rows[:40]],
        "each": [{"labels": truth_of(session, row)} for row in rows[:40]],
        "asked": list(LABELS),
        "audit": True,
    }
    session.say([act])
    _, _, found = session.audit(ASKED)
    told = found.to_dict()
    assert told["asked"] == 40
    assert told["right"] >= 30
    assert told["low"] < told["right"] / 40 <= told["high"]  # the draw may be right in all
    assert [each["label"] for each in told["each"]] == list(LABELS)
    assert sum(each["images"] for each in told["each"]) == sum(
        len(truth_of(session, row)) for row in rows[:40]
    )
    micro = told["micro"]
    assert micro["f1_interval"][0] <= micro["f1"] <= micro["f1_interval"][1]
    assert json.loads(json.dumps(told)) == told
    assert session.learn(ASKED) is None  # nothing is learnt from an audit's images


def test_trials_that_go_together_count_for_fewer() -> None:
    assert clustered_wilson([], []).tolist() == [0, 1]
    assert clustered_wilson([1, 1, 0, 1], [1, 1, 1, 1]) == pytest.approx(wilson(3, 4), abs=0.06)
    together = clustered_wilson([8, 0, 8, 0, 8, 8], [8] * 6)
    apart = wilson(32, 48)
    assert together[0] < apart[0]
    assert together[1] > apart[1]
    assert clustered_wilson([8, 8], [8, 8]) == pytest.approx(wilson(2, 2))


@pytest.fixture
def corrected_session(session: Session) -> Session:
    rows = readable(session)
    digests = [session.images.rows[row].digest for row in rows]
    act = {"id": "two", "digests": digests[:2], "now": {"labels": ["circle", "tree"]}, "asked": list(LABELS)}
    session.say([act])
    session.say([{"id": "no", "digests": [digests[2]], "now": {"labels": []}, "asked": list(LABELS)}])
    session.say([{"id": "skip", "digests": [digests[3]], "now": {"answer": "skip"}}])
    session.close()
    return session


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet", "coco", "labelstudio"])
def test_a_file_of_answers_is_the_one_that_classify_writes(
    corrected_session: Session, drawings: Path, tmp_path: Path, format: str
) -> None:
    out = tmp_path / f"answers.{format}"
    extra = ["--journal", str(corrected_session.journal.path), "--format", format, "-o", str(out)]
    assert run(["classify", str(drawings), *ASK, *extra]) == 1
    classifier = corrected_session.classifier(ASKED)
    data, name, _ = taking_away.as_file(format, classifier, corrected_session.records(classifier))
    theirs = out.read_bytes()
    if format in ("coco", "labelstudio"):
        assert json.loads(data) == json.loads(theirs)
        assert '"circle"' in data.decode()
    elif format == "jsonl":
        mine, others = ([json.loads(line) for line in text.splitlines()] for text in (data, theirs))
        assert [each["labels"] for each in mine[:3]] == [["circle", "tree"], ["circle", "tree"], []]
        assert [each["answer"] for each in mine[:3]] == ["several", "several", "none"]
        assert [CORRECTED in each.get("notes", ()) for each in mine[:4]] == [True, True, True, False]
        assert mine == [{key: each[key] for key in each if key != "run"} for each in others]
    elif format == "csv":
        mine, others = (list(csv.DictReader(text.decode().splitlines())) for text in (data, theirs))
        assert mine == [{key: each[key] for key in each if key != "run"} for each in others]
    else:
        import pyarrow.parquet

        (tmp_path / name).write_bytes(data)
        mine, others = (pyarrow.parquet.read_table(path).to_pylist() for path in (tmp_path / name, out))
        assert mine == others


def test_label_studio_gets_all_labels_as_choices(corrected_session: Session) -> None:
    classifier = corrected_session.classifier(ASKED)
    data, _, _ = taking_away.as_file(
        "labelstudio", classifier, corrected_session.records(classifier, only=True)
    )
    tasks = json.loads(data)
    assert len(tasks) == 3
    [result] = tasks[0]["annotations"][0]["result"]
    assert result["value"]["choices"] == ["circle", "tree"]


def test_keywords_hold_all_labels(corrected_session: Session, drawings: Path, tmp_path: Path) -> None:
    copies = tmp_path / "copies"
    copies.mkdir()
    for path in sorted(drawings.glob("00*.jpg")):
        (copies / path.name).write_bytes(path.read_bytes())
    journal = ["--journal", str(corrected_session.journal.path), "--corrected"]
    assert run(["tag", str(copies), *ASK, *journal, "--write"]) == 0
    first = sorted(copies.glob("*.xmp"))[0].read_text()
    assert "circle" in first
    assert "tree" in first


def test_one_label_per_image_is_not_made_of_two(
    corrected_session: Session, drawings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = [each for each in ASK if each != "--multi"]
    out = tmp_path / "answers.csv"
    journal = ["--journal", str(corrected_session.journal.path)]
    assert run(["classify", str(drawings), *alone, *journal, "-o", str(out)]) == 2
    assert "circle, tree" in capsys.readouterr().err
    words = read_words(corrected_session.journal.path).said.values()
    assert [word.alone() for word in words] == [None, None, Word("none"), Word("skip")]
    assert Word("labels", labels=("star",)).alone() == Word("label", "star")
