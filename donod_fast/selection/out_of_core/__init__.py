"""Ranking larger than memory: part files of scores → a table in DuckDB → cuts → a set of rows.

Steps of a selection: ``loading.py`` reads the columns that a method needs from the parts, a few hundred thousand rows
at a time. ``ranking.merit`` computes their values, as it does in memory, with constants from the parts' footers
(``merit.py``). (row, group, value) goes into a table on disk (``database.py``); groups are numbered (``groups.py``).
``cutting.py`` finds the value at which a group is cut by counting, without a sort. ``shares.py`` says how many rows of
a group are kept. ``ranked.py`` runs these steps, and ``row_set.py`` holds the chosen rows, one bit per row.
"""

from donod_fast.selection.out_of_core.ranked import BigRanking, GroupCount, rank_parts
from donod_fast.selection.out_of_core.row_set import RowSet

__all__ = ["BigRanking", "GroupCount", "RowSet", "rank_parts"]
