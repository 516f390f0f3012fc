"""Run one call kernel by kernel: from a batch of hidden states to the four sums of each sample.

    labels, bounds → layout → plan → per group:
        label logits             reference of each token          (label_logits.py)
        logits kernel            E and sums of blocks             (logits.py)
        token statistics         loss, entropy, log u, dot, R     (rows.py)
        rescue                   tokens far from their reference  (rescue.py)
        sample sums              loss, entropy, ⟨W, G⟩, scale     (rows.py)
        Gram kernel              ‖G‖² of linear updates           (gram.py), or
        label entries, pack      E and c · h at their slots       (label_entries.py, pack.py), and
        direct kernel            ‖U‖², ⟨W, U⟩ of the others       (direct.py; of long ones on request float8.py)
        row sums                 partial sums → float64           (reduce.py)

Nothing is read back from the device: grids follow from shapes, and from the bounds if they are on the host.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from donod_fast.errors import BackendError
from donod_fast.kernels.head_map import HeadMap
from donod_fast.kernels.triton_backend import direct, float8, gram, label_entries, logits, pack, reduce
from donod_fast.kernels.triton_backend.configs import Configs
from donod_fast.kernels.triton_backend.float8_operands import Operands, launch_signals, launch_states
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


@dataclass(frozen=True, slots=True, eq=False)
class _States:
    """Hidden states of a group for the direct kernel (None if nothing reads them) and in float8 (None if not used)."""

    plain: Tensor | None
    float8: Operands | None


class _Run:
    """Tensors of one call."""

    def __init__(self, call: Call, configs: Configs, plan: Plan) -> None:
        self.call, self.configs, self.plan = call, configs, plan
        device = call.hidden.device
        self.layout: Layout = make_layout(call.labels, call.bounds, configs.direct.step)
        samples, slots = call.bounds.shape[0] - 1, self.layout.slot_row.shape[0]
        self.out = torch.zeros((samples, 4), dtype=torch.float64, device=device)
        self.tokens = Tokens.empty(call.hidden, call.weight, call.head, call.labels, self.layout)
        self.coefficient = torch.empty(slots, dtype=torch.float32, device=device)
        ones = torch.ones(samples, dtype=torch.float64, device=device)
        self.token_weight = ones / self.layout.counts.clamp_min(1) if call.mean else ones
        self.scale = torch.empty(samples, dtype=torch.float64, device=device)
        # Sums of squares and of products with W, in units of the samples' scales.
        self.parts = torch.zeros((2, samples), dtype=torch.float64, device=device)
        self.pair_start = gram.pair_bounds(self.layout.counts, configs.gram)

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
        call, group = self.call, plan.group
        if group.tokens_bound == 0:
            return
        exps = torch.empty((group.slots_bound, plan.columns), dtype=call.signals, device=call.hidden.device)
        config = self.configs.logits if plan.keep_first else self.configs.statistics
        self.tokens.normalise(group, exps if plan.keep_first else None, plan.statistics_tokens, config)
        self.tokens.sum_samples(group, self.token_weight, self.out, self.scale)
        states: _States | None = None
        products: Tensor | None = None
        for first in range(0, call.weight.shape[0], plan.columns):
            if first or not plan.keep_first:
                self.tokens.exponentials(group, exps, self.configs.logits, first_column=first)
            if plan.by_pairs:
                products = self._by_pairs(plan, exps, products, first)
            else:
                states = self._by_tiles(plan, exps, states, first)

    def _by_pairs(self, plan: GroupPlan, exps: Tensor, products: Tensor | None, first: int) -> Tensor:
        """Add the sums of some columns; return the products of hidden states, for the next columns."""
        call, group, config = self.call, plan.group, self.configs.gram
        pairs = gram.pairs_at_most(group, config)
        parts = gram.vocabulary_parts(pairs, exps.shape[1], config)
        partials = torch.empty((pairs, 1 + parts), dtype=torch.float32, device=exps.device)
        if products is None:
            held = gram.pairs_held(pairs, self.plan.partial_bytes - 4 * partials.numel(), config)
            products = torch.empty((held, config.tokens**2), dtype=torch.float32, device=exps.device)
        tokens = self.tokens
        side = Side(call.hidden, exps, tokens.share, tokens.label_signal, call.labels, self.layout, group)
        gram.launch_gram(side, self.pair_start, products, partials, config, first_column=first)
        reduce.launch_segment_sums(partials, self.pair_start, self.parts[0], group.first_sample, group.samples)
        return products

    def _by_tiles(self, plan: GroupPlan, exps: Tensor, states: _States | None, first: int) -> _States:
        """Add the sums of some columns; return the hidden states that the kernels read, for the next columns."""
        call, group, layout = self.call, plan.group, self.layout
        label_entries.launch_label_entries(
            exps,
            self.tokens.share,
            self.tokens.label_signal,
            self.coefficient,
            call.labels,
            layout,
            group,
            first_column=first,
            clear=states is None,
        )
        runs = float8.runs_of(group, layout.align) if call.float8 else [(False, group)]
        if states is None:
            states = self._states(plan, exps, runs)
        for long, some in runs:
            if long:
                assert states.float8 is not None
                self._float8_tiles(plan, some, exps, states.float8, first)
            else:
                assert states.plain is not None
                self._direct_tiles(plan, some, exps, states.plain, first)
        return states

    def _states(self, plan: GroupPlan, exps: Tensor, runs: list[tuple[bool, Group]]) -> _States:
        call, group, layout = self.call, plan.group, self.layout
        dim = call.hidden.shape[1]
        plain: Tensor | None = None
        rounded: Operands | None = None
        if not all(long for long, _ in runs):
            plain = call.hidden
            if plan.pack:
                plain = torch.empty((group.slots_bound, dim), dtype=exps.dtype, device=exps.device)
                pack.launch_pack(call.hidden, self.coefficient, layout, group, plain)
        if any(long for long, _ in runs):
            assert self.configs.float8 is not None
            rounded = Operands.empty(exps.shape[1], dim, group.slots_bound, self.configs.float8, exps.device)
            for long, some in runs:
                if long:
                    first = group.first_sample
                    launch_states(call.hidden, self.coefficient, layout, some, rounded, base_sample=first)
        return _States(plain, rounded)

    def _direct_tiles(self, plan: GroupPlan, run: Group, exps: Tensor, states: Tensor, first: int) -> None:
        call, config = self.call, self.configs.direct
        numbers, _ = direct.update_numbers(call.update, self.scale)
        tiles = direct.tiles_of(exps.shape[1], call.weight.shape[1], config)
        step = max(1, min(run.samples, self.plan.partial_bytes // (8 * tiles)))
        partials = torch.empty((step, 2, tiles), dtype=torch.float32, device=exps.device)
        for some in _parts(run, step):
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
                coefficient=None if plan.pack else self.coefficient,
                lr=call.lr,
                weight_decay=call.weight_decay,
                storage_dtype=call.storage_dtype,
            )
            self._reduce(partials, some)

    def _float8_tiles(self, plan: GroupPlan, run: Group, exps: Tensor, operands: Operands, first: int) -> None:
        call, config, base = self.call, self.configs.float8, plan.group.first_sample
        assert config is not None
        numbers, _ = direct.update_numbers(call.update, self.scale)
        columns = exps.shape[1]
        tiles = float8.tiles_of(columns, call.weight.shape[1], config)
        step = max(1, min(run.samples, self.plan.partial_bytes // call.problem.sample_bytes(columns, tiles)))
        partials = torch.empty((step, 2, tiles), dtype=torch.float32, device=exps.device)
        scales = torch.empty((step, columns), dtype=torch.float32, device=exps.device)
        for some in _parts(run, step):
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


def _parts(run: Group, step: int) -> list[Group]:
    """At most ``step`` samples for each launch."""
    return [
        Group(run.first_sample + offset, min(step, run.samples - offset), 0, 0)
        for offset in range(0, run.samples, step)
    ]
