// How a reply looks: thinking that folds, cards of tool calls, text, and how it ended.

import { copyButton, h, icon, iconButton } from "./dom.js";
import { hostOf, markdownView } from "./markdown.js";
import { toolName } from "./tool_names.js";
import { contentText, turnText } from "./turn.js";

/** The view of a turn: node, and update() that draws what has come since. act: {regenerate, setKey, setLimit}. */
export function turnView(turn, act) {
  const blocks = h("div", { class: "blocks" });
  const ending = h("div", { class: "ending" });
  const views = [];
  let ended = false;

  function update() {
    // Blocks before the last are final, but for calls that still wait for their results.
    const firstOpen = Math.max(0, views.length - 1);
    turn.blocks.forEach((block, index) => {
      if (!views[index]) {
        views[index] = blockView(block);
        blocks.append(views[index].node);
      }
      if (index >= firstOpen || block.type === "call")
        views[index].update(block, turn.status === "streaming" && index === turn.blocks.length - 1);
    });
    if (turn.status === "streaming") {
      ending.replaceChildren(...(turn.blocks.length === 0 ? [waiting()] : []));
    } else if (!ended) {
      ended = true;
      views.forEach((view, index) => view.update(turn.blocks[index], false));
      ending.replaceChildren(...endingOf(turn, act));
    }
  }
  update();
  return { node: h("div", { class: "turn" }, blocks, ending), update };
}

function waiting() {
  return h("div", { class: "waiting", role: "img", "aria-label": "Waiting for the reply" }, h("i"), h("i"), h("i"));
}

function blockView(block) {
  if (block.type === "think") return thinkView();
  return block.type === "call" ? callView() : textView();
}

function textView() {
  const view = markdownView();
  let closed = false;
  return {
    node: view.node,
    update(block, isOpen) {
      view.update(block.text);
      if (!isOpen && !closed) {
        closed = true;
        view.close();
      }
    },
  };
}

function thinkView() {
  const label = h("span");
  const text = document.createTextNode("");
  const body = h("div", { class: "think-body" }, text);
  let touched = false;
  const node = h(
    "details",
    { class: "think" },
    h(
      "summary",
      {
        click: () => {
          touched = true;
        },
      },
      icon("thought"),
      label,
      icon("down"),
    ),
    body,
  );
  return {
    node,
    update(block, isOpen) {
      text.appendData(block.text.slice(text.length));
      node.classList.toggle("live", isOpen);
      label.textContent = isOpen
        ? "Thinking"
        : block.started
          ? `Thought for ${seconds(block.ended - block.started)}`
          : "Thoughts";
      if (!touched) node.open = isOpen;
      if (isOpen) body.scrollTop = body.scrollHeight;
    },
  };
}

function callView() {
  const summary = h("summary");
  const body = h("div", { class: "call-body" });
  const node = h("details", { class: "call" }, summary, body);
  let drawn = null;
  return {
    node,
    update(block, isOpen) {
      const state = block.result
        ? block.result.error
          ? "failed"
          : "done"
        : block.client
          ? "idle"
          : isOpen
            ? "running"
            : "unfinished";
      const key = `${state} ${block.client ? block.arguments.length : ""}`;
      if (key === drawn) return;
      drawn = key;
      node.dataset.state = state;
      const [picture, name] = toolName(block.name);
      summary.replaceChildren(
        icon(picture),
        h("b", null, name),
        h("span", { class: "call-asked" }, asked(block)),
        h("span", { class: "call-outcome" }, outcome(block, state)),
        icon("down"),
      );
      body.replaceChildren(
        ...argumentParts(block.arguments),
        ...(block.result ? [part(block.result.error ? "error" : "result", resultView(block.result))] : []),
      );
    },
  };
}

/** The arguments in a few words: the only one as it is. */
function asked(block) {
  if (typeof block.arguments === "string") return block.arguments;
  const values = Object.values(block.arguments);
  return values.length === 1 && typeof values[0] !== "object" ? String(values[0]) : JSON.stringify(block.arguments);
}

/** Each argument under its name; the text of arguments that are still arriving as it is. */
function argumentParts(values) {
  const entries = typeof values === "string" ? [["arguments", values]] : Object.entries(values);
  return entries.map(([name, value]) => part(name, h("pre", { tabindex: 0 }, contentText(value))));
}

function outcome(block, state) {
  if (state === "running") return [h("i", { class: "spinner" }), "running"];
  if (state === "idle") return "not run: this page runs no tools";
  if (state === "unfinished") return "no result";
  if (state === "failed") return "failed";
  const results = searchResults(block.result.content);
  if (results) return results.length === 1 ? "1 result" : `${results.length} results`;
  const { content } = block.result;
  if (content.length > 40 || content.includes("\n")) return "done";
  return /^[\d.+−-]/.test(content) ? `= ${content}` : content;
}

function part(title, content) {
  return h("div", { class: "call-part" }, h("div", { class: "call-part-title" }, title), content);
}

function resultView(result) {
  const results = result.error ? null : searchResults(result.content);
  if (!results) return h("pre", { tabindex: 0 }, result.content);
  return h(
    "ol",
    { class: "sources" },
    results.map((one) =>
      h("li", null, sourceTitle(one), h("div", { class: "source-text" }, String(one.text ?? one.snippet ?? ""))),
    ),
  );
}

/** The rows of {"results": [{title, url, text}]}, or null where the content is something else. */
function searchResults(content) {
  let value;
  try {
    value = JSON.parse(content);
  } catch {
    return null;
  }
  const rows = value?.results;
  return Array.isArray(rows) && rows.every((row) => typeof row?.title === "string") ? rows : null;
}

function sourceTitle(one) {
  const url = String(one.url ?? "");
  const title = one.title || url || "Untitled";
  const host = /^https?:/i.test(url) ? hostOf(url) : "";
  if (!host) return [h("b", null, title), h("span", { class: "source-url" }, url)];
  return [
    h("a", { href: url, target: "_blank", rel: "noopener noreferrer nofollow" }, title),
    h("span", { class: "source-url" }, host),
  ];
}

const ENDINGS = {
  stopped: "You stopped this reply.",
  interrupted: "The page was closed during this reply, or another tab is still writing it.",
};

function endingOf(turn, act) {
  const parts = [];
  if (ENDINGS[turn.status]) parts.push(h("p", { class: "notice" }, ENDINGS[turn.status]));
  if (turn.status === "cut") {
    parts.push(
      h(
        "p",
        { class: "notice" },
        "The reply reached its token limit. ",
        h("button", { type: "button", class: "link", click: act.setLimit }, "Change the limit"),
      ),
    );
  }
  if (turn.status === "done" && turn.blocks.length === 0)
    parts.push(h("p", { class: "notice" }, "The model ended its reply without saying anything."));
  if (turn.status === "failed") parts.push(failure(turn, act));
  return parts;
}

const FAILURES = {
  key: "The server wants a key",
  busy: "The server is busy",
  refused: "The server refused the request",
  server: "The server failed",
  unreachable: "The server cannot be reached",
  stream: "The reply broke off",
  page: "The page failed",
};

function failure(turn, act) {
  const { kind, message, retryAfter } = turn.error;
  return h(
    "div",
    { class: "failure", role: "alert" },
    icon("warning"),
    h(
      "div",
      null,
      h("b", null, FAILURES[kind] ?? FAILURES.page),
      h("p", null, message, retryAfter ? ` Try again in ${retryAfter} s.` : ""),
      h(
        "div",
        { class: "failure-actions" },
        kind === "key" &&
          h("button", { type: "button", class: "button", click: act.setKey }, icon("key"), "Enter a key"),
        h("button", { type: "button", class: "button again", click: act.regenerate }, icon("again"), "Try again"),
      ),
    ),
  );
}

/** The row under a finished reply: copy, answer again, who said it and how fast. */
export function turnFoot(turn, act, pager, isLane) {
  const spoken = turnText(turn);
  return h(
    "div",
    { class: "foot" },
    pager,
    spoken && copyButton(() => turnText(turn), "Copy the reply"),
    iconButton("again", "Answer again", act.regenerate, { class: "icon-button again" }),
    h("span", { class: "figures", title: reading(turn) }, figures(turn, isLane)),
    budgetBar(turn),
  );
}

/** How much of the think budget was thought; null where none was set. */
function budgetBar(turn) {
  if (!turn.thinkBudget || turn.usage === null) return null;
  const used = Math.min(turn.usage.thinking, turn.thinkBudget);
  const said = `${used.toLocaleString("en")} of ${turn.thinkBudget.toLocaleString("en")} tokens of the think budget`;
  return h("progress", { class: "budget", max: turn.thinkBudget, value: used, title: said, "aria-label": said });
}

/** What was read before the first token, and how long that took. */
function reading(turn) {
  if (!turn.usage?.prompt || turn.firstToken === null) return null;
  const wait = ((turn.firstToken - turn.started) / 1000).toFixed(1);
  return `${turn.usage.prompt.toLocaleString("en")} tokens read, the first written after ${wait} s`;
}

function figures(turn, isLane) {
  const num = turn.usage?.completion;
  const spent = turn.ended - turn.firstToken;
  const speed = num > 1 && spent > 0 ? `${rate((num - 1) / (spent / 1000))} tokens/s` : null;
  const thought = turn.usage?.thinking ? ` (${turn.usage.thinking.toLocaleString("en")} thinking)` : "";
  const tokens = num && `${num.toLocaleString("en")} tokens${thought}`;
  return [!isLane && turn.label, tokens, speed].filter(Boolean).join(" · ");
}

function rate(value) {
  return value < 10 ? value.toFixed(1) : Math.round(value).toLocaleString("en");
}

function seconds(milliseconds) {
  const value = milliseconds / 1000;
  if (value < 0.95) return "a moment";
  return value < 10 ? `${value.toFixed(1)} s` : value < 90 ? `${Math.round(value)} s` : `${Math.round(value / 60)} min`;
}
