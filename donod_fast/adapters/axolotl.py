"""Axolotl's plugin: scores the rows that it would train on, and trains on the best of them.

    plugins: [donod_fast.adapters.axolotl.DonodPlugin]
    donod_keep: 0.3

The plugin loads the datasets as Axolotl does, after its tokenizer, template and masks, before the model to be trained
is loaded. Only the fields of :class:`DonodArgs` are read. Importing this module imports Axolotl.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

from donod_fast.adapters.extras import host_module
from donod_fast.adapters.token_scores import TOKENS, choose_rows, parsed_keep, rank_options, score_request
from donod_fast.errors import InputError, suggest
from donod_fast.system.wording import plural

_BASE: Any = host_module("axolotl.integrations.base", "axolotl")
_LOG = host_module("axolotl.utils.logging", "axolotl").get_logger("axolotl.integrations.donod_fast")

_PREFIX = "donod_"


class DonodArgs(BaseModel):
    """The keys of a configuration file that the plugin reads."""

    donod_keep: float | int | str | None = Field(
        None, description="How many rows to train on: 0.3 or 30% of the scored rows, or a count. All without it."
    )
    donod_method: str = Field("topsis", description="Ranking method, as of donod-fast select --method.")
    donod_out: str | None = Field(None, description="Folder of the scores; OUTPUT_DIR/donod without it.")
    donod_model: str | None = Field(None, description="The model that scores; base_model without it.")
    donod_options: dict[str, Any] | None = Field(None, description="Further options of donod-fast score, by name.")
    donod_select: dict[str, Any] | None = Field(None, description="Further options of donod-fast select, by name.")


class DonodPlugin(_BASE.BasePlugin):  # type: ignore[misc]
    """Scores and prunes the training rows before Axolotl loads the model."""

    def get_input_args(self) -> str:
        """Name of the class of the plugin's keys."""
        return f"{__name__}.{DonodArgs.__name__}"

    def register(self, cfg: Mapping[str, Any]) -> None:
        """Refuse wrong keys and values before anything is loaded. Raises InputError."""
        known = tuple(DonodArgs.model_fields)
        for key in cfg:
            if str(key).startswith(_PREFIX) and key not in known:
                raise InputError(f"unknown key {key!r}{suggest(key, known)}; known are {', '.join(known)}")
        for key, why in (
            ("rl", "preference and reward training"),
            ("pretraining_dataset", "a pre-training stream"),
            ("streaming", "a stream of rows"),
            ("skip_prepare_dataset", "rows that Axolotl does not tokenise"),
            ("reward_model", "preference and reward training"),
        ):
            if cfg.get(key):
                raise InputError(f"{key}: the plugin of donod_fast does not score {why}; remove the plugin")
        for key in ("donod_options", "donod_select"):
            if cfg.get(key) is not None and not isinstance(cfg.get(key), Mapping):
                raise InputError(f"{key} must hold options by name, got {cfg.get(key)!r}")
        self._plan(cfg)

    def load_datasets(self, cfg: Any, preprocess: bool = False) -> Any:
        """Axolotl's datasets without the rows that were not chosen; None while it only preprocesses.

        Raises:
            InputError, StoreError, ModelError: the rows cannot be scored; the run ends.
        """
        if preprocess:
            return None
        found = host_module("axolotl.common.datasets", "axolotl").load_datasets(cfg=cfg)
        out, keep, request, options = self._plan(cfg)
        dataset = found.train_dataset
        _LOG.info(f"donod_fast: scoring {plural(len(dataset), 'row')} with {request.model.model}")
        choice = choose_rows(dataset, out, request, keep, options)
        statuses = ", ".join(f"{count:,} {status}" for status, count in choice.counts.items())
        if choice.kept is None:
            _LOG.info(
                f"donod_fast: {statuses}; scores in {choice.scores}; donod_keep is not set, all rows are trained on"
            )
            return found
        dropped = choice.rows - len(choice.kept)
        _LOG.info(
            f"donod_fast: {statuses}; kept {len(choice.kept):,} rows by {options.method}, dropped {dropped:,}; "
            f"scores in {choice.scores}, row by row those of {out / TOKENS}"
        )
        # Axolotl counts tokens in the table itself, so an index over it would count the dropped rows.
        found.train_dataset = dataset.select(choice.kept).flatten_indices()
        found.total_num_steps = _steps(cfg, found.train_dataset)
        return found

    def _plan(self, cfg: Mapping[str, Any]) -> tuple[Path, float | int | None, Any, Any]:
        model = cfg.get("donod_model") or cfg.get("base_model")
        if not isinstance(model, str):
            raise InputError(f"base_model must be a folder or a hub id, got {model!r}")
        out = cfg.get("donod_out")
        folder = Path(out) if out else Path(str(cfg.get("output_dir") or "./model-out")) / "donod"
        keep = parsed_keep(cfg.get("donod_keep"))
        given = {"trust_remote_code": bool(cfg.get("trust_remote_code"))} if cfg.get("trust_remote_code") else {}
        request = score_request(model, folder / TOKENS, {**given, **(cfg.get("donod_options") or {})})
        options = rank_options(str(cfg.get("donod_method") or "topsis"), cfg.get("donod_select") or {})
        return folder, keep, request, options


def _steps(cfg: Any, dataset: Any) -> int:
    """The number of training steps, counted again from the rows that are left."""
    for key in ("total_num_tokens", "total_supervised_tokens"):
        cfg[key] = None
    count = host_module("axolotl.utils.trainer", "axolotl").calculate_total_num_steps
    steps = int(count(cfg, dataset))
    return min(steps, int(cfg.max_steps)) if cfg.max_steps else steps


__all__ = ["DonodArgs", "DonodPlugin"]
