// Two methods side by side: overlap, what only one keeps, and the rows near the cut.

import { data, h, put, table } from "./dom.js";
import { count, percent, plural, short } from "./format.js";

function median(values) {
  if (!values.length) return NaN;
  const sorted = Float64Array.from(values).sort();
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** Points that both keep, only A, only B, neither: 3, 1, 2, 0. */
export function sideOf(store, at) {
  return store.keptA.kept[at] + 2 * (store.keptB?.kept[at] ?? 0);
}

/** Fills the section about two methods; without a second one it says how to choose it. */
export function showCompare(store, place, listRows) {
  const { corpus } = store;
  function update() {
    if (!store.a || !store.b) {
      put(place, h("p", { class: "soft" }, "Choose a second method under “Compare with” above to see which rows only one of the two keeps."));
      return;
    }
    const sides = [[], [], [], []];
    for (let at = 0; at < corpus.m; at += 1) sides[sideOf(store, at)].push(at);
    const [, onlyA, onlyB, both] = sides;
    const union = onlyA.length + onlyB.length + both.length;
    const sample = corpus.sampled ? " in the sample of points" : "";
    const near = Math.max(10, Math.round(store.keptA.rows * 0.02));
    let close = 0;
    for (const at of [...onlyA, ...onlyB]) {
      if (Math.min(Math.abs(store.keptA.toCut(at)), Math.abs(store.keptB.toCut(at))) <= near) close += 1;
    }
    const button = (text, mode) => h("button", { type: "button", onclick: () => listRows(mode), "data-mode": mode }, text);
    const facts = [
      ["Kept by both", count(both.length), `${percent(both.length, union)} of what either keeps`],
      ["Only A", count(onlyA.length), data(store.a.label)],
      ["Only B", count(onlyB.length), data(store.b.label)],
      ["At the border", count(close), `of the rows that only one keeps lie within ${count(near)} ranks of a cut`],
    ];
    const columns = corpus.columns.filter((column) => column.kind === "number");
    const rows = columns.map((column) => [
      data(column.label),
      ...[both, onlyA, onlyB, sides[0]].map((points) => short(median(points.map((at) => column.values[at]).filter(Number.isFinite)))),
    ]);
    const segment = (kind, points) => h("span", { class: kind, style: `flex-grow:${points.length}` });
    put(
      place,
      h("p", null, "A is ", h("strong", null, data(store.a.label)), `, which keeps ${plural(store.keptA.rows, "row")}; B is `, h("strong", null, data(store.b.label)), `, which keeps ${plural(store.keptB.rows, "row")}.`, sample ? h("span", { class: "soft" }, ` The numbers below are counted${sample}.`) : null),
      h("div", { class: "overlap", "aria-hidden": "true" }, segment("only-a", onlyA), segment("both", both), segment("only-b", onlyB)),
      h("dl", { class: "facts", id: "compare-facts" }, facts.map(([label, value, text]) => h("div", { "data-label": label }, h("dt", null, label), h("dd", null, value), h("small", { class: "soft" }, text)))),
      h("div", { class: "row" }, button("Read the rows of only A", "only-a"), button("Read the rows of only B", "only-b"), button("Read the rows at the border", "border")),
      h("h3", null, "Medians"),
      table([["column"], ["both", true], ["only A", true], ["only B", true], ["neither", true]], rows, { "aria-label": "Medians of every column" }),
    );
  }
  store.on((what) => what.has("selection") && update());
  update();
}
