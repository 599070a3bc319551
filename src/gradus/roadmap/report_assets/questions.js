// Every question that was asked, with the thinking, the calls and the answer, to filter and to read.

const QUESTIONS_AT_ONCE = 15;
const asking = { suite: "", model: "", category: "", outcome: "", search: "" };
let drawQuestions = () => {};

/** Set the filters from elsewhere on the page and go there. */
function showQuestions(filters) {
  Object.assign(asking, filters, { search: "" });
  drawQuestions();
  document.getElementById("questions").scrollIntoView({ behavior: "smooth" });
}

function questions() {
  const entries = data.abilities.flatMap((entry) => entry.suites.map((suite) => ({ model: entry.model, ...suite })));
  const readable = entries.filter((entry) => entry.items.length);
  const lead = "Each question with what the model thought, called and said. Only the answer is judged.";
  if (!readable.length) return null;
  const first = readable[readable.length - 1];
  Object.assign(asking, { suite: first.name, model: first.model });
  const filters = h("div", { class: "filters" });
  const list = h("div", { class: "questions" });
  const status = h("p", { class: "note", role: "status" });
  const notes = h("div");
  let shown = QUESTIONS_AT_ONCE;

  function matching(entry) {
    const wanted = asking.search.toLowerCase();
    return entry.items.filter((item) =>
      (!asking.category || item.category === asking.category) &&
      (!asking.outcome || item.passed === (asking.outcome === "passed")) &&
      (!wanted || searchable(item).includes(wanted)));
  }

  function drawList() {
    const entry = readable.find((own) => own.name === asking.suite && own.model === asking.model) || first;
    const found = matching(entry);
    const passed = found.filter((item) => item.passed).length;
    status.textContent = `${plural(found.length, "question")} of ${count(entry.items.length)}: ${count(passed)} right, ${count(found.length - passed)} wrong`;
    replaceContent(notes,
      entry.note && nothing(`${entry.note}.`),
      entry.left_out > 0 && nothing(`${count(entry.left_out)} right answers are left out of this page; the artifact holds them all.`));
    replaceContent(list, found.slice(0, shown).map((item) => questionRow(item, entry)),
      found.length > shown && h("button", { type: "button", class: "quiet more", click: () => { shown += QUESTIONS_AT_ONCE; drawList(); } },
        `show ${count(Math.min(QUESTIONS_AT_ONCE, found.length - shown))} more`),
      !found.length && nothing("No question matches."));
  }

  function change(values) {
    Object.assign(asking, values);
    shown = QUESTIONS_AT_ONCE;
    drawList();
  }

  drawQuestions = () => {
    const suites = [...new Set(readable.map((entry) => entry.name))];
    const models = readable.filter((entry) => entry.name === asking.suite).map((entry) => entry.model);
    if (!models.includes(asking.model)) asking.model = models[models.length - 1];
    const entry = readable.find((own) => own.name === asking.suite && own.model === asking.model);
    const categories = [...new Set(entry.items.map((item) => item.category))];
    if (!categories.includes(asking.category)) asking.category = "";
    const search = h("input", { type: "search", placeholder: "find in questions and answers", "aria-label": "Find", value: asking.search, input: () => change({ search: search.value }) });
    replaceContent(filters,
      suites.length > 1 && segments("Suite", suites.map((name) => [name, name]), asking.suite, (suite) => { asking.suite = suite; drawQuestions(); }),
      models.length > 1 && segments("Model", models.map((name) => [name, name]), asking.model, (model) => { asking.model = model; drawQuestions(); }),
      segments("Outcome", [["", "all"], ["passed", "right"], ["failed", "wrong"]], asking.outcome, (outcome) => change({ outcome })),
      selector("Category", [["", "every category"], ...categories.map((name) => [name, words(name)])], asking.category, (category) => change({ category })),
      search);
    shown = QUESTIONS_AT_ONCE;
    drawList();
  };
  drawQuestions();
  return section("questions", "Questions", lead, filters, status, notes, list);
}

function searchable(item) {
  return [item.id, askedText(item), item.thinking, item.answer, ...(item.reasons || []), JSON.stringify(item.calls || [])].join("\n").toLowerCase();
}

function askedText(item) {
  return (item.messages || []).map((message) => message.content).join("\n");
}

function questionRow(item, entry) {
  const messages = item.messages || [];
  const asked = messages.length ? messages[messages.length - 1].content : item.id;
  const body = h("div", { class: "question-body" });
  const row = h("details", { class: "question", toggle: () => { if (row.open && !body.childNodes.length) body.append(...questionBody(item, entry)); } },
    h("summary", null, outcomeMark(item),
      h("span", { class: "asked", dir: "auto" }, oneLine(asked)),
      h("span", { class: "said", dir: "auto" }, oneLine(item.answer || "", 90) || "(no answer)")),
    body);
  return row;
}

function questionBody(item, entry) {
  const others = data.abilities
    .filter((other) => other.model !== entry.model)
    .map((other) => [other.model, (other.suites.find((suite) => suite.name === entry.name) || { items: [] }).items.find((own) => own.id === item.id)])
    .filter(([, own]) => own);
  const samples = item.samples > 1 ? `, ${item.samples_passed} of ${item.samples} samples right` : "";
  return [
    exchange(item),
    !item.passed && h("ul", { class: "reasons" }, (item.reasons || []).map((reason) => h("li", { dir: "auto" }, reason))),
    item.loop && h("p", { class: "reasons" }, `repeats ${item.loop}`),
    h("p", { class: "note" }, `${item.id} · ${words(item.category)}${samples}`),
    others.map(([model, own]) => h("details", { class: "other" }, h("summary", null, outcomeMark(own), ` ${model} said`), exchange({ ...own, messages: [] }))),
  ].flat(Infinity).filter(Boolean);
}

function outcomeMark(item) {
  return h("span", { class: `outcome ${item.passed ? "passed" : "failed"}` }, item.passed ? "✓" : "✕",
    h("span", { class: "unseen" }, item.passed ? "right" : "wrong"));
}

/** Question, thinking, calls and answer, each told apart. */
function exchange(item) {
  return h("div", { class: "exchange" },
    (item.messages || []).map((message) => h("div", { class: `bubble ${message.role === "user" ? "user" : "earlier"}`, dir: "auto" }, message.content)),
    item.thinking && h("div", { class: "thinking", dir: "auto" }, h("span", { class: "tag" }, "thinks"), String(item.thinking).trim()),
    (item.calls || []).map(callCard),
    h("div", { class: "bubble answer", dir: "auto" }, item.answer ? String(item.answer).trim() : h("em", null, "(no answer)")));
}

function callCard(call) {
  const shown = isTable(call.arguments) && Object.keys(call.arguments).length === 1
    ? String(Object.values(call.arguments)[0]) : JSON.stringify(call.arguments);
  return h("div", { class: "call" }, h("span", { class: "tag" }, call.name), h("code", { dir: "auto" }, shown),
    call.result !== null && call.result !== undefined && [h("span", { class: "arrow" }, "→"), h("code", { dir: "auto" }, String(call.result))]);
}
