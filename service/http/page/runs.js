// A run is one video, classified once with certain options. Runs are kept in memory, the latest first.

import { post } from "./service.js";

export const MAX_RUNS = 20;
export const DEFAULTS = { top_k: "5", clips: "1", crops: "1", window_s: "4", stride_s: "" };
export const OPTIONS = { clip: ["top_k", "clips", "crops"], timeline: ["top_k", "window_s", "stride_s"] };

const ENDED = new Set(["done", "failed", "stopped"]);
const listeners = new Set();
const queue = [];
let nextId = 1, working = false;

export const runs = [];
/** Call `listener(run)` whenever a run changes. */
export const onChange = (listener) => { listeners.add(listener); };
const changed = (run) => { for (const listener of listeners) listener(run); };

export const hasEnded = (run) => ENDED.has(run.state);
/** A result to show, perhaps an incomplete one. */
export const hasResult = (run) => Boolean(run.answer) || run.windows.length > 0;

/** The query of a run: what differs from the service's defaults, because it is shown for copying. */
export function query(run, extra = {}) {
  const parameters = new URLSearchParams();
  if (run.params.model) parameters.set("model", run.params.model);
  for (const name of OPTIONS[run.mode]) if (run.params[name] !== DEFAULTS[name]) parameters.set(name, run.params[name]);
  for (const [name, value] of Object.entries(extra)) parameters.set(name, value);
  return parameters;
}

export const route = (run) => run.mode === "clip" ? "v1/classify" : "v1/timeline";

/** A new run, which `start` or `enqueue` begins. Old runs are dropped beyond MAX_RUNS. */
export function addRun(file, mode, params) {
  const run = {
    id: nextId++, file, mode, params, state: "queued", sent: 0, marks: null, answer: null,
    windows: [], segments: [], expected: 0, summary: null, problem: null, abort: new AbortController(),
  };
  runs.unshift(run);
  while (runs.length > MAX_RUNS) {
    const oldest = runs.findLastIndex((one) => hasEnded(one));
    if (oldest < 0) break;
    runs.splice(oldest, 1);
  }
  changed(run);
  return run;
}

/** The kept run of the same video with the same mode and options, if there is one. */
export const findRun = (file, mode, params) => runs.find((run) => run.file === file && run.mode === mode
  && run.state !== "failed" && JSON.stringify(run.params) === JSON.stringify(params));

export function cancel(run) {
  const waiting = queue.indexOf(run);
  if (waiting >= 0) queue.splice(waiting, 1);
  run.abort.abort();
  if (!hasEnded(run)) { run.state = "stopped"; changed(run); }
}

/** Begin again with the same video and options, also from a failed or stopped run. */
export function restart(run) {
  Object.assign(run, { answer: null, windows: [], segments: [], summary: null, problem: null, sent: 0, abort: new AbortController() });
  return start(run);
}

/** Run after those that wait already. */
export async function enqueue(run) {
  queue.push(run);
  if (working) return;
  working = true;
  while (queue.length) await start(queue.shift());
  working = false;
}

export async function start(run) {
  run.state = "uploading";
  run.began = performance.now();
  changed(run);
  let read = 0;
  const takeLines = (text) => {
    for (let end = text.indexOf("\n", read); end >= 0; end = text.indexOf("\n", read)) {
      takeLine(run, JSON.parse(text.slice(read, end)));
      read = end + 1;
    }
    changed(run);
  };
  const path = `${route(run)}?${query(run, run.mode === "clip" ? { evidence: true, frames: true } : {})}`;
  try {
    const { text, marks } = await post(path, run.file, {
      signal: run.abort.signal,
      onUpload: (sent, total) => {
        run.sent = total ? sent / total : 0;
        if (run.sent === 1) run.state = "working";
        changed(run);
      },
      onText: run.mode === "timeline" ? takeLines : undefined,
    });
    run.marks = marks;
    if (run.mode === "clip") run.answer = JSON.parse(text);
    else {
      takeLines(text);
      if (!run.summary && !run.problem) run.problem = { title: "The answer is incomplete", detail: "The summary is missing." };
    }
    run.state = run.problem ? "failed" : "done";
  } catch (problem) {
    if (problem.code === "cancelled") run.state = "stopped";
    else {
      run.state = "failed";
      run.problem = problem.title ? problem : { title: "The answer cannot be read", detail: `${problem}` };
    }
  }
  changed(run);
  return run;
}

function takeLine(run, line) {
  if (line.error) run.problem = line.error;
  else if (line.summary) {
    run.answer = line;
    run.summary = line.summary;
    run.expected = line.summary.windows;
  } else {
    run.windows.push(line);
    run.expected = line.windows;
    addToSegments(run.segments, line);
  }
}

/** A segment is consecutive windows with the same best label, as in the summary of the answer. */
function addToSegments(segments, line) {
  const best = line.predictions[0];
  if (!segments.length || segments.at(-1).index !== best.index) {
    segments.push({ ...best, start_s: line.start_s, first: line.window, windows: 0, scores: 0 });
  }
  const segment = segments.at(-1);
  segment.windows += 1;
  segment.scores += best.score;
  segment.score = segment.scores / segment.windows;
  segment.end_s = line.end_s;
}
