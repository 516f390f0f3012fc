"""An entry of dataset_info.json says of a file exactly what was scored, or it is refused by name."""

from __future__ import annotations

import json
import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from factory_cases import REFUSED, draw_case

from donod_fast.data.dataset_entry import Entry, entry_of, refuse_file
from donod_fast.data.dataset_info import data_file, read_dataset_info
from donod_fast.data.dataset_registry import refuse_name, register, registry_file
from donod_fast.data.formats import read_record
from donod_fast.data.read_rules import ReadRules
from donod_fast.data.reading import open_corpus
from donod_fast.data.record_files import compressing
from donod_fast.data.record_tables import write_parquet
from donod_fast.data.types import Conversation
from donod_fast.errors import InputError, StoreError

SEEDS = range(24)


def entry(file: Path, rules: ReadRules | None = None) -> Entry:
    corpus = open_corpus([str(file)])
    return entry_of(file, corpus.records(), corpus.records(), rules or ReadRules())


def written(place: Path, rows: list[dict[str, Any]], suffix: str = ".jsonl") -> Path:
    file = place / f"rows{suffix}"
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    (place / "lines.jsonl").write_text(lines, encoding="utf-8")
    with file.open("wb") as out:
        if suffix == ".parquet":
            corpus = open_corpus([str(place / "lines.jsonl")])
            write_parquet(lambda: corpus.records(), out)
        elif suffix == ".json":
            out.write(json.dumps(rows, ensure_ascii=False).encode())
        else:
            with compressing(out, file.name) as stream:
                stream.write(lines.encode())
    return file


@pytest.mark.parametrize("seed", SEEDS)
def test_a_file_is_read_by_its_entry_as_it_was_written(seed: int, tmp_path: Path) -> None:
    draw = random.Random(seed)
    case = draw_case(draw)
    file = written(tmp_path, case.rows, draw.choice((".jsonl", ".json", ".parquet")))
    found = entry(file, case.rules)
    info = tmp_path / "dataset_info.json"
    register(info, "mine", file, found.content, overwrite=False)
    assert data_file(info, "mine") == file
    rules = ReadRules(columns=read_dataset_info(info, "mine"))
    for record, system, turns in zip(open_corpus([str(file)]).records(), case.system, case.turns, strict=True):
        sample = read_record(record, rules).sample
        assert isinstance(sample, Conversation), (found.content, sample)
        said = [(turn.role, turn.content) for turn in sample.messages]
        assert said == ([("system", system)] if system else []) + turns, found.content
    assert not found.notes


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_said_in_an_entry_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    rows, message = REFUSED[kind]
    with pytest.raises(InputError, match=message):
        entry(written(tmp_path, rows))


def test_another_line_end_before_the_input_is_said(tmp_path: Path) -> None:
    rows = [{"instruction": "Say it.", "input": text, "output": "It."} for text in ("", "Now.", "Then.")]
    (note,) = entry(written(tmp_path, rows)).notes
    assert "2 rows had an empty line there" in note


def test_a_preference_has_both_answers_and_says_so(tmp_path: Path) -> None:
    from donod_fast.data.column_map import ColumnMap

    rows = [{"q": "Say it.", "good": "It.", "bad": "No."}] * 2
    rules = ReadRules(columns=ColumnMap(prompt="q", chosen="good", rejected="bad"), preference="chosen")
    found = entry(written(tmp_path, rows), rules)
    assert found.content["ranking"] is True
    assert found.content["columns"] == {"prompt": "q", "chosen": "good", "rejected": "bad"}
    assert "preference stage" in found.notes[0]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl.gz", "a.jsonl.zst", "a.JSONL", "a"])
def test_kinds_of_files_that_are_not_read_are_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"\.jsonl, .*\.parquet"):
        refuse_file(Path(name))


def test_other_entries_stay_as_they_are(tmp_path: Path) -> None:
    info = tmp_path / "conf" / "dataset_info.json"
    info.parent.mkdir()
    others = {"ä": {"file_name": "x.json", "columns": {"prompt": "p"}}, "hub": {"hf_hub_url": "a/b", "n": 1.5}}
    info.write_text(json.dumps(others, indent=1), encoding="utf-8")
    link = tmp_path / "dataset_info.json"
    link.symlink_to(info)
    register(link, "new", tmp_path / "data" / "k.jsonl", {"formatting": "alpaca"}, overwrite=False)
    assert link.is_symlink()
    content = json.loads(info.read_text(encoding="utf-8"))
    assert content.pop("new") == {"file_name": "../data/k.jsonl", "formatting": "alpaca"}
    assert content == others and list(content) == list(others)
    with pytest.raises(StoreError, match="has a data set 'new' already"):
        register(info, "new", tmp_path / "k.jsonl", {}, overwrite=False)
    register(info, "new", tmp_path / "k.jsonl", {}, overwrite=True)
    assert json.loads(info.read_text(encoding="utf-8"))["new"] == {"file_name": "../k.jsonl"}
    assert sorted(path.name for path in info.parent.iterdir()) == ["dataset_info.json"]


def test_wrong_names_and_files_are_refused_before_any_work(tmp_path: Path) -> None:
    assert registry_file(tmp_path) == tmp_path / "dataset_info.json"
    with pytest.raises(InputError, match="only files named"):
        registry_file(tmp_path / "mine.json")
    for name in ("", "a,b", " a"):
        with pytest.raises(InputError, match="by commas"):
            refuse_name(tmp_path / "dataset_info.json", name, overwrite=False)
    with pytest.raises(StoreError, match="there is no folder"):
        refuse_name(tmp_path / "no" / "dataset_info.json", "a", overwrite=False)
    (tmp_path / "dataset_info.json").write_text("[]")
    with pytest.raises(InputError, match="holds no object"):
        refuse_name(tmp_path / "dataset_info.json", "a", overwrite=False)


def _register(info: Path, name: str) -> None:
    register(info, name, info.parent / f"{name}.jsonl", {"formatting": "alpaca"}, overwrite=False)


def test_processes_that_register_at_once_lose_no_entry(tmp_path: Path) -> None:
    info = tmp_path / "dataset_info.json"
    names = [f"d{number}" for number in range(24)]
    with ProcessPoolExecutor(4, mp_context=multiprocessing.get_context("fork")) as pool:
        for done in [pool.submit(_register, info, name) for name in names]:
            done.result(timeout=120)
    assert set(json.loads(info.read_text())) == set(names)
