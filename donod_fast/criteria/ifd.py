"""IFD, instruction-following difficulty: how much the instruction helps the model to predict the answer.

Two definitions are in use, and neither is a function of the other. The table has a column for each:

- ``ifd_loss`` = loss(answer | instruction) / loss(answer): Cherry LLM (Li et al., arXiv 2308.12032);
- ``ifd_ppl`` = perplexity(answer | instruction) / perplexity(answer) = exp of the difference of the losses:
  Superfiltering (Li et al., arXiv 2402.00530), CodeACT, and K-Means + IFD (arXiv 2504.12687).

Losses are means per token. loss(answer) is computed on the row's scored tokens alone, including the tokens with which
the template closes the turn. In a conversation each scored turn is run separately, and the mean is over the tokens of
all turns. Programs differ in what stands before the lone answer, and their values with it (see ``PREFIXES``):

- by default the tokenizer's beginning-of-text token if the row begins with it, else nothing;
- ``none``: nothing, so that the first token of the answer is not predicted: Superfiltering, DataFlow;
- ``bos``: the tokenizer's beginning-of-text token: OpenDataArena's scorer, and Data-Juicer if the tokenizer adds it;
- ``header``: the chat template's header of a reply, after the beginning-of-text token if the row begins with it;
- ``response``: ``### Response:``, after what the tokenizer puts before a text: Cherry LLM.

A prefix may make the lone answer longer than the length limit; such a row has NaN.

``ifd_unhelped`` marks rows with ``ifd_ppl`` ≥ 1 (equivalent to ``ifd_loss`` ≥ 1, except for rounding): the instruction
does not make the answer more likely, and both papers leave such rows out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from donod_fast.criteria.base import NAN, Bound, Column, Context, Criterion, Need, RowView, Value
from donod_fast.data.types import Status, TokenizedSample
from donod_fast.errors import InputError, suggest

PREFIXES: Mapping[str, str] = MappingProxyType(
    {
        "none": "nothing",
        "bos": "the tokenizer's beginning-of-text token",
        "header": "the chat template's header of a reply",
        "response": "### Response:",
    }
)
"""What may stand before the lone answer, by the names that ``--ifd-prefix`` accepts."""

_RESPONSE = "### Response:"


@dataclass(frozen=True)
class InstructionFollowingDifficulty(Criterion):
    """Instruction-following difficulty; see the module's docstring.

    Attributes:
        prefix: what stands before the lone answer, one of ``PREFIXES``; None for the default.
        begin: ids of the tokenizer's beginning-of-text tokens, of which the row's own is put before the answer; set by
            :meth:`bind`.
        before: ids before the lone answer, after that token; set by :meth:`bind`.
        limit: tokens of the longest row, None for no limit; set by :meth:`bind`.

    Raises:
        InputError: the prefix is not known.
    """

    prefix: str | None = None
    begin: frozenset[int] = frozenset()
    before: tuple[int, ...] = ()
    limit: int | None = None

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

    def __post_init__(self) -> None:
        if self.prefix is not None and self.prefix not in PREFIXES:
            raise InputError(
                f"--ifd-prefix is one of {', '.join(PREFIXES)}, not {self.prefix!r}{suggest(self.prefix, PREFIXES)}"
            )

    def settings(self) -> dict[str, Any]:
        """The prefix; nothing by default, as in folders of earlier releases."""
        return {} if self.prefix is None else {"prefix": self.prefix}

    def bind(self, context: Context) -> Bound:
        """Find the ids of the prefix. Raises InputError if tokenizer or chat template have none."""
        tokenizer = context.tokenizer
        ids = (getattr(tokenizer, "bos_token_id", None), getattr(tokenizer, "cls_token_id", None))
        own = tuple(one for one in ids if isinstance(one, int))
        begin: frozenset[int] = frozenset()
        before: tuple[int, ...] = ()
        match self.prefix:
            case None:
                begin = frozenset(own)
            case "bos" if not own:
                raise InputError("--ifd-prefix bos needs a beginning-of-text token, and this tokenizer has none")
            case "bos":
                before = own[:1]
            case "header":
                begin, before = frozenset(own), context.masker.reply_header()
            case "response":
                before = context.masker.text_ids(_RESPONSE)
        return InstructionFollowingDifficulty(self.prefix, begin, before, context.masker.limit)

    def second_pass(self, sample: TokenizedSample) -> Sequence[TokenizedSample]:
        """A sample for each scored turn alone; none for a turn that leaves nothing to predict."""
        front = sample.input_ids[:1] if sample.input_ids[:1] and sample.input_ids[0] in self.begin else ()
        found = []
        for start, stop in scored_runs(sample.scored):
            before = (*front, *self.before)
            ids = (*before, *sample.input_ids[start:stop])
            if self.before and self.limit is not None and len(ids) > self.limit:
                return ()
            if len(ids) > 1:
                unscored = max(1, len(before))
                flags = (False,) * unscored + (True,) * (len(ids) - unscored)
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
