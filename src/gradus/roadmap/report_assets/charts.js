// Training curves by stage, drawn by uPlot: drag to look closer, double click to go back.

const CHART_HEIGHT = 190;
// How figures are called; besides the loss and what was evaluated, those of FIRST are shown at once.
const TITLES = {
  tokens_per_second: "tokens per second", lr: "learning rate", bpb: "bits per byte",
  margin: "reward margin", mfu: "MFU (share of the peak)", accuracy: "pairs told apart",
  chosen_change: "chosen answers against the reference (nats per token)", kl_estimate: "KL estimate (nats per answer)",
  both_fall: "pairs where both answers became less likely (share)", grad_norm: "gradient norm", skipped: "skipped steps",
  reward: "reward of sampled answers", pass_rate: "answers that pass", kl: "divergence from the start (nats per token)",
};
const LOSSES = { dpo: "loss (nats per pair)", grpo: "loss (advantage per token)" };
const FIRST = [
  "tokens_per_second", "mfu", "lr", "margin", "accuracy", "chosen_change", "kl_estimate", "reward", "pass_rate", "kl",
];
// What the machine did meanwhile: its name here, and how a logged figure becomes one of the unit behind it.
const MACHINE = {
  cpu_fraction: ["processor cores busy (%)", 100], memory_bytes: ["memory of all processes (GiB)", 2 ** -30],
  machine_memory_fraction: ["memory taken on the machine (%)", 100], cpu_celsius: ["processor (°C)", 1],
  gpu_memory_bytes: ["GPU memory (GiB)", 2 ** -30], gpu_busy_fraction: ["GPU busy (%)", 100],
  gpu_celsius: ["GPU (°C)", 1], gpu_watts: ["GPU power (W)", 1],
};
const LINE_COLOURS = ["--accent", "--data", "--exam", "--bad", "--good", "--tokens"];
const LEAST_SMOOTHED = 20; // points; of fewer the line itself is clear
const LEAST_JOINED = 8; // points; fewer are marked one by one
const NOT_DRAWN = new Set(["step", "tokens"]);
let chosenAxis = "step";
const drawn = new Set(); // {draw()} of each chart in view, to draw anew when the colours change
const undrawn = new Set(); // {begin()} of each chart that has not been in view; paper shows them all
addEventListener("beforeprint", () => { for (const begin of [...undrawn]) begin(); });

function training() {
  if (!data.training.length) return null;
  const blocks = h("div");
  function draw() {
    drawn.clear();
    undrawn.clear();
    replaceContent(blocks, data.training.map((entry) => stageCharts(entry, chosenAxis)));
  }
  draw();
  return section("training", "Training", "Every logged step of each training stage. Drag over a plot to look closer, double click to go back.",
    h("div", { class: "filters" }, segments("Horizontal axis", [["step", "by step"], ["tokens", "by tokens"]], chosenAxis, (value) => { chosenAxis = value; draw(); })),
    blocks);
}

function stageCharts(entry, axis) {
  const stage = stageNamed(entry.stage);
  const train = Object.keys(entry.train).filter((name) => !NOT_DRAWN.has(name) && changes(entry.train[name]));
  const one = (name) => ({ title: TITLES[name] || words(name), names: [name], columns: entry.train });
  const panels = [
    ...(entry.train.loss ? [{ ...one("loss"), title: LOSSES[stage.kind] || "loss (nats per token)", wide: true, smooth: true, passedOver: entry.passed_over }] : []),
    ...evaluatedPanels(entry.evaluate),
    ...FIRST.filter((name) => train.includes(name)).map(one),
  ];
  const more = train.filter((name) => name !== "loss" && !FIRST.includes(name) && !(name in MACHINE)).map(one);
  const machines = train.filter((name) => name in MACHINE).map((name) => machinePanel(name, entry.train));
  const draw = (panel) => chart(stage, panel, axis);
  return h("article", { class: "stage-charts" },
    h("div", { class: "row-head" }, h("h3", null, entry.stage, h("span", { class: "note" }, stageLine(stage, entry)))),
    h("div", { class: "charts" }, panels.map(draw), entry.extension && extensionPanels(entry.extension).map((panel) => chart(stage, panel, "position"))),
    foldedCharts("more figures", more, draw), foldedCharts("the machine", machines, draw));
}

/** What a longer context did: before, with positions stretched but untrained, and after. */
function extensionPanels({ positions, passkeys }) {
  const names = ["before", "rescaled", "after"];
  return [
    { title: "perplexity up to each position (before, rescaled, after)", names, columns: positions, points: true, wide: true },
    ...(passkeys.step.length ? [{ title: "pass keys found by length of text (share; before, rescaled, after)", names, columns: passkeys, points: true, wide: true, fromZero: true }] : []),
  ];
}

/** Plots that are made when they are asked for. */
function foldedCharts(name, panels, draw) {
  const folded = h("div", { class: "charts" });
  return panels.length > 0 && h("details", { class: "more-figures", toggle: (event) => { if (event.target.open && !folded.childNodes.length) folded.append(...panels.map(draw)); } },
    h("summary", null, `${name} (${panels.map((panel) => panel.title).join(", ")})`), folded);
}

function machinePanel(name, columns) {
  const [title, scale] = MACHINE[name];
  const scaled = columns[name].map((value) => (value === null ? null : value * scale));
  return { title, names: [name], columns: { ...columns, [name]: scaled }, fromZero: true };
}

/** A plot for each measure; those of one name by source ("bpb/books") share a plot. */
function evaluatedPanels(columns) {
  const groups = new Map();
  for (const name of Object.keys(columns).filter((own) => !NOT_DRAWN.has(own))) {
    const [whole, part] = name.split("/", 2);
    const key = part === undefined ? name : `${whole}/`;
    groups.set(key, [...(groups.get(key) || []), name]);
  }
  return [...groups].map(([key, names]) => ({
    title: key.endsWith("/") ? `${TITLES[key.slice(0, -1)] || words(key.slice(0, -1))} by source` : TITLES[key] || words(key),
    names: names.slice(0, LINE_COLOURS.length), columns, points: true, wide: true,
  }));
}

function changes(column) {
  return column.some((value) => value !== null && value !== 0);
}

function stageLine(stage, entry) {
  const parts = [stage.kind];
  const steps = entry.train.step || entry.evaluate.step;
  if (steps.length) parts.push(plural(steps[steps.length - 1], "step"));
  if (typeof stage.results.tokens === "number") parts.push(`${count(stage.results.tokens)} tokens`);
  if (stage.seconds) parts.push(seconds(stage.seconds));
  if (stage.state !== "done") parts.push(stage.note);
  if (entry.every > 1) parts.push(`one of ${entry.every} logged steps is drawn`);
  return parts.join(" · ");
}

/** One plot; its box keeps the place, the canvas is made when it comes into view. */
function chart(stage, panel, axis) {
  const ys = panel.columns[panel.names[0]];
  const last = [...ys].reverse().find((value) => value !== null);
  const box = h("div", { class: "plot" });
  const figureBox = h("figure", { class: `chart card${panel.wide ? " wide-chart" : ""}` },
    h("figcaption", null, h("span", null, panel.title), last !== undefined && panel.names.length === 1 && h("b", null, axisFigure(last))), box,
    panel.passedOver && panel.passedOver.length > 0 && h("p", { class: "note" }, passedOverNote(panel.passedOver)));
  const smooth = panel.smooth && ys.length > LEAST_SMOOTHED;
  const xs = panel.columns[axis] || panel.columns.step;
  let plot = null;
  function draw() {
    if (plot) plot.destroy();
    box.replaceChildren();
    const lines = panel.names.map((name) => panel.columns[name]);
    plot = new uPlot(plotOptions(stage.name, { ...panel, smooth }, box.clientWidth || 300, axis), [xs, ...lines, ...(smooth ? [smoothed(ys)] : [])], box);
  }
  const observer = new IntersectionObserver((seen) => { if (seen.some((entry) => entry.isIntersecting)) begin(); }, { rootMargin: "300px" });
  function begin() {
    observer.disconnect();
    undrawn.delete(begin);
    draw();
    drawn.add(draw);
    new ResizeObserver(() => { if (plot && box.clientWidth) plot.setSize({ width: box.clientWidth, height: CHART_HEIGHT }); }).observe(box);
  }
  undrawn.add(begin);
  observer.observe(figureBox);
  return figureBox;
}

/** Where training went back to a checkpoint, and which data it then left out. */
function passedOverNote(windows) {
  const parts = windows.map(({ from, to, data_steps: [first, end] }) => `at step ${to} back to step ${from}, without the data of steps ${first} to ${end - 1}`);
  return `Shaded: ${plural(windows.length, "window")} of data passed over after refused steps (${parts.join("; ")}).`;
}

/** Shades the steps that a return to a checkpoint undid, behind the lines. */
function shade(plot, panel, axis) {
  const { step, [axis]: xs } = panel.columns;
  const at = (number) => (axis === "step" || !xs ? number : number === 0 ? 0 : xs[Math.max(0, step.findIndex((own) => own >= number))]);
  const { left, top, width, height } = plot.bbox;
  plot.ctx.save();
  plot.ctx.fillStyle = faint(colour("--bad"));
  for (const { from, to } of panel.passedOver) {
    const [begin, end] = [from, to].map((number) => Math.min(left + width, Math.max(left, plot.valToPos(at(number), "x", true))));
    plot.ctx.fillRect(begin, top, Math.max(2 * devicePixelRatio, end - begin), height);
  }
  plot.ctx.restore();
}

/** Exponential mean with the start's bias taken out, over about an eightieth of the curve. */
function smoothed(ys) {
  const keep = 1 - 1 / Math.max(3, ys.length / 80);
  let mean = 0;
  let weight = 0;
  return ys.map((value) => {
    if (value === null) return null;
    mean = keep * mean + (1 - keep) * value;
    weight = keep * weight + (1 - keep);
    return mean / weight;
  });
}

function plotOptions(stage, panel, width, axis) {
  const ink = colour("--muted");
  const accent = colour("--accent");
  const axisStyle = {
    stroke: ink, font: "11px ui-sans-serif, system-ui, sans-serif", grid: { stroke: colour("--line"), width: 1 },
    ticks: { show: false },
  };
  const lines = panel.names.map((name, index) => {
    const stroke = panel.smooth ? faint(accent) : colour(LINE_COLOURS[index]);
    return series(words(name.split("/").pop()), stroke, panel.smooth ? 1 : 1.75, panel.points || panel.columns.step.length < LEAST_JOINED);
  });
  return {
    width, height: CHART_HEIGHT,
    cursor: { sync: { key: stage }, points: { size: 7 }, drag: { x: true, y: false } },
    hooks: panel.passedOver ? { drawClear: [(plot) => shade(plot, panel, axis)] } : {},
    scales: { x: { time: false }, y: { range: panel.fromZero || ["tokens_per_second", "mfu"].includes(panel.names[0]) ? fromZero : softRange } },
    axes: [
      { ...axisStyle, space: 60, size: 26, values: (plot, values) => values.map((value) => count(value)) },
      { ...axisStyle, space: 32, size: 50, values: (plot, values) => values.map(axisFigure) },
    ],
    series: [
      { label: axis, value: (plot, value) => (value === null ? "" : count(value)) },
      ...lines,
      ...(panel.smooth ? [series("smoothed", accent, 2, false)] : []),
    ],
  };
}

function series(label, stroke, width, points) {
  return {
    label, stroke, width, spanGaps: true, points: points ? { show: true, size: 5, fill: stroke } : { show: false },
    value: (plot, value) => (value === null || value === undefined ? "" : axisFigure(value)),
  };
}

/** Room above and below; a flat curve gets some too. */
function softRange(plot, low, high) {
  if (low === null || high === null) return [0, 1];
  if (low === high) return [low - Math.abs(low || 1) * 0.1, high + Math.abs(high || 1) * 0.1];
  const room = 0.07 * (high - low);
  return [low >= 0 && low - room < 0 ? 0 : low - room, high + room];
}

/** A rate is read against nought, where its noise looks as small as it is. */
function fromZero(plot, low, high) {
  return [0, high > 0 ? 1.1 * high : 1];
}

function axisFigure(value) {
  const size = Math.abs(value);
  if (size !== 0 && size < 0.001) return value.toExponential(1);
  return size >= 10000 ? count(value) : significant(value, 4);
}

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function faint(hex) {
  return `${hex}55`;
}

function redrawCharts() {
  for (const draw of drawn) draw();
}
