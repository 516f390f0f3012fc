"""Render a conversation as text with a chat template.

The template gets the record's own messages, as a trainer gives them to ``apply_chat_template``. What it cannot express
is rewritten first (:mod:`donod_fast.data.recasting`), so that no text of a row is lost silently.
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from donod_fast.data.probes import Kinds, probe_of
from donod_fast.data.recasting import RECASTS, RecastPlan, plan_recasts, recast
from donod_fast.data.templates import ResolvedTemplate
from donod_fast.data.types import Conversation, Message, SampleError, Status
from donod_fast.errors import ModelError
from donod_fast.system.limits import MESSAGES, TEMPLATE_CHARACTERS, UNMARKED_MESSAGES

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_TODAY = re.compile(r"""\bstrftime_now\(\s*("[^"]*"|'[^']*')\s*\)""")
# Some templates write today's date into the prompt; scores must not depend on the date of the run.
# This is the date that Llama 3's own template falls back to.
_PINNED_DATE = datetime(2024, 7, 26, tzinfo=UTC)

PINNED_DATE = f"today's date written as {_PINNED_DATE:%d %B %Y}"
QUOTED_ARGUMENTS = "arguments that are JSON text written as a quoted string, as the template writes text"


@dataclass(frozen=True, slots=True)
class Rendering:
    """A conversation as text.

    Attributes:
        conversation: the messages as they were rendered (rewritten if the template needed it).
        text: the template's output.
        marked: ``(start, end)`` character bounds of its ``{% generation %}`` blocks, in order.
        recasts: what was rewritten, in words.
        drops_reasoning: whether the reasoning of the last reply is left out.
        missing: another text that is left out, in words; ``""`` if there is none.
    """

    conversation: Conversation
    text: str
    marked: tuple[tuple[int, int], ...]
    recasts: tuple[str, ...] = ()
    drops_reasoning: bool = False
    missing: str = ""


class Renderer:
    """Writes conversations with one template and one tokenizer's special tokens.

    Attributes:
        has_marks: whether the template marks what the assistant writes (``{% generation %}``).
        markers: the tokenizer's special and added tokens as text.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: ResolvedTemplate) -> None:
        self._tokenizer = tokenizer
        self._source = _TODAY.sub(_pinned_date, template.source_text)
        self.has_marks = template.has_marks
        self.markers = tuple(sorted({*map(str, tokenizer.added_tokens_encoder), *tokenizer.all_special_tokens}))
        self._special_tokens = {k: v for k, v in tokenizer.special_tokens_map.items() if isinstance(v, str)}
        self._plans: Kinds[str, RecastPlan] = Kinds()
        _within_bounds()
        self._refuse_broken(template.name)
        self._notes = (PINNED_DATE,) if self._writes_date(template.source_text) else ()

    @property
    def source(self) -> str:
        """The text of the template, with a fixed date."""
        return self._source

    def write(self, conversation: Conversation) -> Rendering:
        """Render a whole conversation, rewritten so that the template can express it.

        Raises:
            SampleError: TEMPLATE_FAILED with the template's own message; REASONING_DROPPED if it refuses reasoning.
        """
        most = MESSAGES if self.has_marks else UNMARKED_MESSAGES
        if len(conversation.messages) > most:
            detail = f"the conversation has {len(conversation.messages):,} messages, and {most:,} are allowed; split it"
            raise SampleError(Status.TEMPLATE_FAILED, detail)
        plan = self._plan(conversation)
        try:
            found = self.render(recast(conversation, plan.recasts))
        except SampleError:
            if plan.drops_reasoning:
                raise SampleError(Status.REASONING_DROPPED, dropped_reasoning()) from None
            raise
        quoted = (QUOTED_ARGUMENTS,) if plan.quotes_arguments else ()
        names = (*(RECASTS[name] for name in plan.recasts), *quoted, *self._notes)
        return Rendering(found.conversation, found.text, found.marked, names, plan.drops_reasoning, plan.missing)

    def recast(self, conversation: Conversation) -> Conversation:
        """The conversation rewritten so that the template can express it."""
        return recast(conversation, self._plan(conversation).recasts)

    def render(
        self, conversation: Conversation, count: int | None = None, *, add_generation_prompt: bool = False
    ) -> Rendering:
        """Render the first ``count`` messages (None: all) exactly as given.

        Raises:
            SampleError: TEMPLATE_FAILED with the template's own message.
        """
        messages = [message.for_template() for message in conversation.messages[:count]]
        try:
            text, marked = self._run(messages, conversation, add_generation_prompt)
        except MemoryError:
            raise
        except Exception as error:  # a template can raise any exception
            begins = " (the conversation begins with the assistant)" if _begins_with_reply(messages) else ""
            detail = f"the chat template failed{begins}: {_first_line(error)}"
            raise SampleError(Status.TEMPLATE_FAILED, detail) from error
        return Rendering(conversation, text, marked)

    def text(
        self, conversation: Conversation, count: int | None = None, *, add_generation_prompt: bool = False
    ) -> str | None:
        """The text of :meth:`render`; None if the template raises an error."""
        try:
            return self.render(conversation, count, add_generation_prompt=add_generation_prompt).text
        except SampleError:
            return None

    def _plan(self, conversation: Conversation) -> RecastPlan:
        """The rewrites that conversations of this kind need; found once for each kind."""
        probe = probe_of(conversation)
        return self._plans.find(probe.key, lambda: plan_recasts(probe.conversation, self.text))

    def _writes_date(self, source: str) -> bool:
        """Whether the template writes today's date, which is replaced by a fixed one."""
        if self._source == source:
            return False
        asked = Conversation((Message("user", "probe"),))
        fixed, pinned = self.text(asked), self._source
        self._source = _TODAY.sub('"zqdateqz"', source)
        other, self._source = self.text(asked), pinned
        return fixed != other

    def _run(
        self, messages: list[dict[str, Any]], conversation: Conversation, add_generation_prompt: bool
    ) -> tuple[str, tuple[tuple[int, int], ...]]:
        tools = [dict(tool) for tool in conversation.tools] or None
        documents = [dict(document) for document in conversation.documents] or None
        characters = sum(len(message.content) for message in conversation.messages)
        render, metered = _within_bounds()
        with metered(len(messages), characters, lambda: len(str(tools or "")) + len(str(documents or ""))):
            texts, marked = render(
                conversations=[messages],
                tools=tools,
                documents=documents,
                chat_template=self._source,
                return_assistant_tokens_mask=self.has_marks,
                add_generation_prompt=add_generation_prompt,
                **self._special_tokens,
            )
        return texts[0], tuple(marked[0]) if self.has_marks else ()

    def _refuse_broken(self, name: str) -> None:
        from jinja2 import TemplateSyntaxError

        from donod_fast.data.template_costs import TooCostlyError

        if len(self._source) > TEMPLATE_CHARACTERS:
            raise ModelError(
                f"the chat template {name!r} has {len(self._source):,} characters, and {TEMPLATE_CHARACTERS:,} are "
                "allowed; is it the right file?"
            )
        turns = (Message("user", "probe"), Message("assistant", "probe"))
        for messages in ([], [turn.for_template() for turn in turns]):
            try:
                self._run(messages, Conversation(turns), False)
            except TemplateSyntaxError as error:
                raise ModelError(f"the chat template {name!r} is not valid Jinja: {_first_line(error)}") from error
            except (SyntaxError, MemoryError, RecursionError) as error:  # of the program that Jinja makes of it
                raise ModelError(f"the chat template {name!r} is too large or nested too deep") from error
            except TooCostlyError as error:
                raise ModelError(
                    f"the chat template {name!r} does too much for two short messages: {error}; choose another one "
                    "(--template)"
                ) from error
            except ImportError as error:  # transformers requires a newer jinja2
                raise ModelError(f"chat templates cannot be rendered: {_first_line(error)}") from error
            except Exception:
                pass


@functools.cache  # not kept by a renderer, which is sent to other processes
def _within_bounds() -> tuple[Any, Any]:
    """Transformers' function that renders within bounds, and what sets the bounds of one conversation.

    It gives text and marks in one pass, but is not a public function. Where it is missing nothing else renders: the
    public method sets no bounds.

    Raises:
        ModelError: this release of transformers has no such function.
    """
    from donod_fast.data.bounded_jinja import bounded_render
    from donod_fast.data.template_costs import metered

    try:
        from transformers.utils.chat_template_utils import render_jinja_template
    except ImportError:
        render = None
    else:
        render = bounded_render(render_jinja_template)
    if render is None:
        raise ModelError(
            "chat templates cannot be rendered within bounds of time and memory by this release of "
            "transformers; install one that the requirements of donod_fast name"
        )
    return render, metered


def dropped_reasoning() -> str:
    """What to say of a reply whose reasoning the template leaves out."""
    return (
        "the chat template leaves out the reasoning of the last reply, so a model would not be trained on it; "
        "choose a template that writes it, or remove the reasoning from the record"
    )


def _begins_with_reply(messages: list[dict[str, Any]]) -> bool:
    return bool(messages) and messages[0].get("role") == "assistant"


def _pinned_date(match: re.Match[str]) -> str:
    return json.dumps(_PINNED_DATE.strftime(match[1][1:-1]))


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
