// Wiring of the search page: the form to the server, what it finds to the drawing.

import { ServerError, key } from "./api.js";
import { beginAnswer, endAnswer, showAnswer, showSources, showWords } from "./answer.js";
import { byId, counted, element } from "./elements.js";
import { closePreview, drawDocuments, languageName, listenToPreview } from "./passages.js";
import { answer, library, search } from "./search-api.js";
import { bringUpToDate } from "./update.js";
import { listenToTheme } from "./theme-choice.js";

let indexes = [];
let chat = null;
let keyWanted = false;
let running = null;

// --- Words ------------------------------------------------------------------------------------

function say(message) {
  byId("status").textContent = message;
}

function showError(error) {
  const unkeyed = error instanceof ServerError && error.status === 401;
  const isShown = error !== null && !(unkeyed && !key.get());
  byId("error").hidden = !isShown;
  byId("error").textContent = isShown ? error.message : "";
  if (unkeyed) askForKey();
}

/** Errors that are expected are shown in words; a bug is shown too and stays in the console. */
function report(error) {
  if (error.name === "AbortError") return say("Cancelled.");
  say("");
  showError(error);
  if (!(error instanceof ServerError)) console.error(error);
}

function askForKey() {
  keyWanted = true;
  byId("key-section").hidden = false;
  say("This server asks for an API key.");
  byId("key").focus();
}

// --- The server's indexes ---------------------------------------------------------------------

async function connect() {
  showError(null);
  try {
    ({ indexes, chat } = await library());
    keyWanted = keyWanted || key.get() !== "";
    byId("key-section").hidden = !keyWanted;
    byId("no-index").hidden = indexes.length > 0;
    byId("search-section").hidden = indexes.length === 0;
    byId("found").hidden = indexes.length === 0;
    if (indexes.length === 0) return say("This server has no index yet.");
    byId("index").replaceChildren(...indexes.map(({ name }) => element("option", { value: name }, name)));
    byId("index-field").hidden = indexes.length < 2;
    showIndex();
    say(`Ready: ${indexes.length === 1 ? "1 index" : `${indexes.length} indexes`}.`);
    byId("query").focus();
  } catch (error) {
    report(error);
  }
}

const chosen = () => indexes.find(({ name }) => name === byId("index").value);

/** Show what is in the chosen index, and what can be done with it. */
function showIndex() {
  const { documents, unread, chunks, model, problem, update, file_types: types, languages } = chosen();
  const failed = unread ? `, and ${counted(unread, "file")} that could not be read` : "";
  byId("contents").textContent = `${counted(documents, "document")}, ${counted(chunks, "passage")}${failed}. Vectors by ${model}.`;
  byId("update-field").hidden = update === null;
  byId("update").disabled = update?.is_running ?? false;
  byId("problem").hidden = problem === null;
  byId("problem").textContent = problem ?? "";
  fill("type", "any", types, (name) => name);
  fill("passage-language", "any", languages, languageName);
  for (const mode of document.querySelectorAll("input[name=mode]")) {
    mode.disabled = problem !== null && mode.value !== "text";
    if (problem !== null) mode.checked = mode.value === "text";
  }
  const asks = chat !== null && problem === null;
  byId("ask").hidden = !asks;
  byId("chat-hint").hidden = !asks;
  if (asks) byId("chat-hint").textContent = `Ask sends your question and the best passages to ${chat.model} at ${chat.host}.`;
  showFilters();
}

function fill(id, everything, counts, name) {
  const options = Object.entries(counts).filter(([value]) => value !== "");
  byId(id).replaceChildren(
    element("option", { value: "" }, everything),
    ...options.map(([value, count]) => element("option", { value }, `${name(value)} (${count.toLocaleString("en")})`)));
}

// --- What is asked ----------------------------------------------------------------------------

/** The moment a day begins here: the server may stand in another time zone. */
function dayBegins(id, laterDays = 0) {
  if (!byId(id).value) return null;
  const [year, month, day] = byId(id).value.split("-").map(Number);
  return new Date(year, month - 1, day + laterDays).toISOString();
}

function filters() {
  const body = { index: byId("index").value };
  if (byId("path").value.trim()) body.paths = [byId("path").value.trim()];
  if (byId("type").value) body.file_types = [byId("type").value];
  if (byId("passage-language").value) body.languages = [byId("passage-language").value];
  const since = dayBegins("since"), before = dayBegins("until", 1);
  if (since) body.since = since;
  if (before) body.before = before;
  return body;
}

function showFilters() {
  const active = Object.keys(filters()).length - 1;
  byId("active").textContent = active > 0 ? `(${counted(active, "filter")} on)` : "";
}

const mode = () => byId("form").elements.mode.value;

function query() {
  const text = byId("query").value.trim();
  if (text === "") {
    report(new ServerError(0, "There are no words yet. Write what you look for."));
    byId("query").focus();
  }
  return text;
}

/** Run something that can be cancelled; what runs already is. */
async function run(work) {
  running?.abort();
  running = new AbortController();
  const mine = running;
  showError(null);
  closePreview();
  byId("cancel").hidden = false;
  byId("form").setAttribute("aria-busy", "true");
  try {
    await work(mine.signal);
  } catch (error) {
    report(error);
  } finally {
    if (running === mine) {
      byId("cancel").hidden = true;
      byId("form").removeAttribute("aria-busy");
    }
  }
}

async function find() {
  const text = query();
  if (text === "") return;
  await run(async (signal) => {
    say("Searching…");
    byId("answer-section").hidden = true;
    const index = byId("index").value;
    const body = { ...filters(), query: text, mode: mode(), limit: Number(byId("limit").value), per_document: Number(byId("per-document").value), diversity: Number(byId("diversity").value) };
    const results = await search(body, signal);
    byId("results").hidden = false;
    byId("empty").hidden = results.length > 0;
    byId("empty").textContent = "Nothing was found. Take filters away, or use other words.";
    drawDocuments(byId("hits"), results, index);
    const documents = new Set(results.map(({ path }) => path)).size;
    say(results.length === 0 ? "Nothing was found." : `${counted(results.length, "passage")} in ${counted(documents, "document")}. Results follow.`);
  });
}

async function ask() {
  const text = query();
  if (text === "") return;
  await run(async (signal) => {
    say("Looking for passages…");
    byId("results").hidden = true;
    beginAnswer();
    const index = byId("index").value;
    try {
      await answer({ ...filters(), question: text }, signal, {
        sources: ({ passages }) => (showSources(passages, index, "Passages it is made of"), say(`${chat.model} answers from ${counted(passages.length, "passage")}…`)),
        words: (event) => showWords(event.text),
        answer: (event) => say(showAnswer(event, index)),
      });
    } finally {
      endAnswer();
    }
  });
}

async function update() {
  const { name } = chosen();
  showError(null);
  byId("update").disabled = true;
  say("Reading what is new…");
  try {
    const [said, listed] = await bringUpToDate(name);
    indexes = listed;
    say(said);
  } catch (error) {
    report(error);
  }
  showIndex();
}

// --- Keeping up -------------------------------------------------------------------------------

function useKey() {
  key.set(byId("key").value.trim());
  return connect();
}

function listen() {
  const on = (id, event, action) => byId(id).addEventListener(event, action);
  on("form", "submit", (event) => (event.preventDefault(), find()));
  on("form", "change", () => indexes.length > 0 && showFilters());
  on("index", "change", showIndex);
  on("ask", "click", ask);
  on("update", "click", update);
  on("cancel", "click", () => running?.abort());
  on("use-key", "click", useKey);
  on("key", "keydown", (event) => event.key === "Enter" && (event.preventDefault(), useKey()));
  on("forget-key", "click", () => (key.forget(), (byId("key").value = ""), say("The key is forgotten."), byId("key").focus()));
}

listenToTheme();
listenToPreview();
listen();
connect();
