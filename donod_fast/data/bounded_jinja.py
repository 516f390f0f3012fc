"""Chat templates within bounds: one that loops or multiplies text is stopped, at the same place on every machine.

A template is a program that came with a model. Jinja's sandbox keeps it from files and modules, but not from running
for years or filling the memory. The environment made here counts what a template does: rounds of loops, calls of
macros, and the characters of every text that it makes. Whatever could multiply a text is estimated before it is done.
Nothing depends on time, so that a row has the same status in every run.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from jinja2 import Template, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from donod_fast.data.template_costs import (
    STEP_CHARACTERS,
    charge,
    check_bits,
    check_format,
    check_numbers,
    check_product,
    checked_filter,
    checked_method,
    count_step,
    most_characters,
    size_of,
    too_long,
    weight,
)
from donod_fast.system.limits import RENDER_CHARACTERS

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

_FREE = 256
"""Characters of a text that may be compared or hashed for nothing: the steps are counted."""


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
            if size > RENDER_CHARACTERS and size > most_characters():
                raise too_long("the text that it writes")
            kept.append(piece)
        charge(size)
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
                charge(len(left) + len(right))
                return left + right
            for kinds in (str, (list, tuple)):
                if isinstance(left, kinds) and isinstance(right, kinds):
                    charge(len(left) + len(right))
        elif operator == "*":
            check_product(left, right)
        elif operator == "**":
            if isinstance(left, int) and isinstance(right, int) and right > 0:
                check_bits(left.bit_length() * right)
        elif operator == "%" and isinstance(left, str | bytes):
            check_format(left if isinstance(left, str) else left.decode("latin-1"), right)
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805
        """A call, if its arguments and its result are not too large."""
        name = getattr(__obj, "__name__", "")
        if name in _SIMPLE and type(text := getattr(__obj, "__self__", None)) is str:
            charge(STEP_CHARACTERS + 2 * len(text))
            return super().call(__context, __obj, *args, **kwargs)
        # The sandbox wraps str.format.
        owner = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)
        if isinstance(owner, str | bytes | list | dict | int):
            args = checked_method(name, owner, args, kwargs)
        elif not isinstance(owner, ImmutableSandboxedEnvironment):
            check_numbers(name, args, kwargs)
        result = super().call(__context, __obj, *args, **kwargs)
        charge(STEP_CHARACTERS + size_of(result))
        return result


class _BoundedTemplate(Template):
    def generate(self, *args: Any, **kwargs: Any) -> Iterator[str]:
        """The pieces of the output; stops before they are too many."""
        size = 0
        for piece in super().generate(*args, **kwargs):
            size += len(piece)
            if size > RENDER_CHARACTERS and size > most_characters():
                raise too_long("the text that it writes")
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
    count_step()
    return True


@_context_only
def _joined(context: Any, pieces: list[Any]) -> str:
    charge(sum(map(weight, pieces)))
    return "".join(map(str, pieces))


@_context_only
def _weighed(context: Any, value: Any) -> Any:
    """A value that is compared, hashed or copied: as costly as it is long."""
    if type(value) is str:
        if len(value) > _FREE:
            charge(len(value))
    elif isinstance(value, str | list | tuple | dict):
        charge(weight(value))
    return value


def _written(value: Any) -> Any:
    """What an expression writes, if it is not too long as text."""
    if not isinstance(value, str):
        charge(weight(value))
    return value


def _guarded(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter, with its arguments and its result counted."""
    given = 1 if getattr(function, "jinja_pass_arg", None) is not None else 0
    is_simple = name in _SIMPLE_FILTERS and not given

    @functools.wraps(function)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if is_simple and len(args) == 1 and type(text := args[0]) is str and not kwargs:
            charge(STEP_CHARACTERS + 2 * len(text))
            return function(text)
        own, rest = args[:given], args[given:]
        if rest:
            rest = (checked_filter(name, rest[0], rest[1:], kwargs), *rest[1:])
        result = function(*own, *rest, **kwargs)
        charge(STEP_CHARACTERS + size_of(result))
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
        charge(STEP_CHARACTERS + size_of(item))
        yield item


def bounded_render(render: Callable[..., Any]) -> Callable[..., Any] | None:
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
    return made


__all__ = ["bounded", "bounded_render"]
