"""The table of rooms: each package of ``donod_fast`` and the first sentence of its docstring."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = {"kernels": ROOT / "kernels", "recipes": ROOT / "recipes"}
"""Folders at the top level that are installed inside ``donod_fast``."""


def rooms_table() -> str:
    """A Markdown table: layer (1 is the lowest), folder and purpose of every room."""
    folders = {path.parent.name: path.parent for path in (ROOT / "donod_fast").glob("*/__init__.py")} | OUTSIDE
    layer = {name: i for i, names in enumerate(reversed(_layers())) for name in re.findall(r"\w+", names)}
    names = sorted(folders, key=lambda name: (layer.get(name, len(layer)), name))
    lines = [f"| {layer.get(name, '')} | `{_path(name)}` | {_purpose(folders[name])} |" for name in names]
    return "\n".join(["| layer | room | purpose |", "| ---: | --- | --- |", *lines])


def _path(name: str) -> str:
    return f"{name}/" if name in OUTSIDE else f"donod_fast/{name}/"


def _layers() -> list[str]:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    return next(contract["layers"] for contract in contracts if contract["type"] == "layers")


def _purpose(folder: Path) -> str:
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    first = " ".join(text.split("\n\n")[0].split())
    first = re.sub(r":\w+:`", "`", first)
    return re.sub(r"``([^`]*)``", r"`\1`", first).replace("|", "\\|")
