"""``axolotl train`` with the plugin scores as ``donod-fast score`` does, trains on the best rows, or fails by name."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from host_cases import TOLERANCE, rows, run, write_rows

from donod_fast.demo.corpus import DATA

if find_spec("axolotl") is None:
    pytest.skip("Axolotl is not installed: `make test-hosts` builds its environment", allow_module_level=True)

EXAMPLES = Path(__file__).resolve().parents[3] / "examples" / "hosts" / "axolotl"
NUMBERS = ("don", "nod", "loss")
COUNT = 60


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the guide, after its two commands before the training."""
    folder = tmp_path_factory.mktemp("guide")
    shutil.copytree(DATA, folder / "demo-data")
    write_rows(folder / "messages.jsonl", map(conversation, rows(COUNT)))
    donod(folder, "score", "messages.jsonl", "--model", "demo-data/model", "--out", "scores")
    donod(folder, "select", "scores", "--keep", "0.3", "--out", "kept.jsonl", "--tokenized", "kept-tokens")
    donod(folder, "export", "scores", "--tokenized", "all-tokens")
    return folder


def conversation(row: dict[str, Any]) -> dict[str, Any]:
    asked = "\n\n".join(text for text in (row["instruction"], row["input"]) if text)
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}]}


def donod(folder: Path, *words: object) -> str:
    done = run(sys.executable, "-P", "-c", "from donod_fast.cli import main; main()", *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


def train(folder: Path, config: Path) -> subprocess.CompletedProcess[str]:
    quiet = {"AXOLOTL_DO_NOT_TRACK": "1", "HF_HOME": str(folder / "hub"), "WANDB_MODE": "disabled"}
    return run("axolotl", "train", config, cwd=folder, **quiet)


def changed(folder: Path, name: str, **keys: object) -> Path:
    content = yaml.safe_load((EXAMPLES / "train.yml").read_text())
    file = folder / f"{name}.yml"
    file.write_text(yaml.safe_dump({**content, **keys}))
    return file


def table(folder: Path) -> list[dict[str, Any]]:
    found = [row for part in sorted(folder.glob("part-*.parquet")) for row in pq.read_table(part).to_pylist()]
    return sorted(found, key=lambda row: row["row"])


def test_the_guide_s_configuration_scores_and_prunes_as_the_command_does(place: Path) -> None:
    import datasets

    done = train(place, EXAMPLES / "train.yml")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-4000:]
    assert f"kept {COUNT * 3 // 10} rows by topsis, dropped {COUNT - COUNT * 3 // 10}" in said and "train_loss" in said
    wanted = {
        (tuple(tokens["input_ids"]), tuple(tokens["labels"])): row
        for tokens, row in zip(datasets.load_from_disk(str(place / "all-tokens")), table(place / "scores"), strict=True)
    }
    own = pq.read_table(place / "scored" / "tokens.parquet").to_pylist()
    found = table(place / "scored" / "scores")
    assert len(own) == len(found) == COUNT
    for tokens, row in zip(own, found, strict=True):
        right = wanted[tuple(tokens["input_ids"]), tuple(tokens["labels"])]  # masks are equal, in another order
        assert row["status"] == right["status"] == "scored" and row["scored_tokens"] == right["scored_tokens"]
        for name in NUMBERS:
            assert row[name] == pytest.approx(right[name], rel=TOLERANCE)
    # `score` reads the folder that Axolotl prepared.
    (prepared,) = (path for path in (place / "prepared").iterdir() if path.is_dir())
    donod(place, "score", prepared, "--model", "demo-data/model", "--out", "prepared-scores")
    for row, right in zip(table(place / "prepared-scores"), found, strict=True):
        assert [row[name] for name in NUMBERS] == [right[name] for name in NUMBERS]


def test_it_trains_on_the_tokens_that_were_scored(place: Path) -> None:
    done = train(place, EXAMPLES / "train-tokenized.yml")
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    assert "train_loss" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"donod_kep": 0.3}, "unknown key 'donod_kep'; did you mean 'donod_keep'"),
        ({"donod_keep": 1.5}, "donod_keep: keep '1.5' is a fraction above one"),
        ({"donod_out": "elsewhere", "donod_model": "no/such-folder-here"}, "no/such-folder-here"),
        ({"donod_out": "scores-of-others"}, "holds scores of other rows"),
    ],
)
def test_a_wrong_configuration_fails_the_run_by_name(place: Path, keys: dict[str, Any], message: str) -> None:
    others = place / "scores-of-others"
    others.mkdir(exist_ok=True)
    pq.write_table(pq.ParquetFile(next((place / "scores").glob("part-*"))).read(["row"]), others / "tokens.parquet")
    done = train(place, changed(place, "wrong", **keys))
    said = done.stdout + done.stderr
    assert done.returncode != 0 and message in said, said[-4000:]
    assert "train_loss" not in said and not list((place / "elsewhere").glob("scores/part-*"))
