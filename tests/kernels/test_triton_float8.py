"""The float8 kernels under the interpreter: operands to the bit, sums as in plain PyTorch, every way through a call."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import triton
import triton.language as tl
from head_cases import Case, make_case, only, truth
from torch import Tensor
from triton_cases import TINY, call_of, interpreted, on_path, paths_of, plan_of, scores_of

from donod_fast.errors import BackendError
from donod_fast.kernels import AdamW, DonNod, don_nod, float8
from donod_fast.kernels.triton_backend import configs, direct, logits
from donod_fast.kernels.triton_backend import float8 as kernels
from donod_fast.kernels.triton_backend.float8_operands import (
    Operands,
    launch_signals,
    launch_states,
    operand_needs,
    to_float8,
)
from donod_fast.kernels.triton_backend.language import INTERPRETING
from donod_fast.kernels.triton_backend.layout import Group, Layout, make_layout
from donod_fast.kernels.updates import Sign

pytestmark = interpreted

DTYPE = torch.bfloat16
LONG = 24
CONFIG = TINY.float8
assert CONFIG is not None


@pytest.fixture(autouse=True)
def _small_cases_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(float8, "LEAST_TOKENS", LONG)
    monkeypatch.setattr(float8, "SMALL_HEAD", 0)
    monkeypatch.setattr(logits, "SMALL_HEAD", 0)


@triton.jit
def _round_trip(values, codes, back, n, INTERPRETED: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(values + at, mask=at < n, other=0.0)
    tl.store(codes + at, to_float8(x, codes.dtype.element_ty, INTERPRETED), mask=at < n)
    tl.store(back + at, kernels.from_float8(tl.load(codes + at, mask=at < n, other=0.0)), mask=at < n)


def test_rounding_is_to_the_nearest_even_float8_with_nan_as_nan() -> None:
    grid = torch.arange(256, dtype=torch.uint8).view(torch.float8_e4m3fn).float()
    grid = grid[grid.isfinite()].sort().values
    middle = (grid[1:] + grid[:-1]) / 2
    up, down = (torch.nextafter(middle, torch.full_like(middle, to)) for to in (torch.inf, -torch.inf))
    every = torch.arange(0, 1 << 32, 65537).to(torch.int32).view(torch.float32)
    values = torch.cat([grid, middle, up, down, every[every.abs() <= 448.0], torch.tensor([torch.nan, 0.0])])
    codes, back = torch.zeros(len(values), dtype=torch.float8_e4m3fn), torch.zeros_like(values)
    _round_trip[(-(-len(values) // 1024),)](values, codes, back, len(values), INTERPRETED=INTERPRETING, BLOCK=1024)
    torch.testing.assert_close(
        codes.float(), values.to(torch.float8_e4m3fn).float(), rtol=0.0, atol=0.0, equal_nan=True
    )
    torch.testing.assert_close(back, codes.float(), rtol=0.0, atol=0.0, equal_nan=True)


VOCAB, DIM, COLUMNS = 90, 40, 96
CASE = make_case((5, 40, 0, 33), VOCAB, DIM, dtype=DTYPE)


def prepared() -> tuple[Layout, Tensor, Tensor, Operands, Tensor]:
    """Layout, signals, coefficients, and the operands and row scales of all samples but the first."""
    generator = torch.Generator().manual_seed(2)
    layout = make_layout(CASE.labels, CASE.cu_seqlens.long(), 16)
    slots = int(layout.slot_start[-1])
    signals = torch.randn(slots, COLUMNS, generator=generator) * torch.exp(
        3.0 * torch.randn(slots, COLUMNS, generator=generator)
    )
    signals[:, VOCAB:] = 0.0
    signals[layout.slot_row[:slots] < 0] = 0.0
    signals[:, 3] = 0.0
    signals = signals.to(DTYPE)
    coefficient = torch.linspace(-1.0, 2.0, layout.slot_row.shape[0])
    assert CONFIG is not None
    needs = operand_needs(COLUMNS, DIM, slots, CONFIG, CASE.hidden.device)
    operands = Operands(**{name: torch.empty(need.shape, dtype=need.dtype) for name, need in needs.items()})
    operands.state_scale.fill_(torch.nan)
    scales = torch.full((3, COLUMNS), torch.nan)
    some = Group(1, 3, 73, slots)
    launch_states(CASE.hidden, coefficient, layout, some, operands, base_sample=0)
    launch_signals(signals, layout, some, operands, scales, base_sample=0)
    return layout, signals, coefficient, operands, scales


def own(layout: Layout, sample: int) -> tuple[slice, Tensor]:
    """Slots and rows of a sample's scored tokens."""
    start = int(layout.slot_start[sample])
    slots = slice(start, start + int(layout.counts[sample]))
    return slots, layout.slot_row[slots].long()


def test_operands_and_scales_are_those_of_plain_torch_bit_for_bit() -> None:
    layout, signals, coefficient, operands, scales = prepared()
    for sample in (1, 3):
        slots, rows = own(layout, sample)
        states, b = float8.rounded_states(CASE.hidden[rows].float() * coefficient[slots].unsqueeze(1))
        d = signals[slots].float()
        a = float8.row_scales(d, b)
        assert torch.equal(operands.states[:DIM, slots].float().T, states)
        assert torch.equal(operands.state_scale[slots], b) and torch.equal(scales[sample - 1], a)
        scaled = float8.rounded(d * b.unsqueeze(1) * torch.where(a > 0, 1.0 / a, 0.0))
        assert torch.equal(operands.signals[:, slots].float().T, scaled)
        pads = slice(slots.stop, int(layout.slot_start[sample + 1]))
        assert pads.stop > pads.start and not bool(operands.signals[:, pads].float().any())
    assert not bool(operands.states[DIM:, int(layout.slot_start[1]) :].float().any()), "dimensions past the last"
    assert not bool(scales[1].any()), "a sample without a scored token"


@pytest.mark.parametrize("update", [AdamW(eps=1e-1), Sign()], ids=["adamw", "sign"])
def test_tiles_give_the_sums_of_the_rounded_product(update: Any) -> None:
    layout, signals, coefficient, operands, scales = prepared()
    assert CONFIG is not None
    scale = torch.tensor([1.0, 0.5, 1.0, 3.0], dtype=torch.float64)
    numbers, _ = direct.update_numbers(update, scale)
    partials = torch.full((3, 2, kernels.tiles_of(COLUMNS, DIM, CONFIG)), torch.nan)
    kernels.launch_float8(
        operands, scales, CASE.weight, update, numbers, layout, Group(1, 3, 73, 0), partials, CONFIG,
        base_sample=0, first_column=0,
    )  # fmt: skip
    for sample in (1, 3):
        slots, rows = own(layout, sample)
        states = float8.rounded_states(CASE.hidden[rows].float() * coefficient[slots].unsqueeze(1))
        g, d = torch.zeros(VOCAB, DIM), signals[slots, :VOCAB].float()
        float8.add_product(g, d, states, float8.row_scales(d, states[1]))
        g = g.double()
        u = g.sign() if isinstance(update, Sign) else g / (g.abs() * numbers[sample, 0] + numbers[sample, 1])
        squares, dots = partials[sample - 1].double().sum(1)
        torch.testing.assert_close(squares, u.square().sum(), rtol=1e-5, atol=0.0)
        torch.testing.assert_close(dots, (u * CASE.weight.double()).sum(), rtol=1e-5, atol=1e-4)
    assert bool(partials[1].isnan().all()), "a sample without a scored token is not written"


LENGTHS = (3, 40, 0, 30, 2)
# The interpreter takes its time by the program, not by the element.
WIDE = replace(
    TINY,
    logits=replace(TINY.logits, tokens=64, vocab=256, dim=64),
    statistics=replace(TINY.logits, tokens=64, vocab=256, dim=64),
    direct=replace(TINY.direct, vocab=256, dim=128),
    float8=replace(CONFIG, vocab=256, dim=128),
)


def case_of(vocab: int = 300, dim: int = 64, **options: Any) -> Case:
    return make_case(LENGTHS, vocab, dim, dtype=DTYPE, **options)


def scored(case: Case, **options: Any) -> DonNod:
    return scores_of(call_of(case, **options), WIDE)


def errors(found: DonNod, expected: DonNod) -> Tensor:
    """(2, samples) of DON and NOD over NOD, 0 where neither has a score."""
    both = torch.stack([(found.don - expected.don).abs(), (found.nod - expected.nod).abs()]) / expected.nod
    assert torch.equal(found.don.isnan(), expected.don.isnan())
    return both.nan_to_num(0.0)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("margins", [None, (0.0, 6.0, 25.0, 60.0)], ids=["random", "confident"])
@pytest.mark.parametrize("update", ["adamw", "sign"])
def test_a_call_scores_within_the_limit_and_short_samples_as_without(update: str, margins: Any) -> None:
    case = case_of(1500, 128, margins=margins)
    with configs.override(WIDE):
        found = don_nod(*case, backend="triton", precision="float8", update=update)
        full = don_nod(*case, backend="triton", update=update)
    assert float(errors(found, truth(case, update=update)).max()) <= float8.ERROR_LIMIT
    short, long = [0, 4], [1, 3]
    assert torch.equal(found.don[short], full.don[short]) and torch.equal(found.nod[short], full.nod[short])
    assert not bool((found.don[long] == full.don[long]).any())
    assert torch.equal(found.loss[long], full.loss[long])


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("path", ["stored", "groups", "kept", "chunks"])
def test_every_way_through_the_plan_gives_the_same(path: str) -> None:
    case = make_case((26, 2, 25), 150, 32, dtype=DTYPE)
    found = scores_of(on_path(case, path, float8=True))
    whole = scores_of(call_of(case, float8=True))
    assert float(errors(found, whole).max()) < 1e-4


@pytest.mark.parametrize("dim", [32, 144], ids=["packed", "looked up"])
def test_hidden_states_need_not_be_packed(dim: int) -> None:
    case = case_of(300, dim)
    call = call_of(case, float8=True)
    assert ("packed" in paths_of(call, WIDE)) == (dim == 32)
    plain = don_nod(*case, backend="torch", precision="float8")
    # Signals are rounded to bfloat16 first: signs flip, each 2 |w|.
    assert float(errors(scores_of(call, WIDE), plain).max()) < 0.7 / (300 * dim) ** 0.5


def test_a_sample_scores_the_same_to_the_bit_in_any_company() -> None:
    case = case_of()
    together = scored(case, float8=True)
    for sample in (1, 3):
        alone = scored(only(case, [sample]), float8=True)
        assert float(alone.don) == float(together.don[sample]) and float(alone.nod) == float(together.nod[sample])


def test_a_nan_spoils_its_own_sample_only() -> None:
    case = case_of()
    hidden = case.hidden.clone()
    start = int(case.cu_seqlens[3])
    hidden[start + int((case.labels[start:] >= 0).nonzero()[7])] = torch.nan
    clean, found = (scored(case._replace(hidden=h), float8=True) for h in (case.hidden, hidden))
    assert found.don.isnan().tolist() == [False, False, True, True, False]
    others = [0, 1, 4]
    assert torch.equal(found.don[others], clean.don[others])


def test_bounds_that_only_the_device_knows_leave_everything_as_it_is() -> None:
    case = case_of()
    found, full = (scored(case, float8=chosen, bounds_on_host=False) for chosen in (True, False))
    torch.testing.assert_close(found.don, full.don, rtol=0.0, atol=0.0, equal_nan=True)


def test_the_copies_count_towards_the_workspace() -> None:
    case = case_of(1500, 64)
    size = 200_000
    full, rounded = (plan_of(call_of(case, float8=chosen, workspace_bytes=size)) for chosen in (False, True))
    most = [max(part.group.slots_bound * part.columns for part in found.groups) for found in (full, rounded)]
    assert most[1] < most[0]
    assert 3 * most[1] <= size


def test_scales_of_rows_take_several_launches_if_they_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    case = make_case((24,) * 5, 300, 32, dtype=DTYPE)
    launches: list[int] = []
    real = kernels.launch_float8

    def watched(*args: Any, **options: Any) -> None:
        launches.append(args[6].samples)
        real(*args, **options)

    monkeypatch.setattr(kernels, "launch_float8", watched)
    whole = scored(case, float8=True)
    assert launches == [5]
    monkeypatch.setattr(type(call_of(case).problem), "sample_bytes", lambda *_: 1 << 22)
    found = scored(case, float8=True, workspace_bytes=64 << 20)
    assert launches == [5, 2, 2, 1]
    assert torch.equal(found.don, whole.don)


def test_long_samples_are_told_from_short_ones_by_runs() -> None:
    group = Group(7, 6, 0, 0, (3, 40, 30, 0, 24, 23))
    found = [(long, some.first_sample, some.samples, some.slots_bound) for long, some in kernels.runs_of(group, 16)]
    assert found == [(False, 7, 1, 16), (True, 8, 2, 80), (False, 10, 1, 0), (True, 11, 1, 32), (False, 12, 1, 32)]
    assert [long for long, _ in kernels.runs_of(Group(0, 3, 90, 96), 16)] == [False]


def test_an_older_device_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "an A100")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 0))
    assert kernels.supports(torch.device("cuda")) == "an A100 is older than compute capability 8.9"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    assert kernels.supports(torch.device("cuda")) is None


def test_a_device_without_float8_is_no_reason_to_compute_slowly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "supports", lambda _: "it is too old")
    with pytest.raises(BackendError, match="precision 'float8' is not supported here: it is too old"):
        don_nod(*case_of(), backend="triton", precision="float8")
