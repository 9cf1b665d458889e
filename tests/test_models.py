"""Which model: the table, comparing some on labelled images, and a model's figures against published ones."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from checkpoints import tiny_checkpoint
from click.testing import CliRunner
from layouts import tiny_siglip
from PIL import Image

import nshot
from nshot.cli import cli, run
from nshot.errors import RequestError
from nshot.evaluation.models import (
    Verified,
    compare_models,
    frontier,
    verify,
    verify_photographs,
    verify_tokens,
)
from nshot.models.catalogue import CATALOGUE, SHORT, entry, full_name
from nshot.models.references import REFERENCES, Reference, drawing, photographs
from nshot.models.tokenizer import Tokenizer


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSHOT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for label, colour in (("cat", (200, 40, 40)), ("dog", (40, 40, 200))):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(4):
            image = Image.new("RGB", (50 + number, 40), colour)
            image.save(tmp_path / "photos" / label / f"{number}.png")
    return tmp_path / "photos"


def test_the_table_lists_models_with_short_names_and_whether_they_are_cached() -> None:
    output = CliRunner().invoke(cli, ["models"]).output
    assert "siglip2-b16" in output
    assert "openai/clip-vit-base-patch32" in output
    assert len(SHORT) == len(CATALOGUE) >= 25, "no short name twice"
    assert len({each.id for each in CATALOGUE}) == len(CATALOGUE)


def test_a_short_name_stands_for_its_id_and_other_names_for_themselves() -> None:
    assert full_name("siglip2-b16") == "google/siglip2-base-patch16-224"
    assert full_name("owner/model") == "owner/model"
    known = entry("google/siglip2-base-patch16-224")
    assert known is not None
    assert not known.restricted
    assert all(each.restricted == ("NC" in each.licence or "Apple" in each.licence) for each in CATALOGUE)


def test_models_are_compared_on_the_same_labelled_images(tmp_path: Path, photos: Path) -> None:
    one, other = str(tiny_checkpoint(tmp_path / "one")), str(tiny_siglip(tmp_path / "other"))
    examples = [(path, path.parent.name) for path in sorted(photos.rglob("*.png"))]

    def embed(embedder: nshot.embedder.Embedder) -> nshot.Embeddings:
        found = embedder.embed([path for path, _ in examples])
        return found.with_labels([label for _, label in examples])

    rows = compare_models([one, other], lambda name: nshot.load(name), embed, seconds=0.01)
    assert [row.name for row in rows] == [one, other]
    assert rows[0].gain is None
    gain = rows[1].gain
    assert gain is not None
    assert gain.low <= rows[1].top1 - rows[0].top1 <= gain.high
    assert all(row.interval.low <= row.top1 <= row.interval.high for row in rows)
    assert all(row.images == 8 and row.images_per_second > 0 for row in rows)
    assert frontier(rows).startswith("<svg")
    with pytest.raises(RequestError, match="two models or more"):
        compare_models([one, one], lambda name: nshot.load(name), embed)


def test_compare_prints_a_row_per_model_and_writes_a_chart(tmp_path: Path, photos: Path) -> None:
    models = [str(tiny_checkpoint(tmp_path / name, seed=seed)) for seed, name in enumerate(("one", "two"))]
    chart = tmp_path / "chart.svg"
    result = CliRunner().invoke(
        cli, ["models", "compare", str(photos), "--models", ",".join(models), "-o", str(chart), "--no-store"]
    )
    assert result.exit_code == 0, result.output
    assert all(model in result.output for model in models)
    assert "points" in result.output
    assert chart.read_text().startswith("<svg")


def test_verify_says_whether_a_model_gives_the_published_figures(tmp_path: Path) -> None:
    model = nshot.load(tiny_siglip(tmp_path / "m"), precision="f32")
    image = model.embed([drawing()]).vectors[0].astype(float)
    texts = model.embed_texts(["a cat", "the dog"]).astype(float)
    logits = tuple(math.exp(4.7) * float(text @ image) - 12.5 for text in texts)
    right = Reference("drawn", model.name, None, ("a cat", "the dog"), logits, 1e-3, "here")
    wrong = right._replace(logits=(logits[0] + 0.1, logits[1]))
    absent = right._replace(image="not-there.png")
    elsewhere = right._replace(model="another/model")
    found = verify(model, tmp_path, [right, wrong, absent, elsewhere])
    assert [each.agrees for each in found] == [True, False, None]


def test_verify_compares_photographs_with_their_recorded_vectors(tmp_path: Path, photos: Path) -> None:
    """A stand-in for the default model, whose weights are not here: the same comparison, on tiny weights."""
    model = nshot.load(tiny_checkpoint(tmp_path / "m"), precision="f32")
    files = sorted((photos / "cat").glob("*.png"))
    vectors = model.embed(files).vectors
    places = range(0, vectors.shape[1], 2)
    recorded = {
        file.name: {k: float(row[k]) for k in places} for file, row in zip(files, vectors, strict=True)
    }
    recorded["absent.png"] = recorded["0.png"]
    recorded["3.png"] = {k: value + 0.1 for k, value in recorded["3.png"].items()}
    (photos / "cat" / "2.png").write_bytes(b"no image")
    found = verify_photographs(model, photos / "cat", recorded)
    agrees = {each.name: each.agrees for each in found}
    assert agrees == {"0.png": True, "1.png": True, "2.png": None, "3.png": False, "absent.png": None}
    assert all(each.off is None for each in verify_photographs(model, None, recorded))
    assert verify_photographs(model, photos / "cat") == (), "of another model nothing is recorded"


def test_the_recorded_photographs_are_parts_of_unit_vectors() -> None:
    recorded = photographs()
    assert len(recorded) == 25
    for numbers in recorded.values():
        assert list(numbers) == list(range(0, 512, 16))
        assert 0.1 < math.hypot(*numbers.values()) < 0.35, "about a sixteenth of a unit vector's square"


def test_verify_by_the_command_tells_of_each_photograph_that_differs(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = str(tiny_checkpoint(tmp_path / "m"))
    monkeypatch.setattr("nshot.evaluation.models.PHOTOGRAPHS", folder)
    monkeypatch.setattr(
        "nshot.evaluation.models.photographs", lambda: {"0.png": {0: 1.0, 1: 1.0}, "no.png": {0: 1.0}}
    )
    output = CliRunner().invoke(cli, ["models", "verify", folder, "--images", str(photos / "cat")]).output
    assert "photographs: 2 vectors" in output
    assert "not compared: 1; give their folder" in output
    assert "0.png: off by" in output
    assert "0 of 1 agree" in output


def test_verify_runs_for_the_model_that_comes_with_nshot_and_without_a_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    result = CliRunner().invoke(cli, ["models", "verify", "sketchbook"])
    assert result.exit_code == 0, result.output
    assert "'a red circle': here 5.2" in result.output
    assert "DIFFERS" not in result.output


@pytest.mark.parametrize(("star", "status"), [(-1.0, 0), (9.0, 1)])
def test_verify_needs_no_file_for_what_needs_none(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    star: float,
    status: int,
) -> None:
    """A stand-in for a published model whose weights are not here: its references' image is not either."""
    folder = str(tiny_checkpoint(tmp_path / "m"))
    absent = Verified(Reference("cats", folder, "cats.png", ("a cat",), (24.6,), 1e-2, "its tests"), None)
    monkeypatch.setattr("nshot.evaluation.models.verify", lambda *_: (absent,))
    monkeypatch.setattr("nshot.evaluation.models.drawn_logits", lambda _: (3.0, 2.0, 1.0, star))
    assert run(["models", "verify", folder]) == status
    said = capsys.readouterr().out
    assert "not compared: give the folder of cats.png with --images" in said
    assert ("COMES FIRST" in said) == bool(status)
    assert run(["models", "verify", folder, "--images", str(tmp_path)]) == 1


def test_the_ids_of_clips_own_vocabulary_are_the_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    skeleton = Path(__file__).parents[2] / "shared" / "data" / "clip-vit-base-patch32"
    if not skeleton.is_dir():
        pytest.skip("the vocabulary is not here")
    model: Any = nshot.load("sketchbook")
    assert verify_tokens(model) == {}
    monkeypatch.setattr("nshot.evaluation.models.TOKENS_OF", ("sketchbook",))
    assert set(verify_tokens(model).values()) == {False}
    published = Tokenizer.from_files(skeleton / "tokenizer.json", None, None, context=77)
    stand_in: Any = SimpleNamespace(checkpoint=model.checkpoint, tokenizer=published)
    assert set(verify_tokens(stand_in).values()) == {True}


def test_verify_by_the_command_refuses_what_nothing_is_published_for(tmp_path: Path) -> None:
    folder = tiny_checkpoint(tmp_path / "m")
    result = CliRunner().invoke(cli, ["models", "verify", str(folder)])
    assert result.exit_code != 0
    message = str(result.exception) + result.output
    assert "the drawing: nothing is recorded for this model" in message
    assert "'a yellow star': here" in message
    assert "no published figures" in message
    assert all(reference.model in message for reference in REFERENCES)
