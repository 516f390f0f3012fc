// The plane: points of two columns with axes, zoom, lasso, a rectangle by numbers, and colours.

import { axisOf } from "./axes.js";
import { chooser, data, h, put, s } from "./dom.js";
import { count, plural } from "./format.js";
import { paint } from "./palette.js";
import { rangeFields } from "./ranges.js";
import { rendererFor } from "./renderers.js";

const HOME = { scaleX: 1, scaleY: 1, x: 0, y: 0 };
// Outliers squeeze the other points: where the middle 98% take less than this share of an axis, the view starts with them.
const SQUEEZED = 0.4;

const scaleWithin = (scale) => Math.max(0.8, Math.min(5000, scale));

function inside(polygon, x, y) {
  let within = false;
  for (let at = 0, before = polygon.length - 1; at < polygon.length; before = at, at += 1) {
    const [ax, ay] = polygon[at];
    const [bx, by] = polygon[before];
    if (ay > y !== by > y && x < ((bx - ax) * (y - ay)) / (by - ay) + ax) within = !within;
  }
  return within;
}

/** Builds the plane. Returns null where there is nothing to draw. */
export function showPlane(store, place) {
  const { corpus } = store;
  const { m } = corpus;
  const numbers = corpus.columns.filter((column) => column.kind === "number");
  if (!m || !numbers.length) {
    put(place, h("p", { class: "soft" }, "There are no points to draw."));
    return null;
  }
  const named = (name) => numbers.find((column) => column.name === name);
  const state = {
    x: named("nod") ?? numbers[0],
    y: named("don") ?? numbers[1] ?? numbers[0],
    by: "kept", density: m > 3000, lasso: false, view: { ...HOME }, trace: [], painting: null,
  };
  const columnsOf = numbers.map((column) => [String(column.index), column.label]);
  const axisChooser = (label, key) => chooser(label, columnsOf, String(state[key].index), (value) => { state[key] = corpus.columns[value]; axes(); draw(); }, { id: `plane-${key}` }).field;
  const colourBy = chooser(
    "Colour",
    [["kept", "kept or dropped"], ...corpus.columns.map((column) => [String(column.index), column.label])],
    "kept",
    (value) => { state.by = value === "kept" ? value : Number(value); draw(); },
    { id: "colour" },
  ).field;
  const button = (text, title, act, props) => h("button", { type: "button", title, "aria-label": title, onclick: act, ...props }, text);
  const lassoButton = button("Lasso", "Draw a lasso around points (or hold Shift and drag)", () => setLasso(!state.lasso), { id: "lasso", "aria-pressed": "false" });
  const density = h("input", { type: "checkbox", id: "density", checked: state.density, onchange: () => { state.density = density.checked; draw(); } });
  const canvas = h("canvas", { class: "points", "aria-hidden": "true" });
  const overlay = s("svg", { class: "overlay", "aria-hidden": "true" });
  const frame = h("div", { class: "frame", tabindex: "0", role: "group", id: "plane-frame" }, canvas, overlay);
  const legend = h("ul", { class: "legend", "aria-label": "Colours" });
  const state_ = h("p", { class: "soft", id: "plane-state" });
  const rectangle = h("details", { class: "rectangle" }, h("summary", null, "Rectangle by numbers"));
  const note = h("p", { class: "warning", hidden: true, id: "no-webgl" }, "This browser offers no WebGL. The points are drawn on a plain canvas, which is slower.");
  put(
    place,
    note,
    h("div", { class: "controls" }, axisChooser("Across", "x"), axisChooser("Up", "y"), colourBy),
    h(
      "div",
      { class: "row tools" },
      lassoButton,
      button("Clear lasso", "Clear the lasso (Escape)", () => store.setLasso(null), { id: "clear-lasso" }),
      button("+", "Zoom in", () => zoom(1.5)),
      button("−", "Zoom out", () => zoom(1 / 1.5)),
      button("Reset view", "Show all points", () => look(HOME), { id: "reset-view" }),
      button("Fit 98%", "Show the middle 98% of both axes, without outliers", () => look(middle()), { id: "fit" }),
      h("label", { class: "check" }, density, "fainter where points crowd"),
    ),
    frame,
    legend,
    state_,
    rectangle,
    h("p", { class: "soft" }, "Click a point to read its row. Drag to move; hold Ctrl and turn the wheel to zoom. With the keyboard: arrow keys move, + and − zoom, 0 shows all, Escape clears the lasso."),
  );
  const { painter, webgl } = rendererFor(canvas, m);
  note.hidden = webgl;
  frame.dataset.renderer = webgl ? "webgl" : "canvas";
  let unitX;
  let unitY;

  function units(axis) {
    const unit = new Float32Array(m);
    for (let at = 0; at < m; at += 1) {
      const value = axis.unit(axis.column.values[at]);
      unit[at] = Number.isFinite(value) ? value : -1e3;
    }
    return unit;
  }

  function axes() {
    state.axisX = axisOf(state.x);
    state.axisY = axisOf(state.y);
    unitX = units(state.axisX);
    unitY = units(state.axisY);
    Object.assign(state.view, isSqueezed() ? middle() : HOME);
    frame.setAttribute("aria-label", `Plane of ${state.x.label} and ${state.y.label}, ${plural(m, "point")}. Arrow keys move, plus and minus zoom, 0 shows all.`);
    const two = state.x === state.y ? [state.x] : [state.x, state.y];
    put(
      rectangle,
      h("summary", null, "Rectangle by numbers"),
      h("p", { class: "soft" }, "Keeps the points between these bounds: the filters of the two histograms."),
      two.map((column) => rangeFields(store, column, "rectangle")),
    );
  }

  const toScreen = (ux, uy) => {
    const { scaleX, scaleY, x, y } = state.view;
    return [((2 * ux - 1 - x) * scaleX + 1) * 0.5 * frame.clientWidth, (1 - (2 * uy - 1 - y) * scaleY) * 0.5 * frame.clientHeight];
  };
  const toUnit = (left, top) => {
    const { scaleX, scaleY, x, y } = state.view;
    return [(((2 * left) / frame.clientWidth - 1) / scaleX + x + 1) / 2, ((1 - (2 * top) / frame.clientHeight) / scaleY + y + 1) / 2];
  };

  async function draw() {
    state.painting = paint(store, state.by);
    const { index, colours } = state.painting;
    const { failures } = store.filters;
    let passes = null;
    if (store.filters.active) {
      passes = [];
      for (let at = 0; at < m; at += 1) if (!failures[at]) passes.push(at);
    }
    put(legend, state.painting.legend.map((entry) => h("li", null, h("span", { class: "swatch", style: `background:${entry.colour}` }), data(entry.name), h("small", null, ` ${entry.text}`))));
    describe();
    decorate();
    await painter.draw({ x: unitX, y: unitY, index, colours, passes, failures, density: state.density, view: state.view, m });
    frame.dataset.drawn = String(Number(frame.dataset.drawn ?? 0) + 1);
  }

  function describe() {
    const shown = store.filters.active ? `${count(store.filters.passing)} of ${plural(m, "point")} shown` : `${plural(m, "point")}`;
    const sample = corpus.sampled ? `, a sample of ${count(corpus.meta.sample.of)} scored rows` : "";
    const lasso = store.lasso ? ` The lasso holds ${count(store.lasso.reduce((sum, one) => sum + one, 0))}.` : "";
    const { scaleX, scaleY, x, y } = state.view;
    let outside = 0;
    for (let at = 0; at < m; at += 1) {
      if (unitX[at] < -1 || unitY[at] < -1 || store.filters.failures[at]) continue;
      if (Math.abs((2 * unitX[at] - 1 - x) * scaleX) > 1 || Math.abs((2 * unitY[at] - 1 - y) * scaleY) > 1) outside += 1;
    }
    const away = outside ? ` ${plural(outside, "point")} outside this view: “Reset view” shows all.` : "";
    put(state_, `${shown}${sample}.${lasso}${away}`);
    place.querySelector("#clear-lasso").disabled = !store.lasso;
  }

  function decorate() {
    const width = frame.clientWidth;
    const height = frame.clientHeight;
    const [left, bottom] = toUnit(0, height);
    const [right, top] = toUnit(width, 0);
    const marks = [];
    for (const tick of state.axisX.ticks(left, right, Math.max(2, width / 110))) {
      const [at] = toScreen(tick.unit, 0);
      marks.push(s("line", { class: "grid", x1: at, x2: at, y1: 0, y2: height }), s("text", { x: at, y: height - 6, class: "tick", "text-anchor": at < 24 ? "start" : at > width - 24 ? "end" : "middle" }, tick.text));
    }
    for (const tick of state.axisY.ticks(bottom, top, Math.max(2, height / 70))) {
      const [, at] = toScreen(0, tick.unit);
      marks.push(s("line", { class: "grid", x1: 0, x2: width, y1: at, y2: at }), s("text", { x: 6, y: at - 4, class: "tick" }, tick.text));
    }
    marks.push(s("text", { class: "axis", x: width - 8, y: height - 24, "text-anchor": "end" }, `${state.x.label}${state.axisX.log ? " (log)" : ""} →`));
    marks.push(s("text", { class: "axis", x: 8, y: 18 }, `↑ ${state.y.label}${state.axisY.log ? " (log)" : ""}`));
    const [rangeX, rangeY] = [store.ranges[state.x.index], store.ranges[state.y.index]];
    if (rangeX || rangeY) {
      const [x0, y1] = toScreen(unitBound(state.axisX, rangeX?.low, left), unitBound(state.axisY, rangeY?.low, bottom));
      const [x1, y0] = toScreen(unitBound(state.axisX, rangeX?.high, right), unitBound(state.axisY, rangeY?.high, top));
      marks.push(s("rect", { class: "selection", x: Math.min(x0, x1), y: Math.min(y0, y1), width: Math.abs(x1 - x0), height: Math.abs(y1 - y0) }));
    }
    if (state.trace.length > 1) {
      const path = state.trace.map(([x, y]) => toScreen(x, y).map((value) => value.toFixed(1)).join(",")).join(" ");
      marks.push(s("polygon", { class: "selection", points: path }));
    }
    const at = pointOfRow();
    if (at >= 0) {
      const [x, y] = toScreen(unitX[at], unitY[at]);
      marks.push(s("circle", { class: "ring", cx: x, cy: y, r: 8 }));
    }
    put(overlay, marks);
  }

  const unitBound = (axis, bound, otherwise) => (bound === null || bound === undefined || (axis.log && bound <= 0) ? otherwise : axis.unit(bound));

  function pointOfRow() {
    if (store.shown === null) return -1;
    let low = 0;
    let high = m - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (corpus.row[middle] < store.shown) low = middle + 1;
      else high = middle;
    }
    return corpus.row[low] === store.shown ? low : -1;
  }

  function look(view) {
    const { scaleX, scaleY } = state.view;
    const held = { scaleX, scaleY, ...view };
    Object.assign(state.view, {
      scaleX: scaleWithin(held.scaleX), scaleY: scaleWithin(held.scaleY),
      x: Math.max(-1.2, Math.min(1.2, held.x)), y: Math.max(-1.2, Math.min(1.2, held.y)),
    });
    describe();
    decorate();
    painter.look(state.view);
  }

  function zoom(times, left = frame.clientWidth / 2, top = frame.clientHeight / 2) {
    const [ux, uy] = toUnit(left, top);
    const scaleX = scaleWithin(state.view.scaleX * times);
    const scaleY = scaleWithin(state.view.scaleY * times);
    const x = 2 * ux - 1 - ((2 * left) / frame.clientWidth - 1) / scaleX;
    const y = 2 * uy - 1 - (1 - (2 * top) / frame.clientHeight) / scaleY;
    look({ scaleX, scaleY, x, y });
  }

  // Where the middle 98% of the points lie, on either axis.
  function middleOf(unit) {
    const sorted = unit.filter((value) => value > -1).sort();
    const low = sorted[Math.floor(sorted.length * 0.01)] ?? 0;
    const high = sorted[Math.floor(sorted.length * 0.99)] ?? 1;
    return { at: low + high - 1, span: Math.max(high - low, 1e-4) };
  }

  function middle() {
    const [across, up] = [middleOf(unitX), middleOf(unitY)];
    return { scaleX: scaleWithin(0.9 / across.span), scaleY: scaleWithin(0.9 / up.span), x: across.at, y: up.at };
  }

  const isSqueezed = () => Math.min(middleOf(unitX).span, middleOf(unitY).span) < SQUEEZED;

  function setLasso(on) {
    state.lasso = on;
    lassoButton.setAttribute("aria-pressed", String(on));
    frame.classList.toggle("drawing", on);
  }

  function closeLasso() {
    const polygon = state.trace;
    const held = new Uint8Array(m);
    if (polygon.length > 2) {
      for (let at = 0; at < m; at += 1) held[at] = unitX[at] > -1 && unitY[at] > -1 && inside(polygon, unitX[at], unitY[at]) ? 1 : 0;
      store.setLasso(held);
    } else state.trace = [];
    setLasso(false);
  }

  function pick(left, top) {
    let best = -1;
    let least = 14 ** 2;
    for (let at = 0; at < m; at += 1) {
      if (store.filters.failures[at]) continue;
      const [x, y] = toScreen(unitX[at], unitY[at]);
      const distance = (x - left) ** 2 + (y - top) ** 2;
      if (distance < least) [least, best] = [distance, at];
    }
    if (best >= 0) store.show(corpus.row[best]);
  }

  const pointers = new Map();
  let drag = null;
  const placeOf = (event) => {
    const box = frame.getBoundingClientRect();
    return [event.clientX - box.left - frame.clientLeft, event.clientY - box.top - frame.clientTop];
  };
  frame.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    frame.setPointerCapture(event.pointerId);
    pointers.set(event.pointerId, placeOf(event));
    drag = { from: placeOf(event), moved: false, lasso: state.lasso || event.shiftKey };
    if (drag.lasso) {
      state.trace = [toUnit(...drag.from)];
      event.preventDefault();
      frame.focus({ preventScroll: true });
    }
  });
  frame.addEventListener("pointermove", (event) => {
    if (!drag || !pointers.has(event.pointerId)) return;
    const before = pointers.get(event.pointerId);
    const now = placeOf(event);
    if (Math.hypot(now[0] - drag.from[0], now[1] - drag.from[1]) > 4) drag.moved = true;
    if (drag.lasso) {
      state.trace.push(toUnit(...now));
      decorate();
    } else if (pointers.size === 2) {
      const [other] = [...pointers].filter(([id]) => id !== event.pointerId).map(([, where]) => where);
      const far = (one) => Math.hypot(one[0] - other[0], one[1] - other[1]);
      zoom(far(now) / Math.max(1, far(before)), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
    } else if (drag.moved) {
      const { scaleX, scaleY, x, y } = state.view;
      look({ x: x - (2 * (now[0] - before[0])) / frame.clientWidth / scaleX, y: y + (2 * (now[1] - before[1])) / frame.clientHeight / scaleY });
    }
    pointers.set(event.pointerId, now);
  });
  const end = (event) => {
    if (!drag || !pointers.delete(event.pointerId) || pointers.size) return;
    const { lasso, moved } = drag;
    drag = null;
    if (event.type === "pointercancel") return;
    if (lasso) closeLasso();
    else if (!moved) pick(...placeOf(event));
  };
  frame.addEventListener("pointerup", end);
  frame.addEventListener("pointercancel", end);
  frame.addEventListener("wheel", (event) => {
    if (!event.ctrlKey && !event.metaKey) return;
    event.preventDefault();
    zoom(Math.exp(-event.deltaY / 300), ...placeOf(event));
  }, { passive: false });
  frame.addEventListener("keydown", (event) => {
    const { scaleX, scaleY, x, y } = state.view;
    const acts = {
      ArrowLeft: () => look({ x: x - 0.2 / scaleX, y }), ArrowRight: () => look({ x: x + 0.2 / scaleX, y }),
      ArrowUp: () => look({ x, y: y + 0.2 / scaleY }), ArrowDown: () => look({ x, y: y - 0.2 / scaleY }),
      "+": () => zoom(1.5), "=": () => zoom(1.5), "-": () => zoom(1 / 1.5), 0: () => look(HOME),
      Escape: () => { setLasso(false); store.setLasso(null); event.stopPropagation(); },
    };
    if (event.altKey || event.ctrlKey || event.metaKey || !acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
  });
  store.on((what) => {
    if (!store.lasso) state.trace = [];
    if (what.has("selection") || what.has("filters")) return draw();
    return decorate();
  });
  new ResizeObserver(() => draw()).observe(frame);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => draw());
  axes();
  return { first: draw(), screenOf: (at) => toScreen(unitX[at], unitY[at]) };
}
