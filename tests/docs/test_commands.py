"""The commands of README and the quick start run offline and print what the pages show."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import blocks_of, check_page, fits, shape

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "docs/quick-start.md"]


@pytest.mark.slow
@pytest.mark.timeout(3600)  # a dozen processes, each of which imports torch, on a machine that may be busy
@pytest.mark.parametrize("page", [PAGES[0], pytest.param(PAGES[1], marks=pytest.mark.nightly)])
def test_the_commands_of_a_page_print_what_it_shows(page: str, tmp_path: Path) -> None:
    complaints = check_page(ROOT / page, tmp_path)
    assert not complaints, "\n\n".join(complaints)


def test_only_installation_and_downloads_are_not_run() -> None:
    blocks = {page: blocks_of((ROOT / page).read_text(encoding="utf-8")) for page in PAGES}
    assert {page: [b.not_run for b in found if b.not_run] for page, found in blocks.items()} == {
        "README.md": [
            "downloads packages",
            "installs packages; the test suite would run itself",
            "downloads a model",
        ],
        "docs/quick-start.md": [],
    }
    assert all(any(block.not_run is None for block in found) for found in blocks.values())


def test_a_page_whose_command_prints_something_else_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "```console\n$ X=3\n$ echo rows $X\nrows 4\n$ echo rows\ncolumns\n$ (exit 7)\n```\n", encoding="utf-8"
    )
    (tmp_path / "run").mkdir()
    wrong, failed = check_page(page, tmp_path / "run")
    assert "it printed:\nrows" in wrong
    assert "exit code 7" in failed


def test_numbers_units_and_widths_may_differ() -> None:
    assert shape("1,000 rows in  9.1 s, -.14 e 1.4e-08") == shape("7 rows in 12:30 min, .5 e 2e5")
    assert shape("3 rows by topsis") != shape("3 rows by nod")


def test_left_out_lines_match_any_lines() -> None:
    assert fits(["a", "…", "d"], ["a", "b", "c", "d"])
    assert fits(["…"], [])
    assert not fits(["a", "…", "d"], ["a", "b"])
    assert not fits(["a"], ["a", "b"])
