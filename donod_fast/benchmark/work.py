"""Count the operations that the scores of samples require; a multiply-add counts as 2.

    linear     2 · (elements of the decoder's matrices, without embeddings) for every token that must be computed
    attention  4 · layers · heads · head width for every pair of such a token and one at or before it (QKᵀ, and its
               product with V)
    head       2 · V · d for every scored token: the logits, once

Tokens after a sample's last predicting token need not be computed (``batching.used_tokens``). Model FLOPs are the sum.
They are the same for every program that processes the same samples: padding, the gradient tiles of the output layer
and logits of unscored tokens are not counted (and the last layer is counted in full, even if a program skips its
output for unscored tokens). MFU is model FLOPs per
second over the rate of bare matrix products in the same run. Sliding windows are counted as full attention.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from donod_fast.data.types import TokenizedSample
from donod_fast.errors import ModelError
from donod_fast.models.batching import used_tokens
from donod_fast.models.loading import LoadedModel, text_config


@dataclass(frozen=True, slots=True)
class Work:
    """Operations of one model.

    Attributes:
        linear: operations per token.
        attention: operations per pair of attending tokens, over all layers.
        head: operations per scored token.
        matrices: (rows, columns) of the decoder's matrices, and how often each shape occurs.
    """

    linear: int
    attention: int
    head: int
    matrices: tuple[tuple[tuple[int, int], int], ...]

    def trunk(self, samples: Sequence[TokenizedSample]) -> int:
        """Operations of the decoder; each sample attends only to itself."""
        lengths = [used_tokens(sample) for sample in samples]
        return sum(self.linear * n + self.attention * (n * (n + 1) // 2) for n in lengths)

    def both(self, samples: Sequence[TokenizedSample]) -> int:
        """Operations of decoder and head."""
        return self.trunk(samples) + self.head * sum(sample.scored_tokens for sample in samples)


def work_of(loaded: LoadedModel, decoder: nn.Module, weight: Tensor) -> Work:
    """Count a model's operations from its matrices; ``weight`` (V, d) is the output layer's.

    Raises:
        ModelError: the weights do not determine the count: not every element is used once per token (experts,
            convolutions), or they are packed into other shapes (quantised).
    """
    if loaded.quantised:
        raise ModelError(f"operations of a quantised model are not counted ({loaded.precision})")
    shapes: Counter[tuple[int, int]] = Counter()
    for module in decoder.modules():
        if isinstance(module, nn.Embedding):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() > 2:
                kind = type(module).__name__
                raise ModelError(f"operations of a {kind} are not counted: its {name} has {parameter.dim()} dimensions")
            if parameter.dim() == 2:
                rows, columns = parameter.shape
                shapes[(rows, columns)] += 1
    inner = text_config(loaded.model.config)
    width = getattr(inner, "head_dim", None) or inner.hidden_size // inner.num_attention_heads
    return Work(
        linear=2 * sum(rows * columns * count for (rows, columns), count in shapes.items()),
        attention=4 * inner.num_hidden_layers * inner.num_attention_heads * width,
        head=2 * weight.numel(),
        matrices=tuple(shapes.items()),
    )
