"""Labels files of other tools, and the one check of a set of labels."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nshot.errors import LabelError
from nshot.labels.files import read_label_file
from nshot.labels.lint import check
from nshot.labels.parts import part_of
from nshot.labels.prompts import write_prompts

SHAPES = ["star", "heart", "fish"]
NUMBERED = {0: "star", 1: "heart", 2: "fish"}

FILES: dict[str, tuple[str, str, dict[int, str]]] = {
    "a label per line": ("l.txt", "star\nheart\n\nfish\n", {}),
    "numbers in front": ("l.txt", "0 star\n1 heart\n2 fish\n", NUMBERED),
    "numbers and colons": ("l.txt", "0: star\n1: heart\n2: fish", NUMBERED),
    "numbers and dots, from 1": ("l.txt", "1. star\n2. heart\n3. fish", {1: "star", 2: "heart", 3: "fish"}),
    "numbers and commas": ("l.txt", "0,star\n1,heart\n2,fish", NUMBERED),
    "numbers behind": ("l.txt", "star 0\nheart 1\nfish 2", NUMBERED),
    "numbers with gaps": ("l.txt", "3: star\n7: heart\n12: fish", {3: "star", 7: "heart", 12: "fish"}),
    "quoted": ("l.txt", '"star",\n"heart",\n"fish",\n', {}),
    "a list of Python": ("l.txt", "['star', 'heart', 'fish']", {}),
    "a list in a program": ("l.py", "labels = [\n    'star',\n    'heart',\n    'fish',\n]\n", {}),
    "commas at the ends": ("l.txt", "star,\nheart,\nfish", {}),
    "bullets": ("l.md", "- star\n- heart\n- fish", {}),
    "one line of commas": ("l.txt", "star, heart, fish", {}),
    "one line of semicolons": ("l.txt", "star; heart; fish", {}),
    "a table": ("l.csv", "id,name\n0,star\n1,heart\n2,fish\n", NUMBERED),
    "a table the other way round": ("l.csv", "name,id\nstar,0\nheart,1\nfish,2\n", NUMBERED),
    "a table of semicolons": ("l.csv", "id;label\n0;star\n1;heart\n2;fish\n", NUMBERED),
    "a table without a header": ("l.csv", "0,star\n1,heart\n2,fish\n", NUMBERED),
    "a table in a .txt": ("l.txt", "id,name\n0,star\n1,heart\n2,fish\n", NUMBERED),
    "one column": ("l.csv", "label\nstar\nheart\nfish\n", {}),
    "one column without a header": ("l.csv", "star\nheart\nfish\n", {}),
    "a table of images": ("l.csv", "image,label\na.png,star\nb.png,heart\nc.png,star\nd.png,fish\n", {}),
    "JSON": ("l.json", json.dumps(SHAPES), {}),
    "names by number": ("l.json", json.dumps({str(n): name for n, name in NUMBERED.items()}), NUMBERED),
    "numbers by name": ("l.json", json.dumps({name: n for n, name in NUMBERED.items()}), NUMBERED),
    "a model's config": (
        "config.json",
        json.dumps({"model_type": "vit", "id2label": {str(n): x for n, x in NUMBERED.items()}}),
        NUMBERED,
    ),
    "COCO's categories": (
        "l.json",
        json.dumps({"categories": [{"id": n, "name": name} for n, name in NUMBERED.items()]}),
        NUMBERED,
    ),
    "YAML by number": ("d.yaml", "path: x\nnc: 3\nnames:\n  0: star\n  1: heart\n  2: fish\n", NUMBERED),
    "YAML in a list": ("d.yaml", "nc: 3\nnames:\n- star\n- heart\n- fish\ntrain: x\n", {}),
    "YAML in one line": ("d.yml", "nc: 3\nnames: ['star', 'heart', 'fish']  # shapes\n", {}),
    "lines of JSON": (
        "l.jsonl",
        "\n".join(json.dumps({"id": n, "name": x}) for n, x in NUMBERED.items()),
        NUMBERED,
    ),
    "a data set's features": (
        "l.json",
        json.dumps({"features": {"label": {"names": SHAPES, "_type": "ClassLabel"}}}),
        {},
    ),
    "one line of a .csv": ("l.csv", "star,heart,fish", {}),
    "brackets around numbers": ("l.txt", "(0) star\n(1) heart\n(2) fish", NUMBERED),
    "a label map": (
        "l.pbtxt",
        "item {\n  id: 1\n  name: 'star'\n}\nitem {\n  id: 2\n  name: 'heart'\n}\n"
        "item {\n  id: 3\n  name: 'fish'\n}\n",
        {1: "star", 2: "heart", 3: "fish"},
    ),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("form", FILES)
def test_labels_are_read_out_of_files_of_other_tools(tmp_path: Path, form: str, encoding: str) -> None:
    name, text, numbers = FILES[form]
    (tmp_path / name).write_text(text, encoding=encoding)
    found = read_label_file(tmp_path / name)
    assert list(found.labels) == SHAPES
    assert dict(found.numbers) == numbers
    assert not check(found.labels)


@pytest.mark.parametrize(
    "labels",
    [
        ["3D printer", "7 up", "salt, pepper", "label"],
        ["7 up", "8 ball"],
        ["1.5 litre bottle", "2 litre bottle"],
        ["Alien: Covenant", "Star Wars: A New Hope", "Tron"],
        ["rock'n'roll", 'pipe (6")', "C++", "AT&T", "x-ray", "E. coli"],
        ["train", "bus", "test tube"],
    ],
)
def test_labels_that_merely_look_alike_live(tmp_path: Path, labels: list[str]) -> None:
    (tmp_path / "l.txt").write_text("\n".join(labels))
    assert read_label_file(tmp_path / "l.txt").labels == labels
    assert not check(labels)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("path: x\nnc: 3\ntrain: y\n", "looks like YAML"),
        ('{"a": [1', "starts like JSON"),
        ("{'a'", "starts like JSON"),
        ("", "no label"),
    ],
)
def test_a_file_that_cannot_be_made_out_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "l.txt").write_text(text)
    with pytest.raises(LabelError, match=reason):
        read_label_file(tmp_path / "l.txt")


@pytest.mark.parametrize(
    ("labels", "reason"),
    [
        (["train", "val", "test"], "parts of a data set"),
        (["Training", "VALIDATION"], "parts of a data set"),
        (["0", "1", "2"], "numbers"),
        (["0.0", "1.0"], "numbers"),
        (["True", "False"], "question"),
        (["yes", "no"], "question"),
        (["n01440764", "n01443537"], "WordNet"),
        (["class_1", "class_2"], "codes"),
        (["c0", "c1", "c2"], "codes"),
        (["a1b2c3d4e5f6a7b8c9", "/m/01g317"], "codes"),
        (["0,star", "1,heart"], "punctuation"),
        (['"star",', '"heart",'], "punctuation"),
        (["{star", "heart}"], "punctuation"),
        (["- star", "- heart"], "punctuation"),
        (["star\theart", "fish"], "punctuation"),
        (["names:", "star"], "punctuation"),
        (["LABELS=star", "heart"], "punctuation"),
        (["| star |", "| heart |"], "punctuation"),
        (["---", "star"], "punctuation"),
        (["hot%20dog", "cat"], "punctuation"),
        (["çâåçäà", "cat"], "another encoding"),
        (["a.jpg", "b.jpg"], "names of images"),
        (["cat", "Cat"], "same label"),
        (["red_bird", "red bird"], "same label"),
        (["star;heart;fish"], "one single label"),
        (["star|heart"], "one single label"),
    ],
)
def test_labels_that_nobody_can_mean_are_refused(labels: list[str], reason: str) -> None:
    with pytest.raises(LabelError, match=reason):
        check(labels)


def test_a_code_with_phrases_is_asked_by_its_phrases() -> None:
    assert not check({"0": ["star"], "1": ["heart"]})
    assert not check({"n01440764": ["tench"], "n01443537": ["goldfish"]})


def test_numbers_that_were_typed_are_meant_and_said() -> None:
    (note,) = check(["10", "20", "50"], typed=True)
    assert "'10'" in note


def test_a_files_name_in_the_place_of_a_label_points_to_the_right_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shapes.names").touch()
    (tmp_path / "cat").touch()
    for label in ("labels.txt", "shapes.names", "x.csv"):
        with pytest.raises(LabelError, match="--labels-file"):
            check([label], typed=True)
    assert not check(["cat", "dog"], typed=True)


@pytest.mark.parametrize(
    ("labels", "word"),
    [
        (["star"], "nothing to choose"),
        (["cat", "unknown"], "'unknown'"),
        (["star; heart", "fish"], "one label"),
        (["1 cent", "2 cents", "5 cents"], "begin with a number"),
        (["nv", "mel", "bkl"], "abbreviations"),
        (["собака", "кошка"], "English"),
        (["étoile", "cœur"], "English"),
        (["der Hund", "die Katze"], "English"),
        (["perro", "gato", "caballo"], "English"),
        (["cat", "cat (1)", "dog"], "a copy of 'cat'"),
        (["cat", "dog - Copy", "dog"], "a copy of 'dog'"),
        (["A", "B", "C"], "codes"),
        (["chien", "chat"], "English"),
        (["Hund", "Katze"], "English"),
        (["cane rosso", "gatto"], "English"),
        (["cachorro", "gato"], "English"),
        (["a photo of a cat", "dog"], "whole prompts"),
    ],
)
def test_what_may_be_meant_is_noted(labels: list[str], word: str) -> None:
    (note,) = check(labels)
    assert word in note


def test_what_is_sound_gets_no_note() -> None:
    assert not check(["star"], alone=True)
    assert not check(["собака", "кошка"], multilingual=True)
    assert not check(["café", "jalapeño", "cat", "dog"])
    assert not check(["perro", "gato"], multilingual=True)
    assert not check({"perro": ["dog"], "gato": ["cat"]})
    assert not check(
        ["chat", "table", "pie", "lion", "main road", "taco", "camera", "piano", "panda", "radio"]
    )


def test_a_sentence_or_an_article_is_not_put_into_a_template_twice() -> None:
    prompts = {each.label: each.prompts for each in write_prompts(["a photo of a cat", "an owl", "dog"])}
    assert prompts == {
        "a photo of a cat": ("a photo of a cat",),
        "an owl": ("a photo of an owl",),
        "dog": ("a photo of a dog",),
    }


def test_parts_are_known_by_many_names() -> None:
    for name in ("train", "Training Set", "train2017", "seg_train", "train_dir", "TRN"):
        assert part_of(name) == "train"
    for name in ("val", "valid", "Validation", "dev", "validation_dir"):
        assert part_of(name) == "val"
    for name in ("test", "Testing", "test_set", "held-out"):
        assert part_of(name) == "test"
    for name in ("cat", "test tube", "train station", "training shoes", "data", "1", ""):
        assert part_of(name) is None


def test_a_set_of_lists_is_no_list_of_labels(tmp_path: Path) -> None:
    path = tmp_path / "labels.json"
    path.write_text('{["cat"], ["dog"]}')
    with pytest.raises(LabelError, match="not"):
        read_label_file(path)


@pytest.mark.parametrize("endless", ["9" * 2_000_000, "cat " * 500_000, "é" * 2_000_000])
def test_a_label_of_megabytes_is_refused_before_each_of_its_letters_is_looked_at(
    endless: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nshot.labels.lint._garbled", lambda *_: pytest.fail("looked at"))
    with pytest.raises(
        LabelError, match=r"shelf: a label of 2,000,000 characters .*: a label is a few words"
    ):
        check([endless, "dog"], source="shelf")
