// Whose request it is, at a running node: foreign issuers, hosts, routes, charters, caps, counters.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { eventually, nodeOfSuite } from './harness.mjs';

const base64url = (value) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value))
  .toString('base64url');

// An identity provider that the platform does not run.
class Issuer {
  constructor(iss, kid = 'k1') {
    this.iss = iss;
    this.kid = kid;
    this.pair = crypto.generateKeyPairSync('ed25519');
  }

  jwks() {
    return { keys: [{ ...this.pair.publicKey.export({ format: 'jwk' }), kid: this.kid, alg: 'EdDSA',
                      use: 'sig' }] };
  }

  token(claims) {
    const now = Math.floor(Date.now() / 1000);
    const signed = [{ alg: 'EdDSA', typ: 'JWT', kid: this.kid },
                    { iss: this.iss, aud: 'bulkhead', sub: 'ada', scope: 'memory:read memory:write',
                      iat: now, exp: now + 300, jti: crypto.randomUUID(), ...claims }].map(base64url).join('.');
    return `${signed}.${crypto.sign(null, Buffer.from(signed), this.pair.privateKey).toString('base64url')}`;
  }
}

// A request with headers that fetch does not let us choose.
function raw(node, { host, token, target = '/v1/memories', method = 'GET', headers = {} }) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(node.port, '127.0.0.1');
    let text = '';
    socket.setTimeout(20000, () => socket.destroy(new Error('no answer')));
    socket.on('data', (piece) => { text += piece; });
    socket.on('error', reject);
    socket.on('close', () => {
      const [head, body = ''] = text.split('\r\n\r\n');
      resolve({ status: Number(head.split(' ')[1]), head, body });
    });
    const lines = Object.entries({ ...(token && { Authorization: `Bearer ${token}` }), ...headers })
      .map(([name, value]) => `${name}: ${value}\r\n`).join('');
    socket.write(`${method} ${target} HTTP/1.1\r\nHost: ${host}\r\n${lines}Connection: close\r\n\r\n`);
  });
}

describe('the front door', () => {
  const node = nodeOfSuite({ before, after }, {
    config: { domain: 'bank.example', connections_per_address: 40 }, tenants: ['acme', 'beta'] });
  const own = new Issuer('https://id.acme.example');
  const shared = new Issuer('https://id.platform.example');
  const stranger = new Issuer('https://id.acme.example'); // the name, not the key
  let acme, beta, platform;
  const metric = async (line) => {
    const { text } = await node.http('GET', '/metrics', { base: node.opsUrl });
    return Number(new RegExp(`^${line.replace(/[{}"]/g, '\\$&')} (\\d+)$`, 'm').exec(text)?.[1] ?? 0);
  };
  const statusOf = async (token, more = {}) => (await node.http('GET', '/v1/memories', { token, ...more })).status;
  const becomes = (wanted, token) =>
    eventually(`${wanted}`, async () => await statusOf(token) === wanted, { every: 20 });
  const jwks = (issuer) => {
    const file = path.join(node.directory, `${crypto.randomUUID()}.json`);
    fs.writeFileSync(file, JSON.stringify(issuer.jwks()));
    return file;
  };

  before(async () => {
    acme = await node.token('acme', 'ada');
    beta = await node.token('beta', 'ada');
    platform = (await node.ok('token', '--platform', '--user', 'switchboard', '--scope', 'routes:read')).trim();
    await node.ok('issuer', 'add', 'acme', '--iss', own.iss, '--jwks', jwks(own));
    await node.ok('issuer', 'add', '--platform', '--iss', shared.iss, '--jwks', jwks(shared));
  });

  test('an issuer of one tenant lets its users in, and into no other tenant', async () => {
    await becomes(200, own.token({ tenant_id: 'acme' }));
    assert.equal(await statusOf(own.token({ tenant_id: node.tenants.acme.id })), 200);
    for (const tenant_id of ['beta', node.tenants.beta.id, 'nobody', 'Acme', '', undefined, 7, ['acme']])
      await node.problem(401, 'unauthenticated', 'GET', '/v1/memories', { token: own.token({ tenant_id }) });
  });

  test('who has the name of an issuer but not its key is nobody', async () => {
    for (const tenant_id of ['acme', node.tenants.acme.id, 'beta'])
      await node.problem(401, 'unauthenticated', 'GET', '/v1/memories', { token: stranger.token({ tenant_id }) });
  });

  test('an issuer of the platform vouches for every tenant', async () => {
    await becomes(200, shared.token({ tenant_id: 'acme' }));
    assert.equal(await statusOf(shared.token({ tenant_id: node.tenants.beta.id })), 200);
    assert.equal(await statusOf(shared.token({ tenant_id: 'nobody' })), 401);
  });

  test('what is revoked is out, and so is what an issuer said that was removed', async () => {
    const token = own.token({ tenant_id: 'acme', sub: 'mallory' });
    assert.equal(await statusOf(token), 200);
    await node.ok('revoke', 'acme', '--user', 'mallory');
    await becomes(401, token);
    assert.ok(await metric('bulkhead_denied_total{reason="revoked"}') >= 1);
    const other = own.token({ tenant_id: 'acme' });
    assert.equal(await statusOf(other), 200);
    await node.ok('issuer', 'remove', 'acme', '--iss', own.iss);
    await becomes(401, other);
    assert.equal(await statusOf(acme), 200, 'the others are served on');
  });

  test('a host that names a tenant takes no token of another', async () => {
    for (const [host, token, status] of [
      ['acme.bank.example', acme, 200], ['ACME.bank.example:443', acme, 200], ['bank.example', acme, 200],
      ['beta.bank.example', acme, 401], ['acme.bank.example', beta, 401], ['nobody.bank.example', acme, 401]])
      assert.equal((await raw(node, { host, token })).status, status, host);
    await node.ok('route', 'add', 'beta', 'host', 'agents.beta.example');
    await eventually('the host is routed', async () =>
      (await raw(node, { host: 'agents.beta.example', token: acme })).status === 401, { every: 20 });
    assert.equal((await raw(node, { host: 'agents.beta.example', token: beta })).status, 200);
    assert.equal((await raw(node, { host: 'agents.elsewhere.example', token: acme })).status, 200);
    assert.ok(await metric('bulkhead_denied_total{reason="host"}') >= 1);
  });

  test('a back end of the platform resolves a number, and nobody else does', async () => {
    await node.ok('route', 'add', 'acme', 'phone', '+442079460000');
    const found = await node.want(200, 'GET', '/v1/routes/phone/%2B442079460000', { token: platform });
    assert.deepEqual(found.body ?? found, { kind: 'phone', value: '+442079460000',
                                            tenant_id: node.tenants.acme.id, tenant: 'acme' });
    await node.problem(404, 'not_found', 'GET', '/v1/routes/phone/%2B442079460001', { token: platform });
    await node.problem(400, 'bad_field', 'GET', '/v1/routes/phone/12', { token: platform });
    await node.problem(400, 'bad_field', 'GET', '/v1/routes/colour/red', { token: platform });
    await node.problem(403, 'forbidden_scope', 'GET', '/v1/routes/phone/%2B442079460000', { token: acme });
    await node.problem(403, 'forbidden_scope', 'GET', '/v1/memories', { token: platform });
    assert.equal((await raw(node, { host: 'acme.bank.example', token: platform,
                                    target: '/v1/routes/phone/%2B442079460000' })).status, 401);
    assert.match(await node.ok('ledger', 'export'), /route/);
  });

  test('a flood of invented tokens leaves the others served', async () => {
    const flood = Array.from({ length: 600 }, (_, i) => stranger.token({ tenant_id: `t${i}` }));
    for (let i = 0; i < flood.length; i += 20) {
      const answers = await Promise.all(flood.slice(i, i + 20).map((token) => statusOf(token)));
      assert.ok(answers.every((status) => [401, 503].includes(status)));
    }
    assert.equal(await statusOf(acme), 200);
  });

  test('one address gets so many connections and no more', async () => {
    const sockets = await Promise.all(Array.from({ length: 200 }, () => new Promise((resolve) => {
      const socket = net.connect(node.port, '127.0.0.1', () => resolve(socket));
      socket.closed_ = false;
      socket.on('error', () => {});
      socket.on('close', () => { socket.closed_ = true; });
      socket.resume();
    })));
    const gateways = (await node.status()).services.filter(({ name }) => name.startsWith('gateway')).length;
    await eventually('no more than the cap are open', () =>
      sockets.filter((socket) => !socket.closed_).length <= 40 * gateways);
    assert.ok(await metric('bulkhead_denied_total{reason="address_cap"}') > 0);
    for (const socket of sockets) socket.destroy();
  });

  test('the log says nothing of tokens, users and hosts', () => {
    const log = node.logText();
    for (const word of [acme, platform, 'mallory', 'agents.beta.example', '442079460000'])
      assert.ok(!log.includes(word), word);
  });
});

describe('behind a proxy', () => {
  const node = nodeOfSuite({ before, after }, {
    config: { domain: 'bank.example', behind_proxy: true, trusted_proxies: ['127.0.0.1'] }, tenants: ['acme'] });

  test('its word on the host counts', async () => {
    const token = await node.token('acme', 'ada');
    const status = async (host) =>
      (await raw(node, { host: 'inner', token, headers: { 'X-Forwarded-Host': host } })).status;
    assert.equal(await status('acme.bank.example'), 200);
    assert.equal(await status('beta.bank.example'), 401);
    assert.equal(await status('elsewhere.example'), 200);
  });
});

describe('behind a proxy that nobody named', () => {
  const node = nodeOfSuite({ before, after }, {
    config: { domain: 'bank.example', behind_proxy: true, trusted_proxies: ['192.0.2.0/24'] }, tenants: ['acme'] });

  test('its word on the host counts nothing', async () => {
    const token = await node.token('acme', 'ada');
    const headers = { 'X-Forwarded-Host': 'beta.bank.example' };
    assert.equal((await raw(node, { host: 'acme.bank.example', token, headers })).status, 200);
    assert.equal((await raw(node, { host: 'beta.bank.example', token,
                                    headers: { 'X-Forwarded-Host': 'acme.bank.example' } })).status, 401);
  });
});
