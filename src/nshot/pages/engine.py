"""The templates, rendered: values are escaped unless they are markup, an unknown name is an error."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

Html = Markup
"""Markup: a string that is not escaped again."""

FOLDER = Path(__file__).parent


@cache
def environment(*folders: Path) -> Environment:
    """The shared templates, and those of other folders that may extend them."""
    loader = FileSystemLoader([FOLDER / "templates", *folders])
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined)


def part(name: str, *values: Any) -> Html:
    """A macro of ``parts.html`` as markup, which is not escaped again."""
    macro = getattr(environment().get_template("parts.html").module, name)
    return Html(macro(*values))


def asset(name: str) -> str:
    """The text of a style sheet or a script that pages share."""
    return (FOLDER / "assets" / name).read_text("utf-8")
