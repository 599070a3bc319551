// Where everything came from: the stages as a graph from the top down, and all about the chosen one beside it.
//
// Layers by the longest way from a stage without inputs; edges over several layers pass through placeholders, so
// that they run between the boxes and not behind them; the order within layers follows the neighbours' mean.

const BOX = { width: 148, height: 50, gapX: 22, gapY: 34, lane: 20 };
let chooseStage = () => {};

function lineage() {
  if (!data.stages.length) return null;
  const graph = laidOut(data.stages);
  const detail = h("div", { class: "stage-detail card", id: "stage-detail", "aria-live": "polite" });
  const boxes = new Map(graph.nodes.map((node) => [node.stage.name, stageBox(node)]));
  const lines = graph.edges.map((edge) => ({ ...edge, node: s("path", { d: edge.path, class: "edge", "marker-end": "url(#arrow)" }) }));
  const parents = new Map(data.stages.map((stage) => [stage.name, inputNames(stage)]));

  function choose(name) {
    const line = ancestors(name, parents);
    for (const [own, node] of boxes) {
      node.classList.toggle("chosen", own === name);
      node.classList.toggle("ancestor", own !== name && line.has(own));
      node.setAttribute("aria-pressed", String(own === name));
    }
    for (const edge of lines) edge.node.classList.toggle("lit", line.has(edge.from) && line.has(edge.to));
    replaceContent(detail, stageDetail(stageNamed(name)));
  }
  chooseStage = choose;
  for (const [name, node] of boxes) {
    node.addEventListener("click", () => choose(name));
    node.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      choose(name);
    });
  }
  const picture = s("svg", { viewBox: `0 0 ${graph.width} ${graph.height}`, width: graph.width, height: graph.height, role: "group", "aria-label": "Lineage graph" },
    s("defs", null, s("marker", { id: "arrow", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 6, markerHeight: 6, orient: "auto" }, s("path", { d: "M0 0L8 4L0 8z", class: "arrowhead" }))),
    lines.map((edge) => edge.node), [...boxes.values()]);
  const withModel = [...data.stages].reverse().find((stage) => stage.state === "done") || data.stages[0];
  if (withModel) choose(withModel.name);
  return section("lineage", "Lineage", "What was made from what. Choose a stage to see its settings and what it measured.",
    h("div", { class: "lineage" }, h("div", { class: "graph" }, picture), detail));
}

function inputNames(stage) {
  return [...new Set(Object.values(stage.inputs).flat())].filter((name) => stageNamed(name));
}

function ancestors(name, parents) {
  const found = new Set();
  const waiting = [name];
  while (waiting.length) {
    const next = waiting.pop();
    if (found.has(next)) continue;
    found.add(next);
    waiting.push(...(parents.get(next) || []));
  }
  return found;
}

// Layout

function laidOut(stages) {
  const depth = new Map();
  for (const stage of stages) depth.set(stage.name, Math.max(-1, ...inputNames(stage).map((name) => depth.get(name) ?? -1)) + 1);
  const layers = Array.from({ length: Math.max(0, ...depth.values()) + 1 }, () => []);
  const byName = new Map();
  for (const stage of stages) {
    const node = { stage, layer: depth.get(stage.name), width: BOX.width, up: [], down: [] };
    byName.set(stage.name, node);
    layers[node.layer].push(node);
  }
  const chains = [];
  for (const stage of stages) for (const name of inputNames(stage)) chains.push(chain(byName.get(name), byName.get(stage.name), layers));
  for (let round = 0; round < 8; round += 1) ordered(layers, round % 2 === 0);
  placed(layers);
  const nodes = [...byName.values()];
  const all = layers.flat();
  const left = Math.min(...all.map((node) => node.x - node.width / 2));
  for (const node of all) {
    node.x += 6 - left;
    node.y = 6 + node.layer * (BOX.height + BOX.gapY);
  }
  return {
    nodes,
    edges: chains.map((links) => ({ from: links[0].stage.name, to: links[links.length - 1].stage.name, path: edgePath(links) })),
    width: Math.max(...all.map((node) => node.x + node.width / 2)) + 6,
    height: layers.length * (BOX.height + BOX.gapY) - BOX.gapY + 12,
  };
}

/** From one node to another, with a placeholder in every layer between. */
function chain(from, to, layers) {
  const links = [from];
  for (let layer = from.layer + 1; layer < to.layer; layer += 1) {
    const lane = { layer, width: BOX.lane, up: [], down: [] };
    layers[layer].push(lane);
    links.push(lane);
  }
  links.push(to);
  for (let i = 1; i < links.length; i += 1) {
    links[i].up.push(links[i - 1]);
    links[i - 1].down.push(links[i]);
  }
  return links;
}

function ordered(layers, downwards) {
  for (const layer of layers) layer.forEach((node, index) => { node.at = index; });
  for (const layer of downwards ? layers : [...layers].reverse()) {
    for (const node of layer) {
      const near = downwards ? node.up : node.down;
      node.wish = near.length ? near.reduce((sum, other) => sum + other.at, 0) / near.length : node.at;
    }
    layer.sort((a, b) => a.wish - b.wish || a.at - b.at);
    layer.forEach((node, index) => { node.at = index; });
  }
}

/** Horizontal places: near the mean of the neighbours, in order, and never overlapping. */
function placed(layers) {
  for (const layer of layers) {
    let x = 0;
    for (const node of layer) {
      node.x = x + node.width / 2;
      x += node.width + BOX.gapX;
    }
    for (const node of layer) node.x -= x / 2;
  }
  for (let round = 0; round < 12; round += 1) {
    for (const layer of layers) {
      for (const node of layer) {
        const near = [...node.up, ...node.down];
        if (near.length) node.x = near.reduce((sum, other) => sum + other.x, 0) / near.length;
      }
      spread(layer);
    }
  }
}

/** Push apart what overlaps, to both sides alike. */
function spread(layer) {
  for (let pass = 0; pass < 20; pass += 1) {
    let moved = false;
    for (let i = 1; i < layer.length; i += 1) {
      const over = (layer[i - 1].width + layer[i].width) / 2 + BOX.gapX - (layer[i].x - layer[i - 1].x);
      if (over > 0.5) {
        layer[i - 1].x -= over / 2;
        layer[i].x += over / 2;
        moved = true;
      }
    }
    if (!moved) return;
  }
}

function edgePath(links) {
  const first = links[0];
  let [x, y] = [first.x, first.y + BOX.height];
  let path = `M${x.toFixed(1)} ${y.toFixed(1)}`;
  for (const node of links.slice(1)) {
    const top = node.stage ? node.y - 3 : node.y;
    const middle = (y + top) / 2;
    path += `C${x.toFixed(1)} ${middle.toFixed(1)} ${node.x.toFixed(1)} ${middle.toFixed(1)} ${node.x.toFixed(1)} ${top.toFixed(1)}`;
    if (!node.stage) path += `V${node.y + BOX.height}`;
    [x, y] = [node.x, node.y + BOX.height];
  }
  return path;
}

// One stage

function stageBox(node) {
  const { stage } = node;
  const time = stage.seconds === null ? stage.state : seconds(stage.seconds);
  return s("g", { class: `stage-box ${family(stage.kind)} ${stage.state}`, transform: `translate(${(node.x - BOX.width / 2).toFixed(1)} ${node.y})`, tabindex: 0, role: "button", "aria-label": `${stage.name}, ${stage.kind}, ${time}` },
    s("rect", { width: BOX.width, height: BOX.height, rx: 7 }),
    s("rect", { class: "stripe", width: 4, height: BOX.height - 14, x: 7, y: 7, rx: 2 }),
    s("text", { x: 20, y: 21, class: "box-name" }, oneLine(stage.name, 15)),
    s("text", { x: 20, y: 38, class: "box-kind" }, stage.kind),
    s("text", { x: BOX.width - 9, y: 38, class: "box-time" }, time));
}

function stageDetail(stage) {
  const facts = [
    ["fingerprint", h("code", null, stage.fingerprint.slice(0, 16))],
    ["artifact", h("code", null, stage.artifact)],
    ["made from", Object.entries(stage.inputs).filter(([, names]) => names.length).map(([key, names]) => `${key}: ${names.join(", ")}`).join("; ") || "nothing else"],
    stage.started && ["started", `${shortTime(stage.started)} UTC`],
    stage.seconds !== null && ["took", seconds(stage.seconds)],
    stage.bytes !== null && ["size", bytes(stage.bytes)],
    ["seed", String(stage.seed ?? "")],
    Object.keys(stage.sources).length > 0 && ["sources", Object.entries(stage.sources).map(([label, digest]) => h("div", null, `${label} `, h("code", null, String(digest).slice(0, 12))))],
  ].filter(Boolean);
  const measures = flat(stage.results).filter(([, value]) => typeof value === "number" || typeof value === "string").slice(0, 80);
  return [
    h("h3", null, stage.name, h("span", { class: "note" }, stage.kind)),
    stage.note && nothing(`${stage.note}.`),
    definitions(facts),
    h("details", { open: true }, h("summary", null, "settings"), table(["setting", "value"], flat(stage.settings).map(([name, value]) => [name, value === null ? "none" : typeof value === "number" ? String(value) : String(value)]))),
    measures.length > 0 && h("details", null, h("summary", null, "results"), table(["measure", "value"], measures.map(([name, value]) => [name, figure(name, value)]))),
  ];
}

function definitions(pairs) {
  return h("dl", { class: "facts" }, pairs.map(([name, value]) => [h("dt", null, name), h("dd", { dir: "auto" }, value)]));
}

function table(headers, rows) {
  return h("div", { class: "scroll" }, h("table", null,
    h("thead", null, h("tr", null, headers.map((name) => h("th", { scope: "col" }, name)))),
    h("tbody", null, rows.map((row) => h("tr", null, row.map((cell) => h("td", { dir: "auto" }, cell)))))));
}

/** Nested tables as [dotted name, value] pairs. */
function flat(value, name = "") {
  if (isTable(value)) return Object.entries(value).flatMap(([key, item]) => flat(item, name ? `${name}.${key}` : key));
  if (Array.isArray(value) && value.some((item) => isTable(item))) return value.flatMap((item, index) => flat(item, `${name}[${index}]`));
  return [[name, Array.isArray(value) ? value.join(", ") : value]];
}
