// What the tests have in common: registries that are closed whatever comes, errors as data, children with a limit.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';

import { Machina, MachinaError } from '../index.mjs';

export const HERE = path.dirname(fileURLToPath(import.meta.url));
export const PACKAGE = path.dirname(HERE);
export const ROOT = path.resolve(PACKAGE, '../..');

const PROGRAMS = { machina: process.env.MACHINA_BINARY, 'machina-fixture': process.env.MACHINA_FIXTURE };

/** The path of a program under test: where the environment says, or where cargo builds. */
export function built(name) {
  const file = PROGRAMS[name] ?? path.join(ROOT, 'target/debug', name);
  assert.ok(fs.existsSync(file), `${file} is missing: run bindings/node/test.sh`);
  return file;
}

/** A registry that ends with the test. */
export async function opened(t, url = 'memory:', options = {}) {
  const machina = await Machina.open(url, options);
  t.after(() => machina.close());
  return machina;
}

export function directory(t) {
  const made = fs.mkdtempSync(path.join(os.tmpdir(), 'machina-node-'));
  t.after(() => fs.rmSync(made, { recursive: true, force: true }));
  return made;
}

/** The error that `work` is rejected with, which must be one of ours. */
export async function failure(work, kind = MachinaError) {
  const outcome = await Promise.resolve(work).then((value) => ({ value }), (error) => ({ error }));
  assert.ok('error' in outcome, `it did not fail: ${JSON.stringify(outcome.value)}`);
  assert.ok(outcome.error instanceof kind, `${outcome.error?.stack} is no ${kind.name}`);
  return outcome.error;
}

/** Repeats `look` until it returns something true, for at most 20 s. */
export async function until(look, what) {
  for (let step = 0; step < 400; step += 1) {
    const seen = await look();
    if (seen) return seen;
    await sleep(50);
  }
  return assert.fail(`${what} did not come`);
}

/** Adds functions for tests to a service: `double` and `never`. */
export async function withFunctions(machina, service = 'functions') {
  const number = { type: 'object', required: ['n'], properties: { n: { type: 'integer' } } };
  await machina.tool(service, { name: 'double', inputSchema: number }, ({ n }) => ({ doubled: 2 * n }));
  await machina.tool(service, { name: 'never', inputSchema: { type: 'object' } }, () => new Promise(() => {}));
  return service;
}

/** Runs `script` as a module in a process of its own, which must end by itself within `seconds`. */
export async function child(script, { seconds = 20, args = [] } = {}) {
  const source = `import { Machina } from ${JSON.stringify(path.join(PACKAGE, 'index.mjs'))};\n${script}`;
  const began = Date.now();
  const running = spawn(process.execPath, ['--input-type=module', '--eval', source, ...args], { stdio: ['ignore', 'pipe', 'pipe'] });
  let [stdout, stderr] = ['', ''];
  running.stdout.on('data', (data) => { stdout += data; });
  running.stderr.on('data', (data) => { stderr += data; });
  const limit = setTimeout(() => running.kill('SIGKILL'), seconds * 1000);
  const [code, signal] = await once(running, 'close');
  clearTimeout(limit);
  return { code, signal, stdout: stdout.trim(), stderr: stderr.trim(), seconds: (Date.now() - began) / 1000 };
}

/** A fixture over HTTP, which ends with the test or when it is killed. */
export async function remoteFixture(t) {
  const running = spawn(built('machina-fixture'), ['http', '--listen', '127.0.0.1:0'], { stdio: ['ignore', 'pipe', 'inherit'] });
  const ended = once(running, 'close');
  const kill = async () => {
    running.kill('SIGKILL');
    await ended;
  };
  t.after(kill);
  const [said] = await once(running.stdout.setEncoding('utf8'), 'data');
  // A server that writes to a closed stdout would fail.
  running.stdout.resume();
  return { url: JSON.parse(said.split('\n')[0]).url, kill };
}

/** A `machina serve` with an empty store, which ends with the test. */
export async function server(t) {
  const serving = spawn(built('machina'), ['serve', '--json', '--store', 'memory:', '--listen', '127.0.0.1:0'], {
    stdio: ['ignore', 'pipe', 'inherit'],
    env: {
      ...process.env, MACHINA_LOG: 'warn', MACHINA_ACCESS__ALLOW_STDIO_REGISTRATION: 'true', MACHINA_EGRESS__ALLOW: '["127.0.0.0/8"]',
    },
  });
  t.after(async () => {
    serving.kill('SIGTERM');
    await once(serving, 'close');
  });
  for await (const data of serving.stdout) {
    const line = JSON.parse(data.toString().split('\n')[0]);
    if (line.event === 'listening') {
      serving.stdout.resume();
      return line.url;
    }
  }
  return assert.fail('machina serve ended');
}
