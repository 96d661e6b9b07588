"use strict";
// Plots over one common time axis. Drag to zoom all of them, double-click to see everything again,
// point to read the values. Used by the report and by the viewer, without any library.

const INK = "#1c2430", MUTED = "#667080", GRID = "#e3e7ec", MARK = "#c0392b";
const LEFT = 46, RIGHT = 8, TOP = 6, BOTTOM = 20, HEIGHT = 150;

// What all plots of a page share. range: [from, to] in seconds, null for everything.
const view = { range: null, cursor: null, boards: [], waiting: false };

function redraw() {
  if (view.waiting) return;
  view.waiting = true;
  requestAnimationFrame(() => {
    view.waiting = false;
    for (const board of view.boards) board.draw();
  });
}

function zoom(from, to) {
  view.range = from === null ? null : [Math.min(from, to), Math.max(from, to)];
  redraw();
}

function element(tag, parent, text = "", color = "") {
  const made = parent.appendChild(document.createElement(tag));
  made.textContent = text;
  made.style.color = color;
  return made;
}

// Round steps that give about `count` ticks.
function ticks(low, high, count) {
  const rough = (high - low) / count || 1, power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 5, 10].find((factor) => factor * power >= rough);
  const made = [];
  for (let i = Math.ceil(low / step); i * step <= high; i++) made.push(i * step);
  return made;
}

const short = (value) => String(+value.toPrecision(4));

class PlotBoard {
  // data: {time: [s], plots: [{title, unit, low, high, level, marks: [s], series}]}, where series is
  // [{label, color, width, dots, values}] and a value null leaves a gap.
  constructor(place, data) {
    this.time = data.time;
    this.plots = data.plots;
    this.figures = data.plots.map((plot) => this.figure(place, plot));
    view.boards.push(this);
    new ResizeObserver(redraw).observe(place);
    redraw();
  }

  figure(place, plot) {
    const figure = element("figure", place);
    const caption = element("figcaption", figure, plot.title);
    const legend = element("div", figure);
    legend.className = "legend";
    const values = plot.series.map((series) => element("span", legend, "", series.color));
    const canvas = element("canvas", figure);
    canvas.title = "drag to zoom, double-click to see everything";
    this.listen(canvas);
    return { caption, values, canvas };
  }

  listen(canvas) {
    let start = null;
    const at = (event) => this.seconds(canvas, event.offsetX);
    canvas.addEventListener("pointerdown", (event) => {
      start = at(event);
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      view.cursor = at(event);
      view.selected = start === null ? null : [start, at(event)];
      redraw();
    });
    canvas.addEventListener("pointerup", (event) => {
      const far = start !== null && Math.abs(this.x(canvas, at(event)) - this.x(canvas, start)) > 5;
      if (far) zoom(start, at(event));
      start = view.selected = null;
      redraw();
    });
    canvas.addEventListener("pointerleave", () => { view.cursor = null; redraw(); });
    canvas.addEventListener("dblclick", () => zoom(null));
  }

  get span() {
    const [from, to] = view.range ?? [this.time[0] ?? 0, this.time.at(-1) ?? 0];
    return to > from ? [from, to] : [from, from + 1];
  }

  x(canvas, seconds) {
    const [from, to] = this.span;
    return LEFT + (seconds - from) / (to - from) * (canvas.clientWidth - LEFT - RIGHT);
  }

  seconds(canvas, x) {
    const [from, to] = this.span;
    const part = (x - LEFT) / (canvas.clientWidth - LEFT - RIGHT);
    return from + Math.min(Math.max(part, 0), 1) * (to - from);
  }

  // The newest sample that is not later, -1 if there is none.
  sample(seconds) {
    let low = -1, high = this.time.length - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (this.time[middle] <= seconds) low = middle; else high = middle - 1;
    }
    return low;
  }

  draw() {
    this.plots.forEach((plot, i) => this.drawPlot(plot, this.figures[i]));
  }

  drawPlot(plot, { values, canvas }) {
    const width = canvas.clientWidth, ratio = devicePixelRatio;
    canvas.width = width * ratio;
    canvas.height = HEIGHT * ratio;
    const pen = canvas.getContext("2d");
    pen.scale(ratio, ratio);
    pen.font = "11px system-ui, sans-serif";
    const [from, to] = this.span, bottom = HEIGHT - BOTTOM;
    const x = (seconds) => this.x(canvas, seconds);
    const y = (value) => bottom - (value - plot.low) / (plot.high - plot.low) * (bottom - TOP);
    const line = (x1, y1, x2, y2, color) => {
      pen.strokeStyle = color;
      pen.beginPath();
      pen.moveTo(x1, y1);
      pen.lineTo(x2, y2);
      pen.stroke();
    };
    pen.lineWidth = 1;
    pen.fillStyle = MUTED;
    pen.textAlign = "center";
    for (const second of ticks(from, to, Math.max(width / 90, 2))) {
      line(x(second), TOP, x(second), bottom, GRID);
      pen.fillText(`${short(second)} s`, Math.min(x(second), width - 14), HEIGHT - 5);
    }
    pen.textAlign = "right";
    for (const value of ticks(plot.low, plot.high, 4)) {
      line(LEFT, y(value), width - RIGHT, y(value), GRID);
      pen.fillText(short(value), LEFT - 5, y(value) + 4);
    }
    pen.save();
    pen.beginPath();
    pen.rect(LEFT, 0, width - LEFT - RIGHT, bottom + 1);
    pen.clip();
    for (const mark of plot.marks) line(x(mark), TOP, x(mark), bottom, MARK);
    if (plot.level !== null) {
      pen.setLineDash([5, 4]);
      line(LEFT, y(plot.level), width - RIGHT, y(plot.level), MUTED);
      pen.setLineDash([]);
    }
    const first = Math.max(this.sample(from), 0), last = this.sample(to) + 1;
    for (const series of plot.series) this.drawSeries(pen, series, x, y, first, last);
    if (view.selected) {
      const [begin, end] = view.selected.map(x);
      pen.fillStyle = "rgba(37, 99, 184, .15)";
      pen.fillRect(begin, TOP, end - begin, bottom - TOP);
    }
    if (view.cursor !== null) line(x(view.cursor), TOP, x(view.cursor), bottom, MUTED);
    pen.restore();
    this.writeValues(plot, values);
  }

  drawSeries(pen, series, x, y, first, last) {
    pen.strokeStyle = pen.fillStyle = series.color;
    pen.lineWidth = series.width;
    pen.beginPath();
    let broken = true;
    for (let i = first; i <= last && i < series.values.length; i++) {
      const value = series.values[i];
      if (value === null) { broken = true; continue; }
      const px = x(this.time[i]), py = y(value);
      if (broken) pen.moveTo(px, py); else pen.lineTo(px, py);
      if (series.dots) pen.fillRect(px - 1, py - 1, 2, 2);
      broken = false;
    }
    pen.stroke();
  }

  // The legend, with values at the cursor, else the newest that are seen.
  writeValues(plot, places) {
    const now = this.sample(view.cursor ?? this.span[1]);
    plot.series.forEach((series, i) => {
      const value = series.values[now] ?? null;
      const number = value === null ? "none" : `${short(value)} ${plot.unit}`;
      places[i].textContent = [series.label, number].filter(Boolean).join(" ");
    });
  }
}

// The report: every element with data-plots names the JSON that it shows.
for (const place of document.querySelectorAll("[data-plots]")) {
  new PlotBoard(place, JSON.parse(document.getElementById(place.dataset.plots).textContent));
}
// A moment of the comparison shows itself in the plots.
for (const place of document.querySelectorAll("[data-seconds]")) {
  place.addEventListener("click", () => {
    const seconds = Number(place.dataset.seconds);
    zoom(seconds - 2, seconds + 2);
    document.getElementById("plots")?.scrollIntoView({ behavior: "smooth" });
  });
}
