"""SigLIP as a start: transformers' own loss and gradients in float64, and files that both sides read."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from layouts import tiny_siglip  # noqa: E402
from small_training import QUICK, class_folders, pairs  # noqa: E402

import nshot  # noqa: E402
from nshot.cli import run as command_line  # noqa: E402
from nshot.train import Options, loop, train  # noqa: E402
from nshot.train.batches import Towers  # noqa: E402
from nshot.train.checkpoints import of  # noqa: E402
from nshot.train.feeding import Feeder  # noqa: E402
from nshot.train.processes import Processes  # noqa: E402
from nshot.train.towers import image_vectors, text_vectors  # noqa: E402

WORDS = ["a photo of a cat", "a dog", "the hot dog", "a t shirt", "hotdog", "a photo of the dog"]


@pytest.fixture
def start(tmp_path: Path) -> Any:
    return of(tiny_siglip(tmp_path / "start"))


def batch_of(start: Any, captions: list[str]) -> Any:
    pixels = np.random.default_rng(0).integers(0, 256, (len(captions), 3, 36, 36), dtype=np.uint8)
    return Feeder(start.tokenizer, start.config.text.ends).collate(pixels, captions)


def seen(start: Any, batch: Any) -> Any:
    mean, std = (torch.tensor(each, dtype=torch.float64).view(3, 1, 1) for each in (start.mean, start.std))
    return (batch.pixels.double() / 255 - mean) / std


def test_the_towers_give_what_transformers_own_modules_give(start: Any) -> None:
    batch = batch_of(start, WORDS)
    with torch.no_grad():
        images = start.model.get_image_features(seen(start, batch).float()).pooler_output
        texts = start.model.get_text_features(batch.tokens).pooler_output
        assert torch.allclose(image_vectors(start.model, seen(start, batch).float()), images, atol=1e-5)
        assert torch.allclose(text_vectors(start.model, batch.tokens, batch.ends), texts, atol=1e-5)


@pytest.mark.parametrize("captions", [WORDS, [*WORDS[:4], WORDS[1], WORDS[1]]])
@pytest.mark.parametrize("twice", [False, True])
def test_loss_and_gradients_are_those_of_transformers_in_float64(
    start: Any, captions: list[str], twice: bool
) -> None:
    """Equal captions are each other's positives, which transformers' own loss does not know: written out."""
    batch = batch_of(start, captions)
    towers = Towers(start.model, mean=start.mean, std=start.std, piece=2)
    trained = [p for name, p in start.model.named_parameters() if not loop.is_of_loss(name)]
    found = float(loop.gradient(start.model, towers, batch, trained, twice, Processes()))
    gradients = {
        name: torch.zeros_like(p, dtype=torch.float64) if p.grad is None else p.grad.double()
        for name, p in start.model.named_parameters()
    }
    start.model.zero_grad()
    other = start.model.double()
    result = other(input_ids=batch.tokens[batch.targets], pixel_values=seen(start, batch), return_loss=True)
    loss = result.loss
    if len(set(captions)) < len(captions):
        same = batch.targets[:, None] == batch.targets
        logits = torch.where(same, result.logits_per_image, -result.logits_per_image)
        loss = torch.log1p(torch.exp(-logits)).sum() / len(captions)
    loss.backward()
    assert found == pytest.approx(float(loss.detach()), rel=2e-6)
    for name, parameter in other.named_parameters():
        assert torch.allclose(gradients[name], parameter.grad, rtol=1e-4, atol=1e-5), name
    whole = [
        torch.cat([g.flatten() for g in each])
        for each in (gradients.values(), [p.grad for p in other.parameters()])
    ]
    assert float((whole[0] - whole[1]).norm() / whole[1].norm()) < 5e-6


def test_twenty_steps_are_those_of_transformers_and_adamw(start: Any, tmp_path: Path) -> None:
    batch = batch_of(start, WORDS)
    other = transformers.SiglipModel.from_pretrained(tmp_path / "start")
    optimizer = torch.optim.AdamW(loop.groups(other, 0.1), lr=1e-3, betas=(0.9, 0.98))
    for _ in range(20):
        optimizer.zero_grad()
        other(
            input_ids=batch.tokens, pixel_values=seen(start, batch).float(), return_loss=True
        ).loss.backward()
        torch.nn.utils.clip_grad_norm_(other.parameters(), 1.0)
        optimizer.step()
    own = torch.optim.AdamW(loop.groups(start.model, 0.1), lr=1e-3, betas=(0.9, 0.98))
    towers = Towers(start.model, mean=start.mean, std=start.std)
    trained = [p for name, p in start.model.named_parameters() if not loop.is_of_loss(name)]
    for _ in range(20):
        own.zero_grad()
        loop.gradient(start.model, towers, batch, trained, False, Processes())
        torch.nn.utils.clip_grad_norm_(start.model.parameters(), 1.0)
        own.step()
    with torch.no_grad():
        inputs = {"input_ids": batch.tokens, "pixel_values": seen(start, batch).float()}
        one, two = (model(**inputs).logits_per_image for model in (other, start.model))
    assert torch.allclose(one, two, atol=2e-2), float((one - two).abs().max())


@pytest.mark.parametrize("half", [False, True])
def test_what_is_written_is_a_siglip_model_on_both_sides(tmp_path: Path, half: bool) -> None:
    start = tiny_siglip(tmp_path / "start")
    options = replace(QUICK, half=half)
    report = train(pairs(), tmp_path / "m", start=start, options=options, blend=1)
    assert report.steps == 6
    theirs = transformers.SiglipModel.from_pretrained(tmp_path / "m", dtype=torch.float32).eval()
    before = transformers.SiglipModel.from_pretrained(start)
    assert {
        name
        for name, value in before.state_dict().items()
        if not torch.equal(value, theirs.state_dict()[name])
    }
    clip = nshot.load(tmp_path / "m", precision="f32")
    tokens = torch.from_numpy(clip.tokenizer.encode(WORDS))
    with torch.no_grad():
        texts = theirs.get_text_features(tokens).pooler_output
    expected = torch.nn.functional.normalize(texts, dim=1).numpy()
    assert np.abs(clip.embed_texts(WORDS) - expected).max() < 1e-5
    settings = json.loads((tmp_path / "m" / "preprocessor_config.json").read_text())
    assert settings["image_processor_type"] == "SiglipImageProcessor"
    assert settings["image_mean"] == [0.5] * 3


def test_the_temperature_of_siglip_goes_beyond_clips_hundred(tmp_path: Path) -> None:
    start = tiny_siglip(tmp_path / "start")  # exp(4.7) is 110
    train(pairs(), tmp_path / "m", start=start, options=replace(QUICK, lr=1e-9), blend=1)
    theirs = transformers.SiglipModel.from_pretrained(tmp_path / "m")
    assert float(theirs.logit_scale.detach()) == pytest.approx(4.7, abs=1e-4)
    assert float(theirs.logit_scale.detach()) > math.log(100)


@pytest.mark.parametrize(
    ("options", "moved"),
    [
        (Options(part="projections"), ("text_model.head", "vision_model.head", "logit")),
        (Options(part="text"), ("text_model", "logit")),
        (Options(lora=2), ("text_model.encoder", "vision_model.encoder", "logit")),
        (Options(checkpointing=True), ("text_model", "vision_model", "logit")),
    ],
)
def test_parts_of_siglip_are_trained_alone(tmp_path: Path, options: Options, moved: tuple[str, ...]) -> None:
    if options.lora:
        pytest.importorskip("peft")
    start = tiny_siglip(tmp_path / "start")
    asked = replace(options, steps=3, batch=8, lr=1e-2, threads=1)
    train(pairs(), tmp_path / "m", start=start, options=asked, blend=1)
    one, two = (
        transformers.SiglipModel.from_pretrained(folder).state_dict() for folder in (start, tmp_path / "m")
    )
    assert one.keys() == two.keys()
    changed = {name for name in one if not torch.equal(one[name], two[name])}
    assert changed
    assert all(name.startswith(moved) for name in changed)
    assert all(any(name.startswith(part) for name in changed) for part in moved)


def test_the_command_fine_tunes_siglip_on_a_folder_of_classes(tmp_path: Path, capfd: Any) -> None:
    start, data = tiny_siglip(tmp_path / "start"), class_folders(tmp_path / "data")
    asked = ["train", str(data), "--from", str(start), "-o", str(tmp_path / "m"), "--epochs", "2"]
    assert command_line([*asked, "--batch-size", "4", "--template", "a {}"]) == 0
    assert "trained on 13 images" in capfd.readouterr().out
    assert nshot.load(tmp_path / "m").classify([data / "star" / "0.png"], ["star", "fish"])


def test_longer_captions_than_the_context_are_cut_and_keep_their_end(start: Any) -> None:
    tokens, ends = Feeder(start.tokenizer, start.config.text.ends).spelt(["dog " * 40, "dog"])
    assert tokens.shape == (2, 16)
    assert tokens[0, -1] == tokens[1, 1]
    assert ends.tolist() == [15, 15]


@pytest.mark.parametrize("locked", [False, True])
def test_a_step_keeps_its_tensors_on_the_models_device(start: Any, locked: bool) -> None:
    batch = batch_of(start, WORDS)
    if locked:  # vectors in place of pixels
        batch = replace(batch, pixels=torch.zeros(len(WORDS), start.config.dimension))
    model = start.model.to("meta")
    towers = Towers(model, mean=start.mean, std=start.std, piece=4)
    trained = [p for name, p in model.named_parameters() if not loop.is_of_loss(name)]
    value = loop.gradient(model, towers, batch, trained, False, Processes())
    assert value.device.type == "meta"
    assert {p.grad.device.type for p in trained if p.grad is not None} == {"meta"}
    assert any(p.grad is not None for p in model.vision_model.parameters()) != locked
