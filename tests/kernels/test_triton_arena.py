"""The workspace of a call: one allocation, carved for every group and as large as the plan needs."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
import torch
from head_cases import make_case
from triton_cases import PATHS, TINY, interpreted, on_path, paths_of, scores_of

from donod_fast.kernels.triton_backend import arena as arenas
from donod_fast.kernels.triton_backend.arena import Arena, Need

pytestmark = interpreted

CPU = torch.device("cpu")


def test_tensors_begin_at_multiples_of_256_bytes_and_do_not_overlap() -> None:
    needs = [Need((3, 5), torch.float32), Need((7,), torch.int32), Need((2, 2, 2), torch.bfloat16)]
    arena = Arena(sum(need.bytes for need in needs), CPU)
    tensors = [arena.take(need) for need in needs]
    for number, (need, tensor) in enumerate(zip(needs, tensors, strict=True)):
        assert (tensor.shape, tensor.dtype, tensor.data_ptr() % 256) == (need.shape, need.dtype, 0)
        assert tensor.is_contiguous()
        tensor.fill_(number + 1)
    assert [tensor.unique().tolist() for tensor in tensors] == [[1], [2], [3]]


def test_memory_is_used_again_after_its_scope_and_only_then() -> None:
    need = Need((64,), torch.float32)
    arena = Arena(2 * need.bytes, CPU)
    kept = arena.take(need)
    with arena.scope():
        inner = arena.take(need)
        assert inner.data_ptr() != kept.data_ptr()
        with pytest.raises(AssertionError, match="the plan counted 512 bytes"):
            arena.take(need)
    assert arena.take(need).data_ptr() == inner.data_ptr()


def test_an_empty_tensor_needs_no_memory() -> None:
    assert Arena(0, CPU).take(Need((0, 4), torch.float32)).shape == (0, 4)


class Watched(Arena):
    """Remembers its size and the most that was taken."""

    made: ClassVar[list[Watched]] = []

    def __init__(self, size: int, device: torch.device) -> None:
        super().__init__(size, device)
        self.size, self.most = size, 0
        Watched.made.append(self)

    def take(self, need: Need) -> torch.Tensor:
        tensor = super().take(need)
        self.most = max(self.most, self._used)
        return tensor


@pytest.mark.parametrize(
    ("update", "path", "softcap"),
    [*(("adamw", path, None) for path in PATHS), ("sgd", "groups", None), ("sgd", "chunks", 20.0)],
)
def test_a_call_has_one_of_exactly_the_size_that_it_uses(
    update: str, path: str, softcap: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from donod_fast.kernels.triton_backend import run

    monkeypatch.setattr(run, "Arena", Watched)
    monkeypatch.setattr(Watched, "made", [])
    options: dict[str, Any] = {"update": update, "softcap": softcap}
    call = on_path(make_case((2, 0, 19), vocab=131, dim=18), path, **options)
    assert paths_of(call, TINY) >= PATHS[path]
    scores_of(call)
    (used,) = Watched.made
    assert used.most == used.size
    alignment = 16 * arenas._ALIGNMENT
    assert used.size <= call.workspace_bytes + alignment
