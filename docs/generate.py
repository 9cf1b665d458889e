"""Writes docs/command-line.md from the commands' own help: ``make docs``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from nshot.cli import cli

PAGE = Path(__file__).parent / "command-line.md"

HEAD = """# Command line

Written by `make docs` from the commands' own help.

Exit status of every command: 0 all answered, 1 some images failed (each named, counted in a last line on
stderr), 2 the request itself was wrong, 130 interrupted. Answers go to standard output or `-o`, everything
else to stderr.
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(map(_section, _contexts(_top())))


def _top() -> click.Context:
    return click.Context(cli, info_name="nshot", terminal_width=100, **cli.context_settings)


def _contexts(parent: click.Context) -> Iterator[click.Context]:
    """Every command below this one, as the program itself would run it."""
    assert isinstance(parent.command, click.Group)
    for name in parent.command.list_commands(parent):
        command = parent.command.get_command(parent, name)
        assert command is not None
        context = click.Context(command, parent, name, **command.context_settings)
        yield context
        if isinstance(command, click.Group):
            yield from _contexts(context)


def _section(context: click.Context) -> str:
    return f"\n## {context.command_path}\n\n```text\n{context.get_help()}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page())
