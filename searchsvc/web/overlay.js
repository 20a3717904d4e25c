/** A segment drawn over its picture: the mask as a tint, the box as a line. Everything in percent, so it fits at any size. */

import { make } from "./dom.js";

/** `frame` is an element of the picture's own proportions. `size` is that of the upright picture in pixels. */
export function drawSegment(frame, segment, size) {
  clearSegments(frame);
  if (segment.mask_url) {
    const mask = make("span", { class: "mask", "aria-hidden": "true" });
    mask.style.setProperty("--mask", `url("${encodeURI(segment.mask_url)}")`);
    frame.append(mask);
  }
  const [x, y, width, height] = segment.bbox;
  const box = make("span", { class: "bbox", "aria-hidden": "true" });
  box.style.left = `${(100 * x) / size.width}%`;
  box.style.top = `${(100 * y) / size.height}%`;
  box.style.width = `${(100 * width) / size.width}%`;
  box.style.height = `${(100 * height) / size.height}%`;
  frame.append(box);
}

export function clearSegments(frame) {
  frame.querySelectorAll(".mask, .bbox").forEach((drawn) => drawn.remove());
}
