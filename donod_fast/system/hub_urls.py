"""``hf://datasets/ORG/NAME@REVISION/…``: which commit a URL of the Hugging Face hub means, and what its errors say.

A branch moves. So a URL without a commit is pinned to the commit that its branch has now, and a later run that knows
files of an earlier commit reads those.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any
from urllib.parse import quote, unquote

from donod_fast.errors import CorpusError
from donod_fast.system.retrying import retrying

HUB = "hf://"
BUCKETS = f"{HUB}buckets/"
FIRST_WITH_BUCKETS = "1.6.0"
"""First release of huggingface_hub whose file system reads buckets; 1.5.0 has them in its other interfaces only."""

LOG_IN = (
    "log in with `hf auth login` or set HF_TOKEN, and if the data set is gated, ask for access on its page; parts that "
    "are committed stay, and the same command resumes"
)
"""What to do if the hub refuses a request."""

_REPOSITORY = re.compile(
    r"hf://datasets/(?P<id>[^/@]+/[^/@]+)(?:@(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+))?(?P<path>/.*)?"
)
_COMMIT = re.compile(r"[0-9a-f]{40}")

_log = logging.getLogger(__name__)


def is_hub_url(name: str) -> bool:
    """Whether a name is a URL of the hub."""
    return name.lower().startswith(HUB)


def hub_url(name: str | PurePath) -> str | None:
    """A name as a URL of the hub, also if it is a path in which ``//`` has become ``/``; None if it is none."""
    found = re.match(r"hf:/+(?=[^/])", str(name), re.IGNORECASE)
    return None if found is None else HUB + str(name)[found.end() :]


def data_set_parts(url: str) -> tuple[str, str | None, str] | None:
    """``ORG/NAME``, revision and path of a URL in a data set; None if it is no such URL. ``main`` has no revision."""
    found = _REPOSITORY.fullmatch(url)
    if found is None:
        return None
    revision = None if found["revision"] is None else unquote(found["revision"])
    return found["id"], revision, (found["path"] or "/").removeprefix("/")


def is_commit(revision: str) -> bool:
    """Whether a revision is a whole commit id and not the name of a branch."""
    return _COMMIT.fullmatch(revision) is not None


def pinned(url: str, known: Iterable[str]) -> str:
    """The URL with a commit instead of a branch; any other URL as it is.

    Args:
        url: ``hf://datasets/ORG/NAME/…``, with or without a revision.
        known: URLs of files that an earlier run of the same folder read. If they are of this data set, the URL is
            pinned to their commit, and a warning says so if the branch has moved since.

    Raises:
        CorpusError: the data set or the revision does not exist, or access is refused; names the remedy.
        OSError: the hub cannot be reached.
    """
    found = _REPOSITORY.fullmatch(url)
    if url.startswith(BUCKETS):
        _refuse_old_client(url)
    if found is None:
        return url
    repository, path = found["id"], found["path"] or ""
    revision = None if found["revision"] is None else unquote(found["revision"])
    if revision is not None and _COMMIT.fullmatch(revision):
        return url
    commit = _commit(url, repository, revision)
    before = {match["revision"] for one in known if (match := _REPOSITORY.fullmatch(one)) and match["id"] == repository}
    if len(before) == 1 and (earlier := before.pop()) is not None and _COMMIT.fullmatch(earlier):
        if earlier != commit:
            _log.warning(
                "%s: %s has moved to commit %s since this folder was begun; it stays at %s (to score the new state, "
                "use another folder)",
                url,
                revision or "main",
                commit[:12],
                earlier[:12],
            )
        commit = earlier
    return f"{HUB}datasets/{repository}@{quote(commit, safe='')}{path}"


def _commit(url: str, repository: str, revision: str | None) -> str:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    def look() -> Any:
        try:
            return HfApi().repo_info(repository, revision=revision, repo_type="dataset")
        except GatedRepoError as error:
            raise CorpusError(f"{url}: the data set is gated; {LOG_IN}") from error
        except RepositoryNotFoundError as error:
            raise CorpusError(f"{url}: no such data set, or it is private; check the name, or {LOG_IN}") from error
        except RevisionNotFoundError as error:
            what = f"the data set has no revision {revision!r}"
            raise CorpusError(f"{url}: {what}; name a branch, a tag or a commit") from error

    return str(retrying(look, f"looking at {url}").sha)


def _refuse_old_client(url: str) -> None:
    import huggingface_hub
    from huggingface_hub import hf_file_system

    if not hasattr(hf_file_system, "HfFileSystemResolvedBucketPath"):
        raise CorpusError(
            f"{url}: huggingface_hub {huggingface_hub.__version__} has no buckets; install at least "
            f"{FIRST_WITH_BUCKETS}: pip install -U huggingface_hub"
        )


__all__ = ["BUCKETS", "HUB", "LOG_IN", "data_set_parts", "hub_url", "is_commit", "is_hub_url", "pinned"]
