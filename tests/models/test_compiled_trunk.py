"""The compiled trunk gives the eager trunk's hidden states with few graphs, or is refused."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from score_runs import short_rows
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast.data.types import Status, TokenizedSample
from donod_fast.errors import InputError, ModelError
from donod_fast.kernels.fused import why_not_inductor
from donod_fast.models import compiled_trunk
from donod_fast.models.batching import Batch, collate
from donod_fast.models.compiled_trunk import CPU_ROWS, CompiledTrunk, compile_trunk, wants_compiling
from donod_fast.models.loading import LoadedModel, wrap_model
from donod_fast.models.trunk import Trunk
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings

CPU = torch.device("cpu")
compiles = pytest.mark.skipif(why_not_inductor() is not None, reason=f"Inductor cannot compile: {why_not_inductor()}")


def batch_of(tokens: torch.Tensor) -> Batch:
    """Whole rows, of which the second half is scored."""
    rows = tokens.tolist()
    scored = tuple(t >= tokens.shape[1] // 2 for t in range(tokens.shape[1]))
    samples = [TokenizedSample(i, str(i), Status.SCORED, "", tuple(row), scored) for i, row in enumerate(rows)]
    return collate(samples, range(len(samples)))


@pytest.fixture(scope="module")
def compiled() -> Iterator[tuple[LoadedModel, Trunk, CompiledTrunk]]:
    loaded = wrap_model(tiny_model("llama"), tiny_tokenizer())
    trunk = Trunk(loaded)
    yield loaded, *compile_trunk(trunk, loaded)
    torch._dynamo.reset()


@compiles
def test_compiled_states_equal_eager_ones_and_new_shapes_do_not_recompile(
    compiled: tuple[LoadedModel, Trunk, CompiledTrunk],
) -> None:
    loaded, trunk, counted = compiled
    eager = Trunk(loaded)
    before = counted.compilations
    assert 1 <= before <= 2
    draw = torch.Generator().manual_seed(0)
    for rows in (1, 2, 3, 7):
        for length in (5, 24, 61, 127):
            batch = batch_of(torch.randint(6, 100, (rows, length), generator=draw))
            torch.testing.assert_close(trunk.scored_states(batch), eager.scored_states(batch), rtol=1e-4, atol=1e-5)
    assert counted.compilations == before
    assert counted.seconds > 0.0


@compiles
def test_compiled_scores_are_the_eager_ones_to_the_bound() -> None:
    rows = short_rows(60)
    tables = [
        Scorer(
            tiny_model("llama"), tiny_tokenizer(), update=UpdateSettings("sgd"), token_budget=200, compile=choice
        ).score_table(rows)
        for choice in (False, True)
    ]
    assert tables[0]["status"].equals(tables[1]["status"])
    nod = torch.tensor(tables[0]["nod"].to_pylist())
    for name in ("don", "nod"):
        eager, other = (torch.tensor(table[name].to_pylist()) for table in tables)
        assert torch.equal(eager.isnan(), other.isnan())
        assert float(((eager - other).abs() / nod).nan_to_num(0.0).max()) <= 1e-5
    torch._dynamo.reset()


@compiles
def test_a_single_batch_runs_the_code_compiled_for_concurrent_batches() -> None:
    torch.set_num_threads(2)  # put back by the fixture of all tests
    rows = [{"text": "seven red houses by the river"}] * 40
    scorer = Scorer(tiny_model("llama"), tiny_tokenizer(), token_budget=200, compile=True)
    assert scorer.compiled is not None
    scorer.score_table(rows)
    before = scorer.compiled.compilations
    assert scorer.score_table(rows[:3])["status"].to_pylist() == ["scored"] * 3
    assert scorer.compiled.compilations == before
    torch._dynamo.reset()


@compiles
def test_a_compiled_trunk_that_differs_is_refused_and_the_eager_one_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def off(self: CompiledTrunk, **arguments: Any) -> Any:
        output = trunk.decoder(**arguments)
        output.last_hidden_state = output.last_hidden_state * 1.01
        return output

    loaded = wrap_model(tiny_model("llama"), tiny_tokenizer())
    trunk = Trunk(loaded)
    monkeypatch.setattr(CompiledTrunk, "__call__", off)
    with pytest.raises(ModelError, match=r"compiling changes its hidden states by 1\.0e-02"):
        compile_trunk(trunk, loaded)
    assert trunk.run is trunk.decoder


@compiles
def test_so_does_it_where_the_compiler_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: CompiledTrunk, graph: Any, inputs: Any) -> Any:
        raise RuntimeError("no such instruction")

    loaded = wrap_model(tiny_model("llama"), tiny_tokenizer())
    trunk = Trunk(loaded)
    monkeypatch.setattr(CompiledTrunk, "_backend", fail)
    with pytest.raises(ModelError, match=r"cannot be compiled .*no such instruction.*--compile off"):
        compile_trunk(trunk, loaded)
    assert trunk.run is trunk.decoder
    torch._dynamo.reset()


def test_without_a_compiler_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled_trunk, "why_not_inductor", lambda: "there is no C++ compiler")
    loaded = wrap_model(tiny_model("llama"), tiny_tokenizer())
    with pytest.raises(ModelError, match="there is no C\\+\\+ compiler; install one, or use --compile off"):
        compile_trunk(Trunk(loaded), loaded)
    assert not wants_compiling("auto", 10 * CPU_ROWS, CPU)


@compiles
@pytest.mark.parametrize(
    ("choice", "rows", "device", "wanted"),
    [
        ("auto", CPU_ROWS, "cpu", True),
        ("auto", CPU_ROWS - 1, "cpu", False),
        ("auto", None, "cpu", False),
        ("auto", 10**9, "cuda", False),
        ("on", 1, "cpu", True),
        ("on", 1, "cuda", True),
        ("off", 10**9, "cpu", False),
    ],
)
def test_auto_compiles_where_it_was_measured_to_pay(choice: str, rows: int | None, device: str, wanted: bool) -> None:
    assert wants_compiling(choice, rows, torch.device(device)) is wanted


def test_an_unknown_choice_is_named() -> None:
    with pytest.raises(InputError, match="compile must be one of auto, on, off, got 'yes'"):
        wants_compiling("yes", 1, CPU)
