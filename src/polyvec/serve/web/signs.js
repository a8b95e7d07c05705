// Texts of documents as nodes: signs that steer or hide others are written out, words are marked.

import { element } from "./elements.js";

// Control signs, and those that turn or embed directions: a name must not read as another.
// Marks that languages need (U+200C to U+200F) are not among them.
const STEERING = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\u2028\u2029\ufeff]/gu;

/** Return a text as nodes. */
export function shown(text) {
  const nodes = [];
  let from = 0;
  for (const match of text.matchAll(STEERING)) {
    const code = `U+${match[0].codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;
    nodes.push(text.slice(from, match.index), element("span", { class: "sign", title: "A sign that is not shown" }, code));
    from = match.index + match[0].length;
  }
  nodes.push(text.slice(from));
  return nodes;
}

/** Return a text as nodes with parts of it marked; places count Unicode characters, as the server does. */
export function marked(text, marks) {
  const signs = [...text];
  const nodes = [];
  let from = 0;
  for (const [start, end] of marks) {
    nodes.push(...shown(signs.slice(from, start).join("")));
    nodes.push(element("mark", {}, ...shown(signs.slice(start, end).join(""))));
    from = end;
  }
  nodes.push(...shown(signs.slice(from).join("")));
  return nodes;
}

/** Return the words that a snippet has marked, each once. */
export function markedWords({ text, marks }) {
  const signs = [...text];
  return [...new Set(marks.map(([start, end]) => signs.slice(start, end).join("").toLowerCase()))];
}

/** Return where words are in a text, as `marked` takes it. */
export function placesOf(text, words) {
  const low = [...text].map((sign) => (sign.toLowerCase().length === sign.length ? sign.toLowerCase() : sign));
  const spans = words.flatMap((word) => places(low, [...word])).sort((a, b) => a[0] - b[0]);
  return spans.filter(([start], n) => n === 0 || start >= spans[n - 1][1]);
}

function places(signs, word) {
  const found = [];
  if (word.length === 0) return found;
  for (let at = 0; at + word.length <= signs.length; at++) {
    if (word.every((sign, n) => signs[at + n] === sign)) found.push([at, at + word.length]);
  }
  return found;
}
