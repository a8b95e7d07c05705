// An answer as it comes, then with its citations as links and whether they hold.

import { byId, counted, element } from "./elements.js";
import { drawSources } from "./passages.js";
import { shown } from "./signs.js";

const VERDICTS = {
  supported: ["✓", "the passage says this, as far as the check can tell"],
  unsupported: ["?", "the passage may not say this"],
  unknown: ["✗", "there is no such passage"],
};

/** Make room for a new answer. */
export function beginAnswer() {
  byId("answer-section").hidden = false;
  byId("answer-section").setAttribute("aria-busy", "true");
  byId("answer").replaceChildren();
  byId("notes").replaceChildren();
  byId("sources").replaceChildren();
  byId("answer-note").hidden = true;
  byId("sources-part").hidden = true;
}

export function endAnswer() {
  byId("answer-section").removeAttribute("aria-busy");
}

export function showSources(passages, index, title) {
  byId("sources-part").hidden = passages.length === 0;
  byId("sources-title").textContent = title;
  drawSources(byId("sources"), passages, index);
}

export function showWords(text) {
  byId("answer").append(...shown(text));
}

/** Draw the whole answer; return in a sentence how its citations did. */
export function showAnswer(event, index) {
  const given = event.passages.length;
  if (!event.in_documents) {
    byId("answer").replaceChildren(element("strong", {}, "Not in your documents."));
    byId("answer-note").hidden = false;
    byId("answer-note").textContent = event.reason;
    showSources(event.passages.slice(0, 3), index, "Nearest, and not enough");
    return "Not in your documents.";
  }
  byId("answer").replaceChildren(...cited(event.answer, event.citations));
  byId("notes").replaceChildren(...event.notes.map((note) => element("li", { dir: "auto" }, ...shown(note))));
  showSources(event.passages, index, "Passages it was made of");
  const held = event.citations.filter(({ verdict }) => verdict === "supported").length;
  if (event.citations.length === 0) return `The answer is here. It cites none of ${counted(given, "passage")}.`;
  return `The answer is here. ${held} of ${counted(event.citations.length, "citation")} ${held === 1 ? "holds" : "hold"}.`;
}

/** The answer's text, its bracketed numbers as links; places count Unicode characters. */
function cited(text, citations) {
  const signs = [...text];
  const nodes = [];
  let from = 0;
  for (const start of [...new Set(citations.map((each) => each.start))]) {
    const here = citations.filter((each) => each.start === start);
    nodes.push(...shown(signs.slice(from, start).join("")), ...here.map(citation));
    from = here[0].end;
  }
  nodes.push(...shown(signs.slice(from).join("")));
  return nodes;
}

function citation({ number, verdict }) {
  const [sign, said] = VERDICTS[verdict];
  const attributes = { class: `cite ${verdict}`, title: `Passage ${number}: ${said}`, "aria-label": `${number}: ${said}` };
  if (verdict === "unknown") return element("span", { ...attributes, role: "note" }, `${number} ${sign}`);
  const link = element("a", { ...attributes, href: `#source-${number}` }, `${number} ${sign}`);
  link.addEventListener("click", (event) => {
    event.preventDefault(); // the address stays: a reload would look for a passage that is gone
    byId(`source-${number}`).focus();
    byId(`source-${number}`).scrollIntoView({ block: "nearest" });
  });
  return link;
}
