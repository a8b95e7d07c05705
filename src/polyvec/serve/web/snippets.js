// A request as code that sends exactly it. No document in it.

export const LANGUAGES = ["curl", "Python", "JavaScript"];
export const KEY_VARIABLE = "POLYVEC_API_KEY";

/**
 * Return the code for a request of `/v1/embeddings`.
 *
 * @param {string} language one of LANGUAGES
 * @param {string} base the server's address, without a slash at the end
 * @param {{body: object, headers: Object<string, string>}} request
 * @param {boolean} withKey whether the server asks for a key
 */
export function snippet(language, base, request, withKey) {
  const write = { curl, Python: python, JavaScript: javascript }[language];
  return write(base, request, withKey);
}

function curl(base, { body, headers }, withKey) {
  const options = [`-H ${shell("Content-Type: application/json")}`];
  if (withKey) options.push(`-H "Authorization: Bearer $${KEY_VARIABLE}"`);
  for (const [name, value] of Object.entries(headers)) options.push(`-H ${shell(`${name}: ${value}`)}`);
  options.push("--data-binary @- <<'JSON'");
  return `curl ${shell(base + "/v1/embeddings")} \\\n  ${options.join(" \\\n  ")}\n${json(body)}\nJSON\n`;
}

function shell(text) {
  return `'${text.replaceAll("'", `'\\''`)}'`;
}

function python(base, { body, headers }, withKey) {
  const key = withKey ? `os.environ["${KEY_VARIABLE}"]` : '"none"';
  const fields = Object.entries(body).map(([name, value]) => `    ${name}=${json(value, 4)},`);
  return [
    ...(withKey ? ["import os", ""] : []),
    "import openai  # pip install openai",
    "",
    `client = openai.OpenAI(base_url=${json(base + "/v1")}, api_key=${key})`,
    "answer = client.embeddings.create(",
    ...fields,
    `    extra_headers=${json(headers, 4)},`,
    ")",
    "vectors = [item.embedding for item in answer.data]",
    "print(len(vectors), len(vectors[0]))",
    "",
  ].join("\n");
}

function javascript(base, { body, headers }, withKey) {
  const fields = Object.entries({ "Content-Type": "application/json", ...headers });
  const lines = fields.map(([name, value]) => `    ${json(name)}: ${json(value)},`);
  if (withKey) lines.push(`    "Authorization": \`Bearer \${process.env.${KEY_VARIABLE}}\`,`);
  return [
    "// Node.js 18 or newer, as a module (.mjs)",
    `const response = await fetch(${json(base + "/v1/embeddings")}, {`,
    '  method: "POST",',
    "  headers: {",
    ...lines,
    "  },",
    `  body: JSON.stringify(${json(body, 2)}),`,
    "});",
    "if (!response.ok) throw new Error(await response.text());",
    "const vectors = (await response.json()).data.map((item) => item.embedding);",
    "console.log(vectors.length, vectors[0].length);",
    "",
  ].join("\n");
}

/** JSON, which Python and JavaScript read as the same strings, lists and numbers. */
function json(value, indent = 0) {
  return JSON.stringify(value, null, 2).replaceAll("\n", "\n" + " ".repeat(indent));
}
