"""Clusters of the embeddings of a folder, to colour points by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from donod_fast.errors import InputError
from donod_fast.reports.scored_table import ScoredTable, Texts
from donod_fast.selection.clustering import cluster_labels, usable
from donod_fast.selection.embeddings import read_embeddings
from donod_fast.selection.settings import CLUSTERS
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.scores.folder import ScoresFolder

CLUSTER = "cluster"
"""Name of the column."""

MOST_ROWS = 100_000
_MEMORY = 2 << 30
_SEED = 0


def cluster_texts(folder: ScoresFolder, table: ScoredTable) -> tuple[Texts | None, str]:
    """The cluster of each scored row as a column of text, and a sentence; without embeddings, None and "".

    Raises:
        StoreError: a part is damaged.
    """
    column = table.columns.get("embedding")
    if column is None or column.kind != "vector" or not len(table):
        return None, ""
    if table.missing or table.foreign:
        return None, "not computed: the folder is unfinished"
    if len(table) > MOST_ROWS:
        return None, f"not computed for more than {plural(MOST_ROWS, 'row')}"
    try:
        embeddings = read_embeddings(folder, table.row, np.ones(len(table), bool), CLUSTER, memory=_MEMORY)
        there, lengths = usable(embeddings)
        count = min(CLUSTERS, int(there.sum()))
        if not count:
            return None, "not computed: no row has an embedding"
        units = embeddings[there] / lengths[there, None]
        labels = cluster_labels(units.astype(np.float32), count, _SEED, CLUSTER)
    except InputError as error:
        return None, f"not computed: {error}"
    codes = np.full(len(table), count, np.int32)
    codes[there] = labels
    names: list[str | None] = [f"cluster {at}" for at in range(count)]
    return Texts(codes, [*names, None]), f"{count} clusters of the column embedding, by K-Means"


__all__ = ["CLUSTER", "cluster_texts"]
