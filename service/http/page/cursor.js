// One moment of the video, shared by player, film strip and charts.

import { clamp } from "./dom.js";

const followers = new Set();
let pauses = () => () => {};

export const cursor = {
  time: 0,
  /** Call `follow(seconds, origin)` when the cursor moves. */
  follow(follower) { followers.add(follower); },
  /** Move the cursor; `origin` tells followers who moved it. */
  move(seconds, origin) {
    this.time = seconds;
    for (const follower of followers) follower(seconds, origin);
  },
  /** `pause()` pauses the player and returns a function that resumes what was playing. */
  playerPauses(pause) { pauses = pause; },
};

/**
 * Let pointer and keys move the cursor over an element.
 *
 * A mouse moves it by hovering, a finger by tapping, so that swipes scroll the page. Arrow keys step through
 * `moments()`, ascending seconds; `timeOf(event)` is the moment under the pointer.
 */
export function movesCursor(target, moments, timeOf) {
  let resume = null;
  target.addEventListener("pointermove", (event) => {
    if (event.pointerType === "touch") return;
    resume ??= pauses();
    cursor.move(timeOf(event), target);
  });
  target.addEventListener("pointerleave", () => { resume?.(); resume = null; });
  target.addEventListener("click", (event) => { cursor.move(timeOf(event), target); resume = () => {}; });
  target.addEventListener("keydown", (event) => {
    const all = moments(), last = all.length - 1;
    if (last < 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = nearest(all, cursor.time);
    const next = {
      ArrowLeft: at - 1, ArrowDown: at - 1, ArrowRight: at + 1, ArrowUp: at + 1,
      PageDown: at - 10, PageUp: at + 10, Home: 0, End: last,
    }[event.key];
    if (next === undefined) return;
    event.preventDefault();
    pauses();
    cursor.move(all[clamp(next, 0, last)], target);
  });
}

export const nearest = (values, value) => values.reduce((best, one, index) => Math.abs(one - value) < Math.abs(values[best] - value) ? index : best, 0);
