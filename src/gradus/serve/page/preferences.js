// What the person has set, kept in this browser. A key of a server is kept for this tab alone unless they ask otherwise.

const NAME = "gradus-preferences";
const KEYS = "gradus-keys";

const DEFAULTS = {
  theme: "system", // or "light", "dark"
  sidebar: true,
  model: "", // "": what the server names as its default
  url: "", // "": the page's own server
  rememberKey: false,
  think: "auto", // or "on", "off"
  search: "auto", // or "force", "off"
  toolsOff: [], // names of tools that are switched off
  thinkBudget: null, // tokens
  system: "", // for new conversations
  sampling: {}, // by the names of the protocol; what is not set here is not sent
};

export const preferences = { ...DEFAULTS, ...stored(localStorage, NAME) };

/** A stored object without what is of another type than its default: another version may have written it. */
function stored(storage, name) {
  let found;
  try {
    found = JSON.parse(storage.getItem(name) ?? "{}");
  } catch {
    return {};
  }
  if (found === null || typeof found !== "object") return {};
  return Object.fromEntries(
    Object.entries(found).filter(([key, value]) => key in DEFAULTS && fits(DEFAULTS[key], value)),
  );
}

function fits(example, value) {
  if (example === null) return value === null || Number.isInteger(value);
  return typeof value === typeof example && Array.isArray(value) === Array.isArray(example) && value !== null;
}

export function setPreferences(changes) {
  Object.assign(preferences, changes);
  localStorage.setItem(NAME, JSON.stringify(preferences));
}

/** The keys by address, in the storage that forgets with the tab or in the one that stays. */
function keysIn(storage) {
  try {
    return JSON.parse(storage.getItem(KEYS) ?? "{}") ?? {};
  } catch {
    return {};
  }
}

export function keyFor(url) {
  return keysIn(sessionStorage)[url] ?? keysIn(localStorage)[url] ?? "";
}

/** Keep a key for an address; "" forgets it. */
export function setKey(url, key, remember) {
  for (const [storage, holds] of [
    [sessionStorage, !remember],
    [localStorage, remember],
  ]) {
    const keys = keysIn(storage);
    delete keys[url];
    if (holds && key) keys[url] = key;
    storage.setItem(KEYS, JSON.stringify(keys));
  }
}
