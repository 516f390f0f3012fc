"""Run one call kernel by kernel: from a batch of hidden states to the four sums of each sample.

    labels, bounds → layout → plan → per group:
        label logits             reference of each token          (label_logits.py)
        logits kernel            E and sums of blocks             (logits.py)
        token statistics         loss, entropy, log u, dot, R     (rows.py)
        rescue                   tokens far from their reference  (rescue.py)
        sample sums              loss, entropy, ⟨W, G⟩, scale     (rows.py)
        Gram kernel              ‖G‖² of linear updates           (gram.py), or
        label entries, pack      E and share · h at their slots   (label_entries.py, pack.py), and
        direct kernel            ‖U‖², ⟨W, U⟩ of the others       (direct.py; of long ones on request float8.py)
        row sums                 partial sums → float64           (reduce.py)

Nothing is read back from the device: grids follow from shapes, and from the bounds if they are on the host.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from donod_fast.errors import BackendError
from donod_fast.kernels.head_map import HeadMap
from donod_fast.kernels.triton_backend import direct, float8, gram, label_entries, logits, pack, reduce
from donod_fast.kernels.triton_backend.arena import Arena, Need
from donod_fast.kernels.triton_backend.configs import Configs, DirectConfig
from donod_fast.kernels.triton_backend.float8_operands import (
    Operands,
    launch_signals,
    launch_states,
    operand_needs,
)
from donod_fast.kernels.triton_backend.layout import Group, Layout, make_layout
from donod_fast.kernels.triton_backend.pairs import Side
from donod_fast.kernels.triton_backend.plan import GroupPlan, Plan, Problem, make_plan
from donod_fast.kernels.triton_backend.tokens import Tokens
from donod_fast.kernels.updates import Update


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """Checked arguments: tensors on one device, host numbers.

    Attributes:
        hidden, weight, labels: (rows, dim), (vocab, dim), (rows,).
        bounds: (samples + 1,) int64 on their device.
        host_bounds: the same on the host if they were given there, else None.
        float8: whether gradient tiles of samples that are known to be long are multiplied in float8.
    """

    hidden: Tensor
    weight: Tensor
    labels: Tensor
    bounds: Tensor
    host_bounds: list[int] | None
    head: HeadMap
    update: Update
    lr: float
    weight_decay: float
    mean: bool
    storage_dtype: torch.dtype | None
    workspace_bytes: int
    float8: bool = False

    @property
    def signals(self) -> torch.dtype:
        """Dtype of the stored error signals."""
        return logits.signals_dtype(self.hidden.dtype, self.weight.numel())

    @property
    def mapped(self) -> bool:
        """Whether the head has a bias or soft-cap, which need one more sum."""
        return self.head.bias is not None or self.head.softcap is not None

    @property
    def linear(self) -> bool:
        """Whether ‖U‖ and ⟨W, U⟩ follow from products of tokens."""
        return self.update.linear and self.storage_dtype is None

    @property
    def problem(self) -> Problem:
        """Inputs of the plan."""
        vocab, dim = self.weight.shape
        sums, float8 = 3 if self.mapped else 2, self.float8 and self.host_bounds is not None
        return Problem(vocab, dim, self.signals.itemsize, sums, self.linear, self.workspace_bytes, float8)

    def plan(self, configs: Configs) -> Plan | str:
        """Make the plan, or say why the workspace is too small."""
        tokens, samples = self.hidden.shape[0], self.bounds.shape[0] - 1
        return make_plan(tokens, samples, self.host_bounds, self.problem, configs)


def head_sums(call: Call, configs: Configs, losses: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sums of every sample, (samples, 4) float64 [loss, entropy, ⟨W, U⟩, ‖U‖²] without weight decay, and counts.

    With a storage dtype ⟨W, U⟩ and ‖U‖² refer to the effective step, including decay and rounding. NaN for
    a sample without a scored token, and everywhere if the bounds are invalid. ``losses``, (rows,) float64, gets the
    loss of each token, 0 where it is not scored.

    Raises:
        BackendError: the workspace is too small for the smallest piece.
    """
    plan = call.plan(configs)
    if isinstance(plan, str):
        raise BackendError(f"backend 'triton' does not support this call: {plan}")
    run = _Run(call, configs, plan)
    found = run.sums()
    if losses is not None:
        losses.copy_(run.token_losses())
    return found


class _Run:
    """Tensors of one call."""

    def __init__(self, call: Call, configs: Configs, plan: Plan) -> None:
        self.call, self.configs, self.plan = call, configs, plan
        device = call.hidden.device
        self.layout: Layout = make_layout(call.labels, call.bounds, configs.direct.step)
        samples = call.bounds.shape[0] - 1
        self.out = torch.zeros((samples, 4), dtype=torch.float64, device=device)
        self.tokens = Tokens.empty(call.hidden, call.weight, call.head, call.labels, self.layout)
        ones = torch.ones(samples, dtype=torch.float64, device=device)
        self.token_weight = ones / self.layout.counts.clamp_min(1) if call.mean else ones
        self.scale = torch.empty(samples, dtype=torch.float64, device=device)
        # Sums of squares and of products with W, in units of the samples' scales.
        self.parts = torch.zeros((2, samples), dtype=torch.float64, device=device)
        self.pair_start = gram.pair_bounds(self.layout.counts, configs.gram)
        # One allocation for the groups, which differ in size: an allocator would divide its blocks again for each.
        groups = [group for group in plan.groups if group.group.tokens_bound]
        self.arena = Arena(max((self._bytes(group) for group in groups), default=0), device)

    def sums(self) -> tuple[Tensor, Tensor]:
        for group in self.plan.groups:
            self._group(group)
        layout, call = self.layout, self.call
        _, unit = direct.update_numbers(call.update, self.scale)
        if call.storage_dtype is not None:
            unit = torch.where(self.scale.isnan(), self.scale, 1.0)
        self.out[:, 3] = self.parts[0] * unit.square()
        if not call.linear:
            self.out[:, 2] = self.parts[1] * unit
        sound = (layout.counts > 0) & layout.valid
        return torch.where(sound.unsqueeze(1), self.out, torch.nan), layout.counts

    def token_losses(self) -> Tensor:
        """(rows,) losses of the tokens, once the sums are there."""
        rows, slot_row = self.call.labels.shape[0], self.layout.slot_row
        # Pads go to one place past the end, which is cut off.
        places = torch.where(slot_row >= 0, slot_row, rows).long()
        found = self.out.new_zeros(rows + 1).scatter_(0, places, self.tokens.statistics[0])[:rows]
        return torch.where(self.layout.valid, found, torch.nan)

    def _group(self, plan: GroupPlan) -> None:
        call, group, arena = self.call, plan.group, self.arena
        if group.tokens_bound == 0:
            return
        with arena.scope():
            exps = arena.take(self._exps(plan))
            with arena.scope():
                kept, config = (exps, self.configs.logits) if plan.keep_first else (None, self.configs.statistics)
                self.tokens.normalise(group, kept, plan.statistics_tokens, config, arena)
            self.tokens.sum_samples(group, self.token_weight, self.out, self.scale)
            states = self._states(plan)
            for first in range(0, call.weight.shape[0], plan.columns):
                if first or not plan.keep_first:
                    self.tokens.exponentials(group, exps, self.configs.logits, first_column=first)
                with arena.scope():
                    if plan.by_pairs:
                        self._by_pairs(plan, exps, states, first)
                    else:
                        self._by_tiles(plan, exps, states, first)

    def _bytes(self, plan: GroupPlan) -> int:
        """Bytes that a group takes from the arena: E, with the tables of the normaliser or what the products need."""
        kept, config = (plan.columns, self.configs.logits) if plan.keep_first else (0, self.configs.statistics)
        tables = self.tokens.tables(kept, plan.statistics_tokens, config)
        later = sum(need.bytes for need in self._state_needs(plan).values())
        if plan.by_pairs:
            later += self._pair_partials(plan).bytes
        else:
            later += max(sum(need.bytes for need in self._tile_partials(plan, *run)) for run in self._runs(plan))
        return self._exps(plan).bytes + max(sum(need.bytes for need in tables), later)

    def _exps(self, plan: GroupPlan) -> Need:
        return Need((plan.group.slots_bound, plan.columns), self.call.signals)

    def _runs(self, plan: GroupPlan) -> list[tuple[bool, Group]]:
        """Samples of a group by whether their tiles are multiplied in float8."""
        return float8.runs_of(plan.group, self.layout.align) if self.call.float8 else [(False, plan.group)]

    def _state_needs(self, plan: GroupPlan) -> dict[str, Need]:
        """Hidden states of a group that the direct kernel and float8 need, or products of them for pairs."""
        group, (dim, device) = plan.group, (self.call.hidden.shape[1], self.call.hidden.device)
        if plan.by_pairs:
            config, partials = self.configs.gram, self._pair_partials(plan)
            left = self.plan.partial_bytes - 4 * math.prod(partials.shape)
            held = gram.pairs_held(partials.shape[0], left, config)
            return {"pairs": Need((held, config.tokens**2), torch.float32)}
        runs, needs = self._runs(plan), {}
        if plan.pack and not all(long for long, _ in runs):
            needs["plain"] = Need((group.slots_bound, dim), self.call.signals)
        if any(long for long, _ in runs):
            assert self.configs.float8 is not None
            needs |= operand_needs(plan.columns, dim, group.slots_bound, self.configs.float8, device)
        return needs

    def _states(self, plan: GroupPlan) -> dict[str, Tensor]:
        """Take ``_state_needs``; the first columns of E fill them, and later ones read them again."""
        return {name: self.arena.take(need) for name, need in self._state_needs(plan).items()}

    def _pair_partials(self, plan: GroupPlan) -> Need:
        pairs = gram.pairs_at_most(plan.group, self.configs.gram)
        return Need((pairs, 1 + gram.vocabulary_parts(pairs, plan.columns, self.configs.gram)), torch.float32)

    def _by_pairs(self, plan: GroupPlan, exps: Tensor, states: dict[str, Tensor], first: int) -> None:
        """Add the sums of some columns."""
        call, group, tokens = self.call, plan.group, self.tokens
        partials = self.arena.take(self._pair_partials(plan))
        side = Side(call.hidden, exps, tokens.share, tokens.label_signal, call.labels, self.layout, group)
        gram.launch_gram(side, self.pair_start, states["pairs"], partials, self.configs.gram, first_column=first)
        reduce.launch_segment_sums(partials, self.pair_start, self.parts[0], group.first_sample, group.samples)

    def _by_tiles(self, plan: GroupPlan, exps: Tensor, states: dict[str, Tensor], first: int) -> None:
        """Add the sums of some columns."""
        label_entries.launch_label_entries(
            exps,
            self.tokens.label_signal,
            self.call.labels,
            self.layout,
            plan.group,
            first_column=first,
            clear=first == 0,
        )
        if first == 0:
            self._fill(plan, states)
        for long, some in self._runs(plan):
            with self.arena.scope():
                if long:
                    self._float8_tiles(plan, some, exps, _operands(states), first)
                else:
                    self._direct_tiles(plan, some, exps, states.get("plain", self.call.hidden), first)

    def _fill(self, plan: GroupPlan, states: dict[str, Tensor]) -> None:
        call, group, layout = self.call, plan.group, self.layout
        if "plain" in states:
            pack.launch_pack(call.hidden, self.tokens.share, layout, group, states["plain"])
        for long, some in self._runs(plan):
            if long:
                first = group.first_sample
                launch_states(call.hidden, self.tokens.share, layout, some, _operands(states), base_sample=first)

    def _tile_partials(self, plan: GroupPlan, long: bool, run: Group) -> tuple[Need, ...]:
        """Partial sums of a launch of as many samples as fit, and in float8 their scales of vocabulary rows."""
        columns, dim = plan.columns, self.call.weight.shape[1]
        if not long:
            tiles = direct.tiles_of(columns, dim, self._direct_config(plan))
            step = max(1, min(run.samples, self.plan.partial_bytes // (8 * tiles)))
            return (Need((step, 2, tiles), torch.float32),)
        assert self.configs.float8 is not None
        tiles = float8.tiles_of(columns, dim, self.configs.float8)
        step = max(1, min(run.samples, self.plan.partial_bytes // self.call.problem.sample_bytes(columns, tiles)))
        return Need((step, 2, tiles), torch.float32), Need((step, columns), torch.float32)

    def _direct_config(self, plan: GroupPlan) -> DirectConfig:
        config = self.configs.direct
        return config if plan.pack else config.looked_up

    def _direct_tiles(self, plan: GroupPlan, run: Group, exps: Tensor, states: Tensor, first: int) -> None:
        call, config = self.call, self._direct_config(plan)
        numbers, _ = direct.update_numbers(call.update, self.scale)
        (partials,) = (self.arena.take(need) for need in self._tile_partials(plan, False, run))
        for some in _parts(run, partials.shape[0]):
            direct.launch_direct(
                exps,
                states,
                call.weight,
                call.update,
                numbers,
                self.layout,
                some,
                partials,
                config,
                base_sample=plan.group.first_sample,
                first_column=first,
                needs_weight=not call.linear,
                packed=plan.pack,
                share=None if plan.pack else self.tokens.share,
                lr=call.lr,
                weight_decay=call.weight_decay,
                storage_dtype=call.storage_dtype,
            )
            self._reduce(partials, some)

    def _float8_tiles(self, plan: GroupPlan, run: Group, exps: Tensor, operands: Operands, first: int) -> None:
        call, config, base = self.call, self.configs.float8, plan.group.first_sample
        assert config is not None
        numbers, _ = direct.update_numbers(call.update, self.scale)
        partials, scales = (self.arena.take(need) for need in self._tile_partials(plan, True, run))
        for some in _parts(run, partials.shape[0]):
            launch_signals(exps, self.layout, some, operands, scales, base_sample=base)
            float8.launch_float8(
                operands,
                scales,
                call.weight,
                call.update,
                numbers,
                self.layout,
                some,
                partials,
                config,
                base_sample=base,
                first_column=first,
            )
            self._reduce(partials, some)

    def _reduce(self, partials: Tensor, some: Group) -> None:
        reduce.launch_row_sums(partials[: some.samples, 0], self.parts[0], some.first_sample)
        if not self.call.linear:
            reduce.launch_row_sums(partials[: some.samples, 1], self.parts[1], some.first_sample)


def _operands(states: dict[str, Tensor]) -> Operands:
    return Operands(states["signals"], states["states"], states["state_scale"])


def _parts(run: Group, step: int) -> list[Group]:
    """At most ``step`` samples for each launch."""
    return [
        Group(run.first_sample + offset, min(step, run.samples - offset), 0, 0)
        for offset in range(0, run.samples, step)
    ]
