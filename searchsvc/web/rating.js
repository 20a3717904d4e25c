/** The rating control, 1 to 10. A token counts once, so what was rated stays shown as rated. */

import * as api from "./api.js";
import { make, refocus, say } from "./dom.js";

const HIGHEST = 10;

export class Ratings {
  #scores = new Map();

  /** A control for one signed token. `question` names what is rated. */
  control(jwt, question) {
    const box = make("div", { class: "rating" });
    this.#draw(box, jwt, question);
    return box;
  }

  #draw(box, jwt, question, trouble = null) {
    if (this.#scores.has(jwt)) {
      box.replaceChildren(make("p", { class: "rated", tabindex: -1 }, this.#scores.get(jwt)));
      return;
    }
    const buttons = Array.from({ length: HIGHEST }, (_, index) => {
      const score = index + 1;
      const rateIt = () => this.#send(box, jwt, question, score);
      return make("button", { type: "button", "aria-label": `Rate ${score} of ${HIGHEST}`, onclick: rateIt }, String(score));
    });
    box.replaceChildren(
      make("span", { class: "question" }, question),
      make("div", { class: "scores", role: "group", "aria-label": `${question} 1 is poor, ${HIGHEST} is excellent` }, buttons),
      trouble ? make("p", { class: "trouble" }, trouble) : "",
    );
  }

  async #send(box, jwt, question, score) {
    box.querySelectorAll("button").forEach((button) => (button.disabled = true));
    try {
      await api.rate(score, jwt);
      this.#scores.set(jwt, `Rated ${score} of ${HIGHEST}. Thank you.`);
    } catch (problem) {
      const closed = { 409: "This was rated before.", 401: "Too old to be rated: search again to rate it." }[problem.status];
      if (!closed) {
        this.#draw(box, jwt, question, `Not saved: ${problem.message}`);
        refocus(box.querySelectorAll("button")[score - 1]);
        say(`Not saved: ${problem.message}`);
        return;
      }
      this.#scores.set(jwt, closed);
    }
    this.#draw(box, jwt, question);
    refocus(box.firstChild);
    if (document.activeElement !== box.firstChild) say(this.#scores.get(jwt)); // what has the focus is read anyhow
  }
}
