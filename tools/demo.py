"""The main job, offline, on any machine: ``make demo``.

Draws two dozen images that the shipped checkpoint has never seen, classifies them with labels in plain
words, prints the table and writes one page, demo/index.html.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import nshot
from nshot import sketchbook
from nshot.output.sinks import open_sink
from nshot.pages.report import Card, Figure, cards, facts, headline, page, paragraph, section, thumbnail

OUT = Path(os.path.relpath(Path(__file__).parents[1] / "demo"))
SIDE = 4 * sketchbook.SIZE


def main() -> None:
    begun = time.perf_counter()
    images = OUT / "images"
    images.mkdir(parents=True, exist_ok=True)
    for old in images.glob("*.png"):
        old.unlink()
    exhibits = sketchbook.exhibition()
    files = []
    for number, exhibit in enumerate(exhibits, 1):
        files.append(images / f"{number:02}-{exhibit.label.replace(' ', '-')}.png")
        sketchbook.draw(exhibit.scene, SIDE).save(files[-1])

    clip = nshot.load("sketchbook")
    labels = [f"{colour} {shape}" for colour, shape in sketchbook.PAIRS]
    classifier = nshot.zero_shot(clip, labels)
    answers = classifier.predict(clip.embed_images(files), top_k=3)
    seconds = time.perf_counter() - begun

    print(
        f"{len(files)} drawings, {len(labels)} labels such as {labels[0]!r}, the shipped model sketchbook:\n"
    )
    with open_sink("table", top_k=1) as sink:
        for answer in answers:
            if isinstance(answer, nshot.Prediction):
                answer = replace(answer, predictions=answer.predictions[:1])
            sink.write(answer)

    right = sum(_label(answer) == exhibit.label for answer, exhibit in zip(answers, exhibits, strict=True))
    (OUT / "index.html").write_text(_page(exhibits, files, answers, right, len(labels), seconds), "utf-8")
    print(
        f"\n{right} of {len(files)} right, in {seconds:.1f} s. The page: {OUT / 'index.html'}"
        "\n\nsketchbook knows this small world of drawings, and nothing of photographs. On your own:\n"
        '\n    .venv/bin/nshot classify your-photos/ --labels "cat, dog, hot dog"\n'
        "\nwhich takes openai/clip-vit-base-patch32 from the Hugging Face Hub (605 MB, once)."
    )


def _page(
    exhibits: list[sketchbook.Exhibit],
    files: list[Path],
    answers: Sequence[nshot.Prediction | nshot.Failure],
    right: int,
    labels: int,
    seconds: float,
) -> str:
    shown: dict[str, list[Card]] = {"pair": [], "style": []}
    for exhibit, file, answer in zip(exhibits, files, answers, strict=True):
        shown[exhibit.novelty].append(_card(exhibit, file, answer))
    return page(
        "Drawings that the model has never seen",
        (
            headline(
                Figure(f"{right} of {len(files)}", "right", f"chance would be 1 in {labels}"),
                Figure(str(labels), "labels", "in plain words; any others would do"),
                Figure(f"{seconds:.1f} s", "for all of it", "drawing, loading, encoding, answering"),
            )
        ),
        section(
            "New combinations",
            cards(shown["pair"]),
            note="Training saw each of these colours and each of these shapes, but never together.",
        ),
        section(
            "A new style",
            cards(shown["style"]),
            note="Training saw no pixelated drawing at all.",
        ),
        section(
            "What this is",
            paragraph(
                "Scores are shares of a softmax over the given labels, not probabilities. The model, "
                "sketchbook, ships with nshot so that it can be tried without a download; it knows its small "
                "world of drawings and nothing of photographs."
            ),
            facts({"your own photographs": 'nshot classify your-photos/ --labels "cat, dog, hot dog"'}),
        ),
        subtitle="nshot, zero-shot: labels in plain words, no training on them, no torch, no network.",
    )


def _card(exhibit: sketchbook.Exhibit, file: Path, answer: nshot.Prediction | nshot.Failure) -> Card:
    if isinstance(answer, nshot.Failure):
        return Card(None, answer.type, [answer.message], "bad", file.name)
    fits = answer.label == exhibit.label
    lines = [f"{told.label}  {told.score:.2f}" for told in answer.predictions]
    return Card(
        thumbnail(sketchbook.draw(exhibit.scene, SIDE)),
        "right" if fits else f"wrong: a {exhibit.label}",
        lines,
        "good" if fits else "bad",
        file.name,
    )


def _label(answer: nshot.Prediction | nshot.Failure) -> str | None:
    return answer.label if isinstance(answer, nshot.Prediction) else None


if __name__ == "__main__":
    main()
