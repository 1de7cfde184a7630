// quota: a tenant that floods, a token that is used on while it is revoked, a token that serves once replayed by
// many at once: what the neighbour, the log and the next request notice of it.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';

import { Node } from '../e2e/harness.mjs';
import { claimsOf } from './support.mjs';

const node = new Node({ config: { idle_seconds: 600 } });
const SCOPE = 'memory:read memory:write tenant:read';

before(async () => {
  await node.start();
});

after(async () => {
  try {
    if (node.child) await node.stop();
  } finally {
    await node.destroy();
  }
});

const list = (token) => node.http('GET', '/v1/memories?limit=1', { token });

// So many clients ask without a pause until stop(), which yields { status: how often } of all of them.
function flood(token, clients) {
  const counts = {};
  let on = true;
  const all = Promise.all(Array.from({ length: clients }, async () => {
    while (on) {
      const { status } = await list(token);
      counts[status] = (counts[status] ?? 0) + 1;
    }
  }));
  return { counts, stop: async () => { on = false; await all; return counts; } };
}

test('a tenant that floods gets its rate, its neighbour all, and the log stays small', async () => {
  const RATE = 20;
  await node.createTenant('loud', '--quota', `requests_per_second=${RATE}`, '--quota', 'concurrent_requests=4');
  await node.createTenant('calm');
  const loud = await node.token('loud', 'ada', { scope: SCOPE });
  const calm = await node.token('calm', 'ada', { scope: SCOPE });
  await list(calm);
  const since = performance.now();
  const attack = flood(loud, 16);
  for (let i = 0; i < 300; i++) assert.equal((await list(calm)).status, 200);
  while (!(attack.counts[429] > 500)) assert.equal((await list(calm)).status, 200);
  const counts = await attack.stop();
  const seconds = (performance.now() - since) / 1000;
  assert.deepEqual(Object.keys(counts).filter((status) => !['200', '429'].includes(status)), []);
  assert.ok(counts[200] >= RATE && counts[200] <= RATE + Math.ceil(RATE * seconds), JSON.stringify(counts));
  let own;
  while (!own) { // its own rate is used up, too
    const answer = await node.http('GET', '/v1/tenant', { token: loud });
    if (answer.status === 200) own = answer.body;
  }
  const most = counts[200] + 2 * (Math.ceil(seconds) + 2) + 3;
  assert.ok(own.usage.audit_entries <= most, `${own.usage.audit_entries} entries, ${most} at most`);
});

test('from the moment a revocation is done, not one request more passes', async () => {
  await node.createTenant('robbed');
  const { id } = await node.tenant('robbed');
  const stolen = await node.token('robbed', 'ada', { scope: SCOPE });
  const other = await node.token('robbed', 'ada', { scope: SCOPE });
  await list(stolen);
  const { pid } = await node.cell(id);
  const attack = flood(stolen, 8);
  while (!(attack.counts[200] > 50)) await list(other);
  await node.ok('revoke', 'robbed', '--jti', claimsOf(stolen).jti);
  for (let i = 0; i < 100; i++) assert.equal((await list(stolen)).status, 401);
  const { 200: passed } = attack.counts;
  while (!(attack.counts[401] > 200)) assert.equal((await list(other)).status, 200);
  const counts = await attack.stop();
  assert.deepEqual(Object.keys(counts).sort(), ['200', '401']);
  assert.equal(counts[200], passed);
  assert.equal((await node.cell(id)).pid, pid, 'the cell was not restarted for it');
  await node.kill(pid);
  assert.equal((await list(stolen)).status, 401);
  await node.stop();
  await node.start();
  assert.equal((await list(stolen)).status, 401);
  assert.equal((await list(other)).status, 200);
});

test('a token that serves once, replayed by many at once and after a crash, serves once', async () => {
  await node.createTenant('once');
  const { id } = await node.tenant('once');
  const { privateKey, publicKey } = crypto.generateKeyPairSync('ed25519');
  const file = path.join(node.directory, 'once.jwks');
  fs.writeFileSync(file, JSON.stringify({
    keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'k1', alg: 'EdDSA', use: 'sig' }],
  }));
  await node.ok('issuer', 'add', 'once', '--iss', 'https://once.example', '--jwks', file, '--once');
  const now = Math.floor(Date.now() / 1000);
  const sign = (jti) => {
    const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const body = `${part({ alg: 'EdDSA', kid: 'k1', typ: 'JWT' })}.${part({
      iss: 'https://once.example', aud: 'bulkhead', sub: 'ada', tenant_id: id, scope: SCOPE,
      iat: now - 5, exp: now + 600, jti })}`;
    return `${body}.${crypto.sign(null, Buffer.from(body), privateKey).toString('base64url')}`;
  };
  const add = (token) => node.http('POST', '/v1/memories', { token, body: { text: 'once only' } });
  const tokens = Array.from({ length: 5 }, (_, i) => sign(`jti-${i}`));
  for (const token of tokens) {
    const answers = await Promise.all(Array.from({ length: 20 }, () => add(token)));
    const statuses = answers.map(({ status }) => status);
    assert.equal(statuses.filter((status) => status === 201).length, 1, `${statuses}`);
    assert.equal(statuses.filter((status) => status === 401).length, 19, `${statuses}`);
  }
  await node.kill((await node.cell(id)).pid);
  for (const token of tokens) assert.equal((await add(token)).status, 401);
  const own = await node.token('once', 'ada', { scope: SCOPE });
  const { data } = await node.want(200, 'GET', '/v1/memories', { token: own });
  assert.equal(data.length, tokens.length);
});
