// The bar that stays in view: method, share, the second method, groups, and how much is kept.

import { canGroup } from "./corpus.js";
import { chooser, data, h, put } from "./dom.js";
import { count, percent, plural } from "./format.js";
import { keptCount } from "./keeping.js";
import { keepText } from "./store.js";
import { tokensOf } from "./totals.js";

/** Builds the controls and keeps the counts current. */
export function showBar(store, place, below) {
  const { corpus } = store;
  const { meta } = corpus;
  const options = corpus.methods.map((method) => [method.name, method.label]);
  const a = chooser("Method", options, store.a?.name ?? "", (name) => store.setMethod("a", name), { id: "method" });
  const b = chooser("Compare with", [["", "nothing"], ...options], store.b?.name ?? "", (name) => store.setMethod("b", name), { id: "beside" });
  const slider = h("input", {
    type: "range", id: "keep", min: "0.001", max: "1", step: "0.001", "aria-label": "Share of the rows to keep",
    oninput: () => store.setKeep(keepText(Number(slider.value))),
  });
  const typed = h("input", {
    type: "text", id: "keep-text", size: "7", inputmode: "decimal", "aria-label": "Share or number of rows to keep: 0.3, 30% or 300",
    onchange: () => typed.setAttribute("aria-invalid", String(!store.setKeep(typed.value))),
  });
  const groups = (meta.groups ?? []).filter((group) => canGroup(corpus, group));
  const by = groups.length
    ? chooser("Same share of each", [["", "(all rows together)"], ...groups.map((group) => [group.by, corpus.columns[group.column].label])], store.group?.by ?? "", (name) => store.setGroup(name), { id: "by" })
    : null;
  const said = new Set((meta.warnings ?? []).map((warning) => warning.text));
  const text = h("div", { class: "soft describe" });
  const counts = h("p", { class: "counts", role: "status", "aria-live": "polite", id: "counts" });
  const clear = h("button", { type: "button", id: "clear", onclick: () => store.clearFilters() }, "Clear all filters");
  put(
    place,
    h(
      "div",
      { class: "controls" },
      a.field,
      h("div", { class: "field grow" }, h("label", { for: "keep-text" }, "Keep the best (0.3, 30% or 300 rows)"), h("div", { class: "row" }, slider, typed)),
      b.field,
      by?.field,
    ),
    h("div", { class: "row outcome" }, counts, clear),
  );
  put(below, text);

  function update() {
    const method = store.a;
    a.select.value = method?.name ?? "";
    b.select.value = store.b?.name ?? "";
    if (by) by.select.value = store.group?.by ?? "";
    const fixed = Boolean(method?.fixed);
    const rows = method ? keptCount(store.keep, method.ranked) : 0;
    slider.disabled = fixed || !method;
    typed.disabled = fixed || !method;
    slider.value = store.keep.kind === "fraction" ? store.keep.value : rows / (method?.ranked || 1);
    slider.setAttribute("aria-valuetext", `${store.keepText}: ${plural(store.keptA.rows, "row")}`);
    if (document.activeElement !== typed) typed.value = store.keepText;
    if (!method) {
      put(counts, "No row has a score, so there is nothing to select.");
      clear.hidden = true;
      return;
    }
    const { filters } = store;
    let selected = 0;
    for (let at = 0; at < corpus.m; at += 1) if (store.selected(at)) selected += 1;
    const parts = [h("strong", null, `${count(store.keptA.rows)} of ${count(method.ranked)}`), ` rows kept (${percent(store.keptA.rows, method.ranked)})`];
    if (filters.active) {
      parts.push(" · ", h("strong", { "data-count": "selected" }, count(selected)), " of them pass your filters");
      parts.push(` · ${count(filters.passing)} of ${plural(corpus.m, corpus.sampled ? "sampled point" : "row")} pass`);
      if (corpus.sampled) parts.push(" (counted in the sample)");
    }
    const tokens = tokensOf(store, meta.tokens);
    if (tokens) {
      parts.push(` · ${tokens.about ? "about " : ""}${count(tokens.kept)} scored tokens to train on`);
      if (tokens.sample) parts.push(" (in the sample)");
    }
    put(counts, parts);
    clear.hidden = !filters.active;
    const warnings = (method.warnings ?? []).filter((warning) => !said.has(warning)).map((warning) => h("p", { class: "warning small" }, data(warning)));
    put(
      text,
      store.absent.map((name) => h("p", { class: "warning small" }, "The address asks for the method ", data(name), ", which this report does not hold; it shows ", data(method.label), ".")),
      h("p", null, method.label, ": ", data(method.text ?? ""), fixed ? ". This method chose its rows once, so the share is fixed." : null),
      corpus.sampled ? h("p", null, `The points on this page are a sample of ${count(meta.sample.points)} of ${count(meta.sample.of)} scored rows: `, data(meta.sample.text), ". Ranks and totals are those of all rows.") : null,
      warnings,
    );
  }
  store.on(update);
  update();
}
