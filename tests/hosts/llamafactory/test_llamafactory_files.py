"""LLaMA-Factory's own program reads the kept file by its entry and the scored tokens, and makes the same tokens."""

from __future__ import annotations

import json
import random
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from broken_media import media_overlay
from factory_cases import draw_case
from host_cases import TOLERANCE, run

from donod_fast.data.dataset_entry import entry_of
from donod_fast.data.dataset_registry import register
from donod_fast.data.reading import open_corpus
from donod_fast.demo.corpus import DATA

if find_spec("llamafactory") is None:
    pytest.skip("LLaMA-Factory is not installed: `make test-hosts` builds its environment", allow_module_level=True)

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "hosts" / "llama-factory"
NUMBERS = ("don", "nod", "loss")

# What the host's own parser, loader and converters make of each data set in a folder, as lines of JSON.
_ALIGN = """
import json, sys
from types import SimpleNamespace as S
from llamafactory.data.loader import _load_single_dataset
from llamafactory.data.parser import get_dataset_list
place, names = sys.argv[1], sys.argv[2].split(",")
data = S(dataset_dir=place, media_dir=place, streaming=False, preprocessing_num_workers=None, max_samples=None,
         overwrite_cache=True)
for name, attributes in zip(names, get_dataset_list(names, place)):
    rows = _load_single_dataset(attributes, S(cache_dir=place + "/cache", hf_hub_token=None), data,
                                S(local_process_index=0))
    print("ROWS", json.dumps([[row["_system"], row["_prompt"] + row["_response"]] for row in rows]))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return media_overlay(tmp_path_factory.mktemp("overlay"))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str]) -> Path:
    """The folder of the guide after `score` and `select`."""
    folder = tmp_path_factory.mktemp("guide")
    shutil.copytree(DATA, folder / "demo-data")
    shutil.copy(EXAMPLES / "dataset_info.json", folder / "demo-data")
    source = ("--dataset-info", "demo-data/dataset_info.json", "--dataset", "demo", "--model", "demo-data/model")
    kept = ("--keep", "0.1", "--out", "demo-data/kept.jsonl", "--dataset-info", "demo-data")
    donod(folder, environment, "score", *source, "--out", "scores")
    said = donod(folder, environment, "select", "scores", *kept, "--tokenized", "kept-tokens")
    assert "data set kept in" in said and "note:" not in said
    return folder


def donod(folder: Path, environment: dict[str, str], *words: object) -> str:
    code = "from donod_fast.cli import main; main()"
    done = run(sys.executable, "-P", "-c", code, *words, cwd=folder, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


def trained(folder: Path, environment: dict[str, str], *words: object) -> str:
    done = run("llamafactory-cli", "train", *words, cwd=folder, HF_HOME=str(folder / "hub"), **environment)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout + done.stderr


def numbers(folder: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    found = [row for part in sorted(folder.glob("part-*.parquet")) for row in pq.read_table(part).to_pylist()]
    return sorted(found, key=lambda row: row["row"])


def test_its_tokens_and_labels_of_the_kept_file_are_those_that_were_scored(place, environment) -> None:
    import datasets

    said = trained(place, environment, EXAMPLES / "train.yaml", "tokenized_path=own-tokens", "output_dir=out-own")
    assert "Tokenized dataset is saved at own-tokens" in said
    own = datasets.load_from_disk(str(place / "own-tokens"))["train"]
    ours = datasets.load_from_disk(str(place / "kept-tokens"))
    assert len(own) == len(ours) == 100
    for one, other in zip(own, ours, strict=True):
        assert (one["input_ids"], one["labels"]) == (other["input_ids"], other["labels"])
    # `score` reads what LLaMA-Factory saved.
    for name in ("own", "kept"):
        donod(place, environment, "score", f"{name}-tokens", "--model", "demo-data/model", "--out", f"{name}-scores")
    by_id = {row["id"]: row for row in numbers(place / "scores")}
    ids = [json.loads(line)["id"] for line in (place / "demo-data" / "kept.jsonl").read_text().splitlines()]
    for one, other, which in zip(numbers(place / "own-scores"), numbers(place / "kept-scores"), ids, strict=True):
        assert [one[name] for name in NUMBERS] == [other[name] for name in NUMBERS]
        assert [one[name] for name in NUMBERS] == pytest.approx([by_id[which][name] for name in NUMBERS], rel=TOLERANCE)


@pytest.mark.parametrize("name", ["train", "train-tokenized"])
def test_the_configuration_of_the_guide_trains_as_it_stands(place: Path, environment, name: str) -> None:
    said = trained(place, environment, EXAMPLES / f"{name}.yaml")
    assert ("Loaded tokenized dataset from kept-tokens" in said) == (name == "train-tokenized")
    assert "train_loss" in said


def test_generated_files_are_read_by_its_converters_as_they_were_written(tmp_path: Path, environment) -> None:
    cases = {}
    for seed in range(30):
        draw = random.Random(seed)
        cases[f"d{seed}"] = case = draw_case(draw)
        file = tmp_path / f"d{seed}{draw.choice(('.jsonl', '.json'))}"
        texts = [json.dumps(row, ensure_ascii=False) for row in case.rows]
        file.write_text("\n".join(texts) + "\n" if file.suffix == ".jsonl" else f"[{','.join(texts)}]", "utf-8")
        corpus = open_corpus([str(file)])
        entry = entry_of(file, corpus.records(), corpus.records(), case.rules)
        register(tmp_path / "dataset_info.json", f"d{seed}", file, entry.content, overwrite=False)
    done = run(sys.executable, "-c", _ALIGN, tmp_path, ",".join(cases), HF_HOME=str(tmp_path / "hub"), **environment)
    assert done.returncode == 0, done.stderr[-4000:]
    found = [json.loads(line[5:]) for line in done.stdout.splitlines() if line.startswith("ROWS ")]
    for (name, case), rows in zip(cases.items(), found, strict=True):
        said = [(system or "", [(_role(turn["role"]), turn["content"]) for turn in turns]) for system, turns in rows]
        assert said == list(zip(case.system, case.turns, strict=True)), name


def _role(name: str) -> str:
    return {"observation": "tool"}.get(name, name)
