"""If RoPE depends on the longest sequence of a batch, a sample's frequencies still do not depend on other samples."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from packed_cases import alone, make_samples, model_of
from releases import keeps_long_frequencies, rope_settings
from tiny_models import tiny_tokenizer

from donod_fast.errors import ModelError
from donod_fast.models.batching import collate, make_batches, used_tokens
from donod_fast.models.loading import wrap_model
from donod_fast.models.rope import RopeSwitch, rope_switch
from donod_fast.models.trunk import Trunk

LONG: dict[str, Any] = {"rope_type": "longrope", "original_max_position_embeddings": 20, "factor": 4.0}
FACTORS: dict[str, Any] = {"short_factor": [1.0, 1.0, 1.0, 1.0], "long_factor": [4.0, 3.0, 2.0, 1.5]}
MODELS: dict[str, tuple[dict[str, Any], RopeSwitch]] = {
    "longrope": (
        {
            "model_type": "llama",
            "max_position_embeddings": 64,
            **rope_settings(10000.0, **LONG, **FACTORS),
        },
        RopeSwitch(20, by_length=False),
    ),
    "dynamic": (
        {
            "model_type": "llama",
            "max_position_embeddings": 20,
            **rope_settings(10000.0, rope_type="dynamic", factor=4.0),
        },
        RopeSwitch(20, by_length=True),
    ),
}
RIGHT = [kind for kind in MODELS if kind != "dynamic" or not keeps_long_frequencies()]
# Lengths that are run, on both sides of the limit and at it.
SAMPLES = make_samples((30, 4, 21, 19, 9, 20, 40, 30), seed=3)


@pytest.mark.parametrize("packing", ["on", "off"])
@pytest.mark.parametrize("kind", RIGHT)
def test_a_sample_has_the_same_states_as_alone_in_a_fresh_model(kind: str, packing: str) -> None:
    config, switch = MODELS[kind]
    trunk = Trunk(wrap_model(model_of(config), tiny_tokenizer()), packing=packing)
    assert trunk.rope == switch and trunk.packs == (packing == "on")
    groups = make_batches(SAMPLES, 64, trunk.packs, trunk.rope)
    assert sorted(i for group in groups for i in group) == list(range(len(SAMPLES)))
    assert any(len(group) > 1 for group in groups)
    for group in [*groups, *reversed(groups)]:  # regardless of earlier runs
        batch = collate(SAMPLES, group, packed=trunk.packs, rope=trunk.rope)
        states = trunk.states(batch)[batch.predictors]
        for member, found in zip(group, states.split(batch.cu_seqlens.diff().tolist()), strict=True):
            sample = SAMPLES[member]
            # The whole sample, as the model sees it in training, in a model that has seen nothing else.
            with torch.no_grad():
                decoder = model_of(config).get_decoder()
                whole = decoder(input_ids=torch.tensor([sample.input_ids]), use_cache=False).last_hidden_state[0]
            before = [t - 1 for t, flag in enumerate(sample.scored) if flag]
            torch.testing.assert_close(found, whole[before], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", RIGHT)
def test_mixed_kinds_would_change_scores(kind: str) -> None:
    model = model_of(MODELS[kind][0])
    trunk = Trunk(wrap_model(model, tiny_tokenizer()), packing="on")
    batch = collate(SAMPLES, (1, 6), packed=True)
    assert float((trunk.states(batch)[:4] - alone(model_of(MODELS[kind][0]), SAMPLES[1])).abs().max()) > 1e-2


def test_a_trunk_whose_frequencies_would_be_wrong_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    dynamic, longrope = (wrap_model(model_of(MODELS[kind][0]), tiny_tokenizer()) for kind in ("dynamic", "longrope"))
    plain = wrap_model(model_of({"model_type": "llama"}), tiny_tokenizer())
    monkeypatch.setattr("donod_fast.models.trunk.wrong_frequencies", lambda *_: "it keeps them; use another release")
    for loaded in (dynamic, longrope):
        with pytest.raises(ModelError, match="LlamaForCausalLM: it keeps them; use another release"):
            Trunk(loaded)
    Trunk(plain)


def test_batches_hold_one_kind_only_and_long_samples_are_not_cut() -> None:
    samples = make_samples((15, 30, 4, 40, 30, 16), seed=1)
    for packs in (False, True):
        shared = make_batches(samples, 1000, packs, RopeSwitch(16, by_length=False))
        assert sorted(map(sorted, shared)) == [[0, 2], [1, 3, 4, 5]]
        exact = make_batches(samples, 1000, packs, RopeSwitch(16, by_length=True))
        assert sorted(map(sorted, exact)) == [[0, 2], [1, 4], [3], [5]]
        assert sorted(map(sorted, make_batches(samples, 1000, packs))) == [[0, 1, 2, 3, 4, 5]]
    # The last token is not run, except where its presence alone chooses the frequencies.
    assert [used_tokens(s, RopeSwitch(16, by_length=True)) for s in samples] == [15, 31, 4, 41, 31, 17]
    assert [used_tokens(s) for s in samples] == [15, 30, 4, 40, 30, 16]


def test_a_switch_is_read_from_the_config_in_its_old_and_new_places() -> None:
    def read(**settings: Any) -> RopeSwitch | None:
        return rope_switch(SimpleNamespace(max_position_embeddings=128, **settings))

    assert read() is None
    assert read(rope_parameters={"rope_type": "llama3", "original_max_position_embeddings": 8}) is None
    assert read(rope_scaling={"type": "dynamic", "factor": 2.0}) == RopeSwitch(128, by_length=True)
    assert read(rope_parameters=LONG) == RopeSwitch(20, by_length=False)
    old = {"original_max_position_embeddings": 32, "rope_scaling": {"type": "longrope"}}
    assert read(**old) == RopeSwitch(32, by_length=False)
    layers = {"sliding_attention": {"rope_type": "default"}, "full_attention": LONG}
    assert read(rope_parameters=layers) == RopeSwitch(20, by_length=False)
    both = {"sliding_attention": {**LONG, "original_max_position_embeddings": 8}, "full_attention": LONG}
    assert read(rope_parameters=both) == RopeSwitch(8, by_length=True)
