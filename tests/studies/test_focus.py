"""Scores of all layers compared with literal float64 steps and with ``don_nod``; changes of the weights."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from demo_parts import MODEL, clean_rows

from donod_fast.data.types import TokenizedSample
from donod_fast.errors import InputError, ModelError
from donod_fast.models.loading import LoadedModel, load_model, wrap_model
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.studies.core.cells import Cell
from donod_fast.studies.core.finetune import tokenized
from donod_fast.studies.core.layers import WHOLE, layer_groups, layer_scores
from donod_fast.studies.core.study_data import StudyData
from donod_fast.studies.focus.run import REST, SUM, agreement, run_focus, weight_deltas
from donod_fast.studies.focus.settings import FocusSettings

SHARED = Path(__file__).parents[2].parent / "shared"
UPDATES = {
    "adamw": UpdateSettings("adamw"),
    "adamw with decay": UpdateSettings("adamw", weight_decay=0.1),
    "sgd": UpdateSettings("sgd"),
    "sgd, sum": UpdateSettings("sgd", reduction="sum", weight_decay=0.1),
    "sign": UpdateSettings("sign"),
}


@pytest.fixture(scope="module")
def demo() -> LoadedModel:
    return load_model(MODEL)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, Any]]:
    return clean_rows(12)


def tiny(demo: LoadedModel, *, tied: bool = False, dtype: torch.dtype = torch.float32) -> LoadedModel:
    """A random Llama of two layers for the demonstration's tokenizer, with logits that are not flat."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=demo.model.config.vocab_size,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        initializer_range=0.3,
        tie_word_embeddings=tied,
        pad_token_id=0,
        eos_token_id=1,
        bos_token_id=None,
    )
    return wrap_model(LlamaForCausalLM(config).to(dtype), demo.tokenizer)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("update", UPDATES)
def test_the_output_layers_scores_are_those_of_scoring(
    demo: LoadedModel, rows: list[dict[str, Any]], update: str, tied: bool
) -> None:
    loaded = tiny(demo, tied=True) if tied else demo
    found = layer_scores(loaded, tokenized(loaded, rows), UPDATES[update])
    don, nod = found.of([found.output])
    table = Scorer(loaded, update=UPDATES[update]).score_table(rows)
    ours = {name: torch.tensor(table.column(name).to_pylist(), dtype=torch.float64) for name in ("don", "nod", "loss")}
    # Two ways through the trunk, in float32: one sample alone, and padded batches. A step by signs jumps: an
    # element of G that cancels to its rounding may have another sign, and on some processors one has.
    assert ((don - ours["don"]).abs() / ours["nod"]).max() < (1e-4 if update == "sign" else 1e-5)
    assert ((nod - ours["nod"]).abs() / ours["nod"]).max() < 1e-5
    torch.testing.assert_close(found.loss, ours["loss"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("update", ["adamw", "adamw with decay", "sgd"])
def test_layer_scores_agree_with_a_real_optimizer_step_in_float64(
    demo: LoadedModel, rows: list[dict[str, Any]], update: str
) -> None:
    loaded, settings = tiny(demo, dtype=torch.float64), UPDATES[update]
    (sample,) = tokenized(loaded, rows[:1])
    found = layer_scores(loaded, [sample], settings)
    before, after = loaded.model, stepped(loaded, sample, settings)
    old, new = dict(before.named_parameters()), dict(after.named_parameters())
    for group in [[name] for name in found.names] + [list(found.names)]:
        first, second = (torch.cat([p[name].detach().flatten() for name in group]) for p in (old, new))
        don, nod = found.of(group)
        size = float((first - second).norm())
        assert float(nod) == pytest.approx(size, rel=1e-8, abs=1e-15)
        assert float(don) == pytest.approx(float(first.norm() - second.norm()), abs=1e-7 * size + 1e-14)


def stepped(loaded: LoadedModel, sample: TokenizedSample, settings: UpdateSettings) -> Any:
    """A copy of the model after one step of torch's optimizer on torch's cross entropy."""
    model = copy.deepcopy(loaded.model).requires_grad_(True)
    ids = torch.tensor([sample.input_ids])
    labels = torch.where(torch.tensor([sample.scored]), ids, -100)
    logits = model(input_ids=ids).logits[0, :-1]
    torch.nn.functional.cross_entropy(logits, labels[0, 1:]).backward()
    kind = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[settings.update]
    kind(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay).step()
    return model


def test_sgd_gives_final_norm_and_output_layer_the_same_inner_product(
    demo: LoadedModel, rows: list[dict[str, Any]]
) -> None:
    # z = W (g ∘ x) is of degree one in W and in g, so ⟨W, ∂L/∂W⟩ = ⟨g, ∂L/∂g⟩ (Euler).
    found = layer_scores(demo, tokenized(demo, rows), UpdateSettings("sgd"))
    norm = found.names.index("model.norm.weight")
    dots = found.weight_dot_update
    torch.testing.assert_close(dots[:, norm], dots[:, found.names.index(found.output)], rtol=1e-4, atol=1e-6)


def test_a_tied_matrix_is_taken_apart_into_its_two_uses(demo: LoadedModel, rows: list[dict[str, Any]]) -> None:
    loaded = tiny(demo, tied=True, dtype=torch.float64)
    (sample,) = tokenized(loaded, rows[:1])
    found = layer_scores(loaded, [sample], UpdateSettings("sgd"))
    assert "lm_head.weight" in found.names and "model.embed_tokens.weight" in found.names
    assert loaded.model.lm_head.weight is loaded.model.model.embed_tokens.weight  # the caller's model is as it was
    shared = dict(loaded.model.named_parameters())["model.embed_tokens.weight"].detach()
    after = dict(stepped(loaded, sample, UpdateSettings("sgd", lr=1.0)).named_parameters())
    both = float((shared * (shared - after["model.embed_tokens.weight"].detach())).sum())
    uses = [found.names.index(name) for name in ("lm_head.weight", "model.embed_tokens.weight")]
    assert float(found.weight_dot_update[0, uses].sum()) == pytest.approx(both, rel=1e-9)


def test_a_models_layers_are_found_by_name() -> None:
    names = ["transformer.wte.weight", "transformer.h.0.attn.c_attn.weight", "transformer.h.0.ln_1.bias"]
    names += ["model.layers.11.mlp.experts.3.up_proj.weight", "lm_head.weight"]
    assert layer_groups(names) == {
        "wte": names[:1],
        "h.0": names[1:3],
        "layers.11": names[3:4],
        "lm_head": names[4:],
    }


def test_what_cannot_be_scored_so_is_refused(demo: LoadedModel, rows: list[dict[str, Any]]) -> None:
    samples = tokenized(demo, rows[:1])
    with pytest.raises(InputError, match="storage dtype"):
        layer_scores(demo, samples, UpdateSettings(storage_dtype="bfloat16"))
    half = load_model(MODEL, dtype="bfloat16")
    with pytest.raises(ModelError, match="float32"):
        layer_scores(half, samples, UpdateSettings())
    broken = tokenized(demo, [{"instruction": "a", "output": ""}])
    with pytest.raises(InputError, match="row 0"):
        layer_scores(demo, broken, UpdateSettings())
    found = layer_scores(demo, samples, UpdateSettings("sgd"))
    with pytest.raises(InputError, match="no such parameter"):
        found.of(["model.layers.99.weight"])


def test_the_delta_of_a_known_change_is_exact_and_other_models_are_refused(demo: LoadedModel) -> None:
    model = tiny(demo).model
    changed = copy.deepcopy(model)
    with torch.no_grad():
        changed.lm_head.weight[:5] += 0.25
    deltas = weight_deltas(model, changed)
    assert deltas.pop("lm_head.weight") == pytest.approx(0.25 * math.sqrt(5 * 16), rel=1e-6)
    assert set(deltas.values()) == {0.0}
    with pytest.raises(InputError, match="different parameters"):
        weight_deltas(model, demo.model)


def test_the_bootstrap_interval_covers_the_true_correlation() -> None:
    draw = torch.Generator().manual_seed(0)
    truth = 6 / math.pi * math.asin(0.6 / 2)  # Spearman's of a normal pair correlated by 0.6
    covered = 0
    for _ in range(60):
        x, noise = torch.randn(2, 100, generator=draw, dtype=torch.float64)
        found = agreement(x, 0.6 * x + 0.8 * noise, draws=300)
        covered += found.low <= truth <= found.high
    assert covered >= 51  # 95 % of 60 are 57; fewer than 51 would happen once in a thousand times
    same = agreement(x, x)
    assert (same.value, same.low, same.high) == pytest.approx((1.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def corpora(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"first": StudyData(rows), "second": StudyData(clean_rows(8, skip=20))}


def test_the_study_ranks_matrices_compares_layers_and_resumes(
    tmp_path: Path, demo: LoadedModel, corpora: dict[str, Any]
) -> None:
    pytest.importorskip("trl")
    # One step of 8 rows at the full rate: a rising rate begins at 0.
    training = {"global_batch": 8, "warmup_ratio": 0.0, "schedule": "constant"}
    settings = FocusSettings(train_rows=8, seeds=1, rows=12, training=training)
    cells: list[Cell] = []
    result = run_focus(tmp_path, demo, corpora, settings, on_cell=cells.append)
    assert [cell.kind for cell in cells] == ["moved"] * 4 + ["layers"] * 2

    adamw = [one for one in result.moved if (one.corpus, one.optimizer, one.layer) == ("first", "adamw", False)]
    assert len(adamw) == 2 + 4 * 7
    assert [one.delta for one in adamw] == sorted((one.delta for one in adamw), reverse=True)
    assert [one.name for one in adamw if one.output] == ["lm_head"]
    layers = [one for one in result.moved if (one.corpus, one.optimizer, one.layer) == ("first", "adamw", True)]
    assert {one.name for one in layers} == {"embed_tokens", "norm", "lm_head", *(f"layers.{i}" for i in range(4))}
    # AdamW's first step moves every weight that has a gradient by about the learning rate.
    head = next(one for one in adamw if one.output)
    assert 0.5 * 2e-5 < head.per_weight < 1.05 * 2e-5

    ours = {(one.update, one.name): one for one in result.agreements if one.kind != "matrix"}
    itself = ours["adamw", "lm_head"]
    assert itself.don.value == itself.nod.value == itself.closeness.value == itself.best.value == 1.0
    assert ours["sgd", "norm"].don.value > 0.99  # see the test of their inner products
    assert {WHOLE, SUM, REST} <= {name for _, name in ours}
    parts = ours["adamw", REST].nod_share + ours["adamw", "lm_head"].nod_share
    assert parts == pytest.approx(1.0) == pytest.approx(ours["adamw", WHOLE].nod_share)

    report = (tmp_path / "report.md").read_text()
    assert "first, sgd" in report and "whole model" in report
    assert all((tmp_path / name).is_file() for name in ("moved.csv", "agreement.csv", "moved.png", "agreement.png"))
    cells.clear()
    again = run_focus(tmp_path, demo, corpora, settings, on_cell=cells.append)
    assert again == result and all(cell.cached for cell in cells)


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="the real data of ../shared is absent")
@pytest.mark.parametrize("update", ["adamw", "sgd"])
def test_on_a_real_model_the_output_layers_scores_are_those_of_scoring(update: str) -> None:
    from donod_fast.studies.core.tables import read_rows

    loaded = load_model(SHARED / "models" / "tiny-instruct")
    real = read_rows(SHARED / "data" / "gsm8k" / "test.jsonl", count=6)
    found = layer_scores(loaded, tokenized(loaded, real), UpdateSettings(update))
    don, nod = found.of([found.output])
    table = Scorer(loaded, update=UpdateSettings(update)).score_table(real)
    for name, column in (("don", don), ("nod", nod)):
        ours = torch.tensor(table.column(name).to_pylist(), dtype=torch.float64)
        assert ((column - ours).abs() / nod).max() < 1e-5
