"""Secrets that no file and no output may show: URLs with one in each place, and the search for it."""

from __future__ import annotations

import base64
import gzip
import random
import string
import zlib
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq

PLACES = {
    "user": "{scheme}://{secret}:some-word@{host}/{path}",
    "password": "{scheme}://somebody:{secret}@{host}/{path}",
    "token as user": "{scheme}://{secret}@{host}/{path}",
    "encoded password": "{scheme}://somebody:%2F{secret}%40@{host}/{path}",
    "signature": "{scheme}://{host}/{path}?sig={secret}",
    "signature of S3": "{scheme}://{host}/{path}?X-Amz-Date=20260101T000000Z&X-Amz-Signature={secret}&X-Amz-Expires=60",
    "signature of Google": "{scheme}://{host}/{path}?GoogleAccessId=a%40b&X-Goog-Signature={secret}",
    "SAS": "{scheme}://{host}/{path}?sv=2026-01-01&se=2027-01-01T00%3A00%3A00Z&sr=b&sp=r&sig={secret}%3D",
    "token": "{scheme}://{host}/{path}?version=2&token={secret}",
    "unknown parameter": "{scheme}://{host}/{path}?k={secret}",
    "encoded name": "{scheme}://{host}/{path}?%74oken={secret}",
    "parameter without a value": "{scheme}://{host}/{path}?{secret}",
    "second parameter": "{scheme}://{host}/{path}?version=1;key={secret}",
    "fragment": "{scheme}://{host}/{path}#access_token={secret}",
    "user and signature": "{scheme}://u:{secret}@{host}/{path}?sig={secret}",
}
"""URLs with a secret, by the place of the secret. Each is a URL of the same file."""


def canary(seed: int) -> str:
    """A secret that occurs nowhere by chance."""
    draw = random.Random(seed)
    return "C4n" + "".join(draw.choices(string.ascii_letters + string.digits, k=21))


def spellings(secret: str) -> list[bytes]:
    """The secret in the forms in which it could be written."""
    texts = [secret, quote(secret), secret[::-1], secret.encode().hex(), repr(secret)[1:-1], secret[4:], secret[:-4]]
    encoded = [base64.b64encode(b"x" * shift + secret.encode())[4:-4] for shift in range(3)]
    return [*(text.encode() for text in texts), *encoded]


def leaks(secrets: Iterable[str], outputs: Iterable[str], *folders: Path) -> list[str]:
    """Where a secret is shown: the names of files, and of outputs by their number."""
    looked = [one for secret in secrets for one in spellings(secret)]
    found = [f"output {number}" for number, text in enumerate(outputs) if _has(text.encode("utf-8", "replace"), looked)]
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            if _has(str(file).encode("utf-8", "replace"), looked):
                found.append(f"the name of {file}")
            if file.is_file() and any(_has(content, looked) for content in _contents(file)):
                found.append(str(file.relative_to(folder)))
    return found


def _has(content: bytes, looked: list[bytes]) -> bool:
    return any(one in content for one in looked)


def _contents(file: Path) -> Iterable[bytes]:
    """The bytes of a file, and what they say when they are decompressed."""
    content = file.read_bytes()
    yield content
    with suppress(OSError, EOFError, zlib.error):
        yield gzip.decompress(content)
    if content[:4] == b"PAR1":
        parquet = pq.ParquetFile(file)
        yield repr(parquet.schema_arrow.metadata).encode()
        yield repr(parquet.metadata.metadata).encode()
        yield repr(parquet.read().to_pydict()).encode()
