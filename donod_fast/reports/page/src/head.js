// The head of the report: what was scored, how, what to mind, and rows that have no score.

import { data, h, put, table } from "./dom.js";
import { count, percent, plural } from "./format.js";

function statusRow(status, of, store) {
  const { example } = status;
  const link = (one) => (one ? h("button", { class: "link", type: "button", onclick: () => store.show(one.row) }, `row ${one.row}`) : null);
  const causes = (status.causes ?? []).map((cause) => h("li", null, data(cause.text), " ", h("span", { class: "soft" }, plural(cause.rows, "row"), cause.example ? ", as in " : null, link(cause.example))));
  return [
    [data(status.status), status.remedy ? h("div", { class: "soft small" }, data(status.remedy)) : null],
    count(status.rows),
    percent(status.rows, of),
    causes.length ? h("ul", { class: "plain" }, causes) : "",
    example
      ? h(
          "div",
          null,
          link(example),
          " ",
          example.place ? data(example.place, { class: "soft" }) : null,
          example.text ? h("div", { class: "clip" }, data(example.text)) : null,
        )
      : "",
  ];
}

// A row of a set opens its text; behind it, how similar it is to the kept row.
function setRow(set, row, at, store) {
  const similarity = set.similarity?.[at];
  const isKept = row === set.kept;
  return [
    h("button", { class: `link${isKept ? " strong" : ""}`, type: "button", onclick: () => store.show(row) }, isKept ? `${row} (kept)` : String(row)),
    typeof similarity === "number" ? h("span", { class: "soft small", title: "similarity to the kept row" }, ` ${similarity.toFixed(3)}`) : null,
    " ",
  ];
}

function setsOf(sets, store) {
  return sets.map((group) => {
    const shown = group.shown ?? [];
    const measured = shown.some((set) => set.similarity);
    return h(
      "details",
      { class: "sets", "data-kind": group.kind },
      h("summary", null, data(group.label ?? group.kind), `: ${plural(group.sets, "set")} of ${plural(group.rows, "row")}`),
      group.text ? h("p", { class: "soft" }, data(group.text)) : null,
      measured ? h("p", { class: "soft" }, "The number behind a row is its similarity to the kept row. Choose a row to read it.") : null,
      h(
        "ul",
        { class: "plain" },
        shown.map((set) => {
          const more = (set.size ?? set.rows.length) - set.rows.length;
          return h("li", null, set.rows.map((row, at) => setRow(set, row, at, store)), more > 0 ? h("span", { class: "soft" }, `and ${plural(more, "more row")}`) : null);
        }),
      ),
      group.sets > shown.length ? h("p", { class: "soft" }, `The largest ${plural(shown.length, "set")} of ${count(group.sets)} ${shown.length === 1 ? "is" : "are"} listed.`) : null,
    );
  });
}

/** Fills the head and the section about quality. */
export function showHead(store, places) {
  const { meta } = store.corpus;
  put(
    places.facts,
    h("dl", { class: "lines" }, (meta.facts ?? []).map(([label, text]) => h("div", null, h("dt", null, data(label)), h("dd", null, data(text))))),
  );
  put(places.warnings, (meta.warnings ?? []).map((warning) => h("p", { class: "warning", "data-kind": warning.kind }, data(warning.text))));
  const quality = (meta.quality ?? []).map((entry) => [
    data(entry.label),
    data(entry.text),
    entry.rows === null || entry.rows === undefined ? "" : count(entry.rows),
  ]);
  const columns = [["status"], ["rows", true], ["share", true], ["causes"], ["an example"]];
  put(
    places.quality,
    quality.length ? table([["what"], ["finding"], ["rows", true]], quality, { "aria-label": "Findings" }) : null,
    meta.statuses?.length
      ? [
          h("h3", null, "Rows by status"),
          h("p", { class: "soft" }, "Only scored rows can be selected. The others are listed with what went wrong."),
          table(columns, meta.statuses.map((status) => statusRow(status, meta.rows, store)), { "aria-label": "Rows by status" }),
        ]
      : null,
    meta.sets?.length ? [h("h3", null, "Duplicates and other sets"), setsOf(meta.sets, store)] : null,
  );
}
