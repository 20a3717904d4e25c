/** The query pictures: picked, pasted or dropped; shown with a way to take each off again, and, of one alone, to ask by a part. */

import { Cutter } from "./cut.js";
import { ICONS, byId, icon, make, plural, say } from "./dom.js";

const MOST = 4;

export class QueryPictures {
  #shown = [];
  #region = null;
  #box = byId("query-pictures");
  #cutter;
  #onTake;
  #onChange;

  /** `onTake` is called as pictures are taken, and `onChange` after that and whenever one goes or the part of it changes. */
  constructor(cutter, { onTake, onChange }) {
    this.#cutter = cutter;
    this.#onTake = onTake;
    this.#onChange = onChange;
    const input = byId("pick-file");
    byId("pick").addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      this.take([...input.files]);
      input.value = "";
    });
    document.addEventListener("paste", (event) => this.#paste(event));
  }

  get wanted() {
    return { pictures: this.#shown.map(({ file }) => file), ...(this.#region && { region: this.#region }) };
  }

  get chips() {
    return this.#region ? [{ said: "a part of your picture", remove: () => (this.#region = null) }] : [];
  }

  /** Search with these pictures from now on, instead of earlier ones. */
  take(files) {
    if (!files.length) return;
    this.clear();
    this.#shown = files.slice(0, MOST).map((file) => ({ file, url: URL.createObjectURL(file) }));
    this.#draw();
    say(files.length > MOST ? `Searching with the first ${MOST} of ${files.length} pictures` : `Searching with ${plural(files.length, "picture", "pictures")}`);
    this.#onTake();
    this.#onChange();
  }

  /** Take them off without a search. */
  clear() {
    this.#shown.forEach(({ url }) => URL.revokeObjectURL(url));
    this.#shown = [];
    this.#region = null;
    this.#draw();
  }

  #paste(event) {
    const pasted = [...(event.clipboardData?.files ?? [])].filter((file) => file.type.startsWith("image/"));
    if (!pasted.length || isWriting(event) || document.querySelector("dialog[open]")) return;
    event.preventDefault();
    this.take(pasted);
  }

  #draw() {
    this.#box.hidden = this.#shown.length === 0;
    this.#box.replaceChildren(...this.#shown.map((one) => make("div", { class: "query-picture" }, this.#preview(one), this.#remove(one))));
  }

  #preview({ file, url }) {
    const picture = make("img", { src: url, alt: `Query picture ${file.name || ""}`.trim() });
    picture.addEventListener("error", () => picture.replaceWith(make("span", { class: "no-preview" }, extensionOf(file))));
    if (this.#shown.length > 1) return make("span", { class: "preview" }, picture);
    const cut = () => this.#cutter.open(url, { chosen: this.#region, onCut: (region) => this.#cut(region) });
    const choose = make("button", { type: "button", class: "preview", disabled: true, title: "Search with a part of it", onclick: cut }, picture);
    picture.addEventListener("load", () => (choose.disabled = false));
    return choose;
  }

  #cut(region) {
    this.#region = region;
    say("Searching with a part of the picture");
    this.#onChange();
  }

  #remove(one) {
    const remove = () => {
      URL.revokeObjectURL(one.url);
      this.#shown = this.#shown.filter((other) => other !== one);
      this.#region = null;
      this.#draw();
      say("Query picture removed");
      byId("text").focus();
      this.#onChange();
    };
    const label = this.#shown.length > 1 ? `Remove the query picture ${one.file.name}` : "Remove the query picture";
    return make("button", { type: "button", class: "remove", "aria-label": label, onclick: remove }, icon(ICONS.close));
  }
}

/**
 * Whether words are pasted into a field: cells and paragraphs bring a rendering of themselves along.
 * A copied file brings its name, and a picture from another page its address, but no word in its HTML.
 */
function isWriting({ target, clipboardData: pasted }) {
  if (!(target instanceof Element) || !target.matches(":read-write")) return false;
  const lines = pasted.getData("text/plain").split(/[\r\n]+/).filter((line) => line.trim());
  const isName = (line) => [...pasted.files].some(({ name }) => line.endsWith(name));
  const html = new DOMParser().parseFromString(pasted.getData("text/html"), "text/html");
  const isPicture = html.images.length > 0 && !html.body.textContent.trim();
  return lines.length > 0 && !isPicture && !lines.every(isName);
}

const extensionOf = (file) => (file.name || "picture").split(".").pop().slice(0, 5).toUpperCase();
