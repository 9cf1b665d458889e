"""The command line: parse, call, print, exit code. One command a file, imported when it is asked for.

Exit status: 0 all answered, 1 some images failed, 2 the request itself was wrong, 130 interrupted.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module

import click

import nshot
from nshot.cli.help import nearest, sections
from nshot.errors import NshotError, brief
from nshot.paths import spelled

log = logging.getLogger("nshot")

COMMANDS = (
    "classify",
    "evaluate",
    "calibrate",
    "quantise",
    "fit",
    "curve",
    "next",
    "robustness",
    "serve",
    "models",
    "train",
    "search",
    "locate",
    "duplicates",
    "cluster",
    "sort",
    "tag",
    "embed",
    "shards",
    "store",
    "doctor",
    "completion",
)


class _Lazy(click.Group):
    """A group that imports a command's module only to run it, or to show its help."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            near = nearest(cmd_name, COMMANDS)
            raise click.UsageError(f"there is no command {cmd_name!r}{near}", ctx)
        command = import_module(f"nshot.cli.{cmd_name}").command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands by what they are for."""
        for name, members in sections(COMMANDS):
            found = [(member, self.get_command(ctx, member)) for member in members]
            rows = [(member, command.get_short_help_str(80)) for member, command in found if command]
            with formatter.section(name):
                formatter.write_dl(rows)


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(nshot.__version__, "-V", "--version", prog_name="nshot")
@click.pass_obj
def cli(begins: Callable[[], object] | None) -> None:
    """Image classification without training: images and labels in, answers out."""
    if begins is not None:
        begins()


def main(args: Sequence[str] | None = None, begins: Callable[[], object] | None = None) -> None:
    """Run the command line and exit; every error that is a person's to mend is one line on stderr.

    Args:
        args: the arguments; None: those of the program.
        begins: called when the command has been imported, before it does anything.
    """
    # answers are many, short-lived and without cycles: looking for garbage among them is a tenth of the time
    gc.set_threshold(20_000, 50, 100)
    warnings.filterwarnings("ignore", module="PIL")  # what is wrong with an image, its record says
    sys.exit(run(args, begins))


def run(args: Sequence[str] | None = None, begins: Callable[[], object] | None = None) -> int:
    """Run the command line and return the exit status; the arguments are those of ``main``."""
    try:
        status = cli.main(args, prog_name="nshot", standalone_mode=False, obj=begins) or 0
        if sys.stdout is not None:
            sys.stdout.flush()  # now, where an error can still be told
        return status
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        return 2
    except click.ClickException as error:
        said = "\n".join(map(spelled, error.message.split("\n")))
        error.__dict__["message"] = said  # a name that it holds must not act on the terminal
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("nshot: interrupted", err=True)
        return 130
    except NshotError as error:
        click.echo(f"nshot: {spelled(str(error))}", err=True)
        return 2
    except BrokenPipeError:  # `nshot classify ... | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:  # no permission, a full disk: where nothing nearer says what was done there
        log.debug("unexpected", exc_info=True)
        where = "cannot write" if error.filename is None else spelled(str(error.filename))
        click.echo(f"nshot: {where}: {spelled(brief(error))}", err=True)
        return 2
