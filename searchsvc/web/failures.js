/** Every file that is not indexed, and why. */

import * as api from "./api.js";
import { ICONS, byId, icon, make, plural } from "./dom.js";

const PAGE = 100;

export class Failures {
  #dialog = byId("failures");
  #rows = make("tbody");
  #title = make("h2", { id: "failures-title" });
  #foot = make("div", { class: "foot" });
  #loading = null;

  constructor() {
    const close = make("button", { type: "button", class: "icon-button", "aria-label": "Close", onclick: () => this.#dialog.close() }, icon(ICONS.close));
    const head = make("thead", {}, make("tr", {}, ["File", "Why", "When"].map((name) => make("th", { scope: "col" }, name))));
    this.#dialog.append(
      make("div", { class: "facts-head" }, this.#title, close),
      make("div", { class: "scroll", tabindex: 0 }, make("table", {}, head, this.#rows)),
      this.#foot,
    );
    this.#dialog.addEventListener("close", () => this.#loading.abort());
  }

  async open() {
    this.#rows.replaceChildren();
    this.#title.textContent = "Files that are not indexed";
    if (!this.#dialog.open) this.#dialog.showModal();
    await this.#load(0);
  }

  async #load(offset) {
    this.#foot.replaceChildren();
    this.#loading = new AbortController();
    try {
      const page = await api.failures(PAGE, offset, this.#loading.signal);
      this.#rows.append(...page.failures.map(rowOf));
      this.#title.textContent = page.total ? `${plural(page.total, "file is", "files are")} not indexed` : "Every picture is indexed";
      const next = offset + page.failures.length;
      if (next < page.total && page.failures.length) {
        this.#foot.append(make("button", { type: "button", class: "button", onclick: () => this.#load(next) }, "Show more"));
      }
    } catch (problem) {
      if (problem.name === "AbortError") return;
      this.#foot.replaceChildren(make("p", { class: "trouble", role: "alert" }, problem.message));
    }
  }
}

function rowOf({ path, reason, detail, failed_at: failedAt }) {
  return make("tr", {},
    make("td", { class: "path" }, path),
    make("td", {}, make("code", {}, reason), detail ? ` ${detail}` : ""),
    make("td", {}, new Date(failedAt).toLocaleString()),
  );
}
