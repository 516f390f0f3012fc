"""Small tiles, internal calls and named paths for the tests of the Triton kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from head_cases import MIB, Case
from torch import Tensor

pytest.importorskip("triton", reason="Triton is not installed")

from donod_fast.kernels import DonNod
from donod_fast.kernels.head_map import HeadMap
from donod_fast.kernels.scores import don_and_nod, with_weight_decay
from donod_fast.kernels.triton_backend.configs import Configs, DirectConfig, Float8Config, GramConfig, LogitsConfig
from donod_fast.kernels.triton_backend.language import INTERPRETING
from donod_fast.kernels.triton_backend.plan import Plan, full_columns
from donod_fast.kernels.triton_backend.run import Call, head_sums
from donod_fast.kernels.updates import resolve_update

interpreted = [
    pytest.mark.skipif(not INTERPRETING, reason="runs on CPU tensors under TRITON_INTERPRET=1"),
    # Lanes that are masked out afterwards: the interpreter computes them with NumPy, which says so.
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
]

_LOGITS = LogitsConfig(tokens=16, vocab=64, dim=16, split=2, warps=4, stages=2, group=2)
# The interpreter takes some milliseconds a program, so tiles are small enough for little heads to be past them all.
TINY = Configs(
    logits=_LOGITS,
    statistics=_LOGITS,
    direct=DirectConfig(vocab=32, dim=16, step=16, split=2, warps=4, stages=2),
    gram=GramConfig(tokens=16, columns=16, dim=16, warps=4, stages=2, programs=12, blocks_of_a_part=2),
    float8=Float8Config(vocab=32, dim=16, split=2, promote=True, warps=4, stages=2),
)


def call_of(
    case: Case,
    *,
    update: Any = "adamw",
    bounds_on_host: bool = True,
    workspace_bytes: int = 64 * MIB,
    lr: float = 2e-5,
    weight_decay: float = 0.0,
    reduction: str = "mean",
    bias: Tensor | None = None,
    logit_scale: float = 1.0,
    softcap: float | None = None,
    storage_dtype: torch.dtype | None = None,
    float8: bool = False,
) -> Call:
    """What the operator makes of ``don_nod``'s arguments, with a workspace of any size.

    ``bounds_on_host=False`` is how bounds on a device look: the plan does not know them.
    """
    bounds = case.cu_seqlens.long()
    return Call(
        hidden=case.hidden,
        weight=case.weight,
        labels=case.labels,
        bounds=bounds,
        host_bounds=bounds.tolist() if bounds_on_host else None,
        head=HeadMap(bias, logit_scale, softcap),
        update=resolve_update(update),
        lr=lr,
        weight_decay=weight_decay,
        mean=reduction == "mean",
        storage_dtype=storage_dtype,
        workspace_bytes=workspace_bytes,
        float8=float8,
    )


def scores_of(call: Call, configs: Configs = TINY) -> DonNod:
    """The kernels' sums and the closed form, without the checks of the public door."""
    sums, counts = head_sums(call, configs)
    norm = call.weight.double().norm()
    loss, entropy, dot, norm_sq = sums.unbind(1)
    if call.storage_dtype is None:
        dot, norm_sq = with_weight_decay(dot, norm_sq, norm, call.weight_decay)
    update_norm = norm_sq.sqrt()
    don, nod = don_and_nod(dot, update_norm, norm, call.lr)
    return DonNod(don, nod, loss, entropy, dot, update_norm, counts)


def scored(case: Case, **options: Any) -> DonNod:
    """``scores_of(call_of(...))``."""
    return scores_of(call_of(case, **options))


def plan_of(call: Call, configs: Configs = TINY) -> Plan:
    """The plan of a call that has one."""
    plan = call.plan(configs)
    assert isinstance(plan, Plan), plan
    return plan


def paths_of(call: Call, configs: Configs = TINY) -> set[str]:
    """Names of everything that a call does somewhere."""
    plan = plan_of(call, configs)
    columns = full_columns(call.weight.shape[0], configs)
    names = {"one group" if len(plan.groups) == 1 else "several groups"}
    longest = max(plan.groups, key=lambda part: part.group.tokens_bound)
    if longest.keep_first and longest.columns < columns:
        names.add("kept first chunk of the longest group")
    for part in plan.groups:
        whole = part.columns == columns
        names.add("stored" if whole and part.keep_first else "kept first chunk" if part.keep_first else "no chunk kept")
        if not part.keep_first:
            names.add("chunks" if not whole else "all columns at once")
            names.add("blocks of tokens" if part.statistics_tokens < part.group.tokens_bound else "one block of tokens")
        names.add("packed" if part.pack else "looked up")
        names.add("pairs" if part.by_pairs else "tiles")
        if not part.by_pairs:
            dim_tiles = -(-call.weight.shape[1] // configs.direct.dim)
            bytes_of_a_sample = 8 * (part.columns // configs.direct.vocab) * dim_tiles
            several = plan.partial_bytes // bytes_of_a_sample < part.group.samples
            names.add("several launches" if several else "one launch")
    return names


# What a call must do, by the name that a test gives it.
PATHS: dict[str, set[str]] = {
    "stored": {"one group", "stored"},
    "groups": {"several groups", "stored"},
    "kept": {"kept first chunk of the longest group"},
    "chunks": {"no chunk kept", "chunks", "blocks of tokens"},
}


def workspace_for(make: Callable[[int], Call], wanted: set[str], configs: Configs = TINY) -> int:
    """The smallest workspace (to two per cent) with which a call does all of ``wanted``."""
    size = 512
    while size < 1 << 26:
        call = make(size)
        if isinstance(call.plan(configs), Plan) and wanted <= paths_of(call, configs):
            return size
        size += size // 50
    raise AssertionError(f"no workspace makes the call do {wanted}")


def on_path(case: Case, path: str, **options: Any) -> Call:
    """The call with a workspace that sends it along one of ``PATHS``."""
    wanted = PATHS[path]
    size = workspace_for(lambda size: call_of(case, workspace_bytes=size, **options), wanted)
    return call_of(case, workspace_bytes=size, **options)
