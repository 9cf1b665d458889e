"""What names and labels of strangers print: nothing that a terminal would act on, whatever the command."""

from __future__ import annotations

import shutil
import unicodedata
from pathlib import Path

import click
import pytest
from commands import Cli

CODES = "\x1b[31m", "\x07", "\x9b31m", "\u202e", "\r", "\nfailed: forged"
LABELS = "circle", "square"


@pytest.fixture
def labelled(photos: Path, tmp_path: Path) -> Path:
    """Images of two classes; every name holds what a terminal acts on."""
    folder = tmp_path / "labelled"
    for number, path in enumerate(sorted(photos.iterdir())):
        below = folder / LABELS[number % 2]
        below.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, below / f"{number}{CODES[number % len(CODES)]}{path.suffix}")
        shutil.copy(path, below / f"again{number}{CODES[number % len(CODES)]}{path.suffix}")
    (folder / LABELS[0] / "bad\x1b]0;title\x07.png").write_bytes(b"no image")
    return folder


@pytest.mark.parametrize(
    "command",
    [
        "classify FOLDER --labels A,B",
        "classify FOLDER --labels A\x1b[31m,B\x07",
        "evaluate FOLDER -o OUT/report",
        "fit FOLDER -o OUT/made.nshot",
        "curve FOLDER",
        "calibrate FOLDER --labels A,B --coverage 0.5 -o OUT/made.nshot",
        "robustness FOLDER -o OUT/robustness",
        "search FOLDER --text cat",
        "search FOLDER --neighbours -n 2",
        "duplicates FOLDER",
        "duplicates FOLDER --sort OUT/sorted --dry-run",
        "cluster FOLDER -k 2",
        "next FOLDER --labels A,B -n 5",
        "sort FOLDER OUT/sorted --labels A\x1b[31m,B\x07 --reject off --copy",
        "tag FOLDER --labels A\x1b[31m,B\x07 --reject off --write",
        "embed FOLDER -o OUT/made.npz",
        "locate FOLDER --labels A,B",
        "classify OUT/no\x1b[31msuch.png --labels A,B",
        "classify FOLDER --labels-file OUT/no\x1b[31msuch",
        "classify FOLDER --lab\x1b[31mels A",
        "clas\x1b[31msify FOLDER",
        "search FOLDER -n \x1b[31m",
    ],
)
def test_no_command_prints_what_a_terminal_acts_on(
    cli: Cli,
    tiny: Path,
    labelled: Path,
    tmp_path: Path,
    command: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(click.utils, "should_strip_ansi", lambda *_: False)  # as in a terminal
    written = [
        part.replace("FOLDER", str(labelled)).replace("OUT", str(tmp_path)) for part in command.split(" ")
    ]
    name = command.split(" ")[0]
    ran = cli(*written, *(() if "\x1b" in name else ("--model", str(tiny), "--no-store")), cwd=tmp_path)
    said = ran.out + ran.err
    odd = {char for char in said if unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp")} - {
        "\n",
        "\t",
    }
    assert not odd, said
    assert "Traceback" not in said
    assert "\nfailed: forged" not in said
    if ran.code == 2:
        assert "nshot" in ran.err
