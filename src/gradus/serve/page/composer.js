// Where the person writes: the field, the switches for thinking and tools, and the button that sends or stops.

import { contextUse } from "./context_use.js";
import { announce, h, icon, iconButton } from "./dom.js";
import { preferences, setPreferences } from "./preferences.js";
import { ask, currentModel, isBusy, on, session, stop } from "./session.js";
import { toolName } from "./tool_names.js";

const DRAFTS = "gradus-drafts";
const NARROW = matchMedia("(max-width: 760px)");

/** The form at the foot of the page. open: {generation, setKey}. */
export function composerView(open) {
  const field = h("textarea", {
    id: "composer",
    rows: 1,
    placeholder: "Write a message",
    "aria-label": "Message",
    enterkeyhint: "send",
    input: () => {
      keepDraft(field.value);
      fit();
      draw();
    },
    keydown: keys,
  });
  const button = h("button", { type: "submit", class: "send" });
  const switches = h("div", { class: "switches", role: "group", "aria-label": "Thinking and tools" });
  const use = h("span", { class: "context-use" });
  const form = h(
    "form",
    { class: "composer", submit },
    field,
    h(
      "div",
      { class: "composer-row" },
      switches,
      use,
      iconButton("sliders", "Generation settings", open.generation),
      button,
    ),
  );

  function submit(event) {
    event.preventDefault();
    if (isBusy()) return stop();
    if (field.value.trim() === "") return undefined;
    const text = field.value;
    field.value = "";
    keepDraft("");
    fit();
    return ask(text);
  }

  function keys(event) {
    // Enter that ends the composition of a character belongs to the input method.
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    if (isBusy()) announce("Stop the reply first, or wait for its end");
    else form.requestSubmit();
  }

  function fit() {
    field.style.height = "auto";
    field.style.height = `${field.scrollHeight}px`;
  }

  function draw() {
    const busy = isBusy();
    button.replaceChildren(icon(busy ? "stop" : "send"));
    button.setAttribute("aria-label", busy ? "Stop the reply" : "Send");
    button.title = busy ? "Stop (Esc)" : "Send (Enter)";
    button.disabled = !busy && field.value.trim() === "";
    use.textContent = contextUse(session.conversation, currentModel());
  }

  function drawSwitches() {
    const focused = switches.contains(document.activeElement) ? document.activeElement.dataset.name : null;
    const models = comparedModels();
    const thinks = models.some((model) => model.extras?.thinks);
    const tools = [...new Set(models.flatMap((model) => model.extras?.tools ?? []))];
    switches.replaceChildren(
      ...[
        thinks &&
          choice("think", "thought", "Think", [
            ["auto", "auto"],
            ["on", "on"],
            ["off", "off"],
          ]),
        tools.includes("web_search") &&
          choice("search", "globe", "Search", [
            ["auto", "auto"],
            ["force", "always"],
            ["off", "off"],
          ]),
        ...tools.filter((name) => name !== "web_search").map(toolSwitch),
      ].filter(Boolean),
    );
    if (focused) switches.querySelector(`[data-name="${focused}"]`)?.focus();
  }

  function comparedModels() {
    const { lanes } = session.conversation;
    const model = currentModel();
    return lanes
      ? (session.models ?? []).filter((one) => lanes.some((lane) => lane.model === one.id))
      : model
        ? [model]
        : [];
  }

  function choice(name, picture, label, options) {
    const value = preferences[name];
    const select = h(
      "select",
      {
        "aria-label": label,
        "data-name": name,
        change: () => {
          setPreferences({ [name]: select.value });
          drawSwitches();
        },
      },
      options.map(([key, text]) =>
        h("option", { value: key, selected: key === value }, NARROW.matches ? text : `${label}: ${text}`),
      ),
    );
    return h("span", { class: "switch", "data-on": String(value !== "off") }, icon(picture), select);
  }

  function toolSwitch(name) {
    const isOn = !preferences.toolsOff.includes(name);
    const [picture, label] = toolName(name);
    return h(
      "button",
      {
        type: "button",
        class: "switch",
        "data-name": name,
        "data-on": String(isOn),
        "aria-label": label,
        "aria-pressed": String(isOn),
        click: () => {
          setPreferences({
            toolsOff: isOn ? [...preferences.toolsOff, name] : preferences.toolsOff.filter((one) => one !== name),
          });
          drawSwitches();
        },
      },
      icon(picture),
      h("span", { class: "switch-label" }, label),
    );
  }

  NARROW.addEventListener("change", drawSwitches);
  on("activity", draw);
  on("conversation", () => {
    field.value = draft();
    fit();
    draw();
    drawSwitches();
  });
  on("models", () => {
    draw();
    drawSwitches();
  });
  return { node: h("div", { class: "foot-bar" }, form), focusField: () => field.focus() };
}

/** What was begun in each conversation and not sent, for this tab. */
function drafts() {
  try {
    return JSON.parse(sessionStorage.getItem(DRAFTS) ?? "{}") ?? {};
  } catch {
    return {};
  }
}

function draft() {
  return drafts()[draftName()] ?? "";
}

function keepDraft(text) {
  const all = drafts();
  if (text) all[draftName()] = text;
  else delete all[draftName()];
  sessionStorage.setItem(DRAFTS, JSON.stringify(all));
}

/** A conversation without turns has no name that lasts, so all such share one draft. */
function draftName() {
  return session.conversation.nodes.root.children.length > 0 ? session.conversation.id : "new";
}
