/** Everything that narrows or bends the search, a chip each, to be seen and taken away. */

import * as api from "./api.js";
import { ICONS, byId, icon, legible, make } from "./dom.js";

export class Chips {
  #list = byId("chips");
  #names = new Map();
  #onChange;

  constructor(onChange) {
    this.#onChange = onChange;
  }

  /** Each chip: what it says, `remove()`, and the `image_id` that it is about, if it is. */
  draw(chips) {
    const focused = [...this.#list.querySelectorAll("button")].indexOf(document.activeElement);
    this.#list.hidden = chips.length === 0;
    this.#list.replaceChildren(...chips.map((chip) => make("li", {}, this.#chip(chip))));
    if (chips.length > 1) this.#list.append(make("li", {}, this.#clearAll(chips)));
    if (focused >= 0) this.#focus(focused);
  }

  #chip({ said, remove, image_id: imageId }) {
    const text = make("span", { class: "name" }, said);
    const thumbnail = imageId ? make("img", { src: api.thumbnail(imageId), alt: "" }) : null;
    thumbnail?.addEventListener("error", () => thumbnail.remove());
    const button = make("button", { type: "button", class: "chip", "aria-label": `Remove: ${said}` }, thumbnail, text, icon(ICONS.close));
    button.addEventListener("click", () => {
      remove();
      this.#onChange();
    });
    if (imageId) this.#name(imageId, (name) => {
      text.textContent = `${said} ${legible(name)}`;
      button.setAttribute("aria-label", `Remove: ${said} ${legible(name)}`);
    });
    return button;
  }

  #clearAll(chips) {
    const clear = () => {
      chips.forEach((chip) => chip.remove());
      this.#onChange();
    };
    return make("button", { type: "button", class: "chip clear", onclick: clear }, "Clear all");
  }

  /** The picture's file name, asked for until it is known; an image that is gone has none. */
  async #name(imageId, tell) {
    if (!this.#names.has(imageId)) {
      try {
        this.#names.set(imageId, (await api.image(imageId)).paths[0]?.split("/").pop());
      } catch (problem) {
        if (problem.status !== 404) return;
        this.#names.set(imageId, "");
      }
    }
    tell(this.#names.get(imageId) || "a picture that is gone");
  }

  #focus(index) {
    const buttons = [...this.#list.querySelectorAll("button")];
    (buttons[Math.min(index, buttons.length - 1)] ?? byId("text")).focus();
  }
}
