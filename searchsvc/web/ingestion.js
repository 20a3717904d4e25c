/** The bar at the foot: how far the folder is indexed, and what stands in the way. */

import { byId, make, plural } from "./dom.js";
import { isBusy } from "./status.js";

export class Ingestion {
  #box = byId("ingestion");
  #failed;

  constructor({ onFailures }) {
    this.#failed = make("button", { type: "button", class: "link", onclick: onFailures });
  }

  showAway(problem) {
    this.#box.className = "ingestion away";
    this.#box.replaceChildren(make("span", {}, problem.message));
  }

  show(status) {
    const { images, model_change: change } = status;
    const total = images.pending + images.running + images.indexed + images.failed;
    const done = images.indexed + images.failed;
    const busy = isBusy(status);
    const counted = !change || images.pending + images.running > 0;
    const left = status.eta_s ?? change?.eta_s;
    this.#box.className = busy ? "ingestion busy" : "ingestion";
    const focused = this.#box.contains(document.activeElement);
    this.#failed.textContent = `${images.failed.toLocaleString("en")} not indexed`;
    this.#box.replaceChildren(
      ...(busy ? [make("progress", { max: Math.max(1, counted ? total : change.total), value: counted ? done : change.done, "aria-label": "Indexed pictures" })] : []),
      make("span", { class: "strong" }, busy && counted ? `${done.toLocaleString("en")} of ${plural(total, "picture", "pictures")}` : plural(images.indexed, "picture", "pictures")),
      make("span", {}, plural(status.segments, "region", "regions")),
      ...(busy && status.rate_per_s > 0 ? [make("span", {}, `${status.rate_per_s.toFixed(1)} a second`)] : []),
      ...(busy && left ? [make("span", {}, `${duration(left)} left`)] : []),
      ...(images.failed ? [this.#failed] : []),
      make("span", { class: "state" }, wordFor(status)),
    );
    if (focused) this.#failed.focus();
  }
}

function changing({ profile, done, total, stopped }) {
  return `${stopped ? "Stopped re-indexing" : "Re-indexing"} for ${profile}: ${done.toLocaleString("en")} of ${total.toLocaleString("en")}`;
}

function wordFor({ images, watcher, model_change: change }) {
  if (watcher.waiting_for) return `Waiting: ${watcher.waiting_for}`;
  if (watcher.state === "folder_missing") return "The watched folder is missing";
  if (watcher.settling) return `${plural(watcher.settling, "file is", "files are")} still being written`;
  if (watcher.reconciling) return "Comparing with the folder";
  if (images.pending + images.running > 0) return "Indexing";
  if (change) return changing(change);
  return ["watching", "standby"].includes(watcher.state) ? "Up to date" : watcher.state;
}

function duration(seconds) {
  if (seconds < 60) return `${Math.ceil(seconds)} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}
