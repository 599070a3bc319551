// The page from its start: what the server says of itself, the parts in their places, addresses and keys.

import { loadConfig } from "./api.js";
import { composerView } from "./composer.js";
import { h, icon, iconButton, toast } from "./dom.js";
import { openGeneration } from "./generation.js";
import { pickerView } from "./picker.js";
import { keyFor, preferences, setPreferences } from "./preferences.js";
import {
  ask,
  connection,
  currentModel,
  isBusy,
  on,
  openConversation,
  refreshModels,
  rereadConversation,
  session,
  startConversation,
  stop,
} from "./session.js";
import { applyTheme, openSettings } from "./settings.js";
import { openShortcuts, shortcut } from "./shortcuts.js";
import { sidebarView } from "./sidebar.js";
import { onOtherTab, openStore } from "./store.js";
import { threadView } from "./thread.js";

const NARROW = matchMedia("(max-width: 760px)");
const SUGGESTIONS = [
  "What is a 17% tip on 45 dollars?",
  "Which weekday was 20 July 1969?",
  "How many times does the letter r occur in strawberry?",
  "Tell me a short story about a lighthouse.",
];

async function start() {
  applyTheme();
  session.config = await loadConfig();
  document.title = session.config.title;
  try {
    await openStore();
  } catch (error) {
    document
      .getElementById("page")
      .replaceChildren(
        h(
          "p",
          { class: "starting" },
          `This browser does not let the page keep conversations (${error.message}). A private window, or a setting for site data, may be the reason.`,
        ),
      );
    return;
  }
  const composer = build();
  // What is stored shows itself at once, whatever the server does; nothing can be asked before its models are known.
  composer.node.inert = true;
  await follow();
  addEventListener("hashchange", follow);
  await refreshModels();
  composer.node.inert = false;
  if (!NARROW.matches) composer.focusField();
  if (session.config.needs_key && !preferences.url && !connection().key) openSettings();
}

function build() {
  const scroller = h("main", { class: "scroller", id: "thread", tabindex: -1 });
  const hide = () => showSidebar(false);
  const sidebar = sidebarView({
    conversation: (id) => go(id),
    fresh: () => go(""),
    keys: openShortcuts,
    settings: openSettings,
    hide,
  });
  const picker = pickerView({ settings: openSettings });
  const composer = composerView({ generation: openGeneration });
  const opener = iconButton("menu", "Show the list of conversations", () => showSidebar(true), {
    class: "icon-button show-list",
    "aria-controls": "sidebar",
  });
  const top = h(
    "header",
    { class: "top" },
    opener,
    picker.button,
    h("span", { class: "spring" }),
    iconButton("plus", "New chat", () => go(""), { class: "icon-button fresh-small" }),
  );
  const cover = h("div", { class: "cover", click: hide });
  document.getElementById("page").replaceChildren(
    h(
      "a",
      {
        class: "skip",
        href: "#composer",
        click: (event) => {
          event.preventDefault();
          composer.focusField();
        },
      },
      "Skip to the message field",
    ),
    sidebar.node,
    cover,
    h("div", { class: "middle" }, top, scroller, composer.node),
    picker.panel,
  );
  threadView(scroller, { setKey: openSettings, setLimit: openGeneration, empty });
  on("conversation", (what) => {
    history.replaceState(null, "", address());
    if (!NARROW.matches && what !== "stay") composer.focusField();
  });
  on("activity", () => history.replaceState(null, "", address()));
  on("trouble", toast);
  onOtherTab((id) => {
    sidebar.draw();
    rereadConversation(id).catch((error) => toast(error.message));
  });
  const keys = {
    search: () => {
      showSidebar(true);
      sidebar.focusSearch();
    },
    fresh: () => go(""),
    sidebar: () => showSidebar(!document.body.classList.contains("with-sidebar")),
    field: composer.focusField,
    isBusy,
    stop,
  };
  addEventListener("keydown", (event) => shortcut(event, keys));
  showSidebar(preferences.sidebar && !NARROW.matches, false);
  sidebar.draw();
  return composer;
}

function showSidebar(shown, kept = true) {
  document.body.classList.toggle("with-sidebar", shown);
  const sidebar = document.getElementById("sidebar");
  sidebar.inert = !shown;
  if (kept) (shown ? sidebar.querySelector("button") : document.querySelector(".show-list")).focus();
  if (kept && !NARROW.matches) setPreferences({ sidebar: shown });
}

function address() {
  return session.conversation.nodes.root.children.length > 0
    ? `#${session.conversation.id}`
    : location.pathname + location.search;
}

/** Open a conversation by its id, or a new one by "". */
function go(id) {
  if (NARROW.matches) showSidebar(false);
  if (id === "") startConversation();
  else if (location.hash === `#${id}`) return;
  else location.hash = id;
}

/** Show what the address names. */
async function follow() {
  try {
    const id = decodeURIComponent(location.hash.slice(1));
    if (id && (await openConversation(id))) return;
    if (id) toast("There is no such conversation in this browser.");
  } catch (error) {
    toast(error.message);
  }
  startConversation();
}

function empty() {
  const model = currentModel();
  const problem = session.modelsError;
  if (session.models === null)
    return h("div", { class: "empty", role: "status" }, h("p", null, "Asking the server for its models …"));
  if (problem) {
    return h(
      "div",
      { class: "empty" },
      h("h1", null, "No connection yet"),
      h("p", { class: "failure-text", role: "alert" }, problem.message),
      h(
        "div",
        { class: "button-row" },
        h(
          "button",
          { type: "button", class: "button primary", click: openSettings },
          icon(problem.kind === "key" ? "key" : "gear"),
          problem.kind === "key" ? "Enter a key" : "Connection settings",
        ),
        h("button", { type: "button", class: "button", click: refreshModels }, icon("again"), "Try again"),
      ),
    );
  }
  return h(
    "div",
    { class: "empty" },
    h("h1", null, "What would you like to know?"),
    h(
      "p",
      null,
      model
        ? `You are talking to ${model.label}. What you write stays in this browser and with the server.`
        : "The server offers no model.",
    ),
    model &&
      h(
        "ul",
        { class: "suggestions", "aria-label": "Suggestions" },
        SUGGESTIONS.map((text) => h("li", null, h("button", { type: "button", click: () => ask(text) }, text))),
      ),
  );
}

start();
