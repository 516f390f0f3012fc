"""DaMoC's steps that all candidates share: filtering and shortening the rows to train on.

Both are cells of the run's folder: computed once and cached.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from donod_fast.data.formats import to_sample
from donod_fast.data.types import SampleError
from donod_fast.errors import CorpusError, InputError, ModelError
from donod_fast.models.sentence_embeddings import embed_texts, question_text
from donod_fast.studies.core.cells import CellStore
from donod_fast.studies.damoc.recipe import CompressSection, DamocRecipe, FilterSection
from donod_fast.system.files import atomic_writer
from donod_fast.system.places import path_of
from donod_fast.system.wording import plural

if TYPE_CHECKING:
    from donod_fast.data.reading import Corpus

DATA = "data.jsonl"


@dataclass(frozen=True)
class Prepared:
    """The training data of the candidates.

    Attributes:
        corpus: corpus that contains the rows.
        rows: their positions in ascending order; None for all.
        key: identifies them among the run's cells.
        seconds: wall time of filtering and of compressing, if these steps were requested.
        summary: description for the report, as plain values.
    """

    corpus: Corpus = field(repr=False)
    rows: tuple[int, ...] | None
    key: Mapping[str, Any] = field(repr=False)
    seconds: Mapping[str, float]
    summary: Mapping[str, Any]

    def records(self, count: int | None = None) -> list[dict[str, Any]]:
        """The first rows as dicts, without rows that cannot be read."""
        wanted = None if self.rows is None else set(self.rows)
        found: list[dict[str, Any]] = []
        for record in self.corpus.records():
            if record.data is not None and (wanted is None or record.row in wanted):
                found.append(dict(record.data))
                if len(found) == count:
                    break
        return found


def whole(corpus: Corpus) -> Prepared:
    """All the data, unfiltered."""
    return Prepared(corpus, None, {"corpus": corpus.fingerprint, "rows": None}, {}, {"rows": corpus.rows})


def prepare(recipe: DamocRecipe, corpus: Corpus, store: CellStore) -> Prepared:
    """Filter, then compress.

    Raises:
        CorpusError: no row is left.
        InputError, ModelError: a filter, or the model of one, failed.
    """
    prepared = _filtered(recipe.filter, recipe.train.format, corpus, store)
    return prepared if recipe.compress.method == "none" else _compressed(recipe, prepared, store)


def _filtered(section: FilterSection, format: str, corpus: Corpus, store: CellStore) -> Prepared:
    everything = whole(corpus)
    if section.method == "none":
        return everything
    settings: dict[str, Any] = {"corpus": corpus.fingerprint, "method": section.method, "share": section.share}
    if section.method == "random":
        settings |= {"seed": section.seed}
    elif section.method == "graph_cut":
        settings |= {"trade_off": section.trade_off, "format": format, "model": _identity(section.embeddings)}
    else:
        settings |= {"scores": _scores_identity(section, corpus), "column": section.column, "better": section.better}

    def work(_: Path) -> dict[str, Any]:
        return {"rows": sorted(map(int, _chosen(section, format, corpus)))}

    cell = store.result("filter", settings, work)
    rows = tuple(cell.result["rows"])
    if not rows:
        raise CorpusError(f"filter {section.method} leaves none of {plural(corpus.rows, 'row')}; raise filter.share")
    return Prepared(
        corpus,
        rows,
        {"corpus": corpus.fingerprint, "rows": settings},
        {"filter": cell.seconds},
        {"filter": section.method, "rows": len(rows), "of": corpus.rows},
    )


def _chosen(section: FilterSection, format: str, corpus: Corpus) -> Sequence[int]:
    from donod_fast.studies.damoc import filters, graph_cut

    count = max(1, round(section.share * corpus.rows))
    if section.method == "random":
        return list(filters.random_filter(corpus.rows, count, section.seed))
    if section.method == "quality":
        assert section.scores is not None and section.column is not None
        return list(filters.quality_filter(section.scores, section.column, count, better=section.better))
    rows, texts = _questions(corpus, format)
    best = graph_cut.graph_cut(embed_texts(texts, section.embeddings), min(count, len(rows)), section.trade_off)
    return [rows[at] for at in best]


def _questions(corpus: Corpus, format: str) -> tuple[list[int], list[str]]:
    """The readable rows with a question, and their questions.

    Raises:
        CorpusError: there is no such row; names the problem of the first row.
    """
    rows, texts, first = [], [], ""
    for record in corpus.records():
        try:
            text = question_text(to_sample(record, format)[0])
        except SampleError as error:
            first = first or f"; {record.file}, {record.place}: {error.detail}"
            continue
        if text.strip():
            rows.append(record.row)
            texts.append(text)
    if not rows:
        raise CorpusError(f"graph_cut finds no row with a question to embed{first}; give filter another method")
    return rows, texts


def _compressed(recipe: DamocRecipe, before: Prepared, store: CellStore) -> Prepared:
    from donod_fast.data.reading import open_corpus
    from donod_fast.training.recipe import MASK_FIELDS

    section = recipe.compress
    how = section.model_dump(mode="json", exclude={"model", "guard"})
    train = recipe.train.model_dump(mode="json", include=MASK_FIELDS)
    models = {name: _identity(getattr(section, name)) for name in ("model", "guard")}
    settings = {"data": dict(before.key), **how, **models, "masks": train}
    known = store.known("compress", settings)
    if known is not None and not (known.folder / DATA).exists():
        store.forget("compress", settings)
    cell = store.result("compress", settings, lambda folder: _compress(section, recipe, before, folder / DATA))
    if not cell.result["rows"]:
        raise CorpusError("no row can be read, so that none can be compressed")
    cell.check_files(DATA)
    return Prepared(
        open_corpus([str(cell.folder / DATA)]),
        None,
        {"compressed": settings},
        {**before.seconds, "compress": cell.seconds},
        {**before.summary, "compress": cell.result},
    )


def _compress(section: CompressSection, recipe: DamocRecipe, before: Prepared, out: Path) -> dict[str, Any]:
    from donod_fast.scoring.scorer import Scorer
    from donod_fast.studies.damoc import compression, guard, rewriters
    from donod_fast.training.loading import training_device

    assert section.model is not None
    scorer = Scorer.from_pretrained(
        section.model,
        device=str(training_device()),
        masks=recipe.train.masks(),
        trust_remote_code=recipe.train.trust_remote_code,
    )
    watch = None if section.guard is None else guard.BertScoreGuard(section.guard, least_f1=section.least_f1)
    rewriter = None
    if section.rewriter is not None:
        rewriter = rewriters.OpenAIRewriter(**section.rewriter.model_dump())
    done = compression.compress_records(
        before.records(), scorer, guard=watch, rewriter=rewriter, ratio=section.ratio, fields=section.fields
    )
    with atomic_writer(out) as file:
        for one in done:
            file.write(json.dumps(one.record, ensure_ascii=False, default=str).encode("utf-8", "surrogatepass") + b"\n")
    statuses = Counter(str(one.status) for one in done)
    tokens = sum(one.tokens for one in done)
    ratio = sum(one.compressed_tokens for one in done) / tokens if tokens else 1.0
    return {"rows": len(done), "statuses": dict(statuses), "ratio": ratio}


def _identity(model: str | None) -> str | None:
    """Fingerprint of a folder with any kind of model, else the hub id."""
    if model is None:
        return None
    from donod_fast.models.fingerprint import folder_fingerprint

    folder = path_of(model)
    if not folder.is_dir():
        return f"hub:{model}"
    try:
        return folder_fingerprint(folder)
    except ModelError as error:
        raise InputError(f"{model} is not the folder of a model: {error}; it needs a config.json") from error


def _scores_identity(section: FilterSection, corpus: Corpus) -> Mapping[str, Any]:
    """Identify a scores folder; refuse scores of other data, because their row numbers do not match."""
    from donod_fast.scores.folder import ScoresFolder
    from donod_fast.scores.manifest import settings_hash
    from donod_fast.scores.part_store import PARTS

    folder = ScoresFolder.open(str(section.scores))
    if folder.manifest["input"]["fingerprint"] != corpus.fingerprint:
        raise InputError(f"filter.scores: {section.scores} holds scores of other data than data names; score this data")
    return {"settings": settings_hash(folder.manifest), "parts": len(folder.storage.names(PARTS))}


__all__ = ["DATA", "Prepared", "prepare", "whole"]
