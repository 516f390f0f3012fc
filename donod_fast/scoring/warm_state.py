"""The state of ``--update adamw-warm``: AdamW's second moment, estimated on a sample of the corpus.

It is kept beside the scores. It has the shape of the output layer, factored by row and column as in Adafactor (Shazeer
and Stern 2018, arXiv 1804.04235, eq. 4); :class:`donod_fast.kernels.FactoredAdamW` is the step and says how it differs
from AdamW with the whole state.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from donod_fast.data.types import Record, Status, TokenizedSample
from donod_fast.errors import InputError, StoreError
from donod_fast.kernels import FactoredAdamW
from donod_fast.kernels.second_moments import second_moments
from donod_fast.models.batching import collate
from donod_fast.scoring.forward import Forward

if TYPE_CHECKING:
    from donod_fast.data.reading import Corpus

FILE = "warm-state.parquet"
"""Its name in a scores folder."""


@dataclass(frozen=True, slots=True, eq=False)
class WarmState:
    """Factors of the second moment of the output layer's gradient.

    Attributes:
        rows: (vocab,) float64 on the host, mean over samples of Σ_s (G_vs² + eps²).
        columns: (dim,) float64 on the host, mean over samples of Σ_v (G_vs² + eps²).
    """

    rows: Tensor
    columns: Tensor

    def rule(self, device: torch.device) -> FactoredAdamW:
        """The step with this state, on a device."""
        dtype = torch.float32 if device.type == "mps" else torch.float64
        return FactoredAdamW(self.rows.to(device, dtype), self.columns.to(device, dtype))

    def to_bytes(self) -> bytes:
        """As a Parquet file with checksums; equal states give equal bytes."""
        import pyarrow as pa

        from donod_fast.system.sealed_parquet import sealed_bytes

        factor = ["row"] * len(self.rows) + ["column"] * len(self.columns)
        value = torch.cat([self.rows, self.columns]).numpy()
        return sealed_bytes(pa.table({"factor": factor, "value": value}), compression="zstd")

    @staticmethod
    def from_bytes(content: bytes, digest: str, name: str) -> WarmState:
        """Read :meth:`to_bytes`, and compare its hash with the one that the manifest recorded.

        Raises:
            StoreError: the file is another one or damaged; names it.
        """
        import pyarrow as pa

        from donod_fast.system.checked_json import DamagedError
        from donod_fast.system.sealed_parquet import open_sealed

        remedy = "restore it from a copy, or score again with --overwrite"
        if state_digest(content) != digest:
            raise StoreError(f"{name} is not the state that the scores were made with; {remedy}")
        try:
            table = open_sealed(io.BytesIO(content), needs_seal=True).table()
            factor, value = (
                table.column("factor").to_pylist(),
                torch.from_numpy(table.column("value").to_numpy().copy()),
            )
        except (DamagedError, OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise StoreError(f"{name} is damaged ({error}); {remedy}") from error
        is_row = torch.tensor([one == "row" for one in factor])
        return WarmState(value[is_row], value[~is_row])


def state_digest(content: bytes) -> str:
    """Hash of a state's file, for the manifest."""
    return hashlib.sha256(content).hexdigest()


def sampled_records(corpus: Corpus, rows: int, seed: int) -> list[Record]:
    """A seeded sample of a corpus, in its order; all records if there are fewer.

    Raises:
        CorpusError: an input cannot be read.
    """
    places = set(Random(f"warm/{seed}").sample(range(corpus.rows), min(rows, corpus.rows)))
    return [record for record in _until(corpus.records(), max(places, default=-1)) if record.row in places]


def _until(records: Iterable[Record], last: int) -> Iterable[Record]:
    for record in records:
        if record.row > last:
            return
        yield record


@torch.inference_mode()
def estimate_state(forward: Forward, samples: Sequence[TokenizedSample]) -> WarmState:
    """Estimate the state from some samples; those that cannot be scored are passed over.

    Each sample is a batch of its own, so that the order of the samples is all that the rounding depends on. Memory is
    that of a batch of one row and the forward pass's workspace.

    Raises:
        InputError: none of the samples can be scored.
    """
    call, settings = forward.call, forward.call.settings
    vocab, dim = call.head.weight.shape
    rows, columns, count = torch.zeros(vocab).double(), torch.zeros(dim).double(), 0
    for at, sample in enumerate(samples):
        if sample.status is not Status.SCORED:
            continue
        batch = collate(samples, [at], rope=forward.trunk.rope)
        found = second_moments(
            forward.trunk.scored_states(batch).to(forward.device),
            call.head.weight,
            batch.labels.to(forward.device),
            batch.cu_seqlens,
            reduction=settings.reduction,
            bias=call.head.bias,
            logit_scale=call.head.logit_scale,
            softcap=call.head.softcap,
            workspace_bytes=forward.workspace_bytes,
        )
        if bool(found.rows.isfinite().all()):  # a row that gives NaN is not scored either
            rows, columns, count = rows + found.rows.cpu(), columns + found.columns.cpu(), count + found.samples
    if not count:
        raise InputError(
            f"update adamw-warm: none of the {len(samples):,} sampled rows can be scored; raise --warm-rows, or take "
            "another --warm-seed"
        )
    square = settings.eps**2
    return WarmState(rows / count + dim * square, columns / count + vocab * square)


__all__ = ["FILE", "WarmState", "estimate_state", "sampled_records", "state_digest"]
