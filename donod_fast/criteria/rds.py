"""RDS+, representation-based data selection (Ivison et al., arXiv 2503.01807): likeness to the nearest reference.

With h_1 … h_T the last hidden states of a row (after the final norm), its embedding is the position-weighted mean

    e = Σ_t w_t h_t,    w_t = t / (1 + 2 + … + T),

scaled to unit length. The weights are those of SGPT (arXiv 2202.08904): under causal attention late tokens have seen
more of the row. ``rds`` is the largest cosine of e with the embedding of a row of the reference set.

What the authors' program does (hamishivi/automated-instruction-selection, ``compute_influence_cosinesim.py``): the same
mean and the same weights over *all* tokens of the conversation, prompt and answer alike, written in one fixed Tülu
template and cut at 2,048 tokens, in bfloat16, one row at a time. For several target sets it takes the largest cosine
of each set, and the sets take turns (``get_top_aggregated_influences.py``): see ``rds-round-robin`` in
``selection/round_robin.py``. For a single target set its rows take turns instead (``get_top_influences.py``).

Here:

- the forward pass is the one that scores the row. It stops at the token that predicts the last scored token, so the
  last token (usually the end of the turn) is not in the mean (on 240 rows of GSM8K and Alpaca the rank correlation with
  the mean over all tokens is 0.999);
- template, masks and length limit are those of the run, for rows and references alike;
- a single set is ranked by its largest cosine, as one of several sets is; its rows do not take turns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from donod_fast.criteria.base import BatchView, Bound, Context, Need
from donod_fast.criteria.of_references import OfReferences
from donod_fast.criteria.reference import Census, reference_vectors
from donod_fast.data.types import TokenizedSample
from donod_fast.models.batching import used_tokens


class RepresentationSimilarity(OfReferences):
    """Largest cosine of the position-weighted mean hidden state with those of references; see the module's docstring.

    ``rds:SET`` if there are several sets.
    """

    name = "rds"
    needs = frozenset({Need.ALL_STATES, Need.REFERENCE})
    parts = (("rds", "largest cosine of the position-weighted mean hidden state with one of a reference set (RDS+)"),)

    def bind(self, context: Context) -> Bound:
        """Embed the reference sets with the same trunk."""
        found = [reference_vectors(one, context, Census(), position_weighted) for one in self.named_sets()]
        return _Bound(self, found)


class _Bound(RepresentationSimilarity):
    """:class:`RepresentationSimilarity` bound to a model.

    Attributes:
        references: for each set (rows, d) float64 unit vectors, on the head's device.
    """

    def __init__(self, criterion: RepresentationSimilarity, references: Sequence[Tensor]) -> None:
        self.sets, self.references = criterion.sets, tuple(references)

    def of_batch(self, view: BatchView) -> Tensor:
        """(n, sets): the largest cosine with each set."""
        assert view.states is not None
        own = position_weighted(view.samples, view.states, view.first_slots)
        return torch.stack([(own.to(one.device) @ one.t()).amax(1) for one in self.references], 1)


def position_weighted(samples: Sequence[TokenizedSample], states: Tensor, first_slots: Sequence[int]) -> Tensor:
    """Position-weighted mean hidden state of each sample as a unit vector, (n, d) float64; NaN if it has no direction.

    Args:
        samples: n samples.
        states: (slots, d) hidden states of all processed tokens.
        first_slots: for each sample the slot of its first token.
    """
    rows = []
    for sample, first in zip(samples, first_slots, strict=True):
        count = used_tokens(sample)
        weights = torch.arange(1, count + 1, dtype=torch.float64, device=states.device)
        rows.append((weights / weights.sum()) @ states[first : first + count].double())
    means = torch.stack(rows)
    units: Tensor = means / means.norm(dim=1, keepdim=True)
    return units


__all__ = ["RepresentationSimilarity", "position_weighted"]
