"""Convert records into tokens and a label mask that says which tokens are scored; the mask is verified per row.

A conversation is rendered by a chat template, any other text is used unchanged; the text is tokenised
once, and the characters to be scored are mapped to tokens by the tokenizer's offsets. If a prompt
precedes them, its tokens alone must be a prefix of the full token sequence: otherwise the model would be
scored on tokens that it never has to predict.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from donod_fast.data.bounded import shared_length, stripped_length
from donod_fast.data.formats import Reading, carried_values, check_format, read_record, record_id
from donod_fast.data.mask_plans import MaskPlan, marked_begin
from donod_fast.data.mask_profiles.base import Masked, ProfilePlan
from donod_fast.data.mask_profiles.choosing import make_profile, profile_template
from donod_fast.data.mask_profiles.names import PROFILES
from donod_fast.data.reading.record_hashes import record_hash
from donod_fast.data.rendering import Renderer
from donod_fast.data.settings import MaskSettings
from donod_fast.data.spans import Span, TurnFinder, assistant_turns
from donod_fast.data.templates import resolve_template
from donod_fast.data.tokenizing import Encoded, TextEncoder
from donod_fast.data.types import (
    IGNORE_INDEX,
    Conversation,
    PlainText,
    PromptCompletion,
    Record,
    Sample,
    SampleError,
    Status,
    TokenizedSample,
    TokenRow,
)
from donod_fast.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# Rows that are encoded per call: enough for the tokenizer's own threads, and little memory.
_CHUNK = 256
# The same in characters of their texts: an encoding takes about 200 bytes for each.
_CHUNK_CHARACTERS = 1 << 21

Encodings = Mapping[str, Encoded | SampleError]


@dataclass(frozen=True, slots=True)
class _Row:
    record: Record
    id: str
    reading: Reading


class Masker:
    """Converts records into tokens and flags, one output row per input row.

    Args:
        tokenizer: a transformers tokenizer, fast or slow.
        settings: how to read and mask rows.
        vocab_size: number of rows of the model's output layer; greater or equal ids are refused.
        carry: columns of the records to copy into the samples, as text.

    Attributes:
        tokenizer: the tokenizer.
        carry: the columns.

    Raises:
        InputError: a setting has an unknown value, or the masks of a trainer need a package that is missing.
        ModelError: the tokenizer's own template was requested but is missing, or the template is not valid Jinja, or
            the trainer whose masks were asked for would refuse it.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, settings: MaskSettings, *, vocab_size: int, carry: Sequence[str] = ()
    ) -> None:
        if vocab_size < 1:
            raise InputError(f"vocab_size must be positive, not {vocab_size}")
        self._settings = settings = settings if settings.like is None else settings.limited(None)
        self._rules = settings.rules
        check_format(self._rules.format)
        self._vocab_size = vocab_size
        self.carry = tuple(carry)
        self.tokenizer = tokenizer
        like = settings.like
        self._template = profile_template(like, tokenizer, resolve_template(tokenizer, settings.template))
        self._renderer = Renderer(tokenizer, self._template)
        self._turns = TurnFinder(self._renderer)
        # LLaMA-Factory cuts rows in proportion to their whole lengths.
        self._encoder = TextEncoder(tokenizer, None if like == "llama-factory" else settings.max_length)
        self._profile = (
            None
            if like is None
            else make_profile(
                like, self._renderer, self._encoder, settings.max_length, last=settings.train_on == "last"
            )
        )

    @property
    def mask(self) -> str:
        """How assistant turns are found: by the template's ``"generation"`` marks, or by the prompt as a ``"prefix"``.

        A conversation with unreliable marks is also masked by its prompt. With a mask profile its name.
        """
        if self._settings.like is not None:
            return self._settings.like
        return "generation" if self._renderer.has_marks else "prefix"

    @property
    def limit(self) -> int | None:
        """Tokens of the longest row; None for no limit."""
        return self._settings.max_length

    def describe(self) -> dict[str, Any]:
        """The settings that decide tokens and masks, in plain values for the manifest."""
        return {
            **self._rules.as_json(),
            "template": self._template.name,
            "template_sha256": self._template.sha256,
            "train_on": self._settings.train_on,
            "max_length": self._settings.max_length,
            "vocab_size": self._vocab_size,
            **({} if self._settings.like is None else {"like": self._settings.like}),
        }

    def tokenize(self, record: Record) -> TokenizedSample:
        """Tokenise and mask one row; a row that cannot be scored is returned with its status."""
        return self.tokenize_many([record])[0]

    def tokenize_many(self, records: Sequence[Record]) -> list[TokenizedSample]:
        """Tokenise and mask rows in order: the same results as one row at a time, in fewer calls."""
        done: list[TokenizedSample] = []
        for begin in range(0, len(records), _CHUNK):
            done += self._tokenize_chunk(records[begin : begin + _CHUNK])
        if self.carry:
            done = [
                replace(sample, carried=carried_values(record, self.carry))
                for sample, record in zip(done, records, strict=True)
            ]
        return done

    def text_of(self, record: Record) -> str | None:
        """The text of a row as it would be tokenised, also if it cannot be scored; None if it has no text."""
        sample = read_record(record, self._rules).sample
        try:
            match sample:
                case Conversation():
                    return self._renderer.write(sample).text
                case PromptCompletion(prompt, completion):
                    return prompt + completion
                case PlainText(text):
                    return text
        except SampleError:
            pass
        return None

    def text_ids(self, text: str) -> tuple[int, ...]:
        """Tokens of a text, after those that the tokenizer puts before every text.

        Raises:
            InputError: the tokenizer fails.
        """
        return (*self._encoder.front, *self._ids(text))

    def reply_header(self) -> tuple[int, ...]:
        """Tokens of the text with which the chat template asks for a reply: its generation prompt.

        Raises:
            InputError: the template has no generation prompt, or the tokenizer fails.
        """
        header = self._turns.header
        if not header.strip():
            raise InputError(f"the chat template {self._template.name!r} has no generation prompt, and so no header")
        return self._ids(header)

    def _ids(self, text: str) -> tuple[int, ...]:
        found = self._encoder.encode([text])[text]
        if isinstance(found, SampleError):
            raise InputError(found.detail)
        return tuple(found.ids)

    def _tokenize_chunk(self, records: Sequence[Record]) -> list[TokenizedSample]:
        rows = [_Row(record, record_id(record), read_record(record, self._rules)) for record in records]
        done: list[TokenizedSample] = []
        planned: list[tuple[_Row, MaskPlan | ProfilePlan | TokenRow | SampleError]] = []
        texts: list[str] = []
        characters = 0
        for row in rows:
            plan = self._plan(row.reading.sample)
            planned.append((row, plan))
            if isinstance(plan, MaskPlan | ProfilePlan):
                new = plan.texts if isinstance(plan, ProfilePlan) else plan.needed(self._encoder.longest)
                texts += new
                characters += sum(map(len, new))
            if characters > _CHUNK_CHARACTERS or row is rows[-1]:
                encoded = self._encoder.encode(texts)
                done += [self._finish(*pair, encoded) for pair in planned]
                planned, texts, characters = [], [], 0
        return done

    def _plan(self, sample: Sample | SampleError) -> MaskPlan | ProfilePlan | TokenRow | SampleError:
        if self._profile is not None and not isinstance(sample, SampleError | TokenRow):
            try:
                return self._profile.plan(sample)
            except SampleError as error:
                return error
        match sample:
            case Conversation():
                try:
                    return self._plan_conversation(sample)
                except SampleError as error:
                    return error
            case PromptCompletion(prompt, completion):
                text = prompt + completion
                return MaskPlan(text, (Span(len(prompt), len(text)),), "prefix", bool(prompt.strip()), framed=True)
            case PlainText(text):
                return MaskPlan(text, (Span(0, len(text)),), "text", False, framed=True)
            case _:
                return sample

    def _plan_conversation(self, conversation: Conversation) -> MaskPlan:
        rendering = self._renderer.write(conversation)
        messages = rendering.conversation.messages
        turns = assistant_turns(messages)
        wanted = [at for at in (turns[-1:] if self._settings.train_on == "last" else turns) if messages[at].scored]
        if not wanted:
            raise SampleError(Status.ALL_MASKED, "the conversation has no assistant turn to be scored")
        has_prompt = any(m.content.strip() for at, m in enumerate(messages) if at not in wanted)

        def plan(spans: Sequence[Span], unmarked: Callable[[], MaskPlan] | None) -> MaskPlan:
            mask = "generation" if all(span.marked for span in spans) else "prefix"
            return MaskPlan(
                rendering.text, tuple(spans), mask, has_prompt, unmarked=unmarked, recasts=rendering.recasts
            )

        spans = self._turns.spans(rendering, wanted)
        # A text that is scored whole has a status of its own.
        if rendering.missing and sum(span.end - span.start for span in spans) < stripped_length(rendering.text):
            detail = f"the chat template leaves out {rendering.missing}; choose another template"
            raise SampleError(Status.TEMPLATE_FAILED, detail)
        return plan(
            spans,
            lambda: plan([self._turns.by_prompt(rendering, at) for at in wanted], None),
        )

    def _finish(
        self, row: _Row, plan: MaskPlan | ProfilePlan | TokenRow | SampleError, encoded: Encodings
    ) -> TokenizedSample:
        try:
            match plan:
                case SampleError():
                    raise plan
                case TokenRow():
                    masked = _token_row(plan)
                case ProfilePlan():
                    masked = plan.finish(lambda text: self._encoded(text, encoded))
                case _:
                    masked = self._mask(plan, encoded)
        except SampleError as error:
            return _refused(row, error.status, error.detail)
        return self._checked(row, masked)

    def _mask(self, plan: MaskPlan, encoded: Encodings) -> Masked:
        whole = self._encoded(plan.text, encoded)
        flags = [False] * len(whole.ids)
        for span in plan.spans:
            if whole.ends_before(min((span.start, *span.other_starts))):
                break  # this span and those after it lie beyond the length limit
            if span.marked:
                begin = marked_begin(plan.text, span, whole)
                if begin is None:
                    assert plan.unmarked is not None
                    return self._mask(plan.unmarked(), encoded)
            else:
                begin = self._proved_begin(plan.text, span, whole, encoded)
            end = whole.tokens_before(span.end)
            if end is None:  # no offsets: count the tokens that the text up to the end shares with the full text
                end = shared_length(self._encoded(plan.text[: span.end], encoded).ids, whole.ids)
            flags[begin:end] = [True] * (end - begin)
        # Text that is not scored may follow after the cut.
        follows = whole.is_cut and sum(span.end - span.start for span in plan.spans) < len(plan.text)
        has_prompt = plan.has_prompt and not follows
        if not plan.framed:
            return Masked(whole.ids, flags, plan.mask, has_prompt, plan.recasts, whole.is_cut)
        front, back = self._encoder.framed(plan.text, whole.ids)
        ids = [*front, *whole.ids, *back]
        flags = [False] * len(front) + flags + [True] * len(back)
        return Masked(ids, flags, plan.mask, has_prompt, plan.recasts, whole.is_cut)

    def _proved_begin(self, text: str, span: Span, whole: Encoded, encoded: Encodings) -> int:
        """Number of tokens of the prompt, after checking that they are a prefix of the full sequence."""
        ids: list[int] = []
        for start in (*span.other_starts[::-1], span.start)[::-1]:
            ids = self._encoded(text[:start], encoded).ids if start else []
            if whole.begins_with(ids):
                return len(ids)
        ids = self._encoded(text[: span.start], encoded).ids
        place = shared_length(ids, whole.ids)
        alone = self._encoder.names(ids[place : place + 3])
        joined = self._encoder.names(whole.ids[place : place + 3])
        raise SampleError(
            Status.PROMPT_NOT_PREFIX,
            f"the prompt's tokens are not a prefix of the full sequence: from token {place} on, the prompt "
            f"alone is {alone}, but with the response it is {joined}; let the prompt end where a token ends "
            "(move white space at its end to the start of the response)",
        )

    def _encoded(self, text: str, encoded: Encodings) -> Encoded:
        found = encoded.get(text) or self._encoder.encode([text])[text]
        if isinstance(found, SampleError):
            raise found
        return found

    def _checked(self, row: _Row, masked: Masked) -> TokenizedSample:
        """Check the mask and cut the row to the length limit; a bad row is returned with its status and cause."""
        ids, flags, total = masked.ids, masked.flags, masked.total or len(masked.ids)
        highest, lowest = max(ids, default=0), min(ids, default=0)
        if highest >= self._vocab_size or lowest < 0:
            wrong = highest if highest >= self._vocab_size else lowest
            detail = f"token id {wrong} is outside the model's vocabulary of {self._vocab_size}"
            return _refused(row, Status.INVALID_TOKENS, detail, total)
        if masked.has_prompt and total and all(flags):
            detail = "every token would be scored although there is a prompt: the template does not write the prompt"
            return _refused(row, Status.ALL_SCORED, detail, total)
        flags[:1] = [False] * bool(flags)  # no position predicts the first token
        if True not in flags and not masked.is_cut and total == len(ids):
            return _refused(row, Status.ALL_MASKED, "no token is left to score", total)
        limit = self._settings.max_length
        truncated = limit is not None and total > limit
        number = f"at least {total}" if masked.is_cut else str(total)
        if truncated:
            if self._settings.like is not None and PROFILES[self._settings.like].drops_long:
                trainer = PROFILES[self._settings.like].trainer
                detail = f"{number} tokens, and {trainer} drops rows of more than {limit} (--max-length)"
                return _refused(row, Status.TOO_LONG, detail, total)
            ids, flags = ids[:limit], flags[:limit]
            if True not in flags:
                detail = (
                    f"no token to score within the first {limit} of {number} tokens; raise the length limit "
                    "(--max-length) if the model allows it, or shorten the prompt"
                )
                return _refused(row, Status.TOO_LONG, detail, total)
        remarks = [f"recast: {'; '.join(masked.recasts)}"] if masked.recasts else []
        if masked.is_cut:
            remarks.append(f"{number} tokens: the text was tokenised only as far as the length limit needs")
        return TokenizedSample(
            row=row.record.row,
            id=row.id,
            status=Status.SCORED,
            detail="; ".join(remarks),
            input_ids=tuple(ids),
            scored=tuple(flags),
            tokens=total,
            truncated=truncated,
            format=row.reading.format,
            mask=masked.mask,
            unused=row.reading.unused,
            excluded=row.reading.excluded,
            recasts=masked.recasts,
            hash=record_hash(row.record),
        )


def _token_row(row: TokenRow) -> Masked:
    ids, labels = row.input_ids, row.labels
    if len(ids) != len(labels):
        raise SampleError(Status.INVALID_TOKENS, f"{len(ids)} input_ids, but {len(labels)} labels")
    for at, (token, label) in enumerate(zip(ids, labels, strict=True)):
        if label not in (IGNORE_INDEX, token):
            raise SampleError(
                Status.INVALID_TOKENS,
                f"label {label} at {at} is neither {IGNORE_INDEX} nor the token there, {token}; labels are "
                "aligned with input_ids, not shifted",
            )
    return Masked(ids, [label != IGNORE_INDEX for label in labels], "labels", False)


def _refused(row: _Row, status: Status, detail: str, tokens: int = 0) -> TokenizedSample:
    origin = f"{row.record.file}, {row.record.place}: "
    if not detail.startswith(origin):
        detail = origin + detail
    detail = detail.encode("utf-8", errors="backslashreplace").decode("utf-8")
    reading = row.reading
    return TokenizedSample(
        row.record.row,
        row.id,
        status,
        detail,
        tokens=tokens,
        format=reading.format,
        unused=reading.unused,
        excluded=reading.excluded,
        hash=record_hash(row.record),
    )


__all__ = ["MaskSettings", "Masker"]
