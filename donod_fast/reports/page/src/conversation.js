// One row: its scores, ranks and whole conversation, with the scored mask in colour and the loss of each token.

import { data, h, put } from "./dom.js";
import { count, plural, short } from "./format.js";
import { UNRANKED, indexOfRow } from "./corpus.js";

const SCORED = 1;
const SPECIAL = 2;

const kinds = (flags) => `${flags & SCORED ? "scored" : "unscored"}${flags & SPECIAL ? " special" : ""}`;

function pieces(entry, hottest) {
  return (entry.pieces ?? []).map(([flags, text], at) => {
    const loss = entry.losses?.[at];
    const known = typeof loss === "number" && Number.isFinite(loss);
    const heat = known ? Math.max(0, Math.min(1, loss / hottest)) : 0;
    return h("span", { class: `piece ${kinds(flags)}${known ? " loss" : ""}`, style: known ? `--heat:${heat.toFixed(3)}` : null, title: known ? `loss ${short(loss)} nats` : null }, text);
  });
}

function legend(entry, texts, hottest) {
  const swatch = (kind, text) => h("li", null, h("span", { class: `piece ${kind}` }, "text"), ` ${text}`);
  const parts = texts.mask === false ? [] : [swatch("scored", "scored: the loss is taken here"), swatch("unscored", "not scored"), swatch("special", "special tokens")];
  if (entry.losses) parts.push(h("li", null, "loss of a token: 0 ", h("span", { class: "heat", "aria-hidden": "true" }), ` ${short(hottest)} nats or more`));
  return h("ul", { class: "legend" }, parts);
}

/** Keeps the panel with the row that the reader chose. */
export function showConversation(store, place, texts) {
  const { corpus } = store;
  let shown = null;
  async function update() {
    const row = store.shown;
    if (row === null) {
      shown = null;
      put(place, h("p", { class: "soft" }, "Choose a row in the list or click a point of the plane to read it here."));
      return;
    }
    const entry = await texts.entry(row);
    if (store.shown !== row) return;
    const at = indexOfRow(corpus.row, row);
    const scores = at < 0 ? Object.entries(entry?.scores ?? {}).map(([name, value]) => [name, short(value)]) : corpus.columns.map((column) => [
      column.label,
      column.kind === "number" ? short(column.values[at]) : column.categories[column.bins[at]] ?? "–",
    ]);
    const ranks = at < 0 ? [] : corpus.methods.filter((method) => method.rank[at] !== UNRANKED).map((method) => [
      `rank by ${method.label}`,
      `${count(method.rank[at] + 1)} of ${count(method.ranked)}`,
    ]);
    const verdict = at < 0 ? null : `${store.keptA.kept[at] ? "kept" : "dropped"} by ${store.a?.label ?? "no method"}${store.b ? `, ${store.keptB.kept[at] ? "kept" : "dropped"} by ${store.b.label}` : ""}`;
    const known = (entry?.losses ?? []).filter((loss) => typeof loss === "number" && Number.isFinite(loss)).sort((one, two) => one - two);
    const hottest = Math.max(0.5, known.length ? known[Math.floor(0.95 * (known.length - 1))] : 4);
    const fact = ([label, text]) => h("div", null, h("dt", null, data(label)), h("dd", null, data(text)));
    put(
      place,
      h("h3", null, `Row ${row}`, entry?.id !== null && entry?.id !== undefined ? h("small", null, " id ", data(entry.id)) : null),
      h("p", { class: "soft" }, [entry?.place ? data(entry.place) : null, verdict ? h("span", null, entry?.place ? " · " : "", data(verdict)) : null]),
      at < 0 && entry?.status ? h("p", { class: "warning" }, data(entry.status), entry.detail ? [": ", data(entry.detail)] : null) : null,
      at >= 0 && entry?.detail ? h("p", { class: "warning", id: "row-detail" }, data(entry.detail)) : null,
      entry
        ? [legend(entry, texts.meta, hottest), texts.meta.mask === false && texts.meta.why ? h("p", { class: "soft" }, data(texts.meta.why)) : null, h("div", { class: "conversation", tabindex: "0", dir: "auto", role: "region", "aria-label": `Text of row ${row}` }, pieces(entry, hottest))]
        : h("p", { class: "soft" }, `This report does not hold the text of the row. It holds ${plural(texts.meta.rows, "text")} of ${count(texts.meta.of)}. `, data(texts.meta.text ?? "")),
      h("details", { open: true }, h("summary", null, "Scores and ranks"), h("dl", { class: "facts small" }, [...scores, ...ranks].map(fact))),
    );
    place.dataset.row = String(row);
    if (shown !== row && store.picked) reveal();
    shown = row;
  }
  function reveal() {
    const box = place.getBoundingClientRect();
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (box.top > window.innerHeight - 120 || box.bottom < 120) place.scrollIntoView({ block: "start", behavior: calm ? "auto" : "smooth" });
  }
  store.on((what) => (what.has("row") || what.has("selection")) && update());
  return update();
}
