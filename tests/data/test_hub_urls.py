"""Data sets of the hub are read by ``hf://`` with the real client, and stay at the commit that was first read."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import Hub, hub_server

from donod_fast.data.reading import KnownFile, open_corpus, reopen_corpus
from donod_fast.errors import CorpusError, StoreError
from donod_fast.system import retrying
from donod_fast.system.hub_urls import pinned
from donod_fast.system.storage import ObjectStorage

NAME = "org/name"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.001)
    with hub_server(monkeypatch) as found:
        yield found


def lines(*texts: str) -> bytes:
    return b"".join(json.dumps({"text": text}).encode() + b"\n" for text in texts)


def parquet(*texts: str) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"text": list(texts)}), file)
    return file.getvalue()


def texts(corpus: object) -> list[str]:
    return [record.data["text"] for record in corpus.records()]  # type: ignore[attr-defined]


def test_files_and_patterns_are_read_at_the_commit_of_now(hub: Hub) -> None:
    commit = hub.commit(NAME, {"data/a.jsonl": lines("a", "b"), "data/b.jsonl": lines("c"), "README.md": b"#"})
    corpus = open_corpus([f"hf://datasets/{NAME}/data/*.jsonl"])
    assert texts(corpus) == ["a", "b", "c"]
    assert [entry["url"] for entry in corpus.describe()["inputs"]] == [
        f"hf://datasets/{NAME}@{commit}/data/{name}.jsonl" for name in "ab"
    ]
    assert all(len(entry["stamp"]) == 40 for entry in corpus.describe()["inputs"])
    assert texts(open_corpus([f"hf://datasets/{NAME}@main/data/b.jsonl"])) == ["c"]


@pytest.mark.parametrize("tree", [False, True])
def test_a_whole_data_set_is_its_data_files(hub: Hub, tree: bool) -> None:
    if tree:
        hub.commit(
            NAME, {"lang=de/a.parquet": parquet("a"), "lang=en/a.parquet": parquet("b", "c"), ".gitattributes": b""}
        )
    else:
        hub.commit(NAME, {"a.jsonl": lines("a"), "deep/b.jsonl": lines("b", "c"), "README.md": b"#"})
    corpus = open_corpus([f"hf://datasets/{NAME}"])
    assert texts(corpus) == ["a", "b", "c"]
    if tree:
        assert [entry["tree"]["columns"]["lang"] for entry in corpus.describe()["inputs"]] == ["de", "en"]


def test_a_resumed_run_stays_at_its_commit_and_says_so(hub: Hub, caplog: pytest.LogCaptureFixture) -> None:
    first = hub.commit(NAME, {"a.jsonl": lines("old")})
    url = f"hf://datasets/{NAME}/a.jsonl"
    before = open_corpus([url])
    second = hub.commit(NAME, {"a.jsonl": lines("new", "rows")})
    known = {entry["url"]: KnownFile(entry) for entry in before.describe()["inputs"]}
    asked = hub.asked["resolve"]
    again = open_corpus([url], known=known)
    assert hub.asked["resolve"] == asked  # a known file is not read
    assert again.describe() == before.describe() and texts(again) == ["old"]
    assert f"main has moved to commit {second[:12]}" in caplog.text and first[:12] in caplog.text
    assert texts(reopen_corpus(before.describe())) == ["old"]
    assert texts(open_corpus([url])) == ["new", "rows"]


REFUSED = {
    "the data set is gated": (403, "GatedRepo"),
    "no such data set, or it is private": (401, "RepoNotFound"),
    "permission denied": (403, ""),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_refused_data_set_names_the_remedy(hub: Hub, reason: str) -> None:
    hub.commit(NAME, {"a.jsonl": lines("a")})
    hub.refused[NAME] = (*REFUSED[reason], 0)
    with pytest.raises(CorpusError, match=rf"{NAME}.*{reason}.*hf auth login.*HF_TOKEN"):
        open_corpus([f"hf://datasets/{NAME}/a.jsonl"])


def test_a_token_that_expires_while_reading_names_the_remedy(hub: Hub) -> None:
    hub.commit(NAME, {"a.jsonl": lines("a")})
    corpus = open_corpus([f"hf://datasets/{NAME}/a.jsonl"])
    hub.refused[NAME] = (401, "", 0)
    with pytest.raises(CorpusError, match=r"hf auth login.*the same command resumes"):
        texts(corpus)


ABSENT = {f"{NAME}@v9/a.jsonl": "no revision 'v9'", f"{NAME}/b.jsonl": "no such file"}


@pytest.mark.parametrize("url", ABSENT)
def test_what_is_not_there_is_named(hub: Hub, url: str) -> None:
    hub.commit(NAME, {"a.jsonl": lines("a")})
    with pytest.raises(CorpusError, match=ABSENT[url]):
        open_corpus([f"hf://datasets/{url}"])


def test_a_busy_hub_is_asked_again(hub: Hub) -> None:
    hub.commit(NAME, {"a.jsonl": lines("a")})
    hub.busy = 2
    assert texts(open_corpus([f"hf://datasets/{NAME}/a.jsonl"])) == ["a"]
    assert hub.asked["busy"] == 2


def test_other_urls_and_commits_are_not_looked_up() -> None:
    commit = "0" * 40
    for url in ("s3://bucket/a", f"hf://datasets/{NAME}@{commit}/a.jsonl", "hf://models/a/b"):
        assert pinned(url, ()) == url


def test_a_file_of_a_bucket_is_read(hub: Hub) -> None:
    hub.buckets[NAME] = {"deep/a.jsonl": lines("a", "b")}
    corpus = open_corpus([f"hf://buckets/{NAME}/deep/a.jsonl"])
    assert texts(corpus) == ["a", "b"]
    assert [entry["url"] for entry in corpus.describe()["inputs"]] == [f"hf://buckets/{NAME}/deep/a.jsonl"]
    with pytest.raises(CorpusError, match=r"deep/b\.jsonl: there is no such file"):
        open_corpus([f"hf://buckets/{NAME}/deep/b.jsonl"])


def test_a_scores_folder_on_the_hub_is_refused() -> None:
    with pytest.raises(StoreError, match=r"each part would be a commit.*hf upload"):
        ObjectStorage(f"hf://datasets/{NAME}/scores")
