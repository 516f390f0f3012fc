"""Influence columns equal means and maxima over autograd's gradients; unusable reference sets give clear errors."""

from __future__ import annotations

import gzip
import json
import logging
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from score_runs import short_rows, write_lines
from tiny_models import tiny_model, tiny_tokenizer
from torch import Tensor

from donod_fast.criteria.base import Criterion
from donod_fast.criteria.influence import Influence, InfluenceMax
from donod_fast.criteria.reference import short_names
from donod_fast.data.masking import MaskSettings
from donod_fast.data.reading import corpus_from_rows
from donod_fast.data.types import Status, TokenizedSample
from donod_fast.engines.local import score_corpus
from donod_fast.errors import CorpusError, InputError, SettingsMismatchError
from donod_fast.models.batching import Batch
from donod_fast.scores.folder import ScoresFolder, locked
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings

SHARED = Path(__file__).parents[2].parent / "shared"
ROWS = short_rows(20, seed=3)
REFERENCES = short_rows(12, seed=8)


def scorer_with(
    criteria: Sequence[Criterion] = (), family: str = "llama", dtype: torch.dtype = torch.float64, **options: Any
) -> Scorer:
    options = {"token_budget": 256, **options}
    return Scorer(tiny_model(family).to(dtype), tiny_tokenizer(), signals=criteria, **options)


def samples_of(scorer: Scorer, rows: Sequence[dict[str, Any]]) -> list[TokenizedSample]:
    return scorer.masker.tokenize_many(list(corpus_from_rows(rows).records()))


def gradients(scorer: Scorer, rows: Sequence[dict[str, Any]]) -> Tensor:
    """(rows, V · d) float64 of each row alone, through the model's own logits; NaN for rows without a score."""
    model = scorer.loaded.model
    layer = model.get_output_embeddings()
    found = []
    for sample in samples_of(scorer, rows):
        if sample.status is not Status.SCORED:
            found.append(torch.full((layer.weight.numel(),), torch.nan, dtype=torch.float64))
            continue
        labels = torch.where(torch.tensor(sample.scored), torch.tensor(sample.input_ids), -100)
        # Where embeddings are tied only the output layer's use of W counts.
        hook = layer.register_forward_pre_hook(lambda layer, inputs: (inputs[0].detach(),))
        layer.weight.requires_grad_(True)
        logits = model(torch.tensor([sample.input_ids]), use_cache=False).logits[0]
        reduction = scorer.update.reduction
        loss = torch.nn.functional.cross_entropy(logits[:-1].double(), labels[1:], reduction=reduction)
        (gradient,) = torch.autograd.grad(loss, layer.weight)
        layer.weight.requires_grad_(False)
        hook.remove()
        found.append(gradient.double().flatten())
    return torch.stack(found)


def by_hand(scorer: Scorer, references: Sequence[dict[str, Any]]) -> dict[str, Tensor]:
    own, theirs = gradients(scorer, ROWS), gradients(scorer, references)
    theirs = theirs[~theirs[:, 0].isnan()]
    dots = own @ theirs.t()
    cosines = dots / own.norm(dim=1, keepdim=True) / theirs.norm(dim=1)
    return {"influence_dot": dots.mean(1), "influence_cos": cosines.mean(1), "influence_max": cosines.amax(1)}


def column(table: pa.Table, name: str) -> Tensor:
    return torch.tensor(np.array(table.column(name).to_pylist(), dtype=np.float64))


def assert_columns(table: pa.Table, wanted: dict[str, Tensor], bound: float, end: str = "") -> None:
    for name, values in wanted.items():
        # Of an inner product as well: dots are about as large as the largest of them.
        atol = bound * float(values.nan_to_num(0.0).abs().max())
        torch.testing.assert_close(column(table, name + end), values, rtol=bound, atol=atol, equal_nan=True)


@pytest.fixture
def reference(tmp_path: Path) -> str:
    return str(write_lines(tmp_path / "val.jsonl", REFERENCES))


@pytest.mark.parametrize(
    ("family", "dtype", "options"),
    [
        ("llama", torch.float64, {}),
        ("llama", torch.float64, {"packing": "on", "token_budget": 40}),
        ("llama", torch.float32, {"update": UpdateSettings(reduction="sum", weight_decay=0.1)}),
        ("gemma2", torch.float32, {"packing": "off", "token_budget": 60}),
        ("cohere", torch.float32, {}),
    ],
)
def test_columns_are_those_of_autograd_one_row_at_a_time(
    family: str, dtype: torch.dtype, options: dict[str, Any], reference: str
) -> None:
    scorer = scorer_with([Influence([reference]), InfluenceMax([reference])], family, dtype, **options)
    table = scorer.score_table(ROWS)
    wanted = by_hand(scorer, REFERENCES)
    assert table.column_names[-3:] == list(wanted)
    statuses = [sample.status for sample in samples_of(scorer, REFERENCES)]
    assert Status.SCORED in statuses and set(statuses) != {Status.SCORED}, "some references should be left out"
    assert bool(wanted["influence_cos"].isnan().any()), "some rows should have no score"
    assert_columns(table, wanted, 1e-9 if dtype == torch.float64 else 1e-5)


def test_several_sets_have_columns_of_their_own(tmp_path: Path) -> None:
    sets = {name: short_rows(7, seed=seed) for seed, name in enumerate(("first", "second"))}
    paths = [str(write_lines(tmp_path / f"{name}.jsonl", rows)) for name, rows in sets.items()]
    scorer = scorer_with([Influence(paths), InfluenceMax(paths)])
    table = scorer.score_table(ROWS)
    assert table.column_names[-6:] == [
        "influence_dot:first", "influence_cos:first", "influence_dot:second", "influence_cos:second",
        "influence_max:first", "influence_max:second",
    ]  # fmt: skip
    for name, rows in sets.items():
        assert_columns(table, by_hand(scorer, rows), 1e-9, f":{name}")


def test_the_columns_are_known_without_a_set() -> None:
    found = [(one.name, one.better) for made in (Influence(), InfluenceMax()) for one in made.columns]
    assert found == [("influence_dot", "high"), ("influence_cos", "high"), ("influence_max", "high")]


@pytest.mark.parametrize(
    ("sources", "names"),
    [
        (["val.jsonl"], ["val"]),
        (["a/val.jsonl.gz", "b/test.json"], ["val", "test"]),
        (["gsm8k/test.jsonl", "alpaca/test.jsonl"], ["gsm8k-test", "alpaca-test"]),
        (["a b/x*.jsonl", "org/name"], ["x_", "name"]),
        (["x/v.json", "x/v.jsonl"], ["reference-1", "reference-2"]),
        (["s3://bucket/v.jsonl", "/v.csv"], ["bucket-v", "v"]),
        ([], []),
    ],
)
def test_sets_are_named_by_what_tells_them_apart(sources: list[str], names: list[str]) -> None:
    assert short_names(sources) == names


def test_rows_of_the_set_that_cannot_be_scored_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [{"question": "the red house", "answer": "seven"}, {"question": "count", "answer": " "}, {"other": "x"}]
    path = write_lines(tmp_path / "val.jsonl", rows)
    with path.open("a") as file:
        file.write("{broken\n")
    with caplog.at_level(logging.WARNING, "donod_fast"):
        scorer = scorer_with([Influence([str(path)])])
    assert f"reference set {path}: 3 of 4 rows are left out (" in caplog.text
    for status in ("empty_response 1", "not_parsable 1", "unknown_format 1"):
        assert status in caplog.text
    assert_columns(scorer.score_table(ROWS), {"influence_cos": by_hand(scorer, rows[:1])["influence_cos"]}, 1e-9)


@pytest.mark.parametrize("make", [Influence, InfluenceMax])
def test_a_set_with_no_scored_token_is_refused_by_name(make: Callable[[list[str]], Criterion], tmp_path: Path) -> None:
    rows = [{"question": "count", "answer": "  "}, {"question": "the red house " * 9, "answer": "seven"}]
    path = write_lines(tmp_path / "val.jsonl", rows)
    with pytest.raises(CorpusError, match=r"val\.jsonl: the reference set has no scored token in 2 rows") as found:
        scorer_with([make([str(path)])], masks=MaskSettings(max_length=12))
    assert "empty_response 1" in str(found.value) and "give rows with an answer that fits" in str(found.value)


def test_unreadable_sets_are_refused_before_a_model_is_loaded(tmp_path: Path) -> None:
    empty = write_lines(tmp_path / "empty.jsonl", [])
    for sources, error, message in (
        ([str(tmp_path / "absent.jsonl")], CorpusError, "absent.jsonl"),
        ([str(empty)], CorpusError, "empty.jsonl"),
        (["-"], InputError, "standard input"),
        (["a.jsonl", "a.jsonl"], InputError, "a.jsonl twice"),
    ):
        with pytest.raises(error, match=message):
            Influence(sources)
    with pytest.raises(InputError, match="--signals influence needs a reference set: --reference FILE"):
        Influence().settings()
    with pytest.raises(InputError, match="--signals influence-max needs a reference set"):
        scorer_with([InfluenceMax()])


def test_the_content_decides_and_not_the_place(tmp_path: Path, reference: str) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    copy = write_lines(folder / "val.jsonl", REFERENCES)
    assert Influence([str(copy)]).settings() == Influence([reference]).settings()
    write_lines(copy, REFERENCES[::-1])
    assert Influence([str(copy)]).settings() != Influence([reference]).settings()
    packed = tmp_path / "val.jsonl.gz"
    packed.write_bytes(gzip.compress(Path(reference).read_bytes()))
    assert [one.name for one in Influence([str(packed)]).sets] == ["val"]


def test_columns_added_later_are_the_same_and_need_the_same_content(tmp_path: Path, reference: str) -> None:
    def run(*criteria: Criterion) -> None:
        with locked(tmp_path / "scores"):
            score_corpus(corpus_from_rows(ROWS), scorer_with(criteria), tmp_path / "scores", part_rows=8)

    run()
    run(Influence([reference]))
    wanted = by_hand(scorer_with(), REFERENCES)
    del wanted["influence_max"]
    assert_columns(ScoresFolder.open(tmp_path / "scores").table(), wanted, 1e-9)
    write_lines(Path(reference), ROWS[: len(REFERENCES)])
    with pytest.raises(SettingsMismatchError, match=r"influence.*references"):
        run(Influence([reference]))


def test_a_set_that_changes_before_it_is_read_is_noticed(reference: str) -> None:
    criterion = Influence([reference])
    write_lines(Path(reference), [*REFERENCES[:-1], {"question": "count", "answer": "twelve"}])
    with pytest.raises(CorpusError, match=r"val\.jsonl.*changed"):
        scorer_with([criterion])


def test_another_process_gets_the_same(reference: str) -> None:
    sent = pickle.loads(pickle.dumps((Influence([reference]), InfluenceMax([reference]))))
    found, wanted = (
        scorer_with(made).score_table(ROWS) for made in (sent, (Influence([reference]), InfluenceMax([reference])))
    )
    assert json.dumps(found.to_pylist()) == json.dumps(wanted.to_pylist())


def test_where_memory_runs_out_batches_of_references_are_halved(
    reference: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = scorer_with()
    whole = Influence([reference]).bind(plain.context)
    longest = {"question": "the red house and the river of", "answer": "seven of the number " * 3}
    write_lines(Path(reference), [*REFERENCES, longest])
    limit = max(len(sample.input_ids) for sample in samples_of(plain, REFERENCES))
    assert len(samples_of(plain, [longest])[0].input_ids) > limit + 1
    real, refused = plain.trunk.scored_states, []

    def short(batch: Batch) -> Tensor:
        if batch.tokens > limit:
            refused.append(batch.tokens)
            raise torch.OutOfMemoryError("out of memory")
        return real(batch)

    monkeypatch.setattr(plain.trunk, "scored_states", short)
    with caplog.at_level(logging.WARNING, "donod_fast"):
        bound = Influence([reference]).bind(plain.context)
    assert len(refused) > 2 and "out_of_memory 1" in caplog.text
    torch.testing.assert_close(bound.matrices, whole.matrices, rtol=1e-10, atol=1e-12)  # type: ignore[attr-defined]


def test_a_reference_on_which_the_model_is_not_finite_is_left_out(
    reference: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    plain = scorer_with()
    whole = Influence([reference]).bind(plain.context)
    write_lines(Path(reference), [{"question": "green", "answer": "blue number of"}, *REFERENCES])
    real = plain.trunk.scored_states

    def broken(batch: Batch) -> Tensor:
        states = real(batch).clone()
        if 0 in batch.members:
            states[int(batch.cu_seqlens[batch.members.index(0)])] = torch.nan
        return states

    monkeypatch.setattr(plain.trunk, "scored_states", broken)
    with caplog.at_level(logging.WARNING, "donod_fast"):
        bound = Influence([reference]).bind(plain.context)
    assert "non_finite 1" in caplog.text
    torch.testing.assert_close(bound.matrices, whole.matrices, rtol=1e-10, atol=1e-12)  # type: ignore[attr-defined]


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "models" / "tiny-instruct").is_dir(), reason="the real data of ../shared is absent")
def test_rows_of_a_task_have_nearer_references_there_than_rows_of_another(tmp_path: Path) -> None:
    lines = (SHARED / "data" / "gsm8k" / "test.jsonl").read_text().splitlines()
    path = tmp_path / "val.jsonl"
    path.write_text("\n".join(lines[20:40]) + "\n")
    programs = json.loads((SHARED / "data" / "codealpaca" / "code_alpaca_2k.json").read_text())
    scorer = Scorer.from_pretrained(
        SHARED / "models" / "tiny-instruct", device="cpu", signals=[InfluenceMax([str(path)])], token_budget=2048
    )
    own, other = (
        column(scorer.score_table(rows), "influence_max")
        for rows in ([json.loads(line) for line in lines[:12]], programs[:12])
    )
    assert float((own.unsqueeze(1) > other).double().mean()) > 0.8
