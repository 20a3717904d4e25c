/** One match in the grid: the picture, what it is called, and what can be done with it from there. */

import * as api from "./api.js";
import { ICONS, icon, make } from "./dom.js";
import { drawSegment } from "./overlay.js";

/** `open()`, `openGroup()` (its near-duplicates, too), `more()` and `less()` are what the tile's buttons do. */
export function tileOf(match, { open, openGroup, more, less }) {
  const name = nameOf(match);
  const tile = make("div", { class: "tile", role: "listitem" },
    make("button", { type: "button", class: "open", "aria-label": `${name}, score ${match.score.toFixed(3)}`, onclick: open }, frameOf(match)),
    make("div", { class: "quick" },
      quick("more", `More like ${name}`, more),
      quick("less", `Less like ${name}`, less),
    ),
    groupButton(match, openGroup),
    make("div", { class: "caption", "aria-hidden": "true" },
      make("span", { class: "name", title: match.path }, match.segment ? match.segment.label : match.image_name),
      make("span", { class: "score" }, match.score.toFixed(3)),
    ),
  );
  tile.style.setProperty("--ratio", Math.min(3, Math.max(0.5, ratioOf(match))));
  return tile;
}

/** The thumbnail with the region that was found. */
export function frameOf(match) {
  const frame = make("span", { class: "frame" });
  const picture = make("img", { src: sharpThumbnail(match.image_id), alt: "", loading: "lazy", decoding: "async" });
  picture.addEventListener("error", () => frame.classList.add("broken"));
  frame.append(picture);
  if (match.segment) drawSegment(frame, match.segment, { width: match.width || 4, height: match.height || 3 });
  return frame;
}

export const nameOf = (match) => `${match.image_name}${match.segment ? `, ${match.segment.label}` : ""}`;

export const ratioOf = ({ width, height }) => (width || 4) / (height || 3);

const quick = (sign, label, onclick) => make("button", { type: "button", "aria-label": label, title: label, onclick }, icon(ICONS[sign]));

function groupButton(match, openGroup) {
  const others = match.near_duplicates.length;
  if (!others) return null;
  const label = others === 1 ? `1 near-duplicate of ${match.image_name}` : `${others} near-duplicates of ${match.image_name}`;
  return make("button", { type: "button", class: "group", "aria-label": label, title: label, onclick: openGroup }, `+${others}`);
}

/** A tile is wider than the smallest thumbnails, and many screens have two pixels for one. */
const sharpThumbnail = (imageId) => `${api.thumbnail(imageId)}?size=512`;
