// Two fields for the bounds of a number column: the keyboard's way to brush.

import { h } from "./dom.js";
import { exact } from "./format.js";

function fieldOf(store, column, isLow, prefix) {
  const key = isLow ? "low" : "high";
  const label = `${column.label}: ${isLow ? "at least" : "at most"}`;
  const field = h("input", {
    type: "text", inputmode: "decimal", size: "8", id: `${prefix}-${column.index}-${key}`, "aria-label": label, title: label,
    placeholder: isLow ? "from" : "to",
  });
  const apply = (bound) => {
    const range = store.ranges[column.index] ?? { low: null, high: null };
    const next = { low: range.low ?? null, high: range.high ?? null, [key]: bound };
    const crossed = next.low !== null && next.high !== null && next.low > next.high;
    field.setAttribute("aria-invalid", String(crossed));
    if (!crossed) store.setRange(column.index, next.low, next.high, true);
  };
  field.addEventListener("change", () => {
    const text = field.value.trim();
    // A comma may only part thousands: in 0,5 it would be lost, and the bound were 5.
    const value = /^[+-]?\d{1,3}(,\d{3})+(\.\d*)?$/.test(text) && !/^[+-]?0,/.test(text) ? Number(text.replaceAll(",", "")) : Number(text);
    const wrong = text !== "" && !Number.isFinite(value);
    field.setAttribute("aria-invalid", String(wrong));
    if (!wrong) apply(text === "" ? null : value);
  });
  field.addEventListener("keydown", (event) => {
    const step = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (!step || !column.edges.length) return;
    event.preventDefault();
    const { edges } = column;
    const now = store.ranges[column.index]?.[key] ?? edges[isLow ? 0 : edges.length - 1];
    const above = [...edges].findIndex((edge) => edge > now);
    const at = step > 0 ? (above < 0 ? edges.length - 1 : above) : Math.max(0, (edges.findLastIndex((edge) => edge < now)));
    const outside = isLow ? at <= 0 : at >= edges.length - 1;
    apply(outside ? null : edges[at]);
  });
  const update = () => {
    const bound = store.ranges[column.index]?.[key];
    field.value = bound === null || bound === undefined ? "" : exact(bound);
  };
  return { field, update };
}

/** Fields with a label in front. */
export function rangeFields(store, column, prefix) {
  const low = fieldOf(store, column, true, prefix);
  const high = fieldOf(store, column, false, prefix);
  const box = h("div", { class: "range" }, h("span", { class: "name" }, column.label), low.field, h("span", { "aria-hidden": "true" }, "to"), high.field);
  const update = () => {
    low.update();
    high.update();
  };
  store.on((what) => {
    if (box.isConnected && what.has("filters")) update();
  });
  update();
  return box;
}
