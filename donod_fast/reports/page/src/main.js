// Opens the report: reads the blocks, builds the views, and says when the page is ready.

import { showAgreement } from "./agreement.js";
import { showBar } from "./bar.js";
import { openBlocks } from "./blocks.js";
import { commandOf } from "./command.js";
import { showCommand } from "./commandview.js";
import { showCompare } from "./compare.js";
import { showComposition } from "./composition.js";
import { showConversation } from "./conversation.js";
import { openCorpus } from "./corpus.js";
import { h, put } from "./dom.js";
import { showHead } from "./head.js";
import { showHistograms } from "./histograms.js";
import { keptCount, parseKeep, shares } from "./keeping.js";
import { showPlane } from "./plane.js";
import { showRows } from "./rows.js";
import { Store } from "./store.js";
import { Texts } from "./texts.js";

const place = (name) => document.getElementById(name);
const frame = () => new Promise((resolve) => requestAnimationFrame(() => resolve()));

async function open() {
  const blocks = openBlocks();
  const corpus = await openCorpus(blocks);
  const store = new Store(corpus);
  const texts = new Texts(corpus, blocks);
  place("report").hidden = false;
  showHead(store, { facts: place("facts"), warnings: place("warnings"), quality: place("quality") });
  showBar(store, place("bar"), place("about"));
  const plane = showPlane(store, place("plane"));
  showComposition(store, place("composition"));
  place("loading").hidden = true;
  await frame();
  showHistograms(store, place("histograms"));
  showCommand(store, place("command-view"));
  const rows = showRows(store, place("rows"), texts);
  const conversation = showConversation(store, place("conversation"), texts);
  showCompare(store, place("compare"), (mode) => {
    rows.list(mode);
    place("rows-section").scrollIntoView();
    place("rows-mode").focus({ preventScroll: true });
  });
  showAgreement(store, place("agreement"), place("agreement-section"));
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && !event.defaultPrevented && store.filters.active) store.clearFilters();
  });
  window.addEventListener("hashchange", () => {
    store.readAddress();
    store.changed("selection");
    store.changed("row");
  });
  await Promise.all([plane?.first, rows.first, conversation]);
  return { store, plane };
}

const ready = open();
// For tests and for the curious: what the page holds, and a promise of the moment when it is drawn.
window.donodReport = {
  ready: ready.then(() => true),
  about: ready.then(({ store }) => ({ rows: store.corpus.meta.rows, points: store.corpus.m })),
  settled: async () => {
    await (await ready).store.settled();
    return true;
  },
  // Milliseconds from a move of the slider until everything is counted and drawn again.
  timeOfOneChange: async () => {
    const { store } = await ready;
    const before = store.keepText;
    const started = performance.now();
    store.setKeep(before === "0.5" ? "0.25" : "0.5");
    await store.settled();
    const took = performance.now() - started;
    store.setKeep(before);
    await store.settled();
    return took;
  },
  kept: async () => {
    const { store } = await ready;
    return Array.from(store.corpus.row).filter((_, at) => store.keptA.kept[at]);
  },
  selected: async () => {
    const { store } = await ready;
    return Array.from(store.corpus.row).filter((_, at) => store.selected(at));
  },
  command: async () => commandOf((await ready).store).text,
  keptCount: (keep, scored) => keptCount(parseKeep(keep), scored),
  shares: (keep, scored) => shares(parseKeep(keep), scored),
  brush: async (name, low, high) => {
    const { store } = await ready;
    store.setRange(store.corpus.columns.find((column) => column.name === name).index, low, high);
    await store.settled();
  },
  screenOf: async (at) => (await ready).plane.screenOf(at),
};
ready.then(
  () => { document.documentElement.dataset.report = "ready"; },
  (error) => {
    document.documentElement.dataset.report = "failed";
    put(place("loading"), h("strong", null, "This report cannot be shown. "), String(error?.message ?? error));
    place("loading").hidden = false;
  },
);
