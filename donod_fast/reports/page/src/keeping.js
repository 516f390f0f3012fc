// How many rows a share keeps: `selection/keeping.py` and `selection/out_of_core/shares.py` once more, to the row.

/** `0.3` and `30%` are fractions, `300` is a count; null for anything else, as `parse_keep` refuses it. */
export function parseKeep(text) {
  const stripped = text.trim();
  if (/^[0-9]+$/.test(stripped)) {
    const value = stripped.length <= 18 ? Number(stripped) : 1e18;
    return value === 0 ? null : { kind: "count", value };
  }
  if (!/^([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?\s*%?$/.test(stripped)) return null;
  const parts = stripped.endsWith("%") ? 100 : 1;
  const value = Number(stripped.replace(/[%\s]+$/, "")) / parts;
  return value > 0 && value <= 1 ? { kind: "fraction", value } : null;
}

/** Number of `scored` rows that are kept. The 1e-9 is that of `kept_count`: 14.5 must not fall to 14. */
export function keptCount(keep, scored) {
  if (scored === 0) return 0;
  if (keep.kind === "count") return Math.min(keep.value, scored);
  return Math.max(1, Math.min(scored, Math.floor(keep.value * scored + 0.5 + 1e-9)));
}

/** Number of rows to keep of each group: a fraction of each, or a count in proportion by largest remainders. */
export function shares(keep, scored) {
  const total = scored.reduce((sum, rows) => sum + rows, 0);
  if (keep.kind === "fraction" || total === 0) return scored.map((rows) => keptCount(keep, rows));
  const count = keptCount(keep, total);
  const given = scored.map((rows) => Math.floor((count * rows) / total));
  const left = count - given.reduce((sum, rows) => sum + rows, 0);
  const remainder = scored.map((rows) => (count * rows) % total);
  const order = scored.map((_, group) => group);
  order.sort((one, two) => remainder[two] - remainder[one] || scored[two] - scored[one] || one - two);
  for (const group of order.slice(0, left)) given[group] += 1;
  return given;
}
