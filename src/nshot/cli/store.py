"""`nshot store`: what is kept on disk, and how to forget it."""

from __future__ import annotations

from pathlib import Path

import click

from nshot.cli.options.talk import echo

_file = click.option(
    "--store",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Another store than the usual one.",
)


@click.group("store", short_help="Look at the vectors that are kept, or forget them.")
def command() -> None:
    """Look at the vectors that are kept on disk, so that no image is encoded twice, or forget them."""


@command.command()
@_file
def info(store: Path | None) -> None:
    """Say where the store is and what it holds."""
    from nshot.store.store import Store, default_path

    found = Store(store or default_path()).info()
    echo(f"store    {found.path}")
    echo(f"size     {readable(found.bytes)}")
    echo(f"vectors  {found.vectors} of images, {found.texts} of texts")
    echo(f"files    {found.files} known without reading them")
    for recipe, count in found.recipes.items():
        echo(f"recipe   {recipe[:12]}  {count} vectors")


@command.command()
@_file
def clear(store: Path | None) -> None:
    """Forget everything that is kept."""
    from nshot.store.store import Store, default_path

    path = store or default_path()
    Store(path).clear()
    echo(f"{path} is empty now")


def readable(size: float) -> str:
    """Bytes as a person reads them: ``1.5 MB``."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
