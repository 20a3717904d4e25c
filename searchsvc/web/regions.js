/** The segments of the picture that is looked at: a chip each, drawn over it, to be searched with. */

import * as api from "./api.js";
import { make } from "./dom.js";
import { clearSegments, drawSegment } from "./overlay.js";

export class Regions {
  /** Whether a segmentation model is loaded; without one, a lack of regions tells nothing of the picture. */
  looked = true;
  #loading = null;
  #onSearch;

  /** `onSearch({ image_id, segment })` searches with a segment. */
  constructor(onSearch) {
    this.#onSearch = onSearch;
  }

  /** Fill `box` with the segments of `match`, whose picture is in `frame`. */
  async load(match, frame, box) {
    this.stop();
    this.#loading = new AbortController();
    try {
      const { segments } = await api.segments(match.image_id, this.#loading.signal);
      this.#draw(match, frame, box, segments);
    } catch (problem) {
      if (problem.name !== "AbortError") box.replaceChildren(make("p", { class: "fine" }, `Regions: ${problem.message}`));
    }
  }

  stop() {
    this.#loading?.abort();
  }

  #draw(match, frame, box, segments) {
    let chosen = segments.find((segment) => segment.n === match.segment?.n) ?? null;
    const paint = (segment) => (segment ? drawSegment(frame, segment, match) : clearSegments(frame));
    const search = make("button", { type: "button", class: "button" }, "Search with this region");
    search.addEventListener("click", () => this.#onSearch({ image_id: match.image_id, segment: chosen.n }));
    const chips = segments.map((segment) => {
      const choose = () => {
        chosen = chosen === segment ? null : segment;
        settle();
      };
      const chip = make("button", { type: "button", class: "chip", onclick: choose }, `${segment.label} ${Math.round(segment.score * 100)} %`);
      chip.addEventListener("pointerenter", () => paint(segment));
      chip.addEventListener("pointerleave", () => paint(chosen));
      return chip;
    });
    const settle = () => {
      chips.forEach((chip, index) => chip.setAttribute("aria-pressed", String(segments[index] === chosen)));
      search.hidden = chosen === null;
      paint(chosen);
    };
    const none = this.looked ? "No regions were found in this picture" : "No regions: no segmentation model is loaded";
    const title = segments.length ? `Regions (${segments.length})` : none;
    box.replaceChildren(make("h3", {}, title), make("div", { class: "chips" }, chips), search);
    settle();
  }
}
