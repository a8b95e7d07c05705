// What the page asks of the server's indexes.

import { ServerError, ask, inTitle, open } from "./api.js";

/** Return the indexes, what is in them, and the chat endpoint (or null). */
export async function library() {
  return (await ask("search/indexes")).answer;
}

/** Return the passages that answer a query. */
export async function search(body, signal) {
  return (await ask("search", { body, signal })).answer.results;
}

/** Begin to bring an index up to date with its folder; `library` says when that has ended. */
export async function update(index) {
  return (await ask("search/update", { body: { index } })).answer.update;
}

/** Return a passage and its neighbours. */
export async function around(index, id, before, after) {
  const wanted = new URLSearchParams({ index, id, before, after });
  return (await ask(`search/chunk?${wanted}`)).answer;
}

/**
 * Have a question answered.
 *
 * @param {object} body the request
 * @param {AbortSignal} signal stops it
 * @param {Object<string, (event: object) => void>} on what to do with `sources`, `words`, `answer`
 */
export async function answer(body, signal, on) {
  const response = await open("ask", { body, signal });
  let whole = false;
  for await (const event of lines(response.body)) {
    if (event.type === "error") throw new ServerError(event.status, inTitle(event.status, event.error));
    whole = whole || event.type === "answer";
    on[event.type]?.(event);
  }
  if (!whole) throw new ServerError(0, "The connection ended before the answer did.");
}

async function* lines(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let kept = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const parts = (kept + value).split("\n");
    kept = parts.pop();
    for (const part of parts) yield JSON.parse(part);
  }
}
