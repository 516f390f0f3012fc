"""K-Means + IFD compared with a literal program of its rule, on synthetic and real rows."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from score_runs import assert_one_line_error, invoke, short_rows, write_lines
from tiny_models import save_tiny

from donod_fast.demo.corpus import MODEL_FOLDER
from donod_fast.errors import InputError
from donod_fast.scores.folder import ScoresFolder
from donod_fast.selection import kmeans_ifd
from donod_fast.selection.kmeans_ifd import ClusterCount, choose

pytest.importorskip("sklearn", reason="the extra `criteria` is not installed")

SHARED = Path(__file__).parents[2].parent / "shared"


def literal(rows: Any, embeddings: Any, ifd: Any, clusters: int = 10, keep: float = 0.4) -> list[int]:
    """The rule, record by record, as a reader of the paper would write it down."""
    clustering: Any = importlib.import_module("sklearn.cluster")
    preprocessing: Any = importlib.import_module("sklearn.preprocessing")
    data = [
        {"row": int(row), "vector": vector, "ifd": float(value)}
        for row, vector, value in zip(rows, embeddings, ifd, strict=True)
        if not (math.isnan(value) or np.isnan(vector).any())
    ]
    data.sort(key=lambda record: record["row"])
    vectors = preprocessing.normalize(np.stack([record["vector"] for record in data]))
    labels = clustering.KMeans(n_clusters=clusters, random_state=42).fit_predict(vectors)
    kept: list[dict[str, Any]] = []
    for cluster in range(clusters):
        members = [record for record, label in zip(data, labels, strict=True) if label == cluster]
        members = [record for record in members if record["ifd"] < 1]
        members = sorted(members, key=lambda record: record["ifd"], reverse=True)  # stable: ties stay by row
        kept += members[: int(len(members) * keep)]
    kept.sort(key=lambda record: (-record["ifd"], record["row"]))
    return [record["row"] for record in kept]


def made(count: int = 400, size: int = 6, seed: int = 0) -> tuple[Any, Any, Any]:
    """Rows in any order, embeddings about a dozen centres, IFDs with many ties and some at 1."""
    draw = np.random.default_rng(seed)
    centres = draw.normal(size=(12, size)) * 3
    embeddings = (centres[draw.integers(0, 12, count)] + draw.normal(size=(count, size))).astype(np.float32)
    return draw.permutation(count), embeddings, draw.integers(1, 24, count) / 20


@pytest.mark.parametrize(("clusters", "keep"), [(10, 0.4), (3, 0.4), (12, 0.29), (1, 1.0)])
def test_the_rows_are_those_of_the_literal_rule_in_any_order(clusters: int, keep: float) -> None:
    rows, embeddings, ifd = made()
    ifd[5], embeddings[9], embeddings[11] = np.nan, np.nan, 0.0
    found = choose(rows, embeddings, ifd, clusters=clusters, keep=keep)
    embeddings[11] = np.nan
    assert found.rows.tolist() == literal(rows, embeddings, ifd, clusters, keep)
    assert (found.without_ifd, found.without_embedding) == (1, 2)
    assert found.unhelped == sum(ifd[at] >= 1 for at in range(400) if at not in (5, 9, 11))
    assert sum(one.rows for one in found.clusters) == 397
    turned = np.random.default_rng(1).permutation(400)
    again = choose(rows[turned], embeddings[turned], ifd[turned], clusters=clusters, keep=keep)
    assert again.rows.tolist() == found.rows.tolist() and again.clusters == found.clusters
    by_row = dict(zip(rows.tolist(), ifd.tolist(), strict=True))
    assert found.ifd.tolist() == [by_row[row] for row in found.rows.tolist()]


def test_each_cluster_keeps_its_own_share_rounded_down() -> None:
    # Three far clusters of 7, 5 and 2 rows; of the first, two rows are at IFD 1 or above.
    embeddings = np.repeat(np.eye(3, dtype=np.float32), [7, 5, 2], axis=0)
    ifd = [0.1, 1.0, 0.3, 0.3, 1.5, 0.2, 0.9, 0.5, 0.4, 0.3, 0.2, 0.1, 0.8, 0.9]
    found = choose(range(14), embeddings, ifd, clusters=3)
    assert found.rows.tolist() == [6, 7, 8, 2]  # int(5 · 0.4) = 2 each, of equal IFDs the earlier row; int(2 · 0.4) = 0
    assert set(found.clusters) == {ClusterCount(7, 5, 2), ClusterCount(5, 5, 2), ClusterCount(2, 2, 0)}


def test_a_cluster_that_the_ifd_empties_harms_no_other() -> None:
    embeddings = np.repeat(np.eye(2, dtype=np.float32), 5, axis=0)
    found = choose(range(10), embeddings, [1.2] * 5 + [0.5] * 5, clusters=2)
    assert found.rows.tolist() == [5, 6]
    assert ClusterCount(5, 0, 0) in found.clusters and found.unhelped == 5


def test_equal_embeddings_are_one_cluster_without_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    ifd = [0.9 - at / 100 for at in range(30)]
    found = choose(range(30), np.ones((30, 4), np.float32), ifd)
    assert found.rows.tolist() == list(range(12))
    assert sorted(found.clusters, key=lambda one: -one.rows) == [ClusterCount(30, 30, 12)] + [ClusterCount(0, 0, 0)] * 9
    assert not [one for one in recwarn if "cluster" in str(one.message)]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (
            {"clusters": 41},
            "only 40 rows with an IFD and an embedding, fewer than --clusters 41; .* --clusters 40",
        ),
        ({"clusters": 0}, "--clusters must be at least 1"),
        ({"keep": 3}, "keeps a share of each cluster, for example --keep 0.4; got 3"),
        ({"keep": 1.5}, "keeps a share of each cluster"),
        ({"keep": 0.001}, r"kmeans-ifd keeps nothing: int\(rows · 0.001\) is 0"),
        ({"ifd": [math.nan] * 40}, "score them first"),
        ({"ifd": [1.0] * 40}, "keeps nothing: .* the largest has 0 rows with an IFD below 1"),
        ({"embeddings": np.ones(40)}, "n rows, n IFDs and"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused_with_the_remedy(change: dict[str, Any], told: str) -> None:
    given: dict[str, Any] = {"rows": range(40), "embeddings": made(40)[1], "ifd": [0.5] * 40}
    with pytest.raises(InputError, match=told):
        choose(**{**given, **change})


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scored folder with IFDs and embeddings, which no test changes."""
    place = tmp_path_factory.mktemp("clusters")
    data = write_lines(place / "a.jsonl", short_rows(60, seed=5))
    options = ["--model", save_tiny("llama", place / "model"), "--device", "cpu", "--part-rows", "16"]
    done = invoke("score", data, *options, "--signals", "ifd,embedding", "--out", place / "out")
    assert done.code == 0, done.err
    return place / "out"


def of_table(scores: Path) -> tuple[list[int], Any, list[float]]:
    table = [row for row in ScoresFolder.open(scores).table().to_pylist() if not math.isnan(row["don"])]
    size = next(len(row["embedding"]) for row in table if row["embedding"] is not None)
    vectors = [[math.nan] * size if row["embedding"] is None else row["embedding"] for row in table]
    return [row["row"] for row in table], np.array(vectors, np.float32), [row["ifd_ppl"] for row in table]


def test_select_keeps_the_rows_of_the_rule_by_the_folders_embeddings(scores: Path, tmp_path: Path) -> None:
    out = tmp_path / "s.jsonl"
    options = ["--method", "kmeans-ifd", "--clusters", "4", "--out", out, "--order", "best", "--overwrite"]
    done = invoke("select", scores, *options, "--json")
    assert done.code == 0, done.err
    rows, embeddings, ifd = of_table(scores)
    wanted = literal(rows, embeddings, ifd, clusters=4)
    records = [json.loads(line) for line in (scores.parent / "a.jsonl").read_bytes().splitlines()]
    assert [json.loads(line) for line in out.read_bytes().splitlines()] == [records[row] for row in wanted]
    told = json.loads(done.out)
    assert (told["method"], told["kept"], told["by"]) == ("kmeans-ifd", len(wanted), "cluster")
    unhelped = sum(value >= 1 for value in ifd)
    assert told["left_out"]["IFD ≥ 1"] == unhelped > 0
    assert told["scored"] == sum(value < 1 for value in ifd)
    assert sum(group["kept"] for group in told["groups"]) == len(wanted)
    text = invoke("select", scores, *options, "--explain", "--keep", "0.9").out
    assert f"{unhelped} rows with IFD ≥ 1 are left out" in text and "IFD < 1" in text


def test_a_sentence_transformers_model_embeds_the_questions_alone(scores: Path, tmp_path: Path) -> None:
    pytest.importorskip("sentence_transformers", reason="the extra `criteria` is not installed")
    from donod_fast.models.sentence_embeddings import embed_texts

    found = kmeans_ifd.read_questions(ScoresFolder.open(scores), str(MODEL_FOLDER))
    records = [json.loads(line) for line in (scores.parent / "a.jsonl").read_bytes().splitlines()]
    rows, _, ifd = of_table(scores)
    assert found.rows.tolist() == rows and np.array_equal(found.ifd, ifd, equal_nan=True)
    asked = [at for at, row in enumerate(rows) if "question" in records[row] and records[row]["question"].strip()]
    assert len(asked) > 40
    wanted = embed_texts([records[rows[at]]["question"] for at in asked], str(MODEL_FOLDER))
    np.testing.assert_allclose(found.embeddings[asked], wanted, atol=1e-5)
    options = [
        "--method",
        "kmeans-ifd",
        "--clusters",
        "4",
        "--embedding-model",
        MODEL_FOLDER,
        "--out",
        tmp_path / "s.jsonl",
    ]
    assert invoke("select", scores, *options).code == 0


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--clusters", "500"], "fewer than --clusters 500; give at most --clusters"),
        (["--keep", "3"], "keeps a share of each cluster, for example --keep 0.4"),
        (["--engine", "duckdb"], "needs the embeddings in memory"),
        (["--by", "file"], "keeps a share of each of its clusters; remove --by"),
        (["--prefer", "low"], "remove --prefer"),
        (["--memory", "1KB"], "raise --memory"),
        (["--don-quantile", "0.5"], "--don-threshold and --don-quantile are for don-threshold"),
    ],
)
def test_options_that_do_not_go_with_it_are_refused(
    scores: Path, tmp_path: Path, options: list[str], told: str
) -> None:
    done = invoke("select", scores, "--method", "kmeans-ifd", "--out", tmp_path / "s.jsonl", *options)
    assert_one_line_error(done, 2, told)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_ifd_or_embeddings_explains_how_to_add_them(scores: Path, tmp_path: Path) -> None:
    options = ["--model", scores.parent / "model", "--device", "cpu", "--out", tmp_path / "out"]
    out = ["--method", "kmeans-ifd", "--out", tmp_path / "s.jsonl"]
    assert invoke("score", scores.parent / "a.jsonl", *options).code == 0
    assert_one_line_error(invoke("select", tmp_path / "out", *out), 2, "--signals ifd --out DIR")
    assert invoke("score", scores.parent / "a.jsonl", *options, "--signals", "ifd").code == 0
    done = invoke("select", tmp_path / "out", *out)
    assert_one_line_error(done, 2, "--embedding-model sentence-transformers/all-mpnet-base-v2", "--signals embedding")
    assert_one_line_error(invoke("rank", tmp_path / "out", "--method", "kmeans-ifd"), 2, "use `donod-fast select")
    other = invoke("select", tmp_path / "out", "--method", "ifd", "--keep", "0.5", "--embedding-model", "x", *out[2:])
    assert_one_line_error(other, 2, "--embedding-model is for the methods kmeans-ifd")


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "models" / "tiny-instruct").is_dir(), reason="the real data of ../shared is absent")
def test_real_questions_are_chosen_by_the_literal_rule(tmp_path: Path) -> None:
    lines = (SHARED / "data" / "gsm8k" / "train.jsonl").read_text().splitlines()[:45]
    data = tmp_path / "gsm8k.jsonl"
    with data.open("w") as file:  # the prompt that the paper scores
        for record in map(json.loads, lines):
            prompt = f"Question:\n{record['question']}\n\nAnswer:\n"
            file.write(json.dumps({"prompt": prompt, "completion": record["answer"]}) + "\n")
    options = ["--model", SHARED / "models" / "tiny-instruct", "--device", "cpu", "--signals", "ifd,embedding"]
    assert invoke("score", data, *options, "--out", tmp_path / "out").code == 0
    out = tmp_path / "s.jsonl"
    done = invoke("select", tmp_path / "out", "--method", "kmeans-ifd", "--out", out, "--order", "best")
    assert done.code == 0, done.err
    wanted = literal(*of_table(tmp_path / "out"))
    assert 5 < len(wanted) < 18
    records = data.read_bytes().splitlines()
    assert out.read_bytes().splitlines() == [records[row] for row in wanted]
