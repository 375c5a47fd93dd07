// What goes wrong: wrong types, closed handles, cancelled calls, many at once, threads that end.

import assert from 'node:assert/strict';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import path from 'node:path';

import { Invalid, Machina, MachinaError, Unavailable, setLogger } from '../index.mjs';
import { PACKAGE, built, child, failure, opened, until, withFunctions } from './support.mjs';

test('arguments of wrong types are refused with a typed error, and nothing is lost', async (t) => {
  const m = await opened(t);
  await m.register({ name: 'a' });
  const circle = {};
  circle.self = circle;
  const wrong = [
    () => Machina.open(), () => Machina.open(5), () => Machina.open('memory:', null), () => Machina.open('memory:', 'x'),
    () => Machina.open('memory:', { monitor: 'yes' }), () => Machina.open('memory:', { config: 1n }),
    () => m.register(), () => m.register(null), () => m.register('a'), () => m.register(circle), () => m.register({}),
    () => m.register({ name: 5 }), () => m.register({ name: 'b', tags: 'x' }), () => m.register({ name: 'b', colour: 1 }),
    () => m.update('a'), () => m.update(undefined, { name: 'a' }), () => m.update('a', { name: 'a' }, { expected: 'x' }),
    () => m.update('a', { name: 'a' }, { expected: -1 }), () => m.deregister(), () => m.deregister({}),
    () => m.get(), () => m.get(5), () => m.get(null), () => m.get({}), () => m.find(5), () => m.find({ colour: 1 }),
    () => m.find({ limit: 0 }), () => m.find({ limit: 'x' }), () => m.find({ tags: 'a' }), () => m.find({ cursor: '%' }),
    () => m.tools({ limit: 0 }), () => m.findTools(), () => m.findTools(''), () => m.findTools('a', { limit: 1000 }),
    () => m.health(5), () => m.explain(5), () => m.explain('a', 5), () => m.apply(), () => m.apply({}),
    () => m.apply([{ destroy: { name: 'a' } }]), () => m.putGroup({}), () => m.journal('gossip'), () => m.getTool('a', 5), () => m.tool('a', 5, () => 1),
    () => m.call(), () => m.call('a'), () => m.call('a', 5), () => m.call('a', 'b', 'c'), () => m.call('a', 'b', [1]),
    () => m.call('a', 'b', { n: 1n }), () => m.call('a', 'b', {}, 5), () => m.call('a', 'b', {}, null),
    () => m.call('a', 'b', {}, { colour: 1 }), () => m.call('a', 'b', {}, { timeout_ms: -1 }),
    () => m.call('a', 'b', {}, { timeout_ms: 'x' }), () => m.call('a', 'b', {}, { signal: {} }),
    () => m.call('a', 'b', {}, { onProgress: 5 }), () => m.removeTool('a', 5), () => m.setAdminState('a', 'asleep'),
    () => m.update('a', { name: 'a' }, null), () => m.update('a', { name: 'a' }, { expect: 1 }), () => m.deregister('a', 5),
    () => m.findTools('a', null), () => m.putGroup({ name: 'g' }, { created: true }), () => m.journal('audit', { colour: 1 }),
  ];
  for (const [index, attempt] of wrong.entries()) {
    const error = await failure(attempt(), Invalid);
    assert.equal(error.code, 'invalid', `${index}: ${attempt}`);
    assert.ok(error.message.length > 5 && error.stack.includes('trouble.test.mjs'), `${attempt}: ${error.stack}`);
  }
  assert.throws(() => m.scoped(), Invalid);
  assert.throws(() => new Machina(), Invalid);
  assert.throws(() => setLogger(5), Invalid);
  assert.throws(() => setLogger(() => {}, 'machina_core=loud'), Invalid);
  assert.equal((await m.find()).items.length, 1);
});

test('text survives whatever it is made of', async (t) => {
  const m = await opened(t);
  const description = 'ä \u0001 " \\ 🌍 \ud800 end';
  await m.register({ name: 'a', description: description.replace('\ud800', '') });
  assert.equal((await m.get('a')).description, description.replace('\ud800', ''));
  await m.put({ name: 'a', description }).catch((error) => assert.ok(error instanceof Invalid));
  const metadata = { big: Number.MAX_SAFE_INTEGER, small: 1e-300, __proto__x: 1, list: [[[]]] };
  assert.deepEqual((await m.put({ name: 'a', metadata })).metadata, metadata);
});

test('a handle that is closed says so, in every method', async () => {
  const m = await Machina.open('memory:');
  const scoped = m.scoped({ id: 'a', role: 'viewer' });
  assert.equal(m.closed, false);
  await Promise.all([m.close(), m.close()]);
  await m.close();
  assert.ok(m.closed && scoped.closed);
  const used = [
    () => m.get('a'), () => m.find(), () => m.register({ name: 'a' }), () => m.call('a', 'b'), () => m.health('a'),
    () => m.tools(), () => m.findTools('a'), () => m.explain('a'), () => m.deregister('a'), () => m.apply([]),
    () => m.tool('a', { name: 'f', inputSchema: {} }, () => 1), () => m.removeTool('a', 'f'), () => scoped.get('a'),
  ];
  for (const use of used) assert.match((await failure(use(), Unavailable)).message, /closed/);
  assert.throws(() => m.watch(), Unavailable);
  assert.throws(() => m.scoped({ id: 'a', role: 'viewer' }), Unavailable);
});

test('await using closes it', async () => {
  const m = await Machina.open('memory:');
  await m[Symbol.asyncDispose]();
  assert.ok(m.closed);
});

test('a call that is cancelled ends at once, and says what is known', async (t) => {
  const m = await opened(t);
  const service = await withFunctions(m);
  const controller = new AbortController();
  const calling = failure(m.call(service, 'never', {}, { signal: controller.signal }), MachinaError);
  await sleep(50);
  const began = Date.now();
  controller.abort();
  const error = await calling;
  assert.ok(Date.now() - began < 2_000);
  assert.deepEqual([error.name, error.context.outcome, error.cause.name], ['AbortError', 'unknown', 'AbortError']);
  const early = await failure(m.call(service, 'double', { n: 1 }, { signal: AbortSignal.abort('no') }), MachinaError);
  assert.deepEqual([early.name, early.cause], ['AbortError', 'no']);
  const timely = AbortSignal.timeout(60_000);
  assert.equal((await m.call(service, 'double', { n: 1 }, { signal: timely })).structuredContent.doubled, 2);
});

test('progress is told while a call runs', async (t) => {
  const m = await opened(t);
  const args = ['stdio', '--profile', 'conformance'];
  await m.register({ name: 'f', instances: [{ stdio: { command: built('machina-fixture'), args } }] });
  await until(async () => (await m.health('f')).status === 'healthy', 'health');
  const told = [];
  await m.call('f', 'test_tool_with_progress', {}, { onProgress: (step) => told.push(step.progress) });
  await until(() => told.length >= 2, 'progress');
  assert.deepEqual(told.slice(0, 2), [0, 50]);
});

test('ten thousand calls and look-ups at once', async (t) => {
  const m = await opened(t);
  await m.tool('f', { name: 'f', inputSchema: { type: 'object' }, executions_max: 10_000 }, ({ n }) => ({ n }));
  // The limit of calls in flight per instance is not what is looked at here.
  const service = await m.get('f');
  await m.put({ ...service, routing_policy: { in_flight_max: 10_000 } });
  const looked = Array.from({ length: 10_000 }, () => m.get('f'));
  const found = Array.from({ length: 1_000 }, () => m.find({ limit: 1 }));
  const called = Array.from({ length: 10_000 }, (_, n) => m.call('f', 'f', { n }, { timeout_ms: 180_000 }));
  assert.ok((await Promise.all(looked)).every(({ name }) => name === 'f'));
  assert.ok((await Promise.all(found)).every(({ items }) => items.length === 1));
  const answers = await Promise.all(called);
  assert.ok(answers.every(({ structuredContent }, n) => structuredContent.n === n));
});

test('the log is silent until it is asked for', async (t) => {
  const records = [];
  setLogger((record) => records.push(record), 'trace');
  t.after(() => setLogger(null));
  const m = await opened(t);
  await m.register({ name: 'gone', instances: [{ stdio: { command: '/no/such/command' } }] });
  const some = await until(() => records.find(({ target }) => target.startsWith('machina')), 'a record');
  assert.deepEqual(Object.keys(some).slice(0, 5), ['at', 'level', 'target', 'message', 'fields']);
  setLogger(null);
  await sleep(50);
  const { length } = records;
  await m.check('gone');
  await sleep(50);
  assert.equal(records.length, length);
});

const script = (name, code) => test(name, async () => {
  const { expected = '', within = 10, ...run } = code;
  const took = [];
  // A machine that has other things to do may stand still for a moment, and not each time.
  while (took.length < 3 && !(took.at(-1) < within)) {
    const ended = await child(run.source, { seconds: 60 });
    assert.deepEqual([ended.code, ended.signal, ended.stdout], [0, null, expected], ended.stderr);
    if (!run.noisy) assert.equal(ended.stderr, '');
    took.push(ended.seconds);
  }
  assert.ok(took.at(-1) < within, `it took ${took.join(', ')} s`);
});

script('nothing is printed, and a process with an open registry ends', {
  source: `
    const m = await Machina.open('memory:');
    await m.register({ name: 'gone', instances: [{ stdio: { command: '/no/such/command' } }, { http: { url: 'http://127.0.0.1:9/' } }] });
    await m.tool('f', { name: 'f', inputSchema: {} }, () => 1);
    console.log('end');`,
  expected: 'end',
});

script('process.exit with calls, streams and look-ups in flight is clean', {
  source: `
    const m = await Machina.open('memory:');
    await m.tool('f', { name: 'never', inputSchema: {} }, () => new Promise(() => {}));
    await m.tool('f', { name: 'quick', inputSchema: {} }, () => 1);
    const ignored = () => {};
    for (let i = 0; i < 500; i += 1) { m.call('f', 'never').catch(ignored); m.call('f', 'quick').catch(ignored); m.find(); m.watch().next(); }
    await new Promise((done) => setTimeout(done, 20));
    await m.find();
    console.log('end');
    process.exit(0);`,
  expected: 'end',
});

script('an exception that nobody catches ends the process as it always does', {
  source: `
    process.on('exit', (code) => { console.log('code', code); process.exitCode = 0; });
    process.on('uncaughtException', () => process.exit(0));
    const m = await Machina.open('memory:');
    await m.tool('f', { name: 'f', inputSchema: {} }, () => 1);
    m.call('f', 'f').then(() => { throw new Error('mine'); });`,
  expected: 'code 0',
});

script('a registry that is closed while calls run ends the process', {
  source: `
    const m = await Machina.open('memory:');
    await m.tool('f', { name: 'never', inputSchema: {} }, () => new Promise(() => {}));
    const calls = Array.from({ length: 50 }, () => m.call('f', 'never').catch((error) => error.constructor.name));
    setTimeout(() => m.close(), 100);
    console.log(new Set(await Promise.all(calls)).size);`,
  expected: '1',
  within: 18,
});

test('children of an open registry end with the process', async () => {
  const command = JSON.stringify(built('machina-fixture'));
  const ended = await child(`
    const m = await Machina.open('memory:');
    await m.register({ name: 'f', instances: [{ stdio: { command: ${command}, args: ['stdio'] } }] });
    let health;
    do { await new Promise((done) => setTimeout(done, 50)); health = await m.health('f'); } while (health.status !== 'healthy');
    console.log(health.instances[0].process_id);
    process.exit(0);`);
  assert.equal(ended.code, 0, ended.stderr);
  const id = Number(ended.stdout);
  assert.ok(id > 1);
  const alive = () => { try { process.kill(id, 0); return true; } catch { return false; } };
  await until(() => !alive(), 'the end of the child');
});

test('worker threads have registries of their own, and may be ended at any moment', async (t) => {
  const m = await opened(t);
  const service = await withFunctions(m);
  const source = `
    const { Machina } = require(${JSON.stringify(path.join(PACKAGE, 'index.js'))});
    const { parentPort } = require('node:worker_threads');
    (async () => {
      const m = await Machina.open('memory:');
      await m.tool('w', { name: 'double', inputSchema: {} }, ({ n }) => ({ doubled: 2 * n }));
      await m.tool('w', { name: 'never', inputSchema: {} }, () => new Promise(() => {}));
      const { structuredContent } = await m.call('w', 'double', { n: 4 });
      for (let i = 0; i < 100; i += 1) { m.call('w', 'never').catch(() => {}); m.call('w', 'double', { n: i }).catch(() => {}); m.watch().next().catch(() => {}); }
      parentPort.postMessage(structuredContent.doubled);
      setInterval(() => {}, 1000);
    })();`;
  for (let round = 0; round < 5; round += 1) {
    const workers = [1, 2].map(() => new Worker(source, { eval: true }));
    const said = await Promise.all(workers.map((worker) => new Promise((done, failed) => {
      worker.once('message', done).once('error', failed);
    })));
    assert.deepEqual(said, [8, 8]);
    await Promise.all(workers.map((worker) => worker.terminate()));
    assert.equal((await m.call(service, 'double', { n: round })).structuredContent.doubled, 2 * round);
  }
});

script('a process whose only registry was in a worker ends', {
  source: `
    import { Worker } from 'node:worker_threads';
    const source = \`
      const { Machina } = require(${JSON.stringify(path.join(PACKAGE, 'index.js'))});
      (async () => { const m = await Machina.open('memory:'); await m.register({ name: 'a' }); console.log('opened'); })();\`;
    const worker = new Worker(source, { eval: true, execArgv: [] });
    worker.on('exit', (code) => console.log('worker', code));`,
  expected: 'opened\nworker 0',
});
