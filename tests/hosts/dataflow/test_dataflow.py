"""DataFlow's operators give the scores of ``donod-fast score``, and fail where they could only give wrong ones."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from host_cases import MODEL, assert_same_scores, reference, rows, run, write_rows

from donod_fast.adapters.columns import DON, STATUS, TOPSIS
from donod_fast.demo.corpus import DATA

if importlib.util.find_spec("dataflow") is None or importlib.util.find_spec("dataflow.pipeline") is None:
    pytest.skip("DataFlow is not installed (pip install 'donod-fast[dataflow]')", allow_module_level=True)

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "hosts" / "dataflow" / "select_best.py"
SMALL = rows(24, unscorable=(3, 17))


@pytest.fixture(scope="module", autouse=True)
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """DataFlow requires torchvision, whose wheels on PyPI fit torch for CUDA only: else it is hidden."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        if torch.version.cuda is None:
            folder = tmp_path_factory.mktemp("hidden")
            code = "import sys\nsys.modules.update(torchvision=None, torchaudio=None)\n"
            (folder / "sitecustomize.py").write_text(code, encoding="utf-8")
            patch.setenv("PYTHONPATH", str(folder))
        yield


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, hidden: None) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("small")
    data = write_rows(folder / "rows.jsonl", SMALL)
    return data, reference(data, folder / "scores")


def output(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def pipeline(
    folder: Path,
    data: Path,
    steps: list[tuple[str, str, str]],
    *,
    batch_size: int | None = None,
    model: object = MODEL,
) -> subprocess.CompletedProcess[str]:
    """Run a compiled pipeline of the host over a file: (operator, its settings, keys of its run) a step."""
    kind, storage = (
        ("PipelineABC", "FileStorage") if batch_size is None else ("BatchedPipelineABC", "BatchedFileStorage")
    )
    made = "\n".join(f"        self.op{at} = {name}({settings})" for at, (name, settings, _) in enumerate(steps))
    runs = "\n".join(f"        self.op{at}.run(self.storage.step(), {keys})" for at, (_, _, keys) in enumerate(steps))
    program = f"""
from dataflow.pipeline import {kind}
from dataflow.utils.storage import {storage}
from dataflow.utils.registry import OPERATOR_REGISTRY
from donod_fast.adapters.dataflow import DonodFilter, DonodSampleEvaluator

assert OPERATOR_REGISTRY.get("DonodFilter") is DonodFilter
MODEL = {str(model)!r}

class Made({kind}):
    def __init__(self):
        super().__init__()
        self.storage = {storage}({str(data)!r}, cache_path="out", file_name_prefix="x")
{made}

    def forward(self):
{runs}

made = Made()
made.compile()
made.forward({"" if batch_size is None else f"batch_size={batch_size}, resume_from_last=False"})
"""
    (folder / "program.py").write_text(program, encoding="utf-8")
    return run(sys.executable, "program.py", cwd=folder)


SCORE = ("DonodSampleEvaluator", "model=MODEL", "")


def test_the_guides_program_selects_as_the_command_does(tmp_path: Path) -> None:
    shutil.copytree(DATA, tmp_path / "demo-data")
    wanted = reference(tmp_path / "demo-data" / "corpus.jsonl", tmp_path / "scores")
    code = "from donod_fast.cli import main; main()"
    select = ("select", "scores", "--keep", "0.3", "--out", "subset.jsonl")
    assert run(sys.executable, "-P", "-c", code, *select, cwd=tmp_path).returncode == 0
    done = run(sys.executable, EXAMPLE, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    scored = output(tmp_path / "out" / "donod_step1.jsonl")
    assert_same_scores(scored, wanted)
    kept = output(tmp_path / "out" / "donod_step2.jsonl")
    assert [row["id"] for row in kept] == [row["id"] for row in output(tmp_path / "subset.jsonl")]
    assert all(0 < row[TOPSIS] < 1 for row in kept)


def test_a_row_without_an_answer_keeps_its_place(tmp_path: Path, small) -> None:
    data, wanted = small
    done = pipeline(tmp_path, data, [SCORE])
    assert done.returncode == 0, done.stderr[-3000:]
    found = output(tmp_path / "out" / "x_step1.jsonl")
    assert [row["id"] for row in found] == [row["id"] for row in SMALL]
    assert_same_scores(found, wanted)
    assert found[3][STATUS] == "empty_response" and found[3][DON] is None


def test_batches_have_the_scores_and_the_ranking_of_the_whole(tmp_path: Path, small) -> None:
    import donod_fast

    data, wanted = small
    donod_fast.topsis_constants(data.parent / "scores", keep=(0.5,)).save(tmp_path / "constants.json")
    frozen = ("DonodFilter", "keep=0.5, constants='constants.json'", "")
    done = pipeline(tmp_path, data, [SCORE, frozen], batch_size=5)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same_scores(output(tmp_path / "out" / "x_step1.jsonl"), wanted)
    by_batch = output(tmp_path / "out" / "x_step2.jsonl")
    whole = pipeline(tmp_path, data, [SCORE, ("DonodFilter", "keep=0.5", "")])
    assert whole.returncode == 0, whole.stderr[-3000:]
    assert [row["id"] for row in by_batch] == [row["id"] for row in output(tmp_path / "out" / "x_step2.jsonl")]
    assert len(by_batch) == 11


def test_ranking_a_batch_alone_is_refused(tmp_path: Path, small) -> None:
    data, _ = small
    done = pipeline(tmp_path, data, [SCORE, ("DonodFilter", "keep=0.5", "")], batch_size=5)
    assert done.returncode != 0 and "this pipeline runs in batches; make constants" in done.stderr


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ([("DonodSampleEvaluator", "model='/nowhere/model'", "")], "/nowhere/model: there is no such folder"),
        ([("DonodSampleEvaluator", "model=MODEL, options={'learning_rate': 1}", "")], "unknown option 'learning_rate'"),
        (
            [("DonodSampleEvaluator", "model=MODEL", "input_prompt_key='instruction', input_output_key='answr'")],
            "'answr'",
        ),
        ([("DonodSampleEvaluator", "model=MODEL", "input_reply_key='output'")], "no argument 'input_reply_key'"),
        ([("DonodFilter", "keep=0.5", "")], "donod_don_per_lr"),
    ],
    ids=["model", "option", "column", "role", "order"],
)
def test_a_wrong_pipeline_fails_and_says_why(tmp_path: Path, small, steps, message: str) -> None:
    data, _ = small
    done = pipeline(tmp_path, data, steps)
    assert done.returncode != 0 and message in done.stderr
    assert not (tmp_path / "out").exists()


def test_columns_can_be_named_as_the_host_names_them(tmp_path: Path, small) -> None:
    _, wanted = small
    renamed = [{"id": row["id"], "q": row["instruction"], "more": row["input"], "a": row["output"]} for row in SMALL]
    other = write_rows(tmp_path / "rows.jsonl", renamed)
    keys = "input_instruction_key='q', input_input_key='more', input_output_key='a', output_don_key='don'"
    done = pipeline(tmp_path, other, [("DonodSampleEvaluator", "model=MODEL", keys)])
    assert done.returncode == 0, done.stderr[-3000:]
    found = output(tmp_path / "out" / "x_step1.jsonl")
    assert_same_scores([{**row, DON: row["don"]} for row in found], wanted)


def test_without_the_host_the_message_names_the_extra() -> None:
    code = "import sys; sys.modules['dataflow'] = None; import donod_fast.adapters.dataflow"
    done = run(sys.executable, "-c", code, cwd=Path("/"))
    assert done.returncode != 0 and "donod-fast[dataflow]" in done.stderr
