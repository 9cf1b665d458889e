"""What the page's export panel says on the command line exists there, and does the same."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

import pytest

import nshot
from nshot import sketchbook
from nshot.classifier.tree import TreeClassifier
from nshot.cli import run
from nshot.labels.tree import read_tree
from nshot.server.session import JOURNAL, Journal, Question, Session, corrected, read_words, taking_away
from nshot.types import CORRECTED

LABELS = "circle, star"
ASKED = Question.of(["circle", "star"], templates=("a drawing of a {}",))
ASK = ["--labels", LABELS, "--template", "a drawing of a {}", "--model", "sketchbook", "--no-store", "-q"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(16):
        pairs = [pair for pair in sketchbook.PAIRS if pair[1] == ("circle", "star")[number % 2]]
        scene = sketchbook.sample(7_100_000 + number, pairs=pairs, several=0)
        sketchbook.draw(scene, 96).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def session(photos: Path) -> Session:
    """A session in which some images were corrected; closed, so that commands may look at its journal."""
    clip = nshot.load("sketchbook")
    made = Session(lambda: clip, [str(photos)], Journal(photos / JOURNAL))
    made.start()
    assert made.wait(60)
    rows = made.images.rows
    made.say([{"id": "1", "digests": [rows[0].digest], "now": {"label": "moon"}}])
    made.say([{"id": "2", "digests": [rows[1].digest], "now": {"answer": "none"}}])
    made.say([{"id": "3", "digests": [rows[2].digest], "now": {"answer": "skip"}}])
    made.say([{"id": "4", "digests": [r.digest for r in rows[4:10:2]], "now": {"label": "circle"}}])
    made.say([{"id": "5", "digests": [r.digest for r in rows[5:11:2]], "now": {"label": "star"}}])
    made.close()
    return made


@pytest.mark.parametrize("format", ["csv", "jsonl", "coco", "labelstudio"])
def test_a_file_of_answers_is_the_one_that_classify_writes(
    session: Session, photos: Path, tmp_path: Path, format: str
) -> None:
    out = tmp_path / f"answers.{format}"
    extra = ["--reject", "background", "--journal", str(photos), "--format", format, "-o", str(out)]
    assert run(["classify", str(photos), *ASK, *extra]) == 0
    classifier = session.classifier(ASKED)
    data, _, _ = taking_away.as_file(format, classifier, session.records(classifier))
    if format in ("coco", "labelstudio"):
        assert json.loads(data) == json.loads(out.read_bytes())
    elif format == "jsonl":
        mine, theirs = ([json.loads(line) for line in text.splitlines()] for text in (data, out.read_bytes()))
        assert mine == [{name: each[name] for name in each if name != "run"} for each in theirs]
    else:
        mine, theirs = (list(csv.DictReader(text.decode().splitlines())) for text in (data, out.read_bytes()))
        assert mine == [{name: each[name] for name in each if name != "run"} for each in theirs]


def test_corrected_answers_say_so_and_the_rest_is_left_out_where_asked(
    session: Session, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "answers.jsonl"
    extra = ["--journal", str(photos), "--corrected", "-o", str(out)]
    assert run(["classify", str(photos), *ASK, *extra]) == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(records) == 8
    assert [(each["label"], each["answer"]) for each in records[:2]] == [("moon", "label"), (None, "none")]
    assert all(CORRECTED in each["notes"] for each in records)


def test_coco_and_label_studio_tell_what_a_person_said_from_what_the_model_says(
    session: Session, tmp_path: Path
) -> None:
    classifier = session.classifier(ASKED)
    coco = json.loads(taking_away.as_file("coco", classifier, session.records(classifier))[0])
    assert [each["name"] for each in coco["categories"]] == ["circle", "star", "moon"]
    assert coco["images"][0]["width"] == 96
    first = coco["annotations"][0]
    assert (first["category_id"], "score" in first, first["bbox"]) == (3, False, [0, 0, 96, 96])
    tasks = json.loads(taking_away.as_file("labelstudio", classifier, session.records(classifier))[0])
    assert tasks[0]["annotations"][0]["result"][0]["value"]["choices"] == ["moon"]
    assert tasks[1]["annotations"][0]["result"] == []
    assert tasks[12]["predictions"][0]["result"][0]["value"]["choices"] == ["circle"]


def test_fit_from_a_journal_makes_the_page_s_classifier(
    session: Session, photos: Path, tmp_path: Path
) -> None:
    proposal = session.learn(ASKED)
    assert proposal is not None
    session.save(tmp_path / "page.nshot", proposal.asked, proposal)
    assert run(["fit", "--journal", str(photos), str(photos), *ASK, "-o", str(tmp_path / "cli.nshot")]) == 0
    page, cli = (nshot.Classifier.open(tmp_path / f"{name}.nshot") for name in ("page", "cli"))
    images = session.images.snapshot().vectors
    told = [[record.label for record in each.predict(images)] for each in (page, cli)]
    assert told[0] == told[1]
    assert page.examples == cli.examples
    assert len(page.examples) == 7


def test_sort_takes_the_corrections_and_can_be_undone(session: Session, photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "sorted"
    extra = ["--journal", str(photos), "--copy"]
    assert run(["sort", str(photos), str(target), *ASK, *extra]) == 0
    assert (target / "moon" / "00.png").is_file()
    assert (target / "unsure" / "01.png").is_file()
    classifier = session.classifier(ASKED)
    plan = taking_away.sort(tmp_path / "other", classifier, session.records(classifier))
    assert {str(move.target) for move in plan.moves} == {
        str(path.relative_to(target)) for path in target.rglob("*.png")
    }
    assert plan.carry_out() == 16
    assert taking_away.take_back(tmp_path / "other") == 16
    assert len(list(photos.glob("*.png"))) == 16


def test_a_word_on_a_failure_changes_nothing(session: Session) -> None:
    failure = nshot.Failure("a.jpg", "UnreadableImage", "no such file")
    assert corrected(failure, next(iter(read_words(session.journal.path).said.values()))) is failure


def test_without_a_journal_it_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").touch()
    assert run(["classify", str(tmp_path), *ASK, "--journal", str(tmp_path)]) == 2
    assert "there is no journal" in capsys.readouterr().err
    assert run(["classify", str(tmp_path), *ASK, "--corrected"]) == 2
    assert "needs --journal" in capsys.readouterr().err


def test_serving_without_the_extra_names_it() -> None:
    code = "import sys; sys.modules['starlette'] = None; from nshot.cli import run; exit(run(['serve', '.']))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert 'pip install "nshot[serve]"' in done.stderr


@pytest.mark.parametrize(
    ("content", "says"), [(None, "there is no image in"), (b"\xff\xd8 torn", "none of the 1 images in")]
)
def test_a_folder_without_an_image_is_said_in_the_terminal_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None, says: str
) -> None:
    from nshot.cli.serve import _tell

    if content is not None:
        (tmp_path / "a.jpg").write_bytes(content)
    clip = nshot.load("sketchbook")
    session = Session(lambda: clip, [str(tmp_path)], Journal(tmp_path / JOURNAL))
    session.start()
    _tell(session)
    session.close()
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "says"),
    [
        (["--label-vectors", "v.npz"], "the page asks with words"),
        (["--labels", "a, b", "--facets", "weather"], "one of them"),
        (["--facets", "wether"], "no ready facet 'wether'"),
        (["--tree", "animals.json"], "a list of labels, not a tree"),
        (["--facets", "weather", "--multi"], "for itself whether it is"),
    ],
)
def test_what_the_page_cannot_ask_is_refused_before_anything_is_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], extra: list[str], says: str
) -> None:
    assert run(["serve", str(tmp_path), "--no-open", "--port", "0", *extra]) == 2
    assert says in capsys.readouterr().err


def test_classifiers_that_the_page_does_not_know_are_refused(
    session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = tmp_path / "shapes.json"
    tree.write_text(json.dumps({"round": {"circle": {}}, "pointed": {"star": {}}}))
    made = tmp_path / "tree.nshot"
    TreeClassifier.zero_shot(nshot.load("sketchbook"), read_tree(tree)).save(made)
    assert run(["serve", str(tmp_path), "--no-open", "--port", "0", "--classifier", str(made)]) == 2
    assert "holds a tree of labels" in capsys.readouterr().err
    alone = tmp_path / "alone.nshot"
    session.classifier(ASKED).save(alone)
    extra = ["--classifier", str(alone), "--multi"]
    assert run(["serve", str(tmp_path), "--no-open", "--port", "0", *extra]) == 2
    assert "one label per image" in capsys.readouterr().err


def test_a_port_that_is_taken_is_said(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("uvicorn")
    from nshot.server.run import listen

    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert (
            run(["serve", str(photos), "--port", str(port), "--no-open", "-q", "--model", "sketchbook"]) == 2
        )
    assert "name another port" in capsys.readouterr().err


def test_images_that_are_not_there_and_a_journal_that_cannot_be_are_said_before_anything_is_served(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("uvicorn")
    assert run(["serve", str(tmp_path / "nothing"), "--no-open", "-q"]) == 2
    assert "no such file" in capsys.readouterr().err
    (tmp_path / "photos").mkdir()
    asked = [
        "serve",
        str(tmp_path / "photos"),
        "--journal",
        str(tmp_path / "no" / "journal"),
        "--no-open",
        "-q",
    ]
    assert run(asked) == 2
    assert "name another file with --journal" in capsys.readouterr().err


FACETS = {"labels": ["circle", "star"], "colour": {"labels": ["red", "blue"], "templates": ["a {} drawing"]}}
SHAPES = Question.of(["circle", "star"], templates=("a drawing of a {}",))
COLOURS = Question.of(["red", "blue"], templates=("a {} drawing",), facet="colour")


@pytest.fixture
def several(session: Session, photos: Path, tmp_path: Path) -> list[str]:
    """What asks two facets on the command line; the journal holds words on both."""
    again = Session(lambda: nshot.load("sketchbook"), [str(photos)], Journal(photos / JOURNAL))
    again.start()
    again.wait(60)
    for number, label in enumerate(("red", "blue")):
        digests = [row.digest for row in again.images.rows[number:8:2]]
        again.say([{"id": f"c{number}", "digests": digests, "now": {"label": label}, "facet": "colour"}])
    again.close()
    session.journal = again.journal
    (tmp_path / "facets.json").write_text(json.dumps(FACETS))
    facets = ["--facets", str(tmp_path / "facets.json"), "--template", "a drawing of a {}"]
    return [*facets, "--journal", str(photos), "--model", "sketchbook", "--no-store", "-q"]


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_a_file_of_facets_is_the_one_that_classify_writes(
    several: list[str], session: Session, photos: Path, tmp_path: Path, format: str
) -> None:
    if format == "parquet":
        pytest.importorskip("pyarrow")
    out = tmp_path / f"answers.{format}"
    assert run(["classify", str(photos), *several, "--reject", "background", "-o", str(out)]) == 0
    asked = {each.facet: session.classifier(each) for each in (SHAPES, COLOURS)}
    facets = taking_away.open_decisions(nshot.Facets(asked))
    data, _, _ = taking_away.as_file(format, facets, session.faceted(facets))
    assert out.stat().st_size > 100
    if format == "jsonl":
        ours, theirs = ([json.loads(x) for x in each.splitlines()] for each in (data, out.read_bytes()))
        assert [{k: v for k, v in each.items() if k != "run"} for each in theirs] == ours
        assert ours[0]["facets"]["labels"]["labels"] == ["moon"]
        assert ours[0]["facets"]["colour"]["labels"] == ["red"]
        assert ours[0]["notes"] == [f"{name}: corrected: a person said so" for name in FACETS]
    elif format == "csv":
        ours, theirs = (list(csv.DictReader(each.decode().splitlines())) for each in (data, out.read_bytes()))
        assert [each | {"run": ""} for each in ours] == [each | {"run": ""} for each in theirs]
    tasks = json.loads(taking_away.as_file("labelstudio", facets, session.faceted(facets))[0])
    said = {each["from_name"]: each["value"]["choices"] for each in tasks[0]["annotations"][0]["result"]}
    assert said == {"labels": ["moon"], "colour": ["red"]}
    coco = json.loads(taking_away.as_file("coco", facets, session.faceted(facets))[0])
    assert {each["supercategory"] for each in coco["categories"]} == {"labels", "colour"}


def test_fit_from_a_journal_makes_the_page_s_facets(
    several: list[str], session: Session, photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "cli.nshot"
    assert run(["fit", str(photos), *several, "-o", str(out)]) == 0
    made = nshot.Facets.open(out)
    images = session.images.snapshot().vectors
    for question in (SHAPES, COLOURS):
        page = session.learnt(question)
        told = [[record.label for record in each.predict(images)] for each in (page, made[question.facet])]
        assert told[0] == told[1]
        assert page.examples == made[question.facet].examples


def test_sort_by_one_facet_takes_that_facet_s_corrections(
    several: list[str], photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = [
        "--labels",
        "red, blue",
        "--template",
        "a {} drawing",
        "--model",
        "sketchbook",
        "--no-store",
        "-q",
    ]
    extra = ["--journal", str(photos), "--facet", "colour", "--corrected", "--copy"]
    assert run(["sort", str(photos), str(tmp_path / "sorted"), *asked, *extra]) == 0
    assert {path.name for path in (tmp_path / "sorted" / "red").iterdir()} == {
        f"{k:02}.png" for k in range(0, 8, 2)
    }
    assert not (tmp_path / "sorted" / "moon").exists()
    for command in (
        ["sort", str(photos), str(tmp_path / "x")],
        ["tag", str(photos)],
        ["classify", str(photos)],
    ):
        assert run([*command, *asked, "--facet", "colour"]) == 2
        assert "--facet needs --journal" in capsys.readouterr().err
