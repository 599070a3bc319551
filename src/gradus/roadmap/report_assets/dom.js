// Building the page. Whatever a model, a corpus or a file name says goes in as text, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);
const SVG_SPACE = "http://www.w3.org/2000/svg";

/** An element with attributes and children; strings become text nodes, null and false are left out. */
function h(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for a piece of SVG. */
function s(tag, attributes, ...children) {
  return filled(document.createElementNS(SVG_SPACE, tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else if (name === "vars") setVars(node, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Custom properties through the object model, which the page's policy allows where style="" is not. */
function setVars(node, values) {
  for (const [name, value] of Object.entries(values)) node.style.setProperty(`--${name}`, value);
}

function replaceContent(node, ...children) {
  node.replaceChildren();
  return filled(node, null, children);
}

/** A section of the page: {id, title, nav, lead, content}. */
function section(id, title, lead, ...content) {
  return h("section", { id, "aria-labelledby": `${id}-title` },
    h("header", { class: "section-head" }, h("h2", { id: `${id}-title` }, title), lead && h("p", { class: "lead" }, lead)),
    content);
}

/** What stands where there is nothing to show. */
function nothing(text) {
  return h("p", { class: "nothing" }, text);
}

/** A row of buttons of which one is chosen; `choose` is called with its value. */
function segments(label, options, chosen, choose) {
  const buttons = options.map(([value, text]) =>
    h("button", { type: "button", "aria-pressed": String(value === chosen), click: () => pick(value) }, text));
  function pick(value) {
    options.forEach(([own], index) => buttons[index].setAttribute("aria-pressed", String(own === value)));
    choose(value);
  }
  return h("div", { class: "segments", role: "group", "aria-label": label }, buttons);
}

function selector(label, options, chosen, choose) {
  const select = h("select", { "aria-label": label, change: () => choose(select.value) },
    options.map(([value, text]) => h("option", { value, selected: value === chosen }, text)));
  return select;
}

/** A button that puts a text on the clipboard, or selects it where the browser does not allow that. */
function copyButton(text, shown) {
  const button = h("button", { type: "button", class: "copy", click: copy }, "copy");
  function said(word) {
    button.textContent = word;
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  }
  function select() {
    getSelection().selectAllChildren(shown);
    said("selected");
  }
  function copy() {
    if (!navigator.clipboard) select();
    else navigator.clipboard.writeText(text).then(() => said("copied"), select);
  }
  return button;
}

function isTable(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value);
}

/** The number of a measure, which is a number or a table with a value; null for anything else. */
function measured(value) {
  if (typeof value === "number") return value;
  return isTable(value) && typeof value.value === "number" ? value.value : null;
}

function stageNamed(name) {
  return data.stages.find((stage) => stage.name === name);
}
