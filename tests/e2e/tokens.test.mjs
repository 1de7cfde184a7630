// Who may come in: tokens that verify, scopes, and refusals that tell a stranger nothing.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import { nodeOfSuite, sleep } from './harness.mjs';

const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
const claimsOf = (token) => JSON.parse(Buffer.from(token.split('.')[1], 'base64url'));
const headerOf = (token) => JSON.parse(Buffer.from(token.split('.')[0], 'base64url'));

describe('tokens', () => {
  const node = nodeOfSuite({ before, after }, { tenants: ['acme', 'globex'] });
  let acme, globex;
  before(async () => {
    acme = await node.token('acme', 'ada');
    globex = await node.token('globex', 'ada');
  });

  const refused = async (options) => {
    const answer = await node.problem(401, 'unauthenticated', 'GET', '/v1/memories', options);
    assert.match(answer.headers.get('www-authenticate') ?? '', /^Bearer\b/);
    const { trace_id: trace, ...rest } = answer.body;
    return rest;
  };

  test('a token says who and for how long, and nothing secret', async () => {
    const token = await node.token('acme', 'ada', { agent: 'a-1', scope: 'memory:read', clearance: 'public',
                                                    ttl: '2m' });
    const claims = claimsOf(token);
    assert.equal(claims.sub, 'ada');
    assert.equal(claims.tenant_id, node.tenants.acme.id);
    assert.equal(claims.scope, 'memory:read');
    assert.equal(claims.clearance, 'public');
    assert.equal(claims.act.sub, 'a-1');
    assert.equal(claims.exp - claims.iat, 120);
    assert.equal(claims.aud, 'bulkhead');
    assert.equal(headerOf(token).alg, 'EdDSA');
  });

  test('no token, none that is one, and other schemes are refused', async () => {
    const first = await refused({});
    for (const authorization of ['Bearer', 'Bearer ', 'Bearer x', 'Bearer a.b.c', `Basic ${acme}`, acme,
                                 `Bearer ${acme} ${acme}`, `Bearer ${acme}.`])
      assert.equal((await refused({ headers: { authorization } })).status, first.status, authorization);
  });

  test('a token with one character changed is refused, wherever it is', async () => {
    const parts = acme.split('.');
    for (let part = 0; part < 3; part++) {
      const at = Math.floor(parts[part].length / 2);
      const other = parts[part][at] === 'A' ? 'B' : 'A';
      const changed = [...parts];
      changed[part] = parts[part].slice(0, at) + other + parts[part].slice(at + 1);
      await refused({ token: changed.join('.') });
    }
  });

  test('tokens that are signed otherwise are refused', async () => {
    const [header, payload] = acme.split('.');
    const { privateKey, publicKey } = crypto.generateKeyPairSync('ed25519');
    const resign = (head, key) => {
      const text = `${encode(head)}.${payload}`;
      return `${text}.${crypto.sign(null, Buffer.from(text), key).toString('base64url')}`;
    };
    const head = headerOf(acme);
    const hmac = (head_, key) => {
      const text = `${encode(head_)}.${payload}`;
      return `${text}.${crypto.createHmac('sha256', key).update(text).digest('base64url')}`;
    };
    const raw = publicKey.export({ format: 'jwk' }).x;
    for (const token of [
      resign(head, privateKey),
      resign({ ...head, jwk: publicKey.export({ format: 'jwk' }) }, privateKey),
      `${encode({ ...head, alg: 'none' })}.${payload}.`,
      `${encode({ alg: 'none' })}.${payload}.`,
      hmac({ ...head, alg: 'HS256' }, raw),
      `${header}.${payload}`,
    ])
      await refused({ token });
  });

  test('claims moved under another token\'s signature are refused', async () => {
    const [header, , signature] = acme.split('.');
    await refused({ token: `${header}.${globex.split('.')[1]}.${signature}` });
    const claims = { ...claimsOf(acme), tenant_id: node.tenants.globex.id };
    await refused({ token: `${header}.${encode(claims)}.${signature}` });
  });

  test('a token is good until it expires, and not a second longer', async () => {
    const token = await node.token('acme', 'ada', { ttl: '2s' });
    await node.want(200, 'GET', '/v1/memories', { token });
    await sleep(claimsOf(token).exp * 1000 - Date.now() + 10);
    await refused({ token });
  });

  test('a stranger cannot tell which tenants there are', async () => {
    const { id } = await node.createTenant('short-lived');
    const erased = await node.token('short-lived', 'ada');
    await node.ok('tenant', 'erase', 'short-lived');
    await node.createTenant('asleep');
    const paused = await node.token('asleep', 'ada');
    await node.ok('tenant', 'pause', 'asleep');
    const [header, payload, signature] = paused.split('.');
    const forged = `${header}.${payload}.${signature.slice(0, 20)}AAAA${signature.slice(24)}`;
    const unknown = { ...claimsOf(acme), tenant_id: 'f'.repeat(32) };
    const wrong = `${acme.split('.')[0]}.${encode(unknown)}.${acme.split('.')[2]}`;
    const answers = [await refused({ token: erased }), await refused({ token: forged }),
                     await refused({ token: wrong })];
    for (const answer of answers) assert.deepEqual(answer, answers[0]);
    assert.ok(!JSON.stringify(answers).includes(id));
    const own = await node.problem(423, 'tenant_paused', 'GET', '/v1/memories', { token: paused });
    assert.match(own.body.detail, /paused/);
  });

  test('one tenant\'s token opens nothing of another', async () => {
    const item = await node.want(201, 'POST', '/v1/memories',
                                 { token: acme, body: { text: 'the recipe of acme' } });
    const unknown = await node.problem(404, 'not_found', 'GET', '/v1/memories/01ARZ3NDEKTSV4RRFFQ69G5FAV',
                                       { token: globex });
    const any = await node.token('globex', 'ada', { scope: 'memory:read memory:write memory:any-user',
                                                    clearance: 'restricted' });
    for (const token of [globex, any]) {
      const answer = await node.problem(404, 'not_found', 'GET', `/v1/memories/${item.id}`, { token });
      assert.equal(answer.body.detail, unknown.body.detail);
      assert.deepEqual((await node.want(200, 'GET', '/v1/memories', { token })).data, []);
      assert.deepEqual((await node.want(200, 'POST', '/v1/memories/search',
                                        { token, body: { query: 'recipe' } })).data, []);
      await node.problem(404, 'not_found', 'DELETE', `/v1/memories/${item.id}`, { token });
    }
    const page = await node.want(201, 'POST', '/v1/memories', { token: acme, body: { text: 'a second' } });
    const { next_cursor: cursor } = await node.want(200, 'GET', '/v1/memories?limit=1', { token: acme });
    await node.problem(400, 'bad_field', 'GET', `/v1/memories?limit=1&cursor=${cursor}`, { token: globex });
    await node.want(200, 'GET', `/v1/memories/${page.id}`, { token: acme });
  });

  test('a client\'s headers never choose the tenant or the user', async () => {
    const headers = { 'x-tenant-id': node.tenants.acme.id, 'x-user-id': 'ada', 'x-forwarded-user': 'ada',
                      'x-bulkhead-tenant': 'acme' };
    const { data } = await node.want(200, 'GET', '/v1/memories', { token: globex, headers });
    assert.deepEqual(data, []);
  });

  test('each action needs its scope, and the refusal names it', async () => {
    const token = async (scope) => node.token('acme', 'ada', { scope });
    const [read, write, none] = [await token('memory:read'), await token('memory:write'),
                                 await token('tools:call')];
    const item = await node.want(201, 'POST', '/v1/memories', { token: write, body: { text: 'scoped' } });
    await node.want(200, 'GET', `/v1/memories/${item.id}`, { token: read });
    for (const [bearer, method, target, body, scope] of [
      [read, 'POST', '/v1/memories', { text: 'a' }, 'memory:write'],
      [read, 'PATCH', `/v1/memories/${item.id}`, { text: 'a' }, 'memory:write'],
      [read, 'DELETE', `/v1/memories/${item.id}`, undefined, 'memory:write'],
      [read, 'DELETE', '/v1/memories?user_id=ada', undefined, 'memory:write'],
      [write, 'GET', '/v1/memories', undefined, 'memory:read'],
      [write, 'GET', `/v1/memories/${item.id}`, undefined, 'memory:read'],
      [write, 'GET', `/v1/memories/${item.id}/history`, undefined, 'memory:read'],
      [write, 'POST', '/v1/memories/search', { query: 'a' }, 'memory:read'],
      [none, 'GET', '/v1/tenant', undefined, 'tenant:read'],
    ]) {
      const answer = await node.problem(403, 'forbidden_scope', method, target, { token: bearer, body });
      assert.match(answer.body.detail, new RegExp(scope));
    }
  });

  test('a regulated tenant takes short tokens with a clearance only', async () => {
    await node.refused('tenant', 'create', 'bank', '--tier', 'regulated');
    await node.createTenant('bank', '--tier', 'regulated', '--retention', '90');
    await node.refused('token', 'bank', '--user', 'ada', '--clearance', 'internal', '--ttl', '6m');
    const plain = await node.token('bank', 'ada', { ttl: '5m' });
    await node.problem(403, 'forbidden_policy', 'GET', '/v1/memories', { token: plain });
    const good = await node.token('bank', 'ada', { ttl: '5m', clearance: 'internal' });
    await node.want(201, 'POST', '/v1/memories', { token: good, body: { text: 'audited' } });
    const { posture } = await node.want(200, 'GET', '/v1/tenant', { token: good });
    assert.deepEqual(
      [posture.tier, posture.audit, posture.retention_days, posture.token_lifetime_seconds],
      ['regulated', 'strict', 90, 300]);
    assert.equal(posture.clearance_required, true);
  });

  test('the command line mints no token that could not be used', async () => {
    assert.match(await node.refused('token', 'acme', '--user', 'ada', '--scope', 'memory:reed'), /memory:reed/);
    assert.match(await node.refused('token', 'acme', '--user', 'ada', '--clearance', 'top'), /clearance/);
    assert.match(await node.refused('token', 'nobody', '--user', 'ada'), /no tenant/);
    await node.refused('token', 'acme', '--user', 'a\u0007');
    await node.refused('token', 'acme', '--user', 'ada', '--ttl', '2d');
  });
});
