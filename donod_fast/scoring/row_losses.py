"""The loss of each scored token of one row, by the same trunk and head that score it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from donod_fast.data.types import TokenizedSample
from donod_fast.kernels.token_statistics import token_statistics
from donod_fast.models.batching import collate
from donod_fast.models.head import Head, prove_head, read_head
from donod_fast.models.loading import LoadedModel
from donod_fast.models.trunk import Trunk


class RowLosses:
    """Computes losses row by row: one batch each, float32 logits.

    Args:
        loaded: the model.

    Raises:
        ModelError: its output layer cannot be read, or gives other logits than the model itself.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._trunk = Trunk(loaded, packing="off")
        self._head: Head = read_head(loaded.model)
        prove_head(loaded, self._trunk, self._head)

    def of(self, sample: TokenizedSample) -> Sequence[float]:
        """Cross entropy of each scored token in nats, in order; empty for a row that is not scored."""
        if not sample.scored_tokens:
            return []
        head, batch = self._head, collate([sample], [0])
        with torch.no_grad():
            states = self._trunk(batch.input_ids)
            hidden = states.reshape(-1, states.shape[-1])[batch.predictors.to(states.device)]
            found = token_statistics(
                hidden.to(head.weight.device),
                head.weight,
                batch.labels.to(head.weight.device),
                bias=head.bias,
                logit_scale=head.logit_scale,
                softcap=head.softcap,
            )
        losses: list[float] = found.loss.tolist()
        return losses


__all__ = ["RowLosses"]
