// The 2-D map: one point a text, a list box for keyboards and screen readers.

import { drawn, element, rove, short } from "./elements.js";

export const MAX_TEXTS = 1000;
const MARGIN = 26;
const LABELLED_TEXTS = 40;
const CHARACTER_WIDTH = 6.6;
const LABEL_HEIGHT = 15;

/**
 * Draw a map.
 *
 * @param {{texts: string[], map: {x: Float64Array, y: Float64Array, shares: number[]}, name: string,
 *   caption: string, width: number}} what coordinates of the first texts, and how wide to draw
 * @returns {HTMLElement}
 */
export function scatter({ texts, map, name, caption, width }) {
  const height = Math.round(Math.min(440, Math.max(240, width * 0.62)));
  const places = placed(map, width, height);
  const readout = element("p", { class: "readout" }, "Point at a dot, tap it, or move with the arrow keys.");
  const svg = drawn("svg", {
    viewBox: `0 0 ${width} ${height}`, class: "map", role: "listbox", "aria-label": name,
    "aria-orientation": "horizontal",
  });
  const points = places.map((place, index) => point(texts[index], index, place));
  svg.append(axes(width, height), ...points, ...labels(texts, places, width));
  points[0].setAttribute("tabindex", "0");
  listen(svg, points, places, (index) => {
    readout.replaceChildren(element("strong", {}, String(index + 1)), ` ${short(texts[index], 200)}`);
  });
  const percent = map.shares.map((share) => Math.round(share * 100));
  const together = Math.round((map.shares[0] + map.shares[1]) * 100);
  return element("figure", {},
    element("figcaption", {}, caption), svg,
    element("p", { class: "hint" },
      `Across: ${percent[0]} % of the variance, up: ${percent[1]} %; ${together} % together. ` +
        `The other ${100 - together} % cannot be seen here.`),
    readout);
}

/** One unit is as long across as up, or distances would lie. */
function placed({ x, y }, width, height) {
  const [left, right] = [Math.min(...x), Math.max(...x)];
  const [low, high] = [Math.min(...y), Math.max(...y)];
  const unit = Math.min(
    (width - 2 * MARGIN) / (right - left || 1e-9),
    (height - 2 * MARGIN) / (high - low || 1e-9),
    width / 1e-6,
  );
  return Array.from(x, (value, k) => ({
    x: width / 2 + (value - (left + right) / 2) * unit,
    y: height / 2 - (y[k] - (low + high) / 2) * unit,
  }));
}

function axes(width, height) {
  const line = (x1, y1, x2, y2) => drawn("line", { x1, y1, x2, y2 });
  return drawn("g", { class: "axes", "aria-hidden": "true" },
    line(0, height / 2, width, height / 2), line(width / 2, 0, width / 2, height));
}

function point(text, index, { x, y }) {
  return drawn("g", {
    role: "option", tabindex: "-1", "aria-label": `${index + 1}: ${short(text, 120)}`,
    "aria-selected": "false", class: "point", "data-index": index,
  }, drawn("circle", { class: "reach", cx: x, cy: y, r: 12 }), drawn("circle", { class: "dot", cx: x, cy: y, r: 5 }));
}

/** Labels beside their dots, left out where they would cover another label or a dot. */
function labels(texts, places, width) {
  if (places.length > LABELLED_TEXTS) return [];
  const taken = places.map(({ x, y }) => [x - 5, y - 5, x + 5, y + 5]);
  const free = (box) =>
    box[0] >= 0 && box[2] <= width &&
    taken.every((other) => box[2] < other[0] || box[0] > other[2] || box[3] < other[1] || box[1] > other[3]);
  return places.flatMap(({ x, y }, index) => {
    for (const text of [`${index + 1} ${short(texts[index], 26)}`, String(index + 1)]) {
      const long = [...text].reduce((sum, mark) => sum + (mark > "\u2e80" ? 2 : 1), 0) * CHARACTER_WIDTH;
      for (const [anchor, from] of [["start", x + 9], ["end", x - 9 - long]]) {
        const box = [from, y - LABEL_HEIGHT / 2, from + long, y + LABEL_HEIGHT / 2];
        if (!free(box)) continue;
        taken.push(box);
        const at = anchor === "start" ? x + 9 : x - 9;
        return [drawn("text", { x: at, y: y + 4, "text-anchor": anchor, "aria-hidden": "true" }, text)];
      }
    }
    return [];
  });
}

function listen(svg, points, places, say) {
  let current = 0;
  const select = (index) => {
    points[current].setAttribute("aria-selected", "false");
    points[index].setAttribute("aria-selected", "true");
    current = index;
    say(index);
  };
  const at = (event) => event.target.closest(".point")?.dataset.index;
  svg.addEventListener("mouseover", (event) => at(event) !== undefined && say(Number(at(event))));
  svg.addEventListener("focusin", (event) => at(event) !== undefined && select(Number(at(event))));
  svg.addEventListener("click", (event) => {
    if (at(event) !== undefined) rove(points[current], points[at(event)]);
  });
  svg.addEventListener("keydown", (event) => {
    const next = moved(event.key, current, places);
    if (next === null || event.altKey || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    rove(points[current], points[next]);
  });
}

/** An arrow leads to the nearest dot that lies more in its direction than beside it. */
function moved(key, index, places) {
  if (key === "Home") return 0;
  if (key === "End") return places.length - 1;
  const direction = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[key];
  if (!direction) return null;
  let [best, least] = [index, Infinity];
  places.forEach(({ x, y }, other) => {
    const [dx, dy] = [x - places[index].x, y - places[index].y];
    const along = dx * direction[0] + dy * direction[1];
    const beside = Math.abs(dx * direction[1]) + Math.abs(dy * direction[0]);
    const far = along + 2 * beside;
    if (other !== index && along > 0 && beside <= along * 2 && far < least) [best, least] = [other, far];
  });
  return best === index ? stepped(key, index, places.length) : best;
}

/** With none that way, the next or previous text, so that every dot can be reached. */
function stepped(key, index, count) {
  const step = key === "ArrowRight" || key === "ArrowDown" ? 1 : -1;
  return (index + step + count) % count;
}
