// A walk that goes on: how it stands now, and the page's parts made anew where their figures have changed.

const LIVE_EVERY = 2000; // milliseconds
// What each part is made of.
const MADE_OF = {
  top: ["verdict", "gates", "stages", "abilities", "chat"], abilities: ["abilities", "pairings", "gates"], stages: ["across"],
  questions: ["abilities"], audit: ["audits"], training: ["training"], samples: ["samples"], lineage: ["stages"], data: ["stages", "drops"],
  time: ["stages"], machine: ["machine", "software"], ledger: ["ledger"],
};
const LIVE_WORDS = { running: "passed", finished: "passed", "gate failed": "failed", stopped: "unfinished" };

function signature(id) {
  return JSON.stringify((MADE_OF[id] || []).map((key) => data[key]));
}

/** What is worked on, in figures; nothing once all is finished. */
function nowPart() {
  const { live } = data;
  const at = live.stages.find((stage) => stage.state === "working");
  const training = live.training && at && live.training.stage === at.name ? live.training : null;
  const quiet = live.quiet_seconds === null ? "" : `last written ${seconds(Math.max(live.quiet_seconds, 0.1))} ago`;
  const done = live.stages.filter((stage) => stage.state === "done").length;
  const fraction = training && training.steps ? Math.min(1, training.step / training.steps) : at && at.predicted_seconds && at.seconds !== null ? Math.min(1, at.seconds / at.predicted_seconds) : null;
  return section("now", at ? `Now: ${at.name}` : "Now", null,
    h("p", { class: `verdict ${LIVE_WORDS[live.state]}` }, h("span", { class: "mark", "aria-hidden": "true" }, live.state === "running" ? "▶" : live.state === "finished" ? "✓" : "!"),
      `${live.state}, ${done} of ${plural(live.stages.length, "stage")} done`, h("span", { class: "note" }, live.pid ? `process ${live.pid}, ${quiet}` : quiet)),
    fraction !== null && h("div", { class: "track now-track", role: "progressbar", "aria-valuenow": Math.round(100 * fraction), "aria-valuemin": 0, "aria-valuemax": 100 }, h("i", { class: "bar", vars: { value: `${100 * fraction}%`, tone: "100%" } })),
    h("dl", { class: "small-tiles" }, nowFigures(at, training).map(([name, value]) => h("div", null, h("dt", null, name), h("dd", null, value)))));
}

function nowFigures(at, training) {
  if (!at) return [];
  const found = [["kind", at.kind]];
  if (at.seconds !== null) found.push(["time so far", seconds(Math.max(at.seconds, 0.1))]);
  if (!training) return at.predicted_seconds ? [...found, ["predicted", seconds(at.predicted_seconds)]] : found;
  found.push(["step", `${count(training.step)}${training.steps ? ` of ${count(training.steps)}` : ""}`]);
  if (training.eta_seconds !== null) found.push(["left, about", seconds(Math.max(training.eta_seconds, 0.1))]);
  const { loss, tokens_per_second: rate } = training.figures;
  if (typeof loss === "number") found.push(["loss", significant(loss, 4)]);
  for (const [name, value] of Object.entries(training.evaluated)) if (!NOT_DRAWN.has(name)) found.push([TITLES[name] || words(name), significant(value, 4)]);
  if (typeof rate === "number") found.push(["tokens per second", count(rate)]);
  for (const [name, value] of Object.entries(training.telemetry)) {
    const [title, scale] = MACHINE[name] || [words(name), 1];
    found.push([title, significant(value * scale, 3)]);
  }
  return found;
}

/** Ask for what is new, again and again; parts that have not changed are left as the reader has them. */
function follow(parts) {
  const main = document.querySelector("main");
  const kept = new Map([["top", signature("top")], ...parts.map(([id]) => [id, signature(id)])]);
  const told = h("p", { class: "note", role: "status" });
  main.firstChild.after(nowPart(), told);
  async function look() {
    try {
      const answer = await fetch("data.json", { cache: "no-store" });
      if (!answer.ok) throw new Error(await answer.text());
      Object.assign(data, await answer.json());
      told.textContent = "";
    } catch (error) {
      told.textContent = `Not up to date: ${error.message}. Is gradus watch still running?`;
      return;
    }
    document.getElementById("now").replaceWith(nowPart());
    redraw();
  }
  function redraw() {
    let before = told;
    for (const [id, name, build] of [["top", data.name, head], ...parts]) {
      const shown = document.getElementById(id);
      if (kept.get(id) !== signature(id)) {
        kept.set(id, signature(id));
        const made = built(id, name, build);
        if (shown && made) shown.replaceWith(made);
        else if (made) before.after(made);
        else if (shown) shown.remove();
      }
      if (id !== "top") before = document.getElementById(id) || before;
    }
  }
  setInterval(look, LIVE_EVERY);
}
