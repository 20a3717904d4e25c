/** How the results are laid out, and the panel that holds this and all the rest that is seldom needed. */

import { byId } from "./dom.js";

const VARIED = 0.5;

export class Options {
  #open = byId("options-open");
  #panel = byId("options");
  #grouped = byId("grouped");
  #varied = byId("varied");

  /** `onOpen` is called whenever the panel is opened. */
  constructor({ onChange, onOpen }) {
    [this.#grouped, this.#varied].forEach((box) => box.addEventListener("change", () => onChange()));
    this.#open.addEventListener("click", () => {
      this.#panel.hidden = !this.#panel.hidden;
      this.#open.setAttribute("aria-expanded", String(!this.#panel.hidden));
      if (!this.#panel.hidden) onOpen();
    });
  }

  get wanted() {
    return { ...(this.#grouped.checked && { collapse: true }), ...(this.#varied.checked && { diversity: VARIED }) };
  }

  get chips() {
    const said = [[this.#grouped, "near-duplicates grouped"], [this.#varied, "varied"]];
    return said.filter(([box]) => box.checked).map(([box, text]) => ({ said: text, remove: () => (box.checked = false) }));
  }

  openAddress(asked) {
    this.#grouped.checked = asked.has("grouped");
    this.#varied.checked = asked.has("varied");
  }

  writeAddress(address) {
    if (this.#grouped.checked) address.set("grouped", "1");
    if (this.#varied.checked) address.set("varied", "1");
  }
}
