"""Stock-like chat templates of model families, with what a reply must look like in each, written by hand.

The templates in ``families/`` follow the public ones in structure and control tokens; their words are our own. A
"turn" here is the text that must be scored, without white space at its ends.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "families"
SYSTEM, TOOLS, CALL, CALLS, RESULT = "system", "tools", "call", "calls", "result"
EVERYTHING = frozenset({SYSTEM, TOOLS, CALL, CALLS, RESULT})

Calls = Sequence[dict[str, Any]]


def written_json(value: object) -> str:
    """JSON as templates write it."""
    return json.dumps(value, ensure_ascii=False)


def _functions(calls: Calls) -> list[dict[str, Any]]:
    return [call["function"] for call in calls]


def _lines(calls: Calls) -> str:
    """Calls as text, one line of JSON each: what stands for calls that a template cannot write."""
    return "\n".join(map(written_json, _functions(calls)))


def _verbatim(thought: str, answer: str, is_last: bool) -> str | None:
    return f"<think>\n{thought}\n</think>\n\n{answer}"


def _lost_at_last(thought: str, answer: str, is_last: bool) -> str | None:
    return None if is_last else answer


def _kept_at_last(thought: str, answer: str, is_last: bool) -> str | None:
    return f"<think>\n{thought}\n</think>\n\n{answer}" if is_last else answer


Thinks = Callable[[str, str, bool], str | None]


@dataclass(frozen=True, slots=True)
class Family:
    """What is known of a template.

    Attributes:
        name: name of the template's file.
        markers: its control tokens.
        closing: the reply's closing, as text.
        last_closing: the closing where the reply is the last message; None: the same.
        says: what the template can express without a rewrite, of :data:`EVERYTHING`.
        lead: text of a reply before its content that the generation prompt does not write.
        last_lead: the same for a last reply; None: the same.
        also: other texts of a reply that are right, too, as patterns with ``{}`` for the content and closing.
        calls: how calls are written.
        call_closing: closing of a turn that calls; None: as of other turns.
        thinks: the reply's body where the content holds thinking; None: the last reasoning is lost.
        reasons: the same for reasoning under a key of its own.
        last_also: the same for a last reply.
        is_strict: whether user and assistant must alternate, the user first.
    """

    name: str
    markers: tuple[str, ...]
    closing: str
    last_closing: str | None = None
    says: frozenset[str] = frozenset({SYSTEM})
    lead: str = ""
    last_lead: str | None = None
    also: str = ""
    calls: Callable[[Calls], str] = _lines
    call_closing: str | None = None
    thinks: Thinks = _verbatim
    reasons: Thinks = _lost_at_last
    last_also: str = ""
    is_strict: bool = False

    @property
    def template(self) -> str:
        """The template's text."""
        return (FOLDER / f"{self.name}.jinja").read_text(encoding="utf-8")

    def turn(self, message: dict[str, Any], is_last: bool, *, recast: bool) -> tuple[str, ...] | None:
        """The texts of an assistant turn that are right; None if its reasoning is lost.

        Args:
            message: the record's message.
            is_last: whether no message follows.
            recast: whether its calls are written as text.
        """
        closing = self.closing if self.last_closing is None or not is_last else self.last_closing
        lead = self.lead if self.last_lead is None or not is_last else self.last_lead
        content = message["content"] or ""
        if calls := message.get("tool_calls"):
            closed = self.closing if self.call_closing is None else self.call_closing
            own = (self.calls(calls) + closed).strip()
            # A lighter rewrite, of the arguments or of empty content, may let the template write the calls itself.
            as_text = ((lead + _lines(calls) + closing).strip(), (_lines(calls) + closing).strip())
            return (own, *as_text) if recast else (own,)
        if "</think>" in content or "reasoning_content" in message:
            thought = message.get("reasoning_content") or content.split("</think>")[0].removeprefix("<think>").strip()
            thinks = self.reasons if "reasoning_content" in message else self.thinks
            body = thinks(thought, content.split("</think>")[-1].strip(), is_last)
            return None if body is None else (body + closing,)
        texts = [lead + content + closing]
        texts += [also.format(content + closing) for also in (self.also, self.last_also if is_last else "") if also]
        return tuple(text.strip() for text in texts)


def _tagged(calls: Calls) -> str:
    return "\n".join(f"<tool_call>\n{written_json(f)}\n</tool_call>" for f in _functions(calls))


def _listed(begin: str, end: str) -> Callable[[Calls], str]:
    def write(calls: Calls) -> str:
        listed = (written_json(c["function"])[:-1] + f', "id": "{c["id"]}"}}' for c in calls)
        return begin + ", ".join(listed) + end

    return write


def _parameters(calls: Calls) -> str:
    one = _functions(calls)[0]
    return f'{{"name": "{one["name"]}", "parameters": {written_json(one["arguments"])}}}'


def _all_parameters(calls: Calls) -> str:
    return "".join(_parameters([call]) for call in calls)


def _xml(calls: Calls) -> str:
    def write(f: dict[str, Any]) -> str:
        given = "".join(f"<parameter={k}>\n{v}\n</parameter>\n" for k, v in f["arguments"].items())
        return f"<tool_call>\n<function={f['name']}>\n{given}</function>\n</tool_call>"

    return "\n".join(map(write, _functions(calls)))


def _deepseek(calls: Calls) -> str:
    listed = (
        f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{f['name']}\n```json\n{written_json(f['arguments'])}\n```"
        "<｜tool▁call▁end｜>"
        for f in _functions(calls)
    )
    return "<｜tool▁calls▁begin｜>" + "\n".join(listed) + "<｜tool▁calls▁end｜>"


def _actions(calls: Calls) -> str:
    listed = (
        f'\n    {{"tool_call_id": "{at}", "tool_name": "{f["name"]}", "parameters": {written_json(f["arguments"])}}}'
        for at, f in enumerate(_functions(calls))
    )
    return "<|START_ACTION|>[" + ",".join(listed) + "\n]<|END_ACTION|>"


def _observed(calls: Calls) -> str:
    return "<|assistant|>".join(f"{f['name']}\n{written_json(f['arguments'])}" for f in _functions(calls))


def _keyed(calls: Calls) -> str:
    def write(f: dict[str, Any]) -> str:
        given = "".join(f"\n<arg_key>{k}</arg_key>\n<arg_value>{v}</arg_value>" for k, v in f["arguments"].items())
        return f"\n<tool_call>{f['name']}{given}\n</tool_call>"

    return "<think></think>" + "".join(map(write, _functions(calls)))


def _channel(calls: Calls) -> str:
    one = _functions(calls)[0]
    return f"to=functions.{one['name']}<|channel|>commentary json<|message|>{written_json(one['arguments'])}"


def _sections(calls: Calls) -> str:
    listed = (
        f"<|tool_call_begin|>{c['id']}<|tool_call_argument_begin|>{written_json(c['function']['arguments'])}"
        "<|tool_call_end|>"
        for c in calls
    )
    return "<|tool_calls_section_begin|>" + "".join(listed) + "<|tool_calls_section_end|>"


def _oss_reasons(thought: str, answer: str, is_last: bool) -> str | None:
    final = f"<|channel|>final<|message|>{answer}"
    return f"<|channel|>analysis<|message|>{thought}<|end|><|start|>assistant{final}" if is_last else final


def _glm_thinks(thought: str, answer: str, is_last: bool) -> str | None:
    return f"<think>{thought if is_last else ''}</think>\n{answer}"


def _opened(thought: str, answer: str, is_last: bool) -> str | None:
    """The generation prompt opens the thinking."""
    return f"{thought}\n</think>\n\n{answer}" if is_last else answer


def _nemotron(gap: str) -> Thinks:
    def write(thought: str, answer: str, is_last: bool) -> str | None:
        return f"{thought}\n</think>{gap}{answer}" if is_last else f"<think></think>{answer}"

    return write


_IM = ("<|im_start|>", "<|im_end|>")
_LLAMA3 = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_MISTRAL = ("[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]",
            "[/TOOL_RESULTS]")  # fmt: skip
_PHI = ("<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", "<|/tool|>", "<|end|>")
_DEEPSEEK = ("<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>",
             "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>", "<｜tool▁outputs▁begin｜>",
             "<｜tool▁outputs▁end｜>", "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>")  # fmt: skip
_COMMAND = ("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|USER_TOKEN|>",
            "<|CHATBOT_TOKEN|>", "<|START_ACTION|>", "<|END_ACTION|>", "<|START_RESPONSE|>",
            "<|END_RESPONSE|>")  # fmt: skip
_GLM = ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
_OSS = ("<|start|>", "<|end|>", "<|message|>", "<|channel|>", "<|return|>", "<|call|>")
_GRANITE = ("<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>", "<|tool_call|>")
_KIMI = ("<|im_system|>", "<|im_user|>", "<|im_assistant|>", "<|im_middle|>", "<|im_end|>")
_TURN = ("<start_of_turn>", "<end_of_turn>")
_EOS = "</s>"
_ONE_CALL = EVERYTHING - {CALLS}
_BLOCK = "<think>\n\n</think>\n\n"

FAMILIES = (
    Family("llama2", (), " " + _EOS, is_strict=True),
    Family("llama3", _LLAMA3, "<|eot_id|>", says=frozenset({SYSTEM, RESULT})),
    Family("llama3_1", _LLAMA3, "<|eot_id|>", says=_ONE_CALL, calls=_parameters),
    Family("mistral_v1", (), _EOS, says=frozenset(), is_strict=True),
    Family("mistral_v3", _MISTRAL, _EOS, says=EVERYTHING - {SYSTEM}, calls=_listed("[TOOL_CALLS] [", "]"),
           is_strict=True),
    Family("mistral_nemo", _MISTRAL, _EOS, says=EVERYTHING - {SYSTEM}, calls=_listed("[TOOL_CALLS][", "]"),
           is_strict=True),
    Family("mistral_small", (*_MISTRAL, "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"), _EOS),
    Family("qwen2_5", _IM, "<|im_end|>", says=EVERYTHING, calls=_tagged),
    Family("qwen3", _IM, "<|im_end|>", says=EVERYTHING, calls=_tagged, last_lead=_BLOCK, thinks=_kept_at_last,
           reasons=_kept_at_last),
    Family("qwen3_coder", _IM, "<|im_end|>", says=EVERYTHING, calls=_xml),
    Family("gemma2", _TURN, "<end_of_turn>", says=frozenset(), is_strict=True),
    Family("gemma3", _TURN, "<end_of_turn>", is_strict=True),
    Family("phi3", _PHI, "<|end|>"),
    Family("phi4", (*_IM, "<|im_sep|>"), "<|im_end|>"),
    Family("phi4_mini", _PHI, "<|end|>", says=frozenset({SYSTEM, RESULT})),
    # It writes calls only where the content is null, but transformers leaves out what is null.
    Family("deepseek_v3", _DEEPSEEK, "<｜end▁of▁sentence｜>", says=frozenset({SYSTEM, RESULT}), calls=_deepseek),
    Family(
        "deepseek_r1", _DEEPSEEK, "<｜end▁of▁sentence｜>", says=frozenset({SYSTEM, RESULT}), calls=_deepseek,
        thinks=_lost_at_last,
    ),
    Family("command_r", _COMMAND, "<|END_OF_TURN_TOKEN|>", says=EVERYTHING, calls=_actions),
    Family("command_a", _COMMAND, "<|END_RESPONSE|><|END_OF_TURN_TOKEN|>", lead="<|START_RESPONSE|>",
           thinks=lambda t, a, last: "<|START_RESPONSE|>" + str(_verbatim(t, a, last)),
           reasons=lambda t, a, last: None if last else "<|START_RESPONSE|>" + a),
    Family("glm4", _GLM, "", says=EVERYTHING, calls=_observed),
    Family("glm4_5", _GLM, "", says=EVERYTHING, calls=_keyed, lead="<think></think>\n", thinks=_glm_thinks,
           reasons=_glm_thinks),
    Family("gpt_oss", _OSS, "<|end|>", "<|return|>", says=_ONE_CALL, calls=_channel, call_closing="<|call|>",
           lead="<|channel|>final<|message|>",
           thinks=lambda t, a, last: "<|channel|>final<|message|>" + str(_verbatim(t, a, last)), reasons=_oss_reasons),
    Family("smollm2", _IM, "<|im_end|>", says=frozenset({SYSTEM, RESULT})),
    Family("smollm3", _IM, "<|im_end|>", says=frozenset({SYSTEM, TOOLS, RESULT})),
    Family("olmo2", _PHI, _EOS),
    Family("zephyr", _PHI, _EOS),
    Family("vicuna", (), _EOS, is_strict=True),
    Family("metharme", ("<|system|>", "<|user|>", "<|model|>"), _EOS),
    Family("granite", _GRANITE, "<|end_of_text|>", says=EVERYTHING,
           calls=lambda calls: "<|tool_call|>[" + ", ".join(map(written_json, _functions(calls))) + "]"),
    Family("kimi", _KIMI, "<|im_end|>", says=EVERYTHING, calls=_sections),
    Family("trl_qwen3", _IM, "<|im_end|>", lead=_BLOCK, thinks=_verbatim, reasons=_verbatim),
    Family("trl_phi3", _PHI, "<|end|>"),
    Family("nemotron", _IM, "<|im_end|>", lead="<think></think>", also="</think>{}", thinks=_nemotron("\n\n"),
           reasons=_nemotron("\n")),
    Family("llama4", ("<|header_start|>", "<|header_end|>", "<|eot|>", "<|eom|>"), "<|eot|>",
           says=EVERYTHING - {TOOLS}, calls=_all_parameters, call_closing="<|eom|>"),
    Family("openchat", ("<|end_of_turn|>",), "<|end_of_turn|>"),
    Family("qwen3_5", _IM, "<|im_end|>", last_lead="</think>\n\n", last_also="<think>\n\n</think>\n\n{}",
           thinks=_opened, reasons=_opened),
    Family("deepseek_v3_1", _DEEPSEEK, "<｜end▁of▁sentence｜>", thinks=_lost_at_last),
    Family("exaone", ("[|system|]", "[|user|]", "[|assistant|]", "[|endofturn|]"), "[|endofturn|]"),
    Family("hunyuan", ("<|startoftext|>", "<|extra_0|>", "<|extra_4|>", "<|eos|>"), "<|eos|>"),
    Family("minimax", ("]~!b[", "]~b]", "[e~["), "[e~[", thinks=_opened, reasons=_opened),
    Family("ernie", ("<|begin_of_sentence|>", "<|end_of_sentence|>"), "<|end_of_sentence|>"),
    Family("seed_oss", ("<seed:bos>", "<seed:eos>", "<seed:think>", "</seed:think>"), "<seed:eos>",
           reasons=lambda t, a, last: f"<seed:think>{t}</seed:think>{a}"),
    Family("jamba", ("<|startoftext|>", "<|bom|>", "<|eom|>", "<|system|>", "<|user|>", "<|assistant|>"), "<|eom|>"),
    Family("nemotron_nano", ("<SPECIAL_10>", "<SPECIAL_11>", "<SPECIAL_12>"), "\n<SPECIAL_12>", thinks=_opened),
    Family("deepseek_llm", (), _EOS),
    Family("falcon", (), ""),
)  # fmt: skip
"""The families, oldest lines first."""


@cache
def family_tokenizer(name: str, is_special: bool) -> Any:
    """The tiny tokenizer with the family's markers, as special tokens or as plain text."""
    from copy import deepcopy

    from marker_tokenizers import marker_tokenizer

    family = next(one for one in FAMILIES if one.name == name)
    tokenizer = deepcopy(marker_tokenizer("plain"))
    if is_special and family.markers:
        tokenizer.add_special_tokens({"additional_special_tokens": list(family.markers)})
    tokenizer.chat_template = family.template
    return tokenizer


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "description": "its name"}}},
    },
}


def _call(one: str, city: str) -> dict[str, Any]:
    return {"id": one, "type": "function", "function": {"name": "weather", "arguments": {"city": city}}}


def _said(*turns: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"role": role, "content": text} for role, text in turns]


def _called(*cities: str) -> list[dict[str, Any]]:
    calls = [_call(f"abcdefgh{at}", city) for at, city in enumerate(cities)]
    results = [{"role": "tool", "tool_call_id": c["id"], "name": "weather", "content": "3 degrees"} for c in calls]
    return [{"role": "assistant", "content": None, "tool_calls": calls}, *results]


_ONE = _said(("user", "Is it far?"), ("assistant", "Yes."))
_SEVERAL = _said(
    ("user", "Is it far?"), ("assistant", "Yes."), ("user", "Yes."), ("assistant", "No, it is near."),
    ("user", "assistant"), ("assistant", "Yes."),
)  # fmt: skip
_BRIEF = _said(("system", "Be brief."))
_DRESS = _said(("assistant", "Dress warmly."))
_THOUGHT = _said(
    ("user", "Is it far?"), ("assistant", "<think>\nNot by bus.\n</think>\n\nNo."),
    ("user", "And on foot?"), ("assistant", "<think>\nAn hour or two.\n</think>\n\nYes."),
)  # fmt: skip
_REASONED = [
    {"role": "user", "content": "Is it far?"},
    {"role": "assistant", "reasoning_content": "Not by bus.", "content": "No."},
    {"role": "user", "content": "And on foot?"},
    {"role": "assistant", "reasoning_content": "An hour or two.", "content": "Yes."},
]

CONVERSATIONS: dict[str, dict[str, Any]] = {
    "one turn": {"messages": _ONE},
    "several turns": {"messages": _SEVERAL},
    "system": {"messages": _BRIEF + _ONE},
    "system, several turns": {"messages": _BRIEF + _SEVERAL},
    "a greeting first": {"messages": _said(("assistant", "Hello, traveller.")) + _SEVERAL},
    "a question left": {"messages": [*_SEVERAL, {"role": "user", "content": "Why?"}]},
    "a call": {"messages": [_ONE[0], *_called("Oslo"), *_DRESS], "tools": [WEATHER]},
    "two calls": {"messages": [_ONE[0], *_called("Oslo", "Rome"), *_DRESS], "tools": [WEATHER]},
    "a late call": {"messages": [*_SEVERAL[:3], *_called("Oslo"), *_DRESS], "tools": [WEATHER]},
    "system and a call": {"messages": [*_BRIEF, _ONE[0], *_called("Oslo"), *_DRESS], "tools": [WEATHER]},
    "thinking in the content": {"messages": _THOUGHT},
    "thinking under its key": {"messages": _REASONED},
}
"""Records by what is in them."""


def needs(data: dict[str, Any]) -> frozenset[str]:
    """What a template must be able to say, of :data:`EVERYTHING`, to write a record without a rewrite."""
    messages = data["messages"]
    counts = [len(m.get("tool_calls") or ()) for m in messages]
    found = {
        SYSTEM: any(m["role"] == "system" for m in messages),
        TOOLS: "tools" in data,
        CALL: any(counts),
        CALLS: max(counts) > 1,
        RESULT: any(m["role"] == "tool" for m in messages),
    }
    return frozenset(need for need, is_there in found.items() if is_there)
