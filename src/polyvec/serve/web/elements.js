// Making elements. Text only ever arrives as text: nothing here parses HTML.

const SVG = "http://www.w3.org/2000/svg";

/** Return an element with attributes and children (elements or strings). */
export function element(tag, attributes = {}, ...children) {
  return filled(document.createElement(tag), attributes, children);
}

/** The same for SVG. */
export function drawn(tag, attributes = {}, ...children) {
  return filled(document.createElementNS(SVG, tag), attributes, children);
}

function filled(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

export const byId = (id) => document.getElementById(id);

/** A text that fits a label, and the number it has in the list. */
export function short(text, limit) {
  const flat = text.trim();
  return [...flat].length > limit ? [...flat].slice(0, limit - 1).join("") + "…" : flat;
}

/** Sentence case for counts: `1 text`, `2 texts`. */
export function counted(number, noun) {
  return `${number.toLocaleString("en")} ${noun}${number === 1 ? "" : "s"}`;
}

/** A cosine as it is written everywhere: a true minus sign, fixed digits. */
export function fixed(value, digits = 4) {
  const text = Math.abs(value).toFixed(digits);
  return value < 0 && Number(text) !== 0 ? `−${text}` : text;
}

/** Keep one element of a composite in the tab order and move focus to it. */
export function rove(from, to) {
  if (from) from.tabIndex = -1;
  to.tabIndex = 0;
  to.focus();
}
