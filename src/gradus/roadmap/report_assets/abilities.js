// What the model can do: every suite by category with its interval, for each model that was asked, and a few
// exchanges picked by their place in the suite, not by their outcome.

function abilities() {
  if (!data.abilities.length) return null;
  const names = [...new Set(data.abilities.flatMap((entry) => entry.suites.map((suite) => suite.name)))];
  const lead = data.abilities.length > 1
    ? `Share of questions answered right by ${data.abilities.map((entry) => entry.model).join(", then ")}. The line over a bar is the 95 % Wilson interval.`
    : "Share of questions answered right. The line over a bar is the 95 % Wilson interval: where the true share plausibly lies.";
  return section("abilities", "What it can do", lead,
    data.abilities.length > 1 && modelLegend(),
    h("div", { class: "suites" }, names.map(suitePanel)),
    exchanges());
}

function modelLegend() {
  return h("ul", { class: "legend" }, data.abilities.map((entry, index) =>
    h("li", null, h("i", { class: "swatch", vars: { tone: tone(index) } }), entry.model)));
}

/** How strong a model's colour is: the last asked stands out. */
function tone(index) {
  const last = data.abilities.length - 1;
  return last ? `${Math.round(28 + (72 * index) / last)}%` : "100%";
}

function suitePanel(name) {
  const asked = data.abilities
    .map((entry, index) => ({ index, model: entry.model, suite: entry.suites.find((suite) => suite.name === name) }))
    .filter((entry) => entry.suite);
  const categories = [...new Set(asked.flatMap((entry) => entry.suite.categories.map((category) => category.name)))];
  const rows = categories.map((category) => abilityRow(name, category, asked, (suite) => suite.categories.find((own) => own.name === category)));
  const total = asked[asked.length - 1].suite.total;
  return h("article", { class: "suite card" },
    h("h3", null, name, h("span", { class: "suite-total" }, percent(total.value))),
    h("p", { class: "note" }, `${count(total.successes ?? Math.round(total.value * total.n))} of ${plural(total.n, "question")}`),
    h("div", { class: "ability-rows" }, rows, abilityRow(name, "total", asked, (suite) => suite.total)),
    data.pairings.filter((pair) => pair.suite === name).map(pairingLine));
}

function abilityRow(suite, category, asked, pick) {
  const bars = asked.map((entry) => ({ ...entry, measure: pick(entry.suite) })).filter((entry) => entry.measure);
  const last = bars[bars.length - 1];
  const said = bars.map((bar) => `${bar.model}: ${percent(bar.measure.value)}${bar.measure.n ? ` of ${bar.measure.n}` : ""}`).join("; ");
  const open = () => showQuestions({ suite, model: last.model, category: category === "total" ? "" : category, outcome: "" });
  return h("button", { type: "button", class: `ability${category === "total" ? " total" : ""}`, title: `${category}, ${said}. Click to read the answers.`, click: open },
    h("span", { class: "ability-name" }, words(category)),
    h("span", { class: "tracks" }, bars.map((bar) => abilityBar(bar.measure, bar.index)), thresholds(suite, category)),
    h("span", { class: "ability-value" }, percent(last.measure.value)));
}

function abilityBar(measure, index) {
  const low = measure.lower ?? measure.value;
  const high = measure.upper ?? measure.value;
  return h("span", { class: "track" },
    h("i", { class: "bar", vars: { value: `${100 * measure.value}%`, tone: tone(index) } }),
    high > low && h("i", { class: "whisker", vars: { low: `${100 * low}%`, span: `${100 * (high - low)}%` } }));
}

/** Where the gates on this measure stand. */
function thresholds(suite, category) {
  const names = [`probes.${suite}.${category}`, `probes.${suite}.categories.${category}`, `tasks.${suite}.${category === "total" ? "acc" : category}`];
  return data.gates
    .filter((gate) => names.includes(gate.gate.measure) && typeof gate.gate.at_least === "number")
    .map((gate) => h("i", { class: "threshold", title: `gate: ${condition(gate.gate)}`, vars: { at: `${100 * gate.gate.at_least}%` } }));
}

function pairingLine(pair) {
  const sure = pair.p < 0.05 ? (pair.won > pair.lost ? "better" : "worse") : "no difference shown";
  const p = pair.p < 0.001 ? "p < 0.001" : `p = ${pair.p.toFixed(3)}`;
  return h("p", { class: "note" },
    `${pair.after} against ${pair.before}: ${count(pair.won)} won, ${count(pair.lost)} lost of ${plural(pair.shared, "shared question")} (${p}: ${sure})`);
}

/** One exchange of each category, the same place in each; the button takes the next place. */
function exchanges() {
  const entry = data.abilities[data.abilities.length - 1];
  const suite = [...entry.suites].reverse().find((own) => own.items.length);
  if (!suite) return null;
  const groups = new Map();
  for (const item of suite.items) groups.set(item.category, [...(groups.get(item.category) || []), item]);
  const strip = h("div", { class: "exchanges", tabindex: "0", role: "region", "aria-label": "Exchanges" });
  let place = 0;
  function deal() {
    replaceContent(strip, [...groups].map(([category, items]) => {
      const item = items[place % items.length];
      return h("article", { class: "card exchange-card" },
        h("header", null, h("span", { class: "eyebrow" }, words(category)), outcomeMark(item)), exchange(item));
    }));
    strip.scrollLeft = 0;
    place += 1;
  }
  deal();
  return [
    h("div", { class: "row-head" }, h("h3", null, "In its own words"),
      h("button", { type: "button", class: "quiet", click: deal }, "deal others")),
    h("p", { class: "note" }, `${entry.model} on ${suite.name}: one question of each category, taken by its place in the suite and not by its outcome.`),
    strip,
  ];
}
