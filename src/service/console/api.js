// The one road to the service API: the key, calls with a deadline, and what each refusal means in a sentence. The key is
// kept in this tab alone and never shown.

import { text } from "./words.js";

const KEPT = "hearth.service-key";
const DEADLINE_MS = 4_000;
const ROOT = new URL("../v1/", import.meta.url);

let key = "";
try {
  key = sessionStorage.getItem(KEPT) ?? "";
} catch {
  // Without storage it lives as long as the page.
}

export const hasKey = () => key !== "";
export const isKey = (other) => key === other.trim();

// Takes this key in the place of the one before, or says in a sentence why not.
export function setKey(next) {
  const trimmed = next.trim();
  if (/[^ -~\u00a0-\u00ff]/.test(trimmed))
    return "This is no key: it has a character that no browser can send in a header.";
  key = trimmed;
  try {
    if (key) sessionStorage.setItem(KEPT, key);
    else sessionStorage.removeItem(KEPT);
  } catch {
    // As above.
  }
  return "";
}

// A key that came in the address, which is taken out of it before anybody can see or copy it; empty if none did.
export function keyFromAddress() {
  const asked = new URLSearchParams(location.hash.slice(1).replaceAll("+", "%2B"));
  const given = asked.get("key");
  if (given === null) return "";
  asked.delete("key");
  const rest = asked.toString();
  history.replaceState(null, "", location.pathname + location.search + (rest ? `#${rest}` : ""));
  return given.trim();
}

// Why there is no answer. `kind`: `silent`, `key`, `scope`, `missing`, `wait`, `server` or `refused`.
export class Refusal extends Error {
  constructor(kind, sentence, more = {}) {
    super(sentence);
    Object.assign(this, { kind, code: "", detail: "", status: 0, retryMs: null, applied: false }, more);
  }
}

function refusal(status, problem) {
  const code = text(problem?.code);
  const detail = text(problem?.detail);
  const retryMs = typeof problem?.retry_after_ms === "number" ? problem.retry_after_ms : null;
  const more = { code, detail, status, retryMs, applied: problem?.applied === true };
  const because = detail ? `: ${detail}` : "";
  if (status === 401) return new Refusal("key", `This server does not take the key${because}.`, more);
  if (status === 403) return new Refusal("scope", `The key may not do this${because}.`, more);
  if (status === 404) return new Refusal("missing", `Nothing is there${because}.`, more);
  if (status === 429) return new Refusal("wait", "The server asks for a pause: this key calls too often.", more);
  if (status === 503) return new Refusal("server", `The node answers, but cannot tell now${because}.`, more);
  if (status === 500) return new Refusal("server", `The node has a fault${because}.`, more);
  if (status >= 502) return new Refusal("server", `Whatever stands before the node says ${status}.`, more);
  return new Refusal("refused", `The call was refused (${status})${because}.`, more);
}

// One call; `path` is below `/v1`, its parts encoded. Throws a `Refusal`.
export async function ask(path, { method = "GET", body } = {}) {
  const headers = { Authorization: `Bearer ${key}` };
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer, said;
  try {
    const signal = AbortSignal.timeout(DEADLINE_MS);
    const options = { method, headers, signal, cache: "no-store", credentials: "same-origin", redirect: "error" };
    answer = await fetch(new URL(path, ROOT), {
      ...options,
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    said = await answer.text();
  } catch (error) {
    const isLate = error?.name === "TimeoutError";
    const sentence = isLate
      ? `The node has not answered within ${DEADLINE_MS / 1000} s.`
      : "The node does not answer.";
    throw new Refusal("silent", sentence);
  }
  let read = null;
  try {
    read = said ? JSON.parse(said) : null;
  } catch {
    if (answer.ok) throw new Refusal("server", "What answers here is no Hearth node: it speaks no JSON.");
  }
  if (!answer.ok) throw refusal(answer.status, read);
  return read;
}
