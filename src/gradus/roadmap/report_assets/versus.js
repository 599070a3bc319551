// Two runs: verdicts by measure, what was changed, curves over one another, answers that flipped.

function versusParts() {
  return [
    ["measures", "measures", versusMeasures], ["changes", "changes", versusChanges], ["training", "training", versusCurves],
    ["questions", "flipped answers", versusFlipped],
  ];
}
const VERDICT_MARKS = { better: "▲", worse: "▼", "not resolved": "·" };

function versusHead() {
  const [one, other] = data.versus.labels;
  return h("header", { class: "masthead versus-head", id: "top" }, h("div", { class: "masthead-text" },
    h("p", { class: "eyebrow" }, "gradus report, two runs"),
    h("h1", { class: "versus-title" }, other, h("small", null, " against "), one),
    h("p", { class: "verdict ungated" }, data.verdict.text)));
}

function versusMeasures() {
  const { measures, labels, only, by_chance: chance } = data.versus;
  if (!measures.length) return null;
  const list = h("div", { class: "versus card" });
  const draw = (wanted) => replaceContent(list, measureTable(measures.filter((one) => !wanted || one.verdict === wanted), labels));
  draw("");
  const others = only.map((names, index) => names.length > 0 && h("p", { class: "note" }, `Only in ${labels[index]}: ${names.join(", ")}`));
  return section("measures", "Measures", "Paired on the items that both were asked. “Not resolved” is an answer: beside it stands the least difference that so many items would have shown four times in five.",
    h("div", { class: "filters" }, segments("Verdict", [["", "all"], ["better", "better"], ["worse", "worse"], ["not resolved", "not resolved"]], "", draw)), list,
    measures.length > 1 && h("p", { class: "note" }, `Of ${count(measures.length)} measures without any difference about ${significant(chance, 2)} would look like one.`), others);
}

function measureTable(measures, labels) {
  if (!measures.length) return nothing("None.");
  return table(["", "measure", ...labels, "verdict", "p", "resolves", "by"], measures.map((one) => [
    h("span", { class: `versus-mark ${one.verdict.replace(" ", "-")}`, "aria-hidden": "true" }, VERDICT_MARKS[one.verdict]),
    one.measure, significant(one.first, 4), significant(one.second, 4), one.verdict,
    one.p === null ? "" : one.p < 0.001 ? "< 0.001" : one.p.toFixed(3), one.resolvable === null ? "" : significant(one.resolvable, 3), one.text]));
}

function versusChanges() {
  const [one, other] = data.versus.labels;
  const took = (value) => (value === null ? "" : seconds(value));
  return section("changes", "Changes", `What differs in the stages, from ${one} to ${other}.`,
    h("div", { class: "versus card" }, table(["stage", "kind", "", "settings", one, other], data.versus.stages.map((stage) => [
      stage.name, stage.kind, stage.state, stage.changes.map((text) => h("div", null, text)), took(stage.seconds[0]), took(stage.seconds[1])]))));
}

function versusCurves() {
  const { curves, labels } = data.versus;
  if (!curves.length) return null;
  drawn.clear();
  undrawn.clear();
  return section("training", "Training", "Loss of both runs by step. Drag over a plot to look closer, double click to go back.",
    h("ul", { class: "legend" }, labels.map((label, index) => h("li", null, h("i", { class: `swatch line-${index}` }), label))),
    h("div", { class: "charts" }, curves.map((curve) => {
      const columns = { step: curve.step, [labels[0]]: curve.losses[0], [labels[1]]: curve.losses[1] };
      return chart({ name: curve.stage }, { title: `${curve.stage}: loss`, names: labels, columns, wide: true }, "step");
    })));
}

function versusFlipped() {
  const { flipped, labels } = data.versus;
  if (!flipped.length) return null;
  return section("questions", "Flipped answers", "Questions that one run answered right and the other wrong.", flipped.map((entry) => flippedList(entry, labels)));
}

function flippedList(entry, labels) {
  const list = h("div", { class: "questions" });
  const won = entry.items.filter((pair) => pair.after.passed).length;
  function draw(wanted) {
    const shown = entry.items.filter((pair) => !wanted || pair.after.passed === (wanted === "won"));
    replaceContent(list, shown.map((pair) => flippedRow(pair, labels)), !shown.length && nothing("None."));
  }
  draw("");
  return h("article", null, h("div", { class: "row-head" }, h("h3", null, entry.stage, h("span", { class: "note" }, entry.suite)),
    segments("Outcome", [["", "all"], ["won", `won (${won})`], ["lost", `lost (${entry.items.length - won})`]], "", draw)),
    entry.left_out > 0 && nothing(`${plural(entry.left_out, "more question")} left out of this page.`), list);
}

function flippedRow({ before, after }, labels) {
  const messages = before.messages || after.messages || [];
  const asked = messages.length ? messages[messages.length - 1].content : before.id;
  const body = h("div", { class: "question-body" });
  const fill = () => body.append(...[before, after].flatMap((item, index) => [
    h("h4", null, labels[index], outcomeMark(item)), exchange(index ? { ...item, messages: [] } : { ...item, messages }),
    !item.passed && h("ul", { class: "reasons" }, (item.reasons || []).map((reason) => h("li", { dir: "auto" }, reason)))].filter(Boolean)));
  const row = h("details", { class: "question", toggle: () => { if (row.open && !body.childNodes.length) fill(); } },
    h("summary", null, outcomeMark(after), h("span", { class: "asked", dir: "auto" }, oneLine(asked)), h("span", { class: "said", dir: "auto" }, oneLine(after.answer || "", 90) || "(no answer)")), body);
  return row;
}
