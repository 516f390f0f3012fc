"""Layer pruning: which layers are removed, and that the result is an ordinary model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_models import VOCAB, tiny_model, tiny_tokenizer
from torch import Tensor, nn

from donod_fast.data.types import Status, TokenizedSample
from donod_fast.errors import InputError, ModelError
from donod_fast.models.loading import LoadedModel, load_model, wrap_model
from donod_fast.scoring.scorer import Scorer
from donod_fast.studies.damoc.pruning import choose_layers, decoder_layers, layer_similarity, remove_layers
from donod_fast.studies.damoc.task_vectors import merge_dropped, nearest_kept, task_vector, trim

KINDS = ("llama", "gemma2", "qwen2", "qwen3")


def loaded(kind: str = "llama", layers: int = 5, **overrides: Any) -> LoadedModel:
    return wrap_model(tiny_model(kind, num_hidden_layers=layers, **overrides), tiny_tokenizer())


def ids(length: int = 12, seed: int = 0) -> Tensor:
    return torch.randint(6, VOCAB, (1, length), generator=torch.Generator().manual_seed(seed))


def samples(*lengths: int) -> list[TokenizedSample]:
    rows = [ids(length, length)[0].tolist() for length in lengths]
    return [
        TokenizedSample(i, str(i), Status.SCORED, "", tuple(r), (True,) * len(r), len(r)) for i, r in enumerate(rows)
    ]


def logits(model: Any, tokens: Tensor) -> Tensor:
    with torch.no_grad():
        return model(tokens, use_cache=False).logits


def make_identity(layer: nn.Module) -> None:
    """Zero output projections: attention and feed-forward add nothing to the residual stream."""
    layer.self_attn.o_proj.weight.data.zero_()
    layer.mlp.down_proj.weight.data.zero_()


def test_similarity_is_the_mean_cosine_over_real_tokens_of_any_batch() -> None:
    model = loaded()
    rows = samples(5, 17, 9, 30)
    cosines: list[list[float]] = [[] for _ in range(5)]
    for row in rows:  # one by one, in float64, from each layer's own input and output
        states: list[Tensor] = []
        hooks = [
            layer.register_forward_hook(lambda _, args, output, s=states: s.extend((args[0], output)))
            for layer in decoder_layers(model)
        ]
        logits(model.model, torch.tensor([row.input_ids]))
        for hook in hooks:
            hook.remove()
        for at in range(5):
            before, after = states[2 * at][0].double(), states[2 * at + 1][0].double()
            cosines[at] += ((before * after).sum(1) / (before.norm(dim=1) * after.norm(dim=1))).tolist()
    truth = torch.tensor([sum(one) / len(one) for one in cosines])
    for batch_tokens in (8, 60, 4096):  # alone, some padded, all padded
        torch.testing.assert_close(torch.tensor(layer_similarity(model, rows, batch_tokens=batch_tokens)), truth)


def test_removing_an_identity_layer_changes_no_logit() -> None:
    model = loaded()
    make_identity(decoder_layers(model)[2])
    tokens = ids()
    before = logits(model.model, tokens)
    similarity = layer_similarity(model, samples(8, 20))
    assert similarity[2] == pytest.approx(1.0, abs=1e-6)
    assert max(similarity[at] for at in (1, 3)) < 0.95
    dropped = choose_layers(similarity, threshold=0.95, max_share=0.5)
    assert dropped == [2]
    remove_layers(model, dropped)
    assert len(decoder_layers(model)) == model.model.config.num_hidden_layers == 4
    assert torch.equal(logits(model.model, tokens), before)


def test_to_prune_nothing_is_the_identity() -> None:
    model = loaded()
    before, config = logits(model.model, ids()), model.model.config.to_dict()
    assert choose_layers(layer_similarity(model, samples(8)), threshold=1.0) == []
    remove_layers(model, [])
    assert torch.equal(logits(model.model, ids()), before)
    assert model.model.config.to_dict() == config


@pytest.mark.parametrize("kind", KINDS)
def test_a_pruned_model_is_reloaded_generates_with_its_cache_and_scores(kind: str, tmp_path: Path) -> None:
    model = loaded(kind, layers=6)
    kept = [decoder_layers(model)[at].mlp.down_proj.weight.clone() for at in (0, 2, 3, 5)]
    types = getattr(model.model.config, "layer_types", None)
    remove_layers(model, [1, 4])
    model.model.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    again = load_model(tmp_path)
    assert again.model.config.num_hidden_layers == 4
    for layer, weight in zip(decoder_layers(again), kept, strict=True):
        assert torch.equal(layer.mlp.down_proj.weight, weight)
    if types is not None:  # of gemma2 they alternate, so that those kept are not the first four
        assert again.model.config.layer_types == [types[at] for at in (0, 2, 3, 5)]
    tokens = ids(20)
    assert torch.equal(logits(again.model, tokens), logits(model.model, tokens))
    options = {"max_new_tokens": 6, "do_sample": False, "attention_mask": torch.ones_like(tokens)}
    for one in (model.model, again.model):
        # The cache is addressed by each layer's number.
        cache = one.generate(tokens, use_cache=True, return_dict_in_generate=True, **options)
        assert [layer.get_seq_length() for layer in cache.past_key_values.layers] == [25] * 4
        assert torch.equal(cache.sequences, one.generate(tokens, use_cache=False, **options))
    table = Scorer(again).score_table([{"prompt": "What is 2 + 2?", "completion": "It is 4."}])
    assert table.column("status").to_pylist() == ["scored"]


def test_layers_named_by_number_in_the_config_are_renumbered(tmp_path: Path) -> None:
    model = loaded("qwen2-moe", layers=5, mlp_only_layers=[1, 3])
    tokens = ids()
    remove_layers(model, [2])
    assert model.model.config.mlp_only_layers == [1, 2]
    model.model.save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    torch.testing.assert_close(logits(load_model(tmp_path).model, tokens), logits(model.model, tokens))


def test_the_first_and_the_last_layer_and_more_than_the_share_never_go() -> None:
    similarity = [1.0, 0.91, 0.95, 0.89, 0.95, 0.2, 0.93, 1.0]
    assert choose_layers(similarity, 0.88, 1.0) == [1, 2, 3, 4, 6]
    assert choose_layers(similarity, 0.88, 0.375) == [2, 4, 6]
    assert choose_layers(similarity, 0.88, 0.125) == [4]  # of equal ones the later
    assert choose_layers(similarity, 0.95, 0.5) == [2, 4]
    assert choose_layers(similarity, 0.88, 0.1) == []
    assert choose_layers([1.0, 1.0], -1.0, 1.0) == []
    for threshold, share in ((1.5, 0.5), (0.9, 1.5), (float("nan"), 0.5)):
        with pytest.raises(InputError):
            choose_layers(similarity, threshold, share)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [("gpt2", "has no list of decoder layers"), ("minicpm3", "residual_scale")],
)
def test_another_structure_is_refused_with_the_reason_and_left_alone(kind: str, reason: str) -> None:
    model = loaded(kind, layers=4)
    before = logits(model.model, ids())
    with pytest.raises(ModelError, match=reason):
        remove_layers(model, [1])
    assert torch.equal(logits(model.model, ids()), before)
    assert model.model.config.num_hidden_layers == 4


def test_layers_that_are_not_there_and_all_layers_are_refused() -> None:
    model = loaded(layers=3)
    for wrong in ([3], [-1], [0, 1, 2]):
        with pytest.raises(InputError, match="cannot be taken out"):
            remove_layers(model, wrong)
    with pytest.raises(InputError, match="none of the 0 calibration rows"):
        layer_similarity(model, [])


class Pair(nn.Module):
    """Two small tensors, to compute with by hand."""

    def __init__(self, weight: list[list[float]], bias: list[float]) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.tensor(weight)), nn.Parameter(torch.tensor(bias))


def test_merging_is_the_computation_by_hand() -> None:
    zeros = Pair([[0.0, 0.0], [0.0, 0.0]], [0.0, 0.0])
    tuned = [
        Pair([[1.0, 1.0], [1.0, 1.0]], [1.0, 1.0]),
        Pair([[3.0, -0.5], [0.25, -4.0]], [0.1, -0.2]),
        Pair([[0.0, 5.0], [2.0, 1.0]], [7.0, 6.0]),
        Pair([[2.0, 2.0], [2.0, 2.0]], [2.0, 2.0]),
    ]
    base = {1: Pair([[1.0, 0.0], [0.0, 0.0]], [0.0, 0.0]), 2: zeros}
    # τ₁ = [[2, −0.5], [0.25, −4]], [0.1, −0.2] → half of it: [[2, 0], [0, −4]], [0, −0.2]; into layer 0, the nearest.
    # τ₂ = [[0, 5], [2, 1]], [7, 6] → [[0, 5], [2, 0]], [7, 0]; into layer 3. Both half as large.
    into = merge_dropped(tuned, base, [1, 2], density=0.5, scale=0.5)
    assert into == {1: 0, 2: 3}
    torch.testing.assert_close(tuned[0].weight.data, torch.tensor([[2.0, 1.0], [1.0, -1.0]]))
    torch.testing.assert_close(tuned[0].bias.data, torch.tensor([1.0, 0.9]))
    torch.testing.assert_close(tuned[3].weight.data, torch.tensor([[2.0, 4.5], [3.0, 2.0]]))
    torch.testing.assert_close(tuned[3].bias.data, torch.tensor([5.5, 2.0]))
    assert tuned[1].weight.data[0, 0] == 3.0  # those dropped stay as they were


def test_several_vectors_add_up_in_one_layer_before_they_are_rounded() -> None:
    layers = [Pair([[1.0, 1.0], [1.0, 1.0]], [256.0, 1.0]).bfloat16() for _ in range(3)]
    base = {at: Pair([[1.0, 1.0], [1.0, 1.0]], [255.25, 1.0]).bfloat16() for at in (1, 2)}  # 255 after rounding
    assert merge_dropped(layers, base, [1, 2], density=1.0) == {1: 0, 2: 0}
    # 256 + 1 + 1; added one by one each 1 would be lost in bfloat16, whose step there is 2.
    assert layers[0].bias.data.tolist() == [258.0, 1.0]


def test_the_nearest_kept_layer_has_the_same_shapes() -> None:
    wide = Pair([[1.0, 1.0, 1.0]], [1.0])
    layers = [Pair([[1.0]], [1.0]), wide, Pair([[1.0]], [1.0]), wide, Pair([[1.0]], [1.0])]
    assert nearest_kept(2, [0, 1, 3, 4], layers) == 0  # of two as near, the earlier
    assert nearest_kept(3, [0, 1, 2, 4], layers) == 1
    assert nearest_kept(3, [0, 2], layers) is None
    assert merge_dropped(layers, {1: wide, 3: wide}, [1, 3]) == {}


def test_trimming_keeps_the_largest_and_other_weights_are_refused() -> None:
    vector = {"weight": torch.tensor([[0.1, -3.0], [2.0, 0.0]])}
    assert trim(vector, 0.25)["weight"].tolist() == [[0.0, -3.0], [0.0, 0.0]]
    assert trim(vector, 0.01)["weight"].count_nonzero() == 1
    assert torch.equal(trim(vector, 1.0)["weight"], vector["weight"])
    for density in (0.0, 1.1, float("nan")):
        with pytest.raises(InputError, match="density"):
            trim(vector, density)
    with pytest.raises(ModelError, match="of another model: bias"):
        task_vector(Pair([[1.0]], [1.0]), Pair([[1.0]], [1.0, 2.0]))
