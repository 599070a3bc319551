// The keys that do something, and the list of them.

import { h, openDialog } from "./dom.js";

const COMMAND = /Mac|iP(hone|ad|od)/.test(navigator.userAgent) ? "⌘" : "Ctrl";

const SHORTCUTS = [
  ["Enter", "send"],
  ["Shift Enter", "new line"],
  ["Esc", "stop the reply"],
  ["↑", "edit the last message, from an empty field"],
  ["Shift Esc", "go to the message field"],
  [`${COMMAND} Shift O`, "new chat"],
  [`${COMMAND} Shift S`, "show or hide the list of conversations"],
  [`${COMMAND} K`, "search conversations"],
  [`${COMMAND} /`, "this list"],
];

/** Show the list. */
export function openShortcuts() {
  openDialog(
    "Keyboard shortcuts",
    h(
      "dl",
      { class: "shortcuts" },
      SHORTCUTS.map(([keys, what]) =>
        h(
          "div",
          null,
          h(
            "dt",
            null,
            keys.split(" ").map((key) => h("kbd", null, key)),
          ),
          h("dd", null, what),
        ),
      ),
    ),
  );
}

/**
 * Do what a key is for. act: {search(), fresh(), sidebar(), field(), isBusy(), stop()}. In a dialog only what belongs to
 * it is done, and the browser's own keys stay its own.
 */
export function shortcut(event, act) {
  // A browser that fills in a field tells of a key without a name.
  if (!event.key || document.querySelector("dialog[open]")) return;
  const command = event.ctrlKey || event.metaKey;
  const key = event.key.toLowerCase();
  const isCovered = document.querySelector(":popover-open") !== null;
  const done = () => event.preventDefault();
  if (command && key === "/") {
    done();
    openShortcuts();
  } else if (command && !event.shiftKey && key === "k") {
    done();
    act.search();
  } else if (command && event.shiftKey && key === "o") {
    done();
    act.fresh();
  } else if (command && event.shiftKey && key === "s") {
    done();
    act.sidebar();
  } else if (key === "escape" && event.shiftKey && !isCovered) {
    act.field();
  } else if (key === "escape" && act.isBusy() && !isCovered) {
    act.stop();
  } else if (key === "arrowup" && event.target.id === "composer" && event.target.value === "") {
    const last = [...document.querySelectorAll(".question [aria-label='Edit your message']")].at(-1);
    if (last) {
      done();
      last.click();
    }
  }
}
