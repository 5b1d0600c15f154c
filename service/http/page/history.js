// The last results in memory, those that wait, and two of them side by side.

import { byId, element, hide, many, milliseconds, percent, say, swatch } from "./dom.js";
import { segmentsOf, sharesOfTime } from "./result.js";
import { cancel, DEFAULTS, hasEnded, hasResult, runs } from "./runs.js";

let current = null, other = null, select = () => {};

/** `choose(run)` is called when the user wants to see a run. */
export function onSelect(choose) { select = choose; }

const MODES = { clip: "whole clip", timeline: "timeline" };

function stateOf(run) {
  if (run.state === "uploading") return `uploading, ${percent(run.sent)}`;
  if (run.state === "working") return run.windows.length ? `${run.windows.length} of ${run.expected} windows` : "classifying";
  if (run.state === "failed") return run.problem.title;
  if (!hasResult(run)) return { queued: "waiting", stopped: "cancelled" }[run.state];
  if (run.mode === "timeline") return `${segmentsOf(run)}${run.state === "stopped" ? " (stopped)" : ""}`;
  const [best] = run.answer.predictions;
  return `${best.label}, ${percent(best.score)}`;
}

/** The labels of a run, best first: with their scores, or for timelines with their shares of the time. */
const shares = (run) => run.mode === "clip" ? run.answer.predictions : sharesOfTime(run.segments);

/** The model, the mode, and the options that differ from the defaults. */
function optionsOf(run) {
  const { model, clips, crops, window_s: length, stride_s: stride, top_k: labels } = run.params;
  const options = run.mode === "clip" ? [clips > 1 && `${clips} samplings`, crops > 1 && `${crops} crops`]
    : [`windows of ${length} s`, stride && stride !== length && `every ${stride} s`];
  return [run.answer?.model.name ?? model, MODES[run.mode], ...options, labels !== DEFAULTS.top_k && many(labels, "label")].filter(Boolean).join(", ");
}

const MEASURES = { clip: "score", timeline: "share of the time" };

export function showHistory(shown) {
  if (shown !== current && other === shown) other = null;
  current = shown;
  hide("history", !runs.length);
  const focused = document.activeElement?.dataset?.run, part = document.activeElement?.className;
  byId("runs").replaceChildren(...runs.map(rowOf));
  // The list is rendered again; a focused button keeps the focus.
  if (focused) [...byId("runs").querySelectorAll(`[data-run="${focused}"]`)].find((button) => button.className === part)?.focus();
  showComparison();
}

function rowOf(run) {
  const frame = run.answer?.frames?.[Math.floor(run.answer.frames.length / 2)];
  const open = element("button", { className: "open", "data-run": run.id },
    frame ? element("img", { src: frame.image, alt: "" }) : element("span", { className: "blank", "aria-hidden": "true" }),
    element("span", { className: "texts" },
      element("span", { className: "file" }, run.file.name),
      element("span", { className: `state ${run.state}` }, stateOf(run)),
      element("span", { className: "options-note" }, optionsOf(run))));
  if (run === current) open.setAttribute("aria-current", "true");
  open.addEventListener("click", () => select(run));
  const side = hasEnded(run)
    ? element("button", { className: "side", "data-run": run.id, "aria-pressed": run === other, hidden: run === current || !hasResult(run), "aria-label": `Compare with ${run.file.name}` }, "Compare")
    : element("button", { className: "side", "data-run": run.id, "aria-label": `Cancel ${run.file.name}` }, "Cancel");
  side.addEventListener("click", () => {
    if (!hasEnded(run)) cancel(run);
    else { other = run === other ? null : run; showHistory(current); if (other) byId("comparison").scrollIntoView({ block: "nearest" }); }
  });
  return element("li", { className: run === current ? "now" : "" }, open, side);
}

function showComparison() {
  const shown = current && other && hasResult(current) && hasResult(other);
  hide("comparison", !shown);
  if (!shown) return;
  const pair = [current, other], found = pair.map(shares);
  const labels = [...new Set(found.flat().map((one) => one.label))];
  const scoreOf = (side, label) => found[side].find((one) => one.label === label)?.score;
  labels.sort((a, b) => Math.max(scoreOf(0, b) ?? 0, scoreOf(1, b) ?? 0) - Math.max(scoreOf(0, a) ?? 0, scoreOf(1, a) ?? 0));
  const cellOf = (side, label) => {
    const score = scoreOf(side, label);
    if (score === undefined) return element("td", { className: "quiet" }, "not listed");
    const line = element("div", { className: "track", "aria-hidden": "true" }, swatch(`var(--series-${side})`, `${100 * score}%`));
    return element("td", {}, element("span", { className: "number" }, percent(score)), line);
  };
  byId("comparison-table").replaceChildren(
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, "Label"),
      ...pair.map((run) => element("th", { scope: "col" }, run.file.name, element("span", { className: "options-note" }, `${optionsOf(run)}: ${MEASURES[run.mode]}`))))),
    element("tbody", {}, ...labels.map((label) => element("tr", {}, element("th", { scope: "row" }, label), cellOf(0, label), cellOf(1, label))),
      element("tr", {}, element("th", { scope: "row" }, "Time in the service"),
        ...pair.map((run) => element("td", {}, run.answer ? milliseconds(run.answer.timing_ms.total) : "stopped")))));
  const [first, second] = found.map(([best]) => best.label);
  say("comparison-note", first === second ? `Both say “${first}”.` : `The best labels differ: “${first}” and “${second}”.`);
}

byId("comparison-close").addEventListener("click", () => { other = null; showHistory(current); });
