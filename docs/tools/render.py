"""Writes the source of the site from ``docs/``, ``README.md``, the recorded results and the command line.

    python docs/tools/render.py --out build/docs      # what `make docs` builds
    python docs/tools/render.py --update              # rewrites the generated blocks of README.md and CONTRIBUTING.md

Pages stay plain Markdown that reads well on a code host. Rendering them does four things: table blocks become tables,
links to files outside ``docs/`` lead to the repository or to a copy, reports of studies become pages, and the
command reference is written from the Typer application.
"""

from __future__ import annotations

import argparse
import posixpath
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import typer.main
import yaml
from rooms import rooms_table
from tables import render_tables, table_of
from typer.cli import get_docs_for_click

from donod_fast.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
REPOSITORY = "https://github.com/OWNER/donod_fast"
"""Placeholder until the repository has a public address; pyproject.toml uses the same one."""

REPORTS = "bench/results/studies"
_LINK = re.compile(r"(!?\[[^\]]*\]\()([^)\s#]+)(#[^)\s]*)?(\))")
_CODE = re.compile(r"(^```.*?^```$)", flags=re.DOTALL | re.MULTILINE)
_GENERATED = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end generated -->)", flags=re.DOTALL)
_PRIVATE_PATH = re.compile(r"(?:\.\./)+shared/(?:models|data)/")


def render_site(out: Path) -> list[str]:
    """Writes every page and picture below ``out``, which is emptied first; returns the pages' paths."""
    shutil.rmtree(out, ignore_errors=True)
    pages = {"index.md": _homepage((ROOT / "README.md").read_text(encoding="utf-8"))}
    for path in sorted((ROOT / "docs").rglob("*.md")):
        pages[path.relative_to(ROOT / "docs").as_posix()] = path.read_text(encoding="utf-8")
    pages["reference/commands.md"] = _command_reference()
    for report in sorted((ROOT / REPORTS).glob("*.md")):
        pages[f"studies/{report.name}"] = _report(report.read_text(encoding="utf-8"))
    for name, text in pages.items():
        target = out / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(_relink(render_tables(text, ROOT), name, out, set(pages)), encoding="utf-8")
    return sorted(pages)


def update_generated() -> list[Path]:
    """Rewrites the generated blocks of README.md and CONTRIBUTING.md; returns the files that changed."""
    changed = []
    for name in ("README.md", "CONTRIBUTING.md"):
        path = ROOT / name
        text = path.read_text(encoding="utf-8")
        if (new := with_generated(text)) != text:
            path.write_text(new, encoding="utf-8")
            changed.append(path)
    return changed


def with_generated(text: str) -> str:
    """``text`` with each generated block as it should be now."""

    def block(match: re.Match[str]) -> str:
        return match[1] + GENERATED[match[2]]() + "\n" + match[3]

    return _GENERATED.sub(block, text)


def _evidence() -> str:
    return table_of(yaml.safe_load((ROOT / "docs/tools/evidence.yaml").read_text(encoding="utf-8")), ROOT)


GENERATED: dict[str, Callable[[], str]] = {"rooms": rooms_table, "evidence": _evidence}
"""What each kind of generated block holds."""


def _command_reference() -> str:
    intro = "# Commands\n\nWritten from the program. `donod-fast COMMAND --help` prints the same.\n\n"
    group = typer.main.get_command(app)
    return intro + "".join(_commands(group, typer.Context(group), "donod-fast", depth=1))


def _commands(group: Any, context: typer.Context, prefix: str, depth: int) -> Iterator[str]:
    """A section for each command of a group; the sections of a nested group stand below its own."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if hasattr(command, "list_commands"):
            yield f"{'#' * (depth + 1)} `{prefix} {name}`\n\n{command.help or ''}\n\n"
            yield from _commands(command, context, f"{prefix} {name}", depth + 1)
        else:
            yield get_docs_for_click(obj=command, ctx=context, indent=depth, name=f"{prefix} {name}")


def _homepage(text: str) -> str:
    """README.md, whose links are absolute so that it renders anywhere, with links inside the site."""
    return re.sub(re.escape(REPOSITORY) + r"/(?:blob|raw)/main/", "../", text)


def _report(text: str) -> str:
    note = "*Written by `donod-fast study`; paths are shortened.*"
    head, _, rest = _PRIVATE_PATH.sub("", text).partition("\n")
    return f"{head}\n\n{note}\n{rest}"


def _relink(text: str, page: str, out: Path, pages: set[str]) -> str:
    """Text of a page whose links to files outside ``docs/`` work on the site."""

    def link(match: re.Match[str]) -> str:
        before, target, anchor, after = match[1], match[2], match[3] or "", match[4]
        if re.match(r"[a-z]+:", target):
            return match[0]
        place = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
        if place.startswith("docs/tools/") or not (inside := _inside(place, pages)):
            if not (ROOT / place).exists():
                raise FileNotFoundError(f"{page}: the link to {target} leads nowhere ({place})")
            if not before.startswith("!"):
                return f"{before}{REPOSITORY}/blob/main/{place}{anchor}{after}"
            inside = f"pictures/{posixpath.basename(place)}"
            (out / "pictures").mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / place, out / inside)
        return before + posixpath.relpath(inside, posixpath.dirname(page) or ".") + anchor + after

    parts = _CODE.split(text)
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in parts)


def _inside(place: str, pages: set[str]) -> str | None:
    """The page of the site that a file of the repository became, if any."""
    if place == "README.md":
        return "index.md"
    if place.startswith(f"{REPORTS}/"):
        place = "docs/studies" + place.removeprefix(REPORTS)
    name = place.removeprefix("docs/")
    return name if place.startswith("docs/") and name in pages else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder for the source of the site; it is emptied first")
    parser.add_argument("--update", action="store_true", help="rewrite the generated blocks of README and CONTRIBUTING")
    options = parser.parse_args()
    if options.update:
        for path in update_generated():
            print(f"updated {path.relative_to(ROOT)}")
    if options.out:
        print(f"{len(render_site(options.out))} pages in {options.out}")


if __name__ == "__main__":
    main()
