"""Chat templates that loop or multiply text, each in another way. Every one would take hours, or all memory."""

from __future__ import annotations

_NS = "{% set ns = namespace(s={start}) %}{% for i in range(60) %}{% set ns.s = {step} %}{% endfor %}"


def grown(start: str, step: str, end: str) -> str:
    """Sixty rounds that double a value, and what is done with it in the end."""
    return _NS.replace("{start}", start).replace("{step}", step) + end


NESTED = ('["ab"]', "[ns.s, ns.s]")
COSTLY = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}" + "{% endfor %}" * 3,
    "a loop without rounds": "{% for j in range(99999) %}{% for i in range(99999) if false %}{% endfor %}{% endfor %}",
    "a long range": "{% for i in range(10 ** 9) %}{% endfor %}",
    "recursive loop": "{% for m in [1] recursive %}{{ loop([1, 1, 1]) }}{% endfor %}",
    "macros": "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(60) }}",
    "multiplied text": '{{ "a" * 10 ** 10 }}',
    "joined text": grown('"ab"', "ns.s ~ ns.s", "{{ ns.s }}"),
    "added text": grown('"ab"', "ns.s + ns.s", "{{ ns.s }}"),
    "added lists": grown("[1]", "ns.s + ns.s", "{{ ns.s }}"),
    "powers": grown("9", "ns.s * ns.s", "{{ ns.s }}"),
    "filter format": '{{ "%1000000000d" | format(1) }}',
    "operator %": '{{ "%*d" % (1000000000, 1) }}',
    "str.format": '{{ "{:1000000000}".format(1) }}',
    "str.format many times": '{{ ("{0}" * 100000).format("a" * 100000) }}',
    "str.format_map": '{{ "{a:1000000000}".format_map({"a": 1}) }}',
    "center": '{{ "a" | center(10 ** 10) }}',
    "ljust": '{{ "a".ljust(10 ** 10) }}',
    "to_bytes": '{{ (1).to_bytes(10 ** 10, "big") }}',
    "indent": '{{ ("a\\n" * 100000) | indent(100000) }}',
    "join": '{{ (["a" * 100000] * 100000) | join("b") }}',
    "str.join": '{{ ("a" * 1000000).join(["b"] * 1000000) }}',
    "batch": '{{ [1] | batch(10 ** 9, "a") | list }}',
    "slice": "{{ [1] | slice(10 ** 9) | list }}",
    "replace": '{{ ("a" * 1000000) | replace("a", "b" * 1000000) }}',
    "str.replace": '{{ ("a" * 1000000).replace("", "b" * 1000000) }}',
    "translate": '{{ ("a" * 1000000).translate({97: "b" * 1000000}) }}',
    "expandtabs": '{{ ("\\t" * 1000000).expandtabs(1000000) }}',
    "literal text": "{% for i in range(99999) %}" + "x" * 10000 + "{% endfor %}",
    "a block's text": "{% set a %}{% for i in range(99999) %}" + "x" * 10000 + "{% endfor %}{% endset %}{{ a }}",
    "list as text": '{{ ["a" * 1000000] * 100000 }}',
    "nested list as text": grown(*NESTED, "{{ ns.s }}"),
    "tojson": grown(*NESTED, "{{ ns.s | tojson }}"),
    "compared lists": grown(*NESTED, "{{ ns.s == [ns.s, 1] }}{{ ns.s == ns.s + [] }}"),
    "tested lists": grown(*NESTED, "{{ ns.s is eq(ns.s + []) }}{{ ns.s is in([ns.s + []]) }}"),
    "tested texts": '{{ ["a" * 9000000] * 90000 | select("eq", "a" * 8999999 + "b") | list }}',
    "selected texts": '{{ (["a" * 9000000] * 90000) | select("lt", "a" * 8999999 + "b") | list | length }}',
    "rejected texts": '{{ (["a" * 9000000] * 90000) | reject("upper") | list | length }}',
    "keys": grown('("ab",)', "(ns.s, ns.s)", "{{ {ns.s: 1} }}"),
    "sorted lists": grown(*NESTED, "{{ [ns.s, ns.s + []] | sort }}"),
    "summed lists": "{{ ([[1] * 10000] * 10000) | sum(start=[]) }}",
    "slices": '{% set a = "a" * 10000000 %}{% for i in range(99999) %}{% set b = a[1:] %}{% endfor %}',
    "searches": '{% set a = "a" * 10000000 %}{% for i in range(99999) %}{{ "b" in a }}{% endfor %}',
    "lipsum": "{{ lipsum(10 ** 9) }}",
    "deep expression": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep blocks": "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "a template of 2 MB": "{# a #}" * 300_000,
}
