"""Operators of DataFlow: ``DonodSampleEvaluator`` scores the rows of a frame, ``DonodFilter`` keeps the best.

DataFlow has no discovery of other packages: a pipeline imports the operators from here, and they register themselves::

    from donod_fast.adapters.dataflow import DonodFilter, DonodSampleEvaluator

Settings are arguments of the constructor, names of columns are arguments of ``run``. A row that cannot be scored keeps
its place with a status.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from donod_fast.adapters.columns import DETAIL, DON, LOSS, NOD, SCORED_TOKENS, STATUS, TOPSIS
from donod_fast.adapters.extras import host_module
from donod_fast.adapters.kept_rows import kept_rows
from donod_fast.adapters.lazy_scorer import LazyScorer
from donod_fast.adapters.model_check import check_model
from donod_fast.adapters.options import scorer_spec
from donod_fast.adapters.table_rows import check_columns, table_rows
from donod_fast.data.column_map import ROLES
from donod_fast.errors import InputError, suggest
from donod_fast.selection.frozen_constants import TopsisConstants, load_constants
from donod_fast.selection.keeping import checked_share

_core = host_module("dataflow.core", "dataflow")
_Operator: Any = _core.OperatorABC
_registry = host_module("dataflow.utils.registry", "dataflow").OPERATOR_REGISTRY
_logger = host_module("dataflow", "dataflow").get_logger

_NAMES = {"instruction": "prompt", "question": "prompt", "output": "response", "answer": "response"}
"""What the host's own operators call the roles of columns."""


@_registry.register()
class DonodSampleEvaluator(_Operator):  # type: ignore[misc]
    """Scores each row by DON and NOD and adds the columns to the frame.

    Args:
        model: folder or hub id of a causal language model.
        device: where to load it; None is a GPU if there is one.
        options: further options of ``donod-fast score`` by their names, for example ``{"lr": 1e-5}``.

    Raises:
        ModelError: there is no such model.
        InputError: an unknown option, or a wrong value.
    """

    def __init__(self, model: str, device: str | None = None, options: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.logger = _logger()
        self.options = {"device": device, **(options or {})}
        self.model = model
        self._scorer(None)

    @staticmethod
    def get_desc(lang: str = "zh") -> str:
        """What the operator does, in Chinese (``zh``) or English."""
        if lang == "zh":
            return (
                "使用DONOD方法为每条指令数据打分：计算仅用该样本训练一步后输出层范数的变化。\n"
                "输入参数：\n- model：Huggingface模型路径或名称\n- device：模型运行设备\n"
                "- options：donod-fast score 的其他选项\n"
                "输出参数：\n- donod_don_per_lr：越高越好\n- donod_nod_per_lr：越低越好\n- donod_status：无法打分的原因"
            )
        return (
            "Scores instruction data with DONOD: how one training step on a sample alone changes the output layer.\n"
            "Input Parameters:\n- model: Huggingface model path or name\n- device: device of the model\n"
            "- options: further options of donod-fast score\n"
            "Output Parameters:\n- donod_don_per_lr: higher is better\n- donod_nod_per_lr: lower is better\n"
            "- donod_status: scored, or why a row cannot be scored"
        )

    def run(
        self,
        storage: Any,
        output_status_key: str = STATUS,
        output_detail_key: str = DETAIL,
        output_don_key: str = DON,
        output_nod_key: str = NOD,
        output_loss_key: str = LOSS,
        output_tokens_key: str = SCORED_TOKENS,
        **input_keys: str | None,
    ) -> list[str]:
        """Score the rows of the storage.

        Args:
            storage: the host's storage; its frame is read whole, or a batch in a pipeline that runs in batches.
            output_status_key: column for the status.
            output_detail_key: column for the reason of a status.
            output_don_key: column for DON by the learning rate.
            output_nod_key: column for NOD by the learning rate.
            output_loss_key: column for the loss.
            output_tokens_key: column for the number of scored tokens.
            input_keys: ``input_ROLE_key="column"`` for columns that are not found by their names, with a role of
                ``donod-fast score --columns`` (``input_prompt_key``, ``input_response_key``, ``input_messages_key`` …);
                the host's ``input_instruction_key`` and ``input_output_key`` are prompt and response.

        Returns:
            The names of the columns that were added.

        Raises:
            ModelError: the model cannot be loaded.
            InputError: an unknown role, or a column that does not exist.
        """
        keys = {
            STATUS: output_status_key,
            DETAIL: output_detail_key,
            DON: output_don_key,
            NOD: output_nod_key,
            LOSS: output_loss_key,
            SCORED_TOKENS: output_tokens_key,
        }
        scorer = self._scorer(_mapping(input_keys))
        frame = storage.read("dataframe")
        check_columns(scorer.spec.masks.mapping, frame.columns)
        columns = {name: frame[name].tolist() for name in frame.columns if name not in keys.values()}
        rows = table_rows(columns) if columns else [{} for _ in range(len(frame))]
        found = scorer.columns(rows)
        for name in found[0] if found else keys:
            frame[keys.get(name, name)] = _column([row[name] for row in found])
        storage.write(frame)
        self.logger.info(f"{sum(row[STATUS] == 'scored' for row in found)} of {len(found)} rows are scored.")
        return list(keys.values())

    def _scorer(self, columns: str | None) -> LazyScorer:
        options = self.options if columns is None else {**self.options, "columns": columns}
        spec = scorer_spec(self.model, options)
        check_model(spec)
        return LazyScorer(spec)


@_registry.register()
class DonodFilter(_Operator):  # type: ignore[misc]
    """Keeps the best share of rows that :class:`DonodSampleEvaluator` scored, in the order of the frame.

    Args:
        keep: a fraction (0.3, "30%") or a count (300) of the scored rows.
        method: a ranking method of ``donod-fast select`` that takes ``keep``.
        weights: weights of DON and NOD.
        normalise: what TOPSIS divides the columns by: vector, range or sum.
        seed: for the method ``random``.
        constants: file of frozen constants that were made with this share. A pipeline that runs in batches needs it,
            because the ranking of a batch is not that of the whole; the other settings are then those of the file.

    Raises:
        InputError: a wrong value, or constants without this share.
        StoreError: the constants cannot be read.
    """

    def __init__(
        self,
        keep: float | int | str = 0.3,
        method: str = "topsis",
        weights: Sequence[float] = (0.5, 0.5),
        normalise: str = "vector",
        seed: int = 0,
        constants: str | None = None,
    ) -> None:
        super().__init__()
        self.logger = _logger()
        self.keep = checked_share(keep)
        self.settings: dict[str, Any] = {"method": method, "weights": tuple(weights)}
        self.settings |= {"normalise": normalise, "seed": seed}
        if constants is not None and method != "topsis":
            raise InputError(f"constants are for the method topsis, not {method}")
        self.frozen: TopsisConstants | None = None if constants is None else load_constants(constants)
        self.cut = -math.inf if self.frozen is None else self.frozen.cut(self.keep)

    @staticmethod
    def get_desc(lang: str = "zh") -> str:
        """What the operator does, in Chinese (``zh``) or English."""
        if lang == "zh":
            return (
                "根据DonodSampleEvaluator的得分，用TOPSIS对全部数据排序并保留最好的一部分。\n"
                "输入参数：\n- keep：保留比例或条数\n- method：排序方法\n- constants：分批运行时所需的固定常数文件\n"
                "输出参数：\n- 过滤后的DataFrame\n- donod_topsis：接近度，越高越好"
            )
        return (
            "Ranks all rows by the scores of DonodSampleEvaluator with TOPSIS and keeps the best share.\n"
            "Input Parameters:\n- keep: share or number of rows\n- method: ranking method\n"
            "- constants: file of frozen constants, needed in batches\n"
            "Output Parameters:\n- filtered DataFrame\n- donod_topsis: closeness, higher is better"
        )

    def run(
        self,
        storage: Any,
        input_status_key: str = STATUS,
        input_don_key: str = DON,
        input_nod_key: str = NOD,
        output_topsis_key: str = TOPSIS,
    ) -> list[str]:
        """Keep the best rows of the storage.

        Args:
            storage: the host's storage.
            input_status_key: column of the status.
            input_don_key: column of DON by the learning rate.
            input_nod_key: column of NOD by the learning rate.
            output_topsis_key: column for the figure of merit by the method, for ``topsis`` the closeness.

        Returns:
            The name of the column that was added.

        Raises:
            InputError: a column does not exist, no row is scored, or the pipeline runs in batches without constants.
        """
        names = {input_status_key: STATUS, input_don_key: DON, input_nod_key: NOD}
        if self.frozen is None and getattr(storage, "batch_size", None):
            raise InputError(
                "DonodFilter ranks a whole corpus, but this pipeline runs in batches; make constants with "
                f"topsis_constants(scores, keep=({self.keep!r},)).save(FILE) and pass constants=FILE"
            )
        frame = storage.read("dataframe")
        for name in names:
            if name not in frame.columns:
                raise InputError(f"the table has no column {name!r}; run DonodSampleEvaluator before DonodFilter")
        # Another set of scores may have the names that the given columns get.
        taken = [own for given, own in names.items() if given != own and own not in names and own in frame.columns]
        columns = frame.drop(columns=taken).rename(columns=names)
        if self.frozen is None:
            found = kept_rows(columns.to_dict("records"), self.keep, **self.settings)
            rows, value = list(found.rows), list(found.value)
        else:
            closeness = self.frozen.apply(columns[DON], columns[NOD], per_lr=True)
            rows = [at for at, one in enumerate(closeness) if one >= self.cut]
            value = [float(closeness[at]) for at in rows]
        kept = frame.iloc[rows].reset_index(drop=True)
        kept[output_topsis_key] = value
        storage.write(kept)
        self.logger.info(f"{len(kept)} of {len(frame)} rows are kept.")
        return [output_topsis_key]


def _mapping(input_keys: Mapping[str, str | None]) -> str | None:
    """``prompt=question,response=answer`` from the host's spelling of it; None without any key."""
    pairs = []
    for key, column in input_keys.items():
        if column is None:  # the host spells an absent column so
            continue
        role = key.removeprefix("input_").removesuffix("_key")
        role = _NAMES.get(role, role)
        if key != f"input_{key.removeprefix('input_').removesuffix('_key')}_key" or role not in ROLES:
            known = [f"input_{one}_key" for one in (*ROLES, *_NAMES)]
            raise InputError(f"run has no argument {key!r}{suggest(key, known)}; columns are given as input_ROLE_key")
        pairs.append(f"{role}={column}")
    return ",".join(pairs) or None


def _column(values: list[Any]) -> Any:
    """Numbers with None as floats with NaN, else the values as they are."""
    if all(value is None or isinstance(value, float) for value in values):
        return [math.nan if value is None else value for value in values]
    return values


__all__ = ["DonodFilter", "DonodSampleEvaluator"]
