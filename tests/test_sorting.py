"""Sorting files into folders: no file is lost, overwritten or beyond undoing, whenever it is killed."""

from __future__ import annotations

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from nshot.errors import OutputError
from nshot.output.sorting import JOURNAL, Mode, Move, carry_out, folder_names, plan, undo
from nshot.output.sorting.journal import Journal
from nshot.seals import key_of_person


def state(folder: Path) -> dict[str, tuple[bytes, int] | int]:
    """Every file's bytes and time, and every folder's time."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        if path.is_file()
        else path.stat().st_mtime_ns
        for path in sorted([folder, *folder.rglob("*")])
    }


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nine files in two folders, of a time long ago."""
    folder = tmp_path / "photos"
    for number in range(9):
        path = folder / ("a" if number % 2 else "b") / f"{number // 3}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_name(f"{number // 3}.jpg").write_bytes(b"%d" % number)
    for path in [*folder.rglob("*"), folder]:
        os.utime(path, ns=(1_600_000_000_123_456_789, 1_600_000_000_123_456_789))
    return folder


def moves_of(photos: Path, target: Path, label: str | None = "cat") -> list[Move]:
    files = sorted(path for path in photos.rglob("*") if path.is_file())
    return plan([(path, label) for path in files], target, folder_names(["cat"]))


# Names


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("cat", "cat"),
        ("black/white", "black_white"),
        ("..", "_"),
        ("../../etc", "_._.._etc"),
        (".hidden", "_hidden"),
        ("con", "con_"),
        ("COM1.txt", "COM1.txt_"),
        ("what? <this>", "what_ _this_"),
        ("trailing. ", "trailing"),
        ("a\nb\x00", "a_b_"),
        ("unsure", "unsure (2)"),
        ("Unsure", "Unsure (2)"),
        ("x" * 300, "x" * 120),
        ("猫", "猫"),
    ],
)
def test_a_label_becomes_a_folder_name_that_is_safe_everywhere(label: str, name: str) -> None:
    assert folder_names([label]) == {label: name}


def test_labels_that_differ_only_in_case_or_in_what_was_replaced_get_folders_of_their_own() -> None:
    names = folder_names(["Cat", "cat", "a/b", "a_b", "é", "e\u0301"])
    assert len({name.casefold() for name in names.values()}) == 6


# The plan


def test_names_never_collide_with_each_other_or_with_what_is_there(photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "sorted"
    (target / "cat").mkdir(parents=True)
    (target / "cat" / "0.JPG").write_bytes(b"mine")
    before = len([path for path in photos.rglob("*") if path.is_file()])
    moves = moves_of(photos, target)
    names = [move.target.name.casefold() for move in moves]
    assert len(set(names)) == len(names) == before
    assert "0.jpg" not in names
    carry_out(moves, target, "move")
    assert (target / "cat" / "0.JPG").read_bytes() == b"mine"
    assert len(list((target / "cat").iterdir())) == before + 1


def test_planning_touches_nothing(photos: Path, tmp_path: Path) -> None:
    before = state(tmp_path)
    assert moves_of(photos, tmp_path / "sorted")
    assert state(tmp_path) == before


def test_a_file_named_twice_goes_once_and_one_in_the_target_stays(photos: Path, tmp_path: Path) -> None:
    file = next(path for path in photos.rglob("*") if path.is_file())
    inside = tmp_path / "sorted" / "cat" / "old.jpg"
    moves = plan([(file, "cat"), (file, "cat"), (inside, "cat")], tmp_path / "sorted", {"cat": "cat"})
    assert [move.source for move in moves] == [file]


# Doing and undoing


@pytest.mark.parametrize("mode", ["copy", "link", "move"])
def test_undo_restores_everything_with_times_and_folders(photos: Path, tmp_path: Path, mode: Mode) -> None:
    before = state(photos)
    target = tmp_path / "new" / "sorted"
    moves = moves_of(photos, target)
    assert carry_out(moves, target, mode) == []
    for move in moves:
        assert os.path.lexists(target / move.target)
        assert move.source.exists() is (mode != "move")
        assert (target / move.target).is_symlink() is (mode == "link")
    undone = undo(target)
    assert (undone.restored, undone.left, undone.earlier) == (len(moves), (), 0)
    assert state(photos) == before
    assert not (tmp_path / "new").exists()


def test_the_last_run_is_undone_first(photos: Path, tmp_path: Path) -> None:
    before, target = state(photos), tmp_path / "sorted"
    moves = moves_of(photos, target)
    carry_out(moves[:2], target, "move")
    middle = state(photos)
    carry_out(moves[2:], target, "move")
    assert undo(target).earlier == 1
    assert {k: v for k, v in state(photos).items() if "jpg" in k} == {
        k: v for k, v in middle.items() if "jpg" in k
    }
    assert undo(target).earlier == 0
    assert state(photos) == before
    with pytest.raises(OutputError, match="nothing to undo"):
        undo(target)


def test_undo_leaves_alone_what_somebody_changed(photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "sorted"
    moves = moves_of(photos, target)
    carry_out(moves, target, "copy")
    (target / moves[0].target).write_bytes(b"edited")
    (target / "cat" / "mine.txt").write_bytes(b"mine")
    undone = undo(target)
    assert undone.left == ((str(moves[0].target), "the copy was changed since"),)
    assert sorted(path.name for path in (target / "cat").iterdir()) == ["0.jpg", "mine.txt"]


def test_undo_never_overwrites_a_file_in_the_old_place_and_can_be_asked_again(
    photos: Path, tmp_path: Path
) -> None:
    before, target = state(photos), tmp_path / "sorted"
    moves = moves_of(photos, target)
    carry_out(moves, target, "move")
    moves[0].source.write_bytes(b"new here")
    assert [path for path, _ in undo(target).left] == [str(moves[0].target)]
    assert moves[0].source.read_bytes() == b"new here"
    moves[0].source.unlink()
    assert undo(target).left == ()
    assert state(photos) == before


def test_a_name_that_is_taken_meanwhile_is_not_overwritten(photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "sorted"
    moves = moves_of(photos, target)
    intruder = target / moves[0].target
    intruder.parent.mkdir(parents=True)
    intruder.write_bytes(b"theirs")
    ((move, reason),) = carry_out(moves, target, "move")
    assert (move, reason) == (moves[0], "something has appeared in its place")
    assert (intruder.read_bytes(), moves[0].source.exists()) == (b"theirs", True)
    undo(target)
    assert intruder.read_bytes() == b"theirs"


def test_a_relative_link_stays_where_it_leads_somewhere(tmp_path: Path) -> None:
    (tmp_path / "real.jpg").write_bytes(b"x")
    (tmp_path / "link.jpg").symlink_to("real.jpg")
    moves = plan([(tmp_path / "link.jpg", None)], tmp_path / "sorted", {})
    ((_, reason),) = carry_out(moves, tmp_path / "sorted", "move")
    assert "relative link" in reason
    assert (tmp_path / "link.jpg").read_bytes() == b"x"
    undo(tmp_path / "sorted")
    carry_out(moves, tmp_path / "sorted", "copy")
    assert (tmp_path / "sorted" / "unsure" / "link.jpg").read_bytes() == b"x"


def test_between_file_systems_a_move_is_a_copy_and_then_a_removal(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, target = state(photos), tmp_path / "sorted"
    moves = moves_of(photos, target)
    rename = Path.rename

    def other_device(self: Path, to: Any) -> Path:
        if self.name.endswith(".part"):
            return rename(self, to)
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(Path, "rename", other_device)
    assert carry_out(moves, target, "move") == []
    assert not any(move.source.exists() for move in moves)
    assert (target / moves[0].target).stat().st_mtime_ns == 1_600_000_000_123_456_789
    undo(target)
    assert state(photos) == before


def test_a_kill_between_copy_and_removal_leaves_both_and_undo_one(photos: Path, tmp_path: Path) -> None:
    before, target = state(photos), tmp_path / "sorted"
    moves = moves_of(photos, target)
    carry_out(moves, target, "move")
    moves[0].source.write_bytes((target / moves[0].target).read_bytes())
    os.utime(moves[0].source, ns=(1_600_000_000_123_456_789,) * 2)
    assert undo(target).left == ()
    assert state(photos) == before


def test_an_undo_killed_at_its_last_step_has_restored_the_folders_times(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, target = state(photos), tmp_path / "sorted"
    carry_out(moves_of(photos, target), target, "move")

    def killed(self: Journal) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "remove", killed)
    with pytest.raises(KeyboardInterrupt):
        undo(target)
    assert state(photos) == before


def test_a_torn_journal_line_is_cut_off(photos: Path, tmp_path: Path) -> None:
    before, target = state(photos), tmp_path / "sorted"
    carry_out(moves_of(photos, target), target, "move")
    with (target / JOURNAL).open("ab") as journal:
        journal.write(b'{"failed": 1')
    undo(target)
    assert state(photos) == before


def test_two_sorts_at_once_are_refused(photos: Path, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl")
    target = tmp_path / "sorted"
    target.mkdir()
    with (target / JOURNAL).open("ab") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match="another nshot sort"):
            carry_out(moves_of(photos, target), target, "move")


# Killed

_CHILD = """
import sys
from pathlib import Path
from nshot.output.sorting import carry_out, folder_names, plan, undo
photos, target = Path(sys.argv[1]), Path(sys.argv[2])
print("ready", flush=True)
sys.stdin.readline()
if sys.argv[3] == "undo":
    undo(target)
else:
    labels = ["cat", "dog", None]
    files = sorted(path for path in photos.rglob("*") if path.is_file())
    moves = plan([(f, labels[n % 3]) for n, f in enumerate(files)], target, folder_names(["cat", "dog"]))
    moved = []
    def done(move):
        moved.append(move)
        if len(moved) % 25 == 0:  # a gate, so that a kill can be sent into the next burst
            print(".", flush=True)
            sys.stdin.readline()
    carry_out(moves, target, "move", done=done)
print("done", flush=True)
"""


def run_child(photos: Path, target: Path, action: str, *, gates: int = 0, kill: float | None = None) -> float:
    """Run it to its end, or kill it so many gates and then seconds after it began; how long it took."""
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(photos), str(target), action],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child.stdin as go, child.stdout as told:
        assert told.readline() == b"ready\n"
        go.write(b"go\n")
        go.flush()
        began = time.perf_counter()
        if kill is None:
            go.close()
            assert told.read().endswith(b"done\n")
        else:
            for _ in range(gates):
                told.readline()
                go.write(b"go\n")
                go.flush()
            time.sleep(kill)
            child.send_signal(signal.SIGKILL)
        took = time.perf_counter() - began
        child.wait()
    return took


@pytest.mark.slow
def test_killed_at_twenty_random_moments_every_file_is_in_one_place_and_undo_restores_all(
    tmp_path: Path,
) -> None:
    photos, target = tmp_path / "photos", tmp_path / "sorted"
    for number in range(600):
        path = photos / str(number % 7) / f"{number // 7}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"%d" % number)
    before = state(photos)
    contents = sorted(b"%d" % number for number in range(600))
    run_child(photos, target, "move")
    whole = run_child(photos, target, "undo")
    assert state(photos) == before
    rng, halfway = random.Random(0), 0
    for trial in range(20):
        # some before or among the first steps, the others while files are moved
        gates = 0 if trial < 4 else rng.randrange(1, 24)
        run_child(photos, target, "move", gates=gates, kill=rng.uniform(0, 0.003))
        here = [path.read_bytes() for path in photos.rglob("*") if path.is_file()]
        there = [path.read_bytes() for path in target.rglob("*.jpg")]
        assert sorted(here + there) == contents
        halfway += bool(here and there)
        if (target / JOURNAL).exists():
            if trial % 2:  # an undo that is killed itself is gone on with
                run_child(photos, target, "undo", kill=rng.uniform(0, whole))
            if (target / JOURNAL).exists():
                undo(target)
        assert state(photos) == before
        assert not target.exists() or not any(target.iterdir())
    assert halfway >= 10


def moved(photos: Path, target: Path) -> None:
    carry_out(
        plan([(path, "cat") for path in sorted(photos.rglob("*.jpg"))], target, {"cat": "cat"}),
        target,
        "move",
    )


def test_a_journal_that_somebody_else_wrote_moves_nothing_elsewhere(photos: Path, tmp_path: Path) -> None:
    target = tmp_path / "sorted"
    moved(photos, target)
    journal = target / JOURNAL
    journal.write_text(journal.read_text().replace(str(photos), str(tmp_path / "victim")))
    before = state(target)
    with pytest.raises(OutputError, match=r"points to .*victim.*nothing is undone.*--undo .*victim"):
        undo(target)
    with pytest.raises(OutputError, match="points to"):
        undo(target, [photos])
    assert state(target) == before
    assert not (tmp_path / "victim").exists()
    assert undo(target, [tmp_path / "victim"]).restored == 6


def test_a_journal_from_another_machine_is_undone_where_the_folders_are_named(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = state(photos)
    moved(photos, tmp_path / "sorted")
    monkeypatch.setenv("NSHOT_CACHE", str(tmp_path / "another"))
    with pytest.raises(OutputError, match="points to"):
        undo(tmp_path / "sorted")
    assert undo(tmp_path / "sorted", [photos]).restored == 6
    assert state(photos) == before


@pytest.mark.parametrize(
    "change",
    [
        {"target": "../../victim.jpg"},
        {"target": "/etc/victim.jpg"},
        {"target": ""},
        {"source": "relative.jpg"},
        {"source": "/a/../b.jpg"},
        {"source": 7},
        {"size": "large"},
        {"mtime_ns": 10**30},
    ],
)
def test_a_journal_that_makes_no_sense_is_refused_in_one_line(
    photos: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    target = tmp_path / "sorted"
    moved(photos, target)
    journal = target / JOURNAL
    entry = json.loads(journal.read_text().splitlines()[0])
    entry["items"][0] |= change
    journal.write_text(json.dumps(entry) + "\n")
    before = state(target)
    with pytest.raises(OutputError, match=r"line 1 is damaged, so nothing is undone") as told:
        undo(target, [photos, tmp_path])
    assert "\n" not in str(told.value)
    assert state(target) == before


def test_undo_follows_no_link_out_of_the_folder(photos: Path, tmp_path: Path) -> None:
    target, victim = tmp_path / "sorted", tmp_path / "victim"
    moved(photos, target)
    (target / "cat").rename(victim)
    (target / "cat").symlink_to(victim)
    before = state(victim)
    undone = undo(target)
    assert {why for _, why in undone.left} == {"a link in its place leads out of the folder"}
    assert state(victim) == before


def test_naming_takes_as_long_for_each_of_many_equal_names(tmp_path: Path) -> None:
    def spent(count: int) -> float:
        files = [(Path(f"/photos/{number}/a.jpg"), "cat") for number in range(count)]
        begun = time.process_time()
        moves = plan(files, tmp_path / "sorted", {"cat": "cat"})
        assert moves[-1].target == Path(f"cat/a ({count}).jpg")
        return time.process_time() - begun

    assert spent(16_000) < 16 * spent(4_000) + 0.5


@pytest.mark.parametrize("left", [None, b"", b"short"])
def test_what_a_full_disk_left_of_the_key_is_replaced(
    left: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NSHOT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "cache").mkdir()
    path = tmp_path / "cache" / "journal.key"
    if left is not None:
        path.write_bytes(left)
    key = key_of_person(make=True)
    assert key is not None
    assert len(key) == 32
    assert path.stat().st_mode & 0o077 == 0
    assert key_of_person(make=True) == key
    assert [each.name for each in path.parent.iterdir()] == ["journal.key"]
