// The artifact audit: how often answers held what no reader wants, and those answers.

function audits() {
  if (!data.audits.length) return null;
  return section("audit", "Audit", "Answers drawn at random and looked through for artifacts. The right end of a line is the 95 % upper bound; where none was found it is three in so many answers.",
    data.audits.map(auditCard));
}

function auditCard(entry) {
  const kinds = entry.rates.filter((rate) => rate.kind !== "any" && rate.successes > 0);
  const none = entry.rates.filter((rate) => rate.successes === 0).map((rate) => words(rate.kind));
  const any = entry.rates.find((rate) => rate.kind === "any");
  const list = h("div", { class: "questions" });
  const draw = (kind) => replaceContent(list, entry.samples.filter((sample) => !kind || sample.kinds.includes(kind)).map(auditRow));
  draw("");
  return h("article", { class: "audit" },
    h("div", { class: "row-head" }, h("h3", null, entry.model, h("span", { class: "note" }, `${count(any.successes)} of ${plural(any.n, "answer")} with an artifact, at most ${percent(any.upper)} at 95 % confidence`)),
      kinds.length > 1 && selector("Kind", [["", "every kind"], ...kinds.map((rate) => [rate.kind, words(rate.kind)])], "", draw)),
    h("div", { class: "card" }, h("div", { class: "ability-rows" }, kinds.map((rate) => h("div", { class: "ability" },
      h("span", { class: "ability-name" }, words(rate.kind)), h("span", { class: "tracks" }, abilityBar(rate, 0)), h("span", { class: "ability-value" }, percent(rate.value))))),
      none.length > 0 && h("p", { class: "note" }, `None in ${count(any.n)}, so fewer than ${percent(Math.min(1, 3 / any.n))}: ${none.join(", ")}.`)),
    list, entry.left_out > 0 && nothing(`${plural(entry.left_out, "more answer")} left out of this page.`));
}

function auditRow(sample) {
  return h("details", { class: "question" },
    h("summary", null, outcomeMark({ passed: false }), h("span", { class: "asked", dir: "auto" }, oneLine(sample.excerpt)), h("span", { class: "said" }, sample.kinds.map(words).join(", "))),
    h("div", { class: "question-body" }, h("div", { class: "bubble answer", dir: "auto" }, sample.answer || h("em", null, "(no answer)")), h("p", { class: "note" }, sample.id)));
}
