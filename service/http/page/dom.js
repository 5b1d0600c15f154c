// Elements, formats and announcements that all modules share.

export const byId = (id) => document.getElementById(id);
export const hide = (id, hidden) => { byId(id).hidden = hidden; };
export const say = (id, text) => { byId(id).textContent = text; };

const present = (children) => children.filter((child) => child != null);

/** An element with properties and children; `data-*` and `aria-*` are set as attributes. */
export function element(name, properties = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role" || key === "for" || key === "scope") made.setAttribute(key, value);
    else made[key] = value;
  }
  made.append(...present(children));
  return made;
}

/** Replace what an element holds; null is left out. */
export function fill(target, ...children) {
  target.replaceChildren(...present(children));
}

/** An SVG element; `style` holds CSS properties, which the policy allows from scripts only. */
export function svg(name, attributes = {}, style = {}, text) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  Object.assign(made.style, style);
  if (text !== undefined) made.textContent = text;
  return made;
}

export function swatch(colour, width) {
  const made = element("i", { className: "swatch", "aria-hidden": "true" });
  made.style.background = colour;
  if (width !== undefined) made.style.width = width;
  return made;
}

export const SERIES = 5;
export const seriesColour = (rank) => `var(--series-${Math.min(rank, SERIES - 1)})`;

export const milliseconds = (value) => value >= 1000 ? `${(value / 1000).toFixed(2)} s` : `${value.toFixed(value < 10 ? 1 : 0)} ms`;
export const percent = (value) => `${(100 * value).toFixed(value < 0.1 ? 1 : 0)} %`;
export const fileSize = (bytes) => bytes < 1e6 ? `${Math.ceil(bytes / 1e3)} kB` : `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
export const signed = (value, digits = 1) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(digits)}`;
export const many = (count, word) => `${count} ${word}${count === 1 ? "" : "s"}`;
export const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/** Hours, minutes and seconds, with tenths where they are not 0, or always: 1:02:03.5. */
export function clock(seconds, always = false) {
  const tenths = Math.round(10 * seconds);
  const [hours, minutes, rest] = [Math.floor(tenths / 36000), Math.floor(tenths / 600) % 60, tenths % 600];
  const shown = `${Math.floor(rest / 10)}`.padStart(2, "0") + (always || rest % 10 ? `.${rest % 10}` : "");
  return hours ? `${hours}:${`${minutes}`.padStart(2, "0")}:${shown}` : `${minutes}:${shown}`;
}

/** The times below a chart, at its start, middle and end. */
export const timeAxis = (x, y, from, to) => ["start", "middle", "end"].map((anchor, at) => {
  const seconds = from + at / 2 * (to - from);
  return svg("text", { x: x(seconds), y, "text-anchor": anchor }, {}, clock(seconds));
});

export const span = (part) => `${clock(part.start_s)} to ${clock(part.end_s)}`;

export const announce = (text) => say("news", text);

/** A text with a capital letter, unless it begins with the name of a parameter. */
export const sentence = (text) => text.replace(/^[a-z](?=[a-z]* )/, (first) => first.toUpperCase());

/** A row per line, the first cell of each a header; numbers are right-aligned. */
export function table(caption, head, rows, className = "") {
  const cells = (row, header) => row.map((cell, column) => element(header || column === 0 ? "th" : "td", {
    ...(header ? { scope: "col" } : column === 0 ? { scope: "row" } : {}),
    className: typeof cell === "number" || /^[+−\d]/.test(`${cell}`) ? "number" : "",
  }, cell instanceof Node ? cell : `${cell}`));
  return element("table", { className },
    element("caption", { className: "visually-hidden" }, caption),
    element("thead", {}, element("tr", {}, ...cells(head, true))),
    element("tbody", {}, ...rows.map((row) => element("tr", {}, ...cells(row, false)))));
}

export function download(name, content, type) {
  const address = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = element("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

/** Copy text; where the browser refuses, select it instead. */
export async function copy(button, source) {
  const was = button.textContent;
  try {
    await navigator.clipboard.writeText(source.textContent);
    button.textContent = "Copied";
  } catch {
    getSelection().selectAllChildren(source);
    button.textContent = "Selected";
  }
  setTimeout(() => { button.textContent = was; }, 1500);
}

/** Call a function at most once for each picture that the screen shows. */
export function oncePerFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; draw(); });
  };
}

/** Tabs with arrow keys: one tab stop for all. `select(tab)` shows the panel. */
export function tabs(list, select) {
  const all = [...list.querySelectorAll("[role=tab]")];
  const choose = (chosen) => {
    for (const tab of all) {
      tab.setAttribute("aria-selected", tab === chosen);
      tab.tabIndex = tab === chosen ? 0 : -1;
    }
    select(chosen);
  };
  for (const tab of all) tab.addEventListener("click", () => choose(tab));
  list.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = all.at((all.indexOf(document.activeElement) + step) % all.length);
    next.focus();
    choose(next);
  });
  choose(all[0]);
}
