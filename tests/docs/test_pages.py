"""Links, generated blocks, named files and wording of the pages."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from render import REPOSITORY, render_site, with_generated
from repository import UNPLAIN

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FILES = {
    "/" + path.relative_to(ROOT).as_posix()
    for folder in ("donod_fast", "kernels", "recipes", "tests", "bench", "docs", "examples")
    for path in (ROOT / folder).rglob("*")
} | {f"/{path.name}" for path in ROOT.iterdir()}


def prose(text: str) -> str:
    """A page without its fenced blocks, whose text is code or real output."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_every_page_renders_and_its_links_lead_somewhere(tmp_path: Path) -> None:
    pages = render_site(tmp_path / "site")
    assert "index.md" in pages
    for page in pages:
        text = (tmp_path / "site" / page).read_text(encoding="utf-8")
        assert "```table" not in text
        for target in re.findall(r"\]\(([^)\s#]+)", prose(text)):
            if not re.match(r"[a-z]+:", target):
                assert (tmp_path / "site" / page).parent.joinpath(target).exists(), f"{page}: {target}"


def test_every_page_is_in_the_navigation(tmp_path: Path) -> None:
    shown = re.findall(r"[\w/-]+\.md", str(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]))
    assert sorted(shown) == render_site(tmp_path / "site")


def test_readme_is_short_and_renders_outside_the_repository() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        assert target.startswith("https://"), f"not absolute: {target}"
        if target.startswith(REPOSITORY):
            path = re.sub(r"/(?:blob|raw)/main/", "", target.removeprefix(REPOSITORY)).partition("#")[0]
            assert (ROOT / path).exists(), f"no such file: {target}"


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md"])
def test_generated_blocks_are_current(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert "<!-- generated: " in text
    assert with_generated(text) == text, "run: python docs/tools/render.py --update"


def test_the_installation_page_names_every_extra() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    table = re.findall(
        r"^\| (`.*?) \|", (ROOT / "docs/guides/installation.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    named = [name for cell in table for name in re.findall(r"`([\w-]+)`", cell)]
    assert sorted(named) == sorted(project["optional-dependencies"])


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_files_that_a_page_names_exist(page: Path) -> None:
    names = re.findall(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|toml|cff|yaml|md|csv))`", prose(page.read_text(encoding="utf-8")))
    written_by_users = {"plan.parquet", "report.md", "RECIPE.yaml", "donod-fast-bench/throughput.csv"}
    written_by_users |= {"cells.csv", "comparisons.csv", "few_shot_prompts.csv"}
    missing = [n for n in names if n not in written_by_users and not any(f.endswith(f"/{n}") for f in FILES)]
    assert not missing


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_pages_are_in_plain_english(page: Path) -> None:
    found = UNPLAIN.findall(prose(page.read_text(encoding="utf-8")))
    assert not found


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_names_a_path_of_the_authors_machine(page: Path) -> None:
    assert not re.search(r"\.\./shared|/work/|/home/|/tmp/", page.read_text(encoding="utf-8"))


def slugs(page: Path) -> set[str]:
    """The anchors of a page's headings, as Markdown makes them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def test_anchors_that_links_name_exist() -> None:
    lost = []
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for target, anchor in re.findall(r"\]\(([\w./-]*\.md)?#([\w-]+)\)", page.read_text(encoding="utf-8")):
            place = (page.parent / target).resolve() if target else page
            if place.exists() and "generated" not in place.parts and anchor not in slugs(place):
                lost.append(f"{page.relative_to(ROOT)}: {target}#{anchor}")
    assert not lost
