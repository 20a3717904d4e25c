/** A part of a picture, to be searched with: a box that somebody draws. */

import { ICONS, byId, closeBeside, icon, make } from "./dom.js";

const LEAST = 0.02;

/** A dialog that shows a picture and takes a box: drawn with a pointer, or set with four sliders. */
export class Cutter {
  #dialog = byId("cutter");
  #picture = null;
  #box = null;
  #sliders = {};
  #pointer = null;
  #from = null;

  constructor() {
    closeBeside(this.#dialog);
  }

  /**
   * `onCut` gets the box that was chosen, `[x, y, width, height]` in whole pixels of a picture of `size` (default: the shown one's own).
   * `chosen` is such a box, to begin with; `fallback` is the address of a picture that can be shown where the first cannot.
   */
  open(address, { size = null, chosen = null, fallback = "", onCut }) {
    this.#pointer = null;
    this.#picture = make("img", { src: address, alt: "The picture to choose a part of", draggable: "false" });
    if (fallback) this.#picture.addEventListener("error", () => (this.#picture.src = fallback), { once: true });
    const sizeNow = () => size ?? { width: this.#picture.naturalWidth, height: this.#picture.naturalHeight };
    this.#box = make("span", { class: "bbox", "aria-hidden": "true" });
    const stage = make("div", { class: "frame cutting", "aria-busy": "true" }, this.#picture, this.#box);
    const shape = ({ width, height }) => stage.style.setProperty("--ratio", width / height);
    stage.addEventListener("pointerdown", (event) => this.#begin(event, stage));
    stage.addEventListener("pointermove", (event) => event.pointerId === this.#pointer && this.#between(this.#from, placeOf(event, stage)));
    stage.addEventListener("lostpointercapture", (event) => event.pointerId === this.#pointer && (this.#pointer = null));
    const search = () => {
      const region = inPixels(this.#bbox(1, 1), sizeNow());
      this.#dialog.close();
      onCut(region);
    };
    this.#dialog.replaceChildren(
      make("div", { class: "facts-head" },
        make("h2", { id: "cutter-title" }, "Search with a part"),
        make("button", { type: "button", class: "icon-button", "aria-label": "Close", onclick: () => this.#dialog.close() }, icon(ICONS.close)),
      ),
      make("p", { class: "fine" }, "Draw a box over what you look for, or set its sides."),
      stage,
      make("div", { class: "sides" }, ["left", "right", "top", "bottom"].map((side) => this.#slider(side))),
      make("button", { type: "button", class: "button primary", onclick: search }, "Search with this part"),
    );
    this.#between([0.25, 0.25], [0.75, 0.75]);
    if (size) shape(size);
    whenLoaded(this.#picture, () => {
      shape(sizeNow());
      stage.removeAttribute("aria-busy");
      if (chosen) this.#show(chosen, sizeNow());
    });
    this.#dialog.showModal();
  }

  #show([x, y, across, down], { width, height }) {
    this.#between([x / width, y / height], [(x + across) / width, (y + down) / height]);
  }

  #slider(side) {
    const input = make("input", { type: "range", min: 0, max: 100, step: 1, oninput: () => this.#draw() });
    this.#sliders[side] = input;
    return make("label", {}, make("span", {}, side), input);
  }

  /**
   * A box is not begun before the picture is there: until then nobody sees what it is drawn over, and the stage may change its shape.
   * One pointer draws it; other fingers and buttons do nothing meanwhile.
   */
  #begin(event, stage) {
    event.preventDefault();
    if (stage.ariaBusy || event.button !== 0 || this.#pointer !== null) return;
    this.#pointer = event.pointerId;
    stage.setPointerCapture(event.pointerId);
    this.#from = placeOf(event, stage);
  }

  /** Two corners, as shares of the picture. */
  #between([x, y], [u, v]) {
    const share = (value) => Math.round(100 * value);
    this.#sliders.left.value = share(Math.min(x, u));
    this.#sliders.right.value = share(Math.max(x, u));
    this.#sliders.top.value = share(Math.min(y, v));
    this.#sliders.bottom.value = share(Math.max(y, v));
    this.#draw();
  }

  /** As pixels of a picture that size; a box that is turned inside out is turned back, and never empty. */
  #bbox(width, height) {
    const at = (side) => Number(this.#sliders[side].value) / 100;
    const span = (one, other) => {
      const first = Math.min(one, other, 1 - LEAST);
      return [first, Math.max(one, other, first + LEAST) - first];
    };
    const [x, across] = span(at("left"), at("right"));
    const [y, down] = span(at("top"), at("bottom"));
    return [x * width, y * height, across * width, down * height];
  }

  #draw() {
    const [left, top, width, height] = this.#bbox(100, 100).map((side) => `${side}%`);
    Object.assign(this.#box.style, { left, top, width, height });
  }
}

function placeOf(event, stage) {
  const { left, top, width, height } = stage.getBoundingClientRect();
  const within = (value) => Math.min(1, Math.max(0, value));
  return [within((event.clientX - left) / width), within((event.clientY - top) / height)];
}

/** Whole pixels, at least one, and none beyond the picture. */
function inPixels([x, y, across, down], { width, height }) {
  const left = Math.min(width - 1, Math.round(x * width));
  const top = Math.min(height - 1, Math.round(y * height));
  const clamp = (length, most) => Math.max(1, Math.min(most, Math.round(length)));
  return [left, top, clamp(across * width, width - left), clamp(down * height, height - top)];
}

function whenLoaded(picture, then) {
  if (picture.complete && picture.naturalWidth) then();
  else picture.addEventListener("load", then, { once: true });
}
