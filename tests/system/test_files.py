"""A new file is opened in a bounded number of attempts, whatever other programs do to its name."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from donod_fast.errors import StoreError
from donod_fast.system.files import atomic_writer


@pytest.mark.parametrize("stolen", [1, 99, 10**9])
def test_a_name_that_another_program_takes_each_time_ends_with_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stolen: int
) -> None:
    real = Path.open
    attempts = 0

    def stealing(path: Path, mode: str) -> io.IOBase:
        nonlocal attempts
        attempts += 1
        file = real(path, mode)
        if attempts <= stolen:
            path.unlink()
        return file  # type: ignore[return-value]

    monkeypatch.setattr(Path, "open", stealing)
    if stolen == 10**9:
        with pytest.raises(StoreError, match="removes or replaces every new file"), atomic_writer(tmp_path / "f"):
            pass
    else:
        with atomic_writer(tmp_path / "f") as file:
            file.write(b"whole")
        monkeypatch.undo()
        assert (tmp_path / "f").read_bytes() == b"whole"
    assert attempts <= 100
