// The page's own settings: where the models are, how it looks, and all conversations as files.

import { listModels } from "./api.js";
import { download, h, icon, openDialog, toast } from "./dom.js";
import { keyFor, preferences, setKey, setPreferences } from "./preferences.js";
import { deleteAll, refreshModels, restore, session, tell } from "./session.js";
import * as store from "./store.js";
import { exportText, readImport } from "./transfer.js";

export function openSettings() {
  const dialog = openDialog(
    "Settings",
    connectionPart(() => dialog.close()),
    appearancePart(),
    conversationsPart(),
  );
  return dialog;
}

function connectionPart(done) {
  const own = session.config.models_url;
  const url = h("input", {
    type: "text",
    inputmode: "url",
    name: "url",
    value: preferences.url,
    placeholder: `${own} (this server)`,
    autocomplete: "off",
    spellcheck: "false",
    change: () => {
      key.value = keyFor(url.value.trim() || own);
    },
  });
  const key = h("input", {
    type: "password",
    name: "key",
    value: keyFor(preferences.url || own),
    placeholder: session.config.needs_key ? "needed" : "none",
    autocomplete: "off",
  });
  const remember = h("input", { type: "checkbox", name: "remember", checked: preferences.rememberKey });
  const said = h("p", { class: "hint", role: "status" });

  async function submit(event) {
    event.preventDefault();
    const address = url.value.trim().replace(/\/+$/, "");
    if (address && !/^(https?:\/\/|\/)/.test(address)) {
      said.textContent = `An address begins with http:// or https://, such as http://localhost:11434/v1; found “${address}”.`;
      return;
    }
    said.textContent = "Asking for its models …";
    try {
      const models = await listModels({ url: address || own, key: key.value });
      setKey(address || own, key.value, remember.checked);
      setPreferences({ url: address, rememberKey: remember.checked });
      await refreshModels();
      toast(`Connected: ${models.length === 1 ? "1 model" : `${models.length} models`}.`);
      done();
    } catch (error) {
      said.textContent = error.message;
    }
  }

  return h(
    "form",
    { class: "settings", submit },
    h("h3", null, "Connection"),
    h("label", { class: "row-field" }, h("span", null, "Address", h("small", null, "any OpenAI-compatible API")), url),
    h("label", { class: "row-field" }, h("span", null, "Key", h("small", null, "sent nowhere else")), key),
    h(
      "label",
      { class: "check" },
      remember,
      "Keep the key in this browser. Otherwise it is forgotten when the tab is closed. Either way it is stored unencrypted, and extensions of your browser may read it.",
    ),
    said,
    h("div", { class: "dialog-actions" }, h("button", { type: "submit", class: "button primary" }, "Connect")),
  );
}

/** Set the page's colours: "system" follows what the person's system says. */
export function applyTheme() {
  document.documentElement.dataset.theme = preferences.theme;
}

function appearancePart() {
  return h(
    "section",
    { class: "settings" },
    h("h3", null, "Appearance"),
    h(
      "div",
      { class: "segments", role: "radiogroup", "aria-label": "Colours" },
      [
        ["system", "As the system"],
        ["light", "Light"],
        ["dark", "Dark"],
      ].map(([value, label]) =>
        h(
          "label",
          null,
          h("input", {
            type: "radio",
            name: "theme",
            value,
            checked: preferences.theme === value,
            change: () => {
              setPreferences({ theme: value });
              applyTheme();
            },
          }),
          h("span", null, label),
        ),
      ),
    ),
  );
}

function conversationsPart() {
  const file = h("input", {
    type: "file",
    accept: ".json,.jsonl,application/json",
    class: "unseen",
    tabindex: -1,
    "aria-label": "A file to import",
    change: importFile,
  });
  const said = h("div", { class: "hint", role: "status" });

  async function importFile() {
    const { conversations, problems } = readImport(await file.files[0].text());
    const there = new Map((await store.everything()).map((one) => [one.id, JSON.stringify(one)]));
    let num = 0;
    for (const one of conversations) {
      if (there.get(one.id) === JSON.stringify(one)) continue;
      if (there.has(one.id)) one.id = crypto.getRandomValues(new Uint32Array(4)).join("-");
      await restore(one);
      num += 1;
    }
    file.value = "";
    said.replaceChildren(
      `${num} imported${conversations.length > num ? `, ${conversations.length - num} were here already` : ""}.`,
      ...problems.map((problem) => h("p", { class: "problem" }, problem)),
    );
    tell("list");
  }

  async function exportAll() {
    download(`conversations-${new Date().toISOString().slice(0, 10)}.json`, exportText(await store.everything()));
  }

  async function deleteAfterAsking(event) {
    const button = event.currentTarget;
    if (button.dataset.asked !== "true") {
      button.dataset.asked = "true";
      button.lastChild.textContent = "Really delete all?";
      return;
    }
    await deleteAll();
    said.textContent = "All conversations were deleted.";
  }

  const button = (picture, label, click) =>
    h("button", { type: "button", class: "button", click }, icon(picture), h("span", null, label));
  return h(
    "section",
    { class: "settings" },
    h("h3", null, "Conversations"),
    h("p", { class: "hint" }, "They are kept in this browser alone."),
    h(
      "div",
      { class: "button-row" },
      button("download", "Export all", exportAll),
      button("upload", "Import", () => file.click()),
      button("trash", "Delete all", deleteAfterAsking),
    ),
    file,
    said,
  );
}
