"""Spark's ``mapInArrow`` and ``mapInPandas`` give each row the scores of the command."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from guide_files import guide_file
from host_cases import MODEL, assert_same_scores, reference, rows, run, write_rows

pytest.importorskip("pyspark", reason="PySpark is not installed: make test-hosts")

ROWS = rows(24, unscorable=(4, 21))
SPARK = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("reference")
    return reference(write_rows(folder / "rows.jsonl", ROWS), folder / "scores")


def spark(folder: Path, text: str) -> Any:
    """Run a script in a folder with ``demo-data``, as the guide has it."""
    (folder / "demo-data").mkdir()
    (folder / "demo-data" / "model").symlink_to(MODEL)
    write_rows(folder / "demo-data" / "corpus.jsonl", ROWS)
    (folder / "spark_rows.py").write_text(text)
    return run(sys.executable, "spark_rows.py", cwd=folder, **SPARK)


def found(folder: Path) -> list[dict[str, Any]]:
    import pyarrow.parquet as pq

    return sorted(pq.read_table(folder).to_pylist(), key=lambda row: row["id"])


@pytest.mark.parametrize("way", ["arrow", "pandas"])
def test_the_guide_scores_and_selects_with_two_workers(tmp_path: Path, wanted, way: str) -> None:
    text = guide_file("spark-and-datasets", "spark_rows.py")
    if way == "pandas":
        text = text.replace("mapInArrow(score.arrow", "mapInPandas(score.pandas")
    done = spark(tmp_path, text)
    assert done.returncode == 0, done.stderr[-4000:]
    scored = found(tmp_path / "out" / "scored")
    assert [row["id"] for row in scored] == [row["id"] for row in ROWS]
    assert_same_scores(scored, wanted)
    kept = found(tmp_path / "out" / "kept")
    assert len(kept) == round(0.3 * 22)
    assert all(0 <= row["donod_topsis"] <= 1 for row in kept)


def test_a_wrong_model_path_fails_the_job(tmp_path: Path) -> None:
    text = guide_file("spark-and-datasets", "spark_rows.py").replace("demo-data/model", "demo-data/nothing")
    done = spark(tmp_path, text)
    assert done.returncode != 0
    assert "ModelError" in done.stderr and "demo-data/nothing" in done.stderr
    assert not (tmp_path / "out" / "kept").exists()


KILLED = """
    arrow = score.arrow
    flag = os.path.abspath("killed")

    def killed(batches):
        for at, batch in enumerate(arrow(batches)):
            yield batch
            if not os.path.exists(flag):
                open(flag, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)

    score.arrow = killed
"""


def test_a_killed_worker_is_retried_and_no_row_is_lost(tmp_path: Path, wanted) -> None:
    text = guide_file("spark-and-datasets", "spark_rows.py").replace("local[2]", "local[2,3]")
    head, rest = text.split("    scored = frame.repartition(2)")
    text = f"import os\nimport signal\n{head}{KILLED}    scored = frame.repartition(2){rest}"
    done = spark(tmp_path, text.replace('BatchSize", 512', 'BatchSize", 4'))
    assert (tmp_path / "killed").exists(), done.stderr[-4000:]
    assert done.returncode == 0, done.stderr[-4000:]
    assert_same_scores(found(tmp_path / "out" / "scored"), wanted)
