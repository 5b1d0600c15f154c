// Requests to the service: the API key, uploads with progress, and errors as problem documents.

const kept = (name) => ({
  get: () => sessionStorage.getItem(name) ?? "",
  set: (value) => value ? sessionStorage.setItem(name, value) : sessionStorage.removeItem(name),
});
export const key = kept("blvnet-key");
/** The admin key, which teaching needs where the service has one. */
export const adminKey = kept("blvnet-admin-key");

const bearer = (secret) => secret ? { Authorization: `Bearer ${secret}` } : {};

export const headers = (path) => bearer(path.startsWith("v1/taught") && adminKey.get() ? adminKey.get() : key.get());

const CANCELLED = { code: "cancelled", title: "Cancelled", detail: "" };
const UNREACHABLE = { code: "unreachable", title: "The service does not answer", detail: "Check that it is still running, and that the file was not moved." };

function problemOf(status, text) {
  try {
    const document = JSON.parse(text);
    if (document.title) return document;
  } catch { /* not a problem document */ }
  return { code: "failed", status, title: "The service failed", detail: `It answered with status ${status}.` };
}

/** The answer to a request without a video; throws a problem document. */
export async function send(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: headers(path) });
  } catch {
    throw { ...UNREACHABLE, detail: "Check that it is still running." };
  }
  if (!answer.ok) throw problemOf(answer.status, await answer.text());
  return answer;
}

export const getJson = async (path, options) => (await send(path, options)).json();

/**
 * Post a video and return the text of the answer with the times of its steps, in ms of `performance.now`.
 * XMLHttpRequest, because fetch does not report the progress of an upload.
 *
 * onUpload(sent, total) is called while the body is sent, onText(text) with all that was received so far.
 * Throws a problem document; `{code: "cancelled"}` after `signal` was aborted.
 */
export function post(path, file, { onUpload, onText, signal }) {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const marks = { begin: performance.now() };
    const body = new FormData();
    body.append("file", file, file.name);
    request.open("POST", path);
    for (const [name, value] of Object.entries(headers(path))) request.setRequestHeader(name, value);
    request.upload.onprogress = (event) => { onUpload?.(event.loaded, event.total); };
    request.upload.onload = () => { marks.uploaded = performance.now(); onUpload?.(1, 1); };
    request.onreadystatechange = () => {
      if (request.readyState === XMLHttpRequest.HEADERS_RECEIVED) marks.answered = performance.now();
    };
    request.onprogress = () => { if (request.status === 200) onText?.(request.responseText); };
    request.onload = () => {
      marks.ended = performance.now();
      marks.uploaded ??= marks.answered;
      if (request.status >= 200 && request.status < 300) resolve({ text: request.responseText, marks });
      else reject(problemOf(request.status, request.responseText));
    };
    request.onerror = () => reject(marks.answered
      ? { code: "cut", title: "The answer is incomplete", detail: "The connection to the service was closed." } : UNREACHABLE);
    request.onabort = () => reject(CANCELLED);
    signal?.addEventListener("abort", () => request.abort());
    if (signal?.aborted) reject(CANCELLED);
    else request.send(body);
  });
}
