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
    examples = [path.read_text(encoding="utf-8") for path in (ROOT / "examples/hosts" / guide.stem).glob("*.yaml")]
    for block in re.findall(r"^```yaml\n(.*?)^```$", guide.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
        lines = [line for line in block.splitlines() if line.strip()]
        assert any(all(line in example.splitlines() for line in lines) for example in examples), block
