"""Templates by name, and the treatment of content that a template does not support."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_chat import (
    MARKED,
    STRICT,
    THINKING,
    TURNS,
    UNMARKED,
    WITH_TOOLS,
    chat,
    tiny_tokenizer,
    tokenizer_with,
)

from donod_fast.data import rendering, templates
from donod_fast.data.rendering import Renderer
from donod_fast.data.templates import BUILTIN_TEMPLATES, ResolvedTemplate, resolve_template
from donod_fast.data.types import Conversation, Message, SampleError, Status
from donod_fast.errors import InputError, ModelError

TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "description": "its name"}},
        },
    },
}


def call(name: str, city: str = "Paris") -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "arguments": {"city": city}}}


def renderer(source: str) -> Renderer:
    return Renderer(tiny_tokenizer(), ResolvedTemplate("test", source, ""))


def written(source: str, conversation: Conversation) -> str:
    return renderer(source).write(conversation).text


# --- which template a name means


def test_auto_takes_the_tokenizers_own_template() -> None:
    resolved = resolve_template(tokenizer_with(UNMARKED), "auto")
    assert (resolved.name, resolved.source_text) == ("tokenizer", UNMARKED)
    assert resolved.sha256 == hashlib.sha256(UNMARKED.encode()).hexdigest()


def test_auto_falls_back_to_alpaca_and_warns_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(templates, "_warned", set())
    with caplog.at_level(logging.WARNING, logger="donod_fast.data.templates"):
        names = [resolve_template(tiny_tokenizer(), "auto").name for _ in range(3)]
    assert names == ["alpaca"] * 3
    assert len(caplog.records) == 1


def test_a_tokenizer_without_the_requested_template_is_an_error() -> None:
    with pytest.raises(ModelError, match="alpaca, chatml"):
        resolve_template(tiny_tokenizer(), "tokenizer")


def test_several_own_templates_without_a_default_are_refused() -> None:
    with pytest.raises(ModelError, match="multiple chat templates"):
        resolve_template(tokenizer_with_several({"a": UNMARKED, "b": MARKED}), "auto")


def test_of_several_own_templates_the_default_is_taken() -> None:
    own = tokenizer_with_several({"default": MARKED, "other": UNMARKED})
    assert resolve_template(own, "auto").source_text == MARKED


def tokenizer_with_several(named: dict[str, str]) -> Any:
    from copy import deepcopy

    tokenizer = deepcopy(tiny_tokenizer())
    tokenizer.chat_template = named
    return tokenizer


def test_a_template_is_read_from_a_jinja_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.jinja"
    path.write_text(MARKED, encoding="utf-8")
    resolved = resolve_template(tiny_tokenizer(), str(path))
    assert (resolved.name, resolved.source_text) == (str(path), MARKED)


@pytest.mark.parametrize("name", ["alpacca", "no/such.jinja", ""])
def test_an_unknown_template_is_refused_by_name(name: str) -> None:
    with pytest.raises(InputError) as refusal:
        resolve_template(tiny_tokenizer(), name)
    assert repr(name) in str(refusal.value)


def test_an_invalid_jinja_template_is_refused_before_any_row() -> None:
    with pytest.raises(ModelError, match="not valid Jinja"):
        renderer("{% for m in messages %}")


# --- the built-in templates


@pytest.mark.parametrize(
    ("name", "text", "marked"),
    [
        (
            "alpaca",
            "<s>Be kind.\n\n### Instruction:\nFirst?\n\n### Response:\nOne.</s>\n\n"
            "### Instruction:\nThen?\n\n### Response:\nTwo.</s>",
            ["One.</s>", "Two.</s>"],
        ),
        (
            "chatml",
            "<s><|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nFirst?<|im_end|>\n"
            "<|im_start|>assistant\nOne.<|im_end|>\n<|im_start|>user\nThen?<|im_end|>\n"
            "<|im_start|>assistant\nTwo.<|im_end|>\n",
            ["One.<|im_end|>", "Two.<|im_end|>"],
        ),
        (
            "llama2",
            "<s>[INST] <<SYS>>\nBe kind.\n<</SYS>>\n\nFirst? [/INST] One. </s><s>[INST] Then? [/INST] Two. </s>",
            [" One. </s>", " Two. </s>"],
        ),
        (
            "vicuna",
            "<s>Be kind. USER: First? ASSISTANT: One.</s>USER: Then? ASSISTANT: Two.</s>",
            [" One.</s>", " Two.</s>"],
        ),
        (
            "plain",
            "<s>System: Be kind.\n\nUser: First?\n\nAssistant: One.</s>\n\nUser: Then?\n\nAssistant: Two.</s>",
            [" One.</s>", " Two.</s>"],
        ),
    ],
)
def test_a_built_in_template_marks_each_turn_and_its_end_token(name: str, text: str, marked: list[str]) -> None:
    rendering = renderer(BUILTIN_TEMPLATES[name]).write(chat(*TURNS))
    assert rendering.text == text
    assert [rendering.text[start:end] for start, end in rendering.marked] == marked


@pytest.mark.parametrize("name", BUILTIN_TEMPLATES)
@pytest.mark.parametrize("turns", [TURNS, TURNS[1:], TURNS[2:], (*TURNS, ("assistant", "Three."))])
def test_a_built_in_templates_prompt_is_the_beginning_of_the_whole(name: str, turns: tuple[Any, ...]) -> None:
    write, conversation = renderer(BUILTIN_TEMPLATES[name]), chat(*turns)
    whole = write.render(conversation).text
    for at, (role, content) in enumerate(turns):
        if role == "assistant":
            prompt = write.render(conversation, at, add_generation_prompt=True).text
            assert whole.startswith((prompt + content, prompt + " " + content))


def test_alpaca_without_a_system_message_has_stanfords_preamble() -> None:
    text = written(BUILTIN_TEMPLATES["alpaca"], chat(("user", "Add 1 and 2."), ("assistant", "3")))
    assert text.startswith("<s>Below is an instruction that describes a task. Write a response that appropriately")
    assert "### Instruction:\nAdd 1 and 2.\n\n### Response:\n3</s>" in text


@pytest.mark.parametrize("name", BUILTIN_TEMPLATES)
def test_a_built_in_template_needs_no_special_tokens(name: str) -> None:
    from copy import deepcopy

    bare = deepcopy(tiny_tokenizer())
    bare.bos_token = bare.eos_token = None
    text = Renderer(bare, resolve_template(bare, name)).write(chat(*TURNS)).text
    assert "None" not in text
    assert "s>" not in text.replace("SYS>", "")


# --- content that a template has no place for


def test_a_refused_system_message_goes_before_the_first_user_turn() -> None:
    rendering = renderer(STRICT).write(chat(("system", "Be kind."), ("user", "Hi"), ("assistant", "Yo")))
    assert rendering.conversation == chat(("user", "Be kind.\n\nHi"), ("assistant", "Yo"))


def test_a_system_message_without_a_user_turn_becomes_one() -> None:
    rendering = renderer(STRICT).write(chat(("system", "Be kind."), ("assistant", "Yo")))
    assert rendering.conversation == chat(("user", "Be kind."), ("assistant", "Yo"))


def test_a_late_system_message_goes_before_the_user_turn_that_follows_it() -> None:
    rendering = renderer(STRICT).write(chat(*TURNS[1:3], ("system", "Be brief."), *TURNS[3:]))
    assert rendering.conversation.messages[2] == Message("user", "Be brief.\n\nThen?")


def test_a_silently_dropped_system_message_is_detected() -> None:
    drops = "{% for m in messages if m.role != 'system' %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    rendering = renderer(drops).write(chat(("system", "Be kind."), ("user", "Hi"), ("assistant", "Yo")))
    assert rendering.text == "user: Be kind.\n\nHi\nassistant: Yo\n"


def test_unsupported_tools_are_listed_in_the_system_text() -> None:
    conversation = chat(("system", "Be kind."), ("user", "Hi"), ("assistant", "Yo"), tools=(TOOL,))
    rendering = renderer(UNMARKED).write(conversation)
    assert rendering.conversation.messages[0] == Message("system", f"Be kind.\n\n{json.dumps([TOOL])}")
    assert rendering.conversation.tools == ()


def test_tools_are_listed_in_the_first_user_turn_without_a_system_role() -> None:
    rendering = renderer(STRICT).write(chat(("user", "Hi"), ("assistant", "Yo"), tools=(TOOL,)))
    assert rendering.conversation.messages[0] == Message("user", f"{json.dumps([TOOL])}\n\nHi")


def test_unsupported_tool_calls_become_lines_of_json() -> None:
    turn = Message("assistant", "Let me see.", (call("weather"), call("weather", "Rome")))
    rendering = renderer(UNMARKED).write(chat(("user", "Hi"), turn))
    assert rendering.conversation.messages[1] == Message(
        "assistant",
        'Let me see.\n{"name": "weather", "arguments": {"city": "Paris"}}\n'
        '{"name": "weather", "arguments": {"city": "Rome"}}',
    )


def test_a_tools_answer_becomes_a_user_turn_without_a_tool_role() -> None:
    conversation = chat(
        ("user", "Hi"), Message("assistant", "", (call("weather"),)), ("tool", "sunny"), ("assistant", "Sun.")
    )
    messages = renderer(STRICT).write(conversation).conversation.messages
    assert messages[2] == Message("user", "sunny")


def test_a_template_that_supports_tools_and_calls_gets_them_unchanged() -> None:
    conversation = chat(("user", "Hi"), Message("assistant", "", (call("weather"),)), ("tool", "sunny"), tools=(TOOL,))
    assert renderer(WITH_TOOLS).write(conversation).conversation == conversation


@pytest.mark.parametrize(
    "turn",
    [
        Message("assistant", "Let me see.", (call("weather"),)),  # its content would be left out
        Message("assistant", "", (call("weather"), call("weather", "Rome"))),  # it raises on two calls
    ],
)
def test_only_the_calls_that_a_template_cannot_write_become_text(turn: Message) -> None:
    single = Message("assistant", "", (call("weather", "Oslo"),))
    conversation = chat(("user", "Hi"), single, ("tool", "sunny"), ("user", "Go on"), turn)
    rendering = renderer(WITH_TOOLS).write(conversation)
    assert rendering.conversation.messages[1] == single
    assert rendering.conversation.messages[4].tool_calls == ()
    for words in ("Oslo", "Paris", turn.content, *(["Rome"] if len(turn.tool_calls) > 1 else [])):
        assert words in rendering.text


def test_user_turns_are_merged_only_if_the_template_requires_it() -> None:
    conversation = chat(("user", "One"), ("user", "Two"), ("assistant", "Three"))
    assert renderer(STRICT).write(conversation).conversation == chat(("user", "One\n\nTwo"), ("assistant", "Three"))
    assert renderer(UNMARKED).write(conversation).conversation == conversation


def test_a_templates_own_message_reaches_the_user() -> None:
    with pytest.raises(SampleError) as refusal:
        renderer(STRICT).write(chat(("assistant", "Hi")))
    assert refusal.value.status is Status.TEMPLATE_FAILED
    assert "must alternate" in refusal.value.detail


def test_a_kind_of_conversation_is_probed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    write = renderer(THINKING)
    write.write(chat(("system", "Be kind."), ("user", "Hi"), ("assistant", "Yo")))
    monkeypatch.setattr(rendering, "plan_recasts", lambda *a, **k: pytest.fail("probed again"))
    write.write(chat(("system", "Be brief."), ("user", "Hello"), ("assistant", "Hey")))


def test_a_template_with_todays_date_writes_a_fixed_date() -> None:
    dated = "Today is {{ strftime_now('%d %B %Y') }}.\n" + UNMARKED
    rendering = renderer(dated).write(chat(("user", "Hi")))
    assert rendering.text.startswith("Today is 26 July 2024.\n")
    assert rendering.recasts == ("today's date written as 26 July 2024",)
    unused = renderer("{% if false %}{{ strftime_now('%Y') }}{% endif %}" + UNMARKED)
    assert unused.write(chat(("user", "Hi"))).recasts == ()


@pytest.mark.parametrize("missing", ["render_jinja_template", "_compile_jinja_template"])
def test_nothing_is_rendered_where_it_cannot_be_bounded(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    from transformers.utils import chat_template_utils

    renderer(UNMARKED)
    monkeypatch.setattr(rendering, "_within_bounds", functools.cache(rendering._within_bounds.__wrapped__))
    monkeypatch.delattr(chat_template_utils, missing)
    with pytest.raises(ModelError, match="within bounds"):
        renderer(UNMARKED)


def test_importing_the_modules_does_not_import_transformers() -> None:
    check = (
        "import sys, donod_fast.data.masking, donod_fast.data.templates\n"
        "sys.exit('transformers' in sys.modules or 'tokenizers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
