"""The scores of each rank of a distributed run, in a file a rank, from which a second run makes TOPSIS's constants."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from donod_fast.errors import InputError, SettingsMismatchError, StoreError
from donod_fast.scores.manifest import differences
from donod_fast.selection.frozen_constants import settings_of
from donod_fast.system.storage import open_storage
from donod_fast.system.wording import plural

_PATTERN = "rank-*.parquet"
_KEY = b"donod_fast"


@dataclass(frozen=True)
class RankFiles:
    """The files of a folder.

    Attributes:
        place: path or URL of the folder.
    """

    place: str

    def write(
        self,
        rank: int,
        ranks: int,
        don: Sequence[float | None],
        nod: Sequence[float | None],
        settings: Mapping[str, Any] | None,
    ) -> None:
        """Write the scores of a rank, whole or not at all; those of an earlier attempt are replaced.

        Args:
            rank: number of the rank, from 0.
            ranks: number of ranks of the run.
            don: DON/lr of its rows, None where a row was not scored.
            nod: NOD/lr of its rows.
            settings: ``Scorer.describe()``; None if the rank has no rows.

        Raises:
            StoreError: it cannot be written.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        about = {"rank": rank, "ranks": ranks, "settings": None if settings is None else settings_of(settings)}
        columns = {"don": pa.array(don, pa.float64()), "nod": pa.array(nod, pa.float64())}
        table = pa.table(columns).replace_schema_metadata({_KEY: json.dumps(about).encode()})
        content = io.BytesIO()
        pq.write_table(table, content, write_page_checksum=True)
        storage = open_storage(self.place)
        storage.make()
        storage.write(_name(rank), content.getvalue())

    def read(self) -> tuple[Any, Any, dict[str, Any] | None]:
        """The scores of all ranks: DON/lr, NOD/lr and how they were made.

        Raises:
            StoreError: a rank is missing or damaged, or a file is of a run with another number of ranks.
            SettingsMismatchError: ranks were scored with different settings; names each difference.
            InputError: there are no files.
        """
        import numpy as np

        storage = open_storage(self.place)
        names = storage.names(_PATTERN)
        if not names:
            raise InputError(f"{self.place} holds no scores: run the pipeline with DonodScore first")
        found = [_read(storage, name) for name in names]
        ranks = {about["ranks"] for about, _, _ in found}
        if len(ranks) > 1:
            raise StoreError(
                f"{self.place} holds scores of runs with {' and '.join(map(str, sorted(ranks)))} tasks; "
                "remove the folder and the executor's completions, and score again"
            )
        wanted = ranks.pop()
        if missing := sorted({_name(rank) for rank in range(wanted)} - set(names)):
            raise StoreError(
                f"{self.place} lacks {plural(len(missing), 'file')} of {wanted} tasks, the first is {missing[0]}; "
                "run the pipeline with DonodScore again to finish it"
            )
        settings = None
        for name, (about, _, _) in zip(names, found, strict=True):
            if settings is None:
                settings, first = about["settings"], name
            elif about["settings"] is not None and (
                unlike := differences(settings, about["settings"], (f"in {first}", f"in {name}"))
            ):
                raise SettingsMismatchError(
                    f"{self.place} holds scores made with different settings:\n  "
                    + "\n  ".join(unlike)
                    + "\nRemove the folder and the executor's completions, and score again."
                )
        don, nod = (np.concatenate([columns[at] for columns in found]) for at in (1, 2))
        return don, nod, settings


def _name(rank: int) -> str:
    return f"rank-{rank:05d}.parquet"


def _read(storage: Any, name: str) -> tuple[dict[str, Any], Any, Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    url = storage.url(name)
    try:
        table = pq.read_table(io.BytesIO(storage.read(name)), page_checksum_verification=True)
        about: dict[str, Any] = json.loads(table.schema.metadata[_KEY])
        don, nod = (table.column(one).to_numpy() for one in ("don", "nod"))
        if name != _name(about["rank"]) or not isinstance(about["ranks"], int):
            raise KeyError(name)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
        raise StoreError(f"{url} is damaged ({error}); remove it and score its task again") from error
    return about, don, nod


__all__ = ["RankFiles"]
