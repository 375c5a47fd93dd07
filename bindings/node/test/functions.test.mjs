// Functions of this program as tools: what they may return, throw, and leave undone.

import assert from 'node:assert/strict';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { Conflict, Forbidden, Invalid, MachinaError, NotFound, Overloaded, Timeout } from '../index.mjs';
import { failure, opened, until } from './support.mjs';

const ANY = { type: 'object' };

async function answered(t, run) {
  const m = await opened(t);
  await m.tool('f', { name: 'f', inputSchema: ANY }, run);
  return m.call('f', 'f');
}

test('every kind of value is an answer', async (t) => {
  const m = await opened(t);
  const cases = [
    [{ a: [1, null] }, '{"a":[1,null]}', { a: [1, null] }],
    ['words', 'words', undefined],
    [7.5, '7.5', undefined],
    [[1, 2], '[1,2]', undefined],
    [null, 'null', undefined],
    [new Date(0), '1970-01-01T00:00:00.000Z', undefined],
  ];
  for (const [value, text, structured] of cases) {
    await m.tool('f', { name: 'f', inputSchema: ANY }, async () => value);
    const answer = await m.call('f', 'f');
    assert.deepEqual([answer.content[0].text, answer.structuredContent, answer.isError], [text, structured, undefined]);
  }
  await m.tool('f', { name: 'f', inputSchema: ANY }, () => {});
  assert.deepEqual((await m.call('f', 'f')).content, []);
  const image = { content: [{ type: 'image', data: 'AA==', mimeType: 'image/png' }], isError: false };
  await m.tool('f', { name: 'f', inputSchema: ANY }, () => image);
  assert.deepEqual((await m.call('f', 'f')).content, image.content);
});

for (const [what, thrown, said] of [
  ['an error', new TypeError('no such thing'), 'no such thing'],
  ['a string', 'just words', 'just words'],
  ['nothing', undefined, 'undefined'],
]) {
  test(`a function that throws ${what} gives an answer that says so`, async (t) => {
    const answer = await answered(t, () => { throw thrown; });
    assert.deepEqual([answer.isError, answer.content[0].text], [true, said]);
    const later = await answered(t, async () => { await sleep(1); throw thrown; });
    assert.deepEqual([later.isError, later.content[0].text], [true, said]);
  });
}

test('an answer that is no JSON says so, and the next call works', async (t) => {
  const m = await opened(t);
  const circle = {};
  circle.self = circle;
  let deep = {};
  for (let step = 0; step < 100; step += 1) deep = { deep };
  for (const value of [1n, circle, deep]) {
    await m.tool('f', { name: 'f', inputSchema: ANY }, () => value);
    const answer = await m.call('f', 'f');
    assert.ok(answer.isError && answer.content[0].text.length > 10, JSON.stringify(answer));
  }
  assert.equal((await m.get('f')).status, 'healthy');
});

test('a function that never answers is given up, and told', async (t) => {
  const m = await opened(t);
  const told = [];
  await m.tool('f', { name: 'f', inputSchema: ANY }, (_, { signal }) => new Promise(() => {
    signal.addEventListener('abort', () => told.push('abort'));
  }));
  const error = await failure(m.call('f', 'f', {}, { timeout_ms: 200 }), Timeout);
  assert.equal(error.context.outcome, 'unknown');
  await until(() => told.length === 1, 'the abort');
});

test('arguments are checked before the function is called', async (t) => {
  const m = await opened(t);
  const seen = [];
  const inputSchema = { type: 'object', required: ['n'], properties: { n: { type: 'integer', minimum: 1 } } };
  await m.tool('f', { name: 'f', inputSchema }, (args) => seen.push(args));
  for (const wrong of [{}, { n: 'one' }, { n: 0 }]) {
    assert.equal((await failure(m.call('f', 'f', wrong), Invalid)).context.outcome, 'not_executed');
  }
  assert.deepEqual(seen, []);
});

test('no more run at once than may', async (t) => {
  const m = await opened(t);
  let [running, most] = [0, 0];
  await m.tool('f', { name: 'f', inputSchema: ANY, executions_max: 3 }, async () => {
    most = Math.max(most, ++running);
    await sleep(5);
    running -= 1;
  });
  await Promise.all(Array.from({ length: 30 }, () => m.call('f', 'f')));
  assert.equal(most, 3);
  const late = await failure(m.tool('f', { name: 'f', inputSchema: ANY, executions_max: 0 }, () => 1), Invalid);
  assert.match(late.message, /executions/);
  await m.tool('f', { name: 'f', inputSchema: ANY, executions_max: 1 }, () => new Promise(() => {}));
  const calls = [1, 2].map(() => failure(m.call('f', 'f', {}, { timeout_ms: 300 })));
  const kinds = (await Promise.all(calls)).map((error) => error.constructor);
  assert.ok(kinds.every((kind) => [Timeout, Overloaded].includes(kind)), String(kinds));
});

test('what runs on keeps its place until it is over', async (t) => {
  const m = await opened(t);
  let [release, begun] = [undefined, 0];
  const released = new Promise((resolve) => { release = resolve; });
  // It does not look at its signal.
  await m.tool('f', { name: 'f', inputSchema: ANY, executions_max: 1 }, async () => {
    begun += 1;
    await released;
    return 'done';
  });
  await failure(m.call('f', 'f', {}, { timeout_ms: 200 }), Timeout);
  const busy = await failure(m.call('f', 'f', {}, { timeout_ms: 200 }), Overloaded);
  assert.deepEqual([busy.context.outcome, begun], ['not_executed', 1]);
  release();
  const answer = await m.call('f', 'f', {}, { timeout_ms: 20_000 });
  assert.deepEqual([answer.content[0].text, begun], ['done', 2]);
});

test('who acts on behalf of someone adds and removes no functions', async (t) => {
  const m = await opened(t);
  await m.tool('f', { name: 'f', inputSchema: ANY }, () => 1);
  const admin = m.scoped({ id: 'ann', role: 'admin' });
  await failure(admin.tool('f', { name: 'g', inputSchema: ANY }, () => 1), Forbidden);
  await failure(admin.removeTool('f', 'f'), Forbidden);
  assert.throws(() => admin.scoped({ id: 'root', role: 'admin' }), Forbidden);
  assert.equal((await m.call('f', 'f')).content[0].text, '1');
});

test('a definition that is none is refused with its field', async (t) => {
  const m = await opened(t);
  for (const [definition, field] of [
    [{ name: 'f' }, 'inputSchema'], [{ inputSchema: ANY }, 'name'], [{ name: 'f', inputSchema: 1 }, 'inputSchema'],
  ]) {
    const error = await failure(m.tool('f', definition, () => 1), Invalid);
    assert.equal(error.context.problems[0].field, field);
  }
  for (const run of [undefined, 1, 'f', {}]) {
    assert.match((await failure(m.tool('f', { name: 'f', inputSchema: ANY }, run), Invalid)).message, /must be a function/);
  }
  await failure(m.tool('Not A Name', { name: 'f', inputSchema: ANY }, () => 1), Invalid);
  await failure(m.get('f'), NotFound);
});

test('functions join a service that is declared', async (t) => {
  const m = await opened(t);
  await m.register({ name: 'f', description: 'Prices.', tags: ['money'], instances: [{ in_process: {} }] });
  await m.tool('f', { name: 'quote', description: 'What it costs.', inputSchema: ANY }, () => 12);
  const service = await m.get('f');
  assert.deepEqual([service.description, service.instances.length, service.tool_count], ['Prices.', 1, 1]);
  assert.equal((await m.findTools('what it costs'))[0].name, 'quote');
  await failure(m.register({ name: 'f' }), Conflict);
});

test('a function may call the registry that calls it', async (t) => {
  const m = await opened(t);
  await m.tool('f', { name: 'inner', inputSchema: ANY }, () => 'deep');
  await m.tool('f', { name: 'outer', inputSchema: ANY }, async () => (await m.call('f', 'inner')).content[0].text);
  assert.equal((await m.call('f', 'outer')).content[0].text, 'deep');
});

test('what runs when the registry is closed ends with a typed error', async (t) => {
  const m = await opened(t);
  await m.tool('f', { name: 'f', inputSchema: ANY }, () => new Promise(() => {}));
  const failed = failure(m.call('f', 'f'), MachinaError);
  await sleep(50);
  await m.close();
  assert.ok(['lost', 'unavailable', 'unreachable'].includes((await failed).code));
});
