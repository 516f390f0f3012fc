"""``Scorer``: a model that is ready to score corpora. ``donod_fast.api`` has the one that users call."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

import torch
from torch import Tensor

from donod_fast.criteria.base import Context, Criterion
from donod_fast.criteria.running import SignalSet
from donod_fast.data.masking import Masker, MaskSettings
from donod_fast.data.shards import PART_ROWS
from donod_fast.data.types import Record
from donod_fast.errors import InputError, ModelError
from donod_fast.kernels import DEFAULT_WORKSPACE, Update, frobenius_norm
from donod_fast.models.compiled_trunk import CompiledTrunk, compile_trunk
from donod_fast.models.fingerprint import memory_fingerprint
from donod_fast.models.head import Head, HeadProof, prove_head, read_head
from donod_fast.models.live_model import bare, neutral, with_adapters
from donod_fast.models.loading import LoadedModel, load_model, wrap_model
from donod_fast.models.placement import DeviceMap, MaxMemory
from donod_fast.models.trunk import Trunk
from donod_fast.scores.rows import ScoreRow, to_table
from donod_fast.scoring.arguments import (
    PlainOptions,
    ScorerOptions,
    carried,
    criteria_of,
    divided,
    dtype_name,
    flag,
    mask_settings,
    update_settings,
    whole,
)
from donod_fast.scoring.budget import Budget, find_token_budget, settled
from donod_fast.scoring.forward import Forward, HeadCall
from donod_fast.scoring.sample_scorer import Progress, SampleScorer
from donod_fast.scoring.settings import WARM, ComputeSettings, UpdateSettings
from donod_fast.scoring.warm_state import WarmState, estimate_state, sampled_records, state_digest

if TYPE_CHECKING:
    import pyarrow as pa

    from donod_fast.data.reading import Corpus
    from donod_fast.data.reading.python_data import Data


class Scorer:
    """Scores every sample of a corpus with one causal language model.

    The output layer is proved at construction: our head on our hidden states must equal the model's own
    logits, else the model is refused with the name of what differs.

    Args:
        model: a transformers causal language model, already loaded (see ``from_pretrained``).
        tokenizer: its tokenizer.
        update: the update that scores a sample; AdamW from fresh state at 2e-5 by default. A name (``"sgd"``), an
            object of the kernels (``AdamW(eps=1e-6)``, without a state), or ``UpdateSettings``.
        masks: format, template, which turns are scored, length limit. A limit of None becomes the model's
            own, where it has one.
        token_budget: slots of a batch, padding included; None to find it from free memory (``budget.py``).
        workspace_bytes: memory limit of the head mathematics.
        backend: which kernels serve the head.
        packing: ``"auto"``, ``"on"`` or ``"off"``: samples packed in input order, or padded to like lengths.
        compile: compile the trunk (and on a CPU the head's elementwise passes) before scoring; see
            ``compiled_trunk.py``.
        carry: columns of the records to carry along into the scores, as text (``record.NAME``): a list of names, or
            names separated by commas.
        signals: further criteria, whose columns are computed in the same pass (``donod_fast.criteria``): names
            separated by commas, as ``--signals`` takes them, or a sequence of names and criteria.
        live: the model is in training, or prepared for it: wrapped by DDP, accelerate, ``torch.compile`` or peft, in
            train mode, with hooks. It is scored as a plain copy of it would be, in eval mode and without autocast,
            with the weights that it has at each call, and is left as it was (see ``neutral``). LoRA adapters count as
            part of the weights. Without ``live`` the model is put into eval mode, and its weights must not change.
        plain: settings of the update (``lr=1e-5``; see ``UpdateSettings``), of the masks (``max_length=512``; see
            ``MaskSettings``) and of criteria that are given by name (``reference=``, ``ifd_prefix=``). Those of the
            update and of the masks are refused beside ``UpdateSettings`` and ``MaskSettings`` objects.

    A scorer cannot be pickled, because a model would go with it; ``scoring/spec.py`` describes one as a value.

    Raises:
        ModelError: the model cannot be scored with (HeadMismatchError: its head is not ours).
        CorpusError: a reference set of the signals cannot be read.
        InputError: names an argument with a wrong value.
        BackendError: the output layer, its device or the backend does not support ``head_precision="float8"``.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any = None,
        *,
        update: UpdateSettings | Update | str | None = None,
        masks: MaskSettings | None = None,
        token_budget: int | None = None,
        workspace_bytes: int = DEFAULT_WORKSPACE,
        backend: str = "auto",
        packing: str = "auto",
        compile: bool = False,
        carry: str | Sequence[str] = (),
        signals: str | Criterion | Sequence[str | Criterion] = (),
        live: bool = False,
        **plain: Unpack[PlainOptions],
    ) -> None:
        of_update, of_masks, of_criteria = divided(plain)
        self.update = update_settings(update, of_update)
        masking = mask_settings(masks, of_masks)
        self._signals = criteria_of(signals, of_criteria)
        carry = carried(carry)
        ComputeSettings(backend=backend, packing=packing)  # which refuses unknown names
        compile, live = flag("compile", compile), flag("live", live)
        self._state = _LiveState(_bare(model, compile)) if live else None
        if token_budget is not None and whole("token_budget", token_budget) < 1:
            raise InputError(f"token budget must be at least 1, got {token_budget}")
        workspace_bytes = whole("workspace_bytes", workspace_bytes)
        with self._untouched():
            self.loaded: LoadedModel = self._wrapped(model, tokenizer)
            self.trunk = Trunk(self.loaded, packing=packing)
            self.head: Head = self._read_head()
            self.proof: HeadProof = prove_head(self.loaded, self.trunk, self.head)
            self.weight_norm = frobenius_norm(self.head.weight)
            self.compiled: CompiledTrunk | None = None
            if compile:
                self.trunk, self.compiled = compile_trunk(self.trunk, self.loaded)
            full = self.update.head_precision == "full"
            if compile and backend == "auto" and full and self.loaded.device.type == "cpu":
                backend = "inductor"
            self.masks = masking.limited(self.loaded.max_length)
            vocab = self.head.weight.shape[0]
            self.masker = Masker(self.loaded.tokenizer, self.masks, vocab_size=vocab, carry=carry)
            call = HeadCall(self.head, self.update, self.weight_norm, backend)
            call.refuse_unsupported()
            forward = Forward(self.trunk, call, workspace_bytes)
            self.warm: WarmState | None = None
            self.budget: Budget | None = None
            if token_budget is None:
                # The state of adamw-warm comes later; its memory is that of SGD.
                trial = forward if self.update.update != WARM else replace(forward, call=call.with_cheapest_update())
                self.budget = find_token_budget(self.loaded, self.trunk, trial.scores, workspace_bytes=workspace_bytes)
                token_budget = self.budget.tokens
            self.context = Context(
                self.trunk,
                self.head,
                self.masker,
                self.loaded.tokenizer,
                self.weight_norm,
                self.update.reduction,
                token_budget,
            )
            self.sample_scorer = SampleScorer(
                forward,
                token_budget=token_budget,
                signals=SignalSet.of(self._signals, self.context),
                even_threads=self.compiled is not None,
            )

    def _wrapped(self, model: Any, tokenizer: Any) -> LoadedModel:
        if self._state is not None:
            return wrap_model(self._state.model, tokenizer)
        return model if isinstance(model, LoadedModel) else wrap_model(model, tokenizer)

    def _read_head(self) -> Head:
        head = read_head(self.loaded.model)
        return head if self._state is None else with_adapters(head, self.loaded.model)

    @contextmanager
    def _untouched(self) -> Iterator[bool]:
        """Hold a live model in its neutral state; true for the outermost such block of a live model."""
        state = self._state
        if state is None or state.is_neutral:
            yield False
            return
        with neutral(state.model):
            state.is_neutral = True
            try:
                yield True
            finally:
                state.is_neutral = False

    @contextmanager
    def neutral(self) -> Iterator[None]:
        """Hold a live model in its neutral state within the block, and read its weights again at the beginning.

        ``score_table`` and the engines enter it themselves. Within one block the weights must not change. Does nothing
        without ``live``.

        Raises:
            ModelError: the model's head is no longer ours, or the model has changed in another way that cannot be
                scored, since the scorer was made.
        """
        with self._untouched() as outermost:
            if outermost:
                self._read_again()
            yield

    def _read_again(self) -> None:
        """Take over the weights that a live model has now."""
        model = bare(self.loaded.model)
        self.loaded = replace(self.loaded, fingerprint=memory_fingerprint(model))
        before, self.head = self.head.weight, self._read_head()
        now = self.head.weight
        if (now.device, now.dtype, now.shape) != (before.device, before.dtype, before.shape):
            raise ModelError(
                f"{self.loaded.name}: since the scorer was made, the output layer has changed from {_kind(before)} to "
                f"{_kind(now)}; make the scorer again"
            )
        self.proof = prove_head(self.loaded, self.trunk, self.head)  # an adapter may have come
        self.weight_norm = frobenius_norm(self.head.weight)
        forward = self.sample_scorer.forward
        call = replace(forward.call, head=self.head, weight_norm=self.weight_norm)
        self.context = replace(self.context, head=self.head, weight_norm=self.weight_norm)
        self.sample_scorer = self.sample_scorer.on(replace(forward, call=call))
        if self._signals:  # some hold gradients of reference sets
            self.sample_scorer = self.sample_scorer.with_signals(SignalSet.of(self._signals, self.context))

    def __copy__(self) -> Self:
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        return other

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise InputError(
            "a Scorer cannot be pickled: the model would go with it. Make it where it is used, for example with "
            "Scorer.from_pretrained in each process, or leave it out of what is pickled"
        )

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path,
        *,
        revision: str | None = None,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device | None = None,
        trust_remote_code: bool = False,
        precision: str = "auto",
        device_map: DeviceMap | None = None,
        max_memory: MaxMemory | None = None,
        offload_folder: str | Path | None = None,
        **options: Unpack[ScorerOptions],
    ) -> Self:
        """Load a model (a folder or a hub id, safetensors only) and make a scorer of it.

        Arguments are as in :func:`donod_fast.models.loading.load_model`; ``options`` are as in the class.

        Raises:
            ModelError: it cannot be loaded or scored with; the message says why.
        """
        loaded = load_model(
            name_or_path,
            revision=revision,
            dtype=dtype_name(dtype),
            device=device,
            trust_remote_code=trust_remote_code,
            precision=precision,
            device_map=device_map,
            max_memory=max_memory,
            offload_folder=offload_folder,
        )
        return cls(loaded, **options)

    def score_table(
        self,
        dataset: Data | Corpus,
        *,
        progress: Progress | None = None,
    ) -> pa.Table:
        """Score a corpus in memory: one row per input row, in input order (see ``ScoreRow``).

        Args:
            dataset: a path, a list of paths, or a hub id; a list of records or of texts; a frame of pandas or polars;
                an Arrow table, batch or reader; a ``datasets.Dataset`` or ``IterableDataset``; a generator; or a dict
                of columns. What can be read only once is read to its end first.
            progress: called with (rows, tokens) as they are done.

        Raises:
            CorpusError: an input cannot be read.
            InputError: the data are none of these, or could mean two things; names the remedy.
        """
        rows: list[ScoreRow] = []
        corpus = as_corpus(dataset)
        batch: list[Record] = []
        with self.neutral():
            for record in corpus.records():
                batch.append(record)
                if len(batch) == PART_ROWS:
                    rows += self.score_records(batch, progress)
                    batch = []
            if batch:
                rows += self.score_records(batch, progress)
        return to_table(rows, self.masker.carry, self.sample_scorer.signals.columns)

    def score_records(self, records: Sequence[Record], progress: Progress | None = None) -> list[ScoreRow]:
        """Tokenise, mask and score some records: one row each, in their order."""
        with self.neutral():
            return self.sample_scorer.score(self.masker.tokenize_many(records), progress)

    def resuming(self, manifest: Mapping[str, Any]) -> Self:
        """A scorer that scores as the folder of this manifest was begun: with its ‖W‖ and its token budget.

        Batches of another size round differently in the last bits. A token budget that was given is kept, and so is one
        that is clearly smaller than the recorded one.
        """
        tokens = self.sample_scorer.token_budget
        if self.budget is not None:
            tokens = settled(self.budget.tokens, manifest.get("token_budget"))
        scorer = copy(self)
        scorer.sample_scorer = self.sample_scorer.resuming(
            weight_norm=float(manifest["model"]["weight_norm"]), token_budget=tokens
        )
        return scorer

    def warmed(self, corpus: Corpus) -> Self:
        """A scorer for ``adamw-warm`` with the state of a sample of a corpus, as ``warm_rows`` and ``warm_seed`` say.

        Raises:
            InputError: the update is another one, or no row of the sample can be scored.
            CorpusError: an input cannot be read.
        """
        if self.update.update != WARM:
            raise InputError(f"update {self.update.update} has no state; only {WARM} is warmed")
        records = sampled_records(corpus, self.update.warm_rows, self.update.warm_seed)
        with self.neutral():
            return self.with_warm(estimate_state(self.sample_scorer.forward, self.masker.tokenize_many(records)))

    def with_warm(self, state: WarmState) -> Self:
        """A scorer with a state of ``adamw-warm``."""
        scorer, forward = copy(self), self.sample_scorer.forward
        scorer.warm = state
        rule = state.rule(forward.device)
        scorer.sample_scorer = self.sample_scorer.on(replace(forward, call=replace(forward.call, warm=rule)))
        return scorer

    def describe(self) -> dict[str, Any]:
        """The model and every setting that decides the numbers, for a manifest."""
        loaded, head = self.loaded, self.head
        return {
            "model": {
                "name": loaded.name,
                "revision": loaded.revision,
                "fingerprint": loaded.fingerprint,
                "dtype": str(loaded.dtype).removeprefix("torch."),
                "precision": loaded.precision,
                "device": str(loaded.device),
                "weight_norm": self.weight_norm,
                "vocab": head.weight.shape[0],
                "dim": head.weight.shape[1],
                "tied_embeddings": head.tied,
            },
            "head": {
                "bias": head.bias is not None,
                "logit_scale": head.logit_scale,
                "softcap": head.softcap,
            },
            "trunk": {
                "packed": self.trunk.packs,
                "packing_refusal": self.trunk.packing_refusal,
                "compiled": self.compiled is not None,
                "token_budget_how": "given" if self.budget is None else self.budget.how,
            },
            "update": self.update.as_dict()
            | ({} if self.warm is None else {"warm_state": state_digest(self.warm.to_bytes())}),
            "carry": list(self.masker.carry),
            "signals": [entry.as_dict() for entry in self.sample_scorer.signals.entries],
            "masks": {**self.masker.describe(), "tokenizer_sha256": tokenizer_digest(loaded.tokenizer)},
            "mask": self.masker.mask,
        }


@dataclass
class _LiveState:
    """A live model and whether it is in its neutral state; copies of a scorer share it."""

    model: Any
    is_neutral: bool = False


def _kind(weight: Tensor) -> str:
    return f"{tuple(weight.shape)} {str(weight.dtype).removeprefix('torch.')} on {weight.device}"


def _bare(model: Any, compile: bool) -> Any:
    if isinstance(model, LoadedModel):
        raise InputError("live=True is for a model that is in memory and in training; a loaded one needs no live=True")
    if compile:
        raise InputError("live=True scores weights that change; compile=True is for a model that stays as it is")
    return bare(model)


def as_corpus(dataset: Data | Corpus) -> Corpus:
    """Open any input that a scorer accepts; see :func:`donod_fast.data.reading.corpus.corpus_of`."""
    from donod_fast.data.reading import corpus_of

    return corpus_of(dataset)


def tokenizer_digest(tokenizer: Any) -> str:
    """Hash of what turns text into ids: no part of the model's fingerprint, and as decisive."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    state = sorted(tokenizer.get_vocab().items()) if backend is None else json.loads(backend.to_str())
    if isinstance(state, dict):  # these two are settings of a call, and change with it
        state = {key: value for key, value in state.items() if key not in ("truncation", "padding")}
    return hashlib.sha256(json.dumps(state, sort_keys=True).encode()).hexdigest()
