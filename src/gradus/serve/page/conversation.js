// A conversation: a tree of turns, since an edited question or a repeated answer opens a branch and loses nothing.
//
// conversation: {id, version, title, named, created, updated, system, model, nodes, lanes}
// nodes: {id: {id, parent, role, children, chosen, text | turn}}; the one named "root" has no role. `chosen` is the child
// that is shown. lanes: null, or while models are compared [{model, leaf}]: each model goes on from a leaf of its own.

import { finishTurn, turnMessages, turnText } from "./turn.js";

export const ROOT = "root";
const VERSION = 1;
const STATUSES = ["streaming", "done", "stopped", "cut", "interrupted"];

/** Ids of the nodes that this page has written, and of those that it has taken out again. */
const written = new Set();
const removed = new Set();

export function newConversation() {
  const now = Date.now();
  return {
    id: crypto.randomUUID?.() ?? randomId(),
    version: VERSION,
    title: "",
    named: false,
    created: now,
    updated: now,
    system: "",
    model: "",
    nodes: { [ROOT]: { id: ROOT, parent: null, children: [], chosen: null } },
    lanes: null,
  };
}

/** Pages that came over plain http from another machine have no randomUUID. */
function randomId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

function addNode(conversation, parent, node) {
  const id = randomId().slice(0, 12);
  written.add(id);
  conversation.nodes[id] = { id, parent, children: [], chosen: null, ...node };
  conversation.nodes[parent].children.push(id);
  conversation.nodes[parent].chosen = id;
  conversation.updated = Date.now();
  return conversation.nodes[id];
}

export function addQuestion(conversation, parent, text) {
  if (!conversation.named && conversation.title === "") conversation.title = titleFrom(text);
  return addNode(conversation, parent, { role: "user", text });
}

export function addReply(conversation, parent, turn) {
  return addNode(conversation, parent, { role: "assistant", turn });
}

/** Take out an answer that nothing follows, such as a failed one that is asked again. */
export function removeNode(conversation, id) {
  const { parent } = conversation.nodes[id];
  const above = conversation.nodes[parent];
  above.children = above.children.filter((child) => child !== id);
  if (above.chosen === id) above.chosen = above.children.at(-1) ?? null;
  delete conversation.nodes[id];
  removed.add(id);
}

/**
 * Take over from the stored conversation what another tab has written to it since this page read it: its nodes as they
 * stand there, and new ones as branches beside ours. Says whether there were new ones. What is shown here stays shown.
 */
export function adopt(conversation, stored) {
  let num = 0;
  for (const open = [ROOT]; open.length > 0; ) {
    const theirs = stored.nodes[open.pop()];
    open.push(...theirs.children);
    const { id } = theirs;
    const ours = conversation.nodes[id];
    if (ours === undefined && !(removed.has(id) && theirs.children.length === 0)) {
      const above = conversation.nodes[theirs.parent];
      conversation.nodes[id] = { ...theirs, children: [], chosen: null };
      above.children.push(id);
      above.chosen ??= id;
      num += 1;
    } else if (theirs.turn && ours && !written.has(id)) {
      ours.turn = theirs.turn;
    }
  }
  if (stored.named && !conversation.named) Object.assign(conversation, { named: true, title: stored.title });
  return num > 0;
}

export function titleFrom(text) {
  const line = text.trim().replace(/\s+/g, " ");
  if (line.length <= 60) return line;
  const cut = [...line].slice(0, 60).join("");
  return `${cut.slice(0, Math.max(cut.lastIndexOf(" "), 30))}…`;
}

/** The last node of the branch that is shown from `id` on. */
export function leafBelow(conversation, id = ROOT) {
  let node = conversation.nodes[id];
  while (node.chosen !== null) node = conversation.nodes[node.chosen];
  return node.id;
}

/** The nodes from the first question down to `leaf`, the root left out. */
export function pathTo(conversation, leaf) {
  const path = [];
  for (let id = leaf; id !== ROOT; id = conversation.nodes[id].parent) path.unshift(conversation.nodes[id]);
  return path;
}

/** Show the branch that a node stands on. */
export function choose(conversation, id) {
  for (let node = conversation.nodes[id]; node.parent !== null; node = conversation.nodes[node.parent]) {
    conversation.nodes[node.parent].chosen = node.id;
  }
}

/** The nodes that stand where this one stands, itself among them. */
export function siblings(conversation, id) {
  return conversation.nodes[conversation.nodes[id].parent].children;
}

/** All that was said down to `leaf`, as a server takes it; nothing is cut off. */
export function messagesTo(conversation, leaf, reasoning) {
  const messages = pathTo(conversation, leaf).flatMap((node) =>
    node.role === "user" ? [{ role: "user", content: node.text }] : turnMessages(node.turn, reasoning),
  );
  return conversation.system ? [{ role: "system", content: conversation.system }, ...messages] : messages;
}

/** Everything that can be searched for, of all branches. */
export function searchText(conversation) {
  const said = Object.values(conversation.nodes).map((node) => node.text ?? (node.turn ? turnText(node.turn) : ""));
  return [conversation.title, ...said].join("\n").toLowerCase();
}

/** Whether this page has written a node, since it was opened. */
export function isOurs(id) {
  return written.has(id);
}

/** Replies that a page was writing when it was closed are told as such, but for those that are `spared`. */
export function mendInterrupted(conversation, spared = () => false) {
  for (const node of Object.values(conversation.nodes)) {
    if (node.turn?.status !== "streaming" || spared(node.id)) continue;
    finishTurn(node.turn, null);
    node.turn.status = "interrupted";
  }
  return conversation;
}

/** What is wrong with a value that should be a conversation, or null. */
export function problemWith(value) {
  if (value === null || typeof value !== "object") return "is no object";
  if (typeof value.id !== "string" || value.id === "") return "has no id";
  if (value.version !== VERSION)
    return `has version ${JSON.stringify(value.version)}; this page reads version ${VERSION}`;
  if (typeof value.title !== "string" || typeof value.system !== "string") return "has no title or system text";
  if (!Number.isFinite(value.created) || !Number.isFinite(value.updated)) return "has no times";
  if (value.nodes === null || typeof value.nodes !== "object" || !value.nodes[ROOT]) return "has no nodes";
  for (const [id, node] of Object.entries(value.nodes)) {
    const found = problemWithNode(value.nodes, id, node);
    if (found) return `node ${id} ${found}`;
  }
  if (numReachable(value.nodes) !== Object.keys(value.nodes).length) return "has nodes that stand on no branch";
  return problemWithLanes(value);
}

function numReachable(nodes) {
  let num = 0;
  for (const open = [ROOT]; open.length > 0; num += 1) open.push(...nodes[open.pop()].children);
  return num;
}

function problemWithNode(nodes, id, node) {
  if (node?.id !== id || !Array.isArray(node.children)) return "is no node";
  if (!node.children.every((child) => Object.hasOwn(nodes, child) && nodes[child]?.parent === id))
    return "has a child that is not its own";
  if (node.chosen !== null && !node.children.includes(node.chosen)) return "shows a child that it does not have";
  if (id === ROOT) return node.parent === null ? null : "has a parent";
  if (!Object.hasOwn(nodes, node.parent) || !nodes[node.parent].children?.includes(id)) return "has no parent";
  if (node.role === "user") return typeof node.text === "string" ? null : "has no text";
  if (node.role !== "assistant") return `has role ${JSON.stringify(node.role)}`;
  return isTurn(node.turn) ? null : "has no readable reply";
}

function isTurn(turn) {
  return (
    typeof turn?.label === "string" &&
    Array.isArray(turn.blocks) &&
    turn.blocks.every(isBlock) &&
    (turn.status === "failed" ? typeof turn.error?.message === "string" : STATUSES.includes(turn.status))
  );
}

function isBlock(block) {
  if (block?.type === "think" || block?.type === "text") return typeof block.text === "string";
  return (
    block?.type === "call" &&
    typeof block.name === "string" &&
    (block.result === null || typeof block.result?.content === "string")
  );
}

function problemWithLanes(value) {
  if (value.lanes === null) return null;
  const fine =
    Array.isArray(value.lanes) &&
    value.lanes.length > 1 &&
    value.lanes.every((lane) => typeof lane?.model === "string" && Object.hasOwn(value.nodes, lane.leaf));
  return fine ? null : "has comparisons that lead nowhere";
}
