// The form: what is asked, and what of it this model can do.

import { byId, counted, element } from "./elements.js";
import { lines } from "./files.js";

// What polyvec writes before queries of a model that states no prefix (spec.py).
const INSTRUCT_PREFIX = "Instruct: {instruction}\nQuery: ";
const SLOT = "{instruction}";

/** Return the texts that are in the box. */
export const texts = () => lines(byId("texts").value);

export const role = () => byId("form").elements.role.value;
export const compared = () => takesInstruction() && byId("compare").checked;

let spec = null;
/** Take a model's spec: its dimensions and prefixes decide what can be asked. */
export function setSpec(facts) {
  spec = facts;
  const sizes = [spec.dimension, ...[...spec.matryoshka_dimensions].sort((a, b) => b - a)];
  byId("dimensions").replaceChildren(
    ...[...new Set(sizes)].map((size, k) => element("option", { value: size }, k === 0 ? `${size}, all` : String(size))),
  );
  byId("dimensions").disabled = sizes.length === 1;
  byId("dimensions-hint").textContent =
    sizes.length === 1 ? "This model is not Matryoshka: its numbers belong together." : "Shorter vectors this model was trained for.";
  byId("max-tokens").textContent = `The model reads ${counted(spec.max_tokens, "token")} of a text.`;
  for (const id of ["instruction", "instruction-2"]) byId(id).placeholder = spec.default_instruction;
  update();
}

function takesInstruction() {
  if (role() !== "query" || spec === null) return false;
  return spec.query_prefix === "" || spec.query_prefix.includes(SLOT);
}

/** Show what the choices so far allow. */
export function update() {
  if (spec === null) return;
  const allowed = takesInstruction();
  byId("instruction-field").disabled = !allowed;
  byId("second").hidden = !compared();
  byId("instruction-hint").textContent = allowed
    ? spec.default_instruction ? "Empty: the model's own, shown in grey." : "Empty: none."
    : role() === "document"
      ? "Documents are embedded without an instruction. Choose queries to try one."
      : "This model writes the same before every query and takes no instruction.";
  const number = texts().length;
  byId("count").textContent = counted(number, "text");
  const readings = compared() ? [prefix(1), prefix(2)] : [prefix(1)];
  byId("prefix").replaceChildren(
    ...readings.map((each) => element("pre", {}, `${each}${number > 0 ? texts()[0].slice(0, 80) : "…"}`)),
  );
}

function instruction(which) {
  const value = byId(which === 2 ? "instruction-2" : "instruction").value.trim();
  return takesInstruction() && value !== "" ? value : null;
}

/** What stands before a text: Spec.prefix of polyvec. */
function prefix(which) {
  if (role() === "document") return spec.document_prefix;
  const wanted = instruction(which);
  const template = spec.query_prefix === "" && wanted !== null ? INSTRUCT_PREFIX : spec.query_prefix;
  return template.replaceAll(SLOT, () => wanted ?? spec.default_instruction);
}

/** How the texts are read with an instruction, in words. */
export function reading(which) {
  if (role() === "document") return "Read as documents";
  const wanted = instruction(which);
  return wanted === null ? "Read as queries" : `Read as queries: “${wanted}”`;
}

/** Return the request of the first or second instruction, exactly as it is sent. */
export function request(which) {
  const body = { model: byId("model").value, input: texts(), encoding_format: "float" };
  if (spec !== null && Number(byId("dimensions").value) !== spec.dimension) {
    body.dimensions = Number(byId("dimensions").value);
  }
  const headers = { "X-Polyvec-Role": role(), "X-Polyvec-Long-Input": byId("long-input").value };
  const wanted = instruction(which);
  if (wanted !== null) headers["X-Polyvec-Instruction"] = percentEncoded(wanted);
  return { body, headers };
}

/** As encodeURIComponent, and the quote too, which shells read. */
function percentEncoded(text) {
  return encodeURIComponent(text.toWellFormed?.() ?? text).replaceAll("'", "%27");
}
