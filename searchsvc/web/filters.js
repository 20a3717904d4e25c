/** What the results must be besides alike. */

import * as api from "./api.js";
import { byId, make, plural } from "./dom.js";
import { Place } from "./place.js";

/** By the name in the address: what a chip says of its value; `count` is said with its label. */
const SAID = {
  folder: (value) => `in ${value}`,
  name: (value) => `named ${value}`,
  label: (value, { count }) => (count > 1 ? `shows at least ${count} of ${value}` : `shows ${value}`),
  from: (value) => `from ${value}`,
  to: (value) => `until ${value}`,
  orientation: (value) => value,
  mp: (value) => `${value} megapixels or more`,
};

const FIELDS = ["folder", "name", "label", "count", "from", "to", "orientation", "mp"];
const SUGGESTED = [["folders", "known-folders"], ["labels", "known-labels"]];

export class Filters {
  #place;

  constructor(onChange) {
    this.#place = new Place(onChange);
    for (const name of FIELDS) {
      this.#input(name).addEventListener("change", () => {
        this.#settle();
        onChange();
      });
    }
    this.#settle();
  }

  /** As the API's `filter`; nothing where nothing is asked for. */
  get wanted() {
    const { folder, name, label, count, from, to, orientation, mp } = this.#values;
    const filter = {
      ...(folder && { folder }),
      ...(name && { name }),
      ...(label && (count > 1 ? { label_count: { [label]: { gte: Number(count) } } } : { label })),
      ...((from || to) && { date: { ...(from && { from }), ...(to && { to }) } }),
      ...(orientation && { orientation }),
      ...(mp && { size: { min_megapixels: Number(mp) } }),
      ...this.#place.wanted,
    };
    return Object.keys(filter).length ? { filter } : {};
  }

  get chips() {
    const values = this.#values;
    const said = Object.keys(SAID).filter((name) => values[name]);
    return [...said.map((name) => ({ said: SAID[name](values[name], values), remove: () => this.#clear(name) })), ...this.#place.chips];
  }

  openAddress(asked) {
    for (const name of FIELDS) this.#input(name).value = asked.get(name) ?? "";
    this.#place.openAddress(asked);
    this.#settle();
  }

  writeAddress(address) {
    for (const [name, value] of Object.entries(this.#values)) if (value) address.set(name, value);
    this.#place.writeAddress(address);
  }

  /** Only pictures taken near this place. */
  around(location) {
    this.#place.around(location);
  }

  /** Folders and labels that there are now; without them one writes what one knows. */
  async suggest() {
    for (const [field, list] of SUGGESTED) {
      try {
        const { values } = await api.facets(field);
        byId(list).replaceChildren(...values.map(({ value, images }) => make("option", { value }, plural(images, "picture", "pictures"))));
      } catch {
        // what was suggested before stays
      }
    }
  }

  get #values() {
    const values = Object.fromEntries(FIELDS.map((name) => [name, this.#input(name).value.trim()]));
    return values.label ? values : { ...values, count: "" };
  }

  #clear(name) {
    this.#input(name).value = "";
    if (name === "label") this.#input("count").value = "";
    this.#settle();
  }

  /** How many is asked of a label alone. */
  #settle() {
    this.#input("count").disabled = !this.#input("label").value.trim();
  }

  #input(name) {
    return byId(`filter-${name}`);
  }
}
