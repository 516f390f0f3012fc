"""Dynamic pack: put the samples of a micro-batch into few rows, with little padding (arXiv 2504.12687).

Two variants. ``"paper"`` is the algorithm of its authors (their ``DataCollatorWithDynamicPack``): cut samples to the
limit, sort them by length, put one after the other into a row until the next does not fit, pad the rows to the longest.
Nothing separates the samples of a row: a sample attends to those before it, and positions continue.

``"isolated"`` is ours, and is recommended: a sample attends only to itself, at positions from 0, so losses and
gradients are those of the unpacked batch. Samples may be in any row, so the rows are filled evenly.

How samples are isolated depends on the model's attention. The way is found and verified on a probe (:func:`isolate`):

    positions   position ids that start again at 0 with each sample, and no mask: transformers makes its own (sdpa,
                eager, flex), with sliding windows counted within samples; with a cache of keys it would not
    bounds      the same with the bounds of the samples (``cu_seq_lens_q`` …), which flash attention takes
    mask        the same with a block-diagonal causal mask (rows, 1, longest, longest), for models that make none of
                positions; it would take the place of a sliding window, so such models are refused it

Except with ``bounds``, attention is computed over whole rows and then masked, so rows much longer than samples cost
time.

In both variants a sample's first token is not a target: no token of that sample predicts it, and unpacked training
has no loss there. (The authors keep it as a target of the token before it, if its label is not −100.)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from donod_fast.data.types import IGNORE_INDEX
from donod_fast.errors import InputError, ModelError
from donod_fast.models.loading import text_config
from donod_fast.models.packing import config_refusal
from donod_fast.system.wording import plural, shortened

Variant = Literal["paper", "isolated"]
Way = Literal["positions", "bounds", "mask"]
VARIANTS: tuple[Variant, ...] = ("paper", "isolated")

_PROBE_LENGTHS = (12, 1, 7, 5)
_LONGEST_WINDOW = 128
"""Sliding windows up to this size are probed with a sample that is longer than the window."""


@dataclass(frozen=True)
class Isolation:
    """How attention between the packed samples of a model is prevented.

    Attributes:
        way: see the module.
        mask_dtype: of the mask: bool for sdpa, the weights' dtype for eager, which adds it; for ``"mask"`` only.
        error: how far the losses of packed tokens were measured from those alone (mean over tokens, relative).
    """

    way: Way
    mask_dtype: torch.dtype = torch.bool
    error: float = 0.0


@dataclass(frozen=True)
class _Layout:
    """The place of each sample: its row and its first position there, in the order of the samples."""

    rows: list[list[int]]
    places: list[tuple[int, int]]
    longest: int


class DynamicPackCollator:
    """A data collator for any ``transformers.Trainer``: the samples of a batch, packed into fewer rows.

        trainer = Trainer(model, args, train_dataset=rows,
                          data_collator=DynamicPackCollator.for_model(model, max_length=2048))

    where ``args`` has ``per_device_train_batch_size`` samples to pack, and each of ``rows`` is a dict with
    ``input_ids`` and ``labels`` (−100 is not a target; without labels every token is a target). Tokens with an
    ``attention_mask`` of 0 are left out; other keys are dropped.

    Attributes:
        max_length: most tokens of a row.
        pad_id: fills the rows.
        isolation: how samples are kept apart; None for the paper's variant.
        truncated: samples that were cut to ``max_length`` so far. With ``dataloader_num_workers`` each worker process
            counts for itself, in its own copy.
    """

    def __init__(self, max_length: int, pad_id: int = 0, isolation: Isolation | None = None) -> None:
        """For the paper's variant; an isolated one is made by :meth:`for_model`, which proves it.

        Raises:
            InputError: the length is too small to hold a target.
        """
        if max_length < 2:
            raise InputError(f"max_length {max_length} is too small to pack into: a target needs a token before it")
        self.max_length, self.pad_id, self.isolation = max_length, pad_id, isolation
        self.truncated = 0

    @classmethod
    def for_model(
        cls,
        model: Any,
        max_length: int,
        pad_id: int = 0,
        variant: Variant = "isolated",
        *,
        context: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> DynamicPackCollator:
        """A collator whose samples are proved to be isolated in this model, or the paper's.

        Args:
            model: a causal language model, with the attention that it will be trained with.
            max_length: most tokens of a row.
            pad_id: fills the rows.
            variant: ``"isolated"`` or ``"paper"``.
            context: entered around the forwards of the proof, as ``Trainer.compute_loss_context_manager``.

        Raises:
            InputError: no such variant; a length that is too small, or, in the paper's variant, where positions
                continue over samples, above the model's own limit.
            ModelError: the model's samples cannot be isolated; says why.
        """
        if variant not in VARIANTS:
            raise InputError(f"packing {variant!r} is not known; use {', '.join(map(repr, VARIANTS))}")
        found = cls(max_length, pad_id)
        if variant == "isolated":
            found.isolation = isolate(model, max_length, context=context)
            return found
        limit = getattr(text_config(model.config), "max_position_embeddings", None)
        if isinstance(limit, int) and max_length > limit:
            raise InputError(
                f"max_length {max_length} is past the model's {limit} positions, which run on over packed samples "
                f"in packing 'paper'; give at most {limit}"
            )
        return found

    def __call__(self, features: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Pack samples.

        Returns:
            ``input_ids`` and ``labels``, (rows, longest row) int64, and what the variant needs: ``attention_mask``
            of the same shape (paper), or ``position_ids`` of the same shape, ``use_cache`` False and what its way
            needs more (isolated).

        Raises:
            InputError: there is no sample, or one whose labels are not as many as its tokens.
        """
        samples = [self._sample(feature, at) for at, feature in enumerate(features)]
        if not samples:
            raise InputError("no sample to pack: the batch is empty")
        return self._batch(samples, self._layout([len(ids) for ids, _ in samples]))

    def _sample(self, feature: Mapping[str, Any], at: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Ids and labels, (tokens,) each, cut to the limit; the first label is none."""
        try:
            ids = np.asarray(feature["input_ids"], dtype=np.int64).reshape(-1)
        except KeyError:
            raise InputError(f"sample {at} of the batch has no input_ids; it has {', '.join(feature)}") from None
        given = feature.get("labels")
        labels = np.array(ids if given is None else given, dtype=np.int64).reshape(-1)
        attended = feature.get("attention_mask")
        kept = np.ones(len(ids), dtype=bool) if attended is None else np.asarray(attended, dtype=bool).reshape(-1)
        if not len(ids) == len(labels) == len(kept):
            raise InputError(
                f"sample {at} of the batch has {plural(len(ids), 'token')}, {len(labels)} labels and a mask of "
                f"{len(kept)}; "
                "they must be as many"
            )
        ids, labels = ids[kept], labels[kept]
        self.truncated += len(ids) > self.max_length
        ids, labels = ids[: self.max_length], labels[: self.max_length]
        labels[:1] = IGNORE_INDEX
        return ids, labels

    def _layout(self, lengths: Sequence[int]) -> _Layout:
        rows = packed_rows(lengths, self.max_length, even=self.isolation is not None)
        places = [(0, 0)] * len(lengths)
        longest = 1
        for row, members in enumerate(rows):
            at = 0
            for member in members:
                places[member] = row, at
                at += lengths[member]
            longest = max(longest, at)
        return _Layout(rows, places, longest)

    def _batch(
        self, samples: Sequence[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]], layout: _Layout
    ) -> dict[str, Any]:
        shape = len(layout.rows), layout.longest
        ids = np.full(shape, self.pad_id, dtype=np.int64)
        labels = np.full(shape, IGNORE_INDEX, dtype=np.int64)
        positions = np.zeros(shape, dtype=np.int64)
        filled = np.zeros(shape[0], dtype=np.int64)
        for (sample_ids, sample_labels), (row, start) in zip(samples, layout.places, strict=True):
            part = row, slice(start, start + len(sample_ids))
            ids[part], labels[part], positions[part] = sample_ids, sample_labels, np.arange(len(sample_ids))
            filled[row] += len(sample_ids)
        batch: dict[str, Any] = {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels)}
        padding = np.arange(layout.longest) >= filled[:, None]
        if self.isolation is None:
            batch["attention_mask"] = torch.from_numpy((~padding).astype(np.int64))
            return batch
        # What fills a row is a sample of its own, which nothing is computed from.
        positions = np.where(padding, np.arange(layout.longest) - filled[:, None], positions)
        batch["position_ids"] = torch.from_numpy(positions)
        batch["use_cache"] = False  # with a cache transformers makes no mask of positions, and says nothing
        if self.isolation.way == "bounds":
            batch |= _bounds(positions)
        elif self.isolation.way == "mask":
            batch["attention_mask"] = _block_mask(batch["position_ids"], self.isolation.mask_dtype)
        return batch


def packed_rows(lengths: Sequence[int], max_length: int, *, even: bool = False) -> list[list[int]]:
    """Which samples share a row, and in which order.

    Args:
        lengths: tokens of each sample, at most ``max_length``.
        max_length: most tokens of a row.
        even: fill as many rows as the paper's algorithm does, but evenly (the longest sample first, each into the
            row with the fewest tokens); where that overfills a row, the paper's rows are kept.

    Returns:
        The numbers of the samples in each row: each once.
    """
    order = sorted(range(len(lengths)), key=lambda at: lengths[at])
    rows: list[list[int]] = [[]]
    filled = 0
    for at in order:
        if rows[-1] and filled + lengths[at] > max_length:
            rows.append([])
            filled = 0
        rows[-1].append(at)
        filled += lengths[at]
    if not even:
        return rows
    spread: list[list[int]] = [[] for _ in rows]
    tokens = [0] * len(rows)
    for at in reversed(order):
        row = tokens.index(min(tokens))
        spread[row].append(at)
        tokens[row] += lengths[at]
    return spread if max(tokens) <= max_length else rows


def isolate(
    model: Any, max_length: int, *, context: Callable[[], AbstractContextManager[Any]] = nullcontext
) -> Isolation:
    """Find a way to isolate the packed samples of a model, and verify it.

    In a batch of two rows, packed tokens must have the losses that they have alone; and with other tokens in the
    first sample of a row, the losses of later samples must not change.

    Args:
        model: a causal language model; its mode is not changed.
        max_length: most tokens of a row that will be packed.
        context: entered around each forward.

    Raises:
        ModelError: no way isolates the samples; the message says why.
    """
    config = text_config(model.config)
    refusal = config_refusal(model, config)
    reasons = [refusal] if refusal else []
    training = model.training
    model.eval()
    try:
        for isolation in () if refusal else _ways(model, config, max_length, reasons):
            try:
                found = _measured(model, config, isolation, context)
            except Exception as error:  # the model's own code may raise anything
                found = f"its packed forward fails: {shortened(error, 200) or type(error).__name__}"
            if isinstance(found, Isolation):
                return found
            reasons.append(f"by {isolation.way}, {found}")
    finally:
        model.train(training)
    raise ModelError(
        f"samples of this model cannot be packed in isolation: {'; '.join(reasons)}; train without packing, or with "
        "packing 'paper' if they may attend to each other"
    )


def _ways(model: Any, config: Any, max_length: int, reasons: list[str]) -> list[Isolation]:
    attention = str(getattr(config, "_attn_implementation", None) or "eager")
    if attention not in ("sdpa", "eager", "flex_attention"):  # flash attention, and what takes its arguments
        return [Isolation("bounds")]
    ways = [Isolation("positions")]
    window = getattr(config, "sliding_window", None)
    if getattr(config, "use_sliding_window", True) is False:
        window = None
    if attention == "flex_attention":
        return ways
    if isinstance(window, int) and 0 < window < max_length:
        reasons.append(f"a mask would take the place of its sliding window of {window}")
        return ways
    dtype = torch.bool if attention == "sdpa" else next(model.parameters()).dtype
    return [*ways, Isolation("mask", dtype)]


def _measured(
    model: Any, config: Any, isolation: Isolation, context: Callable[[], AbstractContextManager[Any]]
) -> Isolation | str:
    """The way with its error, or why it does not isolate."""
    window = getattr(config, "sliding_window", None)
    lengths = list(_PROBE_LENGTHS)
    if isinstance(window, int) and max(lengths) <= window + 5 <= _LONGEST_WINDOW:
        lengths.append(window + 5)
    generator = np.random.default_rng(0)
    vocabulary = int(config.vocab_size)
    samples = [generator.integers(0, vocabulary, length) for length in lengths]
    collator = DynamicPackCollator(sum(lengths), isolation=isolation)
    # The second row is the first one without its last sample, so it is padded.
    members = list(range(len(lengths)))
    twice = [*samples, *samples[:-1]]
    rows = [members, [len(lengths) + at for at in members[:-1]]]
    starts = np.cumsum([0, *lengths])
    places = [(row, int(starts[at])) for row, here in enumerate(rows) for at in range(len(here))]
    layout = _Layout(rows, places, sum(lengths))

    def losses(ids: Sequence[npt.NDArray[np.int64]]) -> list[Tensor]:
        batch = collator._batch([(one, one) for one in ids], layout)
        logits = _logits(model, batch, context)
        return [
            _token_losses(logits[row, start : start + len(one)], one)
            for one, (row, start) in zip(ids, places, strict=True)
        ]

    packed = losses(twice)
    computed = _logits(model, _alone(samples[0]), context)  # under autocast in another dtype than the weights'
    alone = [_token_losses(_logits(model, _alone(one), context)[0], one) for one in samples]
    distance = torch.cat([(a - b).abs() for a, b in zip(packed, [*alone, *alone[:-1]], strict=True)])
    error = float(distance.mean() / torch.cat(alone).mean())
    first = (samples[0] + 1 + generator.integers(0, vocabulary - 1, lengths[0])) % vocabulary
    changed = losses([first, *samples[1:], first, *samples[1:-1]])
    # Of each sample the median: a mixture of experts may route a single token elsewhere for a rounding.
    leaks = [
        float((a - b).abs().median()) for at, (a, b) in enumerate(zip(changed, packed, strict=True))
        if len(a) and at not in (0, len(lengths))
    ]  # fmt: skip
    half = bool({next(model.parameters()).dtype, computed.dtype} & {torch.bfloat16, torch.float16})
    if not max(leaks) <= (1e-2 if half else 1e-5):
        return f"the loss of a token changes with the sample packed before its own (by {max(leaks):.1e})"
    limit = 2e-2 if half else 1e-4
    if not error <= limit:
        return f"the losses of packed tokens differ from those alone (by {error:.1e} of them, limit {limit:.0e})"
    return Isolation(isolation.way, isolation.mask_dtype, error)


def _alone(ids: npt.NDArray[np.int64]) -> dict[str, Any]:
    return {"input_ids": torch.from_numpy(ids)[None], "use_cache": False}


def _logits(model: Any, batch: Mapping[str, Any], context: Callable[[], AbstractContextManager[Any]]) -> Tensor:
    """(rows, longest, V) of a batch, without gradients."""
    device = next(model.parameters()).device
    inputs = {
        name: value.to(device) if isinstance(value, Tensor) else value
        for name, value in batch.items()
        if name != "labels"
    }
    with torch.no_grad(), context():
        found: Tensor = model(**inputs).logits
    return found


def _token_losses(logits: Tensor, ids: npt.NDArray[np.int64]) -> Tensor:
    """(tokens, V) logits and (tokens,) ids → (tokens − 1,) losses in float64, on the CPU."""
    targets = torch.from_numpy(ids[1:])
    return torch.nn.functional.cross_entropy(logits[:-1].double().cpu(), targets, reduction="none")


def _bounds(positions: npt.NDArray[np.int64]) -> dict[str, Any]:
    """The bounds of samples over all rows one after the other, as flash attention takes them."""
    starts = np.flatnonzero(positions.reshape(-1) == 0)
    bounds = np.append(starts, positions.size).astype(np.int32)
    longest = int(np.diff(bounds).max())
    found = torch.from_numpy(bounds)
    return {"cu_seq_lens_q": found, "cu_seq_lens_k": found, "max_length_q": longest, "max_length_k": longest}


def _block_mask(positions: Tensor, dtype: torch.dtype) -> Tensor:
    """(rows, longest) positions → (rows, 1, longest, longest): True or 0 where a query may look, else False or −max."""
    sample = (positions == 0).cumsum(-1)
    place = torch.arange(positions.shape[1])
    seen = (sample[:, :, None] == sample[:, None, :]) & (place[:, None] >= place)
    if dtype == torch.bool:
        return seen[:, None]
    return torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)[:, None]


__all__ = ["VARIANTS", "DynamicPackCollator", "Isolation", "Variant", "Way", "isolate", "packed_rows"]
