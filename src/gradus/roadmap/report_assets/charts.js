// Training curves by stage, drawn by uPlot: drag to look closer, double click to go back.

const CHART_HEIGHT = 190;
// How figures are called; besides the loss and what was evaluated, those of FIRST are shown at once.
const TITLES = {
  tokens_per_second: "tokens per second", lr: "learning rate", bpb: "bits per byte",
  margin: "reward margin", accuracy: "pairs told apart", grad_norm: "gradient norm", skipped: "skipped steps",
};
const FIRST = ["tokens_per_second", "lr", "margin", "accuracy"];
const NOT_DRAWN = new Set(["step", "tokens"]);
const drawn = new Set(); // {draw()} of each chart in view, to draw anew when the colours change

function training() {
  if (!data.training.length) {
    return section("training", "Training", null, nothing("No training stage has logged a step yet."));
  }
  const blocks = h("div");
  let axis = "step";
  function draw() {
    drawn.clear();
    replaceContent(blocks, data.training.map((entry) => stageCharts(entry, axis)));
  }
  draw();
  return section("training", "Training", "Every logged step of each training stage. Drag over a plot to look closer, double click to go back.",
    h("div", { class: "filters" }, segments("Horizontal axis", [["step", "by step"], ["tokens", "by tokens"]], axis, (value) => { axis = value; draw(); })),
    blocks);
}

function stageCharts(entry, axis) {
  const stage = stageNamed(entry.stage);
  const train = Object.keys(entry.train).filter((name) => !NOT_DRAWN.has(name) && changes(entry.train[name]));
  const evaluated = Object.keys(entry.evaluate).filter((name) => !NOT_DRAWN.has(name));
  const panels = [
    ...["loss"].filter((name) => entry.train[name]).map((name) => [name, entry.train, false]),
    ...evaluated.map((name) => [name, entry.evaluate, true]),
    ...FIRST.filter((name) => train.includes(name)).map((name) => [name, entry.train, false]),
  ];
  const more = train.filter((name) => name !== "loss" && !FIRST.includes(name)).map((name) => [name, entry.train, false]);
  const folded = h("div", { class: "charts" });
  const draw = ([name, columns, points]) => chart(stage, name, columns, axis, points);
  return h("article", { class: "stage-charts" },
    h("div", { class: "row-head" }, h("h3", null, entry.stage, h("span", { class: "note" }, stageLine(stage, entry)))),
    h("div", { class: "charts" }, panels.map(draw)),
    more.length > 0 && h("details", { class: "more-figures", toggle: (event) => { if (event.target.open && !folded.childNodes.length) folded.append(...more.map(draw)); } },
      h("summary", null, `more figures (${more.map(([name]) => TITLES[name] || words(name)).join(", ")})`), folded));
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

/** One plot of one figure; the box keeps its place, the canvas is made when it comes into view. */
function chart(stage, name, columns, axis, points) {
  const xs = columns[axis] || columns.step;
  const ys = columns[name];
  const last = [...ys].reverse().find((value) => value !== null);
  const box = h("div", { class: "plot" });
  const title = name === "loss" ? `loss (nats per ${stage.kind === "dpo" ? "pair" : "token"})` : TITLES[name] || words(name);
  const figureBox = h("figure", { class: `chart card${name === "loss" || points ? " wide-chart" : ""}` },
    h("figcaption", null, h("span", null, title), last !== undefined && h("b", null, axisFigure(last))), box);
  let plot = null;
  function draw() {
    if (plot) plot.destroy();
    box.replaceChildren();
    plot = new uPlot(plotOptions(stage.name, name, box.clientWidth || 300, axis, points), plotData(xs, ys, name), box);
  }
  new IntersectionObserver((seen, observer) => {
    if (!seen.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    draw();
    drawn.add(draw);
    new ResizeObserver(() => { if (plot && box.clientWidth) plot.setSize({ width: box.clientWidth, height: CHART_HEIGHT }); }).observe(box);
  }, { rootMargin: "300px" }).observe(figureBox);
  return figureBox;
}

function plotData(xs, ys, name) {
  return name === "loss" && ys.length > 20 ? [xs, ys, smoothed(ys)] : [xs, ys];
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

function plotOptions(stage, name, width, axis, points) {
  const ink = colour("--muted");
  const accent = colour("--accent");
  const axisStyle = {
    stroke: ink, font: "11px ui-sans-serif, system-ui, sans-serif", grid: { stroke: colour("--line"), width: 1 },
    ticks: { show: false },
  };
  const both = name === "loss";
  return {
    width, height: CHART_HEIGHT,
    cursor: { sync: { key: stage }, points: { size: 7 }, drag: { x: true, y: false } },
    legend: { show: true, live: true },
    scales: { x: { time: false }, y: { range: name === "tokens_per_second" ? fromZero : softRange } },
    axes: [
      { ...axisStyle, space: 60, size: 26, values: (plot, values) => values.map((value) => count(value)) },
      { ...axisStyle, space: 32, size: 50, values: (plot, values) => values.map(axisFigure) },
    ],
    series: [
      { label: axis, value: (plot, value) => (value === null ? "" : count(value)) },
      series(words(name), both ? faint(accent) : accent, both ? 1 : 1.75, points),
      ...(both ? [series("smoothed", accent, 2, false)] : []),
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
