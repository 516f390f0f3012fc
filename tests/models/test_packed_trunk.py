"""Packed samples have the same hidden states and scores as alone; otherwise the model is padded, with a reason."""

from __future__ import annotations

import functools
import random
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest import mock

import pytest
import torch
from packed_cases import LENGTHS, PACKED, SAMPLES, alone, make_samples, model_of
from releases import packs
from tiny_models import KINDS, tiny_tokenizer
from torch import Tensor
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from varlen_fakes import Request, varlen_2_10, varlen_2_13

from donod_fast.errors import InputError, ModelError
from donod_fast.models import packing
from donod_fast.models.attention_switch import switch_of
from donod_fast.models.batching import Batch, collate, make_batches
from donod_fast.models.loading import wrap_model
from donod_fast.models.trunk import Trunk
from donod_fast.models.varlen_attention import (
    PLAIN,
    AttentionCall,
    VarlenKernel,
    kernels_for,
    layer_function,
    plain_varlen,
    register,
    torch_kernel,
)
from donod_fast.scores.rows import SCORE_COLUMNS
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings

CALL = AttentionCall(0, torch.device("cpu"), torch.bfloat16, heads=4, key_heads=2, head_dim=8, value_dim=8, window=4)
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "chunks": (
        {
            "model_type": "llama4_text",
            "head_dim": 8,
            "attention_chunk_size": 4,
            "num_local_experts": 2,
            "intermediate_size_mlp": 48,
            "no_rope_layers": [1, 0],
        },
        "layers of type chunked_attention",
    ),
    # Older releases name no layer types for it.
    "state space": ({"model_type": "mamba"}, "(layers of type linear_attention|convolutions over tokens)"),
    "recurrent": ({"model_type": "rwkv", "attention_hidden_size": 32}, "does not go through transformers' attention"),
    "hybrid": (KINDS.get("falcon-h1", {"model_type": "falcon_h1"}), "(layers of type hybrid|convolutions over tokens)"),
    "alibi": ({"model_type": "bloom", "n_head": 4, "n_layer": 2}, "does not go through transformers' attention"),
    "alibi in mpt": (
        {"model_type": "mpt", "d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 128},
        "does not go through transformers' attention",
    ),
    "alibi in falcon": ({"model_type": "falcon", "alibi": True}, "does not go through transformers' attention"),
    # Older releases do not even accept the bounds.
    "bounds kept back": ({"model_type": "stablelm"}, "(does not pass the bounds|unexpected keyword .*cu_seq_lens_q)"),
}
REFUSED = {kind: case for kind, case in REFUSED.items() if case[0]["model_type"] in CONFIG_MAPPING_NAMES}


def trunk_of(model: Any, packing: str = "on") -> Trunk:
    return Trunk(wrap_model(model, tiny_tokenizer()), packing=packing)


def packed_of(members: Sequence[int] | None = None) -> Batch:
    return collate(SAMPLES, range(len(SAMPLES)) if members is None else members, packed=True)


def assert_states(model: Any, trunk: Trunk, members: Sequence[int] | None = None, rtol: float = 1e-4) -> None:
    members = range(len(SAMPLES)) if members is None else members
    states = trunk.states(packed_of(members)).split([LENGTHS[i] for i in members])
    for i, found in zip(members, states, strict=True):
        wanted = alone(model, SAMPLES[i])
        error = (found - wanted).float().norm(dim=-1) / wanted.float().norm(dim=-1)
        assert float(error.max()) <= rtol, (i, error)


@pytest.mark.parametrize("kind", [kind for kind, config in PACKED.items() if packs(config["model_type"])])
def test_packed_samples_have_the_states_of_each_alone(kind: str) -> None:
    model = model_of(PACKED[kind])
    trunk = trunk_of(model)
    assert trunk.packs and trunk.packing_refusal == ""
    assert_states(model, trunk)


@pytest.mark.parametrize("kind", [kind for kind, config in PACKED.items() if not packs(config["model_type"])])
def test_older_releases_pad_such_a_model_and_say_why(kind: str) -> None:
    model = model_of(PACKED[kind])
    with pytest.raises(ModelError, match=r"cannot be packed: its attention .*; use packing='auto'"):
        trunk_of(model)
    trunk = trunk_of(model, "auto")
    assert not trunk.packs and trunk.packing_refusal
    batch = collate(SAMPLES, range(len(SAMPLES)))
    states = trunk.states(batch).reshape(*batch.input_ids.shape, -1)
    for sample, found, length in zip(SAMPLES, states, LENGTHS, strict=True):
        torch.testing.assert_close(found[:length], alone(model, sample), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gpt2"])
def test_states_do_not_depend_on_the_order_in_the_row(kind: str) -> None:
    model = model_of(PACKED[kind])
    trunk = trunk_of(model)
    for seed in range(3):
        assert_states(model, trunk, random.Random(seed).sample(range(len(SAMPLES)), 5))


@pytest.mark.parametrize("kind", ["llama", "mistral-window", "gpt-oss", "latent"])
@pytest.mark.parametrize("varlen", [varlen_2_10, varlen_2_13], ids=["torch 2.10", "torch 2.13"])
def test_the_kernels_of_cuda_are_given_what_layers_ask(kind: str, varlen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = torch_kernel(varlen, Request)
    monkeypatch.setattr(packing, "kernels_for", lambda device: ([kernel], []))
    model = model_of(PACKED[kind]).to(torch.bfloat16)
    if varlen is varlen_2_10 and kind in ("mistral-window", "gpt-oss"):
        with pytest.raises(ModelError, match="has no sliding window; use packing='auto'"):
            trunk_of(model)
        return
    trunk = trunk_of(model)
    # A mixture of experts routes some tokens elsewhere for a rounding in bfloat16.
    assert_states(model, trunk, rtol=0.05 if kind in ("llama", "mistral-window") else 2.0)


@pytest.mark.parametrize("kind", REFUSED)
def test_models_whose_tokens_mix_elsewhere_are_refused_with_a_reason(kind: str) -> None:
    config, reason = REFUSED[kind]
    if config["model_type"] == "llama4_text":  # its class for text alone has no decoder that could be found
        model = model_of(config)
        model.get_decoder = lambda: model.model
    else:
        model = model_of(config)
    with pytest.raises(ModelError, match=f"cannot be packed: .*{reason}.*; use packing='auto'"):
        trunk_of(model)
    trunk = trunk_of(model, "off")
    assert not trunk.packs
    padded = collate(SAMPLES, (0, 3, 6))
    assert trunk.states(padded).shape == (3 * 17, 32)


def with_config(kind: str, **changes: Any) -> Any:
    """A model whose config claims more than its layers do; nothing of it shows in a short probe."""
    model = model_of(PACKED[kind])
    for name, value in changes.items():
        setattr(model.config, name, value)
    return model


CLAIMS: dict[str, tuple[str, dict[str, Any], str]] = {
    "a wide window": ("llama", {"sliding_window": 64}, "layer 0 has no sliding window, its config says 64"),
    "another window": (
        "mistral-window",
        {"layer_types": ["sliding_attention", "full_attention"]},
        "layer 1 has a sliding window of 4, its config says none",
    ),
    "a soft-cap": ("llama", {"attn_logit_softcapping": 1e6}, "soft-cap of attention"),
    "chunks": ("llama", {"attention_chunk_size": 8192}, "in chunks of the row"),
    "temperature": ("llama", {"attn_temperature_tuning": True}, "scaled by the position in the row"),
    "indexed": ("llama", {"layer_types": ["full_attention", "indexed_attention"]}, "layers of type indexed_attention"),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_features_of_the_config_that_layers_do_not_pass_on_are_refused(claim: str) -> None:
    kind, changes, reason = CLAIMS[claim]
    with pytest.raises(ModelError, match=reason):
        trunk_of(with_config(kind, **changes))


def test_sinks_that_are_not_handed_over_are_refused() -> None:
    model = model_of(PACKED["llama"])
    model.model.layers[0].self_attn.sinks = torch.nn.Parameter(torch.zeros(4))
    with pytest.raises(ModelError, match="attention sinks that its layers do not hand over"):
        trunk_of(model)


def test_a_layer_without_attention_or_with_a_convolution_is_refused() -> None:
    model = model_of(PACKED["llama"])
    model.model.layers[1].self_attn.forward = lambda hidden_states, **_: (hidden_states, None)
    with pytest.raises(ModelError, match="only 1 of its 2 layers go through"):
        trunk_of(model)
    model = model_of(PACKED["llama"])
    model.model.layers[0].convolution = torch.nn.Conv1d(2, 2, 3)
    with pytest.raises(ModelError, match="convolutions over tokens"):
        trunk_of(model)


def test_a_tensor_that_attention_would_not_use_is_refused_by_its_name() -> None:
    model = model_of(PACKED["llama"])
    attention = model.model.layers[0].self_attn
    whole = attention.forward
    attention.forward = lambda *a, **k: whole(*a, position_bias=torch.zeros(1), **k)
    with pytest.raises(ModelError, match="takes more than positions: position_bias"):
        trunk_of(model)


class Mixing(torch.nn.Module):
    """Adds a little of the token before, across the bounds of samples."""

    def __init__(self, norm: torch.nn.Module) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, hidden: Tensor) -> Tensor:
        hidden = self.norm(hidden)
        return hidden + 0.1 * torch.cat([torch.zeros_like(hidden[:, :1]), hidden.cumsum(1)[:, :-1]], 1)


def test_mixing_outside_of_attention_is_found_by_the_proof() -> None:
    model = model_of(PACKED["llama"])
    model.model.norm = Mixing(model.model.norm)
    with pytest.raises(ModelError, match=r"packed samples differ from the same alone \(by .*, limit 1e-04\)"):
        trunk_of(model)


def test_positions_that_do_not_start_again_are_found_by_the_proof() -> None:
    model = model_of(PACKED["gpt2"])
    whole = model.transformer.forward
    model.transformer.forward = lambda position_ids=None, **kwargs: whole(**kwargs)
    with pytest.raises(ModelError, match="packed samples differ"):
        trunk_of(model)


@pytest.mark.parametrize("kind", ["mistral-window", "mistral-wide-window"])
def test_a_window_that_is_not_applied_is_found_by_the_proof(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def everything(*arguments: Any, window: int | None, **options: Any) -> Tensor:
        return plain_varlen(*arguments, window=None, **options)

    kernel = VarlenKernel("donod_varlen_without_windows", everything, PLAIN.refuse)
    monkeypatch.setattr(packing, "kernels_for", lambda device: ([kernel], []))
    monkeypatch.setattr(packing, "kernel_mismatch", lambda kernel, call: "")
    with pytest.raises(ModelError, match="packed samples differ"):
        trunk_of(model_of(PACKED[kind]))


def test_a_decoder_that_takes_no_bounds_is_refused() -> None:
    model = model_of(PACKED["llama"])
    whole = model.model.forward
    model.model.forward = lambda input_ids, use_cache: whole(input_ids=input_ids, use_cache=use_cache)
    with pytest.raises(ModelError, match="unexpected keyword argument 'position_ids'"):
        trunk_of(model)


def test_auto_pads_on_a_cpu_and_what_is_not_known_is_refused() -> None:
    model = model_of(PACKED["llama"])
    trunk = trunk_of(model, "auto")
    assert not trunk.packs and "on the CPU" in trunk.packing_refusal
    assert "was requested" in trunk_of(model, "off").packing_refusal
    with pytest.raises(InputError, match=r"the batch is packed, but .* on the CPU"):
        trunk.states(packed_of())
    with pytest.raises(InputError, match="packing='yes' is not known; use 'auto', 'on', 'off'"):
        trunk_of(model, "yes")


def test_auto_pads_with_a_reason_if_the_proof_fails_on_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(REFUSED["bounds kept back"][0])
    loaded = wrap_model(model, tiny_tokenizer())
    trunk = Trunk(loaded, packing="off")

    class Pretended:
        model, device, name, max_length = loaded.model, mock.Mock(type="cuda"), loaded.name, None

    decided = packing.choose_packing("auto", Pretended, trunk.decoder, [7, 8, 9], 1e-4, trunk._states)  # type: ignore[arg-type]
    assert not decided.attention and re.search(REFUSED["bounds kept back"][1], decided.refusal)


@pytest.mark.parametrize("kind", ["llama", "gemma2"])
def test_the_models_own_attention_is_restored_even_after_an_error(kind: str) -> None:
    model = model_of(PACKED[kind])
    own = model.config._attn_implementation
    trunk = trunk_of(model)
    assert model.config._attn_implementation == own
    before = alone(model, SAMPLES[1])
    trunk.states(packed_of())
    assert model.config._attn_implementation == own
    assert torch.equal(alone(model, SAMPLES[1]), before)
    seen = []

    def failing(**_: Any) -> Any:
        seen.append(model.config._attn_implementation)
        raise MemoryError

    run, trunk.run = trunk.run, failing
    with pytest.raises(MemoryError):
        trunk.states(packed_of())
    assert seen == [PLAIN.name] and model.config._attn_implementation == own
    trunk.run = run
    assert_states(model, trunk)


def test_the_decoder_gets_the_same_arguments_for_batches_of_one_form() -> None:
    trunk = trunk_of(model_of(PACKED["llama"]))
    calls: list[dict[str, Any]] = []
    whole = trunk.run

    @functools.wraps(whole)
    def run(**arguments: Any) -> Any:
        calls.append(arguments)
        return whole(**arguments)

    trunk.run = run
    trunk.states(packed_of((1, 2)))
    trunk.states(collate(SAMPLES, (1, 2)))
    packed, padded = calls
    assert set(padded) == {"input_ids", "use_cache"}
    varlen = {"cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k"}
    assert set(packed) == {*padded, "position_ids", *varlen}
    assert packed["use_cache"] is False and packed["max_length_q"] == packed["max_length_k"] == 40
    assert type(packed["max_length_q"]) is int
    assert packed["cu_seq_lens_q"].tolist() == [0, 40, 41] and packed["cu_seq_lens_q"].dtype == torch.int32
    assert packed["position_ids"].tolist() == [[*range(40), 0]]


@pytest.mark.parametrize("kind", ["llama", "mistral-window"])
def test_a_packed_forward_over_varlen_is_one_graph_for_all_sizes(kind: str) -> None:
    kernels, absent = kernels_for(torch.device("cuda"))
    if not kernels or kernels[0].name != "donod_varlen" or kernels[0].refuse(CALL):
        pytest.skip("; ".join(absent) or "this release of torch has no sliding windows in its varlen attention")
    register(kernels[0].name, layer_function(kernels[0]))
    decoder = model_of(PACKED[kind]).to(torch.bfloat16).get_decoder()
    graphs = []

    class Reached(Exception):
        """The graph would run on CUDA only."""

    def stop(*_: Any) -> Any:
        raise Reached

    def backend(graph: Any, _: Any) -> Any:
        graphs.append([str(node.target) for node in graph.graph.nodes])
        return stop

    trunk = trunk_of(model_of(PACKED[kind]))
    torch.compiler.reset()
    trunk.decoder = decoder
    trunk._switch, trunk.run = switch_of(decoder), torch.compile(decoder, backend=backend, dynamic=True)
    for members in ((0, 1, 2, 3), (4, 5), (6, 3, 1)):
        with pytest.raises(Reached):
            trunk._states(packed_of(members), kernels[0].name)
    assert len(graphs) == 1
    assert sum("varlen_attn" in target for target in graphs[0]) == 2  # one a layer


def test_threads_may_run_packed_and_padded_batches_of_one_model_at_once() -> None:
    model = model_of(PACKED["mistral-window"])
    trunks = [trunk_of(model), trunk_of(model)]  # two scorers of one model
    own = model.config._attn_implementation
    batches = [packed_of(), collate(SAMPLES, (1, 3, 4)), packed_of((4, 1)), collate(SAMPLES, (0, 5))]
    wanted = [trunks[0].states(batch) for batch in batches]
    start = threading.Barrier(4)

    def work(thread: int) -> None:
        start.wait()
        for turn in range(12):
            which = (thread + turn) % 4
            assert torch.equal(trunks[turn % 2].states(batches[which]), wanted[which])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert model.config._attn_implementation == own


@pytest.mark.parametrize("kind", ["llama", "gemma2", "mistral-window"])
def test_scores_of_packed_batches_are_those_of_padded_ones(kind: str) -> None:
    model = model_of(PACKED[kind])
    samples = make_samples([1 + 37 * i % 41 for i in range(60)], seed=1)
    rows = {}
    for form in ("on", "off"):
        # SGD: under AdamW a hidden state's last digit may turn the sign of one of a small head's elements.
        scorer = Scorer(model, tiny_tokenizer(), update=UpdateSettings("sgd"), packing=form, token_budget=256)
        assert scorer.trunk.packs == (form == "on")
        rows[form] = {}
        for group in make_batches(samples, 256, scorer.trunk.packs):
            columns = scorer.sample_scorer.forward.scores(collate(samples, group, packed=scorer.trunk.packs))
            rows[form].update(zip(group, columns.tolist(), strict=True))
    don, nod = SCORE_COLUMNS.index("don"), SCORE_COLUMNS.index("nod")
    assert len(rows["on"]) == len(rows["off"]) == 60
    for i in range(60):
        for column in (don, nod):
            assert abs(rows["on"][i][column] - rows["off"][i][column]) <= 1e-5 * rows["off"][i][nod]
