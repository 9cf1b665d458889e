"""One check of a set of labels, before any image: is it what the person meant to ask?

A wrong set of labels gets answers like any other. What can hardly be meant is refused, what may be meant is
noted. A label for which phrases are given is asked by those, so its own name may be a code.
"""

from __future__ import annotations

import os
import re
import string
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from nshot.errors import LabelError
from nshot.images.kinds import is_image_name
from nshot.labels.languages import WORDS
from nshot.labels.parts import part_of
from nshot.labels.prompts import Labels, is_phrase_whole, is_whole_prompt, spoken

_NUMBER = re.compile(r"[-+]?\d+([.,]\d+)?(e[-+]?\d+)?%?", re.IGNORECASE)
_TRUTH = frozenset(
    ("true", "false", "yes", "no", "pos", "neg", "y", "n", "t", "f", "0", "1", "positive", "negative")
)
_SYNSET = re.compile(r"n\d{8}")
_CODE = re.compile(
    r"(?:class|label|cls|category|id|idx|index|group|cluster|type|fold|batch|c|l|k|y|lbl|target|user|person|patient|subject|session|camera|cam|folder|album|roll|set|job|task)?"
    r"[\s_.#-]*\d+|\d{3}[A-Z_0-9]{5}|(?:19|20)\d\d[-_.]?\d\d(?:[-_.]?\d\d)?|/m/\w+|Q\d{2,}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{16,}",
    re.IGNORECASE,
)
_LETTER = re.compile(r"(?:(?:class|label|category|group|cluster|type)[\s_-]*)?[a-z]", re.IGNORECASE)
_COPY = re.compile(r"(.+?)(?: ?- ?copy| copy|_copy| ?\(\d+\))", re.IGNORECASE)
_LISTS = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".yaml", ".yml", ".xlsx", ".parquet", ".names", ".pbtxt")
_NO_CLASS = frozenset(
    [
        "unknown",
        "other",
        "others",
        "unlabeled",
        "unlabelled",
        "unsorted",
        "todo",
        "tbd",
        "misc",
        "none",
        "nothing",
        "undefined",
        "n/a",
        "null",
        "nan",
        "?",
        "-",
    ]
)
_PUNCTUATION = re.compile(
    r"^[\"'`\[{<]|^[-*•] |[\[{,;]$|[:=]$|^\d+\s*[,;:\t]\s*[^\d\s]|^</?\w|^\||\|$|[\"']\]|\[[\"']|=\s*[\[{(]"
    r"|^\w+=\S|%[0-9A-F]{2}"
)
_LONGEST = 10_000  # characters; a model reads some hundred
_SEPARATORS = re.compile(r"[,;|\t，、；/]")


def check(
    labels: Labels,
    *,
    source: str = "",
    typed: bool = False,
    alone: bool = False,
    multilingual: bool = False,
) -> list[str]:
    """Refuse labels that can hardly be meant, and say what is worth knowing about the others.

    Args:
        labels: names, or ``{label: phrases}``.
        source: where they come from, as a person would write it: a file, a folder, ``--labels``.
        typed: they were typed by hand, so that numbers are meant.
        alone: one label is a sound question, since there is a background or another rule beside it, or the
            model scores each label by itself.
        multilingual: the model has learnt other languages than English.

    Returns:
        Sentences for the person, none where all is well.

    Raises:
        LabelError: the labels are the parts of a data set, numbers, codes, a file's name, or hold what
            belongs to the file that they were written in; the message says how to write them.
    """
    names = list(labels)
    where = f"{source}: " if source else ""
    if not names:
        raise LabelError(f"{where}no label given")
    plain = [name for name in names if not (isinstance(labels, Mapping) and labels.get(name))]
    for refuse in (_endless, _file_names, _garbled, _punctuated, _parts, _truths, _codes, _alike):
        if reason := refuse(plain, names, typed):
            raise LabelError(where + reason)
    notes = []
    if len(names) == 1:
        notes += _lone(names[0], where, alone=alone, typed=typed)
    phrases = labels if isinstance(labels, Mapping) else {}
    notes += _written(plain, phrases)
    for remark in (_numbers, _not_words, _no_class, _separated, _numbered, _copied):
        if note := remark(plain):
            notes.append(note)
    if not multilingual and (note := other_language(labels)):
        notes.append(note)
    return notes


def _endless(plain: Sequence[str], names: Sequence[str], typed: bool) -> str | None:
    """First of all: whatever else is asked of a label looks at each of its letters."""
    for name in names:
        if len(name) > _LONGEST:
            return f"a label of {len(name):,} characters ({name[:30]!r}...): a label is a few words"
    return None


def _file_names(plain: Sequence[str], names: Sequence[str], typed: bool) -> str | None:
    for name in plain:
        if typed and (name.lower().endswith(_LISTS) or ("." in name and _is_file(name))):
            return (
                f"the label {name!r} looks like the name of a file: give a file of labels with --labels-file"
            )
    images = [name for name in plain if is_image_name(name)]
    if len(images) > len(names) / 2:
        remedy = "say in words what images show" if typed else "name the column of labels (--label-column)"
        return f"the labels look like names of images ({_some(images)}): {remedy}"
    return None


def _garbled(plain: Sequence[str], names: Sequence[str], typed: bool) -> str | None:
    """Letters of the wrong encoding: a word of nothing but accented Latin letters is in no language."""
    for name in plain:
        letters = [letter for letter in name if letter.isalpha()]
        accented = all("\xbf" < letter < "\u0100" for letter in letters)
        if "\ufffd" in name or (len(letters) > 2 and accented):
            return f"the label {name!r} is in another encoding than it was read in: save the file as UTF-8"
    return None


def _punctuated(plain: Sequence[str], names: Sequence[str], typed: bool) -> str | None:
    odd = [name for name in plain if _is_punctuated(name)]
    if not odd:
        return None
    how = (
        'write them with commas alone, such as "cat, dog"'
        if typed
        else "write one label per line and nothing else"
    )
    return (
        f"the label {odd[0]!r} holds what does not belong to its name (punctuation of a list or a file): "
        f"{how}"
    )


def _parts(plain: Sequence[str], names: Sequence[str], typed: bool) -> str | None:
    if len(plain) < len(names) or not all(map(part_of, names)):
        return None
    if len(names) > 1 or (not typed and names[0].lower() != "train"):
        return (
            f"the labels {_some(names)} are the parts of a data set, not what images show: name one of the "
            "parts"
        )
    return None


def _truths(plain: Sequence[str], names: Sequence[str], typed: bool) -> str | None:
    if len(plain) < len(names) or not names or not all(name.strip().lower() in _TRUTH for name in names):
        return None
    if all(_NUMBER.fullmatch(name.strip()) for name in names):
        return None
    yes = next(
        (n for n in names if n.strip().lower() in ("true", "yes", "y", "t", "1", "positive")), names[-1]
    )
    return (
        f"the labels {_some(names)} are answers to a question that the model does not see: say in words what "
        f'the images show, with a labels file in JSON such as {{"{yes}": ["a star"], ...}}'
    )


def _codes(plain: Sequence[str], names: Sequence[str], typed: bool) -> str | None:
    synsets = [name for name in plain if _SYNSET.fullmatch(name.strip())]
    if len(synsets) > len(plain) / 2:
        return (
            f"the labels are WordNet ids ({_some(synsets)}), which no model knows as words: give a labels "
            f'file in JSON that says what they are, such as {{"{synsets[0]}": ["tench"]}}'
        )
    codes = [name for name in plain if _CODE.fullmatch(name.strip()) or _NUMBER.fullmatch(name.strip())]
    if typed or not codes or len(codes) <= len(plain) / 2:
        return None
    if all(_NUMBER.fullmatch(name.strip()) for name in codes):
        return (
            f"the labels are numbers ({_some(codes)}); name them with --labels-file, a label per line, the "
            'first one for 0, or JSON such as {"0": ["a star"]}'
        )
    return (
        f"the labels are codes ({_some(codes)}), no words: say what they mean with --labels-file, in JSON "
        f'such as {{"{codes[0]}": ["a star"]}}'
    )


def _alike(plain: Sequence[str], names: Sequence[str], typed: bool) -> str | None:
    met: dict[str, str] = {}
    for name in plain:
        other = met.setdefault(spoken(name).casefold(), name)
        if other != name:
            return f"{other!r} and {name!r} are the same label to the model: write them alike, or reword one"
    return None


def _lone(name: str, where: str, *, alone: bool, typed: bool) -> list[str]:
    if (cut := _SEPARATORS.search(name)) and cut[0] != "/":
        raise LabelError(
            f"{where}the labels are one single label, {name!r}: "
            + ('put commas between labels, such as "cat, dog"' if typed else "write one label per line")
        )
    return [] if alone else [nothing_to_choose(name)]


def nothing_to_choose(name: str) -> str:
    """What to say of a single label under softmax; a sigmoid scores each label by itself."""
    return (
        f"with the one label {name!r} there is nothing to choose, so its score of 1 says nothing: give "
        "more labels, or add --reject background to ask whether an image shows it at all"
    )


def _numbers(plain: Sequence[str]) -> str | None:
    codes = (_NUMBER, _CODE, _LETTER)
    numbers = [name for name in plain if any(code.fullmatch(name.strip()) for code in codes)]
    if not numbers:
        return None
    return (
        "labels that are numbers or codes are put to the model as they are written: "
        f"{_some(map(repr, numbers))}"
    )


def _not_words(plain: Sequence[str]) -> str | None:
    """Abbreviations: consonants alone."""
    odd = [
        name
        for name in plain
        if re.fullmatch(r"[b-df-hj-np-tv-xz]{2,5}", name.strip(), re.IGNORECASE)
        and name.strip().lower() not in ("tv", "pc", "cd", "dvd", "bbq", "mp3", "jpg", "png", "bmw")
    ]
    return (
        f"labels that look like abbreviations are better written out: {_some(map(repr, odd))}"
        if odd
        else None
    )


def _numbered(plain: Sequence[str]) -> str | None:
    """Numbers in front of all names, which count them and say nothing."""
    found = [re.match(r"\d+(?=[._ -]*[A-Za-z])", spoken(name)) for name in plain]
    if len(plain) < 3 or not all(found) or len({match[0] for match in found if match}) < len(plain):
        return None
    return (
        f"all labels begin with a number ({_some(map(repr, plain))}), which is put to the model too: if it "
        "only counts them, say the names in a labels file"
    )


def _copied(plain: Sequence[str]) -> str | None:
    """Folders that were copied: "cat (1)" or "cat - Copy" beside "cat"."""
    for name in plain:
        if (found := _COPY.fullmatch(name.strip())) and found[1] in plain:
            return f"{name!r} looks like a copy of {found[1]!r}, and is asked as a label of its own"
    return None


def _separated(plain: Sequence[str]) -> str | None:
    odd = [name for name in plain if re.search(r"[;|，、；]", name)]
    if not odd or len(plain) < 2:
        return None
    return f"{odd[0]!r} is taken as one label: put commas or lines between labels if it is several"


def _no_class(plain: Sequence[str]) -> str | None:
    odd = [name for name in plain if name.strip().lower() in _NO_CLASS]
    if not odd or len(plain) < 2:
        return None
    return (
        f"{_some(map(repr, odd))} says nothing that the model could see: --reject background finds such "
        "images"
    )


def _written(plain: Sequence[str], phrases: Mapping[str, Sequence[str]]) -> list[str]:
    """How labels get into prompts, where it is not as they are."""
    notes = []
    if rewritten := [name for name in plain if spoken(name) != name.strip()]:
        told = _some(f"{name!r} as {spoken(name)!r}" for name in rewritten)
        notes.append(f"written as plain words: {told}")
    whole = [name for name in plain if is_whole_prompt(name)]
    whole += [phrase for given in phrases.values() for phrase in given if is_phrase_whole(phrase)]
    if whole:
        notes.append(f"taken as whole prompts, without a template: {_some(map(repr, whole))}")
    return notes


def other_language(labels: Labels) -> str | None:
    """What to say of labels that are not in English, for a model that has learnt English alone; or None."""
    plain = [name for name in labels if not (isinstance(labels, Mapping) and labels.get(name))]
    foreign = [name for name in plain if _is_foreign(spoken(name))]
    if not foreign or len(foreign) < len(plain) / 4:
        return None
    return (
        f"labels that do not look English ({_some(map(repr, foreign))}): most models have learnt English "
        "alone, so write labels in English or take a multilingual model"
    )


_BORROWED = ("café", "crème", "brûlée", "jalapeño", "piñata", "purée", "pâté", "soufflé", "entrée", "crêpe")
_ARTICLES = (
    "der",
    "die",
    "das",
    "ein",
    "eine",
    "le",
    "les",
    "un",
    "une",
    "el",
    "los",
    "las",
    "il",
    "uma",
    "het",
)


def _is_foreign(text: str) -> bool:
    """Another script than Latin, accents that English does not borrow, or a word of everyday."""
    letters = [letter for letter in text if letter.isalpha()]
    if any("LATIN" not in unicodedata.name(letter, "LATIN") for letter in letters):
        return True
    lower = text.lower()
    if any(letter > "\x7f" for letter in letters) and not any(word in lower for word in _BORROWED):
        return True
    words = lower.split()
    return (len(words) > 1 and words[0] in _ARTICLES) or (len(words) <= 3 and not WORDS.isdisjoint(words))


def _is_punctuated(name: str) -> bool:
    bare = name.strip()
    nothing = bare != "" and all(letter in string.punctuation for letter in bare) and bare not in _NO_CLASS
    return nothing or _control(name) or _PUNCTUATION.search(bare) is not None


def _control(name: str) -> bool:
    return any(unicodedata.category(letter) in ("Cc", "Zl", "Zp") for letter in name)


def _is_file(name: str) -> bool:
    try:
        return Path(os.path.expanduser(name)).is_file()  # noqa: PTH111
    except (OSError, ValueError):
        return False


def _some(items: Iterable[str], shown: int = 4) -> str:
    held = list(items)
    return ", ".join(held[:shown]) + (f" and {len(held) - shown} more" if len(held) > shown else "")
