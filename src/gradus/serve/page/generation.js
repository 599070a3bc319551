// How replies are drawn: what is left empty is not sent, and the server decides.

import { h, openDialog } from "./dom.js";
import { preferences, setPreferences } from "./preferences.js";
import { currentModel, saveConversation, session } from "./session.js";

// name in the protocol, label, lowest, highest, step, hint
const NUMBERS = [
  ["temperature", "Temperature", 0, 5, "any", "0 always takes the likeliest token"],
  ["top_p", "Top-p", 0, 1, "any", "the likeliest tokens that reach this probability"],
  ["top_k", "Top-k", 1, null, 1, "so many of the likeliest tokens"],
  ["min_p", "Min-p", 0, 1, "any", "tokens this share as likely as the likeliest"],
  ["repetition_penalty", "Repetition penalty", 0, 5, "any", "above 1 makes repeating less likely"],
  ["max_tokens", "Most tokens", 1, null, 1, "of a reply, thinking included"],
  ["seed", "Seed", 0, null, 1, "the same one draws the same reply"],
];

export function openGeneration() {
  const { conversation } = session;
  const thinks = currentModel()?.extras?.thinks;
  const system = h("textarea", { rows: 3, value: conversation.system, "aria-describedby": "system-hint" });
  const asDefault = h("input", {
    type: "checkbox",
    checked: preferences.system !== "" && preferences.system === conversation.system,
  });
  const inputs = new Map(
    NUMBERS.map(([name, , min, max, step]) => [
      name,
      h("input", {
        type: "number",
        inputmode: "decimal",
        name,
        min,
        max,
        step,
        value: preferences.sampling[name] ?? "",
      }),
    ]),
  );
  const budget = h("input", {
    type: "number",
    name: "think_budget",
    min: 0,
    step: 1,
    value: preferences.thinkBudget ?? "",
  });
  const stops = h("textarea", { rows: 2, name: "stop", value: (preferences.sampling.stop ?? []).join("\n") });
  const form = h(
    "form",
    { class: "settings", submit, method: "dialog" },
    h("label", { class: "wide-field" }, h("span", null, "System message of this conversation"), system),
    h("label", { class: "check" }, asDefault, "Begin new conversations with it"),
    h("p", { class: "hint" }, "A field left empty is not sent: the server decides."),
    h(
      "div",
      { class: "numbers" },
      NUMBERS.map(([name, label, , , , hint]) => field(label, inputs.get(name), hint)),
      thinks && field("Think budget", budget, "tokens, after which the model must answer"),
    ),
    h("label", { class: "wide-field" }, h("span", null, "Stop at these texts, one a line"), stops),
    h(
      "div",
      { class: "dialog-actions sticky" },
      h("button", { type: "button", class: "button", click: clear }, "Empty all"),
      h("button", { type: "submit", class: "button primary" }, "Save"),
    ),
  );
  const dialog = openDialog("Generation", form);

  function clear() {
    for (const input of [...inputs.values(), budget, stops]) input.value = "";
  }

  function submit() {
    const sampling = {};
    for (const [name, input] of inputs) if (input.value !== "") sampling[name] = Number(input.value);
    const texts = stops.value.split("\n").filter((line) => line !== "");
    if (texts.length > 0) sampling.stop = texts;
    conversation.system = system.value.trim();
    setPreferences({
      sampling,
      thinkBudget: budget.value === "" ? null : Number(budget.value),
      system: asDefault.checked
        ? conversation.system
        : preferences.system === conversation.system
          ? ""
          : preferences.system,
    });
    if (conversation.nodes.root.children.length > 0) saveConversation(conversation);
  }
  return dialog;
}

function field(label, input, hint) {
  return h("label", null, h("span", null, label), input, h("small", null, hint));
}
