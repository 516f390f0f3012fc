"""A DuckDB database in a temporary folder: tables on disk, limited memory, errors as donod_fast errors."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from donod_fast.errors import InputError, StoreError
from donod_fast.system.files import storage_error
from donod_fast.system.scratch import scratch_folder


class Database:
    """A database that exists during its ``with`` block and leaves no files behind.

    Args:
        folder: parent of its temporary folder; None for the system's temporary folder.
        memory: memory limit of DuckDB in bytes; it writes the rest to the temporary folder.
        threads: number of threads of DuckDB; None for all cores.

    Raises:
        InputError: DuckDB is not installed.
        StoreError: the folder cannot be written.
    """

    def __init__(self, folder: Path | None, memory: int, threads: int | None = None) -> None:
        try:
            import duckdb
        except ImportError:
            raise InputError(
                "ranking larger than memory and --by need DuckDB: pip install 'donod-fast[large]'"
            ) from None
        self._kept = ExitStack()
        try:
            parent = Path(tempfile.gettempdir()) if folder is None else folder
            self.path = self._kept.enter_context(scratch_folder(parent, ".donod-fast-rank-"))
        except OSError as error:
            raise storage_error(folder or Path(tempfile.gettempdir()), error) from error
        options: dict[str, Any] = {
            "memory_limit": f"{memory // 1024}KiB",
            "temp_directory": str(self.path / "spill"),
            "preserve_insertion_order": "false",
            "autoinstall_known_extensions": "false",
        }
        if threads is not None:
            options["threads"] = str(threads)
        self._engine: Any = duckdb
        try:
            with self._translated_errors():
                self._connection: Any = duckdb.connect(str(self.path / "ranks.duckdb"), config=options)
        except BaseException:
            self._kept.close()
            raise

    def __enter__(self) -> Database:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Delete the database and its folder."""
        try:
            with self._translated_errors():
                self._connection.close()
        finally:
            self._kept.close()

    def run(self, statement: str) -> None:
        """Execute a statement that returns no rows."""
        with self._translated_errors():
            self._connection.execute(statement)

    def columns(self, query: str) -> dict[str, Any]:
        """Return the columns of a query's result as numpy arrays; for results with few rows."""
        with self._translated_errors():
            found: dict[str, Any] = self._connection.execute(query).fetchnumpy()
        return found

    def one(self, query: str) -> tuple[Any, ...]:
        """Return the single row of a query's result."""
        with self._translated_errors():
            row: tuple[Any, ...] = self._connection.execute(query).fetchone()
        return row

    def insert(self, table: str, batch: Any) -> None:
        """Insert the rows of an Arrow table with the same columns."""
        with self._translated_errors():
            self._connection.register("batch", batch)
            self._connection.execute(f"INSERT INTO {table} SELECT * FROM batch")
            self._connection.unregister("batch")

    def replace(self, table: str, content: Any) -> None:
        """Create a small table from an Arrow table; it replaces a table of the same name."""
        with self._translated_errors():
            self._connection.register("content", content)
            self._connection.execute(f"CREATE OR REPLACE TEMP TABLE {table} AS SELECT * FROM content")
            self._connection.unregister("content")

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except self._engine.OutOfMemoryException as error:
            reason = str(error).splitlines()[0]
            raise StoreError(f"ranking needs more memory than its limit ({reason}); raise --memory") from error
        except self._engine.IOException as error:
            reason = str(error).splitlines()[0]
            raise StoreError(
                f"the temporary folder {self.path.parent} cannot be written ({reason}); "
                "choose a folder with free space with --temp-dir"
            ) from error


__all__ = ["Database"]
