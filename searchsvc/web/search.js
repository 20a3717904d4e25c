/** The search form and the address bar: what is asked stands in the URL, so a search can be linked and gone back to. */

import * as api from "./api.js";
import { byId, make, say } from "./dom.js";
import { Filters } from "./filters.js";

const PAGE = 24;

export class Search {
  #form = byId("search");
  #text = byId("text");
  #negative = byId("negative");
  #which = byId("which");
  #picture;
  #results;
  #filters = new Filters(() => this.run());
  #running = null;
  #retry = null;
  #likeId = "";

  constructor(picture, results) {
    this.#picture = picture;
    this.#results = results;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#likeId = "";
      this.run();
    });
    this.#form.querySelectorAll("[name=scope]").forEach((radio) => radio.addEventListener("change", () => this.run()));
    this.#negative.addEventListener("change", () => this.run());
    this.#which.addEventListener("change", () => this.run());
    window.addEventListener("popstate", () => this.openAddress());
  }

  get #scope() {
    return new FormData(this.#form).get("scope");
  }

  /** Show what the address asks for. */
  openAddress() {
    const asked = new URLSearchParams(location.search);
    this.#text.value = asked.get("q") ?? "";
    this.#negative.value = asked.get("without") ?? "";
    this.#likeId = asked.get("like") ?? "";
    this.#choose(asked.get("model"));
    this.#filters.openAddress(asked);
    this.#picture.clear();
    const wanted = ["images", "segments", "both"].includes(asked.get("scope")) ? asked.get("scope") : "images";
    this.#form.querySelector(`[name=scope][value=${wanted}]`).checked = true;
    this.run({ keepAddress: true });
  }

  /** More like an image that is stored already. */
  like(imageId) {
    this.#text.value = "";
    this.#negative.value = "";
    this.#picture.clear();
    this.#likeId = imageId;
    this.run();
  }

  /** Search with a picture and nothing else. */
  by(file) {
    this.#text.value = "";
    this.#negative.value = "";
    this.#picture.take(file);
  }

  /** Offer the models that can be asked; one alone is no choice. */
  offerModels(spaces) {
    const names = spaces.map((space) => space.model_name);
    const offered = [...this.#which.options].map((option) => option.text);
    this.#which.parentElement.hidden = names.length < 2;
    if (names.join() === offered.join()) return;
    const asked = this.#model;
    this.#which.replaceChildren(...spaces.map((space) => make("option", { value: space.collection }, space.model_name)));
    this.#choose(asked);
  }

  /** The first model is the default, which needs no name; until the models are known, the address alone names one. */
  get #model() {
    if (this.#which.options.length === 0) return new URLSearchParams(location.search).get("model") ?? "";
    return this.#which.selectedIndex > 0 ? this.#which.value : "";
  }

  #choose(model) {
    const known = [...this.#which.options].some((option) => option.value === model);
    this.#which.value = known ? model : (this.#which.options[0]?.value ?? "");
  }

  /** With another query picture, the search by a stored one ends. */
  pictureChanged() {
    this.#likeId = "";
    this.run();
  }

  async run({ keepAddress = false, quiet = false } = {}) {
    this.#running?.abort();
    clearTimeout(this.#retry);
    const asked = this.#asked();
    if (!keepAddress) this.#writeAddress();
    document.title = asked.text ? `${asked.text} · Image search` : "Image search";
    if (!asked.text && !asked.picture && !asked.image_id) {
      this.#results.showWelcome();
      return;
    }
    const running = (this.#running = new AbortController());
    if (!quiet) this.#results.showLoading();
    try {
      const answer = await api.search(asked, running.signal);
      const more = (offset) => api.search({ ...asked, offset }, running.signal);
      this.#results.show(answer, { asked, pageSize: PAGE, more });
    } catch (problem) {
      if (problem.name === "AbortError") return;
      this.#results.showProblem(problem, () => this.run({ keepAddress: true }));
      if (!quiet) say(problem.message);
      if (problem.retryAfterS) this.#retry = setTimeout(() => this.run({ keepAddress: true, quiet: true }), problem.retryAfterS * 1000);
    }
  }

  #asked() {
    return {
      text: this.#text.value.trim(),
      negative_text: this.#negative.value.trim(),
      scope: this.#scope,
      model: this.#model,
      top_k: PAGE,
      image_id: this.#likeId,
      picture: this.#picture.file,
      filter: this.#filters.wanted,
    };
  }

  #writeAddress() {
    const address = new URLSearchParams();
    const { text, negative_text: without, scope, model, image_id: like } = this.#asked();
    if (text) address.set("q", text);
    if (without) address.set("without", without);
    if (scope !== "images") address.set("scope", scope);
    if (model) address.set("model", model);
    if (like) address.set("like", like);
    this.#filters.writeAddress(address);
    const query = address.toString();
    const target = query ? `/?${query}` : "/";
    if (target !== location.pathname + location.search) history.pushState(null, "", target);
  }
}
