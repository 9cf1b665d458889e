"""Decoding says what it did: ranges, transparency, pages, profiles, and formats that take an extra."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw
from test_images import encoded

from nshot import extras
from nshot.errors import MissingExtra, UndecodableImage
from nshot.images.decode import decode
from nshot.images.preprocess import Preprocessor

SHARED = Path(__file__).parents[2] / "shared"
PHOTOS = SHARED / "data" / "photos2"
CASES = SHARED / "cases"
with_photos = pytest.mark.skipif(not PHOTOS.is_dir(), reason="the odd photographs are not on this machine")
with_cases = pytest.mark.skipif(not CASES.is_dir(), reason="the cases are not on this machine")


def drawing(mode: str = "RGB", size: tuple[int, int] = (48, 32), **colours: Any) -> Image.Image:
    """A disc on a ground: something to see."""
    image = Image.new(mode, size, colours.get("ground", (240, 230, 220)))
    ImageDraw.Draw(image).ellipse((8, 4, 36, 28), fill=colours.get("disc", (200, 30, 40)))
    return image


def gray16(top: int) -> Image.Image:
    ramp = np.linspace(0, top, 48 * 32).round().astype(np.uint16).reshape(32, 48)
    return Image.fromarray(ramp)


def said(data: bytes) -> str:
    return "; ".join(decode(data).notes)


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(decode(data).image).astype(int)


def profile(
    red: tuple[float, float], green: tuple[float, float], blue: tuple[float, float], gamma: float
) -> bytes:
    """A small ICC profile: primaries (x, y) at D65, adapted to D50, and one gamma."""
    white = np.array([0.3127 / 0.3290, 1.0, (1 - 0.3127 - 0.3290) / 0.3290])
    columns = np.array([[x / y, 1.0, (1 - x - y) / y] for x, y in (red, green, blue)]).T
    matrix = columns * np.linalg.solve(columns, white)
    bradford = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
    d50 = np.array([0.9642, 1.0, 0.8249])
    adapted = np.linalg.inv(bradford) @ np.diag((bradford @ d50) / (bradford @ white)) @ bradford @ matrix

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    text = b"a test space\0"
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)}
    tags[b"wtpt"] = b"XYZ " + bytes(4) + b"".join(map(fixed, d50))
    for name, column in zip((b"rXYZ", b"gXYZ", b"bXYZ"), adapted.T, strict=True):
        tags[name] = b"XYZ " + bytes(4) + b"".join(map(fixed, column))
    for name in (b"rTRC", b"gTRC", b"bTRC"):
        tags[name] = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    table, body = b"", b""
    for name, content in tags.items():
        content += bytes(-len(content) % 4)
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(content))
        body += content
    head = bytes(4) + b"lcms" + b"\x02\x10\0\0" + b"mntrRGB XYZ " + bytes(12) + b"acsp" + bytes(28)
    head += b"".join(map(fixed, d50)) + bytes(48)
    whole = head + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


ADOBE = profile((0.64, 0.33), (0.21, 0.71), (0.15, 0.06), 2.2)
LINEAR = profile((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), 1.0)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_fewer_bits_in_sixteen_fill_the_range_and_that_is_said(kind: str, bits: int) -> None:
    data = encoded(gray16(2**bits - 1), kind)
    whole = pixels(encoded(gray16(65535), kind))
    assert np.abs(pixels(data) - whole).max() <= 1
    assert said(data) == f"scaled from a range: 0 to {2**bits - 1}"


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_keep_their_scaling_and_black_stays_black(kind: str) -> None:
    ramp = gray16(65535)
    assert np.array_equal(pixels(encoded(ramp, kind))[..., 0], np.rint(np.asarray(ramp) / 257))
    assert said(encoded(ramp, kind)) == ""
    black = encoded(gray16(9), kind)
    assert pixels(black).max() == 0
    assert said(black) == "one colour only: there is nothing to see in it"


def rgb16(values: np.ndarray[Any, Any]) -> bytes:
    """A 16-bit colour PNG, which Pillow can read and not write."""
    import zlib

    from test_images import png_chunk

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    chunks = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def test_twelve_bits_of_colour_in_a_png_of_sixteen_are_not_black() -> None:
    eight = np.asarray(drawing()).astype(np.uint32)
    data = rgb16(eight * 4095 // 255)
    assert np.abs(pixels(data) - eight).max() <= 1
    assert said(data) == "scaled from a range: 0 to 4095"
    assert np.array_equal(pixels(rgb16(eight * 257)), eight)
    assert said(rgb16(eight * 257)) == ""


@pytest.mark.parametrize("depth", [16, 32])
def test_a_tiff_whose_white_is_zero_is_not_a_negative(depth: int) -> None:
    image = gray16(65535) if depth == 16 else Image.fromarray(np.asarray(gray16(65535)).astype(np.float32))
    data = bytearray(encoded(image, "TIFF"))
    place = data.index(struct.pack("<HHI", 262, 3, 1)) + 8
    data[place : place + 2] = b"\0\0"
    assert np.array_equal(pixels(bytes(data)), 255 - pixels(encoded(image, "TIFF")))
    assert said(bytes(data)) == "white is zero: inverted"


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
def test_alpha_that_is_zero_everywhere_over_a_picture_is_ignored(kind: str) -> None:
    image = drawing()
    image.putalpha(0)
    data = encoded(image, kind, **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    assert np.array_equal(pixels(data), np.asarray(drawing()))
    assert said(data) == "alpha channel ignored: it is zero everywhere, over colours that are there"


def test_white_on_nothing_is_laid_on_black() -> None:
    image = drawing("RGBA", ground=(255, 255, 255, 0), disc=(255, 255, 255, 255))
    assert pixels(encoded(image))[16, 20].tolist() == [255, 255, 255]
    assert pixels(encoded(image))[0, 0].tolist() == [0, 0, 0]
    assert "laid on black" in said(encoded(image))


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "CMYK"])
def test_an_image_of_one_colour_gets_the_word(mode: str) -> None:
    data = encoded(Image.new(mode, (9, 9), 1), "TIFF" if mode == "CMYK" else "PNG")
    assert "one colour only: there is nothing to see in it" in said(data)


def test_the_first_page_that_is_not_blank_is_taken() -> None:
    blank = Image.new("RGB", (48, 32), "white")
    pages = encoded(blank, "TIFF", save_all=True, append_images=[blank, drawing(), blank])
    assert np.array_equal(pixels(pages), np.asarray(drawing()))
    assert said(pages) == "several pages: page 3 of 4 is used, the first that is not blank"
    empty = encoded(blank, "TIFF", save_all=True, append_images=[blank])
    assert "page 1 of 2 is used, and it is blank; one colour only" in said(empty)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "AVIF"])
def test_the_first_frame_that_is_not_blank_is_taken(kind: str) -> None:
    frames = [Image.new("RGB", (48, 32), "white"), drawing(), drawing(disc=(0, 0, 255))]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)
    assert np.abs(pixels(data) - np.asarray(drawing())).mean() < 12
    assert said(data) == "several frames: frame 2 of 3 is used, the first that is not blank"
    plain = encoded(frames[1], kind, save_all=True, append_images=frames[2:], duration=100)
    assert said(plain) == "several frames: frame 1 of 2 is used"


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
@pytest.mark.parametrize(("icc", "far"), [(ADOBE, 20), (LINEAR, 50)], ids=["adobe", "linear"])
def test_colours_of_another_space_are_converted_to_srgb(kind: str, icc: bytes, far: int) -> None:
    srgb = drawing()
    transform = ImageCms.profileToProfile(srgb, ImageCms.createProfile("sRGB"), io.BytesIO(icc))
    assert transform is not None
    assert np.abs(np.asarray(transform).astype(int) - np.asarray(srgb)).max() > far
    lossless: dict[str, dict[str, Any]] = {
        "JPEG": {"quality": 100, "subsampling": 0},
        "WEBP": {"lossless": True},
    }
    options = lossless.get(kind, {})
    data = encoded(transform, kind, icc_profile=icc, **options)
    assert np.abs(pixels(data) - np.asarray(srgb)).mean() <= 2
    assert said(data) == "colours converted to sRGB: from a test space"


def test_alpha_survives_the_conversion() -> None:
    image = drawing("RGBA", ground=(10, 200, 10, 0), disc=(200, 30, 40, 255))
    data = encoded(image, icc_profile=ADOBE)
    assert pixels(data)[0, 0].tolist() == [255, 255, 255]
    assert pixels(data)[16, 20].tolist() != [200, 30, 40]


def test_a_profile_that_says_srgb_in_whatever_words_changes_no_pixel() -> None:
    image = drawing()
    plain = pixels(encoded(image))
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    near = profile((0.64, 0.33), (0.30, 0.60), (0.15, 0.06), 2.2)
    for icc in (own, near):
        assert np.array_equal(pixels(encoded(image, icc_profile=icc)), plain)
        assert said(encoded(image, icc_profile=icc)) == ""


@pytest.mark.parametrize("icc", [b"garbage", bytes(500), ADOBE[:200], ADOBE[:-90]])
def test_a_broken_profile_is_no_reason_to_fail(icc: bytes) -> None:
    data = encoded(drawing(), icc_profile=icc)
    assert np.array_equal(pixels(data), np.asarray(drawing()))
    assert "colour profile ignored" in said(data)


def test_a_grey_image_with_a_profile_for_colours_keeps_its_grey() -> None:
    data = encoded(drawing().convert("L"), "JPEG", icc_profile=LINEAR)
    out = pixels(data)
    assert np.ptp(out, axis=2).max() <= 2
    assert "colours converted" in said(data)


def test_a_png_in_linear_light_by_its_gamma_is_converted() -> None:
    data = encoded(drawing())
    from test_images import png_chunk

    linear = data[:33] + png_chunk(b"gAMA", struct.pack(">I", 100000)) + data[33:]
    usual = data[:33] + png_chunk(b"gAMA", struct.pack(">I", 45455)) + data[33:]
    assert pixels(linear).mean() > pixels(data).mean() + 5
    assert said(linear) == "colours converted to sRGB: from gamma 1"
    assert np.array_equal(pixels(usual), pixels(data))


def test_a_crop_that_leaves_less_than_half_is_said() -> None:
    square = Preprocessor.from_config({})
    assert square.notes((1600, 900)) == ()
    assert "33% of the image" in square.notes((300, 100))[0]
    assert Preprocessor.from_config({}, fit="pad").notes((300, 100)) == ()


NAMED = [
    (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n", "Git LFS pointer"),
    (bytes(128) + b"DICM" + bytes(40), "DICOM"),
    (b"v/1\x01\x02\0\0\0" + bytes(40), "OpenEXR"),
    (b"8BPS\0\x02" + bytes(40), "PSB"),
    (b"\0\0\0\x18ftypqt  \0\0\0\0qt  " + bytes(16), "video"),
    (b"\0\0\0\x1cftypmp42\0\0\0\0mp41isomavc1" + bytes(16), "video"),
    (b"G" + bytes(187) + b"G" + bytes(187) + b"G" + bytes(187), "video"),
    (b"gimp xcf v011\0" + bytes(40), "XCF"),
    (b"SIMPLE  =                    T" + bytes(90), "FITS"),
]
TAKES_AN_EXTRA = [
    (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(16), "HEIC", "pillow_heif"),
    (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(16), "HEIC", "pillow_heif"),
    (b"\xff\x0a" + bytes(40), "JPEG XL", "imagecodecs"),
    (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL", "imagecodecs"),
    (b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(16), "Canon CR3", "rawpy"),
    (b"II*\0\x10\0\0\0CR\x02\0" + bytes(40), "Canon CR2", "rawpy"),
    (b"FUJIFILMCCD-RAW 0201" + bytes(40), "Fujifilm RAF", "rawpy"),
    (b"IIRO\x08\0\0\0" + bytes(40), "Olympus ORF", "rawpy"),
    (b"IIU\0\x18\0\0\0" + bytes(40), "Panasonic RW2", "rawpy"),
]


def raw_tiff(**tags: int | bytes) -> bytes:
    """A small TIFF that opens as a thumbnail, with the marks of a camera's raw file."""
    info: Any = {254: 1, **{int(name[1:]): value for name, value in tags.items()}}
    return encoded(drawing(), "TIFF", tiffinfo=info)


TAKES_AN_EXTRA += [
    (raw_tiff(_50706=b"\x01\x04\0\0"), "DNG", "rawpy"),
    (raw_tiff(_271=b"NIKON CORPORATION", _330=8), "Nikon NEF", "rawpy"),
    (raw_tiff(_271=b"SONY", _330=8), "Sony ARW", "rawpy"),
]


@pytest.mark.parametrize(("data", "name"), NAMED, ids=[name for _, name in NAMED])
def test_what_is_no_image_is_named(data: bytes, name: str) -> None:
    with pytest.raises(UndecodableImage, match=name):
        decode(data)


@pytest.mark.parametrize(("data", "name", "extra"), TAKES_AN_EXTRA)
def test_a_format_that_takes_an_extra_is_named_with_the_install_line(
    data: bytes, name: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise MissingExtra('pip install "nshot[formats]"')

    monkeypatch.setattr(extras, extra, missing)
    with pytest.raises(UndecodableImage, match=rf'{name}.*pip install "nshot\[formats\]"'):
        decode(data)


def test_heic_is_read_with_the_extra() -> None:
    heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    heif.from_pillow(drawing(size=(64, 48))).save(buffer, quality=95)
    assert np.abs(pixels(buffer.getvalue()) - np.asarray(drawing(size=(64, 48)))).mean() < 6
    assert said(buffer.getvalue()) == ""
    before = dict(Image.OPEN)
    decode(buffer.getvalue())
    assert before == Image.OPEN, "the host's Pillow stays as it was"


def test_jpeg_xl_is_read_with_the_extra_and_its_size_is_known_before() -> None:
    codecs = pytest.importorskip("imagecodecs")
    from nshot.errors import ImageTooLarge
    from nshot.images.formats import jpegxl_size
    from nshot.types import Limits

    for size in ((48, 32), (33, 700), (1024, 768), (64, 64)):
        data = codecs.jpegxl_encode(np.asarray(drawing(size=size)), lossless=True)
        assert jpegxl_size(data) == size
        assert np.array_equal(pixels(data), np.asarray(drawing(size=size)))
    with pytest.raises(ImageTooLarge):
        decode(data, limits=Limits(max_pixels=1000))


@with_photos
def test_every_odd_photograph_is_accounted_for() -> None:
    for module in ("pillow_heif", "imagecodecs"):
        pytest.importorskip(module)
    failed = []
    for path in sorted(PHOTOS.rglob("*.*")):
        if path.suffix != ".md":
            try:
                decode(path.read_bytes())
            except UndecodableImage:
                failed.append(path.name)
    assert failed == ["cielab.tiff", "corrupted.heic"]


@with_photos
def test_the_eight_orientations_of_one_scene_are_equal() -> None:
    upright = [pixels((PHOTOS / "exif" / f"landscape_{n}.jpg").read_bytes()) for n in range(9)]
    assert {image.shape for image in upright} == {(1200, 1800, 3)}
    assert max(np.abs(image - upright[0]).mean() for image in upright) < 6


@with_photos
def test_avif_in_four_depths_looks_like_the_jpeg() -> None:
    fox = pixels((PHOTOS / "avif" / "fox.jpg").read_bytes())
    for path in PHOTOS.glob("avif/fox.profile*.avif"):
        image = pixels(path.read_bytes())
        gray = "monochrome" in path.name
        other = fox.mean(axis=2) if gray else fox
        image = image.mean(axis=2) if gray else image
        assert np.abs(image[:798, :1202] - other[:798, :1202]).mean() < 8, path.name


@with_cases
def test_twelve_bits_in_sixteen_look_like_eight() -> None:
    folder = CASES / "twelve-bits-in-sixteen"
    for path in sorted((folder / "twelve").glob("*.png")):
        eight = np.asarray(Image.open(folder / "eight" / path.name).convert("RGB")).astype(int)
        assert np.abs(pixels(path.read_bytes()) - eight).max() <= 2, path.name


@with_cases
def test_colours_of_another_space_look_like_the_plain_ones() -> None:
    folder = CASES / "colours-of-another-space"
    for path in sorted([*(folder / "wide").iterdir(), *(folder / "linear").iterdir()]):
        plain = pixels((folder / "plain" / path.name).read_bytes())
        assert np.abs(pixels(path.read_bytes()) - plain).mean() < 3, path
        assert "colours converted" in said(path.read_bytes())


@with_cases
def test_nothing_is_left_unsaid_where_there_is_nothing_to_see() -> None:
    folder = CASES / "nothing-left-to-see" / "pictures"
    right = pixels((folder / "as_people_see_it.png").read_bytes())
    assert said((folder / "as_people_see_it.png").read_bytes()) == ""
    for path in sorted(folder.iterdir()):
        if path.name == "as_people_see_it.png":
            continue
        assert said(path.read_bytes()), path.name
        if path.stem not in ("truly_white", "white_on_clear"):
            assert np.abs(pixels(path.read_bytes()) - right).mean() < 3, path.name


def test_a_heic_of_ordinary_size_is_read_within_the_memory_that_its_worker_gets() -> None:
    heif = pytest.importorskip("pillow_heif")
    from nshot.images.budget import Budget
    from nshot.images.prepare import Preparing
    from nshot.types import Limits

    limits = Limits()
    prepare = Preparing(Preprocessor.from_config({}), limits, Budget(2**30))
    for size in ((29, 100), (1600, 1200)):
        buffer = io.BytesIO()
        heif.from_pillow(drawing(size=size)).save(buffer, quality=50)
        assert prepare(buffer.getvalue()).pixels.shape == (3, 224, 224)


def test_another_colour_space_without_a_profile_is_said() -> None:
    image = Image.new("RGB", (8, 8), "red")
    image.paste("blue", (0, 0, 4, 4))
    for space, interop, said in (
        (2, None, True),
        (0xFFFF, "R03", True),
        (0xFFFF, None, False),
        (1, "R98", False),
    ):
        exif = Image.Exif()
        exif.get_ifd(0x8769)[0xA001] = space
        if interop is not None:
            exif.get_ifd(0x8769)[0xA005] = {1: interop}
        file = io.BytesIO()
        image.save(file, "JPEG", exif=exif)
        notes = decode(file.getvalue()).notes
        assert any("Adobe RGB" in note for note in notes) == said, (space, interop, notes)
    file = io.BytesIO()
    image.save(file, "PNG")
    png = file.getvalue()
    for named, told in (((12, 13), "Display P3"), ((9, 16), "BT.2020 PQ (HDR)"), ((1, 13), "")):
        chunk = b"cICP" + bytes((*named, 0, 1))
        whole = struct.pack(">I", 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        notes = decode(png[:33] + whole + png[33:]).notes
        assert any(told in note for note in notes) if told else not notes
