"""Render a conversation as text, rewritten first so that the chat template can express all of it.

A template that does not support system messages, tools or tool calls leaves them out silently.
Each such ability is therefore probed once with sentinel texts; content that a template cannot render is
rewritten as messages that it can render, so that no content of a row is lost silently.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from donod_fast.data.templates import ResolvedTemplate
from donod_fast.data.types import Conversation, Message, SampleError, Status
from donod_fast.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
_TODAY = re.compile(r"""\bstrftime_now\(\s*("[^"]*"|'[^']*')\s*\)""")
# Some templates write today's date into the prompt; scores must not depend on the date of the run.
# This is the date that Llama 3's own template falls back to.
_PINNED_DATE = datetime(2024, 7, 26, tzinfo=UTC)

_TURNS = {role: f"zq{role}qz" for role in ("system", "user", "assistant", "tool")}
_CALL = {"type": "function", "function": {"name": "zqnameqz", "arguments": {"zqkeyqz": "zqvalueqz"}}}
_OTHER_CALL = {
    "type": "function",
    "function": {"name": "zqothernameqz", "arguments": {"zqkeyqz": "zqotherqz"}},
}
_CALL_SHOWN = ("zqnameqz", "zqkeyqz", "zqvalueqz")
_TOOL = {
    "type": "function",
    "function": {
        "name": "zqtoolqz",
        "description": "zqdescriptionqz",
        "parameters": {
            "type": "object",
            "properties": {"zqkeyqz": {"type": "string", "description": "zqhelpqz"}},
        },
    },
}
_TOOL_SHOWN = ("zqtoolqz", "zqdescriptionqz", "zqkeyqz")


@dataclass(frozen=True, slots=True)
class Rendering:
    """A conversation as text.

    Attributes:
        conversation: the messages as they were rendered (rewritten if the template needed it).
        text: the template's output.
        marked: ``(start, end)`` character bounds of its ``{% generation %}`` blocks, in order.
    """

    conversation: Conversation
    text: str
    marked: tuple[tuple[int, int], ...]


class Renderer:
    """Writes conversations with one template and one tokenizer's special tokens.

    Attributes:
        has_marks: whether the template marks what the assistant writes (``{% generation %}``).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: ResolvedTemplate) -> None:
        self._tokenizer = tokenizer
        self._source = _TODAY.sub(_pinned_date, template.source_text)
        self.has_marks = _MARK.search(self._source) is not None
        self._special_tokens = {k: v for k, v in tokenizer.special_tokens_map.items() if isinstance(v, str)}
        # It gives text and marks in one pass, but is not a public function: work without it if it is missing
        # (the public method gives the text, and the turns are then located by their prompts).
        try:
            from transformers.utils.chat_template_utils import render_jinja_template
        except ImportError:
            self._render_jinja = None
        else:
            self._render_jinja = render_jinja_template
        self._refuse_broken(template.name)

    def write(self, conversation: Conversation) -> Rendering:
        """Render a whole conversation, rewritten so that the template can express it.

        Raises:
            SampleError: TEMPLATE_FAILED with the template's own message.
        """
        recast = self.recast(conversation)
        try:
            return self.render(recast)
        except SampleError:
            merged = _merge_user_turns(recast)
            if merged == recast:
                raise
            return self.render(merged)

    def render(
        self, conversation: Conversation, count: int | None = None, *, add_generation_prompt: bool = False
    ) -> Rendering:
        """Render the first ``count`` messages (None: all) exactly as given.

        Raises:
            SampleError: TEMPLATE_FAILED with the template's own message.
        """
        messages = [_as_dict(m) for m in conversation.messages[:count]]
        tools = [dict(tool) for tool in conversation.tools] or None
        try:
            text, marked = self._run(messages, tools, add_generation_prompt)
        except MemoryError:
            raise
        except Exception as error:  # a template can raise any exception
            raise SampleError(Status.TEMPLATE_FAILED, f"the chat template failed: {_first_line(error)}") from error
        return Rendering(conversation, text, marked)

    def recast(self, conversation: Conversation) -> Conversation:
        """Rewrite the content that the template would leave out; everything else is unchanged.

        Tools become a JSON list at the end of the system text, tool calls become lines of JSON in the
        assistant's content, tool results become user turns, and a system text becomes the start of the next
        user turn (or a separate turn if none follows).
        """
        messages = list(conversation.messages)
        tools = conversation.tools
        if tools and not self.writes_tools:
            listing = _json(list(tools))
            if messages and messages[0].role == "system":
                messages[0] = replace(messages[0], content=_joined(messages[0].content, listing))
            else:
                messages.insert(0, Message("system", listing))
            tools = ()
        written: list[Message] = []
        waits = False  # whether the last turn is a system text to be joined with a user turn
        for at, message in enumerate(messages):
            moves = message.role == "system" and not (self.writes_system if at == 0 else self.writes_late_system)
            turn = replace(message, role="user") if moves else self._recast_turn(message)
            if waits and turn.role == "user":
                turn = replace(turn, content=_joined(written.pop().content, turn.content))
            written.append(turn)
            waits = moves
        return Conversation(tuple(written), tools)

    def _recast_turn(self, message: Message) -> Message:
        if message.role == "tool" and not self.writes_tool_results:
            return replace(message, role="user")
        if message.tool_calls and not self._can_write_calls(message):
            calls = "\n".join(_json(_name_and_arguments(call)) for call in message.tool_calls)
            content = f"{message.content}\n{calls}" if message.content.strip() else calls
            return replace(message, content=content, tool_calls=())
        return message

    def _can_write_calls(self, message: Message) -> bool:
        if message.content.strip() and not self.writes_content_beside_calls:
            return False
        return self.writes_calls if len(message.tool_calls) == 1 else self.writes_parallel_calls

    @cached_property
    def writes_system(self) -> bool:
        """Whether a system message at the start appears in the text."""
        return self._shows([_probe("system"), _probe("user")], (_TURNS["system"],))

    @cached_property
    def writes_late_system(self) -> bool:
        """Whether a system message after the start appears in the text."""
        turns = [_probe(role) for role in ("user", "assistant", "system", "user")]
        return self._shows(turns, (_TURNS["system"],))

    @cached_property
    def writes_tools(self) -> bool:
        """Whether the descriptions of tools appear in the text, with and without a system message."""
        heads = [[], [_probe("system")]] if self.writes_system else [[]]
        return all(self._shows([*head, _probe("user")], _TOOL_SHOWN, tools=(_TOOL,)) for head in heads)

    @cached_property
    def writes_calls(self) -> bool:
        """Whether an assistant turn that is one tool call appears in the text."""
        return self._shows([_probe("user"), _probe("assistant", "", (_CALL,))], _CALL_SHOWN)

    @cached_property
    def writes_parallel_calls(self) -> bool:
        """Whether an assistant turn of two tool calls appears in the text."""
        shown = (*_CALL_SHOWN, "zqothernameqz", "zqotherqz")
        return self._shows([_probe("user"), _probe("assistant", "", (_CALL, _OTHER_CALL))], shown)

    @cached_property
    def writes_content_beside_calls(self) -> bool:
        """Whether the content of an assistant turn appears if the turn also calls a tool."""
        turn = _probe("assistant", _TURNS["assistant"], (_CALL,))
        return self._shows([_probe("user"), turn], (*_CALL_SHOWN, _TURNS["assistant"]))

    @cached_property
    def writes_tool_results(self) -> bool:
        """Whether a tool's answer appears in the text (after the call, if the template renders calls)."""
        call = _probe("assistant", "", (_CALL,)) if self.writes_calls else _probe("assistant")
        return self._shows([_probe("user"), call, _probe("tool"), _probe("assistant")], (_TURNS["tool"],))

    def _shows(
        self, messages: Sequence[Message], needles: Sequence[str], tools: tuple[Mapping[str, Any], ...] = ()
    ) -> bool:
        try:
            text = self.render(Conversation(tuple(messages), tools)).text
        except SampleError:
            return False
        return all(needle in text for needle in needles)

    def _run(
        self, messages: list[dict[str, Any]], tools: list[dict[str, Any]] | None, add_generation_prompt: bool
    ) -> tuple[str, tuple[tuple[int, int], ...]]:
        if self._render_jinja is None:
            text = self._tokenizer.apply_chat_template(
                messages,
                tools=tools,
                chat_template=self._source,
                add_generation_prompt=add_generation_prompt,
                tokenize=False,
            )
            return str(text), ()
        texts, marked = self._render_jinja(
            conversations=[messages],
            tools=tools,
            chat_template=self._source,
            return_assistant_tokens_mask=self.has_marks,
            add_generation_prompt=add_generation_prompt,
            **self._special_tokens,
        )
        return texts[0], tuple(marked[0]) if self.has_marks else ()

    def _refuse_broken(self, name: str) -> None:
        try:
            from jinja2 import TemplateSyntaxError
        except ImportError as error:
            raise ModelError("chat templates need jinja2: pip install jinja2") from error
        try:
            self._run([_as_dict(_probe("user"))], None, False)
        except TemplateSyntaxError as error:
            raise ModelError(f"the chat template {name!r} is not valid Jinja: {_first_line(error)}") from error
        except ImportError as error:  # transformers requires a newer jinja2
            raise ModelError(f"chat templates cannot be rendered: {_first_line(error)}") from error
        except Exception:
            pass


def _pinned_date(match: re.Match[str]) -> str:
    return json.dumps(_PINNED_DATE.strftime(match[1][1:-1]))


def _probe(role: str, content: str | None = None, calls: tuple[Mapping[str, Any], ...] = ()) -> Message:
    return Message(role, _TURNS[role] if content is None else content, calls)


def _merge_user_turns(conversation: Conversation) -> Conversation:
    merged: list[Message] = []
    for message in conversation.messages:
        if merged and merged[-1].role == message.role == "user":
            message = replace(message, content=_joined(merged.pop().content, message.content))
        merged.append(message)
    return replace(conversation, messages=tuple(merged))


def _as_dict(message: Message) -> dict[str, Any]:
    plain: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        plain["tool_calls"] = [dict(call) for call in message.tool_calls]
    return plain


def _name_and_arguments(call: Mapping[str, Any]) -> dict[str, Any]:
    function = call.get("function", call)
    return {"name": function.get("name"), "arguments": function.get("arguments")}


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def _joined(first: str, second: str) -> str:
    return f"{first}\n\n{second}" if first else second


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
