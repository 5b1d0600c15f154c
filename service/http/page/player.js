// The player: the video, a caption with the current label, and marks at the sampled times.

import { byId, clamp, clock, element, hide, say } from "./dom.js";
import { cursor } from "./cursor.js";

const video = byId("video"), track = byId("ticks");
let shown = null, address = null, titles = null, followsFrames = false;

cursor.playerPauses(() => {
  if (video.paused) return () => {};
  video.pause();
  return () => { video.play().catch(() => {}); };
});

export function play(file) {
  if (shown === file) return;
  shown = file;
  if (address) URL.revokeObjectURL(address);
  address = URL.createObjectURL(file);
  byId("player").hidden = video.hidden = false;
  hide("unplayable", true);
  say("caption", "");
  showSampled([], 0);
  showTitles([]);
  video.src = address;
  video.play().catch(() => {});
}

/** The length of a video in seconds as the browser sees it; 0 if it cannot tell. */
export function durationOf(file) {
  return new Promise((resolve) => {
    const probe = document.createElement("video"), url = URL.createObjectURL(file);
    const done = (seconds) => { clearTimeout(patience); URL.revokeObjectURL(url); probe.removeAttribute("src"); resolve(seconds); };
    const patience = setTimeout(() => done(0), 3000);
    probe.preload = "metadata";
    probe.onloadedmetadata = () => done(Number.isFinite(probe.duration) ? probe.duration : 0);
    probe.onerror = () => done(0);
    probe.src = url;
  });
}

/** Marks below the video where the network sampled it. */
export function showSampled(times, duration) {
  track.hidden = !times.length;
  track.duration = duration;
  track.replaceChildren(...times.map((time) => {
    const mark = element("i", { className: "tick" });
    mark.style.left = `${100 * clamp(time / duration, 0, 1)}%`;
    return mark;
  }), track.needle ??= element("i", { className: "needle" }));
}

/** What the caption says at a moment: `name(seconds)` returns a text; null for no caption. */
export function showCaption(name) {
  track.caption = name;
  moved(cursor.time);
}

/** Subtitles on the video: `{start_s, end_s, label}` each. */
export function showTitles(segments) {
  titles ??= video.addTextTrack("captions", "Labels", "en");
  titles.mode = "showing";
  for (const cue of [...titles.cues]) titles.removeCue(cue);
  for (const segment of segments) titles.addCue(new VTTCue(segment.start_s, segment.end_s, segment.label));
}

function moved(seconds, origin) {
  if (origin && origin !== video && video.readyState > 0) seek(seconds);
  if (track.needle) track.needle.style.left = `${100 * clamp(seconds / (track.duration || 1), 0, 1)}%`;
  if (track.caption) byId("caption").replaceChildren(element("span", { className: "when" }, clock(Math.floor(10 * seconds) / 10, true)), track.caption(seconds));
  else say("caption", "");
}

let wanted = null;
/** One seek at a time: a hovering pointer asks for more than a decoder can follow. */
function seek(seconds) {
  wanted = seconds;
  if (!video.seeking) { video.currentTime = wanted; wanted = null; }
}

cursor.follow(moved);
video.addEventListener("seeked", () => { if (wanted !== null) seek(wanted); else cursor.move(video.currentTime, video); });
video.addEventListener("timeupdate", () => { if (!video.seeking && wanted === null && !followsFrames) cursor.move(video.currentTime, video); });
video.addEventListener("playing", () => {
  if (followsFrames) return;
  followsFrames = true;
  const follow = () => {
    if (video.paused || video.ended) { followsFrames = false; return; }
    cursor.move(video.currentTime, video);
    requestAnimationFrame(follow);
  };
  follow();
});
video.addEventListener("error", () => { if (video.src) { video.hidden = true; hide("unplayable", false); } });
track.addEventListener("click", (event) => {
  const box = track.getBoundingClientRect();
  cursor.move((event.clientX - box.left) / box.width * track.duration, track);
});
