"""RDS+, BM25, LESS at the output layer and the answer's length equal direct computations, row by row."""

from __future__ import annotations

import json
import math
import pickle
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from score_runs import assert_same_bits, short_rows, write_lines
from tiny_models import tiny_model, tiny_tokenizer
from torch import Tensor

from donod_fast.criteria import bm25
from donod_fast.criteria.base import Criterion, fingerprint
from donod_fast.criteria.bm25 import BM25
from donod_fast.criteria.less_head import EPS, LessHead
from donod_fast.criteria.rds import RepresentationSimilarity
from donod_fast.criteria.registry import SIGNALS, SignalOptions, comparing, parse_signals
from donod_fast.data.masking import MaskSettings
from donod_fast.data.reading import corpus_from_rows
from donod_fast.data.types import Status, TokenizedSample
from donod_fast.engines.local import score_corpus
from donod_fast.errors import CorpusError, InputError, SettingsMismatchError
from donod_fast.models.batching import used_tokens
from donod_fast.scores.folder import ScoresFolder, locked
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings

SHARED = Path(__file__).parents[2].parent / "shared"
ROWS = short_rows(16, seed=3)
REFERENCES = short_rows(9, seed=8)
NEW = ("rds", "bm25", "less-head", "less-head-max", "length")
COMPARED = ("rds", "bm25", "less_head", "less_head_max")
Rows = Sequence[dict[str, Any]]


def scorer_with(
    criteria: Sequence[Criterion] = (), family: str = "llama", dtype: torch.dtype = torch.float64, **options: Any
) -> Scorer:
    options = {"token_budget": 256, **options}
    return Scorer(tiny_model(family).to(dtype), tiny_tokenizer(), signals=criteria, **options)


def scored_samples(scorer: Scorer, rows: Rows) -> list[TokenizedSample | None]:
    samples = scorer.masker.tokenize_many(list(corpus_from_rows(rows).records()))
    return [sample if sample.status is Status.SCORED else None for sample in samples]


def by_hand(scorer: Scorer, rows: Rows, references: Rows) -> dict[str, list[float]]:
    """Every new column of every row, one row at a time; NaN for rows without a score."""
    own = scored_samples(scorer, rows)
    theirs = [one for one in scored_samples(scorer, references) if one is not None]
    cosines = _cosines(scorer, theirs)
    found: dict[str, Callable[[TokenizedSample], float]] = {
        "rds": _nearest(scorer, theirs),
        "bm25": _best_match(scorer, theirs),
        "less_head": lambda sample: float(cosines(sample).mean()),
        "less_head_max": lambda sample: float(cosines(sample).max()),
        "length": lambda sample: float(len(_text(scorer, np.array(sample.input_ids)[list(sample.scored)]))),
    }
    return {name: [math.nan if one is None else compute(one) for one in own] for name, compute in found.items()}


def _nearest(scorer: Scorer, references: Sequence[TokenizedSample]) -> Callable[[TokenizedSample], float]:
    decoder = scorer.loaded.model.get_decoder()

    @torch.no_grad()
    def vector(sample: TokenizedSample) -> Tensor:
        states = decoder(torch.tensor([sample.input_ids]), use_cache=False).last_hidden_state[0].double()
        mean = sum((t + 1) * states[t] for t in range(used_tokens(sample)))
        assert isinstance(mean, Tensor)
        return mean / mean.norm()

    known = [vector(one) for one in references]
    return lambda sample: max(float(vector(sample) @ one) for one in known)


def _text(scorer: Scorer, ids: Any) -> str:
    return str(scorer.loaded.tokenizer.decode([int(i) for i in ids], skip_special_tokens=True))


def _best_match(scorer: Scorer, references: Sequence[TokenizedSample]) -> Callable[[TokenizedSample], float]:
    texts = [_text(scorer, one.input_ids).lower().split() for one in references]
    mean = sum(map(len, texts)) / len(texts)

    def score(words: set[str], text: list[str]) -> float:
        counts, total = Counter(text), 0.0
        for word in words & counts.keys():
            having = sum(word in other for other in texts)
            idf = math.log(1 + (len(texts) - having + 0.5) / (having + 0.5))
            total += idf * counts[word] / (counts[word] + 1.5 * (0.25 + 0.75 * len(text) / mean))
        return total

    return lambda sample: max(score(set(_text(scorer, sample.input_ids).lower().split()), text) for text in texts)


def _gradient(scorer: Scorer, sample: TokenizedSample) -> Tensor:
    """(V, d) float64 of one row by autograd through the model's own logits."""
    model = scorer.loaded.model
    layer = model.get_output_embeddings()
    labels = torch.where(torch.tensor(sample.scored), torch.tensor(sample.input_ids), -100)
    hook = layer.register_forward_pre_hook(lambda layer, inputs: (inputs[0].detach(),))
    layer.weight.requires_grad_(True)
    logits = model(torch.tensor([sample.input_ids]), use_cache=False).logits[0]
    loss = torch.nn.functional.cross_entropy(logits[:-1].double(), labels[1:], reduction=scorer.update.reduction)
    (gradient,) = torch.autograd.grad(loss, layer.weight)
    layer.weight.requires_grad_(False)
    hook.remove()
    return gradient.double()


def _cosines(scorer: Scorer, references: Sequence[TokenizedSample]) -> Callable[[TokenizedSample], Tensor]:
    known = torch.stack([_gradient(scorer, one) for one in references])
    squares = known.square().mean(0)
    row_mean = squares.mean(1, keepdim=True)
    column = squares.sum(0) / squares.sum() * squares.shape[1]
    scale = (row_mean.sqrt() + EPS) * column.sqrt()  # √(row mean · column mean / mean), with ε at the row
    assert torch.allclose((row_mean * column).sum(), squares.sum()), "the factored moment keeps the sum"
    flat = torch.nn.functional.normalize(known.flatten(1))

    def cosine(sample: TokenizedSample) -> Tensor:
        step = (_gradient(scorer, sample) / scale).flatten()
        return flat @ step / step.norm()

    return cosine


def column(table: pa.Table, name: str) -> Tensor:
    return torch.tensor(np.array(table.column(name).to_pylist(), dtype=np.float64))


def made(references: Sequence[str], names: Sequence[str] = NEW) -> list[Criterion]:
    return [SIGNALS[name](SignalOptions(tuple(references))) for name in names]


@pytest.fixture
def reference(tmp_path: Path) -> str:
    return str(write_lines(tmp_path / "val.jsonl", REFERENCES))


@pytest.mark.parametrize(
    ("family", "dtype", "options"),
    [
        ("llama", torch.float64, {}),
        ("llama", torch.float64, {"packing": "on", "token_budget": 40}),
        ("llama", torch.float64, {"packing": "off", "token_budget": 1}),
        ("llama", torch.float32, {"update": UpdateSettings(reduction="sum", weight_decay=0.1)}),
        ("gemma2", torch.float32, {"packing": "off", "token_budget": 60}),
    ],
)
def test_columns_are_those_of_one_row_at_a_time(
    family: str, dtype: torch.dtype, options: dict[str, Any], reference: str
) -> None:
    scorer = scorer_with(made([reference]), family, dtype, **options)
    table = scorer.score_table(ROWS)
    wanted = by_hand(scorer, ROWS, REFERENCES)
    assert table.column_names[-5:] == list(wanted)
    bound = 1e-9 if dtype == torch.float64 else 2e-5
    for name, values in wanted.items():
        expected = torch.tensor(values, dtype=torch.float64)
        assert bool(expected.isnan().any()) and int(expected.isfinite().sum()) > 10
        torch.testing.assert_close(column(table, name), expected, rtol=bound, atol=bound, equal_nan=True)


def test_several_sets_have_columns_of_their_own(tmp_path: Path) -> None:
    sets = {name: short_rows(7, seed=seed) for seed, name in enumerate(("first", "second"))}
    paths = [str(write_lines(tmp_path / f"{name}.jsonl", rows)) for name, rows in sets.items()]
    scorer = scorer_with(made(paths, NEW[:4]))
    table = scorer.score_table(ROWS)
    names = [f"{name}:{end}" for name in COMPARED for end in sets]
    assert table.column_names[-8:] == names
    for end, rows in sets.items():
        wanted = by_hand(scorer, ROWS, rows)
        for name in COMPARED:
            found, expected = column(table, f"{name}:{end}"), torch.tensor(wanted[name], dtype=torch.float64)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9, equal_nan=True)


def test_added_later_resumed_and_at_once_are_the_same(tmp_path: Path, reference: str) -> None:
    def run(out: str, criteria: Sequence[Criterion], stop: int | None = None) -> pa.Table:
        done = [0]

        def progress(rows: int, tokens: int) -> None:
            done[0] += rows
            if stop is not None and done[0] > stop:
                raise KeyboardInterrupt

        with locked(tmp_path / out):
            score_corpus(corpus_from_rows(ROWS), scorer_with(criteria), tmp_path / out, part_rows=5, progress=progress)
        return ScoresFolder.open(tmp_path / out).table()

    at_once = run("at-once", made([reference]))
    with pytest.raises(KeyboardInterrupt):
        run("resumed", made([reference]), stop=8)
    assert_same_bits(run("resumed", made([reference])), at_once)
    run("later", [])
    later = run("later", made([reference]))
    for name in (*COMPARED, "length"):
        found, wanted = column(later, name), column(at_once, name)
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9, equal_nan=True)
    write_lines(Path(reference), REFERENCES[1:])
    with pytest.raises(SettingsMismatchError, match="references"):
        run("later", made([reference]))


def test_what_decides_the_numbers_is_in_the_fingerprint(
    tmp_path: Path, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = [fingerprint(one) for one in made([reference])]
    assert [fingerprint(one) for one in made([reference])] == before
    (tmp_path / "other").mkdir()
    other = str(write_lines(tmp_path / "other" / "val.jsonl", REFERENCES[1:]))
    changed = [fingerprint(one) for one in made([other])]
    assert [old == new for old, new in zip(before, changed, strict=True)] == [False, False, False, False, True]
    monkeypatch.setattr(bm25, "K1", 1.2)
    monkeypatch.setattr("donod_fast.criteria.less_head.EPS", 1e-6)
    now = [fingerprint(one) for one in made([reference])]
    assert [old == new for old, new in zip(before, now, strict=True)] == [True, False, False, False, True]


def test_another_process_gets_the_same(reference: str) -> None:
    sent = pickle.loads(pickle.dumps(made([reference])))
    found, wanted = (scorer_with(criteria).score_table(ROWS) for criteria in (sent, made([reference])))
    assert json.dumps(found.to_pylist()) == json.dumps(wanted.to_pylist())


@pytest.mark.parametrize("name", ["rds", "bm25", "less-head", "less-head-max", "influence", "influence-max"])
def test_a_criterion_that_compares_names_what_it_lacks(name: str) -> None:
    assert name in comparing()
    with pytest.raises(InputError, match=f"--signals {name} needs a reference set: --reference FILE"):
        parse_signals(name)


def test_a_set_for_no_criterion_is_refused_with_their_names(reference: str) -> None:
    with pytest.raises(InputError, match="rds, bm25, less-head, less-head-max, influence"):
        parse_signals("el2n", SignalOptions((reference,)))


@pytest.mark.parametrize("make", [RepresentationSimilarity, BM25, LessHead])
def test_a_set_with_no_scored_token_is_refused_by_name(make: Callable[[list[str]], Criterion], tmp_path: Path) -> None:
    path = write_lines(tmp_path / "val.jsonl", [{"question": "count", "answer": "  "}, {"other": "x"}])
    with pytest.raises(CorpusError, match=r"val\.jsonl: the reference set has no scored token in 2 rows"):
        scorer_with([make([str(path)])], masks=MaskSettings(max_length=12))


def test_without_bm25s_the_extra_is_named(reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(bm25.importlib, "import_module", absent)
    with pytest.raises(InputError, match=r"pip install 'donod-fast\[criteria\]'"):
        parse_signals("bm25", SignalOptions((reference,)))


def test_words_and_length_are_added_without_a_forward_pass(reference: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = scorer_with()
    rows = [sample for sample in scored_samples(plain, ROWS) if sample is not None]
    losses = [row.loss for row in plain.sample_scorer.score(rows)]
    signals = scorer_with(made([reference], ("bm25", "length"))).sample_scorer.signals
    monkeypatch.setattr(type(plain.trunk), "scored_states", lambda *given: pytest.fail("a forward pass"))
    assert all(isinstance(value, float) for row in plain.sample_scorer.add(rows, losses, signals) for value in row)


def test_a_row_of_words_that_no_reference_has_scores_zero(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "val.jsonl", [{"text": "seven river"}, {"text": "red river"}])
    scorer = scorer_with(made([str(path)], ("bm25",)))
    assert column(scorer.score_table([{"text": "which number is twelve"}, {"text": "red house"}]), "bm25").tolist() == [
        0.0,
        pytest.approx(math.log(1 + 1.5 / 1.5) / 2.5),
    ]


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "models" / "tiny-instruct").is_dir(), reason="the real data of ../shared is absent")
def test_rows_of_a_task_are_nearer_to_it_than_rows_of_another(tmp_path: Path) -> None:
    lines = (SHARED / "data" / "gsm8k" / "test.jsonl").read_text().splitlines()
    path = tmp_path / "val.jsonl"
    path.write_text("\n".join(lines[20:28]) + "\n")
    programs = json.loads((SHARED / "data" / "codealpaca" / "code_alpaca_2k.json").read_text())
    scorer = Scorer.from_pretrained(
        SHARED / "models" / "tiny-instruct", device="cpu", signals=made([str(path)], NEW[:4]), token_budget=2048
    )
    own, other = (scorer.score_table(rows) for rows in ([json.loads(line) for line in lines[:8]], programs[:8]))
    # On this model the mean cosine of gradients does not tell the tasks apart, and eight references suffice for hidden
    # states and words, but hardly for the largest cosine of gradients.
    for name, least in (("rds", 0.8), ("bm25", 0.8), ("less_head_max", 0.5)):
        nearer = (column(own, name).unsqueeze(1) > column(other, name)).double().mean()
        assert float(nearer) > least, (name, nearer)
