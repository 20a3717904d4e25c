/** The query picture: picked, pasted or dropped; shown with a way to take it off again. */

import { Cutter } from "./cut.js";
import { ICONS, byId, icon, make, say } from "./dom.js";

export class QueryPicture {
  #file = null;
  #url = null;
  #box = byId("query-picture");
  #cutter = new Cutter();
  #onChange;

  constructor(onChange) {
    this.#onChange = onChange;
    const input = byId("pick-file");
    byId("pick").addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      if (input.files.length) this.take(input.files[0]);
      input.value = "";
    });
    document.addEventListener("paste", (event) => this.#paste(event));
  }

  get file() {
    return this.#file;
  }

  /** Search with this picture from now on. */
  take(file) {
    this.#show(file);
    say(`Searching with the picture ${file.name || "from the clipboard"}`);
    this.#onChange();
  }

  /** Take the picture off without a search. */
  clear() {
    this.#show(null);
  }

  #paste(event) {
    const pasted = [...(event.clipboardData?.files ?? [])].find((file) => file.type.startsWith("image/"));
    if (!pasted) return;
    event.preventDefault();
    this.take(pasted);
  }

  #show(file) {
    if (this.#url) URL.revokeObjectURL(this.#url);
    this.#file = file;
    this.#url = file ? URL.createObjectURL(file) : null;
    this.#box.hidden = !file;
    if (!file) {
      this.#box.replaceChildren();
      return;
    }
    const preview = make("img", { src: this.#url, alt: `Query picture ${file.name || ""}`.trim() });
    preview.addEventListener("error", () => preview.replaceWith(make("span", { class: "no-preview" }, extensionOf(file))));
    const remove = () => {
      this.#show(null);
      say("Query picture removed");
      byId("text").focus();
      this.#onChange();
    };
    const cut = () => this.#cutter.open(this.#url, (part) => this.take(part));
    preview.addEventListener("load", () => (choose.disabled = false));
    const choose = make("button", { type: "button", class: "preview", disabled: true, title: "Search with a part of it", onclick: cut }, preview);
    this.#box.replaceChildren(
      choose,
      make("button", { type: "button", class: "remove", "aria-label": "Remove the query picture", onclick: remove }, icon(ICONS.close)),
    );
  }
}

const extensionOf = (file) => (file.name || "picture").split(".").pop().slice(0, 5).toUpperCase();
