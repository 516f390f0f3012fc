"""Further criteria in the parts: computed together, added later, resumed, equal to one-by-one references."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from score_runs import assert_one_line_error, assert_same_bits, invoke, short_rows, write_lines
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast.criteria.base import Criterion
from donod_fast.criteria.ifd import scored_runs
from donod_fast.criteria.registry import parse_signals
from donod_fast.data.reading import corpus_from_rows, open_corpus
from donod_fast.data.types import TokenizedSample
from donod_fast.engines.devices import score_on_devices
from donod_fast.engines.local import Outcome, score_corpus
from donod_fast.engines.request import RunOptions
from donod_fast.errors import CorpusError, InputError, SettingsMismatchError
from donod_fast.models.batching import Batch
from donod_fast.scores.exporting import export
from donod_fast.scores.folder import ScoresFolder, locked
from donod_fast.scores.merging import merge
from donod_fast.scoring.forward import BatchRequest, Forward
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.scoring.spec import ScorerSpec

ALL = "perplexity,el2n,grand,ifd,embedding"
ROWS = short_rows(40, seed=3)
TURNS = (("user", "the red house"), ("assistant", "seven of the river"), ("user", "count"), ("assistant", "twelve"))
BEGIN = 9  # the token that begins a text
TOKENS = [{"input_ids": [BEGIN, *ids], "labels": [-100, *labels]} for ids, labels in (
    ([20, 21, 22, 23], [-100, 21, 22, -100]), ([24, 25, 26], [-100, -100, 26]), ([27], [27]))]  # fmt: skip
CHAT = {"messages": [{"role": role, "content": text} for role, text in TURNS]}


def scorer_with(signals: str = "", family: str = "llama", dtype: torch.dtype = torch.float32, **options: Any) -> Scorer:
    criteria: Sequence[Criterion] = parse_signals(signals) if signals else ()
    model = tiny_model(family).to(dtype)
    tokenizer = tiny_tokenizer()
    tokenizer.bos_token = tokenizer.convert_ids_to_tokens(BEGIN)
    return Scorer(model, tokenizer, signals=criteria, token_budget=256, **options)


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return scorer_with(ALL)


@pytest.fixture(scope="module")
def plain() -> Scorer:
    return scorer_with()


def run(scorer: Scorer, out: Path, **options: Any) -> Outcome:
    with locked(out):
        return score_corpus(corpus_from_rows(ROWS), scorer, out, part_rows=16, **options)


def column(table: pa.Table, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array(table.column(name).to_pylist(), dtype=np.float64)


@torch.no_grad()
def reference(scorer: Scorer, sample: TokenizedSample) -> dict[str, Any]:
    """Each criterion of one sample by the model's own logits, one sample at a time."""
    model = scorer.loaded.model
    weight = model.get_output_embeddings().weight

    def token_losses(ids: Sequence[int], targets: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        output = model(torch.tensor([list(ids)]), output_hidden_states=True, use_cache=False)
        logits = output.logits[0].double()
        at = torch.tensor(targets)
        picked = logits[at - 1].log_softmax(-1)
        return -picked[torch.arange(len(at)), torch.tensor([ids[t] for t in targets])], picked.exp()

    ids = sample.input_ids
    targets = [at for at, flag in enumerate(sample.scored) if flag]
    # Where embeddings are tied, only the output layer's use of W counts: the gradient stops in front of it.
    hook = model.get_output_embeddings().register_forward_pre_hook(lambda layer, inputs: (inputs[0].detach(),))
    with torch.enable_grad():
        weight.requires_grad_(True)
        losses, probabilities = token_losses(ids, targets)
        (gradient,) = torch.autograd.grad(losses.mean(), weight)
        weight.requires_grad_(False)
    hook.remove()
    losses, probabilities = losses.detach(), probabilities.detach()
    onehot = torch.nn.functional.one_hot(torch.tensor([ids[t] for t in targets]), probabilities.shape[1])
    alone, count = 0.0, 0
    begin = scorer.loaded.tokenizer.bos_token_id
    for start, stop in scored_runs(sample.scored):
        front = [ids[0]] if ids[0] == begin else []
        answer = [*front, *ids[start:stop]]
        if len(answer) > 1:
            alone += float(token_losses(answer, list(range(1, len(answer))))[0].sum())
            count += len(answer) - 1
    hidden = model.get_decoder()(torch.tensor([list(ids)]), use_cache=False).last_hidden_state[0, : targets[0]]
    mean = hidden.double().mean(0)
    loss = float(losses.mean())
    return {
        "perplexity": math.exp(loss),
        "el2n": float((probabilities - onehot).norm(dim=1).mean()),
        "grand": float(gradient.double().norm()),
        "answer_loss": alone / count if count else math.nan,
        "ifd_loss": loss / (alone / count) if count else math.nan,
        "ifd_ppl": math.exp(loss - alone / count) if count else math.nan,
        "embedding": (mean / mean.norm()).detach(),
    }


@pytest.mark.parametrize(
    ("family", "options"),
    [("llama", {}), ("llama", {"packing": "off"}), ("qwen2", {"update": UpdateSettings("sgd")}), ("gemma2", {})],
)
def test_criteria_equal_a_reference_of_one_sample_at_a_time(family: str, options: dict[str, Any]) -> None:
    scorer = scorer_with(ALL, family, torch.float64 if family == "llama" else torch.float32, **options)
    rows = [*ROWS, CHAT, *TOKENS]
    table = scorer.score_table(rows)
    samples = scorer.masker.tokenize_many(list(corpus_from_rows(rows).records()))
    checked = 0
    for row, sample in zip(table.to_pylist(), samples, strict=True):
        if row["status"] != "scored":
            continue
        checked += 1
        wanted = reference(scorer, sample)
        assert row["embedding"] == pytest.approx(wanted.pop("embedding").tolist(), abs=2e-5)
        assert {name: row[name] for name in wanted} == pytest.approx(wanted, rel=2e-5, nan_ok=True)
        assert row["ifd_unhelped"] == (None if math.isnan(row["ifd_ppl"]) else row["ifd_ppl"] >= 1)
    assert checked > 30 and any(len(list(scored_runs(sample.scored))) == 2 for sample in samples)
    assert [sample.input_ids[0] for sample in samples[-3:]] == [BEGIN] * 3


def test_the_second_pass_has_only_the_beginning_of_text_and_the_answer(scorer: Scorer) -> None:
    (sample,) = scorer.masker.tokenize_many(list(corpus_from_rows([CHAT]).records()))
    (ifd,) = parse_signals("ifd")
    further = ifd.bind(scorer.context).second_pass(sample)
    begin = scorer.loaded.tokenizer.bos_token_id
    assert len(further) == 2
    for run_of, (start, stop) in zip(further, scored_runs(sample.scored), strict=True):
        front = (begin,) if sample.input_ids[0] == begin else ()
        assert run_of.input_ids == (*front, *sample.input_ids[start:stop])
        assert run_of.scored == (False, *[True] * (len(run_of.input_ids) - 1))


def test_further_criteria_leave_the_base_scores_as_they_are(scorer: Scorer, plain: Scorer) -> None:
    with_signals, without = scorer.score_table(ROWS), plain.score_table(ROWS)
    assert with_signals.select(["status", "id"]).equals(without.select(["status", "id"]))
    nod = column(without, "nod")
    for name in ("don", "nod"):  # batches differ, and so does rounding
        error = np.abs(column(with_signals, name) - column(without, name)) / nod
        assert np.nanmax(error) < 1e-5


def test_rows_without_scores_have_no_values(scorer: Scorer) -> None:
    table = scorer.score_table(ROWS)
    unscored = [row for row in table.to_pylist() if row["status"] != "scored"]
    assert unscored
    for row in unscored:
        assert row["embedding"] is None and row["ifd_unhelped"] is None
        assert all(math.isnan(row[name]) for name in ("perplexity", "el2n", "grand", "ifd_loss", "ifd_ppl"))


@pytest.mark.parametrize("names", [ALL, "ifd", "perplexity", "el2n,embedding"])
def test_columns_added_later_are_those_computed_together(
    scorer: Scorer, plain: Scorer, tmp_path: Path, names: str
) -> None:
    together = run(scorer, tmp_path / "together").folder.table()
    before = run(plain, tmp_path / "later").folder.table()
    seen: list[tuple[int, int]] = []
    outcome = run(scorer_with(names), tmp_path / "later", progress=lambda rows, tokens: seen.append((rows, tokens)))
    after = outcome.folder.table()
    assert sum(rows for rows, _ in seen) == len(ROWS)
    assert_same_bits(after.select(before.column_names), before)
    added = [name for name in after.column_names if name not in before.column_names]
    assert added == [column.name for one in parse_signals(names) for column in one.columns]
    for name in added:
        for found, wanted in zip(after.column(name).to_pylist(), together.column(name).to_pylist(), strict=True):
            if isinstance(wanted, (float, list)):
                assert found == pytest.approx(wanted, rel=1e-5, abs=1e-6, nan_ok=True)
            else:
                assert found is wanted


def test_an_interrupted_addition_is_finished_by_the_next_run(
    scorer: Scorer, plain: Scorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(scorer, tmp_path / "whole").folder
    run(plain, tmp_path / "out")
    add, calls = scorer.sample_scorer.add, []

    def stops(*arguments: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return add(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(scorer.sample_scorer, "add", stops)
        with pytest.raises(KeyboardInterrupt):
            run(scorer, tmp_path / "out")
    half = ScoresFolder.open(tmp_path / "out")
    assert "el2n" not in half.table().column_names and half.signal_columns() == ()
    assert [part for part in range(3) if "el2n" in half.read_part(part).column_names] == [0]  # type: ignore[union-attr]
    assert half.missing_parts(scorer.sample_scorer.signals.fingerprints) == [1, 2]
    again = run(scorer, tmp_path / "out")
    assert again.resumed_rows == 16
    assert again.folder.table().column_names == whole.table().column_names
    assert run(scorer, tmp_path / "out").resumed_rows == len(ROWS)


def test_what_is_there_already_is_not_computed_again(plain: Scorer, tmp_path: Path) -> None:
    run(scorer_with("ifd"), tmp_path / "out")
    before = ScoresFolder.open(tmp_path / "out").table()
    after = run(scorer_with("ifd,el2n"), tmp_path / "out").folder.table()
    assert after.column_names == [*before.column_names, "el2n"]
    assert_same_bits(after.select(before.column_names), before)


def test_a_missing_input_blocks_additions_only_for_its_own_parts(scorer: Scorer, plain: Scorer, tmp_path: Path) -> None:
    files = [write_lines(tmp_path / f"{name}.jsonl", ROWS[at : at + 16]) for at, name in ((0, "a"), (16, "b"))]
    files.append(write_lines(tmp_path / "c.jsonl", ROWS[32:]))
    corpus = open_corpus(list(map(str, files)))
    with locked(tmp_path / "out"):
        folder = score_corpus(corpus, plain, tmp_path / "out", part_rows=16).folder
        files[1].unlink()
        with pytest.raises(CorpusError, match="2 of 3 parts are committed"):
            score_corpus(corpus, scorer, tmp_path / "out", part_rows=16)
    found = [folder.read_part(part) for part in range(3)]
    assert ["el2n" in table.column_names for table in found if table is not None] == [True, False, True]


def test_a_plain_run_finishes_a_folder_and_a_later_one_adds_the_criteria(
    scorer: Scorer, plain: Scorer, tmp_path: Path
) -> None:
    folder = run(scorer, tmp_path / "out").folder
    folder.storage.remove(folder.part_name(1))
    assert run(plain, tmp_path / "out").resumed_rows == len(ROWS) - 16
    assert ScoresFolder.open(tmp_path / "out").signal_columns() == ()
    assert run(scorer, tmp_path / "out").resumed_rows == len(ROWS) - 16
    names = [column.name for column in ScoresFolder.open(tmp_path / "out").signal_columns()]
    assert names == [column.name for column in scorer.sample_scorer.signals.columns]


def test_a_second_pass_that_runs_out_of_memory_keeps_the_base_scores(
    scorer: Scorer, plain: Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = plain.score_table(ROWS)
    launch = Forward.launch

    def short(forward: Forward, batch: Batch, request: BatchRequest, *rest: Any) -> torch.Tensor:
        if request.own < len(request.samples):
            raise MemoryError
        return launch(forward, batch, request, *rest)

    monkeypatch.setattr(Forward, "launch", short)
    table = scorer.score_table(ROWS)
    assert table.column("status").equals(wanted.column("status"))
    assert np.isnan(column(table, "ifd_ppl")).all() and table.column("ifd_unhelped").null_count == len(ROWS)
    assert np.nanmax(np.abs(column(table, "don") - column(wanted, "don")) / column(wanted, "nod")) < 1e-5
    assert np.isfinite(column(table, "el2n")).sum() == table.column("status").to_pylist().count("scored")


def test_processes_add_what_one_process_adds(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "data.jsonl", ROWS)
    tiny_model("llama").save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    spec = ScorerSpec(str(tmp_path / "model"), device="cpu", token_budget=256)
    full = ScorerSpec(str(tmp_path / "model"), device="cpu", token_budget=256, signals=parse_signals("ifd,el2n"))
    corpus = open_corpus([str(data)])
    with locked(tmp_path / "together"):
        together = score_corpus(corpus, full.load(), tmp_path / "together", part_rows=16).folder.table()
    with locked(tmp_path / "later"):
        score_corpus(corpus, spec.load(), tmp_path / "later", part_rows=16)
        later = score_on_devices(corpus, full, tmp_path / "later", ["cpu"], RunOptions(part_rows=16)).folder.table()
    assert together.column_names == later.column_names and "ifd_ppl" in later.column_names
    assert np.allclose(column(together, "ifd_ppl"), column(later, "ifd_ppl"), rtol=1e-5, equal_nan=True)
    assert np.allclose(column(together, "el2n"), column(later, "el2n"), rtol=1e-5, equal_nan=True)


def test_folders_of_different_criteria_merge_to_what_both_have(scorer: Scorer, plain: Scorer, tmp_path: Path) -> None:
    for name, one, rows in (("a", scorer, ROWS[:20]), ("b", plain, ROWS[20:])):
        data = write_lines(tmp_path / f"{name}.jsonl", rows)
        with locked(tmp_path / name):
            score_corpus(open_corpus([str(data)]), one, tmp_path / name, part_rows=16)
    with locked(tmp_path / "ab"):
        merged = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "ab")
    assert [entry.name for entry in merged.signals] == ALL.split(",")
    assert "el2n" in merged.read_part(0).column_names  # type: ignore[union-attr]
    assert "el2n" not in merged.table().column_names
    assert export(merged, merged.reopened(), tmp_path / "out.parquet") == len(ROWS)
    assert "donod.el2n" not in pq.read_schema(tmp_path / "out.parquet").names
    with locked(tmp_path / "ab"):
        outcome = score_corpus(merged.corpus(), scorer, tmp_path / "ab", part_rows=16)
    assert "el2n" in outcome.folder.table().column_names


def test_export_has_the_columns_of_the_criteria(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "data.jsonl", ROWS[:10])
    with locked(tmp_path / "out"):
        folder = score_corpus(open_corpus([str(data)]), scorer_with("ifd,embedding"), tmp_path / "out").folder
    export(folder, folder.reopened(), tmp_path / "out.parquet")
    table = pq.read_table(tmp_path / "out.parquet")
    assert {"donod.ifd_ppl", "donod.ifd_unhelped", "donod.embedding"} <= set(table.column_names)


class Other(Criterion):
    """A criterion whose settings differ from one of the same name."""

    name = "el2n"

    @property
    def columns(self) -> Any:
        return parse_signals("el2n")[0].columns

    def settings(self) -> dict[str, Any]:
        return {"power": 2}

    def of_row(self, row: Any) -> tuple[float]:
        return (0.0,)


def test_other_settings_of_a_criterion_are_refused_by_name(scorer: Scorer, tmp_path: Path) -> None:
    run(scorer, tmp_path / "out")
    other = Scorer(tiny_model("llama"), tiny_tokenizer(), signals=[Other()], token_budget=256)
    with pytest.raises(SettingsMismatchError, match=r"signals\.el2n\.power: None in the folder, 2 requested"):
        run(other, tmp_path / "out")


@pytest.mark.parametrize(
    ("text", "message"),
    [("ifdd", "unknown signal 'ifdd'"), ("", "unknown signal"), ("ifd,el2n,ifd", "names ifd twice")],
)
def test_names_are_checked(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_signals(text)
    assert parse_signals("don,nod,loss,entropy") == ()


def test_the_command_scores_with_criteria_and_adds_others(tmp_path: Path) -> None:
    data = write_lines(tmp_path / "data.jsonl", ROWS)
    tiny_model("llama").save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    command = ["score", str(data), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out"), "--quiet"]
    assert invoke(*command, "--signals", "don,nod,ifd").code == 0
    assert invoke(*command, "--signals", "el2n").code == 0
    names = ScoresFolder.open(tmp_path / "out").table().column_names
    assert names[-5:] == ["answer_loss", "ifd_loss", "ifd_ppl", "ifd_unhelped", "el2n"]
    assert_one_line_error(invoke(*command, "--signals", "nothing"), 2, "unknown signal 'nothing'")
    assert_one_line_error(invoke(*command, "--reference", "x.jsonl"), 2, "add for example --signals rds")


def test_the_command_compares_with_a_reference_set(tmp_path: Path) -> None:
    data, reference = write_lines(tmp_path / "data.jsonl", ROWS), write_lines(tmp_path / "val.jsonl", ROWS[:5])
    tiny_model("llama").save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    command = ["score", str(data), "--model", str(tmp_path / "model"), "--out", str(tmp_path / "out"), "--quiet"]
    assert_one_line_error(invoke(*command, "--signals", "influence"), 2, "needs a reference set: --reference FILE")
    wrong = invoke(*command, "--signals", "el2n", "--reference", str(reference))
    assert_one_line_error(wrong, 2, "add one of them to --signals")
    gone = invoke(*command, "--signals", "influence", "--reference", str(tmp_path / "none.jsonl"))
    assert_one_line_error(gone, 3, "none.jsonl")
    empty = write_lines(tmp_path / "empty.jsonl", [{"question": "which?", "answer": " "}])
    nothing = invoke(*command, "--signals", "influence", "--reference", str(empty))
    assert nothing.code == 3 and "empty.jsonl: the reference set has no scored token" in nothing.err
    both = ["--signals", "influence,influence-max", "--reference", str(reference), "--allow-overlap"]
    assert invoke(*command, *both).code == 0
    table = ScoresFolder.open(tmp_path / "out").table()
    assert table.column_names[-3:] == ["influence_dot", "influence_cos", "influence_max"]
    assert np.nanmax(column(table, "influence_max")) == pytest.approx(1, abs=1e-5)  # a row that is in the set
