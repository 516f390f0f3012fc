// How alike the methods are: rank correlations and overlaps as tables in colour, and yardsticks.

import { data, h, put, table } from "./dom.js";
import { count, short } from "./format.js";

function map(labels, matrix, caption, text) {
  return h(
    "figure",
    null,
    h("figcaption", null, h("h3", null, caption), h("p", { class: "soft" }, text)),
    h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
      h(
        "table",
        { class: "map" },
        h("thead", null, h("tr", null, h("td", null), labels.map((label) => h("th", { scope: "col" }, data(label))))),
        h(
          "tbody",
          null,
          matrix.map((row, at) =>
            h(
              "tr",
              null,
              h("th", { scope: "row" }, data(labels[at])),
              row.map((value) => {
                const known = typeof value === "number" && Number.isFinite(value);
                const side = known && value < 0 ? "against" : "with";
                return h("td", { class: `number ${side}`, style: known ? `--strength:${Math.min(1, Math.abs(value)).toFixed(2)}` : null }, known ? value.toFixed(2) : "–");
              }),
            ),
          ),
        ),
      ),
    ),
  );
}

/** Fills the section; hides it where the report has nothing to compare. */
export function showAgreement(store, place, section) {
  const { agreement } = store.corpus.meta;
  if (!agreement) {
    section.hidden = true;
    return;
  }
  const labels = agreement.labels ?? agreement.names;
  const yardsticks = agreement.yardsticks ?? [];
  const number = (value) => (typeof value === "number" ? (Number.isInteger(value) ? count(value) : short(value)) : "–");
  const draws = (each, name) => {
    const found = each.random?.rows?.[name];
    return typeof found?.mean === "number" ? `${short(found.mean)} [${short(found.low)}, ${short(found.high)}]` : "–";
  };
  put(
    place,
    agreement.text ? h("p", null, data(agreement.text)) : null,
    h(
      "div",
      { class: "two" },
      map(labels, agreement.correlation ?? [], `Rank correlation (${agreement.measure ?? "spearman"})`, "1: the same order; 0: unrelated; −1: the reverse order."),
      map(labels, agreement.overlap ?? [], "Overlap of what they keep", "Share of the kept rows that both methods keep."),
    ),
    yardsticks.length
      ? [
          h("h3", null, "What each method keeps"),
          h("p", { class: "soft" }, "Means a row, beside random draws of as many rows: the mean draw and the interval of 95% of the draws."),
          table(
            [["method"], ["rows", true], ["tokens", true], ["random draw", true], ["loss", true], ["random draw", true]],
            yardsticks.map((each) => [data(each.name), number(each.rows), number(each.tokens), draws(each, "tokens"), number(each.loss), draws(each, "loss")]),
            { "aria-label": "What each method keeps" },
          ),
        ]
      : null,
  );
}
