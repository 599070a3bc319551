// Colours for code: comments, strings, numbers and words of the language, found by one regular expression a family.
// It only wraps pieces of the text; what a person reads and copies stays as it was.

import { h } from "./dom.js";

// What is opened and never closed goes on to the end: each place is looked at once, however hostile the text.
const STRINGS = [
  String.raw`"""[\s\S]*?(?:"""|$)|'''[\s\S]*?(?:'''|$)`,
  String.raw`"(?:\\.|[^"\\\n])*"?|'(?:\\.|[^'\\\n])*'?|\x60(?:\\[\s\S]|[^\x60\\])*\x60?`,
].join("|");
const NUMBERS = String.raw`\b(?:0[xob][\da-fA-F_]+|\d[\d_]*(?:\.\d+)?(?:[eE][+-]?\d+)?)\b`;
const COMMENTS = {
  hash: String.raw`#[^\n]*`,
  slash: String.raw`//[^\n]*|/\*[\s\S]*?(?:\*/|$)`,
  dash: String.raw`--[^\n]*|/\*[\s\S]*?(?:\*/|$)`,
};
const FAMILIES = {
  hash: "py python sh bash shell zsh rb ruby toml yaml yml r julia dockerfile makefile perl",
  slash:
    "js javascript mjs ts typescript jsx tsx c h cpp c++ cs csharp java kotlin swift go rust rs php scala dart json css",
  dash: "sql lua haskell hs",
};
// Of these languages together: a word of another one in the same text is rare, and does no harm.
const KEYWORDS = new Set(
  `and as assert async await begin bool boolean break case catch char class const continue def default defer del do done
  double elif else end enum esac except export extends false False fi final finally float fn for foreach from func function
  global go if impl implements import in int interface is lambda let local long loop match mod module mut namespace new nil
  None nonlocal not null of or package pass print private protected pub public raise return select self short signed static
  struct super switch template then this throw trait true True try type typedef typeof union unsigned unsafe use using var
  void where while with yield SELECT FROM WHERE INSERT INTO VALUES UPDATE SET DELETE CREATE TABLE JOIN ON GROUP BY ORDER
  LIMIT AND OR NOT NULL AS`.split(/\s+/),
);

function pattern(comments) {
  return new RegExp(`(?<comment>${comments})|(?<string>${STRINGS})|(?<number>${NUMBERS})|(?<word>[A-Za-z_]\\w*)`, "g");
}

const PATTERNS = new Map(
  Object.entries(FAMILIES).flatMap(([family, names]) =>
    names.split(" ").map((name) => [name, pattern(COMMENTS[family])]),
  ),
);

/** The text as text and coloured pieces, or as it is where the language is not known. */
export function coloured(text, language) {
  const found = PATTERNS.get(language.toLowerCase());
  if (!found) return [text];
  const pieces = [];
  let at = 0;
  for (const match of text.matchAll(found)) {
    const kind = kindOf(match);
    if (kind === null) continue;
    pieces.push(text.slice(at, match.index), h("span", { class: `code-${kind}` }, match[0]));
    at = match.index + match[0].length;
  }
  return [...pieces, text.slice(at)];
}

function kindOf({ 0: text, groups }) {
  if (groups.word !== undefined) return KEYWORDS.has(text) ? "keyword" : null;
  return Object.keys(groups).find((name) => groups[name] !== undefined);
}
