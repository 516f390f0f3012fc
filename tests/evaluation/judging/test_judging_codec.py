"""Values that may pass between program and judge: plain values of exact types only."""

from __future__ import annotations

import collections
import datetime
import enum
import math
import random
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from donod_fast.evaluation.judging.codec import MAX_DEPTH, Reference, Refused
from donod_fast.evaluation.judging.decoder import decode
from donod_fast.evaluation.judging.encoder import encode

VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    255,
    -128,
    2**63 - 1,
    -(2**63),
    2**64,
    10**5000,
    -(10**5000),
    0.1,
    -0.0,
    math.inf,
    1 + 2j,
    "",
    "naïve \ud800 \0 𝒳",
    b"\0\xff",
    bytearray(b"ab"),
    [],
    [1, [2.5, "x", (None,)], {3}],
    list(range(50)),
    [float(one) for one in range(50)],
    [1] * 10 + [2.0] * 10 + [True] * 10 + ["a"] * 10 + [2**70] * 10 + [1],
    tuple(range(20)),
    ["abc", "", "é\ud800"] * 5,
    [(1, "a"), (2, "b")] * 10,
    [[1.5, None]] * 9 + [[1.5]] * 9 + [[]] * 9,
    [[(1, 2), (3, 4)]] * 8,
    [("a", (1,))] * 8 + [("a", [1])] * 8,
    set(range(20)),
    frozenset({"a", (1, 2)}),
    {"b": 1, "a": [2], (1,): None, 1.5: {}},
    range(3, 30, 4),
    collections.Counter("abca"),
    collections.OrderedDict([("z", 1), ("a", 2)]),
    collections.deque([1, 2]),
    Decimal("1.10"),
    Fraction(-3, 7),
    datetime.datetime(2024, 2, 29, 1, 2, 3, 4, tzinfo=datetime.UTC),
    datetime.date(2024, 2, 29),
    datetime.time(1, 2, 3),
    datetime.timedelta(days=-1, seconds=5, microseconds=7),
    int,
    list,
    ...,
]


def shape(value: Any) -> Any:
    """Value and exact types, all the way down; what ``==`` alone would not tell apart."""
    kind = type(value)
    if isinstance(value, dict):
        return kind, [(shape(key), shape(one)) for key, one in value.items()]
    if isinstance(value, (list, tuple, collections.deque)):
        return kind, [shape(one) for one in value]
    if isinstance(value, (set, frozenset)):
        return kind, {shape(one)[0] for one in value}, value
    return kind, repr(value) if isinstance(value, float) else value


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}-{str(type(value))[:0]}")
def test_a_plain_value_arrives_as_it_was_with_every_type_within(value: Any) -> None:
    assert shape(decode(encode(value))) == shape(value)


def test_views_of_a_dict_arrive_as_views() -> None:
    source = {"a": 1, "b": 2}
    assert decode(encode(source.keys())) == source.keys()
    assert list(decode(encode(source.values()))) == [1, 2]
    assert decode(encode(source.items())) == source.items()


def test_a_dict_keeps_its_order_and_an_ordered_dict_its_own() -> None:
    moved = collections.OrderedDict(a=1, b=2)
    moved.move_to_end("a")
    assert list(decode(encode(moved))) == ["b", "a"]


class Liar(int):
    def __eq__(self, other: object) -> bool:
        return True

    def __index__(self) -> int:
        return 99

    __hash__ = int.__hash__


class EqualList(list[Any]):
    def __eq__(self, other: object) -> bool:
        return True

    def __iter__(self) -> Any:
        return iter([99])


class Colour(enum.IntEnum):
    RED = 3


Point = collections.namedtuple("Point", "x y")


@pytest.mark.parametrize(
    ("value", "arrives"),
    [
        (Liar(4), 4),
        (EqualList([1, 2]), [1, 2]),
        (Colour.RED, 3),
        (Point(1, 2), (1, 2)),
        (type("S", (str,), {"__str__": lambda self: "99"})("ab"), "ab"),
        (type("B", (bytes,), {})(b"ab"), b"ab"),
        (type("D", (dict,), {"items": lambda self: [(9, 9)]})(a=1), {"a": 1}),
        (type("F", (float,), {"__float__": lambda self: 9.0})(1.5), 1.5),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (np.float64(2.5), 2.5),
        (np.int64(7), 7),
        (np.bool_(True), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_instance_of_a_subclass_arrives_as_the_plain_value(value: Any, arrives: Any) -> None:
    assert shape(decode(encode(value))) == shape(arrives)


@pytest.mark.parametrize(
    "value",
    [object(), len, re.match("a", "a"), iter([]), type("C", (), {}), ValueError("x")],
    ids=lambda it: repr(type(it)),
)
def test_what_is_not_plain_is_refused_or_goes_as_a_number(value: Any) -> None:
    with pytest.raises(Refused):
        encode(value)
    data = encode([value], lambda it: Reference(7, type(it).__name__))
    (arrived,) = decode(data, lambda reference: reference)
    assert (arrived.number, arrived.kind) == (7, type(value).__name__)
    with pytest.raises(Refused):
        decode(data)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def test_depth_is_bounded_on_both_sides() -> None:
    assert decode(encode(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    with pytest.raises(Refused, match="deep"):
        encode(nested(MAX_DEPTH + 1))
    with pytest.raises(Refused, match="deep"):
        decode(b"l\0\0\0\1" * 100_000 + b"N")
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(Refused, match="within itself"):
        encode(loop)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"?",
        b"NN",
        b"l\xff\xff\xff\xff",
        b"l\0\0\0\2N",
        b"i\0\0\0\5\1",
        b"s\0\0\0\1\xff",
        b"f\0",
        b"S\0\0\0\1" + encode([1]),
        b"d\0\0\0\1" + encode([1]) + b"N",
        b"y\0\0\0\4open",
        b"y\0\0\0\x09Exception",
        b"r\0\0\0\1" + encode("a"),
        b"m\0\0\0\1" + encode([1, 2]),
        b"D\0\0\0\1x",
        b"Q\0\0\0\x031/0",
        b"w\0\0\0\1x",
        b"l\0\0\0\1Rq\0\0\0\x10" + bytes(16),
        b"l\0\0\0\1Rd\0\0\0\3abc",
        b"l\0\0\0\1Ru\0\0\0\4abcd",
        b"l\0\0\0\1Rt\0\0\0\2\0\0\0\1N",
        b"l\0\0\0\1Rt\0\0\0\0\0\0\0\0",
        b"l\0\0\0\1Rs\0\0\0\x08" + (5).to_bytes(8, "little") + b"\0\0\0\1a",
        b"l\0\0\0\2Rs\0\0\0\x10" + (2).to_bytes(8, "little") + b"\xff" * 8 + b"\0\0\0\1a",
    ],
    ids=repr,
)
def test_invalid_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(Refused):
        decode(data)


def test_damaged_bytes_give_a_plain_value_or_are_refused() -> None:
    chance = random.Random(0)
    wholes = [encode(value) for value in VALUES if not isinstance(value, int) or abs(value) < 2**70]
    refused = 0
    for _ in range(4000):
        data = bytearray(chance.choice(wholes))
        for _ in range(chance.randint(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            value = decode(bytes(data))
        except Refused:
            refused += 1
        else:
            assert type(value).__module__ in {"builtins", "collections", "datetime", "decimal", "fractions"}
    assert 0 < refused < 4000
