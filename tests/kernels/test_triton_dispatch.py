"""The Triton backend: supported calls, reasons for the others, its operator, and measured tile shapes."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from head_cases import MIB, Case, assert_identical, assert_scores, make_bias, make_case, make_state, truth
from torch import Tensor
from triton_cases import TINY, call_of, interpreted

from donod_fast.errors import BackendError, InputError
from donod_fast.kernels import AdamState, AdamW, don_nod
from donod_fast.kernels.triton_backend import autotune, configs, op
from donod_fast.kernels.triton_backend.configs import Configs

pytestmark = interpreted

CASE = make_case((2, 5), vocab=67, dim=18)


def transposed(x: Tensor) -> Tensor:
    """The same values, contiguous along the other dimension."""
    return x.t().contiguous().t()


def apart(x: Tensor) -> Tensor:
    """The same values, rows further apart than they are long."""
    return torch.cat([x, x], 1)[:, : x.shape[1]]


STATE = make_state(CASE)
REFUSED: dict[str, tuple[Case, dict[str, Any], str]] = {
    "float64": (CASE._replace(hidden=CASE.hidden.double()), {}, "hidden is torch.float64; the kernels support"),
    "float64 weight": (CASE._replace(weight=CASE.weight.double()), {}, "weight is torch.float64; the kernels support"),
    "two dtypes": (CASE._replace(weight=CASE.weight.bfloat16()), {}, "hidden is torch.float32 but weight is"),
    "hidden's stride": (CASE._replace(hidden=transposed(CASE.hidden)), {}, "hidden must be contiguous along its rows"),
    "weight's stride": (CASE._replace(weight=transposed(CASE.weight)), {}, "weight must be contiguous along its rows"),
    "storage dtype": (CASE, {"storage_dtype": torch.float64}, "storage_dtype torch.float64 is not"),
    "eps": (CASE, {"update": AdamW(eps=1e-40)}, "eps of 1e-40 is below what float32 holds"),
    "state's stride": (
        CASE,
        {"update": AdamW(state=AdamState(apart(STATE.exp_avg), STATE.exp_avg_sq, 3))},
        "state.exp_avg must be contiguous",
    ),
    "state's dtype": (
        CASE,
        {"update": AdamW(state=AdamState(STATE.exp_avg, STATE.exp_avg_sq.double(), 3))},
        "state.exp_avg_sq must be contiguous and of a dtype up to float32",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_input_is_refused_by_triton_and_left_to_torch_by_auto(name: str) -> None:
    case, options, reason = REFUSED[name]
    with pytest.raises(BackendError, match=r"'triton' does not support this call: .*use 'torch' or 'auto'") as refused:
        don_nod(*case, backend="triton", **options)
    assert reason in str(refused.value)
    assert_identical(don_nod(*case, backend="auto", **options), don_nod(*case, backend="torch", **options))


def test_a_wrong_argument_is_reported_before_an_unsupported_backend() -> None:
    wrong = CASE.labels.clone()
    wrong[1] = 67
    with pytest.raises(InputError, match=r"labels\[1\] is 67, outside the 67 rows"):
        don_nod(*CASE._replace(hidden=CASE.hidden.double(), labels=wrong), backend="triton")


def test_labels_and_bounds_on_the_host_are_checked_before_any_launch() -> None:
    wrong = CASE.labels.clone()
    wrong[1] = -2
    with pytest.raises(InputError, match=r"labels\[1\] is -2"):
        don_nod(*CASE._replace(labels=wrong), backend="triton")
    with pytest.raises(InputError, match="cu_seqlens must run from 0 to 9"):
        don_nod(*CASE._replace(cu_seqlens=torch.tensor([0, 3, 8])), backend="triton")
    with pytest.raises(InputError, match="cu_seqlens must not decrease"):
        don_nod(*CASE._replace(cu_seqlens=torch.tensor([0, 8, 3, 9])), backend="triton")


@pytest.mark.parametrize("update", ["adamw", "sgd", "sign"])
def test_on_a_cpu_auto_gives_torchs_bits(update: str) -> None:
    options = {"update": update, "bias": make_bias(67), "softcap": 9.0}
    assert_identical(don_nod(*CASE, **options), don_nod(*CASE, backend="torch", **options))


def test_a_cpu_tensor_without_the_interpreter_is_refused_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(op, "INTERPRETING", False)
    with pytest.raises(BackendError, match="hidden is on the CPU, and TRITON_INTERPRET=1 was not set"):
        don_nod(*CASE, backend="triton")


def test_a_norm_that_the_caller_knows_is_taken() -> None:
    with configs.override(TINY):
        norm = float(CASE.weight.double().norm())
        known, computed = (don_nod(*CASE, backend="triton", weight_norm=value) for value in (norm, None))
        doubled = don_nod(*CASE, backend="triton", weight_norm=2.0 * norm)
    torch.testing.assert_close(known.don, computed.don, rtol=1e-12, atol=0.0)
    assert bool((doubled.don.abs() < 0.6 * known.don.abs()).all())


def operator_arguments(update: str, **changed: Any) -> tuple[Any, ...]:
    """``head_scores``' arguments for the case; ``changed`` by name."""
    state = make_state(CASE) if update == "adamw" else None
    named: dict[str, Any] = {
        "bias": make_bias(67), "exp_avg": state and state.exp_avg, "exp_avg_sq": state and state.exp_avg_sq,
        "update": update, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "step": 3 if state else -1, "lr": 1e-5,
        "weight_decay": 0.1, "mean": True, "logit_scale": 0.5, "softcap": 9.0, "storage_dtype": None,
        "weight_norm": None, "workspace_bytes": 16 * MIB, "precision": "full", "token_losses": False,
    }  # fmt: skip
    return (*CASE, *{**named, **changed}.values())


@pytest.mark.parametrize(("update", "losses"), [("adamw", True), ("sgd", False)])
def test_the_operator_is_registered_as_torch_wants_it(update: str, losses: bool) -> None:
    with configs.override(TINY):
        arguments = operator_arguments(update, token_losses=losses)
        torch.library.opcheck(torch.ops.donod_fast.head_scores.default, arguments)


def test_it_leaves_its_arguments_as_they_were() -> None:
    arguments = operator_arguments("adamw")
    before = [x.clone() if torch.is_tensor(x) else x for x in arguments]
    with configs.override(TINY):
        op.head_scores(*arguments)
    for now, then in zip(arguments, before, strict=True):
        assert torch.equal(now, then) if torch.is_tensor(now) else now == then


FASTEST = {"logits": 2, "direct": 4, "gram": 1}  # which candidate of each the clock below likes best


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Configs]:
    """Tuning is on, its cache empty, and time stands in this file: the choices measured, in order."""
    monkeypatch.setenv("DONOD_FAST_AUTOTUNE", "1")
    monkeypatch.setenv("DONOD_FAST_CACHE", str(tmp_path / "new"))
    monkeypatch.setattr(autotune, "_chosen", {})
    measured: list[Configs] = []

    def seconds(call: Any, found: Configs, rounds: int = 5) -> float:
        measured.append(found)
        best = [found == replace(found, **{name: candidate(found, name)}) for name in FASTEST]
        return 10.0 - sum(best)

    monkeypatch.setattr(autotune, "measure", seconds)
    return measured


def candidate(found: Configs, name: str) -> Any:
    return autotune.candidates(name, found)[FASTEST[name]]


@pytest.mark.parametrize(("update", "name"), [("adamw", "direct"), ("sgd", "gram")])
def test_the_fastest_candidate_is_chosen_saved_and_read_again(
    update: str, name: str, clock: list[Configs], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = call_of(CASE, update=update)
    chosen = autotune.tuned(call, TINY)
    assert getattr(chosen, name) == candidate(TINY, name)
    assert chosen.logits == candidate(TINY, "logits")
    untouched = {"direct", "gram"} - {name}
    assert all(getattr(chosen, other) == getattr(TINY, other) for other in untouched)
    kept = json.loads(autotune.cache_file().read_text(encoding="utf-8"))
    assert len(kept) == 1
    assert "67x18" in next(iter(kept))
    count = len(clock)
    assert count == 1 + len(autotune.candidates(name, TINY)) + len(autotune.candidates("logits", TINY))
    assert autotune.tuned(call, TINY) == chosen, "from memory"
    monkeypatch.setattr(autotune, "_chosen", {})
    assert autotune.tuned(call, TINY) == chosen, "from disk"
    assert len(clock) == count
    assert autotune.tuned(call_of(CASE, update="sign"), TINY) != TINY, "another update is measured for itself"
    assert len(clock) > count
    assert len(json.loads(autotune.cache_file().read_text(encoding="utf-8"))) == 2


def test_a_candidate_that_does_not_run_is_passed_over() -> None:
    *_, broken, wanted = autotune.candidates("direct", TINY)

    def seconds(found: Configs) -> float:
        if found.direct == broken:
            raise RuntimeError("out of resource: shared memory")
        return 1.0 if found.direct == wanted else 2.0

    call = call_of(CASE)
    assert autotune.tune(call, TINY, seconds).direct == wanted
    slow: Callable[[Configs], float] = lambda found: 1.0 if found == TINY else 2.0  # noqa: E731
    assert autotune.tune(call, TINY, slow) == TINY, "nothing is faster: nothing changes"


@pytest.mark.parametrize("value", [None, "", "0"])
def test_nothing_is_measured_where_tuning_is_not_asked_for(
    value: str | None, clock: list[Configs], monkeypatch: pytest.MonkeyPatch
) -> None:
    if value is None:
        monkeypatch.delenv("DONOD_FAST_AUTOTUNE")
    else:
        monkeypatch.setenv("DONOD_FAST_AUTOTUNE", value)
    assert autotune.tuned(call_of(CASE), TINY) is TINY
    assert clock == []
    assert not autotune.cache_file().exists()


@pytest.mark.parametrize("content", ["", "{", "[1, 2]", '{"other": 1}'])
def test_a_broken_cache_is_measured_anew(content: str, clock: list[Configs]) -> None:
    autotune.cache_file().parent.mkdir(parents=True)
    autotune.cache_file().write_text(content, encoding="utf-8")
    assert autotune.tuned(call_of(CASE), TINY).logits == candidate(TINY, "logits")
    assert json.loads(autotune.cache_file().read_text(encoding="utf-8"))


@pytest.mark.parametrize("entry", [None, 1, {}, {"logits": {}}, {"logits": {"of": "another version"}}], ids=str)
def test_a_choice_that_another_version_wrote_is_measured_anew(entry: Any, clock: list[Configs]) -> None:
    call = call_of(CASE)
    autotune.cache_file().parent.mkdir(parents=True)
    autotune.cache_file().write_text(json.dumps({autotune._key(call): entry}), encoding="utf-8")
    assert autotune.tuned(call, TINY).logits == candidate(TINY, "logits")
    assert len(clock) > 1


def test_a_cache_that_cannot_be_written_only_costs_a_measurement(
    clock: list[Configs], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("DONOD_FAST_CACHE", str(tmp_path / "file"))
    assert autotune.tuned(call_of(CASE), TINY).logits == candidate(TINY, "logits")


def test_the_public_door_uses_what_was_measured(clock: list[Configs], monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[Configs] = []
    real = op.head_sums

    def watched(call: Any, found: Configs, *losses: Any) -> Any:
        used.append(found)
        return real(call, TINY, *losses)

    monkeypatch.setattr(op, "head_sums", watched)
    with configs.override(TINY):
        found = don_nod(*CASE, backend="triton")
    assert used == [replace(TINY, direct=candidate(TINY, "direct"), logits=candidate(TINY, "logits"))]
    assert_scores(found, truth(CASE), 1e-5)


def test_the_shipped_choice_follows_the_dtype_the_head_and_the_lengths() -> None:
    cpu = torch.device("cpu")
    plain = {"mapped": False, "heavy": False, "tokens": 1000, "samples": 1, "dim": 2048}
    half = configs.configs_for(cpu, torch.bfloat16, torch.bfloat16, **plain)
    assert half.direct.step == 64, "long samples"
    assert configs.configs_for(cpu, torch.bfloat16, torch.bfloat16, **{**plain, "samples": 9}).direct.step == 32
    assert configs.configs_for(cpu, torch.float32, torch.float32, **plain).logits.tokens == 64
    mixed = configs.configs_for(cpu, torch.bfloat16, torch.float32, **plain)
    assert (mixed.logits, mixed.direct.vocab) == (half.logits, 64), "small heads: signals in float32"
    assert configs.configs_for(cpu, torch.bfloat16, torch.bfloat16, **{**plain, "mapped": True}).logits.vocab == 128
    assert configs.configs_for(cpu, torch.bfloat16, torch.bfloat16, **{**plain, "dim": 2047}).logits.vocab == 64, "odd"


def test_labels_bias_and_rows_may_lie_apart_in_memory() -> None:
    bias = make_bias(67)
    wanted = don_nod(*CASE, bias=bias, backend="triton")
    spread = CASE._replace(
        hidden=apart(CASE.hidden),
        weight=apart(CASE.weight),
        labels=torch.stack([CASE.labels, torch.full_like(CASE.labels, 1)], 1)[:, 0],
    )
    strided = torch.stack([bias, torch.full_like(bias, torch.nan)], 1)[:, 0]
    assert_identical(don_nod(*spread, bias=strided, backend="triton"), wanted)
