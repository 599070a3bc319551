// The conversation in the middle of the page: one column, or a row of replies for each question where models are compared.

import { leafBelow, pathTo, siblings } from "./conversation.js";
import { announce, copyButton, h, icon, iconButton } from "./dom.js";
import { answer, continueWith, editQuestion, modelNamed, on, regenerate, session, showBranch } from "./session.js";
import { turnFoot, turnView } from "./turn_view.js";

const NEAR_BOTTOM_PIXELS = 80;

/** The thread in `scroller`. open: {setKey, setLimit, empty(): a node for a conversation without turns}. */
export function threadView(scroller, open) {
  const column = h("div", { class: "column" });
  const jump = h(
    "button",
    {
      type: "button",
      class: "jump",
      hidden: true,
      click: () => {
        sticks = true;
        follow();
      },
    },
    icon("down"),
    "Latest",
  );
  scroller.append(column, h("div", { class: "jump-place" }, jump));
  const views = new WeakMap(); // node -> its view, so that folds stay as they are
  const live = new Map(); // id -> view of a reply in the making
  let sticks = true;
  let top = 0;

  scroller.addEventListener(
    "scroll",
    () => {
      const left = scroller.scrollHeight - scroller.scrollTop - scroller.clientHeight;
      // Only going up leaves the foot: a thread that has grown since leaves it behind without anybody's wish.
      if (left < NEAR_BOTTOM_PIXELS) sticks = true;
      else if (scroller.scrollTop < top) sticks = false;
      top = scroller.scrollTop;
      jump.hidden = sticks;
    },
    { passive: true },
  );

  function follow() {
    if (sticks) scroller.scrollTop = scroller.scrollHeight;
    jump.hidden = sticks;
  }

  function viewOf(node) {
    if (!views.has(node)) {
      const view = turnView(node.turn, { regenerate: () => regenerate(node.id), ...open });
      views.set(node, view);
    }
    if (node.turn.status === "streaming") live.set(node.id, views.get(node));
    return views.get(node);
  }

  function reply(node, head) {
    const view = viewOf(node);
    const under = node.turn.status === "streaming" ? null : foot(node);
    return h(
      "article",
      { class: "reply", "data-id": node.id, "aria-label": `Reply of ${node.turn.label}` },
      head,
      view.node,
      under,
    );
  }

  function question(node) {
    const text = h("div", { class: "bubble" }, node.text);
    const article = h(
      "article",
      { class: "question", "data-id": node.id, "aria-label": "Your message" },
      text,
      h(
        "div",
        { class: "foot" },
        pager(node),
        copyButton(() => node.text, "Copy your message"),
        iconButton("edit", "Edit your message", () => editInPlace(article, node)),
      ),
    );
    return article;
  }

  function draw(what) {
    live.clear();
    const { conversation } = session;
    const rows = conversation.lanes
      ? comparedRows(conversation)
      : pathTo(conversation, leafBelow(conversation)).map((node) =>
          node.role === "user" ? question(node) : reply(node),
        );
    const last = conversation.nodes[leafBelow(conversation)];
    if (last.role === "user" && !conversation.lanes) {
      rows.push(
        h(
          "button",
          { type: "button", class: "button answer", click: () => answer(last.id) },
          icon("again"),
          "Answer this",
        ),
      );
    }
    column.replaceChildren(...(rows.length > 0 ? rows : [open.empty()]));
    column.classList.toggle("wide", Boolean(conversation.lanes));
    sticks = what !== "stay";
    follow();
  }

  /** Shared turns take the whole width; from where the lanes part, each question has a row of replies. */
  function comparedRows(conversation) {
    const paths = conversation.lanes.map((lane) => pathTo(conversation, lane.leaf));
    const rows = [];
    for (let depth = 0; depth < Math.max(...paths.map((path) => path.length)); depth += 1) {
      const nodes = paths.map((path) => path[depth]).filter(Boolean);
      const different = [...new Set(nodes)];
      if (nodes[0].role === "user") rows.push(question(nodes[0]));
      else if (different.length === 1 && nodes.length === paths.length) rows.push(past(reply(nodes[0])));
      else {
        const replies = paths.map((path, index) => {
          const isLast = path.length === depth + 1;
          const shown = path[depth] && reply(path[depth], laneHead(conversation.lanes[index], isLast));
          return isLast || !shown ? shown : past(shown);
        });
        rows.push(
          h("div", { class: "lanes", role: "group", "aria-label": "Replies side by side", tabindex: 0 }, replies),
        );
      }
    }
    return rows.length > 0 ? rows : [open.empty()];
  }

  /** A reply that the comparison has passed by is not asked for again: what follows it would lose its place. */
  function past(article) {
    article.classList.add("past");
    return article;
  }

  function laneHead(lane, isLast) {
    const model = modelNamed(lane.model);
    return h(
      "header",
      { class: "lane-head" },
      h("b", null, model?.label ?? lane.model),
      model?.extras?.kind && h("span", { class: "kind" }, model.extras.kind),
      isLast && h("button", { type: "button", class: "link", click: () => continueWith(lane) }, "Go on with this one"),
    );
  }

  let frame = 0;
  let notBefore = 0;
  const changed = new Set();

  /** Draw what has changed once a frame, and with pauses in proportion where drawing is slow. */
  function schedule() {
    frame ||= requestAnimationFrame((now) => {
      frame = 0;
      if (now < notBefore) return schedule();
      const begun = performance.now();
      for (const id of changed) live.get(id)?.update();
      changed.clear();
      follow();
      notBefore = now + 3 * (performance.now() - begun);
      return undefined;
    });
  }

  on("turn", (id) => {
    const node = session.conversation.nodes[id];
    if (!node || !live.has(id)) return;
    if (node.turn.status === "streaming") {
      changed.add(id);
      schedule();
    } else {
      finish(node);
    }
  });

  function finish(node) {
    const view = live.get(node.id);
    live.delete(node.id);
    view.update();
    const article = column.querySelector(`[data-id="${node.id}"]`);
    article.append(foot(node));
    follow();
    announce(
      { done: "The reply is complete", stopped: "Stopped", cut: "The reply reached its token limit" }[
        node.turn.status
      ] ?? "",
    );
  }

  on("conversation", draw);
  on("models", () => {
    if (column.querySelector(".empty")) draw();
  });
}

function foot(node) {
  return turnFoot(
    node.turn,
    { regenerate: () => regenerate(node.id) },
    pager(node),
    Boolean(session.conversation.lanes),
  );
}

/** Which of several branches is shown, and buttons to the others; null where there is one. */
function pager(node) {
  const all = siblings(session.conversation, node.id);
  if (all.length < 2 || session.conversation.lanes) return null;
  const at = all.indexOf(node.id);
  const what = node.role === "user" ? "version" : "reply";
  return h(
    "span",
    { class: "pager", role: "group", "aria-label": `Other ${what === "reply" ? "replies" : "versions"}` },
    iconButton("left", `Previous ${what}`, () => turnTo(all[at - 1], `Previous ${what}`), { disabled: at === 0 }),
    h("span", null, `${at + 1} / ${all.length}`),
    iconButton("right", `Next ${what}`, () => turnTo(all[at + 1], `Next ${what}`), { disabled: at === all.length - 1 }),
  );
}

/** Show a branch; who pressed a button with the keyboard stays at it, or at its neighbour where it has no further use. */
function turnTo(id, label) {
  showBranch(id);
  const buttons = [...document.querySelectorAll(`[data-id="${id}"] .pager button:enabled`)];
  (buttons.find((button) => button.getAttribute("aria-label") === label) ?? buttons[0]).focus({ preventScroll: true });
}

/** Put a field in the place of a question. */
function editInPlace(article, node) {
  const before = [...article.childNodes];
  const field = h("textarea", {
    class: "edit-field",
    "aria-label": "Your message, edited",
    rows: 3,
    value: node.text,
    keydown: keys,
  });
  const back = () => {
    article.replaceChildren(...before);
    article.querySelector(".icon-button:last-child").focus();
  };
  const send = () => {
    if (field.value.trim()) editQuestion(node.id, field.value);
  };
  function keys(event) {
    if (event.isComposing) return;
    if (event.key === "Escape") {
      event.stopPropagation();
      back();
    }
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      send();
    }
  }
  article.replaceChildren(
    h(
      "div",
      { class: "edit" },
      field,
      h(
        "div",
        { class: "edit-actions" },
        h("button", { type: "button", class: "button", click: back }, "Cancel"),
        h("button", { type: "button", class: "button primary", click: send }, "Send as a new branch"),
      ),
    ),
  );
  field.focus();
}
