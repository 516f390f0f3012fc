"""Files of the repository, for the tests of the release."""

from __future__ import annotations

import re
import shutil
import tomllib
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
PLACEHOLDER = "https://github.com/OWNER/donod_fast"
UNPLAIN = re.compile(
    r"\b(at hand|goes on|to be had|as it comes|as they come|is served|are served|is held to|are held to|by itself|anew|"
    r"draws the way|at one time|of its own accord|whoever|sign of life|is no \w+ for|less random|likewise)\b"
)
"""Phrases that do not read like an engineer's English. A sample of the kind, not the whole."""
_GENERATED = (
    ".git", ".venv*", "build", "dist", "site", "*.egg-info", "__pycache__", "*.pyc", ".*_cache", ".hypothesis",
    ".benchmarks", "demo-out",
)  # fmt: skip


def text(path: str) -> str:
    """Contents of a file of the repository."""
    return (ROOT / path).read_text(encoding="utf-8")


def pyproject() -> dict[str, Any]:
    """Contents of pyproject.toml."""
    return tomllib.loads(text("pyproject.toml"))


def documents(path: str) -> list[Any]:
    """All documents of a YAML file of the repository."""
    return list(yaml.safe_load_all(text(path)))


def copy_tree(folder: Path) -> None:
    """Copy the repository without what builds and tests leave behind."""
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*_GENERATED), symlinks=True)


def files(folder: str) -> list[Path]:
    """Files below a folder of the repository, without what builds and tests leave behind."""
    return sorted(
        path
        for path in (ROOT / folder).rglob("*")
        if path.is_file()
        and not any(fnmatch(part, name) for part in path.relative_to(ROOT).parts for name in _GENERATED)
    )
