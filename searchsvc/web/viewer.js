/** One match, large: its place, its rating, its regions, why it was found, and the ways on from it. */

import { ICONS, breakable, byId, closeBeside, icon, legible, make } from "./dom.js";
import { drawSegment } from "./overlay.js";
import { Regions } from "./regions.js";
import { ratioOf } from "./tile.js";
import { Why } from "./why.js";

export class Viewer {
  #dialog = byId("viewer");
  #told = byId("viewer-told");
  #ratings;
  #cutter;
  #wishes;
  #regions;
  #why = new Why();
  #matches = [];
  #index = 0;

  /** `wishes`: `more(match)`, `less(match)`, `by({ image_id, segment, region })`, `around(location)`: each searches anew. */
  constructor(ratings, cutter, wishes) {
    this.#ratings = ratings;
    this.#cutter = cutter;
    this.#wishes = wishes;
    this.#regions = new Regions((source) => this.#leave(() => wishes.by(source)));
    this.#dialog.addEventListener("keydown", (event) => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (step && !event.altKey && !event.ctrlKey && !event.metaKey) this.#turn(step); // with those it is a key of the browser's
    });
    closeBeside(this.#dialog);
    this.#dialog.addEventListener("close", () => this.#regions.stop());
  }

  open(matches, index) {
    this.#matches = matches;
    this.#index = index;
    this.#draw();
    if (!this.#dialog.open) this.#dialog.showModal();
  }

  /** What the status says of the models; it names none while they are loading. */
  know({ models }) {
    this.#regions.looked = !models.length || models.some(({ role }) => role === "segmenter");
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
    const regions = make("div", { class: "segments" });
    const focused = document.activeElement?.dataset?.keep;
    const facts = [
      make("div", { class: "facts-head" },
        make("h2", { id: "viewer-name", title: match.image_name, "aria-label": match.image_name }, breakable(match.image_name)),
        make("button", { type: "button", class: "icon-button", "aria-label": "Close", onclick: () => this.#dialog.close() }, icon(ICONS.close)),
      ),
      factsOf(match),
      this.#actions(match),
      match.jwt ? this.#ratings.control(match.jwt, "How well does it fit?") : null,
      this.#why.draw(match),
      regions,
    ];
    this.#dialog.querySelectorAll(".stage, .facts").forEach((drawn) => drawn.remove()); // what tells of it stays: a new one would not be listened to
    this.#dialog.append(
      make("div", { class: "stage" }, this.#arrow("previous", -1), frame, this.#arrow("next", 1)),
      make("div", { class: "facts" }, facts),
    );
    this.#told.textContent = `${this.#index + 1} of ${this.#matches.length}, ${legible(inWords(match))}`;
    if (this.#dialog.open) this.#focusAgain(focused);
    this.#regions.load(match, frame, regions);
  }

  /** The focused control was drawn anew; without a focus within the dialog its keys would go nowhere. */
  #focusAgain(name) {
    const same = name ? this.#dialog.querySelector(`[data-keep=${name}]:not(:disabled)`) : null;
    (same ?? this.#dialog).focus();
  }

  #frame(match) {
    const frame = make("div", { class: "frame" });
    frame.style.setProperty("--ratio", ratioOf(match));
    const picture = make("img", { src: match.image_url, alt: match.image_name });
    picture.addEventListener("error", () => {
      if (picture.getAttribute("src") === match.thumbnail_url) frame.classList.add("broken");
      else picture.src = match.thumbnail_url; // HEIC: no browser but one shows it
    });
    frame.append(picture);
    if (match.segment) drawSegment(frame, match.segment, match);
    return frame;
  }

  #actions(match) {
    const button = (text, act, kind = "") => make("button", { type: "button", class: `button ${kind}`, onclick: act }, text);
    const leaving = (act) => () => this.#leave(act);
    return make("div", { class: "actions" },
      button("More like this", leaving(() => this.#wishes.more(match)), "primary"),
      button("Less like this", leaving(() => this.#wishes.less(match))),
      match.width ? button("Search with a part", () => this.#cut(match)) : null,
      match.location ? button("Near this place", leaving(() => this.#wishes.around(match.location))) : null,
      make("a", { class: "button", href: match.image_url, target: "_blank", rel: "noopener" }, "Open the file"),
    );
  }

  #cut(match) {
    this.#cutter.open(match.image_url, {
      size: match,
      fallback: match.thumbnail_url,
      onCut: (region) => this.#leave(() => this.#wishes.by({ image_id: match.image_id, region })),
    });
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
}

function inWords({ path, segment, score }) {
  return [path, segment?.label, score === null ? null : `score ${score.toFixed(3)}`].filter(Boolean).join(", ");
}

function factsOf(match) {
  const { segment, location, taken_at: taken } = match;
  const rows = [
    match.score === null ? null : ["Score", match.score.toFixed(4)],
    segment ? ["Region", `${segment.label}, ${Math.round(segment.score * 100)} % sure`] : null,
    ["Path", match.path],
    ["Size", match.width ? `${match.width} × ${match.height}` : "unknown"],
    taken ? ["Date", new Date(taken).toLocaleDateString(undefined, { timeZone: "UTC" })] : null,
    location ? ["Place", `${location.lat.toFixed(4)}, ${location.lon.toFixed(4)}`] : null,
  ].filter(Boolean);
  return make("dl", {}, rows.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]));
}
