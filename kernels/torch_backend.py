"""Plain-PyTorch backend of ``don_nod``: any torch device, limited workspace, no V × d gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from donod_fast.kernels.arguments import HeadBatch
from donod_fast.kernels.direct import TileSums, tile_step, unit_of
from donod_fast.kernels.float8 import add_product, rounded_states, row_scales
from donod_fast.kernels.fused import can_fuse, compiled_row_sums, denominators
from donod_fast.kernels.gram import gram_norm_squared, weighted_gram_sum
from donod_fast.kernels.precision import full_precision
from donod_fast.kernels.scores import DonNod, don_and_nod, precise_dtype, with_weight_decay
from donod_fast.kernels.signals import streamed_statistics
from donod_fast.kernels.softmax import (
    TokenStatistics,
    constant_slope,
    delta_columns,
    fill_preactivations,
    label_preactivations,
    normalise_rows,
)
from donod_fast.kernels.updates import FactoredAdamW
from donod_fast.kernels.workspace import Workspace, gram_is_cheaper, plan_workspace, signal_buffer


@torch.no_grad()
def torch_don_nod(batch: HeadBatch, *, fused: bool = False) -> DonNod:
    """Compute DON, NOD and the statistics of every sample of a checked batch.

    ``fused`` compiles AdamW's passes over a tile into one if possible (see ``fused.py``).
    """
    with full_precision(batch.hidden.device):
        return _Run(batch, fused=fused).scores()


def frobenius_norm(weight: Tensor, *, block_bytes: int = 1 << 25) -> float:
    """Compute ‖W‖_F in float64, a few rows at a time; ``weight`` is (vocab, dim), any floating dtype."""
    precise = precise_dtype(weight.device)
    rows = max(1, block_bytes // (2 * precise.itemsize * weight.shape[1]))  # a cast and its squares
    total = weight.new_zeros((), dtype=precise)
    for start in range(0, weight.shape[0], rows):
        total += weight[start : start + rows].detach().to(precise).square().sum()
    return float(total.sqrt())


class _Run:
    """Sums of every sample of one call, computed group by group."""

    def __init__(self, batch: HeadBatch, *, fused: bool) -> None:
        self.batch = batch
        self._fused = fused and can_fuse(batch)
        self.plan: Workspace = plan_workspace(batch)
        device = batch.hidden.device
        self.precise = precise_dtype(device)
        self.slope = constant_slope(batch.head)
        samples = len(batch.lengths)
        # Columns: loss, entropy, ⟨W,U⟩, ‖U‖² of the update without weight decay.
        self.sums = torch.full((samples, 4), torch.nan, dtype=self.precise, device=device)
        self._errors = "error_norm" in batch.extras
        self._norms = "gradient_norm" in batch.extras
        rows = batch.hidden.shape[0] if "token_loss" in batch.extras else 0
        self._token_loss = self.sums.new_full((rows,), torch.nan)
        # Columns: mean error norm, ‖G‖².
        self.extra_sums = torch.full_like(self.sums[:, :2], torch.nan)
        shape = (self.plan.tile_rows, batch.weight.shape[1])
        self._tile = torch.empty(shape, dtype=batch.compute_dtype, device=device)
        self._scratch = torch.empty_like(self._tile)
        self._step = tile_step(
            batch.update,
            lr=batch.lr,
            weight_decay=batch.weight_decay,
            storage_dtype=batch.storage_dtype,
            scratch=self._scratch,
        )
        self._linear = batch.update.linear and batch.storage_dtype is None
        warm = batch.update if isinstance(batch.update, FactoredAdamW) else None
        self._divisors = None if warm is None else warm.divisors(batch.compute_dtype)

    def scores(self) -> DonNod:
        batch, lengths = self.batch, self.batch.lengths
        group: list[int] = []
        tokens = 0
        for sample, length in enumerate(lengths):
            if length == 0:
                continue
            if length > self.plan.group_tokens:
                self._streamed(sample)
                continue
            if tokens + length > self.plan.group_tokens:
                self._stored(group)
                group, tokens = [], 0
            group.append(sample)
            tokens += length
        if group:
            self._stored(group)
        loss, entropy, dot, norm_sq = self.sums.unbind(1)
        norm = batch.weight_norm
        if norm is None:
            norm = frobenius_norm(batch.weight, block_bytes=batch.workspace_bytes // 8)
        if batch.storage_dtype is None:
            dot, norm_sq = with_weight_decay(dot, norm_sq, norm, batch.weight_decay)
        update_norm = norm_sq.sqrt()
        don, nod = don_and_nod(dot, update_norm, norm, batch.lr)
        counts = torch.tensor(lengths, dtype=torch.int32).to(loss.device)
        error_norm = self.extra_sums[:, 0] if self._errors else None
        gradient_sq = self.sums[:, 3] if self._linear else self.extra_sums[:, 1]
        gradient_norm = gradient_sq.sqrt() if self._norms else None
        token_loss = self._token_loss if "token_loss" in batch.extras else None
        return DonNod(don, nod, loss, entropy, dot, update_norm, counts, error_norm, gradient_norm, token_loss)

    # ---- stored signals: a group of samples at once ----------------------------------------------

    def _stored(self, group: list[int]) -> None:
        batch, plan = self.batch, self.plan
        rows, labels = self._rows_of(group)
        hidden = batch.hidden[rows].to(batch.compute_dtype)
        vocab = batch.weight.shape[0]
        signals = signal_buffer(len(labels), vocab, hidden)
        fill_preactivations(hidden, batch.weight, signals, plan.cast_rows)
        label_a = label_preactivations(hidden, batch.weight, labels)
        statistics = normalise_rows(signals, labels, label_a, batch.head, plan.row_block, squares=self._errors)
        self._keep_losses(rows, statistics)
        spans = _spans([batch.lengths[sample] for sample in group])
        magnitudes = self._reduce(group, spans, statistics, hidden)
        if self._divisors is not None:
            signals.mul_(self._divisors[0])
            hidden.mul_(self._divisors[1])
            if self._linear:
                self._write_dots(group, spans, magnitudes, self._token_dots(signals, hidden))
        by_tiles = list(range(len(group)))
        if self._linear:
            dim = batch.weight.shape[1]
            by_tiles = [i for i in by_tiles if not gram_is_cheaper(batch.lengths[group[i]], vocab, dim)]
            for i in set(range(len(group))) - set(by_tiles):
                norm_sq = gram_norm_squared(signals[spans[i]], hidden[spans[i]])
                self.sums[group[i], 3] = norm_sq * magnitudes[i] ** 2
        if by_tiles:
            rounded = {i: rounded_states(hidden[spans[i]]) for i in by_tiles if group[i] in batch.float8}

            def gradient(at: int, v: slice) -> Tensor:
                i = by_tiles[at]
                d, out = signals[spans[i], v], self._out(v)
                if i in rounded:
                    add_product(out.zero_(), d, rounded[i], row_scales(d, rounded[i][1]))
                    return out
                return torch.mm(d.t(), hidden[spans[i]], out=out)

            self._tiles([group[i] for i in by_tiles], [magnitudes[i] for i in by_tiles], gradient)

    # ---- streamed signals: one long sample ---------------------------------------------------------

    def _streamed(self, sample: int) -> None:
        batch, plan = self.batch, self.plan
        rows, labels = self._rows_of([sample])
        vocab, dim = batch.weight.shape
        blocks = [slice(i, min(i + plan.stream_tokens, len(labels))) for i in range(0, len(labels), plan.stream_tokens)]
        statistics = streamed_statistics(batch, rows, labels, plan, squares=self._errors)
        self._keep_losses(rows, statistics)
        scale, relative = self._magnitudes([sample], [slice(0, len(labels))], statistics)
        self._write_token_sums([sample], [slice(0, len(labels))], statistics)

        def signals(block: slice, v: slice) -> Tensor:
            a = batch.hidden[rows[block]].to(batch.compute_dtype) @ self._weight(v).t()
            found = delta_columns(a, labels[block], v.start, statistics.log_rest[block], batch.head)
            return found if self._divisors is None else found.mul_(self._divisors[0][v])

        def scaled_hidden(block: slice) -> Tensor:
            found = batch.hidden[rows[block]].to(batch.compute_dtype) * relative[block].unsqueeze(1)
            return found if self._divisors is None else found.mul_(self._divisors[1])

        length = len(labels)
        if self._divisors is not None and self._linear:
            dots = [relative.new_zeros(block.stop - block.start, dtype=self.precise) for block in blocks]
            for start in range(0, vocab, plan.stream_vocab):
                span = slice(start, min(start + plan.stream_vocab, vocab))
                for at, block in enumerate(blocks):
                    logits = scaled_hidden(block) @ self._weight(span).t()
                    dots[at] += signals(block, span).mul_(logits).sum(1, dtype=self.precise)
            self._write_dots([sample], [slice(0, length)], scale, torch.cat(dots))
        if self._linear and length <= plan.gram_tokens and gram_is_cheaper(length, vocab, dim):
            gram = batch.hidden.new_zeros((length, length), dtype=batch.compute_dtype)
            width = max(1, plan.stream_vocab * plan.stream_tokens // max(length, plan.stream_tokens))
            for v in range(0, vocab, width):
                d = torch.cat([signals(block, slice(v, v + width)) for block in blocks])
                gram.addmm_(d, d.t())
            self.sums[sample, 3] = weighted_gram_sum(gram, scaled_hidden, blocks) * scale[0] ** 2
            return

        def gradient(_: int, v: slice) -> Tensor:
            out = self._out(v).zero_()
            if sample in batch.float8:
                # The scale of a row is over all tokens, so it takes another pass over them.
                scales = [row_scales(signals(block, v), rounded_states(scaled_hidden(block))[1]) for block in blocks]
                for block in blocks:
                    states = rounded_states(scaled_hidden(block))
                    add_product(out, signals(block, v), states, torch.stack(scales).amax(0))
                return out
            for block in blocks:
                out.addmm_(signals(block, v).t(), scaled_hidden(block))
            return out

        self._tiles([sample], scale, gradient)

    def _token_dots(self, signals: Tensor, hidden: Tensor) -> Tensor:
        """(tokens,) Σ_v of signals times W h, for signals and hidden states that are divided by √v̂."""
        dots = hidden.new_zeros(len(hidden), dtype=self.precise)
        step = max(1, min(self.plan.stream_vocab, self._scratch.numel() // max(1, len(hidden))))
        for start in range(0, signals.shape[1], step):
            v = slice(start, min(start + step, signals.shape[1]))
            dots += (hidden @ self._weight(v).t()).mul_(signals[:, v]).sum(1, dtype=self.precise)
        return dots

    def _write_dots(self, group: list[int], spans: list[slice], scale: list[float], dots: Tensor) -> None:
        for sample, span, s in zip(group, spans, scale, strict=True):
            self.sums[sample, 2] = dots[span].sum() * s

    # ---- shared ------------------------------------------------------------------------------------

    def _rows_of(self, group: list[int]) -> tuple[Tensor, Tensor]:
        """Rows of hidden and labels of some samples (consecutive except for unscored or long ones)."""
        bounds = self.batch.bounds
        pieces = [slice(bounds[sample], bounds[sample + 1]) for sample in group]
        if pieces[-1].stop - pieces[0].start == sum(piece.stop - piece.start for piece in pieces):
            whole = slice(pieces[0].start, pieces[-1].stop)
            return self.batch.rows[whole], self.batch.labels[whole]
        return (
            torch.cat([self.batch.rows[piece] for piece in pieces]),
            torch.cat([self.batch.labels[piece] for piece in pieces]),
        )

    def _weight(self, rows: slice) -> Tensor:
        return self.batch.weight[rows].to(self.batch.compute_dtype)

    def _out(self, v: slice) -> Tensor:
        return self._tile[: min(v.stop, self.batch.weight.shape[0]) - v.start]

    def _magnitudes(
        self, group: list[int], spans: list[slice], statistics: TokenStatistics
    ) -> tuple[list[float], Tensor]:
        """Largest token magnitude w u |f′| of each sample (host floats), and the signed share of every token."""
        largest = torch.stack([statistics.log_miss[span].amax() for span in spans])
        lengths = torch.tensor([span.stop - span.start for span in spans], device=largest.device)
        relative = torch.exp(statistics.log_miss - largest.repeat_interleave(lengths))
        if self.slope < 0.0:
            relative = -relative
        scale = [
            value * self.batch.token_weight(self.batch.lengths[sample]) * abs(self.slope)
            for sample, value in zip(group, largest.exp().tolist(), strict=True)
        ]
        return scale, relative.to(self.batch.compute_dtype)

    def _reduce(self, group: list[int], spans: list[slice], statistics: TokenStatistics, hidden: Tensor) -> list[float]:
        """Write the sums that need tokens only, and scale hidden states in place. Returns s of each sample."""
        scale, relative = self._magnitudes(group, spans, statistics)
        self._write_token_sums(group, spans, statistics)
        hidden.mul_(relative.unsqueeze(1))
        return scale

    def _keep_losses(self, rows: Tensor, statistics: TokenStatistics) -> None:
        if "token_loss" in self.batch.extras:
            self._token_loss[rows] = statistics.loss.to(self.precise)

    def _write_token_sums(self, group: list[int], spans: list[slice], statistics: TokenStatistics) -> None:
        dots = statistics.log_miss.exp() * statistics.dot
        per_token = torch.stack([statistics.loss, statistics.entropy, dots], 1)
        for sample, span in zip(group, spans, strict=True):
            weight = self.batch.token_weight(self.batch.lengths[sample])
            self.sums[sample, :3] = per_token[span].sum(0) * weight
        if self._errors:
            errors = statistics.error_norm
            for sample, span in zip(group, spans, strict=True):
                self.extra_sums[sample, 0] = errors[span].mean()

    def _tiles(self, group: list[int], scale: list[float], gradient: Callable[[int, slice], Tensor]) -> None:
        """Compute Σ U² (and ⟨W, U⟩ unless it is known from the logits) of each sample, tile by tile.

        For updates other than G, ‖G‖² is computed from the same tiles: another pass over a cached tile costs less than
        Gram matrices of more than about 30 tokens, and never much. The outer loop is over the vocabulary, so that each
        tile of W is loaded (and cast) once per group.
        """
        batch, rows = self.batch, self.plan.tile_rows
        vocab = batch.weight.shape[0]
        norms = self._norms and not self._linear
        sums = TileSums(len(group), needs_weight=not self._linear, scratch=self._scratch, needs_norm=norms)
        if self._fused:
            row_sums, scales = compiled_row_sums(), denominators(batch.update, scale, batch.compute_dtype)
        for start in range(0, vocab, rows):
            v = slice(start, min(start + rows, vocab))
            weight = None if self._linear else self._weight(v)
            for i in range(len(group)):
                g = gradient(i, v)
                if norms:
                    sums.add_gradient(i, g)  # first: the update may overwrite it
                if self._fused:
                    assert weight is not None
                    sums.add_rows(i, *row_sums(g, weight, scales[i]))
                else:
                    sums.add(i, self._step(g, weight, v, scale[i]), weight)
        squares, dots = sums.totals(self.precise)
        # Keep NaN: sign(NaN) is 0, which would look like a perfect score.
        unit = torch.tensor(
            [s if s != s else 1.0 if batch.storage_dtype is not None else unit_of(batch.update, s) for s in scale],
            dtype=self.precise,
        ).to(squares.device)
        index = torch.tensor(group, device=squares.device)
        self.sums[index, 3] = squares * unit.square()
        if dots is not None:
            self.sums[index, 2] = dots * unit
        if norms:
            magnitudes = torch.tensor(scale, dtype=self.precise).to(squares.device)
            self.extra_sums[index, 1] = sums.gradient_totals(self.precise) * magnitudes.square()


def _spans(lengths: list[int]) -> list[slice]:
    spans, start = [], 0
    for length in lengths:
        spans.append(slice(start, start + length))
        start += length
    return spans
