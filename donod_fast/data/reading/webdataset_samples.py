"""A sample of a WebDataset shard → a record: which members are columns, and what their contents become.

A member's name is the sample's key up to the first point of its last part, then its extension, in lower case:

- ``json`` is the record itself if it is an object; ``NAME.json`` is the column ``NAME``;
- ``txt`` and ``text`` are the column ``text``; ``NAME.txt`` is the column ``NAME``;
- images, audio and video are the columns ``image``, ``audio`` and ``video``, which say where they are;
- any other member is a column with its extension as name, which says where it is. No score depends on it.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from donod_fast.data.reading.encodings import not_utf8
from donod_fast.data.reading.json_texts import parsed
from donod_fast.data.reading.tar_members import Member
from donod_fast.data.types import HASH_BYTES
from donod_fast.system.limits import ReadLimits

_NAME = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)", re.DOTALL)
_EXTENSIONS = {
    "image": "jpg jpeg png webp gif bmp tif tiff ppm pgm pbm avif heic jxl jp2 svg",
    "audio": "wav mp3 flac ogg oga opus m4a aac wma aiff",
    "video": "mp4 mkv webm avi mov mpg mpeg m4v h264",
}
_MEDIA = {extension: column for column, extensions in _EXTENSIONS.items() for extension in extensions.split()}


@dataclass(frozen=True, slots=True)
class TarSample:
    """Consecutive members of one key.

    Attributes:
        key: the key.
        members: each with its extension in lower case.
        contents: the contents of the members that are texts, by the byte where the member begins. Further ones are left
            out once they are more than a record may have.
    """

    key: str
    members: tuple[tuple[str, Member], ...]
    contents: Mapping[int, bytes] = field(default_factory=dict, repr=False)


def key_and_extension(name: str) -> tuple[str, str] | None:
    """The key and extension of a member; None if it belongs to no sample."""
    found = _NAME.fullmatch(name)
    if found is None or ("/" not in name and name.startswith("__") and name.endswith("__")):
        return None
    return found[1], found[2].lower()


def column_of(extension: str) -> tuple[str, str]:
    """The column that an extension stands for, and what its content is: ``json``, ``text``, ``media`` or ``other``."""
    stem, _, last = extension.rpartition(".")
    if last == "json":
        return stem or "json", "json"
    if last in ("txt", "text"):
        return stem or "text", "text"
    if last in _MEDIA:
        return _MEDIA[last], "media"
    return extension, "other"


def is_text(extension: str) -> bool:
    """Whether the content of a member is read."""
    return column_of(extension)[1] in ("json", "text")


def sample_hash(sample: TarSample) -> bytes:
    """A hash over extensions, sizes, and the contents that were read."""
    found = hashlib.sha256(b"webdataset\0")
    for extension, member in sample.members:
        found.update(f"{extension}\0{member.size}\0".encode("utf-8", "surrogateescape"))
        found.update(sample.contents.get(member.begin, b""))
    return found.digest()[:HASH_BYTES]


def record_of(sample: TarSample, limits: ReadLimits) -> tuple[dict[str, Any] | None, str | None]:
    """The record of a sample: (the record, None) or (None, the problem). Raises nothing.

    Args:
        sample: the sample.
        limits: texts of more bytes than a record may have are a problem.
    """
    problem = _problem(sample.members, limits)
    data: dict[str, Any] = {}
    for extension, member in sample.members:
        if problem is None and is_text(extension):
            column, kind = column_of(extension)
            problem = _add(data, column, kind, sample.contents[member.begin], extension == "json")
    if problem is not None:
        return None, problem
    for extension, member in sample.members:
        if not is_text(extension):
            _add_place(data, column_of(extension)[0], {"member": member.name, "bytes": member.size})
    return data, None


def _problem(members: Sequence[tuple[str, Member]], limits: ReadLimits) -> str | None:
    for _, member in members:
        if member.problem is not None:
            return f"the member {member.name!r} is {member.problem}; pack the file itself under a plain name"
    extensions = Counter(extension for extension, _ in members)
    twice = next((one for one, times in extensions.items() if times > 1), None)
    if twice is not None:
        return f"two members have the extension {twice!r}; give each one of its own"
    size = sum(member.size for extension, member in members if is_text(extension))
    return f"its texts have {size:,} bytes, {limits.too_large}" if size > limits.record_bytes else None


def _add(data: dict[str, Any], column: str, kind: str, content: bytes, is_record: bool) -> str | None:
    """Add a column to the record; returns the problem."""
    value: Any
    if kind == "text":
        try:
            value = content.decode("utf-8")
        except UnicodeDecodeError as error:
            return f"{column}: {not_utf8(content[error.start], f'at byte {error.start + 1}')}"
    else:
        value, problem = parsed(content)
        if problem is not None:
            return f"{column}: {problem}"
    new = value if is_record and isinstance(value, dict) else {column: value}
    both = next((name for name in new if name in data), None)
    if both is not None:
        return f"two members give the column {both!r}; rename one"
    data.update(new)
    return None


def _add_place(data: dict[str, Any], column: str, place: dict[str, Any]) -> None:
    """Say where a member is that is no text; a value of the record's own stays."""
    before = data.get(column)
    if before is None:
        data[column] = place
    elif isinstance(before, dict) and before.keys() == place.keys():
        data[column] = [before, place]
    elif isinstance(before, list) and before and all(isinstance(one, dict) and "member" in one for one in before):
        before.append(place)


__all__ = ["TarSample", "column_of", "is_text", "key_and_extension", "record_of", "sample_hash"]
