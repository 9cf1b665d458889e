"""The page's work without a browser: reading, asking, correcting, learning, auditing."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import threading
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nshot
from nshot import sketchbook
from nshot.classifier.classifier import Classifier
from nshot.decision import Calibration, Decision
from nshot.errors import ImageError, OutputError, RequestError
from nshot.images import decode, prepare
from nshot.metrics import wilson
from nshot.server.session import JOURNAL, Journal, Question, Session, Word, read_words, taking_away
from nshot.server.session.asked import NONE
from nshot.server.session.questions import two_best
from nshot.server.session.thumbnails import SIDE, Thumbnails, render

SHAPES = ("circle", "star", "heart", "fish")
ASKED = Question.of(SHAPES, templates=("a drawing of a {}",))


@pytest.fixture(scope="module")
def clip() -> nshot.Embedder:
    return nshot.load("sketchbook")


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawings")
    for number in range(60):
        shape = (*SHAPES, "tree")[number % 5]
        pairs = [pair for pair in sketchbook.PAIRS if pair[1] == shape]
        scene = sketchbook.sample(9_000_000 + number, pairs=pairs, several=0)
        image = sketchbook.draw(scene, 96)
        exif = Image.Exif()
        exif[0x010E] = "secret place"
        image.save(folder / f"{number:03}-{shape}.jpg", exif=exif)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 no image")
    (folder / "zz-copy.jpg").write_bytes((folder / "000-circle.jpg").read_bytes())
    return folder


@pytest.fixture
def session(clip: nshot.Embedder, drawings: Path, tmp_path: Path) -> Iterator[Session]:
    with_journal = Journal(tmp_path / JOURNAL)
    made = Session(lambda: clip, [str(drawings)], with_journal, by="ann", thumbnails=tmp_path / "t.sqlite")
    made.start()
    assert made.wait(60)
    yield made
    made.close()


def digests_of(session: Session, part: str) -> list[str]:
    return [row.digest for row in session.images.rows if part in row.name]


def test_images_are_read_once_per_content_and_failures_keep_their_place(session: Session) -> None:
    state = session.state()
    assert (state["phase"], state["rows"], state["failed"], state["repeated"]) == ("ready", 61, 1, 1)
    assert [row.name for row in session.images.rows] == sorted(row.name for row in session.images.rows)
    circle = session.images.rows[session.row(digests_of(session, "000-circle")[0])]
    assert circle.others[0].endswith("zz-copy.jpg")


def test_answers_are_those_of_the_library(session: Session, clip: nshot.Embedder) -> None:
    asked, answers = session.ask(ASKED)
    classifier = asked.words.with_decision(Decision(rejection=asked.rejection))
    images = session.images.snapshot()
    records = classifier.predict(images.vectors[images.read])
    rows = np.flatnonzero(images.read)
    for row, record in zip(rows.tolist(), records, strict=True):
        assert isinstance(record, nshot.Prediction)
        label = int(answers.label[row])
        assert record.label == (None if label == NONE else SHAPES[label])
        assert abs(record.score - answers.score[row]) < 1e-4
    assert answers.label[~images.read].tolist() == [0xFFFE]
    assert (answers.label == NONE).any()


def test_the_evidence_for_all_images_is_the_rule_s_own(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, _ = session.ask(ASKED)
    images = session.images.snapshot()
    assert asked.rejection is not None
    of = asked.classifier
    vectors = images.vectors[images.read]
    slow = asked.rejection.evidence(of.compare(vectors))

    def not_one_by_one(*_: object) -> None:
        raise AssertionError("what is kept was not used")

    monkeypatch.setattr(type(asked.rejection), "evidence", not_one_by_one)
    assert np.abs(session.questions.evidence(asked, images)[images.read] - slow).max() < 1e-5


def test_words_that_were_asked_before_are_not_encoded_again(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.ask(ASKED)
    session.ask(Question.of(("tree",), templates=ASKED.templates))
    encoded: list[str] = []
    own = type(session.questions.embedder).embed_texts

    def counted(embedder: nshot.Embedder, texts: list[str]) -> np.ndarray:
        encoded.extend(texts)
        return own(embedder, texts)

    monkeypatch.setattr(type(session.questions.embedder), "embed_texts", counted)
    session.ask(Question.of(("tree", "star", "circle"), templates=ASKED.templates))
    assert encoded == []
    session.ask(Question.of(("tree", "moon"), templates=ASKED.templates))
    assert encoded == ["a drawing of a moon"]


@pytest.mark.parametrize("labels", [1, 2, 7, 65])
def test_the_best_label_and_the_next_are_those_of_a_sort(labels: int) -> None:
    logits = np.random.default_rng(0).integers(0, 5, (labels, 300)).astype(np.float32)
    places, top, second = two_best(logits)
    assert places.tolist() == logits.argmax(axis=0).tolist()
    assert top.tolist() == logits.max(axis=0).tolist()
    expected = np.sort(logits, axis=0)[-2] if labels > 1 else np.full(300, -np.inf)
    assert second.tolist() == expected.tolist()


def test_a_label_may_have_synonyms_and_templates_change_the_answer(session: Session) -> None:
    plain, _ = session.ask(ASKED)
    other, _ = session.ask(
        Question.from_dict({"labels": [{"label": "circle", "synonyms": ["disc"]}, "star"]})
    )
    assert other.key != plain.key
    assert other.words.labels == ("circle", "star")
    assert not np.allclose(other.words.matrix[0], plain.words.matrix[0])


@pytest.mark.parametrize("content", [{"labels": [3]}, {"labels": [{"label": "x"}]}, {"labels": 5}])
def test_a_question_of_another_form_is_refused(content: dict[str, object]) -> None:
    with pytest.raises(RequestError, match="a question is"):
        Question.from_dict(content)


def test_a_correction_outlives_the_session_and_a_moved_file(
    session: Session, clip: nshot.Embedder, drawings: Path, tmp_path: Path
) -> None:
    [star] = digests_of(session, "001-star")
    session.say([{"id": "1", "digests": [star], "now": {"label": "fish"}}])
    session.close()
    moved = tmp_path / "elsewhere"
    moved.mkdir()
    (moved / "renamed.jpg").write_bytes((drawings / "001-star.jpg").read_bytes())
    again = Session(lambda: clip, [str(moved)], Journal(tmp_path / JOURNAL))
    again.start()
    assert again.wait(60)
    assert again.said() == {0: Word("label", "fish")}
    again.close()


def test_what_is_said_before_the_images_are_read_again_is_kept(
    session: Session, clip: nshot.Embedder, drawings: Path, tmp_path: Path
) -> None:
    digest = digests_of(session, "circle")[0]
    session.close()
    here = threading.Event()

    def slowly() -> nshot.Embedder:
        here.wait(60)
        return clip

    again = Session(slowly, [str(drawings)], Journal(tmp_path / JOURNAL))
    again.start()
    again.say([{"id": "early", "digests": [digest], "now": {"label": "star"}}])
    with pytest.raises(RequestError):
        again.say([{"id": "no digest", "digests": ["../x"], "now": {"label": "star"}}])
    here.set()
    assert again.wait(60)
    assert again.said() == {again.row(digest): Word("label", "star")}
    with pytest.raises(RequestError):
        again.say([{"id": "late", "digests": ["00" * 32], "now": {"label": "star"}}])
    again.close()


def test_undo_and_redo_survive_a_restart_and_a_new_act_ends_redo(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    journal = Journal(path)
    journal.append([{"id": "1", "digests": ["aa", "bb"], "now": {"label": "cat"}}], by="ann")
    journal.append([{"id": "2", "digests": ["aa"], "now": {"answer": "none"}}], by="bob")
    journal.append([{"id": "3", "undo": "2"}], by="ann")
    assert journal.state.said == {"aa": Word("label", "cat"), "bb": Word("label", "cat")}
    journal.close()
    journal = Journal(path)
    journal.append([{"id": "4", "redo": "2"}], by="ann")
    assert journal.state.said["aa"] == Word("none")
    assert journal.state.entries[1].was == (Word("label", "cat"),)
    assert [entry.by for entry in journal.state.entries] == ["ann", "bob"]
    journal.append([{"id": "5", "undo": "2"}], by="ann")
    journal.append([{"id": "6", "digests": ["cc"], "now": {"answer": "skip"}}], by="ann")
    with pytest.raises(RequestError, match="cannot be redone"):
        journal.append([{"id": "7", "redo": "2"}], by="ann")
    with pytest.raises(RequestError, match="cannot be undone"):
        journal.append([{"id": "8", "undo": "2"}], by="ann")
    journal.close()


def test_the_same_act_sent_twice_is_one(tmp_path: Path) -> None:
    journal = Journal(tmp_path / JOURNAL)
    act = {"id": "1", "digests": ["aa"], "now": {"label": "cat"}}
    assert journal.append([act], by="ann") == journal.append([act, act], by="ann") == 1
    journal.close()


def test_a_torn_last_line_is_cut_off_and_damage_before_it_is_said(tmp_path: Path) -> None:
    path = tmp_path / JOURNAL
    journal = Journal(path)
    journal.append([{"id": "1", "digests": ["aa"], "now": {"label": "cat"}}], by="ann")
    journal.close()
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id": "2", "dig')
    journal = Journal(path)
    journal.append([{"id": "3", "digests": ["bb"], "now": {"label": "dog"}}], by="ann")
    journal.close()
    assert set(read_words(tmp_path).said) == {"aa", "bb"}
    path.write_bytes(b"nonsense\n" + whole)
    with pytest.raises(OutputError, match=r"line 1 .* is damaged"):
        Journal(path)


def test_a_full_disk_keeps_no_half_act(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal(tmp_path / JOURNAL)
    journal.append([{"id": "1", "digests": ["aa"], "now": {"label": "cat"}}], by="ann")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OutputError, match="No space left"):
            journal.append([{"id": "2", "digests": ["bb"], "now": {"label": "dog"}}], by="ann")
    assert set(journal.state.said) == {"aa"}
    journal.append([{"id": "2", "digests": ["bb"], "now": {"label": "dog"}}], by="ann")
    journal.close()
    assert set(read_words(tmp_path).said) == {"aa", "bb"}


@pytest.mark.parametrize("content", [b"my notes", b'{"nshot_journal": 1, "torn', b"\x1f\x8b\x08"])
def test_a_file_that_is_no_journal_is_refused_and_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    """One without a line's end was taken for a torn first line, and emptied."""
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    for opened in (Journal, read_words):
        with pytest.raises(OutputError, match=r"notes.txt is no journal of corrections"):
            opened(path)
    assert path.read_bytes() == content
    path.write_bytes(b'{"nshot_jour')  # torn by a kill
    Journal(path).close()
    assert path.read_bytes() == b'{"nshot_journal": 1}\n'


def test_an_act_that_half_fitted_on_the_disk_does_not_come_later(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    journal = Journal(tmp_path / JOURNAL)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, ((tmp_path / JOURNAL).stat().st_size + 40, before[1]))
    try:
        with pytest.raises(OutputError):
            journal.append([{"id": "1", "digests": ["aa"], "now": {"label": "cat"}}], by="ann")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    journal.append([{"id": "2", "digests": ["bb"], "now": {"label": "dog"}}], by="ann")
    journal.close()
    assert set(read_words(tmp_path).said) == {"bb"}


def test_a_second_server_on_the_same_journal_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("fcntl")
    monkeypatch.setattr("nshot.server.session.journal._PATIENCE", 0.1)
    journal = Journal(tmp_path / JOURNAL)
    with pytest.raises(OutputError, match="another nshot serve"):
        Journal(tmp_path / JOURNAL)
    journal.close()


def _keep_saying(path: str, first: int, told: str) -> None:
    journal = Journal(path)
    for number in range(first, 10**6):
        journal.append(
            [{"id": f"{number}", "digests": [f"{number:064x}"], "now": {"label": "cat"}}], by="ann"
        )
        with Path(told).open("a") as file:
            file.write(f"{number}\n")


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs SIGKILL")
def test_a_kill_loses_no_act_that_was_acknowledged(tmp_path: Path) -> None:
    path, told = tmp_path / JOURNAL, tmp_path / "told"
    told.touch()
    spawn = multiprocessing.get_context("spawn")
    for _ in range(3):
        first = len(told.read_text().split()) * 2  # ids that were never used
        seen = told.stat().st_size
        process = spawn.Process(target=_keep_saying, args=(str(path), first + 1, str(told)))
        process.start()
        while told.stat().st_size < seen + 60 and process.is_alive():
            time.sleep(0.002)
        process.kill()
        process.join()
    acknowledged = {f"{int(number):064x}" for number in told.read_text().split()}
    said = read_words(path).said
    assert len(acknowledged) > 30
    assert acknowledged <= set(said)


def test_learning_shows_what_would_change_and_changes_nothing_until_it_is_taken(session: Session) -> None:
    assert session.learn(ASKED) is None
    asked, before = session.ask(ASKED)
    for number, shape in enumerate(SHAPES):
        for digest in digests_of(session, f"-{shape}.jpg")[:4]:
            session.say([{"id": f"{digest[:8]}{number}", "digests": [digest], "now": {"label": shape}}])
    trees = digests_of(session, "-tree.jpg")[:5]
    session.say([{"id": "trees", "digests": trees, "now": {"answer": "none"}}])
    proposal = session.learn(ASKED)
    assert proposal is not None
    assert proposal.examples == 21
    said = session.said()
    assert all(row not in said for rows in proposal.moves.values() for row in rows.tolist())
    assert session.ask(ASKED)[1].label.tolist() == before.label.tolist()

    session.take(proposal.token, "take-1")
    taken, after = session.ask(ASKED)
    assert taken.learnt
    moved = sorted(row for rows in proposal.moves.values() for row in rows.tolist())
    changed = [row for row in np.flatnonzero(before.label != after.label).tolist() if row not in said]
    assert changed == moved
    session.say([{"id": "undo", "undo": "take-1"}])
    assert session.ask(ASKED)[1].label.tolist() == before.label.tolist()
    session.say([{"id": "redo", "redo": "take-1"}])
    assert session.ask(ASKED)[1].label.tolist() == after.label.tolist()
    assert asked.key != taken.key


def test_a_taken_classifier_answers_alike_on_the_command_line(session: Session, tmp_path: Path) -> None:
    for shape in SHAPES:
        for digest in digests_of(session, f"-{shape}.jpg")[:5]:
            session.say([{"id": digest[:8], "digests": [digest], "now": {"label": shape}}])
    proposal = session.learn(ASKED)
    assert proposal is not None
    session.take(proposal.token, "t")
    asked, answers = session.ask(ASKED)
    session.save(tmp_path / "shapes.nshot", asked, proposal)
    classifier = Classifier.open(tmp_path / "shapes.nshot")
    images = session.images.snapshot()
    records = classifier.predict(images.vectors[images.read])
    told = [None if k == NONE else SHAPES[k] for k in answers.label[images.read].tolist()]
    assert [record.label for record in records] == told


def test_what_is_said_in_an_audit_is_never_learnt_from_and_judges(session: Session) -> None:
    sample, total, found = session.audit(ASKED)
    assert (len(sample), total, found.asked) == (60, 60, 0)
    assert session.audit(ASKED)[0] == sample
    _, answers = session.ask(ASKED)
    right = 0
    for number, row in enumerate(sample[:20]):
        known = session.images.rows[row]
        shape = Path(known.name).stem.split("-")[1]
        now = {"label": shape} if shape in SHAPES else {"answer": "none"}
        session.say([{"id": f"a{number}", "digests": [known.digest], "now": now, "audit": True}])
        label = int(answers.label[row])
        right += (SHAPES[label] if label < len(SHAPES) else "tree") == shape
    found = session.audit(ASKED)[2]
    low, high = wilson(right, 20)
    assert (found.asked, found.right) == (20, right)
    assert (found.low, found.high) == pytest.approx((float(low), float(high)))
    assert session.learn(ASKED) is None  # every image is in the sample
    assert not session.next(ASKED)


def test_the_next_images_are_unsure_and_not_spoken_about(session: Session) -> None:
    spoken = digests_of(session, "-circle.jpg")
    session.say([{"id": "c", "digests": spoken, "now": {"label": "circle"}}])
    rows = session.next(ASKED)
    assert len(rows) == len(set(rows)) == 48
    assert not {session.images.rows[row].digest for row in rows} & set(spoken)


def test_search_finds_by_words_by_likeness_and_by_a_dropped_image(session: Session, drawings: Path) -> None:
    found = session.search("fish")
    names = [session.images.rows[row].name for row in found["rows"]]
    assert sum("fish" in name for name in names[:10]) >= 9
    assert found["fits"][0] > found["fits"][-1]
    [star] = digests_of(session, "001-star")
    like = session.search(like=[star])
    assert session.row(star) not in like["rows"]
    dropped = session.search(data=(drawings / "001-star.jpg").read_bytes())
    assert dropped["rows"][0] == session.row(star)
    with pytest.raises(RequestError, match="dropped image cannot be read"):
        session.search(data=b"no image")


def test_thumbnails_are_small_kept_and_without_metadata(
    session: Session, drawings: Path, tmp_path: Path
) -> None:
    [star] = digests_of(session, "001-star")
    webp = session.thumbnail(star)
    image = Image.open(io.BytesIO(webp))
    assert image.format == "WEBP"
    assert max(image.size) <= 256
    assert b"secret" not in webp
    assert b"secret" not in session.large(star)
    assert not image.getexif()
    assert Thumbnails(tmp_path / "t.sqlite").get(bytes.fromhex(star)) == webp
    with pytest.raises(RequestError, match="no image"):
        session.thumbnail("00" * 32)


def photograph(number: int, size: tuple[int, int] = (1200, 900)) -> bytes:
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
    held = io.BytesIO()
    coarse.resize(size, Image.Resampling.BICUBIC).save(held, "JPEG", quality=90)
    return held.getvalue()


def decodes_of(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by one number with each image that is decoded in this process."""
    decoded: list[int] = []
    own = decode.decode

    def counted(data: bytes, **settings: Any) -> decode.Decoded:
        decoded.append(len(data))
        return own(data, **settings)

    monkeypatch.setattr(prepare, "decode", counted)
    return decoded


def opened(clip: nshot.Embedder, source: Path, folder: Path) -> Session:
    session = Session(lambda: clip, [str(source)], Journal(folder / JOURNAL), thumbnails=folder / "t.sqlite")
    session.start()
    assert session.wait(60)
    assert session.state()["phase"] == "ready"
    return session


def test_a_photograph_is_decoded_once_for_its_vector_and_its_small_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(4):
        (photos / f"{number}.jpg").write_bytes(photograph(number))
    vectors = nshot.load("sketchbook").embed(photos).vectors
    decoded = decodes_of(monkeypatch)
    clip = nshot.load("sketchbook", store=tmp_path / "store.sqlite")
    session = opened(clip, photos, tmp_path)
    assert len(decoded) == 4
    small = [session.thumbnail(row.digest) for row in session.images.rows]
    assert len(decoded) == 4
    assert np.array_equal(session.images.snapshot().vectors, vectors)  # the square is what it is without
    for number, webp in enumerate(small):
        image = Image.open(io.BytesIO(webp))
        assert image.size == (256, 192)
        loaded = prepare.load(photograph(number), draft=2 * SIDE, side=SIDE).image
        alone = Image.open(io.BytesIO(render(loaded)))
        assert np.abs(np.asarray(image).astype(int) - np.asarray(alone)).mean() < 1.5
    session.close()
    decoded.clear()
    # with vectors from the store nothing is decoded at first, and what is kept is shown
    again = opened(clip, photos, tmp_path)
    assert [again.thumbnail(row.digest) for row in again.images.rows] == small
    assert not decoded
    again.close()
    (tmp_path / "t.sqlite").unlink()
    anew = opened(clip, photos, tmp_path)
    assert not decoded
    anew.thumbnail(anew.images.rows[0].digest)
    assert len(decoded) == 1
    anew.close()


def test_a_member_of_an_archive_has_a_small_image_though_it_cannot_be_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        for number in range(3):
            archive.writestr(f"{number}.jpg", photograph(10 + number, (120, 90)))
    clip = nshot.load("sketchbook", store=tmp_path / "store.sqlite")
    decoded = decodes_of(monkeypatch)
    first = opened(clip, tmp_path / "photos.zip", tmp_path)
    digests = [row.digest for row in first.images.rows]
    small = [first.thumbnail(each) for each in digests]
    assert len(decoded) == 3
    first.close()
    (tmp_path / "t.sqlite").unlink()
    second = opened(clip, tmp_path / "photos.zip", tmp_path)  # vectors from the store, small images anew
    assert [Image.open(io.BytesIO(second.thumbnail(each))).size for each in digests] == [(120, 90)] * 3
    assert len(decoded) == 6
    assert len(small) == 3
    second.close()


def test_small_images_that_cannot_be_kept_or_made_cost_no_vector(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    (photos / "a.jpg").write_bytes(photograph(20))
    clip = nshot.load("sketchbook")

    def broken(*_: object) -> bytes:
        raise OSError("encoder error -2")

    monkeypatch.setattr("nshot.server.session.files.render", broken)
    session = opened(clip, photos, tmp_path)
    assert session.state()["failed"] == 0
    session.close()
    monkeypatch.undo()
    monkeypatch.setattr(
        "nshot.server.session.thumbnails.ROOM", 0
    )  # the file is full: none but what is asked for
    session = opened(clip, photos, tmp_path)
    [row] = session.images.rows
    kept = Thumbnails(tmp_path / "t.sqlite")
    assert not kept.holds(bytes.fromhex(row.digest))
    assert session.thumbnail(row.digest)
    assert kept.holds(bytes.fromhex(row.digest))
    kept.close()
    session.close()


def test_a_file_that_changed_does_not_show_under_the_old_content(
    clip: nshot.Embedder, drawings: Path, tmp_path: Path
) -> None:
    file = tmp_path / "photos" / "a.jpg"
    file.parent.mkdir()
    file.write_bytes((drawings / "001-star.jpg").read_bytes())
    session = Session(lambda: clip, [str(file.parent)], Journal(tmp_path / JOURNAL))
    session.start()
    assert session.wait(60)
    digest = session.images.rows[0].digest
    file.write_bytes((drawings / "002-heart.jpg").read_bytes())
    with pytest.raises(ImageError, match="has changed"):
        session.thumbnail(digest)
    session.close()


def test_no_image_and_all_failed_are_said(clip: nshot.Embedder, tmp_path: Path) -> None:
    empty, failed = tmp_path / "empty", tmp_path / "failed"
    (empty / "below").mkdir(parents=True)
    (empty / "notes.txt").write_text("x")
    failed.mkdir()
    (failed / "a.jpg").write_bytes(b"\xff\xd8 torn")
    (failed / "b.jpg").write_bytes(b"\xff\xd8 torn too")
    for folder, phase in ((empty, "empty"), (failed, "failed")):
        session = Session(lambda: clip, [str(folder)], Journal(tmp_path / f"{phase}.jsonl"))
        session.start()
        assert session.wait(60)
        state = session.state()
        session.close()
        assert state["phase"] == phase
        if phase == "empty":
            assert state["looked"] == {"files": 1, "folders": 2, "kinds": [(".txt", 1)]}
        else:
            assert state["failures"][0]["files"] == 2


def test_a_model_that_cannot_be_loaded_is_said_and_not_waited_for(tmp_path: Path) -> None:
    def load() -> nshot.Embedder:
        raise nshot.NshotError("no such model")

    session = Session(load, [str(tmp_path)], Journal(tmp_path / JOURNAL))
    session.start()
    assert session.wait(10)
    assert (session.state()["phase"], session.state()["error"]) == ("error", "no such model")
    with pytest.raises(RequestError, match="no such model"):
        session.ask(ASKED)
    session.close()


def test_a_journal_is_lines_of_json_that_say_who_when_and_what_before(
    session: Session, tmp_path: Path
) -> None:
    [star] = digests_of(session, "001-star")
    session.say([{"id": "1", "digests": [star], "now": {"label": "star"}}])
    session.say([{"id": "2", "digests": [star], "now": None}])
    header, first, second = (json.loads(line) for line in (tmp_path / JOURNAL).read_text().splitlines())
    assert header == {"nshot_journal": 1}
    assert (first["by"], first["was"], first["digests"]) == ("ann", [None], [star])
    assert (second["now"], second["was"]) == (None, [{"label": "star"}])
    assert abs(second["at"] - time.time()) < 3600


def test_duplicates_are_found_in_kinds_and_put_aside_with_a_way_back(
    clip: nshot.Embedder, drawings: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for file in sorted(drawings.glob("0*.jpg"))[:12]:
        (photos / file.name).write_bytes(file.read_bytes())
    (photos / "copy-of-3.jpg").write_bytes((photos / "003-fish.jpg").read_bytes())
    Image.open(photos / "004-tree.jpg").resize((72, 72)).save(photos / "smaller.jpg", quality=70)
    session = Session(lambda: clip, [str(photos)], Journal(tmp_path / JOURNAL))
    session.start()
    assert session.wait(60)
    found = session.duplicates()
    assert session.duplicates() is found
    kinds = {group["kind"]: [Path(name).name for name in group["files"]] for group in found["groups"]}
    assert sorted(kinds["same"]) == ["003-fish.jpg", "copy-of-3.jpg"]
    assert kinds["copy"] == ["004-tree.jpg", "smaller.jpg"]
    plan = taking_away.put_aside(tmp_path / "trash", [(str(photos / "smaller.jpg"), "copy")])
    assert (photos / "smaller.jpg").exists()
    assert plan.carry_out() == 1
    assert not (photos / "smaller.jpg").exists()
    assert taking_away.take_back(tmp_path / "trash") == 1
    assert (photos / "smaller.jpg").exists()
    session.close()


def test_a_score_is_a_probability_only_with_a_calibrated_classifier_and_until_another_is_taken(
    clip: nshot.Embedder, drawings: Path, tmp_path: Path
) -> None:
    words = nshot.zero_shot(clip, SHAPES, ["a drawing of a {}"])
    saved = words.with_decision(Decision(calibration=Calibration(0.5)))
    session = Session(lambda: clip, [str(drawings)], Journal(tmp_path / JOURNAL), saved=saved)
    session.start()
    assert session.wait(60)
    asked, answers = session.ask(ASKED)
    assert asked.calibrated
    images = session.images.snapshot()
    told = np.array([record.score for record in saved.predict(images.vectors[images.read])])
    assert np.abs(answers.score[images.read] - told).max() < 1e-4
    assert not session.ask(Question.of([*SHAPES, "house"], templates=ASKED.templates))[0].calibrated
    for shape in SHAPES[:3]:
        for digest in digests_of(session, f"-{shape}.jpg")[:3]:
            session.say([{"id": digest[:8], "digests": [digest], "now": {"label": shape}}])
    proposal = session.learn(ASKED)
    assert proposal is not None
    session.take(proposal.token, "t")
    assert not session.ask(ASKED)[0].calibrated
    session.close()


SHAPE = Question.of(["circle", "star"], templates=("a drawing of a {}",), facet="shape")
COLOUR = Question.of(["red", "blue"], templates=("a {} drawing",), facet="colour")


def test_what_is_said_of_one_facet_is_not_said_of_another(session: Session) -> None:
    first, second, *_ = digests_of(session, "circle")
    session.say([{"id": "a", "digests": [first], "now": {"label": "star"}, "facet": "shape"}])
    session.say([{"id": "b", "digests": [first, second], "now": {"label": "blue"}, "facet": "colour"}])
    session.say([{"id": "c", "digests": [first], "now": {"label": "red"}, "facet": "colour"}])
    row = session.row(first)
    assert session.said("shape") == {row: Word("label", "star")}
    assert session.said("colour") == {row: Word("label", "red"), session.row(second): Word("label", "blue")}
    assert session.said() == {}
    assert session.journal.lines[-1]["was"] == [{"label": "blue"}]
    session.say([{"id": "d", "undo": "c"}])
    assert session.said("colour")[row] == Word("label", "blue")
    assert session.said("shape")[row] == Word("label", "star")
    with pytest.raises(RequestError, match="a facet's name"):
        session.say([{"id": "e", "digests": [first], "now": None, "facet": ""}])


def test_a_facet_learns_from_its_own_words_and_is_taken_alone(session: Session, clip: nshot.Embedder) -> None:
    for number, part in enumerate(("circle", "star")):
        acts = {"digests": digests_of(session, part)[:4], "now": {"label": part}, "facet": "shape"}
        session.say([{"id": f"s{number}", **acts}])
    assert session.learn(COLOUR) is None
    proposal = session.learn(SHAPE)
    assert proposal is not None
    session.take(proposal.token, "taken")
    assert list(session.state()["taken"]) == ["shape"]
    assert session.ask(SHAPE)[0].learnt
    assert not session.ask(COLOUR)[0].learnt
    facets = nshot.Facets({"shape": session.learnt(SHAPE), "colour": session.learnt(COLOUR)})
    records = {record.source: record for record in session.faceted(facets)}
    put_right = [r for r in records.values() if isinstance(r, nshot.Faceted) and r.notes]
    assert len(put_right) == 9  # eight images, one of which is there twice
    assert all("shape: corrected: a person said so" in record.notes for record in put_right)
    assert len(list(session.faceted(facets, only=True))) == 9
    session.say([{"id": "undone", "undo": "taken"}])
    assert session.state()["taken"] == {}
