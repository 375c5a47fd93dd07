// An MCP host in a page: connects to Machina, finds a tool by words, and calls it.
//
//     cd examples/mcp_host && npm install
//     npm run -s host -- http://127.0.0.1:8000/mcp "add two numbers" '{"a": 2, "b": 3}'
//     npm run -s host -- machina mcp -- "add two numbers" '{"a": 2, "b": 3}'
//
// The first asks a `machina serve` that runs, the second starts a Machina of its own on stdin and stdout. In
// either case the host sees five tools, however many there are behind them: `find_tool` names the one that
// fits, with its schema, and `call_tool` calls it.

import { setTimeout as sleep } from "node:timers/promises";

import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

const USAGE = "usage: host URL TEXT ARGUMENTS | host COMMAND [ARGUMENT]… -- TEXT ARGUMENTS";

// How long servers that are just starting have to offer their tools.
const STEPS = 100;
const STEP_MS = 200;

type Answer = Awaited<ReturnType<Client["callTool"]>>;
type Found = { service: string; tool: string };

const textOf = (answer: Answer): string =>
  answer.content.flatMap((part) => (part.type === "text" ? [part.text] : [])).join("\n");

/** What a tool of Machina answers. */
async function answered(client: Client, name: string, args: Record<string, unknown>): Promise<Answer> {
  const answer = await client.callTool({ name, arguments: args });
  if (answer.isError) throw new Error(`${name}: ${textOf(answer)}`);
  return answer;
}

/** The tool that fits best, once there is one. */
async function find(client: Client, text: string): Promise<Found> {
  for (let step = 0; step < STEPS; step += 1) {
    const found = await answered(client, "find_tool", { query: text });
    const tools = (found.structuredContent as { tools?: Found[] } | undefined)?.tools ?? [];
    if (tools.length > 0) return tools[0];
    await sleep(STEP_MS);
  }
  throw new Error(`no tool fits \`${text}\``);
}

/** The server that the command line names, and what is asked of it. */
function serverAndQuestion(words: string[]) {
  if (words[0]?.startsWith("http")) {
    return { transport: new StreamableHTTPClientTransport(new URL(words[0])), question: words.slice(1) };
  }
  const split = words.indexOf("--");
  if (split < 1) throw new Error(USAGE);
  const [command, ...args] = words.slice(0, split);
  const env = process.env as Record<string, string>;
  return { transport: new StdioClientTransport({ command, args, env }), question: words.slice(split + 1) };
}

const { transport, question } = serverAndQuestion(process.argv.slice(2));
if (question.length !== 2) throw new Error(USAGE);
const [text, args] = [question[0], JSON.parse(question[1]) as Record<string, unknown>];
const client = new Client({ name: "example-host", version: "1.0.0" });
await client.connect(transport);
try {
  const names = (await client.listTools()).tools.map((tool) => tool.name).sort();
  console.log(`machina offers: ${names.join(", ")}`);
  const { service, tool } = await find(client, text);
  console.log(`found: ${service}/${tool}`);
  console.log(`answer: ${textOf(await answered(client, "call_tool", { service, tool, arguments: args }))}`);
} finally {
  await client.close();
}
