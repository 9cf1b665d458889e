"""Options together: of every pair each one acts, or the pair is refused by name; none is passed over."""

from __future__ import annotations

import hashlib
import json
from itertools import combinations
from pathlib import Path

import pytest
from commands import Cli

import nshot
from nshot.decision import EVERYDAY
from nshot.server.session import Journal
from nshot.sketchbook import COLOURS, SHAPES, draw, sample

MODEL = ("--model", "sketchbook", "--precision", "f32")
LABELS = ("--labels", ", ".join(SHAPES))
ROUND = ("circle", "ring", "crescent", "heart")
ASKS = {"facets", "tree", "classifier", "labels"}  # each says what is asked

OPTIONS: dict[str, tuple[str, ...]] = {
    "facets": ("--facets", "facets.json"),
    "tree": ("--tree", "tree.json"),
    "classifier": ("--classifier", "calibrated.nshot"),
    "multi": ("--multi",),
    "first": ("--first", "f32-small"),
    "journal": ("--journal", "journal.jsonl"),
    "corrected": ("--corrected",),
    "facet": ("--facet", "shape"),
    "adapt": ("--adapt",),
    "rank": ("--rank", "1"),
    "template": ("--template", "one {} here"),
    "background": ("--background", "a blank page, noise"),
    "reject": ("--reject", "background", "--threshold", "0.17"),  # which half of the drawings reach
    "threshold": ("--threshold", "0.3"),
    "coverage": ("--coverage", "0.6"),
    "surest": ("--surest", "0.5"),
    "wrong": ("--wrong", "0.4"),
    "sets": ("--sets", "adaptive"),
    "none": ("--none", "others"),
    "table": ("--table", "t.csv"),
    "test": ("--test", "t.csv"),
    "method": ("--method", "probe"),
    "label-column": ("--label-column", "kind"),
    "training": ("--training", "t.csv"),
    "boxes": ("--boxes", "boxes.json"),
}
COMMANDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "classify": (
        ("t.csv", "--format", "jsonl"),
        ("facets", "tree", "classifier", "multi", "first", "journal", "corrected", "facet", "adapt", "rank",
         "template", "background", "reject", "threshold", "coverage"),
    ),
    "evaluate": (
        ("t.csv", "-o", "report"),
        ("facets", "tree", "classifier", "multi", "first", "rank", "template", "background", "reject",
         "threshold", "coverage", "training", "boxes"),
    ),
    "calibrate": (
        ("t.csv", "-o", "out.nshot"),
        ("facets", "tree", "classifier", "multi", "first", "template", "background", "reject", "wrong",
         "coverage", "surest", "sets", "none"),
    ),
    "fit": (
        ("t.csv", "-o", "out.nshot"),
        ("facets", "tree", "multi", "journal", "facet", "template", "test", "method", "label-column"),
    ),
    "tag": (
        ("t.csv",),
        ("classifier", "multi", "first", "journal", "background", "reject", "threshold", "coverage",
         "table"),
    ),
    "sort": (
        ("t.csv", "sorted"),
        ("classifier", "multi", "first", "journal", "background", "reject", "threshold", "coverage",
         "table"),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Drawings in a table, and a file for each option that names one."""
    made = tmp_path_factory.mktemp("together")
    rows, digests = ["image,label,shape,colour,kind"], {}
    for number in range(48):
        scene = sample(9_500_000_000_000 + number, several=0)
        draw(scene).save(made / f"{number}.png")
        thing = scene.things[0]
        kind = "circle" if thing.shape == "ring" else thing.shape
        rows.append(f"{number}.png,{thing.shape},{thing.shape},{thing.colour},{kind}")
        if number % 3:
            continue
        digests[hashlib.sha256((made / f"{number}.png").read_bytes()).hexdigest()] = thing.shape
    (made / "t.csv").write_text("\n".join(rows))
    (made / "facets.json").write_text(json.dumps({"shape": list(SHAPES), "colour": list(COLOURS)}))
    tree = {"round": list(ROUND), "other": [name for name in SHAPES if name not in ROUND]}
    (made / "tree.json").write_text(json.dumps(tree))
    journal = Journal(made / "journal.jsonl")
    for number, (digest, shape) in enumerate(digests.items()):
        label = shape if number else "star"
        journal.append([{"id": f"{number}", "digests": [digest], "now": {"label": label}}], by="ann")
        act = {"id": f"{number}f", "digests": [digest], "now": {"label": "ring"}, "facet": "shape"}
        journal.append([act], by="ann")
    journal.close()
    (made / "others").mkdir()
    for number in range(24):
        draw(sample(9_510_000_000_000 + number)).save(made / "others" / f"{number}.png")
    clip = nshot.load("sketchbook", precision="f32")
    images = clip.embed([str(made / f"{number}.png") for number in range(48)])
    labelled = images.with_labels([row.split(",")[1] for row in rows[1:]])
    zero = nshot.zero_shot(clip, list(SHAPES), ["a {} on a page"])
    words = nshot.zero_shot(clip, EVERYDAY).matrix
    calibrated = nshot.calibrate(zero, labelled, background=words, wrong=0.4)
    calibrated.save(made / "calibrated.nshot")
    (made / "boxes.json").write_text("[]")
    return made


def _done(cli: Cli, folder: Path, command: str, names: frozenset[str]) -> tuple[int, str, str]:
    """The status, all that came of it, and what was said on stderr."""
    given, _ = COMMANDS[command]
    (folder / "out.nshot").unlink(missing_ok=True)
    (folder / "report").mkdir(exist_ok=True)
    (folder / "report" / "report.json").write_text("{}")
    own: dict[str, tuple[str, ...]] = {}
    if command == "calibrate":
        own = {"reject": ("--reject", "cosine")}
    if command in ("tag", "sort"):  # whose rule is the background's anyway
        own = {"reject": ("--reject", "cosine", "--threshold", "0.588"), "threshold": ("--threshold", "0.3")}
    options = [word for name in sorted(names) for word in own.get(name, OPTIONS[name])]
    if command in ("tag", "sort") and "table" not in names:
        options = [*OPTIONS["reject"][2:], *options]
    known = command in ("fit", "calibrate", "evaluate") and "journal" not in names  # the data's labels
    if not names & ASKS and not known and "table" not in names:
        options += LABELS
    code, out, err = cli(command, *given, *options, *MODEL, cwd=folder)
    made = (folder / "out.nshot").read_bytes() if (folder / "out.nshot").exists() else b""
    report = json.loads((folder / "report/report.json").read_text()) if command == "evaluate" else {}
    report.get("run", {}).pop("date", None)
    return code, f"{out}{err}{hashlib.sha256(made).hexdigest()}{json.dumps(report)}", err


@pytest.mark.parametrize("command", COMMANDS)
def test_of_two_options_each_acts_or_the_pair_is_refused_by_name(
    command: str, cli: Cli, folder: Path
) -> None:
    names = COMMANDS[command][1]
    alone = {name: _done(cli, folder, command, frozenset([name])) for name in names}
    silent = []
    for one, other in combinations(names, 2):
        code, came, err = _done(cli, folder, command, frozenset([one, other]))
        if code == 2:
            if f"--{one}" not in err and f"--{other}" not in err:
                silent.append(f"--{one} --{other} refused without a name: {err.splitlines()[-1]}")
            continue
        for given, more in ((one, other), (other, one)):
            if alone[given][0] != 2 and came == alone[given][1]:
                silent.append(f"--{more} does nothing beside --{given}")
    assert not silent, "\n".join(silent)
