// The books: time against the plan, machine and versions, the ledger.

const LEDGER_AT_ONCE = 15;

function times() {
  const rows = data.stages.map((stage) => ({ stage, predicted: stage.predicted.seconds ?? null, actual: stage.seconds }));
  if (!rows.some((row) => row.actual !== null)) return null;
  const most = Math.max(...rows.flatMap((row) => [row.predicted || 0, row.actual || 0]), 1e-9);
  const both = rows.filter((row) => row.predicted !== null && row.actual !== null);
  const sum = (key) => both.reduce((total, row) => total + row[key], 0);
  const total = both.length ? `Predicted ${seconds(sum("predicted"))}, took ${seconds(sum("actual"))}.` : null;
  return section("time", "Time", `What each stage took against what the plan said before it ran, and the one by the other. ${total || ""}`,
    h("div", { class: "times card" }, rows.map((row) => timeRow(row, most)),
      h("ul", { class: "legend" }, h("li", null, h("i", { class: "swatch took" }), "took"), h("li", null, h("i", { class: "swatch planned" }), "predicted"))),
    predictions());
}

// The plan's figures besides time, and how each is shown.
const PREDICTED = [["memory_bytes", "peak memory", bytes], ["tokens", "tokens", count], ["flops", "FLOPs", count], ["mfu", "MFU", percent], ["money", "money", (value) => value.toFixed(2)]];

/** Predicted and actual of all else, stage by stage; a figure that no stage has is left out. */
function predictions() {
  const of = (stage, name) => [stage.predicted[name] ?? null, (stage.actual || {})[name] ?? null];
  const shown = PREDICTED.filter(([name]) => data.stages.some((stage) => of(stage, name).every((value) => value !== null && value !== 0)));
  if (!shown.length) return null;
  const cell = ([predicted, actual], text) => {
    if (predicted === null && actual === null) return "";
    const ratio = predicted && actual ? ` (${significant(actual / predicted, 2)} ×)` : "";
    return `${predicted === null ? "n/a" : text(predicted)} → ${actual === null ? "n/a" : text(actual)}${ratio}`;
  };
  const device = data.device.name ? ` Planned for ${data.device.count > 1 && data.device.name !== "cpu" ? `${data.device.count} x ` : ""}${data.device.name}.` : "";
  return h("article", { class: "card predictions" }, h("h3", null, "Predicted → actual"),
    h("p", { class: "note" }, `Peak memory is of all processes, on a GPU of one device.${device}`),
    table(["stage", ...shown.map(([, title]) => title)], data.stages.map((stage) => [stage.name, ...shown.map(([name, , text]) => cell(of(stage, name), text))])));
}

function timeRow({ stage, predicted, actual }, most) {
  const ratio = predicted && actual !== null ? `${significant(actual / predicted, 2)} ×` : "";
  return h("div", { class: "time-row" },
    h("span", { class: "bar-name" }, stage.name),
    h("span", { class: "time-bars" },
      h("i", { class: "took", vars: { value: `${(100 * (actual || 0)) / most}%` } }),
      h("i", { class: "planned", vars: { value: `${(100 * (predicted || 0)) / most}%` } })),
    h("span", { class: "bar-count" }, actual === null ? stage.state : seconds(actual)),
    h("span", { class: "note" }, predicted === null ? "" : `${seconds(predicted)} ${ratio && `(${ratio})`}`));
}

function machine() {
  const facts = Object.entries(data.machine).map(([name, value]) => [words(name), Array.isArray(value) ? value.join(", ") || "none" : figure(name, value)]);
  const settings = Object.entries(data.machine_settings).map(([name, value]) => [words(name), value === null ? "all" : String(value)]);
  const versions = Object.entries(data.software).filter(([, version]) => version).map(([name, version]) => [name, String(version)]);
  if (!facts.length && !versions.length) return null;
  return section("machine", "Machine", "What the last walk ran on.",
    h("div", { class: "columns-3" },
      h("article", { class: "card" }, h("h3", null, "machine"), definitions(facts)),
      h("article", { class: "card" }, h("h3", null, "how it was used"), definitions([...settings, ["seed", String(data.seed)], ["roadmap", h("code", null, data.path)]])),
      h("article", { class: "card" }, h("h3", null, "versions"), definitions(versions))));
}

function ledger() {
  if (!data.ledger.length) return null;
  const lines = [...data.ledger].reverse();
  const body = h("div");
  function draw(most) {
    replaceContent(body,
      table(["time (UTC)", "stage", "event", ""], lines.slice(0, most).map((line) => [shortTime(String(line.time || "")), String(line.stage || ""), String(line.event || ""), ledgerText(line)])),
      lines.length > most && h("button", { type: "button", class: "quiet more", click: () => draw(lines.length) }, `show all ${lines.length}`));
  }
  draw(LEDGER_AT_ONCE);
  return section("ledger", "Ledger", `The end of ${plural(data.ledger_lines, "line")}, newest first. The file itself is never rewritten.`, h("div", { class: "ledger card" }, body));
}

function ledgerText(line) {
  if (line.event === "gate") return `${line.passed ? "passed" : "FAILED"}: ${line.text}${line.override ? ` (gone past: ${line.override})` : ""}`;
  if (line.event === "stage") return `${line.kind} done in ${seconds(line.seconds)}${typeof line.predicted_seconds === "number" ? `, predicted ${seconds(line.predicted_seconds)}` : ""}`;
  if (line.event === "walk") return `walk of ${line.roadmap}: ${(line.stages || []).join(", ")}`;
  if (line.event === "result") return Object.entries(line.measures).map(([name, value]) => `${words(name)} ${figure(name, value)}`).join(", ");
  return Object.entries(line)
    .filter(([key]) => !["event", "time", "stage", "fingerprint"].includes(key))
    .map(([key, value]) => `${words(key)} ${typeof value === "number" ? figure(key, value) : isTable(value) ? JSON.stringify(value) : value}`)
    .join(", ");
}
