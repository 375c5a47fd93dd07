// The official TypeScript client of MCP as a host of Machina.
//
//     client.mjs legacy|auto|2026-07-28 URL
//     client.mjs legacy|auto|2026-07-28 COMMAND ARGUMENT...
//
// Connects in that mode, lists and uses what the conformance fixture offers behind Machina in flat
// mode, and prints one line of JSON that says what it saw. Anything unexpected ends it with an error.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';

// The packages lie where this is started.
const installed = new URL('node_modules/@modelcontextprotocol/client/', pathToFileURL(`${process.cwd()}/`));
const { Client, StreamableHTTPClientTransport } = await import(new URL('dist/index.mjs', installed));
const { StdioClientTransport } = await import(new URL('dist/stdio.mjs', installed));
const { version } = JSON.parse(await readFile(new URL('package.json', installed), 'utf8'));

// How long the tools behind Machina have to be found, in steps of a fifth of a second.
const STEPS = 300;

async function toolsOf(client) {
  let names = [];
  for (let step = 0; step < STEPS; step += 1) {
    const { tools } = await client.listTools(undefined, { cacheMode: 'bypass' });
    names = tools.map((tool) => tool.name);
    if (names.includes('test_simple_text')) return names;
    await sleep(200);
  }
  return assert.fail(`the fixture's tools are not found: ${names}`);
}

async function use(client) {
  const seen = { tools: (await toolsOf(client)).length };
  const text = await client.callTool({ name: 'test_simple_text' });
  assert.equal(text.content[0].text, 'This is a simple text response for testing.');
  const mixed = await client.callTool({ name: 'test_multiple_content_types', arguments: {} });
  assert.deepEqual(mixed.content.map((part) => part.type), ['text', 'image', 'resource']);
  const failed = await client.callTool({ name: 'test_error_handling', arguments: {} });
  assert.ok(failed.isError && failed.content[0].text.includes('intentionally'));
  const region = await client.callTool({ name: 'test_custom_header', arguments: { region: 'eu' } });
  assert.equal(region.content[0].text, 'Region: eu');
  const told = [];
  const onprogress = ({ progress, total }) => told.push([progress, total]);
  await client.callTool({ name: 'test_tool_with_progress', arguments: {} }, { onprogress });
  // This client forgets who listens before it reads progress that came along with the answer.
  assert.deepEqual(told.slice(0, 2), [[0, 100], [50, 100]]);
  seen.calls = 5;

  seen.unknown_tool = await client.callTool({ name: 'no_such_tool', arguments: {} }).then(
    (answer) => {
      assert.ok(answer.isError, JSON.stringify(answer));
      return answer.content[0].text;
    },
    (error) => error.message,
  );

  const { prompts } = await client.listPrompts(undefined, { cacheMode: 'bypass' });
  const { resources } = await client.listResources(undefined, { cacheMode: 'bypass' });
  Object.assign(seen, { prompts: prompts.length, resources: resources.length });
  const prompt = await client.getPrompt({ name: 'test_prompt_with_arguments', arguments: { arg1: 'one', arg2: 'two' } });
  assert.ok(prompt.messages[0].content.text.includes("arg1='one', arg2='two'"));
  const read = await client.readResource({ uri: 'test://static-text' });
  assert.equal(read.contents[0].text, 'This is the content of the static text resource.');
  return seen;
}

const [mode, ...target] = process.argv.slice(2);
const [command, ...args] = target;
const transport = command.startsWith('http')
  ? new StreamableHTTPClientTransport(new URL(command))
  : new StdioClientTransport({ command, args, env: process.env, stderr: 'ignore' });
const negotiation = ['legacy', 'auto'].includes(mode) ? mode : { pin: mode };
const client = new Client({ name: 'machina-tests', version: '1' }, { versionNegotiation: { mode: negotiation } });
await client.connect(transport);
const protocol = client.getNegotiatedProtocolVersion();
const seen = await use(client);
await client.close();
console.log(JSON.stringify({ client: `@modelcontextprotocol/client ${version}`, mode, protocol, ...seen }));
