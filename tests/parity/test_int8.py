"""The int8 form of the shipped model: near f32, kept, told truly, and refused where it is not near."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest

import nshot
from nshot import cli, encoders
from nshot.classifier.cascading import cascade
from nshot.classifier.quantising import Int8Report, quantise
from nshot.encoders import int8
from nshot.errors import DeviceError, RequestError
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
    before, after = exact.embed(str(drawings)), small.embed(str(drawings))
    assert report.calibrated_on + report.images == len(before)
    same = zero.logits(before.vectors).argmax(axis=1) == zero.logits(after.vectors).argmax(axis=1)
    assert same.mean() > 0.985
    told = {flip.source for flip in report.flips}
    changed = {name for name, alike in zip(before.sources, same, strict=True) if not alike}
    assert told <= changed
    assert len(told) == report.flipped
    assert report.flipped == round(report.images * (1 - report.agreement))
    assert sum(band.images for band in report.bands) == report.images
    assert report.interval[0] <= report.agreement <= report.interval[1]
    assert report.cosine_median > 0.9995
    assert report.cosine_low > 0.998
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
    assert cli.run(["embed", *few, "--model", "sketchbook", "--precision", "int8", "-o", "v.npz"]) == 2
    assert "nshot quantise IMAGES --labels-file LABELS --model sketchbook" in capsys.readouterr()[1]
    assert cli.run(["classify", str(made[1]), *asked, "--format", "jsonl"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 700
    assert "it is made now" in err
    assert "of the answers on 400 other images are those of f32" in err
    assert cli.run(["classify", *few, *asked, "--format", "jsonl"]) == 0
    assert "it is made now" not in capsys.readouterr()[1]


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
    out, _ = capsys.readouterr()
    assert "those of f32" in out
    assert json.loads(report.read_text())["calibrated_on"] == 300
    images = [str(path) for path in sorted(made[1].iterdir())[:5]]
    assert cli.run(["classify", *images, *asked, "--precision", "int8", "--format", "jsonl"]) == 0
    assert len(capsys.readouterr()[0].splitlines()) == 5
