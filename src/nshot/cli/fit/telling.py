"""What ``nshot fit`` says of what it found."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nshot.cli.prompted import Prompted
    from nshot.few_shot import Fitted
    from nshot.few_shot.choose import Trial

_ENOUGH = 0.98  # right on held-out images


def told(fitted: Fitted, *, every: bool) -> str:
    """The report for a person: examples, candidates on held-out examples, the choice and why."""
    counts = fitted.examples.values()
    lines = [f"{sum(counts):,} images of {len(counts)} labels, {min(counts)} to {max(counts)} each", ""]
    if fitted.trials:
        lines.append("method           held-out right   against zero-shot")
        best: dict[str, Trial] = {}
        for trial in fitted.trials:
            key = str(trial.candidate) if every else trial.candidate.method
            leads = key not in best or trial.right > best[key].right or trial.candidate == fitted.candidate
            if leads and not (key in best and best[key].candidate == fitted.candidate):
                best[key] = trial
        for trial in best.values():
            mark = "*" if trial.candidate == fitted.candidate else " "
            line = f"{mark} {trial.candidate!s:14} {100 * trial.accuracy:6.1f} %"
            if fitted.zero_shot not in (None, trial):
                line += f"        {100 * trial.gain:+5.1f} ± {196 * trial.error:.1f} points"
            lines.append(line)
        lines.append("")
    lines.append(f"chosen: {fitted.candidate}; {fitted.reason}")
    return "\n".join(lines)


def beyond(prompted: Prompted, fitted: Fitted, data: str) -> str:
    """Whether more images would help, and else what fine-tuning would cost; "" where there are too few."""
    from nshot.few_shot.growth import fine_tuning_cost, growth
    from nshot.labels.prompts import write_prompts

    examples = prompted.examples
    found = growth(examples.vectors, examples.label, fitted, prompted.zero)
    if found is None:
        return ""
    said = (
        f"with half of the images {100 * found.half:.1f} %, with all of them {100 * found.whole:.1f} % of "
        f"{found.images} held-out ones ({100 * found.low:+.1f} to {100 * found.high:+.1f} points): "
    )
    if found.grows:
        return said + "more images still help, and do so sooner than fine-tuning"
    if found.whole >= _ENOUGH:
        return said + "little is left to win"
    prompts = [text for each in write_prompts(list(fitted.classifier.labels)) for text in each.prompts]
    cost = fine_tuning_cost(prompted.model, len(examples), prompts)
    return (
        f"{said}more images like these help little. A larger model may (nshot models), or fine-tuning: at "
        f"least {_time(cost.whole)} of processor time here for all weights, {_time(cost.text)} for the text "
        f"tower, which\nnshot curve {data} --fine-tune measures beside this classifier"
    )


def _time(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(1, seconds):.0f} s"
