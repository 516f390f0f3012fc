// Which points pass the filters. Counts failures a point, so that a histogram knows the points that pass all others.

/** Filters over `m` points and a number of slots (one a column, one more for the lasso). */
export class Filters {
  constructor(m, slots) {
    this.m = m;
    this.failures = new Uint8Array(m);
    this.culprit = new Uint32Array(m); // sum of 1 + slot over the failing slots: names the slot where one fails
    this.failing = Array.from({ length: slots }, () => null);
    this.passing = m;
  }

  /** Sets a filter: `passes(i)` for each point, or null to remove it. */
  set(slot, passes) {
    const before = this.failing[slot];
    const after = passes ? new Uint8Array(this.m) : null;
    const { failures, culprit } = this;
    let passing = 0;
    for (let at = 0; at < this.m; at += 1) {
      const failed = before ? before[at] : 0;
      const fails = after && !passes(at) ? 1 : 0;
      if (after) after[at] = fails;
      if (fails !== failed) {
        failures[at] += fails - failed;
        culprit[at] += (fails - failed) * (slot + 1);
      }
      if (failures[at] === 0) passing += 1;
    }
    this.failing[slot] = after;
    this.passing = passing;
  }

  /** Whether a point passes every filter but that of `slot`. */
  passesOthers(at, slot) {
    return this.failures[at] === 0 || (this.failures[at] === 1 && this.culprit[at] === slot + 1);
  }

  get active() {
    return this.failing.some(Boolean);
  }
}
