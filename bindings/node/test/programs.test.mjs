// What is written for others: the code of the guide, and the example of a host, against `machina mcp` and `/mcp`.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import test from 'node:test';
import { promisify } from 'node:util';

import { Machina } from '../index.mjs';
import { PACKAGE, ROOT, built, directory, server } from './support.mjs';

const run = promisify(execFile);
const guide = fs.readFileSync(path.join(ROOT, 'docs/guide/node.md'), 'utf8');
const blocks = [...guide.matchAll(/^## (.*)$|^```js\n([\s\S]*?)^```$/gm)];

/** What `code` prints, as a module of its own that has the package. */
async function printed(t, code) {
  const folder = directory(t);
  const file = path.join(folder, 'program.mjs');
  fs.writeFileSync(file, code.replaceAll('from "machina"', `from ${JSON.stringify(path.join(PACKAGE, 'index.mjs'))}`));
  const { stdout, stderr } = await run(process.execPath, [file], { timeout: 30_000, cwd: folder });
  assert.equal(stderr, '');
  return stdout;
}

const example = (name) => fs.readFileSync(path.join(ROOT, 'examples', name), 'utf8');

test('examples/quickstart.mjs prints what it prints in every language', async (t) => {
  assert.equal(await printed(t, example('quickstart.mjs')), example('quickstart.txt'));
});

test('examples/native_tools.mjs', async (t) => {
  assert.deepEqual((await printed(t, example('native_tools.mjs'))).trim().split('\n'), [
    'calculator/calculate: {"value":8}',
    'calculator/calculate: failed: nothing is divided by zero',
    'calculator/calculate: invalid',
    'strings/count: {"characters":19,"words":4,"lines":2}',
    'strings/change_case: Some Words',
    'transform/json_to_csv: name,price | tea,3 | "milk, fresh",2',
    'transform/csv_to_json: [{"name":"milk, fresh","price":"2"}]',
    'own/never: timeout',
    'found: transform/json_to_csv',
  ]);
});

let heading = 'the beginning';
for (const [, title, code] of blocks) {
  heading = title ?? heading;
  if (code === undefined) continue;
  test(`docs/guide/node.md: ${heading}`, async (t) => {
    const stdout = await printed(t, code);
    // A comment after console.log says what is printed.
    for (const [, expected] of code.matchAll(/console\.log\(.*\/\/ ([\w ]+?)(?:,.*)?$/gm)) {
      assert.ok(stdout.split('\n').includes(expected), `${expected} is not in ${stdout}`);
    }
  });
}

test('the guide has code', () => assert.ok(blocks.filter(([, , code]) => code).length >= 8));

const HOST = path.join(ROOT, 'examples/mcp_host/dist/host.js');
const QUESTION = ['add two numbers', '{"a": 2, "b": 3}'];
const SERVICE = () => ({ stdio: { command: built('machina-fixture'), args: ['stdio'] } });

function fits(stdout) {
  const [offers, found, answer] = stdout.trim().split('\n');
  for (const tool of ['call_tool', 'find_tool']) assert.ok(offers.includes(tool), offers);
  assert.deepEqual([found, answer], ['found: fixture/add', 'answer: 5']);
}

test('the example host finds and calls a tool over /mcp', async (t) => {
  const url = await server(t);
  const m = await Machina.open(url);
  await m.register({ name: 'fixture', instances: [SERVICE()] });
  await m.close();
  const { stdout } = await run(process.execPath, [HOST, `${url}/mcp`, ...QUESTION], { timeout: 60_000 });
  fits(stdout);
});

test('the example host finds and calls a tool of machina mcp', async (t) => {
  const folder = directory(t);
  const config = path.join(folder, 'mcp.json');
  fs.writeFileSync(config, JSON.stringify({ mcpServers: { fixture: SERVICE().stdio } }));
  const command = [built('machina'), 'mcp', '--store', 'memory:', '--import', config];
  const { stdout } = await run(process.execPath, [HOST, ...command, '--', ...QUESTION], { timeout: 60_000, cwd: folder });
  fits(stdout);
});

test('the example host says how it is used', async () => {
  await assert.rejects(run(process.execPath, [HOST, 'http://127.0.0.1:9/mcp']), /usage: host URL/);
});
