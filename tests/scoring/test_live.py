"""``Scorer(live=True)``: a model in training is scored as a plain copy of it would be, and is left as it was."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from live_models import Live, LiveCase, build, digest, drawn
from score_runs import assert_same_bits, short_rows, write_lines
from tiny_models import save_tiny, tiny_model, tiny_tokenizer
from torch import nn

from donod_fast.criteria.registry import SignalOptions, parse_signals
from donod_fast.engines.local import score_corpus
from donod_fast.errors import HeadMismatchError, InputError, ModelError
from donod_fast.models.live_model import neutral
from donod_fast.scoring.scorer import Scorer, as_corpus

ROWS = [row for row in short_rows(12, seed=5) if "question" in row]
TOKENIZER = tiny_tokenizer()


def _caller(kind: str) -> AbstractContextManager[Any]:
    return {
        "plain": nullcontext(),
        "autocast": torch.autocast("cpu", torch.bfloat16),
        "no-grad": torch.no_grad(),
    }[kind]


def _scores(model: Any, **options: Any) -> Any:
    return Scorer(model, TOKENIZER, token_budget=256, **options).score_table(ROWS)


def _assert_like_plain(live: Live, found: Any) -> None:
    wanted = _scores(live.plain())
    if live.adapted is None:
        assert_same_bits(found, wanted)
        return
    for a, b in zip(found.to_pylist(), wanted.to_pylist(), strict=True):  # W + BA is rounded once more when merged
        assert a["status"] == b["status"]
        if a["status"] == "scored":
            for column in ("don", "nod"):
                assert abs(a[column] - b[column]) <= 1e-4 * b["nod"], column
            assert abs(a["loss"] - b["loss"]) <= 1e-4 * b["loss"]


@pytest.mark.parametrize("case", [drawn(seed) for seed in range(14)], ids=lambda case: f"{case.seed}")
def test_a_model_in_training_scores_as_its_plain_copy_and_is_unchanged(case: LiveCase) -> None:
    live = build(case)
    with _caller(case.caller):
        before = digest(live.inner)
        scorer = Scorer(live.given, TOKENIZER, token_budget=256, live=True)
        assert digest(live.inner) == before, "the constructor"
        found = scorer.score_table(ROWS)
        assert digest(live.inner) == before, "score"
    assert not live.fired
    _assert_like_plain(live, found)


@pytest.mark.parametrize("case", [drawn(seed) for seed in (0, 1, 7)], ids=lambda case: f"{case.seed}")
def test_weights_that_change_between_calls_are_seen(case: LiveCase) -> None:
    live = build(LiveCase(**{**vars(case), "kind": "llama", "hooks": False}))
    scorer = Scorer(live.given, TOKENIZER, token_budget=256, live=True)
    norm, fingerprint, first = scorer.weight_norm, scorer.describe()["model"]["fingerprint"], scorer.score_table(ROWS)
    model = live.inner if live.adapted is None else live.adapted
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.01).add_(0.01 * torch.randn_like(parameter))
    found = scorer.score_table(ROWS)
    _assert_like_plain(live, found)
    assert not found.column("don").equals(first.column("don"))
    assert scorer.weight_norm != norm
    assert scorer.describe()["model"]["fingerprint"] != fingerprint


def test_a_head_that_is_no_longer_ours_is_refused_at_the_next_call() -> None:
    model = tiny_model("llama")
    scorer = Scorer(model, TOKENIZER, token_budget=256, live=True)

    class Doubled(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return 2 * super().forward(input)

    model.lm_head.__class__ = Doubled
    with pytest.raises(HeadMismatchError, match="not a plain linear layer"):
        scorer.score_table(ROWS)


def test_a_model_that_was_cast_since_the_scorer_was_made_is_refused() -> None:
    model = tiny_model("llama")
    scorer = Scorer(model, TOKENIZER, token_budget=256, live=True)
    model.double()
    with pytest.raises(ModelError, match=r"has changed from \(101, 32\) float32 on cpu to \(101, 32\) float64 on cpu"):
        scorer.score_table(ROWS)


def test_criteria_with_references_are_made_anew_for_other_weights(tmp_path: Path) -> None:
    model, reference = tiny_model("llama"), ROWS[:2]
    path = write_lines(tmp_path / "reference.jsonl", reference)

    def signals() -> Any:
        return parse_signals("influence", SignalOptions((str(path),)))

    scorer = Scorer(model, TOKENIZER, token_budget=256, live=True, signals=signals())
    scorer.score_table(ROWS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.05)
    wanted = Scorer(copy.deepcopy(model), TOKENIZER, token_budget=256, signals=signals()).score_table(ROWS)
    assert_same_bits(scorer.score_table(ROWS), wanted)


def test_a_live_scorer_fills_a_folder_as_a_plain_one(tmp_path: Path) -> None:
    model = tiny_model("llama").train()
    scorer = Scorer(model, TOKENIZER, token_budget=256, live=True)
    with torch.no_grad():
        model.lm_head.weight.mul_(1.1)
    found = score_corpus(as_corpus(ROWS), scorer, tmp_path / "live", workers=0).folder
    plain = Scorer(copy.deepcopy(model), TOKENIZER, token_budget=256)
    wanted = score_corpus(as_corpus(ROWS), plain, tmp_path / "plain", workers=0).folder
    assert_same_bits(found.read_part(0), wanted.read_part(0))
    assert found.manifest["model"]["weight_norm"] == wanted.manifest["model"]["weight_norm"]
    assert model.training


def test_a_failure_while_scoring_restores_the_model() -> None:
    live = build(LiveCase(3, "llama", "none", "accelerate", "none", "plain", True, True, True))
    before = digest(live.inner)
    with pytest.raises(KeyError), neutral(live.inner):
        assert not any(module.training for module in live.inner.modules())
        live.inner.extra = torch.zeros(3)
        live.inner.lm_head.register_buffer("late", torch.zeros(3))
        torch.rand(5)
        raise KeyError
    assert digest(live.inner) == before


def test_a_forward_that_changes_a_buffer_is_reported() -> None:
    model = tiny_model("llama")
    model.lm_head.register_buffer("calls", torch.zeros(1))

    class Counting(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            return super().forward(input)

    model.lm_head.__class__ = Counting
    with pytest.raises(ModelError, match=r"changes the buffer lm_head\.calls in place"):
        Scorer(model, TOKENIZER, token_budget=256, live=True)


def test_a_pruned_layer_keeps_the_hook_that_makes_its_weight() -> None:
    from torch.nn.utils import prune

    model = tiny_model("llama")
    prune.random_unstructured(model.model.layers[0].mlp.up_proj, "weight", 0.5)  # type: ignore[no-untyped-call]
    scorer = Scorer(model, TOKENIZER, token_budget=256, live=True)
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight_orig.mul_(2)
    found = scorer.score_table(ROWS)
    model(input_ids=torch.tensor([[7, 8]]))  # runs the hook
    plain = tiny_model("llama")
    plain.model.layers[0].mlp.up_proj.weight.data = model.model.layers[0].mlp.up_proj.weight.detach().clone()
    assert_same_bits(found, _scores(plain))


class FullyShardedDataParallel(nn.Module):
    """As FSDP's first form looks from outside."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module


def _zero_3() -> Any:
    model = tiny_model("llama")
    model.lm_head.weight.ds_id = 3
    return model


def _nested() -> Any:
    model = tiny_model("llama")
    model.model.layers[0] = FullyShardedDataParallel(model.model.layers[0])
    return model


def _learnt_prompt() -> Any:
    from peft import PromptTuningConfig, get_peft_model

    return get_peft_model(tiny_model("llama"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))


@pytest.fixture(scope="module")
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    store = torch.distributed.FileStore(str(tmp_path_factory.mktemp("store") / "file"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: FullyShardedDataParallel(tiny_model("llama")), "FSDP divides the model among processes"),
        (_nested, r"FSDP divides model\.layers\.0 among processes"),
        (_zero_3, r"ZeRO-3 divides lm_head\.weight among processes"),
        (_learnt_prompt, "a live model with PROMPT_TUNING cannot be scored"),
    ],
)
def test_a_model_of_which_a_process_has_a_part_is_refused_by_name(make: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        Scorer(make(), TOKENIZER, token_budget=256, live=True)


def test_real_wrappers_of_torch_are_taken_off_or_refused(one_process: None) -> None:
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel

    model = tiny_model("llama").train()
    wanted = _scores(copy.deepcopy(model))
    assert_same_bits(_scores(DistributedDataParallel(model), live=True), wanted)
    assert model.training
    sharded = tiny_model("llama")
    fully_shard(sharded)
    with pytest.raises(ModelError, match="a DTensor of FSDP2 or tensor parallelism"):
        Scorer(sharded, TOKENIZER, token_budget=256, live=True)


def test_a_scorer_is_not_pickled_and_says_why(tmp_path: Path) -> None:
    scorer = Scorer(tiny_model("llama"), TOKENIZER, token_budget=256)
    for attempt in (pickle.dumps, copy.deepcopy):
        with pytest.raises(InputError, match="a Scorer cannot be pickled"):
            attempt(scorer)
    assert copy.copy(scorer).head is scorer.head


def test_what_live_cannot_be_combined_with_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="compile=True is for a model that stays as it is"):
        Scorer(tiny_model("llama"), TOKENIZER, live=True, compile=True)
    folder = save_tiny("llama", tmp_path / "model")
    with pytest.raises(InputError, match="a loaded one needs no live=True"):
        Scorer.from_pretrained(folder, live=True)
