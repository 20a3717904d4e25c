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

/** What an answer says. Throws a Problem where it tells of one, or is none of this API's, as of a proxy in between. */
function read(status, text, retryAfter) {
  let document = null;
  try {
    document = JSON.parse(text);
  } catch {
    // told below
  }
  if (status < 300 && document) return document;
  const unread = `The server answered ${status}${status < 300 ? ", but with nothing that this page can read" : ""}.`;
  throw new Problem({ detail: unread, ...document, status }, retryAfter ? Number(retryAfter) : null);
}

/** Why nothing came back: a browser tells no more of a file that it cannot send than of a server that is away. */
async function silence(files) {
  for (const file of files) {
    try {
      const reader = file.stream().getReader();
      await reader.read();
      reader.cancel();
    } catch {
      return new Problem({ status: null, detail: `${file.name} cannot be read: it is a folder, or was changed or taken away.` });
    }
  }
  return UNREACHABLE;
}

async function call(path, { method = "GET", body = null, json = null, files = [], signal = null } = {}) {
  const headers = { Accept: "application/json" };
  if (json !== null) headers["Content-Type"] = "application/json";
  let answer;
  let text;
  try {
    answer = await fetch(path, { method, headers, body: json === null ? body : JSON.stringify(json), signal });
    text = await answer.text();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw await silence(files);
  }
  return read(answer.status, text, answer.headers.get("Retry-After"));
}

/** Ask by any of: text, pictures (Files or Blobs), an image id. Options go as fields beside them; an empty one is not sent. */
function ask(path, { pictures = [], ...options }, signal) {
  const given = Object.entries(options).filter(([, value]) => value !== null && value !== undefined && value !== "");
  if (!pictures.length) return call(path, { method: "POST", json: Object.fromEntries(given), signal });
  const form = new FormData();
  given.forEach(([name, value]) => form.append(name, typeof value === "object" ? JSON.stringify(value) : value));
  pictures.forEach((picture) => form.append("file", picture, picture.name || "query.png"));
  return call(path, { method: "POST", body: form, files: pictures, signal });
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

export const failures = (limit, offset, signal) => call(`${ROOT}/failures?limit=${limit}&offset=${offset}`, { signal });

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
    request.onerror = () => silence([file]).then(reject);
    request.onload = () => {
      try {
        resolve(read(request.status, request.responseText, request.getResponseHeader("Retry-After")));
      } catch (problem) {
        reject(problem);
      }
    };
    const form = new FormData();
    form.append("file", file, file.name);
    request.send(form);
  });
}
