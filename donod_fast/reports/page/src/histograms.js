// A histogram a column. A brush over one filters all others, the plane and the rows.

import { NONE } from "./corpus.js";
import { data, h, put, s } from "./dom.js";
import { count, percent, plural, short } from "./format.js";
import { rangeFields } from "./ranges.js";

const HEIGHT = 64;
const WIDTH = 240;
const SHOWN = 8;

function missingText(column) {
  return column.missing ? h("small", null, `${plural(column.missing, "row")} without a value`) : null;
}

/** One pass over a column: counts a bin of what all other filters pass, of what passes all, and of what is kept too. */
function tally(store, column) {
  const others = new Float64Array(column.size + 1);
  const kept = new Float64Array(column.size + 1);
  const { bins, index } = column;
  const { failures, culprit } = store.filters;
  const own = index + 1;
  const keptA = store.keptA.kept;
  for (let at = 0; at < bins.length; at += 1) {
    const failed = failures[at];
    if (failed > 1 || (failed === 1 && culprit[at] !== own)) continue;
    const bin = bins[at] === NONE ? column.size : bins[at];
    others[bin] += 1;
    kept[bin] += keptA[at];
  }
  return { others, kept };
}

function numberCard(store, column) {
  const { edges, size, counts } = column;
  const svg = s("svg", { class: "histogram", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", "aria-hidden": "true" });
  const layers = ["all", "passing", "kept"].map((name) => s("path", { class: name }));
  const brush = s("rect", { class: "brush", y: 0, height: HEIGHT, width: 0 });
  svg.append(...layers, brush);
  const log = Boolean(column.log) && edges[0] > 0;
  const to = log ? Math.log : (value) => value;
  const [first, last] = [to(edges[0]), to(edges[size])];
  const across = (value) => (last > first ? ((to(value) - first) / (last - first)) * WIDTH : 0);
  const back = (place) => (log ? Math.exp : (value) => value)(first + Math.max(0, Math.min(1, place)) * (last - first));
  const tallest = Math.max(1, ...(counts ?? []));
  const pointsOf = store.corpus.sampled ? (counts ?? []).reduce((sum, value) => sum + value, 0) / Math.max(1, store.corpus.m) : 1;
  const path = (numbers, times) => {
    let text = "";
    for (let bin = 0; bin < size; bin += 1) {
      if (!numbers[bin]) continue;
      // Square roots would flatter; a bar that holds anything is at least half a unit tall, so that nothing vanishes.
      const height = Math.max(0.8, Math.min(HEIGHT, (HEIGHT * numbers[bin] * times) / tallest));
      const left = across(edges[bin]);
      const right = Math.max(left + 0.6, across(edges[bin + 1]) - 0.5);
      text += `M${left.toFixed(2)},${HEIGHT}V${(HEIGHT - height).toFixed(2)}H${right.toFixed(2)}V${HEIGHT}Z`;
    }
    return text;
  };
  layers[0].setAttribute("d", path(counts ?? [], 1));
  let from = null;
  const placeOf = (event) => {
    const box = svg.getBoundingClientRect();
    return (event.clientX - box.left) / box.width;
  };
  svg.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    svg.setPointerCapture(event.pointerId);
    from = placeOf(event);
  });
  svg.addEventListener("pointermove", (event) => {
    if (from === null) return;
    const [low, high] = [Math.min(from, placeOf(event)), Math.max(from, placeOf(event))];
    if ((high - low) * WIDTH < 2) return;
    store.setRange(column.index, low <= 0 ? null : back(low), high >= 1 ? null : back(high));
  });
  svg.addEventListener("pointerup", (event) => {
    if (from !== null && Math.abs(placeOf(event) - from) * WIDTH < 2) store.setRange(column.index, null, null);
    from = null;
  });
  svg.addEventListener("pointercancel", () => { from = null; });
  const update = ({ others, kept }) => {
    const range = store.ranges[column.index];
    layers[1].setAttribute("d", path(others, pointsOf));
    layers[2].setAttribute("d", path(kept, pointsOf));
    const left = range ? across(Math.max(edges[0], range.low ?? edges[0])) : 0;
    const right = range ? across(Math.min(edges[size], range.high ?? edges[size])) : 0;
    brush.setAttribute("x", left);
    brush.setAttribute("width", Math.max(0, right - left));
    svg.classList.toggle("brushed", Boolean(range));
  };
  const ends = h("div", { class: "ends soft", "aria-hidden": "true" }, h("span", null, short(column.low ?? edges[0])), log ? h("span", null, "log scale") : null, h("span", null, short(column.high ?? edges[size])));
  return { parts: [svg, ends, rangeFields(store, column, "filter")], update };
}

function categoryCard(store, column) {
  const sizes = column.counts ?? new Array(column.size).fill(0);
  const order = Array.from({ length: column.size }, (_, at) => at).filter((at) => sizes[at] > 0).sort((one, two) => sizes[two] - sizes[one]);
  const hasNone = column.bins.includes(NONE);
  const most = Math.max(1, ...sizes);
  const times = store.corpus.sampled ? sizes.reduce((sum, value) => sum + value, 0) / Math.max(1, store.corpus.m) : 1;
  const entries = [...order, ...(hasNone ? [NONE] : [])].map((category) => {
    const passing = h("span", { class: "bar passing" });
    const kept = h("span", { class: "bar kept" });
    const number = h("span", { class: "number" });
    const name = category === NONE ? "(none)" : column.categories[category];
    const all = category === NONE ? null : h("span", { class: "bar all", style: `width:${(100 * sizes[category]) / most}%` });
    const item = h(
      "button",
      { type: "button", class: "category", "aria-pressed": "false", "data-category": name, onclick: () => store.toggleCategory(column.index, category) },
      h("span", { class: "track", "aria-hidden": "true" }, all, passing, kept),
      data(name, { class: "name" }),
      number,
    );
    return { category, item, passing, kept, number };
  });
  const list = h("div", { class: "categories", role: "group", "aria-label": `Values of ${column.label}` }, entries.map((entry) => entry.item));
  const hidden = entries.slice(SHOWN);
  for (const entry of hidden) entry.item.hidden = true;
  const more = hidden.length
    ? h("button", { type: "button", class: "link", onclick: () => { for (const entry of hidden) entry.item.hidden = false; more.remove(); } }, `${plural(hidden.length, "more value")}`)
    : null;
  const update = ({ others, kept }) => {
    const chosen = store.ranges[column.index]?.categories;
    for (const entry of entries) {
      const at = entry.category === NONE ? column.size : entry.category;
      entry.passing.style.width = `${Math.min(100, (100 * others[at] * times) / most)}%`;
      entry.kept.style.width = `${Math.min(100, (100 * kept[at] * times) / most)}%`;
      entry.number.textContent = count(others[at]);
      entry.item.setAttribute("aria-pressed", String(Boolean(chosen?.has(entry.category))));
      entry.item.classList.toggle("off", Boolean(chosen && !chosen.has(entry.category)));
    }
  };
  return { parts: [list, more], update };
}

/** Fills the grid of histograms. */
export function showHistograms(store, place) {
  const { corpus } = store;
  const cards = corpus.columns.map((column) => {
    const made = column.kind === "number" ? (column.size && column.low !== null ? numberCard(store, column) : null) : categoryCard(store, column);
    const clear = h("button", { type: "button", class: "link clear", "aria-label": `Clear the filter of ${column.label}`, onclick: () => clearOne(column) }, "clear");
    const counts = h("small", { class: "soft", "aria-live": "off" });
    const better = column.better === "high" ? " · higher is better" : column.better === "low" ? " · lower is better" : "";
    const element = h(
      "section",
      { class: "card", "data-column": column.name, "aria-label": column.label },
      h("header", null, h("h3", null, data(column.label)), clear),
      column.text || better ? h("p", { class: "soft" }, data(column.text ?? ""), better) : null,
      made ? made.parts : h("p", { class: "soft" }, "No row has a value."),
      h("footer", null, counts, " ", missingText(column)),
    );
    element.addEventListener("keydown", (event) => {
      if (event.key !== "Escape" || !store.ranges[column.index]) return;
      event.stopPropagation();
      clearOne(column);
    });
    return { column, made, clear, counts, element };
  });
  const clearOne = (column) => (column.kind === "number" ? store.setRange(column.index, null, null) : store.setCategories(column.index, null));
  put(place, cards.map((card) => card.element));

  function update() {
    for (const { column, made, clear, counts } of cards) {
      if (!made) continue;
      made.update(tally(store, column));
      const active = Boolean(store.ranges[column.index]);
      clear.hidden = !active;
      const { passing } = store.filters;
      counts.textContent = `${count(passing)} of ${plural(corpus.m, corpus.sampled ? "sampled point" : "row")} (${percent(passing, corpus.m)})`;
    }
  }
  store.on((what) => (what.has("selection") || what.has("filters")) && update());
  update();
}
