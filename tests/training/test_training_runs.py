"""A training in a folder: finished, resumed, refused; and the files that it writes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import save_tiny
from training_cases import question_rows, settings

from donod_fast.errors import CorpusError, InputError, ModelError, SettingsMismatchError
from donod_fast.training import train

RECORDS = [*question_rows(50), {"neither": "nor"}]


class Stopped(Exception):
    """Raised in the middle of a training."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("base"))


def saved(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("stop", [3, 7])  # in the first epoch and in the second
def test_a_training_that_was_ended_goes_on_to_the_same_weights(
    base: Path, tmp_path: Path, method: str, stop: int
) -> None:
    chosen = settings(model=str(base), epochs=2, save_steps=2, method=method, lora={"dropout": 0.2, "rank": 2})
    whole = train(chosen, RECORDS, tmp_path / "whole")

    def end(step: int, steps: int, loss: float) -> None:
        if step == stop:
            raise Stopped

    with pytest.raises(Stopped):
        train(chosen, RECORDS, tmp_path / "ended", progress=end)
    # What a kill in the middle of a checkpoint leaves: it has no mark, and must not be begun from.
    (tmp_path / "ended" / "checkpoints" / "checkpoint-99").mkdir()
    resumed = train(chosen, RECORDS, tmp_path / "ended")
    assert (whole.resumed, resumed.resumed) == (0, stop - 1)
    assert same(saved(whole.out), saved(resumed.out))
    assert (whole.tokens, whole.scored_tokens, whole.steps) == (resumed.tokens, resumed.scored_tokens, resumed.steps)
    assert (whole.out / "loss.jsonl").read_text() == (resumed.out / "loss.jsonl").read_text()
    assert not (resumed.out / "checkpoints").exists()


KILLED = """
import json, os, signal, sys
import torch
torch.set_num_threads(1)
from donod_fast.training import TrainSettings, train
records, model, out = json.load(open(sys.argv[1])), sys.argv[2], sys.argv[3]
def end(step, steps, loss):
    if step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
train(TrainSettings(model=model, learning_rate=1e-3, micro_batch=8, epochs=2, save_steps=2), records, out, progress=end)
"""


@pytest.mark.slow
def test_a_killed_training_resumes_to_the_same_weights(base: Path, tmp_path: Path) -> None:
    (tmp_path / "records.json").write_text(json.dumps(RECORDS))
    arguments = [str(tmp_path / "records.json"), str(base), str(tmp_path / "killed")]
    ended = subprocess.run(
        [sys.executable, "-P", "-c", KILLED, *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=300
    )
    assert ended.returncode == -signal.SIGKILL
    chosen = settings(model=str(base), epochs=2, save_steps=2)
    resumed = train(chosen, RECORDS, tmp_path / "killed")
    assert resumed.resumed == 4
    assert same(saved(train(chosen, RECORDS, tmp_path / "whole").out), saved(resumed.out))


def test_a_finished_folder_is_untouched_and_refuses_another_training(base: Path, tmp_path: Path) -> None:
    chosen = settings(model=str(base), max_steps=2)
    first = train(chosen, RECORDS, tmp_path / "out")
    stamp = (first.folder / "model.safetensors").stat().st_mtime_ns
    again = train(chosen.model_copy(update={"save_steps": 7}), RECORDS, tmp_path / "out")
    assert again.resumed is None and (again.tokens, again.loss) == (first.tokens, first.loss)
    assert (first.folder / "model.safetensors").stat().st_mtime_ns == stamp
    half_removed = tmp_path / "out" / "checkpoints" / "checkpoint-1"  # a kill as soon as it was finished
    half_removed.mkdir(parents=True)
    (half_removed / "optimizer.pt").touch()
    train(chosen, RECORDS, tmp_path / "out")
    assert not half_removed.parent.exists()
    for other, data, rows, name in (
        ({"seed": 3}, RECORDS, None, "settings.seed: 0 in the folder, 3 requested"),
        ({"lora": settings(lora={"rank": 3}).lora}, RECORDS, None, "settings.lora.rank: 16 in the folder, 3"),
        ({}, RECORDS[1:], None, "data.rows: 51 in the folder, 50 requested"),
        ({}, RECORDS, [0, 1], "selected.rows: 51 in the folder, 2 requested"),
    ):
        with pytest.raises(SettingsMismatchError, match=name):
            train(chosen.model_copy(update=other), data, tmp_path / "out", rows=rows)


def test_a_folder_says_what_was_trained_and_transformers_loads_it(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    outcome = train(settings(model=str(base), epochs=2), RECORDS, tmp_path / "out")
    assert outcome.selected == 51 and outcome.rows == 100 and outcome.steps == 8
    assert outcome.skipped == {"unknown_format": 1} and "record 50" in outcome.first_skipped
    tokenizer = AutoTokenizer.from_pretrained(outcome.folder)
    model = AutoModelForCausalLM.from_pretrained(outcome.folder)
    assert same(dict(model.state_dict()), saved(outcome.out))
    manifest, result = (json.loads((outcome.out / name).read_text()) for name in ("manifest.json", "result.json"))
    assert manifest["settings"]["learning_rate"] == 1e-3 and manifest["data"]["rows"] == 51
    assert {"torch", "transformers", "trl"} <= manifest["versions"].keys()
    counted = [
        len(
            tokenizer.apply_chat_template(
                [{"role": "user", "content": r["question"]}, {"role": "assistant", "content": r["answer"]}]
            )["input_ids"]
        )
        for r in RECORDS[:50]
    ]
    assert result["tokens_per_epoch"] == sum(counted) and outcome.tokens == 2 * sum(counted)
    losses = [json.loads(line) for line in (outcome.out / "loss.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in losses] == list(range(1, 9)) and losses[-1]["loss"] == outcome.loss
    assert losses[-1]["loss"] < losses[0]["loss"]


def test_a_subset_is_the_same_training_however_it_is_given(base: Path, tmp_path: Path) -> None:
    chosen = settings(model=str(base))
    by_rows = train(chosen, RECORDS, tmp_path / "rows", rows=[30, 2, 17, 4, 9])
    by_file = train(chosen, [RECORDS[at] for at in (2, 4, 9, 17, 30)], tmp_path / "file")
    assert same(saved(by_rows.out), saved(by_file.out)) and by_rows.selected == 5
    assert by_rows.tokens == by_file.tokens


def test_rows_that_are_not_there_or_named_twice_are_refused(base: Path, tmp_path: Path) -> None:
    for rows, words in (([51], "row 51 .* 0 to 50"), ([-1], "row -1"), ([3, 3], "named twice"), ([], "no row")):
        with pytest.raises(CorpusError, match=words):
            train(settings(model=str(base)), RECORDS, tmp_path / "out", rows=rows)


def test_an_adapter_is_written_alone_where_merging_is_off(base: Path, tmp_path: Path) -> None:
    lora = {"rank": 2, "merge": False}
    outcome = train(settings(model=str(base), method="lora", lora=lora, max_steps=1), RECORDS, tmp_path / "out")
    assert (outcome.folder / "adapter_config.json").is_file() and not (outcome.folder / "model.safetensors").exists()


def test_a_model_without_a_chat_template_keeps_the_one_it_was_taught(tmp_path: Path) -> None:
    from tiny_models import tiny_model, tiny_tokenizer
    from transformers import AutoTokenizer

    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    tokenizer.save_pretrained(tmp_path / "base")
    tiny_model("llama").save_pretrained(tmp_path / "base")
    chosen = settings(model=str(tmp_path / "base"), max_steps=1, template="chatml")
    outcome = train(chosen, question_rows(4), tmp_path / "out")
    assert "<|im_start|>" in AutoTokenizer.from_pretrained(outcome.folder).chat_template
    plain = train(chosen, [{"text": "plain text"}], tmp_path / "plain")
    assert AutoTokenizer.from_pretrained(plain.folder).chat_template is None


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_what_cannot_be_had_here_is_said(base: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs a CUDA device; use method: lora"):
        train(settings(model=str(base), method="qlora"), RECORDS, tmp_path / "q")
    with pytest.raises(ModelError, match="no such folder"):
        train(settings(model=str(tmp_path / "absent" / "model")), RECORDS, tmp_path / "m")


PROCESSES = """
import json, sys
import torch
torch.set_num_threads(1)
from donod_fast.training import TrainSettings, train
records, model, out = json.load(open(sys.argv[1])), sys.argv[2], sys.argv[3]
train(TrainSettings(model=model, learning_rate=1e-3, micro_batch=2, epochs=2, global_batch=8), records, out)
"""


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="the processes would share one CUDA device")
def test_two_processes_train_what_one_does(base: Path, tmp_path: Path) -> None:
    records = question_rows(21)  # the last step has five rows: three of padding make it even
    (tmp_path / "records.json").write_text(json.dumps(records))
    (tmp_path / "program.py").write_text(PROCESSES)
    environment: dict[str, Any] = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1"}
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29731",
         str(tmp_path / "program.py"), str(tmp_path / "records.json"), str(base), str(tmp_path / "two")],
        env=environment, timeout=300, check=True,
    )  # fmt: skip
    one = train(settings(model=str(base), micro_batch=2, epochs=2, global_batch=8), records, tmp_path / "one")
    result = json.loads((tmp_path / "two" / "result.json").read_text())
    assert result["processes"] == 2 and result["steps"] == one.steps == 6
    assert (result["tokens"], result["scored_tokens"]) == (one.tokens, one.scored_tokens)
    pairs = zip(*((json.loads(line) for line in (tmp_path / name / "loss.jsonl").read_text().splitlines())
                  for name in ("one", "two")), strict=True)  # fmt: skip
    for a, b in pairs:
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-4)
    two = saved(tmp_path / "two")
    for name, parameter in saved(one.out).items():
        torch.testing.assert_close(two[name], parameter, rtol=0, atol=1e-4)
