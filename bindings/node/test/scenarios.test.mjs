// Carries out tests/scenarios/*.json through this package, as the README there says.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { MachinaError } from '../index.mjs';
import { at, misfit } from './patterns.mjs';
import { ROOT, built, opened } from './support.mjs';

const FOLDER = path.join(ROOT, 'tests/scenarios');
const PATIENCE = 30_000;

const object = (properties, required = Object.keys(properties)) => ({
  type: 'object', properties, required, additionalProperties: false,
});

/** The functions that every runner has. */
const FUNCTIONS = {
  double: ['Doubles a number.', object({ n: { type: 'integer' } }), ({ n }) => ({ doubled: 2 * n })],
  greet: ['Greets somebody.', object({ name: { type: 'string' } }), ({ name }) => `Hello, ${name}!`],
  refuse: ['Refuses.', object({}), () => { throw new Error('this is refused'); }],
  never: ['Never answers.', object({}), () => new Promise(() => {})],
};

const METHODS = {
  register: (run, { service }) => run.machina.register(service),
  update: (run, { name, service, revision }) => run.machina.update(name, service, { expected: revision }),
  put: (run, { service }) => run.machina.put(service),
  deregister: (run, { name }) => run.machina.deregister(name),
  set_admin_state: (run, { name, admin_state, reason }) => run.machina.setAdminState(name, admin_state, { reason }),
  pin_tools: (run, { name, pinning }) => run.machina.pinTools(name, { pinning }),
  put_group: (run, { group, revision, create_only }) => run.machina.putGroup(group, { expected: revision, create_only }),
  group: (run, { name }) => run.machina.group(name),
  groups: (run) => run.machina.groups(),
  remove_group: (run, { name, revision }) => run.machina.removeGroup(name, { expected: revision }),
  get: (run, { name }) => run.machina.get(name),
  find: (run, query) => run.machina.find(query),
  tools: (run, query) => run.machina.tools(query),
  find_tools: (run, { text, limit = 5 }) => run.machina.findTools(text, { limit }),
  call: (run, { service, tool, arguments: args, ...options }) => run.machina.call(service, tool, args, options),
  explain: (run, { service, tool }) => run.machina.explain(service, tool),
  health: (run, { name }) => run.machina.health(name),
  async watch(run, { as, since }) {
    run.streams.set(as, run.machina.watch({ since }));
  },
  async event(run, { of, fits }) {
    const stream = run.streams.get(of);
    const late = sleep(PATIENCE, undefined, { ref: false }).then(() => assert.fail(`no event fits ${JSON.stringify(fits)}`));
    for (;;) {
      const { value, done } = await Promise.race([stream.next(), late]);
      assert.ok(!done, 'the stream ended');
      if (!misfit(value, fits)) return value;
    }
  },
  async native(run, { service, tools }) {
    await Promise.all(tools.map((name) => {
      const [description, inputSchema, body] = FUNCTIONS[name];
      return run.machina.tool(service, { name, description, inputSchema }, body);
    }));
  },
  native_remove: (run, { service, tool }) => run.machina.removeTool(service, tool),
  wait: (run, { of }) => run.background.get(of),
  close: (run) => run.machina.close(),
};

const KEYS = new Set(['do', 'with', 'expect', 'fails', 'until', 'save', 'background', 'only', 'note']);

/** `value` with what was saved, and the fixture, in the places of their names. */
function filled(value, saved) {
  if (typeof value === 'string') return value.includes('${fixture}') ? value.replaceAll('${fixture}', built('machina-fixture')) : value;
  if (Array.isArray(value)) return value.map((item) => filled(item, saved));
  if (typeof value !== 'object' || value === null) return value;
  if ('$saved' in value) {
    assert.ok(saved.has(value.$saved), `nothing was saved as ${value.$saved}`);
    return saved.get(value.$saved);
  }
  return Object.fromEntries(Object.entries(value).map(([key, part]) => [key, filled(part, saved)]));
}

/** What is wrong with the outcome of a step; `undefined` when nothing is. */
function wrong({ value, error }, { expect, fails }) {
  if (error !== undefined) {
    if (!(error instanceof MachinaError)) throw error;
    const { code: kind, message, context } = error;
    if (fails === undefined) return `failed: ${error.stack}`;
    return misfit({ kind, message, context }, fails, 'error');
  }
  if (fails !== undefined) return `did not fail: ${JSON.stringify(value)}`;
  return expect === undefined ? undefined : misfit(JSON.parse(JSON.stringify(value ?? null)), expect);
}

const outcome = (work) => Promise.resolve().then(work).then((value) => ({ value }), (error) => ({ error }));

async function carryOut(run, step) {
  const unknown = Object.keys(step).filter((key) => !KEYS.has(key));
  assert.deepEqual(unknown, [], 'keys that the README does not describe');
  const method = METHODS[step.do];
  assert.ok(method, `no method: ${step.do}`);
  const { with: args = {}, expect, fails } = filled({ with: step.with, expect: step.expect, fails: step.fails }, run.saved);
  if (step.background) {
    const started = Promise.resolve(method(run, args));
    started.catch(() => {});
    run.background.set(step.background, started);
    return;
  }
  const ends = Date.now() + (step.until ? PATIENCE : 0);
  let came = await outcome(() => method(run, args));
  while (wrong(came, { expect, fails }) && Date.now() < ends) {
    await sleep(50);
    came = await outcome(() => method(run, args));
  }
  assert.equal(wrong(came, { expect, fails }), undefined);
  for (const [name, pointer] of Object.entries(step.save ?? {})) run.saved.set(name, at(came.value, pointer));
}

const concerns = ({ only }) => only === undefined || only.includes('node');
const files = fs.readdirSync(FOLDER).filter((name) => name.endsWith('.json')).sort();
assert.ok(files.length > 0, 'there are no scenarios');

for (const file of files) {
  const scenario = JSON.parse(fs.readFileSync(path.join(FOLDER, file), 'utf8'));
  test(`scenario ${file}: ${scenario.about}`, { skip: concerns(scenario) ? false : 'is not for node' }, async (t) => {
    const run = { machina: await opened(t), saved: new Map(), streams: new Map(), background: new Map() };
    t.after(() => Promise.all([...run.streams.values()].map((stream) => stream.return())));
    for (const [index, step] of scenario.steps.entries()) {
      if (!concerns(step)) continue;
      try {
        await carryOut(run, step);
      } catch (error) {
        error.message = `step ${index + 1} (${step.do}): ${error.message}`;
        throw error;
      }
    }
  });
}
