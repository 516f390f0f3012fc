"""Reads the blocks of a report as a browser does."""

from __future__ import annotations

import base64
import json
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from donod_fast.reports.blocks import Block

_TYPES = {"f32": "<f4", "f64": "<f8", "u32": "<u4", "u16": "<u2", "u8": "u1"}


def unpacked(kind: str, text: str) -> Any:
    """The numbers or the JSON values of a block."""
    content = zlib.decompress(base64.b64decode(text, validate=True))
    return json.loads(content) if kind == "json" else np.frombuffer(content, _TYPES[kind])


def content_of(block: Block) -> Any:
    """What a block holds."""
    return unpacked(block.kind, block.text)


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.blocks: dict[str, Any] = {}
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self._open: dict[str, str | None] = {}
        self._text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._open, self._text = (dict(attrs) if tag == "script" else {}), ""

    def handle_data(self, data: str) -> None:
        self._text += data

    def handle_endtag(self, tag: str) -> None:
        if tag == "script" and self._open.get("type") == "application/x-donod":
            name, kind = self._open["data-name"], self._open["data-kind"]
            assert name is not None and kind is not None and name not in self.blocks
            self.blocks[name] = unpacked(kind, self._text)
        self._open = {}


def read_page(text: str) -> tuple[dict[str, Any], list[tuple[str, dict[str, str | None]]]]:
    """The blocks of a page by name, and its elements with their attributes."""
    page = _Page()
    page.feed(text)
    page.close()
    return page.blocks, page.tags


def blocks_of(path: Path) -> dict[str, Any]:
    """The blocks of a report by name."""
    return read_page(path.read_text(encoding="utf-8"))[0]


def texts_of(blocks: dict[str, Any]) -> list[dict[str, Any]]:
    """The entries of all rows whose text is in a report, in order."""
    return [entry for at in range(blocks["meta"]["texts"]["chunks"]) for entry in blocks[f"t{at}"]]
