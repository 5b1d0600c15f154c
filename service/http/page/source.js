// Where videos come from: files, drops, samples and the camera.

import { byId, element, hide, say } from "./dom.js";
import { Camera } from "./camera.js";

const SAMPLES = [
  ["left-to-right.mp4", "Something moves", "4 s"],
  ["turning.mp4", "Something turns", "4 s"],
  ["five-scenes.mp4", "Five scenes", "20 s, as a timeline"],
];
export const RECORD_S = 3;
const camera = new Camera(byId("preview"));

/** `take(files)` is called with the videos, `fail(problem, retry)` when there is none after all. */
export function onVideos(take, fail) {
  byId("file").addEventListener("change", () => {
    if (byId("file").files.length) take([...byId("file").files]);
    byId("file").value = "";  // the same file can be chosen again
  });
  for (const kind of ["dragenter", "dragover"]) addEventListener(kind, (event) => { event.preventDefault(); byId("drop").classList.add("over"); });
  for (const kind of ["dragleave", "drop"]) addEventListener(kind, () => byId("drop").classList.remove("over"));
  addEventListener("drop", (event) => {
    event.preventDefault();
    if (byId("view-classify").hidden) return;  // the Teach view takes its own
    if (event.dataTransfer.files.length) take([...event.dataTransfer.files]);
  });
  byId("samples").append(...SAMPLES.map(([name, title, note]) => {
    const button = element("button", { className: "sample", "data-sample": name }, element("strong", {}, title), element("span", {}, note));
    button.addEventListener("click", async () => {
      try {
        const answer = await fetch(`page/samples/${name}`);
        if (!answer.ok) throw new Error(`${answer.status}`);
        take([new File([await answer.blob()], name, { type: "video/mp4" })]);
      } catch {
        fail({ title: "The sample cannot be loaded", detail: "Check that the service is still running." }, () => button.click());
      }
    });
    return button;
  }));
  byId("record").addEventListener("click", async () => {
    if (camera.isOpen) { closeCamera(); return; }
    try {
      await camera.open();
      hide("camera", false);
      say("record", "Close camera");
      byId("shoot").focus();
    } catch (problem) {
      if (!byId("view-classify").hidden) fail(problem, () => byId("record").click());
    }
  });
  byId("shoot").addEventListener("click", async () => {
    byId("shoot").disabled = true;
    try {
      const file = await camera.record(RECORD_S, (rest) => { say("shoot", `Recording, ${rest.toFixed(1)} s`); });
      closeCamera();
      take([file]);
    } catch (problem) {
      closeCamera();
      fail(problem, () => byId("record").click());
    }
    byId("shoot").disabled = false;
    say("shoot", `Record ${RECORD_S} s`);
  });
}

export function closeCamera() {
  camera.close();
  hide("camera", true);
  say("record", "Record");
}
