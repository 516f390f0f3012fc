"""Reports in Markdown, in HTML and in a browser."""

from __future__ import annotations

import csv
import html.parser
import json
import math
import re
import shutil
import subprocess
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from donod_fast.reports.document import Code, Document, Items, Number, Section, Table, Text, document_page
from donod_fast.reports.shell import SORT, render_page, script
from donod_fast.studies.core.report import as_markdown, write_report
from donod_fast.studies.core.report_pictures import Level, Point, curves
from donod_fast.studies.core.tables import write_csv, write_json

CHROMIUM = next(
    (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
)
WIDE = "a rather wide column " * 3


@pytest.fixture(scope="module")
def report() -> Document:
    series = {
        "nod": [Point(0.5, 0.7, 0.6, 0.8), Point(0.9, 0.6, 0.5, 0.7)],
        "random": [Point(0.9, 0.4, math.nan, math.nan), Point(0.5, 0.5, -math.inf, math.inf)],
    }
    pictures = tuple(
        curves(
            name,
            series,
            x_label="tokens saved",
            y_label=f"{name} <b> & x",
            alt='a "picture"',
            caption="Its caption.",
            levels=[Level("all rows", 0.65, 0.6, 0.7)],
            x_percent=True,
        )
        for name in ("pass", "loss")
    )
    rows = (
        ("base", Number(0.0, "0 %"), Number(0.1, "0.100"), WIDE),
        ("nod", Number(0.3, "30 %"), Number(0.71, "0.710 [0.6, 0.8]"), WIDE),
        ("a|b <script>", Number(0.1, "10 %"), Number(math.nan, "–"), WIDE),
        ("don", Number(0.2, "20 %"), Number(0.5, "0.500"), WIDE),
    )
    table = Table(("method", "kept", "pass@1", "more"), rows, "A caption with `code`.", frozenset([0]))
    return Document(
        "A study <of> things",
        "One **bold** word & more.",
        {"Rows": "2,000"},
        (
            Section("What came out", (Items(("**one** <i>", "two")), Text("Some text."))),
            Section("Pictures", pictures),
            Section("Table", (table,)),
            Section("Settings", (Code("a: <1>\nb: 2"),), folded=True),
        ),
    )


class Page(html.parser.HTMLParser):
    """Collects links to elsewhere, ids and open tags."""

    VOID = ("meta", "br", "img", "link", "input")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open += [] if tag in self.VOID else [tag]
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "data", "action") and not (value or "").startswith("#"):
                self.links.append(f"{tag} {name}={value}")
            if name == "id":
                self.ids.append(value or "")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open = self.open[:-1] if tag not in self.VOID else self.open

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_self_contained(report: Document) -> None:
    text = document_page(report)
    page = Page(text)
    assert page.open == []
    assert page.links == []
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert len(page.ids) == len(set(page.ids)), "two pictures share no id"


def test_what_is_text_stays_text(report: Document) -> None:
    text = document_page(report)
    assert "A study &lt;of&gt; things" in text
    assert "a|b &lt;script&gt;" in text
    assert "<strong>one</strong> &lt;i&gt;" in text
    assert "a: &lt;1&gt;" in text
    assert text.count("<script>") == 1, "the page's own"


def test_pictures_are_inline_in_the_readers_colours_with_an_alternative(report: Document) -> None:
    text = document_page(report)
    assert text.count("<svg") == 2
    assert 'aria-label="a &#34;picture&#34;"' in text
    for block in report.sections[1].blocks:
        drawing = ElementTree.fromstring(block.svg)  # well-formed
        assert drawing.tag.endswith("svg")
        assert "currentColor" in block.svg
        assert "#010203" not in block.svg
        assert set(re.findall(r"url\(#([^)]+)\)", block.svg)) <= set(re.findall(r'id="([^"]+)"', block.svg))
        assert block.png.startswith(b"\x89PNG")


def test_a_picture_is_the_same_every_time() -> None:
    def drawn() -> tuple[str, bytes]:
        picture = curves("p", {"a": [Point(0, 1, 0, 2)]}, x_label="x", y_label="y", alt="", caption="")
        return picture.svg, picture.png

    assert drawn() == drawn()


def test_markdown_has_the_table_the_pictures_and_the_numbers(report: Document, tmp_path: Path) -> None:
    markdown, page = write_report(report, tmp_path)
    text = markdown.read_text(encoding="utf-8")
    assert text == as_markdown(report)
    assert "| method | kept | pass@1 | more |\n| --- | ---: | ---: | --- |" in text
    assert "| nod | 30 % | 0.710 [0.6, 0.8] |" in text
    assert "| **base** | **0 %** |" in text
    assert r"a\|b <script>" in text
    for name in re.findall(r"!\[.*?\]\((.*?)\)", text):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_csv_has_every_column_and_json_no_number_that_json_lacks(tmp_path: Path) -> None:
    write_csv(tmp_path / "a.csv", [{"a": 1, "b": 0.1}, {"a": 2, "c": "x,y"}])
    with (tmp_path / "a.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.DictReader(file)) == [{"a": "1", "b": "0.1", "c": ""}, {"a": "2", "b": "", "c": "x,y"}]
    write_json(tmp_path / "a.json", {"a": (1, math.inf), "b": {3: math.nan}, "c": 0.1})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": [1, None], "b": {"3": None}, "c": 0.1}


PROBE = """
const heads = [...document.querySelectorAll("table[data-sortable] th")];
const rows = () => [...document.querySelectorAll("table[data-sortable] tbody tr")];
const column = at => rows().map(row => row.cells[at].innerText);
const seen = {wide: document.documentElement.scrollWidth, room: innerWidth};
heads[1].querySelector("button").click(); seen.rising = column(0);
heads[2].querySelector("button").click(); seen.byPass = column(0);
heads[2].querySelector("button").click(); seen.falling = column(0); seen.sort = heads[2].getAttribute("aria-sort");
seen.ink = getComputedStyle(document.querySelector("svg text")).fill;
seen.body = getComputedStyle(document.body).color;
document.title = "";
const out = document.createElement("pre"); out.id = "seen"; out.textContent = JSON.stringify(seen);
document.body.append(out);
"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
def test_in_a_browser_it_fits_a_phone_sorts_and_takes_the_readers_colours(report: Document, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    text = render_page("document.html.j2", title="", scripts=(script(SORT), PROBE), document=report)
    page.write_text(text, encoding="utf-8")
    assert CHROMIUM is not None
    options = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        f"--disable-component-update --disable-sync --window-size=500,900 --user-data-dir={tmp_path / 'profile'}"
    )
    done = subprocess.run(
        [CHROMIUM, *options.split(), "--dump-dom", page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    seen = json.loads(html.unescape(re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.DOTALL)[1]))  # type: ignore[index]
    assert seen["wide"] <= seen["room"], "tables and pictures scroll within themselves"
    assert seen["rising"] == ["base", "a|b <script>", "don", "nod"]
    assert seen["byPass"] == ["base", "don", "nod", "a|b <script>"], "no number goes last"
    assert seen["falling"] == ["nod", "don", "base", "a|b <script>"]
    assert seen["sort"] == "descending"
    assert seen["ink"] == seen["body"], "a picture's text has the colour of the page's"
