"""Divide a call into groups of samples and chunks of the vocabulary, within ``workspace_bytes``.

Memory of a group of S slots with C stored columns of E (e bytes per element):

    E                       S · C · e
    sums of blocks          S · blocks · 4 · (2 or 3)
    packed hidden states    S · d · e                      (direct kernel, if they fit; else it looks rows up)
    partial sums            samples of a launch · tiles of W · 8   (direct kernel), pairs · (1 + parts) · 4 (Gram)
    products h · h          pairs of tiles held · tokens² · 4      (Gram, in the share of the partial sums)
    float8 copies           S · (C + d)                    (on request), and C · 4 for each sample of a launch

**The rule**, from operation counts (a logits product costs 2 V d per token, and so does a direct product):

- *stored*: C = V. One logits product; the second stage reads E. A group takes whole samples until it is full.
- *streamed*: the workspace cannot hold E of the group. One logits product gives the normalisers, then E is computed
  chunk by chunk. The first chunk is kept from the first product if the sums leave room. The others need a
  second product each, 2 − C/V products in total. This applies to a sample that is longer than a stored group, and to a
  batch that does not fit and whose bounds the host does not know (bounds on the device are never read back).

Streaming costs up to 2 V d operations per token more than storing. Dividing a group costs one more pass over W (V d e
bytes, which takes as long as 2 V d operations for about 300 tokens). So groups are as large as the workspace allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from donod_fast.kernels.triton_backend.configs import Configs, ceil_div
from donod_fast.kernels.triton_backend.layout import Group, slots_bound

# Share of the workspace for partial sums of the direct kernel and products h · h; slots get the rest.
_PARTIALS = 8


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """Plan of one group.

    Attributes:
        group: its samples.
        columns: columns of E in memory, a multiple of the tiles'; all of them if they fit.
        keep_first: whether the first chunk is kept from the product for the normalisers.
        statistics_tokens: tokens whose sums are in memory at once.
        pack: whether hidden states are copied to their slots.
        by_pairs: whether a linear update uses the Gram kernel.
    """

    group: Group
    columns: int
    keep_first: bool
    statistics_tokens: int
    pack: bool
    by_pairs: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Groups in order, and the limit of bytes of partial sums for a launch of the direct kernel."""

    groups: tuple[GroupPlan, ...]
    partial_bytes: int


@dataclass(frozen=True, slots=True)
class Problem:
    """Inputs of the plan."""

    vocab: int
    dim: int
    element: int  # bytes of an element of E
    sums: int  # sums of a block: 2, or 3 with a bias or soft-cap
    linear: bool  # SGD without rounding: Gram kernel if it is cheaper
    workspace_bytes: int
    float8: bool = False  # float8 copies of E and of hidden states

    @property
    def stored(self) -> int:
        """Bytes of an element of E and its copy."""
        return self.element + int(self.float8)

    def sample_bytes(self, columns: int, tiles: int) -> int:
        """Bytes of partial sums, and scales of vocabulary rows, of a sample in a launch with so many tiles of W."""
        return 8 * tiles + (4 * columns if self.float8 else 0)


@dataclass(frozen=True, slots=True)
class _TooLarge:
    """Smallest piece that does not fit in the workspace, and the bytes that it needs."""

    piece: str
    need: int


def gram_limit(vocab: int, dim: int) -> float:
    """Largest number of scored tokens for which the Gram kernel costs less than gradient tiles: N (V + d) ≤ 2 V d."""
    return 2.0 * vocab * dim / (vocab + dim)


def table_blocks(blocks: int) -> int:
    """Rows of the table of sums of so many blocks of the vocabulary; ``rescue.py`` needs two."""
    return max(blocks, 2)


def full_columns(vocab: int, configs: Configs) -> int:
    """Vocabulary size, rounded up to whole tiles of every kernel."""
    tile = max(configs.logits.vocab, configs.direct.vocab)
    return ceil_div(vocab, tile) * tile


def make_plan(
    tokens: int,
    samples: int,
    bounds: list[int] | None,  # on the host, or None
    problem: Problem,
    configs: Configs,
) -> Plan | str:
    """Make the plan, or say why even the smallest piece does not fit in the workspace."""
    align = configs.direct.step
    partial_bytes = problem.workspace_bytes // _PARTIALS
    budget = problem.workspace_bytes - partial_bytes
    columns = full_columns(problem.vocab, configs)
    sums = table_blocks(columns // configs.logits.vocab) * 4 * problem.sums
    # Bytes of a slot in a stored group; hidden states are packed if they are at most a quarter of it.
    packs = not problem.linear and 4 * problem.dim <= columns
    slot = columns * problem.stored + sums + (problem.dim * problem.element if packs else 0)
    slot += problem.dim if problem.float8 else 0
    capacity = budget // slot // align * align

    def stored(group: Group) -> GroupPlan:
        return GroupPlan(group, columns, True, group.tokens_bound, packs, _by_pairs(group, problem))

    def streamed(group: Group) -> GroupPlan | _TooLarge:
        return _streamed(group, problem, configs, budget, columns, sums)

    limit = gram_limit(problem.vocab, problem.dim) if problem.linear else float("inf")
    too_long = bounds is not None and any(b - a > limit for a, b in pairwise(bounds))
    plans: list[GroupPlan | _TooLarge] = []
    if bounds is None or (slots_bound(tokens, samples, align) <= capacity and not too_long):
        lengths = None if bounds is None else tuple(b - a for a, b in pairwise(bounds))
        whole = Group(0, samples, tokens, slots_bound(tokens, samples, align), lengths)
        plans.append(stored(whole) if whole.slots_bound <= capacity else streamed(whole))
    else:
        for first, lengths in _gathered(bounds, capacity, align, limit):
            slots = sum(ceil_div(length, align) * align for length in lengths)
            group = Group(first, len(lengths), sum(lengths), slots, lengths)
            plans.append(stored(group) if slots <= capacity else streamed(group))
    by_pairs = problem.linear and any(isinstance(plan, _TooLarge) or plan.by_pairs for plan in plans)
    least = _least_partials(columns, problem, configs, by_pairs=by_pairs)
    refused = [plan for plan in plans if isinstance(plan, _TooLarge)]
    if partial_bytes < least:
        refused.append(_TooLarge("one sample's partial sums or a pair of its tiles", _PARTIALS * least))
    if refused:
        worst = max(refused, key=lambda piece: piece.need)
        return f"workspace_bytes = {problem.workspace_bytes} cannot hold {worst.piece}; give it at least {worst.need}"
    return Plan(tuple(plan for plan in plans if isinstance(plan, GroupPlan)), partial_bytes)


def _gathered(bounds: list[int], capacity: int, align: int, limit: float) -> list[tuple[int, tuple[int, ...]]]:
    """Consecutive samples whose slots fit together; a sample that is too long, or too long for pairs, is alone."""
    found: list[tuple[int, tuple[int, ...]]] = []
    first, held = 0, 0
    lengths: list[int] = []
    for sample, (start, stop) in enumerate(pairwise(bounds)):
        slots = ceil_div(stop - start, align) * align
        alone = stop - start > limit
        if lengths and (held + slots > capacity or alone):
            found.append((first, tuple(lengths)))
            first, held, lengths = sample, 0, []
        lengths.append(stop - start)
        held += slots
        if alone:
            found.append((first, tuple(lengths)))
            first, held, lengths = sample + 1, 0, []
    if lengths:
        found.append((first, tuple(lengths)))
    return found


def _least_partials(columns: int, problem: Problem, configs: Configs, *, by_pairs: bool) -> int:
    """Bytes of one sample's partial sums of the direct kernel, or of one pair's products of hidden states (Gram)."""
    pair = 4 * configs.gram.tokens**2 if by_pairs else 0
    used = (configs.direct.looked_up, configs.float8 if problem.float8 else None)
    tiles = max(columns // one.vocab * ceil_div(problem.dim, one.dim) for one in used if one is not None)
    return max(pair, problem.sample_bytes(columns, tiles))


def _by_pairs(group: Group, problem: Problem) -> bool:
    """Whether a linear update uses the Gram kernel; if a sample is known to be too long, tiles are cheaper."""
    if not problem.linear:
        return False
    alone = group.samples == 1
    return not (alone and group.tokens_bound > gram_limit(problem.vocab, problem.dim))


def _streamed(
    group: Group, problem: Problem, configs: Configs, budget: int, columns: int, sums: int
) -> GroupPlan | _TooLarge:
    if problem.float8:
        budget -= group.slots_bound * problem.dim
    states = group.slots_bound * problem.dim * problem.element
    # Packed hidden states keep the direct kernel's loads asynchronous, which is worth an eighth of the memory.
    if not _by_pairs(group, problem) and 8 * states <= budget:
        packed = _streamed_in(group, problem, configs, budget - states, columns, sums, pack=True)
        if isinstance(packed, GroupPlan):
            return packed
    return _streamed_in(group, problem, configs, budget, columns, sums, pack=False)


def _streamed_in(
    group: Group, problem: Problem, configs: Configs, budget: int, columns: int, sums: int, *, pack: bool
) -> GroupPlan | _TooLarge:
    tile = max(configs.logits.vocab, configs.direct.vocab)
    slots, row = group.slots_bound, group.slots_bound * problem.stored
    pairs = _by_pairs(group, problem)
    # If the first chunk is kept, the sums of all tokens must fit in addition.
    kept = min((budget - slots * sums) // row // tile * tile, columns)
    with_first = GroupPlan(group, kept, True, group.tokens_bound, pack, pairs)
    if kept >= tile and kept >= columns // 2:
        return with_first
    # Otherwise the table has the sums of one block of tokens at a time, which leaves more room for columns.
    config = configs.statistics
    sums = table_blocks(ceil_div(problem.vocab, config.vocab)) * 4 * problem.sums
    fresh = min((budget - config.tokens * sums) // row // tile * tile, columns)
    if fresh < tile:
        if kept >= tile:
            return with_first
        need = (row * tile + config.tokens * sums) * _PARTIALS // (_PARTIALS - 1) + 1
        where = "one sample of" if group.samples == 1 else f"{group.samples} samples together of"
        return _TooLarge(f"{tile} vocabulary rows of {where} {group.tokens_bound} tokens", need)
    if kept >= tile and fresh < 2 * kept:
        return with_first
    tokens = (budget - row * fresh) // sums // config.tokens * config.tokens
    return GroupPlan(group, fresh, False, min(tokens, group.tokens_bound), pack, pairs)
