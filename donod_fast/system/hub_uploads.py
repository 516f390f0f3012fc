"""One file to a data set of the Hugging Face hub, in one commit on top of the commit that was looked at before.

A commit is whole or absent, so the file is too. The commit names its parent. If another writer was faster, the hub
refuses it, and nobody overwrites what they have not seen.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import quote

from donod_fast.errors import InputError, StoreError
from donod_fast.system.hub_urls import BUCKETS, HUB, data_set_parts, is_commit
from donod_fast.system.retrying import retrying

SHAPE = f"{HUB}datasets/ORG/NAME[@BRANCH]/PATH"
MAY_WRITE = "log in with `hf auth login`, or set HF_TOKEN to a token that may write to the data set"
NOTHING = "nothing was written"

_BRANCH = "main"
_BLOCK = 1 << 20
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file of a data set on the hub, which may not exist yet.

    Attributes:
        repository: ``ORG/NAME``.
        branch: a branch, or ``refs/pr/N``.
        path: of the file in the data set.
    """

    repository: str
    branch: str
    path: str

    @staticmethod
    def of(url: str) -> HubFile:
        """The file that a URL of a branch names.

        Raises:
            InputError: the URL names a commit, a bucket, no data set, or no file; says what to give.
        """
        if url.lower().startswith(BUCKETS):
            raise InputError(
                f"{url}: a bucket has no commits, so two writers could overwrite each other in silence; write to a "
                f"data set ({SHAPE}), or to this machine, and upload the file with `hf buckets cp`"
            )
        found = data_set_parts(url)
        if found is None or PurePosixPath(found[2]).name == "" or url.endswith("/"):
            raise InputError(f"{url}: give the name of a file in a data set of the hub: {SHAPE}")
        repository, revision, path = found
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

        try:
            validate_repo_id(repository)
        except HFValidationError as error:
            raise InputError(f"{url}: {' '.join(str(error).split())} The shape is {SHAPE}") from error
        if {"", ".", ".."} & set(path.split("/")) or any(mark in path for mark in "*?[\\"):
            raise InputError(f"{url}: a path on the hub has no empty parts, no . and .., and none of * ? [ \\")
        if revision is not None and is_commit(revision):
            raise InputError(f"{url}: a commit cannot be changed; name a branch instead of {revision[:12]}")
        return HubFile(repository, revision or _BRANCH, path)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return PurePosixPath(self.path).name

    def url(self, revision: str | None = None) -> str:
        """Its URL at a commit or a branch; None for the branch that it is written to."""
        at = self.branch if revision is None else revision
        shown = "" if at == _BRANCH else f"@{at if at.startswith('refs/') else quote(at, safe='')}"
        return f"{HUB}datasets/{self.repository}{shown}/{self.path}"


@dataclass(frozen=True, slots=True)
class Upload:
    """A file that may be written, and the newest commit of its branch when that was found out.

    Attributes:
        file: where it goes.
        parent: 40 hex digits.
        replaces: whether the file was there.
    """

    file: HubFile
    parent: str
    replaces: bool = False

    @staticmethod
    def begin(file: HubFile, *, overwrite: bool) -> Upload:
        """Ask the hub whether a file may be written, before any work is done.

        Args:
            file: where it goes.
            overwrite: whether it may replace a file.

        Raises:
            StoreError: there is no token, or it may not write; no such data set or branch; something has this name;
                the hub cannot be reached. Names the remedy.
        """
        from huggingface_hub import HfApi, get_token

        url = file.url()
        if _asked(url, get_token) is None:
            raise StoreError(f"{url}: writing to the hub needs a token; {MAY_WRITE}")
        api, known = HfApi(), {"repo_type": "dataset"}
        if "write" in inspect.signature(HfApi.auth_check).parameters:  # older clients find out when they write
            _asked(url, lambda: api.auth_check(file.repository, write=True, **known))
        parent = _asked(url, lambda: _head(file))
        above = [str(one) for one in PurePosixPath(file.path).parents if one.name]
        there = _asked(url, lambda: _entries(file, [file.path, *above], parent))
        for path, size in there.items():
            if path != file.path and size is not None:
                raise StoreError(f"{url}: {path} is a file of the data set, not a folder; give another path")
        if file.path in there:
            if there[file.path] is None:
                raise StoreError(f"{url} is a folder of the data set; give the name of a file")
            if not overwrite:
                raise StoreError(f"{url} exists already; give another name, or add --overwrite")
        return Upload(file, parent, file.path in there)

    def commit(self, local: Path, message: str, *, progress: bool = False) -> str:
        """Make a commit that adds or replaces the file, and return it: 40 hex digits.

        If the newest commit has this content already, that one is returned.

        A lost answer does not give two commits: the next attempt has the same parent, so the hub refuses it, and the
        branch is looked at.

        Args:
            local: the content.
            message: of the commit, one line.
            progress: whether the client may draw its bars on standard error.

        Raises:
            StoreError: another writer was faster, access is refused, or the hub does not answer; says whether the
                file was written.
        """
        url = self.file.url()
        same = self.replaces and _asked(url, lambda: _holds(self.file, self.parent, local))

        tries = 0

        def send() -> str:
            nonlocal tries
            if same:
                return self._done(local) or self.parent
            tries += 1
            with nullcontext() if progress else _no_bars():
                return self._sent(local, message)

        try:
            commit = _asked(
                url, send, lambda: NOTHING if tries == 0 else "whether an earlier try wrote it is not known"
            )
        except _UnansweredError as error:
            try:
                done = _asked(url, lambda: self._done(local), lambda: "whether it was written is not known")
            except _UnansweredError:
                raise StoreError(
                    f"{url}: {error}; whether it was written is not known: look at the data set's page, or repeat the "
                    "command with --overwrite"
                ) from error
            if done is None:
                raise StoreError(f"{url}: {error}; {NOTHING}; repeat the command later") from error
            commit = done
        try:
            holds = _asked(url, lambda: _holds(self.file, commit, local), lambda: f"it was written in commit {commit}")
        except _UnansweredError as error:
            raise StoreError(f"{url}: written in commit {commit}, but it cannot be checked: {error}") from error
        if not holds:
            raise StoreError(
                f"{url}: commit {commit[:12]} does not hold the file as it was sent; is its name in the .gitignore of "
                "the data set?"
            )
        return commit

    def _sent(self, local: Path, message: str) -> str:
        from huggingface_hub import CommitOperationAdd, HfApi

        add = CommitOperationAdd(path_in_repo=self.file.path, path_or_fileobj=local)
        try:
            made = HfApi().create_commit(
                self.file.repository,
                [add],
                commit_message=message,
                repo_type="dataset",
                revision=self.file.branch,
                parent_commit=self.parent,
            )
        except (ValueError, RuntimeError) as error:  # of the client's checks, and of its store for large files
            raise StoreError(
                f"{self.file.url()}: the upload failed: {' '.join(str(error).split())}; {NOTHING}"
            ) from error
        return str(made.oid)

    def _done(self, local: Path) -> str | None:
        """The newest commit of the branch, if it has this content; None if the branch has not moved.

        Raises:
            StoreError: the branch has moved, and has not this content.
        """
        head = _head(self.file)
        if head == self.parent:
            return None
        if _holds(self.file, head, local):
            return head
        raise StoreError(
            f"{self.file.url()}: {self.file.branch} has moved from commit {self.parent[:12]} to {head[:12]} since this "
            f"command began; {NOTHING}; look at what has changed, and repeat the command"
        )


@contextmanager
def _no_bars() -> Iterator[None]:
    """Have the client draw no bars for the time of a block."""
    from huggingface_hub import utils

    if utils.are_progress_bars_disabled():  # type: ignore[attr-defined]
        yield
        return
    utils.disable_progress_bars()  # type: ignore[attr-defined]
    try:
        yield
    finally:
        utils.enable_progress_bars()  # type: ignore[attr-defined]


class _UnansweredError(OSError):
    """The hub cannot be reached, or is busy."""


def _asked(url: str, ask: Callable[[], _T], outcome: Callable[[], str] | None = None) -> _T:
    """Ask the hub, again after temporary errors; ``outcome`` tells what was written if it refuses.

    Raises:
        StoreError: it refuses; names the remedy.
        _UnansweredError: it does not answer; only with an ``outcome``.
    """
    from huggingface_hub.errors import (
        BadRequestError,
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    end = ""

    def translated() -> _T:
        nonlocal end
        end = "" if outcome is None else f"; {outcome()}"
        try:
            return ask()
        except GatedRepoError as error:
            raise StoreError(f"{url}: the data set is gated{end}; {MAY_WRITE}") from error
        except RevisionNotFoundError as error:
            raise StoreError(f"{url}: no such branch{end}; make it on the data set's page, or name another") from error
        except RepositoryNotFoundError as error:
            raise StoreError(
                f"{url}: no such data set, or the token may not see it{end}; make it with `hf repo create`, or "
                f"{MAY_WRITE}"
            ) from error
        except BadRequestError as error:
            raise StoreError(f"{url}: the hub refuses the request: {' '.join(str(error).split())}{end}") from error

    try:
        return retrying(translated, "the hub")
    except PermissionError as error:
        raise StoreError(f"{url}: the token is refused, or may not write to the data set{end}; {MAY_WRITE}") from error
    except OSError as error:
        said = " ".join(str(error).split())
        if outcome is not None:
            raise _UnansweredError(said) from error
        raise StoreError(f"{url}: {said}; {NOTHING}; repeat the command later") from error


def _head(file: HubFile) -> str:
    """The newest commit of a branch.

    Raises:
        StoreError: there is no such branch; names those there are.
    """
    from huggingface_hub import HfApi

    changes = file.branch.startswith("refs/pr/")
    refs = HfApi().list_repo_refs(file.repository, repo_type="dataset", include_pull_requests=changes)
    known = refs.branches if not changes else refs.pull_requests or []
    heads = {one.ref if changes else one.name: str(one.target_commit) for one in known}
    if file.branch not in heads:
        named = ", ".join(sorted(heads)[:10]) or "none"
        raise StoreError(
            f"{file.url()}: the data set has no branch {file.branch!r} that can be written to; there are: {named}"
        )
    return heads[file.branch]


def _entries(file: HubFile, paths: list[str], commit: str) -> dict[str, int | None]:
    """The size of each of these paths that is a file at a commit; None of a folder."""
    from huggingface_hub import HfApi

    found: list[Any] = HfApi().get_paths_info(file.repository, paths, revision=commit, repo_type="dataset")
    return {str(one.path): getattr(one, "size", None) for one in found}


def _holds(file: HubFile, commit: str, local: Path) -> bool:
    """Whether the file at a commit has the content of a local one: the same SHA-256 if it is large, else Git's hash."""
    from huggingface_hub import HfApi

    infos: list[Any] = HfApi().get_paths_info(file.repository, [file.path], revision=commit, repo_type="dataset")
    one = next((info for info in infos if info.path == file.path), None)
    size = local.stat().st_size
    if one is None or getattr(one, "size", None) != size:
        return False
    large = getattr(one, "lfs", None)
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False) if large is None else hashlib.sha256()
    with local.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest() == str(one.blob_id if large is None else large.sha256)


__all__ = ["HubFile", "Upload"]
