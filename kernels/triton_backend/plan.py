"""How a call is cut into groups of samples and chunks of the vocabulary, within ``workspace_bytes``.

What is held at once, for a group of S slots with C columns of E stored (e bytes an element):

    E                       S · C · e
    sums of tiles           S · tiles · 4 · (3 or 4)
    packed hidden states    S · d · e                      (direct kernel, where they fit; else it looks rows up)
    partial sums            samples of a launch · tiles of W · 8   (direct kernel), pairs · parts · 4 (Gram)

**The rule**, by counted operations (a logits product is 2 V d a token, a direct product the same):

- *stored*: C = V. One logits product; the second stage reads E. Whole samples are gathered until a group is full.
- *streamed*: a group that cannot hold its E. One logits product for the normalisers, and the columns of E chunk by
  chunk: the first chunk is kept from that first product where the sums of tiles leave room, the others cost a second
  product each, 2 − C/V products in all. One sample longer than a stored group holds, or a batch whose bounds the host
  does not know and that does not fit as a whole (its bounds on the device are never read back).

Streaming with every column costs 2 V d more a token than storing; cutting a group in two costs one more pass over W
(V d e bytes: 2 V d operations take as long for some 300 tokens), so groups are filled as far as the workspace goes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from donod_fast.kernels.triton_backend.configs import Configs, ceil_div
from donod_fast.kernels.triton_backend.layout import Group, slots_bound

# Shares of the workspace: partial sums of the direct kernel; the rest is for what slots need.
_PARTIALS = 8


@dataclass(frozen=True, slots=True)
class GroupPlan:
    """How one group is worked on.

    Attributes:
        group: its samples.
        columns: columns of E held at once, a multiple of the tiles'; all of them where they fit.
        keep_first: whether the first chunk comes out of the normalisers' own product.
        statistics_tokens: tokens whose sums of tiles are held at once.
        pack: whether hidden states are copied to their slots.
        by_pairs: whether a linear update takes the Gram kernel.
    """

    group: Group
    columns: int
    keep_first: bool
    statistics_tokens: int
    pack: bool
    by_pairs: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """Groups in order, and the bytes of partial sums that a launch of the direct kernel may fill."""

    groups: tuple[GroupPlan, ...]
    partial_bytes: int


@dataclass(frozen=True, slots=True)
class Problem:
    """What the plan depends on."""

    vocab: int
    dim: int
    element: int  # bytes of an element of E
    sums: int  # sums of a tile: 3, or 4 with a bias or soft-cap
    linear: bool  # SGD without rounding: Gram where it is cheaper
    workspace_bytes: int


@dataclass(frozen=True, slots=True)
class _TooLarge:
    """A smallest piece that the workspace cannot hold, and with how many bytes it could."""

    piece: str
    need: int


def gram_limit(vocab: int, dim: int) -> float:
    """Scored tokens up to which the Gram kernel costs less than gradient tiles: N (V + d) ≤ 2 V d."""
    return 2.0 * vocab * dim / (vocab + dim)


def full_columns(vocab: int, configs: Configs) -> int:
    """The vocabulary rounded up to whole tiles of every kernel."""
    tile = max(configs.logits.vocab, configs.direct.vocab)
    return ceil_div(vocab, tile) * tile


def make_plan(
    tokens: int,
    samples: int,
    bounds: list[int] | None,  # on the host, or None
    problem: Problem,
    configs: Configs,
) -> Plan | str:
    """The plan, or why the workspace cannot hold even the smallest piece."""
    align = configs.direct.step
    partial_bytes = problem.workspace_bytes // _PARTIALS
    budget = problem.workspace_bytes - partial_bytes
    columns = full_columns(problem.vocab, configs)
    tiles = columns // configs.logits.tile
    sums = tiles * 4 * problem.sums
    # A slot of a stored group; hidden states are packed where they are at most a quarter of it.
    packs = not problem.linear and 4 * problem.dim <= columns
    slot = columns * problem.element + sums + (problem.dim * problem.element if packs else 0)
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
    least = _least_partials(columns, problem, configs)
    refused = [plan for plan in plans if isinstance(plan, _TooLarge)]
    if partial_bytes < least:
        refused.append(_TooLarge("one sample's partial sums", _PARTIALS * least))
    if refused:
        worst = max(refused, key=lambda piece: piece.need)
        return f"workspace_bytes = {problem.workspace_bytes} cannot hold {worst.piece}; give it at least {worst.need}"
    return Plan(tuple(plan for plan in plans if isinstance(plan, GroupPlan)), partial_bytes)


def _gathered(bounds: list[int], capacity: int, align: int, limit: float) -> list[tuple[int, tuple[int, ...]]]:
    """Consecutive samples whose slots fit together; one that is too long, or too long for pairs, stands alone."""
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


def _least_partials(columns: int, problem: Problem, configs: Configs) -> int:
    """Bytes of one sample's partial sums of the direct kernel."""
    return 8 * (columns // configs.direct.vocab) * ceil_div(problem.dim, configs.direct.dim)


def _by_pairs(group: Group, problem: Problem) -> bool:
    """Whether a linear update takes the Gram kernel: where one sample is known to be too long, tiles are cheaper."""
    if not problem.linear:
        return False
    alone = group.samples == 1
    return not (alone and group.tokens_bound > gram_limit(problem.vocab, problem.dim))


def _streamed(
    group: Group, problem: Problem, configs: Configs, budget: int, columns: int, sums: int
) -> GroupPlan | _TooLarge:
    states = group.slots_bound * problem.dim * problem.element
    # Packed hidden states keep the direct kernel's loads asynchronous: worth an eighth of the room.
    if not _by_pairs(group, problem) and 8 * states <= budget:
        packed = _streamed_in(group, problem, configs, budget - states, columns, sums, pack=True)
        if isinstance(packed, GroupPlan):
            return packed
    return _streamed_in(group, problem, configs, budget, columns, sums, pack=False)


def _streamed_in(
    group: Group, problem: Problem, configs: Configs, budget: int, columns: int, sums: int, *, pack: bool
) -> GroupPlan | _TooLarge:
    tile = max(configs.logits.vocab, configs.direct.vocab)
    slots, row = group.slots_bound, group.slots_bound * problem.element
    pairs = _by_pairs(group, problem)
    # With a first chunk kept, the sums of tiles of all tokens lie beside it.
    kept = min((budget - slots * sums) // row // tile * tile, columns)
    with_first = GroupPlan(group, kept, True, group.tokens_bound, pack, pairs)
    if kept >= tile and kept >= columns // 2:
        return with_first
    # Else the table holds the sums of a block of tokens at a time, which leaves more room for columns.
    config = configs.statistics
    sums = ceil_div(problem.vocab, config.vocab) * config.split * 4 * problem.sums
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
