"""Give a scorer the state of ``--update adamw-warm``: that of the scores folder, else a new one, which is kept."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from donod_fast.errors import StoreError
from donod_fast.scores.folder import MANIFEST, ScoresFolder
from donod_fast.scoring.settings import WARM
from donod_fast.scoring.warm_state import FILE, WarmState
from donod_fast.system.storage import Storage, open_storage

if TYPE_CHECKING:
    from donod_fast.data.reading import Corpus
    from donod_fast.scoring.scorer import Scorer


def warmed(scorer: Scorer, corpus: Corpus, out: Path | str | Storage, *, overwrite: bool = False) -> Scorer:
    """The scorer with the state that its scores in a folder are made with; itself for other updates.

    A state is written before the manifest that names it. The caller holds the folder's lock.

    Raises:
        InputError: no row of the sample can be scored.
        StoreError: the folder's state is missing or another one, or cannot be written.
        CorpusError: an input cannot be read.
    """
    if scorer.update.update != WARM or scorer.warm is not None:
        return scorer
    storage = open_storage(out)
    if storage.exists(MANIFEST) and not overwrite:
        folder = ScoresFolder.open(storage)
        recorded = folder.manifest["update"]
        if all(recorded.get(name) == value for name, value in scorer.update.as_dict().items()):
            return with_state_of(scorer, folder)
        return scorer.warmed(corpus)  # other settings: the folder will be refused, and nothing is written
    scorer = scorer.warmed(corpus)
    assert scorer.warm is not None
    storage.make()
    storage.write(FILE, scorer.warm.to_bytes())
    return scorer


def with_state_of(scorer: Scorer, folder: ScoresFolder) -> Scorer:
    """The scorer with the state of a folder; itself for other updates.

    Raises:
        StoreError: the state is missing or another one.
    """
    digest = folder.manifest["update"].get("warm_state")
    if scorer.update.update != WARM or digest is None:
        return scorer
    name = folder.storage.url(FILE)
    try:
        content = folder.storage.read(FILE)
    except OSError as error:
        reason = error.strerror or error
        raise StoreError(
            f"{name} cannot be read ({reason}); restore it from a copy, or score again with --overwrite"
        ) from error
    return scorer.with_warm(WarmState.from_bytes(content, digest, name))


__all__ = ["warmed", "with_state_of"]
