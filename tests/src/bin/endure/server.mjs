// An MCP server over stdio that needs no package, as the leaf of a process tree.
// SIGUSR2 makes it write junk to stdout, SIGHUP flood stderr for a moment.
import { createInterface } from "node:readline";

const TOOL = {
  name: "read",
  description: "Is done.",
  inputSchema: { type: "object", properties: { id: { type: "string" }, ms: { type: "integer" } } },
  annotations: { readOnlyHint: true, idempotentHint: true },
};

const results = {
  initialize: () => ({
    protocolVersion: "2025-11-25",
    capabilities: { tools: {} },
    serverInfo: { name: "tree", version: "1.0.0" },
  }),
  ping: () => ({}),
  "tools/list": () => ({ tools: [TOOL] }),
  "tools/call": () => ({ content: [{ type: "text", text: "done" }] }),
};

process.on("SIGUSR2", () => process.stdout.write("no JSON-RPC at all\n".repeat(50)));
process.on("SIGHUP", () => process.stderr.write("a line that nobody will ever read\n".repeat(100000)));

createInterface({ input: process.stdin })
  .on("line", (line) => {
    const { id, method, params } = JSON.parse(line);
    if (id === undefined || method === undefined) return;
    const result = results[method];
    const answer = result
      ? { jsonrpc: "2.0", id, result: result() }
      : { jsonrpc: "2.0", id, error: { code: -32601, message: "Method not found" } };
    const ms = (method === "tools/call" && params?.arguments?.ms) || 0;
    setTimeout(() => process.stdout.write(JSON.stringify(answer) + "\n"), ms);
  })
  .on("close", () => process.exit(0));
