// Texts out of what a user pastes or drops. No document in it.

export const MAX_FILE_BYTES = 10 * 2 ** 20;
export const KINDS = ["txt", "csv", "tsv", "jsonl", "ndjson"];
const TEXT_COLUMNS = ["text", "texts", "sentence", "content", "passage", "document", "query", "body"];

/** A file that cannot be read, with the reason in words. */
export class FileError extends Error {}

/** Return the texts of a box with one a line; lines without anything in them are no texts. */
export function lines(value) {
  return value.split(/\r\n|\r|\n/).filter((line) => line.trim() !== "");
}

/** Return a file's bytes as text, which must be UTF-8. */
export function decode(name, bytes) {
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new FileError(`${name} is not UTF-8. Save it as UTF-8 and drop it again.`);
  }
}

/**
 * Read a file's content.
 *
 * @returns {{columns: Object<string, string[]>, chosen: string}} texts by column, and the column
 *   that most likely holds them. A file without columns has one, "text".
 */
export function readFile(name, content) {
  const kind = name.toLowerCase().split(".").pop();
  if (!KINDS.includes(kind)) {
    const allowed = KINDS.map((each) => "." + each).join(", ");
    throw new FileError(`${name} cannot be read here; these can: ${allowed}.`);
  }
  const read = { csv: readTable, tsv: readTable, jsonl: readJsonLines, ndjson: readJsonLines }[kind];
  const columns = read ? read(name, content) : { text: lines(content) };
  const names = Object.keys(columns).filter((column) => columns[column].length > 0);
  if (names.length === 0) throw new FileError(`${name} has no text in it.`);
  const found = Object.fromEntries(names.map((column) => [column, columns[column]]));
  return { columns: found, chosen: likeliest(found) };
}

/** Return texts as lines of the box, and how many had to lose line breaks for it. */
export function oneLineEach(texts) {
  const flat = texts.map((text) => text.replace(/\s*[\r\n]+\s*/g, " ").trim());
  const joined = texts.filter((text) => /[\r\n]/.test(text.trim())).length;
  return { texts: flat.filter((text) => text !== ""), joined };
}

function likeliest(columns) {
  const names = Object.keys(columns);
  const known = TEXT_COLUMNS.map((wanted) => names.find((n) => n.toLowerCase() === wanted));
  const mean = (name) => columns[name].join("").length / columns[name].length;
  return known.find(Boolean) ?? names.reduce((a, b) => (mean(b) > mean(a) ? b : a));
}

function readJsonLines(name, content) {
  const columns = {};
  content.split(/\r?\n/).forEach((line, index) => {
    if (line.trim() === "") return;
    let value;
    try {
      value = JSON.parse(line);
    } catch (error) {
      throw new FileError(`${name}, line ${index + 1} is no JSON: ${error.message}.`);
    }
    const fields = typeof value === "string" ? { text: value } : value;
    if (fields === null || typeof fields !== "object" || Array.isArray(fields)) {
      throw new FileError(`${name}, line ${index + 1} is neither a string nor an object.`);
    }
    for (const [key, text] of Object.entries(fields)) {
      if (typeof text === "string") (columns[key] ??= []).push(text);
    }
  });
  return columns;
}

function readTable(name, content) {
  const rows = tableRows(name, content, separatorOf(content));
  if (rows.length === 0) return {};
  const width = Math.max(...rows.map((row) => row.length));
  const named = rows.length > 1 && hasHeader(rows[0]);
  const names = Array.from({ length: width }, (_, k) =>
    named && rows[0][k]?.trim() ? rows[0][k].trim() : width === 1 ? "text" : `column ${k + 1}`,
  );
  const body = named ? rows.slice(1) : rows;
  return Object.fromEntries(
    names.map((column, k) => [column, body.map((row) => row[k] ?? "").filter((c) => c.trim())]),
  );
}

/** A first row is a header if it names a text column, or is several short words. */
function hasHeader(row) {
  const short = row.every((cell) => /^[\p{L}_][\p{L}\p{N}_ -]{0,30}$/u.test(cell.trim()));
  return row.some((cell) => TEXT_COLUMNS.includes(cell.trim().toLowerCase())) || (row.length > 1 && short);
}

/** The separator that the first line has most of, outside of quotes. */
function separatorOf(content) {
  const first = content.split(/\r?\n/, 1)[0].replace(/"[^"]*"/g, "");
  const counts = [",", ";", "\t"].map((mark) => [mark, first.split(mark).length]);
  return counts.reduce((a, b) => (b[1] > a[1] ? b : a))[0];
}

/** RFC 4180: cells in quotes may have separators, line breaks and doubled quotes in them. */
function tableRows(name, content, separator) {
  const rows = [];
  let [row, cell, quoted, started] = [[], "", false, false];
  const endRow = () => {
    row.push(cell);
    if (row.some((each) => each.trim() !== "")) rows.push(row);
    [row, cell, started] = [[], "", false];
  };
  for (let at = 0; at < content.length; at++) {
    const mark = content[at];
    if (quoted) {
      if (mark !== '"') cell += mark;
      else if (content[at + 1] === '"') cell += content[at++];
      else quoted = false;
    } else if (mark === '"' && cell.trim() === "" && !started) {
      [cell, quoted, started] = ["", true, true];
    } else if (mark === separator) {
      row.push(cell);
      [cell, started] = ["", false];
    } else if (mark === "\n" || mark === "\r") {
      if (mark === "\r" && content[at + 1] === "\n") at++;
      endRow();
    } else {
      cell += mark;
    }
  }
  if (quoted) throw new FileError(`${name} ends inside quotes: a closing " is missing.`);
  endRow();
  return rows;
}
