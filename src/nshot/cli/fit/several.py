"""``nshot fit`` of several labels per image: a probe and a threshold for each label."""

from __future__ import annotations

from nshot.cli.fit.request import NO_DECISION, PREFERRED, Request
from nshot.cli.options.talk import echo
from nshot.cli.refusing import leave_out
from nshot.cli.several import tell, zero_shot_of


def fit(request: Request) -> int:
    """Learn every label from the images that show it, say the figures, and save the classifier."""
    from nshot.few_shot.examples import fit

    leave_out(
        "with several labels per image there is one method",
        method=request.method,
        strength=request.strength,
    )
    _, zero, images = zero_shot_of(
        request.data_options,
        request.label_options,
        NO_DECISION,
        request.model_options,
        prefer=PREFERRED,
        quiet=request.quiet,
    )
    fitted = fit(images, zero, multi=True, seed=request.seed)
    status = tell(fitted, images, quiet=request.quiet)
    fitted.save(request.output)
    echo(f"\n{request.output}")
    return status
