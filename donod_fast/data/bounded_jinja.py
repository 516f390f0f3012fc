"""Chat templates within bounds: one that loops or multiplies text is stopped, at the same place on every machine.

A template is a program that came with a model. Jinja's sandbox keeps it from files and modules, but not from running
for years or filling the memory. The environment made here counts what a template does: rounds of loops, calls of
macros, and the characters of every text that it makes. Whatever could multiply a text is estimated before it is done.
Nothing depends on time, so that a row has the same status in every run.
"""

from __future__ import annotations

import functools
import re
import threading
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from typing import Any

from jinja2 import Template, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from donod_fast.system.limits import (
    CHARACTERS_PER_CHARACTER,
    LENGTH_PER_CHARACTER,
    RENDER_CHARACTERS,
    RENDER_STEPS,
    STEPS_PER_MESSAGE,
)

_MOST_NUMBER = 1_000_000
"""Largest number that a filter, a method or a format may be given: each of them is a length, a width or a count."""

_MOST_BITS = 1 << 16
"""Bits of the largest integer that a template may compute."""

_COUNTED = "counted step"
_JOINED = "counted join"
_WEIGHED = "counted value"
_SIMPLE = frozenset(
    {
        *("strip", "lstrip", "rstrip", "split", "rsplit", "startswith", "endswith", "removeprefix", "removesuffix"),
        *("lower", "upper", "title", "partition", "rpartition", "find", "splitlines", "isdigit", "isspace"),
    }
)
"""Methods of texts that look at each character once, and make no more of them, whatever they are given."""

_SIMPLE_FILTERS = frozenset(("trim", "length", "count", "upper", "lower", "capitalize", "first", "last", "string"))
"""The same of filters, without arguments."""

_COSTLY_TESTS = frozenset(
    {
        *("eq", "equalto", "==", "ne", "!=", "lt", "lessthan", "<", "le", "<=", "gt", "greaterthan", ">", "ge", ">="),
        *("in", "upper", "lower"),
    }
)
"""Tests that look at all of a value; the others ask for its type."""

_NUMBERS = re.compile(r"\d+")
_FREE = 256
"""Characters of a text that may be compared or hashed for nothing: the steps are counted."""

_STEP_CHARACTERS = 16  # what a call costs beside the text that it makes
_ITEM_CHARACTERS = 8  # what an item of a list costs beside its own text
_DEEPEST = 100


class TooCostlyError(Exception):
    """A template does more than it may; the message says what, and names the limit."""


class _Meter(threading.local):
    """What is left to the template that this thread renders."""

    steps = RENDER_STEPS
    characters = RENDER_CHARACTERS
    most = RENDER_CHARACTERS
    further: Callable[[], int] | None = None


_meter = _Meter()


@contextmanager
def metered(messages: int, characters: int, further: Callable[[], int] | None = None) -> Iterator[None]:
    """Give the template that this thread renders inside the ``with`` block its budget.

    Args:
        messages: number of messages that it writes.
        characters: characters of their texts.
        further: counts the characters of what else is written, such as tools; called only if the rest is not enough.
    """
    _meter.steps = RENDER_STEPS + STEPS_PER_MESSAGE * messages
    _meter.most = RENDER_CHARACTERS + LENGTH_PER_CHARACTER * characters
    _meter.characters = _meter.most + CHARACTERS_PER_CHARACTER * characters
    _meter.further = further
    try:
        yield
    finally:
        _meter.further = None
        _meter.steps, _meter.characters, _meter.most = RENDER_STEPS, RENDER_CHARACTERS, RENDER_CHARACTERS


def bounded(environment: ImmutableSandboxedEnvironment) -> ImmutableSandboxedEnvironment:
    """The same environment, with every costly thing counted; templates must be compiled in it.

    Raises:
        TooCostlyError: by templates that render, or are compiled, in it.
    """
    made: Any = object.__new__(_BoundedEnvironment)
    made.__dict__.update(environment.__dict__)
    made.overlayed, made.linked_to, made.cache = True, environment, None
    made.extensions = {name: extension.bind(made) for name, extension in environment.extensions.items()}
    for extension in made.extensions.values():
        tracker = getattr(extension, "activate_tracker", None)
        if tracker is not None:  # transformers' extension for generation marks
            made.activate_tracker = tracker
    made.filters = {name: _guarded(name, function) for name, function in environment.filters.items()}
    made.filters |= {_COUNTED: _step, _JOINED: _joined, _WEIGHED: _weighed}
    tests: dict[str, Any] = {**environment.tests}
    made.tests = {name: _weighing(test) if name in _COSTLY_TESTS else test for name, test in tests.items()}
    made.globals = {name: value for name, value in environment.globals.items() if name != "lipsum"}
    made.finalize = _written
    made.template_class = _BoundedTemplate
    return made  # type: ignore[no-any-return]


class _BoundedEnvironment(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset({"+", "*", "**", "%"})

    @staticmethod
    def concat(pieces: Iterable[str]) -> str:
        """Join pieces of the output; stops before they are too many."""
        kept, size = [], 0
        for piece in pieces:
            size += len(piece)
            if size > RENDER_CHARACTERS and size > _most():
                raise _too_long("the text that it writes")
            kept.append(piece)
        _charge(size)
        return "".join(kept)

    def _parse(self, source: str, name: Any, filename: Any) -> nodes.Template:
        template: Any = super()._parse(source, name, filename)
        for loop in list(template.find_all(nodes.For)):
            loop.body.insert(0, _counting(loop))
            if loop.test is not None:  # a round that the condition leaves out is one as well
                loop.test = nodes.And(_counted(loop.test), loop.test).set_lineno(loop.lineno)
        for macro in list(template.find_all((nodes.Macro, nodes.CallBlock, nodes.Block))):
            macro.body.insert(0, _counting(macro))
        _instrument(template)
        return template.set_environment(self)  # type: ignore[no-any-return]

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operator, if its result is not too large."""
        if operator == "+":
            if type(left) is str and type(right) is str:  # nearly all of them; the sandbox would do the same
                _charge(len(left) + len(right))
                return left + right
            for kinds in (str, (list, tuple)):
                if isinstance(left, kinds) and isinstance(right, kinds):
                    _charge(len(left) + len(right))
        elif operator == "*":
            _check_product(left, right)
        elif operator == "**":
            if isinstance(left, int) and isinstance(right, int) and right > 0:
                _check_bits(left.bit_length() * right)
        elif operator == "%" and isinstance(left, str | bytes):
            _check_format(left if isinstance(left, str) else left.decode("latin-1"), right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """A call, if its arguments and its result are not too large."""
        name = getattr(__obj, "__name__", "")
        if name in _SIMPLE and type(text := getattr(__obj, "__self__", None)) is str:
            _charge(_STEP_CHARACTERS + 2 * len(text))
            return super().call(__context, __obj, *args, **kwargs)
        # The sandbox wraps str.format.
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        if isinstance(owner, str | bytes | list | dict | int):
            args = _checked_method(name, owner, args, kwargs)
        elif not isinstance(owner, ImmutableSandboxedEnvironment):
            _check_numbers(name, args, kwargs)
        result = super().call(__context, __obj, *args, **kwargs)
        _charge(_STEP_CHARACTERS + _size(result))
        return result


class _BoundedTemplate(Template):
    def generate(self, *args: Any, **kwargs: Any) -> Iterator[str]:
        """The pieces of the output; stops before they are too many."""
        size = 0
        for piece in super().generate(*args, **kwargs):
            size += len(piece)
            if size > RENDER_CHARACTERS and size > _most():
                raise _too_long("the text that it writes")
            yield piece


def _counted(place: nodes.Node) -> Any:
    return _filtered(nodes.Const(None).set_lineno(place.lineno), _COUNTED)


def _counting(place: nodes.Node) -> Any:
    return nodes.ExprStmt(_counted(place)).set_lineno(place.lineno)


def _instrument(node: nodes.Node) -> None:
    """Have counted what Jinja does without asking the environment: ``a ~ b``, comparisons, slices, keys of mappings."""
    for field, value in list(node.iter_fields()):
        items = value if isinstance(value, list) else [value]
        for at, item in enumerate(items):
            if not isinstance(item, nodes.Node):
                continue
            _instrument(item)
            made = _instrumented(node, field, item)
            if made is item:
                continue
            if isinstance(value, list):
                value[at] = made
            else:
                setattr(node, field, made)


def _instrumented(parent: nodes.Node, field: str, item: nodes.Node) -> Any:
    if isinstance(item, nodes.Concat):
        return _filtered(nodes.List(item.nodes).set_lineno(item.lineno), _JOINED)
    if isinstance(item, nodes.Const | nodes.Slice) or not isinstance(item, nodes.Expr):
        return item
    is_compared = isinstance(parent, nodes.Compare | nodes.Operand) and field == "expr"
    if isinstance(parent, nodes.Compare) and _is_quick(parent):
        return item
    is_key = (isinstance(parent, nodes.Pair) and field == "key") or (
        isinstance(parent, nodes.Getitem) and field == "arg"
    )
    if is_compared or is_key or (isinstance(item, nodes.Getitem) and isinstance(item.arg, nodes.Slice)):
        return _filtered(item, _WEIGHED)
    return item


def _is_quick(comparison: nodes.Compare) -> bool:
    """Whether a value is compared with fixed ones only, which ends with the shorter of the two."""
    if len(comparison.ops) != 1:
        return False
    (other,) = comparison.ops
    if other.op in ("in", "notin"):
        fixed = other.expr
        return isinstance(fixed, nodes.List | nodes.Tuple) and all(isinstance(one, nodes.Const) for one in fixed.items)
    return isinstance(other.expr, nodes.Const)


def _filtered(value: Any, name: str) -> Any:
    return nodes.Filter(value, name, [], [], None, None).set_lineno(value.lineno)


def _context_only(function: Callable[..., Any]) -> Callable[..., Any]:
    from jinja2 import pass_context

    return pass_context(function)  # such a filter is not computed when the template is compiled


@_context_only
def _step(context: Any, value: Any) -> bool:
    left = _meter.steps - 1
    if left < 0:
        raise TooCostlyError(f"it takes more than {RENDER_STEPS:,} rounds of loops and calls")
    _meter.steps = left
    return True


@_context_only
def _joined(context: Any, pieces: list[Any]) -> str:
    _charge(sum(map(_weight, pieces)))
    return "".join(map(str, pieces))


@_context_only
def _weighed(context: Any, value: Any) -> Any:
    """A value that is compared, hashed or copied: as costly as it is long."""
    if type(value) is str:
        if len(value) > _FREE:
            _charge(len(value))
    elif isinstance(value, str | list | tuple | dict):
        _charge(_weight(value))
    return value


def _written(value: Any) -> Any:
    """What an expression writes, if it is not too long as text."""
    if not isinstance(value, str):
        _charge(_weight(value))
    return value


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter, with its arguments and its result counted."""
    given = 1 if getattr(function, "jinja_pass_arg", None) is not None else 0
    is_simple = name in _SIMPLE_FILTERS and not given

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if is_simple and len(args) == 1 and type(text := args[0]) is str and not kwargs:
            _charge(_STEP_CHARACTERS + 2 * len(text))
            return function(text)
        own, rest = args[:given], args[given:]
        if rest:
            rest = (_checked_filter(name, rest[0], rest[1:], kwargs), *rest[1:])
        result = function(*own, *rest, **kwargs)
        _charge(_STEP_CHARACTERS + _size(result))
        return _counted_items(result) if hasattr(type(result), "__next__") else result

    return guarded


def _weighing(test: Callable[..., Any]) -> Callable[..., Any]:
    """A test that looks at all of its values, which are counted."""

    @functools.wraps(test)
    def weighing(*args: Any) -> Any:
        for one in args:
            _weighed(None, one)
        return test(*args)

    return weighing


def _counted_items(items: Iterator[Any]) -> Iterator[Any]:
    """The items that a filter makes one by one."""
    for item in items:
        _charge(_STEP_CHARACTERS + _size(item))
        yield item


def _checked_filter(name: str, value: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """The value that a filter gets, after its cost was estimated."""
    _check_numbers(name, args, kwargs)
    given = (*args, *kwargs.values())
    match name:
        case "join":
            value = value if isinstance(value, str | list | tuple) else _listed(value)
            _charge(_weight(value) + len(value) * max(map(_weight, given), default=0))
        case "replace":
            _charge(_weight(value))
            _check_replace(str(value), given)
        case "format":
            _check_format(str(value), given)
        case "indent":
            text = str(value)
            widths = [len(one) if isinstance(one, str) else one for one in given if isinstance(one, str | int)]
            _charge((text.count("\n") + 1) * max([4, *widths]) + len(text))
        case "batch" | "slice" | "center" | "wordwrap" | "truncate":
            _charge(sum(one for one in given if isinstance(one, int)))
            _charge(_weight(value))
        case "sum":
            if any(not isinstance(one, int | float | str) for one in given):
                raise TooCostlyError("the filter sum adds numbers only")
            value = value if isinstance(value, list | tuple) else _listed(value)
            _charge(len(value))
        case "tojson":
            spaces = [len(one) if isinstance(one, str) else one for one in given if isinstance(one, str | int)]
            _charge(_weight(value) * (1 + max([0, *spaces])))
        case "sort" | "unique" | "groupby" | "min" | "max" | "dictsort":
            value = value if isinstance(value, str | list | tuple | dict) else _listed(value)
            _charge(_weight(value))
        case "pprint" | "string" | "escape" | "e" | "forceescape" | "safe" | "urlize" | "xmlattr" | "striptags":
            _charge(_weight(value))
        case _:
            _charge(_size(value))
    return value


def _checked_method(name: str, owner: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
    """The arguments of a method of a text, a list, a mapping or a number, after its cost was estimated."""
    _check_numbers(name, args, kwargs)
    given = (*args, *kwargs.values())
    _charge(_size(owner))
    match name:
        case "join" if args:
            items = args[0] if isinstance(args[0], str | bytes | list | tuple | dict) else _listed(args[0])
            _charge(_weight(items) + len(items) * len(owner))
            return (items, *args[1:])
        case "replace":
            _check_replace(owner, given)
        case "format" | "format_map":
            _check_format(owner, given, "{")
        case "count" | "index" if isinstance(owner, list | tuple):
            _charge(_weight(owner))
        case "expandtabs":
            tab = "\t" if isinstance(owner, str) else b"\t"
            _charge(owner.count(tab) * max([8, *(one for one in given if isinstance(one, int))]))
        case "translate":
            table = given[0] if given else None
            longest = max(map(_weight, table.values()), default=1) if isinstance(table, Mapping) else 1
            _charge(len(owner) * longest)
        case "ljust" | "rjust" | "center" | "zfill" | "to_bytes":
            _charge(sum(one for one in given if isinstance(one, int)))
    return args


def _charge(characters: int) -> None:
    # What a thread owns is slow to look up: this is called for every step of a template.
    if characters > RENDER_CHARACTERS and characters > _most():
        raise _too_long("a text that it makes")
    left = _meter.characters - characters
    if left < 0:
        _most()
        left = _meter.characters - characters
    if left < 0:
        raise _too_long("the texts that it makes on the way")
    _meter.characters = left


def _most() -> int:
    """Characters that the template may write, with those of what is counted only when they are needed."""
    if _meter.further is not None:
        characters, _meter.further = _meter.further(), None
        _meter.most += LENGTH_PER_CHARACTER * characters
        _meter.characters += (LENGTH_PER_CHARACTER + CHARACTERS_PER_CHARACTER) * characters
    return _meter.most


def _too_long(what: str) -> TooCostlyError:
    return TooCostlyError(f"{what} would have more than {_meter.most:,} characters")


def _size(value: Any) -> int:
    """Characters of a text, items of a list; 0 for other values."""
    return len(value) if isinstance(value, str | bytes | list | tuple | dict) else 0


def _weight(value: Any, depth: int = 0) -> int:
    """Characters that a value has as text, about; stops at the limit."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, int):
        return 8 if value is True or value is False else value.bit_length() // 3 + 1
    if depth > _DEEPEST:
        raise TooCostlyError(f"a value that it writes is nested more than {_DEEPEST} deep")
    if isinstance(value, list | tuple | set | frozenset):
        items: Iterable[Any] = value
    elif isinstance(value, dict):
        items = chain(value, value.values())
    elif isinstance(value, Mapping):
        items = chain(value.keys(), value.values())
    else:
        return 8
    total, most = 2, RENDER_CHARACTERS
    for item in items:
        total += (len(item) if type(item) is str else _weight(item, depth + 1)) + _ITEM_CHARACTERS
        if total > most and total > (most := _most()):
            raise _too_long("a value that it writes")
    return total


def _listed(items: Any) -> list[Any]:
    found = []
    for item in items:
        _charge(1)
        found.append(item)
    return found


def _check_numbers(name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    for one in (*args, *kwargs.values()):
        if isinstance(one, int) and abs(one) > _MOST_NUMBER:
            raise TooCostlyError(
                f"it gives {name.removeprefix('safe_') or 'a function'} a number above {_MOST_NUMBER:,}"
            )
        if isinstance(one, list | tuple | dict):
            _charge(_weight(one))


def _check_product(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        _check_bits(left.bit_length() + right.bit_length())
        return
    for text, times in ((left, right), (right, left)):
        if isinstance(text, str | bytes | list | tuple) and isinstance(times, int):
            _charge(len(text) * max(times, 0))


def _check_bits(bits: int) -> None:
    if bits > _MOST_BITS:
        raise TooCostlyError(f"it computes a number of more than {_MOST_BITS:,} bits")


def _check_replace(text: Any, given: tuple[Any, ...]) -> None:
    if len(given) >= 2:
        old, new = (one if isinstance(one, str | bytes) else str(one) for one in given[:2])
        texts: Any = text
        times = len(text) + 1 if not old else texts.count(old) if type(old) is type(text) else 0
        _charge(len(text) + times * len(new))


def _check_format(pattern: Any, given: Any, mark: str = "%") -> None:
    values = given if isinstance(given, tuple | list) else (given,)
    values = [value for one in values for value in (one.values() if isinstance(one, Mapping) else (one,))]
    if isinstance(pattern, bytes):
        pattern = pattern.decode("latin-1")
    widest = max((int(found[:12]) for found in _NUMBERS.findall(pattern)), default=0)
    # A star takes its width from the values, and so does {:{}}.
    takes = "*" in pattern or (mark == "{" and "{" in pattern.partition(":")[2])
    if takes:
        widest = max([widest, *(abs(one) for one in values if isinstance(one, int))])
    if widest > _MOST_NUMBER:
        raise TooCostlyError(f"it formats with a width above {_MOST_NUMBER:,}")
    longest = max(map(_weight, values), default=0)
    _charge(len(pattern) + pattern.count(mark) * (longest + widest))


class BoundedRender:
    """Transformers' function ``render_jinja_template`` in a bounded environment; other processes make their own.

    Args:
        render: transformers' function.
        made: the same function, compiling templates in a bounded environment.
    """

    def __init__(self, render: Callable[..., Any], made: Callable[..., Any]) -> None:
        self._render, self._made = render, made

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """As transformers' function; raises TooCostlyError."""
        return self._made(*args, **kwargs)

    def __reduce__(self) -> tuple[Any, ...]:
        return bounded_render, (self._render,)


def bounded_render(render: Callable[..., Any]) -> BoundedRender | None:
    """Transformers' function ``render_jinja_template``, compiling templates in a bounded environment.

    Returns:
        The function; None if this release of transformers compiles in another way.
    """
    compiled: Any = getattr(render, "__globals__", {}).get("_compile_jinja_template")
    if compiled is None or not isinstance(render, types.FunctionType):
        return None
    if "_compile_jinja_template" not in render.__code__.co_names:
        return None

    @functools.lru_cache(maxsize=16)
    def compiled_within_bounds(source: str) -> Any:
        return bounded(compiled("").environment).from_string(source)

    scope = {**render.__globals__, "_compile_jinja_template": compiled_within_bounds}
    made = types.FunctionType(render.__code__, scope, render.__name__, render.__defaults__, render.__closure__)
    made.__kwdefaults__ = render.__kwdefaults__
    return BoundedRender(render, made)


__all__ = ["TooCostlyError", "bounded", "bounded_render", "metered"]
