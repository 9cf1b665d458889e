"""The Python in the documents runs as it stands, with one broken file among the images."""

from __future__ import annotations

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from nshot import sketchbook
from nshot.models import checkpoint

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(python|py)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str = "python") -> list[str]:
    return [code for kind, code in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


def lines(code: str) -> int:
    return sum(bool(line.strip()) for line in code.splitlines())


@pytest.fixture
def _folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the documents talk of, drawn; the small model that ships stands in for the one on the Hub."""
    shipped = checkpoint.BUILT_IN["sketchbook"]
    monkeypatch.setitem(checkpoint.BUILT_IN, checkpoint.DEFAULT_MODEL, shipped)
    monkeypatch.chdir(tmp_path)
    folders = {
        "photos": list("abcdefghijklmn"),
        "photos-by-class/cat": "123456",
        "photos-by-class/dog": "123456",
    }
    for seed, (folder, names) in enumerate(folders.items()):
        Path(folder).mkdir(parents=True)
        for number, name in enumerate(names):
            drawing = sketchbook.draw(sketchbook.sample(100 * seed + number), 96)
            drawing.save(Path(folder, f"{name}.jpg"))
        Path(folder, "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no more")
    for name in ("a", "b"):
        Path(f"{name}.jpg").write_bytes(Path("photos", f"{name}.jpg").read_bytes())


@pytest.mark.usefixtures("_folders")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_the_python_of_a_page_runs_from_top_to_bottom(page: Path) -> None:
    names: dict[str, object] = {}
    for code in blocks(page):
        if "nshot.train" in code and not find_spec("torch"):
            pytest.skip("training needs the [torch] extra")
        exec(compile(code, str(page), "exec"), names)


def test_no_job_takes_more_lines_here_than_where_one_comes_from() -> None:
    page = ROOT / "docs" / "coming-from.md"
    ours, theirs = blocks(page), blocks(page, "py")
    assert len(ours) == len(theirs) == 6
    assert all(lines(mine) <= lines(peer) for mine, peer in zip(ours, theirs, strict=True))
