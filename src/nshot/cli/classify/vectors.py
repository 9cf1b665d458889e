"""``nshot classify`` of large folders of vectors into a file or onto standard output."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from nshot.cli.classify.request import Request
from nshot.cli.options import progress, tell_failure
from nshot.errors import RequestError

if TYPE_CHECKING:
    from nshot.classifier.classifier import Classifier
    from nshot.distributed.into_file import Written
    from nshot.embeddings import Parts
    from nshot.output.sinks.sink import Sink


def classify(
    request: Request, sink: Sink, folders: Sequence[Parts], classifier: Classifier, top_k: int
) -> int:
    """Ask a row group at a time, and write its answers as a whole."""
    from nshot.cli.classify.images import summed_up
    from nshot.distributed.into_file import ask_into

    def size(written: Written) -> int:
        return written.rows

    quiet = request.quiet
    on_screen = request.output is None and sys.stdout.isatty()
    answered = sink.recalled.count
    written = ask_into(sink, folders, classifier, top_k)
    for block in progress(written, shown=not (quiet or on_screen), skipped=answered, count=size):
        answered += block.rows
        if not (quiet or on_screen):
            for failure in block.failures:
                tell_failure(failure)
    if not answered:
        raise RequestError(f"no image in {' '.join(request.sources)}")
    return summed_up(request, sink, answered)
