"""Layer pruning by similarity (DaMoC, arXiv 2509.01221): remove decoder layers that hardly change their input.

The paper gives no formulas and no code; this is our reading. Of each decoder layer l over a calibration set

    s_l = mean over tokens of cos(x_l, y_l),    x_l (d,) the hidden state that goes in, y_l (d,) the one that comes out

as ShortGPT's Block Influence, 1 − s_l (Men et al., arXiv 2403.03853). Layers with s_l at or above a threshold are
removed, the highest similarity first. The first and the last layer stay, since they turn embeddings into features and
features into logits. At most a given share of all layers is removed, since in a deep model nearly every layer in
between may be above the threshold.

A model is more than its list of layers: the key-value cache is indexed by layer number, and the config holds the
number and the kinds of layers. All of it is corrected, and verified before anything is changed: a model built from the
new config must have exactly the modules, shapes and settings of the pruned one. A model that fails this is refused.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from donod_fast.errors import InputError, ModelError
from donod_fast.models.loading import LoadedModel, find_decoder, quiet, text_config
from donod_fast.system.wording import shortened

if TYPE_CHECKING:
    from donod_fast.data.types import TokenizedSample

THRESHOLD = 0.88
"""The default: the middle of the paper's 0.85 to 0.90."""

MAX_SHARE = 0.25
"""Default maximum share of removed layers: about what ShortGPT removes."""

BATCH_TOKENS = 4096
_INDEX_LISTS = ("mlp_only_layers", "moe_layers", "attn_layer_indices", "cross_attention_layers", "full_attn_idxs")
"""Config lists that name layers by number; other lists with one entry per layer are indexed by position."""

_NUMBER = "layer_idx"


def decoder_layers(loaded: LoadedModel) -> nn.ModuleList:
    """The decoder layers of a model that holds them in one list whose length is in its config.

    Raises:
        ModelError: the model has another structure, is quantised, or is not completely in memory; the message says
            which.
    """
    name, kind = loaded.name, type(loaded.model).__name__
    remedy = "set prune.method to none for it"
    if loaded.quantised or loaded.offloaded:
        state = f"quantised ({loaded.precision})" if loaded.quantised else "off-loaded"
        raise ModelError(f"{name}: layers of a model that is {state} cannot be pruned; {remedy}")
    layers = getattr(find_decoder(name, loaded.model), "layers", None)
    if not isinstance(layers, nn.ModuleList):
        raise ModelError(f"{name}: a {kind} has no list of decoder layers (model.layers) to prune; {remedy}")
    count = getattr(text_config(loaded.model.config), "num_hidden_layers", None)
    if count != len(layers):
        raise ModelError(f"{name}: its config counts {count} layers and the model has {len(layers)}; {remedy}")
    if len({id(layer) for layer in layers}) != len(layers):
        raise ModelError(f"{name}: a {kind} uses one layer several times, so that none can be taken out; {remedy}")
    return layers


def layer_similarity(
    loaded: LoadedModel, samples: Sequence[TokenizedSample], *, batch_tokens: int = BATCH_TOKENS
) -> tuple[float, ...]:
    """Cosine similarity of each decoder layer's input and output, the mean over the tokens of some samples.

    Prompt and completion tokens count equally. The model is not changed.

    Args:
        loaded: the model.
        samples: the calibration set; those without tokens (rows that could not be read) are left out.
        batch_tokens: slots of a batch, padding included.

    Raises:
        InputError: no sample has tokens.
        ModelError: the model has another structure (see :func:`decoder_layers`), or a similarity is not finite.
    """
    layers = decoder_layers(loaded)
    rows = sorted((sample.input_ids for sample in samples if sample.input_ids), key=len)
    if not rows:
        first = next((f"; the first: {sample.status}: {sample.detail}" for sample in samples), "")
        raise InputError(f"none of the {len(samples)} calibration rows has tokens{first}")
    decoder = find_decoder(loaded.name, loaded.model)
    meter = _Meter(len(layers))
    hooks = [layer.register_forward_hook(meter.hook(at), with_kwargs=True) for at, layer in enumerate(layers)]
    try:
        with torch.no_grad(), quiet():
            for batch in _batches(rows, batch_tokens):
                meter.real = torch.zeros(len(batch), len(batch[-1]), dtype=torch.bool, device=loaded.device)
                ids = torch.zeros_like(meter.real, dtype=torch.int64)
                for at, row in enumerate(batch):
                    meter.real[at, : len(row)] = True
                    ids[at, : len(row)] = torch.tensor(row)
                decoder(input_ids=ids, attention_mask=meter.real.long(), use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    means = tuple((meter.sums / meter.tokens).tolist())
    if not all(map(math.isfinite, means)):
        raise ModelError(f"{loaded.name}: its hidden states are not finite, so that its layers cannot be compared")
    return means


def choose_layers(similarity: Sequence[float], threshold: float = THRESHOLD, max_share: float = MAX_SHARE) -> list[int]:
    """The layers to remove, in ascending order: those at or above the threshold, the highest similarity first.

    Of equal layers the later one is removed first. The first and the last layer are never removed, and at most
    ``floor(max_share × layers)`` are.

    Raises:
        InputError: the threshold is outside [-1, 1], or the share outside [0, 1].
    """
    if not -1 <= threshold <= 1:
        raise InputError(f"threshold is a cosine similarity, from -1 to 1, got {threshold}")
    if not 0 <= max_share <= 1:
        raise InputError(f"max_share is a share of the layers, from 0 to 1, got {max_share}")
    inner = [at for at in range(1, len(similarity) - 1) if similarity[at] >= threshold]
    inner.sort(key=lambda at: (-similarity[at], -at))
    return sorted(inner[: math.floor(max_share * len(similarity) + 1e-9)])


def remove_layers(loaded: LoadedModel, dropped: Sequence[int]) -> None:
    """Remove layers from a model, in place. Saving, loading, generating and scoring then work as for any model.

    Args:
        loaded: the model; its fingerprint is not updated.
        dropped: numbers of the layers, counted from 0; may be empty.

    Raises:
        InputError: a layer does not exist, or all layers are named.
        ModelError: the model has another structure, or its config cannot describe the pruned model. The model is then
            unchanged.
    """
    layers = decoder_layers(loaded)
    gone = set(map(int, dropped))
    if not gone <= set(range(len(layers))) or len(gone) == len(layers):
        raise InputError(f"layers {sorted(gone)} of {len(layers)} (0 to {len(layers) - 1}) cannot be taken out")
    if not gone:
        return
    kept = [at for at in range(len(layers)) if at not in gone]
    model, decoder = loaded.model, find_decoder(loaded.name, loaded.model)
    changes = _config_changes(text_config(model.config), len(layers), kept)
    _prove(loaded, changes, [layers[at] for at in kept])
    for config in {id(one): one for one in (text_config(model.config), text_config(decoder.config))}.values():
        _apply(config, changes)
    decoder.layers = nn.ModuleList(layers[at] for at in kept)
    for number, layer in enumerate(decoder.layers):
        for module in layer.modules():
            if isinstance(getattr(module, _NUMBER, None), int):
                setattr(module, _NUMBER, number)


class _Meter:
    """Sums of cosines, (layers,) float64, over the real tokens of each batch."""

    def __init__(self, layers: int) -> None:
        self.sums = torch.zeros(layers, dtype=torch.float64)
        self.counted = [0] * layers
        self.real: Tensor

    @property
    def tokens(self) -> Tensor:
        return torch.tensor(self.counted, dtype=torch.float64)

    def hook(self, at: int) -> Any:
        def measure(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            after = output if isinstance(output, Tensor) else output[0]
            cosine = nn.functional.cosine_similarity(before.float(), after.float(), dim=-1)  # (rows, tokens)
            self.sums[at] += cosine[self.real.to(cosine.device)].double().sum().cpu()
            self.counted[at] += int(self.real.sum())

        return measure


def _batches(rows: Sequence[Sequence[int]], batch_tokens: int) -> Iterator[list[Sequence[int]]]:
    """Rows in ascending order of length, divided into padded batches within the slots; at least one row each."""
    batch: list[Sequence[int]] = []
    for row in rows:
        if batch and (len(batch) + 1) * len(row) > batch_tokens:
            yield batch
            batch = []
        batch.append(row)
    yield batch


def _config_changes(config: Any, count: int, kept: Sequence[int]) -> dict[str, Any]:
    """Config entries of the pruned model: the number of layers, and every list with an entry per layer."""
    changes: dict[str, Any] = {"num_hidden_layers": len(kept)}
    place = {old: new for new, old in enumerate(kept)}
    for name, value in config.to_dict().items():
        if not isinstance(value, list | tuple) or not value:
            continue
        if name in _INDEX_LISTS:
            changes[name] = [place[old] for old in value if old in place]
        elif len(value) == count and "layer" in name:
            changes[name] = [value[at] for at in kept]
    return changes


def _apply(config: Any, changes: dict[str, Any]) -> None:
    # The lists first: a config may check their length when the number of layers is set.
    for name in sorted(changes, key=lambda name: name == "num_hidden_layers"):
        setattr(config, name, changes[name])


def _prove(loaded: LoadedModel, changes: dict[str, Any], kept: Sequence[nn.Module]) -> None:
    """Check that a model of the changed config equals the pruned one: modules, shapes and settings of every layer."""
    config = copy.deepcopy(loaded.model.config)
    try:
        _apply(text_config(config), changes)
        config = type(config).from_dict(config.to_dict())  # as it will be read from the saved folder
        with torch.device("meta"), quiet():
            built = type(loaded.model)(config)
        layers = find_decoder(loaded.name, built).layers
    except Exception as error:  # a model's own code may raise anything for a config that it does not support
        reason = shortened(error, 200)
        raise ModelError(f"{loaded.name}: no model can be built of {len(kept)} of its layers ({reason})") from error
    pairs = [(_described(own), _described(other)) for own, other in zip(kept, layers, strict=True)]
    wrong = next(
        (f"layer {at}'s {name}" for at, (own, other) in enumerate(pairs) for name in sorted(own.keys() | other.keys())
         if own.get(name, "absent") != other.get(name, "absent")),
        None,
    )  # fmt: skip
    if wrong is not None:
        raise ModelError(
            f"{loaded.name}: with layers taken out, its config would describe another model ({wrong} depends on the "
            "number of layers or on the layer's place); set prune.method to none for it"
        )


def _described(layer: nn.Module) -> dict[str, Any]:
    """Shapes of parameters and plain settings of a layer and its parts, without the layer's own number."""
    found: dict[str, Any] = {name: tuple(parameter.shape) for name, parameter in layer.named_parameters()}
    for path, module in layer.named_modules():
        found[path] = type(module)
        for name, value in vars(module).items():
            if name not in ("training", _NUMBER) and not name.startswith("_"):
                plain = value is None or isinstance(value, bool | int | float | str)
                if plain:
                    found[f"{path}.{name}"] = value
    return found


__all__ = ["MAX_SHARE", "THRESHOLD", "choose_layers", "decoder_layers", "layer_similarity", "remove_layers"]
