/** The HTTP API: one function a route. Every error is a Problem, whatever went wrong. */

const ROOT = "/api/v1";
const KEY = "api-key";

/** An RFC 9457 problem document, or the like of one where no server answered. */
export class Problem extends Error {
  constructor({ status = 0, detail, code = "", request_id = "" }, retryAfterS = null) {
    super(detail || "The server did not say why.");
    this.status = status;
    this.code = code;
    this.requestId = request_id;
    this.retryAfterS = retryAfterS;
  }
}

export const UNREACHABLE = new Problem({ detail: "The server does not answer. Is it running?", code: "unreachable" });

export const keepApiKey = (key) => sessionStorage.setItem(KEY, key);

function credentials() {
  const key = sessionStorage.getItem(KEY);
  return key ? { Authorization: `Bearer ${key}` } : {};
}

function problemOf(status, text, retryAfter) {
  let document = {};
  try {
    document = JSON.parse(text);
  } catch {
    document = { detail: `The server answered ${status}.` };
  }
  return new Problem({ ...document, status }, retryAfter ? Number(retryAfter) : null);
}

async function call(path, { method = "GET", body = null, json = null, signal = null, write = false } = {}) {
  const headers = { Accept: "application/json", ...(write ? credentials() : {}) };
  if (json !== null) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: json === null ? body : JSON.stringify(json), signal });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw UNREACHABLE;
  }
  if (!answer.ok) throw problemOf(answer.status, await answer.text(), answer.headers.get("Retry-After"));
  return answer.status === 204 ? null : answer.json();
}

/** Ask by any of: text, pictures (Files or Blobs), an image id. Options go as fields beside them; an empty one is not sent. */
function ask(path, { pictures = [], ...options }, signal) {
  const given = Object.entries(options).filter(([, value]) => value !== null && value !== undefined && value !== "");
  if (!pictures.length) return call(path, { method: "POST", json: Object.fromEntries(given), signal });
  const form = new FormData();
  given.forEach(([name, value]) => form.append(name, typeof value === "object" ? JSON.stringify(value) : value));
  pictures.forEach((picture) => form.append("file", picture, picture.name || "query.png"));
  return call(path, { method: "POST", body: form, signal });
}

export const search = (asked, signal) => ask(`${ROOT}/search-image`, asked, signal);

/** The same asked of the two `models`. */
export const compare = (asked, signal) => ask(`${ROOT}/compare-models`, asked, signal);

export const rate = (userFeedback, jwt) =>
  call(`${ROOT}/create-feedback`, { method: "POST", json: { user_feedback: userFeedback, jwt } });

export const status = () => call(`${ROOT}/status`);

/** The status as a stream of events: `status`, whose `data` is what `status()` answers, and `unavailable`. */
export const events = () => new EventSource(`${ROOT}/events`);

/** The values of `folders` or `labels` that there are, with how many images have each. */
export const facets = (field) => call(`${ROOT}/facets?field=${field}`);

export const failures = (limit, offset) => call(`${ROOT}/failures?limit=${limit}&offset=${offset}`);

export const image = (imageId) => call(`${ROOT}/images/${encodeURIComponent(imageId)}`);

export const thumbnail = (imageId) => `${ROOT}/images/${encodeURIComponent(imageId)}/thumbnail`;

export const segments = (imageId, signal) => call(`${ROOT}/images/${encodeURIComponent(imageId)}/segments`, { signal });

/** Upload one picture; `onProgress` gets the share that is sent. fetch() cannot tell that, so this is an XMLHttpRequest. */
export function upload(file, onProgress) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    request.open("POST", `${ROOT}/images`);
    for (const [name, value] of Object.entries(credentials())) request.setRequestHeader(name, value);
    request.setRequestHeader("Accept", "application/json");
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onerror = () => reject(UNREACHABLE);
    request.onload = () => {
      if (request.status < 300) resolve(JSON.parse(request.responseText));
      else reject(problemOf(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    };
    const form = new FormData();
    form.append("file", file, file.name);
    request.send(form);
  });
}
