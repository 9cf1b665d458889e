"""Published data sets in CLIP_benchmark's layout: from a folder, and from the Hub."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from checkpoints import tiny_checkpoint
from click.testing import CliRunner
from hub_server import hub_server
from PIL import Image

from nshot.cli import cli
from nshot.datasets.clip_benchmark import SETS
from nshot.datasets.labelled import open_labelled
from nshot.errors import SourceError
from nshot.models.catalogue import CATALOGUE, published


def shard(path: Path, members: dict[str, bytes]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))


def picture(shade: int) -> bytes:
    image = Image.fromarray(np.random.default_rng(shade).integers(0, 256, (20, 24, 3), np.uint8))
    image.save(buffer := io.BytesIO(), "WEBP", lossless=True)
    return buffer.getvalue()


def array(values: list[int]) -> bytes:
    np.save(buffer := io.BytesIO(), np.array(values))
    return buffer.getvalue()


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    root = tmp_path / "wds_pets"
    for number in range(2):
        members: dict[str, bytes] = {}
        for image in range(3):
            members |= {
                f"s{image}.cls": str(image % 2).encode(),
                f"s{image}.webp": picture(3 * number + image),
            }
        shard(root / "test" / f"{number}.tar", members)
    (root / "test" / "nshards.txt").write_text("2\n")
    (root / "classnames.txt").write_text("red cat\nblue dog\n")
    (root / "zeroshot_classification_templates.txt").write_text("a photo of a {c}.\na {c}\n")
    return root


@pytest.mark.parametrize("count", ["²", "9" * 5000, "-1", "x"])
def test_a_number_of_shards_that_is_none_is_an_error(pets: Path, count: str) -> None:
    """The first two are digits to Python, and no number that it reads."""
    (pets / "test" / "nshards.txt").write_text(count, encoding="utf-8")
    with pytest.raises(SourceError, match=r"no test/nshards\.txt"):
        open_labelled(pets)


def test_a_folder_in_the_layout_is_read_with_its_names_and_prompts(pets: Path) -> None:
    labelled = open_labelled(pets)
    assert labelled.classes == ("red cat", "blue dog")
    assert labelled.templates == ("a photo of a {}.", "a {}")
    assert [source.labels for source in labelled] == [("red cat",), ("blue dog",), ("red cat",)] * 2


def test_several_labels_are_a_row_of_0_and_1(pets: Path) -> None:
    (pets / "dataset_type.txt").write_text("multilabel")
    shard(
        pets / "test" / "0.tar",
        {"a.npy": array([1, 1]), "a.webp": picture(1), "b.npy": array([0, 0]), "b.webp": picture(2)},
    )
    (pets / "test" / "nshards.txt").write_text("1")
    labelled = open_labelled(pets)
    assert labelled.multi
    assert [source.labels for source in labelled] == [("red cat", "blue dog"), ()]


def test_what_is_missing_or_makes_no_sense_is_named(pets: Path) -> None:
    with pytest.raises(SourceError, match=r"no train/nshards\.txt"):
        open_labelled(pets, split="train")
    (pets / "test" / "nshards.txt").write_text("3")
    with pytest.raises(SourceError, match=r"lacks test/2\.tar, one of its 3 shards"):
        list(open_labelled(pets))
    (pets / "test" / "nshards.txt").write_text("1")
    shard(pets / "test" / "0.tar", {"a.cls": b"7", "a.webp": picture(1)})
    with pytest.raises(SourceError, match=r"'7', is none of 2 classes"):
        list(open_labelled(pets))
    (pets / "dataset_type.txt").write_text("retrieval")
    with pytest.raises(SourceError, match="for retrieval"):
        open_labelled(pets)


def test_evaluate_uses_the_set_s_own_prompts(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NSHOT_CACHE", str(tmp_path / "cache"))
    model = str(tiny_checkpoint(tmp_path / "model"))
    result = CliRunner().invoke(cli, ["evaluate", str(pets), "--model", model, "--no-store"])
    assert result.exit_code == 0, result.output
    assert "prompts are the 2 templates" in result.output


def test_a_set_of_the_hub_is_read_by_its_name(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with hub_server() as hub:
        hub.models["datasets/clip-benchmark/wds_vtab-pets"] = {"main": pets}
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        )
        labelled = open_labelled("hf://clip-benchmark/wds_vtab-pets")
        assert labelled.classes == ("red cat", "blue dog")
        assert hub.downloaded >= {"classnames.txt"}
        assert "test/0.tar" not in hub.downloaded, "not before it is read"
        assert len(list(labelled)) == 6


@pytest.fixture
def empty_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    with hub_server() as hub:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.endpoint)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}",
        )
        yield


@pytest.mark.usefixtures("empty_hub")
@pytest.mark.parametrize(
    ("written", "near"),
    [
        ("vtab-pet", "vtab-pets"),
        ("pets", "vtab-pets"),
        ("vtab_svhn", "vtab-svhn"),
        ("imagenet_a", "imagenet-a"),
    ],
)
def test_a_set_s_name_that_is_nearly_right_is_answered_with_the_right_one(written: str, near: str) -> None:
    with pytest.raises(SourceError, match=f"did you mean hf://clip-benchmark/wds_{near}"):
        open_labelled(f"hf://clip-benchmark/wds_{written}")


@pytest.mark.usefixtures("empty_hub")
def test_a_set_s_name_that_is_near_none_is_answered_with_all_of_them() -> None:
    with pytest.raises(SourceError, match=r"known are: imagenet1k, .*vtab-svhn"):
        open_labelled("hf://clip-benchmark/wds_qqqqqq")


def test_all_sets_stand_in_the_guide_and_have_the_published_figures_of_their_names() -> None:
    guide = (Path(__file__).parents[1] / "docs" / "evaluate.md").read_text(encoding="utf-8")
    assert len(set(SETS)) == 38
    assert all(f"`{name}`" in guide for name in SETS)
    known = [name for name in SETS if published("clip-b32", name)]
    assert len(known) == 29
    assert published("openai/clip-vit-base-patch32", "vtab-pets") == (87.0, True)
    assert published("siglip2-b16", "imagenet1k") == (78.2, False)
    assert published("siglip2-b16", "vtab-pets") is None
    assert published("somebody/else", "vtab-pets") is None
    for each in CATALOGUE:
        figure = published(each.short, "imagenet1k")
        assert (None if figure is None else figure.value) == pytest.approx(each.imagenet, abs=0.06)


def test_evaluate_sets_the_published_figure_beside_its_own(
    pets: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NSHOT_CACHE", str(tmp_path / "cache"))
    model = str(tiny_checkpoint(tmp_path / "model"))
    stand_in = CATALOGUE[0]._replace(id=model)
    monkeypatch.setattr("nshot.models.catalogue.CATALOGUE", (stand_in, *CATALOGUE[1:]))
    folder = pets.rename(tmp_path / "wds_vtab-pets")
    output = CliRunner().invoke(cli, ["evaluate", str(folder), "--model", model, "--no-store"]).output
    assert "mean per-class recall here" in output
    assert f"published for {model} on vtab-pets: 87.0 %" in output
