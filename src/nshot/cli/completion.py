"""`nshot completion`: what makes a shell complete nshot's commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from nshot.cli.help import Command


@click.command("completion", cls=Command, short_help="Print the shell completion script.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash   nshot completion bash >> ~/.bashrc
    zsh    nshot completion zsh  >> ~/.zshrc
    fish   nshot completion fish > ~/.config/fish/completions/nshot.fish
    """
    from nshot.cli import cli

    complete = get_completion_class(shell)
    assert complete is not None
    click.echo(complete(cli, {}, "nshot", "_NSHOT_COMPLETE").source())
