"""The page that `picture.py` fills: @TITLE@ is text, @DATA@ is JSON.

Left the graph (drag to move, wheel to zoom), right the chosen kernel or the list of all; above a
strip in which every kernel is as wide as its share of the time.
"""

PAGE = r"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>@TITLE@ - tinynn</title>
<style>
:root {
  --paper: #fbfbfa; --card: #ffffff; --ink: #1d2126; --soft: #68707a; --line: #dcdfe3;
  --edge: #a9b1bb; --pick: #d9480f; --code: #f4f5f6;
  --contract: #2f6fbf; --conv: #1b9aaa; --depthwise: #2a8f6a; --lanes: #b07a1a;
  --loops: #7b61b3; --points: #a0528a; --other: #77808b;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #15181c; --card: #1d2126; --ink: #e6e8ea; --soft: #98a1ab; --line: #343a42;
    --edge: #59626d; --pick: #ff8c42; --code: #171a1e;
    --contract: #5b9bea; --conv: #45c1d0; --depthwise: #4cc39a; --lanes: #dba53f; --loops: #a68be0;
    --points: #d183ba; --other: #97a0ab;
  }
}
* { box-sizing: border-box; }
body { margin: 0; height: 100vh; display: grid; grid-template: auto auto 1fr / 1fr 440px;
  background: var(--paper); color: var(--ink); font: 13px/1.45 system-ui, sans-serif; }
header { grid-column: 1 / 3; padding: 10px 16px 8px; display: flex; gap: 22px;
  align-items: baseline; flex-wrap: wrap; }
header h1 { font-size: 16px; margin: 0; font-weight: 650; }
header span { color: var(--soft); }
header i { display: inline-block; width: 10px; height: 10px; border-radius: 3px;
  margin-right: 5px; }
#strip { grid-column: 1 / 3; display: flex; height: 22px; margin: 0 16px 10px; border-radius: 5px;
  overflow: hidden; background: var(--line); }
#strip div { min-width: 0; height: 100%; cursor: pointer; }
#strip .wide { border-right: 1px solid var(--paper); }
#strip div:hover, #strip .on { filter: brightness(1.25) saturate(1.4); }
#strip .on { background: var(--pick) !important; }
#graph { border-top: 1px solid var(--line); overflow: hidden; min-width: 0; cursor: grab;
  touch-action: none; user-select: none; }
#graph.moving { cursor: grabbing; }
#graph svg { width: 100%; height: 100%; display: block; }
aside { border-top: 1px solid var(--line); border-left: 1px solid var(--line); overflow: auto;
  background: var(--card); padding: 14px 16px; }
aside h2 { font: 600 14px/1.4 ui-monospace, monospace; margin: 0 0 4px; overflow-wrap: anywhere; }
aside p { margin: 4px 0 10px; color: var(--soft); overflow-wrap: anywhere; }
aside button { float: right; border: 1px solid var(--line); background: none; color: inherit;
  border-radius: 5px; padding: 2px 9px; font: inherit; cursor: pointer; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
td, th { text-align: left; padding: 3px 6px 3px 0; border-bottom: 1px solid var(--line);
  vertical-align: top; font-weight: 400; }
th { color: var(--soft); white-space: nowrap; }
td.n { text-align: right; white-space: nowrap; }
tr.go { cursor: pointer; }
tr.go:hover { background: var(--code); }
td.name { font: 12px ui-monospace, monospace; max-width: 215px; overflow: hidden;
  text-overflow: ellipsis; white-space: nowrap; }
pre { background: var(--code); padding: 10px; border-radius: 6px; overflow: auto; margin: 6px 0 0;
  font: 11.5px/1.5 ui-monospace, monospace; tab-size: 2; }
h3 { font-size: 12px; margin: 16px 0 4px; color: var(--soft); font-weight: 600; }
.node { cursor: pointer; }
.node rect { fill: var(--card); stroke: var(--line); }
.node .bar { stroke: none; }
.node:hover rect.box { stroke: var(--soft); }
.node.on rect.box { stroke: var(--pick); stroke-width: 2.5; }
.node.near rect.box { stroke: var(--ink); }
.node text { fill: var(--ink); font-size: 12px; }
.node text.sub { fill: var(--soft); font-size: 10.5px; }
.border rect { fill: var(--code); rx: 23px; }
.edge { fill: none; stroke: var(--edge); stroke-width: 1.4; }
.edge.on { stroke: var(--pick); stroke-width: 2.4; }
</style>
</head>
<body>
<header id="head"></header>
<div id="strip"></div>
<div id="graph"><svg><g id="world"><g id="edges"></g><g id="nodes"></g></g></svg></div>
<aside id="side"></aside>
<script type="application/json" id="data">@DATA@</script>
<script>
"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const [head, strip, graph, world, side] =
  ["head", "strip", "graph", "world", "side"].map(id => document.getElementById(id));
const time = k => data.measured ? k.measured : k.predicted;
const total = data.kernels.reduce((sum, k) => sum + time(k), 0) || 1;
const slowest = Math.max(...data.kernels.map(time), 1);
const families = ["contract", "conv", "depthwise", "lanes", "loops", "points"];
const colour = k => `var(--${families.includes(k.family) ? k.family : "other"})`;

function us(ns) {
  return ns >= 1e6 ? (ns / 1e6).toFixed(2) + " ms" : (ns / 1e3).toFixed(1) + " µs";
}
function bytes(n) {
  return n >= 1e6 ? (n / 1e6).toFixed(2) + " MB" : n >= 1e3 ? (n / 1e3).toFixed(1) + " kB"
    : n + " B";
}
function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  return fill(made, attributes, children);
}
function drawn(tag, attributes, ...children) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  return fill(made, attributes, children);
}
function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}
function tensor(b) { return `${b.dtype}[${b.shape.join(",")}]`; }
function cut(text, most) { return text.length > most ? text.slice(0, most - 1) + "…" : text; }

// Graph
const nodes = data.spots.map(spot => {
  const w = data.width, h = data.height, kernel = spot.kind === "kernel";
  const item = kernel ? data.kernels[spot.number] : data.buffers[spot.number];
  const group = drawn("g", {class: kernel ? "node" : "node border",
    transform: `translate(${spot.x - w / 2},${spot.y - h / 2})`,
    onclick: () => { if (!dragged) select(spot); }});
  group.append(drawn("rect", {class: "box", width: w, height: h, rx: 7}));
  const lines = kernel
    ? [item.name, `${us(time(item))}  ·  ${(100 * time(item) / total).toFixed(1)} %  ·  ` +
                  item.bound]
    : [item.name, `${spot.kind}  ${tensor(item)}`];
  if (kernel) {
    group.append(drawn("rect", {class: "bar", width: 5, height: h - 2, x: 1, y: 1, rx: 3,
      style: `fill:${colour(item)}`}));
    const share = time(item) / slowest;
    group.append(drawn("rect", {class: "bar", x: 12, y: h - 7, height: 3, rx: 1.5,
      width: Math.max(1, (w - 24) * share), style: `fill:${colour(item)};opacity:.75`}));
  }
  const left = kernel ? 13 : 20;
  group.append(drawn("text", {x: left, y: 17}, cut(lines[0], 26)),
    drawn("text", {x: left, y: 32, class: "sub"}, cut(lines[1], 36)),
    drawn("title", {}, kernel ? `${item.name}\n${item.note}` : `${item.name} ${tensor(item)}`));
  document.getElementById("nodes").append(group);
  return group;
});
const edges = data.edges.map(edge => {
  const from = data.spots[edge.from], to = data.spots[edge.to], h = data.height / 2;
  const points = [[from.x, from.y + h], ...edge.bends, [to.x, to.y - h]];
  let path = `M${points[0]}`;
  for (let i = 1; i < points.length; i++) {
    const [x0, y0] = points[i - 1], [x1, y1] = points[i], middle = (y0 + y1) / 2;
    path += `C${x0},${middle} ${x1},${middle} ${x1},${y1}`;
  }
  const line = drawn("path", {class: "edge", d: path},
    drawn("title", {}, `${data.buffers[edge.buffer].name} ${tensor(data.buffers[edge.buffer])}`));
  document.getElementById("edges").append(line);
  return line;
});

// Move and zoom
const view = {x: 0, y: 0, scale: 1};
let dragged = false, start = null;
function apply() {
  world.setAttribute("transform", `translate(${view.x},${view.y}) scale(${view.scale})`);
}
function showTop() {
  const xs = data.spots.map(s => s.x), ys = data.spots.map(s => s.y);
  if (!xs.length) return;
  const width = Math.max(...xs) - Math.min(...xs) + data.width + 60;
  const height = Math.max(...ys) - Math.min(...ys) + data.height + 60;
  const fit = Math.min(graph.clientWidth / width, graph.clientHeight / height);
  view.scale = Math.min(1, Math.max(fit, 0.62));  // never too small to read
  const first = data.spots.reduce((a, b) => b.y < a.y ? b : a);
  const centre = fit >= 0.62 ? (Math.max(...xs) + Math.min(...xs)) / 2 : first.x;
  view.x = graph.clientWidth / 2 - centre * view.scale;
  view.y = (30 + data.height / 2) * view.scale - Math.min(...ys) * view.scale;
  apply();
}
graph.addEventListener("wheel", event => {
  event.preventDefault();
  const box = graph.getBoundingClientRect();
  const x = event.clientX - box.left, y = event.clientY - box.top;
  const scale = Math.min(3, Math.max(0.05, view.scale * Math.exp(-event.deltaY / 500)));
  view.x = x - (x - view.x) * scale / view.scale;
  view.y = y - (y - view.y) * scale / view.scale;
  view.scale = scale;
  apply();
}, {passive: false});
graph.addEventListener("pointerdown", event => {
  start = {x: event.clientX - view.x, y: event.clientY - view.y,
    at: [event.clientX, event.clientY]};
  dragged = false;
});
window.addEventListener("pointermove", event => {
  if (!start) return;
  if (Math.hypot(event.clientX - start.at[0], event.clientY - start.at[1]) > 4) dragged = true;
  view.x = event.clientX - start.x;
  view.y = event.clientY - start.y;
  graph.classList.toggle("moving", dragged);
  apply();
});
window.addEventListener("pointerup", () => { start = null; graph.classList.remove("moving"); });

// Selection
const blocks = data.kernels.map((kernel, number) => {
  const block = element("div", {title: `${number} ${kernel.name}\n${us(time(kernel))}`,
    style: `flex:${time(kernel) / total} 1 0;background:${colour(kernel)}`,
    onclick: () => choose(number)});
  block.classList.toggle("wide", time(kernel) / total > 0.004);
  strip.append(block);
  return block;
});
let chosen = null;
function choose(number) {
  select(data.spots.find(spot => spot.kind === "kernel" && spot.number === number), true);
}
function select(spot, centre) {
  chosen = spot;
  const at = data.spots.indexOf(spot);
  nodes.forEach((node, i) => {
    node.classList.toggle("on", i === at);
    node.classList.toggle("near", data.edges.some(e =>
      (e.from === at && e.to === i) || (e.to === at && e.from === i)));
  });
  edges.forEach((line, i) =>
    line.classList.toggle("on", data.edges[i].from === at || data.edges[i].to === at));
  blocks.forEach((block, i) => block.classList.toggle(
    "on", !!spot && spot.kind === "kernel" && spot.number === i));
  if (!spot) return showList();
  if (centre) {
    view.x = graph.clientWidth / 2 - spot.x * view.scale;
    view.y = graph.clientHeight / 2 - spot.y * view.scale;
    apply();
  }
  side.scrollTop = 0;
  if (spot.kind === "kernel") showKernel(spot.number); else showBuffer(spot);
}
function row(name, value) {
  return element("tr", {}, element("th", {}, name), element("td", {}, value));
}
function back() { return element("button", {onclick: () => select(null)}, "all kernels"); }
function showKernel(number) {
  const k = data.kernels[number];
  const facts = element("table", {}, row("predicted", us(k.predicted) + ", bound by " + k.bound));
  if (data.measured) {
    const ns = k.measured || 1;
    facts.append(row("measured", `${us(k.measured)}, ${(k.flop / ns).toFixed(1)} GFLOPS, ` +
      `${(k.nbytes / ns).toFixed(1)} GB/s`));
  }
  facts.append(row("share", (100 * time(k) / total).toFixed(2) + " %"),
    row("schedule", `${k.schedule}, at most ${k.parts} shares`),
    row("work", `${(k.flop / 1e6).toFixed(3)} MFLOP, ${bytes(k.nbytes)}`));
  data.kernels.forEach((other, i) => {
    if (other.readers.includes(number)) facts.append(row(`not merged with ${i}`, other.reason));
  });
  k.readers.forEach(i => facts.append(row(`not merged with ${i}`, k.reason)));
  if (!k.readers.length) facts.append(row("stored because", k.reason));
  const buffers = element("table", {});
  k.args.forEach((arg, position) => {
    const b = data.buffers[arg], written = k.writes.includes(position);
    buffers.append(element("tr", {}, element("th", {}, written ? "writes" : "reads"),
      element("td", {}, `${b.kind} ${b.name}`), element("td", {}, tensor(b)),
      element("td", {class: "n"}, bytes(b.nbytes))));
  });
  side.replaceChildren(back(), element("h2", {}, `${number}  ${k.name}`),
    element("p", {}, k.note), facts, element("h3", {}, "Buffers"), buffers,
    element("h3", {}, "Source"), element("pre", {}, data.sources[k.name] || "not in the file"));
}
function showBuffer(spot) {
  const b = data.buffers[spot.number];
  side.replaceChildren(back(), element("h2", {}, b.name),
    element("p", {}, `${spot.kind} of the program`),
    element("table", {}, row("type", tensor(b)), row("size", bytes(b.nbytes))));
}
function showList() {
  const list = element("table", {});
  data.kernels.map((kernel, number) => [kernel, number])
    .sort((a, b) => time(b[0]) - time(a[0]))
    .forEach(([kernel, number]) => list.append(
      element("tr", {class: "go", onclick: () => choose(number)},
        element("td", {class: "n"}, String(number)),
        element("td", {class: "name", title: kernel.note}, kernel.name),
        element("td", {class: "n"}, us(time(kernel))),
        element("td", {class: "n"}, (100 * time(kernel) / total).toFixed(1) + " %"))));
  side.replaceChildren(element("h2", {}, "Kernels by time"),
    element("p", {}, "Click a kernel here, in the graph or in the strip above. Arrow keys go to " +
      "the next one, Escape comes back."), list);
}
window.addEventListener("keydown", event => {
  if (event.key === "Escape") return select(null);
  const step = {ArrowDown: 1, ArrowRight: 1, ArrowUp: -1, ArrowLeft: -1}[event.key];
  if (!step || !data.kernels.length) return;
  event.preventDefault();
  const now = chosen && chosen.kind === "kernel" ? chosen.number : step > 0 ? -1 : 0;
  choose((now + step + data.kernels.length) % data.kernels.length);
});

const used = [...new Set(data.kernels.map(k => k.family))];
head.append(element("h1", {}, data.name),
  element("span", {}, `${data.kernels.length} kernels, ${us(total)} ` +
    `${data.measured ? "measured" : "predicted"}, ${data.target}, ${data.threads} threads`));
used.forEach(family => {
  const share = data.kernels.filter(k => k.family === family).reduce((s, k) => s + time(k), 0);
  head.append(element("span", {}, element("i", {style: `background:${colour({family})}`}),
    `${family} ${(100 * share / total).toFixed(0)} %`));
});
showTop();
showList();
const asked = Number(location.hash.slice(1));  // page.html#12 opens with kernel 12
if (location.hash && asked < data.kernels.length) choose(asked);
</script>
</body>
</html>
"""
