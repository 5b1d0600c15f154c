// The Teach view: labels, clips from the camera or files, teaching, and trying the result.

import { announce, byId, download, element, hide, many, percent, say, sentence } from "./dom.js";
import { Camera } from "./camera.js";
import { loadModels, models } from "./models.js";
import { adminKey, getJson, post, send } from "./service.js";
import { showLabels, showReport, showTry } from "./teach_view.js";

const NEW = "";
const camera = new Camera(byId("teach-preview"));
const state = { name: "", labels: new Map(), last: new Map(), report: null, version: null, busy: "" };

const seconds = () => Number(byId("teach-seconds").value) || 3;
const path = (rest = "") => `v1/taught/${encodeURIComponent(state.name)}${rest}`;

export async function openTeach() {
  const { teaching } = document.documentElement.dataset;
  hide("teach-off", teaching !== "off");
  hide("admin-form", true);
  if (teaching === "off") { hide("teach", true); return; }
  try {
    if (teaching === "admin" && !adminKey.get()) throw { code: "unauthorized" };
    const { taught } = await getJson("v1/taught");
    hide("teach", false);
    byId("taught").replaceChildren(...taught.map((one) => element("option", { value: one.name }, one.name)), element("option", { value: NEW }, "New model…"));
    const known = taught.some((one) => one.name === state.name), begun = state.name || state.labels.size;
    byId("taught").value = known ? state.name : begun ? NEW : taught[0]?.name ?? NEW;
    byId("base").replaceChildren(...models.filter((model) => model.state === "ready" && model.feature_size && !model.base)
      .map((model) => element("option", { value: model.name }, model.name)));
    if (known) await refresh();
    else if (!begun) await chooseModel();  // what was begun and not saved stays
    hide("new-model", byId("taught").value !== NEW);
    draw();
  } catch (problem) {
    hide("teach", true);
    hide("admin-form", problem.code !== "unauthorized");
    say("admin-note", adminKey.get() ? "The service rejects this key." : "Teaching needs the admin key of the service. It stays in this tab until you close it.");
    byId("admin-note").classList.toggle("bad", Boolean(adminKey.get()));
    if (problem.code !== "unauthorized") fail(problem);
  }
}

export function closeTeach() {
  camera.close();
  showCamera();
}

async function chooseModel() {
  const name = byId("taught").value, isNew = name === NEW;
  hide("new-model", !isNew);
  Object.assign(state, { name: isNew ? byId("taught-name").value.trim() : name, last: new Map(), report: null, version: null });
  if (isNew) state.labels = new Map();
  else await refresh();
  draw();
}

/** Read the examples and the report of the model. */
async function refresh() {
  const taught = await getJson(path());
  const empty = [...state.labels].filter(([label, examples]) => !examples.length && !(label in taught.labels));
  state.labels = new Map([...Object.keys(taught.labels).map((label) => [label, taught.examples.filter((one) => one.label === label)]), ...empty]);
  state.report = taught.report;
  state.version = taught.versions.find((one) => one.state === "ready")?.version ?? null;
}

function draw() {
  byId("teach").setAttribute("aria-busy", Boolean(state.busy));
  showLabels(state, { record, addFiles, removeLabel, remove });
  showReport(state, { remove });
  const counts = [...state.labels.values()].map((examples) => examples.length).filter(Boolean);
  const enough = counts.length >= 2 && Math.min(...counts) >= 2;
  byId("teach-button").disabled = !enough || Boolean(state.busy);
  const noBase = byId("taught").value === NEW && !byId("base").options.length;
  say("teach-note", state.busy || (noBase ? "No model of this service can be built on: none has the output “features”." : enough ? (Math.min(...counts) < 5 ? "Works now; five clips of each label are better." : "") : "Needs two labels with two clips each; five are better."));
  byId("try").disabled = byId("try-file").disabled = !state.version || Boolean(state.busy);
  hide("try-part", !state.version);
  hide("export", !state.version);
  hide("forget", !counts.length);
}

function fail(problem) {
  hide("teach-problem", false);
  say("teach-problem-text", problem.title ? `${problem.title}. ${sentence(problem.detail)}` : `${problem}`);
}

/** Do one thing at a time; buttons are off meanwhile. */
async function busy(text, work) {
  if (state.busy) return;
  state.busy = text;
  hide("teach-problem", true);
  draw();
  try {
    await work();
  } catch (problem) {
    fail(problem);
  }
  state.busy = "";
  draw();
}

function showCamera() {
  hide("teach-camera", !camera.isOpen);
  say("camera-toggle", camera.isOpen ? "Close camera" : "Open camera");
}

async function recording() {
  await camera.open();
  showCamera();
  const file = await camera.record(seconds(), (rest) => { say("countdown", rest ? rest.toFixed(1) : ""); });
  say("countdown", "");
  return file;
}

const record = (label) => busy(`Recording “${label}”`, async () => addExample(label, await recording()));

const addFiles = (label, files) => busy(`Adding to “${label}”`, async () => {
  for (const file of files) await addExample(label, file);
});

async function addExample(label, file) {
  if (byId("taught").value === NEW && !byId("taught-name").checkValidity()) {
    byId("taught-name").focus();
    throw state.name ? { title: "The name is not valid", detail: "Use letters, digits, “.”, “_” and “-”." } : { title: "The model has no name", detail: "Enter one first." };
  }
  const query = new URLSearchParams({ label, ...(byId("taught").value === NEW && byId("base").value ? { base: byId("base").value } : {}) });
  const answer = await post(path(`/examples?${query}`), file, {}).then(({ text }) => JSON.parse(text), (problem) => {
    throw { ...problem, title: `${file.name}: ${problem.title}` };
  });
  if (answer.created) state.labels.get(label).push({ id: answer.id, label, name: file.name });
  state.last.set(label, answer);
  const says = answer.predictions ? ` The model says ${answer.predictions[0].label}, ${percent(answer.predictions[0].score)}.` : "";
  announce(`${label}: ${many(answer.labels[label], "clip")}.${says}`);
  draw();
}

const remove = (id) => busy("Removing the clip", async () => {
  await send(path(`/examples/${id}`), { method: "DELETE" });
  for (const examples of state.labels.values()) {
    const at = examples.findIndex((one) => one.id === id);
    if (at >= 0) examples.splice(at, 1);
  }
});

const removeLabel = (label) => busy(`Removing “${label}”`, async () => {
  for (const { id } of [...state.labels.get(label)]) await send(path(`/examples/${id}`), { method: "DELETE" });
  state.labels.delete(label);
});

const teach = () => busy("Teaching", async () => {
  const mirror = byId("teach-mirror").checked ? "?mirror=true" : "";
  const answer = await getJson(path(`/train${mirror}`), { method: "POST" });
  Object.assign(state, { report: answer.report, version: answer.version, last: new Map() });
  const { accuracy } = answer.report;
  announce(`Taught version ${answer.version}: ${percent(accuracy.top1)} right in cross-validation.`);
  await loadModels();
  await openTeach();  // the model is in the list now
});

const tryIt = (file) => busy("Labelling the take", async () => {
  const given = file ?? await recording();
  const answer = JSON.parse((await post(`v1/classify?${new URLSearchParams({ model: state.name })}`, given, {})).text);
  showTry(answer);
  announce(`The take looks like ${answer.predictions[0].label}, ${percent(answer.predictions[0].score)}${answer.unsure ? ", unsure" : ""}.`);
});

byId("taught").addEventListener("change", () => chooseModel().catch(fail));
byId("taught-name").addEventListener("input", () => { state.name = byId("taught-name").value.trim(); });
byId("label-form").addEventListener("submit", (event) => {
  event.preventDefault();
  const label = byId("label-name").value.trim();
  if (!label || state.labels.has(label)) return;
  state.labels.set(label, []);
  byId("label-name").value = "";
  draw();
});
byId("camera-toggle").addEventListener("click", () => busy("Opening the camera", async () => {
  if (camera.isOpen) camera.close();
  else await camera.open();
  showCamera();
}));
byId("teach-button").addEventListener("click", teach);
byId("try").addEventListener("click", () => tryIt());
byId("try-file").addEventListener("change", () => { if (byId("try-file").files.length) tryIt(byId("try-file").files[0]); });
byId("export").addEventListener("click", () => busy("Exporting", async () => {
  download(`${state.name}.zip`, await (await send(path("/package"))).blob());
}));
byId("forget").addEventListener("click", () => {
  if (!confirm(`Delete ${state.name} with its clips' features and all versions?`)) return;
  busy("Deleting", async () => {
    await send(path(), { method: "DELETE" });
    Object.assign(state, { name: "", labels: new Map(), report: null, version: null });
    await openTeach();
    await loadModels();
  });
});
byId("admin-form").addEventListener("submit", (event) => { event.preventDefault(); adminKey.set(byId("admin-key").value.trim()); openTeach(); });
