"""``-o`` and its companions."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import click

from nshot.cli.options.packing import Command, decorated
from nshot.cli.options.talk import echo
from nshot.errors import RequestError
from nshot.paths import as_url

RAY = click.option(
    "--ray",
    metavar="ADDRESS",
    help="Let the nodes of a Ray cluster do it. auto: the cluster that this machine is part of; "
    "ray://head:10001 or host:port: another; local: one of this machine's own.",
)

_OUTPUT = (
    click.option(
        "--format",
        type=click.Choice(["table", "jsonl", "json", "csv", "tsv", "parquet", "coco", "labelstudio"]),
        help="How answers are written.  [default: by the name of -o, else table]",
    ),
    click.option("-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Where answers go."),
    click.option(
        "--resume",
        is_flag=True,
        help="Continue an earlier run: images that -o already has an answer for are left out.",
    ),
)


def output_options(command: Command) -> Command:
    """Add --format, -o and --resume; the command gets ``format``, ``output`` and ``resume``."""
    return decorated(into_stores(command), _OUTPUT)


def into_stores(command: Command) -> Command:
    """Let a command with ``output`` write a file into an object store: here first, as a whole, then there."""

    @functools.wraps(command)
    def wrapped(*args: Any, output: Path | None, **others: Any) -> Any:
        from nshot.objects import is_object_url, uploaded

        url = "" if output is None else as_url(output)
        if output is None or not is_object_url(url) or not output.suffix:
            return command(*args, output=output, **others)
        if others.get("resume"):
            raise RequestError(f"{url} is written as a whole: leave out --resume, or name a file here")
        with uploaded(url) as local:
            status = command(*args, output=local, **others)
        echo(f"written: {url}", err=True)
        return status

    return wrapped


def format_of(format: str | None, output: Path | None) -> str:
    """The format asked for, or the one that the output's name says."""
    if format is None and output is not None:
        from nshot.output.sinks import format_by_name

        return format_by_name(output)
    return format or "table"
