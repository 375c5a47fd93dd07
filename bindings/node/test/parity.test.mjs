// docs/reference/parity.md names, in its column for Node, every method of `Machina`, and only those.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import test from 'node:test';

import { Machina } from '../index.mjs';
import { ROOT } from './support.mjs';

const page = fs.readFileSync(path.join(ROOT, 'docs/reference/parity.md'), 'utf8');

/** The cells of the rows under `Node`, with what stands first in the row. */
function column(text) {
  const rows = text.split('\n').filter((line) => line.startsWith('|')).map((line) => line.split('|').map((cell) => cell.trim()));
  const index = rows[0].indexOf('Node');
  assert.ok(index > 0, 'the table has a column `Node`');
  return rows.slice(2).map((row) => [row[1], row[index]]);
}

const names = (cell) => [...cell.matchAll(/`(\w+)`/g)].map(([, name]) => name);
const [facade, beside] = page.split('Beside the facade');

test('what the table names is there', () => {
  const rows = column(facade);
  assert.ok(rows.length > 30);
  for (const [method, cell] of rows) {
    if (cell.startsWith('–')) {
      assert.ok(cell.length > 2, `${method}: – and why there is none`);
    } else {
      assert.ok(names(cell).length > 0, `${method}: a method, or – and why there is none`);
    }
    for (const name of names(cell)) {
      assert.ok(name in Machina.prototype || name in Machina, `${method}: there is no ${name}`);
    }
  }
});

test('what is there is in the table', () => {
  const named = new Set([...column(facade), ...column(beside)].flatMap(([, cell]) => names(cell)));
  // Whether it was closed is asked of the handle, and of nothing else.
  const methods = Object.getOwnPropertyNames(Machina.prototype).filter((name) => !['constructor', 'closed'].includes(name));
  assert.deepEqual(methods.filter((name) => !named.has(name)), []);
});
