"""How long the command line takes to answer: ``--version``, ``--help``, ``score --help`` against ``python -c pass``.

Each command is a fresh process, run in turns with the others. Bytecode is cached in a temporary folder, as it is in an
installation, and the first turn, which writes it, is not timed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from record import interleaved, print_rows, summary, write_rows

PROGRAM = ["-c", "from donod_fast.cli import main; main()"]
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "donod-fast --version": [*PROGRAM, "--version"],
    "donod-fast --help": [*PROGRAM, "--help"],
    "donod-fast score --help": [*PROGRAM, "score", "--help"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)

        def run(arguments: list[str]) -> Callable[[], Any]:
            command = [sys.executable, *arguments]
            return lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)

        times = interleaved({name: run(arguments) for name, arguments in COMMANDS.items()}, rounds=options.rounds)
    bare = summary(times["python -c pass"])["median_ms"]
    rows = []
    for name, seconds in times.items():
        found = summary(seconds)
        rows.append(
            {
                "measured": name,
                "rounds": options.rounds,
                **{key: round(value, 1) for key, value in found.items()},
                "over_pass": round(found["median_ms"] / bare, 2),
                "load": round(load, 2),
            }
        )
    print_rows(rows)
    if not options.no_record:
        write_rows("startup", rows, kind="cpu")


if __name__ == "__main__":
    main()
