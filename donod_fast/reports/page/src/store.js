// What the reader chose: methods, share, groups, filters. Views subscribe; changes are drawn once a frame.

import { UNRANKED, NONE, canGroup, groupsOf, orderOf, countBelow, sortedValues } from "./corpus.js";
import { Filters } from "./filters.js";
import { decimalBetween } from "./format.js";
import { keptCount, parseKeep, shares } from "./keeping.js";

/**
 * What a method keeps: points, and the number of rows among all ranked ones. `toCut(at)`: ranks between a point and the
 * cut of its own group, below zero for what is kept; Infinity without a rank.
 */
export function keptBy(corpus, method, keep, group) {
  const kept = new Uint8Array(corpus.m);
  const effective = method.fixed === null || method.fixed === undefined ? keep : { kind: "count", value: method.fixed };
  if (!group || method.fixed) {
    const rows = keptCount(effective, method.ranked);
    for (let at = 0; at < corpus.m; at += 1) kept[at] = method.rank[at] < rows ? 1 : 0;
    const toCut = (at) => (method.rank[at] === UNRANKED ? Infinity : method.rank[at] + 0.5 - rows);
    return { kept, rows, quotas: null, toCut };
  }
  const { of, size } = groupsOf(corpus, group);
  const scored = new Array(size).fill(0);
  const order = orderOf(method);
  for (const at of order) scored[of[at]] += 1;
  const quotas = shares(effective, scored);
  const left = [...quotas];
  const distances = new Float64Array(corpus.m).fill(Infinity);
  for (const at of order) {
    distances[at] = 0.5 - left[of[at]];
    left[of[at]] -= 1;
    if (distances[at] < 0) kept[at] = 1;
  }
  return { kept, rows: quotas.reduce((sum, rows) => sum + rows, 0), quotas, toCut: (at) => distances[at] };
}

/** State of the page; every setter marks what changed. */
export class Store {
  constructor(corpus) {
    this.corpus = corpus;
    this.filters = new Filters(corpus.m, corpus.columns.length + 1);
    this.ranges = corpus.columns.map(() => null);
    this.lasso = null;
    this.listeners = [];
    this.pending = null;
    this.drawing = Promise.resolve();
    this.shown = null;
    this.picked = false;
    const { method, keep } = corpus.meta.default ?? {};
    this.a = corpus.methods.find((each) => each.name === method) ?? corpus.methods[0] ?? null;
    this.b = null;
    this.group = null;
    this.keepText = typeof keep === "number" ? keepText(keep) : String(keep ?? "0.3");
    this.keep = parseKeep(this.keepText) ?? { kind: "fraction", value: 0.3 };
    this.readAddress();
    if (!this.picked && this.a && this.a.ranked) this.shown = corpus.row[orderOf(this.a)[0]] ?? null;
    this.choose();
  }

  readAddress() {
    const wanted = new URLSearchParams(location.hash.slice(1));
    const named = (name) => this.corpus.methods.find((method) => method.name === wanted.get(name)) ?? null;
    this.a = named("method") ?? this.a;
    const asked = ["method", "beside"].map((name) => wanted.get(name)).filter((name) => name);
    this.absent = asked.filter((name) => !this.corpus.methods.some((method) => method.name === name));
    this.b = named("beside") ?? this.b;
    const groups = this.corpus.meta.groups ?? [];
    this.group = groups.find((each) => each.by === wanted.get("by") && canGroup(this.corpus, each)) ?? this.group;
    const keep = wanted.get("keep");
    if (keep && parseKeep(keep)) {
      this.keepText = keep.trim();
      this.keep = parseKeep(keep);
    }
    const row = Number(wanted.get("row") ?? NaN);
    if (Number.isInteger(row)) [this.shown, this.picked] = [row, true];
  }

  writeAddress() {
    const parts = new URLSearchParams();
    if (this.a) parts.set("method", this.a.name);
    parts.set("keep", this.keepText);
    if (this.b) parts.set("beside", this.b.name);
    if (this.group) parts.set("by", this.group.by);
    if (this.picked) parts.set("row", String(this.shown));
    try {
      history.replaceState(null, "", `#${parts}`);
    } catch {
      // Some browsers refuse this for files; the page works without it.
    }
  }

  choose() {
    const { corpus } = this;
    const none = { kept: new Uint8Array(corpus.m), rows: 0, quotas: null, toCut: () => Infinity };
    this.keptA = this.a ? keptBy(corpus, this.a, this.keep, this.group) : none;
    this.keptB = this.b ? keptBy(corpus, this.b, this.keep, this.group) : null;
  }

  on(listener) {
    this.listeners.push(listener);
  }

  /** Tells the views within the next frame; resolves when they have drawn. `what` is selection, filters or row. */
  changed(what) {
    if (this.pending) {
      this.pending.what.add(what);
      return this.pending.done;
    }
    const what_ = new Set([what]);
    const done = new Promise((resolve) => {
      requestAnimationFrame(() => {
        this.pending = null;
        if (what_.has("selection")) this.choose();
        const drawn = this.listeners.map((listener) => listener(what_));
        if (what_.has("selection") || what_.has("row")) this.writeAddress();
        resolve(Promise.all(drawn));
      });
    });
    this.pending = { what: what_, done };
    this.drawing = done;
    return done;
  }

  /** Resolves when every view shows the latest change. */
  settled() {
    return this.drawing;
  }

  setKeep(text) {
    const keep = parseKeep(text);
    if (!keep) return false;
    this.keep = keep;
    this.keepText = text.trim();
    this.changed("selection");
    return true;
  }

  setMethod(slot, name) {
    this[slot] = this.corpus.methods.find((method) => method.name === name) ?? null;
    this.absent = [];
    this.changed("selection");
  }

  setGroup(by) {
    this.group = (this.corpus.meta.groups ?? []).find((group) => group.by === by) ?? null;
    this.changed("selection");
  }

  /**
   * Keeps the values in low..high (null: no bound). Bounds of a brush move to short decimals that keep the same points;
   * typed ones stay, unless the values here were rounded to 32 bits and could lie on their other side.
   */
  setRange(index, low, high, typed = false) {
    const { corpus, filters } = this;
    const column = corpus.columns[index];
    const sorted = sortedValues(corpus, column);
    const stays = typed && (corpus.sampled || !(column.values instanceof Float32Array));
    const settle = (bound, isLow) => (bound === null || stays ? bound : shortBound(sorted, column.values, bound, isLow));
    const from = settle(low, true);
    const to = settle(high, false);
    if (from === null && to === null) {
      this.ranges[index] = null;
      filters.set(index, null);
    } else {
      this.ranges[index] = { low: from, high: to };
      const least = from ?? -Infinity;
      const most = to ?? Infinity;
      const { values } = column;
      filters.set(index, (at) => values[at] >= least && values[at] <= most);
    }
    this.changed("filters");
  }

  /** Keeps the given categories (numbers; NONE is no value); null or none at all removes the filter. */
  setCategories(index, wanted) {
    const chosen = wanted && wanted.size ? new Set(wanted) : null;
    const { bins } = this.corpus.columns[index];
    this.ranges[index] = chosen ? { categories: chosen } : null;
    this.filters.set(index, chosen ? (at) => chosen.has(bins[at]) : null);
    this.changed("filters");
  }

  toggleCategory(index, category) {
    const chosen = new Set(this.ranges[index]?.categories ?? []);
    if (!chosen.delete(category)) chosen.add(category);
    this.setCategories(index, chosen);
  }

  /** Keeps the points that a lasso holds: (m,) 0 or 1, or null. */
  setLasso(inside) {
    this.lasso = inside;
    this.filters.set(this.corpus.columns.length, inside ? (at) => inside[at] === 1 : null);
    this.changed("filters");
  }

  clearFilters() {
    this.corpus.columns.forEach((column, index) => {
      if (this.ranges[index]) this.filters.set(index, null);
      this.ranges[index] = null;
    });
    this.setLasso(null);
  }

  show(row) {
    this.shown = row;
    this.picked = true;
    this.changed("row");
  }

  /** Points that A keeps and every filter passes. */
  selected(at) {
    return this.keptA.kept[at] === 1 && this.filters.failures[at] === 0;
  }

  isRanked(at) {
    return this.a !== null && this.a.rank[at] !== UNRANKED;
  }
}

/** `0.3` for 0.3, and `1.0` for all rows: `1` would be one row. */
export function keepText(fraction) {
  return fraction === 1 ? "1.0" : String(Number(fraction.toPrecision(12)));
}

// A brush ends anywhere between two values. The command gets a short number from the gap, so both keep the same rows.
// Values of 32 bits were rounded: the bound then stays clear of both neighbours.
function shortBound(sorted, values, bound, isLow) {
  if (!sorted.length || !Number.isFinite(bound)) return null;
  const at = isLow ? countBelow(sorted, bound) : countBelow(sorted, bound, true);
  if (isLow && at === 0) return null;
  if (!isLow && at === sorted.length) return null;
  if (at === 0 || at === sorted.length) return bound;
  let below = sorted[at - 1];
  let above = sorted[at];
  if (values instanceof Float32Array) {
    const quarter = (above - below) / 4;
    const [most, least] = [halfway(below, 1), halfway(above, -1)];
    [below, above] = [Math.max(below + quarter, most), Math.min(above - quarter, least)];
  }
  return decimalBetween(below, above, isLow);
}

const FLOAT = new Float32Array(1);
const BITS = new Int32Array(FLOAT.buffer);

// The number between a value of 32 bits and its neighbour above (1) or below (-1): what lies beyond was not rounded to it.
function halfway(value, step) {
  FLOAT[0] = value;
  if (value === 0) BITS[0] = step > 0 ? 1 : -0x7fffffff;
  else BITS[0] += value > 0 ? step : -step;
  return (value + FLOAT[0]) / 2;
}

export { NONE };
