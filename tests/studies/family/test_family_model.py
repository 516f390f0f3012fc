"""The family's base model: loads as packaged, scores the family's rows, and solves part of the tasks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.types import Record, TokenizedSample
from donod_fast.models.loading import LoadedModel, load_model
from donod_fast.scoring.scorer import Scorer
from donod_fast.studies.family import BASE_MODEL, CLEAN, generate_tasks, task_rows, training_rows
from donod_fast.studies.family.pretrain import base_tokenizer, build_model, pretrain, write_base
from donod_fast.studies.family.sizes import SIZES

TASKS = 24


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """So small a model gains nothing from more, and loses much where other processes want the cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def loaded() -> LoadedModel:
    return load_model(BASE_MODEL, dtype="float32", device="cpu")


@cache
def masker() -> Masker:
    model = loaded()
    return Masker(model.tokenizer, MaskSettings(), vocab_size=model.model.config.vocab_size)


def tokenized(rows: list[dict[str, Any]]) -> list[TokenizedSample]:
    records = [Record(row=at, file="rows", place=f"line {at + 1}", data=row) for at, row in enumerate(rows)]
    return masker().tokenize_many(records)


@torch.inference_mode()
def completions(prompts: list[str]) -> list[str]:
    """Greedy completions, padded on the left."""
    model, tokenizer = loaded().model, loaded().tokenizer
    batch = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    written = model.generate(**batch, max_new_tokens=72, do_sample=False, pad_token_id=tokenizer.pad_token_id)
    return tokenizer.batch_decode(written[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


@torch.inference_mode()
def loss_on(rows: list[dict[str, Any]]) -> float:
    """Mean loss of the scored tokens, nats."""
    losses = []
    for sample in tokenized(rows):
        ids = torch.tensor([sample.input_ids])
        chosen = torch.tensor(sample.scored)[1:]
        logits = loaded().model(ids).logits[0, :-1]
        losses.append(torch.nn.functional.cross_entropy(logits[chosen], ids[0, 1:][chosen], reduction="none"))
    return torch.cat(losses).mean().item()


def test_the_folder_is_small_and_holds_no_pickle() -> None:
    files = [file for file in BASE_MODEL.iterdir() if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 5 * 2**20
    assert {file.suffix for file in files} == {".json", ".safetensors", ""}
    assert (
        (BASE_MODEL / "README")
        .read_text(encoding="utf-8")
        .startswith("Made by `python -m donod_fast.studies.family.pretrain")
    )


def test_the_model_has_the_shape_that_the_script_would_give_it() -> None:
    model, tokenizer = loaded().model, loaded().tokenizer
    assert model.config.vocab_size == len(tokenizer)
    assert tokenizer.eos_token_id == model.config.eos_token_id
    fresh = build_model(SIZES["tiny"], tokenizer)
    assert {name: p.shape for name, p in model.named_parameters()} == {n: p.shape for n, p in fresh.named_parameters()}
    assert 500_000 < model.num_parameters() < 3_000_000


def test_the_tokenizer_is_the_one_that_the_script_would_make() -> None:
    made = json.loads(base_tokenizer().backend_tokenizer.to_str())
    assert made["model"] == json.loads((BASE_MODEL / "tokenizer.json").read_text(encoding="utf-8"))["model"]


def test_prompt_tokens_are_a_prefix_and_only_the_response_is_scored() -> None:
    tokenizer = loaded().tokenizer
    rows = training_rows(150, 3)
    for row, sample in zip(rows, tokenized(rows), strict=True):
        prompt = tokenizer.encode(row["prompt"])
        assert list(sample.input_ids[: len(prompt)]) == prompt
        assert list(sample.scored) == [False] * len(prompt) + [True] * (len(sample.input_ids) - len(prompt))
        assert sample.input_ids[-1] == tokenizer.eos_token_id
        assert tokenizer.decode(sample.input_ids[len(prompt) : -1]) == row["completion"]
        assert sample.format == "prompt_completion"


def test_rows_are_short() -> None:
    lengths = [sample.tokens for sample in tokenized(training_rows(300, 3))]
    assert sum(lengths) / len(lengths) < 60
    assert max(lengths) < loaded().model.config.max_position_embeddings


def test_scorer_scores_every_row_and_the_labels_change_nothing() -> None:
    scorer = Scorer.from_pretrained(BASE_MODEL, dtype="float32", device="cpu", token_budget=2048)
    rows = training_rows(40, 3)
    table = scorer.score_table(rows)
    assert table["status"].to_pylist() == ["scored"] * 40
    bare = [{name: row[name] for name in ("id", "prompt", "completion")} for row in rows]
    for column in ("don", "nod"):
        assert table[column].to_pylist() == scorer.score_table(bare)[column].to_pylist()


def test_the_base_model_prefers_right_solutions_but_solves_few_tasks() -> None:
    rows = training_rows(120, 3)
    clean = loss_on([row for row in rows if row["corruption"] == CLEAN])
    assert 0.05 < clean < 0.8
    for kind in ("wrong_solution", "broken_code", "masked", "gibberish"):
        assert clean + 0.3 < loss_on([row for row in rows if row["corruption"] == kind])
    assert loss_on(task_rows(generate_tasks(TASKS, 3))) < 0.8


def test_some_held_out_tasks_are_solved_by_the_base_and_most_are_not() -> None:
    tasks = generate_tasks(TASKS, 3)
    passed = 0
    for task, completion in zip(tasks, completions([task.prompt for task in tasks]), strict=True):
        space: dict[str, Any] = {}
        try:
            exec(task.prompt + completion + "\n" + task.test, space)
            space["check"](space[task.entry_point])
            passed += 1
        except Exception:
            continue
    assert 0 < passed <= TASKS // 2


def test_what_the_base_writes_ends_by_itself() -> None:
    tasks = generate_tasks(TASKS, 3)
    ended = [text.endswith("\n") for text in completions([task.prompt for task in tasks])]
    assert sum(ended) > 0.9 * TASKS


@pytest.mark.parametrize("size", ["tiny", "medium"])
def test_two_steps_of_pretraining_run_and_change_every_weight(size: str) -> None:
    tokenizer, shape = loaded().tokenizer, replace(SIZES[size], batch=2)
    before = dict(build_model(shape, tokenizer).named_parameters())
    after = dict(pretrain(shape, tokenizer, steps=2).named_parameters())
    assert all(not torch.equal(before[name], after[name]) for name in before)
    millions = sum(parameter.numel() for parameter in after.values()) / 1e6
    assert (millions < 3) if size == "tiny" else (10 < millions < 100)


def test_a_base_that_was_written_loads_and_says_how_it_was_made(tmp_path: Path) -> None:
    note = write_base(tmp_path / "base", "tiny", steps=1)
    assert "1 of 2400 steps of 24 texts" in note
    model = load_model(tmp_path / "base", dtype="float32", device="cpu")
    assert model.model.config.vocab_size == len(model.tokenizer)
    assert (tmp_path / "base" / "README").read_text(encoding="utf-8") == note
