// Wiring: the form to the server, the server's answer to the worker, both to the drawing.

import { BASE, ServerError, embed, key, limits, modelFacts, modelNames, tokenCounts } from "./api.js";
import { byId, counted, element } from "./elements.js";
import { FileError, MAX_FILE_BYTES, decode, oneLineEach, readFile } from "./files.js";
import * as form from "./form.js";
import { MAP_TEXTS, drawMaps, drawResults } from "./results.js";
import { LANGUAGES, snippet } from "./snippets.js";
import { listenToTheme } from "./theme-choice.js";

const EXAMPLE = [
  "Where is the nearest pharmacy?",
  "¿Dónde está la farmacia más cercana?",
  "最近的药店在哪里？",
  "The pharmacy on the corner is open until ten.",
  "How do I reverse a list in Python?",
  "In Python kehrt man eine Liste mit list.reverse() um.",
  "A python swallowed a goat in the village.",
  "Photosynthesis turns light into sugar.",
  "植物は光から糖を作る。",
  "Les plantes fabriquent du sucre avec la lumière.",
];
const NEAREST = 3;
const CHANGES = 12;

let keyWanted = false;
let maxTexts = Infinity;
let running = null;
let lastRun = null;
let lastRequest = "";
let columns = null;

// --- Words ------------------------------------------------------------------------------------

function say(message) {
  byId("status").textContent = message;
}

function showError(error) {
  const unkeyed = error instanceof ServerError && error.status === 401;
  const shown = error !== null && !(unkeyed && !key.get());
  const box = byId("error");
  box.hidden = !shown;
  box.textContent = shown ? error.message : "";
  if (unkeyed) askForKey();
}

/** Errors that are expected are shown in words; a bug is shown too and stays in the console. */
function report(error) {
  if (error.name === "AbortError") return say("Cancelled.");
  say("");
  showError(error);
  if (!(error instanceof ServerError || error instanceof FileError)) console.error(error);
}

function askForKey() {
  keyWanted = true;
  byId("key-section").hidden = false;
  byId("key-note").hidden = false;
  say("This server asks for an API key.");
  byId("key").focus();
  showSnippet();
}

// --- The server's models ----------------------------------------------------------------------

async function connect() {
  showError(null);
  try {
    const names = await modelNames();
    if (key.get()) keyWanted = true;
    byId("key-section").hidden = !keyWanted;
    byId("key-note").hidden = !keyWanted;
    byId("model").replaceChildren(...names.map((name) => element("option", { value: name }, name)));
    ({ maxTexts } = await limits());
    await chooseModel();
    say(`Ready: ${counted(names.length, "model")}.`);
  } catch (error) {
    report(error);
  }
}

async function chooseModel() {
  form.setSpec(await modelFacts(byId("model").value));
  changed();
}

// --- Files ------------------------------------------------------------------------------------

async function openFiles(files) {
  showError(null);
  try {
    const read = [];
    for (const file of files) {
      if (file.size > MAX_FILE_BYTES) {
        throw new FileError(`${file.name} has ${(file.size / 2 ** 20).toFixed(1)} MiB; this page reads ${MAX_FILE_BYTES / 2 ** 20}. Use polyvec embed for large files.`);
      }
      read.push(readFile(file.name, decode(file.name, await file.arrayBuffer())));
    }
    if (read.length > 0) showColumns(read);
  } catch (error) {
    report(error);
  }
}

/** One file with several columns lets the user pick; of several files the likeliest ones are taken. */
function showColumns(read) {
  columns = read.length === 1 && Object.keys(read[0].columns).length > 1 ? read[0].columns : null;
  byId("column-field").hidden = columns === null;
  if (columns !== null) {
    byId("column").replaceChildren(
      ...Object.entries(columns).map(([name, texts]) =>
        element("option", { value: name }, `${name} (${counted(texts.length, "text")})`)),
    );
    byId("column").value = read[0].chosen;
  }
  fill(read.flatMap(({ columns: all, chosen }) => all[chosen]));
}

function fill(texts) {
  const flat = oneLineEach(texts);
  byId("texts").value = flat.texts.join("\n");
  const joined = flat.joined ? ` ${counted(flat.joined, "text")} had line breaks, which are spaces now.` : "";
  say(`${counted(flat.texts.length, "text")} read.${joined}`);
  changed();
}

// --- Asking -----------------------------------------------------------------------------------

async function send() {
  const texts = form.texts();
  showError(null);
  if (texts.length === 0) return refuse("There is no text yet. Write one a line, open a file, or take the example.");
  if (texts.length > maxTexts) {
    return refuse(`${counted(texts.length, "text")}; this server takes ${maxTexts.toLocaleString("en")} in one request (--max-texts). Take some out.`);
  }
  running?.abort();
  running = new AbortController();
  const mine = running;
  busy(true);
  const requests = form.compared() ? [form.request(1), form.request(2)] : [form.request(1)];
  const readings = requests.map((_, k) => form.reading(k + 1));
  const sent = JSON.stringify(requests);
  try {
    say(`Embedding ${counted(texts.length, "text")}…`);
    const counting = tokenCounts(requests[0], mine.signal);
    const [counts, ...outcomes] = await Promise.all([counting, ...requests.map((r) => embed(r, mine.signal))]);
    say("Comparing…");
    const computed = await compute(outcomes, mine.signal);
    lastRun = { texts, requests, readings, counts, outcomes, computed };
    lastRequest = sent;
    drawResults(lastRun);
    changed();
    const cut = outcomes[0].numCut ? ` ${counted(outcomes[0].numCut, "text")} cut.` : "";
    say(`Done: ${counted(texts.length, "text")}, ${counted(outcomes[0].numTokens, "token")}.${cut} Results follow.`);
  } catch (error) {
    report(error);
  } finally {
    if (running === mine) busy(false);
  }
}

function refuse(message) {
  report(new ServerError(0, message));
  byId("texts").focus();
}

function busy(on) {
  byId("cancel").hidden = !on;
  byId("form").setAttribute("aria-busy", String(on));
}

/** Trusted Types let a worker start from an address that a policy has vouched for. */
const address = new URL("worker.js", import.meta.url).href;
const policy = globalThis.trustedTypes?.createPolicy("polyvec", {
  createScriptURL: (url) => {
    if (url !== address) throw new TypeError("Only the page's own worker is started.");
    return url;
  },
});

function compute(outcomes, signal) {
  const worker = new Worker(policy ? policy.createScriptURL(address) : address, { type: "module" });
  const { count, dimension } = outcomes[0];
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(new DOMException("Cancelled", "AbortError")));
    worker.onmessage = ({ data }) => resolve(data);
    worker.onerror = (event) => reject(new Error(`The page could not compare the vectors: ${event.message ?? "its worker did not start"}.`));
    worker.postMessage({
      sets: outcomes.map((outcome) => outcome.vectors), count, dimension,
      mapLimit: MAP_TEXTS, nearestLimit: NEAREST, changesLimit: CHANGES,
    });
  }).finally(() => worker.terminate());
}

// --- Keeping up -------------------------------------------------------------------------------

function changed() {
  form.update();
  showSnippet();
  const requests = form.compared() ? [form.request(1), form.request(2)] : [form.request(1)];
  byId("stale").hidden = lastRun === null || JSON.stringify(requests) === lastRequest;
}

function showSnippet() {
  byId("which-field").hidden = !form.compared();
  if (form.texts().length === 0 || !byId("model").value) {
    byId("snippet").textContent = "Write a text, and its request stands here.";
    return;
  }
  const which = form.compared() ? Number(byId("which").value) : 1;
  byId("snippet").textContent = snippet(byId("language").value, BASE, form.request(which), keyWanted);
}

async function copy() {
  const text = byId("snippet").textContent;
  byId("copied").textContent = "";
  try {
    await navigator.clipboard.writeText(text);
    byId("copied").textContent = "Copied.";
  } catch {
    // No clipboard over plain HTTP from another machine: the user's own copy key works everywhere.
    getSelection().selectAllChildren(byId("snippet"));
    byId("snippet").focus();
    byId("copied").textContent = "Selected; press Ctrl+C.";
  }
}

function later(action, waitMs) {
  let timer = 0;
  return () => {
    clearTimeout(timer);
    timer = setTimeout(action, waitMs);
  };
}

function listen() {
  const on = (id, event, action) => byId(id).addEventListener(event, action);
  on("form", "submit", (event) => (event.preventDefault(), send()));
  on("form", "input", later(changed, 150));
  on("form", "change", changed);
  on("texts", "keydown", (event) => event.key === "Enter" && (event.ctrlKey || event.metaKey) && send());
  on("model", "change", () => chooseModel().catch(report));
  on("example", "click", () => fill(EXAMPLE));
  on("clear", "click", () => (fill([]), say("Cleared."), byId("texts").focus()));
  on("pick", "click", () => byId("files").click());
  on("files", "change", () => openFiles([...byId("files").files]).then(() => (byId("files").value = "")));
  on("column", "change", () => fill(columns[byId("column").value]));
  on("cancel", "click", () => running?.abort());
  on("use-key", "click", useKey);
  on("key", "keydown", (event) => event.key === "Enter" && (event.preventDefault(), useKey()));
  on("forget-key", "click", () => (key.forget(), (byId("key").value = ""), say("The key is forgotten."), byId("key").focus()));
  on("language", "change", showSnippet);
  on("which", "change", showSnippet);
  on("copy", "click", copy);
  addEventListener("resize", later(() => lastRun && drawMaps(lastRun), 150));
  listenToDrops();
}

function useKey() {
  key.set(byId("key").value.trim());
  return connect();
}

/** Files may be dropped anywhere: a browser that gets one it is not told about leaves the page. */
function listenToDrops() {
  const mark = (on) => byId("drop").classList.toggle("over", on);
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files");
  addEventListener("dragover", (event) => hasFiles(event) && (event.preventDefault(), mark(true)));
  addEventListener("dragleave", (event) => event.relatedTarget === null && mark(false));
  addEventListener("drop", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    mark(false);
    openFiles([...event.dataTransfer.files]);
  });
}

listenToTheme();
byId("language").replaceChildren(...LANGUAGES.map((each) => element("option", { value: each }, each)));
listen();
connect();
