// How the Teach view shows labels, the report of a training, and a take that is tried.

import { byId, element, hide, many, percent, seriesColour, swatch, table } from "./dom.js";
import { bar } from "./result.js";

const ENOUGH = 5;

/** A card for each label: its clips, and what the model made of the last one. */
export function showLabels(state, act) {
  const focused = document.activeElement?.dataset?.do;
  byId("labels").replaceChildren(...[...state.labels].map(([label, examples], number) => {
    const button = (kind, text, run) => {
      const made = element("button", { disabled: Boolean(state.busy), "data-do": `${kind} ${label}` }, text);
      made.addEventListener("click", run);
      return made;
    };
    const input = element("input", { type: "file", multiple: true, accept: "video/*", className: "visually-hidden", id: `files-${number}`, disabled: Boolean(state.busy) });
    input.addEventListener("change", () => { if (input.files.length) act.addFiles(label, [...input.files]); });
    const suspects = new Set((state.report?.suspects ?? []).map((one) => one.name));
    const card = element("li", { className: "label-card", "data-label": label },
      element("div", { className: "label-head" }, swatch(seriesColour(number)), element("strong", {}, label),
        element("span", { className: "count" }, many(examples.length, "clip"))),
      element("div", { className: "dots", "aria-hidden": "true" }, ...Array.from({ length: Math.max(ENOUGH, examples.length) }, (_, index) => element("i", { className: index < examples.length ? "full" : "" }))),
      element("div", { className: "actions" }, button("record", "Record", () => act.record(label)), input,
        element("label", { className: "button", for: input.id }, "Add files"), button("clear", "Remove", () => act.removeLabel(label))),
      lastTake(state.last.get(label)),
      examples.length ? element("details", {}, element("summary", {}, "Clips"),
        element("ul", { className: "clips" }, ...examples.map((one, index) => element("li", {},
          element("span", {}, `Clip ${index + 1}${suspects.has(one.id) ? ", looks mislabelled" : ""}`),
          button(`remove-${one.id}`, "Remove", () => act.remove(one.id)))))) : null);
    card.addEventListener("dragover", (event) => { event.preventDefault(); card.classList.add("over"); });
    card.addEventListener("dragleave", () => card.classList.remove("over"));
    card.addEventListener("drop", (event) => { card.classList.remove("over"); if (event.dataTransfer.files.length) act.addFiles(label, [...event.dataTransfer.files]); });
    return card;
  }));
  if (focused) byId("labels").querySelector(`[data-do="${CSS.escape(focused)}"]`)?.focus();
}

function lastTake(answer) {
  if (!answer) return null;
  if (!answer.created) return element("p", { className: "quiet" }, "This clip was there already.");
  if (!answer.predictions) return element("p", { className: "quiet" }, "Added. After teaching, the model's opinion of each take appears here.");
  const [best] = answer.predictions, right = best.label === answer.label;
  return element("p", { className: `take ${right ? "right" : "wrong"}` }, `${right ? "✓" : "✗"} The model says “${best.label}”, ${percent(best.score)}${answer.unsure ? ", unsure" : ""}.`);
}

export function showReport(state, act) {
  const { report } = state;
  hide("report", !report);
  if (!report) return;
  const { accuracy } = report, labels = Object.keys(report.labels);
  byId("report-score").replaceChildren(element("strong", {}, percent(accuracy.top1)),
    ` right in cross-validation: ${accuracy.right} of ${many(accuracy.clips, "clip")} (95 % interval ${percent(accuracy.low)} to ${percent(accuracy.high)}).`);
  const hint = Math.abs(report.two_more ?? 0) < 0.005 ? "" : `Two more clips of each label would likely bring ${(100 * report.two_more).toFixed(1)} points.`;
  byId("report-notes").replaceChildren(...[...report.warnings, hint].filter(Boolean).map((text) => element("li", {}, text)));
  const confusion = table("Clips by their label and by what the model says", ["Label", ...labels],
    report.confusion.map((row, number) => [labels[number], ...row]), "confusion");
  for (const [number, row] of [...confusion.tBodies[0].rows].entries()) {
    const total = report.confusion[number].reduce((sum, value) => sum + value, 0) || 1;
    for (const [column, value] of report.confusion[number].entries()) {
      const shade = `color-mix(in srgb, var(${column === number ? "--good" : "--bad"}) ${Math.round(45 * value / total)}%, transparent)`;
      row.cells[column + 1].style.background = value ? shade : "";
    }
  }
  byId("confusion").replaceChildren(confusion, element("p", { className: "quiet" }, "Rows are your labels, columns what the model says."));
  const all = [...state.labels.values()].flat();
  const suspects = report.suspects.filter((suspect) => all.some((one) => one.id === suspect.name));
  hide("suspects-part", !suspects.length);
  byId("suspects").replaceChildren(...suspects.map((suspect) => {
    const number = state.labels.get(suspect.label)?.findIndex((one) => one.id === suspect.name) + 1;
    const drop = element("button", { disabled: Boolean(state.busy) }, "Drop it");
    drop.addEventListener("click", () => act.remove(suspect.name));
    return element("li", {}, element("span", {}, `Clip ${number} of “${suspect.label}” looks like “${suspect.looks_like}”, ${percent(suspect.score)}.`), drop);
  }));
}

export function showTry(answer) {
  byId("try-bars").replaceChildren(...answer.predictions.map((prediction, rank) => bar(prediction, seriesColour(rank))));
  byId("try-note").textContent = answer.unsure ? "Unsure: perhaps none of the labels." : "";
}
