"""What `nshot train` says before it trains; training itself is tested in parity/, where torch is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nshot.cli import run
from nshot.errors import MissingExtra, RequestError
from nshot.train import Options, train


def test_without_torch_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r'pip install "nshot\[torch\]"'):
        train([], tmp_path / "m")
    assert run(["train", "pairs.csv", "-o", str(tmp_path / "m")]) == 2
    assert 'pip install "nshot[torch]"' in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "wrong", [{"batch": 1}, {"lr": -1.0}, {"crop": 0.0}, {"crop": 1.5}, {"part": "head"}, {"steps": 0}]
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RequestError, match=str(next(iter(wrong.values())))):
        Options(**wrong)  # type: ignore[arg-type]


def test_steps_follow_from_epochs_or_are_given() -> None:
    assert Options(batch=10, epochs=2).steps_for(105) == 20
    assert Options(batch=10, steps=7, epochs=2).steps_for(105) == 7
