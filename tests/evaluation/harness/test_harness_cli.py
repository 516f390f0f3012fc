"""``donod-fast eval agieval`` and ``eval ifeval`` from the command line, and their errors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import pytest
import torch
from eval_cases import COMMAND, DEMO_MODEL, ENVIRONMENT
from harness_cases import write_agieval, write_ifeval
from request_watch import watched
from score_runs import assert_one_line_error, invoke
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast.errors import InputError, ModelError
from donod_fast.evaluation.harness import measure
from donod_fast.evaluation.harness.folder import ITEMS
from donod_fast.models.loading import load_model, wrap_model

MODEL = ("--model", DEMO_MODEL, "--device", "cpu")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_agieval(tmp_path / "agieval")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_ifeval(tmp_path / "ifeval.jsonl", 5)


def test_both_benchmarks_print_their_tables_and_join_in_the_averages(folder: Path, file: Path, tmp_path: Path) -> None:
    first = tmp_path / "ifeval"
    done = invoke("eval", "ifeval", "--problems", file, *MODEL, "--max-new-tokens", 12, "--out", first)
    assert done.code == 0, done.err
    assert [line.split("  ")[0] for line in done.out.splitlines()] == [
        "accuracy", "prompt, strict", "instruction, strict", "prompt, loose", "instruction, loose",
        done.out.splitlines()[-1],
    ]  # fmt: skip
    assert done.out.splitlines()[-1].startswith("5 prompts in ")
    out = tmp_path / "agieval-out"
    options = ("eval", "agieval", "--problems", folder, *MODEL, "--limit", 2, "--ifeval", first, "--out", out)
    done = invoke(*options)
    assert done.code == 0, done.err
    words = ["lsat-ar ", "group reading ", "non-target, target ifeval ", "all, mean of groups ", "all, mean of sets "]
    assert all(any(line.startswith(word) for line in done.out.splitlines()) for word in words), done.out
    with mock.patch("donod_fast.evaluation.harness.model.HarnessModel.answers", side_effect=AssertionError):
        again = json.loads(invoke(*options, "--json").out)
    result = json.loads((out / "result.json").read_text())
    assert again["sets"] == result["sets"] and len(result["sets"]) == 7 and result["items"] == 14
    assert result["settings"]["model"]["fingerprint"].startswith("local:")
    ifeval = json.loads((first / "result.json").read_text())
    assert result["averages"]["groups"]["ifeval"] == ifeval["prompt_strict"]
    assert {"lm_eval", "torch", "transformers"} <= set(result["settings"]["versions"])


def test_generated_answers_and_chat_prompts(folder: Path, tmp_path: Path) -> None:
    options = ("--problems", folder, "--sets", "sat-en, lsat-ar", "--limit", 2, *MODEL, "--json")
    for more in (("--style", "generate"), ("--chat-template",), ("--style", "generate", "--chat-template")):
        done = invoke("eval", "agieval", *options, *more, "--few-shot", 1, "--max-new-tokens", 4)
        assert done.code == 0, done.err
        found = json.loads(done.out)
        assert list(found["sets"]) == ["lsat-ar", "sat-en"] and found["items"] == 4
        assert found["settings"]["template"] == ("auto" if "--chat-template" in more else None)


def test_a_killed_run_resumes(file: Path, tmp_path: Path) -> None:
    write_ifeval(file, 20)
    out = tmp_path / "out"
    options = ["eval", "ifeval", "--problems", file, *MODEL, "--max-new-tokens", 16, "--out", out]
    process = subprocess.Popen([*COMMAND, *map(str, options)], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:  # the first report of progress follows the first lines on disk
        if line.startswith("answer: 16 of 20"):
            break
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    stored = len((out / ITEMS).read_text().splitlines())
    assert stored > 0
    done = invoke(*options, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["items"] == 20
    assert len((out / ITEMS).read_text().splitlines()) == 20


def test_wrong_requests_end_with_one_line(folder: Path, file: Path, tmp_path: Path) -> None:
    agieval, ifeval = ("eval", "agieval", *MODEL), ("eval", "ifeval", *MODEL)
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"prompt": "a"}\n')
    cases: list[tuple[tuple[object, ...], int, str]] = [
        ((*agieval, "--problems", tmp_path / "no"), 3, "is no folder"),
        ((*agieval, "--problems", file), 3, "is no folder"),
        ((*agieval, "--problems", tmp_path), 3, "is it the right folder?"),
        ((*agieval, "--problems", folder, "--sets", "sat"), 2, "unknown set 'sat'; known are lsat-ar"),
        ((*agieval, "--problems", folder, "--few-shot", 4), 2, "has 3 solved questions of lsat-ar"),
        ((*agieval, "--problems", folder, "--style", "chat"), 2, "style must be one of loglikelihood, generate"),
        ((*agieval, "--problems", folder, "--ifeval", folder), 5, "contains no result.json"),
        ((*agieval, "--problems", folder, "--chat-template", "--template", "no"), 2, "unknown chat template 'no'"),
        ((*agieval, "--problems", folder, "--style", "generate", "--max-new-tokens", 5000), 2, "leaves no room"),
        ((*ifeval, "--problems", file), 2, "--max-new-tokens 1280 leaves no room for a prompt"),
        ((*ifeval, "--problems", folder), 3, "is a folder"),
        ((*ifeval, "--problems", broken), 3, "line 1: key is missing"),
        ((*ifeval, "--problems", file, "--limit", 0), 2, "limit"),
        (("eval", "--problems", file, "ifeval", *MODEL), 2, "donod-fast eval ifeval"),
        (("eval", "ifevel", *MODEL), 2, "did you mean 'ifeval'"),
    ]
    for arguments, code, words in cases:
        done = invoke(*arguments)
        assert done.code == code and words in done.err and "Traceback" not in done.err, (arguments, done)
    assert_one_line_error(invoke(*ifeval, "--problems", broken), 3, "line 1")


def test_a_missing_package_is_named_with_the_extra(folder: Path, file: Path) -> None:
    for arguments, module in (
        (("agieval", "--problems", folder), "lm_eval.api.task"),
        (("ifeval", "--problems", file), "langdetect"),
    ):
        with mock.patch.dict(sys.modules, {module: None}):
            done = invoke("eval", *arguments, *MODEL)
        assert_one_line_error(done, 2, "pip install 'donod-fast[benchmarks]'")


def test_models_that_cannot_answer_are_refused(file: Path, folder: Path) -> None:
    plain = load_model(DEMO_MODEL, device="cpu")
    plain.tokenizer.chat_template = None
    with pytest.raises(ModelError, match="has no chat template; name one with --template"):
        measure(plain, "ifeval", file, max_new_tokens=4)
    assert measure(plain, "ifeval", file, max_new_tokens=4, plain=True)["items"] == 5
    assert measure(plain, "ifeval", file, max_new_tokens=4, template="chatml")["settings"]["template"] == "chatml"
    tokenizer = tiny_tokenizer()
    tokenizer.eos_token = None
    with pytest.raises(ModelError, match="no end token"):
        measure(wrap_model(tiny_model("llama"), tokenizer), "agieval", folder, limit=1)


def test_a_failing_chat_template_is_an_error_of_the_model(file: Path) -> None:
    loaded = load_model(DEMO_MODEL, device="cpu")
    for template in ("{{ raise_exception('no') }}", "{% for m in messages %}{{ m.x.y }}{% endfor %}", "{{"):
        loaded.tokenizer.chat_template = template
        with pytest.raises(ModelError):
            measure(loaded, "ifeval", file, max_new_tokens=4)


def test_a_prompt_longer_than_the_context_is_counted(folder: Path, tmp_path: Path) -> None:
    path = folder / "sat-en.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[1]["passage"] = "birds and trees " * 2000
    path.write_text("".join(json.dumps(one) + "\n" for one in lines))
    for style in ("loglikelihood", "generate"):
        done = invoke(
            "eval", "agieval", "--problems", folder, "--sets", "sat-en", "--limit", 2, *MODEL, "--style", style
        )
        assert done.code == 0, done.err
        assert "longer than the model's context, and cut at the beginning: 1 question" in done.out
        assert "longer than" not in done.err


def test_batches_are_halved_when_memory_runs_out(folder: Path) -> None:
    loaded = load_model(DEMO_MODEL, device="cpu")
    whole = measure(loaded, "agieval", folder, limit=2, sets=("sat-en",))
    forward: Callable[..., object] = loaded.model.forward
    sizes: list[int] = []

    def scarce(ids: torch.Tensor, **more: object) -> object:
        sizes.append(len(ids))
        if len(ids) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return forward(ids, **more)

    with mock.patch.object(loaded.model, "forward", scarce):
        found = measure(loaded, "agieval", folder, limit=2, sets=("sat-en",), batch_rows=8)
    assert found["sets"] == whole["sets"] and max(sizes) > 2 and sizes[-1] <= 2
    with (
        mock.patch.object(loaded.model, "forward", side_effect=torch.OutOfMemoryError("out of memory")),
        pytest.raises(ModelError, match="not enough memory for one prompt"),
    ):
        measure(loaded, "agieval", folder, limit=1, sets=("sat-en",))


def test_python_callers_get_errors_for_unknown_names(folder: Path) -> None:
    loaded = load_model(DEMO_MODEL, device="cpu")
    with pytest.raises(InputError, match="did you mean 'agieval'"):
        measure(loaded, "agi-eval", folder)
    with pytest.raises(InputError, match="few_shots"):
        measure(loaded, "agieval", folder, few_shots=3)


_PROGRAM = """
import sys
from donod_fast.evaluation.harness import measure
from donod_fast.models.loading import load_model

loaded = load_model({model!r}, device="cpu")
print(measure(loaded, "agieval", {folder!r}, limit=1, sets=("sat-en",))["items"])
print(measure(loaded, "ifeval", {file!r}, limit=2, max_new_tokens=4)["items"])
"""


def test_nothing_is_asked_of_the_network_and_nothing_is_cached(folder: Path, file: Path, tmp_path: Path) -> None:
    program = _PROGRAM.format(model=str(DEMO_MODEL), folder=str(folder), file=str(file))
    done = watched(tmp_path / "watch", program=program)
    assert done.code == 0, done.err
    assert done.out.split() == ["1", "2"] and done.requests == []
    assert not [name for _, _, names in os.walk(tmp_path / "watch" / "hub") for name in names]
