// Lists of rows: best, worst, at the border, found, filtered, only A, only B; fifty a page.

import { UNRANKED, indexOfRow, orderOf } from "./corpus.js";
import { chooser, data, h, put } from "./dom.js";
import { count, plural, short } from "./format.js";
import { sideOf } from "./compare.js";
import { textOf } from "./texts.js";

const PAGE = 50;
const MODES = [
  ["selected", "Kept rows that pass the filters, best first"], ["best", "Best rows of the method"], ["worst", "Worst rows of the method"],
  ["border", "At the border: just kept, just dropped"], ["filtered", "All rows that pass the filters"],
  ["only-a", "Kept by A alone"], ["only-b", "Kept by B alone"], ["found", "Found by the search"], ["unscored", "Without a score"],
];

/** Builds the list; returns a function that shows a mode. */
export function showRows(store, place, texts) {
  const { corpus } = store;
  const state = { mode: store.a ? "best" : "unscored", page: 0, found: [], query: "", rows: [], search: 0, render: 0 };
  const mode = chooser("Show", MODES, state.mode, (value) => list(value), { id: "rows-mode" });
  const query = h("input", { type: "search", id: "search", placeholder: "words, row:123 or id:abc", "aria-label": "Search the texts: words, row:123 or id:abc" });
  const form = h("form", { class: "field grow", role: "search" }, h("label", { for: "search" }, "Search"), h("div", { class: "row one-line" }, query, h("button", { type: "submit" }, "Find")));
  const note = h("p", { class: "soft", role: "status", "aria-live": "polite", id: "rows-note" });
  const items = h("ol", { class: "rows", id: "rows-list" });
  const pager = h("div", { class: "row pager" });
  put(place, h("div", { class: "controls" }, mode.field, form), note, items, pager);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    find(query.value.trim());
  });

  async function find(text) {
    state.search += 1;
    const turn = state.search;
    state.query = text;
    const named = /^row:\s*(\d+)$/i.exec(text);
    if (!text) state.found = [];
    else if (named) {
      const row = Number(named[1]);
      state.found = indexOfRow(corpus.row, row) >= 0 || indexOfRow(texts.rows, row) >= 0 ? [row] : [];
      if (state.found.length) store.show(row);
    } else {
      note.textContent = "Searching…";
      const found = await texts.search(text, () => turn === state.search);
      if (found === null) return;
      state.found = found;
    }
    list("found");
  }

  function rowsOf(which) {
    const rowOf = (at) => corpus.row[at];
    const order = () => orderOf(store.a).slice();
    if (which === "found") return state.found;
    if (which === "unscored") return [...texts.rows].filter((row) => indexOfRow(corpus.row, row) < 0);
    if (which === "filtered") {
      const rows = [];
      for (let at = 0; at < corpus.m; at += 1) if (!store.filters.failures[at]) rows.push(corpus.row[at]);
      return rows;
    }
    if (!store.a) return [];
    if (which === "worst") return order().reverse().map(rowOf);
    if (which === "border") {
      // With groups each has a cut of its own: the rows nearest to theirs, in the order of the method.
      const { kept, toCut } = store.keptA;
      const near = (side) => order().filter((at) => kept[at] === side).sort((one, two) => Math.abs(toCut(one)) - Math.abs(toCut(two)) || store.a.rank[one] - store.a.rank[two]).slice(0, PAGE / 2);
      return [...near(1), ...near(0)].sort((one, two) => store.a.rank[one] - store.a.rank[two]).map(rowOf);
    }
    if (which === "selected") return order().filter((at) => store.selected(at)).map(rowOf);
    if (which === "only-a") return store.b ? order().filter((at) => sideOf(store, at) === 1).map(rowOf) : [];
    if (which === "only-b") return store.b ? orderOf(store.b).filter((at) => sideOf(store, at) === 2).map(rowOf) : [];
    return order().map(rowOf);
  }

  function verdict(row) {
    const at = indexOfRow(corpus.row, row);
    if (at < 0) return { kind: "none", text: "no score" };
    const side = sideOf(store, at);
    const kind = side === 3 || (side === 1 && !store.b) ? "kept" : side === 1 ? "only-a" : side === 2 ? "only-b" : "dropped";
    const rank = store.a && store.a.rank[at] !== UNRANKED ? `#${count(store.a.rank[at] + 1)}` : "no rank";
    return { kind, text: rank, at };
  }

  // What people wrote, without the marks of the chat template.
  function snippet(entry) {
    const spoken = entry.pieces.map(([flags, text]) => (flags & 2 ? " " : text)).join("");
    return (spoken.trim() || textOf(entry)).replaceAll("⏎", " ").replace(/\s+/g, " ").slice(0, 300);
  }

  const scores = corpus.columns.filter((column) => column.name === "don" || column.name === "nod");

  function item(row, entry) {
    const { kind, text, at } = verdict(row);
    const words = kind === "none" ? "no score" : kind.replace("-a", " A").replace("-b", " B");
    const numbers = at === undefined ? (entry?.status ?? "") : scores.map((column) => `${column.label} ${short(column.values[at])}`).join(" · ");
    return h(
      "li",
      null,
      h(
        "button",
        { type: "button", class: "item", "data-row": row, "aria-current": store.shown === row ? "true" : null, onclick: () => store.show(row) },
        h("span", { class: "line" }, h("span", { class: `mark ${kind}` }), h("strong", null, `row ${row}`), entry?.id !== null && entry?.id !== undefined ? data(entry.id, { class: "soft id" }) : null, h("span", { class: "soft" }, `${text} · ${words}`)),
        numbers ? h("span", { class: "line soft small" }, data(numbers)) : null,
        h("span", { class: "clip" }, entry ? data(snippet(entry)) : h("em", { class: "soft" }, "text not in this report")),
      ),
    );
  }

  async function render() {
    state.render += 1;
    const turn = state.render;
    const pages = Math.max(1, Math.ceil(state.rows.length / PAGE));
    state.page = Math.min(state.page, pages - 1);
    const rows = Array.from(state.rows.slice(state.page * PAGE, (state.page + 1) * PAGE));
    const entries = await Promise.all(rows.map((row) => texts.entry(row)));
    if (turn !== state.render) return;
    put(items, rows.map((row, at) => item(row, entries[at])));
    items.start = state.page * PAGE + 1;
    items.dataset.mode = state.mode;
    items.dataset.total = String(state.rows.length);
    const step = (by, text) => h("button", { type: "button", disabled: state.page + by < 0 || state.page + by >= pages, onclick: () => { state.page += by; render(); } }, text);
    put(pager, pages > 1 ? [step(-1, "Previous"), h("span", { class: "soft" }, `page ${state.page + 1} of ${count(pages)}`), step(1, "Next")] : null);
    const scope = state.mode === "found" ? `, searched in ${count(texts.rows.length)} of ${plural(corpus.meta.texts?.of ?? corpus.meta.rows, "text")}` : corpus.sampled ? " of the sample" : "";
    const empty = {
      "only-a": "Choose a second method under “Compare with”, or there is no such row.", "only-b": "Choose a second method under “Compare with”, or there is no such row.",
      found: state.query ? "Nothing found." : "Type what to look for.", unscored: "Every row has a score, or the report holds no text of those without.",
    }[state.mode] ?? "No such row.";
    note.textContent = rows.length ? `${plural(state.rows.length, "row")}${scope}` : `${empty}${scope ? ` (${scope.replace(", ", "")})` : ""}`;
  }

  function list(which) {
    state.mode = which;
    state.page = 0;
    mode.select.value = which;
    state.rows = rowsOf(which);
    return render();
  }

  store.on((what) => {
    if (what.has("selection") || what.has("filters")) {
      state.rows = rowsOf(state.mode);
      return render();
    }
    if (what.has("row")) {
      for (const button of items.querySelectorAll(".item")) {
        if (Number(button.dataset.row) === store.shown) button.setAttribute("aria-current", "true");
        else button.removeAttribute("aria-current");
      }
    }
    return null;
  });
  items.addEventListener("keydown", (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    const buttons = [...items.querySelectorAll(".item")];
    const next = buttons[buttons.indexOf(document.activeElement) + step];
    if (!next) return;
    event.preventDefault();
    next.focus();
  });
  return { list, first: list(state.mode) };
}
