"""``show --losses`` shows what ``score`` recorded without the model, and never the losses of other tokens or models."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from loss_folders import assert_losses_fit
from score_runs import assert_one_line_error, invoke, write_lines

from donod_fast.demo.corpus import DATA
from donod_fast.models import loading
from donod_fast.scores.folder import ScoresFolder

MODEL = DATA / "model"
ROWS: list[dict[str, Any]] = [
    {
        "messages": [
            {"role": "user", "content": "List 3 things."},
            {"role": "assistant", "content": "1. bowl\n2. cup"},
            {"role": "user", "content": "One more."},
            {"role": "assistant", "content": "A small red copper key."},
        ]
    },
    {"instruction": "Say it.", "output": "  "},
    {"text": "Nilo lost a copper key."},
]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished folder with losses, which no test changes; parts of one row."""
    place = tmp_path_factory.mktemp("recorded")
    data = write_lines(place / "rows.jsonl", ROWS)
    options = ("--model", MODEL, "--device", "cpu", "--part-rows", 1)
    assert invoke("score", data, *options, "--out", place / "out", "--token-losses").code == 0
    return place / "out"


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A list that gets the name of each model whose weights are loaded."""
    names: list[str] = []
    real = loading.load_settings

    def watched(source: Any) -> Any:
        names.append(source.model)
        return real(source)

    monkeypatch.setattr(loading, "load_settings", watched)
    return names


def views(*arguments: object) -> tuple[list[dict[str, Any]], str]:
    """The rows as JSON, and standard error."""
    done = invoke("show", *arguments, "--losses", "--json")
    assert done.code == 0, done
    return [json.loads(line) for line in done.out.splitlines()], done.err


def losses_of(view: dict[str, Any]) -> list[float]:
    return [loss for piece in view["pieces"] for loss in piece["losses"]]


def test_recorded_losses_are_shown_without_the_model(recorded: Path, loads: list[str]) -> None:
    found, errors = views("--scores", recorded)
    wanted = assert_losses_fit(ScoresFolder.open(recorded))
    assert {view["row"]: losses_of(view) for view in found if losses_of(view)} == wanted
    assert [view["losses_from"] for view in found] == ["recorded", "", "recorded"]
    assert loads == [] and errors == ""
    text = invoke("show", "--scores", recorded, "--losses").out
    assert text.count(" nats per token (recorded by score); highest ⟦") == 2


def test_they_are_what_the_model_gives(recorded: Path, loads: list[str]) -> None:
    found, _ = views("--scores", recorded)
    data = recorded.parent / "rows.jsonl"
    computed, errors = views(data, "--model", MODEL, "--device", "cpu")
    assert loads == [str(MODEL)] and errors == ""
    assert [view["losses_from"] for view in computed] == ["computed", "", "computed"]
    for one, other in zip(found, computed, strict=True):
        assert losses_of(one) == pytest.approx(losses_of(other), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--train-on", "last"], "with other tokens: masks.train_on: 'all' when it was scored"),
        (["--max-length", "30"], "masks.max_length"),
        (["--dtype", "bfloat16"], "with dtype float32, not bfloat16"),
        (["--model", "other"], "with model "),
    ],
    ids=str,
)
def test_losses_of_other_tokens_or_models_are_computed(
    recorded: Path, loads: list[str], tmp_path: Path, options: list[str], reason: str
) -> None:
    if "other" in options:
        options = ["--model", str(shutil.copytree(MODEL, tmp_path / "other"))]
    (found, *_), errors = views("--scores", recorded, "--device", "cpu", *options)
    assert found["losses_from"] == "computed" and len(losses_of(found)) == found["scored_tokens"]
    assert errors.startswith("losses: by the model, which is loaded now, because it was scored with ")
    assert reason in errors
    assert len(loads) == 1


def test_another_path_to_the_same_model_is_no_other_model(recorded: Path, loads: list[str], tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(MODEL)
    found, errors = views("--scores", recorded, "--model", tmp_path / "link", "--dtype", "float32")
    assert [view["losses_from"] for view in found] == ["recorded", "", "recorded"] and errors == ""
    assert loads == []


def test_of_a_row_whose_losses_are_not_there_they_are_computed(
    recorded: Path, loads: list[str], tmp_path: Path
) -> None:
    out = shutil.copytree(recorded, tmp_path / "out")
    (out / "losses-000002.parquet").unlink()
    found, errors = views("--scores", out, "--device", "cpu")
    assert [view["losses_from"] for view in found] == ["recorded", "", "computed"]
    assert "row 2 has no recorded losses" in errors and len(loads) == 1
    (out / "losses-000000.parquet").write_bytes(b"PAR1")
    assert_one_line_error(
        invoke("show", "--scores", out, "--losses", "--row", 0), 5, "losses-000000.parquet is damaged"
    )


def test_a_folder_without_losses_says_how_to_record_them(recorded: Path, loads: list[str], tmp_path: Path) -> None:
    data = recorded.parent / "rows.jsonl"
    out = tmp_path / "out"
    assert invoke("score", data, "--model", MODEL, "--device", "cpu", "--out", out, "--quiet").code == 0
    found, errors = views("--scores", out)
    assert found[0]["losses_from"] == "computed"
    assert f"because {out} records none (score --token-losses adds them)" in errors
    assert invoke("score", data, "--model", MODEL, "--device", "cpu", "--out", out, "--token-losses").code == 0
    assert views("--scores", out)[0][0]["losses_from"] == "recorded" and len(loads) == 1


def test_a_run_repeated_from_the_folder_records_them_too(recorded: Path, tmp_path: Path) -> None:
    done = invoke("score", "--config", recorded, "--out", tmp_path / "again", "--device", "cpu")
    assert done.code == 0, done
    again, before = ScoresFolder.open(tmp_path / "again"), ScoresFolder.open(recorded)
    assert assert_losses_fit(again) == assert_losses_fit(before)


def test_a_dry_run_says_what_losses_take(recorded: Path, tmp_path: Path) -> None:
    options = ("score", recorded.parent / "rows.jsonl", "--model", MODEL, "--device", "cpu", "--out", tmp_path / "x")
    assert "losses   of the scored tokens: about " in invoke(*options, "--dry-run", "--token-losses").out
    assert json.loads(invoke(*options, "--dry-run", "--json").out)["token_loss_bytes"] == 0
    assert not (tmp_path / "x").exists()
