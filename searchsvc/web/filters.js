/** What the results must be besides alike: a panel to say it, and a chip for each thing said. */

import * as api from "./api.js";
import { byId, ICONS, icon, make } from "./dom.js";

const FIELDS = ["folder", "label", "from", "to"];

const SAID = {
  folder: (value) => `in ${value}`,
  label: (value) => `shows ${value}`,
  from: (value) => `from ${value}`,
  to: (value) => `until ${value}`,
};

export class Filters {
  #panel = byId("filters");
  #open = byId("filters-open");
  #chips = byId("chips");
  #onChange;
  #suggested = false;

  constructor(onChange) {
    this.#onChange = onChange;
    this.#open.addEventListener("click", () => this.#toggle(this.#panel.hidden));
    for (const name of FIELDS) this.#input(name).addEventListener("change", () => this.#changed());
  }

  /** As the API's `filter`; null where nothing is asked for. */
  get wanted() {
    const { folder, label, from, to } = this.#values;
    const date = from || to ? { ...(from && { from }), ...(to && { to }) } : null;
    const wanted = { ...(folder && { folder }), ...(label && { label }), ...(date && { date }) };
    return Object.keys(wanted).length ? wanted : null;
  }

  openAddress(asked) {
    for (const name of FIELDS) this.#input(name).value = asked.get(name) ?? "";
    this.#draw();
  }

  writeAddress(address) {
    for (const [name, value] of Object.entries(this.#values)) if (value) address.set(name, value);
  }

  get #values() {
    return Object.fromEntries(FIELDS.map((name) => [name, this.#input(name).value.trim()]));
  }

  #input(name) {
    return byId(`filter-${name}`);
  }

  #changed() {
    this.#draw();
    this.#onChange();
  }

  #draw() {
    const said = Object.entries(this.#values).filter(([, value]) => value);
    this.#chips.hidden = said.length === 0;
    this.#chips.replaceChildren(...said.map(([name, value]) => make("li", {}, this.#chip(name, SAID[name](value)))));
  }

  #chip(name, text) {
    const remove = () => {
      this.#input(name).value = "";
      this.#changed();
      this.#open.focus();
    };
    return make("button", { type: "button", class: "chip", "aria-label": `Remove the filter: ${text}`, onclick: remove }, text, icon(ICONS.close));
  }

  #toggle(shown) {
    this.#panel.hidden = !shown;
    this.#open.setAttribute("aria-expanded", String(shown));
    if (!shown) return;
    this.#input("folder").focus();
    this.#suggest();
  }

  /** Folders and labels that there are; without them one writes what one knows. */
  async #suggest() {
    if (this.#suggested) return;
    this.#suggested = true;
    for (const [field, list] of [["folders", "known-folders"], ["labels", "known-labels"]]) {
      try {
        const { values } = await api.facets(field);
        byId(list).replaceChildren(...values.map(({ value, count }) => make("option", { value }, `${count}`)));
      } catch {
        this.#suggested = false;
      }
    }
  }
}
