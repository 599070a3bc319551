// The list of conversations: found by words, opened, renamed, exported, deleted with a way back.

import { copied, download, h, icon, iconButton, toast } from "./dom.js";
import { conversationOf, deleteConversation, isBusy, on, restore, saveConversation, session } from "./session.js";
import * as store from "./store.js";
import { exportText, markdownText, trainingRow } from "./transfer.js";

const DAY_MILLISECONDS = 24 * 3600 * 1000;

/** The side of the page. open: {conversation(id), fresh(), keys(), settings(), hide()}. */
export function sidebarView(open) {
  const field = h("input", {
    type: "search",
    class: "search",
    placeholder: "Search",
    "aria-label": "Search conversations",
    input: () => draw(),
  });
  const items = h("div", { class: "items" });
  const node = h(
    "nav",
    { class: "sidebar", id: "sidebar", "aria-label": "Conversations" },
    h(
      "div",
      { class: "sidebar-head" },
      h("span", { class: "brand" }, icon("brand"), session.config.title),
      iconButton("menu", "Hide the list", open.hide),
    ),
    h("button", { type: "button", class: "fresh", click: open.fresh }, icon("plus"), "New chat"),
    h("label", { class: "search-field" }, icon("search"), field),
    items,
    h(
      "button",
      { type: "button", class: "side-button keys-button", click: open.keys },
      icon("keys"),
      "Keyboard shortcuts",
    ),
    h("button", { type: "button", class: "side-button", click: open.settings }, icon("gear"), "Settings"),
  );
  let drawing = 0;
  let drawn = "";

  async function draw() {
    const turn = ++drawing;
    const text = field.value.trim();
    const [heads, found] = await Promise.all([store.list(), text ? store.search(text) : null]);
    const shown = found ? heads.filter((head) => found.has(head.id)) : heads;
    const rows = shown.map((head) => ({
      ...head,
      isOpen: head.id === session.conversation.id,
      isBusy: isBusy(head.id),
    }));
    const key = JSON.stringify([text, rows]);
    // A name that is being typed is not taken away.
    if (turn !== drawing || key === drawn || items.querySelector(".rename:focus")) return;
    drawn = key;
    const { activeElement } = document;
    const focused = activeElement.closest(".item")?.dataset.conversation;
    items.replaceChildren(
      ...grouped(rows),
      ...(rows.length > 0
        ? []
        : [
            h(
              "p",
              { class: "nothing" },
              text ? "Nothing found." : "Conversations appear here. They stay in this browser.",
            ),
          ]),
    );
    if (focused) focusIn(focused, activeElement.className);
  }

  /** The row of a conversation as it is drawn now, which may be anew since; null where it is shown no more. */
  function rowOf(id) {
    return items.querySelector(`[data-conversation="${CSS.escape(id)}"]`);
  }

  function focusIn(id, part) {
    rowOf(id)?.querySelector(`.${part}`)?.focus();
  }

  function grouped(rows) {
    const groups = new Map();
    for (const head of rows) {
      const name = age(head.updated);
      groups.set(name, [...(groups.get(name) ?? []), item(head)]);
    }
    return [...groups].map(([name, entries]) =>
      h("section", { "aria-label": name }, h("h2", null, name), h("ul", null, entries)),
    );
  }

  function item(head) {
    const title = head.title || "Untitled";
    return h(
      "li",
      { class: "item", "data-conversation": head.id, "data-open": String(head.isOpen) },
      h(
        "button",
        {
          type: "button",
          class: "item-title",
          "aria-current": head.isOpen ? "page" : null,
          click: () => open.conversation(head.id),
        },
        title,
        head.isBusy && h("i", { class: "spinner", role: "img", "aria-label": "a reply is being written" }),
      ),
      iconButton("more", `More for ${title}`, (event) => menu(head, event.currentTarget), {
        "aria-haspopup": "menu",
      }),
    );
  }

  function menu(head, opener) {
    const entry = (picture, label, act) =>
      h(
        "button",
        {
          type: "button",
          role: "menuitem",
          click: () => {
            popover.hidePopover();
            act();
          },
        },
        icon(picture),
        label,
      );
    const popover = h(
      "div",
      {
        class: "menu",
        popover: "auto",
        role: "menu",
        "aria-label": head.title,
        // Before it is hidden, since the browser gives the focus back to what opened it, which the list may have drawn
        // anew; and only from within, since who has clicked elsewhere is there already.
        beforetoggle: (event) => {
          if (event.newState === "closed" && popover.contains(document.activeElement))
            focusIn(head.id, "icon-button");
        },
        toggle: (event) => {
          if (event.newState === "closed") popover.remove();
        },
        keydown: walk,
      },
      entry("edit", "Rename", () => rename(head)),
      entry("copy", "Copy as Markdown", () => copyOne(head)),
      entry("download", "Export", () => exportOne(head, "json")),
      entry("download", "Export as Markdown", () => exportOne(head, "md")),
      entry("download", "Export as training data", () => exportOne(head, "jsonl")),
      entry("trash", "Delete", () => remove(head)),
    );
    document.body.append(popover);
    place(popover, opener);
    popover.showPopover();
    popover.firstElementChild.focus();
  }

  function rename(head) {
    const row = rowOf(head.id);
    if (row === null) return;
    const title = h("input", {
      class: "rename",
      "aria-label": "Name of the conversation",
      value: head.title,
      keydown: keys,
      blur: back,
    });
    let isOver = false; // Taking the field away is itself a loss of focus.
    function back() {
      if (isOver) return;
      isOver = true;
      title.remove();
      drawn = "";
      draw();
    }
    async function keys(event) {
      if (event.key === "Escape") {
        event.stopPropagation();
        back();
      }
      if (event.key !== "Enter" || event.isComposing || title.value.trim() === "") return;
      const conversation = await conversationOf(head.id);
      conversation.title = title.value.trim();
      conversation.named = true;
      await saveConversation(conversation);
      back();
    }
    row.replaceChildren(title);
    title.select();
    title.focus();
  }

  async function exportOne(head, kind) {
    const conversation = await conversationOf(head.id);
    const name = (head.title || "conversation").replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 50);
    if (kind === "json") download(`${name}.json`, exportText([conversation]));
    else if (kind === "md") download(`${name}.md`, markdownText(conversation), "text/markdown");
    else download(`${name}.jsonl`, `${trainingRow(conversation)}\n`, "application/jsonl");
  }

  async function copyOne(head) {
    const done = await copied(markdownText(await conversationOf(head.id)));
    toast(done ? "Copied." : "The browser did not allow copying; export it instead.");
  }

  async function remove(head) {
    const kept = await deleteConversation(head.id);
    const undo = async () => {
      await restore(kept);
      draw();
    };
    toast(`Deleted “${head.title}”.`, { label: "Undo", act: undo });
  }

  on("list", draw);
  on("activity", draw);
  on("conversation", draw);
  return { node, draw, focusSearch: () => field.focus() };
}

function age(time) {
  const days = (new Date().setHours(0, 0, 0, 0) - new Date(time).setHours(0, 0, 0, 0)) / DAY_MILLISECONDS;
  if (days < 1) return "Today";
  if (days < 2) return "Yesterday";
  if (days < 7) return "Last seven days";
  return new Date(time).toLocaleDateString("en", { month: "long", year: "numeric" });
}

/** Arrow keys go through the entries of a menu. */
function walk(event) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const entries = [...event.currentTarget.querySelectorAll("button, input")];
  entries.at((entries.indexOf(document.activeElement) + step) % entries.length).focus();
}

/** Put a popover beneath what opened it, inside the window. */
function place(popover, opener) {
  const box = opener.getBoundingClientRect();
  const width = 230;
  popover.style.left = `${Math.max(8, Math.min(box.left, innerWidth - width - 8))}px`;
  if (box.bottom > innerHeight - 300) popover.style.bottom = `${innerHeight - box.top + 4}px`;
  else popover.style.top = `${box.bottom + 4}px`;
}
