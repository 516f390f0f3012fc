"""Columns are read by the roles that the user or a dataset_info.json gives them, and by nothing else."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from tiny_chat import MARKED, masker, record

from donod_fast.data.column_map import ROLES, ColumnMap
from donod_fast.data.dataset_info import read_dataset_info
from donod_fast.data.formats import Reading, read_record
from donod_fast.data.masking import MaskSettings
from donod_fast.data.read_rules import ReadRules
from donod_fast.data.types import Conversation, Message, PlainText, SampleError, Status
from donod_fast.errors import InputError

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "chat"
ROW = {"q": "Double it.", "a": "Six.", "sys": "Be brief.", "ctx": "It is three.", "note": "x"}


def read(data: dict[str, Any], columns: str | ColumnMap, **rules: Any) -> Reading:
    map = ColumnMap.parse(columns) if isinstance(columns, str) else columns
    return read_record(record(data), ReadRules(columns=map, **rules))


def turns(data: dict[str, Any], columns: str | ColumnMap, **rules: Any) -> list[tuple[str, str]]:
    sample = read(data, columns, **rules).sample
    assert isinstance(sample, Conversation), sample
    return [(turn.role, turn.content) for turn in sample.messages]


def test_a_prompt_and_a_response_make_a_conversation() -> None:
    assert turns(ROW, "prompt=q,response=a") == [("user", "Double it."), ("assistant", "Six.")]
    whole = "prompt=q, context = ctx ,response=a,system=sys"
    expected = [("system", "Be brief."), ("user", "Double it.\n\nIt is three."), ("assistant", "Six.")]
    assert turns(ROW, whole) == expected
    assert read(ROW, whole).unused == ("note",) and read(ROW, whole).format == "columns"


def test_every_role_reaches_the_sample() -> None:
    pairs = {"p": "P", "i": "I", "c": "C", "r": "R", "s": "S", "h": [["Q", "A"]], "t": [{"name": "f"}], "d": ["D"]}
    map = "prompt=p,query=i,context=c,response=r,system=s,history=h,tools=t,documents=d"
    sample = read(pairs, map).sample
    assert isinstance(sample, Conversation)
    assert [turn.content for turn in sample.messages] == ["S", "Q", "A", "P\n\nI\n\nC", "R"]
    assert sample.tools == ({"name": "f"},) and sample.documents == ({"text": "D"},)
    chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]
    assert turns({"m": chat}, "messages=m") == [("user", "Hi"), ("assistant", "Ho")]
    assert read({"body": "x", "text": "y"}, "text=body").sample == PlainText("x")
    assert turns({"p": chat[:1], "r": chat[1:]}, "prompt=p,response=r") == [("user", "Hi"), ("assistant", "Ho")]
    for name in ("chosen", "rejected"):
        row = {"p": "P", "good": "chosen", "bad": "rejected"}
        answers = turns(row, "prompt=p,chosen=good,rejected=bad", preference=name)
        assert answers == [("user", "P"), ("assistant", name)]


def test_only_mapped_columns_are_read() -> None:
    row = {"question": "Q", "answer": "A", "system": "S", "context": "C", "history": [["a", "b"]], "documents": 3}
    found = read(row, "prompt=question,response=answer")
    assert isinstance(found.sample, Conversation) and len(found.sample.messages) == 2
    assert found.unused == ("system", "context", "history", "documents")


def test_a_record_without_a_needed_column_is_refused_by_name() -> None:
    for row in ({"q": "Q"}, {"q": "Q", "a": None}):
        sample = read(row, "prompt=q,response=a").sample
        assert isinstance(sample, SampleError) and sample.status == Status.UNKNOWN_FORMAT
        assert "the column 'a' is mapped to response, but this record has 'q' (a string)" in sample.detail
    assert turns({"q": "Q", "a": "A", "s": None}, "prompt=q,response=a,system=s,input=i") == [
        *(("user", "Q"), ("assistant", "A"))
    ]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("promt=q,response=a", "did you mean 'prompt'"),
        ("prompt", "role=column, separated by commas; got 'prompt'"),
        ("prompt=,response=a", "role=column"),
        ("", "role=column"),
        ("prompt=q,prompt=p,response=a", "mapped twice, to 'q' and 'p'"),
        ("input=q,query=p", "the role input is mapped twice"),
        ("prompt=q", "map prompt and response"),
        ("response=a", "needs a prompt"),
        ("chosen=a,prompt=q", "map chosen and rejected"),
        ("messages=m,response=a,prompt=q", "response and messages"),
        ("messages=m,history=h", "messages excludes history"),
        ("chosen=a,rejected=b,context=c", "beside a prompt"),
        ("system=s", "got none of them"),
    ],
)
def test_a_map_that_makes_no_record_is_refused(text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        ColumnMap.parse(text)
    with pytest.raises(InputError, match=told):
        MaskSettings(columns=text)


def test_settings_that_exclude_each_other_are_refused(tmp_path: Path) -> None:
    path = info(tmp_path, {"a": {}})
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"columns": "text=x", "format": "text"}, "--columns excludes --format"),
        ({"columns": "text=x", "dataset_info": path, "dataset": "a"}, "--columns excludes --dataset"),
        ({"dataset": "a"}, "belong together"),
        ({"dataset_info": path}, "belong together"),
        ({"preference": "best"}, "'chosen' or 'rejected'"),
    ]
    for given, told in wrong:
        with pytest.raises(InputError, match=told):
            MaskSettings(**given)


def test_rules_survive_json_and_defaults_leave_no_trace() -> None:
    assert ReadRules().as_json() == {"format": "auto"}
    map = ColumnMap.parse("prompt=q,response=a,system=s")
    tagged = read_dataset_info_of({"formatting": "sharegpt", "columns": {"messages": "m", "images": "img"}})
    for rules in (ReadRules(), ReadRules("text"), ReadRules(columns=map, text_only=True), ReadRules(columns=tagged)):
        assert ReadRules.from_json(json.loads(json.dumps(rules.as_json()))) == rules
    assert set(map.as_json()) <= set(ROLES)


def test_a_masker_records_the_columns_and_takes_them_to_other_processes(tmp_path: Path) -> None:
    assert set(masker(MARKED).describe()) == {
        *("format", "template", "template_sha256", "train_on", "max_length", "vocab_size")
    }
    path = info(tmp_path, {"mine": {"columns": {"prompt": "q", "response": "a"}}})
    mapped = masker(MARKED, dataset_info=path, dataset="mine", preference="chosen", text_only=True)
    same = masker(MARKED, columns="response=a,prompt=q", preference="chosen", text_only=True)
    assert mapped.describe() == same.describe()
    assert mapped.describe()["columns"] == {"prompt": "q", "response": "a"}
    path.unlink()
    there = pickle.loads(pickle.dumps(mapped))
    assert there.tokenize(record(ROW)) == same.tokenize(record(ROW))
    settings = MaskSettings(columns="text=x").resolved()
    assert pickle.loads(pickle.dumps(settings)).rules.columns == ColumnMap(text="x")


# --- dataset_info.json


def info(folder: Path, content: Any) -> Path:
    path = folder / "dataset_info.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def read_dataset_info_of(entry: Any, folder: Path | None = None) -> ColumnMap:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as place:
        return read_dataset_info(info(folder or Path(place), {"mine": entry}), "mine")


def test_an_alpaca_entry_names_its_columns() -> None:
    row = {"instruction": "Double it.", "input": "three", "output": "Six."}
    assert turns(row, read_dataset_info_of({"file_name": "a.json"})) == [
        *(("user", "Double it.\nthree"), ("assistant", "Six."))
    ]
    entry = {"columns": {"prompt": "q", "query": "ctx", "response": "a", "system": "sys", "history": "h"}}
    assert turns({**ROW, "h": [["One", "Two"]]}, read_dataset_info_of(entry)) == [
        *(("system", "Be brief."), ("user", "One"), ("assistant", "Two")),
        *(("user", "Double it.\nIt is three."), ("assistant", "Six.")),
    ]
    assert read({"body": "x"}, read_dataset_info_of({"columns": {"prompt": "body"}})).sample == PlainText("x")


@pytest.mark.parametrize("formatting", ["sharegpt", "openai"])
def test_tags_name_keys_and_roles_of_messages(formatting: str) -> None:
    entry = {
        "formatting": formatting,
        "columns": {"messages": "talk", "system": "sys", "tools": "t"},
        "tags": {
            "role_tag": "who",
            "content_tag": "says",
            "user_tag": "me",
            "assistant_tag": "it",
            "observation_tag": "world",
            "function_tag": "act",
            "system_tag": "boss",
        },
    }
    call = '{"name": "f", "arguments": {"x": 1}}'
    said = [("me", "Hi"), ("act", call), ("world", "done"), ("it", "Ho")]
    talk = [{"who": who, "says": says, "mood": "calm"} for who, says in said]
    sample = read({"talk": talk, "sys": "Be kind", "t": "[]"}, read_dataset_info_of(entry)).sample
    assert isinstance(sample, Conversation)
    assert [turn.role for turn in sample.messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert sample.messages[0] == Message("system", "Be kind")
    assert sample.messages[2].tool_calls[0]["function"]["name"] == "f"
    assert sample.messages[1].own == {"role": "user", "content": "Hi", "mood": "calm"}
    usual = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]
    assert turns({"conversations": usual}, read_dataset_info_of({"formatting": formatting})) == [
        *(("user", "Hi"), ("assistant", "Ho"))
    ]


def test_a_ranking_needs_a_preference() -> None:
    entry = {"ranking": True, "formatting": "sharegpt", "columns": {"messages": "c", "chosen": "g", "rejected": "b"}}
    good, bad = {"from": "gpt", "value": "good"}, {"from": "gpt", "value": "bad"}
    row = {"c": [{"from": "human", "value": "Hi"}], "g": good, "b": bad}
    map = read_dataset_info_of(entry)
    assert turns(row, map, preference="rejected") == [("user", "Hi"), ("assistant", "bad")]
    sample = read(row, map).sample
    assert isinstance(sample, SampleError) and "g and b are two answers; --preference" in sample.detail
    strings = read_dataset_info_of({"ranking": True, "columns": {"prompt": "q", "chosen": "x", "rejected": "y"}})
    assert turns({"q": "Hi", "x": "good", "y": "bad"}, strings, preference="chosen") == [
        *(("user", "Hi"), ("assistant", "good"))
    ]


def test_media_columns_of_an_entry_are_refused_or_left_out() -> None:
    map = read_dataset_info_of({"columns": {"prompt": "q", "response": "a", "images": "picture"}})
    sample = read({**ROW, "picture": ["x.png"]}, map).sample
    assert isinstance(sample, SampleError) and "picture holds images" in sample.detail
    assert "picture" in read({**ROW, "picture": ["x.png"]}, map, text_only=True).unused


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"mina": {}}, "no data set 'mine'; did you mean 'mina'"),
        ("{", "cannot be read"),
        ([1], "is no dataset_info.json"),
        ({"mine": 3}, "the entry is no object"),
        ({"mine": {"formatting": "share_gpt"}}, "did you mean 'sharegpt'"),
        ({"mine": {"columns": {"promt": "q"}}}, "did you mean 'prompt'"),
        ({"mine": {"columns": {"prompt": 3}}}, "columns.prompt is 3, not a name"),
        ({"mine": {"columns": {"query": "q"}}}, "mine: "),
        ({"mine": {"formatting": "sharegpt", "tags": {"roletag": "r"}}}, "did you mean 'role_tag'"),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused(tmp_path: Path, content: Any, told: str) -> None:
    with pytest.raises(InputError, match=told):
        read_dataset_info(info(tmp_path, content), "mine")
    with pytest.raises(InputError, match="cannot be read"):
        read_dataset_info(tmp_path / "other.json", "mine")


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real data at {SHARED}")
def test_every_entry_of_a_real_file_gives_a_map() -> None:
    path = SHARED / "dataset_info.json"
    names = json.loads(path.read_text(encoding="utf-8"))
    maps = {name: read_dataset_info(path, name) for name in names}
    assert maps["openorca"] == ColumnMap(prompt="question", response="response", system="system_prompt")
    assert maps["pile"] == ColumnMap(text="text")
    assert maps["glaive_toolcall_en_demo"].tools == "tools"
    assert maps["rlaif_v"].media == ("image",) and maps["orca_pairs"].chosen == "chosen"


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no real data at {SHARED}")
@pytest.mark.parametrize("name", ["alpaca_en_demo", "glaive_toolcall_en_demo"])
def test_a_real_entry_reads_its_file_as_its_columns_are_found(name: str) -> None:
    rows = json.loads((SHARED / f"{name}.json").read_text(encoding="utf-8"))[:50]
    map = read_dataset_info(SHARED / "dataset_info.json", name)
    for row in rows:
        found, mapped = read_record(record(row), ReadRules()), read(row, map)
        assert isinstance(found.sample, Conversation) and isinstance(mapped.sample, Conversation)
        for own, ours in zip(mapped.sample.messages, found.sample.messages, strict=True):
            assert (own.role, own.tool_calls) == (ours.role, ours.tool_calls)
            # LLaMA-Factory joins instruction and input by one line end.
            joined = own.role == "user" and row.get("input")
            assert own.content == (f"{row['instruction']}\n{row['input']}" if joined else ours.content)
        assert (found.sample.tools, found.unused) == (mapped.sample.tools, mapped.unused)
