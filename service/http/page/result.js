// The result of a run: labels, charts, times and facts, for whole clips and for timelines.

import { announce, byId, element, fileSize, fill, hide, many, percent, say, sentence, seriesColour, signed, span, swatch } from "./dom.js";
import { cursor, nearest } from "./cursor.js";
import { leaderAt, meanOf, momentsOf, showChart } from "./chart.js";
import { laneColour, showLanes, windowAt } from "./lanes.js";
import { play, showCaption, showSampled, showTitles } from "./player.js";
import { cancel, hasEnded, hasResult } from "./runs.js";
import { showSegments } from "./segments.js";
import { showSnippets } from "./snippets.js";
import { showStrip } from "./strip.js";
import { showWaterfall } from "./waterfall.js";

let shown = null, announced = null;

/** Show a run as it is now; called again whenever it changes. */
export function showRun(run) {
  const isNew = run !== shown;
  shown = run;
  if (isNew) {
    play(run.file);
    for (const part of document.querySelectorAll("[data-result]")) part.hidden = part.dataset.result !== run.mode;
  }
  showProgress(run);
  showProblem(run);
  hide("result", !hasResult(run));
  if (hasResult(run)) (run.mode === "clip" ? showClip : showTimeline)(run, isNew);
  else { byId("result").run = null; showStrip(null); showCaption(null); showTitles([]); showSampled([], 0); }
  if (hasEnded(run) && announced !== run.state + run.id) {
    announced = run.state + run.id;
    announce(sentenceOf(run));
    if (hasResult(run) && run.state === "done") bringIntoView();
  }
}

/** What a run found, in one sentence. */
export function sentenceOf(run) {
  if (run.state === "stopped") return run.windows.length ? `Stopped after ${run.windows.length} of ${many(run.expected, "window")}.` : "Cancelled.";
  if (run.state === "failed") return `${run.problem.title}. ${run.problem.detail}`;
  if (run.mode === "timeline") return `Done: ${many(run.windows.length, "window")}, ${many(run.segments.length, "segment")}.`;
  const [best, ...others] = run.answer.predictions;
  return `Result: ${best.label}, ${percent(best.score)}${run.answer.unsure ? ", unsure" : ""}. ${others.slice(0, 2).map(({ label, score }) => `${label}, ${percent(score)}`).join(". ")}`;
}

function showProgress(run) {
  const card = byId("status"), bar = byId("progress");
  const busy = !hasEnded(run);
  card.hidden = !busy && run.state !== "stopped";
  hide("cancel", !busy);
  hide("restart", busy);
  byId("cancel").onclick = () => cancel(run);
  bar.hidden = !busy;
  if (run.state === "uploading" && run.sent < 1) {
    bar.max = 1;
    bar.value = run.sent;
    say("status-text", `Uploading: ${percent(run.sent)} of ${fileSize(run.file.size)}`);
  } else if (busy && run.windows.length) {
    bar.max = run.expected;
    bar.value = run.windows.length;
    say("status-text", `${run.windows.length} of ${many(run.expected, "window")}`);
  } else {
    bar.removeAttribute("value");
    say("status-text", run.state === "queued" ? "Waiting for the videos before it"
      : busy ? "Uploaded; decoding and classifying" : run.state === "stopped" ? sentenceOf(run) : "");
  }
}

function showProblem({ problem }) {
  hide("problem", !problem);
  if (problem) fillProblem(problem);
}

/** Write a problem into its card; a key is entered in the form above. */
export function fillProblem(problem) {
  const needsKey = problem.code === "unauthorized", detail = needsKey ? "Enter your key above; the video is labelled then." : problem.detail;
  say("problem-title", problem.title);
  say("problem-detail", sentence(detail));
  say("problem-id", problem.request_id ? `Request ${problem.request_id}` : "");
  hide("again", needsKey);
}

/** On a small screen the labels may be below the player, which grows when the video is loaded. */
function bringIntoView() {
  const box = byId("headline").getBoundingClientRect();
  if (box.top < 0 || box.bottom > innerHeight) byId("headline").scrollIntoView({ block: "center" });
  if (byId("video").readyState === 0) byId("video").addEventListener("loadedmetadata", bringIntoView, { once: true });
}

export function bar(prediction, colour, note = "") {
  const track = element("div", { className: "track", "aria-hidden": "true" }, swatch(colour, `${100 * prediction.score}%`));
  const row = element("div", { className: "row" }, element("span", { className: "name" }, prediction.label),
    note ? element("span", { className: "note" }, note) : null, element("span", { className: "score" }, percent(prediction.score)));
  return element("li", {}, row, track);
}

function showClip(run, isNew) {
  if (!isNew && byId("result").run === run) return;  // complete once it is there
  byId("result").run = run;
  const { answer } = run, moments = momentsOf(answer), times = moments.map((moment) => moment.time);
  const [best] = answer.predictions;
  fill(byId("headline"), element("strong", {}, best.label), element("span", { className: "score" }, percent(best.score)),
    answer.unsure ? element("span", { className: "badge" }, "unsure") : null);
  const lead = (rank) => answer.evidence.runner_up ? signed(meanOf(moments.map((moment) => moment.margins[rank]))) : "";
  byId("bars").replaceChildren(...answer.predictions.map((prediction, rank) => bar(prediction, seriesColour(rank), lead(rank))));
  showChart(answer);
  const leader = (seconds) => leaderAt(answer, moments[nearest(times, seconds)]).label;
  showCaption(leader);
  showStrip(answer, (seconds) => `Leading: ${leader(seconds)}`);
  showSampled(answer.sampled.timestamps_s, answer.video.duration_s);
  showTitles([]);
  showWaterfall(run);
  showFacts(run, `The network saw ${new Set(answer.sampled.frames).size} of the frames.`);
  showSnippets(run);
  cursor.move(cursor.time);
}

function showTimeline(run) {
  byId("result").run = run;
  const [longest] = sharesOfTime(run.segments);
  fill(byId("headline"), element("strong", {}, segmentsOf(run)),
    element("span", { className: "score" }, `longest: ${longest.label}, ${percent(longest.score)} of the time`));
  showLanes(run);
  showSegments(run);
  showStrip(null);
  showCaption((seconds) => windowAt(run, seconds).predictions[0].label);
  showTitles(byId("titles").checked ? run.segments : []);
  if (hasEnded(run)) {
    const first = run.answer ? "Done" : run.state === "failed" ? "Failed after" : "Stopped after";
    say("windows-note", `${first}: ${run.windows.length} of ${many(run.expected, "window")}.`);
  } else say("windows-note", "");
  const complete = run.answer && run.marks;  // the summary arrives before the connection ends
  for (const part of document.querySelectorAll(".ended")) part.hidden = !complete;
  if (complete || hasEnded(run)) showSnippets(run);
  if (!complete) return;
  showSampled(run.windows.flatMap((line) => line.sampled.timestamps_s), run.answer.video.duration_s);
  showWaterfall(run);
  showFacts(run, `The network saw ${many(run.expected, "window")}.`);
}

export const segmentsOf = (run) => `${many(run.segments.length, "segment")}, ${many(new Set(run.segments.map((part) => part.index)).size, "label")}`;

/** The labels of a timeline with their shares of the time as `score`, the longest first. */
export function sharesOfTime(segments) {
  const seconds = new Map();
  for (const part of segments) seconds.set(part.label, (seconds.get(part.label) ?? 0) + part.end_s - part.start_s);
  const total = [...seconds.values()].reduce((sum, value) => sum + value, 0) || 1;
  return [...seconds].map(([label, value]) => ({ label, score: value / total })).sort((a, b) => b.score - a.score);
}

function showWindow(seconds) {
  if (shown?.mode !== "timeline" || !shown.windows.length) return;
  const line = windowAt(shown, seconds);
  say("window-title", `${span(line)}, window ${line.window + 1} of ${shown.expected}`);
  byId("window-bars").replaceChildren(...line.predictions.map((prediction) => bar(prediction, laneColour(prediction.index))));
}

function showFacts(run, sight) {
  for (const part of document.querySelectorAll(".ended")) part.hidden = false;
  const { video, model } = run.answer;
  const turned = video.rotation ? `, turned by ${video.rotation}°` : "";
  say("facts", `${video.codec} in ${video.container}, ${video.width} × ${video.height}${turned}, ${many(video.frames, "frame")}, `
    + `${video.fps.toFixed(2).replace(/\.?0+$/, "")} per second, ${video.duration_s.toFixed(2)} s. Model ${model.name}, version ${model.version}. ${sight}`);
}

cursor.follow(showWindow);
byId("titles").addEventListener("change", () => { if (shown?.mode === "timeline") showTitles(byId("titles").checked ? shown.segments : []); });
