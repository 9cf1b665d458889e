"""The page: whole, escaped, and asking nobody for anything."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from html.parser import HTMLParser

from PIL import Image

from nshot.pages import charts, report
from nshot.pages.engine import Html

_VOID = {"meta", "link", "img", "br", "hr", "input"}
NASTY = "<script>alert(\"x\")</script> & 'y'"


class Checker(HTMLParser):
    """Notes elements that are not closed in their order, and whatever points out of the page."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.scripts = 0
        self.outward: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        for name, value in attrs:
            if name in ("src", "href", "action", "poster", "srcset") and not (value or "").startswith(
                "data:"
            ):
                self.outward.append(f"{tag} {name}={value}")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def whole(html: str) -> Checker:
    checker = Checker()
    checker.feed(html)
    checker.close()
    assert checker.open == []
    assert checker.outward == []
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest", html)
    return checker


def everything(text: str) -> str:
    image = report.thumbnail(Image.new("RGB", (300, 100), "red"))
    line = charts.Series(text, [1, 2], [0.5, float("nan")], low=[0.4, 0.4], high=[0.6, 0.6])
    return report.page(
        text,
        report.section(
            text,
            text,
            report.headline(report.Figure(text, text, text, "bad")),
            report.table([text], [[text], [report.percent(0.5)], [3]], caption=text),
            report.cards([report.Card(image, text, [text], "good", text), report.Card(None, text)]),
            report.folded(text, report.facts({text: text})),
            report.side_by_side(
                charts.lines(text, [line], charts.Axis(text, log=True), charts.Axis(text), diagonal=True),
                charts.heatmap(text, [[1, 2], [0, 1]], [text, text], rows=text, columns=text),
            ),
            note=text,
        ),
        subtitle=text,
    )


def test_a_page_is_well_formed_and_fetches_nothing() -> None:
    html = everything("plain")
    whole(html)
    assert html.startswith("<!doctype html>")
    assert "default-src 'none'" in html


def test_text_never_becomes_markup() -> None:
    checker = whole(everything(NASTY))
    assert checker.scripts == 1  # the page's own
    assert NASTY not in everything(NASTY)


def test_markup_is_not_escaped_twice() -> None:
    assert "<b>" in report.section("x", Html("<b>bold</b>"))
    assert "&lt;b&gt;" in report.section("x", "<b>bold</b>")


def test_a_number_sorts_by_its_value_and_not_by_its_text() -> None:
    html = report.table(["recall"], [[report.percent(0.912)], [report.percent(float("nan"))]])
    assert 'data-key="0.912">91.2 %<' in html
    assert 'data-key="">–<' in html


def test_a_thumbnail_is_a_small_jpeg_of_the_same_shape_without_metadata() -> None:
    image = Image.new("RGBA", (800, 400), "blue")
    image.getexif()[0x010E] = "secret"
    uri = report.thumbnail(image, side=100)
    small = Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))))
    assert small.size == (100, 50)
    assert not small.getexif()
    assert image.size == (800, 400)


def points(html: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r'<circle cx="([\d.]+)" cy="([\d.]+)"', html)]


def test_a_chart_puts_larger_values_right_and_up() -> None:
    html = charts.lines(
        "t", [charts.Series("s", [0, 0.5, 1], [0, 0.5, 1])], charts.Axis("x", 0, 1), charts.Axis("y", 0, 1)
    )
    (x0, y0), (x1, y1), (x2, y2) = points(html)
    assert x0 < x1 < x2
    assert y0 > y1 > y2
    assert abs((x0 + x2) / 2 - x1) < 0.1


def test_a_logarithmic_axis_puts_doublings_at_equal_distances() -> None:
    html = charts.lines(
        "t", [charts.Series("s", [1, 2, 4], [0, 0.5, 1])], charts.Axis("x", log=True), charts.Axis("y")
    )
    (x0, _), (x1, _), (x2, _) = points(html)
    assert abs((x0 + x2) / 2 - x1) < 0.1
    assert ">4<" in html


def test_a_chart_of_one_point_or_none_is_still_a_chart() -> None:
    axes = charts.Axis("x"), charts.Axis("y")
    whole(charts.lines("t", [charts.Series("s", [1], [1])], *axes))
    whole(charts.lines("t", [], *axes))
    gap = charts.lines("t", [charts.Series("s", [1, 2], [1, float("nan")])], *axes)
    assert len(points(gap)) == 1


def test_a_heatmap_draws_what_happened_and_says_it_in_words() -> None:
    html = charts.heatmap("t", [[3, 1], [0, 2]], ["cat", "dog"], rows="own", columns="answer")
    assert "cat answered dog: 1 (25 %)" in html
    assert "dog answered cat" not in html


def test_a_whisker_outside_its_span_stays_in_its_cell() -> None:
    html = charts.whisker(0.5, -1.0, 3.0, span=(0.0, 1.0), mark=0.5)
    assert all(0 <= float(v) <= 144 for v in re.findall(r"[MH]([\d.]+)", html))
    assert charts.whisker(float("nan"), 0, 1, span=(0, 1)) == ""


def test_a_chart_of_shares_never_leaves_0_to_100_per_cent() -> None:
    perfect = charts.Series("s", [0, 1], [1.0, 1.0])
    html = charts.lines("t", [perfect], charts.Axis("x"), charts.Axis("y", None, 1, share=True))
    assert "100 %" in html
    assert not re.search(r">1[0-9][1-9] %|>1[1-9]0 %", html)


def test_the_title_of_an_axis_stays_clear_of_its_numbers() -> None:
    for wide in (False, True):
        values = [0.0, 123456.0 if wide else 1.0]
        html = charts.lines("t", [charts.Series("s", [0, 1], values)], charts.Axis("x"), charts.Axis("y"))
        numbers = re.findall(r'<text x="([\d.]+)" y="[\d.]+" text-anchor="end" class="soft">([^<]+)<', html)
        assert numbers
        assert all(float(x) - 6.5 * len(text) > 16 for x, text in numbers)


def test_equal_lines_are_both_seen() -> None:
    same = [charts.Series(name, [0, 1], [0.5, 0.7]) for name in ("first", "second")]
    html = charts.lines("t", same, charts.Axis("x"), charts.Axis("y"))
    widths = [float(w) for w in re.findall(r'<polyline [^>]*stroke-width="([\d.]+)"', html)]
    assert widths[0] > widths[1] + 1.5


def test_a_card_shows_the_name_of_its_file() -> None:
    html = report.cards([report.Card(None, "cat", hint="photos/2024/img_0042.jpg")])
    assert '<span class="file">img_0042.jpg</span>' in html


def test_a_report_allows_its_own_style_and_script_by_their_digests_only() -> None:
    html = everything("plain")
    assert "unsafe-inline" not in html
    assert not re.search(r'\sstyle="|\son[a-z]+="', html)
    for element in ("style", "script"):
        found = re.search(rf"<{element}>(.*?)</{element}>", html, re.DOTALL)
        assert found is not None
        digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
        assert f"'sha256-{digest}'" in html
