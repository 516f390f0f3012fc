// Numbers as text.

const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });

/** 12,345 */
export const count = (value) => whole.format(value);

/** `1 row`, `2 rows` */
export const plural = (value, noun) => `${count(value)} ${noun}${value === 1 ? "" : "s"}`;

/** 30.0% */
export const percent = (part, of) => (of ? `${((100 * part) / of).toFixed(1)}%` : "–");

/** Four significant digits, for reading. */
export function short(value) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (!Number.isFinite(value)) return String(value);
  if (Number.isInteger(value) && Math.abs(value) < 1e9) return count(value);
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(2).replace("e+", "e");
  return String(Number(value.toPrecision(4)));
}

/** The shortest decimal number in (low, high], or [low, high) with `up` false. Both bounds are finite, low < high. */
export function decimalBetween(low, high, up = true) {
  const inside = (value) => (up ? low < value && value <= high : low <= value && value < high);
  const target = up ? high : low;
  for (let digits = 1; digits <= 17; digits += 1) {
    const middle = Number(((low + high) / 2).toPrecision(digits));
    const near = Number(target.toPrecision(digits));
    if (inside(near)) return near;
    if (inside(middle)) return middle;
  }
  return target;
}

/** A number as the command reads it back, without loss. */
export const exact = (value) => String(value);
