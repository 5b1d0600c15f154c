// "Use it": the request of a run for other programs, and the answer as JSON.

import { byId, copy, tabs } from "./dom.js";
import { key } from "./service.js";
import { query, route } from "./runs.js";

const shell = (text) => /^[\w./:@%+=-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
const base = () => new URL(".", location.href).href.replace(/\/$/, "");
const literal = JSON.stringify;
// A hyphen begins an option; in curl, commas and semicolons do too.
const path = (name) => name.replace(/^-/, "./-");
const formFile = (name) => /[",;\\]/.test(name) ? `"${name.replaceAll(/["\\]/g, "\\$&")}"` : name;
let run = null, form = "curl";

/** The options of a run that differ from the defaults. */
const optionsOf = (one) => [...query(one)].map(([name, value]) => [name, name === "model" ? value : Number(value)]);

const FORMS = {
  curl(one, url) {
    const auth = key.get() ? " -H 'Authorization: Bearer KEY'" : "";
    return `curl${one.mode === "timeline" ? " -N" : ""}${auth} -F ${shell(`file=@${formFile(path(one.file.name))}`)} ${shell(url.href)}`;
  },
  python(one) {
    const auth = key.get() ? ', api_key="KEY"' : "";
    const given = [literal(one.file.name), ...optionsOf(one).map(([name, value]) => `${name}=${literal(value)}`)].join(", ");
    const use = one.mode === "clip"
      ? `    answer = client.classify(${given})\nprint(answer.predictions[0].label)`
      : `    for line in client.timeline(${given}):\n        print(line)`;
    return `from blvnet_client import Client\n\nwith Client(${literal(base())}${auth}) as client:\n${use}`;
  },
  javascript(one, url) {
    const auth = key.get() ? ', headers: { Authorization: "Bearer KEY" }' : "";
    const read = one.mode === "clip" ? "console.log(await answer.json());"
      : "for await (const text of answer.body.pipeThrough(new TextDecoderStream())) console.log(text);  // a line of JSON per window";
    return `const body = new FormData();\nbody.append("file", file);  // from <input type="file">\nconst answer = await fetch(${literal(url)}, { method: "POST", body${auth} });\n${read}`;
  },
  cli(one) {
    const names = { top_k: "top-k", window_s: "window", stride_s: "stride" };
    const options = optionsOf(one).map(([name, value]) => `--${names[name] ?? name} ${shell(`${value}`)}`);
    const server = `--server ${shell(base())}`;
    return ["blvnet", one.mode === "clip" ? "classify" : "timeline", shell(path(one.file.name)), server, ...options].join(" ");
  },
  json(one) {
    const short = (name, value) => name === "image" ? `${value.slice(0, 32)}…` : value;
    return JSON.stringify(one.mode === "clip" ? one.answer : { windows: one.windows, ...one.answer }, short, 2);
  },
};

export function showSnippets(shown) {
  run = shown;
  const url = new URL(route(run), location.href);
  url.search = query(run, run.mode === "clip" ? { evidence: true } : {});
  byId("snippet").textContent = FORMS[form](run, url);
}

tabs(byId("snippet-tabs"), (tab) => {
  form = tab.dataset.form;
  byId("snippet-panel").setAttribute("aria-labelledby", tab.id);
  if (run) showSnippets(run);
});
byId("copy").addEventListener("click", () => copy(byId("copy"), byId("snippet")));
