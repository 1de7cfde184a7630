// The life of a tenant: created, paused, erased with a receipt that anyone can verify, and nothing comes back.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { bulkhead, nodeOfSuite } from './harness.mjs';

// What an operator set, without what was used of it.
const withoutUse = ({ usage, cost, ...rest }) => rest;

describe('lifecycle', () => {
  const node = nodeOfSuite({ before, after });
  const file = (name) => path.join(node.directory, name);
  const add = (token, text) => node.want(201, 'POST', '/v1/memories', { token, body: { text } });

  test('create is idempotent and refuses other settings under the same name', async () => {
    const first = await node.createTenant('acme', '--region', 'eu', '--retention', '365');
    const { id, name, state, tier, region, retention_days: days, awake, usage } = first;
    assert.match(id, /^[0-9a-f]{32}$/);
    assert.deepEqual({ name, state, tier, region, days, awake },
                     { name: 'acme', state: 'active', tier: 'standard', region: 'eu', days: 365, awake: false });
    assert.equal(typeof usage.bytes_stored, 'number');
    assert.deepEqual(await node.createTenant('acme', '--region', 'eu', '--retention', '365'), first);
    assert.match(await node.refused('tenant', 'create', 'acme', '--region', 'us'), /other settings/);
    assert.ok(fs.statSync(path.join(node.data, 'silos', id)).isDirectory());
    const { key, ...shown } = await node.tenant('acme');
    assert.deepEqual(withoutUse(shown), withoutUse(first));
    assert.equal(key.version, 1);
    const { data } = await node.json('tenant', 'list');
    assert.deepEqual(data.map((tenant) => tenant.name), ['acme']);
  });

  test('names that could not be a label are refused', async () => {
    for (const name of ['', 'Acme', 'a b', '-a', 'a-', 'a.b', '../a', 'ü', 'x'.repeat(64), 'f'.repeat(32)]) {
      const { code } = await node.cli('tenant', 'create', name);
      assert.ok(code === 1 || code === 2, `"${name}" was taken`);
    }
    await node.refused('tenant', 'create', 'a', '--tier', 'gold');
    await node.refused('tenant', 'create', 'a', '--retention', '0');
    await node.refused('tenant', 'show', 'nobody');
    await node.refused('tenant', 'pause', 'nobody');
    await node.refused('tenant', 'erase', 'nobody');
  });

  test('a paused tenant is told so, others hear nothing, and resume brings all back', async () => {
    await node.createTenant('pausing');
    const token = await node.token('pausing', 'ada');
    const item = await add(token, 'before the pause');
    const paused = await node.json('tenant', 'pause', 'pausing');
    assert.equal(paused.state, 'paused');
    assert.equal(paused.awake, false, 'it is paused when its cell has parked');
    assert.equal(await node.cell(paused.id), undefined, 'no process of it is left');
    assert.equal((await node.json('tenant', 'pause', 'pausing')).state, 'paused', 'idempotent');
    await node.problem(423, 'tenant_paused', 'GET', `/v1/memories/${item.id}`, { token });
    await node.problem(423, 'tenant_paused', 'POST', '/v1/memories', { token, body: { text: 'no' } });
    await node.awaitParked('pausing');
    assert.equal((await node.json('tenant', 'resume', 'pausing')).state, 'active');
    assert.deepEqual(await node.want(200, 'GET', `/v1/memories/${item.id}`, { token }), item);
  });

  test('erase leaves a receipt, no directory, and nobody who gets in', async () => {
    const { id } = await node.createTenant('doomed');
    const token = await node.token('doomed', 'ada');
    await add(token, 'soon unreadable');
    await node.ok('audit', 'export', 'doomed'); // moves the anchor: the receipt tells of the last one
    const receipt = await node.json('tenant', 'erase', 'doomed', '--receipt', file('receipt'));
    assert.deepEqual(JSON.parse(fs.readFileSync(file('receipt'), 'utf8')), receipt);
    const { receipt: told } = receipt;
    assert.equal(told.tenant_id, id);
    assert.equal(told.tenant_name, 'doomed');
    assert.match(told.kek_fingerprint, /^[0-9a-f]{64}$/);
    assert.ok(told.destroyed.files > 0 && told.destroyed.bytes > 0);
    assert.ok(told.last_checkpoint.audit_entries >= 1, JSON.stringify(told));
    assert.ok(!fs.existsSync(path.join(node.data, 'silos', id)));
    await node.problem(401, 'unauthenticated', 'GET', '/v1/memories', { token });
    await node.refused('tenant', 'show', 'doomed');
    await node.refused('token', 'doomed', '--user', 'ada');
    assert.deepEqual(await node.json('tenant', 'erase', 'doomed'), receipt, 'idempotent: the same receipt');
    const ledger = await node.ok('ledger', 'export');
    assert.ok(ledger.includes('"event":"tenant.erase"') && ledger.includes(told.kek_fingerprint));
  });

  test('a receipt is verified offline, by the file alone or by a key that is demanded', async () => {
    const key = (await node.ok('platform-key')).trim();
    const good = await bulkhead('receipt', 'verify', file('receipt'));
    assert.equal(good.code, 0, good.stderr);
    assert.match(good.stdout, /valid/);
    assert.equal((await bulkhead('receipt', 'verify', file('receipt'), '--key', key)).code, 0);
    fs.writeFileSync(file('key'), `${key}\n`);
    assert.equal((await bulkhead('receipt', 'verify', file('receipt'), '--key', file('key'))).code, 0);
    const other = Buffer.alloc(32, 7).toString('base64');
    const wrong = await bulkhead('receipt', 'verify', file('receipt'), '--key', other);
    assert.equal(wrong.code, 1);
    assert.match(wrong.stderr, /another key/);
  });

  test('an altered receipt is refused, whatever was altered', async () => {
    const text = fs.readFileSync(file('receipt'), 'utf8');
    const { receipt, signature, public_key: key } = JSON.parse(text);
    const flipped = (signature[0] === 'A' ? 'B' : 'A') + signature.slice(1);
    const alterations = [
      text.replace('"doomed"', '"another"'),
      text.replace(receipt.tenant_id, '0'.repeat(32)),
      text.replace(`"files":${receipt.destroyed.files}`, `"files":${receipt.destroyed.files + 1}`),
      text.replace(receipt.kek_fingerprint, 'a'.repeat(64)),
      text.replace(signature, flipped),
      text.replace(key, Buffer.alloc(32, 9).toString('base64')),
      text.slice(0, -10), '{}', '', 'null',
    ];
    for (const altered of alterations) {
      assert.notEqual(altered, text);
      fs.writeFileSync(file('altered'), altered);
      const { code, stderr } = await bulkhead('receipt', 'verify', file('altered'));
      assert.equal(code, 1, altered);
      assert.match(stderr, /^bulkhead: [^\n]+\n$/);
    }
    assert.equal((await bulkhead('receipt', 'verify', file('absent'))).code, 1);
  });

  test('a name used again is another tenant: empty, and closed to the old tokens', async () => {
    const before_ = await node.createTenant('phoenix');
    const old = await node.token('phoenix', 'ada');
    const item = await add(old, 'of the first life');
    await node.ok('tenant', 'erase', 'phoenix');
    const after_ = await node.createTenant('phoenix');
    assert.notEqual(after_.id, before_.id);
    await node.problem(401, 'unauthenticated', 'GET', '/v1/memories', { token: old });
    const token = await node.token('phoenix', 'ada');
    assert.deepEqual((await node.want(200, 'GET', '/v1/memories', { token })).data, []);
    await node.problem(404, 'not_found', 'GET', `/v1/memories/${item.id}`, { token });
  });

  test('a copy of the files under an erased tenant\'s name cannot be read again', async () => {
    const { id } = await node.createTenant('lazarus');
    const token = await node.token('lazarus', 'ada');
    const marker = 'xylophone-of-lazarus';
    await add(token, marker);
    await node.ok('tenant', 'pause', 'lazarus');
    await node.awaitParked('lazarus');
    const silo = path.join(node.data, 'silos', id), copy = file('copy');
    fs.cpSync(silo, copy, { recursive: true, preserveTimestamps: true });
    await node.ok('tenant', 'erase', 'lazarus');
    const again = await node.createTenant('lazarus');
    const fresh = path.join(node.data, 'silos', again.id);
    const owner = fs.statSync(fresh);
    for (const name of fs.readdirSync(copy)) {
      const bytes = fs.readFileSync(path.join(copy, name));
      assert.ok(!bytes.includes(marker) && !bytes.includes('xylophone'), 'sealed at rest');
      fs.writeFileSync(path.join(fresh, name), bytes);
      fs.chownSync(path.join(fresh, name), owner.uid, owner.gid);
    }
    const thief = await node.token('lazarus', 'ada');
    const answer = await node.http('GET', '/v1/memories', { token: thief });
    assert.equal(answer.status, 503, answer.text);
    assert.equal(answer.body.code, 'unavailable');
    assert.ok(!answer.text.includes('xylophone'));
    await node.ok('tenant', 'erase', 'lazarus');
  });
});
