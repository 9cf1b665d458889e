"""Keywords in sidecars: what is there stays byte for byte, nothing is lost, everything can be taken back."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from nshot.cli import run
from nshot.errors import OutputError
from nshot.output.tagging import (
    JOURNAL,
    SidecarError,
    keywords_of,
    plan_tags,
    undo_tags,
    with_keywords,
    write_tags,
)

with_exiftool = pytest.mark.skipif(shutil.which("exiftool") is None, reason="exiftool is not installed")

LIGHTROOM = b"""<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="Adobe XMP Core 7.0">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about=""
    xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:crs="http://ns.adobe.com/camera-raw-settings/1.0/"
   crs:Exposure2012="+0.35" xmlns:lr="http://ns.adobe.com/lightroom/1.0/">
   <dc:subject>
    <rdf:Bag>
     <rdf:li>holiday &amp; sun</rdf:li>
     <rdf:li>cat</rdf:li>
    </rdf:Bag>
   </dc:subject>
   <lr:hierarchicalSubject><rdf:Bag/></lr:hierarchicalSubject>
   <!-- a comment -->
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
"""
OTHER_PREFIXES = (
    b'\xef\xbb\xbf<?xml version="1.0" encoding="UTF-8"?>\r\n<q:xmpmeta xmlns:q="adobe:ns:meta/">'
    b'<r:RDF xmlns:r="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><r:Description r:about="uuid:1" '
    b'xmlns:d="http://purl.org/dc/elements/1.1/"><d:subject><r:Seq><r:li>\xc3\xa9t\xc3\xa9</r:li></r:Seq>'
    b"</d:subject></r:Description></r:RDF></q:xmpmeta>"
)
BARE = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b"</rdf:RDF></x:xmpmeta>"
)


def exiftool(*paths: Path) -> list[dict[str, Any]]:
    told = subprocess.run(["exiftool", "-j", "-struct", *map(str, paths)], capture_output=True, check=True)
    read: list[dict[str, Any]] = json.loads(told.stdout)
    return read


def listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


@pytest.mark.parametrize("before", [LIGHTROOM, OTHER_PREFIXES, BARE])
def test_keywords_are_added_and_every_other_byte_stays(before: bytes) -> None:
    after = with_keywords(before, ["cat", "dog <&> \N{CAT}"])
    assert keywords_of(after) == [
        *(k for k in keywords_of(before)),
        *(["cat"] if b"cat" not in before else []),
        "dog <&> \N{CAT}",
    ]
    rest = iter(after)
    assert all(byte in rest for byte in before), "what was there is there, in its order"
    assert with_keywords(after, ["dog <&> \N{CAT}", "cat"]) == after, "a second time changes nothing"


def test_a_new_sidecar_holds_the_keywords() -> None:
    assert keywords_of(with_keywords(None, ["cat", "dog"])) == ["cat", "dog"]


@with_exiftool
@pytest.mark.parametrize("before", [None, LIGHTROOM, OTHER_PREFIXES, BARE])
def test_exiftool_reads_flat_and_hierarchical_keywords(before: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "a.jpg.xmp"
    path.write_bytes(with_keywords(before, ["animal/dog", "red"]))
    (read,) = exiftool(path)
    old = [] if before is None else keywords_of(before)
    assert listed(read["Subject"]) == [*old, "animal", "dog", "red"]
    assert listed(read["HierarchicalSubject"]) == ["animal|dog"]
    assert listed(read["TagsList"]) == ["animal/dog"]
    assert "Warning" not in read
    assert "Error" not in read
    if before == LIGHTROOM:
        assert read["Exposure2012"] == "+0.35"


@pytest.mark.parametrize(
    ("sidecar", "reason"),
    [
        (b"", "not well-formed"),
        (b"<x/>", "no rdf:RDF"),
        (LIGHTROOM[:300], "not well-formed"),
        (LIGHTROOM.decode().encode("utf-16"), "not in UTF-8"),
        (b'<?xml version="1.0" encoding="ISO-8859-1"?>' + BARE, "in ISO-8859-1"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]>' + BARE, "document type"),
        (BARE.replace(b"></rdf:RDF>", b"/>"), "empty tag"),
        (LIGHTROOM.replace(b"rdf:Bag", b"rdf:Heap"), "no list"),
    ],
)
def test_an_unusual_sidecar_is_left_alone(sidecar: bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(SidecarError, match=reason):
        with_keywords(sidecar, ["cat"])
    (tmp_path / "a.jpg.xmp").write_bytes(sidecar)
    tags, failed = plan_tags([(tmp_path / "a.jpg", ["cat"]), (tmp_path / "b.jpg", ["cat"])])
    assert [tag.sidecar.name for tag in tags] == ["b.jpg.xmp"]
    assert [Path(path).name for path, _ in failed] == ["a.jpg.xmp"]


def test_fuzzed_sidecars_are_extended_or_refused_and_never_spoilt() -> None:
    rng = random.Random(0)
    for _ in range(800):
        data = bytearray(rng.choice([LIGHTROOM, OTHER_PREFIXES, BARE]))
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(data))
            data[at : at + rng.randrange(3)] = rng.choice(
                [b"<", b">", b"/", b"&", b"\xff", b'"', b"", b"li", b" "]
            )
        try:
            before = keywords_of(bytes(data))
            after = with_keywords(bytes(data), ["new"])
        except SidecarError:
            continue
        assert set(keywords_of(after)) >= {*before, "new"}


def folder_of(tmp_path: Path, count: int = 60) -> tuple[Path, dict[str, tuple[bytes, int]]]:
    """Images, some with a sidecar of one or the other name; and what the sidecars are."""
    folder = tmp_path / "photos"
    for number in range(count):
        place = folder / ("a" if number % 2 else "b/c")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.jpg").write_bytes(b"an image")
        if number % 3 == 1:
            (place / f"{number}.jpg.xmp").write_bytes(LIGHTROOM + b"<!-- %d -->" % number)
        elif number % 3 == 2:
            (place / f"{number}.xmp").write_bytes(OTHER_PREFIXES)
    return folder, state_of(folder)


def state_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != f"{JOURNAL}.lock"
    }


def labelled(folder: Path) -> list[tuple[Path, list[str]]]:
    return [(path, ["animal/dog" if "a" in path.parts else "red"]) for path in sorted(folder.rglob("*.jpg"))]


def test_tags_are_written_and_taken_back_byte_for_byte_with_their_times(tmp_path: Path) -> None:
    folder, before = folder_of(tmp_path)
    tags, failed = plan_tags(labelled(folder))
    assert (len(tags), failed) == (60, [])
    assert state_of(folder) == before, "a plan touches nothing"
    assert write_tags(tags, folder) == []
    assert all(set(tag.labels[0].split("/")) <= set(keywords_of(tag.sidecar.read_bytes())) for tag in tags)
    assert plan_tags(labelled(folder))[0] == [], "nothing is left to write"
    undone = undo_tags(folder)
    assert (undone.restored, undone.left, undone.earlier) == (60, (), 0)
    assert state_of(folder) == before
    with pytest.raises(OutputError, match="nothing to undo"):
        undo_tags(folder)


def test_two_runs_are_taken_back_one_by_one(tmp_path: Path) -> None:
    folder, before = folder_of(tmp_path, 9)
    write_tags(plan_tags(labelled(folder))[0], folder)
    between = {name: state[0] for name, state in state_of(folder).items() if name != JOURNAL}
    write_tags(plan_tags([(image, ["blue"]) for image, _ in labelled(folder)])[0], folder)
    assert undo_tags(folder).earlier == 1
    assert {name: state[0] for name, state in state_of(folder).items() if name != JOURNAL} == between
    assert undo_tags(folder).earlier == 0
    assert state_of(folder) == before


def test_a_sidecar_that_somebody_changed_since_is_left_alone(tmp_path: Path) -> None:
    folder, _ = folder_of(tmp_path, 6)
    tags, _ = plan_tags(labelled(folder))
    write_tags(tags, folder)
    tags[0].sidecar.write_bytes(with_keywords(tags[0].sidecar.read_bytes(), ["mine"]))
    undone = undo_tags(folder)
    assert [(path, why) for path, why in undone.left] == [(str(tags[0].sidecar), "it was changed since")]
    assert "mine" in keywords_of(tags[0].sidecar.read_bytes())


@pytest.mark.parametrize("name", ["../outside.xmp", "/etc/outside.xmp", "a/photo.jpg"])
def test_a_journal_that_points_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    (tmp_path / "outside.xmp").write_bytes(b"x")
    entry = {"sidecar": name, "before": None, "mtime_ns": None, "after": hashlib.sha256(b"x").hexdigest()}
    lines = [{"version": 1, "sidecars": 1}, entry, {"begun": True}]
    (folder / JOURNAL).write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(OutputError, match="damaged"):
        undo_tags(folder)
    assert (tmp_path / "outside.xmp").exists()


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from nshot.output.tagging import plan_tags, undo_tags, write_tags
from test_tagging import labelled
folder = Path(sys.argv[1])
print("begun", flush=True)
if sys.argv[3] == "undo":
    undo_tags(folder)
else:
    write_tags(plan_tags(labelled(folder))[0], folder)
"""


@pytest.mark.skipif(os.name == "nt", reason="kills with SIGKILL")
def test_killed_at_any_moment_nothing_is_lost_and_undo_gives_every_byte_back(tmp_path: Path) -> None:
    folder, before = folder_of(tmp_path)
    rng = random.Random(0)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for what in ("write", "undo") * 3:
        if what == "write" or (folder / JOURNAL).exists():
            asked = [sys.executable, "-c", KILLED, str(folder), str(Path(__file__).parent), what]
            process = subprocess.Popen(asked, stdout=subprocess.PIPE, env=environment)
            assert process.stdout is not None
            process.stdout.readline()
            with suppress(subprocess.TimeoutExpired):
                process.wait(rng.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
            process.wait()
            process.stdout.close()
        for name, (content, _) in before.items():
            now = (folder / name).read_bytes()
            assert now == content or set(keywords_of(now)) >= set(keywords_of(content)), name
    while (folder / JOURNAL).exists():
        assert undo_tags(folder).left == ()
    assert state_of(folder) == before


def test_two_taggings_of_one_folder_at_once_are_refused(tmp_path: Path) -> None:
    folder, _ = folder_of(tmp_path, 3)
    tags, _ = plan_tags(labelled(folder))
    refused: list[str] = []

    def again(_: Any) -> None:
        with pytest.raises(OutputError, match="another nshot is writing"):
            write_tags(tags, folder)
        refused.append("yes")

    write_tags(tags, folder, done=again)
    assert len(refused) == len(tags)


def test_new_sidecars_are_named_as_asked_and_one_that_is_there_is_used(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "b.xmp"):
        (tmp_path / name).write_bytes(BARE)
    images = [(tmp_path / "a.jpg", ["x"]), (tmp_path / "b.jpg", ["x"])]
    assert [tag.sidecar.name for tag in plan_tags(images)[0]] == ["a.jpg.xmp", "b.xmp"]
    assert [tag.sidecar.name for tag in plan_tags(images, naming="stem")[0]] == ["a.xmp", "b.xmp"]


@pytest.fixture
def drawn(tmp_path: Path) -> Path:
    folder = tmp_path / "drawn"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("one.png", "two.png", "three.png"):
        Image.fromarray(rng.integers(0, 255, (40, 40, 3), dtype=np.uint8)).save(folder / name)
    return folder


def test_the_command_writes_nothing_until_it_is_told_to_and_takes_it_back(
    drawn: Path, tiny: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["tag", str(drawn), "--labels", "cat, dog", "--reject", "off", "--model", str(tiny)]
    before = state_of(drawn)
    assert run(asked) == 0
    assert "nothing was written: add --write" in capsys.readouterr().out
    assert state_of(drawn) == before
    assert run([*asked, "--write"]) == 0
    assert f"nshot tag --undo {drawn}" in capsys.readouterr().out
    for name in ("one", "two", "three"):
        assert set(keywords_of((drawn / f"{name}.png.xmp").read_bytes())) < {"cat", "dog"}
    assert run(["tag", "--undo", str(drawn)]) == 0
    assert state_of(drawn) == before
    assert run(["tag", "--undo", str(drawn)]) == 2


def test_a_corrected_table_tags_and_sorts_without_a_model(
    drawn: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "corrected.csv"
    table.write_text(
        f"source,label\n{drawn}/one.png,animal/cat\n{drawn}/two.png,dog\n{drawn}/three.png,\n{drawn}/gone.png,dog\n"
    )
    assert run(["tag", "--table", str(table), "--write"]) == 1
    assert "gone.png: no such file" in capsys.readouterr().err
    assert keywords_of((drawn / "one.png.xmp").read_bytes()) == ["animal", "cat"]
    assert not (drawn / "three.png.xmp").exists()
    before = state_of(drawn)
    target = tmp_path / "sorted"
    assert run(["sort", str(target), "--table", str(table), "--move"]) == 1
    assert "and 2 sidecars with them" in capsys.readouterr().out
    moved = sorted(str(path.relative_to(target)) for path in target.rglob("*.*") if path.name[0] != ".")
    assert moved == [
        *("animal_cat/one.png", "animal_cat/one.png.xmp", "dog/two.png", "dog/two.png.xmp"),
        "unsure/three.png",
    ]
    assert run(["sort", "--undo", str(target)]) == 0
    assert state_of(drawn) == before
