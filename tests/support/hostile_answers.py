"""Answers that cost their judge far more than their sender: a generator by kind, each with the test that meets it.

A program that overwrites the encoder of its own process may send any bytes, so the answers need not be values that the
program itself could build in time.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from judging_cases import evalplus, human_eval

from donod_fast.evaluation.judging import Check


@dataclass(frozen=True)
class Hostile:
    """A program with a wrong answer, and the check that it must not pass."""

    name: str
    check: Check
    program: str


# ``sends(raw)`` makes the bytes of every answer's value ``raw``, once the program is loaded.
_SENDS = """
import struct, sys
server = sys.modules["donod_fast.evaluation.judging.program_side"]
encode = server.encode
def sends(raw):
    data = encode(("value", 0), None)[: -len(encode(0, None))] + raw
    loaded = []
    def answers(value, refer=None):
        if not loaded:
            loaded.append(1)
            return encode(value, refer)
        if value[0] == "value" and type(value[1]) is list and value[1] and type(value[1][0]) is bytes:
            return encode(("value", [data]), refer)
        if value[0] == "value" and not callable(value[1]):
            return data
        return encode(value, refer)
    server.encode = answers
def size(n): return struct.pack(">I", n)
def of(tag, items): return tag + size(len(items)) + b"".join(encode(i, None) for i in items)
def pairs(tag, items): return tag + size(len(items)) + b"".join(encode(i, None) + b"N" for i in items)
P = 2**61 - 1
def f(*given, **named): return 0
"""

_ALSO = "similar_elements = sum_div = find_zero = f"

_ITEMS = {  # items that share one hash
    "integers": "[{start} + i * P for i in range({count})]",
    "integers below zero": "[-(i + 2) * P for i in range({count})]",
    "tuples": "[({start} + i * P, 'a') for i in range({count})]",
    "nested tuples": "[((i * P,),) for i in range({count})]",
    "frozen sets": "[frozenset([i * P]) for i in range({count})]",
    "decimals": "__import__('decimal') and [__import__('decimal').Decimal(i * P) for i in range({count})]",
    "fractions": "[__import__('fractions').Fraction(i * P, 1) for i in range({count})]",
    "complex": "[complex(m * 2.0**(61 * e), 0) for m in range({count} // 16) for e in range(16)]",
}
_TAGS = {"set": "of(b'S', {})", "frozen set": "of(b'Z', {})", "dict": "pairs(b'd', {})", "counter": "pairs(b'C', {})",
         "ordered dict": "pairs(b'O', {})", "keys": "of(b'k', {})",
         "items": "of(b'm', [(i, 0) for i in {}])"}  # fmt: skip


def colliding(chance: random.Random) -> Hostile:
    """Keys of a dict or items of a set with one hash, or a list of them of which the tests make a set."""
    kind = chance.choice(list(_ITEMS))
    slow = kind in ("decimals", "fractions", "frozen sets", "nested tuples")
    items = _ITEMS[kind].format(start=chance.randrange(1 << 60), count=20_000 if slow else 60_000)
    tag = chance.choice([*_TAGS, "list"])
    raw = f"encode({items}, None)" if tag == "list" else _TAGS[tag].format(items)
    test = chance.choice(["set(candidate()) == {1}", "dict.fromkeys(candidate()) == {1: None}"])
    return _answer(f"{tag} of {kind}", raw, test, chance)


_EATERS = [
    "set({}) == {{1}}", "sum({}) == 5", "list({}) == [1]", "sorted({}) == [1]", "5.5 in {}", "max({}) == 3",
    "tuple({}) == (1,)", "dict.fromkeys({}) == {{1: None}}", "any(x < 0 for x in {})", "len(list({})) == 4",
    "''.join(map(str, {})) == '1'", "[x for x in {}] == [1]", "all(x >= 0 for x in {}) and False",
    "list(zip({}, [1, 2])) == [1]", "__import__('collections').Counter({}) == {{1: 1}}", "list(reversed({})) == [1]",
    "sorted({}, key=lambda x: -x) == [1]", "frozenset({}) == frozenset([1])", "list(map(str, {})) == ['1']",
]  # fmt: skip


def lazy(chance: random.Random) -> Hostile:
    """A range of any length, which takes a few bytes to send, used up by the tests."""
    length = 10 ** chance.randint(9, 18) + chance.randrange(1000)
    step = chance.choice([1, 7, -3])
    answer = f"range(0, {length * step}, {step})"
    return _honest(f"range of {length:.0e}", answer, chance.choice(_EATERS).format("candidate()"), chance)


_NUMBERS = {
    "a long integer": "1 << (8 * {mib} << 20)",
    "a long odd integer": "(1 << (8 * {mib} << 20)) - 12345",
    "a great integer": "10 ** {power}",
    "a decimal": "__import__('decimal').Decimal('1e{nines}')",
    "a negative decimal": "__import__('decimal').Decimal('-9e{nines}')",
    "a fraction": "__import__('fractions').Fraction((1 << (8 * {mib} << 19)) + 1, 3 << (8 * {mib} << 18))",
    "infinity": "float('inf')",
    "NaN": "float('nan')",
    "a duration": "__import__('datetime').timedelta(days=999999999)",
}
_SUMS = [
    "str({}) == '5'", "{} * {} == 25", "{} ** 3 == 125", "{} % 97 == 98", "[0] * {} == [1]", "'ab' * {} == 'x'",
    "sum(range({})) == 5", "list(range({})) == [1]", "2 ** {} == 3", "pow(3, {}) == 5",
    "__import__('math').factorial({}) == 6",
    "int({}) == 5", "round({}) == 5", "bin({}) == '0b1'", "hash({}) == 0.5", "{} // 3 ** 100000 == 1.5", "1 << {} == 3",
    "__import__('math').isqrt({}) == 0.5", "__import__('fractions').Fraction({}) == 0.5",
    "__import__('math').gcd({}, 3 ** 4000000) == 0",
    "f'{{{}:.3f}}' == 'x'", "'%d' % {} == 'x'", "{} + __import__('fractions').Fraction(1, 3) == 1", "bytes({}) == b'x'",
    "__import__('math').comb({}, 10 ** 9) == 0.5", "'{{:>{{}}}}'.format(1, {}) == 'x'", "divmod({}, 7) == (1, 9)",
]  # fmt: skip


def numbers(chance: random.Random) -> Hostile:
    """Numbers with which one operation of the tests takes all time or all memory."""
    kind = chance.choice(list(_NUMBERS))
    answer = _NUMBERS[kind].format(
        mib=chance.choice([1, 8, 30, 60]),
        power=chance.choice([6, 9, 12, 18, 1000]),
        nines=chance.choice(["999999999", "300000000", "20000000"]),
    )
    return _honest(kind, answer, chance.choice(_SUMS).replace("{}", "candidate()").format(), chance)


_BULKS = {
    "nones": "b'l' + size({n}) + b'N' * {n}",
    "empty lists": "b'l' + size({n} // 5) + b'l' + b'\\0\\0\\0\\0l' * ({n} // 5 - 1) + b'\\0\\0\\0\\0'",
    "empty dicts": "b't' + size({n} // 5) + (b'd' + size(0)) * ({n} // 5)",
    "empty sets": "b'l' + size({n} // 5) + (b'S' + size(0)) * ({n} // 5)",
    "rows of one": "b'l' + size({n}) + b'Rt' + size(1) + size({n}) + b'N' * {n}",
    "lists of one": "b'l' + size({n}) + b'Rl' + size(1) + size({n}) + b'T' * {n}",
    "integers": "encode(list(range(10**15, 10**15 + {n} // 8)), None)",
    "floats": "encode([i / 3 for i in range({n} // 8)], None)",
    "texts": "encode([str(i) for i in range({n} // 16)], None)",
    "one text": "encode('a b ' * ({n} // 4), None)",
    "bytes": "encode(bytes({n}), None)",
    "references": "b'l' + size({n} // 9) + (b'H' + size(7) + size(0)) * ({n} // 9 - 1) + b'H' + size(8)"
    " + size(1) + b'x'",
    "iterators": "b'l' + size({n} // 17) + (b'H' + size(7) + size(8) + b'iterator') * ({n} // 17)",
    "a tower": "(b'l' + size(1)) * 140 + encode([[1] * 9] * ({n} // 90), None)",
    "towers": "b'l' + size({n} // 650) + ((b'l' + size(1)) * 128 + b'N') * ({n} // 650)",
    "a deque": "b'q' + size({n}) + b'T' * {n}",
    "values": "b'v' + size({n}) + b'T' * {n}",
    "decimals": "b'l' + size({n} // 6) + (b'D' + size(1) + b'7') * ({n} // 6)",
    "dates": "b'l' + size({n} // 15) + (b'a' + size(10) + b'2024-02-29') * ({n} // 15)",
    "a decimal of many digits": "b'D' + size({n}) + b'7' * {n}",
    "ranges": "b'l' + size({n} // 25) + encode(range(5), None) * ({n} // 25)",
    "a fraction of many digits": "b'Q' + size({n} // 2 * 2 + 1) + b'7' * ({n} // 2) + b'/' + b'3' * ({n} // 2)",
    "announced items": "b'l' + size(2**32 - 1) + b'N' * {n}",
    "announced bytes": "b's' + size(2**32 - 1) + b'x' * {n}",
    "many class names": "b't' + size(3) + encode('raised', None)"
    " + encode(['E' * 9] * ({n} // 9) + ['Exception'], None) + encode('', None)",
    "a long message": "b't' + size(3) + encode('raised', None)"
    " + encode(['ValueError', 'Exception'], None) + encode('a ' * ({n} // 2), None)",
    "a long class name": "b't' + size(3) + encode('raised', None)"
    " + encode(['E' * {n}, 'Exception'], None) + encode('', None)",
}  # fmt: skip
_COMPARISONS = [
    "candidate() == [1]", "candidate() == (1,)", "sorted(candidate()) == [1]", "repr(candidate()) == '1'",
    "str(candidate()) == 'a'",
    "set(map(str, candidate())) == {'1'}", "candidate() * 3 == 5", "[1] in candidate()", "(2, 3) in list(candidate())",
    "candidate() == candidate() and False", "[candidate()] * 3 == [candidate()] * 2", "list(candidate()) == [1]",
    "candidate() + candidate() == [2]", "candidate().split() == ['a']",
    "all(candidate().count(x) == 1 for x in candidate()) and False",
    "candidate(candidate()) == 1", "__import__('copy').deepcopy(candidate()) == 3",
    "__import__('json').dumps(candidate()) == '1'",
    "sum(len(str(x)) for x in candidate()) == 1", "any(candidate().index(x) == 77 for x in list(candidate())[::-1])",
]  # fmt: skip


def bulk(chance: random.Random) -> Hostile:
    """Up to 64 MiB that become gigabytes of objects, or that take long to compare, print, sort or search."""
    kind = chance.choice(list(_BULKS))
    n = (chance.choice([3, 20, 63]) << 20) - 100
    return _answer(f"{kind}, {n >> 20} MiB", _BULKS[kind].format(n=n), chance.choice(_COMPARISONS), chance)


_REMOTES = {
    "a generator": "def f(*given):\n  n = 0\n  while True:\n    yield n\n    n += 1",
    "a generator of lists": "def f(*given):\n  while True:\n    yield [0] * 3000",
    "a sequence without end": "class S:\n  def __len__(s): return {length}\n  def __getitem__(s, i): return 1\n"
    "def f(*given): return S()",
    "an iterable of itself": "class S:\n  def __iter__(s): return s\n  def __next__(s): return s\n"
    "  def __len__(s): return {length}\n"
    "def f(*given): return S()",
    "a lying length": "class S:\n  def __len__(s): return {length}\n  def __iter__(s): return iter([0] * 9)\n"
    "def f(*given): return S()",
    "an endless chain": "class S:\n  def __getattr__(s, n): return s\n  def __call__(s, *a): return s\n"
    "  def __bool__(s): return True\n"
    "  def __getitem__(s, i): return s\n  def __iter__(s): return iter([s])\n  def __len__(s): return {length}\n"
    "def f(*given): return S()",
    "cycles": "import itertools\ndef f(*given): return itertools.cycle('ab')",
}  # fmt: skip
_CHATS = [
    *(one.format("candidate()") for one in _EATERS if "reversed" not in one),
    "list(candidate()) == [1]",
    "len(candidate()) == 5",
    "(lambda x: [x := x.next for _ in iter(int, 1)])(candidate())",
    "(lambda x: [x := x[0] for _ in iter(int, 1)])(candidate())",
    "[candidate() for _ in iter(int, 1)] == 1",
    "(lambda g: [next(g) for _ in iter(int, 1)])(candidate())",
]


def remote(chance: random.Random) -> Hostile:
    """Objects of the program that answer question after question, each at once."""
    kind = chance.choice(list(_REMOTES))
    program = _REMOTES[kind].replace("{length}", chance.choice(["10**8", "10**12", "10**18", "10**30", "-1"]))
    return Hostile(kind, human_eval(f"assert {chance.choice(_CHATS)}"), program)


_OWN_FRAMES = """
import os, struct, sys, time
D = int(os.environ["DONOD_CHANNEL"])
def f(*given):
    {act}
    return 0
"""
_ACTS = [
    "os.write(D, struct.pack('>I', {size}) + b'x' * {some})",
    "os.write(D, struct.pack('>I', {size}))\n    time.sleep(99)",
    "os.write(D, b'\\0' * {some})",
    "os.write(D, os.urandom({some}))",
    "[os.write(D, struct.pack('>I', 1 << 18) + bytes(1 << 18)) for _ in iter(int, 1)]",
    "[os.write(D, struct.pack('>I', 1) + b'x') for _ in iter(int, 1)]",
    "[(os.write(D, b'\\0'), time.sleep(0.01)) for _ in iter(int, 1)]",
    "os.write(D, struct.pack('>I', 1 << 18) + bytes(1 << 18))\n    time.sleep(99)",
    "time.sleep(99)",
    "os.close(D)",
    "sys.modules['donod_fast.evaluation.judging.program_side'].wire.receive = lambda d: time.sleep(99)",
]


def frames(chance: random.Random) -> Hostile:
    """Bytes of any kind on the channel: announced, cut short, dripping, endless; and questions that nobody reads."""
    act = chance.choice(_ACTS).format(
        size=chance.choice([7, 1 << 18, 1 << 20, 1 << 26, 1 << 31]), some=chance.randint(1, 99)
    )
    test = chance.choice(
        ["assert candidate() == 5", "assert candidate(b'x' * 5000000) == 5 or candidate(b'y' * 5000000) == 4"]
    )
    return Hostile(act.replace("\n", ";")[:60], human_eval(test), _OWN_FRAMES.format(act=act))


KINDS: dict[str, Callable[[random.Random], Hostile]] = {
    "answers with colliding hashes": colliding,
    "ranges without end": lazy,
    "numbers that explode": numbers,
    "bulk that grows or compares slowly": bulk,
    "objects that answer forever": remote,
    "frames of the program's own making": frames,
}


def _answer(name: str, raw: str, test: str, chance: random.Random) -> Hostile:
    return Hostile(f"{name}: {test}", _check(test, chance), f"{_SENDS}{_ALSO}\nsends({raw})\n")


def _honest(name: str, answer: str, test: str, chance: random.Random) -> Hostile:
    program = f"KEPT = {answer}\ndef f(*given): return KEPT\n{_ALSO}"
    return Hostile(f"{name}: {test}", _check(test, chance), program)


def _check(test: str, chance: random.Random) -> Check:
    if chance.random() < 0.3:  # EvalPlus's comparisons instead of the test
        rules: dict[str, Any] = chance.choice(
            [
                {},
                {"atol": 1e-6},
                {"rules": "mbpp", "entry_point": "similar_elements"},
                {"rules": "mbpp", "entry_point": "sum_div"},
                {"entry_point": "find_zero"},
            ]
        )
        output = chance.choice(["[1.5]", "7", "{1, 2}", "[1] * 1000", "[[1]] * 9", "range(10 ** 6)"])
        name = rules.get("entry_point", "f")
        return evalplus(f"def {name}(*given):\n    return {output}", [[[1, 2]], [[2, 2]]], [[[3, 4]]], **rules)
    if chance.random() < 0.2:  # tests that expect an exception
        return human_eval(f"try:\n    assert {test}\nexcept (ValueError, KeyError):\n    assert False")
    return human_eval(f"assert {test}")


NAMED = {
    "a dict with colliding keys": Hostile(
        "", human_eval("assert candidate() == {}"), f"{_SENDS}sends(pairs(b'd', [i * P for i in range(60_000)]))\n"
    ),
    "colliding items for a set of the tests": Hostile(
        "", human_eval("assert set(candidate()) == {1}"), "def f(): return [i * (2**61 - 1) for i in range(60_000)]"
    ),
    "a set of a range": Hostile("", human_eval("assert set(candidate()) == {1}"), "def f(): return range(10**12)"),
    "a sum of a range": Hostile("", human_eval("assert sum(candidate()) == 1"), "def f(): return range(10**12)"),
    "deep nests": Hostile(
        "",
        human_eval("assert candidate() == candidate() and False"),
        f"{_SENDS}sends(b'l' + size(90_000) + ((b'l' + size(1)) * 140 + b'N') * 90_000)\n",
    ),
    "slow comparisons": Hostile(
        "",
        human_eval("assert all(one in candidate() for one in [[2]] * 10**6)"),
        "KEPT = [[1]] * 10**6\ndef f(): return KEPT",
    ),
    "an answer of EvalPlus's with colliding keys": Hostile(
        "",
        evalplus("def f(x):\n    return {1: 1}", [[1]], [[2]]),
        f"{_SENDS}sends(pairs(b'd', [i * P for i in range(60_000)]))\n",
    ),
    "a set of a range in EvalPlus's comparison": Hostile(
        "",
        evalplus("def Diff(x):\n    return [1]", [[1]], [[2]], rules="mbpp", entry_point="Diff"),
        "def Diff(x): return range(10**12)",
    ),
}
"""The attacks by which unbounded judges were found."""
