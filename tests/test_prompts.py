"""Labels and templates become prompts; what is wrong with them is said before any image is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nshot.errors import LabelError, TemplateError
from nshot.labels.files import read_labels
from nshot.labels.lint import check
from nshot.labels.prompts import read_templates, split_labels, spoken, write_prompts


def prompts(labels: object, *templates: str) -> dict[str, tuple[str, ...]]:
    written = write_prompts(labels, templates or ("a photo of a {}",))  # type: ignore[arg-type]
    return {label.label: label.prompts for label in written}


def test_the_default_template_is_used_literally() -> None:
    assert prompts(["cat", "apple"]) == {"cat": ("a photo of a cat",), "apple": ("a photo of a apple",)}


def test_every_template_is_written_for_every_synonym_once() -> None:
    written = prompts({"dog": ["dog", "puppy", "dog"]}, "a {}", "one {label}.")
    assert written == {"dog": ("a dog", "one dog.", "a puppy", "one puppy.")}


def test_whole_prompts_are_taken_as_they_are() -> None:
    assert prompts({"bad": ["a rotten apple", "mould"], "good": []}) == {
        "bad": ("a rotten apple", "a photo of a mould"),
        "good": ("a photo of a good",),
    }


def test_a_label_that_starts_with_an_article_is_still_a_label() -> None:
    assert prompts(["The Beatles"]) == {"The Beatles": ("a photo of a The Beatles",)}


def test_braces_in_a_label_are_only_text() -> None:
    assert prompts(["{0}", "{label}"]) == {"{0}": ("a photo of a {0}",), "{label}": ("a photo of a {label}",)}


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("golden_retriever", "golden retriever"),
        ("GoldenRetriever", "golden retriever"),
        ("goldenRetriever", "golden retriever"),
        ("hot dog", "hot dog"),
        ("iPhone", "iPhone"),
        ("USB", "USB"),
        ("New York", "New York"),
        ("T-shirt", "T-shirt"),
    ],
)
def test_labels_of_programmers_are_written_as_words(label: str, words: str) -> None:
    assert spoken(label) == words
    assert any(repr(words) in note for note in check([label, "x y"])) == (label != words)


def test_quotes_keep_a_comma_inside_a_label() -> None:
    assert split_labels('cat, "salt, pepper" , hot dog') == ["cat", "salt, pepper", "hot dog"]


def test_lines_on_the_command_line_are_labels_too() -> None:
    assert split_labels("cat\nhot dog\n\nbird, fox\n") == ["cat", "hot dog", "bird", "fox"]
    assert split_labels('cat\r\n"salt, pepper"') == ["cat", "salt, pepper"]


@pytest.mark.parametrize("text", ["", "  ", "cat,,dog", "cat,", ","])
def test_an_empty_label_on_the_command_line_is_an_error(text: str) -> None:
    with pytest.raises(LabelError, match="empty label"):
        split_labels(text)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        (["cat", "dog", "cat"], "'cat' is given twice"),
        (["Cat", "cat"], "'Cat' and 'cat' are written alike"),
        (["hot_dog", "hot dog"], "written alike"),
        ({"a": ["x"], "b": ["x"]}, "written alike"),
        (["cat", "  "], "empty"),
        ({"cat": [""]}, "empty"),
        ([], "no label"),
        ("cat", "lists"),
    ],
)
def test_labels_of_which_one_can_never_win_are_errors(labels: object, said: str) -> None:
    with pytest.raises(LabelError, match=said):
        prompts(labels)


def test_a_template_needs_a_place_for_the_label() -> None:
    with pytest.raises(TemplateError, match="'a photo'"):
        prompts(["cat"], "a photo")


def test_a_labels_file_is_lines_or_json(tmp_path: Path) -> None:
    file = tmp_path / "labels"
    for text, labels in {
        "cat\n\n  hot dog \n": ["cat", "hot dog"],
        "\ufeffcat\r\ndog\r\n": ["cat", "dog"],
        '["cat", "dog"]': ["cat", "dog"],
        '{"cat": ["kitten", "cat"], "dog": "hound"}': {"cat": ["kitten", "cat"], "dog": ["hound"]},
    }.items():
        file.write_text(text, encoding="utf-8", newline="")
        assert read_labels(file) == labels


@pytest.mark.parametrize(
    "text",
    [
        '{"cat": 3, "dog": 3}',
        '{"cat": ["a"',
        "[1, 2]",
        "",
        " \n",
        '{"cat": ["a"], "cat": ["b"]}',
        '{"cat": {"x": 1}}',
    ],
)
def test_a_labels_file_of_another_form_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "labels.json"
    file.write_text(text)
    with pytest.raises(LabelError, match=r"labels\.json"):
        read_labels(file)


def test_a_missing_or_binary_labels_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"nothing\.txt"):
        read_labels(tmp_path / "nothing.txt")
    (tmp_path / "binary").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    with pytest.raises(LabelError, match="not a text file"):
        read_labels(tmp_path / "binary")


def test_templates_come_from_lines_or_json(tmp_path: Path) -> None:
    file = tmp_path / "templates.txt"
    file.write_text("a {}\n\nthe {}\n")
    assert read_templates(file) == ["a {}", "the {}"]
    file.write_text('["a {}", "the {}"]')
    assert read_templates(file) == ["a {}", "the {}"]
    file.write_text("\n")
    with pytest.raises(TemplateError, match=r"templates\.txt"):
        read_templates(file)


def test_one_text_in_place_of_a_list_of_synonyms_is_refused_rather_than_read_letter_by_letter() -> None:
    with pytest.raises(LabelError, match=r"phrases of 'dog' are one text.*\['puppy'\]"):
        prompts({"dog": "puppy", "cat": ["kitten"]})


def test_a_label_that_is_no_text_is_named() -> None:
    with pytest.raises(LabelError, match="label 1 is of type int"):
        prompts([1, 2])


def test_labels_may_be_an_array() -> None:
    assert prompts(np.array(["cat", "dog"])) == prompts(["cat", "dog"])
    with pytest.raises(LabelError, match="no label given"):
        prompts(np.array([], dtype=str))
