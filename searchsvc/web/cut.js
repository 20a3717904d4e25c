/** A part of a picture as a picture of its own: of a segment, or of a box that somebody draws. */

import { ICONS, byId, icon, make } from "./dom.js";

const LEAST = 0.02;

/** The box `[x, y, width, height]`, in pixels of a picture of `size`, cut out of its element as a PNG. */
export async function cutOut(picture, bbox, size, name) {
  const scale = picture.naturalWidth / size.width;
  const [x, y, width, height] = bbox.map((side) => side * scale);
  const canvas = make("canvas", { width: Math.max(1, Math.round(width)), height: Math.max(1, Math.round(height)) });
  canvas.getContext("2d").drawImage(picture, x, y, width, height, 0, 0, canvas.width, canvas.height);
  const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  return new File([blob], `${name}.png`, { type: "image/png" });
}

/** A dialog that shows a picture and takes a box: drawn with a pointer, or set with four sliders. */
export class Cutter {
  #dialog = byId("cutter");
  #picture = null;
  #box = null;
  #sliders = {};
  #from = null;

  constructor() {
    this.#dialog.addEventListener("click", (event) => event.target === this.#dialog && this.#dialog.close());
  }

  /** `onCut(file)` gets the part that was chosen. */
  open(address, onCut) {
    this.#picture = make("img", { src: address, alt: "The query picture", draggable: "false" });
    this.#box = make("span", { class: "bbox", "aria-hidden": "true" });
    const stage = make("div", { class: "frame cutting" }, this.#picture, this.#box);
    stage.addEventListener("pointerdown", (event) => this.#begin(event, stage));
    stage.addEventListener("pointermove", (event) => this.#from && this.#between(this.#from, placeOf(event, stage)));
    stage.addEventListener("pointerup", () => (this.#from = null));
    const search = async () => {
      const { naturalWidth: width, naturalHeight: height } = this.#picture;
      const file = await cutOut(this.#picture, this.#bbox(width, height), { width, height }, "part");
      this.#dialog.close();
      onCut(file);
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
    this.#dialog.showModal();
  }

  #slider(side) {
    const input = make("input", { type: "range", min: 0, max: 100, step: 1, oninput: () => this.#draw() });
    this.#sliders[side] = input;
    return make("label", {}, make("span", {}, side), input);
  }

  #begin(event, stage) {
    event.preventDefault();
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
