"""``--tokenized`` of ``donod-fast export`` and ``select``: the folder that gets the ids and labels of scored rows."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from donod_fast.errors import InputError
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.data.reading import Corpus
    from donod_fast.scores.folder import ScoresFolder


def check_target(tokenized: Path | None, out: Path | None, *, overwrite: bool) -> None:
    """Refuse a folder that no tokens can be written to, before any work is done. Raises InputError, StoreError."""
    if tokenized is None:
        return
    from donod_fast.scores.token_export import refuse_token_target

    if out is not None and out.absolute() == tokenized.absolute():
        raise InputError(f"--out and --tokenized both name {out}; give each a name of its own")
    refuse_token_target(tokenized, overwrite=overwrite)


def write_tokens(
    scores: str,
    folder: ScoresFolder,
    corpus: Corpus,
    tokenized: Path,
    *,
    rows: Iterable[int] | None = None,
    overwrite: bool,
) -> str:
    """Write the tokens of scored rows, all or these (ascending), and return what to tell the user."""
    from donod_fast.cli.config import load_options
    from donod_fast.scores.manifest import OPTIONS
    from donod_fast.scores.token_export import export_tokens
    from donod_fast.scoring.recorded_masks import recorded_masker

    options = load_options(scores) if isinstance(folder.manifest.get(OPTIONS), dict) else {}
    masker = recorded_masker(folder, options)
    done = export_tokens(folder, corpus, masker, tokenized, rows=rows, overwrite=overwrite)
    left = folder.rows - done.rows
    without = f"; {plural(left, 'row')} without a score left out" if rows is None and left else ""
    return (
        f"{plural(done.tokens, 'token')} of {plural(done.rows, 'row')}, {done.scored_tokens:,} of them scored → "
        f"{tokenized}{without}"
    )


__all__ = ["check_target", "write_tokens"]
