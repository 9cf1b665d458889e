"""Training: the plain way's gradients, the same run after a kill, files that both sides read alike."""

from __future__ import annotations

import csv
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from layouts import tiny_siglip  # noqa: E402
from small_training import QUICK, TINY, class_folders, pairs, scenes, weights  # noqa: E402

import nshot  # noqa: E402
from nshot import sketchbook  # noqa: E402
from nshot.cli import run as command_line  # noqa: E402
from nshot.errors import OutputError, RequestError, TrainingDiverged  # noqa: E402
from nshot.train import Options, train  # noqa: E402
from nshot.train import state as states  # noqa: E402
from nshot.train.batches import Towers  # noqa: E402
from nshot.train.blend import blend  # noqa: E402
from nshot.train.checkpoints import anew  # noqa: E402
from nshot.train.data import Images, shuffled  # noqa: E402
from nshot.train.feeding import Feeder, random_resized_crop  # noqa: E402
from nshot.train.loop import groups, rate  # noqa: E402
from nshot.train.loss import contrastive, loss_of  # noqa: E402
from nshot.train.towers import image_vectors, text_vectors  # noqa: E402
from nshot.train.vocabulary import learn  # noqa: E402

PLAIN: dict[str, Any] = {"mean": (0.5, 0.5, 0.5), "std": (0.3, 0.3, 0.3)}


@pytest.fixture(scope="module")
def start() -> Any:
    return anew(TINY, (sketchbook.caption(scene, 1) for scene in scenes(50)), seed=0)


@pytest.fixture
def batch(start: Any) -> Any:
    feeder = Feeder(start.tokenizer, start.config.text.ends)
    pixels = np.stack([np.asarray(sketchbook.draw(s, 24)).transpose(2, 0, 1) for s in scenes(8)])
    texts = ["a red star", "two fish", "a red star", *(sketchbook.caption(s, 0) for s in scenes(5))]
    return feeder.collate(pixels, texts)


def normalised(batch: Any) -> Any:
    return (batch.pixels / 255 - 0.5) / 0.3


def plain_loss(model: Any, batch: Any) -> Any:
    images = model.get_image_features(normalised(batch)).pooler_output
    texts = model.get_text_features(batch.tokens).pooler_output
    return contrastive(images, texts, batch.targets, model.logit_scale.exp())


def test_the_towers_give_what_transformers_own_modules_give(start: Any, batch: Any) -> None:
    model = start.model
    with torch.no_grad():
        images = model.get_image_features(normalised(batch)).pooler_output
        texts = model.get_text_features(batch.tokens).pooler_output
        assert torch.allclose(image_vectors(model, normalised(batch)), images, atol=1e-5)
        assert torch.allclose(text_vectors(model, batch.tokens, batch.ends), texts, atol=1e-5)


@pytest.mark.parametrize("twice", [False, True])
def test_a_batch_in_pieces_has_the_whole_batchs_gradient(start: Any, batch: Any, twice: bool) -> None:
    model = start.model
    model.zero_grad(set_to_none=True)
    plain_loss(model, batch).backward()
    expected = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    weights = [p for p in model.parameters() if p is not model.logit_scale]
    value = Towers(model, **PLAIN, threads=2, piece=3).step(
        batch,
        lambda images, texts: contrastive(images, texts, batch.targets, model.logit_scale.exp()),
        weights,
        twice=twice,
    )
    assert value.item() == pytest.approx(plain_loss(model, batch).item(), abs=1e-5)
    for name, parameter in model.named_parameters():
        # one key's bias moves all of a query's scores alike: a tower may leave its gradient, 0, out
        found = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        assert torch.allclose(found, expected[name], rtol=1e-4, atol=1e-4), name


def test_equal_captions_are_positives_for_each_other(batch: Any) -> None:
    assert batch.targets[0] == batch.targets[2]
    assert len(batch.tokens) == len(set(batch.targets.tolist()))
    images = torch.eye(2)[[0, 0, 1]]
    perfect = contrastive(images, torch.eye(2), torch.tensor([0, 0, 1]), torch.tensor(100.0))
    # two images share a caption: each of the two can be half of it at best
    assert perfect.item() == pytest.approx(np.log(2) * 2 / 3 / 2, abs=1e-4)


def test_captions_that_the_tokenizer_makes_equal_are_one_text(start: Any) -> None:
    feeder = Feeder(start.tokenizer, start.config.text.ends)
    found = feeder.collate(np.zeros((3, 3, 24, 24), np.uint8), ["A Red star", "two fish", "a red  star"])
    assert found.targets.tolist() == [0, 1, 0]
    assert len(found.tokens) == len(found.ends) == 2


def test_gains_biases_and_the_temperature_do_not_decay(start: Any) -> None:
    decays, stays = groups(start.model, 0.1)
    names = {id(p): name for name, p in start.model.named_parameters()}
    free = {names[id(p)] for p in stays["params"]}
    assert stays["weight_decay"] == 0
    assert "logit_scale" in free
    assert all(
        name.endswith("bias") or "norm" in name or "class" in name or name == "logit_scale" for name in free
    )
    assert not any(names[id(p)].endswith("bias") or "norm" in names[id(p)] for p in decays["params"])


def test_the_rate_rises_straight_and_falls_as_half_a_cosine() -> None:
    rates = [rate(step, 100, 10, 1.0) for step in range(100)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3])
    assert max(rates) == 1.0
    assert rates[55] == pytest.approx(0.5)
    assert 0 < rates[-1] < 0.01


def test_a_run_is_repeatable_and_goes_on_after_a_kill_in_the_same_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(pairs(), tmp_path / "whole", config=TINY, options=QUICK)

    def killed(folder: Path, recipe: Any, content: Any) -> None:
        kept(folder, recipe, content)
        if content["step"] == 3:
            raise KeyboardInterrupt

    kept = states.save
    with monkeypatch.context() as patch:
        patch.setattr(states, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            train(pairs(), tmp_path / "parts", config=TINY, options=QUICK)
    with pytest.raises(OutputError, match="--resume"):
        train(pairs(), tmp_path / "parts", config=TINY, options=QUICK)
    train(pairs(), tmp_path / "parts", config=TINY, options=QUICK, resume=True)
    one, two = (weights(tmp_path / name) for name in ("whole", "parts"))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not (tmp_path / "parts" / "training").exists()


def test_a_state_of_other_options_is_not_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = anew(TINY, ["a"], 0).model
    optimizer = torch.optim.AdamW(model.parameters())
    states.save(tmp_path, {"lr": 1}, {"model": model.state_dict(), "optimizer": optimizer.state_dict()})
    with pytest.raises(RequestError, match=r"another run \(lr: 1 then, 2 now\)"):
        states.restore(tmp_path, {"lr": 2}, "cpu")


@pytest.mark.parametrize("damage", ["cut off", "flipped", "other", "empty"])
def test_a_damaged_state_is_one_line_that_names_it(tmp_path: Path, damage: str) -> None:
    states.save(tmp_path, {"lr": 1}, {"model": {"a": torch.zeros(9)}})
    path = tmp_path / "state.pt"
    data = path.read_bytes()
    changed = {"cut off": data[:-40], "flipped": b"\0\0" + data[2:], "other": b"hello", "empty": b""}
    path.write_bytes(changed[damage])
    with pytest.raises(RequestError, match=r"state\.pt is damaged .*: remove .* to begin anew"):
        states.restore(tmp_path, {"lr": 1}, "cpu")


def test_a_vocabulary_is_the_same_for_the_same_captions_and_spells_what_it_has_not_met() -> None:
    texts = [sketchbook.caption(scene, 0) for scene in scenes(300)]
    one, two = learn(texts), learn(texts)
    assert one.to_str() == two.to_str()
    for text in texts:
        words = text.replace(".", " .").replace(",", " ,").replace("-", " - ").split()
        assert len(one.encode(text).ids) == len(words) + 2
    strange = one.encode("Ein zebra: 42 🦊")
    assert (strange.tokens[0], strange.tokens[-1]) == ("<|startoftext|>", "<|endoftext|>")
    assert one.token_to_id("<|endoftext|>") == one.get_vocab_size() - 1
    assert one.decode(strange.ids).replace("</w>", " ").strip() == "ein zebra : 4 2 🦊"


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_last_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import nshot.train.loop as loop

    calls = iter(range(100))

    def broken(*args: Any) -> Any:
        return loss_of(*args) * (float("nan") if next(calls) == 4 else 1)

    monkeypatch.setattr(loop, "loss_of", broken)
    with pytest.raises(TrainingDiverged, match="step 5"):
        train(pairs(), tmp_path / "m", config=TINY, options=QUICK)
    saved = torch.load(tmp_path / "m" / "training" / "state.pt", weights_only=True)
    assert saved["step"] == 4
    assert all(torch.isfinite(value).all() for value in saved["model"].values())


def test_the_order_is_a_function_of_seed_and_epoch_and_meets_every_row_once() -> None:
    assert sorted(shuffled(50, 1, 2)) == list(range(50))
    assert np.array_equal(shuffled(50, 1, 2), shuffled(50, 1, 2))
    assert not np.array_equal(shuffled(50, 1, 2), shuffled(50, 1, 3))


@pytest.mark.parametrize("half", [False, True])
def test_what_is_written_loads_on_both_sides_with_the_same_vectors(tmp_path: Path, half: bool) -> None:
    options = Options(steps=2, batch=8, half=half)
    train(pairs(), tmp_path / "m", config=TINY, options=options)
    model = transformers.CLIPModel.from_pretrained(tmp_path / "m", dtype=torch.float32).eval()
    tokenizer = transformers.CLIPTokenizer.from_pretrained(tmp_path / "m")
    texts = ["a red star", "Two  FISH!", "an unknown zebra, 42 café", "a photo of a pale-blue ring."]
    tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    embedder = nshot.load(tmp_path / "m", precision="f32")
    assert np.array_equal(embedder.tokenizer.encode(texts), tokens["input_ids"].numpy())
    with torch.no_grad():
        spoken = model.get_text_features(**tokens).pooler_output
    assert np.allclose(embedder.embed_texts(texts), torch.nn.functional.normalize(spoken).numpy(), atol=1e-5)
    image = sketchbook.draw(scenes(1)[0], 60)
    processor = transformers.CLIPImageProcessorPil.from_pretrained(tmp_path / "m")
    with torch.no_grad():
        seen = model.get_image_features(processor(image, return_tensors="pt")["pixel_values"]).pooler_output
    mine = next(iter(embedder.embed_images([image])))
    assert isinstance(mine, nshot.Embedded)
    assert np.allclose(mine.vector, torch.nn.functional.normalize(seen).numpy()[0], atol=1e-5)


def test_the_command_trains_on_a_folder_of_classes_and_blends(tmp_path: Path, capfd: Any) -> None:
    train(pairs(), tmp_path / "before", config=TINY, options=QUICK)
    data = class_folders(tmp_path / "data")
    (data / "star" / "broken.png").write_bytes(b"no image")
    options = ["--steps", "3", "--batch-size", "4", "--held-out", "0.25", "--blend", "0.5"]
    options += ["--untouched", str(class_folders(tmp_path / "other"))]
    before = ["--from", str(tmp_path / "before")]
    status = command_line(["train", str(data), "-o", str(tmp_path / "after"), *before, *options])
    out, err = capfd.readouterr()
    assert status == 1, err  # one image could not be read
    assert "broken.png" in err
    assert all(row in out for row in ("zero-shot", "fine-tuned", "blended 0.5", "held-out", "untouched"))
    assert not all(
        torch.equal(a, b)
        for a, b in zip(*map(values, (tmp_path / "before", tmp_path / "after")), strict=True)
    )
    nshot.load(tmp_path / "after")


def values(folder: Path) -> list[Any]:
    return list(weights(folder).values())


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_of_images_and_captions_trains(tmp_path: Path, kind: str) -> None:
    rows = []
    for number, (image, text) in enumerate(pairs(12)):
        image.save(tmp_path / f"{number}.png")
        rows.append((f"{number}.png", text))
    table = tmp_path / f"pairs.{kind}"
    if kind == "csv":
        with table.open("w", newline="") as file:
            csv.writer(file).writerows([("image", "caption"), *rows])
    else:
        arrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        images, texts = zip(*rows, strict=True)
        parquet.write_table(arrow.table({"image": [str(tmp_path / i) for i in images], "text": texts}), table)
    report = train(table, tmp_path / "m", config=TINY, options=Options(steps=1, batch=4), held_out=0.25)
    assert (report.images, report.failures) == (9, ())
    assert 0 <= report.figures["trained"]["held-out"] <= 1


def test_the_projections_alone_leave_the_towers_as_they_were(tmp_path: Path) -> None:
    train(pairs(), tmp_path / "before", config=TINY, options=QUICK)
    options = Options(steps=2, batch=8, part="projections")
    train(pairs(), tmp_path / "after", start=tmp_path / "before", options=options)
    before, after = weights(tmp_path / "before"), weights(tmp_path / "after")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"visual_projection.weight", "text_projection.weight", "logit_scale"}


def test_a_blend_lies_between() -> None:
    before, after = {"w": torch.tensor([0.0, 2.0])}, {"w": torch.tensor([4.0, 2.0])}
    assert [blend(before, after, share)["w"].tolist() for share in (0, 0.5, 1)] == [[0, 2], [2, 2], [4, 2]]


def test_a_crop_keeps_its_share_and_whole_crops_change_nothing() -> None:
    ramp = torch.arange(0, 256, 4, dtype=torch.uint8).expand(40, 3, 64, 64)
    rng = np.random.default_rng(0)
    cropped = random_resized_crop(ramp, 0.25, rng)
    assert cropped.shape == ramp.shape
    spans = (cropped.amax((1, 2, 3)).int() - cropped.amin((1, 2, 3)).int()) / 252
    assert spans.min() > 0.25**0.5 * 0.75**0.5 - 0.05
    assert spans.max() <= 1


def test_crops_are_the_same_for_the_same_step(start: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (8, 3, 24, 24), dtype=np.uint8)
    data = Images(pixels, [["a"]] * 8, np.arange(8))
    settings: dict[str, Any] = {"crop": 0.5}
    one, two = (Feeder(start.tokenizer, start.config.text.ends, **settings) for _ in range(2))
    assert torch.equal(one.batch(data, 4, 1).pixels, two.batch(data, 4, 1).pixels)
    assert not torch.equal(one.batch(data, 4, 1).pixels, one.batch(data, 4, 3).pixels)


STEP = """
import json, os, sys
import torch
import torch.distributed as dist
from nshot import sketchbook
from nshot.train import loop
from nshot.train.batches import Towers
from nshot.train.checkpoints import anew, of
from nshot.train.feeding import Feeder
from nshot.train.data import Images
from nshot.train.processes import Processes
import numpy as np

config, target = sys.argv[1:3]
processes = Processes()
if len(sys.argv) > 3:  # the sum spoiled: each process keeps nothing
    def spoiled(gradients):
        for each in gradients:
            each.mul_(0)
    processes.add_up = spoiled
assert processes.count == int(os.environ.get("WORLD_SIZE", "1"))
assert (dist.get_world_size() if dist.is_initialized() else 1) == processes.count
scenes = [sketchbook.sample(number) for number in range(16)]
texts = [[f"a {'red star' if i % 5 == 0 else f'thing {i}'}"] for i in range(16)]
start = of(config) if os.path.isdir(config) else anew(json.loads(config), (t[0] for t in texts), 0)
size, model = start.config.vision.image_size, start.model
pixels = np.stack([np.asarray(sketchbook.draw(each, size)).transpose(2, 0, 1) for each in scenes])
towers = Towers(model, mean=(0.5,) * 3, std=(0.3,) * 3, threads=1, piece=3)
feeder = Feeder(start.tokenizer, start.config.text.ends, rank=processes.rank, processes=processes.count)
batch = feeder.batch(Images(pixels, texts, np.arange(16)), 16, 0)
weights = [p for name, p in model.named_parameters() if not loop.is_of_loss(name)]
loop.gradient(model, towers, batch, weights, False, processes)
if processes.rank == 0:
    found = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in model.named_parameters()}
    torch.save({"gradient": found, "processes": processes.count}, target)
"""
TWO = ["-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_addr", "127.0.0.1"]
ONE_CORE = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def started(command: list[str]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *command], env={**os.environ, **ONE_CORE}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.parametrize("kind", ["CLIP", "SigLIP"])
def test_two_processes_find_the_gradient_of_one_and_not_where_the_sum_is_spoiled(
    tmp_path: Path, kind: str
) -> None:
    start = json.dumps(TINY) if kind == "CLIP" else str(tiny_siglip(tmp_path / "start"))
    script = tmp_path / "step.py"
    script.write_text(STEP)
    found = {}
    for name, launcher, more in (("one", [], []), ("two", TWO, []), ("spoiled", TWO, ["spoiled"])):
        port = ["--master_port", free_port()] if launcher else []
        started([*launcher, *port, str(script), start, str(tmp_path / name), *more])
        found[name] = torch.load(tmp_path / name, weights_only=True)
    assert [found[name]["processes"] for name in ("one", "two", "spoiled")] == [1, 2, 2]

    def apart(name: str) -> float:
        one, other = (torch.cat([g.flatten() for g in found[x]["gradient"].values()]) for x in ("one", name))
        return float((one - other).abs().max() / one.abs().max())

    assert apart("two") < 1e-5
    assert apart("spoiled") > 0.1


def test_two_processes_train_one_model_and_one_of_them_speaks(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data")
    command = [
        "-m",
        "nshot",
        "train",
        str(data),
        "-o",
        str(tmp_path / "m"),
        "--steps",
        "2",
        "--batch-size",
        "4",
    ]
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    done = started([*TWO, "--master_port", free_port(), *command, "--config", str(tmp_path / "config.json")])
    assert done.stdout.count("trained on") == 1
    started(
        [*command[:4], "-o", str(tmp_path / "one"), *command[6:], "--config", str(tmp_path / "config.json")]
    )
    one, two = weights(tmp_path / "one"), weights(tmp_path / "m")
    assert all(torch.allclose(one[name], two[name], atol=2e-3) for name in one)
