// tiny.mjs: an image whose kernel is tests/guests/tiny.c, which is its own agent: with it microVMs are really run where
// KVM boots no stock kernel.
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { build } from './harness.mjs';

const guest = path.join(build, 'tests/guests/tiny_guest');

// Why it cannot be used here; false: it can.
export function noTinyGuests() {
  if (process.getuid() !== 0) return 'needs root';
  if (!fs.existsSync('/dev/kvm')) return 'no /dev/kvm';
  return !fs.existsSync(guest) && 'no guest for this processor';
}

// mode: see tiny.c.
export function makeTinyImage(data, name, mode = 'tiny') {
  const image = path.join(data, 'images', name);
  fs.mkdirSync(image, { recursive: true });
  fs.copyFileSync(guest, path.join(image, 'vmlinux'));
  fs.writeFileSync(path.join(image, 'initramfs'), `${mode}\n`);
  fs.writeFileSync(path.join(image, 'root.erofs'), Buffer.alloc(65536));
  fs.writeFileSync(path.join(image, 'scratch.img'), Buffer.alloc(65536, 'S'));
}

// {code, signal, bytes, stdout, stderr} of `sandbox run`; during: called with the process, whose input it then ends.
export function sandbox(node, options, command, { input, during } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(path.join(build, 'bulkhead'),
                        ['sandbox', 'run', '--data', node.data, '--tier', 'microvm', ...options, '--', ...command]);
    const out = [], err = [];
    child.stdout.on('data', (piece) => out.push(piece));
    child.stderr.on('data', (piece) => err.push(piece));
    child.stdin.on('error', () => {});
    child.on('error', reject);
    child.on('close', (code, signal) => resolve({
      code, signal, bytes: Buffer.concat(out), stdout: Buffer.concat(out).toString(),
      stderr: Buffer.concat(err).toString() }));
    if (during) during(child);
    else child.stdin.end(input ?? '');
  });
}
