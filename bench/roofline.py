"""Expected cost of the head phase on an H200-class device: PREDICTED from counts, nothing here is measured.

    python bench/roofline.py --kernels
    python bench/roofline.py --workspace-mib 768

For every shape, update and length: the plan that ``plan.py`` makes with the shipped sm_90 tiles, and the time of each
kernel (``kernel_times.py``) over the floor, 2 · tokens · V · d operations at the measured rate of the bare product.
``docs/benchmarks/notes.md`` explains the formulas and the table.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import dataclass
from pathlib import Path

import torch
from kernel_times import H200, KERNELS, UNLIMITED, Device, Times, group_times
from shapes import SHAPES, Shape

from donod_fast.kernels.triton_backend.configs import configs_for
from donod_fast.kernels.triton_backend.plan import Problem, make_plan


@dataclass(frozen=True, slots=True)
class Prediction:
    """One line of the table."""

    shape: Shape
    update: str
    length: int
    group_tokens: float  # tokens of a group on average
    stored: float  # share of E's columns held at once
    logits_products: float  # 2 − C/V
    floors: Times  # by kernel, over the floor
    least: float  # operations alone, over the floor

    @property
    def total(self) -> float:
        """Predicted time over the floor."""
        return sum(self.floors.values())

    @property
    def target(self) -> float:
        """The target."""
        return 1.3 if self.update == "sgd" else 2.4 if self.length >= 1000 else 3.0


def predict(device: Device, shape: Shape, update: str, length: int, tokens: int, workspace: int) -> Prediction:
    """Samples of one length with about ``tokens`` tokens in total."""
    samples = max(1, tokens // length)
    tokens = samples * length
    linear, capped, bf16 = update == "sgd", shape.softcap is not None, torch.bfloat16
    # On a CPU the tiles are those of Hopper.
    configs = configs_for(torch.device("cpu"), bf16, bf16, mapped=capped, heavy=False, tokens=tokens, samples=samples,
                          dim=shape.dim)  # fmt: skip
    problem = Problem(shape.vocab, shape.dim, 2, 3 if capped else 2, linear, workspace)
    plan = make_plan(tokens, samples, list(range(0, tokens + 1, length)), problem, configs)
    if isinstance(plan, str):
        raise SystemExit(f"{shape.name}, {length} tokens a sample: {plan}")
    floor = 2.0 * tokens * shape.vocab * shape.dim / device.products
    total: Times = {}
    for group in plan.groups:
        for kernel, seconds in group_times(device, configs, shape, group, linear=linear).items():
            total[kernel] = total.get(kernel, 0.0) + seconds
    share = products = 0.0
    for group in plan.groups:
        columns = min(1.0, group.columns / shape.vocab)
        share += columns * group.group.tokens_bound / tokens
        products += (2.0 - columns if group.keep_first else 2.0) * group.group.tokens_bound / tokens
    pairs = (length + 64) * (shape.vocab + shape.dim) / (2.0 * shape.vocab * shape.dim)
    return Prediction(
        shape=shape,
        update=update,
        length=length,
        group_tokens=tokens / len(plan.groups),
        stored=share,
        logits_products=products,
        floors={kernel: seconds / floor for kernel, seconds in total.items()},
        least=products + (pairs if linear else 1.0),
    )


def row_of(case: Prediction, unlimited: Prediction, tokens: int, workspace_mib: int) -> dict[str, str]:
    """A row of ``bench/results/roofline.csv``."""
    return {
        "shape": case.shape.name,
        "update": case.update,
        "length": str(case.length),
        "case": f"{'AdamW' if case.update == 'adamw' else 'SGD'}, {case.length} tokens",
        "tokens": str(tokens),
        "workspace_mib": str(workspace_mib),
        "group_tokens": f"{case.group_tokens:.0f}",
        "stored": f"{case.stored:.2f}",
        "logits_products": f"{case.logits_products:.2f}",
        **{kernel: f"{case.floors[kernel]:.3f}" if case.floors.get(kernel) else "" for kernel in KERNELS},
        "operations_alone": f"{case.least:.2f}",
        "no_cache_limit": f"{unlimited.total:.2f}",
        "predicted": f"{case.total:.2f}",
        "target": f"{case.target:.1f}",
        "verdict": "reached" if case.total <= case.target else "missed",
    }


def table(
    tokens: int = 32768, workspace_mib: int = 256, lengths: tuple[int, ...] = (150, 1000)
) -> list[dict[str, str]]:
    """Predictions of every large shape, update and length."""
    found = []
    for shape in (shape for shape in SHAPES.values() if not shape.small):
        for update in ("sgd", "adamw"):
            for length in lengths:
                case = (shape, update, length, tokens, workspace_mib << 20)
                found.append(row_of(predict(H200, *case), predict(UNLIMITED, *case), tokens, workspace_mib))
    return found


def main() -> None:
    """Print the table, or write it as CSV."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tokens", type=int, default=32768)
    parser.add_argument("--workspace-mib", type=int, default=256)
    parser.add_argument("--lengths", type=int, nargs="+", default=[150, 1000])
    parser.add_argument("--kernels", action="store_true", help="also print the share of each kernel")
    parser.add_argument("--csv", type=Path, help="write the table there: bench/results/roofline.csv")
    options = parser.parse_args()
    rows = table(options.tokens, options.workspace_mib, tuple(options.lengths))
    if options.csv:
        with options.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        return
    print(f"PREDICTED, not measured: {options.workspace_mib} MiB, about {options.tokens} tokens, the shipped tiles\n")
    names = [name for name in rows[0] if options.kernels or name not in KERNELS]
    print("| " + " | ".join(names) + " |\n|" + "---|" * len(names))
    for row in rows:
        print("| " + " | ".join(row[name] for name in names) + " |")


if __name__ == "__main__":
    main()
