"""Records with two answers, of which one is chosen and one rejected: the one that is asked for becomes the answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from donod_fast.data.conversations import as_list, kind_of, text_column
from donod_fast.data.prompt_material import Material, TurnReader, answer
from donod_fast.data.record_columns import Columns
from donod_fast.data.types import Message, PromptCompletion, Sample, SampleError, Status

CHOICES = ("chosen", "rejected")
_DIALOGUE = "\n\nHuman:"


@dataclass(frozen=True, slots=True)
class Answers:
    """The columns of the two answers.

    Attributes:
        chosen: the column of the chosen answer; None if it is the last turn of the messages.
        rejected: the column of the rejected answer.
    """

    chosen: str | None
    rejected: str

    def of(self, preference: str) -> str | None:
        """The column of the answer that is asked for."""
        return self.chosen if preference == "chosen" else self.rejected


def find_answers(columns: Columns, turn_column: str | None) -> Answers | None:
    """The two answers of a record, by their usual names; None if it has not both.

    Args:
        columns: the record.
        turn_column: its column of messages, if any.
    """
    if _may_answer(columns, "chosen") and _may_answer(columns, "rejected"):
        return Answers("chosen", "rejected")
    if _may_answer(columns, "rejected_response"):
        if _may_answer(columns, "response"):
            return Answers("response", "rejected_response")
        if turn_column is not None:
            return Answers(None, "rejected_response")
    return None


def check_choice(answers: Answers, preference: str | None) -> str:
    """The answer that is asked for.

    Raises:
        SampleError: none is; names the columns and the remedy.
    """
    if preference is None:
        names = f"{answers.chosen or 'the messages'} and {answers.rejected}"
        raise SampleError(
            Status.UNKNOWN_FORMAT,
            f"{names} are two answers; --preference chosen (or rejected) says which one to score",
        )
    return preference


def read_preference(
    columns: Columns,
    answers: Answers,
    preference: str,
    material: Material,
    turn_column: str | None,
    reader: TurnReader,
) -> Sample:
    """A record with two answers as a sample. Only the answer is scored; assistant turns before it are given.

    Args:
        columns: the record.
        answers: the columns of its answers.
        preference: ``"chosen"`` or ``"rejected"``.
        material: what stands before the answer.
        turn_column: the column of messages before the answer; None for the question of ``material``.
        reader: reads messages.

    Raises:
        SampleError: the answer is empty or of the wrong type, or does not belong to the question.
    """
    name = answers.of(preference)
    if turn_column is None and material.prompts and as_list(columns.peek(material.prompts[0])) is not None:
        turn_column, material = material.prompts[0], replace(material, prompts=())
    if turn_column is not None:
        before = reader.read(columns, turn_column)
        if name is None:
            given = _after_last_question(before)
            return material.conversation(columns, before[given:], before[:given])
        if answers.chosen is None:  # the messages end with the chosen answer
            before = before[: _after_last_question(before)]
        return _with_reply(columns, name, material, before, _reply(columns, name, reader))
    assert name is not None, "only the messages can hold the chosen answer"
    if not material.prompts:
        return _with_reply(columns, name, material, [], _reply(columns, name, reader))
    if isinstance(columns.peek(name), str) and not material.is_beside(columns):
        return _plain_or_chat(columns, answers, name, material)
    reply = _reply(columns, name, reader)
    if _is_whole(reply):  # it repeats the question alone, and has its own history
        return _with_reply(columns, name, material, [Material(material.prompts[:1]).user_turn(columns)], reply)
    before = [*material.history_turns(columns), material.user_turn(columns)]
    return _with_reply(columns, name, material, before, reply)


def _plain_or_chat(columns: Columns, answers: Answers, name: str, material: Material) -> Sample:
    """A question and an answer that are strings: plain text under ``prompt``, else a conversation."""
    if material.prompts[0] != "prompt":
        return material.conversation(columns, [material.user_turn(columns), *_text_reply(answer(columns, name), name)])
    prompt, text = text_column(columns, "prompt"), answer(columns, name)
    both = (columns.peek(answers.chosen or ""), columns.peek(answers.rejected))
    if prompt and all(isinstance(one, str) and one.startswith(prompt) and one != prompt for one in both):
        for column in (answers.chosen, answers.rejected):
            columns.read(column or "")
        text = text.removeprefix(prompt)
        if not text.strip():
            raise SampleError(Status.EMPTY_RESPONSE, f"{name} holds nothing but the prompt")
    _text_reply(text, name)
    return PromptCompletion(prompt, text)


def _text_reply(text: str, name: str) -> list[Message]:
    """An answer that is a text; refused if it holds the turns of a dialogue."""
    if _DIALOGUE in text:
        raise SampleError(
            Status.UNKNOWN_FORMAT,
            f"{name} is the text of a whole dialogue (Human: …); split it into messages with role and content",
        )
    return [Message("assistant", text)]


def _reply(columns: Columns, name: str, reader: TurnReader) -> list[Message]:
    """An answer as messages: a text, a message, or a list of them."""
    value = columns.peek(name)
    if isinstance(value, str):
        return _text_reply(answer(columns, name), name)
    if not isinstance(value, Mapping) and as_list(value) is None:
        raise SampleError(Status.UNKNOWN_FORMAT, f"{name} is {kind_of(value)}, not a text or messages")
    return reader.read(columns, name)


def _with_reply(columns: Columns, name: str, material: Material, before: list[Message], reply: list[Message]) -> Sample:
    """The conversation of an answer, which may repeat the turns before it."""
    if not _is_whole(reply):
        if not before:
            raise SampleError(Status.UNKNOWN_FORMAT, f"{name} has no question before it; --columns names its column")
        if before[-1].role == "assistant":
            raise SampleError(
                Status.UNKNOWN_FORMAT,
                f"the messages before {name} end with an answer already; --columns names the columns to read",
            )
        return material.conversation(columns, reply, before)
    given = _after_last_question(reply)
    asked = before[: _after_last_question(before)]  # the messages may hold the chosen answer as well
    if asked and _contents(asked) != _contents(reply[:given]):
        raise SampleError(
            Status.UNKNOWN_FORMAT,
            f"{name} is a conversation that does not begin with the messages before it; --columns names the columns "
            "to read",
        )
    has_system = not asked or asked[0].role != "system" or reply[0].role == "system"
    return material.conversation(columns, reply[given:], [*([] if has_system else asked[:1]), *reply[:given]])


def _is_whole(reply: list[Message]) -> bool:
    """Whether an answer is a conversation with the question in it."""
    return any(turn.role in ("user", "system") for turn in reply)


def _after_last_question(turns: list[Message]) -> int:
    """Place after the last turn that is neither an answer nor the result of a tool."""
    return max((at + 1 for at, turn in enumerate(turns) if turn.role in ("user", "system")), default=0)


def _contents(turns: list[Message]) -> list[tuple[str, str]]:
    """Roles and texts of turns without a system message at the start, which may stand in one place only."""
    turns = turns[1:] if turns and turns[0].role == "system" else turns
    return [(turn.role, turn.content.strip()) for turn in turns]


def _may_answer(columns: Columns, name: str) -> bool:
    value = columns.peek(name)
    return isinstance(value, str | Mapping) or as_list(value) is not None


__all__ = ["CHOICES", "Answers", "check_choice", "find_answers", "read_preference"]
