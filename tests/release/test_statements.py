"""Statements that appear in several files and must agree."""

from __future__ import annotations

import re

import pytest
from repository import PLACEHOLDER, ROOT, UNPLAIN, documents, pyproject, text

import donod_fast

PAGES = ["README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml"]


def constraint(package: str) -> str:
    """Version of a package in constraints.txt."""
    found = re.search(rf"^{package}==(\S+)$", text("constraints.txt"), re.MULTILINE)
    assert found, package
    return found[1]


def test_the_version_stands_in_one_place() -> None:
    project = pyproject()["project"]
    assert "version" not in project and project["dynamic"] == ["version"]
    for path in ("pyproject.toml", "setup.py", "donod_fast/__init__.py"):
        assert donod_fast.__version__ not in text(path)


def test_the_changelog_begins_with_this_version_and_its_date() -> None:
    (first, date), *_ = re.findall(r"^## (\S+) \((\d{4}-\d{2}-\d{2})\)$", text("CHANGELOG.md"), re.MULTILINE)
    (citation,) = documents("CITATION.cff")
    assert first == donod_fast.__version__ == citation["version"]
    assert date == str(citation["date-released"])


def test_the_citation_names_the_paper() -> None:
    (citation,) = documents("CITATION.cff")
    (paper,) = citation["references"]
    assert paper["url"] == "https://arxiv.org/abs/2504.14810"
    assert citation["license"] == pyproject()["project"]["license"]


@pytest.mark.parametrize("page", PAGES)
def test_the_repository_is_a_placeholder_everywhere(page: str) -> None:
    for url in re.findall(r"https://[\w.]*github[\w.]*/[\w.-]+/donod_fast", text(page)):
        assert url == PLACEHOLDER


def test_every_supported_python_is_tested() -> None:
    project = pyproject()["project"]
    named = [name.rpartition(" ")[2] for name in project["classifiers"] if re.search(r":: 3\.\d+$", name)]
    (workflow,) = documents(".github/workflows/ci.yml")
    assert workflow["jobs"]["tests"]["strategy"]["matrix"]["python"] == named
    last = int(named[-1].partition(".")[2])
    assert project["requires-python"] == f">={named[0]},<3.{last + 1}"


def test_pre_commit_uses_the_ruff_of_the_suite() -> None:
    (settings,) = documents(".pre-commit-config.yaml")
    (ruff,) = (source for source in settings["repos"] if "ruff" in source["repo"])
    assert ruff["rev"] == f"v{constraint('ruff')}"


def test_the_ray_job_uses_the_ray_of_the_suite() -> None:
    (job,) = documents("examples/ray/rayjob.yaml")
    assert job["spec"]["rayClusterSpec"]["rayVersion"] == constraint("ray")


def test_readme_renders_outside_the_repository() -> None:
    readme = text("README.md")
    targets = re.findall(r"\]\(([^)\s]+)", readme) + re.findall(r"(?:src|href)=[\"']([^\"']+)", readme)
    relative = [target for target in targets if not re.match(r"https?://|mailto:|#", target)]
    assert relative == [], "a package index resolves no relative links"


def test_links_of_readme_lead_to_files_that_exist() -> None:
    for kind, path in re.findall(rf"{PLACEHOLDER}/(?:blob|tree|raw)/(main)/([^)\s#\"']+)", text("README.md")):
        assert kind == "main" and (ROOT / path).exists(), path


def test_names_of_tests_are_short() -> None:
    for path in (ROOT / "tests").rglob("test_*.py"):
        for name in re.findall(r"def (test_\w+)", path.read_text(encoding="utf-8")):
            assert len(name) <= 72, f"{path.name}: {name}"


@pytest.mark.parametrize("folder", ["donod_fast", "kernels", "bench", "examples", "recipes"])
def test_source_files_use_plain_english(folder: str) -> None:
    data = {"operations.py", "dynamic_pack.py"}  # wording of generated tasks; an order's name in a results file
    for path in (ROOT / folder).rglob("*"):
        if path.suffix in (".py", ".yaml", ".sh") and path.name not in data:
            found = UNPLAIN.findall(path.read_text(encoding="utf-8"))
            assert found == [], f"{path.relative_to(ROOT)}: {found}"
