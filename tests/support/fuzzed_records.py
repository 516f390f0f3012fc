"""Records that nobody expects, as lines of JSON: known shapes with injuries, and values of any kind in known columns.

All choices come from one ``random.Random``, so a seed gives the same records again.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

COLUMNS = (
    *("id", "input_ids", "labels", "attention_mask", "messages", "conversations", "conversation", "prompt", "tools"),
    *("completion", "response", "instruction", "input", "output", "history", "system", "question", "answer", "query"),
    *("problem", "solution", "text", "role", "from", "content", "value", "type", "name", "chosen", "rejected"),
    *("context", "documents", "functions", "images", "image", "audio", "train", "masked", "loss", "loss_mask"),
    *("tool_calls", "function_call", "function", "arguments", "weight", "corpus", "\ud800", "\0", ""),
)
TEXTS = (
    *("", " ", "\0", "a\0b", "\ud800", "\udfff\ud800", "\u2028\u2029", "\ufeff", "\u202eabc\u202c", "\u200b\u200d"),
    *("{}", "[]", "null", '{"name": "f"}', "user", "assistant", "human", "gpt", "function_call", "tool", "system"),
    *("<|im_start|>assistant\n", "<|im_end|>", "</s>", "<s>", "<think>", "</think>", "<|assistant|>", "<image>"),
    *(
        "{{ messages }}",
        "{% for x in y %}",
        "\\",
        "\r\n",
        "\x1b[2J",
        "e\u0301" * 9,
        "\U0001f468\u200d\U0001f469",
        "%s%n",
    ),
    *("x" * 3000, "[" * 900, "9" * 900, "\n" * 500, "a b " * 400, "\u0e33" * 300),
)
NUMBERS = (0, 1, -1, -100, 7, 600, 2**31, 2**63, 2**64, 10**30, 0.5, 1e308, 1e-320, float("nan"), float("inf"), -0.0)
_ROLES = ("user", "assistant", "system", "tool", "human", "gpt", "function_call", "observation", "developer", "")
_HUGE = 10 << 20


def any_value(draw: random.Random, depth: int = 0) -> Any:
    """A value of JSON: text, number, null, list or object, seldom deep."""
    match draw.randrange(12 if depth < 3 else 8):
        case 0:
            return None
        case 1:
            return draw.random() < 0.5
        case 2 | 3:
            return draw.choice(NUMBERS)
        case 4 | 5 | 6:
            return draw.choice(TEXTS)
        case 7:
            return "".join(chr(draw.choice((draw.randrange(128), draw.randrange(0x3000), 0xD800))) for _ in range(4))
        case 8 | 9:
            return [any_value(draw, depth + 1) for _ in range(draw.randrange(4))]
        case _:
            return {draw.choice(COLUMNS): any_value(draw, depth + 1) for _ in range(draw.randrange(4))}


def _turns(draw: random.Random, role: str, content: str, names: tuple[str, ...]) -> list[dict[str, Any]]:
    return [
        {role: names[at % len(names)], content: f"turn {at} of {draw.randrange(9)}"} for at in range(draw.randint(1, 5))
    ]


def _calls(draw: random.Random) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": "f", "arguments": draw.choice(({"a": 1}, '{"a": 1}'))}}
    turns = [{"role": "user", "content": "go"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    return {"messages": [*turns, {"role": "tool", "content": "3"}, {"role": "assistant", "content": "three"}]}


def _tokens(draw: random.Random) -> dict[str, Any]:
    ids = [draw.randrange(60) for _ in range(draw.randint(1, 9))]
    return {"input_ids": ids, "labels": [-100, *ids[1:]], "attention_mask": [1] * len(ids)}


SHAPES: dict[str, Callable[[random.Random], dict[str, Any]]] = {
    "messages": lambda draw: {"messages": _turns(draw, "role", "content", ("user", "assistant"))},
    "conversations": lambda draw: {"conversations": _turns(draw, "from", "value", ("human", "gpt")), "system": "Be."},
    "instruction": lambda draw: {"instruction": "Say", "input": "it", "output": "it is said", "history": [["a", "b"]]},
    "question": lambda draw: {"id": draw.randrange(9), "question": "How many?", "answer": "Seven of them."},
    "prompt": lambda draw: {"prompt": "Once upon", "completion": " a time"},
    "prompt of turns": lambda draw: {
        "prompt": [{"role": "user", "content": "Hi"}],
        "completion": [{"role": "assistant", "content": "Hello"}],
    },
    "preference": lambda draw: {
        "prompt": "Which?",
        "chosen": draw.choice(("this", [{"role": "assistant", "content": "this"}])),
        "rejected": draw.choice(("that", [{"role": "assistant", "content": "that"}])),
    },
    "text": lambda draw: {"text": "A text as such."},
    "tokens": _tokens,
    "calls": _calls,
    "media": lambda draw: {
        "messages": [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what"}]},
            {"role": "assistant", "content": [{"type": "text", "text": "that"}]},
        ]
    },
}
"""A record of each known shape, unharmed."""


def _places(value: Any, found: list[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        found.append((value, key))
        _places(inner, found)
    return found


def _injure(record: dict[str, Any], draw: random.Random) -> None:
    places = _places(record, [])
    if not places:
        record[draw.choice(COLUMNS)] = any_value(draw)
        return
    within, key = draw.choice(places)
    match draw.randrange(9):
        case 0:
            del within[key]
        case 1:
            within[key] = None
        case 2:
            within[key] = [within[key]] * draw.choice((1, 2, 40))
        case 3:
            within[key] = {draw.choice(COLUMNS): within[key]}
        case 4:
            record[draw.choice(COLUMNS)] = any_value(draw)
        case 5 if isinstance(within[key], str):
            at = draw.randint(0, len(within[key]))
            within[key] = within[key][:at] + draw.choice(TEXTS) + within[key][at:]
        case 6:
            within[key] = draw.choice(_ROLES)
        case _:
            within[key] = any_value(draw)


def _deep(draw: random.Random) -> str:
    opening = draw.choice(("[", '{"a":', '{"messages":', '[{"content":'))
    depth = draw.choice((50, 500, 5000))
    closing = "".join({"[": "]", "{": "}"}[one] for one in reversed(opening) if one in "[{")
    return f'{{"{draw.choice(COLUMNS[:30])}": {opening * depth}1{closing * depth}}}'


def fuzzed_line(draw: random.Random) -> bytes:
    """One line of a JSON Lines file, without its line end, and never blank."""
    kind = draw.random()
    if kind < 0.0001:
        return json.dumps({"prompt": "p", "completion": draw.choice("ax ") * _HUGE}).encode()
    if kind < 0.01:
        return _deep(draw).encode("utf-8", "surrogatepass").replace(b"\n", b" ").replace(b"\0", b" ")
    if kind < 0.75:
        record = json.loads(json.dumps(SHAPES[draw.choice(list(SHAPES))](draw)))
        for _ in range(draw.choice((0, 0, 1, 1, 1, 2, 3, 6))):
            _injure(record, draw)
    else:
        record = {draw.choice(COLUMNS): any_value(draw) for _ in range(draw.randint(0, 6))}
    text = json.dumps(record, ensure_ascii=draw.random() < 0.7)
    if kind > 0.95 and len(text) > 2:  # a key twice
        text = f'{{"{draw.choice(COLUMNS[:30])}": {json.dumps(any_value(draw))}, {text[1:]}' if record else text
    line = text.encode("utf-8", "surrogatepass")
    if 0.71 < kind < 0.75 or 0.9 < kind < 0.95:
        at = draw.randrange(len(line))
        line = draw.choice(
            (line[:at], line[:at] + bytes([draw.randrange(256)]) + line[at + 1 :], line + line[at:], b"\xff" + line)
        )
    line = line.replace(b"\n", b" ").replace(b"\r", b" ")
    return line if line.strip() else b"0"


__all__ = ["COLUMNS", "SHAPES", "any_value", "fuzzed_line"]
