// The points of the report in memory: columns, ranks, groups, and their bins.

const NONE = 65535;
export const UNRANKED = 4294967295;
const OTHER = "(other)";

function numberColumn(column, values) {
  const edges = Float64Array.from(column.edges ?? []);
  const bins = new Uint16Array(values.length).fill(NONE);
  const last = edges.length - 2;
  if (last >= 0) {
    for (let at = 0; at < values.length; at += 1) {
      const value = values[at];
      if (!Number.isFinite(value)) continue;
      let low = 0;
      let high = last;
      while (low < high) {
        const middle = (low + high + 1) >> 1;
        if (edges[middle] <= value) low = middle;
        else high = middle - 1;
      }
      bins[at] = low;
    }
  }
  return { ...column, values, edges, bins, size: Math.max(0, last + 1) };
}

function categoryColumn(column, values) {
  const names = column.categories ?? ["false", "true"];
  const bins = values instanceof Uint16Array ? values : Uint16Array.from(values, (value) => (value < names.length ? value : NONE));
  return { ...column, categories: names, values, bins, size: names.length };
}

/** Decodes everything that is needed for the first picture. */
export async function openCorpus(blocks) {
  const meta = await blocks.read("meta");
  const row = await blocks.take("row");
  const columns = await Promise.all(
    meta.columns.map(async (column, index) => {
      const values = await blocks.take(column.block);
      const made = column.kind === "number" ? numberColumn(column, values) : categoryColumn(column, values);
      return { ...made, index };
    }),
  );
  const methods = await Promise.all(
    meta.methods.map(async (method) => ({ ...method, rank: await blocks.take(method.block), order: null })),
  );
  const textRows = blocks.has("text_rows") ? await blocks.take("text_rows") : new Uint32Array(0);
  return { meta, row, m: row.length, columns, methods, textRows, sampled: Boolean(meta.sample), sorted: new Map() };
}

/** Points by rank of a method, best first; points without a rank are left out. */
export function orderOf(method) {
  if (!method.order) {
    const ranked = [];
    for (let at = 0; at < method.rank.length; at += 1) if (method.rank[at] !== UNRANKED) ranked.push(at);
    method.order = Uint32Array.from(ranked).sort((one, two) => method.rank[one] - method.rank[two]);
  }
  return method.order;
}

/** Finite values of a number column, rising. */
export function sortedValues(corpus, column) {
  if (!corpus.sorted.has(column.index)) {
    corpus.sorted.set(column.index, Float64Array.from(column.values.filter(Number.isFinite)).sort());
  }
  return corpus.sorted.get(column.index);
}

/** Number of values below `value` (or at most `value`). */
export function countBelow(sorted, value, inclusive = false) {
  let low = 0;
  let high = sorted.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value || (inclusive && sorted[middle] === value)) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Position of a row number among rising row numbers, or -1. */
export function indexOfRow(rows, row) {
  const at = countBelow(rows, row);
  return at < rows.length && rows[at] === row ? at : -1;
}

/** Ten bins of the length with about as many points each: names, and the bin of each point. */
export function lengthBins(corpus) {
  corpus.lengthBins ??= cutLengths(corpus);
  return corpus.lengthBins;
}

function cutLengths(corpus) {
  const column = corpus.columns[corpus.meta.length];
  if (!column || column.kind !== "number") return null;
  const sorted = sortedValues(corpus, column);
  if (!sorted.length) return null;
  const cuts = [];
  for (let part = 1; part < 10; part += 1) cuts.push(sorted[Math.floor((part * sorted.length) / 10)]);
  const starts = [...new Set(cuts)].filter((cut) => cut > sorted[0]);
  const low = [sorted[0], ...starts];
  const names = low.map((start, at) => {
    const end = at + 1 < low.length ? low[at + 1] - 1 : sorted[sorted.length - 1];
    return end <= start ? `${start}` : `${start} to ${end}`;
  });
  const limits = Float64Array.from(starts);
  const of = new Uint16Array(corpus.m).fill(NONE);
  for (let at = 0; at < corpus.m; at += 1) {
    const value = column.values[at];
    if (Number.isFinite(value)) of[at] = countBelow(limits, value, true);
  }
  return { names, of };
}

/** The group of each point: numbers in order of appearance, as `select --by` numbers them; a group for no value. */
export function groupsOf(corpus, group) {
  const column = corpus.columns[group.column];
  const number = new Map();
  const of = new Uint16Array(corpus.m);
  for (let at = 0; at < corpus.m; at += 1) {
    const value = column.bins[at];
    if (!number.has(value)) number.set(value, number.size);
    of[at] = number.get(value);
  }
  return { of, size: number.size, names: [...number.keys()].map((value) => column.categories[value] ?? "(none)") };
}

/** Whether `--by` can be counted here: every row is a point, and no two values share a group. */
export function canGroup(corpus, group) {
  const column = corpus.columns[group.column];
  return !corpus.sampled && column?.kind === "category" && column.categories.at(-1) !== OTHER;
}

export { NONE, OTHER };
