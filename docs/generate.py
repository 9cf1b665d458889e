"""Writes docs/command-line.md from the commands' own help: ``make docs``."""

from __future__ import annotations

from pathlib import Path

import click

from nshot.cli import cli

PAGE = Path(__file__).parent / "command-line.md"

HEAD = """# Command line

Written by `make docs` from the commands' own help.

Exit status of every command: 0 all answered, 1 some pictures failed (each named, counted in a last line on stderr),
2 the request itself was wrong, 130 interrupted. Answers go to standard output or `-o`, everything else to stderr.
"""


def page() -> str:
    """The whole page."""
    return HEAD + "".join(_section(command, name) for name, command in _commands(cli, "nshot"))


def _commands(group: click.Group, name: str) -> list[tuple[str, click.Command]]:
    found: list[tuple[str, click.Command]] = []
    context = click.Context(group, info_name=name)
    for sub in group.list_commands(context):
        command = group.get_command(context, sub)
        assert command is not None
        found.append((f"{name} {sub}", command))
        if isinstance(command, click.Group):
            found += _commands(command, f"{name} {sub}")
    return found


def _section(command: click.Command, name: str) -> str:
    context = click.Context(command, info_name=name, max_content_width=100, terminal_width=100)
    return f"\n## {name}\n\n```text\n{command.get_help(context)}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page())
