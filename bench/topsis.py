"""TOPSIS over columns in memory: the PyTorch function and, on CUDA, the Triton kernels, against copying the columns.

    python bench/topsis.py --samples 1000000 10000000

The floor copies both columns (16 bytes read and 16 written per sample). Appends to results/topsis.csv.
"""

from __future__ import annotations

import argparse
from typing import Any

import torch
from record import device_name, interleaved, is_recorded, print_rows, summary, write_rows
from torch import Tensor

from donod_fast.kernels import topsis


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-record", action="store_true")
    parser.add_argument("--if-missing", action="store_true", help="only sizes that are not recorded for this device")
    options = parser.parse_args()
    for samples in options.samples:
        device = device_name(options.device)
        if options.if_missing and is_recorded("topsis", device=device, samples=samples):
            print("already recorded for this device:", samples)
            continue
        rows = measured(*columns(samples, options.device), rounds=options.rounds)
        print_rows(rows)
        if not options.no_record:
            print("recorded in results/" + write_rows("topsis", rows, kind=options.device).name)


def columns(samples: int, device: str) -> tuple[Tensor, Tensor]:
    """DON and NOD of this many samples, |DON| ≤ NOD, one in a thousand not scored."""
    generator = torch.Generator(device).manual_seed(0)
    place: dict[str, Any] = {"device": device, "dtype": torch.float64, "generator": generator}
    nod = torch.randn(samples, **place).mul_(0.3).exp_().mul_(1e-3)
    don = torch.rand(samples, **place).mul_(2).sub_(1).mul_(nod)
    unscored = torch.rand(samples, **place) < 1e-3
    return don.masked_fill_(unscored, torch.nan), nod.masked_fill_(unscored, torch.nan)


def measured(don: Tensor, nod: Tensor, *, rounds: int) -> list[dict[str, Any]]:
    """Rows of one size; the kernels' closeness is compared with that of the PyTorch function."""
    spare = torch.empty((2, len(don)), dtype=don.dtype, device=don.device)
    programs: dict[str, Any] = {
        "copy of the columns (floor)": lambda: (spare[0].copy_(don), spare[1].copy_(nod)),
        "torch": lambda: topsis(don, nod, backend="torch"),
    }
    errors = {}
    if don.is_cuda:
        programs["triton"] = lambda: topsis(don, nod, backend="triton")
        difference = (programs["triton"]() - programs["torch"]()).abs()
        errors["triton"] = f"{float(difference.nan_to_num().max()):.2e}"
    times = {name: summary(taken) for name, taken in interleaved(programs, rounds=rounds).items()}
    floor = times["copy of the columns (floor)"]["median_ms"]
    return [
        {
            "row": name,
            "samples": len(don),
            **{key: round(value, 4) for key, value in result.items()},
            "times_floor": round(result["median_ms"] / floor, 3),
            "gigabytes_per_s_of_floor": round(32e-6 * len(don) / result["median_ms"], 2),
            "difference_from_torch": errors.get(name, ""),
        }
        for name, result in times.items()
    ]


if __name__ == "__main__":
    main()
