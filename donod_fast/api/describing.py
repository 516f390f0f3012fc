"""How ``Scores`` shows itself: what was scored, how, and the first rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

from donod_fast.api.shown import as_pre, as_table, counts
from donod_fast.errors import DonodError
from donod_fast.scores.rows import schema
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    import pyarrow as pa

    from donod_fast.api.source import Source
    from donod_fast.scores.folder import ScoresFolder

_ROWS = 5
_COLUMNS = ["row", "id", "status", "tokens", "loss", "don", "nod"]


def described(source: Source) -> str:
    """Rows by status, model, update, place and columns, a line each; a damaged folder says what is wrong."""
    folder = source.folder
    try:
        by_status = dict(folder.counts())
        columns = ", ".join(schema(folder.carry, folder.signal_columns()).names)
    except DonodError as error:
        return f"Scores: {plural(folder.rows, 'row')}, {source.place}\n  {error}"
    left = folder.rows - sum(by_status.values())
    unfinished = f"; unfinished, {left:,} missing (see .status)" if left else ""
    lines = [f"Scores: {plural(folder.rows, 'row')}: {counts(by_status) or 'none yet'}{unfinished}"]
    if source.has_settings:
        model, update = folder.manifest["model"], folder.manifest["update"]
        lr = f", lr {update['lr']:g}" if "lr" in update else ""
        lines.append(f"  model: {model.get('name', 'unknown')}; update: {update.get('update', 'unknown')}{lr}")
    else:
        lines.append("  model and update: unknown, an exported file does not say them")
    return "\n".join([*lines, f"  place: {source.place}", f"  columns: {columns}"])


def described_as_html(source: Source) -> str:
    """As :func:`described`, with a table of the first rows, everything escaped."""
    text = as_pre(described(source))
    try:
        head = _head(source.folder)
    except DonodError:  # damaged: the text says so
        return text
    if head is None:
        return text
    left = source.folder.rows - head.num_rows
    rows = [list(row.values()) for row in head.to_pylist()]
    return text + as_table(head.column_names, rows) + (f"<p>… {left:,} more</p>" if left else "")


def _head(folder: ScoresFolder) -> pa.Table | None:
    """A few columns of the first rows; None if the first part is missing."""
    more = [column.name for column in folder.signal_columns() if column.kind != "vector"]
    table = folder.read_part(0)
    return None if table is None else table.select([*_COLUMNS, *more]).slice(0, _ROWS)


__all__ = ["described", "described_as_html"]
