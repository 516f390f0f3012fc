"""The configurations that a host's guide shows are those that the host's tests run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from repository import ROOT

GUIDES = sorted(
    path for path in (ROOT / "docs/guides/hosts").glob("*.md") if (ROOT / "examples/hosts" / path.stem).is_dir()
)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda path: path.stem)
def test_every_yaml_block_is_part_of_an_example(guide: Path) -> None:
    examples = [
        _settings(path.read_text(encoding="utf-8")) for path in (ROOT / "examples/hosts" / guide.stem).glob("*.y*ml")
    ]
    for block in re.findall(r"^```yaml\n(.*?)^```$", guide.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        assert any(set(_settings(block)) <= set(example) for example in examples), block


def _settings(text: str) -> list[str]:
    """The lines without comments and blank lines."""
    lines = [re.sub(r"(^| )#.*", "", line).rstrip() for line in text.splitlines()]
    return [line for line in lines if line]
