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

function setsOf(sets, store) {
  return sets.map((group) =>
    h(
      "details",
      { class: "sets" },
      h("summary", null, `${group.kind}: ${plural(group.sets, "set")} of ${plural(group.rows, "row")}`),
      group.text ? h("p", { class: "soft" }, data(group.text)) : null,
      h(
        "ul",
        { class: "plain" },
        (group.shown ?? []).map((set) =>
          h(
            "li",
            null,
            set.rows.map((row) => [
              h(
                "button",
                { class: `link${row === set.kept ? " strong" : ""}`, type: "button", onclick: () => store.show(row) },
                row === set.kept ? `${row} (kept)` : String(row),
              ),
              " ",
            ]),
          ),
        ),
      ),
      group.sets > (group.shown ?? []).length ? h("p", { class: "soft" }, `${plural(group.shown.length, "set")} shown here`) : null,
    ),
  );
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
