"""What `nshot train` says before it trains; training itself is tested in parity/, where torch is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from nshot.cli import run
from nshot.errors import MissingExtra, RequestError
from nshot.train import Options


def test_without_torch_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r'pip install "nshot\[train\]"'):
        from nshot.train import train  # noqa: F401
    assert run(["train", "pairs.csv", "-o", str(tmp_path / "m")]) == 2
    assert 'pip install "nshot[train]"' in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    "wrong", [{"batch": 1}, {"lr": -1.0}, {"crop": 0.0}, {"crop": 1.5}, {"part": "head"}, {"steps": 0}]
)
def test_options_that_make_no_sense_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(RequestError, match=str(next(iter(wrong.values())))):
        Options(**wrong)  # type: ignore[arg-type]


def test_steps_follow_from_epochs_or_are_given() -> None:
    assert Options(batch=10, epochs=2).settled(105, None).steps == 20
    assert Options(batch=10, steps=7, epochs=2).settled(105, None).steps == 7


def test_what_is_left_open_follows_from_the_data_and_the_start() -> None:
    scratch, large, small = (Options().settled(2000, width) for width in (None, 768, 128))
    assert (scratch.lr, large.lr) == (1e-3, 1e-5)
    assert small.lr == pytest.approx(6e-5)
    assert Options(part="projections").settled(2000, 768).lr == pytest.approx(1e-4)
    assert (scratch.patience, large.patience) == (0, 6)
    assert (scratch.steps, large.steps) == (15, 300)
    assert Options().settled(64, 768).batch == 8
    with pytest.raises(RequestError, match="5 images to train on are fewer than a batch of 8"):
        Options(batch=8).settled(5, None)
