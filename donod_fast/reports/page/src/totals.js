// Rows and tokens of what is kept: from the points, or from exact totals by rank where the points are a sample.

import { lengthBins, NONE } from "./corpus.js";

// Sum of the first `rows` ranks, with a straight line inside the bin of the cut. `exactly` says whether the cut is an edge.
function upTo(edges, perBin, rows) {
  let sum = 0;
  for (let bin = 0; bin + 1 < edges.length; bin += 1) {
    if (rows >= edges[bin + 1]) sum += perBin[bin];
    else {
      const width = edges[bin + 1] - edges[bin];
      if (rows > edges[bin] && width > 0) sum += (perBin[bin] * (rows - edges[bin])) / width;
      break;
    }
  }
  return Math.round(sum);
}

const sumOf = (numbers) => numbers.reduce((sum, value) => sum + value, 0);

/** Tokens of the column `index`: of what is selected, and of all. `about`: interpolated; `sample`: of the points only. */
export function tokensOf(store, index) {
  const { corpus, a } = store;
  const column = corpus.columns[index];
  if (!column || !a) return null;
  const perBin = index === corpus.meta.tokens ? a.totals?.tokens : a.totals?.lengths;
  if (corpus.sampled && perBin && !store.filters.active) {
    const { edges } = a.totals;
    return { kept: upTo(edges, perBin, store.keptA.rows), all: sumOf(perBin), about: !edges.includes(store.keptA.rows) };
  }
  let kept = 0;
  let all = 0;
  for (let at = 0; at < corpus.m; at += 1) {
    const value = column.values[at];
    if (!Number.isFinite(value)) continue;
    all += value;
    if (store.selected(at)) kept += value;
  }
  return { kept: Math.round(kept), all: Math.round(all), sample: corpus.sampled };
}

function fromPoints(store, names, of) {
  const rows = names.map((name) => ({ name, all: 0, a: 0, b: 0, seen: 0 }));
  for (let at = 0; at < of.length; at += 1) {
    const row = rows[of[at]];
    if (!row) continue;
    row.all += 1;
    if (store.keptA.kept[at]) row.a += 1;
    if (store.keptB?.kept[at]) row.b += 1;
    if (store.selected(at)) row.seen += 1;
  }
  return rows;
}

function fromTotals(store, key) {
  const part = store.a?.totals?.groups?.[key];
  if (!part) return null;
  const { edges } = store.a.totals;
  const other = store.b?.totals?.groups?.[key];
  return part.names.map((name, at) => {
    const there = other ? other.names.indexOf(name) : -1;
    return {
      name,
      all: sumOf(part.counts[at]),
      a: upTo(edges, part.counts[at], store.keptA.rows),
      b: there >= 0 ? upTo(store.b.totals.edges, other.counts[there], store.keptB.rows) : 0,
    };
  });
}

/** What is kept a category of a column, or a bin of the length: rows of {name, all, a, b, seen}, and how it was counted. */
export function composition(store, which) {
  const { corpus } = store;
  const { meta } = corpus;
  if (corpus.sampled && !store.filters.active) {
    const index = which === "length" ? null : which;
    const group = (meta.groups ?? []).find((each) => each.column === index);
    const keys = which === "length" ? ["length"] : [group?.by, group?.name, corpus.columns[which]?.name];
    for (const key of keys) {
      const rows = key ? fromTotals(store, key) : null;
      if (rows) return { rows, how: "Exact counts of all rows up to the nearest 200th of the ranking." };
    }
  }
  const how = corpus.sampled ? "Counted in the sample of points." : null;
  if (which === "length") {
    const bins = lengthBins(corpus);
    return bins ? { rows: fromPoints(store, bins.names, bins.of), how } : null;
  }
  const column = corpus.columns[which];
  const missing = column.bins.includes(NONE);
  const of = missing ? column.bins.map((bin) => (bin === NONE ? column.size : bin)) : column.bins;
  const rows = fromPoints(store, missing ? [...column.categories, "(none)"] : column.categories, of);
  return { rows: rows.filter((row) => row.all > 0), how };
}
