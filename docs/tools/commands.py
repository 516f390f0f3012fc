"""Runs the commands that pages show and compares what they print with what the page says.

    python docs/tools/commands.py README.md docs/quick-start.md             # compare
    python docs/tools/commands.py --record README.md docs/quick-start.md    # write the real output into the pages

A page shows commands in fenced blocks of the language ``console``: lines that begin with ``$ `` are run by bash, all
of a page in one shell and one empty folder, and the lines below are their standard output. Numbers, dates and
widths may differ; a line that is only ``…`` stands for any number of lines. An HTML comment
``<!-- not run: REASON -->`` right above a block excludes it.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]*) -->\n\n?)?```console\n(?P<body>.*?)^```$", re.DOTALL | re.MULTILINE
)
_MARK = "@@command"


@dataclass(frozen=True)
class Block:
    """One ``console`` block: its text, where it stands in the page, and why it is not run (if it is not)."""

    body: str
    start: int
    end: int
    not_run: str | None

    @property
    def steps(self) -> list[tuple[str, list[str]]]:
        """Each command with the output lines that the page shows for it."""
        steps: list[tuple[str, list[str]]] = []
        for line in self.body.splitlines():
            if line.startswith("$ "):
                steps.append((line[2:], []))
            elif steps and steps[-1][0].endswith("\\"):
                steps[-1] = (steps[-1][0] + "\n" + line, [])
            elif steps:
                steps[-1][1].append(line)
            else:
                raise ValueError(f"a console block must begin with a command: {line!r}")
        return steps


def blocks_of(text: str) -> list[Block]:
    """Every ``console`` block of a page, in order."""
    return [
        Block(match["body"], match.start("body"), match.end("body"), match["reason"]) for match in _BLOCK.finditer(text)
    ]


def run_commands(commands: list[str], folder: Path) -> list[tuple[int, str, str]]:
    """Exit code, standard output and standard error of each command; one shell, no hub, no GPU."""
    script = [f"cd {shlex.quote(str(folder))}"]
    for i, command in enumerate(commands):
        script.append(f"{{\n{command}\n}} >{_MARK}.{i}.out 2>{_MARK}.{i}.err\necho $? >{_MARK}.{i}.rc")
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "COLUMNS": "120",
        "NO_COLOR": "1",
    }
    subprocess.run(["bash"], input="\n".join(script), text=True, env=environment, check=True)
    results = []
    for i in range(len(commands)):
        code, out, err = ((folder / f"{_MARK}.{i}.{kind}").read_text(encoding="utf-8") for kind in ("rc", "out", "err"))
        results.append((int(code), out, err))
    return results


def shape(line: str) -> str:
    """A line without what may differ from run to run: numbers, units of size and time, widths."""
    line = re.sub(r"[-+−]?\d[\d,.:]*(?:e[-+]?\d+)?|[-+−]?\.\d+", "#", line)
    line = re.sub(r"# (?:KiB|MiB|GiB|s|min|h)\b", "#", line)
    return re.sub(r"-{3,}", "---", " ".join(line.split()))


def fits(shown: list[str], printed: list[str]) -> bool:
    """Whether the output that a page shows has the shape of what was printed; ``…`` stands for any lines."""
    if not shown:
        return not printed
    if shown[0].strip() == "…":
        return any(fits(shown[1:], printed[i:]) for i in range(len(printed) + 1))
    return bool(printed) and shape(shown[0]) == shape(printed[0]) and fits(shown[1:], printed[1:])


def check_page(path: Path, folder: Path) -> list[str]:
    """Runs a page's commands in ``folder``; returns a complaint for each that fails or prints something else."""
    steps = [
        step for block in blocks_of(path.read_text(encoding="utf-8")) if block.not_run is None for step in block.steps
    ]
    complaints = []
    for (command, shown), (code, out, err) in zip(steps, run_commands([c for c, _ in steps], folder), strict=True):
        if code:
            complaints.append(f"$ {command}\nended with exit code {code}:\n{out}{err}")
        elif not fits(shown, out.rstrip().splitlines()):
            complaints.append(f"$ {command}\nthe page shows:\n" + "\n".join(shown) + f"\nit printed:\n{out}")
    return complaints


def record_page(path: Path, folder: Path) -> None:
    """Runs a page's commands and writes what they print into the page, except where the page leaves out lines."""
    text = path.read_text(encoding="utf-8")
    blocks = [block for block in blocks_of(text) if block.not_run is None]
    results = iter(run_commands([command for block in blocks for command, _ in block.steps], folder))
    pieces = []
    for block in blocks:
        lines: list[str] = []
        for command, shown in block.steps:
            code, out, err = next(results)
            if code:
                raise SystemExit(f"{path}: $ {command}\nended with exit code {code}:\n{out}{err}")
            printed = out.rstrip().splitlines()
            keep = any(line.strip() == "…" for line in shown) and fits(shown, printed)
            lines += [f"$ {command}", *(shown if keep else printed)]
        pieces.append((block, "\n".join(lines) + "\n"))
    for block, body in reversed(pieces):
        text = text[: block.start] + body + text[block.end :]
    path.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--record", action="store_true", help="write the real output into the pages")
    options = parser.parse_args()
    complaints = []
    for page in options.pages:
        with tempfile.TemporaryDirectory() as folder:
            if options.record:
                record_page(page, Path(folder))
            else:
                complaints += check_page(page, Path(folder))
    if complaints:
        raise SystemExit("\n\n".join(complaints))


if __name__ == "__main__":
    main()
