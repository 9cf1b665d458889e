"""Folders of vectors asked into folders of answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nshot.cli.options import progress, tell_failure
from nshot.cli.options.talk import echo
from nshot.errors import RequestError
from nshot.paths import as_url
from nshot.types import Failure

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.model import Model


def is_folder_of_answers(sources: Sequence[str], output: Path | None, format: str | None) -> bool:
    """Whether a folder of vectors is asked, and its answers go into a folder too."""
    if output is None or format not in (None, "parquet") or output.suffix or len(sources) != 1:
        return False
    if output.exists() and not output.is_dir():
        return False
    from nshot.embeddings import is_parts

    return is_parts(sources[0])


def ask_folder(
    source: str,
    output: Path,
    model: Model,
    classifier: Classifier,
    top_k: int,
    ray: str | None,
    *,
    quiet: bool,
) -> int:
    """Answer every part; what was answered by an earlier run of the same request is left as it is."""
    from nshot.classifier import bulk
    from nshot.distributed.asking import Asking
    from nshot.embeddings import Parts

    if not bulk.can(classifier):
        raise RequestError(
            "a folder of answers holds the labels' scores alone: for answers with a decision name a file, "
            "such as -o answers.jsonl"
        )
    parts = Parts(source)
    model.check_space(parts.recipe, parts.model, f"the vectors in {parts.name}")
    asking = Asking(parts, as_url(output), classifier, top_k)
    answered = asking.run()
    if ray is not None:
        from nshot.distributed.run import share_out_asking

        answered = share_out_asking(source, as_url(output), classifier, ray, top_k=top_k)
    rows = failed = kept = faults = 0
    for part in progress(answered, shown=not quiet, unit=" shards"):
        rows, failed, kept = rows + part.rows, failed + part.failed, kept + (not part.made)
        if part.fault is not None:
            faults += 1
            if not quiet:
                tell_failure(Failure(asking.vectors.folder.path(f"shard {part.shard}"), "", part.fault))
    if failed or faults or kept:
        said = f"nshot: {rows:,} images, {rows - failed:,} answered, {failed:,} failed"
        said += f", {faults:,} shards not read" if faults else ""
        echo(said + (f", {kept:,} shards were answered before" if kept else ""), err=True)
    echo(f"{rows - failed:,} answers: {asking.folder.name}")
    return 1 if failed or faults else 0
