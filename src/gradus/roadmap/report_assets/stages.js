// Ability across stages: each measure over the models of the walk, in the order in which they were made.

const STEP_PLOT = { width: 330, height: 176, left: 16, right: 16, top: 26, bottom: 30 };

function acrossStages() {
  if (!data.across.length) return null;
  const first = data.across.filter((line) => line.main);
  const others = data.across.filter((line) => !line.main);
  const folded = h("div", { class: "charts" });
  return section("stages", "Across stages",
    "The same measure of one model after another. Upright lines are 95 % intervals; where they overlap much, a difference is not shown.",
    h("div", { class: "charts" }, (first.length ? first : others).map(stepPlot)),
    first.length > 0 && others.length > 0 && h("details", { class: "more-figures", toggle: (event) => { if (event.target.open && !folded.childNodes.length) folded.append(...others.map(stepPlot)); } },
      h("summary", null, `by category and source (${plural(others.length, "measure")})`), folded));
}

function stepPlot(line) {
  const { width, height, left, right, top, bottom } = STEP_PLOT;
  const ends = line.points.flatMap((point) => [point.value, point.lower ?? point.value, point.upper ?? point.value]);
  const low = Math.min(...ends);
  const span = Math.max(...ends) - low || Math.abs(low) || 1;
  const x = (index) => left + ((index + 0.5) * (width - left - right)) / line.points.length;
  const y = (value) => height - bottom - ((value - low) / span) * (height - top - bottom);
  const marks = line.points.map((point, index) => s("g", { class: "step-point" },
    s("title", null, `${point.stage}: ${stepFigure(line, point.value)}${point.n ? ` of ${count(point.n)}` : ""}`),
    typeof point.lower === "number" && s("line", { x1: x(index), x2: x(index), y1: y(point.lower), y2: y(point.upper) }),
    s("circle", { cx: x(index), cy: y(point.value), r: 4 }),
    s("text", { x: x(index), y: y(Math.max(point.value, point.upper ?? point.value)) - 8, class: "step-value" }, stepFigure(line, point.value)),
    s("text", { x: x(index), y: height - 8 }, oneLine(point.stage, Math.floor(44 / line.points.length)))));
  const path = line.points.map((point, index) => `${index ? "L" : "M"}${x(index).toFixed(1)} ${y(point.value).toFixed(1)}`).join("");
  const said = line.points.map((point) => `${point.stage} ${stepFigure(line, point.value)}`).join(", ");
  return h("figure", { class: "chart card step-plot" },
    h("figcaption", null, h("span", { dir: "auto" }, line.measure), h("span", { class: "note" }, line.lower_is_better ? "lower is better" : "")),
    s("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${line.measure}: ${said}` }, s("path", { d: path }), marks));
}

function stepFigure(line, value) {
  return line.is_share ? percent(value) : significant(value, 4);
}
