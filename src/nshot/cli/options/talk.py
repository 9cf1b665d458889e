"""What a command says beside its answers: notes, failures, a bar, and how much of them (-q and -v)."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from mimetypes import guess_type
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

import click

from nshot.cli.options.packing import Command, decorated
from nshot.errors import NshotError
from nshot.images.remarks import Remarks
from nshot.paths import harmless, spelled
from nshot.types import Failure

T = TypeVar("T")

_BEARABLE = 1200  # characters of a name or a reason

_TALK = (
    click.option("-q", "--quiet", is_flag=True, help="Say nothing on stderr but errors."),
    click.option("-v", "--verbose", is_flag=True, help="Say more on stderr."),
)


def talk_options(command: Command) -> Command:
    """Add -q and -v; the command gets ``quiet`` and ``verbose``, and logging is set up by then."""

    @functools.wraps(command)
    def wrapped(*args: Any, quiet: bool, verbose: bool, **others: Any) -> Any:
        _set_up_logging(logging.DEBUG if verbose else logging.ERROR if quiet else logging.WARNING)
        return command(*args, quiet=quiet, verbose=verbose, **others)

    return decorated(wrapped, _TALK)


def echo(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """Print lines; their words may come from files and folders, so what a terminal acts on is written out."""
    click.echo(harmless(str(text)), err=err, nl=nl)


def say(message: str) -> None:
    """A note for the person, on stderr."""
    click.echo(f"note: {spelled(message)}", err=True)


def tell_remarks(remarks: Remarks, *, quiet: bool) -> None:
    """How the data was read, and what was passed over, on stderr; each thing once."""
    for line in () if quiet else (*remarks.news(), *remarks.counts()):
        say(line)


def tell_failure(failure: Failure) -> None:
    """A failed image, named on stderr, above the bar if there is one."""
    from tqdm import tqdm

    tqdm.write(_failed(failure.source, failure.message), file=sys.stderr)


def tell_failed(source: str, reason: str) -> None:
    """What could not be done with a file, named on stderr."""
    echo(_failed(source, reason), err=True)


def _failed(source: str, reason: str) -> str:
    return f"failed: {_brief(spelled(source))}: {_brief(spelled(reason))}"


def _brief(text: str) -> str:
    """One line of bearable length; a table may name a file in millions of letters."""
    return text if len(text) <= _BEARABLE else f"{text[: _BEARABLE // 2]}...{text[-_BEARABLE // 2 :]}"


def progress(
    items: Iterable[T],
    *,
    shown: bool,
    sources: Sequence[str] = (),
    skipped: int = 0,
    unit: str = " images",
    count: Callable[[T], int] = lambda _: 1,
) -> Iterator[T]:
    """The items, with a bar of rate and time left on stderr.

    Args:
        items: what is counted.
        shown: whether to show the bar at all; it never is where stderr is no terminal.
        sources: what was named on the command line, counted meanwhile for the time left.
        skipped: items that an earlier run has done.
        unit: what is counted.
        count: how many of them an item is.
    """
    if not shown or not sys.stderr.isatty():
        yield from items
        return
    from tqdm import tqdm

    with tqdm(initial=skipped, unit=unit, dynamic_ncols=True, file=sys.stderr, leave=False) as bar:
        Thread(target=_count, args=(sources, bar), daemon=True).start()
        for item in items:
            yield item
            bar.update(count(item))


def _count(sources: Sequence[str], bar: Any) -> None:
    """Give the bar its total, where finding it takes no more than listing names."""
    from nshot.images.sources import expand

    if all(Path(source).is_dir() or (guess_type(source)[0] or "").startswith("image/") for source in sources):
        with suppress(NshotError):
            bar.total = sum(1 for _ in expand(sources))


def _set_up_logging(level: int) -> None:
    logger = logging.getLogger("nshot")
    logger.handlers.clear()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Spelled("nshot: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(level)


class _Spelled(logging.Formatter):
    """Names in messages reach the terminal in printable text."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  (the name is logging's)
        return spelled(super().formatMessage(record))
