"""`nshot shards`: how far a folder of vectors is, and whether it is whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from nshot.cli.options.talk import echo
from nshot.errors import RequestError

if TYPE_CHECKING:
    from nshot.distributed.plan import Plan


@click.group("shards", short_help="Look how far a folder of vectors is, or whether it is whole.")
def command() -> None:
    """Look at a folder that nshot embed makes: how far it is, and whether it is whole.

    \b
    nshot shards status vectors/
    nshot shards verify vectors/
    """


@command.command()
@click.argument("folder", metavar="FOLDER")
@click.option("--failed", is_flag=True, help="Also name each image that failed, and why.")
def status(folder: str, failed: bool) -> int:
    """Say how many of the planned shards are there, what failed, and what is missing.

    Exit status: 0 all are there, 1 some are missing or images failed, 2 there is no plan.
    """
    from nshot.distributed.plan import counted
    from nshot.distributed.report import kinds_of
    from nshot.distributed.shards import failures, status

    plan = _plan(folder)
    found = status(plan)
    total, meta = found.total, plan.meta
    echo(f"{'complete' if found.complete else 'not complete'}: {plan.folder.name}")
    vectors = f"{meta['dimension']} x {meta['request']['width']}"
    echo(f"model      {meta['model']}, {meta['precision']}, {vectors}")
    echo(f"planned    {plan.told()}")
    echo(f"done       {counted(total.rows, 'image')} in {counted(total.shards, 'shard')}")
    echo(f"failed     {total.failed:,}{f' ({kinds_of(total.kinds)})' if total.failed else ''}")
    if found.missing:
        echo(f"missing    {counted(len(found.missing), 'shard')}: {_ranges(found.missing)}")
    for line in total.broken:
        echo(f"not read   {line}")
    for each in failures(plan) if failed else ():
        echo(f"{each.source}: {each.type}: {each.message}")
    return 0 if found.complete and not total.failed and not total.broken else 1


@command.command()
@click.argument("folder", metavar="FOLDER")
@click.option("--remove", is_flag=True, help="Remove shards that are damaged; nshot embed makes them again.")
def verify(folder: str, remove: bool) -> int:
    """Read every shard to its end: all the planned images, each once, as they were written.

    Exit status: 0 all is whole, 1 something is missing or damaged, 2 there is no plan.
    """
    from nshot.distributed.shards import leftover, verify
    from nshot.embeddings.parts import part_name

    plan, wrong = _plan(folder), 0
    for number, fault in verify(plan):
        if fault is None:
            continue
        wrong += 1
        name = part_name(number)
        echo(f"{name}: {fault}")
        if remove and plan.folder.exists(name):
            plan.folder.remove(name)
    strange = leftover(plan)
    for name in strange:
        echo(f"{name}: it belongs to no shard of this plan")
    echo(f"{plan.shards - wrong:,} of {plan.shards:,} shards are whole: {plan.folder.name}")
    return 1 if wrong or strange else 0


def _plan(folder: str) -> Plan:
    from nshot.distributed.plan import Plan
    from nshot.objects import open_folder

    plan = Plan.open(open_folder(folder))
    if plan is None:
        raise RequestError(f"{folder} holds no manifest.parquet: nshot embed SOURCE -o {folder} makes one")
    return plan


def _ranges(numbers: tuple[int, ...]) -> str:
    """Such as "0-3, 7, 9-12"; the first few."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and spans[-1][1] == number - 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    told = [f"{first}" if first == last else f"{first}-{last}" for first, last in spans[:10]]
    return ", ".join(told) + (", ..." if len(spans) > 10 else "")
