"""Loss of each token of a record, given all earlier tokens of the rendered record.

One pass measures both the tokens of an instruction, given the template's text and earlier turns, and the tokens of an
answer, given the instruction. The loss of a token is the logarithm of its conditional perplexity.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from donod_fast.data.rendering import Renderer
from donod_fast.data.templates import resolve_template
from donod_fast.data.tokenizing import Encoded, TextEncoder
from donod_fast.data.types import (
    Conversation,
    PlainText,
    PromptCompletion,
    Sample,
    SampleError,
    Status,
    TokenizedSample,
)
from donod_fast.kernels import token_statistics
from donod_fast.models.batching import collate, make_batches
from donod_fast.studies.damoc.fields import TextField
from donod_fast.system.memory import is_out_of_memory

if TYPE_CHECKING:
    from donod_fast.scoring.scorer import Scorer

Placed = tuple[int, int, float]
"""A token of a text: its character range (end exclusive), and its loss in nats; NaN if it has no loss."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A record rendered for the model.

    Attributes:
        text: the complete text, without tokens that the tokenizer adds at the beginning.
        starts: position of each field's text in it; None if the template changes the text.
        spans: character ranges (end exclusive) of the texts whose tokens are measured, in order.
        framed: whether the tokenizer adds its beginning tokens; a template writes them itself.
    """

    text: str
    starts: tuple[int | None, ...]
    spans: tuple[tuple[int, int], ...]
    framed: bool


class TokenLosses:
    """Measures token losses with a scorer's model, tokenizer, template and batches.

    Args:
        scorer: the model.

    Raises:
        ModelError: its template cannot be used.
    """

    def __init__(self, scorer: Scorer) -> None:
        self._scorer = scorer
        tokenizer = scorer.loaded.tokenizer
        self._renderer = Renderer(tokenizer, resolve_template(tokenizer, scorer.masks.template))
        self._encoder = TextEncoder(tokenizer)

    def render(self, sample: Sample, fields: Sequence[TextField], sides: Collection[str]) -> Rendered:
        """Render a sample and locate its texts in order; those of ``sides`` are to be measured.

        Raises:
            SampleError: the template fails, or the sample has no text.
        """
        match sample:
            case Conversation():
                text = self._renderer.write(sample).text
            case PromptCompletion(prompt, completion):
                text = prompt + completion
            case PlainText(text):
                pass
            case _:
                raise SampleError(Status.UNKNOWN_FORMAT, "a row of tokens has no text to compress")
        starts: list[int | None] = []
        spans = []
        place = 0
        for field in fields:
            bare = field.text.strip()  # as templates do
            found = text.find(bare, place) if bare else -1
            starts.append(None if found < 0 else found - (len(field.text) - len(field.text.lstrip())))
            if found >= 0:
                place = found + len(bare)
                spans += [(found, place)] * (field.side in sides)
        return Rendered(text, tuple(starts), tuple(spans), not isinstance(sample, Conversation))

    def lengths(self, texts: Sequence[str]) -> dict[str, int]:
        """Tokens of each text alone; empty if the tokenizer refuses the text."""
        found = self._encoder.encode(texts)
        return {text: len(one.ids) if isinstance(one, Encoded) else 0 for text, one in found.items()}

    def measure(self, records: Sequence[Rendered]) -> list[list[Placed] | SampleError]:
        """The tokens of each rendered record with their positions and losses, or the reason why there are none.

        The loss is NaN for tokens outside the spans, for a first token with nothing before it, for tokens beyond the
        model's length, and for all tokens of a record that does not fit in memory.
        """
        encoded = self._encoder.encode([record.text for record in records])
        found: list[list[Placed] | SampleError] = []
        samples, targets = [], []
        for record in records:
            one = encoded[record.text]
            if isinstance(one, SampleError):
                found.append(one)
                continue
            if one.ids and one.bounds(0) is None:
                detail = "a slow tokenizer does not give the positions of tokens; load the model with a fast one"
                found.append(SampleError(Status.TOKENIZER_FAILED, detail))
                continue
            placed = [(*(one.bounds(token) or (0, 0)), math.nan) for token in range(len(one.ids))]
            found.append(placed)
            front = self._encoder.framed(record.text, one.ids)[0] if record.framed else ()
            ids = (*front, *one.ids)[: self._scorer.loaded.max_length]
            wanted = (
                [False] * len(front)
                + [any(first < end and last > start for start, end in record.spans) for first, last, _ in placed]
            )[: len(ids)]
            wanted[:1] = [False] * len(wanted[:1])  # nothing predicts the first token
            if True in wanted:
                samples.append(TokenizedSample(0, "", Status.SCORED, "", ids, tuple(wanted), len(ids)))
                targets.append((placed, [at - len(front) for at, flag in enumerate(wanted) if flag]))
        for (placed, places), losses in zip(targets, self._losses(samples), strict=True):
            for place, loss in zip(places, losses, strict=True):
                placed[place] = (*placed[place][:2], loss)
        return found

    def _losses(self, samples: Sequence[TokenizedSample]) -> list[list[float]]:
        """Losses of the scored tokens of each sample; tokens after the last of them are not processed."""
        trunk = self._scorer.trunk
        found: list[list[float]] = [[math.nan] * sample.scored_tokens for sample in samples]
        groups = make_batches(samples, self._scorer.sample_scorer.token_budget, trunk.packs, trunk.rope)
        while groups:
            group = groups.pop(0)
            losses = self._tried(samples, group)
            if losses is not None:
                at = 0
                for member in group:
                    count = samples[member].scored_tokens
                    found[member] = losses[at : at + count]
                    at += count
            elif len(group) > 1:  # a single sample that does not fit has no losses
                half = len(group) // 2
                groups[:0] = [group[:half], group[half:]]
        return found

    def _tried(self, samples: Sequence[TokenizedSample], group: Sequence[int]) -> list[float] | None:
        """The losses of a batch, sample by sample; None if memory runs out."""
        trunk, head = self._scorer.trunk, self._scorer.head
        try:
            with torch.inference_mode():
                batch = collate(samples, group, packed=trunk.packs, rope=trunk.rope)
                device = head.weight.device
                statistics = token_statistics(
                    trunk.scored_states(batch).to(device),
                    head.weight,
                    batch.labels.to(device),
                    bias=head.bias,
                    logit_scale=head.logit_scale,
                    softcap=head.softcap,
                )
                return [float(loss) for loss in statistics.loss.tolist()]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        return None


__all__ = ["Placed", "Rendered", "TokenLosses"]
