"""Boxes by tiles: where small things are, in images of any size."""

from __future__ import annotations

import csv
import io
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import nshot
from nshot.cli import run
from nshot.errors import ImageError, LabelError, RequestError
from nshot.images import windows
from nshot.images.windows import open_bands
from nshot.regions.evidence import log_odds
from nshot.regions.grid import Grid, Tiles, from_bands
from nshot.regions.kept import Kept
from nshot.sketchbook import PAIRS, Scene, Thing, draw
from nshot.types import Limits, Located

LABELS = [f"{colour} {shape}" for colour, shape in PAIRS]
ASK = ("--model", "sketchbook", "-q")


@pytest.fixture(scope="module")
def clip() -> nshot.Model:
    return nshot.load("sketchbook", precision="f32")


def small_thing(
    x: int, y: int, size: tuple[int, int] = (640, 480), side: int = 100, colour: str = "red"
) -> Image.Image:
    """A star of about so many pixels, its upper left corner there, on a plain grey ground."""
    thing = Thing(colour, "star", "plain", 0.5, 0.5, 0.48, 0)
    drawn = draw(Scene("flat", (thing,), "white", 3), side)
    image = Image.new("RGB", size, drawn.getpixel((0, 0)))
    image.paste(drawn, (x, y))
    return image


def located(found: object) -> Located:
    answer = next(iter(found))  # type: ignore[call-overload]
    assert isinstance(answer, Located)
    return answer


# --- tiles ------------------------------------------------------------------------------------------------


def test_a_small_thing_is_found_where_it_is(clip: nshot.Model) -> None:
    answer = located(clip.locate(small_thing(480, 340), LABELS, background=(), threshold=0.01))
    star = next(box for box in answer.boxes if box.label == "red star")
    x, y, width, height = star.box
    assert x <= 530 <= x + width
    assert y <= 390 <= y + height
    assert width < 480, "a tile, not the whole image"
    assert answer.size == (640, 480)
    assert [box.score for box in answer.boxes] == sorted((b.score for b in answer.boxes), reverse=True)


def test_boxes_are_in_pixels_of_the_upright_image(clip: nshot.Model, tmp_path: Path) -> None:
    image = small_thing(480, 340)
    exif = Image.Exif()
    exif[0x0112] = 6
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    image.save(tmp_path / "upright.png")
    ask: dict[str, Any] = {"background": (), "threshold": 0.01}
    first, second = clip.locate([tmp_path / "turned.png", tmp_path / "upright.png"], LABELS, **ask)
    assert isinstance(first, Located)
    assert isinstance(second, Located)
    assert first.boxes == second.boxes
    assert first.size == (640, 480)


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (512, 512), (3000, 200), (40, 17), (1, 1)])
def test_tiles_cover_the_image_and_stay_in_it(size: tuple[int, int]) -> None:
    places = Grid().places(size)
    width, height = size
    assert (places[:, :2] >= 0).all()
    assert (places[:, 0] + places[:, 2] <= width + 1e-6).all()
    assert (places[:, 1] + places[:, 3] <= height + 1e-6).all()
    assert places[0].tolist() == [0, 0, width, height]
    finest = places[places[:, 2] == places[1:, 2].min()] if len(places) > 1 else places
    covered = np.zeros((height, width), bool)
    for x, y, wide, tall in finest:
        covered[int(y) : int(np.ceil(y + tall)), int(x) : int(np.ceil(x + wide))] = True
    assert covered.all()


def test_a_square_image_has_59_tiles_at_three_levels() -> None:
    assert len(Grid().places((480, 480))) == 1 + 9 + 49


def test_a_tile_is_encoded_as_the_crop_would_be(clip: nshot.Model) -> None:
    image = small_thing(480, 340)
    tiles = Tiles(clip.preprocessor, Grid())(image)
    x, y, width, height = (round(edge) for edge in Grid().places(image.size)[7])
    np.testing.assert_array_equal(tiles[7], clip.preprocessor(image.crop((x, y, x + width, y + height))))


def test_a_second_question_encodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_thing(10, 10).save(tmp_path / "a.png")
    stored = nshot.load("sketchbook", store=tmp_path / "store.sqlite")
    first = list(stored.locate(tmp_path / "a.png", LABELS))

    def refuse(*_: object) -> None:
        raise AssertionError("encoded or decoded again")

    again = nshot.load("sketchbook", store=tmp_path / "store.sqlite")
    monkeypatch.setattr(again.encoder, "encode_images", refuse)
    monkeypatch.setattr("nshot.regions.grid.Tiles.__call__", refuse)
    assert list(again.locate(tmp_path / "a.png", LABELS)) == first
    assert located(again.locate(tmp_path / "a.png", LABELS[:3], threshold=0)).boxes


def test_another_grid_is_another_question(tmp_path: Path) -> None:
    small_thing(10, 10).save(tmp_path / "a.png")
    stored = nshot.load("sketchbook", store=tmp_path / "store.sqlite")
    for levels in (1, 2, 3):
        answer = located(stored.locate(tmp_path / "a.png", LABELS[:2], levels=levels, threshold=0))
        assert all(box.box[2] >= 480 / 2 ** (levels - 1) for box in answer.boxes)


def test_the_odds_of_the_best_of_many_are_divided_by_their_number() -> None:
    from nshot.regions.tiles import scores_of

    classifier = nshot.Classifier(["a"], np.eye(1, 4), 10.0, activation="sigmoid")
    vector = np.array([[0.3, 0.9, 0.1, 0.2]], np.float32)
    alone, many = (scores_of(classifier, None, np.repeat(vector, count, 0)) for count in (1, 50))
    odds = (alone / (1 - alone))[0, 0] / (many / (1 - many))[0, 0]
    assert odds == pytest.approx(50)


def test_odds_are_exact_where_one_label_has_nearly_everything() -> None:
    logits = np.array([[50.0, 1.0, 2.0], [0.0, 0.0, 0.0]])
    found = log_odds(logits)
    assert found[0, 0] == pytest.approx(50 - np.log(np.exp(1) + np.exp(2)), rel=1e-12)
    assert found[1].tolist() == pytest.approx([-np.log(2)] * 3)
    assert log_odds(logits[:, :1], logits[:, 1:]).tolist() == found[:, :1].tolist()


def test_requests_that_make_no_sense_are_refused(clip: nshot.Model) -> None:
    image = Image.new("RGB", (40, 40))
    for options, message in (
        ({"levels": 0}, "levels must be"),
        ({"overlap": 1.0}, "overlap must be"),
        ({"threshold": 2.0}, "threshold must be"),
        ({"labels": ["star"], "background": ()}, "needs a background"),
    ):
        with pytest.raises(RequestError, match=message):
            clip.locate(image, **({"labels": LABELS[:2]} | options))
    with pytest.raises(LabelError):
        clip.locate(image, [])


def test_what_a_store_holds_of_regions_is_checked() -> None:
    kept = Kept((3, 4), ("a note",), {"vectors": np.arange(6, dtype=np.float16).reshape(2, 3)})
    read = Kept.from_bytes(kept.to_bytes())
    assert read is not None
    assert (read.size, read.notes) == ((3, 4), ("a note",))
    np.testing.assert_array_equal(read.arrays["vectors"], kept.arrays["vectors"])
    for damaged in (b"", kept.to_bytes()[:-1], b"\x05\0\0\0abcde", kept.to_bytes()[4:]):
        assert Kept.from_bytes(damaged) is None


# --- large images -----------------------------------------------------------------------------------------


def patchwork(width: int = 600, height: int = 700) -> Image.Image:
    coarse = np.random.default_rng(0).integers(0, 256, (height // 20, width // 20, 3), np.uint8)
    return Image.fromarray(coarse.repeat(20, 0).repeat(20, 1))


def tiled_tiff(image: Image.Image, tile: int = 128) -> bytes:
    """An uncompressed TIFF in tiles, by hand: Pillow writes strips only."""
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    rows, columns = -(-height // tile), -(-width // tile)
    padded = np.zeros((rows * tile, columns * tile, 3), np.uint8)
    padded[:height, :width] = pixels
    tiles = [
        padded[y * tile : (y + 1) * tile, x * tile : (x + 1) * tile].tobytes()
        for y in range(rows)
        for x in range(columns)
    ]
    count = len(tiles)
    entries = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, 0), (259, 3, 1, 1), (262, 3, 1, 2)]
    entries += [(277, 3, 1, 3), (322, 4, 1, tile), (323, 4, 1, tile), (324, 4, count, 1), (325, 4, count, 2)]
    place = 8 + 2 + 12 * len(entries) + 4
    bits, offsets, lengths = place, place + 8, place + 8 + 4 * count
    data = lengths + 4 * count
    values = {0: bits, 1: offsets, 2: lengths}
    file = io.BytesIO()
    file.write(b"II*\0" + struct.pack("<IH", 8, len(entries)))
    for tag, kind, number, value in entries:
        file.write(struct.pack("<HHII", tag, kind, number, values[value] if number > 1 else value))
    file.write(bytes(4) + struct.pack("<4H", 8, 8, 8, 0))
    file.write(struct.pack(f"<{count}I", *(data + number * len(tiles[0]) for number in range(count))))
    file.write(struct.pack(f"<{count}I", *(len(each) for each in tiles)))
    file.write(b"".join(tiles))
    return file.getvalue()


@pytest.fixture
def all_are_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows, "LARGE", 1)


@pytest.mark.usefixtures("all_are_large")
@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg"])
@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P"])
def test_bands_of_a_tiff_are_its_pixels(compression: str | None, mode: str, tmp_path: Path) -> None:
    if compression == "jpeg" and mode in ("RGBA", "P"):
        pytest.skip("no such TIFF")
    path = tmp_path / "a.tif"
    patchwork().convert(mode).save(path, compression=compression)
    bands = open_bands(str(path), 1, Limits())
    assert bands is not None
    parts = [np.asarray(band) for band in bands.read()]
    assert bands.size == (600, 700)
    assert len(parts) > 1 or compression is None
    np.testing.assert_array_equal(np.concatenate(parts), np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.usefixtures("all_are_large")
def test_bands_of_a_tiff_in_tiles_and_of_a_ppm_are_their_pixels(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiled_tiff(patchwork()))
    patchwork().save(tmp_path / "a.ppm")
    for name in ("a.tif", "a.ppm"):
        bands = open_bands(str(tmp_path / name), 1, Limits())
        assert bands is not None
        found = np.concatenate([np.asarray(band) for band in bands.read()])
        np.testing.assert_array_equal(found, np.asarray(patchwork()))


@pytest.mark.usefixtures("all_are_large")
def test_a_jpeg_is_shrunk_as_far_as_its_tiles_allow(tmp_path: Path) -> None:
    patchwork().save(tmp_path / "a.jpg", quality=95)
    for least, shrink in ((60, 8), (100, 4), (250, 2), (400, 1)):
        bands = open_bands(str(tmp_path / "a.jpg"), least, Limits())
        assert bands is not None
        assert bands.scale == 1 / shrink
        (band,) = bands.read()
        assert band.size == (-(-600 // shrink), -(-700 // shrink))


@pytest.mark.usefixtures("all_are_large")
def test_what_cannot_be_read_in_bands_goes_the_usual_way(tmp_path: Path, clip: nshot.Model) -> None:
    patchwork().save(tmp_path / "a.png")
    patchwork().save(tmp_path / "b.jpg", progressive=True)
    Image.fromarray(np.arange(4000, dtype=np.uint16).reshape(50, 80)).save(tmp_path / "c.tif")
    (tmp_path / "d.tif").write_bytes(b"II*\0 and nothing else")
    for path in sorted(tmp_path.iterdir()):
        assert open_bands(str(path), 1, Limits()) is None
    answers = list(clip.locate(tmp_path, LABELS[:2]))
    assert [isinstance(answer, Located) for answer in answers] == [True, True, True, False]


@pytest.mark.usefixtures("all_are_large")
@pytest.mark.parametrize("name", ["a.tif", "a.jpg", "a.ppm"])
def test_tiles_out_of_bands_are_nearly_those_of_the_whole_image(
    name: str, tmp_path: Path, clip: nshot.Model
) -> None:
    image = small_thing(700, 500, (1200, 900), 200)
    image.save(tmp_path / name, quality=95)
    grid = Grid()
    bands = open_bands(str(tmp_path / name), grid.least(48), Limits())
    assert bands is not None
    places = grid.places(bands.size)
    found = dict(from_bands(bands, places, clip.preprocessor))
    assert sorted(found) == list(range(len(places)))
    whole = Tiles(clip.preprocessor, grid)(image)
    vectors = clip.encoder.encode_images(np.stack([found[number] for number in sorted(found)]))
    cosines = (vectors * clip.encoder.encode_images(whole)).sum(axis=1)
    assert np.median(cosines) > 0.98
    assert np.quantile(cosines, 0.05) > 0.9


@pytest.mark.usefixtures("all_are_large")
def test_a_large_image_that_is_cut_off_is_a_failure(tmp_path: Path, clip: nshot.Model) -> None:
    patchwork().save(tmp_path / "a.ppm")
    patchwork().save(tmp_path / "b.tif", compression="tiff_lzw")
    patchwork().save(tmp_path / "c.jpg")
    for path in tmp_path.iterdir():
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for answer in clip.locate(tmp_path, LABELS[:2]):
        assert isinstance(answer, nshot.Failure)
        assert answer.message


# --- the command line -------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    small_thing(480, 340).save(folder / "a.png")
    small_thing(20, 30).save(folder / "b.png")
    (folder / "c.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    return folder


def asked(folder: Path, *more: object) -> list[str]:
    labels = "red star, blue fish, green tree"
    return ["locate", str(folder), "--labels", labels, *ASK, "--threshold", "0.001", *map(str, more)]


def test_jsonl_holds_boxes_in_pixels(folder: Path, tmp_path: Path) -> None:
    assert run(asked(folder, "-o", tmp_path / "out.jsonl")) == 1
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [Path(record["source"]).name for record in records] == ["a.png", "b.png", "c.png"]
    first = records[0]["boxes"][0]
    assert first.keys() == {"label", "score", "box"}
    assert len(first["box"]) == 4
    assert (records[0]["width"], records[0]["height"]) == (640, 480)
    assert records[2]["error"]["type"] == "UndecodableImage"


def test_coco_and_csv_say_the_same(folder: Path, tmp_path: Path) -> None:
    for name in ("out.json", "out.csv", "out.jsonl"):
        assert run(asked(folder, "-o", tmp_path / name)) == 1
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    boxes = [(box["label"], box["score"], box["box"]) for line in lines for box in line.get("boxes", ())]
    coco = json.loads((tmp_path / "out.json").read_text())
    names = {each["id"]: each["name"] for each in coco["categories"]}
    assert list(names.values())[:3] == ["red star", "blue fish", "green tree"]
    assert [(names[a["category_id"]], a["score"], a["bbox"]) for a in coco["annotations"]] == boxes
    assert [Path(image["file_name"]).name for image in coco["images"]] == ["a.png", "b.png"]
    assert len(coco["info"]["failed"]) == 1
    rows = list(csv.DictReader((tmp_path / "out.csv").read_text().splitlines()))
    assert [row["label"] for row in rows if row["label"]] == [label for label, _, _ in boxes]
    assert rows[-1]["error_type"] == "UndecodableImage"


@pytest.mark.parametrize("name", ["out.jsonl", "out.json", "out.csv"])
def test_an_interrupted_run_goes_on(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = tmp_path / f"whole-{name}"
    assert run(asked(folder, "-o", whole)) == 1
    from nshot.output.sinks.sink import Sink

    write = Sink.write
    written: list[Located] = []

    def interrupted(self: Sink, record: Located) -> None:
        if len(written) == 1:
            raise KeyboardInterrupt
        written.append(record)
        write(self, record)

    monkeypatch.setattr(Sink, "write", interrupted)
    assert run(asked(folder, "-o", tmp_path / name)) == 130
    monkeypatch.setattr(Sink, "write", write)
    assert run(asked(folder, "-o", tmp_path / name, "--resume")) == 1
    assert (tmp_path / name).read_text() == whole.read_text()


def test_boxes_are_drawn(folder: Path, tmp_path: Path) -> None:
    assert run(asked(folder, "--drawn", tmp_path / "drawn", "-o", tmp_path / "out.txt")) == 1
    files = sorted(path.name for path in (tmp_path / "drawn").rglob("*.jpg"))
    assert files == ["a.png.boxes.jpg", "b.png.boxes.jpg"]
    drawn = np.asarray(Image.open(next((tmp_path / "drawn").rglob("a.png.boxes.jpg"))))
    assert abs(drawn.astype(int) - np.asarray(Image.open(folder / "a.png"))).max() > 50
    assert "red star" in (tmp_path / "out.txt").read_text()


def test_an_output_that_says_no_format_is_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(asked(folder, "-o", tmp_path / "out.xyz")) == 2
    assert "name it .json (COCO)" in capsys.readouterr().err
    assert run(asked(folder, "--format", "coco")) == 2
    assert "COCO needs a file" in capsys.readouterr().err


def _tiff(**changed: int) -> bytes:
    """A grey TIFF of 64 x 64 pixels in strips of 8 rows, some of whose numbers are others."""
    told = {"width": 64, "height": 64, "rows": 8, "place": 200, "length": 512, "strips": 8} | changed
    tags = [(256, told["width"]), (257, told["height"]), (258, 8), (259, 1), (262, 1), (273, told["place"])]
    tags += [(278, told["rows"]), (279, told["length"])]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(5000)


@pytest.mark.parametrize(
    "data",
    [
        b"P6",  # was read for ever
        b"P6 #",
        b"P6 " + b"9" * 600,
        b"P6 90000000000 1 255\n" + bytes(99),
        _tiff(),  # one strip of eight
        _tiff(rows=0),
        _tiff(width=0, height=0),
        _tiff(place=2**32 - 1, rows=64),
        _tiff(height=2**32 - 1, rows=2**32 - 1),
        b"II+\0" + struct.pack("<HHQ", 8, 0, 2**64 - 1) + bytes(99),
        b"\xff\xd8\xff",
    ],
)
def test_a_damaged_large_image_is_no_image_in_bands_or_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.setattr(windows, "LARGE", 1)
    path = tmp_path / "x"
    path.write_bytes(data)
    bands = windows.open_bands(str(path), 4, Limits())
    if bands is not None:
        with pytest.raises(ImageError):
            for _ in bands.read():
                pass
