// The film strip: the frames that the network saw, a row for each of its inputs.

import { byId, clock, element, many } from "./dom.js";
import { cursor, movesCursor, nearest } from "./cursor.js";

const strip = byId("strip");
let frames = [], sayLabel = () => "";

/** Show the frames of an answer; `labelAt(seconds)` names the leading label for screen readers. */
export function showStrip(answer, labelAt) {
  frames = answer?.frames ?? [];
  sayLabel = labelAt;
  byId("strip-figure").hidden = !frames.length;
  if (!frames.length) return;
  const inputs = [...new Map(frames.map((frame) => [frame.input, frame.size]))].sort((a, b) => b[1] - a[1]);
  const rows = inputs.map(([name]) => name);
  strip.style.gridTemplateColumns = `repeat(${frames.length + rows.length - 1}, minmax(${rows.length > 1 ? 20 : 36}px, 1fr))`;
  strip.replaceChildren(...frames.map((frame, column) => {
    const image = element("img", { src: frame.image, alt: "", draggable: false });
    // Neighbouring frames mostly go to different inputs, so each may fill the columns of its row.
    const next = frames.findIndex((other, at) => at > column && other.input === frame.input);
    image.style.gridColumn = `${column + 1} / span ${next < 0 ? rows.length : Math.min(next - column, rows.length)}`;
    image.style.gridRow = rows.indexOf(frame.input) + 1;
    image.style.setProperty("--share", frame.size / inputs[0][1]);
    return image;
  }));
  const counts = inputs.map(([name, size]) => `${many(frames.filter((frame) => frame.input === name).length, "frame")} at ${size} × ${size} pixels`);
  byId("strip-note").textContent = `What the network saw: ${counts.join(", ")}.`;
  follow(cursor.time);
}

function follow(seconds) {
  if (!frames.length) return;
  const at = nearest(frames.map((frame) => frame.timestamp_s), seconds), frame = frames[at];
  for (const [index, image] of [...strip.children].entries()) image.classList.toggle("now", index === at);
  strip.setAttribute("aria-valuemax", frames.length);
  strip.setAttribute("aria-valuenow", at + 1);
  strip.setAttribute("aria-valuetext", `Frame ${frame.frame} at ${clock(frame.timestamp_s)}, ${frame.size} pixels. ${sayLabel(frame.timestamp_s)}`);
}

cursor.follow(follow);
movesCursor(strip, () => frames.map((frame) => frame.timestamp_s), (event) => {
  const places = [...strip.children].map((image) => { const box = image.getBoundingClientRect(); return box.left + box.width / 2; });
  return frames[nearest(places, event.clientX)].timestamp_s;
});
