// Axes: from values to the unit square and back, with round tick numbers.

import { short } from "./format.js";

const PAD = 0.04;

/** A scale of a number column: `unit(value)` in 0..1 with some padding, `value(unit)` back, `ticks(low, high)` in units. */
export function axisOf(column) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of column.values) {
    if (value < low && value > -Infinity) low = value;
    if (value > high && value < Infinity) high = value;
  }
  if (!(low <= high)) [low, high] = [0, 1];
  const log = Boolean(column.log) && low > 0;
  const to = log ? Math.log10 : (value) => value;
  const back = log ? (value) => 10 ** value : (value) => value;
  let start = to(low);
  let end = to(high);
  if (start === end) [start, end] = [start - 0.5, end + 0.5];
  const span = (end - start) / (1 - 2 * PAD);
  const origin = start - PAD * span;
  const unit = (value) => (to(value) - origin) / span;
  const value = (place) => back(origin + place * span);
  const ticks = (from, until, wanted) => (log ? logTicks : linearTicks)(origin + from * span, origin + until * span, wanted).map((at) => ({ unit: (at - origin) / span, text: short(Number(back(at).toPrecision(6))) }));
  return { column, log, unit, value, ticks };
}

function linearTicks(low, high, wanted) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((size) => size >= rough) ?? rough;
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high + step * 1e-9; at += 1) found.push(at * step);
  return found;
}

function logTicks(low, high, wanted) {
  if (high - low < 0.7) return linearTicks(10 ** low, 10 ** high, wanted).filter((at) => at > 0).map(Math.log10);
  const found = [];
  const every = Math.max(1, Math.ceil((high - low) / wanted));
  for (let power = Math.ceil(low); power <= high; power += every) found.push(power);
  if (found.length < 3) for (let power = Math.floor(low); power <= high; power += 1) for (const times of [2, 5]) {
    const at = power + Math.log10(times);
    if (at >= low && at <= high) found.push(at);
  }
  return found;
}
