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
