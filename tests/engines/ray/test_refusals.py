"""The engine refuses what it cannot do before it starts, and within seconds."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cluster_specs import ClusterSpec
from score_runs import short_rows, write_lines

from donod_fast.data.reading import Corpus, open_corpus
from donod_fast.data.reading.corpus import corpus_from_rows
from donod_fast.engines.ray import RaySettings, connection, score_on_ray
from donod_fast.errors import InputError


@pytest.fixture
def corpus(tmp_path: Path) -> Corpus:
    return open_corpus([str(write_lines(tmp_path / "rows.jsonl", short_rows(3)))])


@pytest.fixture
def refused(model: Path, place: Path, tmp_path: Path, corpus: Corpus) -> Callable[..., str]:
    """Score with these settings, and give what is said against it."""

    def run(address: str | None = None, rows: Corpus = corpus) -> str:
        spec: Any = ClusterSpec(model, "", place)
        with pytest.raises(InputError) as raised:
            score_on_ray(rows, spec, tmp_path / "out", RaySettings(address))
        assert not (tmp_path / "out").exists()
        return str(raised.value)

    return run


def test_an_address_at_which_nothing_listens(refused: Callable[..., str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"  # bound, and not listened to
        assert f"no Ray cluster answers at {address}" in refused(address)


def test_an_address_at_which_something_else_listens(
    refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        assert f"no Ray cluster answers at {address}" in refused(address)


@pytest.mark.parametrize("address", ["nowhere", "host:port", "127.0.0.1:99999999"])
def test_an_address_that_is_none(refused: Callable[..., str], address: str) -> None:
    assert address in refused(address)


class Unreachable:
    """Ray, where no connection succeeds, as when a cluster requires a token that the driver does not send."""

    def init(self, **options: Any) -> None:
        raise ConnectionError("Failed to connect to Ray cluster")

    def shutdown(self) -> None:
        pass


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str | None], str]:
    """The error of a connection that fails, where the user has a token and has not chosen a mode."""
    monkeypatch.setattr(connection, "_probe", lambda address: None)
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("secret")

    def error(address: str | None) -> str:
        with pytest.raises(InputError, match="Failed to connect") as raised:
            connection._connect(Unreachable(), RaySettings(address))
        return str(raised.value)

    return error


def test_a_cluster_that_may_require_a_token_names_the_remedy(
    told: Callable[[str | None], str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert told("127.0.0.1:6379").endswith(f"token in {tmp_path}/.ray/auth_token, set RAY_AUTH_MODE=token")
    assert "RAY_AUTH_MODE" not in told(None) + told("auto")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "gone"))
    assert "RAY_AUTH_MODE" not in told("127.0.0.1:6379")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    assert "token in RAY_AUTH_TOKEN," in told("127.0.0.1:6379")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert "RAY_AUTH_MODE" not in told("127.0.0.1:6379")


def test_rows_that_were_given_from_python(refused: Callable[..., str]) -> None:
    assert "in no file that another machine could read" in refused(rows=corpus_from_rows(short_rows(3)))


@pytest.mark.parametrize(
    ("wrong", "name"),
    [
        ({"workers": 0}, "workers"),
        ({"gpus_per_worker": 2.0}, "gpus_per_worker"),
        ({"gpus_per_worker": -1.0}, "gpus_per_worker"),
        ({"cpus_per_worker": 1.5}, "cpus_per_worker"),
        ({"address": "ray://somewhere:10001"}, "ray://somewhere:10001"),
    ],
)
def test_settings_without_sense(wrong: dict[str, Any], name: str) -> None:
    with pytest.raises(InputError, match=name):
        RaySettings(**wrong)


def test_without_ray_the_extra_is_named(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    assert "pip install 'donod-fast[ray]'" in refused()


def test_importing_the_settings_imports_neither_ray_nor_torch() -> None:
    program = (
        "import sys; from donod_fast.engines.ray import RaySettings as S; S(); print({'ray', 'torch'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
