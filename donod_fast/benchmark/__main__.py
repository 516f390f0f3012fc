"""``python -m donod_fast.benchmark``: the same as ``donod-fast bench``, without typer."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from donod_fast.benchmark.settings import DEFAULTS, BenchmarkSettings
from donod_fast.errors import DonodError
from donod_fast.system.terminal import guard_streams


def main() -> int:
    """Run the benchmark; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m donod_fast.benchmark", description=__doc__.splitlines()[0])
    parser.add_argument("--shape", nargs="+", default=(), help="shapes with random weights (default: by device)")
    parser.add_argument("--lengths", nargs="+", default=DEFAULTS.lengths, help="length profiles")
    parser.add_argument("--model", help="your own model; requires --data")
    parser.add_argument("--data", help="your own corpus; requires --model")
    parser.add_argument("--rows", type=int, help="number of rows in the corpus")
    parser.add_argument("--tokens", type=int, help="number of tokens in a random corpus")
    parser.add_argument("--rounds", type=int, default=DEFAULTS.rounds)
    parser.add_argument("--seconds", type=float, default=DEFAULTS.seconds)
    parser.add_argument("--loop-seconds", type=float, default=DEFAULTS.loop_seconds)
    parser.add_argument("--out", type=Path, default=DEFAULTS.out, help="folder for the CSV file and the picture")
    parser.add_argument("--device")
    parser.add_argument("--dtype", default="auto")
    guard_streams()
    given = parser.parse_args()
    try:
        settings = BenchmarkSettings(
            shapes=tuple(given.shape),
            lengths=tuple(given.lengths),
            model=given.model,
            data=given.data,
            rows=given.rows,
            tokens=given.tokens,
            rounds=given.rounds,
            seconds=given.seconds,
            loop_seconds=given.loop_seconds,
            out=given.out,
            device=given.device,
            dtype=given.dtype,
        )
        from donod_fast.benchmark.run import run_benchmark

        run_benchmark(settings)
    except DonodError as error:
        print(f"donod-fast: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
