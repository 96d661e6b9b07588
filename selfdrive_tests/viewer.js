"use strict";
// The viewer's page: pictures, numbers and plots come as server-sent events, one per plan.

const KEPT_SECONDS = 30;
const board = view.boards[0];
const picture = document.getElementById("picture"), state = document.getElementById("state");

function add(plot, series, value) {
  series.values.push(value);
  if (value === null) return;
  // Room grows with what is seen, so that the axes do not jump about.
  const room = 0.06 * (plot.high - plot.low);
  if (value < plot.low) plot.low = value - room;
  if (value > plot.high) plot.high = value + room;
}

function take(event) {
  picture.src = event.picture;
  state.textContent = event.state;
  state.className = `verdict ${event.good ? "good" : "bad"}`;
  if (event.seconds < (board.time.at(-1) ?? 0)) restart();
  board.time.push(event.seconds);
  let next = 0;
  for (const plot of board.plots) {
    for (const series of plot.series) add(plot, series, event.values[next++]);
  }
  forget(event.seconds - KEPT_SECONDS);
  redraw();
}

function forget(before) {
  const count = board.time.findIndex((seconds) => seconds >= before);
  if (count <= 0) return;
  board.time.splice(0, count);
  for (const plot of board.plots) for (const series of plot.series) series.values.splice(0, count);
}

// Another drive began on the same bus.
function restart() {
  board.time.length = 0;
  for (const plot of board.plots) for (const series of plot.series) series.values.length = 0;
}

const source = new EventSource("events");
source.onmessage = (message) => take(JSON.parse(message.data));
source.addEventListener("end", (message) => { state.textContent = message.data; source.close(); });
source.onerror = () => { state.textContent = "The connection is lost; trying again."; };
