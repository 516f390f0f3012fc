"""What is planned for a row before its texts are tokenised: the whole text, and which of its characters to score."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from donod_fast.data.spans import Span
from donod_fast.data.tokenizing import Encoded


@dataclass(frozen=True, slots=True)
class MaskPlan:
    """A text to tokenise, and which of its characters to score.

    Attributes:
        text: the whole text.
        spans: the character ranges to score, in order; those from generation marks need no check of the prompt.
        mask: how the spans were found.
        has_prompt: whether a part of the text must stay unscored.
        framed: whether the tokenizer's front tokens and an end token are added around the text.
        unmarked: finds the spans to use instead if a marked text begins in the middle of a token.
        recasts: what was rewritten for the template, in words.
    """

    text: str
    spans: tuple[Span, ...]
    mask: str
    has_prompt: bool
    framed: bool = False
    unmarked: Callable[[], MaskPlan] | None = None
    recasts: tuple[str, ...] = ()

    def needed(self, longest: int | None) -> Sequence[str]:
        """The texts to tokenise: the whole, and those whose tokens must be a prefix of its own.

        Of a very long text, with more than ``longest`` characters, most of them lie beyond the length limit.
        Those are tokenised only if they are needed.
        """
        is_long = longest is not None and len(self.text) > longest
        starts = [span.start for span in self.spans if span.start and not span.marked]
        return [self.text, *(self.text[:at] for at in starts if longest is None or not is_long or at <= longest)]


def marked_begin(text: str, span: Span, whole: Encoded) -> int | None:
    """First token of a marked text; None if that token also covers words in front of it."""
    begin = whole.tokens_before(span.start)
    while begin:
        bounds = whole.bounds(begin - 1)
        if bounds is None or bounds[1] <= span.start:
            break
        if text[bounds[0] : span.start].strip():
            return None
        begin -= 1  # only white space precedes the word in its token: the token belongs to the response
    return begin


__all__ = ["MaskPlan", "marked_begin"]
