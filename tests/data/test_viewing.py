"""Rows as the model sees them: text of tokens, masks, and what was left out."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_chat import MARKED, masker, record, tiny_tokenizer, tokenizer_with
from tiny_tokenizers import KINDS, shared_tokenizer, tokenizer_of_kind

from donod_fast.data.viewing import Piece, RowView, pieces_of, runs_of, view_rows

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
TEXTS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                "apples",
                " left",
                "\n",
                "\t",
                "  ",
                "é",
                "語言",
                "😀",
                "👨‍👩‍👧",
                "</s>",
                "<|im_end|>",
                "\ufffd",
                "\u202e",
                "\x00",
                "3.5",
            ]
        ),
        st.text(max_size=8).filter(lambda text: text.isascii() or text.encode("utf-8", "ignore").decode() == text),
    ),
    max_size=12,
).map("".join)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


@pytest.mark.parametrize("kind", KINDS)
@QUICK
@given(text=TEXTS, start=st.integers(0, 20))
def test_the_pieces_together_are_the_decoded_text(kind: str, text: str, start: int) -> None:
    tokenizer = tokenizer_of_kind(kind)
    ids = ids_of(tokenizer, text)
    found = list(pieces_of(tokenizer, ids, [True] * len(ids)))
    whole = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert "".join(piece.text for piece in found) == whole
    flags = [at >= start for at in range(len(ids))]
    cut = list(pieces_of(tokenizer, ids, flags))
    assert [token for piece in cut for token in piece.ids] == ids
    assert [piece.scored for piece in cut for _ in piece.ids] == flags


@pytest.mark.parametrize("kind", KINDS)
@QUICK
@given(text=TEXTS, bits=st.integers(0, 2**40), with_losses=st.booleans())
def test_runs_are_the_pieces_of_one_kind_joined(kind: str, text: str, bits: int, with_losses: bool) -> None:
    tokenizer = tokenizer_of_kind(kind)
    ids = ids_of(tokenizer, text)
    flags = [bool(bits >> at & 1) for at in range(len(ids))]
    losses = [float(at) for at in range(sum(flags))] if with_losses else None
    single, runs = list(pieces_of(tokenizer, ids, flags, losses)), list(runs_of(tokenizer, ids, flags, losses))
    assert [token for run in runs for token in run.ids] == ids
    assert [run.scored for run in runs for _ in run.ids] == flags
    assert [loss for run in runs for loss in run.losses] == (losses or [])
    for one, other in pairwise(runs):
        is_same_kind = (one.scored, one.special) == (other.scored, other.special)
        assert not is_same_kind or (with_losses and one.scored)
    if "\ufffd" not in "".join(piece.text for piece in single):
        assert "".join(run.text for run in runs) == "".join(piece.text for piece in single)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["tokenizer_gpt2", "tokenizer_llama2"])
@QUICK
@given(text=TEXTS)
def test_pieces_of_real_tokenizers_are_the_decoded_text(name: str, text: str) -> None:
    tokenizer = shared_tokenizer(name)
    ids = ids_of(tokenizer, text)
    found = list(pieces_of(tokenizer, ids, [True] * len(ids)))
    whole = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    assert "".join(piece.text for piece in found) == whole


def test_a_character_of_several_tokens_is_one_piece() -> None:
    tokenizer = tiny_tokenizer()
    ids = ids_of(tokenizer, "a😀é")
    assert len(ids) == 7
    found = list(pieces_of(tokenizer, ids, [False] * 7))
    assert [(piece.text, len(piece.ids)) for piece in found] == [("a", 1), ("😀", 4), ("é", 2)]


def test_a_border_within_a_character_is_shown_as_unreadable() -> None:
    tokenizer = tiny_tokenizer()
    found = list(pieces_of(tokenizer, ids_of(tokenizer, "é!"), [False, True, True]))
    assert [(piece.text, piece.scored) for piece in found] == [("\ufffd", False), ("\ufffd", True), ("!", True)]


def test_special_tokens_are_told_from_text() -> None:
    tokenizer = tiny_tokenizer()
    found = list(pieces_of(tokenizer, ids_of(tokenizer, "<s>Hi<|im_end|>"), [False] * 4))
    assert [piece.text for piece in found if piece.special] == ["<s>", "<|im_end|>"]


def test_losses_belong_to_the_scored_tokens_in_order() -> None:
    tokenizer = tiny_tokenizer()
    ids = ids_of(tokenizer, "a😀b")
    found = list(pieces_of(tokenizer, ids, [False, *[True] * 5], [1.0, 2.0, 3.0, 4.0, 5.0]))
    assert [piece.losses for piece in found] == [(), (1.0, 2.0, 3.0, 4.0), (5.0,)]


def views(*rows: dict[str, Any], statuses: tuple[str, ...] = ()) -> list[RowView]:
    found = (record(data, row) for row, data in enumerate(rows))
    return list(view_rows(found, masker(MARKED), tokenizer_with(MARKED), statuses=statuses))


def scored_text(pieces: tuple[Piece, ...]) -> str:
    return "".join(piece.text for piece in pieces if piece.scored)


def test_a_view_tells_where_a_row_is_and_what_is_scored() -> None:
    (view,) = views({"id": "one", "question": "How many?", "answer": "Three."})
    assert (view.row, view.id, view.file, view.place) == (0, "one", "data.jsonl", "line 1")
    assert (view.status, view.format, view.mask, view.template) == (
        "scored",
        "question_answer",
        "generation",
        "tokenizer",
    )
    assert scored_text(view.pieces) == "Three.<|im_end|>"
    assert view.scored_tokens == sum(len(piece.ids) for piece in view.pieces if piece.scored)


def test_a_row_without_a_mask_shows_the_text_it_would_have() -> None:
    system = {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes", "weight": 0}]}
    refused, broken, text = views(system, {"other": 1}, {"prompt": "long " * 80, "completion": "yes"})[:3]
    assert (refused.status, refused.pieces) == ("all_masked", ())
    assert (broken.status, broken.text, broken.record) == ("unknown_format", None, {"other": 1})
    assert text.status == "scored"


def test_a_refused_row_shows_its_text() -> None:
    tokenizer = tokenizer_with(MARKED)
    data = {"prompt": "long " * 80, "completion": "yes"}
    (view,) = view_rows([record(data)], masker(MARKED, max_length=16), tokenizer)
    assert (view.status, view.pieces, view.text) == ("too_long", (), "long " * 80 + "yes")


def test_rows_are_found_by_their_status() -> None:
    rows = [{"question": "How?", "answer": "  " if row % 3 == 1 else "So."} for row in range(200)]
    found = views(*rows, statuses=("empty_response",))
    assert [view.row for view in found] == list(range(1, 200, 3))
