"""`nshot search`: the images that fit a text, or are like an image."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from nshot.bounded import read_bytes
from nshot.cli.help import Command
from nshot.cli.searched import Asked, asked_options
from nshot.errors import MissingExtra, RequestError
from nshot.images.remarks import Remarks
from nshot.types import Failure

if TYPE_CHECKING:
    from nshot.model import Model
    from nshot.search import Hits

_COLUMNS = ("query", "rank", "source", "score", "cosine", "fits")
_INDEXED = 50_000  # vectors of one file from which they are searched on disk


@click.command("search", cls=Command, short_help="Find images by a text or by other images.")
@click.option("--text", multiple=True, metavar="TEXT", help="What to look for, in words; repeatable.")
@click.option("--like", multiple=True, metavar="SOURCE", help="Images to look for the like of; repeatable.")
@click.option("--not", "against", multiple=True, metavar="TEXT", help="What to stay away from; repeatable.")
@click.option(
    "--not-like", "unlike", multiple=True, metavar="SOURCE", help="Images to stay away from; repeatable."
)
@click.option(
    "--queries",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="A question per line, each asked on its own.",
)
@click.option(
    "--neighbours",
    is_flag=True,
    help="For each image its -n nearest others, instead of an answer to a question.",
)
@click.option(
    "-n", "count", type=click.IntRange(min=1), default=20, show_default=True, help="How many images to find."
)
@click.option(
    "--diversity",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    show_default=True,
    metavar="SHARE",
    help="0: the nearest. Toward 1: hits that differ from each other.",
)
@click.option(
    "--label", "only", multiple=True, metavar="NAME", help="Only images with this label; repeatable."
)
@click.option(
    "--where",
    multiple=True,
    metavar="COLUMN=VALUE",
    help="Only rows of a table with this value; repeat it and all must hold.",
)
@click.option("--fitting", is_flag=True, help="Leave out what does not fit the question.")
@click.option(
    "--index",
    type=click.Choice(["exact", "lists"]),
    help="Of a file of vectors: search float16 on disk, or an inverted file that looks at half of it. "
    f"[default: exact from {_INDEXED:,} vectors, lists from 3 million where faiss is there]",
)
@asked_options
def command(
    asked: Asked,
    text: tuple[str, ...],
    like: tuple[str, ...],
    against: tuple[str, ...],
    unlike: tuple[str, ...],
    queries: Path | None,
    neighbours: bool,
    count: int,
    diversity: float,
    only: tuple[str, ...],
    where: tuple[str, ...],
    fitting: bool,
    index: str | None,
) -> int:
    """Find images by a text, by other images, or by both.

    Each hit has its cosine with the question and a score: how unusual that cosine is for this image, in
    deviations over the names of everyday things. From a score of 4 an image fits the question; where none
    does, a note says that nothing here fits. Scores can be compared between questions, cosines cannot.

    \b
    nshot search photos/ --text "a red bicycle in the rain" -n 20
    nshot search photos/ --like a.jpg --like b.jpg --not "snow"
    nshot search photos/ --like liked/ --diversity 0.3 -o next.html
    nshot search photos/ --neighbours -n 5 -o neighbours.csv

    JSONL holds a record per hit: query, rank, source, score, cosine, fits.

    Exit status: 0 all images were read, 1 some failed, 2 the request itself was wrong.
    """
    from nshot import search

    kind = asked.kind(*like, *unlike, queries)
    named = [each for each in (text or like or against or unlike, queries, neighbours) if each]
    if len(named) != 1:
        raise RequestError("say what to look for: --text or --like, or else --queries FILE or --neighbours")
    questions: list[Sequence[str]] = [text] if queries is None else [[line] for line in _lines(queries)]
    search.check_texts([*against, *(each for question in questions for each in question)])
    wanted = [_pair(each) for each in where]
    model = asked.load()
    shown = list(model.sources(like)) if like else None
    away = list(model.sources(unlike)) if unlike else None
    photos: Any = _index(model, asked, index, bool(only or where or neighbours))
    failed = 0
    if photos is None:
        photos = asked.embedded(model, _filtered(model, asked, only, wanted))
        if only and photos.labels is not None:
            photos = photos[[row for row, own in enumerate(photos.labels) if set(own) & set(only)]]
        failed = len(photos.failures)
    if not len(photos):
        raise RequestError("the filters leave no image to search")
    if neighbours:
        answers = search.nearest(photos, count)
    else:
        answers = [
            search.look_for(
                model,
                photos,
                question,
                like=shown,
                against=against,
                unlike=away,
                n=count,
                diversity=diversity,
            )
            for question in questions
        ]
    for hits in answers:
        if hits.fits is False:
            asked.say(f"nothing here fits {hits.query!r}: the best score is {hits.best:.1f}, under 4")
    rows = [hit for hits in answers for hit in hits if not fitting or hit.fits is not False]
    if kind == "html":
        from nshot.search.sheets import hits_page, shower

        asked.write_page(hits_page(answers, shower(asked.again(model), {hit.source for hit in rows})))
    else:
        asked.write((hit.to_dict() for hit in rows), _COLUMNS, kind, _table(answers, fitting))
    return 1 if failed else 0


def _table(answers: Sequence[Hits], fitting: bool) -> Iterator[str]:
    from nshot.paths import spelled

    for hits in answers:
        if len(answers) > 1:
            yield spelled(hits.query)
        yield " rank  score  cosine  source"
        for hit in hits:
            if fitting and hit.fits is False:
                continue
            score = "     -" if hit.score is None else f"{hit.score:6.1f}"
            mark = "  (does not fit)" if hit.fits is False else ""
            yield f"{hit.rank:5} {score}  {hit.cosine:6.4f}  {spelled(hit.source)}{mark}"


def _lines(path: Path) -> list[str]:
    try:
        lines = [line.strip() for line in read_bytes(path).decode("utf-8-sig").splitlines()]
    except (OSError, ValueError) as error:
        raise RequestError(f"cannot read {path}: {getattr(error, 'strerror', None) or error}") from error
    found = [line for line in lines if line]
    if not found:
        raise RequestError(f"{path} holds no question")
    return found


def _index(model: Model, asked: Asked, kind: str | None, filtered: bool) -> Any:
    """The index of the one file of vectors that was named, where there is reason for one; else None."""
    from nshot import search
    from nshot.embeddings import is_vector_file
    from nshot.extras import faiss

    large = len(asked.sources) == 1 and not filtered and is_vector_file(asked.sources[0])
    if kind is not None and not large:
        raise RequestError("--index needs one file of vectors as the only source, and no filter")
    path = asked.sources[0]
    rows = _bytes(path) / (4 * model.dimension) if large else 0
    if not large or (kind is None and rows < _INDEXED):
        return None
    if kind is None and rows >= search.MANY:
        kind = "lists"
        try:
            faiss()
        except MissingExtra as error:
            asked.say(f"every one of so many images is looked at for each question; {error}")
            kind = "exact"
    index = search.Index.beside(path, texts=search.generic_texts(model) if kind == "lists" else None)
    if kind == "exact":
        index = index.exact()
    if index.recall is not None:
        asked.say(
            f"the inverted file finds {index.recall:.1%} of the ten nearest images of a text, measured on "
            "these images; --index exact looks at all of them"
        )
    return index


def _pair(where: str) -> tuple[str, str]:
    column, equals, value = where.partition("=")
    if not equals or not column:
        raise RequestError(f"--where is COLUMN=VALUE, not {where!r}")
    return column, value


def _bytes(source: str) -> int:
    """Of a file of vectors, or of the files in a folder of them."""
    from nshot.embeddings import is_parts
    from nshot.objects import open_folder

    if is_parts(source):
        return sum(open_folder(source).files().values())
    return Path(source).stat().st_size


def _filtered(
    model: Model, asked: Asked, only: Sequence[str], wanted: Sequence[tuple[str, str]]
) -> Iterable[Any] | None:
    """The listing without what the filters leave out; None where nothing is filtered."""
    from nshot.embeddings import is_parts, is_vector_file

    if not wanted and (not only or all(map(is_parts, asked.sources))):
        return None  # the labels of vectors are with them
    found: list[Any] = []
    for spec in asked.sources:
        if is_vector_file(spec):
            if wanted:
                raise RequestError(f"--where filters the rows of a table, and {spec} is a file of vectors")
            found += model.sources([spec])
            continue
        listed: list[Any] = list(
            asked.listing.labelled([spec], Remarks())
            if only
            else asked.listing.open(model, [spec], Remarks())
        )
        if only:
            listed = [item for item in listed if set(item.labels or ()) & set(only)]
        if wanted:
            rows = list(asked.listing.open(model, [spec], Remarks())) if only else listed
            kept = {_name(item) for item in _rows_with(spec, rows, wanted)}
            listed = [item for item in listed if _name(item) in kept]
        found += listed
    if not found:
        raise RequestError("the filters leave no image to search")
    return found


def _name(item: Any) -> str:
    return str(item.source if isinstance(item, Failure) else item.name)


def _rows_with(spec: str, listed: list[Any], wanted: Sequence[tuple[str, str]]) -> list[Any]:
    """Of a table's images those whose row holds these values."""
    from nshot.images.tables import is_table, open_table

    if not is_table(spec):
        raise RequestError(f"--where filters the rows of a table, and {spec} is none")
    table = open_table(Path(spec))
    columns = [table.column(column, (), "") for column, _ in wanted]
    rows = list(table.rows(*columns))
    if len(rows) != len(listed):
        raise RequestError(
            f"{spec} has {len(rows)} rows and {len(listed)} images: --where needs one image per row"
        )
    values = [value for _, value in wanted]
    return [item for item, row in zip(listed, rows, strict=True) if [str(cell) for cell in row] == values]
