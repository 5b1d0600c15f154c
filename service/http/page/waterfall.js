// Where the time went: the upload, the stages in the service, and the answer's way back.

import { byId, element, milliseconds, say } from "./dom.js";

const STAGES = ["receive", "decode", "queue", "inference"];
const MEANING = {
  upload: "the video on its way to the service", receive: "the service reads the upload",
  decode: "sampled frames are decoded and scaled", queue: "waiting for a worker or a batch",
  inference: "the network runs", answer: "the answer on its way back",
};

/** The steps of a run: `{name, where, from, to}` in ms since its start. The clock of the service is aligned at the first byte of the answer. */
export function stepsOf(run) {
  const { marks, answer } = run, at = (mark) => marks[mark] - marks.begin;
  const timing = answer.timing_ms, whole = at("ended");
  if (run.mode === "timeline") {
    return [
      { name: "upload", where: "network", from: 0, to: Math.min(at("uploaded"), at("answered")) },
      { name: "until the first window", where: "service", from: Math.min(at("uploaded"), at("answered")), to: at("answered") },
      { name: "further windows", where: "service", from: at("answered"), to: whole },
    ];
  }
  let from = Math.max(0, at("answered") - timing.total);
  // A busy browser reports the end of an upload late; the service has read it all when `receive` ends.
  const uploaded = Math.min(at("uploaded"), from + timing.receive);
  const inService = STAGES.map((name) => {
    const step = { name, where: "service", from, to: from + timing[name] };
    from = step.to;
    return step;
  });
  return [
    { name: "upload", where: "network", from: 0, to: uploaded }, ...inService,
    { name: "answer", where: "network", from: at("answered"), to: whole },
  ];
}

export function showWaterfall(run) {
  const steps = stepsOf(run), timing = run.answer.timing_ms, whole = Math.max(run.marks.ended - run.marks.begin, 0.001);
  say("timing-title", `Time: ${milliseconds(whole)} from here, ${milliseconds(timing.total)} of it in the service`);
  byId("timing").replaceChildren(...steps.map(({ name, where, from, to }) => {
    const bar = element("i", { className: `${where} ${name}` });
    bar.style.left = `${100 * from / whole}%`;
    bar.style.width = `${Math.max(0.4, 100 * (to - from) / whole)}%`;
    return element("tr", {},
      element("th", { scope: "row", title: MEANING[name] ?? "" }, name),
      element("td", { className: "where" }, where),
      element("td", { className: "number" }, milliseconds(to - from)),
      element("td", { className: "lane", "aria-hidden": "true" }, bar));
  }));
  say("timing-note", run.mode === "clip" ? "" : `Over all windows: ${STAGES.map((name) => `${name} ${milliseconds(timing[name])}`).join(", ")}. These overlap.`);
}
