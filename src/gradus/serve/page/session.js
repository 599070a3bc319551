// What the page is doing: the models, the open conversation, replies in the making. Views listen; nothing here draws.

import { ApiError, listModels, streamChat } from "./api.js";
import {
  addQuestion,
  addReply,
  choose,
  leafBelow,
  messagesTo,
  newConversation,
  pathTo,
  removeNode,
} from "./conversation.js";
import { keyFor, preferences, setPreferences } from "./preferences.js";
import * as store from "./store.js";
import { absorb, finishTurn, newTurn } from "./turn.js";

const SAVE_SECONDS = 1;
const listeners = new Map();

/** config: of the page's own server. models: as api.listModels, null until they are known. modelsError: why there are
 * none, an ApiError, or null. */
export const session = { config: null, models: null, modelsError: null, conversation: newConversation() };

/** Replies in the making: node id -> {conversation, node, controller}. */
const replies = new Map();
/** Ids of conversations that are not saved again. */
const deleted = new Set();

/**
 * Events: "models"; "conversation" (another one, more of it, or with "stay" what has changed under the person's eyes);
 * "turn" (id: more of a reply); "activity"; "list"; "trouble" (text).
 */
export function on(event, act) {
  listeners.set(event, [...(listeners.get(event) ?? []), act]);
}

export function tell(event, detail) {
  for (const act of listeners.get(event) ?? []) act(detail);
}

export function connection() {
  const url = preferences.url || session.config.models_url;
  return { url, key: keyFor(url) };
}

export async function refreshModels() {
  session.modelsError = null;
  try {
    session.models = await listModels(connection());
  } catch (error) {
    session.models = [];
    session.modelsError = error;
  }
  answerAsBefore();
  tell("models");
}

/** A conversation goes on with the model that it was held with. */
function answerAsBefore() {
  if (modelNamed(session.conversation.model)) setPreferences({ model: session.conversation.model });
}

/** The chosen model, or where it is not served the default one, or null where none is. */
export function currentModel() {
  const models = session.models ?? [];
  return (
    models.find((model) => model.id === preferences.model) ??
    models.find((model) => model.extras?.default) ??
    models[0] ??
    null
  );
}

export function modelNamed(id) {
  return session.models?.find((model) => model.id === id) ?? null;
}

export function isBusy(id = session.conversation.id) {
  return [...replies.values()].some((reply) => reply.conversation.id === id);
}

export function startConversation() {
  session.conversation = newConversation();
  session.conversation.system = preferences.system;
  tell("conversation");
}

/** The conversation that replies of this page are being written to, by its id. */
function liveConversation(id) {
  return [...replies.values()].find((reply) => reply.conversation.id === id)?.conversation;
}

/** A conversation by its id: as this page holds it where it does, else as it is stored; null where there is none. */
export async function conversationOf(id) {
  const held = () => (id === session.conversation.id ? session.conversation : liveConversation(id));
  return held() ?? (await store.load(id));
}

/** Open a stored conversation; false where there is none of that id. */
export async function openConversation(id) {
  const found = liveConversation(id) ?? (await store.load(id));
  if (found === null) return false;
  show(found);
  return true;
}

/** Another tab has saved a conversation: show it anew where it is open here, unless a reply is written to it here. */
export async function rereadConversation(id) {
  const before = session.conversation;
  if (id !== before.id || isBusy(id)) return;
  const found = await store.load(id);
  // Meanwhile the person may have gone elsewhere, or asked something: what was read is older than that.
  if (found !== null && session.conversation === before && !isBusy(id)) show(found, "stay");
}

function show(conversation, detail) {
  session.conversation = conversation;
  answerAsBefore();
  tell("conversation", detail);
  tell("models");
}

export async function saveConversation(conversation = session.conversation) {
  if (deleted.has(conversation.id)) return;
  try {
    const joined = await store.save(conversation);
    if (joined && conversation === session.conversation) {
      tell("trouble", "Another tab was writing to this conversation too. What it said stands beside, as a branch.");
      tell("conversation", "stay");
    }
  } catch (error) {
    tell(
      "trouble",
      `The browser could not keep this conversation (${error?.message ?? "no room"}). Export it before you close the page.`,
    );
  }
  tell("list");
}

/** Delete a conversation, whose replies end, and return it as it was stored. */
export async function deleteConversation(id) {
  deleted.add(id);
  stop(id);
  const found = (await store.everything()).find((one) => one.id === id);
  await store.remove(id);
  if (id === session.conversation.id) startConversation();
  tell("list");
  return found;
}

export async function deleteAll() {
  for (const { id } of await store.list()) await deleteConversation(id);
}

/** Keep a conversation as it is given: one that was deleted, or one of a file, which may have been deleted as well. */
export async function restore(stored) {
  deleted.delete(stored.id);
  await store.save(stored);
}

/** What a request asks for besides its messages. Names that no other server knows are sent to gradus alone. */
function requestBody(model, messages) {
  const body = {
    model: model.id,
    messages,
    stream: true,
    stream_options: { include_usage: true },
    ...preferences.sampling,
  };
  const { extras } = model;
  if (extras === null) return body;
  const offered = (extras.tools ?? []).filter((name) => !preferences.toolsOff.includes(name));
  const tools = offered.filter((name) => name !== "web_search" || preferences.search !== "off");
  body.gradus = {
    tools,
    think: extras.thinks ? { auto: null, on: true, off: false }[preferences.think] : null,
    think_budget: extras.thinks ? preferences.thinkBudget : null,
  };
  if (tools.includes("web_search")) body.gradus.search = preferences.search;
  return body;
}

/** Send a question; where models are compared, to each of them. */
export function ask(text) {
  const { conversation } = session;
  const parents = conversation.lanes?.map((lane) => lane.leaf) ?? [leafBelow(conversation)];
  askBelow(parents, text);
}

function askBelow(parents, text) {
  const { conversation } = session;
  const models = conversation.lanes?.map((lane) => modelFor(lane.model)) ?? [chosenModel()];
  const questions = new Map(); // by parent: models that have said the same so far share the question
  const jobs = models.map((model, index) => {
    const parent = parents[index];
    if (!questions.has(parent)) questions.set(parent, addQuestion(conversation, parent, text));
    return replyBelow(conversation, questions.get(parent).id, model, index);
  });
  tell("conversation");
  for (const job of jobs) run(job);
}

/** A model by name, as far as it can be asked: one that is not served any more fails aloud when it is. */
function modelFor(id) {
  return modelNamed(id) ?? { id, label: id, extras: null };
}

function chosenModel() {
  return modelFor(currentModel()?.id ?? "");
}

function replyBelow(conversation, question, model, lane) {
  const node = addReply(conversation, question, newTurn(model));
  if (conversation.lanes) conversation.lanes[lane].leaf = node.id;
  conversation.model = model.id;
  return { conversation, node, model, question, controller: new AbortController() };
}

/** Answer again: another branch, or in place of an answer that has nothing in it; of compared ones only the last. */
export function regenerate(id) {
  const { conversation } = session;
  const node = conversation.nodes[id];
  const lane = conversation.lanes?.findIndex((one) => one.leaf === id);
  const model = conversation.lanes ? modelFor(conversation.lanes[lane].model) : chosenModel();
  const job = replyBelow(conversation, node.parent, model, lane);
  if (node.turn.blocks.length === 0 && node.children.length === 0) removeNode(conversation, id);
  tell("conversation");
  run(job);
}

/** Answer a question that has no answer, as an imported conversation may end with. */
export function answer(id) {
  const { conversation } = session;
  const job = replyBelow(conversation, id, chosenModel());
  tell("conversation");
  run(job);
}

/** Ask something else in place of a question: another branch of the conversation. */
export function editQuestion(id, text) {
  const { conversation } = session;
  if (!conversation.lanes) return askBelow([conversation.nodes[id].parent], text);
  const depth = pathTo(conversation, id).length - 1;
  return askBelow(
    conversation.lanes.map((lane) => pathTo(conversation, lane.leaf)[depth]?.parent ?? lane.leaf),
    text,
  );
}

export function showBranch(id) {
  const { conversation } = session;
  choose(conversation, id);
  saveConversation();
  tell("conversation", "stay");
}

/** Ask several models side by side from here on; with one or none the conversation goes on with a single model. */
export function compare(ids) {
  const { conversation } = session;
  const before = conversation.lanes ?? [];
  const leaf = (before.find((lane) => lane.model === ids[0]) ?? before[0])?.leaf ?? leafBelow(conversation);
  if (ids.length < 2) {
    choose(conversation, leaf);
    conversation.lanes = null;
  } else {
    const shared = commonLeaf(conversation, before, leaf);
    conversation.lanes = ids.map((model) => before.find((lane) => lane.model === model) ?? { model, leaf: shared });
  }
  tell("conversation");
  if (pathTo(conversation, leaf).length > 0) saveConversation();
}

/** Where a model that joins a comparison goes on: the last turn that all lanes share. */
function commonLeaf(conversation, lanes, leaf) {
  const paths = lanes.map((lane) => pathTo(conversation, lane.leaf).map((node) => node.id));
  if (paths.length < 2) return leaf;
  let shared = "root";
  for (const [depth, id] of paths[0].entries()) {
    if (!paths.every((path) => path[depth] === id)) break;
    if (conversation.nodes[id].role === "assistant") shared = id;
  }
  return shared;
}

/** Go on with one of the compared models; what the others said stays as branches. */
export function continueWith(lane) {
  const { conversation } = session;
  choose(conversation, lane.leaf);
  conversation.lanes = null;
  if (modelNamed(lane.model)) setPreferences({ model: lane.model });
  saveConversation();
  tell("conversation");
  tell("models");
}

export function stop(id = session.conversation.id) {
  for (const reply of replies.values()) {
    if (reply.conversation.id === id) reply.controller.abort();
  }
}

async function run(job) {
  const { conversation, node, model, question, controller } = job;
  replies.set(node.id, job);
  tell("activity", conversation.id);
  saveConversation(conversation);
  const timer = setInterval(() => saveConversation(conversation), SAVE_SECONDS * 1000);
  let failure = null;
  try {
    if (model.id === "") throw session.modelsError ?? new ApiError("refused", "The server offers no model.");
    const messages = messagesTo(conversation, question, model.extras !== null);
    const body = requestBody(model, messages);
    node.turn.thinkBudget = body.gradus?.think_budget ?? null;
    for await (const chunk of streamChat(connection(), body, controller.signal)) {
      absorb(node.turn, chunk);
      tell("turn", node.id);
    }
  } catch (error) {
    // A fault of the page itself ends the reply in the person's sight, and is told to the console as well.
    if (!(error instanceof ApiError) && error.name !== "AbortError") reportError(error);
    failure = error;
  } finally {
    clearInterval(timer);
    replies.delete(node.id);
  }
  finishTurn(node.turn, failure);
  tell("turn", node.id);
  await saveConversation(conversation);
  tell("activity", conversation.id);
}
