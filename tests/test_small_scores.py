"""Scores of sigmoid models are small, are still told apart, and are each a label's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from layouts import tiny_siglip
from PIL import Image

from nshot.classifier.classifier import Classifier
from nshot.classifier.predictions import Predictions
from nshot.cli import cli
from nshot.errors import RequestError
from nshot.few_shot import adapt
from nshot.output.sinks.table import _shown
from nshot.types import LabelScore, Prediction


def test_a_score_that_four_decimals_would_make_zero_is_shown_by_its_size() -> None:
    assert _shown(0.1698).strip() == "0.1698"
    assert _shown(0.00002).strip() == "2e-05"
    assert _shown(0.0).strip() == "0.0000"


def test_a_notebook_shows_a_small_score_by_its_significant_digits() -> None:
    shown = {0.00002: "2e-05", 0.00431: "0.0043", 0.17: "0.170", 0.0: "0.000"}
    for score, text in shown.items():
        answers = Predictions([Prediction("a.jpg", (LabelScore("cat", score, 0.05),), None)])
        assert f"cat  {text}" in repr(answers)
        assert text in answers._repr_html_()


@pytest.fixture
def siglip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The end of a command line: an image and a sigmoid model."""
    monkeypatch.setenv("NSHOT_CACHE", str(tmp_path / "cache"))
    Image.new("RGB", (40, 40), (200, 40, 40)).save(tmp_path / "a.png")
    return [str(tmp_path / "a.png"), "--model", str(tiny_siglip(tmp_path / "siglip")), "--no-store"]


def classify(siglip: list[str], *more: str) -> Result:
    return CliRunner().invoke(cli, ["classify", *siglip, *more])


def test_a_lone_label_is_a_sound_question_to_a_sigmoid_model(siglip: list[str]) -> None:
    result = classify(siglip, "--labels", "cat")
    assert result.exit_code == 0, result.output
    assert "nothing to choose" not in result.output


def test_the_background_rule_s_threshold_is_clip_s_and_says_so(siglip: list[str]) -> None:
    asked = ("--labels", "cat,dog", "--reject", "background")
    assert "measured on CLIP" in classify(siglip, *asked).output
    assert "measured on CLIP" not in classify(siglip, *asked, "--threshold", "0.01").output


def test_adapting_says_why_it_is_not_for_sigmoid_models(siglip: list[str]) -> None:
    result = classify(siglip, "--labels", "cat,dog", "--adapt")
    assert "by itself" in result.output + str(result.exception)
    prompts = Classifier(["a", "b"], np.eye(2), scale=10.0, activation="sigmoid")
    with pytest.raises(RequestError, match="by itself"):
        adapt(np.eye(2), prompts)
