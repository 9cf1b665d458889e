"""Labels and templates -> the texts that are encoded, and what is worth saying about them beforehand.

A label is a name in the answers. What stands for it in a prompt is its phrases: by default the label
itself, in plain words; or the synonyms and whole prompts that a labels file gives for it.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from nshot.bounded import read_bytes, weighed
from nshot.errors import LabelError, TemplateError

Labels: TypeAlias = Sequence[str] | Mapping[str, Sequence[str]]

MOST = 2**24  # bytes of a file of words: a million labels
DEFAULT_TEMPLATE = "a photo of a {}"

_PLACES = ("{}", "{label}")
_WHOLE_PROMPT = re.compile(
    r"^(an?|the)\s|\.$|\b(photo|photograph|picture|image|drawing|painting|sketch|rendering|close-up) of\b",
    re.IGNORECASE,
)
_PROMPT = re.compile(
    r"\b(photo|photograph|picture|image|drawing|painting|sketch|rendering|close-up) of\b"
    r"|^(an?|the)(\s+\S+){4,}",
    re.IGNORECASE,
)
_ARTICLE = re.compile(r"^(an?|the)\s+(?=\S)")
_ARTICLE_BEFORE = re.compile(r"\b(an?|the)\s+$", re.IGNORECASE)
_SNAKE = re.compile(r"[_\s]+")
# 001.Laysan_Albatross, n02085620-Chihuahua
_COUNTED = re.compile(r"^\s*(?:\d{3,}|0\d+|n\d{8})[._-]\s*(?=[A-Za-z])")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")


@dataclass(frozen=True, slots=True)
class PromptedLabel:
    """A label and every prompt that is written for it; their vectors are averaged."""

    label: str
    prompts: tuple[str, ...]


def split_labels(text: str) -> list[str]:
    """``'cat, dog, "salt, pepper"'`` -> its labels, in order; quotes keep a comma inside a label.

    Lines count like commas, so that the content of a file with a label per line may be given.

    Raises:
        LabelError: nothing between two commas.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    try:
        labels = [label.strip() for row in csv.reader(lines, skipinitialspace=True) for label in row]
    except csv.Error as error:
        raise LabelError(f"the labels {text[:60]!r}... cannot be taken apart: {error}") from error
    if not labels or not all(labels):
        raise LabelError(f"an empty label in {text!r}: write the labels with one comma between two")
    return labels


def read_templates(path: str | Path) -> list[str]:
    """Templates from a file, one per line or a JSON list.

    Raises:
        TemplateError: a file that cannot be read or holds none.
    """
    path = Path(path)
    text = read_plain(path, TemplateError)
    templates = [line.strip() for line in text.splitlines() if line.strip()]
    if text.lstrip().startswith("["):
        try:
            templates = weighed(text)
        except ValueError as error:
            raise TemplateError(f"{path} starts like JSON but is not: {error}") from error
    if not templates or not all(isinstance(template, str) for template in templates):
        raise TemplateError(f"{path} holds no template: write one per line, such as {DEFAULT_TEMPLATE!r}")
    return templates


def spoken(label: str) -> str:
    """How a label is written into a prompt: snake_case and CamelCase as words, without "001." in front."""
    words = _SNAKE.sub(" ", _COUNTED.sub("", label)).strip()
    return _CAMEL.sub(" ", words).lower() if _is_camel(words) else words


def write_prompts(labels: Labels, templates: Sequence[str] = (DEFAULT_TEMPLATE,)) -> list[PromptedLabel]:
    """Every label with its prompts: its phrases x the templates, and its whole prompts as they are.

    Args:
        labels: names, or ``{label: phrases}``; a label without phrases stands for itself.
        templates: each with ``{}`` (or ``{label}``) where the phrase goes; literal, no grammar applied.

    Raises:
        LabelError: no label, an empty one, one that is no text, one given twice, or two that are
            written alike.
        TemplateError: no template, or one without a place for the label.
    """
    if isinstance(labels, str) or isinstance(templates, str):
        raise LabelError("labels and templates are lists of texts, not one text")
    if not templates:
        raise TemplateError(f"no template given; the default is {DEFAULT_TEMPLATE!r}")
    for template in templates:
        if not any(place in template for place in _PLACES):
            raise TemplateError(f"the template {template!r} has no {{}} where the label goes")
    given = labels if isinstance(labels, Mapping) else {}
    names = list(labels)  # an array's or a Series' own truth is not whether it holds labels
    if not names:
        raise LabelError("no label given")
    for name in names:
        if not isinstance(name, str):
            raise LabelError(
                f"the label {name!r} is of type {type(name).__name__}, not a text: give str({name!r})"
            )
        if isinstance(given.get(name), str):  # its letters would each become a phrase
            raise LabelError(
                f"the phrases of {name!r} are one text, not a list of texts: give [{given[name]!r}]"
            )
    prompted: dict[str, PromptedLabel] = {}
    written: dict[frozenset[str], str] = {}
    for label in names:
        phrases = given.get(label) or ()
        if not label.strip() or not all(phrase.strip() for phrase in phrases):
            raise LabelError(f"an empty label or phrase in {label!r}")
        if phrases:
            prompts = [prompt for phrase in phrases for prompt in _prompts(phrase, templates)]
        else:
            written_as = spoken(label)
            prompts = [written_as] if is_whole_prompt(label) else [_fill(t, written_as) for t in templates]
        same = written.setdefault(frozenset(prompt.casefold() for prompt in prompts), label)
        if label in prompted or same != label:
            known = (
                f"{label!r} is given twice" if same == label else f"{same!r} and {label!r} are written alike"
            )
            raise LabelError(f"{known}: of equal labels only one can ever win, so remove or reword one")
        prompted[label] = PromptedLabel(label, tuple(dict.fromkeys(prompts)))
    return list(prompted.values())


def is_whole_prompt(label: str) -> bool:
    """Whether a label is a prompt already ("a photo of a cat"), which no template may be put around."""
    text = label.strip()
    sentence = text.endswith(".") and len(text.split(maxsplit=2)) > 2
    return sentence or _PROMPT.search(text) is not None


def is_phrase_whole(phrase: str) -> bool:
    """Whether a phrase of a labels file is taken as a whole prompt."""
    return _WHOLE_PROMPT.search(phrase) is not None


def _prompts(phrase: str, templates: Sequence[str]) -> Iterable[str]:
    if is_phrase_whole(phrase):
        return [phrase.strip()]
    return [_fill(template, phrase.strip()) for template in templates]


def _fill(template: str, phrase: str) -> str:
    # str.format would read a brace in a label as a field
    parts = re.split(r"\{\}|\{label\}", template)
    if _ARTICLE.match(phrase):  # "a photo of a an owl" is no English
        parts = [_ARTICLE_BEFORE.sub("", part) for part in parts[:-1]] + parts[-1:]
    return phrase.join(parts)


def _is_camel(words: str) -> bool:
    return re.fullmatch(r"(?:[A-Z]?[a-z]{2,}|[A-Z][a-z]+)(?:[A-Z][a-z]+)+", words) is not None


def read_plain(path: Path, error_type: type[LabelError] | type[TemplateError]) -> str:
    """The text of a UTF-8 file; what is wrong with it is an error of that type, which names it."""
    try:
        return read_bytes(path, MOST).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except OSError as error:
        raise error_type(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise error_type(f"{path} is not UTF-8 text") from error
