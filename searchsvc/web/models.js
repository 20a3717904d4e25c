/** Which model is asked, or which two are compared. One that can be asked alone is no choice. */

import { byId, make } from "./dom.js";

export class Models {
  #which = byId("which");
  #against = byId("against");
  #box = byId("models");
  #spaces = [];
  #model = "";
  #other = "";

  constructor(onChange) {
    this.#which.addEventListener("change", () => this.#choose(this.#which.value, this.#other, onChange));
    this.#against.addEventListener("change", () => this.#choose(this.#which.value, this.#against.value, onChange));
  }

  get wanted() {
    return this.#other ? { models: [this.#model, this.#other] } : { model: this.#model };
  }

  get chips() {
    if (this.#other) {
      return [{ said: `${this.#nameOf(this.#model)} against ${this.#nameOf(this.#other)}`, remove: () => this.#keep(this.#model, "") }];
    }
    return this.#model ? [{ said: `asked of ${this.#nameOf(this.#model)}`, remove: () => this.#keep("", "") }] : [];
  }

  openAddress(asked) {
    const model = asked.get("model") ?? "";
    this.#keep(model, model ? (asked.get("against") ?? "") : "");
  }

  writeAddress(address) {
    if (this.#model) address.set("model", this.#model);
    if (this.#other) address.set("against", this.#other);
  }

  /** The models that there are; the first is the default. Tells whether they are others than before. */
  offer(spaces) {
    const collections = (of) => of.map((space) => space.collection).join();
    if (collections(spaces) === collections(this.#spaces)) return false;
    this.#spaces = spaces;
    this.#box.hidden = spaces.length < 2;
    const options = () => spaces.map((space) => make("option", { value: space.collection }, space.model_name));
    this.#which.replaceChildren(...options());
    this.#against.replaceChildren(make("option", { value: "" }, "none"), ...options());
    this.#keep(this.#model, this.#other);
    return true;
  }

  #choose(model, other, onChange) {
    this.#keep(model, other);
    onChange();
  }

  /** The default goes unnamed, but for a comparison, whose two sides both have a name. */
  #keep(model, other) {
    const first = this.#spaces[0]?.collection ?? "";
    this.#other = other === (model || first) ? "" : other;
    this.#model = this.#other || model !== first ? model || (this.#other && first) : "";
    this.#which.value = this.#model || first;
    this.#against.value = this.#other;
  }

  #nameOf(collection) {
    return this.#spaces.find((space) => space.collection === collection)?.model_name ?? collection;
  }
}
