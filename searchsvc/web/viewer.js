/** One match, large: its segments, its place, its rating, and the way on to similar pictures. */

import * as api from "./api.js";
import { cutOut } from "./cut.js";
import { ICONS, byId, icon, make } from "./dom.js";
import { clearSegments, drawSegment } from "./overlay.js";

export class Viewer {
  #dialog = byId("viewer");
  #ratings;
  #onLike;
  #onRegion;
  #matches = [];
  #index = 0;
  #loading = null;
  #chosen = null;

  /** `onLike(imageId)` searches for similar pictures, `onRegion(file)` with a picture cut out here. */
  constructor(ratings, { onLike, onRegion }) {
    this.#ratings = ratings;
    this.#onLike = onLike;
    this.#onRegion = onRegion;
    this.#dialog.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step) this.#turn(step);
    });
    this.#dialog.addEventListener("click", (event) => event.target === this.#dialog && this.#dialog.close());
    this.#dialog.addEventListener("close", () => this.#loading?.abort());
  }

  open(matches, index) {
    this.#matches = matches;
    this.#index = index;
    this.#draw();
    if (!this.#dialog.open) this.#dialog.showModal();
  }

  #turn(step) {
    const next = this.#index + step;
    if (next < 0 || next >= this.#matches.length) return;
    this.#index = next;
    this.#draw();
  }

  #draw() {
    const match = this.#matches[this.#index];
    const frame = this.#frame(match);
    const segments = make("div", { class: "segments" });
    const focused = document.activeElement?.dataset?.keep;
    this.#dialog.replaceChildren(
      make("div", { class: "stage" }, this.#arrow("previous", -1), frame, this.#arrow("next", 1)),
      make("div", { class: "facts" },
        make("div", { class: "facts-head" },
          make("h2", { id: "viewer-name" }, match.image_name),
          make("button", { type: "button", class: "icon-button", "aria-label": "Close", onclick: () => this.#dialog.close() }, icon(ICONS.close)),
        ),
        factsOf(match),
        make("div", { class: "actions" },
          make("button", { type: "button", class: "button primary", onclick: () => this.#leave(() => this.#onLike(match.image_id)) }, "More like this"),
          make("a", { class: "button", href: match.image_url, target: "_blank", rel: "noopener" }, "Open the file"),
        ),
        match.jwt ? this.#ratings.control(match.jwt, "How well does it fit?") : "",
        segments,
      ),
    );
    if (this.#dialog.open) this.#focusAgain(focused);
    this.#loadSegments(match, frame, segments);
  }

  /** The focused control was drawn anew; without a focus within the dialog its keys would go nowhere. */
  #focusAgain(name) {
    const same = name ? this.#dialog.querySelector(`[data-keep=${name}]:enabled`) : null;
    (same ?? this.#dialog).focus();
  }

  #frame(match) {
    const frame = make("div", { class: "frame" });
    frame.style.setProperty("--ratio", (match.width || 4) / (match.height || 3));
    const picture = make("img", { src: match.image_url, alt: match.image_name });
    picture.addEventListener("error", () => (picture.src = match.thumbnail_url), { once: true }); // HEIC: no browser but one shows it
    frame.append(picture);
    if (match.segment) drawSegment(frame, match.segment, match);
    return frame;
  }

  #arrow(name, step) {
    const label = name === "next" ? "Next result" : "Previous result";
    const disabled = !this.#matches[this.#index + step];
    const turn = () => this.#turn(step);
    return make("button", { type: "button", class: `arrow ${name}`, "aria-label": label, "data-keep": name, disabled, onclick: turn }, icon(ICONS[name]));
  }

  #leave(then) {
    this.#dialog.close();
    then();
  }

  async #loadSegments(match, frame, box) {
    this.#loading?.abort();
    this.#loading = new AbortController();
    this.#chosen = match.segment?.n ?? null;
    try {
      const { segments } = await api.segments(match.image_id, this.#loading.signal);
      this.#drawSegments(match, frame, box, segments);
    } catch (problem) {
      if (problem.name !== "AbortError") box.replaceChildren(make("p", { class: "fine" }, `Regions: ${problem.message}`));
    }
  }

  #drawSegments(match, frame, box, segments) {
    const chosen = () => segments.find((segment) => segment.n === this.#chosen) ?? null;
    const paint = (segment) => (segment ? drawSegment(frame, segment, match) : clearSegments(frame));
    const cut = make("button", { type: "button", class: "button" }, "Search with this region");
    cut.addEventListener("click", async () => {
      const file = await cutOut(frame.querySelector("img"), chosen().bbox, match, chosen().label);
      this.#leave(() => this.#onRegion(file));
    });
    const buttons = segments.map((segment) => {
      const choose = () => {
        this.#chosen = this.#chosen === segment.n ? null : segment.n;
        settle();
      };
      const text = `${segment.label} ${Math.round(segment.score * 100)} %`;
      const button = make("button", { type: "button", class: "chip", "data-n": segment.n, onclick: choose }, text);
      button.addEventListener("pointerenter", () => paint(segment));
      button.addEventListener("pointerleave", () => paint(chosen()));
      return button;
    });
    const settle = () => {
      buttons.forEach((button) => button.setAttribute("aria-pressed", String(Number(button.dataset.n) === this.#chosen)));
      cut.hidden = chosen() === null;
      paint(chosen());
    };
    const title = segments.length ? `Regions (${segments.length})` : "No regions were found in this picture";
    box.replaceChildren(make("h3", {}, title), make("div", { class: "chips" }, buttons), cut);
    settle();
  }
}

function factsOf(match) {
  const rows = [["Score", match.score.toFixed(4)], ["Path", match.path], ["Size", match.width ? `${match.width} × ${match.height}` : "unknown"]];
  if (match.segment) rows.splice(1, 0, ["Region", `${match.segment.label}, ${Math.round(match.segment.score * 100)} % sure`]);
  return make("dl", {}, rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}
