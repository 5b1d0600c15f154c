// The lanes of a timeline: a row for each label, a bar for each window; they can be zoomed.

import { byId, clamp, oncePerFrame, percent, seriesColour, SERIES, span, svg, timeAxis } from "./dom.js";
import { cursor, movesCursor } from "./cursor.js";

const lanes = byId("lanes"), chart = byId("lanes-chart");
const EDGE = { left: 8, right: 8, bottom: 26 }, LANE = 40, BAR = 20, LETTER = 6.8;
const OTHERS = "Other labels";
const CLOSEST_S = 1;
let run = null, view = null, place = new Map(), match = "";

/** Where a window's bar ends: with it, or where the next one begins if they overlap. */
const strideOf = (one) => Number(one.params.stride_s) || Number(one.params.window_s);
const shownEnd = (line) => Math.min(line.end_s, line.start_s + strideOf(run));
const endOf = (one) => one.summary ? Math.max(one.answer.video.duration_s, one.windows.at(-1).end_s)
  : Math.max(one.windows.at(-1).end_s, (one.expected - 1) * strideOf(one) + Number(one.params.window_s));

/** The window that is shown at a moment; between windows the one before. */
export const windowAt = (one, seconds) => one.windows[Math.max(one.windows.findLastIndex((line) => line.start_s <= seconds), 0)];

/** The colour of a label: that of its lane. */
export const laneColour = (index) => place.has(index) ? seriesColour(place.get(index)) : "var(--soft)";

export function showLanes(shown) {
  if (run !== shown) view = null;
  run = shown;
  // The labels that are best for the most windows, in the order in which they came up.
  const counts = new Map();
  for (const segment of run.segments) counts.set(segment.index, (counts.get(segment.index) ?? 0) + segment.windows);
  const most = [...counts.keys()].sort((a, b) => counts.get(b) - counts.get(a)).slice(0, SERIES);
  place = new Map([...counts.keys()].filter((index) => most.includes(index)).map((index, lane) => [index, lane]));
  redrawLanes();
}

/** Only labels that contain this text keep their colour. */
export function highlight(text) {
  match = text.toLowerCase();
  redrawLanes();
}

function draw() {
  const width = lanes.clientWidth;
  if (!run?.windows.length || !width) return;
  const end = endOf(run), [from, to] = view ?? [0, end];
  const inner = width - EDGE.left - EDGE.right;
  const x = (seconds) => EDGE.left + inner * (seconds - from) / (to - from);
  const names = [...place.keys()].map((index) => run.segments.find((segment) => segment.index === index).label);
  if (run.segments.some((segment) => !place.has(segment.index))) names.push(OTHERS);
  const letters = Math.floor(inner / LETTER), height = names.length * LANE + EDGE.bottom;
  const shapes = [svg("rect", { class: "band", y: 0, height: height - EDGE.bottom })];
  names.forEach((name, lane) => {
    const floor = (lane + 1) * LANE - 2;
    const faint = match && !name.toLowerCase().includes(match);
    shapes.push(
      svg("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: floor, y2: floor }),
      svg("text", { class: "lane-name", x: EDGE.left, y: floor - BAR - 5, opacity: faint ? 0.5 : 1 }, {}, name.length > letters ? `${name.slice(0, letters - 1)}…` : name));
    for (const best of [false, true]) {
      const fill = faint || lane >= place.size ? "var(--soft)" : seriesColour(lane);
      shapes.push(svg("path", { d: barsOf(lane, best, x, floor, from, to), opacity: best ? (faint ? 0.4 : 1) : 0.3, "data-best": best }, { fill }));
    }
  });
  shapes.push(...timeAxis(x, height - 7, from, to));
  const needle = svg("line", { class: "playhead", y1: 0, y2: height - EDGE.bottom });
  Object.assign(lanes, { x, from, to, needle, band: shapes[0] });
  chart.setAttribute("viewBox", `0 0 ${width} ${height}`);
  chart.setAttribute("height", height);
  chart.replaceChildren(...shapes, needle);
  for (const id of ["zoom-out", "zoom-all"]) byId(id).disabled = !view;
  follow(cursor.time);
}

/** A bar for each window in view whose label has this lane: as the best label, or among the others. */
function barsOf(lane, best, x, floor, from, to) {
  let path = "";
  for (const line of run.windows) {
    if (line.end_s < from || line.start_s > to) continue;
    const candidates = best ? line.predictions.slice(0, 1) : line.predictions.slice(1);
    const prediction = candidates.find(({ index }) => (place.get(index) ?? (best ? place.size : -1)) === lane);
    if (!prediction) continue;
    const left = x(Math.max(line.start_s, from)), right = x(Math.min(shownEnd(line), to));
    const gap = right - left > 4 ? 1 : 0;
    path += `M${left.toFixed(2)} ${floor}V${(floor - BAR * prediction.score).toFixed(2)}H${(right - gap).toFixed(2)}V${floor}Z`;
  }
  return path;
}

function follow(seconds) {
  if (!run?.windows.length || !lanes.needle) return;
  const line = windowAt(run, seconds);
  if (view && (seconds < view[0] || seconds > view[1])) { look((view[1] - view[0]) / 2, seconds); return; }
  for (const side of ["x1", "x2"]) lanes.needle.setAttribute(side, lanes.x(clamp(seconds, lanes.from, lanes.to)));
  const left = lanes.x(Math.max(line.start_s, lanes.from)), right = lanes.x(Math.min(shownEnd(line), lanes.to));
  lanes.band.setAttribute("x", left);
  lanes.band.setAttribute("width", Math.max(0, right - left));
  lanes.setAttribute("aria-valuemax", run.windows.length);
  lanes.setAttribute("aria-valuenow", line.window + 1);
  lanes.setAttribute("aria-valuetext", `${span(line)}, window ${line.window + 1} of ${run.expected}: `
    + line.predictions.map(({ label, score }) => `${label} ${percent(score)}`).join(", "));
}

/** Show this many seconds on both sides of a moment. */
function look(half, centre) {
  const end = endOf(run), size = Math.max(2 * half, CLOSEST_S);
  const from = clamp(centre - size / 2, 0, Math.max(0, end - size));
  view = size >= end ? null : [from, from + size];
  redrawLanes();
}

/** Show `factor` times less of the video, around a moment that keeps its place as far as possible. */
export function zoom(factor, around = cursor.time) {
  if (!run?.windows.length) return;
  const [from, to] = view ?? [0, endOf(run)];
  const size = (to - from) / factor, share = clamp((around - from) / (to - from), 0, 1);
  look(size / 2, around + size * (0.5 - share));
}

export const redrawLanes = oncePerFrame(draw);
addEventListener("resize", redrawLanes);
cursor.follow(follow);
const timeOf = (event) => {
  const box = chart.getBoundingClientRect();
  return lanes.from + clamp((event.clientX - box.left - EDGE.left) / (box.width - EDGE.left - EDGE.right), 0, 1) * (lanes.to - lanes.from);
};
movesCursor(lanes, () => run?.windows.map((line) => line.start_s) ?? [], timeOf);
lanes.addEventListener("keydown", (event) => {
  const factor = { "+": 2, "=": 2, "-": 0.5, 0: 0 }[event.key];
  if (factor === undefined || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  zoom(factor || 1e-9);
});
lanes.addEventListener("wheel", (event) => {
  if (!event.ctrlKey && !event.metaKey) return;  // a plain wheel scrolls the page
  event.preventDefault();
  zoom(event.deltaY < 0 ? 1.5 : 1 / 1.5, timeOf(event));
}, { passive: false });
for (const [id, factor] of [["zoom-in", 2], ["zoom-out", 0.5], ["zoom-all", 1e-9]]) byId(id).addEventListener("click", () => zoom(factor));
