// Passages as a list, and one of them with what stands around it.

import { around } from "./search-api.js";
import { byId, counted, element } from "./elements.js";
import { marked, markedWords, placesOf, shown } from "./signs.js";

const STEP = 3;
const MOST = 50; // the server's limit
const LEAST_REPEATED = 20;
const NARROW = matchMedia("(max-width: 60rem)");
const languageNames = new Intl.DisplayNames(["en"], { type: "language", fallback: "code" });

/** A language's name; its code where there is none. */
export function languageName(code) {
  try {
    return languageNames.of(code);
  } catch {
    return code; // no code of a language
  }
}

/** Draw results under their documents, which come in the order of their best passage. */
export function drawDocuments(box, results, index) {
  const documents = new Map();
  for (const result of results) documents.set(result.path, [...(documents.get(result.path) ?? []), result]);
  box.replaceChildren(...[...documents].map(([path, passages], n) =>
    element("article", { "aria-labelledby": `document-${n}` },
      element("h3", { id: `document-${n}`, class: "path", dir: "auto" }, ...shown(path)),
      facts(passages[0]),
      element("ul", { class: "passages" }, ...passages.map((each) => element("li", {}, ...passage(each, index)))))));
}

/** Draw the passages that an answer was made of; they are cited by their numbers. */
export function drawSources(box, passages, index) {
  box.replaceChildren(...passages.map((each) =>
    element("li", { id: `source-${each.number}`, tabindex: "-1" },
      element("p", { class: "path", dir: "auto" }, element("strong", {}, `[${each.number}] `), ...shown(each.path)),
      ...passage(each, index))));
}

function facts({ file_type: type, modified_at: when, language, title, path }) {
  const day = new Date(when).toLocaleDateString("en", { dateStyle: "medium" });
  const parts = [type, language && languageName(language), day].filter(Boolean).join(" · ");
  const named = title && title !== path.split("/").pop() ? [...shown(title), ` · ${parts}`] : [parts];
  return element("p", { class: "soft", dir: "auto" }, ...named);
}

function passage(result, index) {
  const { snippet } = result;
  const text = element("p", { class: "snippet", dir: "auto" },
    snippet.cut_before ? "… " : "", ...marked(snippet.text, snippet.marks), snippet.cut_after ? " …" : "");
  const read = element("button", { type: "button", "aria-label": `Read around it: ${result.path} ${result.place}`.trim() }, "Read around it");
  read.addEventListener("click", () => openPreview(result, index, read));
  const why = element("details", { class: "why" },
    element("summary", {}, `Score ${result.score.toFixed(3)}: why`), element("p", {}, `${result.explanation}.`));
  const nodes = [where(result.place, result.heading), text];
  if (result.also_in.length > 0) nodes.push(element("p", { class: "soft", dir: "auto" }, "The same in ", ...shown(result.also_in.join(", "))));
  return [...nodes.filter(Boolean), element("div", { class: "row" }, read, why)];
}

function where(place, heading) {
  if (!place && !heading) return null;
  return element("p", { class: "soft place", dir: "auto" }, place, place && heading ? " · " : "", ...shown(heading));
}

// --- Reading ----------------------------------------------------------------------------------

let reading = null;

/** Show a passage among its neighbours, from the texts in the index. */
async function openPreview(result, index, opener) {
  reading = { result, index, opener, before: 1, after: 1 };
  await load();
  const dialog = byId("preview");
  if (dialog.open) dialog.close("again");
  document.documentElement.classList.toggle("reading", !NARROW.matches);
  if (NARROW.matches) dialog.showModal();
  else dialog.show();
  byId("close").focus();
  byId("passage").querySelector(".wanted")?.scrollIntoView({ block: "nearest" });
}

async function load() {
  const { result, index, before, after } = reading;
  byId("preview-error").hidden = true;
  try {
    draw(await around(index, result.chunk_id, before, after), markedWords(result.snippet));
  } catch (error) {
    byId("passage").replaceChildren();
    byId("preview-error").hidden = false;
    byId("preview-error").textContent = error.message;
  }
}

function draw(found, words) {
  byId("preview-title").replaceChildren(...shown(found.path));
  byId("preview-facts").replaceChildren(...facts({ ...found, language: "" }).childNodes);
  byId("earlier").hidden = !found.more_before || reading.before >= MOST;
  byId("later").hidden = !found.more_after || reading.after >= MOST;
  byId("passage").replaceChildren(...unrepeated(found.chunks).map(({ chunk, text }) =>
    element("section", chunk.is_wanted ? { class: "chunk wanted", "aria-label": "The passage that was found" } : { class: "chunk" },
      where(chunk.place, chunk.heading) ?? "",
      element("p", { class: "text", dir: "auto", lang: chunk.language || null }, ...marked(text, chunk.is_wanted ? placesOf(text, words) : [])))));
}

/** Neighbours may repeat each other's ends (overlap); what is repeated is shown in the wanted one only. */
function unrepeated(chunks) {
  const middle = chunks.findIndex((chunk) => chunk.is_wanted);
  return chunks.map((chunk, n) => {
    if (n < middle) return { chunk, text: chunk.text.slice(0, chunk.text.length - repeated(chunk.text, chunks[n + 1].text)) };
    if (n > middle) return { chunk, text: chunk.text.slice(repeated(chunks[n - 1].text, chunk.text)) };
    return { chunk, text: chunk.text };
  });
}

function repeated(first, second) {
  for (let length = Math.min(first.length, second.length); length >= LEAST_REPEATED; length--) {
    if (first.endsWith(second.slice(0, length))) return length;
  }
  return 0;
}

async function more(which) {
  reading[which] = Math.min(reading[which] + STEP, MOST);
  await load();
  byId("reading-status").textContent = `${counted(byId("passage").childElementCount, "passage")} shown.`;
}

/** Close what is read: new results are coming. */
export function closePreview() {
  if (byId("preview").open) byId("preview").close("again");
  document.documentElement.classList.remove("reading");
}

export function listenToPreview() {
  const dialog = byId("preview");
  byId("close").addEventListener("click", () => dialog.close());
  byId("earlier").addEventListener("click", () => more("before"));
  byId("later").addEventListener("click", () => more("after"));
  dialog.addEventListener("keydown", (event) => event.key === "Escape" && dialog.open && (event.preventDefault(), dialog.close()));
  dialog.addEventListener("close", () => {
    if (dialog.returnValue === "again") return (dialog.returnValue = "");
    document.documentElement.classList.remove("reading");
    reading?.opener.focus();
  });
}
