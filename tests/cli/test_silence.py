"""With local inputs no command makes a request: libraries that report, update or look something up are kept quiet."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from attack_counts import Attacks
from eval_cases import code_tokenizer, human_eval_record, write_records
from request_watch import watched
from score_runs import short_rows, write_lines
from tiny_models import tiny_model
from training_cases import question_rows

from donod_fast.demo.corpus import CORPUS_FILE, MODEL_FOLDER

SHARE = ("train", "eval")
"""The commands whose libraries talk most; ``make attack`` tries all."""


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("silent") / "owner" / "model"  # as a relative path, it could be a hub id
    tiny_model("llama", max_position_embeddings=2048).save_pretrained(folder)
    code_tokenizer().save_pretrained(folder)
    return folder


def commands(folder: Path, model: Path) -> dict[str, tuple[tuple[Any, ...], ...]]:
    """Command lines by name; relative paths are those that could be hub ids as well."""
    rows = write_lines(folder / "rows.jsonl", short_rows(30))
    subset = write_lines(folder / "subset.jsonl", question_rows(16))
    problems = write_records(folder / "p.jsonl", [human_eval_record(at) for at in range(2)])
    (folder / "owner").mkdir()
    (folder / "owner" / "model").symlink_to(model, target_is_directory=True)
    small = ("--set", "train.micro_batch=8", "--set", "train.max_steps=1", "--set", "train.learning_rate=1e-3")
    (folder / "owner" / "damoc.yaml").write_text(json.dumps(damoc(folder, subset, model)))
    named = ("--model", "owner/model")
    score = ("score", rows, *named, "--template", "plain", "--out", "scores", "--workers", 1, "--part-rows", 8)
    few = ("--rows", "24", "--seeds", "2", "--kinds", "masked", "--updates", "adamw")
    return {
        "score": (
            (*score, "--signals", "influence", "--reference", subset),
            ("select", "scores", "--keep", "3", "--out", "kept.jsonl"),
            ("select", "scores", "--keep", "3", "--out", "more.jsonl", "--engine", "duckdb"),
            ("export", "scores", "--out", "all.parquet"),
            ("export", "scores", "--out", "dataset"),
            ("show", rows, *named, "--template", "plain", "--losses"),
        ),
        "train": (
            ("train", *named, "--data", subset, "--out", "tuned", *small, "--set", "train.save_steps=1"),
            ("train", *named, "--data", subset, "--out", "lora", *small, "--set", "train.method=lora"),
            ("train", *named, "--data", subset, "--out", "apart", *small, "--set", "train.method=lora",
             "--set", "train.lora.merge=false", "--set", "train.save_steps=1"),
            ("train", *named, "--data", subset, "--dry-run"),
        ),
        "eval": (
            ("eval", "humaneval", "--problems", problems, *named, "--max-new-tokens", 4, "--out", "e"),
        ),
        "damoc": (("damoc", "owner/damoc.yaml", "--out", "damoc"),),
        "study": (
            ("study", "noise", CORPUS_FILE, "--model", MODEL_FOLDER, *few, "--out", "noise"),
            ("study", "stability", CORPUS_FILE, "--model", MODEL_FOLDER, "--rows", 24, "--heldout", CORPUS_FILE,
             "--heldout-rows", 8, "--proportions", "0.5", "--seeds", 2, "--out", "stability"),
        ),
        "dual": (("dual", rows, *named, "--template", "plain", "--reference", subset, "--out", "dual"),),
    }  # fmt: skip


def damoc(folder: Path, subset: Path, model: Path) -> dict[str, Any]:
    return {
        "name": "silent",
        "data": [str(subset)],
        "heldout": [str(subset)],
        "train": {"micro_batch": 8, "global_batch": 8, "warmup_ratio": 0.0, "template": "plain"},
        "candidates": [{"name": "one", "model": str(model)}],
    }


@pytest.mark.attack
@pytest.mark.parametrize("name", ["score", "train", "eval", "damoc", "study", "dual"])
def test_a_command_with_local_inputs_makes_no_request(name: str, model: Path, attacks: Attacks, tmp_path: Path) -> None:
    if not attacks.full and name not in SHARE:
        pytest.skip("make attack runs it")
    requests = []
    lines = commands(tmp_path, model)[name]
    for line in lines if attacks.full else lines[:1]:
        done = watched(tmp_path, *line)
        assert done.code == 0, (line, done)
        requests += done.requests
    attacks.count("secrets", f"a request of {name} with local inputs", tried=len(lines), got_through=len(requests))
    assert not requests


def test_the_watch_sees_a_request(tmp_path: Path) -> None:
    program = "import os; from huggingface_hub import HfApi; HfApi().model_info('owner/model')"
    assert any(one.startswith("sink: ") for one in watched(tmp_path, program=program).requests)
    inner = (
        "import subprocess, sys; subprocess.run([sys.executable, '-c', 'import socket; socket.getaddrinfo(\"h\", 1)'])"
    )
    assert watched(tmp_path, program=inner).requests == ["socket.getaddrinfo 'h'"]
    assert os.environ.get("REQUEST_LOG") is None
