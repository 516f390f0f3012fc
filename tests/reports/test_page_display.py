"""Widths, themes, WebGL and its absence, hostile texts, samples, and folders without a score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from report_cases import HOSTILE, Case, packed, page_of, report_case
from report_pages import Watched, kept, selected, set_bound, set_keep, settled


def picture_of(case: Case, file: Path) -> Path:
    """Write the page of a report."""
    file.write_text(page_of(case), encoding="utf-8")
    return file


def overflow(page: Any) -> int:
    """Pixels that the page is wider than the window."""
    found: int = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    return found


def pixels_of(page: Any) -> dict[str, int]:
    """How many pixels of the plane have a colour of the kept and the dropped points, nearly."""
    found: dict[str, int] = page.evaluate(
        """() => {
          const canvas = document.querySelector('#plane-frame canvas');
          const copy = document.createElement('canvas');
          [copy.width, copy.height] = [canvas.width, canvas.height];
          const pen = copy.getContext('2d');
          pen.drawImage(canvas, 0, 0);
          const bytes = pen.getImageData(0, 0, copy.width, copy.height).data;
          const style = getComputedStyle(document.documentElement);
          const near = (name) => {
            const [r, g, b] = style.getPropertyValue(name).trim().slice(1).match(/../g).map(part => parseInt(part, 16));
            let count = 0;
            for (let at = 0; at < bytes.length; at += 4) {
              const far = Math.abs(bytes[at] - r) + Math.abs(bytes[at + 1] - g) + Math.abs(bytes[at + 2] - b);
              if (bytes[at + 3] > 100 && far < 60) count += 1;
            }
            return count;
          };
          return { kept: near('--kept'), dropped: near('--dropped') };
        }"""
    )
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_the_page_fits_the_window_in_both_themes(browser: Any, file: Path, width: int, scheme: str) -> None:
    watched = Watched(browser, file, viewport={"width": width, "height": 850}, color_scheme=scheme)
    page = watched.open()
    page.select_option("#beside", "loss")
    page.click("summary:has-text('Rectangle by numbers')")
    set_bound(page, "nod", "high", "0.30000001")
    assert overflow(page) == 0
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(255, 255, 255)") == (scheme == "light")
    watched.close()


def test_webgl_draws_the_points_and_follows_every_choice(browser: Any, file: Path) -> None:
    watched = Watched(browser, file, webgl=True)
    page = watched.open()
    assert page.get_attribute("#plane-frame", "data-renderer") == "webgl"
    assert page.is_hidden("#no-webgl")
    first = pixels_of(page)
    assert first["kept"] > 500 and first["dropped"] > 500
    set_keep(page, "0.9")
    more = pixels_of(page)
    assert more["kept"] > 2 * first["kept"]
    assert more["dropped"] < first["dropped"]
    page.check("#density")
    settled(page)
    set_bound(page, "nod", "high", "0.05")
    few = pixels_of(page)
    assert few["kept"] < more["kept"] / 2
    watched.close()


def test_without_webgl_a_canvas_shows_the_points_with_a_note(browser: Any, file: Path, case: Case) -> None:
    watched = Watched(browser, file)
    page = watched.open()
    assert page.get_attribute("#plane-frame", "data-renderer") == "canvas"
    assert "no WebGL" in page.inner_text("#no-webgl")
    first = pixels_of(page)
    assert first["kept"] > 500 and first["dropped"] > 500
    # A click on a point opens its row; both ways to draw share this.
    at = case.rows.tolist().index(case.orders["topsis"].tolist()[0])
    page.locator("#plane-frame").scroll_into_view_if_needed()
    x, y = page.evaluate(f"donodReport.screenOf({at})")
    page.mouse.move(0, 0)
    page.click("#plane-frame", position={"x": x + 1, "y": y + 1})
    page.wait_for_selector(f'#conversation[data-row="{case.rows[at]}"]')
    watched.close()


def test_the_plane_zooms_moves_and_resets_by_keyboard(browser: Any, file: Path) -> None:
    watched = Watched(browser, file)
    page = watched.open()
    page.focus("#plane-frame")
    start = page.evaluate("donodReport.screenOf(5)")
    seen = [start]
    for key in ("+", "ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
        seen.append(page.evaluate("donodReport.screenOf(5)"))
        assert seen[-1] != seen[-2], key
    page.keyboard.press("0")
    assert page.evaluate("donodReport.screenOf(5)") == start
    page.click("#fit")
    assert page.evaluate("donodReport.screenOf(5)") != start
    page.click("#reset-view")
    assert page.evaluate("donodReport.screenOf(5)") == start
    for colour in ("kept", "5", "6", "1"):
        page.select_option("#colour", colour)
        settled(page)
    assert page.locator("#plane .legend li").count() == 8
    watched.close()


def test_a_keyboard_reaches_every_control_in_the_order_of_the_page(browser: Any, file: Path) -> None:
    watched = Watched(browser, file)
    page = watched.open()
    assert page.evaluate("scrollY") == 0, "opening a report does not move it"
    page.evaluate("document.querySelectorAll('.rows li:nth-child(n+3)').forEach(one => one.remove())")
    reached: list[float] = []
    names: list[str] = []
    for _ in range(150):
        page.keyboard.press("Tab")
        place = page.evaluate(
            """() => {
              const one = document.activeElement;
              if (!one || one === document.body) return null;
              const all = [...document.querySelectorAll('*')];
              return [all.indexOf(one), one.id, getComputedStyle(one).outlineStyle];
            }"""
        )
        if place is None:
            break
        reached.append(place[0])
        names.append(place[1])
        assert place[2] != "none", place
    assert reached == sorted(reached)
    wanted = {
        "method",
        "keep",
        "keep-text",
        "beside",
        "by",
        "lasso",
        "plane-frame",
        "copy",
        "rows-mode",
        "search",
        "filter-0-low",
    }
    assert wanted <= set(names)
    unnamed = page.evaluate(
        """() => [...document.querySelectorAll('button, input, select')].filter(one =>
          !(one.textContent.trim() || one.ariaLabel || one.labels?.length)).map(one => one.outerHTML)"""
    )
    assert unnamed == []
    watched.close()


def test_hostile_text_in_every_field_is_shown_and_does_nothing(browser: Any, file: Path, tmp_path: Path) -> None:
    plain, hostile = (
        Watched(browser, file),
        Watched(browser, picture_of(report_case(hostile=True), tmp_path / "hostile.html")),
    )
    kinds = "() => [...new Set([...document.querySelectorAll('body *')].map(one => one.tagName))].sort()"
    found = []
    for watched in (plain, hostile):
        page = watched.open()
        page.select_option("#beside", "loss")
        page.select_option("#rows-mode", "unscored")
        page.select_option("#colour", "5")
        settled(page)
        page.fill("#search", HOSTILE[:20])
        page.press("#search", "Enter")
        page.wait_for_selector('#rows-list[data-mode="found"]', state="attached")
        found.append(page.evaluate(kinds))
        assert overflow(page) == 0
    assert found[0] == found[1], "no element that the plain page lacks"
    page = hostile.page
    shown = page.evaluate("document.body.textContent")
    assert shown.count(HOSTILE) > 60
    assert page.evaluate("document.title").startswith("Scores of three sources <script>")
    page.click('[data-column="record.source"] button.category')
    settled(page)
    assert f"--where 'source={'alpaca'} <script>alert(1)</script>" in page.inner_text("#command")
    for watched in (plain, hostile):
        watched.close()


def test_a_sample_says_so_beside_each_number_and_totals_stay_exact(browser: Any, tmp_path: Path) -> None:
    case = report_case(sample_of=40_000)
    watched = Watched(browser, picture_of(case, tmp_path / "sample.html"))
    page = watched.open()
    assert page.inner_text("#counts").startswith("12,000 of 40,000 rows kept (30.0%)")
    rank = case.orders["topsis"]
    assert 200 < len(kept(page)) < 400
    assert set(kept(page)) <= set(rank.tolist())
    totals = case.meta["methods"][0]["totals"]
    assert f"{round(sum(totals['tokens'][:60])):,} scored tokens" in page.inner_text("#counts")
    name, counts = totals["groups"]["source"]["names"][0], totals["groups"]["source"]["counts"][0]
    cells = page.locator(f'#composition tr[data-name="{name}"] td').all_inner_texts()
    assert cells[0] == f"{round(sum(counts)):,}"
    assert cells[1].startswith(f"{round(sum(counts[:60])):,}")
    assert "sample" in page.inner_text("#plane-state")
    assert "sample" in page.inner_text('[data-column="don"] footer')
    assert "drawn at random by rank" in page.inner_text("#about")
    assert page.locator("#by").count() == 0, "quotas of groups cannot be counted in a sample"
    set_bound(page, "don", "low", "0.01")
    assert "in the sample" in page.inner_text("#counts")
    assert len(selected(page)) < len(kept(page))
    watched.close()


def test_a_folder_without_a_score_shows_its_statuses(browser: Any, tmp_path: Path) -> None:
    case = report_case()
    meta = {**case.meta, "methods": [], "columns": [], "groups": [], "agreement": None, "points": 0, "scored": 0,
            "tokens": None, "length": None}  # fmt: skip
    held = [block for block in case.blocks if block.name[0] == "t"]
    held += [packed("meta", "json", meta), packed("row", "u32", [])]
    watched = Watched(browser, picture_of(case._replace(meta=meta, blocks=held), tmp_path / "none.html"))
    page = watched.open()
    assert "No row has a score" in page.inner_text("#counts")
    assert "malformed" in page.inner_text("#quality")
    page.click("#rows-list .item >> nth=0")
    page.wait_for_selector("#conversation .conversation")
    watched.close()


def test_a_damaged_report_says_what_is_wrong(browser: Any, case: Case, tmp_path: Path) -> None:
    held = [block for block in case.blocks if block.name != "c1"]
    watched = Watched(browser, picture_of(case._replace(blocks=held), tmp_path / "damaged.html"))
    with pytest.raises(AssertionError, match="the report has no block c1"):
        watched.open()
    watched.faults.clear()
    watched.close()
