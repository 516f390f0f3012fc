"""What the head forward leaves of every scored token, and the passes that compute it.

    label logits → logits and sums → statistics → rescue → sums of samples

Both the scores (``run.py``) and the products of two sets (``products.py``) begin with these passes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from donod_fast.kernels.head_map import HeadMap
from donod_fast.kernels.triton_backend import label_logits, logits, rescue, rows
from donod_fast.kernels.triton_backend.arena import Arena, Need
from donod_fast.kernels.triton_backend.configs import ROWS, LogitsConfig, ceil_div
from donod_fast.kernels.triton_backend.layout import Group, Layout
from donod_fast.kernels.triton_backend.plan import table_blocks


@dataclass(frozen=True, slots=True, eq=False)
class Tokens:
    """Inputs of a call, and tensors with an element for each slot.

    Attributes:
        hidden, weight, labels: (rows, dim), (vocab, dim), (rows,).
        head: map from pre-activations to logits.
        layout: positions of the tokens.
        label_values: (2, slots) float64, logit of the label in units of log 2, and φ a.
        label_slope: (slots,) float32 φ of the label (``logits.py``) under a soft-cap, else None.
        reference: (slots,) float32, in units of log 2: what is subtracted from the token's logits.
        statistics: (4, slots) float64, loss, entropy, log u, dot.
        rest: (slots,) float32, R = Σ e^{z − reference} over the other vocabulary rows.
        share, label_signal: (slots,) float32, factors of the token's error signal, 0 for pads (``rows.py``).
    """

    hidden: Tensor
    weight: Tensor
    labels: Tensor
    head: HeadMap
    layout: Layout
    label_values: Tensor
    label_slope: Tensor | None
    reference: Tensor
    statistics: Tensor
    rest: Tensor
    share: Tensor
    label_signal: Tensor

    @classmethod
    def empty(cls, hidden: Tensor, weight: Tensor, head: HeadMap, labels: Tensor, layout: Layout) -> Tokens:
        """Allocate the tensors of all slots."""
        slots, device = layout.slot_row.shape[0], hidden.device
        reference, rest, share, label_signal = torch.empty((4, slots), dtype=torch.float32, device=device)
        return cls(
            hidden=hidden,
            weight=weight,
            labels=labels,
            head=head,
            layout=layout,
            label_values=torch.empty((2, slots), dtype=torch.float64, device=device),
            label_slope=None if head.softcap is None else torch.empty_like(reference),
            reference=reference,
            statistics=torch.empty((4, slots), dtype=torch.float64, device=device),
            rest=rest,
            share=share,
            label_signal=label_signal,
        )

    @property
    def sums(self) -> int:
        """Sums of a token and a block of the vocabulary."""
        return 3 if self.head.bias is not None or self.head.softcap is not None else 2

    def tables(self, columns: int, tokens_at_once: int, config: LogitsConfig) -> tuple[Need, Need]:
        """Sums and flags that ``normalise`` needs for so many tokens, if it writes so many columns of E."""
        blocks = logits.vocabulary_blocks(self.weight.shape[0], columns, config)
        width = ceil_div(tokens_at_once, 16) * 16  # rows of the table at aligned addresses for every batch
        sums = Need((self.sums, table_blocks(blocks), width), torch.float32)
        return sums, Need((ceil_div(tokens_at_once, ROWS.tokens),), torch.int32)

    def normalise(
        self,
        group: Group,
        exps: Tensor | None,  # (slots, columns), E of the first vocabulary rows: written where given
        tokens_at_once: int,
        config: LogitsConfig,
        arena: Arena | None = None,  # for ``tables``; by default a new one
    ) -> None:
        """Compute the statistics of the group's tokens, ``tokens_at_once`` at a time."""
        if group.tokens_bound == 0:
            return
        label_logits.launch_label_logits(
            self.hidden,
            self.weight,
            self.head,
            self.labels,
            self.layout,
            group,
            self.label_values,
            self.label_slope,
            self.reference,
        )
        columns = 0 if exps is None else exps.shape[1]
        blocks = logits.vocabulary_blocks(self.weight.shape[0], columns, config)
        needs = self.tables(columns, tokens_at_once, config)
        arena = arena or Arena(sum(need.bytes for need in needs), self.hidden.device)
        sums, flagged = (arena.take(need) for need in needs)
        for offset in range(0, group.tokens_bound, tokens_at_once):
            bound = min(tokens_at_once, group.tokens_bound - offset)
            logits.launch_logits(
                self.hidden,
                self.weight,
                self.head,
                self.labels,
                self.layout,
                group,
                self.reference,
                exps,
                sums,
                config,
                token_offset=offset,
                tokens_bound=bound,
            )
            rows.launch_token_statistics(
                self.head,
                self.layout,
                group,
                sums,
                self.reference,
                self.label_values,
                self.statistics,
                self.rest,
                flagged,
                blocks=blocks,
                token_offset=offset,
                tokens_bound=bound,
            )
            rescue.launch_rescue(
                self.hidden,
                self.weight,
                self.head,
                self.labels,
                self.layout,
                group,
                self.reference,
                exps,
                sums,
                self.label_values,
                self.statistics,
                self.rest,
                flagged,
                config,
                token_offset=offset,
                tokens_bound=bound,
            )

    def sum_samples(
        self,
        group: Group,
        token_weight: Tensor,  # (all samples,) float64
        sums: Tensor,  # (all samples, 4) float64, columns 0 to 2 written
        scale: Tensor,  # (all samples,) float64, written
    ) -> None:
        """Sum the statistics to samples; compute ``share`` and ``label_signal``."""
        rows.launch_sample_sums(
            self.statistics,
            self.rest,
            self.label_slope,
            self.layout,
            group,
            token_weight,
            sums,
            scale,
            self.share,
            self.label_signal,
            self.head,
        )

    def exponentials(self, group: Group, exps: Tensor, config: LogitsConfig, *, first_column: int) -> None:
        """Compute E, (slots, columns), of the vocabulary rows from ``first_column`` on with the known references."""
        logits.launch_logits(
            self.hidden,
            self.weight,
            self.head,
            self.labels,
            self.layout,
            group,
            self.reference,
            exps,
            None,
            config,
            first_column=first_column,
        )
