"""Find the names that a test's source uses without defining them."""

from __future__ import annotations

import symtable

TYPE_CHECKING = False  # as in typing, which is slow to import
if TYPE_CHECKING:
    from collections.abc import Iterator


def free_names(source: str) -> set[str]:
    """Names that a source uses as globals and does not bind at module level.

    Raises:
        SyntaxError: it is not valid Python.
    """
    top = symtable.symtable(source, "<tests>", "exec")
    bound = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    used = {symbol.get_name() for table in _tables(top) for symbol in table.get_symbols() if _global(table, symbol)}
    return used - bound


def _global(table: symtable.SymbolTable, symbol: symtable.Symbol) -> bool:
    return symbol.is_referenced() and (table.get_type() == "module" or symbol.is_global())


def _tables(table: symtable.SymbolTable) -> Iterator[symtable.SymbolTable]:
    yield table
    for child in table.get_children():
        yield from _tables(child)
