// Backups and restores of silos: while in use, in chains, against destruction, forgery and crashes.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { eventually, nodeOfSuite, startNode } from './harness.mjs';

const SCOPE = 'memory:read memory:write objects:read objects:write audit:read tenant:read';

async function add(node, token, text) {
  await node.want(201, 'POST', '/v1/memories', { token, body: { text } });
}

async function texts(node, token) {
  const { data } = await node.want(200, 'GET', '/v1/memories?limit=500', { token });
  return data.map((memory) => memory.text).sort();
}

function filesOf(directory, id) {
  return fs.readdirSync(path.join(directory, id)).sort();
}

// The entries of a log, verified.
async function entriesOf(node, words, verify) {
  const file = path.join(node.directory, 'export.ndjson');
  await node.ok(...words, '-o', file);
  await node.ok(...verify, file);
  const lines = fs.readFileSync(file, 'utf8').trimEnd().split('\n').map((line) => JSON.parse(line));
  return { entries: lines.slice(1, -1).map((line) => line.entry), header: lines[0], note: lines.at(-1).checkpoint };
}

describe('backups', () => {
  const node = nodeOfSuite({ before, after }, {});
  const target = (name) => path.join(node.directory, name);

  test('what is written while a backup runs is in the next one; a lost silo comes back whole', async () => {
    const tenant = await node.createBusyTenant('acme');
    const token = await node.token('acme', 'ada', { scope: SCOPE });
    const to = target('chain');
    const bytes = Buffer.alloc(300000, 'object ');
    for (let i = 0; i < 20; i++) await add(node, token, `first ${i}`);
    await node.want(201, 'PUT', '/v1/objects/a/report.txt',
                    { token, body: bytes, headers: { 'content-type': 'text/plain' } });
    const full = await node.json('tenant', 'backup', 'acme', '--to', to);
    assert.equal(full.full, true);
    assert.equal(full.objects, 1);
    const writing = (async () => { for (let i = 0; i < 40; i++) await add(node, token, `during ${i}`); })();
    await node.json('tenant', 'backup', 'acme', '--to', to);
    await writing;
    const last = await node.json('tenant', 'backup', 'acme', '--to', to);
    assert.deepEqual([last.sequence, last.full, last.objects], [3, false, 0]);
    assert.deepEqual(filesOf(to, tenant.id), ['000001.bhb', '000002.bhb', '000003.bhb']);
    const kept = await texts(node, token);
    await node.ok('tenant', 'pause', 'acme');
    fs.rmSync(path.join(node.data, 'silos', tenant.id), { recursive: true });
    await node.ok('tenant', 'resume', 'acme');
    await node.ok('tenant', 'restore', 'acme', '--from', to);
    assert.deepEqual(await texts(node, token), kept);
    const object = await node.http('GET', '/v1/objects/a/report.txt', { token });
    assert.equal(object.text, bytes.toString());
    const { entries, note } = await entriesOf(node, ['audit', 'export', 'acme'], ['audit', 'verify']);
    assert.ok(note.startsWith(`bulkhead/silo/${tenant.id}+1\n`), note);
    assert.equal(entries.filter((entry) => entry.action === 'silo.backup').length, 3);
    assert.equal(entries.find((entry) => entry.action === 'silo.restored').backup.sequence, 3);
  });

  test('going back in time is in the ledger with both heads, and in the log', async () => {
    await node.createBusyTenant('back');
    const token = await node.token('back');
    const to = target('back');
    await add(node, token, 'old');
    await node.ok('tenant', 'backup', 'back', '--to', to);
    await add(node, token, 'new');
    await node.ok('tenant', 'backup', 'back', '--to', to);
    const restored = await node.json('tenant', 'restore', 'back', '--from', to, '--at', '1');
    assert.deepEqual(await texts(node, token), ['old']);
    const { entries } = await entriesOf(node, ['ledger', 'export'], ['ledger', 'verify']);
    const entry = entries.findLast((one) => one.event === 'tenant.restore');
    assert.deepEqual(entry.detail, restored);
    assert.ok(entry.detail.old.commits > entry.detail.new.commits, 'it went back');
    assert.match(entry.detail.old.root, /^[0-9a-f]{64}$/);
    await add(node, token, 'after'); // another timeline, of another origin
    await node.ok('tenant', 'backup', 'back', '--to', to, '--full');
    await node.ok('tenant', 'restore', 'back', '--from', to);
    assert.deepEqual(await texts(node, token), ['after', 'old']);
  });

  test('a backup that was changed, cut, mixed, or is of another tenant is refused by name', async () => {
    const tenant = await node.createBusyTenant('victim');
    const other = await node.createBusyTenant('other');
    const token = await node.token('victim');
    const to = target('hostile');
    await add(node, token, 'kept');
    await add(node, await node.token('other'), 'theirs');
    for (let i = 0; i < 3; i++) {
      await node.ok('tenant', 'backup', 'victim', '--to', to);
      await add(node, token, `kept ${i}`);
    }
    await node.ok('tenant', 'backup', 'other', '--to', to);
    const kept = await texts(node, token);
    const file = (number, id = tenant.id) => path.join(to, id, `00000${number}.bhb`);
    const originals = [1, 2, 3].map((number) => fs.readFileSync(file(number)));
    const put = () => originals.forEach((bytes, i) => fs.writeFileSync(file(i + 1), bytes));
    const refuse = async (why, expected) => {
      const said = await node.refused('tenant', 'restore', 'victim', '--from', to);
      assert.match(said, expected, why);
      assert.deepEqual(await texts(node, token), kept, `${why}: the silo in place is as it was`);
      put();
    };
    for (const [number, at] of [[1, 0.1], [1, 0.5], [1, 0.9], [2, 0.5], [3, 0.97]]) {
      const bytes = Buffer.from(originals[number - 1]);
      bytes[Math.floor(bytes.length * at)] ^= 1;
      fs.writeFileSync(file(number), bytes);
      await refuse(`a bit of ${number} at ${at}`, /bhb|chain/);
    }
    fs.truncateSync(file(2), originals[1].length - 4097);
    await refuse('cut', /000002\.bhb/);
    fs.rmSync(file(2));
    await refuse('a missing link', /000003\.bhb: it does not continue/);
    fs.writeFileSync(file(2), originals[2]);
    fs.writeFileSync(file(3), originals[1]);
    await refuse('reordered', /0000/);
    for (const number of [2, 3]) fs.rmSync(file(number));
    fs.copyFileSync(file(1, other.id), file(1));
    await refuse('of another tenant', /of another tenant/);
    const head = originals[0].toString('latin1').replace('bulkhead-backup/1', 'bulkhead-backup/2');
    for (const number of [2, 3]) fs.rmSync(file(number));
    fs.writeFileSync(file(1), Buffer.from(head, 'latin1'));
    await refuse('of a newer format', /version of the format/);
    await node.ok('tenant', 'restore', 'victim', '--from', to);
  });

  test('after an erasure every backup is dead', async () => {
    const tenant = await node.createBusyTenant('gone');
    const to = target('gone');
    await add(node, await node.token('gone'), 'secret');
    await node.ok('tenant', 'backup', 'gone', '--to', to);
    await node.ok('tenant', 'erase', 'gone');
    await node.refused('tenant', 'restore', 'gone', '--from', to);
    const heir = await node.createBusyTenant('gone');
    assert.notEqual(heir.id, tenant.id);
    fs.renameSync(path.join(to, tenant.id), path.join(to, heir.id));
    assert.match(await node.refused('tenant', 'restore', 'gone', '--from', to), /of another tenant/);
  });

  test('objects that are deleted while a backup runs are in it, whole', async () => {
    const tenant = await node.createBusyTenant('deleting');
    const token = await node.token('deleting', 'ada', { scope: SCOPE });
    const to = target('deleting');
    const bytes = (i) => Buffer.alloc(3000000, `object ${i} `);
    for (let i = 0; i < 16; i++)
      await node.want(201, 'PUT', `/v1/objects/o${i}`, { token, body: bytes(i), headers: { 'content-type': 'text/plain' } });
    const running = node.json('tenant', 'backup', 'deleting', '--to', to);
    await eventually('its first bytes are there', () => {
      const [name] = fs.existsSync(path.join(to, tenant.id)) ? filesOf(to, tenant.id) : [];
      return name && fs.statSync(path.join(to, tenant.id, name)).size > 0;
    }, { every: 1 });
    for (let i = 0; i < 16; i++) await node.want(204, 'DELETE', `/v1/objects/o${i}`, { token });
    assert.equal((await running).objects, 16);
    const next = await node.json('tenant', 'backup', 'deleting', '--to', to);
    assert.equal(next.objects, 0);
    await eventually('no file of them is left', () =>
      fs.readdirSync(path.join(node.data, 'silos', tenant.id, 'objects')).every((name) => name === 'open'));
    await node.ok('tenant', 'restore', 'deleting', '--from', to, '--at', '1');
    for (let i = 0; i < 16; i++)
      assert.equal((await node.http('GET', `/v1/objects/o${i}`, { token })).text, bytes(i).toString());
    await node.ok('tenant', 'restore', 'deleting', '--from', to);
    assert.deepEqual((await node.want(200, 'GET', '/v1/objects', { token })).data, []);
  });

  test('while the key is rotated a backup is whole or refused; the next one is full and comes back', async () => {
    await node.createBusyTenant('turning');
    const token = await node.token('turning', 'ada', { scope: SCOPE });
    const to = target('turning');
    const bytes = Buffer.alloc(8000000, 'object ');
    for (let i = 0; i < 30; i++) await add(node, token, `${i} ${'pages to seal anew '.repeat(400)}`);
    await node.want(201, 'PUT', '/v1/objects/o', { token, body: bytes, headers: { 'content-type': 'text/plain' } });
    await node.ok('tenant', 'backup', 'turning', '--to', to);
    const kept = await texts(node, token);
    for (let version = 2; version < 5; version++) {
      const [, said] = await Promise.all([
        node.ok('tenant', 'update', 'turning', '--rotate-dek'),
        node.cli('tenant', 'backup', 'turning', '--to', to, '--json'),
      ]);
      if (said.code !== 0) assert.match(said.stderr, /the key was rotated|a backup/, said.stderr);
      await eventually(`version ${version} alone is in use`, async () => {
        const { key } = await node.tenant('turning');
        return key.version === version && !key.rotating;
      }, { within: 30000 });
      assert.deepEqual(await texts(node, token), kept);
      await node.refused('tenant', 'restore', 'turning', '--from', to, '--at', '1'); // its key is gone
      await node.ok('tenant', 'backup', 'turning', '--to', to);
      await node.ok('tenant', 'restore', 'turning', '--from', to);
      assert.deepEqual(await texts(node, token), kept);
      assert.equal((await node.http('GET', '/v1/objects/o', { token })).text, bytes.toString());
    }
  });

  test('all tenants one after the other; one that fails does not keep the others', async () => {
    const to = target('all');
    const rows = (await node.ok('tenant', 'backup', '--all', '--to', to, '--json')).trim().split('\n');
    const active = (await node.json('tenant', 'list')).data.filter((one) => one.state === 'active');
    assert.equal(rows.length, active.length);
    fs.writeFileSync(path.join(to, active[0].id, '000001.bhb'), 'nothing');
    const { code, stdout, stderr } = await node.cli('tenant', 'backup', '--all', '--to', to, '--json');
    assert.equal(code, 1);
    assert.equal(stdout.trim().split('\n').length, active.length - 1);
    assert.match(stderr, new RegExp(`${active[0].name}: 000002.bhb: the backup before`));
  });
});

test('a node that dies while a tenant is restored has the old silo or the new one', async (t) => {
  const node = await startNode(t);
  await node.createBusyTenant('acme');
  const to = path.join(node.directory, 'backups');
  let token = await node.token('acme');
  await add(node, token, 'old');
  await node.ok('tenant', 'backup', 'acme', '--to', to);
  await add(node, token, 'new');
  for (const delay of [0, 10, 20, 30, 45, 60, 90, 130]) {
    const restoring = node.cli('tenant', 'restore', 'acme', '--from', to);
    await new Promise((resolve) => setTimeout(resolve, delay));
    await node.crash();
    await restoring;
    await node.start();
    token = await node.token('acme');
    const left = await texts(node, token);
    assert.ok(left.join() === 'new,old' || left.join() === 'old', `${delay}: ${left}`);
    assert.deepEqual(fs.readdirSync(path.join(node.data, 'silos')).filter((name) => name.includes('.')), []);
    if (left.length === 1) await add(node, token, 'new');
  }
  await node.stop();
});

test('a restore during which the kms or the control process dies leaves the old silo or the new one', async (t) => {
  const node = await startNode(t);
  const tenant = await node.createBusyTenant('acme');
  const to = path.join(node.directory, 'backups');
  const token = await node.token('acme', 'ada', { scope: SCOPE });
  const bytes = Buffer.alloc(4000000, 'object ');
  await add(node, token, 'old');
  await node.want(201, 'PUT', '/v1/objects/o', { token, body: bytes, headers: { 'content-type': 'text/plain' } });
  await node.ok('tenant', 'backup', 'acme', '--to', to);
  await add(node, token, 'new');
  const answers = async () => (await node.http('GET', '/v1/memories', { token })).status === 200;
  for (const name of ['kms', 'control'])
    for (const delay of [5, 15, 25, 40, 60, 90]) {
      const { pid } = await eventually(`${name} runs`, () => node.service(name));
      const restoring = node.cli('tenant', 'restore', 'acme', '--from', to);
      await new Promise((resolve) => setTimeout(resolve, delay));
      await node.kill(pid);
      const said = await restoring;
      await eventually(`it answers after ${name} died`, answers);
      const left = await texts(node, token);
      if (said.code === 0) assert.deepEqual(left, ['old'], `${name}, ${delay}: it was said to be restored`);
      assert.ok(left.join() === 'new,old' || left.join() === 'old', `${name}, ${delay}: ${left}`);
      assert.equal((await node.http('GET', '/v1/objects/o', { token })).text, bytes.toString());
      await eventually('nothing lies beside the silo', () =>
        fs.readdirSync(path.join(node.data, 'silos')).join() === tenant.id);
      if (left.length === 1) await add(node, token, 'new');
    }
  assert.equal((await node.json('tenant', 'check', 'acme')).report.ok, true);
  await node.ok('tenant', 'restore', 'acme', '--from', to); // all is as it should be
  assert.deepEqual(await texts(node, token), ['old']);
  await node.stop();
});
