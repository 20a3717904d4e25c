/** The result grid and its other faces: welcome, loading, nothing found, trouble. */

import { byId, make, notify, plural, say } from "./dom.js";
import { drawSegment } from "./overlay.js";

const PLACEHOLDER_RATIOS = [1.5, 0.75, 1.33, 1.5, 1, 1.33, 0.67, 1.5, 1.33];

export class Results {
  #box = byId("results");
  #grid = null;
  #matches = [];
  #viewer;
  #ratings;

  constructor(viewer, ratings) {
    this.#viewer = viewer;
    this.#ratings = ratings;
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

  /** `answer` is the search's; `more(offset)` asks for the next page. */
  show(answer, { asked, pageSize, more }) {
    byId("model").textContent = `Answered by ${answer.model_name}`;
    byId("model").hidden = false;
    notify(answer.notice);
    this.#matches = [];
    if (answer.matches.length === 0) {
      this.#message("Nothing found", [nothingFor(asked)]);
      say("Nothing found");
      return;
    }
    this.#grid = make("div", { class: "grid", role: "list" });
    const head = make("div", { class: "head" },
      make("h2", {}, headline(asked)),
      answer.jwt ? this.#ratings.control(answer.jwt, "How good are these results?") : "",
    );
    const foot = make("div", { class: "foot" });
    this.#settle(head, this.#grid, foot);
    this.#append(answer.matches, foot, pageSize, more);
    say(`${plural(answer.matches.length, "result", "results")}, answered by ${answer.model_name}`);
  }

  #append(matches, foot, pageSize, more) {
    const first = this.#matches.length;
    this.#matches.push(...matches);
    this.#grid.append(...matches.map((match, index) => this.#tile(match, first + index)));
    foot.replaceChildren();
    if (matches.length < pageSize) return;
    const button = make("button", { type: "button", class: "button" }, "Show more");
    button.addEventListener("click", async () => {
      button.disabled = true;
      button.textContent = "Loading";
      try {
        const next = await more(this.#matches.length);
        const position = this.#matches.length;
        this.#append(next.matches, foot, pageSize, more);
        this.#grid.children[position]?.querySelector("button").focus();
      } catch (problem) {
        button.disabled = false;
        button.textContent = `Try again: ${problem.message}`;
      }
    });
    foot.append(button);
  }

  #tile(match, index) {
    const size = { width: match.width || 4, height: match.height || 3 };
    const label = `${match.image_name}${match.segment ? `, ${match.segment.label}` : ""}, score ${match.score.toFixed(3)}`;
    const frame = make("span", { class: "frame" });
    const picture = make("img", { src: sharpThumbnail(match), alt: "", loading: "lazy", decoding: "async" });
    picture.addEventListener("error", () => frame.classList.add("broken"));
    frame.append(picture);
    if (match.segment) drawSegment(frame, match.segment, size);
    const open = () => this.#viewer.open(this.#matches, index);
    const tile = make("div", { class: "tile", role: "listitem" },
      make("button", { type: "button", "aria-label": label, onclick: open }, frame),
      make("div", { class: "caption", "aria-hidden": "true" },
        make("span", { class: "name", title: match.path }, match.segment ? match.segment.label : match.image_name),
        make("span", { class: "score" }, match.score.toFixed(3)),
      ),
    );
    tile.style.setProperty("--ratio", Math.min(3, Math.max(0.5, size.width / size.height)));
    return tile;
  }

  #message(title, lines) {
    this.#matches = [];
    this.#settle(make("div", { class: "message" }, make("h2", {}, title), lines.map((line) => make("p", {}, line))));
  }

  #settle(...content) {
    this.#box.classList.remove("stale");
    this.#box.setAttribute("aria-busy", "false");
    this.#box.replaceChildren(...content);
  }
}

/** A tile is wider than the smallest thumbnails, and many screens have two pixels for one. */
function sharpThumbnail(match) {
  const address = new URL(match.thumbnail_url, location.href);
  address.searchParams.set("size", "512");
  return address.href;
}

function headline({ text, picture, image_id: likeId }) {
  if (text && picture) return `“${text}” with your picture`;
  if (text && likeId) return `“${text}”, like one of your pictures`;
  if (picture) return "Similar to your picture";
  if (likeId) return "More like this";
  return `“${text}”`;
}

function nothingFor({ scope, filter }) {
  if (filter) return "No picture that passes the filters answers that. Take one away, or search without them.";
  if (scope === "segments") return "No region of a picture answers that. Regions exist only where a segmentation model is loaded.";
  return "No picture answers that yet. New pictures can be found once they are indexed: the bar below tells how far it is.";
}
