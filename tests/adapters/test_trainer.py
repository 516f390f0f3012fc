"""``DonodCallback``: the scored rows are the trained rows, and watching changes nothing."""

from __future__ import annotations

import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
import torch
from score_runs import assert_same_bits, invoke
from tiny_models import save_tiny, tiny_model
from trainer_cases import KINDS, ROWS, TOKENIZER, Steps, conversations, generators, trainer_of
from transformers import default_data_collator

from donod_fast import load_constants, topsis
from donod_fast.adapters.trainer import DonodCallback
from donod_fast.data.masking import MaskSettings
from donod_fast.errors import InputError, ModelError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the garbage collection with which accelerate begins each training: a second in a process of tests."""
    monkeypatch.setattr("accelerate.utils.memory.clear_device_cache", lambda *args, **kwargs: None)


def _table(folder: Path) -> Any:
    opened = ScoresFolder.open(folder)
    assert opened.parts == 1
    return opened.read_part(0)


def _rows(out: Path) -> list[tuple[list[int], list[int]]]:
    table = pq.read_table(out / "rows.parquet")
    labels = [[-100, *row[1:]] for row in table.column("labels").to_pylist()]
    return list(zip(table.column("input_ids").to_pylist(), labels, strict=True))


@pytest.mark.parametrize("kind", KINDS)
def test_the_scored_rows_are_the_trained_rows(kind: str, tmp_path: Path) -> None:
    steps, callback = Steps(), DonodCallback(tmp_path / "out", batches=True, token_budget=512)
    trainer = trainer_of(kind, tmp_path / "trainer", [steps, callback])
    trainer.train()

    # The rows: every row once an epoch, ids and labels with a difference of 0.
    rows = _rows(tmp_path / "out")
    assert len(rows) == ROWS
    epochs = [steps.rows[: steps.epochs[0]], steps.rows[steps.epochs[0] :]]
    for epoch in epochs:
        assert Counter(str((row.ids, row.labels)) for row in epoch) == Counter(map(str, rows))

    # While it trains: the hidden states of each row's own step, against float64 autograd.
    assert [folder.name for folder in callback.folders] == ["before", "epoch-000", "epoch-001"]
    for folder, epoch in zip(callback.folders[1:], epochs, strict=True):
        assert all(row["status"] == "scored" for row in _table(folder).to_pylist())
        for key, (ids, labels) in enumerate(rows):
            found = _table(folder).slice(key, 1).to_pylist()[0]
            candidates = [row.scores() for row in epoch if (row.ids, row.labels) == (ids, labels)]
            errors = [max(abs(found[name] - one[name]) / one["nod"] for name in ("don", "nod")) for one in candidates]
            assert min(errors) <= 5e-5  # float32: some entries of G are of the size of eps
            assert found["scored_tokens"] == sum(label != -100 for label in labels)

    # Before: a plain model with the weights of the beginning.
    scorer = Scorer(tiny_model("llama"), TOKENIZER, masks=MaskSettings(format="tokenized"), token_budget=512)
    assert_same_bits(_table(callback.folders[0]), scorer.score_table(str(tmp_path / "out" / "rows.parquet")))


@pytest.mark.parametrize("kind", ["completion", "lora", "trainer"])
def test_watching_changes_no_bit_of_the_training(kind: str, tmp_path: Path) -> None:
    ends = []
    for callbacks in ([], [DonodCallback(tmp_path / "out", every_steps=2, batches=True, token_budget=512)]):
        trainer = trainer_of(kind, tmp_path / "trainer", callbacks)
        trainer.train()
        model = trainer.model
        hooks = [len(one._forward_hooks) + len(one._forward_pre_hooks) for one in model.modules()]
        state = {name: value.clone() for name, value in model.state_dict().items()}
        optimizer = [one for values in trainer.optimizer.state.values() for one in values.values()]
        ends.append((state, optimizer, generators(), hooks))
    (state, optimizer, random, hooks), (watched, watched_optimizer, watched_random, watched_hooks) = ends
    assert state.keys() == watched.keys()
    assert all(torch.equal(state[name], watched[name]) for name in state)
    assert all(torch.equal(a, b) for a, b in zip(optimizer, watched_optimizer, strict=True))
    assert (random, hooks) == (watched_random, watched_hooks)


def test_every_n_steps_all_rows_are_scored_with_the_weights_of_then(tmp_path: Path) -> None:
    callback = DonodCallback(tmp_path / "out", before=False, every_steps=3, token_budget=512)
    trainer = trainer_of("assistant", tmp_path / "trainer", [callback], max_steps=6)
    trainer.train()
    assert [folder.name for folder in callback.folders] == ["step-000003", "step-000006"]
    scorer = Scorer(trainer.model, TOKENIZER, masks=MaskSettings(format="tokenized"), live=True, token_budget=512)
    wanted = scorer.score_table(str(tmp_path / "out" / "rows.parquet"))
    assert_same_bits(_table(callback.folders[1]), wanted)
    assert not _table(callback.folders[0]).column("don").equals(wanted.column("don"))


def test_the_commands_read_the_folders_and_the_other_columns_stay(tmp_path: Path) -> None:
    model = save_tiny("llama", tmp_path / "model")
    data = trainer_of("assistant", tmp_path / "trainer").train_dataset
    callback = DonodCallback(tmp_path / "out", batches=True, dataset=data, token_budget=512)
    trainer = trainer_of("assistant", tmp_path / "trainer", [callback], data=data, model=_loaded(model), max_steps=1)
    trainer.train()
    for folder in callback.folders:
        constants = load_constants(f"{folder}.topsis.json")
        don, nod = (torch.from_numpy(_table(folder).column(name).to_numpy()) for name in ("don", "nod"))
        assert torch.allclose(constants.apply(don, nod), topsis(don, nod), rtol=0, atol=1e-12, equal_nan=True)
        assert "rows     14 of 14 (100.0%)" in invoke("status", folder).out
        assert "<|assistant|>" in invoke("show", "--scores", folder, "--rows", "1").out
        subset = tmp_path / f"{folder.name}.parquet"
        assert invoke("select", folder, "--keep", "0.5", "--out", subset).code == 0
        for row in pq.read_table(subset).to_pylist():
            assert row["messages"] == conversations()[row["at"]]["messages"]
    statuses = Counter(row["status"] for row in _table(callback.folders[1]).to_pylist())
    assert statuses == {"scored": 4, "not_seen": 10}


def _loaded(path: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_rows_that_are_dropped_are_trained_no_more(accumulation: int, tmp_path: Path) -> None:
    steps = Steps()
    callback = DonodCallback(tmp_path / "out", before=False, batches=True, keep=0.65)
    options = {"num_train_epochs": 3, "per_device_train_batch_size": 2, "gradient_accumulation_steps": accumulation}
    trainer = trainer_of("assistant", tmp_path / "trainer", [steps, callback], **options)
    trainer.train()
    rows = _rows(tmp_path / "out")
    starts = [0, *steps.epochs]
    known: dict[int, tuple[float, float]] = {}
    kept = set(range(ROWS))
    for epoch, folder in enumerate(callback.folders):
        seen = steps.rows[starts[epoch] : starts[epoch + 1]]
        allowed = [rows[at] for at in kept]
        assert all((row.ids, row.labels) in allowed for row in seen)
        step = 2 * accumulation if accumulation > 1 and len(kept) < ROWS else 1
        assert len(seen) == len(kept) - len(kept) % step
        for row in _table(folder).to_pylist():
            if row["status"] == "scored":
                known[row["row"]] = row["don"], row["nod"]
        don, nod = (torch.tensor([known[at][k] for at in range(ROWS)], dtype=torch.float64) for k in (0, 1))
        kept = set(torch.argsort(topsis(don, nod), descending=True, stable=True)[: round(0.65 * ROWS)].tolist())
    assert len(callback.folders) == 3


def test_rows_can_be_dropped_before_the_first_epoch(tmp_path: Path) -> None:
    steps = Steps()
    callback = DonodCallback(tmp_path / "out", keep=0.5)
    trainer_of("trainer", tmp_path / "trainer", [steps, callback], gradient_accumulation_steps=1).train()
    assert [*steps.epochs] == [7, 14]


def _streamed() -> Any:
    return datasets.Dataset.from_list(conversations()).to_iterable_dataset()


@pytest.mark.parametrize(
    ("words", "kind", "options", "arguments"),
    [
        ("packs several rows into one", "assistant", {"packing": True}, {}),
        ("packs several rows into one", "assistant", {"packing": True, "packing_strategy": "wrapped"}, {}),
        ("and the model has", "assistant",
         {"model": tiny_model("llama", max_position_embeddings=16)}, {}),
        ("must be a datasets.Dataset, got a list", "assistant", {}, {"dataset": conversations()}),
        ("data set streams, so its rows have no numbers", "assistant", {"data": _streamed(), "max_steps": 2}, {}),
        ("dataset= has 3 rows, the trainer's data set 14", "assistant", {},
         {"dataset": datasets.Dataset.from_list(conversations(3))}),
        ("makes batches in another way", "assistant", {"train_sampling_strategy": "batch_rebalance"}, {"keep": 0.5}),
        ("fewer than an optimizer step has", "assistant", {"gradient_accumulation_steps": 3}, {"keep": 0.5}),
    ],
)  # fmt: skip
def test_what_cannot_be_named_or_dropped_is_refused(
    words: str, kind: str, options: dict[str, Any], arguments: dict[str, Any], tmp_path: Path
) -> None:
    trainer = trainer_of(kind, tmp_path / "trainer", [DonodCallback(tmp_path / "out", **arguments)], **options)
    with pytest.raises(InputError, match=words):
        trainer.train()


def test_a_collator_without_labels_or_with_other_rows_is_refused(tmp_path: Path) -> None:
    trainer = trainer_of("trainer", tmp_path / "trainer", [DonodCallback(tmp_path / "out", batches=True)])
    collate, calls = trainer.data_collator, []

    def changing(examples: Any) -> Any:
        batch = collate(examples)
        calls.append(len(examples))
        batch["input_ids"][:, 1] = 7 if len(examples) == 1 else 8
        return batch

    trainer.data_collator = changing
    with pytest.raises(InputError, match="whose tokens are not in its data set"):
        trainer.train()
    trainer.data_collator = default_data_collator
    with pytest.raises(InputError, match="collator gives no labels"):
        trainer.train()


def test_rows_with_the_same_tokens_are_told_apart_by_their_labels(tmp_path: Path) -> None:
    ids = TOKENIZER("<|user|>red?<|end|><|assistant|>sea<|end|>")["input_ids"]
    data = datasets.Dataset.from_list(
        [{"input_ids": ids, "labels": [*[-100] * cut, *ids[cut:]], "attention_mask": [1] * 11} for cut in (3, 5)]
    )
    steps, callback = Steps(), DonodCallback(tmp_path / "out", before=False, batches=True)
    options = {"num_train_epochs": 4, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 1}
    trainer = trainer_of("trainer", tmp_path / "trainer", [steps, callback], data=data, **options)
    trainer.data_collator = default_data_collator
    trainer.train()
    first = [steps.rows[at].labels[4] == -100 for at in (0, 2, 4, 6)]
    assert any(first), "in some epoch row 1 comes first"
    for epoch, folder in enumerate(callback.folders):
        losses = {row.labels[4] == -100: row.scores()["loss"] for row in steps.rows[2 * epoch : 2 * epoch + 2]}
        assert _table(folder).column("loss").to_pylist() == pytest.approx([losses[False], losses[True]], rel=1e-5)


def test_labels_that_a_trainer_hides_must_be_told_by_the_tokens(tmp_path: Path) -> None:
    ids = TOKENIZER("<|user|>red?<|end|><|assistant|>sea<|end|>")["input_ids"]
    rows = [{"input_ids": ids, "labels": [*[-100] * cut, *ids[cut:]]} for cut in (3, 5)]
    callback = DonodCallback(tmp_path / "out", before=False, batches=True)
    data = datasets.Dataset.from_list(rows)
    trainer = trainer_of("trainer-smoothed", tmp_path / "trainer", [callback], data=data)
    trainer.data_collator = default_data_collator
    with pytest.raises(InputError, match=r"rows 0 and 1 .* have the same tokens and other labels"):
        trainer.train()


def test_a_trainer_of_several_processes_or_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    callback = DonodCallback(tmp_path / "out")
    trainer = trainer_of("trainer", tmp_path / "trainer", [callback])
    trainer.callback_handler.processing_class = None
    with pytest.raises(InputError, match="the trainer has no tokenizer"):
        trainer.train()

    class Two:
        world_size = 2

    with pytest.raises(InputError, match="on one device, and this one has 2"):
        callback.on_train_begin(Two(), trainer.state, trainer.control)


def test_a_model_that_cannot_be_scored_stops_the_training(tmp_path: Path) -> None:
    model = tiny_model("llama")
    model.lm_head.weight.ds_id = 1
    trainer = trainer_of("trainer", tmp_path / "trainer", [DonodCallback(tmp_path / "out")], model=model)
    with pytest.raises(ModelError, match="ZeRO-3"):
        trainer.train()


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        ("every_steps must be at least 1", {"every_steps": 0}),
        ("keep must be above 0 and below 1", {"keep": 1.0}),
        ("nothing to score", {"before": False}),
        ("needs a state from a corpus", {"update": UpdateSettings("adamw-warm")}),
    ],
)
def test_wrong_arguments_are_refused_when_the_callback_is_made(words: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=words):
        DonodCallback("out", **arguments)


def test_a_pickled_callback_has_no_model_and_trains_again(tmp_path: Path) -> None:
    callback = DonodCallback(tmp_path / "out", batches=True, token_budget=512)
    sizes = []

    class Pickling(Steps):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            sizes.append(pickle.dumps(callback))

    trainer_of("assistant", tmp_path / "trainer", [callback, Pickling()], max_steps=1).train()
    assert len(sizes[0]) < 4096
    again: DonodCallback = pickle.loads(sizes[0])
    trainer_of("assistant", tmp_path / "trainer", [again], max_steps=1).train()
    assert [folder.name for folder in again.folders] == ["before", "epoch-000"]
