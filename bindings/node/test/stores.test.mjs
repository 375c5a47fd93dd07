// Stores that are shared with other processes: PostgreSQL, and Redis beside any store.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import test from 'node:test';
import { setTimeout as sleep } from 'node:timers/promises';

import { Invalid, Overloaded } from '../index.mjs';
import { failure, opened } from './support.mjs';

/** The address of a server, which `test.sh` starts. */
function url(variable) {
  assert.ok(process.env[variable], `${variable} is not set: run bindings/node/test.sh, or set it`);
  return process.env[variable];
}

/** Runs `scenario` until it holds, at most so many times: who waits for Redis for over 100 ms counts by itself for a while. */
async function atBest(rounds, scenario) {
  for (let round = 1; ; round += 1) {
    try {
      return await scenario();
    } catch (error) {
      if (round === rounds) throw error;
      await sleep(1_000);
    }
  }
}

const REDIS = () => ({ store: { redis: url('MACHINA_TEST_REDIS_URL') } });

test('two that share a Redis count calls together', async (t) => {
  const access = { calls_per_minute: 1, calls_burst: 3 };
  const machinas = [];
  for (const config of [{ access, ...REDIS() }, { access, ...REDIS() }, { access }]) {
    const m = await opened(t, 'memory:', { config });
    await m.tool('words', { name: 'shout', inputSchema: { type: 'object' } }, () => 'A');
    machinas.push(m);
  }
  const together = async () => {
    const ann = { id: `ann-${randomUUID()}`, role: 'developer' };
    const [one, other, own] = machinas.map((m) => m.scoped(ann));
    for (const m of [one, other, one]) assert.equal((await m.call('words', 'shout')).content[0].text, 'A');
    for (const m of [one, other]) await failure(m.call('words', 'shout'), Overloaded);
    assert.equal((await own.call('words', 'shout')).content[0].text, 'A', 'it counts by itself');
  };
  await atBest(5, together);
});

test('two on one database see each other', async (t) => {
  const store = new URL(url('MACHINA_TEST_POSTGRES_URL'));
  store.searchParams.set('schema', `node_${randomUUID().replaceAll('-', '')}`);
  const [one, other] = [await opened(t, store.href, { config: REDIS() }), await opened(t, store.href, { config: REDIS() })];
  const events = other.watch();
  await one.register({ name: 'shared' });
  for await (const event of events) if (event.service === 'shared') break;
  assert.equal((await other.get('shared')).name, 'shared');
});

test('what is no Redis is refused, and not repeated', async (t) => {
  for (const [store, field] of [
    [{ redis: 'http://:hunter2@host' }, 'store.redis'],
    [{ redis: 6379 }, 'store.redis'],
    [{ url: 'sqlite:hunter2.db' }, 'store.url'],
    ['redis://:hunter2@host', 'store'],
  ]) {
    const error = await failure(opened(t, 'memory:', { config: { store } }), Invalid);
    assert.equal(error.context.problems[0].field, field);
    assert.ok(!(error.stack + JSON.stringify(error.context)).includes('hunter2'), error.stack);
  }
});

test('a Redis that is away holds nothing up', async (t) => {
  const m = await opened(t, 'memory:', { config: { store: { redis: 'redis://127.0.0.1:9' } } });
  assert.equal((await m.register({ name: 'a' })).name, 'a');
});
