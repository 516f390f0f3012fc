"""Reference that the backends are tested against: autograd and a real ``torch.optim`` step, sample by sample.

It is slow and simple on purpose. Give it float64 tensors. Three details keep it exact where a naive program is not:

- The loss is softplus(lse_{v≠y} z − z_y), since cross entropy loses tokens past about 20 nats, even in float64.
- The optimizer steps a zero parameter that carries W's gradient, so that the update is not rounded onto W
  (``literal=True`` steps a copy of W instead, for comparison).
- DON follows from the update by the closed form of ``scores.py``.
"""

from __future__ import annotations

from typing import Unpack

import torch
import torch.nn.functional as F
from torch import Tensor

from donod_fast.kernels.arguments import HeadBatch, StepOptions, check_arguments
from donod_fast.kernels.head_map import HeadMap
from donod_fast.kernels.scores import DonNod, don_and_nod
from donod_fast.kernels.updates import SGD, AdamW, FactoredAdamW


def reference_don_nod(
    hidden: Tensor,  # (tokens, dim)
    weight: Tensor,  # (vocab, dim)
    labels: Tensor,  # (tokens,)
    cu_seqlens: Tensor,  # (samples + 1,)
    *,
    rows_per_slice: int | None = None,
    literal: bool = False,
    **options: Unpack[StepOptions],
) -> DonNod:
    """Compute what ``don_nod`` computes by autograd and one optimizer step per sample, in the inputs' dtype.

    Args:
        hidden: as in ``don_nod``, and so are ``weight``, ``labels`` and ``cu_seqlens``.
        rows_per_slice: take the gradient of W this many rows at a time, so that a large head fits in
            memory (each slice costs a forward and a backward pass). None: all at once.
        literal: step a copy of W and subtract the norms, as a naive program does.
        options: the options of ``don_nod``, with its defaults.

    Raises:
        InputError: as ``don_nod``.
    """
    batch = check_arguments(hidden, weight, labels, cu_seqlens, **options)
    lr = batch.lr
    dtype = batch.hidden.dtype
    weight = batch.weight.to(dtype)
    height = rows_per_slice or weight.shape[0]
    slices = [slice(v, v + height) for v in range(0, weight.shape[0], height)]
    norm = weight.norm()
    results = []
    for start, stop in zip(batch.bounds, batch.bounds[1:], strict=False):
        if start == stop:
            results.append(torch.full((6,), torch.nan, dtype=dtype, device=weight.device))
            continue
        states, targets = batch.hidden[batch.rows[start:stop]], batch.labels[start:stop]
        fixed = states @ weight.t()
        sums = torch.zeros(3, dtype=dtype, device=weight.device)
        for rows in slices:
            leaf = weight[rows].clone().requires_grad_(True)
            a = torch.cat([fixed[:, : rows.start], states @ leaf.t(), fixed[:, rows.stop :]], 1)
            loss, entropy = _loss_and_entropy(a, targets, batch)
            (gradient,) = torch.autograd.grad(loss, leaf)
            step, new = _step(weight[rows], gradient, rows, batch, literal=literal)
            sums += torch.stack([(weight[rows] * step).sum(), step.square().sum(), new.square().sum()])
        dot, update_norm = sums[0] / lr, sums[1].sqrt() / lr
        if literal:
            don, nod = norm - sums[2].sqrt(), sums[1].sqrt()
        else:
            don, nod = don_and_nod(dot, update_norm, norm, lr)
        results.append(torch.stack([don, nod, loss.detach(), entropy, dot, update_norm]))
    counts = torch.tensor(batch.lengths, dtype=torch.int32, device=weight.device)
    don, nod, losses, entropies, dots, norms = torch.stack(results).unbind(1)
    return DonNod(don, nod, losses, entropies, dots, norms, counts)


def _loss_and_entropy(a: Tensor, labels: Tensor, batch: HeadBatch) -> tuple[Tensor, Tensor]:
    head = batch.head
    bias = None if head.bias is None else head.bias.to(a.dtype)
    z = HeadMap(bias, head.logit_scale, head.softcap).logits(a)
    index = labels.unsqueeze(1)
    others = z.scatter(1, index, -torch.inf)
    margin = others.logsumexp(1) - z.gather(1, index).squeeze(1)
    losses = F.softplus(margin, threshold=60.0)
    p = torch.softmax(z.detach(), 1)
    entropies = torch.special.entr(p).sum(1)
    weight_of_token = batch.token_weight(len(labels))
    return losses.sum() * weight_of_token, entropies.sum() * weight_of_token


def _step(weight: Tensor, gradient: Tensor, rows: slice, batch: HeadBatch, *, literal: bool) -> tuple[Tensor, Tensor]:
    """(W − W′, W′) of a slice of W's rows after one optimizer step."""
    if literal:
        new = _stepped(weight.clone(), gradient, rows, batch, batch.weight_decay)
    else:
        # Decay is added by hand here: the optimizer would decay the zeros that it steps from.
        step = -_stepped(torch.zeros_like(weight), gradient, rows, batch, 0.0)
        step = step + batch.lr * batch.weight_decay * weight
        new = weight - step
    if batch.storage_dtype is not None:
        new = new.to(batch.storage_dtype).to(weight.dtype)
        return weight - new, new
    return (weight - new if literal else step), new


def _stepped(start: Tensor, gradient: Tensor, rows: slice, batch: HeadBatch, weight_decay: float) -> Tensor:
    parameter = torch.nn.Parameter(start)
    parameter.grad = gradient
    update = batch.update
    if isinstance(update, SGD):
        torch.optim.SGD([parameter], lr=batch.lr, weight_decay=weight_decay).step()
    elif isinstance(update, AdamW):
        optimizer = torch.optim.AdamW(
            [parameter], lr=batch.lr, betas=update.betas, eps=update.eps, weight_decay=weight_decay
        )
        if update.state is not None:
            optimizer.state[parameter] = {
                "step": torch.tensor(float(update.state.step)),
                "exp_avg": update.state.exp_avg[rows].to(start.dtype).clone(),
                "exp_avg_sq": update.state.exp_avg_sq[rows].to(start.dtype).clone(),
            }
        optimizer.step()
    elif isinstance(update, FactoredAdamW):  # the whole matrix v, from its definition
        r, c = update.rows.to(start.dtype), update.columns.to(start.dtype)
        second = torch.outer(r[rows], c) / r.sum()
        parameter.data.mul_(1.0 - batch.lr * weight_decay).sub_(gradient / second.sqrt(), alpha=batch.lr)
    else:  # torch.optim has no sign descent
        parameter.data.mul_(1.0 - batch.lr * weight_decay).sub_(gradient.sign(), alpha=batch.lr)
    return parameter.detach()
