"""What ``nshot calibrate`` says of its figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nshot.decision import CalibrationReport


def told(figures: CalibrationReport) -> str:
    """The figures for a person."""
    lines = [f"{figures.images:,} images of the labels, {percent(figures.accuracy)} of them right", ""]
    if figures.after is not None:
        before, after = figures.before, figures.after
        lines += [
            "the scores are kept as they are: calibrating them does not surely help"
            if figures.temperature is None
            else f"temperature {figures.temperature:.3f}"
            + (f", bias {figures.bias:.3f}" if figures.bias else ""),
            "                              as it is   calibrated (held out)",
            f"negative log-likelihood       {before.nll:8.3f}   {after.nll:10.3f}",
            f"expected calibration error    {before.ece:8.3f}   {after.ece:10.3f}",
            f"Brier score                   {before.brier:8.3f}   {after.brier:10.3f}",
            "",
        ]
    if figures.rules:
        against = (
            f"{figures.none_images:,} images of none of them"
            if figures.none_images
            else "the same images, their own label left out"
        )
        lines += [f"none of these, against {against}", "rule            AUROC   FPR at 95 % TPR"]
        for rule in sorted(figures.rules, key=lambda rule: -rule.auroc):
            mark = "*" if rule.rule == figures.rule else " "
            lines.append(f"{mark} {rule.rule:12}  {rule.auroc:.3f}   {rule.fpr95:.3f}")
        if figures.threshold is not None and figures.kept is not None and figures.accepted is not None:
            lines.append(
                f"threshold {figures.threshold:.4f}: {percent(figures.kept)} of the labels' images are "
                f"answered, and {percent(figures.accepted)} of the others (held out)"
            )
        lines.append("")
    lines.append(f"only the surest (area under risk against coverage {figures.area:.4f})")
    lines += [f"answer {percent(c)}: {percent(risk)} wrong" for c, risk in figures.risks]
    lines += [
        "",
        f"sets of labels for {percent(figures.coverage)}: {percent(figures.covered)} hold the right one "
        f"(held out), {figures.set_size:.2f} labels on average, {percent(figures.empty)} empty",
    ]
    return "\n".join(lines)


def percent(share: float) -> str:
    """A share as a person reads it."""
    return f"{100 * share:.1f} %"
