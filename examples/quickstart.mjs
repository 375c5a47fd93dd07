// A first look: services are registered and found, a tool is called, mistakes are told apart, changes
// are watched. The same program as `quickstart.rs` and `quickstart.py`; all three print `quickstart.txt`.
//
//     npm install ./bindings/node
//     node examples/quickstart.mjs

import { Invalid, Machina, NotFound } from "machina";

// "sqlite:machina.db" keeps what is registered; PostgreSQL and https:// go by their address too.
const m = await Machina.open("memory:");
const events = m.watch();

// A function of this program becomes a tool of the service `pricing`.
const inputSchema = { type: "object", required: ["amount"], properties: { amount: { type: "integer" } } };
await m.tool("pricing", { name: "quote", description: "What an amount costs with tax.", inputSchema }, ({ amount }) => {
  return { price: amount + Math.floor(amount / 5) };
});

// Any MCP server stands beside it. This one would be started, were it not switched off.
const notes = { stdio: { command: "uvx", args: ["mcp-server-notes"] } };
await m.register({ name: "notes", tags: ["demo"], admin_state: "disabled", instances: [notes] });

for (const service of (await m.find()).items) {
  console.log(`${service.name}: ${service.status}`);
}
console.log(`tagged demo: ${(await m.find({ tags: ["demo"] })).items[0].name}`);
console.log(`tools: ${(await m.tools()).items.length}`);

const [found] = await m.findTools("what does it cost with tax", { limit: 1 });
console.log(`found: ${found.name} of ${found.service}`);

const answer = await m.call("pricing", "quote", { amount: 100 });
console.log(`a quote of 100: ${answer.structuredContent.price}`);
console.log(`it goes to: ${(await m.explain("pricing", "quote")).candidates[0].location}`);

try {
  await m.call("pricing", "quote", { amount: "much" });
} catch (error) {
  if (!(error instanceof Invalid)) throw error;
  console.log(`a wrong argument: ${error.code}, ${error.context.problems[0].field}`);
}
try {
  await m.call("nobody", "quote");
} catch (error) {
  if (!(error instanceof NotFound)) throw error;
  console.log(`an unknown service: ${error.code}`);
}

for await (const event of events) {
  if (event.type === "definitions_changed") {
    console.log(`offered: ${event.added.join(", ")}`);
    break;
  }
}
await m.deregister("pricing");
console.log(`left: ${(await m.find()).items.length}`);
await m.close();
