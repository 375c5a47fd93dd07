// Writes native.js and native.d.ts of what the macros of napi wrote while the addon was compiled.
//
//   generate.mjs FOLDER-OF-DEFINITIONS OUTPUT-FOLDER

import fs from 'node:fs';
import path from 'node:path';

import { generateTypeDef, writeJsBinding } from '@napi-rs/cli';

const [typeDefDir, outputDir] = process.argv.slice(2).map((folder) => path.resolve(folder));
const { name, version, napi: config } = JSON.parse(fs.readFileSync(new URL('package.json', import.meta.url), 'utf8'));
const { exports: idents, dts } = await generateTypeDef({ typeDefDir, cwd: outputDir, ...config });
if (idents.length === 0) throw new Error(`${typeDefDir} has no definitions: was the addon compiled anew?`);
await writeJsBinding({
  platform: true, idents, jsBinding: 'native.js', outputDir, binaryName: config.binaryName, packageName: name, version,
});
fs.writeFileSync(path.join(outputDir, 'native.d.ts'), dts);
