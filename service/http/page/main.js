// Puts the page together: which view is shown, which run, and what the options start.

import { byId, fileSize, hide, oncePerFrame, say } from "./dom.js";
import { redrawChart } from "./chart.js";
import { onSelect, showHistory } from "./history.js";
import { redrawLanes } from "./lanes.js";
import { askForKey, limits, loadModels, onKey, showKnowledge } from "./models.js";
import { durationOf } from "./player.js";
import { fillProblem, showRun } from "./result.js";
import { addRun, cancel, enqueue, findRun, hasEnded, onChange, OPTIONS, restart, start } from "./runs.js";
import { closeCamera, onVideos } from "./source.js";
import { closeTeach, openTeach } from "./teach.js";

const VIEWS = ["classify", "teach", "models"];
const TIMELINE_FROM_S = 15;
let current = null, mode = "clip", modeBeforeVideo = null, again = null;

const draw = oncePerFrame(() => {
  if (current) { again = null; showRun(current); }
  if (current?.problem?.code === "unauthorized") askForKey();
  showHistory(current);
});
onChange(draw);

/** Show a problem that is not one of the current run; its button calls `retry`. */
function showOnly(problem, retry = begin) {
  again = retry;
  hide("problem", false);
  fillProblem(problem);
  for (const id of ["status", "result", "hint"]) hide(id, true);
}

function select(run) {
  current = run;
  setMode(run.mode);
  for (const [name, value] of Object.entries(run.params)) if (name !== "model" || value) byId(name).value = value;
  hide("hint", true);
  say("chosen", `${run.file.name}, ${fileSize(run.file.size)}`);
  document.body.classList.add("has-video");
  draw();
}

/** The options of a new run; the service's default model goes without saying. */
function paramsOf(runMode) {
  const params = { model: byId("model").selectedIndex > 0 ? byId("model").value : "" };
  for (const name of OPTIONS[runMode]) params[name] = byId(name).value;
  return params;
}

async function take(files) {
  const wanted = modeBeforeVideo;
  modeBeforeVideo = null;
  const tooLarge = (file) => limits && file.size > limits.max_upload_bytes;
  let first = true;
  for (const file of files) {
    const runMode = wanted ?? (await durationOf(file) > TIMELINE_FROM_S ? "timeline" : "clip");
    const run = addRun(file, runMode, paramsOf(runMode));
    if (first) select(run);
    first = false;
    if (tooLarge(file)) {
      run.problem = { title: "The video is too large", detail: `It has ${fileSize(file.size)}; the service takes up to ${fileSize(limits.max_upload_bytes)}.` };
      run.state = "failed";
      draw();
    } else if (files.length === 1) start(run);
    else enqueue(run);
  }
}

/** Show the kept result of the current video for the options, or start a run. */
function rerun() {
  if (!current || !OPTIONS[mode].every((name) => byId(name).reportValidity())) return;
  const params = paramsOf(mode), { file } = current;
  const kept = findRun(file, mode, params);
  if (kept) { select(kept); return; }
  if (!hasEnded(current) && current.mode === mode) cancel(current);
  const run = addRun(file, mode, params);
  select(run);
  start(run);
}

function setMode(chosen) {
  mode = chosen;
  byId(`mode-${mode}`).checked = true;
  for (const part of document.querySelectorAll("[data-mode]")) part.hidden = part.dataset.mode !== mode;
}

function showView() {
  const name = VIEWS.includes(location.hash.slice(1)) ? location.hash.slice(1) : "classify";
  for (const view of VIEWS) {
    byId(`view-${view}`).hidden = view !== name;
    const link = byId(`to-${view}`);
    if (view === name) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  if (name !== "classify") { closeCamera(); byId("video").pause(); }
  if (name === "teach") openTeach();
  else closeTeach();
  if (name === "models") loadModels().then((problem) => { say("models-problem", problem?.title ? `${problem.title}. ${problem.detail}` : ""); });
  redrawChart();
  redrawLanes();
}

async function begin() {
  const problem = await loadModels();
  hide("problem", true);
  hide("hint", Boolean(current));
  if (problem && problem.code !== "unauthorized") showOnly(problem);
  else if (!problem && current?.problem?.code === "unauthorized") restart(current);
  else draw();
  showView();
}

onVideos(take, showOnly);
onSelect(select);
onKey(begin);
byId("again").addEventListener("click", () => { if (again) again(); else restart(current); });
byId("restart").addEventListener("click", () => restart(current));
for (const name of ["clip", "timeline"]) {
  byId(`mode-${name}`).addEventListener("change", () => {
    if (!current) modeBeforeVideo = name;
    setMode(name);
    rerun();
  });
}
for (const name of new Set(["model", ...OPTIONS.clip, ...OPTIONS.timeline])) byId(name).addEventListener("change", rerun);
byId("model").addEventListener("change", showKnowledge);
byId("window_s").addEventListener("input", () => { byId("stride_s").placeholder = byId("window_s").value; });
addEventListener("hashchange", showView);
setMode("clip");
begin();
