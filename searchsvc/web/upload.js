/** Pictures on their way into the folder: sent, then followed until they are indexed or failed. */

import * as api from "./api.js";
import { ICONS, byId, icon, make, plural, say } from "./dom.js";

const AT_ONCE = 2;
const LOOKED_AT_ONCE = 8;
const PAUSE_MS = 250;
const AGAIN_S = 5;
const ATTEMPTS = 3;
const WORDS = { waiting: "waiting", pending: "in the queue", running: "being indexed", indexed: "indexed" };

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Uploads {
  #box = byId("uploads");
  #rows = make("ul", { class: "rows" });
  #title = make("h2", {});
  #keyForm = make("form", { class: "key", hidden: true });
  #waiting = [];
  #followed = new Set();
  #outdated = new Set();
  #sending = 0;
  #held = false;
  #resting = false;
  #looking = false;
  #onWork;

  /** `onWork` is called whenever the folder got something to do. */
  constructor(onWork) {
    this.#onWork = onWork;
    const input = byId("add-files");
    byId("add").addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      this.add([...input.files]);
      input.value = "";
    });
    const close = make("button", { type: "button", class: "icon-button", "aria-label": "Hide this list" }, icon(ICONS.close));
    close.addEventListener("click", () => {
      this.#box.hidden = true;
      byId("add").focus();
    });
    this.#buildKeyForm();
    this.#box.append(make("div", { class: "facts-head" }, this.#title, close), this.#keyForm, this.#rows);
  }

  add(files) {
    if (!files.length) return;
    for (const file of files) {
      const bar = make("progress", { max: 1, value: 0, "aria-label": `Sending ${file.name}` });
      const word = make("span", { class: "state" }, WORDS.waiting);
      const row = make("li", {}, make("span", { class: "name", title: file.name }, file.name), word, bar);
      this.#rows.prepend(row);
      this.#waiting.push({ file, row, word, bar, imageId: null, known: false, unanswered: 0 });
    }
    this.#box.hidden = false;
    this.#retitle();
    this.#pump();
  }

  #pump() {
    while (!this.#held && !this.#resting && this.#sending < AT_ONCE && this.#waiting.length) {
      this.#sending += 1;
      this.#send(this.#waiting.shift()).finally(() => {
        this.#sending -= 1;
        this.#pump();
      });
    }
  }

  async #send(entry) {
    try {
      const answer = await api.upload(entry.file, (share) => {
        entry.bar.value = share;
        entry.word.textContent = share < 1 ? `${Math.round(share * 100)} %` : "being stored";
      });
      entry.imageId = answer.image_id;
      this.#tell(entry, "pending");
      this.#followed.add(entry);
      this.#onWork();
      this.look();
    } catch (problem) {
      if (problem.status === 401) this.#askForKey(entry, problem);
      else if (problem.retryAfterS || (problem === api.UNREACHABLE && ++entry.unanswered < ATTEMPTS)) this.#rest(entry, problem);
      else this.#finish(entry, "failed", problem.message, problem.requestId);
    }
  }

  /** It is sent again, and the others after it: when the server wants it, or once it answers at all. */
  async #rest(entry, problem) {
    this.#waiting.unshift(entry);
    entry.word.textContent = problem.message;
    entry.bar.value = 0;
    if (this.#resting) return;
    this.#resting = true;
    do await pause(1000 * (problem.retryAfterS ?? AGAIN_S));
    while (!(await api.status().catch(() => null)));
    this.#resting = false;
    this.#pump();
  }

  /** Something changed in the folder: ask anew for each picture that is on its way, a few at a time. */
  async look() {
    this.#followed.forEach((entry) => this.#outdated.add(entry));
    if (this.#looking) return;
    this.#looking = true;
    while (this.#outdated.size) {
      const few = [...this.#outdated].slice(0, LOOKED_AT_ONCE);
      few.forEach((entry) => this.#outdated.delete(entry));
      await Promise.all(few.map((entry) => this.#ask(entry)));
      if (this.#outdated.size) await pause(PAUSE_MS);
    }
    this.#looking = false;
  }

  async #ask(entry) {
    try {
      const record = await api.image(entry.imageId);
      entry.known = true;
      if (record.state === "indexed" || record.state === "failed") {
        this.#finish(entry, record.state, record.detail ?? record.reason);
      } else this.#tell(entry, record.state);
    } catch (problem) {
      if (problem.status !== 404) entry.word.textContent = problem.message;
      else if (entry.known) this.#finish(entry, "failed", "It is no longer in the folder."); // before that, nobody has noticed it yet
    }
  }

  #tell(entry, state) {
    entry.bar.hidden = true;
    entry.row.className = state;
    entry.word.textContent = WORDS[state] ?? state;
  }

  #finish(entry, state, detail = "", requestId = "") {
    this.#followed.delete(entry);
    this.#outdated.delete(entry);
    this.#tell(entry, state);
    if (state === "failed") {
      entry.word.textContent = detail || "failed";
      entry.word.title = requestId ? `Request ${requestId}` : "";
    }
    say(`${entry.file.name}: ${entry.word.textContent}`);
    this.#retitle();
  }

  #retitle() {
    const rows = [...this.#rows.children];
    const failed = rows.filter((row) => row.className === "failed").length;
    const ready = rows.filter((row) => row.className === "indexed").length;
    const trouble = failed ? `, ${failed} not taken` : "";
    this.#title.textContent = `${ready} of ${plural(rows.length, "picture", "pictures")} added${trouble}`;
  }

  #askForKey(entry, problem) {
    this.#held = true;
    this.#waiting.unshift(entry);
    entry.word.textContent = "needs an API key";
    entry.bar.value = 0;
    this.#keyForm.querySelector("p").textContent = `Adding pictures is allowed with an API key only: ${problem.message}`;
    this.#keyForm.hidden = false;
    this.#keyForm.querySelector("input").focus();
  }

  #buildKeyForm() {
    const input = make("input", { id: "api-key", type: "password", required: true, autocomplete: "off" });
    this.#keyForm.append(
      make("p", { role: "alert" }),
      make("label", { for: "api-key" }, "API key"),
      input,
      make("button", { class: "button primary" }, "Continue"),
    );
    this.#keyForm.addEventListener("submit", (event) => {
      event.preventDefault();
      api.keepApiKey(input.value.trim());
      input.value = "";
      this.#keyForm.hidden = true;
      this.#held = false;
      this.#pump();
    });
  }
}
