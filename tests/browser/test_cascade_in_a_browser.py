"""The page where two models answer one after the other."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from browsing import Page, Server
from checkpoints import half_size

import nshot
from nshot.classifier.cascade import CascadeClassifier
from nshot.decision.staging import margins_of

pytestmark = pytest.mark.browser

LABELS = ("circle", "star", "heart")


@pytest.fixture
def server(drawings: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A cascade of which half of the drawings go on."""
    photos = tmp_path / "photos"
    shutil.copytree(drawings, photos)
    first = nshot.load(half_size(tmp_path / "smaller"), precision="f32", store=False)
    last = nshot.load("sketchbook", precision="f32", store=False)
    small, large = (nshot.zero_shot(model, LABELS) for model in (first, last))
    margins = margins_of(small.logits(first.embed(str(photos)).vectors))
    checked = {"images": 200, "agreement": 0.96, "interval": [0.923, 0.98], "went on": 0.5}
    made = {"precision": "f32", "last precision": "f32", "agree": 0.95, "learnt on": 300, "checked": checked}
    both = CascadeClassifier.of(small, large, float(np.median(margins)), made)
    both.save(tmp_path / "both.nshot")
    server = Server(photos, tmp_path_factory.getbasetemp() / "cache")
    server.asks = ["--classifier", str(tmp_path / "both.nshot")]
    server.start()
    yield server
    if server.process is not None and server.process.poll() is None:
        server.kill()


def test_the_page_shows_the_promise_and_which_model_answered(page: Page) -> None:
    promise = "0.95 of the answers are promised to be those of sketchbook"
    assert promise in page.text("#hint")
    assert "on 200 others 96.0% were (92.3% to 98.0%), and 50% went on" in page.text("#hint")
    assert "smaller, then sketchbook" in page.text("#tools")
    seen = set()
    for row in range(0, 30, 3):
        page.run("nshotPage.act('goto', arguments[0]); nshotPage.app.panel = 'image'", row)
        page.keys("i", "i")
        page.until(
            "return nshotPage.app.about?.row === nshotPage.grid.row()"
            " && document.getElementById('page').innerText.toLowerCase().includes('answered by')"
        )
        told = page.text("#page").lower().split("answered by")[1].split("margin")[0]
        seen.add("smaller" if "smaller" in told else "sketchbook" if "sketchbook" in told else told)
    assert seen == {"smaller", "sketchbook"}


def test_a_correction_is_kept_and_learning_says_why_it_cannot(page: Page) -> None:
    page.keys("1")
    page.saved()
    assert len(page.said()) == 1
    page.keys("f")
    page.until("return document.getElementById('page').innerText.includes('learning needs one model')")
