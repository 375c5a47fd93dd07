// Streams of events: from now on, from a revision, until somebody ends them.

import assert from 'node:assert/strict';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { Invalid, MachinaError } from '../index.mjs';
import { failure, opened, server } from './support.mjs';

async function types(stream, most) {
  const seen = [];
  for await (const event of stream) {
    seen.push(`${event.type} ${event.service}`);
    if (seen.length === most) break;
  }
  return seen;
}

for (const where of ['here', 'elsewhere']) {
  test(`what happens after watch() is told: ${where}`, async (t) => {
    const m = await opened(t, where === 'here' ? 'memory:' : await server(t));
    const { revision } = await m.find();
    const stream = m.watch({ since: revision });
    await m.register({ name: 'a' });
    await m.deregister('a');
    assert.deepEqual(await types(stream, 2), ['service_registered a', 'service_deregistered a']);
    assert.deepEqual(await stream.next(), { done: true, value: undefined });
  });
}

test('nothing is missed between watch() and the first next()', async (t) => {
  const m = await opened(t);
  for (let round = 0; round < 50; round += 1) {
    const stream = m.watch();
    await m.put({ name: 'a', description: `${round}` });
    const { value } = await stream.next();
    assert.equal(value.service, 'a');
    await stream.return();
  }
});

test('an older revision is told again, or to resync', async (t) => {
  const m = await opened(t, 'memory:', { config: { limits: { events_max: 2 } } });
  const { revision } = await m.register({ name: 'a' });
  await m.register({ name: 'b' });
  assert.deepEqual(await types(m.watch({ since: revision }), 1), ['service_registered b']);
  for (let round = 0; round < 4; round += 1) await m.put({ name: 'a', description: `${round}` });
  const { value } = await m.watch({ since: revision }).next();
  assert.deepEqual(value, { type: 'resync' });
});

test('a signal ends it with an AbortError', async (t) => {
  const m = await opened(t);
  const controller = new AbortController();
  const reading = types(m.watch({ signal: controller.signal }), 1);
  await sleep(20);
  controller.abort(new Error('enough'));
  const error = await failure(reading, MachinaError);
  assert.deepEqual([error.name, error.cause.message], ['AbortError', 'enough']);
  const before = await failure(m.watch({ signal: AbortSignal.abort() }).next(), MachinaError);
  assert.equal(before.name, 'AbortError');
});

test('the close of the registry is its end', async (t) => {
  const m = await opened(t);
  const reading = types(m.watch(), 1);
  await sleep(20);
  await m.close();
  assert.deepEqual(await reading, []);
});

test('several readers, and several who wait for one, are each told', async (t) => {
  const m = await opened(t);
  const streams = [m.watch(), m.watch()];
  const pending = streams.map((stream) => stream.next());
  const shared = m.watch();
  const both = [shared.next(), shared.next()];
  await m.register({ name: 'a' });
  await m.register({ name: 'b' });
  assert.deepEqual((await Promise.all(pending)).map(({ value }) => value.service), ['a', 'a']);
  assert.deepEqual((await Promise.all(both)).map(({ value }) => value.service).sort(), ['a', 'b']);
});

test('what is no revision and no signal is refused', async (t) => {
  const m = await opened(t);
  for (const since of ['1', 1.5, NaN, {}]) assert.throws(() => m.watch({ since }), Invalid);
  assert.throws(() => m.watch({ since: -1 }), Invalid);
  assert.throws(() => m.watch({ signal: {} }), Invalid);
  assert.throws(() => m.watch(null), Invalid);
});
