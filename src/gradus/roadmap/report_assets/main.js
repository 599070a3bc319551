// Putting the page together, the bar at its top, and light or dark.

const THEME_KEY = "gradus-theme";
const PARTS = [
  ["abilities", "abilities", abilities], ["stages", "across stages", acrossStages], ["questions", "questions", questions], ["audit", "audit", audits], ["training", "training", training],
  ["samples", "samples", samples], ["lineage", "lineage", lineage], ["data", "data", composition], ["time", "time", times],
  ["machine", "machine", machine], ["ledger", "ledger", ledger],
];

function topBar(shown) {
  return h("div", { class: "topbar" },
    h("a", { class: "brand", href: "#top" }, s("svg", { viewBox: "0 0 16 16", width: 16, height: 16, "aria-hidden": "true" }, s("path", { d: "M1 13h3v-3h3V7h3V4h5v9z" })), data.name),
    h("nav", { "aria-label": "Sections" }, shown.map(([id, name]) => h("a", { href: `#${id}` }, name))),
    h("button", { type: "button", class: "theme", "aria-label": "Light or dark", title: "light or dark", click: switchTheme }, "◐"));
}

/** What was chosen before, kept by the browser where it allows a file to keep anything. */
function keptTheme(value) {
  try {
    if (value) localStorage.setItem(THEME_KEY, value);
    return localStorage.getItem(THEME_KEY);
  } catch {
    return null;
  }
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function switchTheme() {
  const theme = isDark() ? "light" : "dark";
  document.documentElement.dataset.theme = theme;
  keptTheme(theme);
  redrawCharts();
}

/** A part that fails says so and leaves the others standing; one without content is null. */
function built(id, name, build) {
  try {
    return build();
  } catch (error) {
    console.error(error);
    return section(id, name, null, nothing(`This part could not be shown: ${error.message}`));
  }
}

const theme = keptTheme();
if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redrawCharts);
const sections = (data.versus ? versusParts() : PARTS).map(([id, name, build]) => [id, name, built(id, name, build)]).filter(([, , node]) => node !== null);
document.getElementById("page").append(
  topBar(sections),
  h("main", { class: "wide" }, built("top", data.name, data.versus ? versusHead : head), sections.map(([, , node]) => node)),
  h("footer", { class: "wide foot" }, `Written ${shortTime(data.made)} UTC by gradus ${data.gradus || ""}. One file: nothing is fetched, nothing is sent.`));
// The address may name a part, which was not there when the browser looked for it.
if (location.hash) (document.getElementById(location.hash.slice(1)) || document.body).scrollIntoView({ behavior: "instant" });
if (data.live) follow(PARTS);
