// The command that selects exactly the rows seen, and the file of rows that a lasso needs.

import { NONE, OTHER } from "./corpus.js";
import { exact } from "./format.js";

/** A word of a POSIX shell. */
export function quoted(text) {
  return /^[A-Za-z0-9_./:=@%+,-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\"'\"'")}'`;
}

// The name of a column in --where, which is not always that of its stored column.
const nameOf = (column) => column.where ?? column.name;

function categoryFilter(column, chosen) {
  const names = [...chosen].sort((one, two) => one - two);
  const unfit = new Set(column.unfit ?? []);
  const sayable = column.filter && names.every((at) => at !== NONE && column.categories[at] !== OTHER && !unfit.has(at));
  return sayable ? names.map((at) => `${nameOf(column)}=${column.categories[at]}`) : null;
}

/** Words of the command, the reasons why it needs a file of rows, and the test of a point for that file. */
export function commandOf(store) {
  const { corpus, ranges, lasso, a } = store;
  const words = ["donod-fast", "select", corpus.meta.folder, ...(a?.arguments ?? [])];
  words.push("--keep", a?.fixed ? String(a.fixed) : store.keepText);
  if (store.group && !a?.fixed) words.push("--by", store.group.by);
  const reasons = [];
  const slots = [];
  ranges.forEach((range, index) => {
    if (!range) return;
    const column = corpus.columns[index];
    let filters = null;
    if (range.categories) filters = categoryFilter(column, range.categories);
    else if (column.filter) {
      filters = [`${nameOf(column)}=${range.low === null ? "" : exact(range.low)}:${range.high === null ? "" : exact(range.high)}`];
    }
    if (filters) for (const filter of filters) words.push("--where", filter);
    else {
      reasons.push(`the filter of ${column.label}`);
      slots.push(index);
    }
  });
  if (lasso) {
    reasons.push("the lasso");
    slots.push(corpus.columns.length);
  }
  if (reasons.length) words.push("--only-rows", "rows.txt");
  words.push("--out", "subset.jsonl");
  const failing = slots.map((slot) => store.filters.failing[slot]);
  return { text: words.map(quoted).join(" "), reasons, inFile: (at) => failing.every((fails) => fails[at] === 0) };
}

/** Contents of the file: a row number a line. */
export function rowsFile(store, inFile) {
  const lines = [];
  for (let at = 0; at < store.corpus.m; at += 1) if (inFile(at)) lines.push(store.corpus.row[at]);
  return `${lines.join("\n")}\n`;
}
