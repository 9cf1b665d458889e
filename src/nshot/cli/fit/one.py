"""``nshot fit`` of one label per image."""

from __future__ import annotations

from nshot.cli.data import embed, tell_failures
from nshot.cli.fit.request import Request
from nshot.cli.fit.telling import beyond, told
from nshot.cli.options import say
from nshot.cli.options.talk import echo
from nshot.cli.prompted import Prompted, embed_prompted
from nshot.cli.twice import in_test_part, tell_otherwise_labelled, tell_shared


def fit(request: Request) -> int:
    """Learn from the examples, say what was chosen, and save the classifier."""
    from nshot.few_shot.examples import fit

    data_options, quiet = request.data_options, request.quiet
    prompted = embed_prompted(data_options, request.label_options, request.model_options, quiet=quiet)
    _tell_twice(prompted, request)
    fitted = fit(prompted.examples, prompted.zero, **request.learning())
    fitted.save(request.output)
    echo(told(fitted.report, every=request.verbose))
    if not quiet and (said := beyond(prompted, fitted.report, data_options.data)):
        echo(said)
    echo(f"\n{request.output}")
    failures = list(prompted.examples.failures.values())
    return tell_failures(failures, len(prompted.examples), quiet=quiet)


def _tell_twice(prompted: Prompted, request: Request) -> None:
    """Examples that are there twice: under two labels, or in the test data too."""
    data, quiet = request.data_options, request.quiet
    so = "figures measured there will flatter this classifier"
    tell_otherwise_labelled(prompted.examples, quiet=quiet)
    if request.test is not None:
        given = request.label_options.given(quiet=True, alone=True)
        measured = data.open_other(request.test, request.model_options, given, quiet=quiet)
        tell_shared(prompted.examples, embed(prompted.model, measured, quiet=quiet), request.test, so)
    elif not quiet and (same := in_test_part(prompted.examples, data, request.model_options)):
        many = "1 image is" if len(same) == 1 else f"{len(same):,} images are"
        say(f"WARNING: {many} in the test part of {data.data} too, such as {same[0]}: {so}")
