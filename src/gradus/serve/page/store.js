// Conversations in the browser's own database (IndexedDB). Lists need only the heads; a conversation is read whole when
// it is opened or searched.

import { adopt, isOurs, mendInterrupted, problemWith, searchText } from "./conversation.js";

const NAME = "gradus-chat";
const channel = new BroadcastChannel(NAME);
let database = null;

function promised(request) {
  return new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });
}

export async function openStore() {
  const request = indexedDB.open(NAME, 1);
  request.onupgradeneeded = () => {
    request.result.createObjectStore("heads", { keyPath: "id" });
    request.result.createObjectStore("bodies", { keyPath: "id" });
  };
  database = await promised(request);
}

function head(conversation) {
  return { id: conversation.id, title: conversation.title, updated: conversation.updated };
}

async function write(id, work) {
  const transaction = database.transaction(["heads", "bodies"], "readwrite");
  work(transaction.objectStore("heads"), transaction.objectStore("bodies"));
  await new Promise((resolve, reject) => {
    transaction.oncomplete = resolve;
    transaction.onerror = transaction.onabort = () => reject(transaction.error);
  });
  channel.postMessage(id);
}

function reading(store) {
  return database.transaction(store).objectStore(store);
}

/**
 * Save a conversation, together with what another tab has written to it; other tabs hear of it. Says whether another tab
 * had added to it. It rejects where the browser has no room.
 */
export async function save(conversation) {
  let joined = false;
  await write(conversation.id, (heads, bodies) => {
    const request = bodies.get(conversation.id);
    // In the same transaction, so that no other tab writes between the two.
    request.onsuccess = () => {
      const stored = request.result;
      joined = stored !== undefined && problemWith(stored) === null && adopt(conversation, stored);
      heads.put(head(conversation));
      bodies.put(conversation);
      mendInterrupted(conversation, isOurs); // shown so here; stored it is as the other tab has it
    };
  });
  return joined;
}

export function remove(id) {
  return write(id, (heads, bodies) => {
    heads.delete(id);
    bodies.delete(id);
  });
}

/** Heads of all conversations, {id, title, updated}, the newest first. */
export async function list() {
  const heads = await promised(reading("heads").getAll());
  return heads.sort((a, b) => b.updated - a.updated);
}

/** A conversation, or null where there is none of that id; it throws where one is there that cannot be read. */
export async function load(id) {
  const found = await promised(reading("bodies").get(id));
  if (found === undefined) return null;
  const problem = problemWith(found);
  if (problem)
    throw new Error(`This conversation cannot be shown: it ${problem}. It is kept, and an export holds it as it is.`);
  return mendInterrupted(found);
}

/** Every conversation as it is stored, readable or not. */
export function everything() {
  return promised(reading("bodies").getAll());
}

/** Ids of the conversations that hold all the words, in any branch. */
export async function search(text) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = new Set();
  await new Promise((resolve, reject) => {
    const request = reading("bodies").openCursor();
    request.onerror = () => reject(request.error);
    request.onsuccess = () => {
      const cursor = request.result;
      if (cursor === null) return resolve();
      if (problemWith(cursor.value) === null) {
        const said = searchText(cursor.value);
        if (words.every((word) => said.includes(word))) found.add(cursor.value.id);
      }
      return cursor.continue();
    };
  });
  return found;
}

/** Call `changed(id)` when another tab has saved or removed a conversation. */
export function onOtherTab(changed) {
  channel.addEventListener("message", (event) => changed(event.data));
}
