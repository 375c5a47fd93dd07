// Builds the addon where the package was checked out, and puts it beside this file.
//
//   MACHINA_PROFILE   the profile of cargo: release (default, stripped), or dev for a build that takes less long
'use strict';

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const LIBRARIES = { linux: 'libmachina_node.so', darwin: 'libmachina_node.dylib', win32: 'machina_node.dll' };

/** What `native.js` looks for on this machine. */
function addonName() {
  const { platform, arch } = process;
  if (platform !== 'linux') return platform === 'win32' ? `machina.win32-${arch}-msvc.node` : `machina.${platform}-${arch}.node`;
  const glibc = process.report?.getReport().header.glibcVersionRuntime;
  return `machina.linux-${arch}-${glibc ? 'gnu' : 'musl'}.node`;
}

function cargo(workspace, ...args) {
  const { error, status, stdout } = spawnSync('cargo', args, { cwd: workspace, stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8', maxBuffer: 1 << 28 });
  if (error?.code === 'ENOENT') throw new Error('cargo is missing: install Rust (https://rustup.rs), then try again');
  if (error) throw error;
  if (status !== 0) throw new Error(`cargo ${args.join(' ')} failed with code ${status}`);
  return stdout;
}

function install() {
  const addon = path.join(__dirname, addonName());
  const workspace = path.resolve(__dirname, '../..');
  if (!fs.existsSync(path.join(__dirname, 'Cargo.toml'))) {
    if (fs.existsSync(addon)) return;
    throw new Error('there is no addon for this platform, and no source beside it: install from a checkout of Machina');
  }
  const profile = process.env.MACHINA_PROFILE || 'release';
  const shown = cargo(workspace, 'metadata', '--format-version', '1', '--no-deps');
  const target = JSON.parse(shown).target_directory;
  const locked = process.env.CI ? ['--locked'] : [];
  cargo(workspace, 'build', '--package', 'machina-node', '--profile', profile, ...locked);
  const built = path.join(target, profile === 'dev' ? 'debug' : profile, LIBRARIES[process.platform] ?? LIBRARIES.linux);
  // In one step: a process that has the old one loaded keeps it.
  fs.copyFileSync(built, `${addon}.new`);
  fs.renameSync(`${addon}.new`, addon);
  const megabytes = (fs.statSync(addon).size / 1e6).toFixed(1);
  console.log(`machina: built ${path.basename(addon)} (${profile}), ${megabytes} MB`);
}

try {
  install();
} catch (error) {
  console.error(`machina: ${error.message}`);
  process.exitCode = 1;
}
