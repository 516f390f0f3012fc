"""The table of rooms: each package of ``donod_fast`` and the first sentence of its docstring."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUTSIDE = {"kernels": ROOT / "kernels", "recipes": ROOT / "recipes"}
"""Folders at the top level that are installed inside ``donod_fast``."""


def rooms() -> dict[str, str]:
    """Name → purpose of every room, from the lowest layer to the highest as pyproject.toml has them."""
    folders = {path.parent.name: path.parent for path in (ROOT / "donod_fast").glob("*/__init__.py")} | OUTSIDE
    order = [name for layer in reversed(_layers()) for name in re.findall(r"\w+", layer)]
    names = sorted(folders, key=lambda name: (order.index(name) if name in order else len(order), name))
    return {name: _purpose(folders[name]) for name in names}


def rooms_table() -> str:
    lines = [f"| `{_path(name)}` | {purpose} |" for name, purpose in rooms().items()]
    return "\n".join(["| room | purpose |", "| --- | --- |", *lines])


def _path(name: str) -> str:
    return f"{name}/" if name in OUTSIDE else f"donod_fast/{name}/"


def _layers() -> list[str]:
    import tomllib

    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    return next(contract["layers"] for contract in contracts if contract["type"] == "layers")


def _purpose(folder: Path) -> str:
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8"))) or ""
    first = " ".join(text.split("\n\n")[0].split())
    first = re.sub(r":\w+:`", "`", first)
    return re.sub(r"``([^`]*)``", r"`\1`", first).replace("|", "\\|")
