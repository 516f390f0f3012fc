"""Ranking larger than memory needs DuckDB."""

import pytest

pytest.importorskip("duckdb", reason="the extra `large` is not installed")
