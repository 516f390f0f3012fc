// Makes elements. Text enters the page here, and only as text: never as markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "disabled") element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat(3)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child);
  }
  return element;
}

/** An HTML element with attributes, listeners (`onclick`) and children; strings become text nodes. */
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG. */
export function s(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

/** Text of a record, isolated so that its direction and marks do not reorder the page. */
export function data(text, props) {
  return h("bdi", { dir: "auto", ...props }, String(text));
}

/** Replaces what an element holds. */
export function put(element, ...children) {
  element.replaceChildren();
  return fill(element, null, children);
}

/** A colour of the style sheet in the present theme. */
export function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

/** A chooser with a label above it. Options are [value, text]. */
export function chooser(label, options, value, change, props) {
  const select = h(
    "select",
    { ...props, onchange: () => change(select.value) },
    options.map(([key, text]) => h("option", { value: key }, text)),
  );
  select.value = value;
  return { select, field: h("label", { class: "field" }, h("span", null, label), select) };
}

/** A table whose columns are [heading, isNumber]; cells are strings or elements. */
export function table(columns, rows, props) {
  const cell = (tag, content, number) => h(tag, { class: number ? "number" : null, scope: tag === "th" ? "col" : null }, content);
  return h(
    "div",
    { class: "scroll", tabindex: "0", role: "region", ...props },
    h(
      "table",
      null,
      h("thead", null, h("tr", null, columns.map(([text, number]) => cell("th", text, number)))),
      h("tbody", null, rows.map((row) => h("tr", null, row.map((content, at) => cell("td", content, columns[at][1]))))),
    ),
  );
}
