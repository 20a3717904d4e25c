/** The result grid and its other faces: welcome, loading, nothing found, trouble, and two models side by side. */

import * as api from "./api.js";
import { Comparison } from "./comparison.js";
import { byId, make, notify, plural, refocus, say } from "./dom.js";
import { headline, nothingFor } from "./headline.js";
import { tileOf } from "./tile.js";

const PLACEHOLDER_RATIOS = [1.5, 0.75, 1.33, 1.5, 1, 1.33, 0.67, 1.5, 1.33];

export class Results {
  #box = byId("results");
  #grid = null;
  #matches = [];
  #viewer;
  #ratings;
  #comparison;
  #wishes;

  /** `wishes.more(match)` and `wishes.less(match)` bend the search. */
  constructor(viewer, ratings, wishes) {
    this.#viewer = viewer;
    this.#ratings = ratings;
    this.#wishes = wishes;
    this.#comparison = new Comparison(viewer, ratings);
  }

  showWelcome() {
    this.#message("Find your pictures", [
      "Write what they show, or drop, paste or pick a picture to find similar ones. “Regions” looks for parts of pictures.",
      "Pictures are taken from the watched folder: copy files there, or add them with the button above.",
    ]);
  }

  showLoading() {
    this.#box.setAttribute("aria-busy", "true");
    if (this.#matches.length) {
      this.#box.classList.add("stale");
      return;
    }
    const tiles = PLACEHOLDER_RATIOS.map((ratio) => {
      const tile = make("span", { class: "tile placeholder", "aria-hidden": "true" });
      tile.style.setProperty("--ratio", ratio);
      return tile;
    });
    this.#settle(make("div", { class: "grid" }, tiles));
    this.#box.setAttribute("aria-busy", "true");
  }

  showProblem(problem, retry) {
    this.#matches = [];
    const title = { 0: "No connection", 503: "Not available yet", 401: "Not allowed" }[problem.status] ?? "That did not work";
    this.#settle(
      make("div", { class: "message", role: "alert" },
        make("h2", {}, title),
        make("p", {}, problem.message),
        problem.requestId ? make("p", { class: "fine" }, `Request ${problem.requestId}`) : "",
        make("button", { type: "button", class: "button", onclick: retry }, "Try again"),
      ),
    );
  }

  /** `answer` is the search's; `more(cursor)` asks for the next page. */
  show(answer, { asked, more }) {
    this.#tellModels([answer]);
    this.#matches = [];
    if (answer.matches.length === 0) {
      this.#message("Nothing found", [nothingFor(asked)]);
      say("Nothing found");
      return;
    }
    this.#grid = make("div", { class: "grid", role: "list" });
    const head = make("div", { class: "head" },
      make("h2", {}, headline(asked)),
      this.#ratings.control(answer.jwt, "How good are these results?"),
    );
    const foot = make("div", { class: "foot" });
    this.#settle(head, this.#grid, foot);
    this.#append(answer, foot, more);
    say(`${plural(answer.matches.length, "result", "results")}, answered by ${answer.model_name}`);
  }

  /** What two models answered. */
  showComparison(compared, { asked }) {
    this.#tellModels(compared.answers);
    this.#matches = compared.answers.flatMap((answer) => answer.matches);
    if (this.#matches.length === 0) {
      this.#message("Nothing found", [nothingFor(asked)]);
      say("Nothing found");
      return;
    }
    this.#settle(...this.#comparison.draw(compared, headline(asked)));
    say(this.#comparison.summary(compared));
  }

  #tellModels(answers) {
    byId("model").textContent = `Answered by ${answers.map((answer) => answer.model_name).join(" and ")}`;
    byId("model").hidden = false;
    notify(answers[0].notice);
  }

  #append({ matches, cursor }, foot, more) {
    const first = this.#matches.length;
    this.#matches.push(...matches);
    this.#grid.append(...matches.map((match, index) => this.#tile(match, first + index)));
    foot.replaceChildren();
    if (!cursor) return;
    const button = make("button", { type: "button", class: "button" }, "Show more");
    button.addEventListener("click", async () => {
      button.disabled = true;
      button.textContent = "Loading";
      try {
        const position = this.#matches.length;
        this.#append(await more(cursor), foot, more);
        refocus(this.#grid.children[position]?.querySelector("button") ?? this.#box);
      } catch (problem) {
        if (problem.name === "AbortError") return; // another search is on its way
        button.disabled = false;
        button.textContent = `Try again: ${problem.message}`;
        refocus(button);
      }
    });
    foot.append(button);
  }

  #tile(match, index) {
    return tileOf(match, {
      open: () => this.#viewer.open(this.#matches, index),
      openGroup: () => this.#openGroup(match),
      more: () => this.#wishes.more(match),
      less: () => this.#wishes.less(match),
    });
  }

  /** A match and what is nearly the same, to leaf through; what went meanwhile is left out. */
  async #openGroup(match) {
    const shown = this.#matches;
    const found = await Promise.allSettled(match.near_duplicates.map((imageId) => api.image(imageId)));
    if (this.#matches !== shown || document.querySelector("dialog[open]")) return; // somebody went on meanwhile
    const others = found.filter((one) => one.value?.paths.length).map((one) => unranked(one.value));
    this.#viewer.open([match, ...others], 0);
  }

  #message(title, lines) {
    this.#matches = [];
    this.#settle(make("div", { class: "message" }, make("h2", {}, title), lines.map((line) => make("p", {}, line))));
  }

  /** What was focused goes; the next key goes on from where it was. */
  #settle(...content) {
    const focused = this.#box.contains(document.activeElement);
    this.#box.classList.remove("stale");
    this.#box.setAttribute("aria-busy", "false");
    this.#box.replaceChildren(...content);
    if (focused) this.#box.focus({ preventScroll: true });
  }
}

/** An image as the viewer shows a match; no search has ranked it, so it has no score and cannot be rated. */
function unranked(image) {
  const [path] = image.paths;
  return { ...image, path, image_name: path.split("/").pop(), score: null, segment: null, near_duplicates: [], explanation: null, jwt: "" };
}
