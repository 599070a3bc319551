// What the corpora and pools are made of, where each document or conversation went, and why some were left out.

const LEFT_OUT = /drop|quarantin|reject|skipped|failures/;
const COMPARED = /^by_|categor|source/;

function composition() {
  const made = data.stages.filter((stage) => stage.state === "done" && (isTable(stage.results.counts) || isTable(stage.results.packing)));
  if (!made.length) return null;
  return section("data", "Data", "What the model learned from, and what was left out and why.", h("div", { class: "data-cards" }, made.map(dataCard)));
}

/** results: figures; "counts" with "train" and "validation" sides; "packing" and "mixture" of a training stage. */
function dataCard(stage) {
  const { counts = {}, packing = {}, mixture = [], ...others } = stage.results;
  const trained = family(stage.kind) === "training";
  const sides = isTable(counts.train) ? [counts, counts.train] : [counts];
  const tiles = new Map();
  for (const table of trained ? [packing, ...sides] : [others, ...sides]) {
    for (const [name, value] of Object.entries(table)) if (typeof value === "number" && !tiles.has(name)) tiles.set(name, value);
  }
  const dropped = data.drops.find((entry) => entry.stage === stage.name);
  const shares = mixture.filter((part) => isTable(part) && typeof part.token_fraction === "number");
  return h("article", { class: "card" },
    h("h3", null, stage.name, h("span", { class: "note" }, stage.kind)),
    h("dl", { class: "small-tiles" }, [...tiles].map(([name, value]) => h("div", null, h("dt", null, words(name)), h("dd", null, figure(name, value))))),
    shares.length > 0 && barList("share of tokens", shares.map((part) => [part.source, part.token_fraction, `${figure("epochs", part.epochs)} epochs`]), { share: true }),
    sides.map((table) => Object.entries(table).map(([name, value]) => countTable(name, value))),
    dropped && dropSamples(dropped));
}

/** A table of counts as bars, of lengths as a histogram; anything else is not shown. */
function countTable(name, value) {
  if (!isTable(value)) return null;
  if (isTable(value.histogram)) return histogram(words(name), value);
  const leftOut = LEFT_OUT.test(name);
  if (!leftOut && !COMPARED.test(name)) return null;
  const row = leftOut ? summedRow : comparedRow;
  const rows = Object.entries(value).map(([own, item]) => (isTable(item) ? row(own, item) : [own, item, ""]));
  const counted = rows.filter(([, n]) => typeof n === "number");
  return leftOut || counted.length > 1 ? barList(words(name), counted, { leftOut }) : null;
}

/** {documents, bytes} of one source: its bar goes by the first figure. */
function comparedRow(name, item) {
  const [first, ...others] = Object.entries(item);
  return [name, first ? first[1] : null, others.map(([unit, n]) => figure(unit, n)).join(", ")];
}

/** {reason: count} of one source: its bar is their sum. */
function summedRow(name, item) {
  const reasons = Object.entries(item);
  return [name, reasons.reduce((sum, [, n]) => sum + n, 0), reasons.map(([reason, n]) => `${words(reason)} ${count(n)}`).join(", ")];
}

function barList(label, rows, { leftOut = false, share = false } = {}) {
  if (!rows.length) return null;
  const sorted = [...rows].sort((a, b) => b[1] - a[1]);
  const most = Math.max(...sorted.map(([, n]) => n)) || 1;
  const said = share ? percent : count;
  const shared = sharedPrefix(rows.map(([name]) => String(name)));
  return h("div", { class: `bar-list${leftOut ? " dropped" : ""}` },
    h("h4", null, label, h("span", { class: "note" }, said(sorted.reduce((sum, [, n]) => sum + n, 0)))),
    sorted.map(([name, n, note]) => h("div", { class: "bar-row", title: `${name}: ${said(n)}${note ? `, ${note}` : ""}` },
      h("span", { class: "bar-name", dir: "auto" }, words(String(name).slice(shared))),
      h("span", { class: "track" }, h("i", { class: "bar", vars: { value: `${(100 * n) / most}%`, tone: "100%" } })),
      h("span", { class: "bar-count" }, said(n)))));
}

/** How many characters up to a "/" all names begin with alike. */
function sharedPrefix(names) {
  const prefix = names[0].slice(0, names[0].lastIndexOf("/") + 1);
  return names.length > 1 && names.every((name) => name.startsWith(prefix)) ? prefix.length : 0;
}

/** Lengths by powers of two; where all fall into one, it tells nothing. */
function histogram(label, statistics) {
  const { edges, counts } = statistics.histogram;
  if (!Array.isArray(counts) || counts.filter((n) => n > 0).length < 2) return null;
  const first = counts.findIndex((n) => n > 0);
  const shown = counts.slice(first);
  const most = Math.max(...shown);
  const half = statistics.quantiles && statistics.quantiles.p50;
  return h("div", { class: "histogram" },
    h("h4", null, label, half !== undefined && h("span", { class: "note" }, `median ${count(half)}`)),
    h("div", { class: "columns", role: "img", "aria-label": `${label}: ${count(edges[first])} to ${count(edges[edges.length - 1])}` },
      shown.map((n, i) => h("i", { title: `${count(edges[first + i])} to ${count(edges[first + i + 1])}: ${count(n)}`, vars: { tall: `${(100 * n) / most}%` } }))),
    h("div", { class: "columns-axis" }, h("span", null, count(edges[first])), h("span", null, count(edges[edges.length - 1]))));
}

function dropSamples(entry) {
  return h("details", null, h("summary", null, "examples of what was left out"),
    Object.entries(entry.samples).map(([reason, samples]) => h("div", { class: "dropped-samples" },
      h("h4", null, words(reason), h("span", { class: "note" }, count(Number(entry.by_reason[reason]) || samples.length))),
      samples.filter(isTable).map((sample) => h("blockquote", { dir: "auto" }, String(sample.excerpt || sample.detail || ""),
        h("footer", null, String(sample.place || sample.source || "")))))));
}
