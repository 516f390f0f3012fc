"""Open a file of tokens with its mask and metadata, or again from its description."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from donod_fast.data.reading.line_scan import CHECKPOINT_ROWS, Checkpoints
from donod_fast.data.reading.source import Checkpoint
from donod_fast.data.reading.streams import (
    BUFFER_BYTES,
    FileFacts,
    facts_of_entry,
    file_errors,
    refuse_moving,
    scanning,
)
from donod_fast.data.reading.token_arrays import ArrayForm, form_of, head_of, refuse_wrong_type
from donod_fast.data.reading.token_documents import parsed_lines, starts_in
from donod_fast.data.reading.token_files import Companion, TokenFile, hash_of_nothing
from donod_fast.data.token_rules import TokenRules
from donod_fast.errors import CorpusError
from donod_fast.system.limits import ReadLimits
from donod_fast.system.places import LocalPlace, Place, RemotePlace
from donod_fast.system.wording import plural

SUFFIX = ".npy"
MASK = "labels_mask"
IDS = "token_ids"
METADATA = ".csv.gz"

_log = logging.getLogger(__name__)


def open_tokens(name: str, place: Place, limits: ReadLimits, rules: TokenRules) -> TokenFile:
    """Open a file of tokens with the files beside it.

    Raises:
        CorpusError: a file cannot be read; the type of the tokens is not known or cannot be right; the size does not
            fit it; the mask has another length; the metadata are not of this file; or there are none, and no token that
            ends a document is named.
    """
    file_name = _base(place)
    if file_name.startswith(MASK):
        raise CorpusError(f"{name}: a label mask, which is read with its tokens; name the files of tokens ({IDS}*.npy)")
    with file_errors(name):
        stat = place.settled_stat()
        with place.open(size=stat.size) as file:
            head = head_of(file)
    form = form_of(name, head, stat.size, rules.dtype)
    refuse_wrong_type(name, head, form)
    metadata = _companion(_beside(place, file_name.removesuffix(SUFFIX) + METADATA), limits)
    mask = _companion(_beside(place, mask_name(file_name)), limits)
    if mask is not None:
        mask = _with_form(name, form, mask)
    if metadata is None and rules.end is None:
        raise CorpusError(
            f"{name}: there are no metadata ({file_name.removesuffix(SUFFIX)}{METADATA}) beside it, so its documents "
            "are found by the token that ends them; name it: --document-end ID (the tokenizer's end-of-text token)"
        )
    if metadata is not None:
        facts = FileFacts(name, place, None, stat.size, stat.stamp, hash_of_nothing(), True, limits=limits)
        rows, metadata = _counted(metadata, form)
        refuse_moving(name, place, stat, form.byte(form.count))
        return TokenFile(facts, rows, form, rules, mask, metadata, Checkpoints())
    with scanning(name, place, None, limits) as scan:
        rows, checkpoints = _scanned(scan.stream, form, rules)
    if mask is not None:
        with scanning(mask.facts.name, mask.facts.place, None, limits) as mask_scan:
            while mask_scan.stream.read(BUFFER_BYTES):
                pass
        mask = replace(mask, facts=mask_scan.facts)
    return TokenFile(scan.facts, rows, form, rules, mask, None, checkpoints)


def _scanned(stream: Any, form: ArrayForm, rules: TokenRules) -> tuple[int, Checkpoints]:
    """Count the documents of plain tokens, and note where some of them begin."""
    stream.read(form.begin)
    checkpoints = Checkpoints()
    rows = 0
    if form.count:
        checkpoints.append(0, form.begin, 1)
        rows = 1
    for _, starts in starts_in(stream, form, 0, -1 if rules.end is None else rules.end, rules.begin):
        for at in range(-rows % CHECKPOINT_ROWS, len(starts), CHECKPOINT_ROWS):
            checkpoints.append(rows + at, form.byte(int(starts[at])), rows + at + 1)
        rows += len(starts)
    return rows, checkpoints


def _counted(metadata: Companion, form: ArrayForm) -> tuple[int, Companion]:
    facts = metadata.facts
    with scanning(facts.name, facts.place, facts.compression, facts.limits) as scan:
        rows = covered = 0
        for document in parsed_lines(facts.name, scan.stream, 0, form.count):
            rows, covered = rows + 1, covered + document.end - document.start
    if covered < form.count:
        _log.warning(
            "%s: %s of %s are in no document", facts.name, f"{form.count - covered:,}", f"{form.count:,} tokens"
        )
    return rows, Companion(scan.facts)


def _with_form(name: str, tokens: ArrayForm, mask: Companion) -> Companion:
    facts = mask.facts
    with file_errors(facts.name), facts.place.open(size=facts.size) as file:
        form = form_of(facts.name, head_of(file), facts.size, "uint8")
    if form.item != 1 or form.count != tokens.count:
        raise CorpusError(
            f"{facts.name}: a label mask of {plural(form.count, 'token')} ({form.item} bytes each), but {name} has "
            f"{plural(tokens.count, 'token')} as {np.dtype(tokens.dtype).name}; name the right --token-dtype, or fetch "
            "both files again"
        )
    return Companion(facts, replace(form, dtype="|u1"))


def _companion(place: Place, limits: ReadLimits) -> Companion | None:
    try:
        with file_errors(str(place)):
            stat = place.stat()
    except CorpusError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise
    compression = "gzip" if str(place).endswith(".gz") else None
    return Companion(
        FileFacts(str(place), place, compression, stat.size, stat.stamp, hash_of_nothing(), True, limits=limits)
    )


def restored_tokens(facts: FileFacts, entry: Mapping[str, Any], checkpoints: Iterable[Checkpoint]) -> TokenFile:
    """The source of a file that is known, without reading it. Raises KeyError: the entry is incomplete."""
    found = entry["tokens"]
    form = ArrayForm(str(found["dtype"]), int(found["begin"]), int(found["count"]))
    rules = TokenRules(None, found["document_end"], found["document_begin"])
    mask, metadata = entry["mask"], entry["metadata"]
    return TokenFile(
        facts,
        int(entry["rows"]),
        form,
        rules,
        None
        if mask is None
        else Companion(facts_of_entry(mask), ArrayForm("|u1", int(mask["begin"]), int(mask["count"]))),
        None if metadata is None else Companion(facts_of_entry(metadata)),
        Checkpoints(checkpoints),
    )


def reopened_tokens(entry: Mapping[str, Any]) -> TokenFile:
    """The file of an entry, opened again with its type and tokens. Raises CorpusError: as :func:`open_tokens`."""
    facts, found = facts_of_entry(entry), entry["tokens"]
    dtype = np.dtype(str(found["dtype"])).name
    rules = TokenRules(dtype, found["document_end"], found["document_begin"])
    return open_tokens(facts.name, facts.place, facts.limits, rules)


def companions_same(entry: Mapping[str, Any], rules: TokenRules | None = None) -> bool:
    """Whether the files beside a known file are as they were, and the type and tokens those that are named now."""
    place = facts_of_entry(entry).place
    base, found = _base(place), entry["tokens"]
    if rules is not None:
        ends = (found["document_end"], found["document_begin"]) == (rules.end, rules.begin)
        named = rules.dtype is None or np.dtype(str(found["dtype"])).name == rules.dtype
        if not named or not (ends or entry["metadata"] is not None):
            return False
    for key, name in (("mask", mask_name(base)), ("metadata", base.removesuffix(SUFFIX) + METADATA)):
        now, before = _companion(_beside(place, name), ReadLimits.DEFAULT), entry[key]
        if (now is None) != (before is None):
            return False
        if now is not None and (now.facts.size, now.facts.stamp) != (before["size"], before["stamp"]):
            return False
    return True


def mask_name(file_name: str) -> str:
    """The name of the label mask of a file of tokens."""
    return file_name.replace(IDS, MASK, 1) if IDS in file_name else f"{MASK}_{file_name}"


def _base(place: Place) -> str:
    return place.path.name if isinstance(place, LocalPlace) else PurePosixPath(place.url.partition("::")[0]).name


def _beside(place: Place, name: str) -> Place:
    if isinstance(place, LocalPlace):
        return LocalPlace(place.path.with_name(name))
    head, chained, rest = place.url.partition("::")
    return RemotePlace(f"{head.rpartition('/')[0]}/{name}{chained}{rest}")


__all__ = [
    "IDS",
    "MASK",
    "METADATA",
    "SUFFIX",
    "companions_same",
    "mask_name",
    "open_tokens",
    "reopened_tokens",
    "restored_tokens",
]
