// Functions of a program as tools: a calculator, string utilities, JSON and CSV. What each takes is said by
// its JSON Schema, which is checked before the function is called.
//
//     npm install ./bindings/node
//     node examples/native_tools.mjs

import { Invalid, Machina, Timeout } from "machina";

const text = { type: "string", maxLength: 1_000_000 };
const number = { type: "number" };
const annotations = { readOnlyHint: true };

/** The schema of arguments that must all be there, and no others. */
const takes = (properties) => ({ type: "object", properties, required: Object.keys(properties), additionalProperties: false });

const operations = {
  add: (a, b) => a + b,
  subtract: (a, b) => a - b,
  multiply: (a, b) => a * b,
  divide: (a, b) => a / b,
};
const cases = {
  upper: (words) => words.toUpperCase(),
  lower: (words) => words.toLowerCase(),
  title: (words) => words.toLowerCase().replace(/\p{L}+/gu, (word) => word[0].toUpperCase() + word.slice(1)),
};

function calculate({ operation, a, b }) {
  if (operation === "divide" && b === 0) throw new RangeError("nothing is divided by zero");
  return { value: operations[operation](a, b) };
}

function count({ text }) {
  return { characters: [...text].length, words: text.split(/\s+/).filter(Boolean).length, lines: text.split("\n").length };
}

function toCsv({ rows }) {
  const quoted = (value) => (/[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
  const columns = Object.keys(rows[0] ?? {});
  return [columns, ...rows.map((row) => columns.map((column) => row[column]))].map((row) => `${row.map(quoted).join(",")}\n`).join("");
}

function fromCsv({ csv_text }) {
  // A cell is quoted or plain, and ends with a comma or with the line.
  const lines = csv_text.trim().split("\n").map((line) =>
    [...line.matchAll(/(?:"((?:[^"]|"")*)"|([^,]*))(?:,|$)/g)]
      .filter(({ 0: cell, index }) => cell !== "" || index < line.length)
      .map(([, quoted, plain]) => quoted?.replaceAll('""', '"') ?? plain));
  const [columns, ...rows] = lines;
  return rows.map((row) => Object.fromEntries(columns.map((column, index) => [column, row[index]])));
}

const tools = [
  ["calculator", "calculate", "Calculates with two numbers.", takes({ operation: { enum: Object.keys(operations) }, a: number, b: number }), calculate],
  ["strings", "count", "Counts the characters, words and lines of a text.", takes({ text }), count],
  ["strings", "change_case", "Writes a text in another case.", takes({ text, case: { enum: Object.keys(cases) } }), (args) => cases[args.case](args.text)],
  ["transform", "json_to_csv", "Writes rows as CSV.", takes({ rows: { type: "array", items: { type: "object" } } }), toCsv],
  ["transform", "csv_to_json", "Reads CSV as rows.", takes({ csv_text: text }), fromCsv],
  ["own", "never", "Never answers.", takes({}), () => new Promise(() => {})],
];

const machina = await Machina.open("memory:");
await Promise.all(tools.map(([service, name, description, inputSchema, run]) =>
  machina.tool(service, { name, description, inputSchema, annotations }, run)));

/** Calls a tool, and prints what came of it. */
async function show(service, tool, args, timeout_ms = 5_000) {
  try {
    const { content, isError } = await machina.call(service, tool, args, { timeout_ms });
    console.log(`${service}/${tool}: ${isError ? "failed: " : ""}${content[0].text.trim().replaceAll("\n", " | ")}`);
  } catch (error) {
    if (!(error instanceof Invalid || error instanceof Timeout)) throw error;
    console.log(`${service}/${tool}: ${error.code}`);
  }
}

await show("calculator", "calculate", { operation: "add", a: 5, b: 3 });
await show("calculator", "calculate", { operation: "divide", a: 5, b: 0 });
await show("calculator", "calculate", { operation: "guess", a: 5, b: 3 });
await show("strings", "count", { text: "some words\nand more" });
await show("strings", "change_case", { text: "some words", case: "title" });
await show("transform", "json_to_csv", { rows: [{ name: "tea", price: 3 }, { name: "milk, fresh", price: 2 }] });
await show("transform", "csv_to_json", { csv_text: 'name,price\n"milk, fresh",2\n' });
await show("own", "never", {}, 100);
const [found] = await machina.findTools("write rows as csv", { limit: 1 });
console.log(`found: ${found.service}/${found.name}`);
await machina.close();
