"""A subset goes to a data set of the hub in one commit, or not at all; real HTTP, with the real client."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hub_server import POINTER, Hub, hub_server
from score_runs import assert_one_line_error, invoke
from scored_folders import scored
from stored_records import old
from tiny_models import tiny_model, tiny_tokenizer

from donod_fast.data.reading import open_corpus
from donod_fast.data.reading.corpus import Corpus
from donod_fast.errors import DonodError, InputError, StoreError
from donod_fast.scoring.scorer import Scorer
from donod_fast.selection.hub_subset import HubSubset
from donod_fast.selection.subset import write_subset
from donod_fast.system import retrying
from donod_fast.system.hub_uploads import HubFile

NAME = "org/name"
ROWS = [{"question": f"red {row}", "answer": "blue" * (row + 1)} for row in range(6)]
CHOSEN = [4, 0, 3]
README = {"README.md": b"#", "data/other.jsonl": b"{}\n"}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(retrying, "FIRST_WAIT", 0.001)
    with hub_server(monkeypatch) as found:
        monkeypatch.setenv("HF_TOKEN", "hf_" + "x" * 34)
        found.commit(NAME, README)
        yield found


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Corpus]:
    """The same rows in a file of each kind."""
    place = tmp_path_factory.mktemp("inputs")
    (place / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for suffix, mark in (("csv", ","), ("tsv", "\t")):
        with (place / f"a.{suffix}").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(ROWS[0]), delimiter=mark)
            writer.writeheader()
            writer.writerows(ROWS)
    pq.write_table(pa.Table.from_pylist(ROWS), place / "a.parquet")
    with tarfile.open(place / "a.tar", "w") as archive:
        for number, row in enumerate(ROWS):
            content = json.dumps(row).encode()
            member = tarfile.TarInfo(f"{number}.json")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    files = (old(place / f"a.{kind}") for kind in ("jsonl", "csv", "tsv", "parquet", "tar"))
    return {file.suffix: open_corpus([str(file)]) for file in files}


def begin(corpus: Corpus, path: str, *, overwrite: bool = False, inputs: tuple[dict[str, str], ...] = ()) -> HubSubset:
    return HubSubset.begin(f"hf://datasets/{path}", corpus.sources, inputs, overwrite=overwrite)


KINDS = [
    *((".jsonl", end) for end in (".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".parquet")),
    *((end, end) for end in (".csv", ".tsv", ".tar")),
    *((".parquet", end) for end in (".parquet", ".arrow", ".feather")),
]


@pytest.mark.parametrize("order", ["input", "best"])
@pytest.mark.parametrize(("kind", "suffix"), KINDS)
def test_the_file_on_the_hub_is_the_local_one(
    hub: Hub, inputs: dict[str, Corpus], tmp_path: Path, kind: str, suffix: str, order: str
) -> None:
    corpus = inputs[kind]
    write_subset(corpus, CHOSEN, tmp_path / f"subset{suffix}", order=order)  # type: ignore[arg-type]
    written, commit = begin(corpus, f"{NAME}/deep/subset{suffix}").write(corpus, CHOSEN, order, temp_dir=tmp_path)
    assert written.rows == len(CHOSEN)
    content = (tmp_path / f"subset{suffix}").read_bytes()
    assert hub.files(NAME) == {**README, f"deep/subset{suffix}": content}
    assert commit == hub.branches[NAME]["main"] and len(hub.commits[NAME]) == 2
    assert [file.name for file in tmp_path.iterdir()] == [f"subset{suffix}"]


def test_a_file_for_the_store_of_large_files_is_committed_too(
    hub: Hub, inputs: dict[str, Corpus], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("hf_xet", reason="the client sends large files with it")
    (tmp_path / "store").mkdir()
    hub.store, hub.lost = tmp_path / "store", ["after"]  # the second try finds the commit of the first
    corpus = inputs[".parquet"]
    _, commit = begin(corpus, f"{NAME}/s.parquet").write(corpus, CHOSEN)
    write_subset(corpus, CHOSEN, tmp_path / "s.parquet")
    content = (tmp_path / "s.parquet").read_bytes()
    pointer = f"oid sha256:{hashlib.sha256(content).hexdigest()}\nsize {len(content)}\n"
    assert hub.commits[NAME][commit] == {**README, "s.parquet": POINTER + pointer.encode()}
    assert any(file.is_file() for file in hub.store.rglob("*"))  # the content; the commit is not it
    assert capfd.readouterr() == ("", "")  # no bars


@pytest.mark.parametrize("branch", ["dev", "a/b", "refs/pr/7"])
def test_a_named_branch_gets_it_and_main_stays(hub: Hub, inputs: dict[str, Corpus], branch: str) -> None:
    hub.commit(NAME, README, branch)
    main = hub.branches[NAME]["main"]
    spelt = branch.replace("/", "%2F") if branch == "a/b" else branch
    subset = begin(inputs[".jsonl"], f"{NAME}@{spelt}/s.jsonl")
    assert subset.upload.file.url() == f"hf://datasets/{NAME}@{spelt}/s.jsonl"
    subset.write(inputs[".jsonl"], CHOSEN)
    assert "s.jsonl" in hub.files(NAME, branch) and hub.branches[NAME]["main"] == main


def test_select_prints_the_commit_from_which_it_can_be_read(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "a.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    scored(Scorer(tiny_model("llama"), tiny_tokenizer()), tmp_path / "scores", [old(data)])
    options = ("select", tmp_path / "scores", "--keep", "0.5", "--out")
    url = f"hf://datasets/{NAME}/s.jsonl"
    done = invoke(*options, url)
    pinned = f"hf://datasets/{NAME}@{hub.branches[NAME]['main']}/s.jsonl"
    assert done.code == 0 and f"→ {pinned}\n" in done.out
    assert open_corpus([pinned]).rows == 3
    assert invoke(*options, tmp_path / "s.jsonl").code == 0
    assert hub.files(NAME)["s.jsonl"] == (tmp_path / "s.jsonl").read_bytes()

    before, asked = dict(hub.branches[NAME]), hub.asked["commit"]
    assert_one_line_error(invoke(*options, url), 5, url, "exists already", "--overwrite")
    assert_one_line_error(invoke(*options, url, "--dataset-info", tmp_path), 2, "--dataset-info needs a file")
    assert_one_line_error(invoke(*options, "s3://bucket/s.jsonl"), 2, "written to this machine only")
    assert (hub.branches[NAME], hub.asked["commit"]) == (before, asked)
    done = invoke(*options, url, "--overwrite", "--order", "best", "--json")
    assert json.loads(done.out)["out"] == pinned.replace(before["main"], hub.branches[NAME]["main"])
    monkeypatch.delenv("HF_TOKEN")
    assert_one_line_error(invoke(*options, url, "--overwrite"), 5, url, "needs a token; log in with `hf auth login`")


REFUSED = {
    f"{NAME}/data/other.jsonl": (StoreError, r"exists already; give another name, or add --overwrite"),
    f"{NAME}/data": (InputError, r"the name must end in \.jsonl"),
    f"{NAME}/README.md/s.jsonl": (StoreError, r"README\.md is a file of the data set, not a folder"),
    f"{NAME}/kind.jsonl": (StoreError, r"is a folder of the data set"),
    f"{NAME}/s.csv": (InputError, r"only rows of .csv files go into a .csv file"),
    f"{NAME}/s.lance": (InputError, r"a folder is not written to the hub.*hf upload"),
    f"{NAME}/s.npy": (InputError, r"a file with others beside it is not written to the hub"),
    f"{NAME}/../s.jsonl": (InputError, r"no empty parts"),
    f"{NAME}/*.jsonl": (InputError, r"none of \* \? \["),
    f"{NAME}/": (InputError, r"give the name of a file in a data set"),
    f"{NAME}@{'0' * 40}/s.jsonl": (InputError, r"a commit cannot be changed; name a branch"),
    f"{NAME}@v1/s.jsonl": (StoreError, r"no branch 'v1' that can be written to; there are: main"),
    f"{NAME}@dev/s.jsonl": (StoreError, r"no branch 'dev' that can be written to; there are: main"),
    "org/none/s.jsonl": (StoreError, r"no such data set, or the token may not see it; make it with"),
    "org/na me/s.jsonl": (InputError, r"The shape is hf://datasets/ORG/NAME"),
}


@pytest.mark.parametrize("path", REFUSED)
def test_what_cannot_be_written_is_refused_before_any_work(hub: Hub, inputs: dict[str, Corpus], path: str) -> None:
    hub.commit(NAME, {**README, "kind.jsonl/a": b""})
    hub.commit(NAME, README, "v1")
    kind, wanted = REFUSED[path]
    before = hub.files(NAME)
    hub.commit(NAME, before)
    with pytest.raises(kind, match=wanted) as found:
        begin(inputs[".jsonl"], path)
    assert f"hf://datasets/{path}" in str(found.value)
    assert hub.files(NAME) == before and hub.asked["commit"] == 0


@pytest.mark.parametrize("url", ["hf://buckets/org/b/s.jsonl", "hf://org/model/s.jsonl", "hf://spaces/a/b/s.jsonl"])
def test_buckets_and_models_are_refused(hub: Hub, url: str) -> None:
    with pytest.raises(InputError, match=rf"{url}: .*hf://datasets/ORG/NAME"):
        HubFile.of(url)


def test_an_input_of_the_corpus_is_never_replaced(hub: Hub, inputs: dict[str, Corpus]) -> None:
    own = {"url": f"hf://datasets/{NAME}@{hub.branches[NAME]['main']}/data/other.jsonl"}
    with pytest.raises(StoreError, match="one of the inputs"):
        begin(inputs[".jsonl"], f"{NAME}/data/other.jsonl", overwrite=True, inputs=(own,))


def all_refusals(hub: Hub, write: Callable[[], object]) -> Iterator[tuple[tuple[int, str], str]]:
    """Refuse each request of a write in turn, with two statuses; gives the refusal and what the user is told."""
    statuses = ((401, ""), (403, ""), (403, "GatedRepo"), (404, "RepoNotFound"), (404, "RevisionNotFound"), (400, ""))
    for at, status in enumerate(statuses):
        for after in (at, (at + 4) % 6):
            hub.refused[NAME] = (*status, after)
            with pytest.raises(DonodError) as found:
                write()
            assert isinstance(found.value, StoreError)
            del hub.refused[NAME]
            yield status, str(found.value)


def test_a_refusal_at_any_request_is_one_error_and_loses_nothing(hub: Hub, inputs: dict[str, Corpus]) -> None:
    corpus, seen = inputs[".jsonl"], 0
    for _, said in all_refusals(hub, lambda: begin(corpus, f"{NAME}/s.jsonl").write(corpus, CHOSEN)):
        seen += 1
        assert said.startswith(f"hf://datasets/{NAME}/s.jsonl: "), said
        if "s.jsonl" in hub.files(NAME):  # refused after the commit: it is whole, and the message says so
            assert len(hub.files(NAME)["s.jsonl"].splitlines()) == len(CHOSEN)
            assert hub.branches[NAME]["main"][:12] in said, said
            hub.commit(NAME, README)
        else:
            assert hub.files(NAME) == README
            remedies = ("hf auth login", "make it on the data set's page", "nothing was written", "refuses the request")
            assert any(remedy in said for remedy in remedies), said
    assert seen == 12


def test_the_same_content_is_no_further_commit(
    hub: Hub, inputs: dict[str, Corpus], caplog: pytest.LogCaptureFixture
) -> None:
    corpus = inputs[".jsonl"]
    written = [
        begin(corpus, f"{NAME}/s.jsonl", overwrite=True).write(corpus, rows)[1] for rows in (CHOSEN, CHOSEN, [1])
    ]
    assert written[0] == written[1] != written[2] and hub.asked["commit"] == 2 and not caplog.text
    subset = begin(corpus, f"{NAME}/s.jsonl", overwrite=True)
    hub.commit(NAME, README)
    with pytest.raises(StoreError, match="has moved"):
        subset.write(corpus, [1])


@pytest.mark.parametrize("lost", [["before"], ["after"], ["busy"], ["busy", "before", "after"]])
def test_a_lost_answer_gives_one_commit(hub: Hub, inputs: dict[str, Corpus], lost: list[str]) -> None:
    corpus = inputs[".jsonl"]
    hub.lost = list(lost)
    _, commit = begin(corpus, f"{NAME}/s.jsonl").write(corpus, CHOSEN)
    assert commit == hub.branches[NAME]["main"] and len(hub.commits[NAME]) == 2 and not hub.lost


def test_a_refusal_after_a_lost_answer_does_not_say_that_nothing_was_written(
    hub: Hub, inputs: dict[str, Corpus]
) -> None:
    corpus = inputs[".jsonl"]
    subset = begin(corpus, f"{NAME}/s.jsonl")
    hub.lost = ["after"]
    hub.before_commit = lambda: hub.refused.update({NAME: (403, "", 0)})
    with pytest.raises(
        StoreError, match=r"the token is refused.*; whether an earlier try wrote it is not known; log in"
    ):
        subset.write(corpus, CHOSEN)
    assert "s.jsonl" in hub.files(NAME)


@pytest.mark.parametrize("lost", ["before", "busy"])
def test_a_hub_that_stays_away_is_an_error_without_a_commit(hub: Hub, inputs: dict[str, Corpus], lost: str) -> None:
    corpus = inputs[".jsonl"]
    subset = begin(corpus, f"{NAME}/s.jsonl")
    hub.lost = [lost] * retrying.ATTEMPTS
    with pytest.raises(StoreError, match=rf"{NAME}/s\.jsonl: .*attempts failed.*nothing was written; repeat"):
        subset.write(corpus, CHOSEN)
    assert hub.files(NAME) == README


def test_a_busy_hub_is_asked_again_before_the_work(hub: Hub, inputs: dict[str, Corpus]) -> None:
    hub.busy = 2
    begin(inputs[".jsonl"], f"{NAME}/s.jsonl")
    assert hub.asked["busy"] == 2


@pytest.mark.parametrize("other", ["s.jsonl", "README.md"])
def test_a_branch_that_moved_is_not_written_over(hub: Hub, inputs: dict[str, Corpus], other: str) -> None:
    corpus = inputs[".jsonl"]
    for overwrite in (False, True):
        hub.commit(NAME, README)
        hub.before_commit = lambda: hub.commit(NAME, {**README, other: b"of another"})
        with pytest.raises(StoreError, match=r"main has moved from commit .* nothing was written.*repeat the command"):
            begin(corpus, f"{NAME}/s.jsonl", overwrite=overwrite).write(corpus, CHOSEN)
        assert hub.files(NAME) == {**README, other: b"of another"}


def test_of_writers_at_once_one_writes_and_the_others_are_told(hub: Hub, inputs: dict[str, Corpus]) -> None:
    corpus, count = inputs[".jsonl"], 4
    hub.before_commit = threading.Barrier(count).wait
    said: list[str] = []

    def write(subset: HubSubset, row: int) -> None:
        try:
            said.append(subset.write(corpus, [row])[1])
        except StoreError as error:
            said.append(str(error))

    subsets = [begin(corpus, f"{NAME}/s.jsonl", overwrite=True) for _ in range(count)]
    writers = [threading.Thread(target=write, args=(subset, row)) for row, subset in enumerate(subsets)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(said) == count and len(hub.commits[NAME]) == 2
    assert said.count(hub.branches[NAME]["main"]) == 1
    assert sum("has moved from commit" in one for one in said) == count - 1


def test_a_name_that_the_data_set_ignores_is_an_error(hub: Hub, inputs: dict[str, Corpus]) -> None:
    hub.ignored.add("s.jsonl")
    subset = begin(inputs[".jsonl"], f"{NAME}/s.jsonl")
    with pytest.raises(StoreError, match=r"does not hold the file.*\.gitignore"):
        subset.write(inputs[".jsonl"], CHOSEN)
