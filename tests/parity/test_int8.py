"""The int8 form of the shipped model: near f32, kept, told truly, and refused where it is not near."""

from __future__ import annotations

import contextlib
import io
import json
import random
from pathlib import Path

import numpy as np
import pytest

import nshot
from nshot import cli, encoders
from nshot.classifier.cascading import cascade
from nshot.classifier.cascading import draw as draw_sample
from nshot.classifier.quantising import Int8Report, quantise
from nshot.encoders import int8
from nshot.errors import DeviceError, OutputError, RequestError
from nshot.metrics import wilson
from nshot.models.checkpoint import find
from nshot.sketchbook import COLOURS, SHAPES, draw, sample

pytest.importorskip("nncf", reason="needs the int8 extra")
pytestmark = [
    pytest.mark.parity,
    pytest.mark.filterwarnings("ignore"),  # nncf's own, and those of what it imports
]

LABELS = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Int8Report]:
    """A cache with the form in it, the drawings, and the report."""
    root = tmp_path_factory.mktemp("int8")
    (root / "drawings").mkdir()
    for number in range(700):
        draw(sample(8_000_000 + number)).save(root / "drawings" / f"{number:03}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NSHOT_CACHE", str(root / "cache"))
        model = nshot.load("sketchbook", precision="f32")
        report = quantise(model, nshot.zero_shot(model, LABELS), str(root / "drawings"))
        checkpoint = find("sketchbook")  # the tests go on where the processor has no 8-bit products, too
        int8.keep_report(checkpoint, int8.required(checkpoint)["report"] | {"gain": 2.0})
    return root / "cache", root / "drawings", report


@pytest.fixture(autouse=True)
def cache(made: tuple[Path, Path, Int8Report], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NSHOT_CACHE", str(made[0]))


def test_the_report_equals_a_recomputation(made: tuple[Path, Path, Int8Report]) -> None:
    _, drawings, report = made
    exact, small = (nshot.load("sketchbook", precision=name) for name in ("f32", "int8"))
    zero = nshot.zero_shot(exact, LABELS)
    drawn = draw_sample(exact.list_images(str(drawings)), 1300, random.Random(0))
    measured = [str(each.path) for each in drawn[report.calibrated_on :]]
    before, after = exact.embed(measured), small.embed(measured)
    assert report.images == len(before) == len(after) == 700 - report.calibrated_on
    logits = zero.logits(before.vectors)
    was, now = logits.argmax(axis=1), zero.logits(after.vectors).argmax(axis=1)
    assert report.agreement == (was == now).mean()
    assert report.interval == pytest.approx(wilson((was == now).sum(), len(was)))
    flips = {
        (name, LABELS[a], LABELS[b])
        for name, a, b in zip(before.sources, was.tolist(), now.tolist(), strict=True)
        if a != b
    }
    assert {(flip.source, flip.f32, flip.int8) for flip in report.flips} == flips
    assert len(report.flips) == report.flipped == len(flips)
    best = np.sort(logits, axis=1)
    margins = dict(zip(before.sources, best[:, -1] - best[:, -2], strict=True))
    for flip in report.flips:
        assert flip.margin == pytest.approx(margins[flip.source], abs=1e-4)
    cosines = (before.vectors.astype(np.float64) * after.vectors).sum(axis=1)
    assert report.cosine_median == pytest.approx(np.median(cosines), abs=1e-6)
    assert report.cosine_low == pytest.approx(np.quantile(cosines, 0.01), abs=1e-6)
    assert sum(band.images for band in report.bands) == report.images
    assert sum(band.images * band.agreement for band in report.bands) == pytest.approx((was == now).sum())
    for band in report.bands:
        inside = [
            a == b
            for m, a, b in zip(margins.values(), was, now, strict=True)
            if band.low - 1e-4 <= m <= band.high + 1e-4
        ]
        assert np.mean(inside) == pytest.approx(band.agreement, abs=0.02)
    assert report.agreement > 0.985
    assert report.cosine_median > 0.9995
    assert report.cosine_low > 0.9996  # the library's own SmoothQuant gives 0.9993
    assert report.megabytes["int8"] < 0.5 * report.megabytes["f32"]


def test_the_form_is_found_again_bit_for_bit_and_has_a_fingerprint_of_its_own() -> None:
    checkpoint = find("sketchbook")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3, 48, 48), np.uint8)
    first, again = (encoders.load(checkpoint, precision="int8") for _ in range(2))
    assert first.precision == "int8"
    found = first.encode_images(pixels)
    np.testing.assert_array_equal(found, again.encode_images(pixels))
    np.testing.assert_allclose(found[:1], again.encode_images(pixels[:1]), atol=1e-6)
    assert first.fingerprint != encoders.load(checkpoint, precision="f32").fingerprint


def test_a_form_with_too_few_of_f32_s_answers_is_refused_but_for_a_first_stage() -> None:
    checkpoint = find("sketchbook")
    kept = int8.required(checkpoint)["report"]
    int8.keep_report(checkpoint, kept | {"agreement": 0.97})
    try:
        with pytest.raises(DeviceError, match=r"97\.0%.*--first int8"):
            nshot.load("sketchbook", precision="int8")
        assert nshot.load("sketchbook", precision="int8", as_first=True).encoder.precision == "int8"
    finally:
        int8.keep_report(checkpoint, kept)


def test_a_form_that_is_not_faster_here_is_refused_and_timed_again_on_another_processor() -> None:
    checkpoint = find("sketchbook")
    kept = int8.required(checkpoint)["report"]
    try:
        int8.keep_report(checkpoint, kept | {"gain": 1.02})
        with pytest.raises(DeviceError, match=r"does not pay .*1\.02 times"):
            nshot.load("sketchbook", precision="int8")
        assert nshot.load("sketchbook", precision="int8", as_first=True).encoder.precision == "int8"
        int8.keep_report(checkpoint, kept | {"gain": 1.02, "processor": "another one"})
        with contextlib.suppress(DeviceError):  # whether it pays is the machine's to say
            nshot.load("sketchbook", precision="int8")
        again = int8.required(checkpoint)["report"]
        assert again["processor"] == kept["processor"]
        assert again["gain"] == again["milliseconds"]["f32"] / again["milliseconds"]["int8"] != 1.02
        assert again["agreement"] == kept["agreement"]
    finally:
        int8.keep_report(checkpoint, kept)


def test_classify_makes_the_form_on_its_own_images_where_there_is_none(
    made: tuple[Path, Path, Int8Report],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NSHOT_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("nshot.encoders.int8.PAYS", 0.0)
    asked = ["--labels", ", ".join(LABELS), "--model", "sketchbook", "--no-store", "--precision", "int8"]
    few = [str(path) for path in sorted(made[1].iterdir())[:5]]
    assert cli.run(["classify", *few, *asked]) == 2
    assert "5 images are too few" in capsys.readouterr()[1]
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("\n".join(few).encode())))
    assert cli.run(["classify", "-", *asked]) == 2  # a list can be read once
    assert "nshot quantise IMAGES --labels-file LABELS --model sketchbook" in capsys.readouterr()[1]
    assert cli.run(["classify", str(made[1]), *asked, "--format", "jsonl"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 700
    assert "it is made now" in err
    assert "of the answers on 400 other images are those of f32" in err
    assert cli.run(["classify", *few, *asked, "--format", "jsonl"]) == 0
    assert "it is made now" not in capsys.readouterr()[1]


def test_a_full_disk_is_named_and_leaves_the_form_that_is_there(
    made: tuple[Path, Path, Int8Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise RuntimeError("basic_ios::clear: iostream error")

    checkpoint = find("sketchbook")
    kept = int8.required(checkpoint)
    monkeypatch.setattr("nshot.encoders.runtime.ov.save_model", full)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 3, 48, 48), np.uint8)
    with pytest.raises(OutputError, match=f"cannot write {made[0]}/int8: is the disk full"):
        int8.quantise(checkpoint, pixels)
    assert int8.required(checkpoint) == kept
    assert {path.name for path in (made[0] / "int8").iterdir()} == {
        *(path.name for path in kept["files"]),
        *(path.name for path in (made[0] / "int8").glob("*.json")),
    }
    monkeypatch.setenv("NSHOT_CACHE", str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        int8.quantise(checkpoint, pixels)


def test_a_form_of_another_processor_is_used_where_the_cache_is_for_reading_alone(
    made: tuple[Path, Path, Int8Report], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object) -> None:
        raise OutputError("cannot write")

    checkpoint = find("sketchbook")
    kept = int8.required(checkpoint)["report"]
    monkeypatch.setattr(int8, "PAYS", 0.0)
    try:
        int8.keep_report(checkpoint, kept | {"processor": "another one"})
        monkeypatch.setattr(int8, "write_bytes", refused)
        assert nshot.load("sketchbook", precision="int8").encoder.precision == "int8"
    finally:
        monkeypatch.undo()
        monkeypatch.setenv("NSHOT_CACHE", str(made[0]))
        int8.keep_report(checkpoint, kept)


def test_a_form_that_was_never_measured_is_refused_and_made_anew(
    made: tuple[Path, Path, Int8Report], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoint = find("sketchbook")
    kept = int8.required(checkpoint)["report"]
    monkeypatch.setattr("nshot.encoders.int8.PAYS", 0.0)
    asked = [str(made[1]), "--labels", ", ".join(LABELS), "--model", "sketchbook", "--no-store"]
    try:
        int8.keep_report(checkpoint, {})  # as where quantise is stopped before it has measured
        with pytest.raises(DeviceError, match="never measured"):
            nshot.load("sketchbook", precision="int8")
        assert cli.run(["classify", *asked, "--precision", "int8", "--format", "jsonl"]) == 0
        assert "it is made now" in capsys.readouterr()[1]
        assert int8.required(checkpoint)["report"]["images"] == 400
    finally:
        int8.keep_report(checkpoint, kept)


@pytest.mark.parametrize("command", ["embed", "evaluate", "calibrate", "tag", "duplicates"])
def test_every_command_makes_the_form_on_its_own_images(
    made: tuple[Path, Path, Int8Report],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: str,
) -> None:
    monkeypatch.setenv("NSHOT_CACHE", str(tmp_path / "empty"))
    monkeypatch.setattr("nshot.encoders.int8.PAYS", 0.0)
    monkeypatch.setattr("nshot.encoders.int8.LEAST", 0.0)  # 140 everyday words say little of drawings
    names = sorted(made[1].iterdir())[:420]
    rows = [f"{name},{LABELS[number % 144]}" for number, name in enumerate(names)]
    (tmp_path / "t.csv").write_text("\n".join(["image,label", *rows]))
    model = ["--model", "sketchbook", "--no-store", "--precision", "int8"]
    more = {
        "embed": ["-o", str(tmp_path / "v.npz")],
        "tag": ["--labels", ", ".join(LABELS), "--reject", "off"],
        "calibrate": ["-o", str(tmp_path / "c.nshot"), "--reject", "off"],
    }
    assert cli.run([command, str(tmp_path / "t.csv"), *model, *more.get(command, [])]) == 0
    _, err = capsys.readouterr()
    assert "there is no int8 form of sketchbook yet: it is made now" in err
    assert "of the answers on 120 other images" in err
    words = "asked which of 140 everyday words fits" in err
    assert words == (command in ("embed", "duplicates"))
    if command == "embed":
        small = nshot.load("sketchbook", precision="int8")
        kept = nshot.open(tmp_path / "v.npz")
        assert isinstance(kept, nshot.Embeddings)
        assert np.allclose(kept.vectors, small.embed(map(str, names)).vectors)


def test_a_refused_form_stands_first_in_a_cascade_and_is_made_for_it(
    made: tuple[Path, Path, Int8Report],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("NSHOT_CACHE", str(tmp_path / "empty"))
    # as where 8 bits are quick, whatever this processor is
    monkeypatch.setattr("nshot.classifier.cascading._cost", lambda first, last: 0.3)
    monkeypatch.setattr("nshot.encoders.int8.LEAST", 1.01)
    asked = [str(made[1]), "--labels", ", ".join(LABELS), "--model", "sketchbook", "--no-store"]
    first = ["--precision", "f32", "--first", "int8", "--agree", "0.98", "--format", "jsonl"]
    assert cli.run(["classify", *asked, *first]) == 0
    out, err = capsys.readouterr()
    assert "there is no int8 form of sketchbook yet: it is made now" in err
    assert "sketchbook in int8 before sketchbook in f32" in err
    assert "times less processor time" in err
    assert "of 700 images went on to sketchbook" in err
    told = [json.loads(line)["label"] for line in out.splitlines()]
    model = nshot.load("sketchbook", precision="f32")
    wanted = [each.label for each in model.classify(str(made[1]), LABELS)]
    assert np.mean([a == b for a, b in zip(told, wanted, strict=True)]) >= 0.98
    assert cli.run(["classify", *asked, "--precision", "int8"]) == 2
    assert "It may stand first in a cascade: --first int8" in capsys.readouterr()[1]


def test_int8_stands_first_before_f32_by_the_time_that_it_takes(made: tuple[Path, Path, Int8Report]) -> None:
    first = nshot.load("sketchbook", precision="int8", as_first=True)
    last = nshot.load("sketchbook", precision="f32")
    zero = nshot.zero_shot(last, LABELS)
    found = cascade((first, zero), (last, zero), str(made[1]), agree=0.98)
    cost = found.work - (found.checked.went_on if found.checked else 1) if found.pays else None
    assert "sketchbook in int8" in found.reason
    assert cost is None or 0 < cost < 0.9  # by operations it would be 1, and never pay


def test_a_damaged_form_is_found_out(made: tuple[Path, Path, Int8Report]) -> None:
    checkpoint = find("sketchbook")
    weights = int8.required(checkpoint)["files"][1]
    content = weights.read_bytes()
    try:
        weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        with pytest.raises(DeviceError, match="damaged"):
            int8.read(checkpoint)
    finally:
        weights.write_bytes(content)


def test_a_form_of_another_model_under_this_one_s_name_is_none(made: tuple[Path, Path, Int8Report]) -> None:
    checkpoint = find("sketchbook")
    (place,) = (made[0] / "int8").glob("*.json")
    content = place.read_bytes()
    try:
        place.write_bytes(content.replace(place.stem.encode(), b"another", 1))
        with pytest.raises(DeviceError, match="there is no int8 form of sketchbook yet"):
            nshot.load("sketchbook", precision="int8")
    finally:
        place.write_bytes(content)
    assert int8.record(checkpoint) is not None


def test_the_same_images_make_the_same_form_and_others_one_whose_vectors_are_kept_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NSHOT_CACHE", str(tmp_path))
    checkpoint, found = find("sketchbook"), []
    for seed in (0, 1, 0):
        scenes = [sample(9_000_000 + 50 * seed + number) for number in range(50)]
        pixels = np.stack([np.asarray(draw(scene).resize((48, 48))).transpose(2, 0, 1) for scene in scenes])
        int8.quantise(checkpoint, pixels)
        found.append(encoders.load(checkpoint, precision="int8").fingerprint)
    assert found[0] != found[1]
    assert found[0] == found[2]


def test_too_few_images_are_refused(made: tuple[Path, Path, Int8Report]) -> None:
    model = nshot.load("sketchbook", precision="f32")
    few = sorted(made[1].iterdir())[:50]
    with pytest.raises(RequestError, match="50 images are too few"):
        quantise(model, nshot.zero_shot(model, LABELS), few)


def test_the_command_says_what_int8_is_worth_and_classify_uses_it(
    made: tuple[Path, Path, Int8Report], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(LABELS))
    asked = ["--labels-file", str(labels), "--model", "sketchbook", "--no-store"]
    report = tmp_path / "report.json"
    assert cli.run(["quantise", str(made[1]), *asked, "--report", str(report)]) == 0
    out, err = capsys.readouterr()
    assert "those of f32" in out
    assert "Statistics collection" in err
    low = encoders.load(find("sketchbook"), precision="bf16").precision == "bf16"
    assert ("in bf16: " in out) == low  # what else is quick here
    assert cli.run(["quantise", str(made[1]), *asked, "--quiet"]) == 0
    assert not capsys.readouterr()[1]
    told = json.loads(report.read_text())
    assert told["calibrated_on"] == 300
    images = [str(path) for path in sorted(made[1].iterdir())[:5]]
    assert cli.run(["classify", *images, *asked, "--precision", "int8", "--format", "jsonl"]) == 0
    assert len(capsys.readouterr()[0].splitlines()) == 5
    assert cli.run(["doctor", "--model", "sketchbook", "--no-store"]) == 0
    out = capsys.readouterr()[0]
    assert "int8: " in out
    assert f"{told['agreement']:.1%} of its answers were those of f32" in out
