"""`nshot cluster`: images that belong together."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from nshot.cli.help import Command
from nshot.cli.options import Listing, ModelOptions, model_options, say, source_arguments, talk_options
from nshot.cli.searched import embedded, format_of, output_options, write, write_page
from nshot.errors import RequestError
from nshot.images.remarks import Remarks
from nshot.labels.prompts import DEFAULT_TEMPLATE

if TYPE_CHECKING:
    from nshot.search import Clusters

_COLUMNS = ("cluster", "name", "source", "distance")


@click.command("cluster", cls=Command, short_help="Put images that belong together into clusters.")
@source_arguments
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
@output_options
@model_options
@talk_options
def command(
    sources: tuple[str, ...],
    listing: Listing,
    k: int | None,
    names: str | None,
    names_file: Path | None,
    suggest_labels: bool,
    seed: int,
    format: str | None,
    output: Path | None,
    model_options: ModelOptions,
    quiet: bool,
    verbose: bool,
) -> int:
    """Put images that belong together into clusters, each with a name.

    How many clusters there are cannot be told from the images alone: give -k, look at the page, and give
    another. The page has a contact sheet per cluster, the outliers, and which clusters would join next.

    \b
    nshot cluster photos/ -o clusters.html
    nshot cluster photos/ -k 12 -o clusters.jsonl
    nshot cluster photos/ --suggest-labels > labels.txt

    JSONL holds a record per image: cluster, name, source, distance (from the cluster's centre).

    Exit status: 0 all images were read, 1 some failed, 2 the request itself was wrong.
    """
    from nshot import search
    from nshot.cli.asking import say_language
    from nshot.labels.files import read_labels
    from nshot.labels.lint import check
    from nshot.labels.prompts import split_labels

    format = format_of(format, output, [*sources, names_file])
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
            if not quiet:
                say(note)
    model = model_options.load(quiet=quiet)
    if given:
        say_language(words, model, quiet=quiet)
    photos = embedded(model, sources, listing, quiet=quiet)
    vectors = model.embed_texts([DEFAULT_TEMPLATE.format(word) for word in words])
    found = search.cluster(photos, k, names=words, name_vectors=vectors, seed=seed)
    if suggest_labels:
        lines = search.suggest_labels(found)
        write(({"label": line} for line in lines), ("label",), format, output, lines)
    elif format == "html":
        assert output is not None
        from nshot.search.sheets import clusters_page, shower

        again = listing.open(model, sources, Remarks()) if "-" not in sources else None
        write_page(clusters_page(found, shower(again, found.sources)), output, quiet=quiet)
    else:
        write(found.records(), _COLUMNS, format, output, _table(found))
    return 1 if photos.failures else 0


def _table(found: Clusters) -> Iterator[str]:
    from nshot.paths import spelled

    yield "cluster  images  tightness  name, and the most typical image"
    for each in found.clusters:
        medoid = spelled(found.sources[each.medoid])
        yield f"{each.number:7}  {len(each):6,}  {each.tightness:9.3f}  {each.name or '-'}: {medoid}"
