// `bulkhead image`: the same packages give the same bytes, and whatever cuts a build short leaves the old image.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { build, bulkhead, run, sleep } from './harness.mjs';

// Fetched once and kept: tests/lab uses the same folder.
const packages = path.join(process.env.LAB_CACHE ?? path.join(build, 'lab'), 'packages');
const files = ['vmlinux', 'initramfs', 'root.erofs', 'scratch.img', 'manifest.json'];

describe('image', () => {
  let top;
  const place = (name) => path.join(top, name);
  const make = (name, from = packages) => bulkhead('image', 'build', 'base', '--data', place(name), '--packages', from);
  const bytes = (name, file) => fs.readFileSync(path.join(place(name), 'images/base', file));
  // what counts as there: names beginning with a dot are the builder's own
  const images = (name) => fs.readdirSync(path.join(place(name), 'images'));

  before(async () => {
    top = fs.mkdtempSync(path.join(os.tmpdir(), 'bulkhead-image-'));
    fs.mkdirSync(packages, { recursive: true });
    const { code, stdout, stderr } = await make('first');
    assert.equal(code, 0, stderr);
    assert.equal(stdout.trim(), path.join(fs.realpathSync(place('first')), 'images/base'));
  });
  after(() => fs.rmSync(top, { recursive: true, force: true }));

  test('two builds give the same bytes', async () => {
    const { code, stderr } = await make('second');
    assert.equal(code, 0, stderr);
    for (const file of files) assert.ok(bytes('first', file).equals(bytes('second', file)), `${file} differs`);
    const { stdout } = await run('diff', ['-r', '--no-dereference', path.join(place('first'), 'images/base/root'),
                                          path.join(place('second'), 'images/base/root')]);
    assert.equal(stdout, '');
    assert.deepEqual(images('second'), ['base']);
  });

  test('who builds does not matter', async (t) => {
    if (process.getuid() !== 0) return t.skip('needs root, to become somebody else');
    fs.mkdirSync(place('other'));
    fs.chmodSync(top, 0o755);
    fs.chownSync(place('other'), 65534, 65534);
    const { code, stderr } = await run('setpriv', ['--reuid', '65534', '--regid', '65534', '--clear-groups',
      path.join(build, 'bulkhead'), 'image', 'build', 'base', '--data', place('other'), '--packages', packages]);
    assert.equal(code, 0, stderr);
    for (const file of files) assert.ok(bytes('first', file).equals(bytes('other', file)), `${file} differs`);
  });

  test('the manifest names every input and output with its hash', async () => {
    const manifest = JSON.parse(bytes('first', 'manifest.json'));
    assert.equal(manifest.name, 'base');
    assert.match(manifest.kernel, /^\d+\.\d+.*cloud-amd64$/);
    const named = [...manifest.packages.map((one) => [path.join(packages, one.file), one]),
                   [path.join(build, 'bulkhead-agent'), manifest.agent],
                   ...manifest.files.map((one) => [path.join(place('first'), 'images/base', one.file), one])];
    assert.equal(named.length, 2 + 1 + 4);
    for (const [file, one] of named) {
      const { stdout } = await run('sha256sum', [file]);
      assert.equal(stdout.split(' ')[0], one.sha256, file);
      assert.equal(fs.statSync(file).size, one.bytes);
    }
  });

  test('the kernel says where PVH enters, and no byte of it is read in vain', async () => {
    const { stdout } = await run('readelf', ['-lnW', path.join(place('first'), 'images/base/vmlinux')]);
    assert.match(stdout, /Xen\s+0x0000000[48]\s+Unknown note type: \(0x00000012\)/);
    const loads = stdout.split('\n').filter((line) => /^\s+LOAD/.test(line));
    assert.ok(loads.length >= 4 && loads.length <= 16, stdout);
    for (const line of loads) assert.equal(parseInt(line.trim().split(/\s+/)[1], 16) % 4096, 0, line);
  });

  test('the root has its users and its programs', async () => {
    const root = path.join(place('first'), 'images/base/root');
    assert.equal(fs.readlinkSync(path.join(root, 'bin/sh')), '/bin/busybox');
    assert.match(fs.readFileSync(path.join(root, 'etc/passwd'), 'utf8'), /^sandbox:x:1000:1000:/m);
    assert.equal(fs.statSync(path.join(root, 'tmp')).mode & 0o7777, 0o1777);
    const checked = await run('fsck.erofs', [path.join(place('first'), 'images/base/root.erofs')]);
    assert.equal(checked.code, 0, checked.stderr);
    const scratch = await run('e2fsck', ['-fn', path.join(place('first'), 'images/base/scratch.img')]);
    assert.equal(scratch.code, 0, scratch.stdout + scratch.stderr);
  });

  test('list', async () => {
    const { code, stdout } = await bulkhead('image', 'list', '--data', place('first'), '--json');
    assert.equal(code, 0);
    assert.deepEqual(JSON.parse(stdout), { data: [JSON.parse(bytes('first', 'manifest.json'))] });
    assert.match((await bulkhead('image', 'list', '--data', place('first'))).stdout, /^base +\d+ KiB +\d+\./);
    assert.deepEqual(JSON.parse((await bulkhead('image', 'list', '--data', place('none'), '--json')).stdout), { data: [] });
  });

  test('no such recipe, and names that are none', async () => {
    for (const name of ['other', '../base', 'BASE', '.', 'a'.repeat(33)]) {
      const { code, stderr } = await bulkhead('image', 'build', name, '--data', place('first'));
      assert.equal(code, 1);
      assert.match(stderr, /^bulkhead: image/);
    }
    assert.deepEqual(images('first'), ['base']);
  });

  test('without network and packages: a clear line, and nothing half', async (t) => {
    if (process.getuid() !== 0) return t.skip('needs root, to be without a network');
    fs.mkdirSync(place('empty'));
    const { code, stderr } = await run('unshare', ['-n', path.join(build, 'bulkhead'), 'image', 'build', 'base',
                                                   '--data', place('first'), '--packages', place('empty')],
                                       { timeout: 200000 });
    assert.equal(code, 1);
    assert.match(stderr, /cannot be fetched; without a network, put it into/);
    assert.deepEqual(images('first'), ['base']);
  });

  test('a package that is damaged leaves the old image as it was', async () => {
    fs.mkdirSync(place('damaged'));
    for (const file of fs.readdirSync(packages).filter((name) => name.endsWith('.deb'))) {
      const whole = fs.readFileSync(path.join(packages, file));
      fs.writeFileSync(path.join(place('damaged'), file), whole.subarray(0, whole.length / 2));
    }
    const old = bytes('first', 'manifest.json');
    const { code, stderr } = await make('first', place('damaged'));
    assert.equal(code, 1);
    assert.match(stderr, /damaged/);
    assert.ok(bytes('first', 'manifest.json').equals(old));
    assert.deepEqual(images('first'), ['base']);
  });

  test('a build that is killed leaves the old image; the next one clears up after it', async () => {
    const old = bytes('first', 'manifest.json');
    const child = spawn(path.join(build, 'bulkhead'), ['image', 'build', 'base', '--data', place('first'),
                                                       '--packages', packages], { stdio: 'ignore', detached: true });
    while (!images('first').some((name) => name.startsWith('.build-'))) await sleep(5);
    const refused = await make('first');
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /another build is under way/);
    process.kill(-child.pid, 'SIGKILL');
    await new Promise((resolve) => child.on('close', resolve));
    assert.ok(bytes('first', 'manifest.json').equals(old));
    assert.equal((await make('first')).code, 0);
    assert.deepEqual(images('first'), ['base']);
    assert.ok(bytes('first', 'manifest.json').equals(old));
  });
});
