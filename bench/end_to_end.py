"""From a JSON Lines file to a scores folder: the bare trunk, the paper's loop and ours, in one process.

    python bench/end_to_end.py --model ../shared/models/tiny-instruct --data ../shared/data/gsm8k/test.jsonl
    python bench/end_to_end.py … --head 32000

``--head V`` puts a random output layer of V pieces on the same trunk (labels do not change). The floor
is the trunk alone on the same batches, already tokenised, as transformers runs it. The rows of the paper's loop are
already tokenised too. ``--compile`` adds our compiled scorer (compilation is not timed). Appends to
results/end_to_end.csv.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import torch
from record import interleaved, print_rows, summary, write_rows

from donod_fast.benchmark.paper_loop import score_sample
from donod_fast.data.reading import open_corpus
from donod_fast.data.types import IGNORE_INDEX, Status
from donod_fast.engines.local import score_corpus
from donod_fast.models.batching import collate, make_batches, packing_efficiency
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, default=500)
    parser.add_argument("--head", type=int, help="random output layer of this many pieces")
    parser.add_argument("--update", default="adamw")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--token-budget", type=int)
    parser.add_argument("--compile", action="store_true", help="also time our compiled scorer")
    parser.add_argument("--dtype", default="auto", help="dtype of the model, for every program")
    parser.add_argument("--no-record", action="store_true")
    options = parser.parse_args()

    scratch = Path(tempfile.mkdtemp(prefix="donod-fast-bench-"))
    corpus_file = scratch / "rows.jsonl"
    with Path(options.data).open("rb") as lines:
        corpus_file.write_bytes(b"".join(islice(lines, options.rows)))
    model = options.model
    if options.head:
        model = with_head(model, options.head, scratch / "model")
    load = {"update": UpdateSettings(options.update), "token_budget": options.token_budget, "dtype": options.dtype}
    scorer = Scorer.from_pretrained(model, **load)
    compiled = Scorer.from_pretrained(model, compile=True, **load) if options.compile else None
    samples = scorer.masker.tokenize_many(list(open_corpus([str(corpus_file)]).records()))
    samples = [sample for sample in samples if sample.status is Status.SCORED]
    budget, packs = scorer.sample_scorer.token_budget, scorer.trunk.packs
    groups = make_batches(samples, budget, packs)
    batches = [collate(samples, group, packed=packs) for group in groups]
    real = sum(len(sample.input_ids) for sample in samples)

    def ours(with_: Scorer) -> None:
        out = scratch / "scores"
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir()
        score_corpus(open_corpus([str(corpus_file)]), with_, out)

    def trunk(of: Scorer) -> None:
        for batch in batches:
            of.trunk.states(batch)

    singles = []
    device = scorer.head.weight.device
    for sample in samples:
        ids, scored = torch.tensor(sample.input_ids, device=device), torch.tensor(sample.scored, device=device)
        singles.append((ids[None], ids.where(scored, IGNORE_INDEX)))

    def loop() -> None:
        for input_ids, labels in singles:
            score_sample(scorer.trunk.decoder, scorer.head.weight.data, input_ids, labels, options.update)

    programs: dict[str, Callable[[], None]] = {
        "trunk alone (floor)": lambda: trunk(scorer),
        "ours, file to folder": lambda: ours(scorer),
        "paper loop": loop,
    }
    if compiled is not None:
        programs["ours, compiled, file to folder"] = lambda: ours(compiled)
    times = interleaved(programs, rounds=options.rounds)
    results = {name: summary(seconds) for name, seconds in times.items()}
    floor = results["trunk alone (floor)"]["median_ms"]
    rows = [
        {
            "row": name,
            "update": options.update,
            "vocab": scorer.head.weight.shape[0],
            "dim": scorer.head.weight.shape[1],
            "samples": len(samples),
            "tokens": real,
            "token_budget": budget,
            "slots_used": round(packing_efficiency(samples, groups, packs), 4),
            **{key: round(value, 1) for key, value in result.items()},
            "samples_per_s": round(1e3 * len(samples) / result["median_ms"], 2),
            "tokens_per_s": round(1e3 * real / result["median_ms"]),
            "times_floor": round(result["median_ms"] / floor, 3),
        }
        for name, result in results.items()
    ]
    print_rows(rows)
    for row in rows:
        if row["row"].startswith("ours"):
            ratio = results["paper loop"]["median_ms"] / row["median_ms"]
            print(f"{row['row']}: {ratio:.2f} x as fast as the paper's loop, {row['times_floor']:.2f} x the bare trunk")
    if not options.no_record:
        print("recorded in", write_rows("end_to_end", rows))
    shutil.rmtree(scratch)


def with_head(model: str, vocab: int, folder: Path) -> str:
    """A copy of the model whose output layer is random and has ``vocab`` rows."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    torch.manual_seed(0)
    dim = loaded.config.hidden_size
    loaded.resize_token_embeddings(vocab)
    loaded.lm_head.weight.data = torch.randn(vocab, dim) / dim**0.5
    loaded.save_pretrained(folder)
    AutoTokenizer.from_pretrained(model).save_pretrained(folder)
    return str(folder)


if __name__ == "__main__":
    main()
