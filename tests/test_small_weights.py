"""``--precision f32-small``: weights in 8 bits, arithmetic in f32, in every command that has a model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from commands import Cli

import nshot
from nshot.sketchbook import SHAPES, draw, sample

SMALL = ("--model", "sketchbook", "--precision", "f32-small", "--no-store")
LABELS = ("--labels", ", ".join(SHAPES))

COMMANDS: dict[str, tuple[str, ...]] = {
    "classify": ("t.csv", *LABELS, "--format", "jsonl"),
    "classify with heatmaps": ("t.csv", *LABELS, "--heatmaps", "maps", "--format", "jsonl"),
    "classify with facets": ("t.csv", "--facets", "facets.json", "--format", "jsonl"),
    "classify with a tree": ("t.csv", "--tree", "tree.json", "--format", "jsonl"),
    "classify a folder of vectors": ("vectors/", *LABELS, "-o", "answers/"),
    "evaluate": ("t.csv", "-o", "report"),
    "calibrate": ("t.csv", "-o", "out.nshot", "--reject", "off"),
    "fit": ("t.csv", "-o", "out.nshot"),
    "embed": ("t.csv", "-o", "v.npz"),
    "embed into shards": ("t.csv", "-o", "vectors/", "--shard-size", "12"),
    "search": ("t.csv", "--text", "a red circle"),
    "cluster": ("t.csv", "-k", "3"),
    "duplicates": ("t.csv",),
    "next": ("t.csv", "--classifier", "few.nshot"),
    "tag": ("t.csv", *LABELS),
    "sort": ("t.csv", "sorted", *LABELS),
    "locate": ("0.png", *LABELS),
    "doctor": (),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("small")
    rows = ["image,label"]
    for number in range(24):
        scene = sample(9_700_000_000_000 + number, several=0)
        draw(scene).save(made / f"{number}.png")
        rows.append(f"{number}.png,{SHAPES[number % 2]}")
    (made / "t.csv").write_text("\n".join(rows))
    (made / "facets.json").write_text(json.dumps({"shape": list(SHAPES), "tone": ["dark", "light"]}))
    (made / "tree.json").write_text(json.dumps({"thing": list(SHAPES)}))
    clip = nshot.load("sketchbook", precision="f32", store=False)
    nshot.zero_shot(clip, SHAPES).save(made / "few.nshot")  # of f32: the weights are the same
    return made


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_computes_with_small_weights(name: str, cli: Cli, folder: Path) -> None:
    if name == "classify a folder of vectors":
        assert cli("embed", *COMMANDS["embed into shards"], *SMALL, cwd=folder).code == 0
    code, out, err = cli(name.split()[0], *COMMANDS[name], *SMALL, cwd=folder)
    assert code == 0, err
    assert out or err
    if name == "doctor":
        assert "f32-small" in out


def test_its_vectors_are_near_f32_s_and_are_kept_apart_from_them(folder: Path, tmp_path: Path) -> None:
    small, exact = (
        nshot.load("sketchbook", precision=name, store=tmp_path / "s") for name in ("f32-small", "f32")
    )
    one, other = small.embed(str(folder / "t.csv")).vectors, exact.embed(str(folder / "t.csv")).vectors
    cosines = (one * other).sum(axis=1)
    assert cosines.min() > 0.999
    assert not np.array_equal(one, other)
    assert small.recipe.digest != exact.recipe.digest
    assert small.recipe.space == exact.recipe.space


def test_on_a_gpu_it_is_refused_by_name(cli: Cli, folder: Path) -> None:
    code, _, err = cli("classify", "0.png", *LABELS, *SMALL, "--device", "cuda", cwd=folder)
    assert code == 2
    assert "f32-small is for OpenVINO on the CPU, not for cuda" in err
