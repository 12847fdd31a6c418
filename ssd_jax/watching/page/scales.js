// Pure functions of numbers: ticks of axes, smoothing, and search for points.

/** Return about `count` round numbers between two different numbers, in ascending order. */
export function makeTicks(low, high, count) {
  const rough = (high - low) / count;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough * 0.999) ?? rough;
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  // Each tick is computed for itself, and rounded, so that 0.3 is not 0.30000000000000004.
  return Array.from({ length: last - first + 1 }, (_, i) => Number(((first + i) * step).toPrecision(12)));
}

/** Return the powers of ten in a range of positive numbers, or with their 2- and 5-fold if there are few of them. */
export function makeLogTicks(low, high) {
  const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high))];
  const every = Math.max(1, Math.ceil((last - first) / 6));
  const factors = last - first <= 2 ? [1, 2, 5] : [1];
  const ticks = [];
  for (let power = first; power <= last; power += every) {
    ticks.push(...factors.map((factor) => Number((factor * 10 ** power).toPrecision(12))));
  }
  return ticks.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001);
}

/** Return the range of an axis for values. A linear axis starts at 0, unless all values are far away from it. */
export function findRange(values, isLog) {
  const usable = values.filter((value) => Number.isFinite(value) && (!isLog || value > 0));
  if (!usable.length) return null;
  let low = usable.reduce((a, b) => Math.min(a, b));
  let high = usable.reduce((a, b) => Math.max(a, b));
  if (isLog) return low === high ? [low / 2, high * 2] : [low / 1.1, high * 1.1];
  if (low >= 0 && low < 0.6 * high) low = 0;
  const pad = (high - low || Math.abs(high) || 1) * 0.05;
  return [low === 0 ? 0 : low - pad, high + pad];
}

/**
 * Return the exponential moving average of values, corrected for its start. null stands for a missing value.
 * A weight of 0 changes nothing; with a weight near 1, many of the previous values count.
 */
export function smooth(values, weight) {
  let sum = 0;
  let total = 0;
  return values.map((value) => {
    if (value === null || weight === 0) return value;
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

/** Return the index of the number that is nearest to another one, in a list in ascending order; -1 if it is empty. */
export function findNearest(sorted, target) {
  let [low, high] = [0, sorted.length - 1];
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < target) low = middle;
    else high = middle;
  }
  return high < 0 ? -1 : Math.abs(sorted[low] - target) <= Math.abs(sorted[high] - target) ? low : high;
}

/**
 * Return the points that a page has after a message of the server.
 * `known` is {number, fixed, entriesPerPoint, steps, values}, or null; the message has the points from `start` on.
 */
export function mergePoints(known, message) {
  const kept = known !== null && known.number === message.number ? message.start : 0;
  const steps = [...(kept ? known.steps.slice(0, kept) : []), ...message.steps];
  const names = new Set([...(kept ? Object.keys(known.values) : []), ...Object.keys(message.values)]);
  const values = {};
  for (const name of names) {
    const before = kept ? (known.values[name] ?? Array(kept).fill(null)).slice(0, kept) : [];
    values[name] = [...before, ...(message.values[name] ?? Array(message.steps.length).fill(null))];
  }
  return { number: message.number, fixed: message.fixed, entriesPerPoint: message.entries_per_point, steps, values };
}

/** Return the smallest number from 0 that is not in a set. */
export function findFreeSlot(used) {
  let slot = 0;
  while (used.has(slot)) slot += 1;
  return slot;
}
