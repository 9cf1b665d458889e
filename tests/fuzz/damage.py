"""Seeded damage: to bytes, to numbers within them, to text, and to JSON."""

from __future__ import annotations

import json
import random
from contextlib import suppress
from copy import deepcopy
from typing import Any, Literal

_EXTREMES = (
    b"\xff" * 4,
    bytes(4),
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
    b"\xff" * 8,
)


def mutated(data: bytes, source: random.Random, *, others: tuple[bytes, ...] = ()) -> bytes:
    """The bytes with a few flipped, cut, doubled, made extreme, swapped, or spliced with others."""
    changed = bytearray(data)
    for _ in range(source.choice((1, 1, 1, 2, 5))):
        if not changed:
            return bytes(changed)
        place = source.randrange(min(len(changed), source.choice((64, 1024, 10**9))))
        if source.randrange(4) == 0:  # an archive's directory and a table's footer are at the end
            place = len(changed) - 1 - place
        match source.randrange(11):
            case 0:
                del changed[place:]
            case 1 | 2:
                changed[place] ^= 1 << source.randrange(8)
            case 3:
                changed[place] = source.randrange(256)
            case 4:
                extreme = source.choice(_EXTREMES)
                changed[place : place + len(extreme)] = extreme
            case 5:
                del changed[place : place + source.randrange(1, 60)]
            case 6:
                piece = changed[place : place + source.randrange(1, 200)]
                changed[place:place] = piece * source.choice((1, 1, 20))
            case 7:
                other = source.randrange(len(changed))
                changed[place : place + 8], changed[other : other + 8] = (
                    changed[other : other + 8],
                    changed[place : place + 8],
                )
            case 8:  # a number a little off
                size = source.choice((1, 2, 4, 8))
                order: Literal["little", "big"] = "little" if source.randrange(2) else "big"
                number = int.from_bytes(changed[place : place + size], order) + source.choice((-1, 1, 7, -40))
                changed[place : place + size] = (number % 256**size).to_bytes(size, order)
            case 9:
                length = 70_000 if source.randrange(40) == 0 else source.choice((1, 3, 300))
                changed[place:place] = bytes([source.choice((0, 9, 10, 13, 32, 34, 127, 128, 255))]) * length
            case 10:  # the beginning of one, the end of another
                other_data = source.choice((*others, data))
                cut = source.randrange(len(other_data) + 1)
                changed[place:] = other_data[cut:]
    return bytes(changed)


_ENCODINGS = (
    "utf-8-sig",
    "utf-16",
    "utf-16-le",
    "utf-16-be",
    "utf-32",
    "latin-1",
    "cp1252",
    "cp437",
    "shift_jis",
)
_ODD = (
    *(
        '"',
        '""',
        "'",
        ",",
        ";",
        "\t",
        "|",
        "\r",
        "\n",
        "\r\n",
        "\n\n",
        "\0",
        "\x1a",
        "\ufeff",
        "\u2028",
        "\x85",
    ),
    *(
        "\x1b[2J",
        "../",
        "/",
        "\\",
        "{",
        "}",
        "[",
        "]",
        "{}",
        "#",
        ":",
        "- ",
        "n02084071",
        "0",
        "-1",
        "1e999",
        "NaN",
    ),
    *(
        "=cmd()",
        "ü",
        "🙂",
        "\u202e",
        "a" * 300,
        "http://",
        "file://",
        "s3://a/b",
        "\x0b",
        "\x0c",
        "<",
        ">",
        "&",
        "&x;",
    ),
    *(str(10**30), "9" * 5000, "0x10", "null", "true", "%", "%00", "~", "$", "*", "?", " ", "   "),
)


def mutated_text(data: bytes, source: random.Random) -> bytes:
    """A text with signs that mean something where they should not, lines mixed up, or in another encoding."""
    if source.randrange(4) == 0:
        return mutated(data, source)
    text = data.decode("utf-8", "replace")
    for _ in range(source.choice((1, 1, 2, 6))):
        place = source.randrange(len(text) + 1)
        match source.randrange(7):
            case 0 | 1 | 2:
                text = text[:place] + source.choice(_ODD) * source.choice((1, 1, 1, 1, 3, 30)) + text[place:]
            case 3:
                text = text[:place] + text[place + source.randrange(1, 9) :]
            case 4:
                lines = text.splitlines(keepends=True) or [""]
                source.shuffle(lines)
                text = "".join(lines * source.choice((1, 1, 2, 9)))
            case 5:
                text = text.replace(
                    *source.choice(((",", ";"), (",", "\t"), ("\n", "\r\n"), ('"', "'"), (" ", "")))
                )
            case 6:
                text = text[:place]
    if source.randrange(4) == 0:
        return text.encode(source.choice(_ENCODINGS), "replace")
    return text.encode("utf-8", "replace")


NONSENSE: list[Any] = [
    *(
        None,
        True,
        -1,
        0,
        10**6,
        10**9,
        10**400,
        3 * 10**7,
        -1e308,
        1e308,
        0.5,
        "",
        "x" * 300,
        "1",
        [],
        [[]],
        {},
    ),
    *([1, 2], {"a": 1}, {"shortest_edge": 10**6}, {"height": -1, "width": 10**7}, float("inf"), float("nan")),
    *(
        [10**400, 10**400],
        2**63,
        -(2**63),
        2**31,
        -(2**31) - 1,
        1.5,
        1e-320,
        " ",
        "\n",
        "\0",
        "a\nb",
        "\ud800",
    ),
    *(
        "../x",
        "/etc/passwd",
        "\x1b[31m",
        "ü",
        "NaN",
        "x" * 20_000,
        ["", "", ""],
        [None],
        [{}],
        {"": ""},
        [0] * 3000,
    ),
    *(
        ["a", "a"],
        [["a", 1]],
        {"a": {"a": {"a": []}}},
        [True, False],
        "{}",
        "%s",
        "{0}",
        7,
        "cat",
        ["cat"],
        {"id": 1},
    ),
]
"""What may stand in the place of any value."""


def _places(content: Any) -> list[tuple[Any, Any]]:
    """(holder, key) of every value within."""
    places: list[tuple[Any, Any]] = []
    waiting = [content]
    while waiting:
        value = waiting.pop()
        keys = (
            list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
        )
        places += [(value, key) for key in keys]
        waiting += [value[key] for key in keys]
    return places


def _nested(depth: int, source: random.Random) -> Any:
    value: Any = source.choice((1, "x", [], {}))
    for _ in range(depth):
        value = (
            [value] if source.randrange(2) else {source.choice(("a", "name", "children", "labels")): value}
        )
    return value


def near(value: Any, source: random.Random) -> Any:
    """What is almost this value: it is of the right type, and does not fit what else is said."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        return source.choice((value + 1, value - 1, 2 * value, -value, value // 2, float(value), str(value)))
    if isinstance(value, float):
        return source.choice((value * 2, -value, value + 1, value * 1e-6, value * 1e12, int(value), [value]))
    if isinstance(value, str):
        return source.choice(
            (value.upper(), f" {value}", f"{value} ", value[:-1], value * 2, f"{value}\u0301", value[::-1])
        )
    if isinstance(value, list):
        return source.choice((value[:-1], value[::-1], value[1:], value + value, value[:1], [], tuple(value)))
    if isinstance(value, dict):
        names = list(value)
        source.shuffle(names)
        fewer = {name: value[name] for name in names[1:]}
        return source.choice((fewer, dict(zip(names, value.values(), strict=True)), {}, list(value.values())))
    return source.choice(("", 0, [], {}))


def mutated_json(data: bytes, source: random.Random) -> bytes:
    """JSON, or lines of it, with a value, a name, or a few bytes that should not be there."""
    if source.randrange(5) == 0:
        return mutated(data, source)
    try:
        return _mutated_json(data, source)
    except RecursionError:  # one deep value was put into another: too deep to be written
        return mutated(data, source)


def _mutated_json(data: bytes, source: random.Random) -> bytes:
    try:
        lines = [json.loads(data)]
    except ValueError:
        lines = [json.loads(line) for line in data.splitlines() if line.strip()]
    if len(lines) > 1 and source.randrange(6) == 0:
        lines.insert(source.randrange(len(lines)), deepcopy(source.choice(lines)))
        if source.randrange(2):
            source.shuffle(lines)
    for _ in range(source.choice((1, 1, 2, 4))):
        number = source.randrange(len(lines))
        places = _places(lines[number])
        if not places:
            lines[number] = deepcopy(source.choice(NONSENSE))
            continue
        holder, key = source.choice(places)
        kind = source.randrange(16)
        if isinstance(holder, dict) and kind == 0:
            del holder[key]
        elif isinstance(holder, dict) and kind == 1:
            name = source.choice(
                ("", "id", "name", "x" * 300, "\0", "labels", "children", "ü", "1", "\ud800", "a\nb")
            )
            holder[name] = holder.pop(key)
        elif kind in (2, 3):  # what stands elsewhere in it
            other, place = source.choice(_places(lines[source.randrange(len(lines))]) or [(holder, key)])
            holder[key] = deepcopy(other[place])
        elif isinstance(holder, list) and kind == 4:
            holder[key:key] = [deepcopy(holder[key]) for _ in range(source.choice((1, 2, 50)))]
        elif kind == 5 and source.randrange(4) == 0:
            holder[key] = _nested(source.choice((3, 50, 200, 400)), source)
        elif kind == 6:
            holder[key] = {str(holder[key])[:50]: holder[key]} if source.randrange(2) else [holder[key]]
        elif kind > 11:
            with suppress(OverflowError, ValueError):  # infinity is no whole number
                holder[key] = deepcopy(near(holder[key], source))
        else:
            holder[key] = deepcopy(source.choice(NONSENSE))
    text = "\n".join(json.dumps(line, ensure_ascii=source.randrange(2) == 0) for line in lines)
    match source.randrange(40):
        case 0 | 1 | 2 | 3:
            text = text.replace("1", "1" * source.choice((4000, 5000)), 1).replace("0.5", "1e999")
        case 4:
            text = (
                source.choice(("[", '{"a":', '{"children":[{"name":"a",')) * source.choice((900, 100_000))
                + text
            )
        case 5:  # a name twice
            text = text.replace("{", '{"id": 1, "id": 2, "a": 0, "a": 1, ', 1)
        case 6:
            return text.encode(source.choice(_ENCODINGS), "replace")
        case 7:
            text = (
                f"\ufeff{text}"
                if source.randrange(2)
                else text + source.choice(("\n\n", " x", "]", ",", "\0"))
            )
    return text.encode("utf-8", "surrogatepass")
