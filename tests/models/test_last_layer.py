"""The last layer run only at scored rows gives their hidden states, and the model is restored afterwards."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from releases import has_usual_last_layer
from tiny_models import KINDS, tiny_model, tiny_tokenizer

from donod_fast.data.types import Status, TokenizedSample
from donod_fast.models.batching import collate
from donod_fast.models.last_layer import NarrowLastLayer
from donod_fast.models.loading import wrap_model
from donod_fast.models.trunk import Trunk

KNOWN = [kind for kind in ("llama", "llama-tied", "mistral", "qwen2", "qwen3", "mixtral") if kind in KINDS]
PRE_NORM = [kind for kind in KNOWN if has_usual_last_layer(kind)]
OTHERS = [
    *(kind for kind in ("gemma2", "cohere", "gpt2", "phi", "olmo2", "falcon-h1") if kind in KINDS),
    *(kind for kind in KNOWN if not has_usual_last_layer(kind)),
]
TOKENS = torch.arange(6, 46).reshape(4, 10)
ROWS = torch.tensor([3, 4, 8, 15, 39])


@pytest.mark.parametrize("kind", PRE_NORM)
def test_scored_rows_have_the_hidden_states_of_the_whole(kind: str) -> None:
    decoder = tiny_model(kind).get_decoder()
    narrow = NarrowLastLayer.of(decoder)
    assert narrow is not None
    with torch.no_grad():
        whole = decoder(input_ids=TOKENS, use_cache=False).last_hidden_state
        with narrow.installed():
            found = decoder(input_ids=TOKENS, use_cache=False, scored_rows=ROWS).last_hidden_state
            again = decoder(input_ids=TOKENS, use_cache=False).last_hidden_state
    assert found.shape == (1, len(ROWS), whole.shape[-1])
    torch.testing.assert_close(found[0], whole.flatten(0, 1)[ROWS])
    torch.testing.assert_close(again, whole, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("kind", OTHERS)
def test_layers_of_another_form_are_left_alone(kind: str) -> None:
    assert NarrowLastLayer.of(tiny_model(kind).get_decoder()) is None


def test_after_the_last_of_several_threads_the_model_is_restored() -> None:
    decoder = tiny_model("llama").get_decoder()
    before = set(vars(decoder.layers[-1]))
    narrow = NarrowLastLayer.of(decoder)
    assert narrow is not None

    def states(_: int) -> torch.Tensor:
        with torch.no_grad(), narrow.installed():
            return decoder(input_ids=TOKENS, use_cache=False, scored_rows=ROWS).last_hidden_state

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(states, range(16)))
    assert all(torch.equal(one, found[0]) for one in found)
    with pytest.raises(ZeroDivisionError), narrow.installed():
        raise ZeroDivisionError
    assert set(vars(decoder.layers[-1])) == before
    # A copy made by the caller must not run the original's weights.
    twin = copy.deepcopy(decoder)
    twin.layers[-1].mlp.down_proj.weight.data.zero_()
    with torch.no_grad():
        assert not torch.equal(twin(input_ids=TOKENS).last_hidden_state, decoder(input_ids=TOKENS).last_hidden_state)


@pytest.mark.parametrize(
    ("kind", "packing"),
    [*((kind, "off") for kind in KINDS), *((kind, "on") for kind in ("llama", "mistral", "qwen2", "gpt2"))],
)
def test_a_trunk_gives_scored_states_as_it_gives_all(kind: str, packing: str) -> None:
    trunk = Trunk(wrap_model(tiny_model(kind), tiny_tokenizer()), packing=packing)
    scored = tuple(t in (3, 4, 8) for t in range(10))
    samples = [
        TokenizedSample(i, str(i), Status.SCORED, "", tuple(row), scored) for i, row in enumerate(TOKENS.tolist())
    ]
    batch = collate(samples, range(4), packed=trunk.packs)
    torch.testing.assert_close(trunk.scored_states(batch), trunk.states(batch)[batch.predictors], rtol=1e-4, atol=1e-5)


def test_a_layer_of_another_form_with_the_same_parts_runs_whole() -> None:
    # Granite multiplies what a layer adds: the usual form would give other states.
    model = tiny_model("granite", residual_multiplier=0.5)
    assert NarrowLastLayer.of(model.get_decoder()) is not None
    assert Trunk(wrap_model(model, tiny_tokenizer()))._narrow is None
    assert Trunk(wrap_model(tiny_model("llama"), tiny_tokenizer()))._narrow is not None
