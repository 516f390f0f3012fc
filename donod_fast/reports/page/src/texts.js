// Texts of rows, unpacked a chunk at a time when somebody reads or searches them.

import { indexOfRow } from "./corpus.js";

const HELD = 48;

/** Entries of `text_rows`, by position or row number. */
export class Texts {
  constructor(corpus, blocks) {
    this.rows = corpus.textRows;
    this.meta = corpus.meta.texts ?? { rows: 0, of: 0, chunk: 1, chunks: 0 };
    this.blocks = blocks;
    this.chunks = new Map();
  }

  chunk(number) {
    let held = this.chunks.get(number);
    this.chunks.delete(number);
    held ??= this.blocks.read(`t${number}`);
    this.chunks.set(number, held);
    if (this.chunks.size > HELD) this.chunks.delete(this.chunks.keys().next().value);
    return held;
  }

  /** The entry of a row, or null where the report holds no text of it. */
  async entry(row) {
    const at = indexOfRow(this.rows, row);
    if (at < 0) return null;
    const entries = await this.chunk(Math.floor(at / this.meta.chunk));
    return entries[at % this.meta.chunk];
  }

  /** Row numbers whose text or id fits; `id:` compares ids, anything else looks for a substring without case. */
  async search(query, alive) {
    const wanted = query.toLowerCase();
    const byId = wanted.startsWith("id:") ? query.slice(3).trim() : null;
    const found = [];
    for (let number = 0; number < this.meta.chunks; number += 1) {
      const entries = await this.chunk(number);
      if (!alive()) return null;
      for (const entry of entries) {
        const fits = byId === null
          ? textOf(entry).toLowerCase().includes(wanted) || String(entry.id ?? "").toLowerCase().includes(wanted)
          : String(entry.id ?? "") === byId;
        if (fits) found.push(entry.row);
      }
    }
    return found;
  }
}

/** The whole text of an entry. */
export function textOf(entry) {
  return (entry.pieces ?? []).map(([, text]) => text).join("");
}
