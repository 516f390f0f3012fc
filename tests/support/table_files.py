"""Lance datasets and WebDataset shards, made by the libraries that define them."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from stored_records import SCHEMA, old


def lance_dataset(
    path: Path, records: Sequence[Mapping[str, Any]], schema: pa.Schema | None = SCHEMA, rows_per_file: int = 3
) -> str:
    """The records as a Lance dataset with several fragments."""
    import lance

    table = pa.Table.from_pylist([dict(record) for record in records], schema)
    lance.write_dataset(table, str(path), max_rows_per_file=rows_per_file)
    return str(path)


def shard(path: Path, records: Sequence[Mapping[str, Any]], draw: random.Random | None = None) -> str:
    """The records as a shard by ``webdataset``: each is ``json``, or ``json`` and ``txt`` if it has a text.

    With a draw some samples get further members that no score depends on.
    """
    import webdataset

    with webdataset.TarWriter(str(path), encoder=False, mtime=1e9) as writer:
        for at, record in enumerate(records):
            rest = {name: value for name, value in record.items() if name != "text"}
            sample: dict[str, Any] = {"__key__": f"part/{at:06d}"}
            if rest or "text" not in record:
                sample["json"] = json.dumps(rest).encode()
            if "text" in record:
                sample["txt"] = str(record["text"]).encode()
            if draw is not None and draw.random() < 0.5:
                sample["emb.bin"] = draw.randbytes(draw.randrange(2000))
            writer.write(sample)
    return str(old(path))


def archive(path: Path, members: Sequence[tuple[str, bytes | tarfile.TarInfo]], form: int = tarfile.PAX_FORMAT) -> str:
    """A tar archive of files with contents, or of members of any type, by the standard library."""
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members:
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                tar.addfile(content, io.BytesIO(bytes(content.size)))
            else:
                info = tarfile.TarInfo(name)
                info.size, info.mtime = len(content), 1_000_000_000
                tar.addfile(info, io.BytesIO(content))
    return str(old(path))


def sample(key: str, record: Mapping[str, Any]) -> tuple[str, bytes]:
    """A member with a record."""
    return f"{key}.json", json.dumps(record).encode()


def token_files(
    path: Path,
    documents: Sequence[Sequence[int]],
    dtype: str,
    *,
    masks: Sequence[Sequence[int]] | None = None,
    lines: Sequence[Sequence[object]] | None = None,
    header: bool = False,
) -> str:
    """Documents as open-instruct and dolma write them: ``numpy.memmap`` for tokens and mask, gzip of CSV for metadata.

    Args:
        path: the file of tokens.
        documents: their tokens.
        dtype: of the tokens.
        masks: for each document a mask of its tokens, written beside it.
        lines: for each document further fields of its metadata; None for no metadata.
        header: write a NumPy file with a header instead.
    """
    import csv
    import gzip

    import numpy as np

    flat = np.array([token for document in documents for token in document], dtype)
    if header:
        np.save(path, flat)
    else:
        path.write_bytes(b"")
        if len(flat):
            tokens = np.memmap(path, mode="w+", dtype=dtype, shape=flat.shape)
            tokens[:] = flat
            tokens.flush()
    if masks is not None:
        name = path.name.replace("token_ids", "labels_mask") if "token_ids" in path.name else f"labels_mask_{path.name}"
        mask = np.memmap(path.with_name(name), mode="w+", dtype=np.bool_, shape=flat.shape)
        mask[:] = [one for many in masks for one in many]
        mask.flush()
    if lines is not None:
        at = 0
        with gzip.open(path.with_name(path.name.removesuffix(".npy") + ".csv.gz"), "wt", newline="") as file:
            writer = csv.writer(file)
            for document, line in zip(documents, lines, strict=True):
                writer.writerow([at, at + len(document), *line])
                at += len(document)
    return str(old(path))
