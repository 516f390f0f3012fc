"""JSON with a checksum: any other content is noticed, any other spelling is not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from donod_fast.system.checked_json import DamagedError, checked_line, parsed, parsed_object, with_checksum

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)
OBJECTS = st.dictionaries(st.text().filter(lambda key: key != "sha256"), VALUES, max_size=5)


@given(OBJECTS)
def test_what_is_written_is_read_in_any_spelling(data: dict[str, object]) -> None:
    checked = with_checksum(data)
    for text in (json.dumps(checked), json.dumps(checked, indent=3, sort_keys=True, ensure_ascii=True)):
        found = parsed_object(text.encode(), needs_checksum=True)
        assert repr(with_checksum(found)) == repr({**found, "sha256": checked["sha256"]})
    assert checked_line(data).endswith(b"}\n") and checked_line(data).count(b"\n") == 1
    parsed_object(checked_line(data), needs_checksum=True)


def test_every_flipped_bit_is_noticed_or_changes_nothing() -> None:
    data = {
        "version": 3,
        "lr": 2e-5,
        "name": "ä\n",
        "list": [1, None, True, {"a": []}],
        "norm": 57.24160518307485,
    }
    for content in (json.dumps(with_checksum(data), indent=1).encode(), checked_line(data)):
        for at in range(len(content)):
            for bit in range(8):
                wrong = content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
                try:
                    found = parsed_object(wrong, needs_checksum=True)
                except DamagedError as error:
                    assert str(error)
                    continue
                assert found == data, (at, bit)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b"  ", "empty"),
        (b"{", "Expecting"),
        (b"\xff{}", "not UTF-8 at byte 0"),
        (b'{"a": 1, "a": 1}', "the key 'a' is there twice"),
        (b"[" * 200_000 + b"]" * 200_000, "nested too deep"),
        (b'{"a": ' + b"9" * 10_000 + b"}", "digits"),
    ],
)
def test_what_is_no_proper_json_is_said(content: bytes, told: str) -> None:
    with pytest.raises(DamagedError, match=told):
        parsed(content)


@pytest.mark.parametrize("content", [b"[]", b"1", b"null", b'"x"'])
def test_what_is_no_object_is_refused(content: bytes) -> None:
    with pytest.raises(DamagedError, match="not an object"):
        parsed_object(content)


def test_a_checksum_that_is_missing_is_refused_where_it_is_needed() -> None:
    assert parsed_object(b'{"a": 1}') == {"a": 1}
    for content in (b'{"a": 1}', b'{"a": 1, "sha256": 3}', b'{"a": 1, "sha256": ""}'):
        with pytest.raises(DamagedError, match="sha256"):
            parsed_object(content, needs_checksum=True)
