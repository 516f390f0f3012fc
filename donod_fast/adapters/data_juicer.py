"""Operators of Data-Juicer: ``donod_score_filter``, ``donod_topsis_filter`` and ``donod_topsis_selector``.

Data-Juicer imports this module by its entry point ``data_juicer.ops``, so the operators can be named in a recipe as
soon as both packages are installed. A recipe that scores all rows and keeps the best 30 %::

    process:
      - donod_score_filter: {hf_model: HuggingFaceTB/SmolLM2-135M-Instruct}
      - donod_topsis_selector: {keep: 0.3}

The scores of a row are in its stats, under the names of :mod:`donod_fast.adapters.columns`; a number that a row does
not have is NaN, so that a batch of such rows has the same Arrow types as any other.

By default the host skips an operator that raises, and drops the rows of its batch. Here a row that cannot be scored
gets a status and raises nothing, so an error always concerns the whole run: a model that cannot be loaded, an absent
column. The operators therefore raise, whatever ``skip_op_error`` says, and the run fails.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterable, Mapping, MutableMapping, Sequence
from pathlib import Path
from typing import Any

from donod_fast.adapters.columns import DON, NOD, PREFIX, STATUS, TOPSIS
from donod_fast.adapters.extras import host_module
from donod_fast.adapters.kept_rows import kept_rows
from donod_fast.adapters.lazy_scorer import LazyScorer, device_of_rank
from donod_fast.adapters.model_check import model_identity
from donod_fast.adapters.options import scorer_spec
from donod_fast.adapters.table_rows import check_columns, plain, table_rows
from donod_fast.errors import InputError
from donod_fast.selection.frozen_constants import TopsisConstants, load_constants
from donod_fast.selection.keeping import checked_share

_ops = host_module("data_juicer.ops.base_op", "data-juicer")
_Filter: Any = _ops.Filter
_Selector: Any = _ops.Selector
_multiprocess = host_module("multiprocess", "data-juicer")
_HOSTS_OWN = "__dj__"
_STATS = "__dj__stats__"
_BATCH = 1000

SCORE = "donod_score_filter"
FROZEN = "donod_topsis_filter"
SELECT = "donod_topsis_selector"


class _DonodFilter(_Filter):  # type: ignore[misc]
    """What both filters share: errors that end the run, and the rows to keep."""

    _batched_op = True
    _NON_FINGERPRINT_ATTRS = _Filter._NON_FINGERPRINT_ATTRS | {"_settings", "sharing", "compared"}

    def __init__(self, *args: Any, **kwargs: Any):
        kwargs["skip_op_error"] = False
        kwargs.setdefault("batch_size", _BATCH)
        super().__init__(*args, **kwargs)
        self.frozen: TopsisConstants | None = None
        self.cut = -math.inf
        self.drop_unscored = False

    @property
    def _init_kwargs(self) -> dict[str, Any]:
        """The settings of the recipe, of which the host makes the operator again in an actor of Ray."""
        return self._settings

    @_init_kwargs.setter
    def _init_kwargs(self, settings: Mapping[str, Any]) -> None:
        # An actor has another current folder.
        self._settings = {
            name: _absolute(value) if name in ("hf_model", "constants") else value for name, value in settings.items()
        }

    def _keep_by(self, constants: str | None, keep: float | int | str | None, drop_unscored: bool) -> None:
        """Set which rows are kept; arguments as in the recipe."""
        if keep is not None and constants is None:
            raise InputError(
                f"{self._name}: keep needs constants, since a filter sees one batch at a time; "
                f"make them with topsis_constants(scores, keep=({keep!r},)).save(FILE), or use {SELECT}"
            )
        self.drop_unscored = drop_unscored or keep is not None
        if constants is not None:
            self.frozen = load_constants(constants)
            self.cut = -math.inf if keep is None else self.frozen.cut(checked_share(keep))

    def process_batched(self, samples: Mapping[str, Any]) -> Iterable[bool]:
        """Whether each row of a batch is kept."""
        return [self._is_kept(stats) for stats in samples[_STATS]]

    def _is_kept(self, stats: Mapping[str, Any]) -> bool:
        if self.drop_unscored and stats[STATUS] != "scored":
            return False
        return self.cut == -math.inf or stats[TOPSIS] >= self.cut


@_ops.UNFORKABLE.register_module(SCORE)  # a fork of a process that used OpenMP would hang
@_ops.OPERATORS.register_module(SCORE)
class DonodScoreFilter(_DonodFilter):
    """Computes DON and NOD of each row and writes them to its stats; keeps all rows unless it is told otherwise.

    Rows that cannot be scored have the reason in ``donod_status`` and ``donod_detail``.
    """

    _accelerator = "cuda"

    def __init__(
        self,
        hf_model: str = "",
        options: dict[str, Any] | None = None,
        constants: str | None = None,
        keep: float | int | str | None = None,
        drop_unscored: bool = False,
        *args: Any,
        **kwargs: Any,
    ):
        """
        Initialization method.

        :param hf_model: folder or hub id of a causal language model.
        :param options: further options of `donod-fast score` by their names, for example
            `{lr: 1.0e-5, columns: "prompt=question,response=answer"}`.
        :param constants: file of frozen constants; each row then also gets `donod_topsis`, its closeness
            in the corpus that the constants were made of.
        :param keep: keep this share of that corpus by closeness, for example 0.3; needs constants that
            were made with this share. Rows without scores are dropped.
        :param drop_unscored: drop rows that could not be scored.
        :param args: of every operator of Data-Juicer
        :param kwargs: of every operator of Data-Juicer
        """
        super().__init__(*args, **kwargs)
        self._keep_by(constants, keep, drop_unscored)
        self.chosen = bool({"device", "device_map"} & {name for name, value in (options or {}).items() if value})
        self.lazy = LazyScorer(scorer_spec(_absolute(hf_model), options))
        self.identity: str | None = None
        self.sharing = self.compared = False  # done in this process

    def run(self, dataset: Any, *, exporter: Any = None, tracer: Any = None, reduce: bool = True) -> Any:
        """Score a whole data set on this machine.

        Raises:
            ModelError: the model cannot be loaded.
            InputError: a column that is mapped does not exist.
        """
        # The host keeps results under a hash of the operator's attributes: other weights are another operator.
        self.identity = model_identity(self.lazy.spec)
        check_columns(self.lazy.spec.masks.mapping, dataset.column_names)
        return super().run(dataset, exporter=exporter, tracer=tracer, reduce=reduce)

    def compute_stats_batched(
        self, samples: MutableMapping[str, Any], rank: int | None = None, context: bool = False
    ) -> MutableMapping[str, Any]:
        """Write the scores of a batch to its stats. The host gives the rank of the process if it has a GPU."""
        names = list(samples.keys())
        check_columns(self.lazy.spec.masks.mapping, names)
        rows = table_rows({name: samples[name] for name in names}, but=_HOSTS_OWN)
        index = samples[self.index_key] if self.index_key in names else ()
        device = self._device(rank)
        if device == "cpu":
            self._share_cores()
        found = self.lazy.columns(rows, first=index[0] if index else None, device=device)
        if found:
            scorer = self.lazy.scorer(device)
            vectors = {PREFIX + one.name for one in scorer.sample_scorer.signals.columns if one.kind == "vector"}
            found = [_typed(one, vectors) for one in found]
            if self.frozen is not None:
                if self.frozen.settings is not None and not self.compared:
                    self.frozen.refuse_other(scorer.describe())
                    self.compared = True
                found = _with_closeness(found, self.frozen)
        samples[_STATS] = [{**plain(stats), **one} for stats, one in zip(samples[_STATS], found, strict=True)]
        return samples

    def _share_cores(self) -> None:
        """In one of several processes of a pool, take a fair share of the cores. The host leaves each all of them."""
        import torch

        if not self.sharing and _multiprocess.parent_process() is not None and "OMP_NUM_THREADS" not in os.environ:
            torch.set_num_threads(max(1, (os.cpu_count() or 1) // max(1, self.runtime_np())))
        self.sharing = True

    def _device(self, rank: int | None) -> str | None:
        if self.chosen:
            return None
        return device_of_rank(rank) if self.use_cuda() else "cpu"


@_ops.OPERATORS.register_module(FROZEN)
class DonodTopsisFilter(_DonodFilter):
    """Keeps the best share of rows that were scored earlier, by the closeness of frozen constants. Needs no model.

    It is the second pass where no operator sees the whole data set, as on Ray.
    """

    def __init__(
        self,
        constants: str = "",
        keep: float | int | str | None = None,
        drop_unscored: bool = False,
        *args: Any,
        **kwargs: Any,
    ):
        """
        Initialization method.

        :param constants: file of frozen constants, made of the scores of the first pass.
        :param keep: the share to keep, for example 0.3; one that the constants were made with. Without it
            all rows are kept and get `donod_topsis`.
        :param drop_unscored: drop rows that could not be scored, also without `keep`.
        :param args: of every operator of Data-Juicer
        :param kwargs: of every operator of Data-Juicer
        """
        if not constants:
            raise InputError(f"{FROZEN} needs constants: a file that topsis_constants(scores).save(FILE) wrote")
        super().__init__(*args, **kwargs)
        self._keep_by(constants, keep, drop_unscored)

    def compute_stats_batched(
        self, samples: MutableMapping[str, Any], rank: int | None = None, context: bool = False
    ) -> MutableMapping[str, Any]:
        """Write the closeness of each row of a batch to its stats."""
        stats = [plain(dict(one or {})) for one in samples[_STATS]]
        for one in stats:
            if DON not in one or NOD not in one:
                raise InputError(
                    f"{FROZEN}: a row has no {DON} in its stats; run {SCORE} before, in the same recipe or in an "
                    "earlier one with keep_stats_in_res_ds: true"
                )
        assert self.frozen is not None
        samples[_STATS] = _with_closeness(stats, self.frozen)
        return samples


@_ops.OPERATORS.register_module(SELECT)
class DonodTopsisSelector(_Selector):  # type: ignore[misc]
    """Ranks all rows of the data set by their scores and keeps the best share, in the order of the data set."""

    def __init__(
        self,
        keep: float | int | str = 0.3,
        method: str = "topsis",
        weights: list[float] | None = None,
        normalise: str = "vector",
        seed: int = 0,
        *args: Any,
        **kwargs: Any,
    ):
        """
        Initialization method.

        :param keep: a fraction (0.3 or "30%") or a count ("300") of the scored rows.
        :param method: a ranking method of `donod-fast select` that takes `keep`.
        :param weights: weights of DON and NOD, for example [0.5, 0.5].
        :param normalise: what TOPSIS divides the columns by: vector, range or sum.
        :param seed: for the method random.
        :param args: of every operator of Data-Juicer
        :param kwargs: of every operator of Data-Juicer
        """
        super().__init__(*args, **kwargs)
        self.keep = checked_share(keep)
        self.method, self.normalise, self.seed = method, normalise, seed
        self.weights = [0.5, 0.5] if weights is None else weights

    def process(self, dataset: Any) -> Any:
        """The best rows of a data set; with ``topsis`` each has its closeness in the stats.

        Raises:
            InputError: the rows have no scores, or a setting is wrong.
        """
        if _STATS not in dataset.column_names:
            raise InputError(f"{SELECT}: the rows have no scores; put {SCORE} before it in the recipe")
        stats = [plain(dict(row[_STATS] or {})) for row in dataset.select_columns([_STATS]).to_list()]
        kept = kept_rows(
            stats, self.keep, method=self.method, weights=self.weights, normalise=self.normalise, seed=self.seed
        )
        best = dataset.select(list(kept.rows))
        if self.method != "topsis":
            return best
        ranked = [{**stats[row], TOPSIS: value} for row, value in zip(kept.rows, kept.value, strict=True)]
        return best.remove_columns([_STATS]).add_column(_STATS, ranked)


def _typed(columns: Mapping[str, Any], vectors: Collection[str]) -> dict[str, Any]:
    """The columns of a row with one type each: a batch without any number would else have columns of nulls.

    A flag is 1.0 or 0.0: among booleans Arrow takes NaN for true.
    """
    made = {name: float(value) if isinstance(value, bool) else value for name, value in columns.items()}
    absent = (name for name, value in columns.items() if value is None)
    return {**made, **{name: [] if name in vectors else math.nan for name in absent}}


def _absolute(name: Any) -> Any:
    """The name of a file or folder that is here, from the root; anything else as it is."""
    return str(Path(name).resolve()) if isinstance(name, str) and name and Path(name).exists() else name


def _with_closeness(rows: Sequence[Mapping[str, Any]], frozen: TopsisConstants) -> list[dict[str, Any]]:
    don, nod = ([row[name] for row in rows] for name in (DON, NOD))
    closeness = frozen.apply(don, nod, per_lr=True) if rows else ()
    return [{**row, TOPSIS: float(value)} for row, value in zip(rows, closeness, strict=True)]


__all__ = ["DonodScoreFilter", "DonodTopsisFilter", "DonodTopsisSelector"]
