// What the pages ask the API for.

const KEY = "scheduler-api-key";

/** What the API answers when it does not do what it was asked for: an RFC 9457 problem. */
export class Problem extends Error {
  constructor(status, detail, field) {
    super(field ? `${field}: ${detail}` : detail);
    this.status = status;
  }
}

export function useKey(key) {
  sessionStorage.setItem(KEY, key);
}

/** Sends `text` as it is, if there is any, and answers what came back. */
export async function send(method, path, text) {
  const headers = {};
  const key = sessionStorage.getItem(KEY);
  if (key) headers.authorization = `Bearer ${key}`;
  if (text !== undefined) headers["content-type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body: text, signal: AbortSignal.timeout(30_000) });
  } catch {
    throw new Problem(0, "the server does not answer");
  }
  const body = await answer.text();
  let value = null;
  try {
    value = body === "" ? null : JSON.parse(body);
  } catch {
    throw new Problem(answer.status, `the server answered ${answer.status} with something that is no JSON`);
  }
  if (!answer.ok) throw new Problem(answer.status, value?.detail ?? `status ${answer.status}`, value?.field);
  return value;
}

export const get = (path) => send("GET", path);
export const post = (path, value) => send("POST", path, value === undefined ? undefined : JSON.stringify(value));

/** A path of the API, of parts that are escaped. */
export const path = (...parts) => ["/api", ...parts.map(encodeURIComponent)].join("/");

/** The path with a query; what is empty is left out. */
export function asked(base, query) {
  const pairs = Object.entries(query).filter(([, value]) => value !== undefined && value !== "");
  return pairs.length ? `${base}?${new URLSearchParams(pairs)}` : base;
}
