// What is published: whatever a file of the package refers to is in it.

import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import test from 'node:test';

import { PACKAGE } from './support.mjs';

const REFERENCE = /(?:from|require\(|import\()\s*['"](\.\.?\/[^'"]+)['"]/g;
const { exports, files, scripts } = JSON.parse(fs.readFileSync(path.join(PACKAGE, 'package.json'), 'utf8'));

/** Whether `files` has `file`, itself or with its directory. */
const published = (file) => files.some((entry) => file === entry || file.startsWith(`${entry}/`));

/** The files that `file` refers to: those of types refer to what they are the types of. */
function references(file) {
  const text = fs.readFileSync(path.join(PACKAGE, file), 'utf8');
  const types = /\.d\.m?ts$/.test(file);
  return [...text.matchAll(REFERENCE)].map(([, place]) => {
    const named = path.join(path.dirname(file), place);
    return types ? named.replace(/\.(m?)js$/, '.d.$1ts') : named;
  });
}

test('what the package refers to is published', () => {
  const first = [exports['.'].import, exports['.'].require].flatMap((kind) => Object.values(kind));
  const found = [...first, scripts.install.split(' ').at(-1)].map((file) => path.normalize(file));
  const seen = new Set();
  while (found.length > 0) {
    const file = found.pop();
    if (seen.has(file)) continue;
    seen.add(file);
    assert.ok(published(file), `${file} is not published: name it in \`files\` of package.json`);
    // The generated loader refers to the addon of every platform.
    if (file !== 'native.js') found.push(...references(file));
  }
  for (const file of ['native.js', 'errors.js', 'types/services.d.ts']) assert.ok(seen.has(file), `${file} was not seen`);
  assert.ok(files.includes('*.node'), 'the addon is published');
});
