// Keys that change while they are in use: the data key under load, the KEK, one that its owner withdraws.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { eventually, nodeOfSuite } from './harness.mjs';

const PAGE = 4096, WRAPPED = 84;

describe('keys', () => {
  const node = nodeOfSuite({ before, after });
  let acme, token;
  const silo = () => path.join(node.data, 'silos', acme.id);
  const key = async () => (await node.json('tenant', 'show', 'acme')).key;
  const texts = new Map();

  // The versions that silo.keys holds, and those in the trailers of the pages.
  const wrapped = () => {
    const bytes = fs.readFileSync(path.join(silo(), 'silo.keys'));
    assert.equal(bytes.length % WRAPPED, 0);
    return Array.from({ length: bytes.length / WRAPPED }, (_, i) => bytes.readUInt32BE(i * WRAPPED + 8));
  };
  const sealedUnder = () => {
    const bytes = fs.readFileSync(path.join(silo(), 'silo.db'));
    const versions = new Set();
    for (let end = PAGE; end <= bytes.length; end += PAGE) versions.add(bytes.readUInt32BE(end - 4));
    return [...versions];
  };
  const add = async (text) => {
    const { id } = await node.want(201, 'POST', '/v1/memories', { token, body: { text } });
    texts.set(id, text);
  };
  const allThere = async () => {
    for (const [id, text] of texts)
      assert.equal((await node.want(200, 'GET', `/v1/memories/${id}`, { token })).text, text);
  };
  const rotated = (version) => eventually(`version ${version} alone is in use`, async () => {
    const now = await key();
    return now.version === version && !now.rotating && wrapped().length === 1;
  }, { within: 30000 });

  before(async () => {
    acme = await node.createBusyTenant('acme');
    token = await node.token('acme');
    for (let i = 0; i < 40; i++) await add(`${i} ${'words that fill pages '.repeat(400)}`);
  });

  test('the data key is rotated under load: nothing is lost, and the old version is gone', async () => {
    assert.deepEqual(wrapped(), [1]);
    const entries = (await node.json('tenant', 'update', 'acme', '--rotate-dek')).key;
    assert.ok(entries.version === 1 || entries.version === 2, 'asked for');
    let done = false;
    const load = (async () => {
      for (let i = 0; !done; i++) {
        await add(`while it rotates ${i}`);
        const [id, text] = [...texts][i % texts.size];
        assert.equal((await node.want(200, 'GET', `/v1/memories/${id}`, { token })).text, text);
      }
    })();
    try {
      await rotated(2);
    } finally {
      done = true;
    }
    await load;
    assert.deepEqual(wrapped(), [2]);
    await allThere();
    assert.deepEqual(sealedUnder(), [2]);
    assert.equal(fs.statSync(path.join(silo(), 'silo.db-reseal')).size, 0);
  });

  test('hashes in the audit log stay comparable over a rotation', async () => {
    const [id] = [...texts][0];
    await node.want(200, 'GET', `/v1/memories/${id}`, { token });
    const file = path.join(node.data, '..', `audit-${process.pid}.ndjson`);
    await node.ok('audit', 'export', 'acme', '-o', file);
    await node.ok('audit', 'verify', file);
    const reads = fs.readFileSync(file, 'utf8').trim().split('\n').map((line) => JSON.parse(line).entry)
      .filter((entry) => entry?.action === 'memory.read');
    fs.unlinkSync(file);
    const hashes = new Map();
    for (const read of reads) hashes.set(read.resource_hash, (hashes.get(read.resource_hash) ?? 0) + 1);
    assert.ok([...hashes.values()].some((count) => count > 1));
    assert.ok(hashes.size <= texts.size, 'one hash an item, before and after');
  });

  test('a cell that is killed while pages move goes on where it was', async () => {
    await node.ok('tenant', 'update', 'acme', '--rotate-dek');
    const { pid } = await eventually('it is awake', () => node.cell(acme.id));
    await node.kill(pid);
    await eventually('it serves again', async () =>
      (await node.http('GET', '/v1/memories?limit=1', { token })).status === 200);
    await rotated(3);
    await allThere();
    assert.deepEqual(sealedUnder(), [3]);
  });

  test('an old silo.keys put back opens nothing', async () => {
    const file = path.join(silo(), 'silo.keys');
    const kept = fs.readFileSync(file);
    await node.ok('tenant', 'update', 'acme', '--rotate-dek');
    await rotated(4);
    await node.ok('tenant', 'pause', 'acme');
    const present = fs.readFileSync(file);
    fs.writeFileSync(file, kept);
    await node.ok('tenant', 'resume', 'acme');
    await node.problem(503, 'unavailable', 'GET', '/v1/memories', { token });
    fs.writeFileSync(file, present);
    await eventually('it is back', async () => (await node.http('GET', '/v1/memories', { token })).status === 200);
    await allThere();
  });

  test('the KEK is rotated: the one before is gone from the key store', async () => {
    const before = await key();
    const { key: now } = await node.json('tenant', 'update', 'acme', '--rotate-kek');
    assert.notEqual(now.kek_fingerprint, before.kek_fingerprint);
    assert.equal(now.kek_rotating, false);
    const files = fs.readdirSync(node.keys).filter((name) => name.startsWith(acme.id));
    assert.deepEqual(files, [`${acme.id}.kek`]);
    await allThere();
    await node.ok('tenant', 'pause', 'acme');
    await node.ok('tenant', 'resume', 'acme');
    await allThere();
  });

  const withdrawn = async (t, withdraw, giveBack) => {
    await node.want(200, 'GET', '/v1/memories', { token });
    const { pid } = await node.cell(acme.id);
    await withdraw();
    const began = Date.now();
    await eventually('its cell is gone', async () => !fs.existsSync(`/proc/${pid}`), { every: 10 });
    t.diagnostic(`its cell was gone after ${Date.now() - began} ms`);
    const answer = await node.problem(503, 'unavailable', 'GET', '/v1/memories', { token });
    assert.match(answer.body.detail, /encryption key is withdrawn by its owner/);
    assert.match(answer.headers.get('retry-after'), /^\d+$/);
    await giveBack();
    await eventually('it is back', async () => (await node.http('GET', '/v1/memories', { token })).status === 200,
      { within: 3000 });
    await allThere();
  };

  test('a withdrawn key stops its cell, and it is back when the key is', async (t) => {
    await withdrawn(t, () => node.ok('tenant', 'key', 'acme', 'disable'),
      () => node.ok('tenant', 'key', 'acme', 'enable'));
  });

  test('a key is withdrawn by hand in the key store', async (t) => {
    const file = path.join(node.keys, `${acme.id}.disabled`);
    await withdrawn(t, () => fs.writeFileSync(file, ''), () => fs.unlinkSync(file));
  });

  test('the ledger has it all, and an erased tenant has a valid receipt of its last key', async () => {
    const { kek_fingerprint: fingerprint } = await key();
    const file = path.join(node.data, '..', `receipt-${process.pid}.json`);
    await node.ok('tenant', 'key', 'acme', 'disable');
    await node.ok('tenant', 'erase', 'acme', '--receipt', file);
    await node.ok('receipt', 'verify', file);
    assert.equal(JSON.parse(fs.readFileSync(file, 'utf8')).receipt.kek_fingerprint, fingerprint);
    fs.unlinkSync(file);
    assert.deepEqual(fs.readdirSync(node.keys).filter((name) => name.startsWith(acme.id)),
      [`${acme.id}.tombstone`]);
    const ledger = path.join(node.data, '..', `ledger-${process.pid}.ndjson`);
    await node.ok('ledger', 'export', '-o', ledger);
    const events = fs.readFileSync(ledger, 'utf8');
    fs.unlinkSync(ledger);
    for (const event of ['tenant.rotate_dek', 'tenant.rotate_kek', 'tenant.key.disable', 'tenant.key.enable'])
      assert.ok(events.includes(`"${event}"`), event);
  });
});
