"""The page where an image may show any number of labels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import Page, Server

from nshot.server.session import Word, read_words

pytestmark = pytest.mark.browser

SPACE, ENTER, SHIFT, RIGHT, NULL = " ", "\ue007", "\ue008", "\ue014", "\ue000"
LABELS = ("circle", "star", "heart")


@pytest.fixture
def server(drawings: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    photos = tmp_path / "photos"
    shutil.copytree(drawings, photos)
    made = Server(photos, tmp_path_factory.getbasetemp() / "cache", "--multi")
    made.start()
    yield made
    if made.process is not None and made.process.poll() is None:
        made.kill()


def words_on_disk(server: Server) -> dict[str, Word]:
    return read_words(server.photos).said


def shown(page: Page) -> list[str]:
    """The labels that are pressed for the image under the cursor."""
    script = "return [...document.querySelectorAll('#actions [aria-pressed=true]')].map(b => b.innerText)"
    return [str(text).split()[-1] for text in page.run(script)]


def test_a_label_s_key_adds_it_and_takes_it_away_and_the_image_stays(page: Page, server: Server) -> None:
    before = shown(page)
    assert before
    other = next(label for label in LABELS if label not in before)
    key = str(LABELS.index(other) + 1)
    page.keys(key)
    page.saved()
    assert shown(page) == [label for label in LABELS if label in (*before, other)]
    assert page.run("return nshotPage.grid.cursor") == 0
    [word] = words_on_disk(server).values()
    assert set(word.labels) == {*before, other}
    assert word.asked == LABELS
    page.keys(key)
    page.saved()
    assert shown(page) == before
    page.keys("u", "u")
    page.saved()
    assert words_on_disk(server) == {}
    page.keys(SPACE, "0", "s")
    page.saved()
    assert page.run("return nshotPage.grid.cursor") == 3
    words = list(words_on_disk(server).values())
    assert sorted(word.answer for word in words) == ["labels", "labels", "skip"]
    assert any(word.labels == () for word in words)


def test_a_selection_gets_one_more_label_in_one_act_and_keeps_its_others(page: Page, server: Server) -> None:
    for _ in range(5):
        page.keys(SHIFT + RIGHT + NULL)
    page.run(
        "nshotPage.grid.go(nshotPage.grid.groups[1].first + 2, {extend: true})"
    )  # other labels among them
    count = page.run("return document.querySelectorAll('#actions [aria-pressed=mixed]').length")
    assert count >= 1
    page.keys("3")
    page.saved()
    words = words_on_disk(server)
    assert len(words) > 6
    assert all("heart" in word.labels for word in words.values())
    assert len({word.labels for word in words.values()}) >= 2
    assert page.run("return nshotPage.journal.entries.length") == 1
    page.keys("3")
    page.saved()
    assert not any("heart" in word.labels for word in words_on_disk(server).values())
    page.keys("u", "u")
    page.saved()
    assert words_on_disk(server) == {}
    server.kill()
    server.start()
    page.open()
    page.keys("y")
    page.saved()
    assert words_on_disk(server) == words


def test_a_label_s_images_come_with_the_nearest_that_are_not_answered_with_it(page: Page) -> None:
    page.run("nshotPage.act('filter', '=star')")
    page.until("return nshotPage.grid.groups.length === 2")
    names = page.run("return nshotPage.grid.groups.map(g => g.name)")
    assert names == ["star", "Not answered with it"]
    counted = page.run("return nshotPage.grid.groups[0].ids.length")
    assert str(counted) in page.text("#rail [data-arg='=star']")


def test_what_few_images_showed_is_ranked_and_said_to_be(page: Page) -> None:
    page.run("nshotPage.act('tab', 'learn')")
    page.run(
        """const p = nshotPage, rows = [...p.grid.ids].filter(row => p.rows.read[row]).slice(0, 120);
        const of = (row) => /-(circle|star|heart)/.exec(p.rows.names[row])?.slice(1) ?? [];
        const few = rows.filter(row => !of(row).includes("heart")).slice(0, 70);
        few.push(...rows.filter(row => of(row).includes("heart")).slice(0, 5));
        p.journal.act({digests: few.map(row => p.rows.digests[row]),
          each: few.map(row => ({labels: of(row)})), asked: ["circle", "star", "heart"]}); p.act("resort");"""
    )
    page.saved()
    page.until("return nshotPage.app.proposal?.labels?.length === 3")
    page.until("return document.getElementById('page').innerText.includes('ranked, not decided')")
    told = page.text("#page")
    assert "5 of 20" in told
    assert "only ranked" in told
    page.keys("t")
    page.until("return nshotPage.app.answer.learnt")
    page.until("return document.querySelector(\"#rail [data-arg='=heart']\").innerText.includes('ranked')")
    page.run("nshotPage.act('filter', '=heart')")
    page.until("return nshotPage.grid.groups.some(g => g.name === 'Ranked, not decided')")
    page.keys("u")
    page.until("return !nshotPage.app.answer.learnt")


def test_labels_on_the_same_images_are_counted(page: Page) -> None:
    page.run("nshotPage.grid.go(0)")
    page.keys("1") if "circle" not in shown(page) else None
    page.keys("2") if "star" not in shown(page) else None
    page.run("nshotPage.act('tab', 'together')")
    page.until("return document.getElementById('page').innerText.includes('circle + star')")
    page.run("""nshotPage.act('filter', '&["circle","star"]')""")
    page.until("return nshotPage.grid.ids.length > 0 && nshotPage.app.filter[0] === '&'")
    digests = page.run("return [...nshotPage.grid.ids].map(r => nshotPage.rows.names[r])")
    assert len(digests) >= 1


def test_an_audit_hides_every_answer_until_the_last_image_is_told(page: Page) -> None:
    page.run("nshotPage.act('tab', 'learn')")
    page.run("nshotPage.act('audit', '')")
    page.until("return nshotPage.app.show === 'audit' && nshotPage.grid.ids.length === 100")
    assert shown(page) == []
    page.keys("1", "2")
    page.saved()
    assert shown(page) == ["circle", "star"]
    assert "circle, star" in page.run("return nshotPage.grid.live.get(0).innerText")
    page.keys(SPACE)
    assert page.run("return nshotPage.grid.cursor") == 1
    page.keys(SPACE)  # nothing was said of this one: what the model says is no answer
    assert page.run("return nshotPage.grid.cursor") == 1
    page.keys("0")
    page.saved()
    page.until("return nshotPage.app.audit?.asked === 2")
    page.until("return document.getElementById('page').innerText.includes('with all labels right')")
    assert "All labels together" in page.text("#page")
    page.run("nshotPage.act('tab', 'image'); nshotPage.grid.go(0)")
    page.until("return document.getElementById('page').innerText.includes('Which of these?')")
    assert "score" not in page.text("#page table")


def test_export_says_the_command_and_gives_the_file(page: Page, server: Server) -> None:
    page.keys("1", SPACE)
    page.saved()
    page.run("nshotPage.act('tab', 'export')")
    page.until("return document.getElementById('page').innerText.includes('nshot classify')")
    assert "--multi" in page.text("#page pre")
    assert "sorted into a folder" not in page.text("#page")
    got = page.browser.execute_async_script(
        """const done = arguments[0]; const body = {...nshotPage.question(), what: "yours", as: "jsonl"};
        fetch("/api/export", {method: "POST", body: JSON.stringify(body),
          headers: {"Content-Type": "application/json"}}).then(r => r.text()).then(done);"""
    )
    records = [json.loads(line) for line in str(got).splitlines()]
    assert records
    assert all(isinstance(record["labels"], list) for record in records)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page: Page, scheme: str) -> None:
    axe = pytest.importorskip("axe_core_python", reason="make browser installs axe")
    script = next(Path(axe.__file__).parent.rglob("axe.min.js")).read_text()
    page.size(1600, 900, scheme)
    for act in ("nshotPage.act('tab', 'together')", "nshotPage.act('tab', 'image')"):
        page.run(act)
        page.until("return !document.getElementById('page').innerText.includes('…')")
        page.browser.execute_script(script)
        found = page.browser.execute_async_script(
            "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then(r => done("
            "r.violations.map(v => [v.id, v.nodes.map(n => n.html.slice(0, 99) + n.failureSummary)])));"
        )
        assert found == []
