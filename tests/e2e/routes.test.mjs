// Routes: hosts, telephone numbers and customer numbers that lead to one tenant, asked for by a back end.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { eventually, nodeOfSuite } from './harness.mjs';

describe('routes', () => {
  const node = nodeOfSuite({ before, after }, { tenants: ['acme', 'beta'] });
  const sha256 = (text) => crypto.createHash('sha256').update(text).digest('hex');
  const ledger = async (event) => (await node.ok('ledger', 'export')).trim().split('\n').map((line) => JSON.parse(line))
    .filter(({ entry }) => entry?.event === event).map(({ entry }) => entry);
  let backEnd;

  const find = (kind, value, token = backEnd) =>
    node.http('GET', `/v1/routes/${kind}/${encodeURIComponent(value)}`, { token });

  before(async () => {
    backEnd = (await node.ok('token', '--platform', '--user', 'switchboard', '--scope', 'routes:read')).trim();
  });

  test('each kind is added, found, listed and removed', async () => {
    for (const [kind, value, kept] of [['host', 'Acme.Example.com', 'acme.example.com'],
                                       ['phone', '+4915112345678', '+4915112345678'],
                                       ['customer', 'K-4711_a.b', 'K-4711_a.b']]) {
      assert.equal((await find(kind, kept)).status, 404, 'not yet');
      assert.deepEqual(await node.json('route', 'add', 'acme', kind, value), { kind, value: kept, tenant: 'acme', added: true });
      assert.equal((await node.json('route', 'add', 'acme', kind, value)).added, false, 'again');
      assert.match(await node.refused('route', 'add', 'beta', kind, value), /leads to the tenant acme/);
      const found = await find(kind, kept);
      assert.equal(found.status, 200, found.text);
      assert.equal(found.body.tenant_id ?? found.body.id, node.tenants.acme.id);
    }
    const { data } = await node.json('route', 'list', 'acme');
    assert.deepEqual(data.map(({ kind }) => kind), ['customer', 'host', 'phone']);
    assert.deepEqual((await node.json('route', 'list', 'beta')).data, []);
    assert.deepEqual((await node.json('route', 'list')).data, data);
    await node.ok('route', 'remove', 'phone', '+4915112345678');
    assert.equal((await find('phone', '+4915112345678')).status, 404);
    assert.match(await node.refused('route', 'remove', 'phone', '+4915112345678'), /no tenant has this phone/);
  });

  test('what could be no route is refused', async () => {
    for (const [kind, value] of [
      ['mail', 'a@b'], ['host', 'acme'], ['host', 'a..b'], ['host', '.a.b'], ['host', 'a.b.'], ['host', 'a_b.c'],
      ['host', '127.0.0.1'], ['host', `${'a'.repeat(64)}.b`], ['host', `${'a.'.repeat(127)}ab`], ['host', 'a.b:80'],
      ['phone', '4915112345678'], ['phone', '+0151123456'], ['phone', '+1234567'], ['phone', '+1234567890123456'],
      ['phone', '+12345 678'], ['customer', 'a b'], ['customer', 'x'.repeat(65)], ['customer', 'ä']])
      await node.refused('route', 'add', 'acme', kind, value);
    await node.refused('route', 'add', 'nobody', 'customer', 'a');
  });

  test('every question is in the ledger when it is answered, found or not, by hash', async () => {
    await node.ok('route', 'add', 'beta', 'customer', '77');
    const before_ = (await ledger('route.find')).length;
    const answers = await Promise.all(Array.from({ length: 40 }, (_, i) => find('customer', i % 2 ? '77' : `no-${i}`)));
    assert.deepEqual(answers.map(({ status }) => status), answers.map((_, i) => (i % 2 ? 200 : 404)));
    const entries = (await ledger('route.find')).slice(before_);
    assert.equal(entries.length, 40);
    assert.equal(entries.filter(({ tenant_name: name }) => name === 'beta').length, 20);
    for (const { detail } of entries) {
      assert.equal(detail.kind, 'customer');
      assert.equal(detail.subject, 'switchboard');
      assert.equal(detail.token_sha256, sha256(backEnd));
      assert.match(detail.trace_id, /^[0-9a-f]{32}$/);
    }
    assert.equal(entries.filter(({ detail }) => detail.found && detail.value_sha256 === sha256('77')).length, 20);
    assert.ok(!JSON.stringify(entries).includes('no-2"'), 'no value in clear');
  });

  test('a host that no tenant has yet is found as soon as it is added, and lost as soon as it is removed', async () => {
    const token = await node.token('beta', 'ada');
    const other = await node.token('acme', 'ada');
    await node.ok('route', 'add', 'beta', 'host', 'beta.example.com');
    assert.equal((await find('host', 'beta.example.com')).status, 200);
    await node.ok('route', 'remove', 'host', 'beta.example.com');
    assert.equal((await find('host', 'beta.example.com')).status, 404);
    for (const one of [token, other]) assert.equal((await node.http('GET', '/v1/memories', { token: one })).status, 200);
  });

  test('a tenant that is paused keeps its routes, one that is erased loses them', async () => {
    await node.createTenant('gone');
    await node.ok('route', 'add', 'gone', 'customer', 'g1');
    await node.ok('tenant', 'pause', 'gone');
    assert.equal((await find('customer', 'g1')).status, 200);
    await node.ok('tenant', 'erase', 'gone');
    assert.equal((await find('customer', 'g1')).status, 404);
    assert.equal((await node.json('route', 'list')).data.some(({ value }) => value === 'g1'), false);
    assert.equal((await node.json('route', 'add', 'beta', 'customer', 'g1')).tenant, 'beta');
  });

  test('only a token of the platform with the scope asks, and it does nothing else', async () => {
    const tenants = await node.token('acme', 'ada', { scope: 'memory:read' });
    assert.ok([401, 403].includes((await find('customer', '77', tenants)).status));
    assert.equal((await find('customer', '77', 'x.y.z')).status, 401);
    assert.ok([401, 403].includes((await node.http('GET', '/v1/memories', { token: backEnd })).status));
    await node.refused('token', '--platform', '--user', 'a', '--scope', 'memory:read');
    await node.refused('token', 'acme', '--user', 'a', '--scope', 'routes:read');
  });

  test('a revoked back end asks no more', async () => {
    await node.ok('revoke', '--platform', '--user', 'switchboard');
    await eventually('it is refused', async () => (await find('customer', '77')).status === 401, { within: 1000, every: 20 });
  });

  test('routes survive a crash', async () => {
    await node.ok('route', 'add', 'beta', 'phone', '+4930123456');
    await node.crash();
    await node.start();
    assert.ok((await node.json('route', 'list', 'beta')).data.some(({ value }) => value === '+4930123456'));
  });
});
