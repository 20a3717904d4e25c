/** Where everything stands, told as it changes: by the stream of events, and by asking while that is away. */

import * as api from "./api.js";

const BUSY_MS = 2000;
const IDLE_MS = 10000;

export class Status {
  #events = null;
  #timer = null;
  #streaming = false;
  #onStatus;
  #onAway;

  /** `onStatus(status)` as often as it changes; `onAway(problem)` whenever it cannot be told. */
  constructor({ onStatus, onAway }) {
    this.#onStatus = onStatus;
    this.#onAway = onAway;
    document.addEventListener("visibilitychange", () => (document.hidden ? this.#stop() : this.follow()));
  }

  /** A page that nobody sees follows nothing: a browser opens but six connections to a host, over all its pages. */
  follow() {
    if (document.hidden) return;
    this.#listen();
    this.#ask();
  }

  /** The folder got something to do: the stream tells of it by itself. */
  expect() {
    if (this.#events && !this.#streaming) this.#ask();
  }

  #listen() {
    this.#events?.close();
    const events = (this.#events = api.events());
    events.addEventListener("status", (event) => {
      this.#streaming = true;
      clearTimeout(this.#timer);
      this.#onStatus(JSON.parse(event.data));
    });
    events.addEventListener("unavailable", () => this.#lose());
    events.addEventListener("error", () => this.#lose());
  }

  #lose() {
    this.#streaming = false;
    this.#ask();
  }

  /** Ask now, then keep asking until the stream tells: often while there is work, seldom while there is none. */
  async #ask() {
    clearTimeout(this.#timer);
    const events = this.#events;
    let pause = IDLE_MS;
    try {
      const status = await api.status();
      if (this.#streaming || events !== this.#events) return;
      this.#onStatus(status);
      if (isBusy(status)) pause = BUSY_MS;
    } catch (problem) {
      if (this.#streaming || events !== this.#events) return;
      this.#onAway(problem);
      pause = BUSY_MS;
    }
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#again(), pause);
  }

  /** A browser comes back to a stream that broke off, but not to one that was refused. */
  #again() {
    if (this.#events.readyState === EventSource.CLOSED) this.#listen();
    this.#ask();
  }

  #stop() {
    clearTimeout(this.#timer);
    this.#events?.close();
    this.#events = null;
    this.#streaming = false;
  }
}

export function isBusy({ images, watcher, model_change: change }) {
  return images.pending + images.running > 0 || (change && !change.stopped) || watcher.settling > 0 || watcher.reconciling;
}
