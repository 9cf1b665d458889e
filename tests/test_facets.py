"""Facets: several questions about each image at once, each answered as if it were asked alone."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commands import Cli
from recorded import SETS

import nshot
from nshot.classifier.facets import Facets
from nshot.classifier.several import several_zero_shot
from nshot.decision.calibration import Calibration
from nshot.errors import LabelError, RequestError, TemplateError
from nshot.labels.facets import read_facets, ready_facets
from nshot.sketchbook import COLOURS, SEEN_STYLES, SHAPES, Scene, draw, sample
from nshot.sketchbook.words import BACKGROUNDS, TEXTURES

ASKED = {
    "shape": list(SHAPES),
    "colour": {"labels": list(COLOURS), "templates": ["a {} thing", "a {} shape"]},
    "texture": {"labels": list(TEXTURES), "templates": ["a {} shape"]},
    "style": {"labels": list(SEEN_STYLES), "templates": ["a {} drawing"]},
    "background": {"labels": list(BACKGROUNDS), "templates": ["a shape on a {} background"]},
}


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of drawings with a column per facet, and the facets' file beside it."""
    folder = tmp_path_factory.mktemp("drawings")
    with (folder / "table.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["image", *ASKED])
        for number in range(36):
            scene = sample(9_200_000_000_000 + number, several=0)
            thing = scene.things[0]
            draw(scene).save(folder / f"{number}.png")
            own = (thing.shape, thing.colour, thing.texture, scene.style, scene.background)
            rows.writerow([f"{number}.png", *own])
    (folder / "facets.json").write_text(json.dumps(ASKED))
    return folder


@pytest.fixture(scope="module")
def clip() -> nshot.Model:
    return nshot.load("sketchbook", precision="f32")


def test_five_facets_of_drawings_are_each_answered_exactly_as_if_asked_alone(
    drawings: Path, clip: nshot.Model, tmp_path: Path
) -> None:
    facets = nshot.Facets.zero_shot(clip, read_facets(drawings / "facets.json"))
    images = clip.embed(sorted(map(str, drawings.glob("*.png"))))
    together = facets.predict(images)
    facets.save(tmp_path / "five.nshot")
    again = nshot.open(tmp_path / "five.nshot")
    assert isinstance(again, Facets)
    assert list(again) == list(ASKED)
    assert again.predict(images) == together
    for name, classifier in facets.items():
        alone = list(classifier.predict(images))
        for record, answer in zip(together, alone, strict=True):
            assert isinstance(record, nshot.Faceted)
            assert record.facets[name] == answer
            told = {key: value for key, value in answer.to_dict().items() if key != "source"}
            assert record.to_dict()["facets"][name] == told


@pytest.mark.skipif(not SETS.is_dir(), reason="the recorded vectors are not on this machine")
@pytest.mark.parametrize(
    ("file", "columns"),
    [("products_vitb32.npz", ("labels", "subcategory")), ("fashion_marqo.npz", ("labels", "base_colour"))],
)
def test_two_facets_of_recorded_vectors_are_as_asked_alone_bit_for_bit(
    file: str, columns: tuple[str, str]
) -> None:
    with np.load(SETS / file) as data:
        vectors = data["image_embeds"].astype(np.float32)
        made = {}
        for column in columns:
            names, places = np.unique(data[column].astype(str), return_inverse=True)
            rows = [vectors[places == k].mean(axis=0) for k in range(len(names))]
            made[column] = nshot.Classifier(names.tolist(), rows, scale=100.0)
    together = Facets(made).predict(nshot.Embeddings.of(vectors))
    for column, classifier in made.items():
        alone = classifier.predict(nshot.Embeddings.of(vectors))
        assert [record.facets[column] for record in together if isinstance(record, nshot.Faceted)] == alone


def test_each_facet_keeps_its_own_decision_and_calibration_in_the_file(
    drawings: Path, clip: nshot.Model, tmp_path: Path
) -> None:
    facets = Facets.zero_shot(clip, {"shape": list(SHAPES), "colour": list(COLOURS)})
    images = clip.embed(sorted(map(str, drawings.glob("*.png"))))
    decided = facets["shape"].with_decision(nshot.Decision(calibration=Calibration(2.0)))
    Facets({**facets, "shape": decided}).save(tmp_path / "two.nshot")
    record = Facets.open(tmp_path / "two.nshot").predict(images)[0].to_dict()["facets"]
    assert "probability" in record["shape"]
    assert "score" in record["colour"]


def test_a_file_of_facets_is_refused_by_name_where_one_classifier_is_wanted(tmp_path: Path) -> None:
    Facets({"a": nshot.Classifier(["x", "y"], np.eye(2), scale=1.0)}).save(tmp_path / "f.nshot")
    with pytest.raises(RequestError, match="several facets"):
        nshot.Classifier.open(tmp_path / "f.nshot")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[]", "no facets"),
        ("{", "facets.json"),
        ('{"place": "park"}', "'place'.*must be a list"),
        ('{"place": ["park"]}', "'place'.*has one label"),
        ('{"place": ["park", "park"]}', "'place'.*given twice"),
        ('{"place": {"labels": ["park", "sea"], "template": "a {}"}}', "'template'"),
        ('{"place": {"labels": ["park", "sea"], "templates": ["a"]}}', "'place'.*no {}"),
        ('{"place": ["park", "sea"], "place": ["a", "b"]}', "given twice: 'place'"),
        ('{"source": ["park", "sea"]}', "cannot be called 'source'"),
        ('{"p": {"labels": ["a", "b"], "activation": "relu"}}', "facets.json: facet 'p': 'activation' is"),
        (
            '{"p": {"labels": ["a", "b"], "multi": true, "activation": "softmax"}}',
            "'p'.*leave out 'activation'",
        ),
        ('{"p": {"labels": ["a", "b"], "none": "nearest"}}', "'p': there is no rule 'nearest' of 'none'"),
        ('{"p": {"labels": ["a", "b"], "none": "cosine"}}', "'p'.*'cosine' of 'none' needs a 'threshold'"),
        ('{"p": {"labels": ["a", "b"], "none": {"rule": "cosine", "threshold": NaN}}}', "'p'.*is a number"),
        ('{"p": {"labels": ["a", "b"], "none": {"rule": "off", "threshold": 1}}}', "'p': 'none' is off"),
        ('{"p": {"labels": ["a", "b"], "none": {"words": ["x"]}}}', "'p': 'none' has 'words'"),
        ('{"p": {"labels": ["a", "b"], "none": {"background": ["x", "x"]}}}', "'p'.*given twice"),
        (
            '{"p": {"labels": ["a", "b"], "none": {"rule": "energy", "threshold": 1, "background": ["x"]}}}',
            "'p': the rule 'energy' has no 'background'",
        ),
        ('{"p": {"labels": ["a", "b"], "multi": true, "none": true}}', "'p'.*decided by itself"),
        ('{"p": {"labels": ["a"], "multi": true, "none": {"threshold": 2}}}', "'p'.*between 0 and 1"),
        ('{"p": {"labels": ["a", "b"], "calibrate": {"coverage": 90}}}', "'p': 'coverage' of 'calibrate'"),
        ('{"p": {"labels": ["a", "b"], "calibrate": {"reject": "off", "wrong": 0.1}}}', "'p': 'wrong'"),
        ('{"p": {"labels": ["a", "b"], "multi": true, "calibrate": {"wrong": 0.1}}}', "'p'.*'calibrate'"),
    ],
)
def test_a_facets_file_that_asks_nothing_is_refused_by_the_facets_name(
    text: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / "facets.json").write_text(text)
    with pytest.raises((LabelError, TemplateError), match=told):
        read_facets(tmp_path / "facets.json")


def test_a_facet_is_asked_as_its_file_says_and_as_the_same_question_alone(
    drawings: Path, cli: Cli, clip: nshot.Model
) -> None:
    """Each facet's own templates, activation and rule of "none of these": the answers of five commands."""
    labels = list(SHAPES)
    things, scene = {"labels": labels, "templates": ["a {} shape"]}, list(BACKGROUNDS)
    asked = {
        "plain": things,
        "each": things | {"activation": "sigmoid"},
        "usual": things | {"none": True},
        "words": things | {"none": {"background": ["a blank page", "noise"], "threshold": 0.2}},
        "cosine": things | {"none": {"rule": "cosine", "threshold": 0.59}},
        "off": {"labels": scene, "none": False},
    }
    (drawings / "own.json").write_text(json.dumps(asked))
    ask = ["classify", "table.csv", "--model", "sketchbook", "-q", "--format", "jsonl"]
    found = cli(*ask, "--facets", "own.json", "--reject", "cosine", "--threshold", "2", cwd=drawings)
    assert found.code == 0, found.err
    together = [json.loads(line)["facets"] for line in found.out.splitlines()]
    alone = ["--template", "a {} shape", "--labels", ", ".join(labels)]
    words = ["--reject", "background", "--background", "a blank page, noise", "--threshold", "0.2"]
    ways = {
        "plain": [*alone, "--reject", "cosine", "--threshold", "2"],  # the command line's, having none itself
        "usual": [*alone, "--reject", "background"],
        "words": [*alone, *words],
        "cosine": [*alone, "--reject", "cosine", "--threshold", "0.59"],
        "off": ["--labels", ", ".join(scene)],
    }
    for name, way in ways.items():
        lines = cli(*ask, *way, cwd=drawings).out.splitlines()
        assert len(lines) == len(together) == 36
        for line, record in zip(lines, together, strict=True):
            single = json.loads(line)
            assert record[name] == {key: single[key] for key in record[name]}, name
    answers = {name: {each[name].get("answer") for each in together} for name in asked}
    assert answers["plain"] == {"none"}
    assert answers["off"] == {None}
    assert answers["cosine"] == {"none", "label"}
    sums = [sum(p["score"] for p in each["each"]["predictions"]) for each in together]
    assert max(sums) > 1.5  # each label has a score of its own
    made = Facets.zero_shot(clip, read_facets(drawings / "own.json"))
    made.save(drawings / "own.nshot")
    saved = cli(*ask, "--classifier", "own.nshot", "--precision", "f32", cwd=drawings)
    again = [json.loads(line)["facets"] for line in saved.out.splitlines()]
    assert [each["words"]["answer"] for each in again] == [each["words"]["answer"] for each in together]


def test_each_facet_is_calibrated_as_it_asks_and_keeps_that_through_learning(
    drawings: Path, cli: Cli
) -> None:
    things = {"labels": list(SHAPES), "templates": ["a {} shape"]}
    asked = {
        "shape": things | {"calibrate": {"coverage": 0.8, "reject": "cosine", "wrong": 0.3}},
        "style": {"labels": list(SEEN_STYLES), "activation": "sigmoid", "none": False},
        "colour": ASKED["colour"],
    }
    (drawings / "calibrated.json").write_text(json.dumps(asked))
    ask = ["table.csv", "--model", "sketchbook"]
    calibrate = ["calibrate", *ask, "--coverage", "0.7", "--wrong", "0.4", "--reject", "margin"]
    fitted = cli("fit", *ask, "--facets", "calibrated.json", "-o", "fitted.nshot", cwd=drawings)
    assert fitted.code == 0, fitted.err
    for given, file in (
        (("--facets", "calibrated.json"), "zero.nshot"),
        (("--classifier", "fitted.nshot"), "f"),
    ):
        done = cli(*calibrate, *given, "-o", file, cwd=drawings)
        assert done.code == 0, done.err
        made = Facets.open(drawings / file)
        rules = {name: each.decision and each.decision.rejection for name, each in made.items()}
        told = {name: rule and rule.rule for name, rule in rules.items()}
        assert told == {"shape": "cosine", "style": None, "colour": "margin"}
        assert {name: each.decision and each.decision.coverage for name, each in made.items()} == {
            "shape": 0.8, "style": 0.7, "colour": 0.7,
        }  # fmt: skip
        assert made["style"].activation == "sigmoid"
        assert made["shape"].activation == "softmax"


def test_a_rule_that_no_facet_takes_is_refused(drawings: Path, cli: Cli) -> None:
    (drawings / "off.json").write_text(json.dumps({"shape": {"labels": list(SHAPES), "none": False}}))
    ask = ["classify", "table.csv", "--model", "sketchbook", "--facets"]
    found = cli(*ask, "off.json", "--reject", "background", cwd=drawings)
    assert found.code == 2
    assert "leave out --reject" in found.err
    both = {"shape": {"labels": list(SHAPES), "none": False}, "colour": list(COLOURS)}
    (drawings / "some.json").write_text(json.dumps(both))
    found = cli(*ask, "some.json", "--reject", "background", cwd=drawings)
    assert found.code == 0, found.err
    assert 'with a rule of their own for "none of these": shape' in found.err


def test_facets_of_two_models_are_refused() -> None:
    one = nshot.Classifier(["x", "y"], np.eye(2), scale=1.0, space="a")
    other = nshot.Classifier(["x", "y"], np.eye(2), scale=1.0, space="b")
    with pytest.raises(RequestError, match="different models"):
        Facets({"one": one, "other": other})


def test_the_ready_facets_can_all_be_asked(clip: nshot.Model) -> None:
    assert list(ready_facets()) == [
        "time of day", "weather", "indoor or outdoor", "season", "shot size", "medium",
        "shape", "colour", "texture", "drawing style", "background",
    ]  # fmt: skip
    assert len(Facets.zero_shot(clip, ready_facets())) == 11


def test_the_ready_facets_of_drawings_are_as_right_as_they_say(
    clip: nshot.Model, cli: Cli, drawings: Path
) -> None:
    truths: dict[str, Callable[[Scene], str]] = {
        "shape": lambda scene: scene.things[0].shape,
        "colour": lambda scene: scene.things[0].colour,
        "texture": lambda scene: scene.things[0].texture,
        "drawing style": lambda scene: scene.style,
        "background": lambda scene: scene.background,
    }
    scenes = [sample(9_400_000_000_000 + number, several=0) for number in range(200)]
    images = clip.embed([draw(scene) for scene in scenes])
    told = Facets.zero_shot(clip, {name: ready_facets()[name] for name in truths}).predict(images)
    for name, truth in truths.items():
        said = float(ready_facets()[name].measured.split(" %")[0]) / 100
        answers = [each.facets[name].label for each in told if isinstance(each, nshot.Faceted)]
        right = np.mean([a == truth(scene) for a, scene in zip(answers, scenes, strict=True)])
        assert right == pytest.approx(said, abs=0.08)
    found = cli("classify", "table.csv", "--facets", "shape, season", "--model", "sketchbook", cwd=drawings)
    assert "shape: 99.1 % right" in found.err
    assert "season: how well this is answered has not been measured" in found.err


def test_classify_writes_an_answer_per_facet_in_every_format(drawings: Path, cli: Cli) -> None:
    import pyarrow.parquet

    ask = ["classify", "table.csv", "--facets", "facets.json", "--model", "sketchbook", "-q"]
    for name in ("o.jsonl", "o.json", "o.csv", "o.parquet", "o.txt"):
        assert cli(*ask, "-o", name, cwd=drawings).code == 0
    lines = [json.loads(line) for line in (drawings / "o.jsonl").read_text().splitlines()]
    document = json.loads((drawings / "o.json").read_text())
    table = list(csv.DictReader((drawings / "o.csv").read_text().splitlines()))
    rows = pyarrow.parquet.read_table(drawings / "o.parquet").to_pylist()
    assert document == lines
    for line, cells, row in zip(lines, table, rows, strict=True):
        assert list(line["facets"]) == list(ASKED)
        for name, answer in line["facets"].items():
            assert cells[name] == row[name] == answer["label"]
            assert float(cells[f"{name}_score"]) == row[f"{name}_score"] == answer["score"]
        assert json.loads(row["facets"]) == line["facets"]
    assert "colour: " in (drawings / "o.txt").read_text()
    for name in ("o.jsonl", "o.json", "o.csv", "o.parquet"):
        before = (drawings / name).read_bytes()
        assert cli(*ask, "-o", name, "--resume", cwd=drawings).code == 0
        assert (drawings / name).read_bytes() == before


def test_facets_are_written_as_coco_and_label_studio(drawings: Path, cli: Cli) -> None:
    ask = ["classify", "table.csv", "--facets", "facets.json", "--model", "sketchbook", "-q"]
    for name in ("coco", "labelstudio", "jsonl"):
        assert cli(*ask, "--format", name, "-o", f"o.{name}.json", cwd=drawings).code == 0
    lines = [json.loads(line) for line in (drawings / "o.jsonl.json").read_text().splitlines()]
    coco = json.loads((drawings / "o.coco.json").read_text())
    categories = {each["id"]: (each["supercategory"], each["name"]) for each in coco["categories"]}
    assert len(categories) == sum(
        len(each["labels"]) if isinstance(each, dict) else len(each) for each in ASKED.values()
    )
    for number, line in enumerate(lines, 1):
        told = {categories[a["category_id"]] for a in coco["annotations"] if a["image_id"] == number}
        assert told == {(name, answer["label"]) for name, answer in line["facets"].items()}
    for task, line in zip(json.loads((drawings / "o.labelstudio.json").read_text()), lines, strict=True):
        said = {each["from_name"]: each["value"]["choices"] for each in task["predictions"][0]["result"]}
        assert said == {name: [answer["label"]] for name, answer in line["facets"].items()}


def test_each_facet_is_adapted_by_itself_or_says_why_not(drawings: Path, cli: Cli) -> None:
    facets = {"kind": {"labels": ["red", "blue"], "templates": ["a {} shape"]}, "shape": list(SHAPES)}
    (drawings / "adapt.json").write_text(json.dumps(facets))
    ask = ["classify", "table.csv", "--facets", "adapt.json", "--model", "sketchbook", "--format", "jsonl"]
    plain, adapted = cli(*ask, "-q", cwd=drawings), cli(*ask, "--adapt", cwd=drawings)
    assert adapted.code == 0, adapted.err
    assert "shape: not adapted: 36 images for" in adapted.err
    assert "kind: not adapted: 36 images for 2 labels" in adapted.err
    assert [json.loads(line)["facets"] for line in plain.out.splitlines()] == [
        json.loads(line)["facets"] for line in adapted.out.splitlines()
    ]


def test_fit_calibrate_and_evaluate_take_a_column_per_facet(drawings: Path, cli: Cli) -> None:
    (drawings / "two.json").write_text(json.dumps({name: ASKED[name] for name in ("shape", "texture")}))
    ask = ["--facets", "two.json", "--model", "sketchbook", "-q"]
    found = cli("fit", "table.csv", *ask, "-o", "two.nshot", cwd=drawings)
    assert found.code == 0, found.err
    kept = cli("calibrate", "table.csv", "--classifier", "two.nshot", "-o", "sure.nshot", "-q", cwd=drawings)
    assert kept.code == 0, kept.err
    opened = nshot.open(drawings / "sure.nshot")
    assert isinstance(opened, Facets)
    assert all(each.decision is not None for each in opened.values())
    told = cli("evaluate", "table.csv", *ask, "-o", "report", cwd=drawings)
    assert told.code == 0, told.err
    assert "shape: 36 images" in told.out
    report = json.loads((drawings / "report" / "report.json").read_text())
    assert list(report["facets"]) == ["shape", "texture"]
    page = (drawings / "report" / "index.html").read_text()
    for name, figures in report["facets"].items():
        assert f">{name}</h2>" in page
        assert f"{100 * figures['figures']['top_1']:.1f} % of 36 images" in page


def test_the_predictions_of_facets_have_a_row_per_image_and_failed_images_are_told(
    drawings: Path, cli: Cli, tmp_path: Path
) -> None:
    import pyarrow.parquet

    lines = (drawings / "table.csv").read_text().splitlines()[:13]
    lines[3] = lines[3].split(",")[0] + ",,red,plain,crayon,paper"  # no shape is known of the third
    own = drawings / "some.csv"
    own.write_text("\n".join([*lines, "gone.png,circle,red,,,"]) + "\n")
    (drawings / "two.json").write_text(json.dumps({name: ASKED[name] for name in ("shape", "colour")}))
    ask = ["evaluate", "some.csv", "--facets", "two.json", "--model", "sketchbook"]
    found = cli(*ask, "-o", "some", cwd=drawings)
    assert found.code == 1
    assert "gone.png" in found.err
    assert "13 images, 12 answered, 1 failed" in found.err
    rows = pyarrow.parquet.read_table(drawings / "some" / "predictions.parquet").to_pylist()
    assert len(rows) == 13
    assert rows[2]["shape"] is None
    assert rows[2]["colour_own"] == "red"
    assert rows[12] == dict.fromkeys(rows[0]) | {"source": rows[12]["source"]}
    with_shape = [row for row in rows if row["shape_own"]]
    assert len(with_shape) == 11
    assert all(row["shape_right"] == (row["shape"] == row["shape_own"]) for row in with_shape)


def test_a_facet_of_several_labels_is_answered_beside_the_others(
    drawings: Path, cli: Cli, clip: nshot.Model
) -> None:
    rows = list(csv.DictReader((drawings / "table.csv").read_text().splitlines()))
    for row in rows:
        row["tags"] = f"{row['shape']};{row['colour']}"
    with (drawings / "tags.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    labels, templates = [*SHAPES, *COLOURS], ["a {} shape"]
    tags = {"labels": labels, "templates": templates, "multi": True}
    (drawings / "both.json").write_text(json.dumps({"style": ASKED["style"], "tags": tags}))
    ask = ["--facets", "both.json", "--model", "sketchbook"]
    found = cli("classify", "tags.csv", *ask, "--precision", "f32", "--format", "jsonl", cwd=drawings)
    assert found.code == 0, found.err
    alone = several_zero_shot(clip, labels, templates)
    images = clip.embed([str(drawings / row["image"]) for row in rows])
    for line, answer in zip(found.out.splitlines(), alone.predict(images), strict=True):
        facets = json.loads(line)["facets"]
        assert "labels" not in facets["style"]
        assert isinstance(answer, nshot.Decided)
        assert facets["tags"]["labels"] == list(answer.labels)
    fitted = cli("fit", "tags.csv", *ask, "-q", "-o", "both.nshot", cwd=drawings)
    assert fitted.code == 0, fitted.err
    assert "mean average precision" in fitted.out
    made = Facets.open(drawings / "both.nshot")
    assert made.several == ("tags",)
    calibrated = cli("calibrate", "tags.csv", "--classifier", "both.nshot", "-q", cwd=drawings)
    assert calibrated.code == 0, calibrated.err
    told = cli("evaluate", "tags.csv", "--classifier", "both.nshot", "-q", "-o", "several", cwd=drawings)
    assert told.code == 0, told.err
    report = json.loads((drawings / "several" / "report.json").read_text())["facets"]
    assert report["tags"]["figures"]["mean_average_precision"] > 0.5  # under 20 images, ranked only
    assert "top_1" in report["style"]["figures"]
    assert (drawings / "several" / "index.html").is_file()


def test_calibrate_with_facets_names_images_of_none_that_failed(drawings: Path, cli: Cli) -> None:
    (drawings / "none").mkdir()
    for number in range(3):
        draw(sample(9_210_000_000_000 + number, several=0)).save(drawings / "none" / f"{number}.png")
    (drawings / "none" / "broken.png").write_bytes(b"no image")
    asked = ["calibrate", "table.csv", "--facets", "facets.json", "--model", "sketchbook"]
    found = cli(*asked, "--reject", "cosine", "--wrong", "0.4", "--none", "none", cwd=drawings)
    assert found.code == 1
    assert "broken.png" in found.err
    assert "40 images, 39 answered, 1 failed" in found.err


def test_a_facet_without_a_column_is_named(drawings: Path, cli: Cli) -> None:
    (drawings / "odd.json").write_text('{"weather": ["sun", "rain"]}')
    found = cli("evaluate", "table.csv", "--facets", "odd.json", "--model", "sketchbook", "-q", cwd=drawings)
    assert found.code == 2
    assert "no column 'weather'" in found.err
