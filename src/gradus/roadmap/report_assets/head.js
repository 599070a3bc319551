// The head of the page: the verdict, how to talk to the model, the stairs of the walk, the main figures.

const FAMILIES = {
  corpus: "data", synthesize: "data", pool: "data", pairs: "data", tokenizer: "tokens", tokenize: "tokens",
  eval: "exam", export: "exam", push: "exam",
};
const MARKS = { passed: "✓", failed: "✕", unfinished: "…", ungated: "·" };
const LEAST_STEP = 0.045; // of the stairs' width, so that a stage of a second can still be pointed at

function family(kind) {
  return FAMILIES[kind] || "training";
}

function head() {
  const { word, text } = data.verdict;
  return h("header", { class: "masthead", id: "top" },
    h("div", { class: "masthead-text" },
      h("p", { class: "eyebrow" }, "gradus report"),
      h("h1", null, data.name),
      data.description && h("p", { class: "description", dir: "auto" }, data.description),
      h("p", { class: `verdict ${word}` }, h("span", { class: "mark", "aria-hidden": "true" }, MARKS[word]), text),
      chatLine()),
    stairs(),
    h("dl", { class: "tiles" }, tiles().map(([label, value, note]) =>
      h("div", { class: "tile" }, h("dt", null, label), h("dd", null, value), note && h("dd", { class: "note" }, note)))),
    gateList());
}

function chatLine() {
  if (!data.chat) return h("p", { class: "nothing" }, "No finished stage holds a model yet.");
  const command = h("code", null, data.chat);
  return h("p", { class: "command" }, h("span", { class: "prompt", "aria-hidden": "true" }, "$ "), command, copyButton(data.chat, command));
}

/** Each stage is a step up; the wider it is, the longer it took (by the square root, to keep short ones visible). */
function stairs() {
  const times = data.stages.map((stage) => stage.seconds ?? stage.predicted.seconds ?? 0);
  const roots = times.map((time) => Math.sqrt(Math.max(time, 0.01)));
  const sum = roots.reduce((a, b) => a + b, 0);
  const failed = new Set(data.gates.filter((gate) => gate.passed === false).map((gate) => gate.stage));
  const steps = data.stages.map((stage, index) => {
    const time = stage.seconds === null ? "" : seconds(stage.seconds);
    const rise = (index + 1) / data.stages.length;
    const state = failed.has(stage.name) ? "gate failed" : stage.state;
    return h("a", {
      class: `step ${family(stage.kind)} ${stage.state}${failed.has(stage.name) ? " failed" : ""}`,
      href: "#lineage",
      title: `${stage.name} (${stage.kind}): ${state}${time ? `, ${time}` : ""}`,
      click: () => chooseStage(stage.name),
      vars: { weight: Math.max(roots[index] / sum, LEAST_STEP), rise: `${22 + 78 * rise}%` },
    }, h("span", { class: "step-text" }, h("b", null, stage.name), h("small", null, time || stage.state)));
  });
  return h("nav", { class: "stairs", "aria-label": "Stages of the walk" }, steps);
}

function tiles() {
  const found = [];
  const last = data.abilities[data.abilities.length - 1];
  for (const suite of last ? last.suites : []) {
    found.push([`${suite.name} questions`, percent(suite.total.value), interval(suite.total)]);
  }
  const models = data.stages.filter((stage) => typeof stage.results.parameters === "number");
  if (models.length) found.push(["parameters", count(models[models.length - 1].results.parameters), ""]);
  const trained = models.filter((stage) => typeof stage.results.tokens === "number");
  if (trained.length) {
    const total = trained.reduce((sum, stage) => sum + stage.results.tokens, 0);
    found.push(["tokens trained on", count(total), `in ${plural(trained.length, "stage")}`]);
  }
  const judged = data.stages.filter((stage) => measured(stage.results.bpb) !== null);
  if (judged.length) {
    const stage = judged[judged.length - 1];
    found.push(["bits per byte", measured(stage.results.bpb).toFixed(3), `${stage.name}, held-back text`]);
  }
  const time = data.stages.reduce((sum, stage) => sum + (stage.seconds || 0), 0);
  if (time) found.push(["time", seconds(time), data.machine.cores ? `on ${plural(data.machine.cores, "core")}` : ""]);
  return found;
}

function interval(measure) {
  if (typeof measure.lower !== "number") return measure.n ? `of ${count(measure.n)}` : "";
  return `95 % interval ${(100 * measure.lower).toFixed(1)} to ${percent(measure.upper)}`;
}

function gateList() {
  if (!data.gates.length) return null;
  return h("ul", { class: "gates", "aria-label": "Gates" }, data.gates.map((gate) => {
    const word = gate.passed === null ? "unfinished" : gate.passed ? "passed" : "failed";
    return h("li", { class: word },
      h("span", { class: "mark", "aria-hidden": "true" }, MARKS[word]),
      h("span", null, h("b", null, gate.stage), " ", gate.text || `${condition(gate.gate)}: not judged yet`,
        gate.override && h("em", null, ` (gone past: ${gate.override})`)));
  }));
}

/** A gate as its author wrote it. */
function condition(gate) {
  const bound = gate.bound && gate.bound !== "value" ? `${gate.bound} bound of ` : "";
  const parts = [];
  if (typeof gate.at_least === "number") parts.push(`at least ${gate.at_least}`);
  if (typeof gate.at_most === "number") parts.push(`at most ${gate.at_most}`);
  if (gate.not_worse_than) parts.push(`not worse than ${gate.not_worse_than}`);
  return `${bound}${gate.measure} ${parts.join(", ")}`;
}
