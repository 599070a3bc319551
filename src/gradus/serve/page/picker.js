// Which checkpoint answers, and which ones answer side by side.

import { h, icon } from "./dom.js";
import { setPreferences } from "./preferences.js";
import { compare, currentModel, on, session, tell } from "./session.js";

const MOST_COMPARED = 4;

/** The button at the top that names the model, with the list behind it. open: {settings()}. */
export function pickerView(open) {
  const button = h("button", { type: "button", class: "picker", popovertarget: "models", "aria-haspopup": "dialog" });
  const panel = h("div", {
    id: "models",
    class: "panel",
    popover: "auto",
    role: "dialog",
    "aria-label": "Models",
    toggle: (event) => {
      if (event.newState === "open") {
        drawPanel();
        (panel.querySelector("input:checked") ?? panel.querySelector("input, button"))?.focus();
      }
    },
  });

  function draw() {
    const { lanes } = session.conversation;
    const name = lanes
      ? `Comparing ${lanes.length} models`
      : (currentModel()?.label ??
        (session.models === null ? "Connecting" : session.modelsError ? "No connection" : "No model"));
    button.replaceChildren(icon(lanes ? "columns" : "brand"), h("span", null, name), icon("down"));
    button.setAttribute("aria-label", `Model: ${name}`);
    if (panel.matches(":popover-open")) drawPanel();
  }

  function drawPanel() {
    const focused = panel.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    if (!session.models?.length) {
      panel.replaceChildren(
        h("p", { class: "nothing" }, session.modelsError?.message ?? "The server offers no model."),
        h(
          "button",
          {
            type: "button",
            class: "button",
            click: () => {
              panel.hidePopover();
              open.settings();
            },
          },
          icon("gear"),
          "Connection settings",
        ),
      );
      return;
    }
    const compared = session.conversation.lanes?.map((lane) => lane.model) ?? [];
    panel.replaceChildren(
      h(
        "fieldset",
        null,
        h("legend", null, "Answers come from"),
        session.models.map((model) => one(model, compared)),
      ),
      session.models.length > 1 &&
        h(
          "fieldset",
          null,
          h("legend", null, `Compare side by side, up to ${MOST_COMPARED}`),
          session.models.map((model) => side(model, compared)),
        ),
    );
    if (focused) panel.querySelector(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  function one(model, compared) {
    const checked = compared.length === 0 && model.id === currentModel()?.id;
    return h(
      "label",
      { class: "option" },
      h("input", {
        type: "radio",
        name: "model",
        "data-key": `one ${model.id}`,
        checked,
        change: () => {
          setPreferences({ model: model.id });
          if (compared.length > 0) compare([]);
          tell("models");
        },
        keydown: closeOnEnter,
      }),
      h(
        "span",
        { class: "option-text" },
        h("span", null, model.label, model.extras?.kind && h("span", { class: "kind" }, model.extras.kind)),
        h("small", null, facts(model)),
      ),
    );
  }

  function side(model, compared) {
    const checked = compared.includes(model.id);
    return h(
      "label",
      { class: "option" },
      h("input", {
        type: "checkbox",
        "data-key": `side ${model.id}`,
        checked,
        disabled: !checked && compared.length >= MOST_COMPARED,
        change: (event) => sideBySide(model.id, event.currentTarget.checked),
      }),
      h("span", { class: "option-text" }, model.label),
    );
  }

  /** The first tick compares with the model that has answered so far. */
  function sideBySide(id, wanted) {
    const { lanes } = session.conversation;
    const before = lanes?.map((lane) => lane.model) ?? [currentModel().id];
    const others = before.filter((one) => one !== id);
    compare(wanted ? [...others, id] : others);
    if (!wanted && others.length === 1) setPreferences({ model: others[0] });
    tell("models");
  }

  function closeOnEnter(event) {
    if (event.key === "Enter") panel.hidePopover();
  }

  on("models", draw);
  on("conversation", draw);
  return { button, panel };
}

function facts(model) {
  const { extras } = model;
  if (!extras) return model.id;
  return [
    model.label === model.id ? null : model.id,
    extras.context && `${extras.context.toLocaleString("en")} tokens of context`,
    extras.thinks && "thinks",
    (extras.tools ?? []).length > 0 && extras.tools.map((name) => name.replace("_", " ")).join(", "),
  ]
    .filter(Boolean)
    .join(" · ");
}
