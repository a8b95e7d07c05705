// Requests to the server this page came from, and its errors in words.

const KEY_NAME = "polyvec-api-key";
/** The address of the server, without a slash at the end; a proxy may have put it in a folder. */
export const BASE = new URL(".", document.baseURI).href.replace(/\/$/, "");
const COUNTED_CHARACTERS = 200_000;

/** An answer that is no success; `status` is 0 if there was none. */
export class ServerError extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The key of this tab: sessionStorage forgets it when the tab is closed. */
export const key = {
  get: () => sessionStorage.getItem(KEY_NAME) ?? "",
  set: (value) => sessionStorage.setItem(KEY_NAME, value),
  forget: () => sessionStorage.removeItem(KEY_NAME),
};

/** Send a request; return its answer's JSON and headers. */
export async function ask(path, request) {
  const response = await open(path, request);
  return { answer: await response.json(), headers: response.headers };
}

/** Send a request; return the response, which is a success. */
export async function open(path, { body, headers = {}, signal } = {}) {
  const sent = { ...headers };
  if (body !== undefined) sent["Content-Type"] = "application/json";
  if (key.get()) sent.Authorization = `Bearer ${key.get()}`;
  const options = { method: body === undefined ? "GET" : "POST", headers: sent, signal };
  if (body !== undefined) options.body = JSON.stringify(body);
  let response;
  try {
    response = await fetch(`${BASE}/${path}`, { ...options, cache: "no-store", credentials: "same-origin" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new ServerError(0, `The server at ${BASE} does not answer. Is it still running?`);
  }
  if (!response.ok) throw new ServerError(response.status, await inWords(response));
  return response;
}

const TITLES = {
  400: "The server cannot use this request",
  401: "The server asks for an API key",
  403: "The server refuses this page",
  404: "The server does not have this",
  409: "This index was made by another model",
  413: "The request is too large",
  429: "The server is busy",
  500: "The server failed",
  502: "The chat endpoint failed",
  503: "This cannot be used now",
  504: "It took too long",
};

/** An error of any dialect: {error: {message}}, {error} or {message}. */
async function inWords(response) {
  if (response.status === 401 && key.get()) return "The server does not know this key (401). Check it.";
  const text = await response.text();
  let said = text.slice(0, 500);
  try {
    const body = JSON.parse(text);
    said = body.error?.message ?? body.error ?? body.message ?? said;
  } catch {
    // A proxy's page: its beginning has to do.
  }
  return inTitle(response.status, said);
}

/** What the server said, and what kind of an error that is. */
export function inTitle(status, said) {
  return `${TITLES[status] ?? "The server refused"} (${status}). ${said}`;
}

/** Return the names of the models. */
export async function modelNames() {
  return (await ask("v1/models")).answer.data.map((model) => model.id);
}

/** Return a model's spec and whether it is loaded. */
export async function modelFacts(model) {
  return (await ask("api/show", { body: { model } })).answer.model_info["polyvec.spec"];
}

/** Return what the server takes in one request. */
export async function limits() {
  return { maxTexts: (await ask("info")).answer.max_client_batch_size };
}

/** Send a request; return vectors and what the headers and the usage say. */
export async function embed(request, signal) {
  const { answer, headers } = await ask("v1/embeddings", { ...request, signal });
  const count = answer.data.length;
  const dimension = answer.data[0].embedding.length;
  const vectors = new Float32Array(count * dimension);
  for (const { index, embedding } of answer.data) vectors.set(embedding, index * dimension);
  return {
    vectors,
    count,
    dimension,
    numTokens: answer.usage.prompt_tokens,
    numCut: Number(headers.get("X-Polyvec-Truncated") ?? 0),
    cut: indices(headers.get("X-Polyvec-Truncated-Texts")),
    computeMs: milliseconds(headers.get("Server-Timing")),
  };
}

function indices(header) {
  return (header ?? "").split(",").filter((part) => /^\d+$/.test(part)).map(Number);
}

function milliseconds(header) {
  return [...(header ?? "").matchAll(/dur=([\d.]+)/g)].reduce((sum, match) => sum + Number(match[1]), 0);
}

/**
 * Return the tokens of each text before any cut; null where it would take too long, or where the
 * model's name cannot be written in a header.
 */
export async function tokenCounts(request, signal) {
  const { model, input } = request.body;
  const size = input.reduce((sum, text) => sum + text.length, 0);
  if (size > COUNTED_CHARACTERS || !/^[\x20-\x7e]+$/.test(model)) return null;
  const headers = { ...request.headers, "X-Polyvec-Model": model };
  delete headers["X-Polyvec-Long-Input"];
  const { answer } = await ask("tokenize", { body: { inputs: input }, headers, signal });
  return answer.map((tokens) => tokens.length);
}
