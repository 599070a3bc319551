// Figures for people, in the words that the command line uses too.

function count(value) {
  const size = Math.abs(value);
  if (size < 10000) return Number.isInteger(value) ? value.toLocaleString("en-US") : significant(value, 3);
  for (const [limit, divisor, suffix] of [[1e6, 1e3, "k"], [1e9, 1e6, "M"], [1e12, 1e9, "B"], [1e15, 1e12, "T"]]) {
    if (size < limit && Number((size / divisor).toPrecision(3)) < 1000) return `${significant(value / divisor, 3)} ${suffix}`;
  }
  return value.toPrecision(3);
}

function significant(value, digits) {
  return String(Number(value.toPrecision(digits)));
}

function bytes(value) {
  let size = value;
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (Math.abs(size) < 1024) return unit === "B" ? `${size} B` : `${size.toFixed(1)} ${unit}`;
    size /= 1024;
  }
  return `${size.toFixed(1)} TiB`;
}

function seconds(value) {
  if (value < 10) return `${significant(value, 2)} s`;
  const whole = Math.round(value);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} m ${whole % 60} s`;
  if (whole < 86400) return `${Math.floor(whole / 3600)} h ${Math.floor((whole % 3600) / 60)} m`;
  return `${Math.floor(whole / 86400)} d ${Math.floor((whole % 86400) / 3600)} h`;
}

/** A share as a percentage; 99.96 % is never rounded up to a full hundred, nor 0.04 % down to none. */
function percent(share, digits = 1) {
  const text = (100 * share).toFixed(digits);
  if (share < 1 && Number(text) === 100) return `> ${(100 - 10 ** -digits).toFixed(digits)} %`;
  if (share > 0 && Number(text) === 0) return `< ${(10 ** -digits).toFixed(digits)} %`;
  return `${share === 1 ? "100" : share === 0 ? "0" : text} %`;
}

/** A figure whose unit its name tells: seconds, bytes, tokens, shares. */
function figure(name, value) {
  if (typeof value !== "number") return String(value);
  if (/bytes$/.test(name) && Number.isInteger(value)) return bytes(value);
  if (/seconds$/.test(name)) return seconds(value);
  if (/(fraction|accuracy)$/.test(name) && value >= 0 && value <= 1) return percent(value);
  return Number.isInteger(value) ? value.toLocaleString("en-US") : significant(value, 4);
}

/** snake_case as words. */
function words(name) {
  return name.replace(/_/g, " ");
}

function plural(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

function shortTime(iso) {
  return iso ? iso.replace("T", " ").replace(/(\+00:00|Z)$/, "") : "";
}

/** The start of a long text, for one line. */
function oneLine(text, most = 160) {
  const line = String(text).replace(/\s+/g, " ").trim();
  return line.length > most ? `${line.slice(0, most)}…` : line;
}
