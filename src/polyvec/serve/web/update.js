// Bringing an index up to date with its folder, which the server does in a process of its own.

import { ServerError } from "./api.js";
import { counted } from "./elements.js";
import { library, update } from "./search-api.js";

const POLL_MS = 1000;

const wait = (ms) => new Promise((done) => setTimeout(done, ms));

/** Return what was found, in words, and the indexes as they are then. */
export async function bringUpToDate(name) {
  await update(name);
  for (;;) {
    await wait(POLL_MS);
    const { indexes } = await library();
    const state = indexes.find((index) => index.name === name)?.update;
    if (state?.is_running) continue;
    if (!state?.last) throw new ServerError(0, "The server no longer says how the update ended.");
    if (state.last.problem) throw new ServerError(0, `The index was not brought up to date: ${state.last.problem}`);
    return [inWords(state.last), indexes];
  }
}

function inWords(last) {
  const changes = ["added", "changed", "moved", "deleted"].filter((what) => last[what] > 0);
  const said = changes.map((what) => `${counted(last[what], "file")} ${what}`).join(", ");
  const failed = last.failed ? `; ${counted(last.failed, "file")} could not be read` : "";
  return `Up to date: ${said || "nothing is new"}${failed}.`;
}
