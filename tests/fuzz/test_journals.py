"""Journals and what else a later run goes on with: nothing is undone, taken or lost that should not be."""

from __future__ import annotations

import base64
import json
import os
import random
import shutil
import zlib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from fuzz.attack import attack
from fuzz.damage import mutated, mutated_json, mutated_text
from fuzz.test_tables import parquet_changed
from nshot.output.sinks import open_sink
from nshot.output.sorting import JOURNAL, carry_out, plan, undo
from nshot.output.sorting.journal import Mode
from nshot.output.tagging.tagging import JOURNAL as TAGS
from nshot.output.tagging.tagging import undo_tags
from nshot.output.tagging.xmp import SidecarError, keywords_of, with_keywords
from nshot.types import Failure, LabelScore, Prediction


@pytest.mark.parametrize("mode", ["move", "copy", "link"])
def test_damaged_journals_of_sorting_touch_nothing_outside(mode: Mode, room: Path) -> None:
    photos, target = room / "photos", room / "sorted"
    photos.mkdir()
    outside = room / "bystander"
    outside.write_bytes(b"bystander")
    for name in "abc":
        (photos / f"{name}.jpg").write_bytes(name.encode())
    before = {path.name: path.stat() for path in photos.iterdir()}
    files = [(path, "cat") for path in sorted(photos.iterdir())]
    carry_out(plan(files, target, {"cat": "cat"}), target, mode)
    journal = target / JOURNAL
    whole = journal.read_bytes() + (b'{"failed": 1}\n' if mode == "copy" else b"")

    def made(source: random.Random) -> bytes:
        data = whole.replace(str(room).encode(), b"ROOM")
        if source.randrange(4) == 0:  # a path that leads elsewhere
            old = source.choice((b"ROOM/photos/a.jpg", b"cat/a.jpg", b"ROOM/photos", b"cat"))
            new = (
                b"ROOM/bystander",
                b"../bystander",
                b"/",
                b"cat/../../bystander",
                b"ROOM/photos/../bystander",
                b"",
            )
            data = data.replace(old, source.choice(new))
        return mutated_json(data, source) if source.randrange(5) else data

    def read(data: bytes) -> None:
        for folder in (photos, target):  # as the run left it
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
        for name in "abc":
            old, new = photos / f"{name}.jpg", target / "cat" / f"{name}.jpg"
            new.parent.mkdir(parents=True, exist_ok=True)
            if mode == "link":
                new.symlink_to(old)
            else:
                new.write_bytes(name.encode())
                os.utime(new, ns=(before[f"{name}.jpg"].st_atime_ns, before[f"{name}.jpg"].st_mtime_ns))
            if mode != "move":
                old.write_bytes(name.encode())
        journal.write_bytes(data.replace(b"ROOM", str(room).encode()))
        try:
            undo(target, [photos])
        finally:
            files = [path for path in room.rglob("*") if path.is_file() and path not in (outside, journal)]
            held = {path.read_bytes() for path in files}
            assert held == {b"a", b"b", b"c"}, [str(path) for path in files]
            assert outside.read_bytes() == b"bystander"
            assert {path.name for path in room.iterdir()} <= {"bystander", "photos", "sorted"}

    attack(f"journals of sorting, {mode}", made, read, short=60)


def test_damaged_journals_of_tags(room: Path) -> None:
    sidecar = room / "a.jpg.xmp"
    after = with_keywords(None, ("cat",))
    entries = [
        {"version": 1, "sidecars": 1},
        {"sidecar": "a.jpg.xmp", "before": None, "after": "0" * 64, "mtime_ns": None},
        {
            "sidecar": "b.xmp",
            "before": base64.b64encode(zlib.compress(b"<x/>")).decode(),
            "after": "1" * 64,
            "mtime_ns": 5,
        },
        {"begun": True},
    ]
    whole = "".join(json.dumps(entry) + "\n" for entry in entries).encode()

    def read(data: bytes) -> None:
        sidecar.write_bytes(after)
        (room / TAGS).write_bytes(data)
        undo_tags(room)

    attack("journals of tags", lambda source: mutated_json(whole, source), read, short=60)


def test_sidecars() -> None:
    wholes = (
        with_keywords(None, ("cat", "animal/dog")),
        with_keywords(None, ("cat",)).replace(b"\n", b"").replace(b"<rdf:li>cat</rdf:li>", b""),
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        b'<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:subject><rdf:Bag/></dc:subject>'
        b"</rdf:Description></rdf:RDF></x:xmpmeta>",
    )
    odd = (
        b'<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]>',
        b"<rdf:li>",
        b"</rdf:Bag>",
        b"<!--",
        b"<![CDATA[",
        b"&b;",
        b'xmlns:dc="other"',
        b"<?xml version='1.0' encoding='utf-16'?>",
        b"<a>" * 5000,
        b"\xff\xfe",
    )

    def made(source: random.Random) -> bytes:
        data = source.choice(wholes)
        if source.randrange(3) == 0:
            place = source.randrange(len(data))
            data = data[:place] + source.choice(odd) + data[place:]
        return mutated(data, source) if source.randrange(2) else mutated_text(data, source)

    def read(data: bytes) -> None:
        try:
            changed = with_keywords(data, ("bird", "animal/fox"))
        except SidecarError:
            return
        assert "bird" in keywords_of(changed)
        assert set(keywords_of(data)) <= set(keywords_of(changed))

    attack("XMP sidecars", made, read, short=150)


def test_damaged_journals_of_the_page(room: Path) -> None:
    """Read for a command, and opened by a server, which then takes a new act."""
    pytest.importorskip("starlette")
    from nshot.server.session.journal import Journal, read_words

    digest = "ab" * 32
    lines: list[dict[str, Any]] = [
        {"nshot_journal": 1},
        {
            "id": "1",
            "at": 1.5,
            "by": "ann",
            "digests": [digest, "cd" * 32],
            "now": {"label": "cat"},
            "was": [None, None],
        },
        {
            "id": "2",
            "at": 2.5,
            "by": "bob",
            "digests": [digest],
            "now": {"answer": "none"},
            "was": [{"label": "cat"}],
        },
        {"id": "3", "at": 3.5, "by": "ann", "undo": "2"},
        {"id": "4", "at": 4.5, "by": "ann", "redo": "2"},
        {
            "id": "5",
            "at": 5.5,
            "by": "ann",
            "digests": [digest],
            "note": "odd",
            "was": [None],
            "facet": "place",
        },
        {"id": "6", "at": 6.5, "by": "ann", "take": "0001.nshot", "facet": "place"},
        {"id": "7", "at": 7.5, "by": "ann", "sample": 900, "digests": [digest]},
        {
            "id": "8",
            "at": 8.5,
            "by": "ann",
            "digests": [digest],
            "now": {"label": "dog"},
            "audit": True,
            "was": [None],
        },
    ]
    whole = "".join(json.dumps(line) + "\n" for line in lines).encode()
    path = room / "journal.jsonl"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        read_words(path)
        journal = Journal(path)
        try:
            journal.append([{"id": "new", "digests": [digest], "now": {"label": "fox"}}], by="ann")
            journal.append([{"id": "newer", "undo": "new"}], by="ann")
        finally:
            journal.close()

    attack("journals of the page", lambda source: mutated_json(whole, source), read, short=80)


RECORDS = (
    Prediction("a.jpg", (LabelScore("cat", 0.75, 0.25), LabelScore("dog", 0.25, 0.2)), 0.5),
    Failure("b\n.jpg", "UndecodableImage", "bad"),
    Prediction(
        'c,"x".jpg', (LabelScore("dog", 0.5, 0.2), LabelScore("cat", 0.5, 0.2)), 0.0, notes=("turned",)
    ),
)
FORMATS = ("jsonl", "csv", "tsv", "json", *(["parquet"] if find_spec("pyarrow") else []))


@pytest.mark.parametrize("format", FORMATS)
def test_damaged_answers_are_gone_on_with_or_refused(format: str, room: Path) -> None:
    """Of an interrupted run, and of a finished one: they are gone on with, or an error says why not."""
    path = room / f"x.{format}"
    told: dict[str, Any] = {"top_k": 2, "request": "f" * 64, "labels": ["cat", "dog"]}

    def run(complete: bool) -> dict[str, bytes]:
        for old in room.iterdir():
            old.unlink()
        sink = open_sink(format, path, **told)
        for record in RECORDS[: None if complete else 2]:
            sink.write(record)
        sink.close(complete=complete)
        return {each.name: each.read_bytes() for each in room.iterdir()}

    states = [run(True), run(False)]

    def made(source: random.Random) -> dict[str, bytes]:
        files = dict(source.choice(states))
        name = source.choice(sorted(name for name in files if files[name]))
        json_like = name.endswith(("jsonl", "json")) or "journal" in name or "part" in name
        data = files[name]
        if data.startswith(b"PAR1"):
            files[name] = parquet_changed(data, source)
        elif b"\0" in data:  # batches of Arrow
            files[name] = mutated(data, source)
        elif json_like and source.randrange(2):
            try:
                files[name] = mutated_json(data, source)
            except ValueError:
                files[name] = mutated(data, source)
        else:
            files[name] = mutated_text(data, source)
        return files

    def read(files: dict[str, bytes]) -> None:
        for old in room.iterdir():
            old.unlink()
        for name, data in files.items():
            (room / name).write_bytes(data)
        with open_sink(format, path, resume=True, **told) as sink:
            for record in RECORDS:
                if sink.answered[record.source] == 0:
                    sink.write(record)

    attack(f"resumed answers, {format}", made, read, short=60)
