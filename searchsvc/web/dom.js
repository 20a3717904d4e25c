/** Elements without a framework. Text always goes in as text, so nothing that a file is named after becomes markup. */

const SPOKEN = new Set(["title", "alt", "aria-label"]);

/** Make an element: `make("button", { type: "button", class: "x", onclick }, "Go")`. A null or false property is left out. */
export function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : SPOKEN.has(name) ? legible(value) : String(value));
  }
  const shown = children.flat().filter((child) => child !== null && child !== undefined && child !== false);
  element.append(...shown.map((child) => (child instanceof Node ? child : legible(child))));
  return element;
}

/** Without what turns text around: a file's name may hold it to look like another. */
export function legible(text) {
  return String(text).replace(/[\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
}

/** A file's name, to be broken before its suffix and behind its hyphens rather than anywhere. */
export function breakable(name) {
  return legible(name).split(/(?=\.)|(?<=[-_])/).flatMap((part, index) => (index ? [make("wbr"), part] : [part]));
}

const SVG = "http://www.w3.org/2000/svg";

/** A stroked 24-unit icon from one path. */
export function icon(path) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(SVG, "path");
  line.setAttribute("d", path);
  svg.append(line);
  return svg;
}

export const ICONS = {
  close: "M6 6l12 12M18 6L6 18",
  previous: "M15 5l-7 7 7 7",
  next: "M9 5l7 7-7 7",
  more: "M12 6v12M6 12h12",
  less: "M6 12h12",
};

const said = document.getElementById("said");

/** Tell a screen reader what has changed: within the dialog that is open, for everything beside that is inert. */
export function say(text) {
  (document.querySelector("dialog[open] [role=status]") ?? said).textContent = text;
}

const notice = document.getElementById("notice");

let notified = null;

/** What the user should know of the models for as long as it holds, e.g. a fallback; null takes it away. The first sentence shows, the rest unfolds. */
export function notify(text) {
  if (text === notified) return;
  notified = text;
  notice.hidden = !text;
  const [, first, rest] = /^(.*?[.!?])\s+(.+)$/s.exec(text ?? "") ?? [null, text ?? "", ""];
  if (!rest) {
    notice.textContent = first;
    return;
  }
  const summary = document.createElement("summary");
  summary.textContent = first;
  const details = document.createElement("details");
  details.append(summary, rest);
  notice.replaceChildren(details);
}

/** A press beside a dialog closes it, where it began there, too: what begins within, a slider or the marking of text, may end anywhere. */
export function closeBeside(dialog) {
  const isBeside = ({ target, clientX: x, clientY: y }) => {
    const { left, right, top, bottom } = dialog.getBoundingClientRect();
    return target === dialog && (x < left || x > right || y < top || y > bottom);
  };
  let began = false;
  dialog.addEventListener("pointerdown", (event) => (began = isBeside(event)));
  dialog.addEventListener("click", (event) => began && isBeside(event) && dialog.close());
}

/** The focus goes to `element` where what had it is gone or disabled; who went elsewhere meanwhile stays there. */
export function refocus(element) {
  const focused = document.activeElement ?? document.body;
  if (focused === document.body || focused.disabled) element.focus();
}

export const byId = (id) => document.getElementById(id);

export const plural = (count, one, many) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;
