"""The documents say what the program does."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from nshot.cli import COMMANDS

ROOT = Path(__file__).parents[1]


def test_the_command_line_page_is_the_commands_own_help() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "generate.py"))["page"]()
    assert (ROOT / "docs" / "command-line.md").read_text() == page, "run `make docs`"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_documented(command: str) -> None:
    assert f"## nshot {command}\n" in (ROOT / "docs" / "command-line.md").read_text()


def test_the_readme_names_the_two_commands_on_its_first_screen() -> None:
    first_screen = "\n".join((ROOT / "README.md").read_text().splitlines()[:40])
    assert "make demo" in first_screen
    assert "make test" in first_screen
