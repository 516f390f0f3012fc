"""How far criteria agree: rank correlations and top-k overlaps between the columns and methods of a scores folder.

``measures.py`` computes both from columns, ``loading.py`` reads what is needed of a folder, ``tables.py`` and
``picture.py`` show it; ``donod-fast compare`` is the command.
"""

from donod_fast.selection.comparison.loading import compare_folder
from donod_fast.selection.comparison.measures import Comparison, compare_columns

__all__ = ["Comparison", "compare_columns", "compare_folder"]
