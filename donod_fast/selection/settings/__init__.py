"""How rows are ranked and chosen: settings as options."""

from donod_fast.selection.settings.comparing import CompareOptions
from donod_fast.selection.settings.dual import DualSettings
from donod_fast.selection.settings.keeping import KeepOptions, PreferOptions, check_row_order
from donod_fast.selection.settings.names import (
    BY_EMBEDDINGS,
    CLUSTER_BALANCED,
    CLUSTERS,
    CORRELATIONS,
    ENGINES,
    IN_CLUSTERS,
    KCENTER,
    KMEANS_IFD,
    ORDERS,
    ROW_ORDERS,
    normalise_option,
    parse_size,
    parse_weights,
)
from donod_fast.selection.settings.ordering import OrderOptions, RankOptions

__all__ = [
    "BY_EMBEDDINGS",
    "CLUSTERS",
    "CLUSTER_BALANCED",
    "CORRELATIONS",
    "ENGINES",
    "IN_CLUSTERS",
    "KCENTER",
    "KMEANS_IFD",
    "ORDERS",
    "ROW_ORDERS",
    "CompareOptions",
    "DualSettings",
    "KeepOptions",
    "OrderOptions",
    "PreferOptions",
    "RankOptions",
    "check_row_order",
    "normalise_option",
    "parse_size",
    "parse_weights",
]
