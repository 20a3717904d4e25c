/** What is asked in words, and where it is looked for. */

import { byId } from "./dom.js";

const SCOPES = ["images", "segments", "both"];

export class Words {
  #text = byId("text");
  #without = byId("negative");
  #scopes = [...byId("search").querySelectorAll("[name=scope]")];

  constructor(onChange) {
    [this.#without, ...this.#scopes].forEach((input) => input.addEventListener("change", () => onChange()));
  }

  get wanted() {
    return { text: this.#text.value.trim(), negative_text: this.#without.value.trim(), scope: this.#scope };
  }

  get chips() {
    const without = this.#without.value.trim();
    return without ? [{ said: `without ${without}`, remove: () => (this.#without.value = "") }] : [];
  }

  openAddress(asked) {
    this.#text.value = asked.get("q") ?? "";
    this.#without.value = asked.get("without") ?? "";
    const wanted = SCOPES.includes(asked.get("scope")) ? asked.get("scope") : SCOPES[0];
    this.#scopes.forEach((radio) => (radio.checked = radio.value === wanted));
  }

  writeAddress(address) {
    const { text, negative_text: without, scope } = this.wanted;
    if (text) address.set("q", text);
    if (without) address.set("without", without);
    if (scope !== SCOPES[0]) address.set("scope", scope);
  }

  clear() {
    this.#text.value = "";
    this.#without.value = "";
  }

  get #scope() {
    return this.#scopes.find((radio) => radio.checked)?.value ?? SCOPES[0];
  }
}
