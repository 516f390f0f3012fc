"""A batch of samples → scores and the numbers of the criteria: one pass through trunk and head."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from donod_fast.criteria.base import BatchView
from donod_fast.criteria.running import NO_SIGNALS, SignalSet
from donod_fast.data.types import TokenizedSample
from donod_fast.errors import InputError
from donod_fast.kernels import DonNod, Update, don_nod, token_statistics
from donod_fast.kernels.arguments import DEFAULT_WORKSPACE, MIB
from donod_fast.kernels.dispatch import refuse_without_float8
from donod_fast.kernels.scores import precise_dtype
from donod_fast.models.batching import Batch, first_slots
from donod_fast.models.head import Head
from donod_fast.models.trunk import Trunk
from donod_fast.scores.rows import SCORE_COLUMNS
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.system.profiling import NO_STAGES, Stages


@dataclass(frozen=True, slots=True, eq=False)
class HeadCall:
    """How DON and NOD are computed from hidden states.

    Attributes:
        head: the output layer.
        settings: the update that scores a sample.
        weight_norm: ‖W‖_F of the output layer; None to compute it in every call.
        backend: kernels of the head, see ``don_nod``.
        warm: the update with its state, for adamw-warm.
    """

    head: Head
    settings: UpdateSettings
    weight_norm: float | None = None
    backend: str = "auto"
    warm: Update | None = None

    def scores(
        self,
        hidden: Tensor,  # (tokens, dim)
        labels: Tensor,  # (tokens,) int64
        cu_seqlens: Tensor,  # (samples + 1,) int32
        *,
        workspace_bytes: int = DEFAULT_WORKSPACE,
        extras: Collection[str] = (),
    ) -> DonNod:
        """DON, NOD and the other numbers of each sample; arguments, result and errors as of ``don_nod``."""
        settings, head = self.settings, self.head
        return don_nod(
            hidden,
            head.weight,
            labels,
            cu_seqlens,
            lr=settings.lr,
            update=settings.rule() if self.warm is None else self.warm,
            weight_decay=settings.weight_decay,
            reduction=settings.reduction,
            bias=head.bias,
            logit_scale=head.logit_scale,
            softcap=head.softcap,
            backend=self.backend,
            storage_dtype=settings.rounding(),
            weight_norm=self.weight_norm,
            workspace_bytes=workspace_bytes,
            extras=extras,
            precision=settings.head_precision,
        )

    def refuse_unsupported(self) -> None:
        """Refuse a precision that the output layer, its device or the backend does not support.

        Raises:
            BackendError: says why.
        """
        if self.settings.head_precision == "float8":
            refuse_without_float8(self.head.weight, self.settings.rule(), self.settings.rounding(), self.backend)

    def with_cheapest_update(self) -> HeadCall:
        """The same with an update that costs least, for what does not depend on the update."""
        reduction, lr = self.settings.reduction, self.settings.lr
        cheapest = UpdateSettings("sgd", lr=lr, reduction=reduction)
        return replace(self, settings=cheapest, warm=None)


@dataclass(frozen=True, slots=True, eq=False)
class BatchRequest:
    """What is computed from a batch: its first ``own`` samples are rows, the others belong to a second pass.

    Attributes:
        samples: the samples of the batch, in its order; only criteria look at them, and may be empty without criteria.
        own: how many of the samples are rows.
        signals: the criteria.
        scores: whether the rows get DON and NOD.
        token_losses: whether the loss of each scored token of the rows is returned.
    """

    samples: Sequence[TokenizedSample]
    own: int
    signals: SignalSet = NO_SIGNALS
    scores: bool = True
    token_losses: bool = False


class Launched(NamedTuple):
    """What comes from a batch, on the head's device, which may not have computed it yet.

    Attributes:
        numbers: (samples, 6 + width). A row has its scores in the order of ``SCORE_COLUMNS`` (NaN without ``scores``),
            then the numbers of the criteria. A sample of the second pass has the sum of its token losses in nats in the
            first column.
        token_losses: (scored tokens of the rows,) float32, cross entropy in nats; None unless requested.
    """

    numbers: Tensor
    token_losses: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Forward:
    """Trunk and head of one model.

    Attributes:
        trunk: the decoder without its output layer.
        call: how scores are computed from hidden states.
        workspace_bytes: memory that the head mathematics may hold at once, at least 1 MiB.

    Raises:
        InputError: the workspace is too small.
    """

    trunk: Trunk
    call: HeadCall
    workspace_bytes: int

    def __post_init__(self) -> None:
        if self.workspace_bytes < MIB:  # each worker gets at least this much of it
            raise InputError(f"workspace must be at least 1 MiB ({MIB} bytes), got {self.workspace_bytes} bytes")

    @property
    def device(self) -> torch.device:
        """The device of the head, which computes the scores."""
        return self.call.head.weight.device

    def scores(self, batch: Batch) -> Tensor:
        """(samples, 6) scores of a batch on the host, in the order of ``SCORE_COLUMNS``."""
        return self.launch(batch, BatchRequest((), len(batch.members))).numbers.cpu()

    @torch.inference_mode()
    def launch(self, batch: Batch, request: BatchRequest, workers: int = 1, stages: Stages = NO_STAGES) -> Launched:
        """Start a batch on its way through trunk and head; nothing is read back from the device.

        Args:
            batch: the batch.
            request: what is computed from it.
            workers: batches that run at the same time; each gets its share of the workspace.
            stages: records where the time goes.
        """
        trunk, head, signals, own = self.trunk, self.call.head, request.signals, request.own
        workspace_bytes = max(MIB, self.workspace_bytes // workers)
        with stages.on_device("trunk"):
            states = trunk.states(batch) if signals.needs_states else None
            if states is None:
                hidden = trunk.scored_states(batch)
            else:
                hidden = states[batch.predictors.to(states.device, non_blocking=True)]
            hidden = hidden.to(self.device, non_blocking=True)
        with stages.on_device("head"):
            labels = batch.labels.to(self.device, non_blocking=True)
            cut = int(batch.cu_seqlens[own])
            shape = (len(batch.members), len(SCORE_COLUMNS) + signals.width)
            out = torch.full(shape, torch.nan, dtype=precise_dtype(self.device), device=self.device)
            token_losses = None
            if own:
                bounds = batch.cu_seqlens[: own + 1]
                found = self._found(hidden[:cut], labels[:cut], bounds, request, workspace_bytes)
                if request.scores and found is not None:
                    columns = [getattr(found, name).to(out.dtype) for name in SCORE_COLUMNS]
                    out[:own, : len(SCORE_COLUMNS)] = torch.stack(columns, 1)
                if request.token_losses and found is not None and found.token_loss is not None:
                    token_losses = found.token_loss.float()
                if signals.width:
                    view = BatchView(
                        request.samples[:own],
                        hidden[:cut],
                        labels[:cut],
                        bounds,
                        head,
                        self.call.settings.reduction,
                        workspace_bytes,
                        None if found is None else found.error_norm,
                        None if found is None else found.gradient_norm,
                        states,
                        first_slots(batch)[:own],
                    )
                    out[:own, len(SCORE_COLUMNS) :] = signals.of_batch(view)
            if own < len(batch.members):
                losses = token_statistics(
                    hidden[cut:],
                    head.weight,
                    labels[cut:],
                    bias=head.bias,
                    logit_scale=head.logit_scale,
                    softcap=head.softcap,
                    workspace_bytes=workspace_bytes,
                ).loss
                lengths = batch.cu_seqlens[own:].diff().tolist()
                out[own:, 0] = torch.stack([part.sum() for part in torch.split(losses, lengths)])
        return Launched(out, token_losses)

    def _found(
        self, hidden: Tensor, labels: Tensor, bounds: Tensor, request: BatchRequest, workspace_bytes: int
    ) -> DonNod | None:
        """DON, NOD and the fields that were asked for besides from the head; None if neither is requested."""
        extras = (*request.signals.extras, *(("token_loss",) if request.token_losses else ()))
        if not request.scores and not extras:
            return None
        call = self.call if request.scores else self.call.with_cheapest_update()
        return call.scores(hidden, labels, bounds, workspace_bytes=workspace_bytes, extras=extras)


__all__ = ["BatchRequest", "Forward", "HeadCall", "Launched"]
