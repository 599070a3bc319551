// What the model said as it trained: move through the steps and watch it learn.

function samples() {
  if (!data.samples.length) return null;
  const names = data.samples.map((entry) => entry.stage);
  const box = h("div");
  let stop = () => {};
  function show(name) {
    stop();
    const made = sampleStage(data.samples.find((entry) => entry.stage === name));
    stop = made.stop;
    replaceContent(box, made.node);
  }
  show(names[names.length - 1]);
  return section("samples", "Samples", "The same beginnings, continued again and again as training went on.",
    names.length > 1 && h("div", { class: "filters" }, segments("Stage", names.map((name) => [name, name]), names[names.length - 1], show)),
    box);
}

function sampleStage(entry) {
  const steps = [...new Set(entry.lines.map((line) => line.step))].sort((a, b) => a - b);
  const cards = h("div", { class: "sample-cards" });
  const said = h("output", { class: "sample-step" });
  const slider = h("input", { type: "range", min: 0, max: steps.length - 1, value: steps.length - 1, "aria-label": "Step", input: () => { stop(); draw(); } });
  const play = h("button", { type: "button", class: "quiet", click: toggle }, "play");
  let timer = null;

  function draw() {
    const step = steps[Number(slider.value)];
    said.textContent = `step ${count(step)}`;
    replaceContent(cards, entry.lines.filter((line) => line.step === step).map(sampleCard));
  }
  function stop() {
    if (timer !== null) clearInterval(timer);
    timer = null;
    play.textContent = "play";
  }
  function toggle() {
    if (timer !== null) return stop();
    if (Number(slider.value) === steps.length - 1) slider.value = -1;
    play.textContent = "pause";
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      draw();
      if (Number(slider.value) >= steps.length - 1) stop();
    }, 700);
    return undefined;
  }
  draw();
  const node = h("div", null,
    steps.length > 1 && h("div", { class: "scrubber" }, play, slider, said),
    entry.left_out > 0 && h("p", { class: "note" }, `${plural(entry.left_out, "step")} in between left out of this page.`),
    cards);
  return { node, stop };
}

/** A continuation has `text`; a chat turn has `answer`. */
function sampleCard(line) {
  if (line.text !== undefined) {
    return h("article", { class: "card sample", dir: "auto" }, h("b", null, String(line.prompt ?? "")), String(line.text));
  }
  return h("article", { class: "card" }, exchange({ ...line, messages: [{ role: "user", content: String(line.prompt ?? "") }] }));
}
