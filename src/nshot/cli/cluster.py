"""`nshot cluster`: images that belong together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nshot.cli.help import Command
from nshot.cli.searched import Asked, asked_options
from nshot.errors import RequestError
from nshot.labels.prompts import DEFAULT_TEMPLATE

if TYPE_CHECKING:
    from nshot.search import Clusters, Join

_COLUMNS = ("cluster", "name", "source", "distance")
_JOINS = ("k", "explained", "clusters", "names", "images")


@click.command("cluster", cls=Command, short_help="Put images that belong together into clusters.")
@click.option(
    "-k",
    type=click.IntRange(min=1),
    metavar="N",
    help="How many clusters.  [default: the root of half the images, 2 to 30]",
)
@click.option("--names", metavar='"A, B"', help="Words to name clusters with.  [default: some 600 things]")
@click.option(
    "--names-file", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="One name per line."
)
@click.option(
    "--suggest-labels", is_flag=True, help="Only the names, one per line: a start for --labels-file."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Of the random starts.")
@click.option(
    "--tree",
    is_flag=True,
    help="What joins as the clusters become fewer, and what each number of them explains: to choose -k by.",
)
@asked_options
def command(
    asked: Asked,
    k: int | None,
    names: str | None,
    names_file: Path | None,
    suggest_labels: bool,
    seed: int,
    tree: bool,
) -> int:
    """Put images that belong together into clusters, each with a name.

    How many clusters there are cannot be told from the images alone: give -k, look at the page, and give
    another, or let --tree say which clusters join as they become fewer. The page has a contact sheet per
    cluster, then the outliers, and which clusters would join next.

    \b
    nshot cluster photos/ -o clusters.html
    nshot cluster photos/ -k 12 -o clusters.jsonl
    nshot cluster photos/ --tree
    nshot cluster photos/ --suggest-labels > labels.txt

    JSONL holds a record per image: cluster, name, source, distance (from the cluster's centre).

    Exit status: 0 all images were read, 1 some failed, 2 the request itself was wrong.
    """
    from nshot import search
    from nshot.cli.asking import say_language
    from nshot.labels.files import read_labels
    from nshot.labels.lint import check
    from nshot.labels.prompts import split_labels

    kind = asked.kind(names_file)
    if tree and (suggest_labels or kind == "html"):
        raise RequestError("--tree is a table of its own: leave out --suggest-labels and a page")
    if names is not None and names_file is not None:
        raise RequestError("give the names with --names or with --names-file, not with both")
    words = tuple(search.NAMES)
    if names is not None:
        words = tuple(split_labels(names))
    elif names_file is not None:
        words = tuple(read_labels(names_file))
    given = names is not None or names_file is not None
    if given:
        source, typed = str(names_file or "--names"), names is not None
        for note in check(words, source=source, typed=typed, multilingual=True):
            asked.say(note)
    model = asked.load()
    if given:
        say_language(words, model, quiet=asked.quiet)
    photos = asked.embedded(model)
    vectors = model.embed_texts([DEFAULT_TEMPLATE.format(word) for word in words])
    found = search.cluster(photos, k, names=words, name_vectors=vectors, seed=seed)
    if tree:
        joins = found.joins()
        asked.write((join.to_dict() for join in joins), _JOINS, kind, _tree(found, joins))
    elif suggest_labels:
        lines = search.suggest_labels(found)
        asked.write(({"label": line} for line in lines), ("label",), kind, lines)
    elif kind == "html":
        from nshot.search.sheets import clusters_page, shower

        asked.write_page(clusters_page(found, shower(asked.again(model), found.sources)))
    else:
        asked.write(found.records(), _COLUMNS, kind, _table(found))
    return 1 if photos.failures else 0


def _table(found: Clusters) -> Iterator[str]:
    from nshot.paths import spelled

    yield "cluster  images  tightness  name, and the most typical image"
    for each in found.clusters:
        medoid = spelled(found.sources[each.medoid])
        yield f"{each.number:7}  {len(each):6,}  {each.tightness:9.3f}  {each.name or '-'}: {medoid}"


def _tree(found: Clusters, joins: Sequence[Join]) -> Iterator[str]:
    yield f"{len(found)} clusters explain {found.explained:.0%} of how the images differ"
    yield "clusters  explain  joined"
    for join in joins:
        first, second = join.names
        yield f"{join.k:8}  {join.explained:7.0%}  {first} + {second} ({join.images:,} images)"
