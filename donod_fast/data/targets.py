"""Which kinds of files can hold the records of a corpus unchanged: found before any work is done."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from donod_fast.data.own_targets import TARGETS, own_target
from donod_fast.data.reading.csv_files import CsvFile
from donod_fast.data.reading.encodings import BOM
from donod_fast.data.reading.source import Source
from donod_fast.data.record_files import CSV, JSON, JSON_LINES, PARQUET, TSV, refuse_existing
from donod_fast.data.source_tables import arrow_sources, common_schema
from donod_fast.errors import InputError
from donod_fast.system.places import refuse_url

_TABLES = {CSV: "csv", TSV: "tsv"}


def sources_of(corpus: Any) -> tuple[Source, ...]:
    """The inputs of a corpus; empty if it has none (records from Python)."""
    return tuple(getattr(corpus, "sources", ()))


def refuse_target(out: Path, overwrite: bool, sources: Sequence[Source] = ()) -> None:
    """Refuse a file that a subset of these inputs cannot be written to.

    Args:
        out: the file.
        overwrite: whether an existing file may be replaced.
        sources: the inputs of the corpus.

    Raises:
        InputError: the name has another suffix, or one of a kind that cannot hold the records; the message names
            the suffixes that can.
        StoreError: the file exists, or is not a file.
        CorpusError: an input cannot be read, or has changed.
    """
    refuse_suffix(out, sources)
    own = own_target(out, sources)
    if own is None or not own.folder:
        refuse_existing(out, overwrite)


def refuse_suffix(out: Path, sources: Sequence[Source] = ()) -> None:
    """Refuse the name of a file that a subset of these inputs cannot be written to; see :func:`refuse_target`."""
    refuse_url(out, "a subset")
    _refuse_kind(out, sources)


def refuse_hub_target(url: str, name: str, sources: Sequence[Source] = ()) -> None:
    """Refuse what cannot be one file on the hub, or cannot hold a subset of these inputs.

    Args:
        url: of the target, for the message.
        name: of the file.
        sources: the inputs of the corpus.

    Raises:
        InputError: as :func:`refuse_target`, or the target is a folder or more than one file.
        CorpusError: an input cannot be read, or has changed.
    """
    own = own_target(Path(name), sources)
    if own is not None and (own.folder or own.beside):
        what = "a folder" if own.folder else "a file with others beside it"
        raise InputError(f"{url}: {what} is not written to the hub; write it to this machine, and then `hf upload` it")
    try:
        _refuse_kind(Path(name), sources)
    except InputError as error:
        raise InputError(f"{url}: {str(error).removeprefix(f'{name}: ')}") from error


def _refuse_kind(out: Path, sources: Sequence[Source]) -> None:
    name = out.name.lower()
    suffixes = (*JSON_LINES, JSON, PARQUET)
    target = own_target(out, sources)
    if target is not None:
        target.refuse(out, sources)
        return
    table = next((suffix for suffix in _TABLES if name.endswith(suffix)), None)
    if table is None and not name.endswith(suffixes):
        own = tuple(suffix for suffix, kind in _TABLES.items() if is_table(sources, kind))
        own += tuple(suffix for one in TARGETS if one.takes(sources) for suffix in one.suffixes)
        raise InputError(f"{out}: the name must end in {_joined((*suffixes, *own))}")
    if table is not None:
        if not is_table(sources, _TABLES[table]):
            raise InputError(
                f"{out}: only rows of {table} files go into a {table} file unchanged; "
                f"end the name in {_joined(suffixes)}"
            )
        common_header(sources)
    arrow = arrow_sources(sources)
    if name.endswith(PARQUET) and arrow is not None:
        common_schema(arrow)


def is_table(sources: Sequence[Source], kind: str) -> bool:
    """Whether all inputs are ``"csv"`` or all are ``"tsv"`` files."""
    return bool(sources) and all(isinstance(source, CsvFile) and source.kind == kind for source in sources)


def has_common_header(sources: Sequence[Source]) -> bool:
    """Whether CSV or TSV files have the same header row, byte order mark and line end aside.

    Raises:
        CorpusError: a file cannot be read, or has changed.
    """
    return len({_plain(source.header()) for source in sources if isinstance(source, CsvFile)}) == 1


def common_header(sources: Sequence[Source]) -> bytes:
    """The bytes of the header row of CSV or TSV files, with byte order mark and line end; those of the first one.

    Raises:
        InputError: two files have different headers; names both.
        CorpusError: a file cannot be read, or has changed.
    """
    tables = [source for source in sources if isinstance(source, CsvFile)]
    header = tables[0].header()
    for other in tables[1:]:
        if _plain(other.header()) != _plain(header):
            raise InputError(
                f"{tables[0].facts.name} and {other.facts.name} have different headers, so one file cannot hold the "
                f"rows of both unchanged; end the name in {_joined((*JSON_LINES, JSON, PARQUET))}"
            )
    return header


def _plain(header: bytes) -> bytes:
    return header.removeprefix(BOM).rstrip(b"\r\n")


def _joined(suffixes: Sequence[str]) -> str:
    return f"{', '.join(suffixes[:-1])} or {suffixes[-1]}"


__all__ = [
    "common_header",
    "has_common_header",
    "is_table",
    "refuse_hub_target",
    "refuse_suffix",
    "refuse_target",
    "sources_of",
]
