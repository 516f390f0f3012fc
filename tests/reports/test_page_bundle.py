"""The bundle of the page is current, holds its licences, and its sources make no markup from text."""

from __future__ import annotations

import hashlib
import json
import re

import pytest
from report_cases import PAGE

SOURCES = sorted(PAGE.glob("src/*.js"))


def test_bundle_was_built_from_these_sources() -> None:
    names = sorted(["package-lock.json", "package.json", "build.mjs", *(f"src/{path.name}" for path in SOURCES)])
    digest = hashlib.sha256()
    for name in names:
        digest.update(f"{name}\n".encode() + (PAGE / name).read_bytes() + b"\n")
    head = (PAGE / "report.js").read_text("utf-8").partition("\n")[0]
    assert f"sha256-{digest.hexdigest()};" in head, "run `make page`: report.js is older than its sources"


def test_bundle_can_stand_in_a_page() -> None:
    text = (PAGE / "report.js").read_text("utf-8")
    assert text.isascii()
    assert "</script" not in text.lower()
    assert "<!--" not in text


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_sources_never_make_markup_from_text(path: object) -> None:
    text = path.read_text("utf-8")  # type: ignore[attr-defined]
    markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|setHTML"
    assert not re.search(markup, text)
    assert not re.search(
        r"\bfetch\(|XMLHttpRequest|WebSocket|sendBeacon|import\(|https?://(?!www\.w3\.org/2000/svg)", text
    )


def test_lock_names_packages_with_hashes_and_no_address() -> None:
    text = (PAGE / "package-lock.json").read_text("utf-8")
    assert "http" not in text
    packages = {path: entry for path, entry in json.loads(text)["packages"].items() if path}
    assert all(entry.get("integrity") for entry in packages.values())


def test_licences_of_all_packages_lie_beside_the_bundle() -> None:
    lock = json.loads((PAGE / "package-lock.json").read_text("utf-8"))["packages"]
    licences = (PAGE / "LICENSES.txt").read_text("utf-8")
    inside = {path: entry for path, entry in lock.items() if path and not entry.get("dev")}
    assert len(inside) > 5
    for path, entry in inside.items():
        name = path.rpartition("node_modules/")[2]
        assert re.search(rf"^{re.escape(name)} {re.escape(entry['version'])} \(", licences, re.MULTILINE), name
