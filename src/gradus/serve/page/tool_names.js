// What tools are called on the page, and by which drawing they are known.

const KNOWN = {
  calculator: ["calculator", "Calculator"],
  fetch: ["globe", "Web page"],
  python: ["code", "Python"],
  web_search: ["globe", "Web search"],
};

/** [drawing, name] of a tool; one that the page does not know goes by its own name. */
export function toolName(name) {
  return Object.hasOwn(KNOWN, name) ? KNOWN[name] : ["tool", name];
}
