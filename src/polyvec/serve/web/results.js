// What a request brought, drawn: warnings, heat maps, what changed, maps, tables.

import { byId, counted, element, fixed, short } from "./elements.js";
import { range } from "./geometry.js";
import { MAX_TEXTS as HEAT_TEXTS, heatMap } from "./heatmap.js";
import { MAX_TEXTS as MAP_TEXTS, scatter } from "./scatter.js";

export { MAP_TEXTS };
const NAMES = ["First instruction", "Second instruction"];
const LISTED = 20;
const COLUMN_PIXELS = 320; // the least width of a figure beside another: style.css, .side

/**
 * Draw everything.
 *
 * @param {{texts: string[], requests: object[], outcomes: object[], counts: number[] | null,
 *   computed: object, readings: string[]}} run the texts, what was asked and answered for each
 *   instruction, tokens of each text, what the worker computed, and each reading in words
 */
export function drawResults(run) {
  byId("results-body").hidden = false;
  byId("empty").hidden = true;
  drawSummary(run);
  drawWarnings(run);
  drawHeat(run);
  drawChanges(run);
  drawMaps(run);
  drawNearest(run);
  drawValues(run);
}

const names = (run) => (run.outcomes.length > 1 ? NAMES : [""]);
const captions = (run) =>
  run.readings.map((reading, k) => (names(run)[k] ? `${names(run)[k]}: ${reading}` : reading));

function drawSummary({ texts, outcomes, requests }) {
  const facts = [
    [counted(texts.length, "text")],
    [counted(outcomes[0].numTokens, "token"), outcomes[1] && `and ${counted(outcomes[1].numTokens, "token")}`],
    [counted(outcomes[0].dimension, "number"), "a vector"],
    [`${outcomes.map((o) => o.computeMs.toFixed(0)).join(" and ")} ms`, "in the server"],
    [requests[0].body.model],
  ];
  byId("summary").replaceChildren(
    ...facts.map((parts) => element("li", {}, parts.filter(Boolean).join(" "))),
  );
}

function drawWarnings({ texts, outcomes }) {
  const said = [];
  outcomes.forEach(({ numCut, cut }, k) => {
    if (numCut === 0) return;
    const listed = cut.slice(0, LISTED).map((index) => index + 1).join(", ");
    const more = numCut > Math.min(cut.length, LISTED) ? ", …" : "";
    const where = outcomes.length > 1 ? ` with the ${NAMES[k].toLowerCase()}` : "";
    const was = numCut === 1 ? "was longer than the model reads and was" : "were longer than the model reads and were";
    said.push(`${counted(numCut, "text")} ${was} cut${where}: number ${listed}${more}.`);
  });
  if (texts.length > HEAT_TEXTS) {
    said.push(`The heat map shows the first ${HEAT_TEXTS} of ${counted(texts.length, "text")}; more would not be readable. The list of nearest texts has all.`);
  }
  if (texts.length > MAP_TEXTS) {
    said.push(`The 2-D map shows the first ${counted(MAP_TEXTS, "text")}.`);
  }
  byId("warnings").hidden = said.length === 0;
  byId("warnings").replaceChildren(...said.map((line) => element("p", {}, line)));
}

function drawHeat(run) {
  const { texts, computed } = run;
  const one = texts.length < 2;
  byId("heat-section").hidden = one;
  if (one) return byId("heat").replaceChildren();
  const { low, high } = range(computed.similarities, texts.length);
  byId("heat").replaceChildren(
    ...computed.similarities.map((values, k) =>
      heatMap({ texts, values, low, high, compact: run.outcomes.length > 1, name: `Cosine similarities. ${names(run)[k]}`.trim(), caption: captions(run)[k] }),
    ),
  );
}

function drawChanges({ texts, computed, requests }) {
  const section = byId("changes-section");
  section.hidden = requests.length < 2 || texts.length < 2;
  if (section.hidden) return;
  const same = requests[0].headers["X-Polyvec-Instruction"] === requests[1].headers["X-Polyvec-Instruction"];
  byId("changes-note").textContent = same
    ? "Both instructions are the same, so nothing changes."
    : "Pairs whose cosine differs most between the two instructions, the largest difference first.";
  const rows = computed.changes.map(({ i, j, before, after }) => [
    `${i + 1} “${short(texts[i], 60)}”`, `${j + 1} “${short(texts[j], 60)}”`,
    fixed(before), fixed(after), (after >= before ? "+" : "") + fixed(after - before),
  ]);
  byId("changes").replaceChildren(
    table("What changed most", ["Text", "Text", "First", "Second", "Change"], rows, 2),
  );
}

/** Draw the maps as wide as there is room now. */
export function drawMaps(run) {
  const box = byId("maps");
  byId("maps-section").hidden = run.texts.length < 3;
  if (run.texts.length < 3) return box.replaceChildren();
  const columns = run.computed.maps.length > 1 && box.clientWidth >= 2 * COLUMN_PIXELS + 20 ? 2 : 1;
  const width = Math.max(240, Math.floor(box.clientWidth / columns) - 20);
  box.replaceChildren(
    ...run.computed.maps.map((map, k) =>
      scatter({ texts: run.texts, map, width, name: `Map of the texts. ${names(run)[k]}`.trim(), caption: captions(run)[k] }),
    ),
  );
}

function drawNearest(run) {
  const { texts, computed, counts } = run;
  const near = (k, i) =>
    computed.nearest[k][i].map((j) => `${j + 1}\u00a0(${fixed(computed.similarities[k][i * texts.length + j], 3)})`).join(", ");
  const heads = ["Number", "Text", "Tokens", ...names(run).map((name) => (name ? `Nearest, ${name.toLowerCase()}` : "Nearest (cosine)"))];
  const rows = texts.map((text, i) => [
    String(i + 1), text, counts ? String(counts[i]) : "–", ...names(run).map((_, k) => near(k, i) || "–"),
  ]);
  byId("nearest").replaceChildren(table("Every text and its nearest", heads, rows, 2, 0));
  byId("tokens-note").hidden = counts !== null;
}

function drawValues(run) {
  const { texts, computed } = run;
  const details = byId("values");
  const shown = Math.min(texts.length, HEAT_TEXTS);
  details.open = false;
  byId("values-body").replaceChildren();
  details.ontoggle = () => {
    if (!details.open || byId("values-body").childElementCount > 0) return;
    const heads = ["", ...Array.from({ length: shown }, (_, j) => String(j + 1))];
    byId("values-body").replaceChildren(
      ...computed.similarities.map((values, k) => {
        const rows = Array.from({ length: shown }, (_, i) => [
          `${i + 1} ${short(texts[i], 40)}`,
          ...Array.from({ length: shown }, (__, j) => fixed(values[i * texts.length + j])),
        ]);
        return table(`Cosine similarities. ${captions(run)[k]}`, heads, rows, 1);
      }),
    );
  };
}

/** A table; cells from `numbersFrom` on are numbers, the one at `headAt` names its row. */
function table(caption, heads, rows, numbersFrom, headAt = 0) {
  const cellOf = (text, at) =>
    at === headAt
      ? element("th", { scope: "row" }, text)
      : at >= numbersFrom
        ? element("td", { class: "number" }, text)
        : element("td", { dir: "auto" }, element("span", { class: "few-lines" }, text));
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Table: ${caption}` },
    element("table", { class: "plain" },
      element("caption", { class: "visually-hidden" }, caption),
      element("thead", {}, element("tr", {}, ...heads.map((head) => head ? element("th", { scope: "col" }, head) : element("td")))),
      element("tbody", {}, ...rows.map((row) => element("tr", {}, ...row.map(cellOf))))));
}
