"""``--update adamw-warm``: the state is that of a seeded sample, is kept with the scores, and is used by a resume."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from score_runs import assert_one_line_error, invoke, short_rows, write_lines
from tiny_models import save_tiny

from donod_fast.data.reading import open_corpus
from donod_fast.errors import InputError, SettingsMismatchError, StoreError
from donod_fast.kernels import FactoredAdamW, reference_don_nod
from donod_fast.models.batching import collate
from donod_fast.scores.folder import ScoresFolder
from donod_fast.scoring.scorer import Scorer
from donod_fast.scoring.settings import UpdateSettings
from donod_fast.scoring.warm_state import FILE, WarmState, sampled_records, state_digest

ROWS = 24
EPS = 1e-5


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("llama", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lines(tmp_path_factory.mktemp("data") / "rows.jsonl", short_rows(ROWS, seed=5))


def options(model: Path, data: Path, out: Path, *more: object) -> list[object]:
    return ["score", data, "--model", model, "--out", out, "--device", "cpu", "--part-rows", 10,
            "--update", "adamw-warm", "--warm-rows", 9, "--eps", EPS, *more]  # fmt: skip


@pytest.fixture(scope="module")
def scored(model: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished folder, which no test changes."""
    out = tmp_path_factory.mktemp("scored") / "out"
    assert invoke(*options(model, data, out)).code == 0
    return out


@pytest.fixture
def out(scored: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(scored, tmp_path / "out"))


def test_scores_are_those_of_autograd_with_the_whole_state(model: Path, data: Path, scored: Path) -> None:
    folder = ScoresFolder.open(scored)
    scorer = Scorer.from_pretrained(model, device="cpu")
    corpus = open_corpus([str(data)])
    weight = scorer.head.weight.double()

    def head_input(sample: object) -> tuple[torch.Tensor, torch.Tensor]:
        batch = collate([sample], [0])  # type: ignore[list-item]
        with torch.no_grad():
            return scorer.trunk.scored_states(batch).double().clone(), batch.labels

    squares, count = torch.zeros_like(weight), 0
    for sample in scorer.masker.tokenize_many(sampled_records(corpus, 9, 0)):
        if str(sample.status) != "scored":
            continue
        hidden, labels = head_input(sample)
        leaf = weight.clone().requires_grad_()
        torch.nn.functional.cross_entropy(hidden @ leaf.t(), labels).backward()
        assert leaf.grad is not None
        squares, count = squares + leaf.grad.square() + EPS**2, count + 1
    squares /= count
    update = FactoredAdamW(squares.sum(1), squares.sum(0))
    rows = folder.table().to_pylist()
    compared = 0
    for sample, row in zip(scorer.masker.tokenize_many(list(corpus.records())), rows, strict=True):
        if row["status"] == "scored":
            hidden, labels = head_input(sample)
            wanted = reference_don_nod(hidden, weight, labels, torch.tensor([0, len(labels)]), update=update)
            for name in ("don", "nod"):
                assert row[name] == pytest.approx(float(getattr(wanted, name)), abs=2e-5 * float(wanted.nod)), name
            compared += 1
    assert compared > 10


def test_a_resume_reuses_the_state_and_writes_the_same_bits(model: Path, data: Path, out: Path, tmp_path: Path) -> None:
    folder = ScoresFolder.open(out)
    before = {path.name: path.read_bytes() for path in out.glob("*.parquet")}
    assert folder.manifest["update"]["warm_state"] == state_digest(before[FILE])
    (out / "part-000001.parquet").unlink()
    assert invoke(*options(model, data, out)).code == 0
    assert {path.name: path.read_bytes() for path in out.glob("*.parquet")} == before
    again = tmp_path / "again"
    assert invoke(*options(model, data, again)).code == 0
    assert (again / FILE).read_bytes() == before[FILE]
    found = json.loads(
        invoke("select", out, "--keep", "0.5", "--lr", "1e-4", "--out", tmp_path / "s.jsonl", "--json").out
    )
    assert found["update"]["update"] == "adamw-warm"


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (["--warm-seed", 1], "update.warm_seed"),
        (["--warm-rows", 8], "update.warm_rows"),
        (["--eps", 1e-6], "update.eps"),
        (["--update", "adamw", "--warm-rows", 256], "update.update"),
    ],
    ids=["seed", "rows", "eps", "update"],
)
def test_another_sample_is_another_setting(model: Path, data: Path, out: Path, more: list[object], named: str) -> None:
    state = (out / FILE).read_bytes()
    done = invoke(*options(model, data, out), *more)
    assert done.code == SettingsMismatchError.exit_code and named in done.err, done
    assert (out / FILE).read_bytes() == state
    if more[0] == "--warm-seed":
        assert invoke(*options(model, data, out), *more, "--overwrite").code == 0
        assert (out / FILE).read_bytes() != state


@pytest.mark.parametrize("harm", ["missing", "flipped", "short", "other", "empty", "folder"])
def test_a_state_that_is_not_the_folders_is_refused(model: Path, data: Path, out: Path, harm: str) -> None:
    (out / "part-000001.parquet").unlink()
    file = out / FILE
    content = file.read_bytes()
    file.unlink()
    if harm == "folder":
        file.mkdir()
    elif harm != "missing":
        changed = {
            "flipped": content[:40] + bytes([content[40] ^ 1]) + content[41:],
            "short": content[:-9],
            "other": WarmState(torch.ones(8).double(), torch.ones(2).double()).to_bytes(),
            "empty": b"",
        }
        file.write_bytes(changed[harm])
    done = invoke(*options(model, data, out))
    assert_one_line_error(done, StoreError.exit_code, FILE, "--overwrite")
    assert not (out / "part-000001.parquet").exists()


def test_what_cannot_be_meant_is_refused(model: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    warm = ["score", data, "--model", model, "--out", out, "--update", "adamw-warm"]
    assert_one_line_error(invoke(*warm, "--devices", "cpu,cpu"), 2, "adamw-warm", "--devices")
    assert_one_line_error(invoke(*warm, "--engine", "ray"), 2, "adamw-warm", "--engine ray")
    plain = ["score", data, "--model", model, "--out", out, "--device", "cpu"]
    assert_one_line_error(invoke(*plain, "--warm-rows", 9), 2, "adamw-warm", "warm rows")
    broken = tmp_path / "broken.jsonl"
    broken.write_text("{\n" * 5, encoding="utf-8")
    assert_one_line_error(invoke(*options(model, broken, out)), 2, "--warm-rows")
    assert not list(out.glob("part-*"))
    assert invoke(*options(model, data, out, "--dry-run")).code == 0
    with pytest.raises(InputError, match=r"Scorer\.warmed"):
        Scorer.from_pretrained(model, device="cpu", update=UpdateSettings("adamw-warm")).score_table(short_rows(3))
    with pytest.raises(InputError, match="no state"):
        Scorer.from_pretrained(model, device="cpu").warmed(open_corpus([str(data)]))


def test_a_state_survives_its_file_to_the_last_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    rows, columns = (torch.rand(n, generator=generator, dtype=torch.float64) ** 9 for n in (500, 7))
    content = WarmState(rows, columns).to_bytes()
    found = WarmState.from_bytes(content, state_digest(content), "state")
    assert torch.equal(found.rows, rows) and torch.equal(found.columns, columns)
    assert WarmState(rows, columns).to_bytes() == content
