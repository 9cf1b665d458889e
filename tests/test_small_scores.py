"""Scores of sigmoid models are small, and still told apart."""

from __future__ import annotations

from nshot.output.sinks.table import _shown


def test_a_score_that_four_decimals_would_make_zero_is_shown_by_its_size() -> None:
    assert _shown(0.1698).strip() == "0.1698"
    assert _shown(0.00002).strip() == "2e-05"
    assert _shown(0.0).strip() == "0.0000"
