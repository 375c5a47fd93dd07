// The facade: every method, on a registry in this process and on one that is asked over HTTP.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import test from 'node:test';

import * as machinaModule from '../index.mjs';
import {
  Conflict, Forbidden, Invalid, Machina, MachinaError, NotFound, Unavailable, Unreachable, Unsupported,
} from '../index.mjs';
import { ROOT, built, directory, failure, opened, server, until, withFunctions } from './support.mjs';

const fixture = (name) => ({ name, instances: [{ stdio: { command: built('machina-fixture'), args: ['stdio'] } }] });

test('import and require give the same classes', () => {
  const required = createRequire(import.meta.url)('../index.js');
  assert.deepEqual(Object.keys(required).sort(), Object.keys(machinaModule).filter((name) => name !== 'module.exports').sort());
  assert.equal(required.Machina, Machina);
});

test('every kind of error has a class', () => {
  const table = fs.readFileSync(path.join(ROOT, 'docs/reference/errors.md'), 'utf8');
  const codes = [...table.matchAll(/^\| `([a-z_]+)` \| <a id=/gm)].map(([, code]) => code);
  assert.ok(codes.length >= 13, codes.join());
  for (const code of codes) {
    const name = code.replace(/(^|_)([a-z])/g, (_, _before, letter) => letter.toUpperCase());
    assert.ok(machinaModule[name]?.prototype instanceof MachinaError, `${name} for ${code}`);
  }
});

for (const where of ['here', 'elsewhere']) {
  const reach = async (t) => opened(t, where === 'here' ? 'memory:' : await server(t));

  test(`services are registered, read, changed and removed: ${where}`, async (t) => {
    const m = await reach(t);
    const first = await m.register({ name: 'a', tags: ['x', 'y'], description: 'words' });
    assert.equal(first.name, 'a');
    assert.deepEqual((await m.get('a')).tags, ['x', 'y']);
    assert.equal((await m.get(first.id)).name, 'a');
    const changed = await m.update('a', { name: 'a', description: 'others' }, { expected: first.revision });
    assert.ok(changed.revision > first.revision);
    const stale = await failure(m.update('a', { name: 'a' }, { expected: first.revision }), Conflict);
    assert.equal(stale.code, 'conflict');
    assert.equal((await m.put({ name: 'b' })).name, 'b');
    const { services, revision } = await m.apply([{ put: { name: 'c' } }, { deregister: { name: 'b' } }]);
    assert.deepEqual(services.map(({ name }) => name), ['c']);
    const page = await m.find({ limit: 1 });
    assert.deepEqual(page.items.map(({ name }) => name), ['a']);
    assert.equal(page.revision, revision);
    const next = await m.find({ limit: 1, cursor: page.next_cursor });
    assert.deepEqual([next.items[0].name, next.next_cursor], ['c', null]);
    assert.equal((await m.setAdminState('c', 'maintenance', { reason: 'new disk' })).status, 'maintenance');
    assert.equal((await m.health('c')).admin_reason, 'new disk');
    assert.equal((await m.overview()).services, 2);
    assert.ok(await m.deregister('c') > revision);
    const gone = await failure(m.get('c'), NotFound);
    assert.deepEqual([gone.code, gone.name, gone.context.service], ['not_found', 'NotFound', 'c']);
    assert.match(gone.message, /no service is named `c`/);
    await failure(m.deregister('c'), NotFound);
  });

  test(`a real server is called: ${where}`, async (t) => {
    const m = await reach(t);
    await m.register(fixture('fixture'));
    await until(async () => (await m.health('fixture')).status === 'healthy', 'health');
    const answer = await m.call('fixture', 'add', { a: 2, b: 3 });
    assert.equal(answer.content[0].text, '5');
    assert.equal(answer._meta['dev.machina/call'].attempts, 1);
    const [best] = await m.findTools('add two numbers', { limit: 1 });
    assert.deepEqual([best.service, best.name], ['fixture', 'add']);
    assert.equal((await m.getTool('fixture', 'add')).hash, best.hash);
    assert.ok((await m.tools({ service: 'fixture' })).items.length > 3);
    const { candidates } = await m.explain('fixture', 'add');
    assert.equal(candidates[0].eligible, true);
    const wrong = await failure(m.call('fixture', 'add', { a: 'two', b: 3 }), Invalid);
    assert.deepEqual([wrong.context.problems[0].field, wrong.context.outcome], ['arguments.a', 'not_executed']);
    await m.pinTools('fixture', { pinning: 'strict' }).catch((error) => assert.ok(error instanceof Invalid, error.stack));
    await failure(m.call('fixture', 'nothing'), NotFound);
  });

  test(`groups and heartbeats: ${where}`, async (t) => {
    const m = await reach(t);
    await m.register({ name: 'self', instances: [{ http: { url: 'http://127.0.0.1:9/mcp' }, lease_ttl: '60s' }] });
    assert.equal((await m.heartbeat('self')).service, 'self');
    await failure(m.heartbeat('nobody'), NotFound);
    const group = await m.putGroup({ name: 'reading', members: [{ service: 'self' }] }, { create_only: true });
    assert.equal(group.name, 'reading');
    await failure(m.putGroup({ name: 'reading' }, { create_only: true }), Conflict);
    assert.deepEqual((await m.groups()).map(({ name }) => name), ['reading']);
    assert.equal((await m.group('reading')).members[0].service, 'self');
    assert.ok(await m.removeGroup('reading', { expected: group.revision }) > 0);
    await failure(m.group('reading'), NotFound);
  });
}

test('one elsewhere says what it cannot do', async (t) => {
  const m = await opened(t, await server(t));
  await failure(m.check('a'), Unsupported);
  await failure(m.journal('audit'), Unsupported);
  await failure(m.tool('a', { name: 'f', inputSchema: {} }, () => 1), Unsupported);
  assert.throws(() => m.scoped({ id: 'a', role: 'viewer' }), Unsupported);
});

test('a store of SQLite keeps services, and says when another has it', async (t) => {
  const url = `sqlite:${path.join(directory(t), 'm.db')}`;
  const first = await Machina.open(url, { monitor: false });
  await first.register({ name: 'kept' });
  await failure(Machina.open(url), Unavailable);
  await first.close();
  const second = await opened(t, url, { monitor: false });
  assert.equal((await second.get('kept')).name, 'kept');
});

test('a principal sees and does what it may', async (t) => {
  const m = await opened(t);
  await m.register({ name: 'a' });
  const viewer = m.scoped({ id: 'alice', role: 'viewer' });
  assert.equal((await viewer.get('a')).name, 'a');
  await failure(viewer.deregister('a'), Forbidden);
  assert.throws(() => m.scoped({ id: 'a', role: 'king' }), Invalid);
  const audit = await m.journal('audit', { limit: 10 });
  assert.ok(audit.items.some(({ service }) => service === 'a'), JSON.stringify(audit));
});

test('instances are probed on demand', async (t) => {
  const m = await opened(t, 'memory:', { monitor: false });
  await m.register({ name: 'gone', instances: [{ stdio: { command: '/no/such/command' } }] });
  const health = await m.check('gone');
  assert.notEqual(health.status, 'healthy');
  assert.notEqual(health.health.reason.message, '');
});

test('configuration and environment are taken, and what is wrong in them is named', async (t) => {
  const m = await opened(t, 'memory:', {
    config: { limits: { services_max: 1 }, stdio: { starts_max: 2 } },
    env: { TOKEN: 'a' },
  });
  await m.register({ name: 'one' });
  assert.equal((await failure(m.register({ name: 'two' }))).code, 'overloaded');
  const unknown = await failure(Machina.open('memory:', { config: { limits: { colour: 1 } } }), Invalid);
  assert.match(unknown.message, /colour/);
  assert.match((await failure(Machina.open('memory:', { config: { stdio: { colour: 1 } } }), Invalid)).message, /colour/);
  assert.match((await failure(Machina.open('memory:', { colour: 1 }), Invalid)).message, /colour/);
  assert.equal((await failure(Machina.open('memory:', { env: { A: 1 } }), Invalid)).context.problems[0].field, 'environment.A');
});

test('an address that is none, and one where nobody answers, are told apart', async () => {
  await failure(Machina.open('ftp://a'), Invalid);
  await failure(Machina.open('/no/such/directory/'), Invalid);
  await failure(Machina.open('http://127.0.0.1:9'), Unreachable);
});

test('functions are found, called and taken away', async (t) => {
  const m = await opened(t);
  const service = await withFunctions(m);
  assert.equal((await m.get(service)).status, 'healthy');
  const answer = await m.call(service, 'double', { n: 21 });
  assert.deepEqual(answer.structuredContent, { doubled: 42 });
  assert.equal(await m.removeTool(service, 'double'), true);
  assert.equal(await m.removeTool(service, 'double'), false);
});

test('what is read again is what is there now, and nobody can change it for the others', async (t) => {
  const m = await opened(t);
  await m.register({ name: 'a', description: 'first' });
  const seen = await m.get('a');
  assert.throws(() => { seen.description = 'mine'; }, TypeError);
  assert.throws(() => seen.tags.push('mine'), TypeError);
  assert.equal(await m.get('a'), seen, 'it has not changed');
  assert.equal((await m.get('a')).description, 'first');
  await m.put({ name: 'a', description: 'second' });
  assert.equal((await m.get('a')).description, 'second');
  await m.setAdminState('a', 'maintenance');
  assert.equal((await m.get('a')).status, 'maintenance');
  await m.deregister('a');
  await failure(m.get('a'), NotFound);
  await m.register({ name: 'a', description: 'third' });
  assert.equal((await m.get('a')).description, 'third');
});
