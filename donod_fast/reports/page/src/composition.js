// What is kept of each source and of each length, beside what there is.

import { chooser, data, h, put } from "./dom.js";
import { count, percent, plural } from "./format.js";
import { composition, tokensOf } from "./totals.js";

const SHOWN = 8;

function bars(rows, store, caption) {
  const both = Boolean(store.keptB);
  const active = store.filters.active;
  const most = Math.max(1, ...rows.map((row) => row.all));
  const bar = (value, kind) => h("span", { class: `bar ${kind}`, style: `width:${((100 * value) / most).toFixed(2)}%` });
  return h(
    "table",
    { class: "composition" },
    h("caption", null, caption),
    h(
      "thead",
      null,
      h("tr", null, h("th", { scope: "col" }, ""), h("th", { class: "number", scope: "col" }, "rows"), h("th", { class: "number", scope: "col" }, both ? "A keeps" : "kept"), both ? h("th", { class: "number", scope: "col" }, "B keeps") : null, active ? h("th", { class: "number", scope: "col" }, "and passes") : null),
    ),
    h(
      "tbody",
      null,
      rows.map((row) => [
        h(
          "tr",
          { "data-name": row.name },
          h("th", { scope: "row" }, data(row.name), h("span", { class: "track", "aria-hidden": "true" }, bar(row.all, "all"), bar(row.a, "kept"), both ? bar(row.b, "beside") : null)),
          h("td", { class: "number" }, count(row.all)),
          h("td", { class: "number" }, count(row.a), h("small", null, percent(row.a, row.all))),
          both ? h("td", { class: "number" }, count(row.b), h("small", null, percent(row.b, row.all))) : null,
          active ? h("td", { class: "number" }, row.seen === undefined ? "–" : count(row.seen)) : null,
        ),
      ]),
    ),
  );
}

/** Fills the panel about what is kept. */
export function showComposition(store, place) {
  const { corpus } = store;
  const { meta } = corpus;
  if (!store.a) return;
  const grouped = (meta.groups ?? []).filter((group) => corpus.columns[group.column]);
  const several = (column) => (column.counts ?? []).filter((rows) => rows > 0).length > 1;
  const categories = corpus.columns.filter((column) => column.kind !== "number" && several(column) && !grouped.some((group) => group.column === column.index));
  const choices = [...grouped.map((group) => [String(group.column), corpus.columns[group.column].label]), ...categories.map((column) => [String(column.index), column.label])];
  let chosen = choices.length ? Number(choices[0][0]) : null;
  const pick = choices.length > 1
    ? chooser("Kept of each", choices, String(chosen), (value) => { chosen = Number(value); update(); }, { id: "composition-by" })
    : null;
  const body = h("div", { "data-part": "composition" });
  put(place, pick?.field, body);

  function update() {
    const parts = [];
    const tokens = tokensOf(store, meta.tokens);
    const length = tokensOf(store, meta.length);
    const lines = [];
    const line = (label, amount) => {
      if (!amount) return;
      lines.push(h("div", null, h("dt", null, label), h("dd", null, `${amount.about ? "about " : ""}${count(amount.kept)}`, h("small", null, ` ${percent(amount.kept, amount.all)} of ${count(amount.all)}${amount.sample ? ", in the sample" : ""}`))));
    };
    line("Scored tokens (to train on)", tokens);
    if (meta.length !== meta.tokens) line("All tokens (to read)", length);
    if (lines.length) parts.push(h("dl", { class: "facts" }, lines));
    const show = (which, caption) => {
      const made = composition(store, which);
      if (!made?.rows.length) return;
      const sorted = which === "length" ? made.rows : [...made.rows].sort((one, two) => two.all - one.all);
      const shown = which === "length" ? sorted : sorted.slice(0, SHOWN);
      parts.push(bars(shown, store, caption));
      if (sorted.length > shown.length) parts.push(h("p", { class: "soft" }, `The ${shown.length} largest of ${plural(sorted.length, "group")}.`));
      if (made.how) parts.push(h("p", { class: "soft" }, made.how));
    };
    if (chosen !== null) show(chosen, "By ".concat(choices.find(([value]) => Number(value) === chosen)[1]));
    show("length", "By length in tokens, about a tenth of the rows each");
    put(body, parts);
  }
  store.on((what) => (what.has("selection") || what.has("filters")) && update());
  update();
}
