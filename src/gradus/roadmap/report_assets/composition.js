// What the corpora and pools are made of, where each document or conversation went, and why some were left out.

const DATA_KINDS = new Set(["corpus", "synthesize", "pool", "tokenize", "pairs"]);

function composition() {
  const stages = data.stages.filter((stage) => DATA_KINDS.has(stage.kind) || DATA_KINDS.has(stage.makes));
  const made = stages.filter((stage) => stage.state === "done");
  if (!made.length) return section("data", "Data", null, nothing("No corpus or pool has been made yet."));
  return section("data", "Data", "What the model learned from, and what was left out and why.", h("div", { class: "data-cards" }, made.map(dataCard)));
}

function dataCard(stage) {
  const plain = Object.entries(stage.results).filter(([, value]) => typeof value === "number");
  const dropped = data.drops.find((entry) => entry.stage === stage.name);
  return h("article", { class: "card" },
    h("h3", null, stage.name, h("span", { class: "note" }, stage.kind)),
    h("dl", { class: "small-tiles" }, plain.map(([name, value]) => h("div", null, h("dt", null, words(name)), h("dd", null, figure(name, value))))),
    countTables(stage.results),
    dropped && dropSamples(dropped));
}

/** Every table of numbers among the results as bars; tables in tables by their dotted name. */
function countTables(results, name = "") {
  return Object.entries(results).flatMap(([key, value]) => {
    if (!isTable(value) || key === "histogram" || key === "quantiles") return [];
    const label = name ? `${name} ${words(key)}` : words(key);
    const numbers = Object.entries(value).filter(([, item]) => typeof item === "number");
    const inner = Object.entries(value).filter(([, item]) => isTable(item));
    if (!numbers.length && key !== "counts" && areAlike(inner)) return [barList(label, inner.map(comparedRow))];
    if (isTable(value.histogram)) return [histogram(label, value)];
    const kinds = /drop|quarantine|reason|reject/.test(key);
    const bars = numbers.length && (kinds || countsOf(key)) ? [barList(label, numbers.map(([own, n]) => [own, n, ""]), kinds)] : [];
    return [...bars, ...countTables(value, key === "counts" ? name : label)];
  });
}

/** {name: {documents, bytes}}: the same figures of several things, one bar list and not a table for each. */
function areAlike(entries) {
  const keys = entries.map(([, item]) => Object.keys(item).join());
  const plain = entries.every(([, item]) => Object.values(item).every((n) => typeof n === "number"));
  return keys.length > 0 && keys[0] !== "" && plain && keys.every((own) => own === keys[0]);
}

function comparedRow([name, item]) {
  const [[, first], ...others] = Object.entries(item);
  return [name, first, others.map(([unit, n]) => figure(unit, n)).join(", ")];
}

/** Whether a table counts things of one kind, so that its bars can be compared. */
function countsOf(key) {
  return /^(by_|drop|quarantine|reason|reject|categor|source|kinds?$)/.test(key);
}

function barList(label, rows, dropped = false) {
  const sorted = [...rows].sort((a, b) => b[1] - a[1]);
  const most = Math.max(1, ...sorted.map(([, n]) => n));
  const sum = sorted.reduce((total, [, n]) => total + n, 0);
  if (!sorted.length) return null;
  return h("div", { class: `bar-list${dropped ? " dropped" : ""}` },
    h("h4", null, label, h("span", { class: "note" }, count(sum))),
    sorted.map(([name, n, note]) => h("div", { class: "bar-row", title: `${name}: ${n.toLocaleString("en-US")}${note ? `, ${note}` : ""}` },
      h("span", { class: "bar-name", dir: "auto" }, words(name)),
      h("span", { class: "track" }, h("i", { class: "bar", vars: { value: `${(100 * n) / most}%`, tone: "100%" } })),
      h("span", { class: "bar-count" }, count(n)))));
}

/** Lengths by powers of two. */
function histogram(label, statistics) {
  const { edges, counts } = statistics.histogram;
  if (!Array.isArray(counts) || !counts.length) return null;
  const first = counts.findIndex((n) => n > 0);
  const shown = counts.slice(Math.max(0, first));
  const most = Math.max(1, ...shown);
  const from = edges[Math.max(0, first)];
  const to = edges[edges.length - 1];
  const half = statistics.quantiles && statistics.quantiles.p50;
  return h("div", { class: "histogram" },
    h("h4", null, label, half !== undefined && h("span", { class: "note" }, `median ${count(half)}`)),
    h("div", { class: "columns", role: "img", "aria-label": `${label}: ${count(from)} to ${count(to)}` },
      shown.map((n, i) => h("i", { title: `${count(edges[first + i])} to ${count(edges[first + i + 1])}: ${count(n)}`, vars: { tall: `${(100 * n) / most}%` } }))),
    h("div", { class: "columns-axis" }, h("span", null, count(from)), h("span", null, count(to))));
}

function dropSamples(entry) {
  return h("details", null, h("summary", null, "examples of what was left out"),
    Object.entries(entry.samples).map(([reason, samples]) => h("div", { class: "dropped-samples" },
      h("h4", null, words(reason), h("span", { class: "note" }, count(Number(entry.by_reason[reason]) || samples.length))),
      samples.filter(isTable).map((sample) => h("blockquote", { dir: "auto" }, String(sample.excerpt || sample.detail || ""),
        h("footer", null, String(sample.place || sample.source || "")))))));
}
