// How far each label is ahead of the runner-up at every moment, and the same numbers as a table. Scores that are
// sigmoids have no runner-up: their margins are the logits of each label.

import { byId, clamp, clock, oncePerFrame, percent, SERIES, seriesColour, signed, svg, table, timeAxis } from "./dom.js";
import { cursor, movesCursor, nearest } from "./cursor.js";

const chart = byId("chart"), stage = byId("chart-stage");
const EDGE = { left: 40, right: 14, top: 10, bottom: 26 }, HEIGHT = 200;
let drawn = null;

/** The moments of an answer in the order of time: `{time, scores, margins}`. */
export const momentsOf = (answer) => answer.evidence.timestamps_s
  .map((time, row) => ({ time, scores: answer.evidence.scores[row], margins: answer.evidence.margins[row] }))
  .sort((a, b) => a.time - b.time);

export const meanOf = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

export function leaderAt(answer, moment) {
  const rank = moment.margins.indexOf(Math.max(...moment.margins));
  return { rank, label: answer.predictions[rank].label };
}

export function showChart(answer) {
  const runnerUp = answer.evidence.runner_up;
  const sigmoid = !runnerUp && answer.evidence.margins.some((row) => row.some((value) => value));
  byId("evidence-figure").hidden = !runnerUp && !sigmoid;
  if (!runnerUp && !sigmoid) { drawn = null; return; }
  const moments = momentsOf(answer), shown = answer.predictions.slice(0, SERIES);
  const all = moments.flatMap((moment) => moment.margins.slice(0, SERIES));
  drawn = { answer, moments, shown, end: Math.max(answer.video.duration_s, moments.at(-1).time, 0.001), low: Math.min(0, ...all), high: Math.max(0, ...all) };
  byId("evidence-note").replaceChildren(...(sigmoid
    ? ["How strongly each moment speaks for each label, or below 0 against it (a logit). ",
      "The short line at the right is a label's mean, and it gives the score: e to the power of the mean is the score divided by what is left to 100%."]
    : [`How far each label is ahead of the runner-up, “${runnerUp.label}”, at each moment (a difference of logits). `,
      "The short line at the right is a label's mean, and it gives the score: e to the power of the mean is the label's score divided by the runner-up's."]));
  byId("evidence-table").replaceChildren(table(
    sigmoid ? "Evidence of each label at each moment, in logits" : `Lead over ${runnerUp.label} at each moment, in logits`,
    ["Moment", ...answer.predictions.map((prediction) => prediction.label)],
    [...moments.map((moment) => [clock(moment.time, true), ...moment.margins.map((value) => signed(value, 3))]),
      ["Mean", ...answer.predictions.map((_, rank) => signed(meanOf(moments.map((moment) => moment.margins[rank])), 3))],
      ["Score", ...answer.predictions.map((prediction) => percent(prediction.score))]]));
  draw();
}

/** Steps of 1, 2 or 5 times a power of ten that give at most five lines. */
function steps(low, high) {
  const rough = (high - low || 1) / 4, power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= rough);
  const lines = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step / 1e6; value += step) lines.push(Math.abs(value) < step / 1e6 ? 0 : value);
  return lines;
}

function draw() {
  const width = stage.clientWidth;
  if (!drawn || !width) return;  // not shown
  const { moments, shown, end, low, high } = drawn;
  const inner = width - EDGE.left - EDGE.right;
  const x = (seconds) => EDGE.left + inner * seconds / end;
  const y = (value) => EDGE.top + (HEIGHT - EDGE.top - EDGE.bottom) * (high - value) / (high - low || 1);
  const shapes = steps(low, high).flatMap((value) => [
    svg("line", { class: value ? "grid" : "zero", x1: EDGE.left, x2: width - EDGE.right, y1: y(value), y2: y(value) }),
    svg("text", { x: EDGE.left - 7, y: y(value) + 4, "text-anchor": "end" }, {}, value ? signed(value, Number.isInteger(value) ? 0 : 1) : "0"),
  ]);
  shapes.push(...timeAxis(x, HEIGHT - 6, 0, end));
  for (let rank = shown.length - 1; rank >= 0; rank -= 1) {
    const stroke = seriesColour(rank);
    const points = moments.map((moment) => [x(moment.time), y(moment.margins[rank])]);
    const mean = y(meanOf(moments.map((moment) => moment.margins[rank])));
    shapes.push(
      svg("polyline", { points: points.map((point) => point.map((value) => value.toFixed(1)).join(",")).join(" "), fill: "none", "stroke-width": rank ? 1.5 : 2.5, "stroke-linejoin": "round" }, { stroke }),
      ...points.map(([cx, cy]) => svg("circle", { cx: cx.toFixed(1), cy: cy.toFixed(1), r: rank ? 2 : 3 }, { fill: stroke })),
      svg("line", { class: "mean", x1: width - EDGE.right + 2, x2: width - 2, y1: mean, y2: mean }, { stroke }));
  }
  drawn.needle = svg("line", { class: "playhead", y1: EDGE.top, y2: HEIGHT - EDGE.bottom });
  drawn.x = x;
  chart.setAttribute("viewBox", `0 0 ${width} ${HEIGHT}`);
  chart.setAttribute("height", HEIGHT);
  chart.replaceChildren(...shapes, drawn.needle);
  follow(cursor.time);
}

function follow(seconds) {
  if (!drawn?.needle) return;
  const at = drawn.x(clamp(seconds, 0, drawn.end));
  for (const side of ["x1", "x2"]) drawn.needle.setAttribute(side, at);
  const index = nearest(drawn.moments.map((moment) => moment.time), seconds), moment = drawn.moments[index];
  const order = drawn.shown.map((_, rank) => rank).sort((a, b) => moment.margins[b] - moment.margins[a]);
  const text = order.slice(0, 3).map((rank) => `${drawn.shown[rank].label} ${signed(moment.margins[rank])}`);
  byId("evidence-now").textContent = `${clock(moment.time, true)}: ${text.join(", ")}`;
  stage.setAttribute("aria-valuemax", drawn.moments.length);
  stage.setAttribute("aria-valuenow", index + 1);
  stage.setAttribute("aria-valuetext", byId("evidence-now").textContent);
}

export const redrawChart = oncePerFrame(draw);
addEventListener("resize", redrawChart);
cursor.follow(follow);
movesCursor(stage, () => drawn?.moments.map((moment) => moment.time) ?? [], (event) => {
  const box = chart.getBoundingClientRect();
  return clamp((event.clientX - box.left - EDGE.left) / (box.width - EDGE.left - EDGE.right), 0, 1) * drawn.end;
});
