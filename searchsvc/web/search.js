/** The search form and the address bar: what is asked stands in the URL, so a search can be linked and gone back to. */

import * as api from "./api.js";
import { Chips } from "./chips.js";
import { byId, say } from "./dom.js";
import { Examples } from "./examples.js";
import { Filters } from "./filters.js";
import { Models } from "./models.js";
import { Options } from "./options.js";
import { QueryPictures } from "./pictures.js";
import { Words } from "./words.js";

const PAGE = 24;
const COMPARED = 12;

/** Every part of the question has `wanted` (fields of the API's request), `chips`, `openAddress` and `writeAddress`; pictures alone have no address. */
export class Search {
  #words;
  #models;
  #filters;
  #options;
  #examples = new Examples();
  #pictures;
  #chips;
  #results;
  #running = null;
  #retry = null;
  #unanswered = false;
  #address = "";

  constructor(cutter, results) {
    const run = () => this.run();
    this.#results = results;
    this.#words = new Words(run);
    this.#models = new Models(run);
    this.#filters = new Filters(run);
    this.#options = new Options({ onChange: run, onOpen: () => this.#filters.suggest() });
    this.#pictures = new QueryPictures(cutter, { onTake: () => this.#examples.forgetSource(), onChange: run });
    this.#chips = new Chips(run);
    byId("search").addEventListener("submit", (event) => {
      event.preventDefault();
      this.run();
    });
    window.addEventListener("popstate", () => this.#goBack());
  }

  get #linked() {
    return [this.#words, this.#examples, this.#filters, this.#options, this.#models];
  }

  /** Show what the address asks for. */
  openAddress() {
    const asked = new URLSearchParams(location.search);
    this.#linked.forEach((part) => part.openAddress(asked));
    this.#pictures.clear();
    this.run({ keepAddress: true });
  }

  /** Search with pictures that are not stored. */
  take(files) {
    this.#pictures.take(files);
  }

  /** More like a match, beside what is asked already. */
  more(match) {
    this.#examples.more({ image_id: match.image_id, segment: match.segment?.n });
    this.#turn();
  }

  less(match) {
    this.#examples.less({ image_id: match.image_id, segment: match.segment?.n });
    this.#turn();
  }

  /** By an indexed picture or a part of it, instead of what is asked now; filters and options stay. */
  by(source) {
    this.#words.clear();
    this.#pictures.clear();
    this.#examples.askBy(source);
    this.#turn();
  }

  /** Only what was taken near a place. */
  around(place) {
    this.#filters.around(place);
    this.#turn();
  }

  /** Offer the models that can be asked. */
  offerModels(spaces) {
    if (this.#models.offer(spaces)) this.#drawChips();
  }

  /** The service is there: what it did not answer while it was away is asked again. */
  resume() {
    if (this.#unanswered) this.run({ keepAddress: true, quiet: true });
  }

  async run({ keepAddress = false, quiet = false } = {}) {
    this.#running?.abort();
    clearTimeout(this.#retry);
    this.#unanswered = false;
    const asked = this.#asked();
    if (!keepAddress) this.#writeAddress();
    this.#address = location.search;
    this.#drawChips();
    document.title = asked.text ? `${asked.text} · Image search` : "Image search";
    if (!asked.text && !asked.pictures.length && !asked.image_id && !asked.like) {
      this.#results.showWelcome();
      return;
    }
    const running = (this.#running = new AbortController());
    if (!quiet) this.#results.showLoading();
    try {
      await this.#ask(asked, running.signal);
    } catch (problem) {
      if (problem.name === "AbortError") return;
      this.#unanswered = problem === api.UNREACHABLE;
      this.#results.showProblem(problem, () => this.run({ keepAddress: true }));
      if (!quiet) say(problem.message);
      if (problem.retryAfterS) this.#retry = setTimeout(() => this.run({ keepAddress: true, quiet: true }), problem.retryAfterS * 1000);
    }
  }

  /** Back or forward. Whoever skips to the results changes the address, too, but not what it asks. */
  #goBack() {
    if (location.search === this.#address) return;
    document.querySelectorAll("dialog[open]").forEach((dialog) => dialog.close());
    this.openAddress();
  }

  /** From somewhere among the results: what is found now begins at the top. */
  #turn() {
    window.scrollTo({ top: 0 });
    this.run();
  }

  async #ask(asked, signal) {
    if (asked.models) {
      this.#results.showComparison(await api.compare({ ...asked, top_k: COMPARED, explain: true }, signal), { asked });
      return;
    }
    const answer = await api.search({ ...asked, top_k: PAGE, explain: true }, signal);
    const more = (cursor) => api.search({ cursor, top_k: PAGE }, signal);
    this.#results.show(answer, { asked, more });
  }

  #asked() {
    return Object.assign({}, ...[...this.#linked, this.#pictures].map((part) => part.wanted));
  }

  #drawChips() {
    this.#chips.draw([this.#examples, this.#pictures, this.#words, this.#filters, this.#options, this.#models].flatMap((part) => part.chips));
  }

  #writeAddress() {
    const address = new URLSearchParams();
    this.#linked.forEach((part) => part.writeAddress(address));
    const query = address.toString();
    const target = query ? `/?${query}` : "/";
    if (target !== location.pathname + location.search) history.pushState(null, "", target);
  }
}
