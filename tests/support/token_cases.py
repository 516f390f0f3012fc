"""The head forward alone, and its float64 truth, for the tests of single kernels."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from head_cases import Case, make_bias, make_case
from torch import Tensor
from triton_cases import TINY

from donod_fast.kernels import IGNORE_INDEX
from donod_fast.kernels.head_map import HeadMap
from donod_fast.kernels.triton_backend.layout import Group, Layout, make_layout
from donod_fast.kernels.triton_backend.rows import signal_scale
from donod_fast.kernels.triton_backend.tokens import Tokens

VOCAB, DIM, COLUMNS = 67, 18, 128  # two blocks of 64 columns
LENGTHS = (0, 2, 17)
HEADS: dict[str, HeadMap] = {
    "plain": HeadMap(),
    "scale": HeadMap(logit_scale=-0.7),
    "bias": HeadMap(bias=make_bias(VOCAB)),
    "bias-scale-softcap": HeadMap(make_bias(VOCAB), 1.3, 9.0),
}


def prepared(
    head: HeadMap, lengths: tuple[int, ...] = LENGTHS, margins: tuple[float, ...] = (0.0, 6.0, 25.0)
) -> tuple[Case, Layout, Group]:
    """A case and its tables, every sample in one group."""
    case = make_case(lengths, VOCAB, DIM, margins=margins)
    layout = make_layout(case.labels, case.cu_seqlens.long(), TINY.direct.step)
    group = Group(0, len(lengths), len(case.labels), layout.slot_row.shape[0])
    return case, layout, group


class Softmax:
    """The softmax without the label of every scored token in float64, in the order of the rows."""

    def __init__(self, case: Case, head: HeadMap) -> None:
        self.rows = (case.labels != IGNORE_INDEX).nonzero().squeeze(1)
        self.labels = case.labels[self.rows]
        index = self.labels.unsqueeze(1)
        a = case.hidden[self.rows].double() @ case.weight.double().T
        wide = HeadMap(None if head.bias is None else head.bias.double(), head.logit_scale, head.softcap)
        z = wide.logits(a)
        slope = torch.full_like(a, 1.0) * wide.derivative(a)
        self.z, self.label_z = z, z.gather(1, index).squeeze(1)
        self.log_rest = z.scatter(1, index, -math.inf).logsumexp(1)
        margin = self.log_rest - self.label_z
        self.loss = F.softplus(margin, threshold=100.0)
        self.log_miss = -F.softplus(-margin, threshold=100.0)
        p = torch.softmax(z, 1)
        self.entropy = torch.special.entr(p).sum(1)
        self.q = torch.softmax(z.scatter(1, index, -math.inf), 1)
        # As stored: a constant factor is left to the sample's scale.
        stored = slope / signal_scale(head)
        self.label_slope = stored.gather(1, index).squeeze(1)
        self.label_a = a.gather(1, index).squeeze(1)
        self.dot = (self.q * slope * a).sum(1) - (slope * a).gather(1, index).squeeze(1)
        self.signals = (self.q * stored).scatter(1, index, -stored.gather(1, index))


def empty_tokens(case: Case, head: HeadMap, layout: Layout) -> Tokens:
    """Every tensor full of NaN."""
    tokens = Tokens.empty(case.hidden, case.weight, head, case.labels, layout)
    for tensor in (tokens.label_values, tokens.reference, tokens.statistics, tokens.rest, tokens.share):
        tensor.fill_(math.nan)
    tokens.label_signal.fill_(math.nan)
    return tokens


def finished(case: Case, head: HeadMap, layout: Layout, group: Group) -> tuple[Tokens, Tensor]:
    """Statistics of all tokens at once, and E."""
    tokens, exps = empty_tokens(case, head, layout), torch.full((layout.slot_row.shape[0], COLUMNS), math.nan)
    tokens.normalise(group, exps, group.tokens_bound, TINY.logits)
    return tokens, exps
