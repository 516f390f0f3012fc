"""Known bugs of other libraries, each with a test for the Triton kernels."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import textwrap
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from head_cases import BOUNDS, Case, assert_identical, assert_scores, make_bias, make_case, truth
from triton_cases import TINY, call_of, interpreted, on_path, scored, scores_of

from donod_fast.errors import InputError
from donod_fast.kernels import DonNod, don_nod
from donod_fast.kernels.head_map import HeadMap
from donod_fast.kernels.triton_backend import (
    configs,
    direct,
    gram,
    label_entries,
    label_logits,
    logits,
    op,
    pack,
    reduce,
    rescue,
    rows,
)

pytestmark = interpreted

FLOAT32 = BOUNDS[torch.float32]


def far_below_zero(lengths: tuple[int, ...], vocab: int, dim: int) -> Case:
    """Every logit near −60, so that an exp(0) of a padded column would be all that is left."""
    case = make_case(lengths, vocab, dim)
    weight, hidden = case.weight.clone(), case.hidden.clone()
    weight[:, 0], hidden[:, 0] = 1.0, -60.0
    return case._replace(weight=weight, hidden=hidden)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(("vocab", "path"), [(33, "stored"), (63, "stored"), (64, "stored"), (131, "chunks")])
@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_padded_columns_add_nothing_to_the_softmax(update: str, vocab: int, path: str) -> None:
    case = far_below_zero((1, 17), vocab, 18)
    found = scores_of(on_path(case, path, update=update))
    assert_scores(found, truth(case, update=update), FLOAT32)
    assert float(found.loss.max()) < 20.0, "exp(0) in the normaliser would make the loss some 60"


@pytest.mark.sampled(every=4)
@pytest.mark.parametrize("head", [{}, {"logit_scale": 0.5}, {"softcap": 30.0}], ids=["plain", "scale", "softcap"])
@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_rows_masked_by_minus_infinity_are_no_nan(update: str, head: dict[str, Any]) -> None:
    """0 · (−inf) is NaN. A whole tile is masked, a whole block, single rows, the first and the last."""
    case = make_case((1, 17), vocab=131, dim=18, margins=(0.0, 9.0, 25.0))
    masked = torch.zeros(131, dtype=torch.bool)
    masked[32:64] = masked[64:128] = True
    masked[[0, 5, 130]] = True
    labels = torch.where(masked[case.labels.clamp_min(0)], 7, case.labels)
    case = case._replace(labels=torch.where(case.labels < 0, case.labels, labels))
    options = {"update": update, "bias": make_bias(131).masked_fill(masked, -torch.inf), **head}
    for path in ("chunks",) if "softcap" in head else ("stored",):
        found = scores_of(on_path(case, path, **options))
        assert bool(found.don.isfinite().all())
        assert_scores(found, truth(case, **options), FLOAT32)


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_a_label_masked_by_minus_infinity_has_infinite_loss_only(update: str) -> None:
    case = make_case((3, 5), vocab=67, dim=17, unscored=0)
    bias = make_bias(67)
    bias[case.labels[0]] = -torch.inf
    found, expected = scored(case, bias=bias, update=update), truth(case, bias=bias, update=update)
    assert float(found.loss[0]) == torch.inf
    torch.testing.assert_close(found.entropy, expected.entropy, rtol=FLOAT32, atol=0.0)
    assert bool(((found.don - expected.don).abs() <= FLOAT32 * expected.nod).all())


@pytest.mark.parametrize("dim", [1, 16, 17, 50])
def test_the_bias_is_added_once_whatever_the_blocks_of_the_dimension(dim: int) -> None:
    case = make_case((3, 1, 17), vocab=67, dim=dim)
    bias = 4.0 * make_bias(67)
    found = scored(case, bias=bias, update="sgd")
    assert_scores(found, truth(case, bias=bias, update="sgd"), FLOAT32)
    # The loss in one line of torch, for independence.
    z = case.hidden.double() @ case.weight.double().T + bias.double()
    for i, (start, stop) in enumerate(pairwise(case.cu_seqlens.tolist())):
        loss = F.cross_entropy(z[start:stop], case.labels[start:stop])
        torch.testing.assert_close(found.loss[i], loss, rtol=FLOAT32, atol=0.0)


@pytest.mark.parametrize("margin", [30.0, 60.0, 300.0])
def test_a_sure_tokens_miss_is_not_what_is_left_of_one_minus_one(margin: float) -> None:
    case = Case(
        hidden=torch.tensor([[margin]]),
        weight=torch.tensor([[1.0], [0.0], [0.0]]),
        labels=torch.tensor([0]),
        cu_seqlens=torch.tensor([0, 1]),
    )
    miss = 2.0 * math.exp(-margin) / (1.0 + 2.0 * math.exp(-margin))
    found = scored(case, update="sgd")
    assert float(found.loss) == pytest.approx(math.log1p(2.0 * math.exp(-margin)), rel=1e-6, abs=0.0)
    # G = miss · margin · (−1, ½, ½): a rounded p_y would leave 0.
    assert float(found.update_norm) == pytest.approx(miss * margin * math.sqrt(1.5), rel=1e-6, abs=0.0)
    assert float(found.weight_dot_update) == pytest.approx(-miss * margin, rel=1e-6, abs=0.0)


@pytest.mark.parametrize("head", [{"logit_scale": 0.3}, {"softcap": 1.5}], ids=["scale", "softcap"])
@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_neither_scale_nor_softcap_is_dropped(update: str, head: dict[str, Any]) -> None:
    case = make_case((2, 17), vocab=67, dim=17)
    found, without = scored(case, update=update, **head), scored(case, update=update)
    assert_scores(found, truth(case, update=update, **head), FLOAT32)
    for name in ("loss", "entropy", "don"):
        assert bool((getattr(found, name) != getattr(without, name)).all()), name


def test_the_public_door_hands_bias_scale_and_softcap_on() -> None:
    case = make_case((2, 5), vocab=67, dim=17)
    options: dict[str, Any] = {"bias": make_bias(67), "logit_scale": -0.3, "softcap": 4.0, "weight_decay": 0.1,
                               "reduction": "sum", "lr": 1e-3}  # fmt: skip
    with configs.override(TINY):
        found = don_nod(*case, backend="triton", **options)
    assert_scores(found, truth(case, **options), FLOAT32)


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program in an interpreter of its own."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done


def test_offsets_past_two_to_the_thirty_one_do_not_wrap() -> None:
    """Rows 2³⁰ elements apart, of which the pages that hold them are all that is ever touched.

    In a process of its own: an offset that wraps reads outside the memory and ends it.
    """
    run(
        """
        import torch
        from donod_fast.kernels import AdamState, AdamW
        from donod_fast.kernels.head_map import HeadMap
        from donod_fast.kernels.triton_backend import configs
        from donod_fast.kernels.triton_backend.configs import Configs, DirectConfig, GramConfig, LogitsConfig
        from donod_fast.kernels.triton_backend.reduce import squared_norm
        from donod_fast.kernels.triton_backend.run import Call, head_sums
        from donod_fast.kernels.updates import resolve_update

        torch.set_num_threads(1)
        logits = LogitsConfig(tokens=16, vocab=32, dim=16, warps=4, stages=2, group=2)
        direct = DirectConfig(vocab=32, dim=16, step=16, warps=4, stages=2)
        tiles = Configs(logits, logits, direct, GramConfig(tokens=16, columns=16, dim=16, warps=4, stages=2))
        generator = torch.Generator().manual_seed(0)

        def spread(rows, dim):
            values = torch.randn(rows, dim, generator=generator).bfloat16()
            memory = torch.empty((rows - 1) * 2**30 + dim, dtype=torch.bfloat16)
            wide = memory.as_strided((rows, dim), (2**30, 1))
            wide.copy_(values)
            return wide

        # Hidden states of 3 dimensions are packed, those of 9 looked up.
        for update, dim in (("adamw", 3), ("adamw", 9), ("sgd", 3)):
            weight, hidden = spread(5, dim), spread(4, dim)
            for w, h in ((weight, hidden), (weight.contiguous(), hidden.contiguous())):
                call = Call(h, w, torch.tensor([1, 4, 0, 2]), torch.tensor([0, 1, 4]), [0, 1, 4], HeadMap(),
                            resolve_update(update), 1e-5, 0.0, True, None, 1 << 26)
                sums, _ = head_sums(call, tiles)
                if w is weight:
                    far, far_norm = sums, squared_norm(w)
            assert bool(torch.isfinite(sums).all())
            assert torch.equal(far, sums), (far, sums)
            assert torch.equal(far_norm, squared_norm(w))
        """,
        TRITON_INTERPRET="1",
    )


def test_nothing_needs_triton_but_the_backend_of_that_name() -> None:
    run(
        """
        import sys
        sys.modules["triton"] = None
        import torch
        import donod_fast
        from donod_fast.errors import BackendError
        torch.manual_seed(0)
        call = (torch.randn(4, 8), torch.randn(30, 8), torch.arange(4), torch.tensor([0, 4]))
        for backend in ("auto", "torch"):
            assert bool(donod_fast.don_nod(*call, backend=backend).don.isfinite())
        try:
            donod_fast.don_nod(*call, backend="triton")
        except BackendError as error:
            assert "Triton cannot be imported" in str(error), error
        else:
            raise AssertionError("triton cannot have served this")
        """
    )


def assert_compiled_as_eager(update: str, numbers: list[tuple[float, float]]) -> None:
    """Each (lr, logit_scale) in turn through one compiled function."""
    case = make_case((2, 5), vocab=67, dim=17)

    def score(hidden: torch.Tensor, lr: float, scale: float) -> DonNod:
        options: dict[str, Any] = {"update": update, "backend": "triton", "lr": lr, "logit_scale": scale}
        return don_nod(hidden, case.weight, case.labels, case.cu_seqlens, **options)

    torch.compiler.reset()
    compiled = torch.compile(score, fullgraph=True, backend="aot_eager")
    with configs.override(TINY):
        for lr, scale in numbers:
            eager, found = score(case.hidden, lr, scale), compiled(case.hidden, lr, scale)
            assert [column.dtype for column in found[:7]] == [column.dtype for column in eager[:7]]
            assert_identical(found, eager)


@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_compiling_changes_neither_a_dtype_nor_a_bit(update: str) -> None:
    assert_compiled_as_eager(update, [(1e-4, 0.5)])


def test_a_changing_learning_rate_causes_no_new_graph() -> None:
    assert_compiled_as_eager("sgd", [(1e-4, 0.5), (3e-4, 0.7)])


@pytest.mark.parametrize("shape", [(0,), (0, 17)], ids=str)
@pytest.mark.parametrize("backend", ["triton", "auto", "torch"])
def test_a_weight_that_sharding_handed_over_empty_is_named(backend: str, shape: tuple[int, ...]) -> None:
    case = make_case((3,), vocab=31, dim=17)
    with pytest.raises(InputError, match=r"weight must be .*gather the sharded weight first"):
        don_nod(*case._replace(weight=torch.empty(shape)), backend=backend)


class Launches:
    """Stands for a kernel: counts launches, whose grids are host numbers, and does nothing."""

    def __init__(self) -> None:
        self.grids: list[tuple[int, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        assert all(type(size) is int and size > 0 for size in grid), grid
        self.grids.append(grid)
        return lambda *_, **__: None


KERNELS = [
    (label_logits, "label_logits_kernel"),
    (logits, "logits_kernel"),
    (rows, "token_statistics_kernel"),
    (rows, "sample_sums_kernel"),
    (rescue, "rescue_kernel"),
    (label_entries, "label_entries_kernel"),
    (pack, "pack_kernel"),
    (direct, "direct_kernel"),
    (gram, "states_kernel"),
    (gram, "label_terms_kernel"),
    (gram, "gram_kernel"),
    (reduce, "segment_sums_kernel"),
    (reduce, "squares_kernel"),
]


@pytest.fixture
def launches(monkeypatch: pytest.MonkeyPatch) -> Launches:
    found = Launches()
    for module, name in KERNELS:
        assert hasattr(module, name)
        monkeypatch.setattr(module, name, found)
    return found


def without_values(case: Case) -> Case:
    """The case on the meta device, which has shapes but no values: reading a value fails."""
    return Case(*(x.to("meta") for x in case))


def test_tensors_without_values_refuse_to_be_read() -> None:
    x = torch.empty(3, device="meta")
    for read in (lambda: x[0].item(), x.nonzero, lambda: x[x > 0], lambda: bool(x[0]), x.tolist, x.cpu):
        with pytest.raises((RuntimeError, NotImplementedError)):
            read()


@pytest.mark.parametrize("path", ["stored", "kept", "chunks"])
@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_nothing_is_read_back_between_the_launches(update: str, path: str, launches: Launches) -> None:
    case = make_case((0, 1, 20), vocab=131, dim=17)
    size = on_path(case, path, update=update, softcap=9.0, bounds_on_host=False).workspace_bytes
    call = call_of(without_values(case), update=update, workspace_bytes=size, softcap=9.0, bounds_on_host=False)
    scores = scores_of(call)
    assert scores.don.shape == (3,)
    assert len(launches.grids) >= 5


@pytest.mark.parametrize("bounds_device", ["meta", "cpu"])
def test_nor_by_the_operator_around_them(
    bounds_device: str, launches: Launches, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = without_values(make_case((0, 1, 20), vocab=131, dim=17))
    if bounds_device == "cpu":
        monkeypatch.setattr(torch.Tensor, "pin_memory", lambda x: x)  # there is no device to pin for
        case = case._replace(cu_seqlens=torch.tensor([0, 0, 2, 24], dtype=torch.int32))
    scores, counts, losses = op.head_scores._init_fn(
        *case, None, None, None, "adamw", 0.9, 0.999, 1e-8, -1, 1e-5, 0.1, True, 1.0, None, None, None, 1 << 24,
        "full", True,
    )  # fmt: skip
    assert scores.shape == (3, 6)
    assert counts.shape == (3,)
    assert losses.shape == case.labels.shape
    assert launches.grids[-1] == (17,), "the norm of W comes last: 131 rows, 8 at a time"


def test_the_head_map_of_the_kernels_is_that_of_the_torch_backend() -> None:
    """A head map with a part that the kernels do not know of would be dropped in silence."""
    assert set(HeadMap.__slots__) == {"bias", "logit_scale", "softcap"}
