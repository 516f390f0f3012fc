"""``donod-fast dual``: a folder with utilities, subset, importance and mask; refusals and their messages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import typer
from dual_cases import DEMO, in_double, question_rows, tiny_rows
from safetensors.torch import load_file
from tiny_models import save_tiny, tiny_model
from typer.testing import CliRunner

from donod_fast.cli.dual import dual
from donod_fast.data.types import Status, TokenizedSample
from donod_fast.errors import InputError, ModelError, StoreError
from donod_fast.models.parameter_mask import read_mask
from donod_fast.selection.dual import best_rows, choose_layers, parameter_masks, reference_objective
from donod_fast.selection.dual.interactions import Utility


def run(*arguments: Any) -> str:
    """Run the command; its standard output. An error of it is raised."""
    app = typer.Typer()
    app.command()(dual)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None:
        raise result.exception
    return result.stdout


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Candidates (the row before the last cannot be read) and a reference set, one of whose rows cannot be scored."""
    folder = tmp_path_factory.mktemp("data")
    rows = [json.dumps(row, separators=(", ", " :")) for row in question_rows(12)]
    (folder / "train.jsonl").write_text("\n".join([*rows[4:11], "{broken", rows[11]]) + "\n")
    (folder / "val.jsonl").write_text("\n".join([*rows[:3], '{"no": "format"}']) + "\n")
    return folder


def test_a_folder_holds_utilities_the_original_records_and_a_mask(base: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = (
        data / "train.jsonl",
        "--model",
        base,
        "--reference",
        data / "val.jsonl",
        "--out",
        out,
        "--order",
        "second",
    )
    said = run(*command, "--keep", 3, "--parameters", 0.05, "--layers", "model.layers.1.mlp.*,lm_head")
    assert "3 rows by utility of second order" in said and "9: 8 scored, 1 not_parsable" in said
    assert "3 rows, 1 row left out: 1 unknown_format" in said
    table = pq.read_table(out / "utilities.parquet").to_pylist()
    assert [row["row"] for row in table] == list(range(9)) and table[7]["status"] == "not_parsable"
    assert table[7]["utility_first"] != table[7]["utility_first"]  # NaN
    best = sorted((row for row in table if row["status"] == "scored"), key=lambda row: -row["utility_second"])[:3]
    lines = (data / "train.jsonl").read_text().splitlines()
    assert (out / "subset.jsonl").read_text().splitlines() == [lines[r] for r in sorted(row["row"] for row in best)]
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["curvature"] == "exact Gauss-Newton" and "our reading" in manifest["method"]
    importance = load_file(out / "importance.safetensors")
    assert list(manifest["parameters"]) == [
        f"model.layers.1.mlp.{name}_proj.weight" for name in ("gate", "up", "down")
    ] + ["lm_head.weight"]
    total = sum(value.double().sum() for value in importance.values())
    assert float(total) == pytest.approx(sum(r["utility_second"] for r in table if r["status"] == "scored"), rel=1e-3)
    mask = read_mask(out / "mask.safetensors")
    entries = sum(value.numel() for value in importance.values())
    assert mask.entries == manifest["masked"] == round(0.05 * entries)
    inside = torch.cat([importance[name][mask.masks[name]] for name in importance])
    outside = torch.cat([importance[name][~mask.masks[name]] for name in importance])
    assert inside.min() >= outside.max()
    with pytest.raises(StoreError, match="--overwrite"):
        run(*command)
    again = json.loads(run(*command, "--overwrite", "--json", "--order", "first"))
    assert again["order"] == "first" and again["kept"] == 2  # 30 % of 8
    assert again["reference_loss"] == pytest.approx(manifest["reference"]["loss"], rel=1e-6)


def test_the_mask_has_the_exact_share_and_ties_go_to_the_first_entry() -> None:
    importance = {"a": torch.tensor([[0.0, 1.0], [1.0, 1.0]]), "b": torch.tensor([2.0, 1.0, -3.0, 1.0])}
    masks = parameter_masks(importance, 0.5)
    assert masks["a"].tolist() == [[False, True], [True, True]] and masks["b"].tolist() == [True, False, False, False]
    assert sum(int(mask.sum()) for mask in parameter_masks(importance, 1e-9).values()) == 1
    assert all(mask.all() for mask in parameter_masks(importance, 1.0).values())
    with pytest.raises(InputError, match="share of parameters"):
        parameter_masks(importance, 0.0)


def test_the_best_rows_are_those_of_the_order_asked_for() -> None:
    rows = [Utility(i, "", "scored", first=f, second=s) for i, (f, s) in enumerate([(1, 3), (2, 2), (2, 2), (0, 5)])]
    rows.insert(1, Utility(9, "", "not_parsable", "line 2"))
    assert best_rows(rows, 3, "first") == [2, 3, 0] and best_rows(rows, 0.5, "second") == [4, 0]
    with pytest.raises(InputError, match="first row: line 2"):
        best_rows(rows[1:2], 0.5, "first")


@pytest.mark.parametrize(
    ("kind", "layers", "words"),
    [
        ("llama", ("model.layers.9.*",), "no linear layer of that name; it has"),
        ("llama", ("model.layers.1.input_layernorm",), "LlamaRMSNorm is not a linear layer"),
        ("llama", ("model.embed_tokens",), "Embedding is not a linear layer"),
        ("llama-tied", ("lm_head",), "tied to the input embedding"),
    ],
)
def test_a_layer_that_cannot_be_served_is_refused_by_name(kind: str, layers: tuple[str, ...], words: str) -> None:
    with pytest.raises(InputError, match=words):
        choose_layers(in_double(tiny_model(kind)), layers)


def test_layers_that_share_a_weight_or_are_called_twice_are_refused() -> None:
    model = tiny_model("llama")
    model.model.layers[1].mlp.up_proj.weight = model.model.layers[1].mlp.gate_proj.weight
    with pytest.raises(InputError, match=r"gate_proj: its weight is that of model.layers.1.mlp.up_proj.weight too"):
        choose_layers(in_double(model), ("model.layers.1.mlp.gate_proj",))
    model = tiny_model("llama")
    mlp, up = model.model.layers[1].mlp, model.model.layers[1].mlp.up_proj
    mlp.forward = lambda x: mlp.down_proj(mlp.act_fn(mlp.gate_proj(x)) * (up(x) + up(-2 * x)))
    from tiny_models import tiny_tokenizer

    from donod_fast.models.loading import wrap_model
    from donod_fast.selection.dual.backward import prove_layers

    chosen = choose_layers(wrap_model(model, tiny_tokenizer()), ("model.layers.1.mlp.*",))
    with pytest.raises(ModelError, match="up_proj is called 2 times"):
        prove_layers(chosen, workspace_bytes=1 << 20)


class Doubled(torch.nn.Linear):
    """No plain linear layer, and yet of its type."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) + x @ self.weight.t()


def test_a_layer_that_only_looks_linear_is_found_out() -> None:
    from donod_fast.selection.dual.backward import prove_layers

    model = tiny_model("llama")
    model.model.layers[1].mlp.down_proj.__class__ = Doubled
    chosen = choose_layers(in_double(model))
    with pytest.raises(ModelError, match=r"down_proj.weight is not the product"):
        prove_layers(chosen, workspace_bytes=1 << 20)


def test_a_reference_set_without_scored_tokens_gives_file_and_remedy(base: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "val.jsonl").write_text('{"question": "1?", "answer": " "}\n{"no": "row"}\n')
    with pytest.raises(InputError, match=r"val\.jsonl: the reference set has no scored token: .*--max-length"):
        run(data / "train.jsonl", "--model", base, "--reference", tmp_path / "val.jsonl", "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_reference_row_that_gives_nan_is_named() -> None:
    model = tiny_model("llama")
    with torch.no_grad():
        model.get_input_embeddings().weight[tiny_rows(1)[0].input_ids[1]] = float("nan")
    chosen = choose_layers(in_double(model), ("lm_head",))
    with pytest.raises(ModelError, match=r"val.jsonl, row 0: the model gives NaN"):
        reference_objective(chosen, tiny_rows(2), source="val.jsonl")


def test_wrong_arguments_are_refused_before_a_model_is_loaded(data: Path, tmp_path: Path) -> None:
    command = (data / "train.jsonl", "--model", "nowhere/at-all", "--reference", data / "val.jsonl", "--out", tmp_path)
    for more, words in (
        (("--order", "third"), "order must be first or second"),
        (("--parameters", "1.5"), "share of parameters"),
        (("--keep", "2.5"), "fraction above one"),
        (("--lr", "0"), "lr must be"),
    ):
        with pytest.raises(InputError, match=words):
            run(*command, *more)
    (tmp_path / "manifest.json").write_text('{"kind": "training"}')
    with pytest.raises(StoreError, match="does not hold results"):
        run(*command, "--overwrite")


def test_no_candidate_with_a_score_is_an_error(base: Path, data: Path, tmp_path: Path) -> None:
    (tmp_path / "none.jsonl").write_text('{"no": "row"}\n')
    with pytest.raises(InputError, match="no candidate row could be scored"):
        run(tmp_path / "none.jsonl", "--model", base, "--reference", data / "val.jsonl", "--out", tmp_path / "out")


def test_samples_without_a_target_do_not_count() -> None:
    empty = TokenizedSample(0, "", Status.SCORED, input_ids=(1, 2), scored=(False, False), tokens=2)
    chosen = choose_layers(in_double(tiny_model("llama")), ("lm_head",))
    with pytest.raises(InputError, match="no scored token"):
        reference_objective(chosen, [empty])
    assert reference_objective(chosen, [empty, *tiny_rows(2)]).loss == reference_objective(chosen, tiny_rows(2)).loss


def test_the_demonstration_model_and_corpus_go_all_the_way(tmp_path: Path) -> None:
    rows = (DEMO / "corpus.jsonl").read_text().splitlines()
    (tmp_path / "val.jsonl").write_text("\n".join(rows[:4]))
    (tmp_path / "train.jsonl").write_text("\n".join(rows[4:34]))
    summary = json.loads(
        run(
            tmp_path / "train.jsonl",
            *("--model", DEMO / "model", "--reference", tmp_path / "val.jsonl", "--out", tmp_path / "out", "--json"),
        )
    )
    assert summary["statuses"] == {"scored": 30} and summary["kept"] == 9
    assert summary["masked"] == round(0.1 * summary["parameters"])
