"""No permission and a full disk: one line, the exit status as documented, and nothing lost.

Where the tests run as the superuser, commands run without the capability to read and write everything.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from nshot import cli

_SUPERUSER = os.name != "nt" and os.geteuid() == 0
_DROP = (
    *("setpriv", "--bounding-set", "-dac_override,-dac_read_search,-fowner", "--inh-caps=-all"),
    "--",
)

ordinary = pytest.mark.skipif(
    os.name == "nt" or (_SUPERUSER and shutil.which("setpriv") is None),
    reason="needs an ordinary user, or setpriv to take the superuser's capabilities",
)
limited = pytest.mark.skipif(os.name == "nt", reason="needs a limit on the size of files")

LABELS = ("--labels", "cat, dog", "--reject", "off")


def run(*args: object, largest: int | None = None) -> subprocess.CompletedProcess[str]:
    """A command as an ordinary user; files may grow to ``largest`` bytes, as where a disk is full."""
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({largest}, {largest}));"
    program = f"{limit if largest is not None else ''}from nshot.cli import main; main()"
    command = [*(_DROP if _SUPERUSER else ()), sys.executable, "-c", program, *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@contextmanager
def forbidden(path: Path, mode: int = 0) -> Iterator[None]:
    before = path.stat().st_mode
    path.chmod(mode)
    try:
        yield
    finally:
        path.chmod(before)


def one_line(done: subprocess.CompletedProcess[str], status: int, *said: str) -> None:
    lines = [line for line in done.stderr.splitlines() if not line.startswith("note:")]
    assert done.returncode == status, done.stderr
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("nshot: ")
    for part in said:
        assert part in lines[0]


@ordinary
@pytest.mark.parametrize("command", ["classify a.jsonl", "embed v.npz", "sort sorted"])
def test_an_output_that_may_not_be_written_is_one_line(
    tiny: Path, photos: Path, tmp_path: Path, command: str
) -> None:
    name, output = command.split()
    folder = tmp_path / "out"
    folder.mkdir()
    where = [folder / output, "--copy"] if name == "sort" else ["-o", folder / output]
    labels = LABELS if name != "embed" else ()
    with forbidden(folder, 0o555):
        done = run(name, photos, *where, *labels, "--model", tiny, "--no-store")
    one_line(done, 2, output)
    assert not list(folder.iterdir())


@ordinary
def test_what_may_not_be_read_is_one_line(tiny: Path, photos: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny, tmp_path / "model")
    table = tmp_path / "table.csv"
    table.write_text("image\n00.jpg\n")
    cases = [(model / "config.json", photos), (model / "model.safetensors", photos)]
    cases += [(table, table), (photos, photos)]
    for closed, source in cases:
        with forbidden(closed):
            done = run("classify", source, *LABELS, "--model", model, "--no-store")
        one_line(done, 2, str(closed))


@ordinary
def test_an_image_that_may_not_be_read_fails_alone(tiny: Path, photos: Path) -> None:
    with forbidden(photos / "00.jpg"):
        done = run("classify", photos, *LABELS, "--model", tiny, "--no-store", "--format", "jsonl")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 12
    assert f"failed: {photos / '00.jpg'}: permission denied\n" in done.stderr


@ordinary
def test_a_cache_that_may_not_be_used_costs_time_and_no_answer(
    tiny: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setenv("NSHOT_CACHE", str(cache))
    with forbidden(cache):
        done = run("classify", photos, *LABELS, "--model", tiny, "--format", "jsonl")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 12
    assert "Going on without it" in done.stderr


@ordinary
def test_images_that_may_not_be_moved_stay_and_are_named(tiny: Path, photos: Path, tmp_path: Path) -> None:
    before = sorted(path.read_bytes() for path in photos.glob("??.*"))
    with forbidden(photos, 0o555):
        done = run("sort", photos, tmp_path / "sorted", *LABELS, "--model", tiny, "--move")
        tagged = run("tag", photos, *LABELS, "--model", tiny, "--write")
    assert done.returncode == 1
    assert done.stderr.count("Permission denied") == 12
    assert "Traceback" not in done.stderr
    one_line(tagged, 2, str(photos))
    assert sorted(path.read_bytes() for path in photos.glob("??.*")) == before


@limited
@pytest.mark.parametrize(
    "command",
    [
        "classify a.jsonl",
        "classify a.parquet",
        "embed v.npz",
        "embed parts/",
        "fit c.nshot",
        "evaluate page",
        "sort sorted",
        "tag",
    ],
)
def test_a_full_disk_is_one_line_at_every_write(
    tiny: Path, photos: Path, tmp_path: Path, command: str
) -> None:
    if "parquet" in command or "/" in command:
        pytest.importorskip("pyarrow")
    name, _, output = command.partition(" ")
    source: Path = photos
    labels = LABELS if name in ("classify", "sort", "tag") else ()
    if name in ("fit", "evaluate"):
        source = tmp_path / "labelled"
        for number, path in enumerate(sorted(photos.iterdir())):
            (source / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, source / "ab"[number % 2])
    where: list[object] = ["-o", f"{tmp_path}/{output}"]
    if name in ("sort", "tag"):
        where = [tmp_path / output, "--move"] if name == "sort" else ["--write"]
    before = sorted(path.read_bytes() for path in photos.glob("??.*"))
    done = run(name, source, *where, *labels, "--model", tiny, "--no-store", largest=10)
    one_line(done, 2, output.rstrip("/") or str(photos))
    assert sorted(path.read_bytes() for path in photos.glob("??.*")) == before


@limited
@pytest.mark.parametrize(
    "command",
    [
        *(f"classify PHOTOS LABELS -o x.{ending}" for ending in ("jsonl", "csv", "tsv", "json", "parquet")),
        *(f"classify PHOTOS LABELS --format {kind} -o x.json" for kind in ("coco", "labelstudio")),
        *(f"embed PHOTOS -o x.{ending}" for ending in ("npz", "parquet")),
        *(f"search PHOTOS --text cat -o x.{ending}" for ending in ("html", "csv", "jsonl", "parquet")),
        *(f"duplicates PHOTOS -o x.{ending}" for ending in ("html", "csv", "parquet")),
        *(f"cluster PHOTOS -k 2 -o x.{ending}" for ending in ("html", "csv", "parquet")),
        *(f"locate PHOTOS --labels cat,dog -o x.{ending}" for ending in ("json", "csv", "jsonl")),
        "fit DATA -o x.nshot",
        "calibrate DATA --labels a,b --coverage 0.5 --reject off -o x.nshot",
    ],
)
def test_a_full_disk_leaves_what_was_there_before(
    tiny: Path, photos: Path, tmp_path: Path, command: str
) -> None:
    if "parquet" in command:
        pytest.importorskip("pyarrow")
    if "locate" in command or "fit" in command or "calibrate" in command:
        data = tmp_path / "labelled"
        for number, path in enumerate(sorted(photos.iterdir())):
            (data / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, data / "ab"[number % 2])
    out = tmp_path / "out"
    out.mkdir()
    asked = command.replace(" LABELS", " --labels cat,dog --reject off").split()
    places = {"PHOTOS": photos, "DATA": tmp_path / "labelled", asked[-1]: out / asked[-1]}
    (out / asked[-1]).write_bytes(b"what was there before")
    done = run(*(places.get(part, part) for part in asked), "--model", tiny, "--no-store", largest=10)
    one_line(done, 2, asked[-1])
    assert (out / asked[-1]).read_bytes() == b"what was there before"
    assert all(path.stat().st_size == 0 for path in out.iterdir() if path.name != asked[-1])


@limited
@pytest.mark.parametrize("largest", [10, 6000])
@pytest.mark.parametrize("command", ["evaluate --labels a,b", "curve", "robustness --labels a,b"])
def test_a_report_on_a_full_disk_holds_no_half_of_a_file(
    tiny: Path, photos: Path, tmp_path: Path, command: str, largest: int
) -> None:
    data, out = tmp_path / "labelled", tmp_path / "report"
    for number, path in enumerate(sorted(photos.iterdir())):
        (data / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, data / "ab"[number % 2])
    name, *others = command.split()
    done = run(name, data, *others, "-o", out, "--model", tiny, "--no-store", largest=largest)
    one_line(done, 2, str(out))
    assert not [path for path in out.rglob("*") if path.is_file() and path.stat().st_size in (0, largest)]
    assert not list(out.rglob("*.part"))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("command", [["--help"], ["store", "info"], ["completion", "bash"]])
def test_a_full_disk_behind_standard_output_is_one_line(command: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        program = [sys.executable, "-m", "nshot", *command]
        done = subprocess.run(program, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (2, "nshot: cannot write: No space left on device\n")


@limited
@pytest.mark.parametrize("command", ["classify", "sort", "tag"])
def test_after_a_full_disk_the_same_command_goes_on(
    tiny: Path, photos: Path, tmp_path: Path, command: str
) -> None:
    where = {"classify": ["-o", tmp_path / "x.jsonl"], "sort": [tmp_path / "sorted", "--copy"]}
    asked = [command, photos, *where.get(command, ["--write"]), *LABELS, "--model", tiny, "--no-store"]
    assert run(*asked, largest=300).returncode in (1, 2)
    left = command == "classify" and any(path.name.startswith("x.jsonl") for path in tmp_path.iterdir())
    done = run(*asked, *(["--resume"] if left else []))
    assert done.returncode == 0, done.stderr
    if command == "classify":
        assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 12


@pytest.mark.parametrize(
    "command",
    [
        ["classify", "photos", "--labels", "circle, star"],
        ["embed", "photos"],
        ["evaluate", "photos"],
        ["search", "photos", "--text", "a circle"],
        ["duplicates", "photos"],
    ],
    ids=lambda command: command[0],
)
def test_an_output_is_not_the_store_of_vectors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    for _ in range(2):  # the second time it is there
        same = ["--store", "one.npz", "-o", str(tmp_path / "one.npz")]
        status = cli.run([*command, "--model", "sketchbook", *same])
        told = capsys.readouterr().err.splitlines()[-1]
        assert (status, "is the store of vectors: name another file" in told) == (2, True)
        (tmp_path / "one.npz").touch()
