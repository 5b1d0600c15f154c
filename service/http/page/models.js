// The models of the service: one sentence on what the selected one knows, and the list of all.

import { byId, element, fileSize, hide, many, say } from "./dom.js";
import { getJson, key } from "./service.js";

export let limits = null;
export let models = [];

const ready = () => models.filter((model) => model.state === "ready");

/** Load the list; on failure the problem is returned, after the key was asked for where one is needed. */
export async function loadModels() {
  // Spares a request that would be refused.
  if (document.documentElement.dataset.keys === "needed" && !key.get()) { askForKey(); return { code: "unauthorized" }; }
  let answer;
  try {
    answer = await getJson("v1/models");
  } catch (problem) {
    if (problem.code !== "unauthorized") return problem;
    askForKey();
    return { code: problem.code };
  }
  ({ models, limits } = answer);
  hide("key-form", true);
  hide("forget-key", !key.get());
  const chosen = byId("model").value;
  byId("model").replaceChildren(...ready().map((model) => element("option", { value: model.name }, `${model.name} (${many(model.labels.length, "label")})`)));
  if (ready().some((model) => model.name === chosen)) byId("model").value = chosen;
  say("limits", `Videos up to ${fileSize(limits.max_upload_bytes)} and ${limits.max_duration_s} s. They are not kept.`);
  showKnowledge();
  showTable();
  return ready().length ? null : { title: "No model is serving yet", detail: "Models may still be loading; try again in a moment." };
}

/** A missing key is asked for quietly; a rejected one is named. */
export function askForKey() {
  hide("key-form", false);
  say("key-note", key.get() ? "The service rejects this key. Check it, or ask the operator for another one." : "This service needs an API key. It stays in this tab until you close it.");
  byId("key-note").classList.toggle("bad", Boolean(key.get()));
  byId("key").setAttribute("aria-invalid", Boolean(key.get()));
  say("knowledge", "Enter your API key to begin.");
}

export function showKnowledge() {
  const model = ready().find((one) => one.name === byId("model").value);
  if (!model) { say("knowledge", ""); return; }
  const { labels } = model, some = spread(labels).map((label) => `“${label}”`);
  const list = some.length > 1 ? `${some.slice(0, -1).join(", ")} and ${some.at(-1)}` : some[0];
  const what = model.trained_on === "synthetic" ? `${many(labels.length, "motion")} of drawn shapes`
    : `${many(labels.length, "action")}${model.trained_on ? ` of ${model.trained_on}` : ""}`;
  say("knowledge", `${model.name} knows ${what}${labels.length > some.length ? `, such as ${list}` : `: ${list}`}.${model.trained_on === "synthetic" ? " It knows no actions of people." : ""}`);
}

/** Up to three labels from all over the list. */
const spread = (labels) => labels.length <= 3 ? labels : [0, 0.4, 0.85].map((part) => labels[Math.floor(part * labels.length)]);

function showTable() {
  byId("models-body").replaceChildren(...models.map((model) => element("tr", {},
    element("th", { scope: "row" }, model.name, element("span", { className: "options-note" }, `version ${model.version}`)),
    element("td", {}, element("span", { className: `badge ${model.state}` }, model.state), model.reason ? element("p", { className: "quiet" }, model.reason) : null),
    element("td", {}, model.labels.length ? element("details", {}, element("summary", {}, many(model.labels.length, "label")), element("p", { className: "quiet" }, model.labels.join(", "))) : "labels unknown"),
    element("td", {}, model.inputs.map((input) => `${input.name} ${input.size} × ${input.size}`).join(", ")),
    element("td", {}, model.provider ? `${model.precision} on ${model.provider}` : ""))));
}

/** `retry()` is called after a key was entered. */
export function onKey(retry) {
  byId("key-form").addEventListener("submit", (event) => {
    event.preventDefault();
    key.set(byId("key").value.trim());
    retry();
  });
  byId("forget-key").addEventListener("click", () => { key.set(""); byId("key").value = ""; retry(); });
}
