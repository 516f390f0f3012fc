"""IFD, instruction-following difficulty: how much the instruction helps the model to predict the answer.

Two definitions are in use, and neither is a function of the other. The table has a column for each:

- ``ifd_loss`` = loss(answer | instruction) / loss(answer): Cherry LLM (Li et al., arXiv 2308.12032);
- ``ifd_ppl`` = perplexity(answer | instruction) / perplexity(answer) = exp of the difference of the losses:
  Superfiltering (Li et al., arXiv 2402.00530), CodeACT, and K-Means + IFD (arXiv 2504.12687).

Losses are means per token. loss(answer) is computed on the row's scored tokens alone, including the tokens with which
the template closes the turn. If the row begins with the tokenizer's beginning-of-text token, that token is put before
them. Without such a token nothing precedes the first token of the answer, so it is not predicted; the programs of both
papers do the same. In a conversation each scored turn is run separately, and the mean is over the tokens of all turns.

``ifd_unhelped`` marks rows with ``ifd_ppl`` ≥ 1 (equivalent to ``ifd_loss`` ≥ 1, except for rounding): the instruction
does not make the answer more likely, and both papers leave such rows out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from donod_fast.criteria.base import NAN, Bound, Column, Context, Criterion, Need, RowView, Value
from donod_fast.data.types import Status, TokenizedSample


@dataclass(frozen=True)
class InstructionFollowingDifficulty(Criterion):
    """Instruction-following difficulty; see the module's docstring.

    Attributes:
        begin: ids of the tokenizer's beginning-of-text tokens; set by :meth:`bind`.
    """

    begin: frozenset[int] = frozenset()

    name = "ifd"
    needs = frozenset({Need.SECOND_PASS})

    @property
    def columns(self) -> tuple[Column, ...]:
        """Four columns."""
        return (
            Column("answer_loss", "loss per token of the answer without its instruction, in nats"),
            Column("ifd_loss", "loss(answer | instruction) / loss(answer)", "high"),
            Column("ifd_ppl", "perplexity(answer | instruction) / perplexity(answer)", "high"),
            Column("ifd_unhelped", "IFD ≥ 1: the instruction does not help", kind="flag"),
        )

    def bind(self, context: Context) -> Bound:
        """Read the beginning-of-text tokens from the tokenizer."""
        tokenizer = context.tokenizer
        ids = (getattr(tokenizer, "bos_token_id", None), getattr(tokenizer, "cls_token_id", None))
        return InstructionFollowingDifficulty(frozenset(i for i in ids if isinstance(i, int)))

    def second_pass(self, sample: TokenizedSample) -> Sequence[TokenizedSample]:
        """A sample for each scored turn alone; none for a turn that leaves nothing to predict."""
        front = sample.input_ids[:1] if sample.input_ids[:1] and sample.input_ids[0] in self.begin else ()
        found = []
        for start, stop in scored_runs(sample.scored):
            ids = (*front, *sample.input_ids[start:stop])
            if len(ids) > 1:
                flags = (False,) + (True,) * (len(ids) - 1)
                found.append(TokenizedSample(sample.row, sample.id, Status.SCORED, "", ids, flags, len(ids)))
        return found

    def of_row(self, row: RowView) -> Sequence[Value]:
        """Ratios of the two passes; NaN if the answer alone leaves nothing to predict."""
        tokens = sum(count for _, count in row.second)
        alone = sum(loss for loss, _ in row.second) / tokens if tokens else NAN
        if not math.isfinite(alone):
            return NAN, NAN, NAN, None
        difference = row.mean_loss - alone
        by_loss = row.mean_loss / alone if alone > 0 else NAN
        return alone, by_loss, math.exp(min(difference, 700.0)), difference >= 0


def scored_runs(scored: Sequence[bool]) -> Iterator[tuple[int, int]]:
    """Start and end (exclusive) of each contiguous run of scored tokens."""
    start = None
    for at, flag in enumerate((*scored, False)):
        if flag and start is None:
            start = at
        elif not flag and start is not None:
            yield start, at
            start = None


__all__ = ["InstructionFollowingDifficulty", "scored_runs"]
