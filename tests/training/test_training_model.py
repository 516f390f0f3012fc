"""Training in memory: the loss, reproducibility, and no side effects."""

from __future__ import annotations

import copy
import random
from typing import Any

import numpy as np
import pytest
import torch
from tiny_models import KINDS, tiny_model, tiny_tokenizer
from training_cases import prepared, question_rows, settings, weights

from donod_fast.errors import CorpusError, InputError, ModelError
from donod_fast.training.samples import StepOrder, TrainingRows
from donod_fast.training.trainer import planned_steps, train_model


def by_hand(model: Any, rows: TrainingRows, steps: list[list[int]], rate: float) -> list[float]:
    """The plain loop: one row at a time, gradients of summed token losses over the targets of the step, AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    losses = []
    for step in steps:
        total = sum(int((rows.row(at)[1] != -100).sum()) for at in step)
        loss = 0.0
        for at in step:
            ids, labels = (torch.from_numpy(np.asarray(part, dtype=np.int64)) for part in rows.row(at))
            logits = model(input_ids=ids[None]).logits[0, :-1]
            part = torch.nn.functional.cross_entropy(logits, labels[1:], reduction="sum") / total
            part.backward()
            loss += float(part.detach())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss)
    return losses


@pytest.mark.parametrize("micro_batch", [1, 2, 8])
def test_training_equals_a_plain_loop_over_global_batches(micro_batch: int) -> None:
    rows = prepared(question_rows(21))  # two steps of eight rows and one of five
    ours, theirs = tiny_model("llama"), tiny_model("llama")
    stats = train_model(
        ours,
        tiny_tokenizer(),
        rows,
        settings(global_batch=8, micro_batch=micro_batch, epochs=2, schedule="constant", warmup_ratio=0.0, seed=5),
    )
    order = StepOrder(rows, 5, 8, share=1)
    losses = by_hand(theirs, rows, [*order.steps(0), *order.steps(1)], 1e-3)
    assert [step for step, _ in stats.losses] == [1, 2, 3, 4, 5, 6]
    assert [loss for _, loss in stats.losses] == pytest.approx(losses, rel=1e-4)
    for name, parameter in weights(theirs).items():
        torch.testing.assert_close(ours.state_dict()[name], parameter, rtol=0, atol=1e-4)  # of 6e-3 that they moved


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("mixtral", "qwen2-moe")])
def test_the_loss_is_the_models_own_whatever_its_output_layer_does(kind: str) -> None:
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0} if kind == "gpt2" else {}
    rows, model = prepared(question_rows(4)), tiny_model(kind, **dropout)
    expected = by_hand(copy.deepcopy(model), rows, [[0, 1, 2, 3]], 0.0)
    stats = train_model(model, tiny_tokenizer(), rows, settings(global_batch=4, micro_batch=4))
    assert stats.losses[0][1] == pytest.approx(expected[0], rel=1e-4)


def test_a_transform_of_the_logits_that_trl_does_not_know_is_refused() -> None:
    model = tiny_model("llama")
    model.lm_head.register_forward_hook(lambda module, args, output: output * 0.5)
    with pytest.raises(ModelError, match="leaves out a transform"):
        train_model(model, tiny_tokenizer(), prepared(question_rows(4)), settings())


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_same_seed_gives_the_same_weights_and_another_does_not(method: str) -> None:
    rows, found = prepared(question_rows(20)), []
    for seed in (1, 1, 2):
        model = tiny_model("llama")
        train_model(
            model,
            tiny_tokenizer(),
            rows,
            settings(method=method, seed=seed, max_steps=3, lora={"dropout": 0.2, "rank": 2}, learning_rate=1e-2),
        )
        found.append(weights(model))
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    assert any(not torch.equal(found[0][name], found[2][name]) for name in found[0])


def test_lora_trains_adapters_only_and_merges_them_into_the_model() -> None:
    model, rows = tiny_model("llama"), prepared(question_rows(20))
    before = weights(model)
    stats = train_model(
        model, tiny_tokenizer(), rows, settings(method="lora", lora={"rank": 2, "targets": ["q_proj", "v_proj"]})
    )
    after = weights(model)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert set(before) == set(after)
    assert changed == {f"model.layers.{at}.self_attn.{part}_proj.weight" for at in (0, 1) for part in "qv"}
    assert stats.trainable == 2 * 2 * ((32 + 32) + (32 + 16))  # layers × rank × (in + out) of queries and values


def test_nothing_is_left_behind_in_the_caller() -> None:
    model, rows = tiny_model("llama"), prepared(question_rows(20))
    model.requires_grad_(False)
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    expected = random.random(), np.random.random(), torch.rand(1)
    random.seed(1), np.random.seed(2), torch.manual_seed(3)
    train_model(model, tiny_tokenizer(), rows, settings(max_steps=2, gradient_checkpointing=True))
    assert (random.random(), np.random.random()) == expected[:2] and torch.equal(torch.rand(1), expected[2])
    assert not model.training and not any(p.requires_grad or p.grad is not None for p in model.parameters())
    ids = torch.tensor([[5, 6, 7, 8]])
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
        assert twin(ids).logits.abs().max() == 0.0  # the copy runs its own weights
        assert model(ids).logits.abs().max() > 0.0


def test_a_model_can_be_trained_twice() -> None:
    model, rows = tiny_model("llama"), prepared(question_rows(20))
    first = train_model(model, tiny_tokenizer(), rows, settings(max_steps=4))
    second = train_model(model, tiny_tokenizer(), rows, settings(max_steps=4))
    assert second.losses[0][1] < first.losses[0][1]


def test_gradient_checkpointing_changes_no_weight() -> None:
    rows, found = prepared(question_rows(16)), []
    for checkpointing in (False, True):
        model = tiny_model("llama")
        train_model(model, tiny_tokenizer(), rows, settings(gradient_checkpointing=checkpointing))
        found.append(weights(model))
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=0, atol=1e-6)


def test_steps_are_epochs_of_global_batches_or_as_many_as_asked_for() -> None:
    assert planned_steps(settings(epochs=2), 33) == 6
    assert planned_steps(settings(epochs=0.5), 32) == 1
    assert planned_steps(settings(max_steps=7, epochs=2), 33) == 7


def test_warm_up_and_schedule_are_the_ones_asked_for() -> None:
    rows, rates = prepared(question_rows(16)), []
    original = torch.optim.AdamW.step

    def step(self: Any, *args: Any, **kwargs: Any) -> Any:
        rates.append(self.param_groups[0]["lr"])
        return original(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", step)
        train_model(
            tiny_model("llama"), tiny_tokenizer(), rows, settings(max_steps=10, warmup_ratio=0.15, schedule="linear")
        )
    # Two steps of warm-up (1.5 rounded up), then down to nothing after the tenth.
    assert rates == pytest.approx(
        [1e-3 * share for share in (0, 0.5, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8)]
    )


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_a_training_of_one_step_with_warm_up_changes_the_model(schedule: str) -> None:
    model = tiny_model("llama")
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    one_step = settings(max_steps=1, warmup_ratio=0.025, schedule=schedule)
    train_model(model, tiny_tokenizer(), prepared(question_rows(4)), one_step)
    assert any(not torch.equal(before[name], one) for name, one in model.named_parameters())


def test_what_cannot_be_trained_is_refused_by_name() -> None:
    model, tokenizer, rows = tiny_model("llama"), tiny_tokenizer(), prepared(question_rows(4))
    with pytest.raises(InputError, match=r"optimizer 'adamx' is not known.*adamw_torch"):
        train_model(model, tokenizer, rows, settings(optimizer="adamx"))
    with pytest.raises(CorpusError, match="no row can be trained on"):
        train_model(model, tokenizer, [], settings())
