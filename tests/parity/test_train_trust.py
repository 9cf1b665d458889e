"""What a person may rely on while training: kills, full disks, typos, odd data, and where tensors are."""

from __future__ import annotations

import csv
import io
import json
import resource
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from small_training import QUICK, TINY, class_folders, pairs, weights

pytestmark = pytest.mark.parity
torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from nshot.errors import OutputError, RequestError, SourceError  # noqa: E402
from nshot.train import Options, batches, checkpoints, loop, towers, train  # noqa: E402
from nshot.train import state as states  # noqa: E402
from nshot.train.batches import Towers  # noqa: E402
from nshot.train.blend import Point, blend, recommended  # noqa: E402
from nshot.train.data import Images  # noqa: E402
from nshot.train.feeding import Feeder  # noqa: E402
from nshot.train.listing import is_classes, listed  # noqa: E402
from nshot.train.loss import sigmoid  # noqa: E402
from nshot.train.processes import Processes  # noqa: E402

MEASURED = replace(QUICK, batch=8, steps=6)


def killed_at(step: int, monkeypatch: pytest.MonkeyPatch, output: Path, **asked: Any) -> None:
    """A run that is interrupted right after the state of this step was kept."""

    def save(folder: Path, recipe: Any, content: Any) -> None:
        kept(folder, recipe, content)
        if content["step"] == step:
            raise KeyboardInterrupt

    kept = states.save
    with monkeypatch.context() as patch:
        patch.setattr(states, "save", save)
        with pytest.raises(KeyboardInterrupt):
            train(**{"data": pairs(), "output": output, "config": TINY, "options": QUICK, **asked})


def same(one: Path, other: Path) -> bool:
    return all(torch.equal(weights(one)[name], weights(other)[name]) for name in weights(one))


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("before") / "m"
    train(pairs(), folder, config=TINY, options=QUICK)
    return folder


def test_a_run_is_not_resumed_with_other_captions_start_or_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: Path
) -> None:
    other = tmp_path / "other"
    train(pairs(), other, config=TINY, options=replace(QUICK, seed=9))
    killed_at(3, monkeypatch, tmp_path / "m", config=None, start=before)
    again: dict[str, Any] = {"start": before, "options": QUICK, "resume": True}
    changed = [(image, f"{text} again") for image, text in pairs()]
    with pytest.raises(RequestError, match="other images or captions"):
        train(changed, tmp_path / "m", **again)
    with pytest.raises(RequestError, match="start: '"):
        train(pairs(), tmp_path / "m", **{**again, "start": other})
    with pytest.raises(RequestError, match=r"lr: 0.001 then, 0.002 now"):
        train(pairs(), tmp_path / "m", **{**again, "options": replace(QUICK, lr=2e-3)})
    train(pairs(), tmp_path / "m", **again)
    train(pairs(), tmp_path / "whole", start=before, options=QUICK)
    assert same(tmp_path / "m", tmp_path / "whole")


def test_a_kill_at_every_rename_of_the_result_leaves_a_run_that_ends_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: Path
) -> None:
    renames = 0

    def counted(part: Path, path: Path) -> None:
        nonlocal renames
        renames += 1
        if renames == last:
            raise KeyboardInterrupt
        part.replace(path)

    monkeypatch.setattr(checkpoints, "replace", counted)
    for last in range(1, 7):
        output, renames = tmp_path / str(last), 0
        try:
            train(pairs(), output, config=TINY, options=QUICK)
        except KeyboardInterrupt:
            assert not (output / "config.json").exists()
            last = 0
            train(pairs(), output, config=TINY, options=QUICK, resume=True)
        assert same(output, before)
        assert not list(output.rglob("*.part")) + list(output.glob(".unfinished"))
    assert renames < 6


def test_a_run_killed_when_its_model_was_whole_is_finished_by_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "m"

    def interrupted(*args: Any, **others: Any) -> None:
        whole(*args, **others)
        raise KeyboardInterrupt

    whole = checkpoints.write
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "write", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(pairs(), output, config=TINY, options=QUICK)
    with pytest.raises(OutputError, match="holds a model already"):
        train(pairs(), output, config=TINY, options=QUICK)
    assert train(pairs(), output, config=TINY, options=QUICK, resume=True).steps == 6
    assert not (output / "training").exists()


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As on a full disk, writing beyond it fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [20_000, 300_000])
def test_a_full_disk_is_one_line_and_the_run_can_be_repeated(tmp_path: Path, room: int, before: Path) -> None:
    output = tmp_path / "m"
    with files_of_at_most(room), pytest.raises(OutputError, match="cannot"):
        train(pairs(), output, config=TINY, options=QUICK)
    assert not list(tmp_path.rglob("*.part"))
    train(pairs(), output, config=TINY, options=QUICK, resume=True)
    assert same(output, before)


def test_a_disk_that_is_full_at_the_result_leaves_the_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: Path
) -> None:
    output = tmp_path / "m"

    def full(part: Path, path: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "replace", full)
        with pytest.raises(OutputError, match="No space left"):
            train(pairs(), output, config=TINY, options=QUICK)
    assert not (output / ".unfinished").exists()
    train(pairs(), output, config=TINY, options=QUICK, resume=True)
    assert same(output, before)


def test_pixels_that_were_cut_off_are_decoded_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: Path
) -> None:
    killed_at(3, monkeypatch, tmp_path / "m")
    pixels = tmp_path / "m" / "training" / "data" / "images.raw"
    pixels.write_bytes(pixels.read_bytes()[:1000])
    train(pairs(), tmp_path / "m", config=TINY, options=QUICK, resume=True)
    assert same(tmp_path / "m", before)


def test_a_run_killed_while_it_decoded_decodes_anew(tmp_path: Path, before: Path) -> None:
    folder = tmp_path / "m" / "training" / "data"
    folder.mkdir(parents=True)
    (folder / "images.part").write_bytes(b"some pixels")
    train(pairs(), tmp_path / "m", config=TINY, options=QUICK, resume=True)
    assert same(tmp_path / "m", before)


def test_kills_at_some_moments_of_a_run_leave_one_that_ends_with_equal_weights() -> None:
    script = Path(__file__).parents[2] / "bench" / "kill.py"
    done = subprocess.run(
        [sys.executable, str(script), "--moments", "6"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 resumed with equal weights" in done.stdout


def test_a_request_that_is_wrong_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="fewer than a batch of 1000"):
        train(pairs(), tmp_path / "m", config=TINY, options=Options(batch=1000))
    assert not (tmp_path / "m").exists()


def test_a_run_that_diverges_before_a_state_was_kept_promises_none(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="step ") as caught:
        train(pairs(), tmp_path / "m", config=TINY, options=Options(steps=50, batch=8, lr=1e30, warmup=0))
    assert "kept" not in str(caught.value)


def test_images_without_a_caption_are_named_and_left_out(tmp_path: Path) -> None:
    odd: list[Any] = [(image, text) for image, text in pairs(10)]
    odd[1], odd[4], odd[7] = (odd[1][0], ""), (odd[4][0], None), (odd[7][0], ["  ", "two fish"])
    report = train(odd, tmp_path / "m", config=TINY, options=Options(steps=1, batch=4), held_out=0)
    assert [(each.source, each.message) for each in report.failures] == [
        ("[1]", "it has no caption"),
        ("[4]", "it has no caption"),
    ]
    assert report.images == 8


@pytest.mark.parametrize(
    ("odd", "said"),
    [
        ([(image, "a star") for image, _ in pairs(4)], "same caption .'a star'."),
        ([(pairs(1)[0][0], f"thing {i}") for i in range(4)], "all 4 images are the same"),
        ([(image, 3) for image, _ in pairs(4)], "a caption is a text, not 3"),
    ],
)
def test_what_cannot_be_learnt_from_is_refused(tmp_path: Path, odd: Any, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        train(odd, tmp_path / "m", config=TINY, options=Options(batch=2))
    assert not (tmp_path / "m").exists()


def test_pairs_come_from_shards_and_from_lines_of_json(tmp_path: Path) -> None:
    lines = []
    with tarfile.open(tmp_path / "pairs-000.tar", "w") as tar:
        for number, (image, text) in enumerate(pairs(6)):
            image.save(tmp_path / f"{number}.png")
            lines.append({"image": f"{number}.png", "caption": [text, "again"] if number else text})
            caption = text.encode() if number % 2 else json.dumps({"caption": text}).encode()
            for name, data in (
                (f"{number}.png", (tmp_path / f"{number}.png").read_bytes()),
                (f"{number}.{'txt' if number % 2 else 'json'}", caption),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, lines)))
    texts = [text for _, text in pairs(6)]
    shards = [list(found) for _, found in listed(f"{tmp_path}/pairs-{{000..000}}.tar", templates=["{}"])]
    assert shards == [[text] for text in texts]
    rows = [list(found) for _, found in listed(tmp_path / "pairs.jsonl", templates=["{}"])]
    assert rows == [[text, "again"] if number else [text] for number, text in enumerate(texts)]
    report = train(tmp_path / "pairs-000.tar", tmp_path / "m", config=TINY, options=Options(steps=1, batch=2))
    assert report.images == 6
    with pytest.raises(SourceError, match=r"pairs-001\.tar is not there"):
        listed(f"{tmp_path}/pairs-{{000..001}}.tar", templates=["{}"])
    (tmp_path / "pairs.docx").touch()
    with pytest.raises(SourceError, match="not of a kind that training reads"):
        listed(tmp_path / "pairs.docx", templates=["{}"])


def test_held_out_images_share_the_file_of_the_training_images() -> None:
    images = Images(np.zeros((10, 3, 2, 2), np.uint8), [["a"]] * 10, np.arange(10))
    training, held = images.split(0.3, seed=0)
    assert (len(training), len(held)) == (7, 3)
    assert training.pixels is images.pixels
    assert held.pixels is images.pixels
    assert sorted((*training.rows, *held.rows)) == list(range(10))


def test_classes_take_turns_in_a_balanced_order() -> None:
    captions = [["a"]] * 9 + [["b"]] * 2 + [["c"]]
    images = Images(np.zeros((12, 3, 2, 2), np.uint8), captions, np.arange(12), balanced=True)
    met = [captions[row][0] for row in images.order(0, 0)]
    assert [met.count(label) for label in "abc"] == [4, 4, 4]
    assert all(set(met[start : start + 3]) == set("abc") for start in range(0, 12, 3))


def test_a_whole_blend_is_the_model_after_bit_for_bit() -> None:
    rng = torch.Generator().manual_seed(0)
    before, after = ({"w": torch.randn(1000, generator=rng)} for _ in range(2))
    assert torch.equal(blend(before, after, 1)["w"], after["w"])
    assert torch.equal(blend(before, after, 0)["w"], before["w"])


def test_the_point_to_use_wins_most_of_those_that_lose_nothing() -> None:
    curve = [Point(0, 0.3, 0.98, 0.004), Point(0.5, 0.8, 0.98, 0.008), Point(1, 0.9, 0.95, 0.05)]
    assert recommended(curve)[0] == 0.5
    assert recommended([Point(0, 0.3), Point(0.5, 0.8), Point(1, 0.9)])[0] == 0.5
    assert (
        recommended([Point(0, 0.3, 0.9, 0.03), Point(0.5, 0.8, 0.9, 0.03), Point(1, 0.9, 0.8, 0.1)])[0] == 0.5
    )


def test_fine_tuning_reports_the_curve_the_log_and_what_fit_does(tmp_path: Path, before: Path) -> None:
    data, known = class_folders(tmp_path / "data"), class_folders(tmp_path / "known")
    options = Options(epochs=3, batch=4, minutes=0)
    report = train(data, tmp_path / "m", start=before, options=options, untouched=known)
    assert [point.share for point in report.curve] == [number / 10 for number in range(11)]
    assert report.share in [point.share for point in report.curve]
    assert report.figures["few-shot"].keys() == {"held-out"}
    assert "worth it" in report.worth
    with (tmp_path / "m" / "training.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows if row["held_out"]] == [3, 6, 9]
    assert json.loads((tmp_path / "m" / "training.json").read_text())["worth"] == report.worth
    changed = {
        name
        for name, value in weights(before).items()
        if not torch.equal(value, weights(tmp_path / "m")[name])
    }
    assert report.share == 0 or changed
    assert not any(name.startswith("vision") or name.startswith("visual") for name in changed)


def test_a_run_ends_when_held_out_images_are_named_no_better_and_keeps_the_best(
    tmp_path: Path, before: Path
) -> None:
    options = Options(epochs=30, batch=8, lr=1e-12, patience=2)
    report = train(pairs(), tmp_path / "m", start=before, options=options, held_out=0.25)
    assert report.steps < 60
    assert report.kept < report.steps


@pytest.mark.parametrize("lora", [0, 2])
def test_adapters_and_forgetful_layers_change_no_vector_at_the_start(
    tmp_path: Path, before: Path, lora: int
) -> None:
    if lora:
        pytest.importorskip("peft")
    options = Options(steps=2, batch=8, lora=lora, checkpointing=True, lr=1e-3)
    train(pairs(), tmp_path / "m", start=before, options=options, blend=1)
    one, two = weights(before), weights(tmp_path / "m")
    assert one.keys() == two.keys()
    moved = {name for name in one if not torch.equal(one[name], two[name])}
    if lora:
        assert moved - {"logit_scale"}
        assert all(name.endswith(".weight") or name == "logit_scale" for name in moved)
        assert not any("norm" in name or "embedding" in name for name in moved)
    else:
        plain = replace(options, checkpointing=False)
        train(pairs(), tmp_path / "plain", start=before, options=plain, blend=1)
        assert all(
            torch.allclose(two[name], value, atol=1e-6) for name, value in weights(tmp_path / "plain").items()
        )


class Pretended(Processes):
    """Two processes' worth of tensors from one, on whatever device they are."""

    def __init__(self) -> None:
        self.rank, self.count = 0, 2

    def gathered(self, values: Any) -> list[Any]:
        return [values, values.clone()]

    def add_up(self, gradients: Any) -> None:
        """Nothing comes from the other one."""


@pytest.mark.parametrize("several", [False, True])
def test_a_step_keeps_its_tensors_on_the_models_device(before: Path, several: bool) -> None:
    begin = checkpoints.of(before)
    rng = np.random.default_rng(0)
    images = Images(
        rng.integers(0, 256, (8, 3, 24, 24), dtype=np.uint8), [[f"thing {i}"] for i in range(8)], np.arange(8)
    )
    batch = Feeder(begin.tokenizer, begin.config.text.ends, jitter=0.1, crop=0.5).batch(images, 8, 0)
    model = begin.model.to("meta")
    own = Towers(model, mean=(0.5,) * 3, std=(0.5,) * 3, piece=4)
    parameters = [p for p in model.parameters() if p is not model.logit_scale]
    value = loop.gradient(model, own, batch, parameters, False, Pretended() if several else Processes())
    assert value.device.type == "meta"
    assert {p.grad.device.type for p in parameters if p.grad is not None} == {"meta"}


def test_the_sigmoid_loss_asks_each_pair_by_itself() -> None:
    rng = torch.Generator().manual_seed(0)
    images, texts = torch.randn(3, 5, generator=rng), torch.randn(2, 5, generator=rng)
    targets, scale, bias = torch.tensor([0, 1, 0]), torch.tensor(10.0), torch.tensor(-3.0)
    unit = torch.nn.functional.normalize
    total = 0.0
    for row, image in enumerate(unit(images, dim=1)):
        for other in range(3):
            sign = 1 if targets[row] == targets[other] else -1
            logit = scale * image @ unit(texts, dim=1)[targets[other]] + bias
            total += float(torch.log1p(torch.exp(-sign * logit)))
    assert sigmoid(images, texts, targets, scale, bias).item() == pytest.approx(total / 3, rel=1e-5)


def test_the_tokenizers_older_files_are_kept(tmp_path: Path, before: Path) -> None:
    content = json.loads((before / "tokenizer.json").read_text())["model"]
    (before / "vocab.json").write_text(json.dumps(content["vocab"]))
    merges = [" ".join(pair) if isinstance(pair, list) else pair for pair in content["merges"]]
    (before / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    train(pairs(), tmp_path / "m", start=before, options=Options(steps=1, batch=8))
    assert {"vocab.json", "merges.txt", "tokenizer.json"} <= {
        path.name for path in (tmp_path / "m").iterdir()
    }


def test_an_image_of_the_library_trains_as_an_array_does(tmp_path: Path) -> None:
    arrays: list[Any] = [(np.asarray(image), text) for image, text in pairs()]
    assert isinstance(pairs(1)[0][0], Image.Image)
    train(arrays, tmp_path / "m", config=TINY, options=MEASURED)


def test_a_locked_tower_sees_each_image_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: Path
) -> None:
    seen = 0

    def counted(model: Any, pixels: Any) -> Any:
        nonlocal seen
        seen += len(pixels)
        return whole(model, pixels)

    whole = towers.image_vectors
    monkeypatch.setattr(batches, "image_vectors", counted)
    data, known = class_folders(tmp_path / "data"), class_folders(tmp_path / "known")
    options = Options(epochs=8, batch=4, patience=0, piece=1, threads=1, lr=1e-3)
    train(data, tmp_path / "m", start=before, options=options, untouched=known)
    assert seen == 16 + 16
    jittered = replace(options, jitter=1e-9)  # augmented, so each epoch sees the training images anew
    train(data, tmp_path / "other", start=before, options=jittered, untouched=known)
    assert seen > 32 + 8 * 12
    one, two = weights(tmp_path / "m"), weights(tmp_path / "other")
    assert all(torch.allclose(one[name], two[name], atol=1e-4) for name in one)


def test_a_folder_of_shards_is_no_folder_of_classes(tmp_path: Path) -> None:
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "0.tar", "w") as tar:
        for number, (image, text) in enumerate(pairs(8)):
            data = io.BytesIO()
            image.save(data, "PNG")
            for name, content in ((f"{number}.png", data.getvalue()), (f"{number}.txt", text.encode())):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    options = Options(steps=1, batch=2)
    train(tmp_path / "shards", tmp_path / "m", config=TINY, options=options, held_out=0)
    recipe = json.loads((tmp_path / "m" / "training.json").read_text())["recipe"]
    assert recipe["part"] == "all"
    assert not is_classes(tmp_path / "shards")


def test_tensorboard_shows_what_the_csv_says_also_after_a_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board, asked = tmp_path / "board", replace(QUICK, steps=25)
    killed_at(13, monkeypatch, tmp_path / "m", options=asked, tensorboard=board)
    train(pairs(), tmp_path / "m", config=TINY, options=asked, tensorboard=board, resume=True)
    events = EventAccumulator(str(board))
    events.Reload()
    with (tmp_path / "m" / "training.csv").open() as file:
        rows = list(csv.DictReader(file))
    for name in ("loss", "learning_rate", "scale", "images_per_s"):
        shown = {each.step: each.value for each in events.Scalars(name)}
        assert shown == pytest.approx({int(row["step"]): float(row[name]) for row in rows}, rel=1e-5)
    assert {int(row["step"]) for row in rows} >= {10, 20, 25}


@pytest.mark.parametrize("crop", [1.0, 0.5])
def test_batches_are_equal_whatever_the_number_of_threads(before: Path, crop: float) -> None:
    begin = checkpoints.of(before)
    rng = np.random.default_rng(0)
    images = Images(
        rng.integers(0, 256, (40, 3, 24, 24), dtype=np.uint8), [[f"{i}"] for i in range(40)], np.arange(40)
    )
    found = []
    for threads in (1, 3):
        feeder = Feeder(begin.tokenizer, begin.config.text.ends, crop=crop, jitter=0.1, threads=threads)
        found.append(list(feeder.batches(images, 8, 2, 12)))
    assert len(found[0]) == 10
    for one, other in zip(*found, strict=True):
        assert torch.equal(one.pixels, other.pixels)
        assert torch.equal(one.jitter, other.jitter)
        assert torch.equal(one.tokens, other.tokens)


def test_ctrl_c_ends_a_run_at_once_and_leaves_one_that_can_be_resumed(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(TINY))
    data = class_folders(tmp_path / "data")
    asked = ["train", str(data), "-o", str(tmp_path / "m"), "--config", str(tmp_path / "config.json")]
    more = ["--batch-size", "4", "--minutes", "0", "--crop", "0.6", "--threads", "2", "--seed", "1"]
    command = [sys.executable, "-m", "nshot", *asked, *more, "--steps", "3000"]
    heard = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's children ignore it
    try:
        running = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    finally:
        signal.signal(signal.SIGINT, heard)
    while not (tmp_path / "m" / "training" / "state.pt").exists():
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=60)[1]
    assert running.returncode == 130
    assert "Traceback" not in said
    assert states.kept(tmp_path / "m" / "training")


def test_gradient_checkpointing_keeps_fewer_activations(before: Path) -> None:
    model = checkpoints.of(before).model.train()
    pixels = torch.zeros(4, 3, 24, 24)

    def kept() -> int:
        total = 0

        def save(tensor: Any) -> Any:
            nonlocal total
            total += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(save, lambda tensor: tensor):
            towers.image_vectors(model, pixels).sum().backward()
        return total

    whole = kept()
    model.vision_model.encoder.gradient_checkpointing = True
    assert kept() < 0.8 * whole
