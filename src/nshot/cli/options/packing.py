"""Options that a command gets as one dataclass."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

Command = Callable[..., Any]


def packed(name: str, kind: type[Any], options: Iterable[Command]) -> Callable[[Command], Command]:
    """Add options to a command, which gets their values as one dataclass, in an argument of that name."""
    fields = kind.__dataclass_fields__

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapped(*args: Any, **values: Any) -> Any:
            packed = kind(**{field: values.pop(field) for field in fields if field in values})
            return command(*args, **{name: packed}, **values)

        return decorated(wrapped, options)

    return decorate


def decorated(command: Command, options: Iterable[Command]) -> Command:
    """Add the options, in their order."""
    for option in reversed(tuple(options)):
        command = option(command)
    return command
