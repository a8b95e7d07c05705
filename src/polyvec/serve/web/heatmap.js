// A heat map as a grid: one cell in the tab order, arrow keys for the others.

import { element, fixed, rove, short } from "./elements.js";

export const MAX_TEXTS = 100;
const WRITTEN_TEXTS = 14; // up to so many, cells have room for their number
const COMPACT_TEXTS = 10; // the same beside another map
const LABELLED_TEXTS = 40; // up to so many, rows have room for the beginning of their text
const PAGE_STEP = 10;

// Viridis (van der Walt and Smith, CC0): even to the eye, also in grey and for the colour-blind.
const STOPS = ["440154", "482878", "3e4989", "31688e", "26828e", "1f9e89", "35b779", "6ece58",
  "b5de2b", "fde725"].map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));

/** Return a colour for a share of the scale, 0 to 1, and black or white, whichever is read on it. */
export function colour(share) {
  const at = Math.max(0, Math.min(1, share)) * (STOPS.length - 1);
  const low = Math.min(Math.floor(at), STOPS.length - 2);
  const mixed = STOPS[low].map((part, k) => part + (STOPS[low + 1][k] - part) * (at - low));
  return { fill: `rgb(${mixed.map(Math.round).join(" ")})`, ink: luminance(mixed) > 0.179 ? "#000" : "#fff" };
}

/** WCAG's relative luminance; above .179, black has the better contrast. */
function luminance(rgb) {
  const [r, g, b] = rgb.map((part) => {
    const share = part / 255;
    return share <= 0.04045 ? share / 12.92 : ((share + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

/**
 * Draw a heat map.
 *
 * @param {{texts: string[], values: Float32Array, low: number, high: number, name: string,
 *   caption: string, compact: boolean}} what the texts, every cosine, the ends of the scale, its
 *   name, and whether it has to share its row with another
 * @returns {HTMLElement} the map with its scale and a line that says what is pointed at
 */
export function heatMap({ texts, values, low, high, name, caption, compact }) {
  const shown = Math.min(texts.length, MAX_TEXTS);
  const readout = element("p", { class: "readout" }, "Point at a cell, tap it, or move with the arrow keys.");
  const cells = [];
  const table = element("table", { role: "grid", class: "heat", "aria-label": name });
  const written = shown <= (compact ? COMPACT_TEXTS : WRITTEN_TEXTS);
  table.dataset.size = written ? "large" : shown <= LABELLED_TEXTS ? "medium" : "small";
  table.append(heads(texts, shown));
  const body = element("tbody");
  for (let i = 0; i < shown; i++) {
    const row = element("tr", {}, rowHead(texts, i, shown));
    for (let j = 0; j < shown; j++) {
      const value = values[i * texts.length + j];
      cells.push(cell(value, i === j ? null : (value - low) / (high - low || 1), written));
      row.append(cells.at(-1));
    }
    body.append(row);
  }
  table.append(body);
  cells[0].tabIndex = 0;
  const say = (index) => {
    const [i, j] = [Math.floor(index / shown), index % shown];
    readout.replaceChildren(
      element("strong", {}, fixed(values[i * texts.length + j])),
      ` ${i + 1} “${short(texts[i], 90)}” and ${j + 1} “${short(texts[j], 90)}”`,
    );
  };
  listen(table, cells, shown, say);
  return element("figure", { class: compact ? "compact" : "single" },
    element("figcaption", {}, caption),
    element("div", { class: "scroll" }, table), scale(low, high), readout);
}

function heads(texts, shown) {
  const row = element("tr", {}, element("td", { class: "corner" }));
  for (let j = 0; j < shown; j++) {
    row.append(element("th", { scope: "col", "aria-label": spoken(texts, j) },
      element("span", {}, label(j, shown))));
  }
  return element("thead", {}, row);
}

function rowHead(texts, i, shown) {
  const head = element("th", { scope: "row", "aria-label": spoken(texts, i) }, element("b", {}, label(i, shown)));
  if (shown <= LABELLED_TEXTS) head.append(" ", element("span", { class: "beginning" }, short(texts[i], 40)));
  return head;
}

/** Every number, or every fifth where cells are smaller than numbers. */
function label(index, shown) {
  return shown <= LABELLED_TEXTS || index === 0 || (index + 1) % 5 === 0 ? String(index + 1) : "";
}

const spoken = (texts, index) => `${index + 1}: ${short(texts[index], 80)}`;

function cell(value, share, written) {
  const made = element("td", { role: "gridcell", tabindex: "-1" });
  if (written) made.append(fixed(value, 2));
  else made.setAttribute("aria-label", fixed(value, 2));
  if (share === null) {
    made.className = "self";
    return made;
  }
  const { fill, ink } = colour(share);
  made.style.backgroundColor = fill;
  made.style.color = ink;
  return made;
}

function listen(table, cells, shown, say) {
  const indexOf = new Map(cells.map((each, index) => [each, index]));
  let current = 0;
  const go = (index) => {
    const from = cells[current];
    current = index;
    rove(from, cells[index]);
  };
  const at = (event) => indexOf.get(event.target.closest("td[role=gridcell]"));
  table.addEventListener("mouseover", (event) => at(event) !== undefined && say(at(event)));
  table.addEventListener("mouseleave", () => table.contains(document.activeElement) && say(current));
  table.addEventListener("focusin", (event) => at(event) !== undefined && say(at(event)));
  table.addEventListener("click", (event) => at(event) !== undefined && go(at(event)));
  table.addEventListener("keydown", (event) => {
    const next = moved(event, current, shown);
    if (next === null) return;
    event.preventDefault();
    go(next);
  });
}

/** Where a key leads from a cell; null if it is none of the grid's. */
function moved(event, index, shown) {
  if (event.altKey || event.metaKey) return null;
  const [row, column] = [Math.floor(index / shown), index % shown];
  const clamp = (value) => Math.max(0, Math.min(shown - 1, value));
  const to = {
    ArrowLeft: [row, column - 1],
    ArrowRight: [row, column + 1],
    ArrowUp: [row - 1, column],
    ArrowDown: [row + 1, column],
    PageUp: [row - PAGE_STEP, column],
    PageDown: [row + PAGE_STEP, column],
    Home: [event.ctrlKey ? 0 : row, 0],
    End: [event.ctrlKey ? shown - 1 : row, shown - 1],
  }[event.key];
  return to ? clamp(to[0]) * shown + clamp(to[1]) : null;
}

function scale(low, high) {
  const bar = element("span", { class: "scale-bar", "aria-hidden": "true" });
  const stops = STOPS.map((_, k) => colour(k / (STOPS.length - 1)).fill);
  bar.style.backgroundImage = `linear-gradient(to right, ${stops.join(", ")})`;
  return element("p", { class: "scale" }, `cosine ${fixed(low, 2)} `, bar, ` ${fixed(high, 2)}`);
}
