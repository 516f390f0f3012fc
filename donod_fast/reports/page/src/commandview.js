// The command for this selection: copied with a click; a download of row numbers where a lasso needs it.

import { commandOf, rowsFile } from "./command.js";
import { h, put } from "./dom.js";
import { plural } from "./format.js";

async function copy(text, element) {
  try {
    await navigator.clipboard.writeText(text);
    return "Copied.";
  } catch {
    const range = document.createRange();
    range.selectNodeContents(element);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    try {
      if (document.execCommand("copy")) return "Copied.";
    } catch {
      // The text stays selected, so that the keyboard can copy it.
    }
    return "The command is selected: press Ctrl+C to copy it.";
  }
}

/** Fills the section with the command. */
export function showCommand(store, place) {
  const { corpus } = store;
  if (!store.a) {
    put(place, h("p", { class: "soft" }, "There is nothing to select: no row has a score."));
    return;
  }
  const code = h("pre", { id: "command", tabindex: "0" });
  const said = h("span", { role: "status", "aria-live": "polite", id: "copied" });
  const button = h("button", { type: "button", class: "primary", id: "copy", onclick: async () => { said.textContent = await copy(code.textContent, code); } }, "Copy the command");
  const save = h("button", { type: "button", id: "download", onclick: download }, "Download rows.txt");
  const note = h("p", { class: "soft" });
  put(place, code, h("div", { class: "row" }, button, save, said), note);
  let command;
  function download() {
    const address = URL.createObjectURL(new Blob([rowsFile(store, command.inFile)], { type: "text/plain" }));
    const link = h("a", { href: address, download: "rows.txt" });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }
  function update() {
    command = commandOf(store);
    code.textContent = command.text;
    said.textContent = "";
    save.hidden = !command.reasons.length;
    let selected = 0;
    for (let at = 0; at < corpus.m; at += 1) if (store.selected(at)) selected += 1;
    const exactly = store.filters.active ? (corpus.sampled ? "" : `It selects ${plural(selected, "row")}: exactly those that are kept and pass the filters. `) : `It selects ${plural(store.keptA.rows, "row")}. `;
    const file = command.reasons.length ? `A command cannot say ${command.reasons.join(" and ")}: download rows.txt and put it beside your folder. ` : "";
    const sample = corpus.sampled && command.reasons.length ? "The points are a sample, so that rows.txt lists rows of the sample only; filter with histograms or the rectangle to select among all rows. " : "";
    const nothing = !corpus.sampled && selected === 0 ? "No kept row passes the filters: donod-fast select would refuse to write nothing. " : "";
    button.disabled = Boolean(nothing);
    put(note, nothing || exactly, file, sample, corpus.sampled && store.filters.active && !command.reasons.length ? "The filters apply to all rows, also to those outside the sample." : "");
  }
  store.on((what) => (what.has("selection") || what.has("filters")) && update());
  update();
}
