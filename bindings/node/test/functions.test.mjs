// Functions of this program as tools: what they may return, throw, and leave undone.

import assert from 'node:assert/strict';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { Conflict, Forbidden, Invalid, MachinaError, NotFound, Overloaded, Timeout } from '../index.mjs';
import { failure, opened, remoteFixture, until } from './support.mjs';

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

test('calls that the thread of Node is too far behind for did not run, and say so', async (t) => {
  const m = await opened(t);
  const most = 10_000;
  let [begun, release] = [0, undefined];
  const released = new Promise((resolve) => { release = resolve; });
  await m.tool('f', { name: 'f', inputSchema: ANY, executions_max: most }, () => {
    begun += 1;
    return released;
  });
  await m.put({ ...(await m.get('f')), routing_policy: { in_flight_max: most } });
  const controllers = Array.from({ length: most }, () => new AbortController());
  const given = controllers.map(({ signal }) => m.call('f', 'f', {}, { signal, timeout_ms: 180_000 }).catch(({ name }) => name));
  await until(() => begun === most, 'their begin');
  // While this thread waits, and then goes on without a look at its queue, that fills with those that are given up.
  controllers.forEach((controller) => controller.abort());
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 1_000);
  release();
  for (let tick = 0; tick < 20; tick += 1) await null;
  const calls = Array.from({ length: most }, () => m.call('f', 'f', {}, { timeout_ms: 180_000 }).then(() => null, (error) => error));
  const errors = (await Promise.all(calls)).filter((error) => error !== null);
  assert.ok(errors.some(({ message }) => /thread of Node is too far behind/.test(message)), String(errors[0]));
  assert.ok(errors.every((error) => error instanceof Overloaded && error.context.outcome === 'not_executed'));
  assert.equal(begun, 2 * most - errors.length);
  assert.deepEqual(new Set(await Promise.all(given)), new Set(['AbortError']));
});

test('a function says how far it has come, as long as it runs', async (t) => {
  const m = await opened(t);
  const [told, kept] = [[], []];
  await m.tool('f', { name: 'f', inputSchema: ANY }, async (_, { progress }) => {
    kept.push(progress);
    progress(1, 3);
    await sleep(1);
    progress(2, 3, 'nearly');
    return 'done';
  });
  const answer = await m.call('f', 'f', {}, { onProgress: (step) => told.push(step) });
  assert.equal(answer.content[0].text, 'done');
  await until(() => told.length >= 2, 'progress');
  kept[0](3, 3);
  assert.equal((await m.call('f', 'f')).content[0].text, 'done', 'nobody has to listen');
  assert.deepEqual(told, [{ progress: 1, total: 3 }, { progress: 2, total: 3, message: 'nearly' }]);
  await m.close();
  kept[1](3, 3);
});

test('progress that is none is refused where it is said', async (t) => {
  for (const wrong of ['half', undefined, null, NaN]) {
    const answer = await answered(t, (_, { progress }) => {
      assert.throws(() => progress(wrong), Invalid);
      progress(1, 'two');
    });
    assert.ok(answer.isError && /total/.test(answer.content[0].text), JSON.stringify(answer));
  }
});

test('who says how far it has come is not held for silent', async (t) => {
  const m = await opened(t);
  await m.tool('f', { name: 'f', inputSchema: ANY }, async ({ tells }, { progress }) => {
    for (let step = 1; step <= 8; step += 1) {
      await sleep(300);
      if (tells) progress(step);
    }
    return tells ? 'done' : new Promise(() => {});
  });
  await m.put({ ...(await m.get('f')), routing_policy: { idle_timeout: '2s', timeout: '30s' } });
  assert.equal((await m.call('f', 'f', { tells: true })).content[0].text, 'done');
  assert.equal((await failure(m.call('f', 'f', { tells: false }), Timeout)).message, 'no sign of progress');
});

test('a function is one of several instances of its service', async (t) => {
  const m = await opened(t, 'memory:', { config: { health: { slow_start: '0s' } } });
  const { url, kill } = await remoteFixture(t);
  await m.register({ name: 'math', routing_policy: { balancer: 'round_robin' }, instances: [{ http: { url } }] });
  await until(async () => (await m.get('math')).status === 'healthy', 'health');
  const { name, description, inputSchema } = await m.getTool('math', 'add');
  await m.tool('math', { name, description, inputSchema }, ({ a, b }) => `natively ${a + b}`);
  const { id } = (await m.get('math')).instances.find(({ in_process }) => in_process);
  const natively = async () => {
    const texts = [];
    for (let call = 0; call < 10; call += 1) texts.push((await m.call('math', name, { a: 2, b: 3 })).content[0].text);
    assert.ok(texts.every((text) => ['5', 'natively 5'].includes(text)), String(texts));
    return texts.filter((text) => text !== '5').length;
  };
  const shared = await natively();
  assert.ok(shared >= 3 && shared <= 7, String(shared));
  const counted = async () => (await m.journal('call', { service: 'math', instance: id })).items.length;
  await until(async () => (await counted()) === shared, 'the count');
  await kill();
  await m.check('math');
  assert.equal(await natively(), 10);
  await until(async () => (await counted()) === shared + 10, 'the count');
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

test('what runs when the registry is closed ends with a typed error, and what waits too', async (t) => {
  const m = await opened(t);
  const told = [];
  await m.tool('f', { name: 'f', inputSchema: ANY, executions_max: 1 }, (_, { signal }) => new Promise(() => {
    signal.addEventListener('abort', () => told.push('abort'));
  }));
  const [ran, waited] = [1, 2].map(() => failure(m.call('f', 'f'), MachinaError));
  await sleep(50);
  await m.close();
  const said = async (failed) => [(await failed).code, (await failed).context.outcome];
  assert.deepEqual(await said(ran), ['lost', 'unknown']);
  assert.deepEqual(await said(waited), ['unavailable', 'not_executed']);
  await until(() => told.length === 1, 'the abort');
});
