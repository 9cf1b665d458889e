"""Labels out of a file, whichever tool wrote it: a label per line, numbered lines, a table, JSON, YAML.

What belongs to the file and not to the names (numbers, headers, quotation marks, commas) is taken off, which
is noted; what cannot be told apart is refused. Numbers that a file gives to its labels are kept, for
tables that name classes by number.
"""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nshot.bounded import HEAVIEST, weight
from nshot.errors import LabelError, SourceError
from nshot.images.delimited import plain, read_text
from nshot.images.tables import LABEL_COLUMNS, open_table
from nshot.labels.prompts import MOST, Labels

_NAMES = ("name", "names", *LABEL_COLUMNS, "title", "text", "description", "display_name")
_NUMBERS = (
    "id",
    "number",
    "index",
    "idx",
    "class_id",
    "label_id",
    "category_id",
    "no",
    "nr",
    "#",
    "code",
    "class_index",
)
_INSIDE = (
    "id2label",
    "names",
    "labels",
    "classes",
    "categories",
    "class_names",
    "label2id",
    "class_to_idx",
    "label_map",
    "features",
    "label",
)
_NUMBERED = re.compile(r"\s*[(\[#]?(\d{1,18})(?:\s*[:.)|-]\s+|\s*[:=,;\t|]\s*(?=\D)|\s+)(\S.*?)\s*")
_NUMBER_LAST = re.compile(r"\s*(\S.*?)\s*(?:[:=,;\t|]|\s)\s*(\d{1,18})\s*,?")
_QUOTED = re.compile(r"""\s*(["'])(.*)\1\s*,?\s*""")
_MOST_CODE = 2**20  # characters of a list in a program, whose reader takes hundreds of bytes for each value
_GAP = re.compile(r"([^\S\r\n])[^\S\r\n]{50,}")  # what expressions would search again and again
_SYNSET = re.compile(r"(n\d{8})[\s,:]+(\S.*)")


@dataclass(frozen=True, slots=True)
class LabelFile:
    """Labels as a file gives them.

    Attributes:
        labels: names, or ``{label: phrases}``.
        numbers: the label of each number, where the file numbers them.
        notes: how the file was read, where it is not a plain list.
    """

    labels: Labels
    numbers: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read_label_file(path: str | Path) -> LabelFile:
    """Labels from a file: a label per line, JSON, or what another tool wrote.

    JSON is a list of labels, or an object ``{label: [phrases]}``. A phrase is a synonym, written into the
    templates, or a whole prompt (one that starts with an article, ends with a full stop or says "photo of"),
    taken as it is. Phrases replace the label's own name: list it too if it is to be used. Names by number
    (``{"0": "cat"}``), numbers by name (``{"cat": 0}``), numbered lines, tables with a column of names, and
    YAML with ``names:`` are read as what they are.

    Raises:
        LabelError: a file that cannot be read, or whose form is not known.
    """
    path = Path(path)
    try:
        text, notes = read_text(path, MOST)
    except (OSError, ValueError) as error:
        reason = (error.strerror or str(error)) if isinstance(error, OSError) else str(error)
        raise LabelError(f"cannot read {path}: {reason}") from error
    if "\0" in text:
        raise LabelError(f"{path} is not a text file: write one label per line")
    found = _read(path, text)
    if not found.labels:
        raise LabelError(f"{path} holds no label: write one per line")
    return LabelFile(found.labels, found.numbers, (*notes, *found.notes))


def read_labels(path: str | Path) -> Labels:
    """The labels of a file alone; see ``read_label_file``.

    Raises:
        LabelError: a file that cannot be read, or whose form is not known.
    """
    return read_label_file(path).labels


def _read(path: Path, text: str) -> LabelFile:
    text = _GAP.sub(r"\1", text)
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise LabelError(f"{path} holds no label: write one per line")
    suffix = path.suffix.lower()
    text = re.sub(r"\A\s*[\w.]+\s*=\s*(?=[\[({])", "", text)  # a list in a program has a name
    start = text.lstrip()
    if start.startswith(("{", "[")):
        return _json(path, text)
    if suffix in (".yaml", ".yml") or any(re.fullmatch(r"names\s*:.*", line) for line in lines):
        return _yaml(path, lines)
    if suffix in (".csv", ".tsv"):
        return _table(path, lines)
    if "item" in start[:10] and (items := _items(text)):
        return items
    for form in (_quoted, _bulleted, _synsets, _numbered, _header, _one_line):
        if (found := form(path, lines)) is not None:
            return found
    keyed = [line for line in lines if re.match(r"\s*[\w-]+\s*:(\s|$)", line)]
    if len(lines) > 1 and len(keyed) > len(lines) / 2:
        raise LabelError(
            f"{path} looks like YAML or settings ({keyed[0].strip()!r}): write one label per line"
        )
    notes: tuple[str, ...] = ()
    if len(lines) > 1 and (
        all(re.match(r"\s*\d+\s", x) for x in lines) or all(re.search(r"\s\d+\s*$", x) for x in lines)
    ):
        notes = (
            f"each line of {path} has a number, which is taken as part of the label: {lines[0].strip()!r}",
        )
    if plain(lines[0]) in _NAMES:
        notes = (
            f"the first line of {path} is taken as the label {lines[0].strip()!r}: if it is a header, "
            "remove it",
        )
    return LabelFile([line.strip() for line in lines], notes=notes)


def _json(path: Path, text: str) -> LabelFile:
    if weight([text.encode("utf-8", "surrogatepass")]) > HEAVIEST:
        raise LabelError(f"{path}: reading it takes more than {HEAVIEST / 1e6:,.0f} MB of memory")
    try:
        content = json.loads(text, object_pairs_hook=lambda pairs: _without_repeats(path, pairs))
    except (ValueError, RecursionError) as error:
        try:
            if len(text) > _MOST_CODE:
                raise ValueError("too long to be a list in a program")
            content = ast.literal_eval(text.strip().rstrip(","))
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            if (entries := _lines(text)) and (found := _entries(path, entries)) is not None:
                return found
            raise LabelError(f"{path} starts like JSON but is not: {error}") from error
    found = _content(path, content)
    if found is None:
        raise LabelError(
            f'{path}: JSON labels are ["label", ...], {{"label": ["synonym or whole prompt", ...]}} or '
            "names by number"
        )
    return found


def _lines(text: str) -> list[dict[str, Any]]:
    """The objects of lines of JSON; none where they are not."""
    try:
        held = [json.loads(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError):
        return []
    return held if all(isinstance(each, dict) for each in held) else []


def _content(path: Path, content: Any, depth: int = 0) -> LabelFile | None:
    if isinstance(content, (list, tuple)):
        if all(isinstance(label, str) for label in content):
            return LabelFile(list(content))
        if content and all(isinstance(each, dict) for each in content):
            return _entries(path, content)
        return None
    if not isinstance(content, dict) or not content:
        return None
    values = list(content.values())
    if all(_is_number(key) for key in content):
        if all(isinstance(name, str) for name in values):
            return _by_number(path, {int(float(key)): name for key, name in content.items()})
        pairs = [
            v for v in values if isinstance(v, list) and len(v) == 2 and all(isinstance(p, str) for p in v)
        ]
        if len(pairs) == len(values) and all(re.fullmatch(r"n\d{8}", pair[0]) for pair in pairs):
            return _by_number(path, {int(key): pair[1] for key, pair in content.items()})
    if all(isinstance(number, int) and not isinstance(number, bool) for number in values):
        if len(set(values)) == len(values):
            return _by_number(path, {number: str(name) for name, number in content.items()})
        return None
    phrases = {label: [given] if isinstance(given, str) else given for label, given in content.items()}
    settings = any(key in content for key in _INSIDE)
    if all(isinstance(g, list) and all(isinstance(p, str) for p in g) for g in phrases.values()) and not (
        settings and len(content) < 3
    ):
        return LabelFile(phrases)
    for key in _INSIDE if depth < 3 else ():
        if isinstance(content.get(key), (dict, list)) and (found := _content(path, content[key], depth + 1)):
            return LabelFile(
                found.labels, found.numbers, (f"labels are read from {key!r} in {path}", *found.notes)
            )
    return None


def _entries(path: Path, entries: Sequence[dict[str, Any]]) -> LabelFile | None:
    """[{"id": 0, "name": "cat"}, ...]"""
    keys = {plain(str(key)): key for key in entries[0]}
    name = next((keys[key] for key in _NAMES if key in keys), None)
    number = next((keys[key] for key in _NUMBERS if key in keys and keys[key] != name), None)
    if name is None or not all(isinstance(each.get(name), str) for each in entries):
        return None
    if number is not None and all(_is_number(each.get(number)) for each in entries):
        return _by_number(path, {int(float(each[number])): each[name] for each in entries})
    return LabelFile(
        [each[name] for each in entries], notes=(f"labels are the {name!r} of each entry in {path}",)
    )


def _yaml(path: Path, lines: Sequence[str]) -> LabelFile:
    """A list, or the part of YAML that holds names: a list, an inline list, or names by number."""
    lines = [line for line in lines if not line.lstrip().startswith("#") and line.strip() != "---"]
    start = next(
        (i for i, line in enumerate(lines) if re.match(r"(names|labels|classes|categories)\s*:", line)), None
    )
    notes: tuple[str, ...] = ()
    if start is not None:
        key, _, rest = lines[start].partition(":")
        notes = (f"labels are read from {key.strip()!r} in {path}",)
        inline = rest.split(" #")[0].strip()
        if inline.startswith(("[", "{")):
            body = " ".join([inline, *lines[start + 1 :]])
            body = body[: body.find("]" if inline[0] == "[" else "}") + 1]
            parts = [_unquoted(part) for part in body[1:-1].split(",") if part.strip()]
            if inline[0] == "[":
                return LabelFile(parts, notes=notes)
            lines, start = parts, -1
        block = []
        for line in lines[start + 1 :]:
            if start >= 0 and not line.startswith((" ", "\t", "-")):
                break
            block.append(line)
        lines = block
    items = [re.fullmatch(r"\s*-\s+(.+)", line) for line in lines]
    if lines and all(items):
        return LabelFile([_unquoted(item[1]) for item in items if item], notes=notes)
    numbered = [re.fullmatch(r"\s*['\"]?(\d{1,18})['\"]?\s*:\s*(\S.*)", line) for line in lines]
    if lines and all(numbered):
        found = _by_number(path, {int(each[1]): _unquoted(each[2]) for each in numbered if each})
        return LabelFile(found.labels, found.numbers, (*notes, *found.notes))
    raise LabelError(f"{path} looks like YAML, and its names cannot be made out: write one label per line")


def _table(path: Path, lines: Sequence[str]) -> LabelFile:
    """A .csv or .tsv: the column of names, in the order of its column of numbers."""
    try:
        table = open_table(path)
        columns = list(table.columns)
        known = table.known(_NAMES)
        number = next((c for c in table.known(_NUMBERS) if c not in known[:1]), None)
        if len(columns) == 1 and not known:
            labels = [_unquoted(line) for line in lines]
            return LabelFile(labels, notes=(f"{path} is read as a label per line, without a header",))
        if not known and len(lines) == 1 and (found := _one_line(path, lines)) is not None:
            return found
        if not known and len(columns) == 2:
            return _two_columns(path, lines)
        if not known:
            raise LabelError(
                f"{path} is a table whose columns ({', '.join(columns)}) are not known to hold labels: "
                "call one 'label', or write one label per line"
            )
        cells = [(row[0], row[-1]) for row in table.rows(known[0], *([number] if number else []))]
    except SourceError as error:
        raise LabelError(str(error)) from error
    cells = [(name, cell) for name, cell in cells if name not in (None, "")]
    names = [str(name).strip() for name, _ in cells]
    note = f"labels are the column {known[0]!r} of {path}"
    if number is not None and cells and all(_is_number(cell) for _, cell in cells):
        found = _by_number(path, {int(float(cell)): str(name).strip() for name, cell in cells})
        return LabelFile(found.labels, found.numbers, (note,))
    unique = list(dict.fromkeys(names))
    if len(unique) < len(names):
        note += ", each once"
    return LabelFile(unique, notes=(note,))


def _two_columns(path: Path, lines: Sequence[str]) -> LabelFile:
    for form in (_numbered, _synsets):
        if (found := form(path, lines)) is not None:
            return found
    raise LabelError(
        f"{path} is a table without a column of labels: call one 'label', or write one label per line"
    )


def _quoted(path: Path, lines: Sequence[str]) -> LabelFile | None:
    """Lines cut out of a program: "cat","""
    body = [
        line for line in lines if not re.fullmatch(r"\s*(\w+\s*=\s*)?[\[({]\s*|\s*[\])}]\s*[,;]?\s*", line)
    ]
    found = [_QUOTED.fullmatch(line) for line in body]
    if body and all(found):
        labels = [each[2] for each in found if each]
        return LabelFile(labels, notes=(f"quotation marks and commas in {path} are left out",))
    if len(lines) > 1 and all(line.endswith(",") for line in lines[:-1]) and not lines[0].startswith('"'):
        return LabelFile(
            [line.rstrip(",").strip() for line in lines],
            notes=(f"commas at the ends in {path} are left out",),
        )
    return None


def _bulleted(path: Path, lines: Sequence[str]) -> LabelFile | None:
    found = [re.fullmatch(r"\s*[-*•]\s+(\S.*)", line) for line in lines]
    if all(found):
        return LabelFile(
            [_unquoted(each[1]) for each in found if each], notes=(f"list marks in {path} are left out",)
        )
    return None


def _synsets(path: Path, lines: Sequence[str]) -> LabelFile | None:
    """n01440764 tench, Tinca tinca"""
    found = [_SYNSET.fullmatch(line.strip()) for line in lines]
    if not all(found):
        return None
    phrases = {each[1]: [part.strip() for part in each[2].split(",")][:1] for each in found if each}
    return LabelFile(
        phrases, notes=(f"{path} says what its WordNet ids mean: the first name of each is asked",)
    )


def _numbered(path: Path, lines: Sequence[str]) -> LabelFile | None:
    """0 cat / 1: dog / cat,0: numbers that count, in front or behind, on every line."""
    for pattern, number, name in ((_NUMBERED, 1, 2), (_NUMBER_LAST, 2, 1)):
        found = [pattern.fullmatch(line) for line in lines]
        if len(lines) < 2 or not all(found):
            continue
        numbers = [int(each[number]) for each in found if each]
        names = [_unquoted(each[name]) for each in found if each]
        counts = sorted(numbers) == list(range(min(numbers), min(numbers) + len(numbers))) and min(
            numbers
        ) in (0, 1)
        marked = all(re.match(r"\s*\d+\s*[:=,;\t|)]", line) for line in lines)
        if len(set(names)) == len(names) and len(set(numbers)) == len(numbers) and (counts or marked):
            return _by_number(path, dict(zip(numbers, names, strict=True)))
    return None


def _header(path: Path, lines: Sequence[str]) -> LabelFile | None:
    """A table in a text file: a first line of several column names."""
    for separator in ("\t", ",", ";"):
        cells = [plain(cell) for cell in lines[0].split(separator)]
        if len(lines) > 1 and len(cells) > 1 and all(cell in (*_NAMES, *_NUMBERS) for cell in cells):
            return _table(path, lines)
    return None


def _one_line(path: Path, lines: Sequence[str]) -> LabelFile | None:
    """All labels in one line."""
    if len(lines) > 1:
        return None
    for separator, told in (
        ("\t", "tabs"),
        (";", "semicolons"),
        ("|", "bars"),
        ("，", "commas"),
        (",", "commas"),
    ):
        if separator in lines[0]:
            labels = [_unquoted(part) for part in lines[0].split(separator) if part.strip()]
            return LabelFile(
                labels, notes=(f"the one line of {path} is taken apart at its {told}: {len(labels)} labels",)
            )
    return None


def _items(text: str) -> LabelFile | None:
    """Item { id: 1 name: 'cat' }, as TensorFlow's label maps are written."""
    numbers = {}
    for block in re.findall(r"item\s*\{([^{}]*)\}", text):
        number = re.search(r"\bid\s*:\s*(\d{1,18})\b", block)
        name = re.search(r"\b(?:display_name|name)\s*:\s*([\"'])(.*?)\1", block)
        if number is None or name is None:
            return None
        numbers[int(number[1])] = name[2]
    return _by_number(Path("the label map"), numbers) if numbers else None


def _by_number(path: Path, numbers: dict[int, str]) -> LabelFile:
    ordered = dict(sorted(numbers.items()))
    note = f"{path} numbers its labels: {next(iter(ordered))} is {next(iter(ordered.values()))!r}"
    return LabelFile(list(ordered.values()), ordered, (note,))


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and re.fullmatch(r"\s*-?\d{1,18}(\.0+)?\s*", str(value)) is not None


def _unquoted(text: str) -> str:
    text = text.strip().rstrip(",").strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'" else text


def _without_repeats(path: Path, pairs: Iterable[tuple[str, object]]) -> dict[str, object]:
    pairs = list(pairs)
    content = dict(pairs)
    if len(content) < len(pairs):  # JSON itself would keep the last of two without a word
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise LabelError(f"{path}: {twice!r} is given twice: of equal labels only one can ever win")
    return content
