// Markdown as elements. What is left open while a reply streams is drawn anew, what is finished stays as it is.
//
// Nothing of a reply is trusted: HTML in it is shown as text, every piece of markup passes DOMPurify with a list of what
// is allowed, links open elsewhere without a referrer, and images are links, so that nothing is fetched without a click.

import { coloured } from "./code_colours.js";
import { copyButton, h } from "./dom.js";
import { Marked } from "./vendor/marked.esm.js";
import DOMPurify from "./vendor/purify.es.mjs";

const ALLOWED_TAGS = [
  "a",
  "blockquote",
  "br",
  "code",
  "del",
  "em",
  "h1",
  "h2",
  "h3",
  "h4",
  "h5",
  "h6",
  "hr",
  "kbd",
  "li",
  "mark",
  "ol",
  "p",
  "pre",
  "span",
  "strong",
  "sub",
  "sup",
  "table",
  "tbody",
  "td",
  "th",
  "thead",
  "tr",
  "u",
  "ul",
];
const ALLOWED_ATTR = ["align", "class", "href", "start", "title"];
const ALLOWED_CLASS = /^(language-[\w+#.-]{1,30}|math|image)$/;
const ALLOWED_URI_REGEXP = /^(https?:|mailto:)/i;
// Tags without attributes that models use where markdown has nothing: these alone are markup.
const PLAIN_TAG = /^<\/?(br|kbd|mark|sub|sup|u)\s*\/?>$/i;
// A formula stays as it was written; markdown would eat its backslashes and underscores.
const MATH = /^(\$\$[^$]+?\$\$|\\\[[\s\S]+?\\\]|\\\([\s\S]+?\\\))/;
// "36." is an answer, not a list without items.
const LONE_NUMBER = /^ {0,3}\d{1,9}[.)][ \t]*(\n[ \t]*(\n|$)|$)/;
const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };

function escaped(text) {
  return text.replace(/[&<>"']/g, (character) => ESCAPES[character]);
}

/** The host in an address, or "" where it has none. */
export function hostOf(address) {
  try {
    return new URL(address).host;
  } catch {
    return "";
  }
}

const marked = new Marked({
  gfm: true,
  tokenizer: { list: (text) => (LONE_NUMBER.test(text) ? undefined : false) }, // false: as usual
  renderer: {
    html: ({ text }) => (PLAIN_TAG.test(text.trim()) ? text : escaped(text)),
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    image({ href, text }) {
      const host = hostOf(href);
      const label = escaped(`Image: ${text || "without a description"}`);
      return host
        ? `<a class="image" href="${escaped(href)}">${label} (${escaped(host)})</a>`
        : `<span class="image">${label}</span>`;
    },
  },
  extensions: [
    {
      name: "math",
      level: "inline",
      // Plain text ends at a backslash anyway; at a dollar sign only where it is told.
      start: (text) => (text.includes("$$") ? text.indexOf("$$") : undefined),
      tokenizer(text) {
        const found = MATH.exec(text);
        return found ? { type: "math", raw: found[0] } : undefined;
      },
      renderer: ({ raw }) => `<span class="math">${escaped(raw)}</span>`,
    },
  ],
});

DOMPurify.addHook("uponSanitizeAttribute", (node, attribute) => {
  if (attribute.attrName === "class" && !ALLOWED_CLASS.test(attribute.attrValue)) attribute.keepAttr = false;
});
DOMPurify.addHook("afterSanitizeAttributes", (node) => {
  if (node.tagName !== "A") return;
  node.setAttribute("target", "_blank");
  node.setAttribute("rel", "noopener noreferrer nofollow");
});

/** The elements of one top-level markdown token; code gets its colours once it is whole. */
function elements(token, isWhole) {
  const fragment = DOMPurify.sanitize(marked.parser([token]), {
    ALLOWED_TAGS,
    ALLOWED_ATTR,
    ALLOWED_URI_REGEXP,
    ADD_URI_SAFE_ATTR: ["align", "start"],
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    RETURN_DOM_FRAGMENT: true,
  });
  for (const dead of fragment.querySelectorAll("a:not([href])")) dead.replaceWith(...dead.childNodes);
  for (const pre of fragment.querySelectorAll("pre")) frameCode(pre, isWhole);
  for (const table of fragment.querySelectorAll("table")) frameTable(table);
  return [...fragment.childNodes];
}

/** Code with the name of its language and a button to copy it. */
function frameCode(pre, isWhole) {
  const code = pre.firstElementChild ?? pre;
  const language = /language-(\S+)/.exec(code.className)?.[1] ?? "";
  if (isWhole) code.replaceChildren(...coloured(code.textContent, language));
  pre.tabIndex = 0; // It may scroll sideways, which keys must reach.
  const frame = h(
    "div",
    { class: "code", role: "group", "aria-label": language ? `Code, ${language}` : "Code" },
    h(
      "div",
      { class: "code-head" },
      h("span", null, language),
      copyButton(() => code.textContent, "Copy code"),
    ),
  );
  pre.replaceWith(frame);
  frame.append(pre);
}

function frameTable(table) {
  const frame = h("div", { class: "table", role: "group", "aria-label": "Table", tabindex: 0 });
  table.replaceWith(frame);
  frame.append(table);
}

/** A place for markdown that grows: update(text) with all of it so far, close() when no more will come. */
export function markdownView() {
  const open = h("div", { class: "open" });
  const node = h("div", { class: "markdown" }, open);
  let numClosed = 0; // characters whose elements are final
  let shown = "";
  let hasDefinitions = false;

  function update(text) {
    const whole = text.replace(/\r\n?/g, "\n");
    if (whole === shown) return;
    shown = whole;
    const tokens = marked.lexer(whole.slice(numClosed));
    while (isClosed(tokens)) {
      const token = tokens.shift();
      numClosed += token.raw.length;
      hasDefinitions ||= token.type === "def";
      open.before(...elements(token, true));
    }
    hasDefinitions ||= tokens.some((token) => token.type === "def");
    open.replaceChildren(...tokens.flatMap((token) => elements(token, false)));
  }

  function close() {
    const whole = (text) => marked.lexer(text).flatMap((token) => elements(token, true));
    // What a link refers to may be defined after it, when its paragraph was long drawn.
    if (hasDefinitions) node.replaceChildren(...whole(shown));
    else open.replaceChildren(...whole(shown.slice(numClosed)));
  }
  return { node, update, close };
}

/** Whether more text can no longer change the first token: a whole line of something else has followed it. */
function isClosed(tokens) {
  return tokens
    .slice(1)
    .map((token) => token.raw)
    .join("")
    .trimStart()
    .includes("\n");
}
