"""The page of nshot serve, as a person meets it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import Page, Server

import nshot
from nshot.errors import OutputError
from nshot.server.session import JOURNAL, Journal, Session, Word, read_words
from nshot.types import Embedded

pytestmark = pytest.mark.browser

ENTER, ESCAPE, SPACE, BACKSPACE = "\ue007", "\ue00c", " ", "\ue003"
RIGHT, DOWN, SHIFT, CONTROL, NULL = "\ue014", "\ue015", "\ue008", "\ue009", "\ue000"
PAGE_DOWN, END = "\ue00f", "\ue010"


FACET = {
    "name": "labels",
    "labels": [{"label": "circle", "synonyms": []}],
    "templates": ["a drawing of a {}"],
}


def words_on_disk(server: Server) -> dict[str, Word]:
    return read_words(server.photos).said


def test_images_are_there_with_their_answers_and_nothing_is_refused_by_the_policy(page: Page) -> None:
    assert "200 images read, 1 not. All saved." in page.text("#index")
    rail = page.text("#rail")
    assert all(label in rail for label in ("circle", "star", "heart", "none of these", "Not read"))
    page.until(
        "return [...document.querySelectorAll('.cell:not([hidden]) img')].some(i => i.naturalWidth > 0)"
    )
    assert page.run("return document.querySelectorAll('[style*=background], [onclick]').length") == 0


def test_a_key_labels_the_image_and_goes_on_and_it_is_on_disk(page: Page, server: Server) -> None:
    first = page.run("return nshotPage.rows.names[nshotPage.grid.row()]")
    page.keys("2", SPACE, "0", "s")
    page.saved()
    assert page.run("return nshotPage.grid.cursor") == 4
    words = words_on_disk(server)
    assert len(words) == 4
    assert Word("label", "star") in words.values()
    assert {Word("none"), Word("skip")} <= set(words.values())
    assert "✓" in page.run("return nshotPage.grid.live.get(0).innerText")
    page.keys("u", "u", "u", "u", "u")
    page.saved()
    assert words_on_disk(server) == {}
    assert page.run("return nshotPage.rows.names[nshotPage.grid.row()]") == first
    assert "Nothing more." in page.text("#said")


def test_undo_and_redo_survive_a_restart_of_the_server_and_of_the_page(page: Page, server: Server) -> None:
    page.keys("1", "2", "u")
    page.saved()
    before = page.said()
    server.kill()
    server.start()
    page.open()
    assert page.said() == before
    page.keys("y")
    page.saved()
    assert len(words_on_disk(server)) == 2
    page.keys("u", "u")
    page.saved()
    assert words_on_disk(server) == {}


def test_words_are_asked_as_they_are_typed_and_places_keep_still(page: Page) -> None:
    shown = page.run("return [...nshotPage.grid.ids]")
    page.keys("e")
    page.until("return document.activeElement.id === 'words'")
    page.keys("fish")
    page.until("return nshotPage.app.answer.labels.length === 4")
    assert page.run("return [...nshotPage.grid.ids]") == shown
    page.until("return document.getElementById('tell').innerText.includes('with another label now')")
    page.keys(ENTER)
    page.until(
        "return nshotPage.app.labels.length === 4 && nshotPage.grid.groups.some(g => g.name === 'fish')"
    )
    page.keys("circle,")
    page.until("return document.getElementById('hint').innerText.includes('is there already')")
    page.keys(BACKSPACE)
    page.until("return nshotPage.app.labels.length === 3")
    page.keys("tree = oak | fir,")
    page.until("return nshotPage.app.labels[3]?.synonyms.length === 3")
    page.keys(ESCAPE)
    assert page.run("return document.activeElement.id") == "grid"


def test_a_removed_label_keeps_its_corrections(page: Page) -> None:
    page.keys("3")
    page.saved()
    page.keys("e")
    page.until("return document.activeElement.id === 'words'")
    page.keys(BACKSPACE)
    page.until("return document.getElementById('hint').innerText.includes('1 correction with it are kept')")
    page.keys("heart", ENTER)
    page.until("return document.getElementById('rail').innerText.includes('✓1')")


def test_no_key_acts_in_a_text_field(page: Page) -> None:
    page.keys("n")
    page.until("return document.activeElement.id === 'note'")
    page.keys("1 u a note")
    page.keys(ESCAPE)
    page.saved()
    assert page.said() == {}
    assert page.run("return [...nshotPage.app.notes.values()]") == ["1 u a note"]


def test_many_at_once_are_one_act_and_undo_selects_them_again(page: Page, server: Server) -> None:
    page.keys("a")
    size = page.until(
        "return document.getElementById('actions').innerText.match(/(\\d+) images? selected/)?.[1]"
    )
    page.keys("3")
    page.saved()
    assert page.run("return nshotPage.journal.entries.length") == 1
    assert len(words_on_disk(server)) == int(size)
    page.keys("u")
    page.until(f"return document.getElementById('actions').innerText.includes('{size} images selected')")
    page.keys(ESCAPE)
    page.run("document.getElementById('grid').focus()")
    page.browser.switch_to.active_element.send_keys(SHIFT, RIGHT, RIGHT, NULL)
    page.until("return document.getElementById('actions').innerText.includes('3 images selected')")
    page.browser.switch_to.active_element.send_keys(CONTROL, "a", NULL)
    page.until("return document.getElementById('actions').innerText.includes('201 images selected')")


def test_a_drag_draws_a_frame_and_a_click_moves(page: Page) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    cells = page.run("return [nshotPage.grid.live.get(0), nshotPage.grid.live.get(2)]")
    ActionChains(page.browser).click_and_hold(cells[0]).move_to_element(cells[1]).release().perform()
    page.until("return document.getElementById('actions').innerText.includes('3 images selected')")
    ActionChains(page.browser).click(cells[1]).perform()
    page.until("return nshotPage.grid.cursor === 2")
    assert "This image" in page.text("#actions")


def test_the_large_view_shows_everything_and_labels_too(page: Page, server: Server) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    page.keys(ENTER)
    page.until("return document.getElementById('large').open && document.querySelector('#large table')")
    page.until("return document.querySelector('#large .stage img')?.naturalWidth > 0")
    page.until("return document.querySelectorAll('#large .near button').length === 12")
    assert "No probability until it is calibrated." in page.text("#large")
    label = page.browser.find_element("css selector", "#large [data-heat='1']")
    ActionChains(page.browser).move_to_element(label).perform()
    picture = "document.querySelector('#large .stage img')"
    page.until(f"return {picture}.src.endsWith('/1.webp') && {picture}.naturalWidth > 0")
    assert "where the evidence for star is" in page.run(f"return {picture}.alt")
    ActionChains(page.browser).move_to_element(page.browser.find_element("id", "note")).perform()
    page.until(f"return !{picture}.src.endsWith('/1.webp')")
    page.keys("w")
    page.until(f"return /[/][0-9]+[.]webp$/.test({picture}.src)")
    page.keys("w")
    page.keys("2")
    page.saved()
    assert list(words_on_disk(server).values()) == [Word("label", "star")]
    page.keys(ESCAPE)
    page.until("return !document.getElementById('large').open && document.activeElement.id === 'grid'")


def test_learning_is_shown_before_it_is_taken_and_undone_like_anything(page: Page) -> None:
    page.run("""const p = nshotPage; for (const shape of ["circle", "star", "heart"]) {
        const list = [];
        p.rows.names.forEach((name, row) => {
          if (name.includes(shape) && p.rows.read[row]) list.push(row);
        });
        p.grid.show([{ ids: list.slice(0, 6) }]);
        p.act("group");
        p.act("label", ["circle", "star", "heart"].indexOf(shape));
    } p.sort();""")
    page.saved()
    before = page.run("return [...nshotPage.app.answer.label]")
    page.keys("f")
    page.until("return document.getElementById('page').innerText.includes('18 corrections')")
    assert "Nothing changes until" in page.text("#page")
    assert page.run("return [...nshotPage.app.answer.label]") == before
    page.run("document.getElementById('grid').focus()")
    page.keys("t")
    page.until(
        "return document.getElementById('said').innerText.startsWith('Taken:') && nshotPage.app.answer.learnt"
    )
    page.run("document.getElementById('grid').focus()")
    page.keys("u")
    page.until("return nshotPage.app.answer.learnt === false")
    assert page.run("return [...nshotPage.app.answer.label]") == before
    page.keys("y")
    page.until("return nshotPage.app.answer.learnt === true")
    page.open()
    assert page.run("return nshotPage.app.answer.learnt") is True


def test_an_audit_hides_the_answers_until_the_person_has_said_theirs(page: Page, server: Server) -> None:
    page.keys("f")
    page.until("return document.querySelector('[data-do=audit]')")
    page.run("document.querySelector('[data-do=audit]').click()")
    page.until("return nshotPage.app.show === 'audit' && nshotPage.grid.ids.length === 100")
    shown = page.text("#grid")
    assert "what is it?" in shown
    assert not any(label in shown for label in ("circle", "star", "heart", "0."))
    page.keys("i")
    page.until("return document.getElementById('page').innerText.includes('The answer is hidden')")
    assert page.run("return document.querySelector('#page table')") is None
    page.keys(SPACE)
    page.saved()
    assert words_on_disk(server) == {}
    sample = page.run("return [...nshotPage.grid.ids].map(row => nshotPage.rows.names[row])")
    for name in sample[:6]:
        shape = Path(name).stem.split("-")[1]
        page.keys(str(["circle", "star", "heart"].index(shape) + 1) if shape in "circle star heart" else "0")
    page.saved()
    page.until("return nshotPage.app.audit?.asked === 6")
    assert all("audit" in line for line in (server.photos / JOURNAL).read_text().splitlines()[-6:])
    page.keys("f")
    page.until("return document.getElementById('page').innerText.includes('The true share lies')")


def test_the_next_images_are_a_list_of_their_own(page: Page) -> None:
    page.keys("f")
    page.until("return document.querySelector('[data-do=next]')")
    page.run("document.querySelector('[data-do=next]').click()")
    page.until("return nshotPage.app.show === 'next' && nshotPage.grid.ids.length === 48")
    page.keys(ESCAPE)
    page.until("return nshotPage.app.show === '' && nshotPage.grid.ids.length === 201")


def test_search_by_words_by_likeness_and_for_what_is_not_there(page: Page) -> None:
    page.keys("/")
    page.until("return document.activeElement.id === 'query'")
    page.keys("fish", ENTER)
    page.until("return nshotPage.app.view === 'search' && nshotPage.grid.groups[0]?.name === 'Fits'")
    best = page.run("return [...nshotPage.grid.ids].slice(0, 8).map(row => nshotPage.rows.names[row])")
    assert sum("fish" in name for name in best) >= 6
    page.run("document.getElementById('grid').focus()")
    page.keys("m")
    page.until("return nshotPage.grid.groups[0]?.name === 'Closest first'")
    page.keys("/")
    page.until("return document.activeElement.id === 'query'")
    page.browser.switch_to.active_element.clear()
    page.keys("quarterly tax declaration", ENTER)
    page.until("return document.getElementById('nothing').innerText.includes('Nothing here fits')")
    page.run("document.querySelector('[data-do=anyway]').click()")
    page.until("return nshotPage.grid.ids.length > 0")


def test_duplicates_are_shown_and_nothing_moves_before_it_was_seen(page: Page, server: Server) -> None:
    page.run("nshotPage.act('view', 'duplicates')")
    page.until("return document.querySelector('#tools [data-do=dupes]')")
    page.run("document.querySelector('#tools [data-arg=same]').click()")
    page.until("return nshotPage.grid.ids.length === 1")
    assert "1 of 2 move" in page.text("#grid")
    page.run("document.getElementById('grid').focus()")
    page.keys("k")
    page.until("return document.getElementById('grid').innerText.includes('2 files stay')")
    page.keys("k", "1")
    assert page.said() == {}
    page.run("document.querySelector('[data-do=moveAway]').click()")
    page.until("return document.getElementById('tools').innerText.includes('Dry run: 1 file would move')")
    assert len(list(server.photos.glob("*.jpg"))) == 202


def test_another_image_of_a_group_may_be_the_best(page: Page) -> None:
    page.run("nshotPage.act('view', 'duplicates')")
    page.until("return document.querySelector('#tools [data-do=dupes]')")
    page.run("""const group = {kind: "copy", rows: [3, 5], files: nshotPage.rows.names.slice(3, 5)};
        nshotPage.dupes.groups = [group]; nshotPage.act('dupes', 'copy')""")
    page.until("return nshotPage.grid.ids.length === 2")
    page.run("document.getElementById('grid').focus()")
    page.keys(RIGHT, "b")
    page.until("return document.getElementById('tools').innerText.includes('Move 1 file')")
    assert page.run("return [...nshotPage.grid.ids]") == [3, 5]
    texts = [page.run(f"return nshotPage.grid.live.get({k}).innerText") for k in (0, 1)]
    assert "moves" in texts[0]
    assert "best" in texts[1]


def test_an_image_that_was_spoken_about_is_shown_before_it_is_asked(page: Page) -> None:
    page.keys("1", "2")
    page.run("Object.assign(nshotPage.app.answer, {rows: 0, score: []}); nshotPage.act('order', 'folder')")
    page.until("return document.getElementById('grid').innerText.includes('circle')")


def test_filters_show_a_label_s_images_and_an_empty_one_says_so(page: Page) -> None:
    page.run("document.querySelector('[data-do=filter][data-arg=\"=star\"]').click()")
    page.until("return nshotPage.grid.ids.length > 0 && nshotPage.grid.ids.length < 100")
    page.run("document.querySelector('[data-do=filter][data-arg=skipped]').click()")
    page.until(
        "return document.getElementById('nothing').innerText.includes('No image is in this group now')"
    )
    page.run("document.querySelector('#nothing [data-do=back]').click()")
    page.until("return nshotPage.grid.ids.length === 201 && document.getElementById('nothing').hidden")


def test_export_says_the_command_and_gives_the_file(page: Page) -> None:
    page.keys("1", "o")
    page.until("return document.querySelector('#page pre')")
    line = page.text("#page pre")
    assert line.startswith("nshot classify ")
    assert '--labels "circle, star, heart" --template "a drawing of a {}"' in line
    assert "--reject background --journal" in line
    for form in ("csv", "jsonl", "coco", "labelstudio", "nshot"):
        script = """const done = arguments[0]; (async () => { const p = nshotPage;
            const asked = {labels: p.app.labels, templates: p.app.start.templates, none: true};
            const body = {...asked, what: "all", as: FORM};
            const r = await fetch("/api/export", {method: "POST", body: JSON.stringify(body)});
            done([r.status, (await r.blob()).size]); })();"""
        status, size = page.browser.execute_async_script(script.replace("FORM", json.dumps(form)))
        assert (status, size > 100) == (200, True)
    page.run("document.querySelector('input[name=as][value=sort]').click()")
    page.until(
        "return document.querySelector('#page [data-do=export]').innerText === 'Show what would happen'"
    )


def test_the_server_goes_and_comes_back_and_nothing_said_meanwhile_is_lost(
    page: Page, server: Server
) -> None:
    page.keys("1")
    page.saved()
    server.kill()
    page.keys("2", "3")
    page.until("return document.getElementById('banner').innerText.includes('nshot does not answer')")
    assert page.run("return nshotPage.journal.queue.length") == 2
    assert len(page.said()) == 3
    server.start()
    page.until("return nshotPage.journal.queue.length === 0 && nshotPage.app.trouble === ''")
    page.until("return document.getElementById('banner').innerText === ''")
    assert len(words_on_disk(server)) == 3
    page.until("return nshotPage.app.answer !== null")


def test_corrections_by_keyboard_survive_kills_and_undo_reaches_them_all(page: Page, server: Server) -> None:
    """At length: NSHOT_BROWSER_IMAGES=520 NSHOT_BROWSER_KILLS=20 NSHOT_BROWSER_WORDS=500."""
    kills = int(os.environ.get("NSHOT_BROWSER_KILLS", "3"))
    each = int(os.environ.get("NSHOT_BROWSER_WORDS", "45")) // kills
    wanted = 0
    page.run("nshotPage.act('order', 'folder'); document.getElementById('grid').focus()")
    for number in range(kills):
        for k in range(each):
            if k == each - 1:
                server.kill()  # with the last words still on their way, or refused
            page.keys("123"[number % 3])
            wanted += 1
        server.start()
        page.until("return nshotPage.app.trouble === '' && nshotPage.journal.queue.length === 0")
        page.until(f"return nshotPage.app.answer !== null && nshotPage.grid.cursor === {wanted}")
    assert len(words_on_disk(server)) == wanted
    for _ in range(wanted):
        page.keys("u")
    page.saved()
    assert words_on_disk(server) == {}


def test_two_windows_show_the_same(page: Page, server: Server) -> None:
    first = page.browser.current_window_handle
    page.browser.switch_to.new_window("tab")
    try:
        page.open()
        page.keys("1")
        page.saved()
        second = page.browser.current_window_handle
        page.browser.switch_to.window(first)
        page.until("return nshotPage.journal.entries.length === 1")
        page.keys("u")
        page.saved()
        page.browser.switch_to.window(second)
        page.until("return nshotPage.journal.entries[0].undone")
        page.browser.close()
    finally:
        page.browser.switch_to.window(first)
    assert words_on_disk(server) == {}


def test_a_stopped_server_ends_at_once_though_a_page_listens(page: Page, server: Server) -> None:
    assert server.stop() in (0, -15, 143)
    server.start()


# Widths, themes, screen readers


@pytest.mark.parametrize("width", [400, 1000, 1600, 2560])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_needs_sideways_scrolling(page: Page, width: int, scheme: str) -> None:
    page.size(width, 900, scheme)
    for act in (
        "",
        "nshotPage.act('panel', 'learn')",
        "nshotPage.act('tab', 'export')",
        "nshotPage.act('view', 'search')",
    ):
        page.run(act)
        page.until("return document.documentElement.scrollWidth <= innerWidth")
        page.until("return document.body.scrollHeight <= innerHeight")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(page: Page, scheme: str) -> None:
    axe = pytest.importorskip("axe_core_python", reason="make browser installs axe")
    script = next(Path(axe.__file__).parent.rglob("axe.min.js")).read_text()
    page.size(1600, 900, scheme)
    for act in (
        "",
        "nshotPage.act('panel', 'learn')",
        "nshotPage.act('tab', 'journal')",
        "nshotPage.act('tab', 'export')",
        "nshotPage.act('open')",
    ):
        page.run(act)
        time.sleep(0.3)
        page.browser.execute_script(script)
        found = page.browser.execute_async_script(
            "const done = arguments[0]; axe.run(document, {resultTypes: ['violations']}).then(r => done("
            "r.violations.map(v => [v.id, v.nodes.map(n => n.html.slice(0, 99) + n.failureSummary)])));"
        )
        assert found == []
    page.run("document.getElementById('large').close()")


def test_the_grid_says_where_one_is(page: Page) -> None:
    page.keys(RIGHT, RIGHT)
    active = "document.getElementById('grid').getAttribute('aria-activedescendant')"
    cell = page.run(f"return document.getElementById({active})")
    assert cell.get_attribute("role") == "option"
    assert (cell.get_attribute("aria-posinset"), cell.get_attribute("aria-setsize")) == ("3", "201")
    assert cell.get_attribute("aria-label")
    page.keys("1")
    page.until("return document.getElementById('live').innerText.includes('circle')")


# States that need a server of our own


@pytest.fixture
def serving() -> Iterator[Callable[..., str]]:
    """Serves a session of this process; gives its address."""
    from nshot.server.app import build
    from nshot.server.run import listen, server_of

    running: list[tuple[Any, threading.Thread, Session]] = []

    def serve(session: Session, **options: Any) -> str:
        listening = listen("127.0.0.1", 0)
        start = {
            "title": "photos",
            "sources": ["photos"],
            "facets": [FACET],
            "ready": [],
            "journal": "photos",
            "folder": "",
            "model": None,
        }
        server = server_of(build(session, start, **options), stopping=session.closing.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        running.append((server, thread, session))
        return f"http://127.0.0.1:{listening.getsockname()[1]}/"

    yield serve
    for server, thread, session in running:
        session.closing.set()
        server.should_exit = True
        thread.join(20)
        session.close()


def test_a_full_disk_is_said_and_what_was_said_is_kept(
    open_page: Callable[[str], Page],
    serving: Callable[..., str],
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clip = nshot.load("sketchbook")
    session = Session(lambda: clip, [str(server.photos)], Journal(tmp_path / "journal.jsonl"))
    session.start()
    page = open_page(serving(session))
    page.open()

    def full(_: Journal, lines: object) -> None:
        raise OutputError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(Journal, "_write", full)
        page.keys("1")
        page.until("return document.getElementById('banner').innerText.includes('The disk is full')")
        assert "Not saved" in page.text("#index")
        assert session.journal.state.said == {}
        assert len(page.said()) == 1
    page.run("document.querySelector('[data-do=retry]').click()")
    page.until("return nshotPage.journal.queue.length === 0 && nshotPage.app.trouble === ''")
    assert len(session.journal.state.said) == 1
    page.browser.get("about:blank")


def test_a_page_for_others_opens_with_the_token_and_keeps_what_is_said_when_it_is_asked_again(
    open_page: Callable[[str], Page], serving: Callable[..., str], server: Server, tmp_path: Path
) -> None:
    clip = nshot.load("sketchbook")
    session = Session(lambda: clip, [str(server.photos)], Journal(tmp_path / "journal.jsonl"))
    session.start()
    page = open_page(serving(session, hosts={"*"}, token="secret"))
    page.browser.get(page.address)
    for token, says in (("wrong", "That is not the token"), ("secret", "")):
        field = page.browser.find_element("id", "token")
        field.send_keys(token, ENTER)
        if says:
            for _ in range(200):
                if says in page.browser.page_source:
                    break
                time.sleep(0.05)
            assert says in page.browser.page_source
    page.until("return nshotPage.app.answer !== null && nshotPage.grid.ids.length > 0")
    page.run("document.getElementById('grid').focus()")
    held = page.browser.get_cookies()
    page.browser.delete_all_cookies()
    page.keys("1")
    page.until("return document.getElementById('banner').innerText.includes('asks for its token again')")
    assert len(page.said()) == 1
    page.browser.add_cookie(held[0])
    page.run("document.querySelector('[data-do=retry]').click()")
    page.until("return nshotPage.journal.queue.length === 0 && nshotPage.app.trouble === ''")
    assert len(session.journal.state.said) == 1
    page.browser.get("about:blank")


def test_no_image_all_failed_and_a_model_that_takes_its_time(
    open_page: Callable[[str], Page], serving: Callable[..., str], tmp_path: Path
) -> None:
    clip = nshot.load("sketchbook")
    empty, failed = tmp_path / "empty", tmp_path / "failed"
    empty.mkdir()
    failed.mkdir()
    (empty / "a.txt").write_text("x")
    (failed / "a.jpg").write_bytes(b"\xff\xd8 torn")
    here = threading.Event()

    def slowly() -> nshot.Model:
        here.wait(60)
        return clip

    for folder, load, words in (
        (empty, lambda: clip, "There is no image in photos"),
        (failed, lambda: clip, "None of 1 image could be read"),
        (failed, slowly, "nshot is loading its model"),
    ):
        session = Session(load, [str(folder)], Journal(tmp_path / f"{words[:7]}.jsonl"))
        address = serving(session)
        session.start()
        page = open_page(address)
        page.browser.get(address)
        page.until(f"return document.body.innerText.includes({json.dumps(words)})")
    here.set()
    page.until("return document.body.innerText.includes('None of 1 image could be read')")
    page.browser.get("about:blank")


def test_forty_thousand_images_are_a_few_cells(
    open_page: Callable[[str], Page], serving: Callable[..., str], tmp_path: Path
) -> None:
    clip = nshot.load("sketchbook")
    session = Session(lambda: clip, [str(tmp_path)], Journal(tmp_path / JOURNAL))
    (tmp_path / "nothing.txt").touch()
    session.start()
    session.wait()
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((40_000, clip.dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    session.images.add(
        Embedded(f"{k:05}.jpg", vector, digest=k.to_bytes(32, "big")) for k, vector in enumerate(vectors)
    )
    session.reading.phase = "ready"
    page = open_page(serving(session))
    page.open()
    assert page.run("return nshotPage.grid.ids.length") == 40_000
    assert page.run("return document.querySelectorAll('.cell').length") < 200
    page.keys(END)
    page.until("return nshotPage.grid.cursor === 39999 && nshotPage.grid.live.has(39999)")
    page.run("nshotPage.act('order', 'folder'); document.getElementById('grid').focus()")
    page.keys(PAGE_DOWN, DOWN)
    assert page.run("return document.querySelectorAll('.cell').length") < 200
    places = page.run("""const g = nshotPage.grid; return [...g.live.keys()].every(place => {
        const [x, y] = g.place(place); return g.near(x + 5, y + 5) === place; });""")
    assert places
    page.browser.get("about:blank")


# Facets


def test_a_facet_is_one_more_question_with_words_of_its_own(page: Page, server: Server) -> None:
    page.keys("2")
    page.saved()
    page.run("nshotPage.act('addFacet')")
    page.until("return document.getElementById('pick').open")
    assert "indoor or outdoor" in page.text("#pick")
    page.keys(*"colour", ENTER)
    page.until("return document.activeElement.id === 'words'")
    page.keys(*"red, blue", ENTER)
    page.until(
        "return nshotPage.app.answer?.labels.join() === 'red,blue' && nshotPage.app.labels.length === 2"
    )
    assert page.run("return nshotPage.rows.said.reduce((n, id) => n + (id > 0), 0)") == 0
    page.run("document.getElementById('grid').focus()")
    page.keys("1", "1", "q")
    page.until("return nshotPage.app.answer?.labels.includes('circle')")
    assert page.run("return nshotPage.rows.said.reduce((n, id) => n + (id > 0), 0)") == 1
    page.saved()
    state = read_words(server.photos)
    assert list(state.said.values()) == [Word("label", "star")]
    assert list(state.of("colour").said.values()) == [Word("label", "red")] * 2
    page.run("nshotPage.act('panel', 'journal')")
    page.until("return document.getElementById('page').innerText.includes('colour')")
    page.keys("u")  # of the other facet: which is shown then
    page.until("return nshotPage.app.answer?.labels.includes('red')")
    assert "Undone: red (colour), 1 image" in page.text("#said")
    page.keys("i")
    page.until("return document.getElementById('page').innerText.includes('Other facets')")


def test_facets_and_labels_are_there_again_when_the_page_is_opened_again(page: Page) -> None:
    page.run("nshotPage.act('addFacet'); nshotPage.act('readyFacet', '0')")
    page.until("return nshotPage.app.answer?.labels.includes('night')")
    page.open()
    assert page.run("return nshotPage.app.facets.map(each => each.name)") == ["labels", "time of day"]
    page.run("nshotPage.act('facet', '1')")
    page.until("return nshotPage.app.answer?.labels.includes('night')")
    page.run("nshotPage.act('dropFacet')")
    page.until("return nshotPage.app.answer?.labels.includes('circle') && nshotPage.app.facets.length === 1")
    assert page.run("return nshotPage.app.labels.map(each => each.label).join()") == "circle,star,heart"


def test_all_facets_are_taken_away_in_one_file_and_the_command_says_so(page: Page) -> None:
    page.run("nshotPage.act('addFacet'); nshotPage.act('readyFacet', '0')")
    page.until("return nshotPage.app.answer?.labels.includes('night')")
    page.run("nshotPage.act('panel', 'export')")
    page.until("return document.querySelector('#page pre')?.innerText.includes('--facet \"time of day\"')")
    page.run("nshotPage.app.together = 'all'; nshotPage.act('tab', 'export')")
    page.until("return document.querySelector('#page pre').innerText.includes('--facets facets.json')")
    assert "Save facets.json" in page.text("#page")
    answer = page.browser.execute_async_script(
        """const done = arguments[0], p = nshotPage; fetch("/api/export", {method: "POST",
        body: JSON.stringify({as: "csv", what: "all", facets: [{labels: ["circle", "star"], facet: "labels"},
        {labels: ["day", "night"], facet: "time of day"}]})}).then(r => r.text()).then(done)"""
    )
    head = answer.splitlines()[0]
    assert head.startswith("source,labels,")
    assert ",time of day," in head
