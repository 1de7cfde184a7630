// full: the disk of DATA is full. Writes are refused as 507, reads go on, nothing that was acknowledged is
// lost, and with room again everything works. DATA lies on a small tmpfs of a mount namespace of its own.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { Node, eventually, sleep } from '../e2e/harness.mjs';
import { EVERY_SCOPE, auditOf, everything } from './support.mjs';

const INSIDE = 'BULKHEAD_FULL_MOUNT';
const mount = process.env[INSIDE];

// The mount is made by a shell in a private namespace and goes away with it.
function again() {
  return new Promise((resolve) => {
    const script = 'set -e; d=$(mktemp -d); trap "umount $d; rmdir $d" EXIT; chmod 755 $d; '
      + `mount -t tmpfs -o size=12m,mode=755 none $d; ${INSIDE}=$d "$@"`;
    const environment = { ...process.env };
    delete environment.NODE_TEST_CONTEXT; // else its results would be read as this run's
    const child = spawn('unshare', ['-m', '--propagation', 'private', 'bash', '-c', script, 'full',
      process.execPath, '--test-reporter=tap', fileURLToPath(import.meta.url)],
      { stdio: ['ignore', 'pipe', 'inherit'], env: environment });
    let text = '';
    child.stdout.on('data', (piece) => { text += piece; });
    child.on('close', (code) => resolve({ code, text }));
  });
}

async function fullDisk(t) {
  const node = new Node({ config: { idle_seconds: 600 } });
  t.after(() => node.destroy());
  node.data = path.join(mount, 'data'); // the keys are there, too
  node.keys = `${node.data}.keys`;
  await node.start();
  const tenants = ['acme', 'bolt'];
  const tokens = {}, written = { acme: new Map(), bolt: new Map() };
  for (const name of tenants) {
    await node.createBusyTenant(name);
    tokens[name] = await node.token(name, 'ada', { scope: EVERY_SCOPE, ttl: '1h' });
  }
  const write = async (name, text) => {
    const answer = await node.http('POST', '/v1/memories', { token: tokens[name], body: { text } });
    if (answer.status === 201) written[name].set(answer.body.id, text);
    return answer;
  };
  for (const name of tenants) assert.equal((await write(name, 'the first')).status, 201);

  const ballast = path.join(mount, 'ballast');
  const { bavail, bsize } = fs.statfsSync(mount);
  fs.writeFileSync(ballast, Buffer.alloc(Math.max(0, (bavail - 256) * bsize)));
  let refused = 0;
  for (let i = 0; i < 400 && refused < 5; i++) {
    const answer = await write('acme', `${i} ${'lorem ipsum '.repeat(1000)}`);
    if (answer.status === 201) continue;
    assert.equal(answer.status, 507, answer.text);
    assert.equal(answer.body.code, 'out_of_space');
    refused++;
  }
  assert.equal(refused, 5, 'the disk never became full');

  const readBack = async (name) => {
    const { memories } = await everything(node, tokens[name]);
    assert.deepEqual(new Map(memories.map((row) => [row.id, row.text])),
                     new Map([...written[name]].reverse()), `${name}: what was acknowledged, no more`);
  };
  for (let i = 0; i < 3; i++) {
    for (const name of tenants) await readBack(name);
    await sleep(150); // the entries of the reads find no room meanwhile
  }
  await node.want(200, 'POST', '/v1/memories/search', { token: tokens.acme, body: { query: 'lorem' } });

  fs.rmSync(ballast);
  await eventually('writes work again', async () => (await write('acme', 'room again')).status === 201);
  assert.equal((await write('bolt', 'room again')).status, 201);
  for (const name of tenants) await readBack(name);

  // once more, and the power goes while it is full
  const now = fs.statfsSync(mount);
  fs.writeFileSync(ballast, Buffer.alloc(Math.max(0, (now.bavail - 64) * now.bsize)));
  for (let i = 0, status = 201; i < 400 && status === 201; i++)
    status = (await write('bolt', `${i} ${'dolor sit '.repeat(1000)}`)).status;
  await node.crash();
  fs.rmSync(ballast);
  await node.start();
  for (const name of tenants) {
    await readBack(name);
    const added = (await auditOf(node, name))
      .filter((entry) => entry.action === 'memory.add' && entry.code === 'ok').length;
    assert.equal(added, written[name].size, `${name}: an entry for each write`);
  }
  await node.stop();
}

if (mount)
  test('a full disk refuses writes, keeps what it has, and recovers', { timeout: 240000 }, fullDisk);
else
  test('a full disk, in a mount namespace of its own', { timeout: 280000 }, async (t) => {
    if (process.getuid() !== 0) return t.skip('needs root for a mount');
    const { code, text } = await again();
    assert.equal(code, 0, text);
    assert.match(text, /^# pass 1$/m);
  });
