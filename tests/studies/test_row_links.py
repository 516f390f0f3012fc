"""From a study's report to the rows of a method: every link shows the rows that were trained on."""

from __future__ import annotations

import base64
import json
import re
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import torch
from score_runs import invoke
from threshold_fakes import FakeParts, demo_recipe

from donod_fast.kernels.topsis import DEFAULT_NORMALISE
from donod_fast.selection.keeping import kept_count, parse_keep
from donod_fast.selection.ranking import ScoreColumns
from donod_fast.studies.core.row_links import ROWS, RowLinks, report_methods
from donod_fast.studies.core.selecting import NORMALISED, Selection, selected_rows
from donod_fast.studies.threshold.run import Outcome, run_threshold

METHODS = ["all", "random", "topsis", "topsis-range", f"topsis-{DEFAULT_NORMALISE}", "nod", "loss@high"]
UNRANKED = 0xFFFFFFFF


class Links(HTMLParser):
    """The addresses that a page links to, with the texts of the links."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, str]] = []
        self._open: str | None = None
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open = dict(attrs).get("href") if tag == "a" else self._open

    def handle_endtag(self, tag: str) -> None:
        self._open = None if tag == "a" else self._open

    def handle_data(self, data: str) -> None:
        if self._open is not None:
            self.found.append((self._open, data))


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("study")
    return folder / "out", run(folder)


def run(folder: Path, *overrides: str) -> Outcome:
    recipe = demo_recipe(folder, f"study.methods={json.dumps(METHODS)}", "study.keeps=[0.25, 1.0]", *overrides, rows=40)
    return run_threshold(recipe, folder / "out", make_parts=FakeParts(40, folder / "log"), jobs=1, row_report=True)


def blocks_of(page: str) -> dict[str, Any]:
    """The blocks of a report by name: arrays, or JSON."""
    found = {}
    for name, kind, text in re.findall(r'data-name="(\w+)" data-kind="(\w+)">([^<]*)<', page):
        content = zlib.decompress(base64.b64decode(text))
        found[name] = (
            json.loads(content) if kind == "json" else np.frombuffer(content, f"<{kind[0]}{int(kind[1:]) // 8}")
        )
    return found


def test_each_link_shows_the_rows_that_were_trained_on(study: tuple[Path, Outcome]) -> None:
    out, outcome = study
    blocks = blocks_of((out / ROWS).read_text(encoding="utf-8"))
    methods = {one["name"]: one for one in blocks["meta"]["methods"]}
    links = Links(outcome.page.read_text(encoding="utf-8")).found
    assert {text for _, text in links} == {"topsis", f"topsis-{DEFAULT_NORMALISE}", "nod", "loss@high"}
    table = outcome.study.lines
    columns = ScoreColumns.from_table(next(iter(_scores(out))).table())
    for address, text in links:
        place = urlsplit(address)
        assert place.path == ROWS and (out / place.path).is_file()
        wanted = {name: value for name, (value,) in parse_qs(place.fragment).items()}
        share = parse_keep(wanted["keep"])
        assert isinstance(share, float)
        ranks = blocks[methods[wanted["method"]]["block"]]
        kept = blocks["row"][ranks < kept_count(share, int((ranks != UNRANKED).sum()))]
        assert sorted(kept.tolist()) == list(selected_rows(columns, Selection(text, keep=share)))
        assert any(line.method == text and line.selection == Selection(text, keep=share) for line in table)


def _scores(out: Path) -> Any:
    from donod_fast.scores.folder import ScoresFolder

    return (ScoresFolder.open(place) for place in out.glob("cells/score-*/scores"))


def test_the_page_of_the_rows_is_made_once(study: tuple[Path, Outcome]) -> None:
    out, _ = study
    before = (out / ROWS).read_bytes()
    (out / ROWS).unlink()
    run(out.parent)
    assert (out / ROWS).read_bytes() == before, "a page that is made again has another time in it"


def test_without_a_page_a_study_ends_and_links_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from donod_fast.errors import InputError
    from donod_fast.reports import report

    def refuse(*_: object) -> None:
        raise InputError("too large for a page")

    monkeypatch.setattr(report, "write_report", refuse)
    page = run(tmp_path).page.read_text(encoding="utf-8")
    assert not Links(page).found
    assert "The page of the rows could not be written: too large for a page" in page
    assert not (tmp_path / "out" / ROWS).exists()


def test_only_what_a_report_ranks_as_the_study_does_is_linked() -> None:
    assert report_methods(["topsis", "pareto", "don", *NORMALISED], "range") == {
        "don": "don",
        f"topsis-{DEFAULT_NORMALISE}": "topsis",
    }
    assert report_methods(["all", "don-threshold", "random", "kcenter", "kmeans-ifd"]) == {}
    links = RowLinks({"a b&keep=1#x": "a b&keep=1#x"})
    address = links.address(Selection("don", keep=0.3)) or links.address(_named("a b&keep=1#x", 0.3))
    assert address is not None
    assert parse_qs(urlsplit(address).fragment) == {"method": ["a b&keep=1#x"], "keep": ["0.3"]}
    assert links.address(None) is None
    assert RowLinks({"don": "don"}, "no page").address(Selection("don", keep=0.3)) is None


def _named(method: str, keep: float) -> Selection:
    """A selection by any name; only column names from data could be such."""
    selection = Selection("don", keep=keep)
    object.__setattr__(selection, "method", method)
    return selection


def test_the_command_has_a_switch_for_the_page() -> None:
    assert "--no-row-report" in invoke("study", "threshold", "--help").out
