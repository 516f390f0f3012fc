"""The files that a guide of a host shows: the tests run them as they stand."""

from __future__ import annotations

import re
from pathlib import Path

GUIDES = Path(__file__).resolve().parents[2] / "docs" / "guides" / "hosts"


def guide_file(guide: str, name: str) -> str:
    """The fenced block of a guide whose first line is the comment ``# NAME``."""
    page = (GUIDES / f"{guide}.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```\w+\n(.*?)^```$", page, re.M | re.S)
    found = [block for block in blocks if block.startswith(f"# {name}\n")]
    assert len(found) == 1, (guide, name, len(found))
    return found[0]


__all__ = ["guide_file"]
