"""How help is laid out: options by what they are about, commands by what they are for, near misses named."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches

import click

# What stands in no group is the command's own: "Options", after the labels where there are some, else first.
_OPTIONS = {
    "Labels": (
        "labels",
        "labels_file",
        "table",
        "template",
        "templates",
        "classifier_file",
        "label_vectors",
        "multi",
    ),
    "What to look for": ("text", "like", "against", "unlike", "queries", "neighbours"),
    "Which images": ("only", "where"),
    "Acting on files": ("mode", "take_back", "undo", "write", "dry_run", "target", "naming"),
    "When not to answer": ("coverage", "reject", "threshold", "background", "background_file", "wrong"),
    "Data": (
        *("image_column", "label_column", "label_separator", "domain_column", "domain_folders"),
        *("label_pattern", "image_root", "config", "split", "strict", "corrections", "training", "test"),
    ),
    "Output": ("format", "output", "resume", "keep_columns", "quiet", "verbose"),
    "A folder of vectors": ("shard", "shard_size", "half", "again", "plan_only", "ray"),
    "Model": (
        "model",
        "first",
        "agree",
        "revision",
        "model_revision",
        "device",
        "precision",
        "compiled",
        "fit",
        "decode",
    ),
    "Server": ("port", "host", "token", "allow_host", "drain"),
    "Endpoint": (
        *("allow_urls", "allow_origin", "classifiers"),
        *("max_waiting", "max_items", "max_body", "max_seconds"),
    ),
    "Speed and memory": (
        *("batch_size", "workers", "processes", "store", "no_store", "memory", "timeout"),
        "allow_private",
    ),
}

COMMANDS = {
    "Ask": ("classify", "search", "locate", "sort", "tag", "serve"),
    "Measure": ("evaluate", "calibrate", "robustness", "models"),
    "Improve": ("fit", "curve", "next", "train", "quantise"),
    "Organise": ("duplicates", "cluster", "embed", "shards", "store"),
    "Help": ("doctor", "completion"),
}


class Command(click.Command):
    """A command whose help groups its options."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, group by group."""
        parameters = self.get_params(ctx)
        asks = any(parameter.name == "labels" for parameter in parameters)
        records: dict[str, list[tuple[str, str]]] = {"Labels": []} if asks else {}
        records |= {name: [] for name in ("Options", *_OPTIONS)}
        for parameter in parameters:
            record = None if isinstance(parameter, click.Argument) else parameter.get_help_record(ctx)
            if record is not None:
                records[_group(parameter.name or "")].append(record)
        for name, rows in records.items():
            if rows:
                with formatter.section(name):
                    formatter.write_dl(rows)


def _group(option: str) -> str:
    return next((name for name, options in _OPTIONS.items() if option in options), "Options")


def sections(commands: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """The commands, group by group; what is in no group comes last, under "Others"."""
    left = list(commands)
    for name, members in COMMANDS.items():
        if found := [command for command in members if command in left]:
            yield name, found
            left = [command for command in left if command not in found]
    if left:
        yield "Others", left


def nearest(word: str, choices: Iterable[str]) -> str:
    """The end of a sentence about an unknown word: did you mean ...? A full stop where nothing is near."""
    near = get_close_matches(word, list(choices), n=1)
    return f"; did you mean {near[0]}?" if near else "."
