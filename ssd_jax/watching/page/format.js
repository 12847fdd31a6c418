// Texts for numbers and times. Every function returns a dash for what is not known.

const DASH = "\u2013";

const withDash = (format) => (value, ...others) =>
  value === null || value === undefined ? DASH : format(value, ...others);

export const formatCount = withDash((value) => Math.round(value).toLocaleString("en"));

/** Return a metric from 0 to 1 with three decimals, as the report does. */
export const formatMetric = withDash((value) => value.toFixed(3));

/** Return a number with about four digits, such as 0.8352, 1,234 or 7.6e-8. */
export const formatValue = withDash((value) => {
  const size = Math.abs(value);
  if (value === 0) return "0";
  if (size >= 1e6 || size < 1e-3) return value.toExponential(1).replace("e+", "e");
  return value.toLocaleString("en", { maximumSignificantDigits: 4 });
});

/** Return a tick of an axis in few characters, such as 0.5, 20k or 1e-6. */
export function formatTick(value) {
  const size = Math.abs(value);
  if (size >= 1e6) return `${Number((value / 1e6).toPrecision(4))}M`;
  if (size >= 1e4) return `${Number((value / 1e3).toPrecision(4))}k`;
  return size !== 0 && size < 1e-3 ? value.toExponential().replace("e+", "e") : String(value);
}

/** Return a duration such as "42 s", "12 min", "3.5 h" or "2.1 days". */
export const formatDuration = withDash((seconds) => {
  if (seconds < 99.5) return `${Math.round(seconds)} s`;
  if (seconds < 5970) return `${Math.round(seconds / 60)} min`;
  if (seconds < 172800) return `${(seconds / 3600).toFixed(1)} h`;
  return `${(seconds / 86400).toFixed(1)} days`;
});

/** Return the date and the time of seconds since 1970, without the year if it is this one. */
export const formatTime = withDash((seconds, now) => {
  const [date, today] = [new Date(1000 * seconds), new Date(1000 * now)];
  const year = date.getFullYear() === today.getFullYear() ? {} : { year: "numeric" };
  return date.toLocaleString("en-GB", { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", ...year });
});
