"""``dj-process`` gives the scores of ``donod-fast score``, and fails where it could only give wrong ones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from host_cases import DECIMALS, MODEL, assert_same_scores, reference, rows, run, write_rows
from worker_killer import killing

from donod_fast.adapters.columns import DETAIL, DON, STATUS, TOPSIS
from donod_fast.demo.corpus import DATA

pytest.importorskip("data_juicer", reason="Data-Juicer is not installed (pip install 'donod-fast[data-juicer]')")

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "hosts" / "data-juicer"
STATS = "__dj__stats__"
SMALL = rows(24, unscorable=(3, 17))
# Ray gives its workers the lowest priority, so that beside other work they would hardly run.
QUIET = {"RAY_worker_niceness": "0", "RAY_AUTH_MODE": "disabled", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
ON_RAY = {"executor_type": "ray", "ray_address": "local", "export_type": "jsonl"}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the embedded corpus as the guide has it, and its scores by the command line."""
    folder = tmp_path_factory.mktemp("whole")
    shutil.copytree(DATA, folder / "demo-data")
    reference(folder / "demo-data" / "corpus.jsonl", folder / "scores")
    code = "from donod_fast.cli import main; main()"
    done = run(
        *(sys.executable, "-P", "-c", code, "select", "scores", "--keep", "0.3", "--out", "subset.jsonl"), cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, Any]]]:
    folder = tmp_path_factory.mktemp("small")
    data = write_rows(folder / "rows.jsonl", SMALL)
    return data, reference(data, folder / "scores")


@pytest.fixture(scope="module")
def cluster() -> Iterator[dict[str, str]]:
    """A Ray cluster of its own, for the configurations that say ``ray_address: auto``; it ends with its process."""
    program = (
        "import ray, sys; context = ray.init(num_cpus=2, include_dashboard=False);"
        "print('address', context.address_info['address'], flush=True); sys.stdin.read()"
    )
    folder = Path(sys.executable).parent  # workers have another current folder than the host's program
    with subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=folder,
        env={**os.environ, **QUIET},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as running:
        assert running.stdin is not None and running.stdout is not None
        lines = iter(running.stdout.readline, "")
        address = next(line.split()[1] for line in lines if line.startswith("address "))
        yield {"RAY_ADDRESS": address}
        running.stdin.close()


def process(folder: Path, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """The host's own program in a folder, with a cache of its own."""
    return run(
        *("dj-process", *arguments), cwd=folder, HF_DATASETS_CACHE=str(folder / "cache"), **{**QUIET, **environment}
    )


def configured(
    folder: Path, data: Path, operators: list[dict[str, Any]], **settings: object
) -> subprocess.CompletedProcess[str]:
    """Run operators over a file, with the host's defaults but for the settings."""
    return process(folder, *written(folder, data, operators, **settings))


def written(folder: Path, data: Path, operators: list[dict[str, Any]], **settings: object) -> list[str]:
    """The arguments of a run, whose configuration is written into the folder."""
    content = {
        "project_name": "test",
        "dataset_path": str(data),
        "export_path": str(folder / "out" / "rows.jsonl"),
        "work_dir": str(folder / "work"),
        "text_keys": "instruction",
        "keep_stats_in_res_ds": True,
        "process": operators,
        **settings,
    }
    config = folder / "config.yaml"
    config.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return ["--config", str(config)]


def output(path: Path) -> list[dict[str, Any]]:
    """The rows of an exported file, or of a folder of them."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def written_rows(folder: Path) -> list[Path]:
    """What a run has exported: a file, or the files of a folder."""
    return [path for path in (folder / "out").rglob("*") if path.is_file()]


def stats_of(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row[STATS] for row in found]


def in_order(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of the corpus by their ids: Ray writes them in any order."""
    return sorted(found, key=lambda row: row["id"])


def subset(folder: Path) -> list[dict[str, Any]]:
    """What ``donod-fast select --keep 0.3`` keeps of the embedded corpus."""
    return output(folder / "subset.jsonl")


def all_scores(folder: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    found = [
        row for part in sorted((folder / "scores").glob("part-*.parquet")) for row in pq.read_table(part).to_pylist()
    ]
    return sorted(found, key=lambda row: row["row"])


def test_the_guides_configuration_selects_as_the_command_does(whole: Path) -> None:
    done = process(whole, "--config", EXAMPLES / "select.yaml")
    assert done.returncode == 0, done.stderr[-3000:]
    found, wanted = output(whole / "out" / "subset.jsonl"), subset(whole)
    assert [row["id"] for row in found] == [row["id"] for row in wanted]
    assert [{key: row[key] for key in row if key != STATS} for row in found] == wanted
    scores = {row["id"]: row for row in all_scores(whole)}
    assert_same_scores(stats_of(found), [scores[row["id"]] for row in found])
    assert all(0 < row[TOPSIS] < 1 for row in stats_of(found))


def test_two_passes_on_ray_select_as_the_command_does(whole: Path, cluster: dict[str, str]) -> None:
    first = process(whole, "--config", EXAMPLES / "ray-score.yaml", **cluster)
    assert first.returncode == 0, first.stderr[-3000:]
    scored = in_order(output(whole / "out" / "scored"))
    assert_same_scores(stats_of(scored), all_scores(whole))
    between = run(sys.executable, EXAMPLES / "constants.py", cwd=whole)
    assert between.returncode == 0, between.stderr
    second = process(whole, "--config", EXAMPLES / "ray-select.yaml", **cluster)
    assert second.returncode == 0, second.stderr[-3000:]
    kept = in_order(output(whole / "out" / "subset"))
    assert [row["id"] for row in kept] == [row["id"] for row in subset(whole)]
    assert [{key: row[key] for key in row if key != STATS} for row in kept] == subset(whole)


def test_a_row_without_an_answer_keeps_its_place(tmp_path: Path, small) -> None:
    data, wanted = small
    done = configured(tmp_path, data, [{"donod_score_filter": {"hf_model": str(MODEL), "batch_size": 5}}], np=1)
    assert done.returncode == 0, done.stderr[-3000:]
    found = output(tmp_path / "out" / "rows.jsonl")
    assert [row["id"] for row in found] == [row["id"] for row in SMALL]
    assert_same_scores(stats_of(found), wanted)
    assert found[3][STATS][STATUS] == "empty_response"


def test_batches_without_any_score_fit_those_with_scores(tmp_path: Path) -> None:
    empty = write_rows(tmp_path / "rows.jsonl", rows(9, unscorable=(0, 1, 2, 6, 7, 8)))
    scored = {"donod_score_filter": {"hf_model": str(MODEL), "batch_size": 3}}
    done = configured(tmp_path, empty, [scored, {"donod_topsis_selector": {"keep": 2}}], np=1)
    assert done.returncode == 0, done.stderr[-3000:]
    found = output(tmp_path / "out" / "rows.jsonl")
    assert len(found) == 2 and all(row[STATUS] == "scored" for row in stats_of(found))


def test_other_weights_in_the_same_folder_are_scored_again(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    data = write_rows(tmp_path / "rows.jsonl", rows(6))
    model = tmp_path / "model"
    shutil.copytree(MODEL, model)
    operators = [{"donod_score_filter": {"hf_model": str(model)}}]
    seen = []
    for turn in range(2):
        if turn == 1:
            weights = model / "model.safetensors"
            torch.manual_seed(0)
            noisy = {name: one + 0.01 * torch.randn_like(one) for name, one in load_file(weights).items()}
            save_file(noisy, weights, metadata={"format": "pt"})
        done = configured(tmp_path, data, operators, np=1)
        assert done.returncode == 0, done.stderr[-3000:]
        seen.append([row[STATS][DON] for row in output(tmp_path / "out" / "rows.jsonl")])
    assert all(a != b for a, b in zip(*seen, strict=True))


@pytest.mark.parametrize("settings", [{"np": 1}, ON_RAY], ids=["np 1", "ray"])
def test_a_wrong_model_path_fails_the_run(tmp_path: Path, small, settings: dict[str, Any]) -> None:
    data, _ = small
    done = configured(tmp_path, data, [{"donod_score_filter": {"hf_model": "/nowhere/model"}}], **settings)
    assert done.returncode != 0
    assert "/nowhere/model: there is no such folder" in done.stdout + done.stderr
    assert not written_rows(tmp_path)


def test_damaged_weights_fail_the_run_from_its_workers(tmp_path: Path, small) -> None:
    data, _ = small
    shutil.copytree(MODEL, tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    done = configured(tmp_path, data, [{"donod_score_filter": {"hf_model": str(tmp_path / "model")}}], np=2)
    assert done.returncode != 0
    assert "cannot load its weights" in done.stdout + done.stderr
    assert not written_rows(tmp_path)


@pytest.mark.parametrize("settings", [{"np": 1}, ON_RAY], ids=["np 1", "ray"])
def test_an_absent_column_fails_the_run_by_name(tmp_path: Path, small, settings: dict[str, Any]) -> None:
    data, _ = small
    options = {"columns": "prompt=instruction,response=answr"}
    done = configured(
        tmp_path, data, [{"donod_score_filter": {"hf_model": str(MODEL), "options": options}}], **settings
    )
    assert done.returncode != 0
    assert "the table has no column 'answr' (mapped to response" in done.stdout + done.stderr
    assert not written_rows(tmp_path)


def test_columns_that_no_format_knows_give_each_row_a_status(tmp_path: Path) -> None:
    data = write_rows(
        tmp_path / "rows.jsonl", [{"instruction": "Add.", "reply": "5"}, {"instruction": "Go.", "reply": "6"}]
    )
    scored = {"donod_score_filter": {"hf_model": str(MODEL)}}
    done = configured(tmp_path, data, [scored], np=1)
    assert done.returncode == 0, done.stderr[-3000:]
    found = stats_of(output(tmp_path / "out" / "rows.jsonl"))
    assert [row[STATUS] for row in found] == ["unknown_format"] * 2 and "'reply'" in found[0][DETAIL]


def test_a_killed_worker_fails_a_local_run(tmp_path: Path, small) -> None:
    data, _ = small
    environment, killed = killing(tmp_path / "killer")
    arguments = written(tmp_path, data, [{"donod_score_filter": {"hf_model": str(MODEL)}}], np=2)
    done = process(tmp_path, *arguments, **environment)
    assert killed.exists()
    assert done.returncode != 0 and "abruptly died" in done.stdout + done.stderr
    assert not written_rows(tmp_path)


def test_a_killed_worker_loses_no_row_on_ray(tmp_path: Path, small) -> None:
    data, wanted = small
    environment, killed = killing(tmp_path / "killer")
    arguments = written(tmp_path, data, [{"donod_score_filter": {"hf_model": str(MODEL)}}], **ON_RAY)
    done = process(tmp_path, *arguments, **environment)
    assert killed.exists()
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same_scores(stats_of(in_order(output(tmp_path / "out" / "rows.jsonl"))), wanted)


def test_an_actor_of_ray_builds_the_operator_from_the_recipe(tmp_path: Path, small) -> None:
    data, wanted = small
    operator = {"donod_score_filter": {"hf_model": str(MODEL), "ray_execution_mode": "actor", "num_proc": 1}}
    done = configured(tmp_path, data, [operator], **ON_RAY)
    assert done.returncode == 0, done.stderr[-3000:]
    assert_same_scores(stats_of(in_order(output(tmp_path / "out" / "rows.jsonl"))), wanted)


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        ({"donod_score_filter": {"hf_model": str(MODEL), "options": {"learning_rate": 1e-5}}}, "unknown option"),
        ({"donod_score_filter": {"hf_model": str(MODEL), "keep": 0.3}}, "keep needs constants"),
        ({"donod_score_filter": {"model": str(MODEL)}}, "model"),
        ({"donod_topsis_filter": {"keep": 0.3}}, "needs constants"),
        ({"donod_topsis_selector": {"keep": 0.3}}, "the rows have no scores"),
    ],
)
def test_a_wrong_recipe_fails_and_says_why(operator: dict[str, Any], message: str) -> None:
    from data_juicer.core.data import NestedDataset
    from data_juicer.core.preflight import pre_instantiation_check
    from data_juicer.ops import load_ops

    def executed() -> None:  # the steps of the host's executor
        pre_instantiation_check([operator])
        load_ops([operator])[0].run(NestedDataset.from_list(SMALL))

    with pytest.raises(Exception, match=message):
        executed()


def test_constants_of_the_corpus_rank_in_batches(tmp_path: Path, small) -> None:
    import donod_fast

    data, wanted = small
    constants = tmp_path / "constants.json"
    donod_fast.topsis_constants(data.parent / "scores", keep=(0.5,)).save(constants)
    operator = {"hf_model": str(MODEL), "batch_size": 4, "constants": str(constants), "keep": 0.5}
    done = configured(tmp_path, data, [{"donod_score_filter": operator}], np=1)
    assert done.returncode == 0, done.stderr[-3000:]
    found = output(tmp_path / "out" / "rows.jsonl")
    right = [row for row in wanted if row["status"] == "scored"]
    closeness = donod_fast.topsis(*(_tensor([row[name] for row in right]) for name in ("don", "nod"))).tolist()
    best = sorted(range(len(right)), key=lambda at: -closeness[at])[: len(right) // 2]
    assert [row["id"] for row in found] == [right[at]["id"] for at in sorted(best)]
    by_id = {row["id"]: value for row, value in zip(right, closeness, strict=True)}
    assert all(abs(row[STATS][TOPSIS] - by_id[row["id"]]) < 1e-5 + DECIMALS for row in found)
    other = dict(operator, options={"lr": 1e-4})
    done = configured(tmp_path, data, [{"donod_score_filter": other}], np=1)
    assert done.returncode != 0 and "lr" in done.stderr and "another way" in done.stdout + done.stderr


def _tensor(values: list[float]) -> Any:
    import torch

    return torch.tensor(values, dtype=torch.float64)


def test_without_the_host_the_message_names_the_extra() -> None:
    code = "import sys; sys.modules['data_juicer'] = None; import donod_fast.adapters.data_juicer"
    done = run(sys.executable, "-c", code, cwd=Path(os.sep))
    assert done.returncode != 0 and "donod-fast[data-juicer]" in done.stderr
