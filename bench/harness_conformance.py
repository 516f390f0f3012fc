"""``eval agieval`` and ``eval ifeval`` against lm-eval run by hand: same files, its own evaluator and model loading.

    python bench/harness_conformance.py --model smollm2 --agieval ../shared/data/agieval --ifeval input_data.jsonl

One row for each set: the largest difference of a log-likelihood, the largest magnitude of one, and the accuracies of
both; for IFEval the number of equal responses. Appends to results/harness.csv.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import datasets
from record import print_rows, write_rows

from donod_fast.evaluation.harness import measure
from donod_fast.evaluation.harness.agieval import SETS
from donod_fast.evaluation.harness.folder import HarnessFolder
from donod_fast.models.loading import LoadedModel, load_model
from donod_fast.models.packaged import model_path

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from harness_by_hand import by_hand_model, questions_by_hand, responses_by_hand


def main() -> None:
    """Compare and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--agieval", type=Path, required=True)
    parser.add_argument("--ifeval", type=Path, required=True)
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--limit", type=int, default=4, help="questions of each set")
    parser.add_argument("--few-shot", type=int, default=0)
    parser.add_argument("--prompts", type=int, default=4, help="prompts of IFEval")
    parser.add_argument("--tokens", type=int, default=48, help="tokens of each response")
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()

    loaded = load_model(options.model, device="cpu")
    other = by_hand_model(model_path(options.model), batch_size=1)
    with tempfile.TemporaryDirectory() as folder:
        datasets.config.HF_DATASETS_CACHE = Path(folder, "cache")
        for name in (*filter(None, options.sets.split(",")), *(["ifeval"] if options.prompts else [])):
            compare = _prompts if name == "ifeval" else _questions
            row = compare(loaded, other, name, Path(folder), options)
            print_rows([row])
            if not options.no_record:
                write_rows("harness", [row])


def _questions(loaded: LoadedModel, other: Any, name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    out = folder / f"out-{name}"
    ours = measure(
        loaded, "agieval", options.agieval, sets=(name,), limit=options.limit, few_shot=options.few_shot, out=out
    )
    lines = sorted(HarnessFolder(out).items(), key=lambda one: one["item"])
    theirs = questions_by_hand(other, options.agieval, folder, name, limit=options.limit, few_shot=options.few_shot)
    pairs = [
        pair
        for line, sums in zip(lines, theirs["loglikelihoods"], strict=True)
        for pair in zip(line["loglikelihoods"], sums, strict=True)
    ]
    return {
        "model": options.model, "set": name, "few_shot": options.few_shot, "items": len(lines),
        "cut": ours["cut"], "compared": len(pairs),
        "largest_difference": f"{max(abs(a - b) for a, b in pairs):.2e}",
        "largest_loglikelihood": f"{max(abs(b) for _, b in pairs):.1f}",
        "acc": f"{ours['sets'][name]['acc']:.4f}", "acc_by_hand": f"{theirs['acc']:.4f}",
        "acc_norm": f"{ours['sets'][name]['acc_norm']:.4f}", "acc_norm_by_hand": f"{theirs['acc_norm']:.4f}",
        "equal_responses": "",
    }  # fmt: skip


def _prompts(loaded: LoadedModel, other: Any, name: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    out = folder / f"out-{name}"
    ours = measure(
        loaded, "ifeval", options.ifeval, limit=options.prompts, max_new_tokens=options.tokens, batch_rows=1, out=out
    )
    responses = [line["response"] for line in HarnessFolder(out).items()]
    theirs = responses_by_hand(other, options.ifeval, folder, limit=options.prompts, tokens=options.tokens)
    equal = sum(a == b for a, b in zip(responses, theirs, strict=True))
    return {
        "model": options.model, "set": name, "few_shot": 0, "items": len(responses), "cut": ours["cut"],
        "compared": len(responses), "largest_difference": "", "largest_loglikelihood": "", "acc": "", "acc_by_hand": "",
        "acc_norm": "", "acc_norm_by_hand": "", "equal_responses": equal,
    }  # fmt: skip


if __name__ == "__main__":
    main()
