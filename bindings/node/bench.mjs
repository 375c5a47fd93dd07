// What a look-up and a call cost in this process, and the same over HTTP to `machina serve`, in one run.
//
//   bindings/node/test.sh --bench                        builds what is measured, with release, and measures
//   node --expose-gc bindings/node/bench.mjs [--quick]   MACHINA_BINARY, MACHINA_FIXTURE: programs that are built
//
// Prints one row per figure: the median and the 99th percentile of single operations, one after the other. `--quick`
// does a hundredth of everything, to see that it works.

import { execFileSync, spawn } from 'node:child_process';
import { once, setMaxListeners } from 'node:events';
import fs from 'node:fs';
import http from 'node:http';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

import { Machina } from './index.mjs';

const SCALE = process.argv.includes('--quick') ? 0.01 : 1;
const SERVICES = 1_000;
const LOOKED = 20_000 * SCALE;
const CALLED = 5_000 * SCALE;
const AT_ONCE = 10_000 * SCALE;
const LEAK_CALLS = 100_000 * SCALE;
const LEAK_STEPS = 10;

const folder = path.dirname(fileURLToPath(import.meta.url));
const release = path.resolve(folder, '../../target/release');
const [machina, fixture] = [
  process.env.MACHINA_BINARY ?? path.join(release, 'machina'),
  process.env.MACHINA_FIXTURE ?? path.join(release, 'machina-fixture'),
];

const microseconds = (value) => `${value < 100 ? value.toFixed(1) : Math.round(value)} µs`;

/** Says what `work` costs, after a tenth of the rounds to warm up; returns the median in µs. */
async function measured(what, rounds, work) {
  for (let round = 0; round < rounds / 10; round += 1) await work(round);
  const times = new Float64Array(rounds);
  for (let round = 0; round < rounds; round += 1) {
    const began = performance.now();
    await work(round);
    times[round] = (performance.now() - began) * 1_000;
  }
  times.sort();
  const [median, late] = [times[rounds >> 1], times[Math.floor(rounds * 0.99)]];
  console.log(`${what.padEnd(44)} median ${microseconds(median).padStart(9)}   p99 ${microseconds(late).padStart(9)}`);
  return median;
}

/** Requests on one connection that is kept, as a program that cares would send them. */
function asking(base) {
  const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
  return async (method, place, body) => {
    const headers = body ? { 'content-type': 'application/json' } : {};
    const request = http.request(new URL(`/api/v1${place}`, base), { method, agent, headers });
    request.end(body && JSON.stringify(body));
    const [response] = await once(request, 'response');
    let text = '';
    for await (const part of response.setEncoding('utf8')) text += part;
    if (response.statusCode >= 300) throw new Error(`${method} ${place}: ${response.statusCode} ${text}`);
    return JSON.parse(text);
  };
}

const specs = Array.from({ length: SERVICES }, (_, index) => ({
  name: `service-${index}`,
  description: `The service number ${index}.`,
  tags: [`tag-${index % 10}`],
  admin_state: 'disabled',
  instances: [{ http: { url: `http://service-${index}.example/mcp` } }],
}));

async function fill(m) {
  for (let from = 0; from < SERVICES; from += 100) {
    await m.apply(specs.slice(from, from + 100).map((put) => ({ put })));
  }
  await m.register({ name: 'fixture', instances: [{ stdio: { command: fixture, args: ['stdio'] } }] });
  while ((await m.health('fixture')).status !== 'healthy') await new Promise((done) => setTimeout(done, 20));
}

async function serve() {
  const env = { ...process.env, MACHINA_LOG: 'error', MACHINA_ACCESS__ALLOW_STDIO_REGISTRATION: 'true' };
  const args = ['serve', '--json', '--store', 'memory:', '--listen', '127.0.0.1:0'];
  const serving = spawn(machina, args, { stdio: ['ignore', 'pipe', 'inherit'], env });
  for await (const data of serving.stdout) {
    const { event, url } = JSON.parse(data.toString().split('\n')[0]);
    if (event === 'listening') return { url, stop: () => serving.kill('SIGTERM') };
  }
  throw new Error('machina serve ended');
}

const rss = () => {
  globalThis.gc?.();
  return process.memoryUsage().rss / 1e6;
};

/** The slope of a line through `values`, per step. */
function slope(values) {
  const middle = (values.length - 1) / 2;
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const [up, across] = values.reduce(([a, b], y, x) => [a + (x - middle) * (y - mean), b + (x - middle) ** 2], [0, 0]);
  return up / across;
}

/** How often this thread gets round in a second. */
function speed(seconds) {
  const until = performance.now() + seconds * 1_000;
  let rounds = 0;
  for (; performance.now() < until; rounds += 1) for (let n = 0, sum = 0; n < 10_000; n += 1) sum += n;
  return rounds / seconds;
}

/** How much longer a program takes that loads the package, in ms. */
function loading() {
  const took = (code) => Math.min(...Array.from({ length: 10 }, () => {
    const began = performance.now();
    execFileSync(process.execPath, ['--eval', code]);
    return performance.now() - began;
  }));
  return took(`require(${JSON.stringify(path.join(folder, 'index.js'))})`) - took('');
}

console.log(`node ${process.version}, ${os.cpus().length} cores, ${os.cpus()[0].model}, ${machina}`);
for (const addon of fs.readdirSync(folder).filter((file) => file.endsWith('.node'))) {
  console.log(`${addon}: ${(fs.statSync(path.join(folder, addon)).size / 2 ** 20).toFixed(1)} MiB`);
}
console.log(`loading the package: ${loading().toFixed(0)} ms`);
const here = await Machina.open('memory:');
await fill(here);
const [inputSchema, executions_max] = [{ type: 'object' }, 10_000];
await here.tool('own', { name: 'nothing', inputSchema, executions_max }, () => ({ n: 1 }));
await here.tool('own', { name: 'wait', inputSchema, executions_max }, ({ ms }, { signal }) => new Promise((resolve) => {
  const waiting = setTimeout(resolve, ms);
  signal.addEventListener('abort', () => (clearTimeout(waiting), resolve()));
}));
const wide = { in_flight_max: 10_000, queue_max: 100_000, queue_timeout: '1m' };
await here.put({ name: 'own', instances: [{ in_process: {} }], routing_policy: wide });
const { url, stop } = await serve();
const there = await Machina.open(url);
await fill(there);
const ask = asking(url);

const name = (round) => `service-${(round * 7) % SERVICES}`;
const query = { tags: ['tag-3'], limit: 10 };
const add = { a: 2, b: 3 };
const rows = {};
rows.get = [
  await measured('get, in process', LOOKED, (round) => here.get(name(round))),
  await measured('get, GET over HTTP', LOOKED / 4, (round) => ask('GET', `/services/${name(round)}`)),
];
await measured('get, Machina.open("http://…")', LOOKED / 4, (round) => there.get(name(round)));
rows.find = [
  await measured('find (10 of 100), in process', LOOKED / 4, () => here.find(query)),
  await measured('find (10 of 100), GET over HTTP', LOOKED / 4, () => ask('GET', '/services?tags=tag-3&limit=10')),
];
rows.find_tools = [
  await measured('findTools, in process', CALLED, () => here.findTools('add two numbers', { limit: 3 })),
  await measured('findTools, POST over HTTP', CALLED, () => ask('POST', '/tools:find', { text: 'add two numbers', limit: 3 })),
];
rows.call = [
  await measured('call of a stdio server, in process', CALLED, () => here.call('fixture', 'add', add)),
  await measured('call of a stdio server, POST over HTTP', CALLED, () => ask('POST', '/services/fixture/call', { tool: 'add', arguments: add })),
];
await measured('call of a function of this program', CALLED, () => here.call('own', 'nothing'));
for (const [what, [inside, outside]] of Object.entries(rows)) {
  console.log(`${what}: ${(outside / inside).toFixed(1)} times as fast in process`);
}

// What the binding adds to the registry's own time, which the answer says.
let beside = 0;
for (let round = 0; round < CALLED; round += 1) {
  const began = performance.now();
  const answer = await here.call('fixture', 'add', add);
  beside += (performance.now() - began) - answer._meta['dev.machina/call'].duration_ms;
}
console.log(`what the binding adds to a call: ${microseconds((beside / CALLED) * 1_000)} on average (target: at most 100 µs)`);

let began = performance.now();
await Promise.all(Array.from({ length: AT_ONCE }, (_, round) => here.find({ name: name(round), limit: 1 })));
console.log(`${AT_ONCE} look-ups awaited at once: ${Math.round(performance.now() - began)} ms in all`);
began = performance.now();
await Promise.all(Array.from({ length: AT_ONCE }, () => here.call('own', 'wait', { ms: 500 })));
console.log(`${AT_ONCE} calls that wait 500 ms, at once: ${Math.round(performance.now() - began)} ms in all`);

const alone = speed(2 * Math.max(SCALE, 0.2));
const controller = new AbortController();
setMaxListeners(0, controller.signal);
const waiting = Array.from({ length: 1_000 }, () => here.call('own', 'wait', { ms: 60_000 }, { signal: controller.signal }));
const ended = Promise.allSettled(waiting);
await new Promise((done) => setTimeout(done, 500));
const share = (100 * speed(2 * Math.max(SCALE, 0.2))) / alone;
console.log(`this thread, computing beside 1000 calls that wait: ${share.toFixed(0)} % of its speed (target: at least 90 %)`);
controller.abort();
await ended;

const sizes = [];
for (let step = 0; step < LEAK_STEPS; step += 1) {
  for (let round = 0; round < LEAK_CALLS / LEAK_STEPS / 100; round += 1) {
    const calls = Array.from({ length: 50 }, () => [here.call('own', 'nothing'), here.get(name(round))]);
    await Promise.all(calls.flat());
  }
  sizes.push(rss());
}
// The first steps fill what is kept: the history that waits to be written, the pools.
const steady = sizes.slice(3);
const perCall = (slope(steady) / (LEAK_CALLS / LEAK_STEPS)) * 1e6;
console.log(`RSS over ${LEAK_CALLS} calls and look-ups: ${sizes.map((size) => size.toFixed(0)).join(' ')} MB`);
console.log(`slope of the last ${steady.length} steps: ${perCall.toFixed(0)} bytes per call`);

await here.close();
await there.close();
stop();
