"""Divide the work of the torch backend so that its memory stays within ``workspace_bytes``.

There are two ways to compute the error signals D of a sample (see ``softmax.py``):

- *stored*: the pre-activations of a group of samples are computed in one product, normalised in place and kept until
  the group is done. This needs one logits product, and memory for tokens · vocab elements.
- *streamed*: a longer sample is computed in chunks of the vocabulary, once for the normaliser and once more for D. This
  needs two logits products and works for any length.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch

from donod_fast.kernels.arguments import HeadBatch

# Elements of a tile for elementwise arithmetic: few enough for a core's second-level cache on a CPU, many enough to
# keep an accelerator busy.
_CPU_TILE = 1 << 18
_DEVICE_TILE = 1 << 24
# On a CPU more tokens per product bring no gain and need more cache.
_CPU_GROUP_TOKENS = 1024
# Rows of Gram matrices computed at once; small blocks use more of the symmetry.
GRAM_BLOCK = 64


@dataclass(frozen=True, slots=True)
class Workspace:
    """Sizes, in elements of the compute dtype unless stated otherwise.

    Attributes:
        group_tokens: maximum number of scored tokens in a stored group.
        row_block: token rows normalised together.
        tile_rows: vocabulary rows of a gradient tile.
        stream_tokens: tokens of a streamed block.
        stream_vocab: vocabulary rows of a streamed chunk.
        gram_tokens: longest sample whose streamed N × N Gram matrix fits.
    """

    group_tokens: int
    row_block: int
    tile_rows: int
    stream_tokens: int
    stream_vocab: int
    gram_tokens: int

    @property
    def cast_rows(self) -> int:
        """Vocabulary rows of W cast to the compute dtype at once."""
        return self.stream_vocab


def plan_workspace(batch: HeadBatch) -> Workspace:
    """Divide the workspace: tiles and row blocks first, then as many stored tokens as fit; an eighth stays free."""
    vocab, dim = batch.weight.shape
    size = torch.finfo(batch.compute_dtype).bits // 8
    total = batch.workspace_bytes // size
    on_cpu = batch.hidden.device.type == "cpu"
    tile = min(_CPU_TILE if on_cpu else _DEVICE_TILE, total // 16)
    # Row blocks need scratch memory of their own size (with a soft-cap up to three times more).
    row_block = max(1, min(tile, total // 16) // vocab)
    fixed = 4 * tile + 5 * row_block * vocab
    # A stored token needs its signals, its hidden state and a scaled copy of that.
    group = max(0, (total * 7 // 8 - fixed) // (vocab + 3 * dim))
    if on_cpu:
        group = min(group, _CPU_GROUP_TOKENS)
    # Streamed: a W chunk in the compute dtype, a hidden block, three arrays of tokens × chunk.
    stream_vocab = max(1, min(total // 8 // dim, vocab, 4096 if on_cpu else 16384))
    stream_tokens = max(1, min(total // 8 // max(dim, stream_vocab), 1024 if on_cpu else 8192))
    return Workspace(
        group_tokens=group,
        row_block=row_block,
        tile_rows=max(1, min(tile // dim, vocab)),
        stream_tokens=stream_tokens,
        stream_vocab=stream_vocab,
        gram_tokens=int((total // 4) ** 0.5),
    )


class _Kept(threading.local):
    buffer: torch.Tensor | None = None


_kept = _Kept()


def signal_buffer(tokens: int, vocab: int, like: torch.Tensor) -> torch.Tensor:
    """Uninitialised (tokens, vocab) array for stored signals, with the dtype and device of ``like``.

    On a CPU the memory (at most the workspace) is kept for the thread's next call. Otherwise the system would zero new
    pages for an array of this size each time, which costs up to a tenth of the product that fills it. Allocators of
    accelerators keep memory anyway.
    """
    if like.device.type != "cpu":
        return like.new_empty((tokens, vocab))
    size = tokens * vocab * like.element_size()
    if _kept.buffer is None or _kept.buffer.numel() < size:
        _kept.buffer = None  # before the new one is allocated, so that both never exist at once
        with torch.inference_mode(False):  # an inference tensor could not be written to outside that mode
            _kept.buffer = torch.empty(size, dtype=torch.uint8)
    return _kept.buffer[:size].view(like.dtype).view(tokens, vocab)


def gram_is_cheaper(tokens: int, vocab: int, dim: int) -> bool:
    """Whether ‖G‖² of a sample with a linear update costs less by Gram matrices than by gradient tiles.

    Counted operations (a multiply-add is 2): Gram with symmetry N (N + block)(V + d), tiles 2 N V d for
    the products and 2 V d to square and add.
    """
    gram = tokens * (tokens + GRAM_BLOCK) * (vocab + dim)
    direct = 2 * (tokens + 1) * vocab * dim
    return gram <= direct
