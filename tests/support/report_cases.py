"""Reports for tests of the page: a small corpus as the blocks of a report, packed here once more as an oracle."""

from __future__ import annotations

import base64
import json
import zlib
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from donod_fast.reports.shell import render_page

PAGE = Path(str(files("donod_fast.reports") / "page"))
ROWS, SCORED = 1_000, 980
SOURCES = ("alpaca", "code", "maths")
HOSTILE = (
    "<script>alert(1)</script><!-- </script> --><img src=x onerror=alert(2)> "
    "\"'`&amp; \x1b[31m\u202eabc\u2066 {{ 1 }} %s"
)
_DTYPES = {"f32": "<f4", "f64": "<f8", "u32": "<u4", "u16": "<u2", "u8": "u1"}
_CHUNK = 64


class Block(NamedTuple):
    """A block as the template takes it."""

    name: str
    kind: str
    text: str


class Case(NamedTuple):
    """A report and what is in it.

    Attributes:
        meta: the block ``meta``.
        rows: row numbers of the points.
        numbers: columns by name.
        source: number of the source of each point.
        orders: row numbers by method, best first.
        blocks: everything, as the template takes it.
    """

    meta: dict[str, Any]
    rows: np.ndarray
    numbers: dict[str, np.ndarray]
    source: np.ndarray
    orders: dict[str, np.ndarray]
    blocks: list[Block]


def packed(name: str, kind: str, value: Any) -> Block:
    """A block of an array or of JSON values."""
    if kind == "json":
        content = json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
    else:
        content = np.asarray(value).astype(_DTYPES[kind]).tobytes()
    return Block(name, kind, base64.b64encode(zlib.compress(content)).decode("ascii"))


def report_case(
    points: int = SCORED, *, hostile: bool = False, sample_of: int | None = None, dense: float | None = None
) -> Case:
    """A report of ``points`` scored rows, among rows without a score.

    Args:
        points: number of points.
        hostile: put markup and control characters into every text.
        sample_of: number of scored rows of which the points are said to be a sample; ranks then have gaps.
        dense: step between the values of NOD, above 1: 32 bits hardly tell them apart.
    """
    rng = np.random.default_rng(5)
    total = sample_of or max(ROWS, points)
    rows = np.sort(rng.choice(total, points, replace=False)).astype(np.uint32)
    tokens = np.floor(rng.lognormal(4.3, 0.7, points)) + 3
    difficulty = rng.normal(size=points)
    numbers = {
        "don": np.round(difficulty * 2e-3 + rng.normal(scale=1e-3, size=points) + 0.01, 5),
        "nod": np.exp(rng.normal(scale=0.5, size=points) - 2 + 0.3 * difficulty),
        "loss": np.abs(1.4 + 0.5 * difficulty + rng.normal(scale=0.2, size=points)),
        "tokens": tokens,
        "scored_tokens": np.floor(tokens * rng.uniform(0.3, 0.8, points)) + 1,
    }
    if dense is not None:
        numbers["nod"] = 1 + rng.permutation(points) * dense
    numbers["loss"][rng.choice(points, points // 50, replace=False)] = np.nan
    source = rng.choice(3, points, p=[0.5, 0.3, 0.2])
    ranks = _ranks(numbers, rng, total if sample_of else points)
    name = (lambda text: f"{text} {HOSTILE}") if hostile else (lambda text: text)
    meta = _meta(rows, numbers, source, ranks, name, total if sample_of else ROWS, sample_of)
    blocks = [packed("row", "u32", rows)]
    fine = "f64" if points <= 50_000 else "f32"
    for at, values in enumerate(numbers.values()):
        whole = "u32" if np.array_equal(values, np.floor(values)) else fine
        blocks.append(packed(f"c{at}", whole, values))
    blocks.append(packed("c5", "u16", np.where(rows % 97 == 0, 65535, source)))
    blocks.append(packed("c6", "u8", rows % 7 == 0))
    blocks += [packed(f"r{at}", "u32", values) for at, values in enumerate(ranks.values())]
    blocks += _texts(meta, rows, name)
    blocks.append(packed("meta", "json", meta))
    orders = {method: rows[np.argsort(values)][: int((values < 2**32 - 1).sum())] for method, values in ranks.items()}
    return Case(meta, rows, numbers, source, orders, blocks)


def page_of(case: Case) -> str:
    """The page of a report."""
    return render_page(
        "report.html.j2",
        title=case.meta["title"],
        scripts=[(PAGE / "report.js").read_text("utf-8")],
        styles=[(PAGE / "report.css").read_text("utf-8")],
        evaluates=True,
        blocks=case.blocks,
    )


def _ranks(numbers: dict[str, np.ndarray], rng: np.random.Generator, ranked: int) -> dict[str, np.ndarray]:
    points = len(numbers["don"])
    values = {
        "topsis": -numbers["don"] + 0.05 * numbers["nod"],
        "don": -numbers["don"],
        "loss": np.where(np.isnan(numbers["loss"]), np.inf, numbers["loss"]),
        "random": rng.permutation(points).astype(float),
    }
    found = {}
    for name, value in values.items():
        order = np.argsort(value, kind="stable")
        places = np.arange(points) if ranked == points else np.sort(rng.choice(ranked, points, replace=False))
        ranks = np.empty(points, np.uint32)
        ranks[order] = places
        found[name] = np.where(np.isinf(value), 2**32 - 1, ranks).astype(np.uint32)
    return found


def _number(at: int, name: str, label: str, values: np.ndarray, better: str | None, times: float) -> dict[str, Any]:
    there = values[np.isfinite(values)]
    log = name == "nod"
    edges = np.geomspace(there.min(), there.max(), 41) if log else np.linspace(there.min(), there.max(), 41)
    edges[0], edges[-1] = there.min(), there.max()
    places = np.clip(np.searchsorted(edges, there, side="right") - 1, 0, 39)
    counts = np.round(np.bincount(places, minlength=40) * times)
    return {
        "name": name, "label": label, "text": f"what {label} is", "kind": "number", "block": f"c{at}", "better": better,
        "low": float(there.min()), "high": float(there.max()), "missing": len(values) - len(there),
        "edges": edges.tolist(), "counts": counts.tolist(), "log": log, "filter": True, "where": name,
    }  # fmt: skip


def _meta(
    rows: np.ndarray,
    numbers: dict[str, np.ndarray],
    source: np.ndarray,
    ranks: dict[str, np.ndarray],
    name: Any,
    total: int,
    sample_of: int | None,
) -> dict[str, Any]:
    points = len(rows)
    times = (sample_of or points) / points
    labels = {"don": "DON", "nod": "NOD", "loss": "loss", "tokens": "tokens", "scored_tokens": "scored tokens"}
    better = {"don": "high", "nod": "low"}
    columns = [
        _number(at, key, name(labels[key]), values, better.get(key), times)
        for at, (key, values) in enumerate(numbers.items())
    ]
    codes = np.where(rows % 97 == 0, 3, source)
    columns.append({
        "name": "record.source", "label": name("source"), "text": name("the column source"), "kind": "category",
        "block": "c5", "better": None, "low": None, "high": None, "missing": int((codes == 3).sum()), "log": False,
        "categories": [name(one) for one in SOURCES], "counts": [int((codes == at).sum() * times) for at in range(3)],
        "filter": True, "where": "source", "unfit": [],
    })  # fmt: skip
    columns.append({
        "name": "truncated", "label": "truncated", "text": "cut at the limit", "kind": "flag", "block": "c6",
        "better": None, "missing": 0, "log": False, "categories": ["false", "true"],
        "counts": [int((rows % 7 != 0).sum()), int((rows % 7 == 0).sum())], "filter": True, "where": "truncated",
    })  # fmt: skip
    ranked = {key: sample_of or int((values < 2**32 - 1).sum()) for key, values in ranks.items()}
    methods = [
        {
            "name": key, "label": name(key.upper() if key != "random" else key), "text": name(f"how {key} ranks"),
            "block": f"r{at}", "ranked": ranked[key], "arguments": ["--method", key], "fixed": None,
            "warnings": [name("TOPSIS and DON are one method")] if key == "topsis" else [],
            "totals": _totals(ranks[key], ranked[key], numbers, source, name) if sample_of else None,
        }
        for at, key in enumerate(ranks)
    ]  # fmt: skip
    keys = list(ranks)
    overlap = [[1.0 if one == other else 0.4 for other in keys] for one in keys]
    spread = {"mean": 90.0, "low": 80.0, "high": 100.0}
    return {
        "version": 1, "title": name("Scores of three sources"), "made": "2026-01-01T00:00:00Z", "package": "1.0",
        "folder": "my scores" if sample_of is None else "scores", "rows": total, "scored": sample_of or points,
        "points": points,
        "sample": sample_of and {"points": points, "of": sample_of, "seed": 0, "text": "drawn at random by rank"},
        "facts": [
            ["model", name("tiny-instruct")], ["update", "adamw, lr 2e-05"], ["mask", "all assistant turns"],
            ["input", name("three.jsonl (1,000 rows)")],
        ],
        "warnings": [{"kind": "methods", "text": name("TOPSIS and DON give nearly the same order")}],
        "statuses": [
            {"status": "scored", "rows": sample_of or points, "remedy": "", "causes": [], "example": None},
            {
                "status": "malformed", "rows": total - (sample_of or points), "remedy": name("mend the lines"),
                "causes": [{"text": name("not JSON"), "rows": 3, "example": None}],
                "example": {"row": 1, "id": name("b1"), "place": name("a.jsonl, line 2"), "text": name("{bad")},
            },
        ],
        "quality": [{"label": "truncated", "text": name("12 rows cut"), "rows": 12}],
        "sets": [
            {
                "kind": "exact", "text": name("the same record"), "threshold": None, "sets": 1, "rows": 2,
                "shown": [{"rows": [int(rows[0]), int(rows[1])], "kept": int(rows[0])}],
            },
            {
                "kind": "minhash", "label": name("duplicates by MinHash"), "text": name("read from sets.jsonl"),
                "threshold": 0.8, "sets": 70, "rows": 210,
                "shown": [
                    {
                        "rows": [int(rows[9]), int(rows[4]), int(rows[7])], "size": 12, "kept": int(rows[9]),
                        "similarity": [None, 0.9127, 0.85],
                    }
                ],
            },
        ],
        "columns": columns, "methods": methods,
        "groups": [{"name": name("source"), "column": 5, "by": "source"}],
        "tokens": 4, "length": 3, "cluster": None,
        "agreement": {
            "names": keys, "labels": [name(key) for key in keys], "correlation": overlap, "overlap": overlap,
            "keep": 0.3, "measure": "spearman", "text": name("over all rows"),
            "yardsticks": [
                {"name": name("topsis"), "rows": 294, "tokens": 101.5, "loss": 1.25,
                 "random": {"rows": {"rows": spread, "tokens": spread, "loss": spread, "overlap": spread}}}
            ],
        },
        "default": {"method": "topsis", "keep": 0.3},
        "texts": {"rows": 0, "of": total, "chunk": _CHUNK, "chunks": 0, "text": "all rows", "mask": True,
                  "losses": True, "why": None},
    }  # fmt: skip


def _totals(ranks: np.ndarray, ranked: int, numbers: dict[str, np.ndarray], source: np.ndarray, name: Any) -> Any:
    edges = np.linspace(0, ranked, 201).round()
    there = ranks < 2**32 - 1
    bins = np.clip(np.searchsorted(edges, ranks[there], side="right") - 1, 0, 199)
    times = ranked / there.sum()

    def sums(weights: np.ndarray) -> list[float]:
        return (np.bincount(bins, weights=weights[there], minlength=200) * times).tolist()

    counts = [sums((source == at).astype(float)) for at in range(3)]
    return {
        "edges": edges.tolist(), "tokens": sums(numbers["scored_tokens"]), "lengths": sums(numbers["tokens"]),
        "groups": {"source": {"names": [name(one) for one in SOURCES], "counts": counts}},
    }  # fmt: skip


def _texts(meta: dict[str, Any], rows: np.ndarray, name: Any) -> list[Block]:
    scored = set(rows.tolist())
    wanted = rows[:3_000].tolist()
    if meta["sample"] is None:
        wanted = sorted({*wanted, *[row for row in range(meta["rows"]) if row not in scored][:50]})
    entries = []
    for row in wanted:
        pieces = [
            [0, f"<|user|>⏎\nWhat is {row} plus one? "],
            [3, "<|assistant|>"],
            [1, name("The answer")],
            [1, f" is {row + 1}."],
        ]
        entry = {
            "row": row, "id": name(f"id-{row}"), "status": "scored" if row in scored else "malformed",
            "detail": ("scored with another mask" if row % 4 == 0 else "") if row in scored else name("not JSON"),
            "place": name(f"three.jsonl, line {row + 1}"),
            "pieces": pieces, "losses": [None, 0.1, 2.5, 0.4] if row % 2 == 0 and row in scored else None,
            "scores": {},
        }  # fmt: skip
        entries.append(entry)
    chunks = [entries[start : start + _CHUNK] for start in range(0, len(entries), _CHUNK)]
    meta["texts"] |= {"rows": len(wanted), "chunks": len(chunks)}
    found = [packed("text_rows", "u32", wanted)]
    return found + [packed(f"t{at}", "json", chunk) for at, chunk in enumerate(chunks)]
