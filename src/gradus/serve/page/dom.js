// Building the page. Whatever a model, a person or a server says goes in as text, never as markup.

const SVG_SPACE = "http://www.w3.org/2000/svg";

/** An element with attributes, listeners (functions) and children; strings become text, null and false are left out. */
export function h(tag, attributes, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

function filled(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else if (name === "value") node.value = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Strokes on a grid of 24 by 24. */
const ICONS = {
  plus: "M12 5v14M5 12h14",
  menu: "M4 7h16M4 12h16M4 17h10",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14ZM20 20l-4-4",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  copy: "M9 9h10v11H9zM5 15V4h10",
  check: "M5 12.5l4.5 4.5L19 7.5",
  edit: "M4 20h4L19 9l-4-4L4 16zM13.5 6.5l4 4",
  again: "M20 12a8 8 0 1 1-2.5-5.8M20 4v4.5h-4.5",
  left: "M14.5 6l-6 6 6 6",
  right: "M9.5 6l6 6-6 6",
  down: "M6 9.5l6 6 6-6",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13M10 11v5M14 11v5",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  close: "M6 6l12 12M18 6L6 18",
  columns: "M4 5h16v14H4zM12 5v14",
  sliders: "M4 8h9M17 8h3M15 6v4M4 16h3M11 16h9M9 14v4",
  gear: "M12 15a3 3 0 1 0 0-6 3 3 0 0 0 0 6ZM12 3v3M12 18v3M3 12h3M18 12h3M5.6 5.6l2.1 2.1M16.3 16.3l2.1 2.1M5.6 18.4l2.1-2.1M16.3 7.7l2.1-2.1",
  sun: "M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8ZM12 3v2M12 19v2M3 12h2M19 12h2M5.6 5.6l1.4 1.4M17 17l1.4 1.4M5.6 18.4L7 17M17 7l1.4-1.4",
  moon: "M19.5 14.5A8 8 0 0 1 9.5 4.5a8 8 0 1 0 10 10Z",
  thought: "M9 17.5h6M10 20.5h4M12 3.5a6 6 0 0 0-3.5 10.9c.5.4.8 1 .8 1.6h5.4c0-.6.3-1.2.8-1.6A6 6 0 0 0 12 3.5Z",
  calculator: "M6 3.5h12v17H6zM9 7.5h6M9 12h.01M12 12h.01M15 12h.01M9 16h.01M12 16h.01M15 16h.01",
  globe: "M12 20.5a8.5 8.5 0 1 0 0-17 8.5 8.5 0 0 0 0 17ZM3.5 12h17M12 3.5c5 5 5 12 0 17M12 3.5c-5 5-5 12 0 17",
  tool: "M14.5 6.5a4 4 0 0 1 5-1l-2.7 2.7 1.5 1.5L21 7a4 4 0 0 1-5.5 5L8 19.5 4.5 16 12 8.500a4 4 0 0 1 2.500-2Z",
  code: "M9 7l-5 5 5 5M15 7l5 5-5 5",
  warning: "M12 4l9 16H3zM12 10v4M12 17h.01",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  upload: "M12 16V5M7 9l5-5 5 5M5 20h14",
  keys: "M3 7h18v10H3zM7 11h.01M11 11h.01M15 11h.01M8 14h8",
  key: "M14 10a4 4 0 1 0-3.500 4L13 14v2h2v2h3v-3z",
  brand: "M4 19h4v-4.500h4V10h4V5.500h4V19z",
};

/** A small drawing that a screen reader passes over. */
export function icon(name) {
  const svg = document.createElementNS(SVG_SPACE, "svg");
  const path = document.createElementNS(SVG_SPACE, "path");
  path.setAttribute("d", ICONS[name]);
  for (const [key, value] of Object.entries({
    viewBox: "0 0 24 24",
    class: `icon icon-${name}`,
    "aria-hidden": "true",
  })) {
    svg.setAttribute(key, value);
  }
  svg.append(path);
  return svg;
}

/** A button that shows a drawing and is read as `label`. */
export function iconButton(name, label, act, attributes) {
  return h(
    "button",
    { type: "button", class: "icon-button", "aria-label": label, title: label, click: act, ...attributes },
    icon(name),
  );
}

/** A button that puts a text on the clipboard and says whether it did. */
export function copyButton(text, label = "Copy") {
  const button = iconButton("copy", label, async () => {
    const done = await copied(text());
    button.replaceChildren(icon(done ? "check" : "warning"));
    announce(done ? "Copied" : "The browser did not allow copying");
    setTimeout(() => button.replaceChildren(icon("copy")), 1500);
  });
  return button;
}

/** Put a text on the clipboard; false where the browser does not allow it. */
export async function copied(text) {
  // Pages that came over plain http from another machine have no clipboard of the modern kind.
  if (!navigator.clipboard) return false;
  return navigator.clipboard.writeText(text).then(
    () => true,
    () => false,
  );
}

/** Have a screen reader say something, politely. */
export function announce(text) {
  document.getElementById("announcer").textContent = text;
}

let toastTimer = 0;

/** A short message at the foot of the page, with something to press where it is given; gone after some seconds. */
export function toast(text, action) {
  const place = document.getElementById("toast");
  const press =
    action &&
    h(
      "button",
      {
        type: "button",
        class: "link",
        click: () => {
          place.replaceChildren();
          action.act();
        },
      },
      action.label,
    );
  place.replaceChildren(h("div", { class: "toast" }, text, press));
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => place.replaceChildren(), 8000);
}

/** Hand a text to the person as a file. */
export function download(name, text, type = "application/json") {
  const address = URL.createObjectURL(new Blob([text], { type }));
  h("a", { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10000);
}

/** A dialog with a title and a way to close it; Escape closes it too. It leaves the page when it is closed. */
export function openDialog(title, ...content) {
  const close = iconButton("close", "Close", () => dialog.close());
  const dialog = h(
    "dialog",
    {
      class: "dialog",
      "aria-label": title,
      close: () => dialog.remove(),
      click: (event) => {
        if (event.target === dialog) dialog.close();
      },
    },
    h("div", { class: "dialog-body" }, h("header", { class: "dialog-head" }, h("h2", null, title), close), content),
  );
  document.body.append(dialog);
  dialog.showModal();
  return dialog;
}
