/** The same question to two models: two ranked lists side by side, and how far each picture moved between them. */

import { make, plural } from "./dom.js";
import { frameOf, nameOf } from "./tile.js";

export class Comparison {
  #viewer;
  #ratings;

  constructor(viewer, ratings) {
    this.#viewer = viewer;
    this.#ratings = ratings;
  }

  draw(compared, title) {
    const names = compared.answers.map((answer) => answer.model_name);
    const ranks = new Map(compared.images.map((image) => [image.image_id, image.ranks]));
    const lists = make("div", { class: "compared" }, compared.answers.map((answer, side) => this.#list(answer, { side, names, ranks })));
    const light = (event) => lightUp(lists, event.target.closest("[data-image]")?.dataset.image);
    lists.addEventListener("pointerover", light);
    lists.addEventListener("focusin", light);
    return [make("div", { class: "head" }, make("h2", {}, title), make("p", { class: "fine" }, this.summary(compared))), lists];
  }

  summary({ answers: [one, other], overlap }) {
    return `${plural(overlap, "picture", "pictures")} found by both ${one.model_name} and ${other.model_name}`;
  }

  #list(answer, { side, names, ranks }) {
    const other = names[1 - side];
    const rows = answer.matches.map((match, index) => this.#row(answer.matches, index, changeOf(ranks.get(match.image_id), side, other)));
    return make("section", { class: "side", "aria-label": answer.model_name },
      make("h3", {}, answer.model_name),
      rows.length ? make("ol", {}, rows) : make("p", { class: "fine" }, "Nothing found"),
      rows.length ? this.#ratings.control(answer.jwt, `How good are the results of ${answer.model_name}?`) : null,
    );
  }

  #row(matches, index, change) {
    const match = matches[index];
    const label = `${nameOf(match)}, score ${match.score.toFixed(3)}${change ? `, ${change.said}` : ""}`;
    return make("li", { "data-image": match.image_id },
      make("button", { type: "button", "aria-label": label, onclick: () => this.#viewer.open(matches, index) },
        make("span", { class: "rank" }, String(index + 1)),
        frameOf(match),
        make("span", { class: "name", title: match.path }, nameOf(match)),
        make("span", { class: "score" }, match.score.toFixed(3)),
        change ? make("span", { class: `change ${change.kind}`, title: change.said }, change.sign) : null,
      ),
    );
  }
}

/** How a picture stands on one `side` against the other. The second list tells of moves; the first of what it alone has found. */
function changeOf(ranks, side, other) {
  if (!ranks) return null;
  const [here, there] = [ranks[side], ranks[1 - side]];
  if (there === null) return { kind: "new", sign: side === 1 ? "new" : "only here", said: `not found by ${other}` };
  if (side === 0 || here === null) return null;
  const up = there - here;
  if (up === 0) return { kind: "same", sign: "=", said: `the same rank as with ${other}` };
  const places = plural(Math.abs(up), "place", "places");
  return up > 0
    ? { kind: "up", sign: `↑${up}`, said: `${places} higher than with ${other}` }
    : { kind: "down", sign: `↓${-up}`, said: `${places} lower than with ${other}` };
}

/** The same picture in both lists. */
function lightUp(lists, imageId) {
  for (const row of lists.querySelectorAll("[data-image]")) row.classList.toggle("lit", row.dataset.image === imageId);
}
