"""How the Triton backend divides a call: plans fit the workspace, and a workspace that is too small is refused."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from head_cases import MIB, Case, assert_scores, make_case, truth
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from triton_cases import PATHS, TINY, call_of, interpreted, on_path, paths_of, plan_of, scores_of

from donod_fast.errors import BackendError
from donod_fast.kernels import don_nod
from donod_fast.kernels.triton_backend import configs as shipped
from donod_fast.kernels.triton_backend import direct, gram
from donod_fast.kernels.triton_backend.configs import Configs
from donod_fast.kernels.triton_backend.layout import slots_bound
from donod_fast.kernels.triton_backend.plan import GroupPlan, Plan, Problem, full_columns, gram_limit, make_plan
from donod_fast.kernels.triton_backend.run import head_sums

pytestmark = interpreted

HOPPER = shipped.fixed_configs("sm_90", torch.bfloat16, torch.bfloat16, mapped=False, direct="short")


def bytes_held(part: GroupPlan, plan: Plan, problem: Problem, configs: Configs) -> int:
    """What ``run.py`` allocates for a group at once: E, then sums of blocks or packed states and partial sums."""
    group = part.group
    exps = group.slots_bound * part.columns * problem.element
    config = configs.logits if part.keep_first else configs.statistics
    stored = part.columns if part.keep_first else 0
    blocks = max(2, -(-max(problem.vocab, stored) // config.vocab))
    sums = blocks * (-(-part.statistics_tokens // 16) * 16) * 4 * problem.sums
    packed = group.slots_bound * problem.dim * problem.element if part.pack else 0
    if part.by_pairs:
        pairs = gram.pairs_at_most(group, configs.gram)
        partials = 4 * pairs * (1 + gram.vocabulary_parts(pairs, part.columns, configs.gram))
        held = gram.pairs_held(pairs, plan.partial_bytes - partials, configs.gram)
        partials += 4 * held * configs.gram.tokens**2
    else:
        tiles = direct.tiles_of(part.columns, problem.dim, configs.direct)
        partials = 8 * tiles * max(1, min(group.samples, plan.partial_bytes // (8 * tiles)))
    return exps + max(sums, packed + partials)


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[int], Problem, Configs]:
    """Row counts of samples and a head, small or large, with a workspace of any size."""
    configs = draw(st.sampled_from([TINY, HOPPER]))
    scale = 1 if configs is TINY else 40
    lengths = draw(st.lists(st.integers(0, 40 * scale), min_size=1, max_size=12))
    problem = Problem(
        vocab=draw(st.integers(1, 300 * scale)),
        dim=draw(st.integers(1, 60 * scale)),
        element=draw(st.sampled_from([2, 4])),
        sums=draw(st.sampled_from([2, 3])),
        linear=draw(st.booleans()),
        workspace_bytes=int(2.0 ** draw(st.floats(9.0, 28.0))),
    )
    return lengths, problem, configs


def bounds_of(lengths: list[int]) -> list[int]:
    bounds = [0]
    for length in lengths:
        bounds.append(bounds[-1] + length)
    return bounds


def check_groups(plan: Plan, lengths: list[int], problem: Problem, configs: Configs, on_host: bool) -> None:
    """Every sample once and in order; every group has its whole samples; columns are whole tiles."""
    samples = [
        n for part in plan.groups for n in range(part.group.first_sample, part.group.first_sample + part.group.samples)
    ]
    assert samples == list(range(len(lengths)))
    align = configs.direct.step
    for part in plan.groups:
        own = lengths[part.group.first_sample : part.group.first_sample + part.group.samples]
        assert part.group.tokens_bound >= sum(own)
        assert part.group.slots_bound >= sum(-(-n // align) * align for n in own)
        assert part.group.slots_bound % align == 0
        assert part.group.lengths == (tuple(own) if on_host else None)
        assert part.columns % max(configs.logits.vocab, configs.direct.vocab) == 0
        assert 0 < part.columns <= full_columns(problem.vocab, configs) or part.group.tokens_bound == 0
        assert part.statistics_tokens > 0 or part.group.tokens_bound == 0
        assert not (part.pack and part.by_pairs)
        assert part.by_pairs <= problem.linear


@settings(max_examples=400, deadline=None)
@given(drawn=problems(), on_host=st.booleans())
def test_plans_fit_and_refusals_name_a_workspace_that_fits(
    drawn: tuple[list[int], Problem, Configs], on_host: bool
) -> None:
    lengths, problem, configs = drawn
    tokens, samples = sum(lengths), len(lengths)
    bounds = bounds_of(lengths) if on_host else None
    plan = make_plan(tokens, samples, bounds, problem, configs)
    if isinstance(plan, str):
        assert f"workspace_bytes = {problem.workspace_bytes}" in plan
        problem = replace(problem, workspace_bytes=int(plan.rsplit("at least ", 1)[1]))
        plan = make_plan(tokens, samples, bounds, problem, configs)
        assert isinstance(plan, Plan), plan
    check_groups(plan, lengths, problem, configs, on_host)
    for part in plan.groups:
        held = bytes_held(part, plan, problem, configs)
        assert held <= problem.workspace_bytes, f"{held} bytes of {problem.workspace_bytes}: {part}"


@settings(max_examples=200, deadline=None)
@given(drawn=problems())
def test_samples_with_known_bounds_are_cut_into_groups_that_are_full(
    drawn: tuple[list[int], Problem, Configs],
) -> None:
    lengths, problem, configs = drawn
    plan = make_plan(sum(lengths), len(lengths), bounds_of(lengths), problem, configs)
    assume(isinstance(plan, Plan))
    assert isinstance(plan, Plan)
    limit = gram_limit(problem.vocab, problem.dim) if problem.linear else float("inf")
    for part, after in pairwise(plan.groups):
        alone = any(n > limit for n in (*(part.group.lengths or ()), *(after.group.lengths or ())))
        both = replace(
            part,
            group=replace(
                part.group,
                slots_bound=part.group.slots_bound + after.group.slots_bound,
                lengths=None,
            ),
        )
        streamed = part.columns < full_columns(problem.vocab, configs) or not part.keep_first
        if not alone and not streamed and not part.by_pairs:
            exps = both.group.slots_bound * part.columns * problem.element
            assert exps > 0.2 * problem.workspace_bytes, "the next sample would have fitted by far"


def test_a_long_sample_of_a_linear_update_takes_tiles_if_known() -> None:
    limit = gram_limit(67, 17)
    assert limit == pytest.approx(2 * 67 * 17 / 84)
    case = make_case((40, 3), vocab=67, dim=17, unscored=0)
    assert 3 < limit < 40
    parts = plan_of(call_of(case, update="sgd")).groups
    assert [(part.group.samples, part.by_pairs) for part in parts] == [(1, False), (1, True)]
    unknown = plan_of(call_of(case, update="sgd", bounds_on_host=False)).groups
    assert [(part.group.samples, part.by_pairs) for part in unknown] == [(2, True)]


def test_the_shipped_tiles_fit_together() -> None:
    for architecture in shipped.ARCHITECTURES:
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            for signals in (torch.float32, torch.bfloat16):
                for mapped in (False, True):
                    for kind in ("short", "long", "heavy"):
                        found = shipped.fixed_configs(architecture, dtype, signals, mapped=mapped, direct=kind)
                        tile = max(found.logits.vocab, found.direct.vocab)
                        assert tile % found.gram.columns == 0
                        assert tile % found.logits.tile == 0
                        assert tile % found.logits.vocab == 0
                        assert tile % found.direct.vocab == 0


def test_a_workspace_too_small_for_a_piece_is_refused_by_name_and_figure() -> None:
    case = make_case((20,), vocab=131, dim=18)
    with pytest.raises(BackendError, match=r"workspace_bytes = 1000 .* at least \d+") as refused:
        scores_of(call_of(case, workspace_bytes=1000))
    figure = int(str(refused.value).rsplit(" ", 1)[1])
    assert_scores(scores_of(call_of(case, workspace_bytes=figure)), truth(case), 1e-5)


def test_the_public_door_says_the_same_and_auto_goes_elsewhere() -> None:
    case = make_case((400,), vocab=1031, dim=3, unscored=0)
    bounds = torch.tensor([0, 400])
    short = case._replace(cu_seqlens=bounds)
    huge = replace(TINY, logits=replace(TINY.logits, vocab=1024, split=1), direct=replace(TINY.direct, vocab=1024))
    with shipped.override(huge):
        with pytest.raises(BackendError, match="'triton' does not support this call: workspace_bytes = 1048576"):
            don_nod(*short, backend="triton", workspace_bytes=MIB)
        assert bool(don_nod(*short, backend="auto", workspace_bytes=MIB).don.isfinite().all())


def peak_of(call: Callable[[], object]) -> int:
    """Most bytes that torch held at once during the call, on a thread of its own."""

    def watched() -> int:
        torch.set_num_threads(1)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            kept = call()
        del kept
        results = profile.profiler.kineto_results  # type: ignore[union-attr]
        held = peak = 0
        for event in sorted((e for e in results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns()):
            held += event.nbytes()
            peak = max(peak, held)
        return peak

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(watched).result()


def slack(case: Case) -> int:
    """Tables and statistics: some 200 bytes a row and 60 a slot, and small change."""
    slots = slots_bound(len(case.labels), len(case.cu_seqlens) - 1, TINY.direct.step)
    return 256 * len(case.labels) + 64 * slots + 4096


@pytest.mark.parametrize(("update", "path"), [*(("adamw", path) for path in PATHS), ("sgd", "kept"), ("sgd", "chunks")])
def test_a_call_holds_no_more_than_its_workspace(update: str, path: str) -> None:
    case = make_case((1, 24), vocab=517, dim=16)
    call = on_path(case, path, update=update)
    assert PATHS[path] <= paths_of(call)
    peak = peak_of(lambda: head_sums(call, TINY))
    if path != "stored":
        assert call.workspace_bytes < 4 * 517 * len(case.labels), "the logits of the batch would not fit"
    assert peak <= call.workspace_bytes + slack(case)
    planned = plan_of(call)
    least = max(bytes_held(part, planned, call.problem, TINY) for part in planned.groups)
    # (What an earlier group frees late is counted against a later one.)
    assert peak >= 0.9 * least, "the counting of this file misses nothing that run.py no longer allocates"
