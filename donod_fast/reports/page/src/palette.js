// How points are coloured: an index of a short list of colours for each point, and the legend.

import { NONE } from "./corpus.js";
import { colour } from "./dom.js";
import { countBelow, sortedValues } from "./corpus.js";
import { count, percent, short } from "./format.js";

// Okabe and Ito's colours, which most colour-blind people can tell apart, and further ones.
const CATEGORIES = ["#3b82c4", "#e69f00", "#1a9e77", "#d55e00", "#a070c8", "#56b4e9", "#b5a300", "#cc79a7", "#8c6d46", "#5b8c5a"];
const RAMP = ["#4b3f8f", "#4462a8", "#3383b0", "#2aa1a4", "#43bb86", "#86cf5c", "#d3d93c", "#fbe14a"];

function kept(store) {
  const { corpus, keptA, keptB } = store;
  const index = new Uint8Array(corpus.m);
  if (!keptB) {
    for (let at = 0; at < corpus.m; at += 1) index[at] = keptA.kept[at];
    return { index, colours: [colour("--dropped"), colour("--kept")], names: ["dropped", "kept"] };
  }
  for (let at = 0; at < corpus.m; at += 1) index[at] = keptA.kept[at] + 2 * keptB.kept[at];
  return {
    index,
    colours: [colour("--dropped"), colour("--only-a"), colour("--only-b"), colour("--kept")],
    names: ["kept by neither", "only A", "only B", "kept by both"],
  };
}

function category(corpus, column) {
  const sizes = new Float64Array(column.size + 1);
  for (let at = 0; at < corpus.m; at += 1) sizes[column.bins[at] === NONE ? column.size : column.bins[at]] += 1;
  const order = [...sizes.keys()].filter((at) => at < column.size && sizes[at] > 0).sort((one, two) => sizes[two] - sizes[one]);
  const shown = order.slice(0, CATEGORIES.length);
  const position = new Map(shown.map((at, place) => [at, place]));
  const rest = shown.length;
  const index = new Uint8Array(corpus.m);
  for (let at = 0; at < corpus.m; at += 1) index[at] = position.get(column.bins[at]) ?? rest;
  const hasRest = order.length > shown.length || sizes[column.size] > 0;
  const colours = [...CATEGORIES.slice(0, rest), colour("--dropped")];
  const names = [...shown.map((at) => column.categories[at]), ...(hasRest ? ["other or none"] : [])];
  return { index, colours, names };
}

function number(corpus, column) {
  const sorted = sortedValues(corpus, column);
  const cuts = RAMP.slice(1).map((_, at) => sorted[Math.floor(((at + 1) * sorted.length) / RAMP.length)]);
  const index = new Uint8Array(corpus.m);
  const limits = Float64Array.from(cuts);
  for (let at = 0; at < corpus.m; at += 1) {
    const value = column.values[at];
    index[at] = Number.isFinite(value) ? countBelow(limits, value, true) : RAMP.length;
  }
  const ends = [sorted[0], ...cuts, sorted[sorted.length - 1]];
  const names = RAMP.map((_, at) => `${short(ends[at])} to ${short(ends[at + 1])}`);
  return { index, colours: [...RAMP, colour("--dropped")], names: sorted.length < corpus.m ? [...names, "no value"] : names };
}

/** Colours of all points. `by` is "kept" or the number of a column. */
export function paint(store, by) {
  const { corpus } = store;
  const column = corpus.columns[by];
  const made = by === "kept" ? kept(store) : column.kind === "number" ? number(corpus, column) : category(corpus, column);
  const sizes = new Array(made.colours.length).fill(0);
  for (const at of made.index) sizes[at] += 1;
  const legend = made.names.map((name, at) => ({ name, colour: made.colours[at], text: `${count(sizes[at])} (${percent(sizes[at], corpus.m)})` }));
  return { index: made.index, colours: made.colours, legend };
}
