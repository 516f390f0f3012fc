"""How far criteria agree: rank correlations and top-k overlaps between the columns and methods of a scores folder.

``measures.py`` computes both from columns, ``yardstick.py`` compares selections with random draws, ``loading.py`` reads
the columns of a folder, ``tables.py`` and ``picture.py`` show the result. The command is ``donod-fast compare``.
"""

from donod_fast.selection.comparison.loading import compare_by, compare_folder
from donod_fast.selection.comparison.measures import Comparison, compare_columns

__all__ = ["Comparison", "compare_by", "compare_columns", "compare_folder"]
