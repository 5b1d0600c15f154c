// The segments of a timeline: a list that can be searched, and files to save.

import { byId, clamp, download, element, many, percent, span, swatch } from "./dom.js";
import { cursor } from "./cursor.js";
import { highlight, laneColour } from "./lanes.js";

const list = byId("segments"), search = byId("search");
let run = null;

export function showSegments(shown) {
  if (run !== shown) { run = shown; search.value = ""; highlight(""); list.replaceChildren(); }
  const text = search.value.trim().toLowerCase();
  const found = run.segments.filter((segment) => segment.label.toLowerCase().includes(text));
  found.forEach((segment, number) => {
    const row = list.children[number] ?? list.appendChild(rowOf());
    const [colour, when, name, score] = row.firstChild.children;
    row.start_s = segment.start_s;
    colour.style.background = laneColour(segment.index);
    for (const [cell, value] of [[when, span(segment)], [name, segment.label], [score, percent(segment.score)]]) {
      if (cell.textContent !== value) cell.textContent = value;
    }
  });
  while (list.children.length > found.length) list.lastChild.remove();
  if (![...list.children].some((row) => row.firstChild.tabIndex === 0)) list.firstChild?.firstChild.setAttribute("tabindex", 0);
  byId("search-count").textContent = `${text ? `${found.length} of ` : ""}${many(run.segments.length, "segment")}`;
}

/** A row; all rows together are one tab stop, arrow keys move among them. */
function rowOf() {
  return element("li", {}, element("button", { tabIndex: -1 },
    swatch("none"), element("span"), element("span", { className: "name" }), element("span")));
}

search.addEventListener("input", () => { if (run) { showSegments(run); highlight(search.value.trim()); } });
search.addEventListener("keydown", (event) => { if (event.key === "Enter" && list.firstChild) list.firstChild.firstChild.click(); });
list.addEventListener("click", (event) => {
  const row = event.target.closest("li");
  if (row) { focusRow(row); cursor.move(row.start_s, list); }
});
list.addEventListener("keydown", (event) => {
  const rows = [...list.children], at = rows.indexOf(document.activeElement.closest("li"));
  const next = { ArrowUp: at - 1, ArrowDown: at + 1, Home: 0, End: rows.length - 1 }[event.key];
  if (next === undefined) return;
  event.preventDefault();
  focusRow(rows[clamp(next, 0, rows.length - 1)]);
});

function focusRow(row) {
  for (const other of list.children) other.firstChild.tabIndex = other === row ? 0 : -1;
  row.firstChild.focus();
}

/** A time as subtitles write it; WebVTT has a point where SubRip has a comma. */
function stamp(seconds, point) {
  const ms = Math.round(1000 * seconds), two = (value) => `${value}`.padStart(2, "0");
  return `${two(Math.floor(ms / 3600000))}:${two(Math.floor(ms / 60000) % 60)}:${two(Math.floor(ms / 1000) % 60)}${point}${`${ms % 1000}`.padStart(3, "0")}`;
}

const cueText = (label) => label.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const cell = (text) => /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;

/** Format -> media type and function from a run to the text of the file. */
const FORMATS = {
  vtt: ["text/vtt", (one) => `WEBVTT\n\n${one.segments.map((part) => `${stamp(part.start_s, ".")} --> ${stamp(part.end_s, ".")}\n${cueText(part.label)}\n`).join("\n")}`],
  srt: ["application/x-subrip", (one) => one.segments.map((part, number) => `${number + 1}\n${stamp(part.start_s, ",")} --> ${stamp(part.end_s, ",")}\n${part.label}\n`).join("\n")],
  csv: ["text/csv", (one) => `start_s,end_s,label,score\n${one.segments.map((part) => `${part.start_s},${part.end_s},${cell(part.label)},${part.score}\n`).join("")}`],
  json: ["application/json", (one) => JSON.stringify({ windows: one.windows, ...(one.answer ?? {}) }, null, 2)],
};

for (const button of byId("exports").querySelectorAll("button")) {
  button.addEventListener("click", () => {
    const [type, text] = FORMATS[button.dataset.format];
    download(`${run.file.name.replace(/\.[^.]*$/, "")}.${button.dataset.format}`, text(run), type);
  });
}
