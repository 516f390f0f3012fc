"""Write a template specification as Jinja, in the dialect of transformers' chat templates."""

from __future__ import annotations

import json

from template_specs import TemplateSpec

_CALL = "{{ '<tool_call>\\n' + (c.function | tojson) + '\\n</tool_call>' }}"
_LISTED = (
    "{{ '{\"name\": ' + (c.function.name | tojson) + ', \"arguments\": ' + (c.function.arguments | tojson) "
    "+ ', \"id\": ' + (c.id | tojson) + '}' }}{% if not loop.last %}\n{{ ', ' }}{% endif %}\n"
)


def jinja(spec: TemplateSpec) -> str:
    """The template's text; every line ends in a tag, whose line break Jinja removes."""
    parts = [_said(spec.bos), _facts(spec), "{% for m in messages %}\n", _alternation(spec)]
    parts += ["{% if m.role == 'system' %}\n", _system(spec), "{% elif m.role == 'user' %}\n", _user(spec)]
    parts += ["{% elif m.role == 'assistant' %}\n", _assistant(spec), "{% elif m.role == 'tool' %}\n", _tool(spec)]
    parts += ["{% endif %}\n{% endfor %}\n", _ending(spec)]
    return "".join(parts)


def _said(text: str) -> str:
    """A literal text."""
    return "{{ " + json.dumps(text, ensure_ascii=False) + " }}" if text else ""


def _when(condition: str, *parts: str) -> str:
    body = "".join(parts)
    return "{% if " + condition + " %}\n" + body + "{% endif %}\n" if body else ""


def _marked(*parts: str) -> str:
    body = "".join(parts)
    return "{% generation %}\n" + body + "{% endgeneration %}\n" if body else ""


def _facts(spec: TemplateSpec) -> str:
    """What the loop must know: where the first system text, the last user and the first assistant turn are."""
    facts = ["{% set ns = namespace(system='', user=-1, reply=-1, first_user=-1) %}\n"]
    if spec.reads_first:
        facts.append("{% if messages[0].role == 'system' %}\n{% set ns.begins = true %}\n{% endif %}\n")
    facts.append(
        "{% for m in messages %}\n"
        "{% if m.role == 'user' %}\n{% set ns.user = loop.index0 %}\n"
        "{% if ns.first_user < 0 %}\n{% set ns.first_user = loop.index0 %}\n{% endif %}\n{% endif %}\n"
        "{% if m.role == 'assistant' and ns.reply < 0 %}\n{% set ns.reply = loop.index0 %}\n{% endif %}\n"
        "{% endfor %}\n"
    )
    if spec.system_mode in ("first_user", "last_user", "if_user_last"):
        facts.append(
            _when(
                "messages and messages[0].role == 'system'",
                "{% set ns.system = " + _text("messages[0]", spec, "system") + " %}\n",
            )
        )
    frame = spec.frames["system"]
    if spec.default_system:
        default = (frame.before, spec.default_system, frame.closing, frame.gap)
        facts.append(_when("messages[0].role != 'system'", *map(_said, default)))
    if spec.tools == "system":
        listing = "{{ 'Tools: ' + (tools | tojson) }}"
        facts.append(_when("tools", _said(frame.before), listing, _said(frame.closing), _said(frame.gap)))
    return "".join(facts)


def _alternation(spec: TemplateSpec) -> str:
    if not spec.strict:
        return ""
    same = "loop.index0 and messages[loop.index0 - 1].role == m.role and m.role in ('user', 'assistant')"
    first = "m.role == 'assistant' and (ns.first_user < 0 or loop.index0 < ns.first_user)"
    return _when(f"({same}) or ({first})", "{{ raise_exception('roles must alternate') }}")


def _text(message: str, spec: TemplateSpec, role: str) -> str:
    """An expression for a message's text."""
    text = f"{message}.content"
    if spec.parts:
        text = f"({text} if {text} is string else {text} | map(attribute='text') | join)"
    return f"({text} | trim)" if spec.trim in ("all", role) else text


def _every(spec: TemplateSpec, *parts: str) -> str:
    return _marked(*parts) if spec.marks == "every" else "".join(parts)


def _system(spec: TemplateSpec) -> str:
    if spec.system_mode == "raises":
        return "{{ raise_exception('no system role') }}"
    if spec.system_mode != "turn":
        return ""
    frame = spec.frames["system"]
    text = "{{ " + _text("m", spec, "system") + " }}"
    return _every(spec, _said(frame.before), text, _said(frame.closing), _said(frame.gap))


def _user(spec: TemplateSpec) -> str:
    frame = spec.frames["user"]
    before, after = _said(frame.before), _said(frame.closing) + _said(frame.gap)
    merged = {
        "first_user": "loop.index0 == ns.first_user",
        "last_user": "loop.index0 == ns.user",
        "if_user_last": "loop.last",
    }
    condition = merged.get(spec.system_mode)
    system = _when(f"ns.system and {condition}", "{{ ns.system + '\\n\\n' }}") if condition else ""
    text = "{{ " + _text("m", spec, "user") + " }}"
    listing = ""
    if spec.tools == "last_user":
        said = "{{ '[AVAILABLE_TOOLS]' + (tools | tojson) + '[/AVAILABLE_TOOLS]' }}"
        listing = _when("tools and loop.index0 == ns.user", said)
    # A mark that is too long takes the neighbour's header or closing into the assistant's branch.
    if spec.marks == "next_header":
        taken = f"loop.index0 and messages[loop.index0 - 1].role == 'assistant' and {_wrong(spec, 'loop.index0 - 1')}"
        before = _when(f"not ({taken})", before)
    if spec.marks == "early":
        taken = f"not loop.last and messages[loop.index].role == 'assistant' and {_wrong(spec, 'loop.index')}"
        after = _when(f"not ({taken})", after)
    return listing + _every(spec, before, system, text, after)


def _wrong(spec: TemplateSpec, index: str) -> str:
    """A condition: the assistant turn at this index has the wrong mark."""
    places = {"all": "true", "first": f"({index}) == ns.reply", "last": f"({index}) == messages | length - 1"}
    return places[spec.marks_where]


def _assistant(spec: TemplateSpec) -> str:
    frame = spec.frames["assistant"]
    calls, last, other = (
        json.dumps(spec.closing(is_last=is_last, calls=calls))
        for calls, is_last in ((True, True), (False, True), (False, False))
    )
    facts = [
        "{% set text = " + _text("m", spec, "assistant") + " %}\n{% set thought = '' %}\n",
        "{% set closing = " + f"{last} if loop.last else {other}" + " %}\n",
        _when("m.tool_calls", "{% set closing = " + calls + " %}\n") if spec.call_closing is not None else "",
        _thinking(spec),
    ]
    head, body, gap = _said(frame.before), "{{ thought }}" + _written(spec), _said(frame.gap)
    closing = "{{ closing }}"
    right = head + _marked(body, closing) + gap
    wrong = {
        "none": head + body + closing + gap,
        "missing": head + body + closing + gap,
        "gap": head + _marked(body, closing, gap),
        "two": head + _marked(body) + _marked(closing) + gap,
        "content": head + _marked(body) + closing + gap,
        "header": _marked(head, body, closing) + gap,
        "every": _marked(head, body, closing, gap),
    }
    if spec.marks == "early":
        user = spec.frames["user"]
        facts.append("{% set before = '' %}\n")
        said = json.dumps(user.closing + user.gap)
        facts.append(
            _when("loop.index0 and messages[loop.index0 - 1].role == 'user'", "{% set before = " + said + " %}\n")
        )
        wrong["early"] = _marked("{{ before }}", head, body, closing) + gap
    if spec.marks == "next_header":
        facts.append("{% set after = '' %}\n")
        said = json.dumps(spec.frames["user"].before)
        facts.append(_when("not loop.last and messages[loop.index].role == 'user'", "{% set after = " + said + " %}\n"))
        wrong["next_header"] = head + _marked(body, closing, gap, "{{ after }}")
    drawn = wrong.get(spec.marks, right)
    if spec.marks_where != "all":
        drawn = "{% if " + _wrong(spec, "loop.index0") + " %}\n" + drawn + "{% else %}\n" + right + "{% endif %}\n"
    return "".join(facts) + drawn


def _thinking(spec: TemplateSpec) -> str:
    cut = "{% set text = text.split('</think>')[-1].lstrip('\\n') %}\n"
    if spec.thinking == "verbatim":
        return ""
    if not spec.splits:
        last = " and not loop.last" if spec.thinking == "cut_earlier" else ""
        return _when("'</think>' in text" + last, cut)
    kept = {"split_all": "true", "split_last": "loop.last", "split_query": "loop.index0 > ns.user"}[spec.thinking]
    take = "{% set thought = text.split('</think>')[0].split('<think>')[-1].strip('\\n') %}\n"
    shown = "true" if spec.empty_block else "thought"
    return (
        "{% if m.reasoning_content is string %}\n{% set thought = m.reasoning_content %}\n"
        "{% elif '</think>' in text %}\n" + take + cut + "{% endif %}\n"
        "{% if " + kept + " and " + shown + " %}\n"
        "{% set thought = '<think>\\n' + thought + '\\n</think>\\n\\n' %}\n"
        "{% else %}\n{% set thought = '' %}\n{% endif %}\n"
    )


def _written(spec: TemplateSpec) -> str:
    """The assistant's text with its calls."""
    text = "{{ text }}"
    if spec.calls == "none":
        return text
    if spec.calls == "single":
        one = _when("m.tool_calls | length != 1", "{{ raise_exception('one call at a time') }}")
        return (
            "{% if m.tool_calls %}\n"
            + one
            + "{{ m.tool_calls[0].function | tojson }}{% else %}\n"
            + text
            + "{% endif %}\n"
        )
    if spec.calls == "tagged":
        return text + "{% for c in m.tool_calls or [] %}\n" + _CALL + "{% endfor %}\n"
    short = _when("not c.id or c.id | length != 9", "{{ raise_exception('ids have 9 characters') }}")
    items = "{% for c in m.tool_calls %}\n" + short + _LISTED + "{% endfor %}\n"
    return text + _when("m.tool_calls", _said("[TOOL_CALLS]["), items, _said("]"))


def _tool(spec: TemplateSpec) -> str:
    if spec.results == "dropped":
        return ""
    text = "{{ " + _text("m", spec, "tool") + " }}"
    user = spec.frames["user"]
    if spec.results in ("user", "grouped"):
        before, after = _said(user.before), _said(user.closing) + _said(user.gap)
        if spec.results == "grouped":
            before = _when("not loop.index0 or messages[loop.index0 - 1].role != 'tool'", before)
            after = _when("loop.last or messages[loop.index].role != 'tool'", after)
        return _every(spec, before, _said("<tool_response>\n"), text, _said("\n</tool_response>"), after)
    frame = spec.frames["tool"]
    extra = {"id": "{{ m.tool_call_id + ' ' }}", "name": "{{ m.name + ': ' }}"}.get(spec.results, "")
    return _every(spec, _said(frame.before), extra, text, _said(frame.closing), _said(frame.gap))


def _ending(spec: TemplateSpec) -> str:
    trailer = _said(spec.trailer)
    if spec.marks == "trailer":
        trailer = _marked(trailer)
    if not spec.trailer_always:
        trailer = _when("not add_generation_prompt", trailer)
    prompt = _said(spec.prompt or "")
    return trailer + (prompt if spec.header_always else _when("add_generation_prompt", prompt))
