"""`nshot search`, `nshot duplicates` and `nshot cluster`, as a person runs them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from nshot.cli import run
from nshot.sketchbook import drawing, scenes, words

MODEL = ("--model", "sketchbook", "--no-store")


@pytest.fixture(scope="module")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty drawings by shape, one of them again byte for byte, and as a JPEG of half the size."""
    top = tmp_path_factory.mktemp("drawings")
    for number in range(20):
        scene = scenes.sample(9_000_000 + number, pairs=words.PAIRS, several=0)
        folder = top / scene.things[0].shape
        folder.mkdir(exist_ok=True)
        image = drawing.draw(scene, 128)
        image.save(folder / f"{number:02}.png")
        if number == 3:
            image.resize((64, 64)).save(folder / "small.jpg", quality=85)
            (folder / "03 again.png").write_bytes((folder / "03.png").read_bytes())
    return top


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_search_writes_its_fixed_records(drawings: Path, tmp_path: Path) -> None:
    out = tmp_path / "hits.jsonl"
    assert run(["search", str(drawings), "--text", "a red circle", "-n", "3", "-o", str(out), *MODEL]) == 0
    records = lines(out)
    assert [list(record) for record in records] == [
        ["query", "rank", "source", "score", "cosine", "fits"]
    ] * 3
    assert [record["rank"] for record in records] == [1, 2, 3]


def test_a_nonsense_query_is_told_that_nothing_here_fits(
    drawings: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["search", str(drawings), "--text", "xyzzy blorf", *MODEL]) == 0
    said = capfd.readouterr()
    assert "nothing here fits 'xyzzy blorf'" in said.err
    assert "(does not fit)" in said.out


@pytest.mark.parametrize("ending", ["csv", "parquet", "html"])
def test_search_writes_tables_and_a_page(drawings: Path, tmp_path: Path, ending: str) -> None:
    if ending == "parquet":
        pytest.importorskip("pyarrow", reason="needs the [data] extra")
    out = tmp_path / f"hits.{ending}"
    like = next(drawings.rglob("03.png"))
    asked = ["search", str(drawings), "--like", str(like), "--not", "red", "-o", str(out), *MODEL]
    assert run([*asked, "-q"]) == 0
    if ending == "csv":
        with out.open() as file:
            rows = list(csv.DictReader(file))
        assert {Path(row["source"]).name for row in rows[:2]} == {"03 again.png", "small.jpg"}
        assert rows[0]["fits"] == ""
    elif ending == "html":
        assert out.read_text().count("data:image/jpeg") == 20


def test_questions_of_a_file_are_asked_one_by_one(drawings: Path, tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("a circle\n\na star\n")
    out = tmp_path / "hits.jsonl"
    asked = ["search", str(drawings), "--queries", str(tmp_path / "q.txt"), "-n", "2", "-o", str(out), *MODEL]
    assert run(asked) == 0
    assert [record["query"] for record in lines(out)] == ["a circle", "a circle", "a star", "a star"]


def test_each_image_gets_its_neighbours(drawings: Path, tmp_path: Path) -> None:
    out = tmp_path / "n.jsonl"
    assert run(["search", str(drawings), "--neighbours", "-n", "2", "-o", str(out), *MODEL]) == 0
    assert len(lines(out)) == 2 * 22


def test_a_label_and_a_column_filter_what_is_searched(drawings: Path, tmp_path: Path) -> None:
    out = tmp_path / "hits.jsonl"
    shape = next(drawings.rglob("03.png")).parent.name
    asked = ["search", str(drawings), "--text", "a thing", "-n", "99", "-o", str(out), *MODEL]
    assert run([*asked, "--label", shape]) == 0
    assert {Path(str(record["source"])).parent.name for record in lines(out)} == {shape}
    table = tmp_path / "photos.csv"
    files = sorted(drawings.rglob("*.png"))
    table.write_text("path,year\n" + "".join(f"{file},{2000 + i % 2}\n" for i, file in enumerate(files)))
    asked = ["search", str(table), "--text", "a thing", "-n", "99", "-o", str(out), *MODEL]
    assert run([*asked, "--where", "year=2001"]) == 0
    assert {str(record["source"]) for record in lines(out)} == {str(file) for file in files[1::2]}


def test_a_label_and_a_column_together_leave_what_has_both(drawings: Path, tmp_path: Path) -> None:
    out, table = tmp_path / "hits.jsonl", tmp_path / "photos.csv"
    files = sorted(drawings.rglob("*.png"))
    table.write_text(
        "path,label,year\n"
        + "".join(f"{file},{file.parent.name},{2000 + i % 2}\n" for i, file in enumerate(files))
    )
    shape = next(drawings.rglob("03.png")).parent.name
    asked = ["search", str(table), "--text", "a thing", "-n", "99", "-o", str(out), *MODEL]
    assert run([*asked, "--label", shape, "--where", "year=2001"]) == 0
    expected = {str(file) for file in files[1::2] if file.parent.name == shape}
    assert {str(record["source"]) for record in lines(out)} == expected != set()


def test_an_empty_text_is_refused_before_any_image_is_read(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rubbish.png").write_bytes(b"rubbish")
    for asked in (["--text", ""], ["--like", str(tmp_path / "rubbish.png"), "--not", " "]):
        assert run(["search", str(tmp_path), *asked, *MODEL]) == 2
        said = capfd.readouterr().err
        assert "an empty text" in said
        assert "failed:" not in said


def test_the_tree_says_what_joins_and_what_is_lost_by_it(
    drawings: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "tree.jsonl"
    asked = ["cluster", str(drawings), "-k", "5", "--tree", *MODEL]
    assert run([*asked, "-o", str(out)]) == 0
    records = lines(out)
    assert [record["k"] for record in records] == [4, 3, 2, 1]
    shares = [float(str(record["explained"])) for record in records]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] == pytest.approx(0, abs=1e-5)
    assert records[-1]["clusters"] == [1, 2, 3, 4, 5]
    assert records[-1]["images"] == 22
    capfd.readouterr()
    assert run(asked) == 0
    assert "5 clusters explain" in capfd.readouterr().out
    assert run([*asked, "--suggest-labels"]) == 2


@pytest.mark.parametrize("command", ["sort", "tag", "duplicates"])
def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    drawings: Path, tmp_path: Path, command: str, capfd: pytest.CaptureFixture[str]
) -> None:
    import shutil

    here = tmp_path / "here"
    shutil.copytree(drawings, here)
    before = sorted(map(str, tmp_path.rglob("*")))
    labels = ["--labels", "circle, star", "--reject", "off"]
    act = {
        "sort": [str(here), str(tmp_path / "sorted"), *labels, "--move"],
        "tag": [str(here), *labels, "--write"],
        "duplicates": [str(here), "--sort", str(tmp_path / "trash")],
    }[command]
    assert run([command, *act, "--dry-run", *MODEL]) == 0
    assert "leave out --dry-run" in capfd.readouterr().out
    assert sorted(map(str, tmp_path.rglob("*"))) == before


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ([], "say what to look for"),
        (["--text", "a", "--neighbours"], "say what to look for"),
        (["--text", " "], "an empty text"),
        (["--text", "a", "--where", "year"], "COLUMN=VALUE"),
        (["--text", "a", "--where", "year=1"], "filters the rows of a table"),
        (["--text", "a", "--index", "exact"], "one file of vectors"),
        (["--text", "a", "--format", "html"], "a page needs a file"),
        (["--like", "nowhere.jpg"], "nowhere.jpg"),
        (["--text", "a", "--label", "unicorn"], "leave no image"),
    ],
)
def test_a_request_that_cannot_be_answered_is_refused(
    drawings: Path, capfd: pytest.CaptureFixture[str], asked: list[str], said: str
) -> None:
    assert run(["search", str(drawings), *asked, *MODEL]) == 2
    assert said in capfd.readouterr().err


def test_a_large_file_of_vectors_is_searched_on_disk(
    drawings: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    vectors = tmp_path / "vectors.npz"
    assert run(["embed", str(drawings), "-o", str(vectors), *MODEL]) == 0
    answers = []
    for more in ([], ["--index", "exact"], ["--index", "exact"]):
        capfd.readouterr()
        assert run(["search", str(vectors), "--text", "a star", "--format", "jsonl", *MODEL, *more]) == 0
        answers.append([json.loads(line)["source"] for line in capfd.readouterr().out.splitlines()])
    assert answers[0] == answers[1] == answers[2]
    assert (tmp_path / "vectors.npz.index" / "index.json").exists()


def test_very_many_vectors_are_searched_through_an_inverted_file_and_its_recall_is_told(
    drawings: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from nshot.errors import MissingExtra

    monkeypatch.setattr("nshot.search.MANY", 10)
    monkeypatch.setattr("nshot.cli.search._INDEXED", 5)
    vectors = tmp_path / "vectors.npz"
    assert run(["embed", str(drawings), "-o", str(vectors), *MODEL]) == 0
    asked = ["search", str(vectors), "--text", "a star", *MODEL]

    def missing() -> None:
        raise MissingExtra("an inverted file needs faiss")

    with monkeypatch.context() as without:
        without.setattr("nshot.extras.faiss", missing)
        capfd.readouterr()
        assert run(asked) == 0
        assert "needs faiss" in capfd.readouterr().err
    pytest.importorskip("faiss", reason="needs the [search] extra")
    assert run(asked) == 0
    assert "of the ten nearest images of a text" in capfd.readouterr().err
    assert run([*asked, "--index", "exact"]) == 0
    assert "inverted" not in capfd.readouterr().err


def test_duplicates_are_moved_and_taken_back(
    drawings: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    here = tmp_path / "here"
    for file in drawings.rglob("*.*"):
        here.mkdir(exist_ok=True)
        (here / file.name).write_bytes(file.read_bytes())
    before = sorted(path.name for path in here.iterdir())
    trash, groups = tmp_path / "trash", tmp_path / "groups.jsonl"
    asked = ["duplicates", str(here), *MODEL, "--kind", "same", "--kind", "copy"]
    assert run([*asked, "-o", str(groups), "--sort", str(trash), "--dry-run"]) == 0
    assert not trash.exists()
    assert sorted(path.name for path in here.iterdir()) == before
    records = lines(groups)
    assert [list(record) for record in records] == [["group", "kind", "best", "sources"]] * len(records)
    assert [record["kind"] for record in records][:2] == ["same", "copy"]
    assert run([*asked, "--sort", str(trash)]) == 0
    left = {path.name for path in here.iterdir()}
    assert "small.jpg" not in left
    assert len({"03.png", "03 again.png"} & left) == 1
    assert "nshot sort --undo" in capfd.readouterr().out
    assert run(["sort", "--undo", str(trash)]) == 0
    assert sorted(path.name for path in here.iterdir()) == before


def test_a_dry_run_of_nothing_is_refused(drawings: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["duplicates", str(drawings), "--dry-run", *MODEL]) == 2
    assert "add --sort" in capfd.readouterr().err


def test_duplicates_and_clusters_make_pages(drawings: Path, tmp_path: Path) -> None:
    for command in ("duplicates", "cluster"):
        out = tmp_path / f"{command}.html"
        assert run([command, str(drawings), "-o", str(out), *MODEL, "-q"]) == 0
        assert "data:image/jpeg" in out.read_text()


def test_clusters_get_names_and_suggest_labels(
    drawings: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "clusters.jsonl"
    names = ["--names", ", ".join(words.SHAPES)]
    assert run(["cluster", str(drawings), "-k", "4", *names, "-o", str(out), *MODEL]) == 0
    records = lines(out)
    assert len(records) == 22
    assert list(records[0]) == ["cluster", "name", "source", "distance"]
    capfd.readouterr()
    assert run(["cluster", str(drawings), "-k", "4", *names, "--suggest-labels", *MODEL]) == 0
    suggested = capfd.readouterr().out.split("\n")[:-1]
    assert len(suggested) == 4
    assert set(suggested) <= set(words.SHAPES)


def test_an_image_that_cannot_be_read_is_told_and_the_others_are_searched(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (20, 20), "red").save(tmp_path / "a.png")
    Image.new("RGB", (20, 20), "blue").save(tmp_path / "b.png")
    (tmp_path / "c.png").write_bytes(b"rubbish")
    commands: list[Callable[[], int]] = [
        lambda: run(["search", str(tmp_path), "--text", "red", *MODEL]),
        lambda: run(["duplicates", str(tmp_path), *MODEL]),
        lambda: run(["cluster", str(tmp_path), *MODEL]),
    ]
    for command in commands:
        assert command() == 1
        assert "c.png" in capfd.readouterr().err
