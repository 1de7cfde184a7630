// matrix: two tenants, two users each; every action of the table, tried with every wrong credential and
// with every id of somebody else. Codes, bodies, the data afterwards, the logs, and who was woken.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { Node, checkProblem, eventually, sleep } from '../e2e/harness.mjs';
import {
  EVERY_SCOPE, PLAIN_SCOPE, auditOf, everything, forgeries, headWithoutTrace, park, verifyLedger,
  withoutTrace,
} from './support.mjs';

const UNKNOWN_ID = '0'.repeat(26);
const kinds = ['event', 'fact', 'preference', 'summary', 'episode'];
const node = new Node({ config: { idle_seconds: 600 } });
const tenants = {
  alpha: { users: ['ada', 'bob'] },
  beta: { users: ['cleo', 'dan'] },
};

const lines = (...documents) => documents.map((one) => `${JSON.stringify(one)}\n`).join('');
const ndjson = { 'content-type': 'application/x-ndjson' };
const bytes = { 'content-type': 'application/octet-stream' };

// As a request on somebody's item (a memory's id, a document's, or an object's key) and somebody's user.
// scope: what the action needs.
const actions = {
  'memory.add': () => ['POST', '/v1/memories', { text: 'written by a stranger' }, 'memory:write'],
  'memory.list': () => ['GET', '/v1/memories', undefined, 'memory:read'],
  'memory.forget_user': (id, user) =>
    ['DELETE', `/v1/memories?user_id=${user}`, undefined, 'memory:write'],
  'memory.search': () => ['POST', '/v1/memories/search', { query: 'secret' }, 'memory:read'],
  'memory.read': (id) => ['GET', `/v1/memories/${id}`, undefined, 'memory:read'],
  'memory.update': (id) =>
    ['PATCH', `/v1/memories/${id}`, { text: 'changed by a stranger' }, 'memory:write'],
  'memory.delete': (id) => ['DELETE', `/v1/memories/${id}`, undefined, 'memory:write'],
  'memory.history': (id) => ['GET', `/v1/memories/${id}/history`, undefined, 'memory:read'],
  'knowledge.list': () => ['GET', '/v1/documents', undefined, 'knowledge:read'],
  'knowledge.batch': (id) => ['POST', '/v1/documents/batch', lines({ id: id || 'x', text: 'by a stranger' }),
                              'knowledge:write', ndjson],
  'knowledge.put': (id) => ['PUT', `/v1/documents/${id}`, { text: 'by a stranger' }, 'knowledge:write'],
  'knowledge.read': (id) => ['GET', `/v1/documents/${id}`, undefined, 'knowledge:read'],
  'knowledge.delete': (id) => ['DELETE', `/v1/documents/${id}`, undefined, 'knowledge:write'],
  'knowledge.search': () => ['POST', '/v1/search', { query: 'secret' }, 'knowledge:read'],
  'object.put': (key) => ['PUT', `/v1/objects/${key}`, 'by a stranger', 'objects:write', bytes],
  'object.get': (key) => ['GET', `/v1/objects/${key}`, undefined, 'objects:read'],
  'object.delete': (key) => ['DELETE', `/v1/objects/${key}`, undefined, 'objects:write'],
  'object.list': () => ['GET', '/v1/objects', undefined, 'objects:read'],
  'tenant.read': () => ['GET', '/v1/tenant', undefined, 'tenant:read'],
  'audit.list': () => ['GET', '/v1/audit', undefined, 'audit:read'],
  'audit.checkpoint': () => ['GET', '/v1/audit/checkpoint', undefined, 'audit:read'],
  'audit.proof': () => ['GET', '/v1/audit/proof?index=0', undefined, 'audit:read'],
  'audit.consistency': () => ['GET', '/v1/audit/consistency?from=1', undefined, 'audit:read'],
  'audit.export': () => ['GET', '/v1/audit/export', undefined, 'audit:read'],
  'audit.hash': () => ['POST', '/v1/audit/hash', { text: 'secret' }, 'audit:read'],
};
const onAMemory = ['memory.read', 'memory.update', 'memory.delete', 'memory.history'];
// What one names oneself, and what is there under that name.
const onANamed = {
  documents: ['knowledge.read', 'knowledge.delete'],
  objects: ['object.get', 'object.delete'],
};
const writesANamed = {
  documents: [['knowledge.put', 'knowledge.delete'], ['knowledge.batch', 'knowledge.delete']],
  objects: [['object.put', 'object.delete']],
};

async function fillShared(name, tenant) {
  const token = tenant.all;
  tenant.documents = [];
  tenant.objects = [];
  for (let i = 0; i < 3; i++) {
    const id = `paper-${name}-${i}`, key = `files/${name}/${i}`;
    await node.want(201, 'PUT', `/v1/documents/${id}`, { token, body: {
      title: `title ${i} of ${name}`, text: `secret paper ${i} of ${name}`, metadata: { origin: `paper-${name}` } } });
    await node.want(201, 'PUT', `/v1/objects/${key}`, { token, headers: { 'content-type': 'text/plain' },
                                                        body: `secret file ${i} of ${name}` });
    tenant.documents.push(id);
    tenant.objects.push(key);
  }
}

async function fill(name, tenant) {
  tenant.id = (await node.createBusyTenant(name)).id;
  tenant.all = await node.token(name, 'platform', { scope: EVERY_SCOPE, ttl: '1h' });
  tenant.tokens = {};
  tenant.items = {};
  tenant.markers = [name, tenant.id];
  for (const user of tenant.users) {
    const token = tenant.tokens[user] =
      await node.token(name, user, { scope: PLAIN_SCOPE, ttl: '1h', agent: `agent-of-${user}` });
    tenant.items[user] = [];
    for (const kind of kinds) {
      const text = `secret ${kind} of ${user} of ${name}`;
      const item = await node.want(201, 'POST', '/v1/memories', { token, body: {
        text, kind, session_id: `session-${user}`, metadata: { origin: `${name}-${user}` } } });
      await node.want(200, 'PATCH', `/v1/memories/${item.id}`,
                      { token, body: { text: `${text}, again` } });
      tenant.items[user].push(item.id);
    }
    tenant.markers.push(`of ${user}`, `session-${user}`, `agent-of-${user}`, ...tenant.items[user]);
  }
  await fillShared(name, tenant);
}

before(async () => {
  await node.start();
  for (const [name, tenant] of Object.entries(tenants)) await fill(name, tenant);
  tenants.alpha.before = await everything(node, tenants.alpha.all);
  tenants.beta.before = await everything(node, tenants.beta.all);
});
after(() => node.destroy());

async function attempt(name, item, user, token, options = {}) {
  const [method, target, body, , headers] = actions[name](item, user);
  return node.http(method, target, { token, body, headers, ...options });
}

function saysNothingOf(tenant, answer, what) {
  for (const marker of tenant.markers)
    assert.ok(!answer.text.includes(marker), `${what}: the answer holds "${marker}": ${answer.text}`);
}

async function nothingHasChanged() {
  for (const tenant of Object.values(tenants))
    assert.deepEqual(await everything(node, tenant.all), tenant.before);
}

test('every action of the table is tried here', () => {
  const directory = fileURLToPath(new URL('../../src/silo/', import.meta.url));
  const named = fs.readdirSync(directory).filter((file) => file.endsWith('_actions.c'))
    .flatMap((file) => [...fs.readFileSync(directory + file, 'utf8')
      .matchAll(/\.name = "([a-z_.]+)"/g)].map((match) => match[1]));
  assert.deepEqual(Object.keys(actions).sort(), named.sort());
});

test('no token, a malformed or forged one: 401 everywhere, one body, and nobody is woken', async () => {
  const { alpha, beta } = tenants;
  await park(node, 'alpha');
  await park(node, 'beta');
  const platform = JSON.parse(await node.ok('platform-key', '--json'));
  const short = await node.token('alpha', 'ada', { scope: PLAIN_SCOPE, ttl: '1s' });
  const wrong = {
    ...forgeries(alpha.tokens.ada, beta.tokens.cleo, platform.public_key),
    'no token at all': undefined, 'an expired one': short,
  };
  await sleep(2100);
  const seen = new Map();
  for (const [what, token] of Object.entries(wrong))
    for (const action of Object.keys(actions)) {
      const answer = await attempt(action, alpha.items.ada[0], 'ada', token);
      assert.equal(answer.status, 401, `${action} with ${what}: ${answer.text}`);
      checkProblem(answer, 401, 'unauthenticated');
      assert.equal(answer.headers.get('www-authenticate'), 'Bearer');
      saysNothingOf(alpha, answer, `${action} with ${what}`);
      seen.set(withoutTrace(answer) + headWithoutTrace(answer), `${action} with ${what}`);
    }
  assert.equal(seen.size, 1, `all read alike: ${[...seen.keys()].join('\n')}`);
  for (const value of ['Basic YWRhOng=', `Basic ${alpha.tokens.ada}`, alpha.tokens.ada,
                       `Bearer  ${alpha.tokens.ada}`, `Bearer ${alpha.tokens.ada} x`,
                       `Bearer ${alpha.tokens.ada},Bearer ${beta.tokens.cleo}`, 'Bearer']) {
    const answer = await node.http('GET', '/v1/memories', { headers: { authorization: value } });
    assert.equal(answer.status, 401, `Authorization: ${value.slice(0, 20)}`);
  }
  assert.deepEqual((await node.status()).cells, [], 'no cell was woken by what was refused');
});

test('a scope that is missing is 403, says which one, and wakes nobody', async () => {
  const { alpha } = tenants;
  await park(node, 'alpha');
  await park(node, 'beta');
  for (const action of Object.keys(actions)) {
    const [, , , scope] = actions[action]('x', 'x');
    const others = EVERY_SCOPE.split(' ').filter((one) => one !== scope).join(' ');
    const token = await node.token('alpha', 'ada', { scope: others });
    const answer = await attempt(action, alpha.items.ada[0], 'ada', token);
    assert.equal(answer.status, 403, `${action}: ${answer.text}`);
    checkProblem(answer, 403, 'forbidden_scope');
    assert.ok(answer.body.detail.includes(scope), answer.body.detail);
  }
  assert.deepEqual((await node.status()).cells, [], 'no cell was woken by what was refused');
});

// As if nobody had taken the name: read, deleted and written alike, and the other's item stays.
async function namesOfAnotherTenant(theirs, tokens) {
  for (const token of tokens)
    for (const [kind, names] of Object.entries(onANamed))
      for (const name of theirs[kind]) {
        for (const action of names) {
          const answer = await attempt(action, name, 'ada', token);
          const never = await attempt(action, 'never-was', 'ada', token);
          checkProblem(answer, 404, 'not_found');
          assert.equal(withoutTrace(answer), withoutTrace(never), 'as a name that never was');
          assert.equal(headWithoutTrace(answer), headWithoutTrace(never));
        }
        for (const [write, undo] of writesANamed[kind]) {
          const written = await attempt(write, name, 'ada', token);
          const first = write === 'knowledge.batch' ? JSON.parse(written.text).status : written.status;
          assert.equal(first, 201, `${write}: the name is free here: ${written.text}`);
          assert.equal((await attempt(undo, name, 'ada', token)).status, 204);
        }
      }
}

test('a hash of a text is of use in one tenant only', async () => {
  const of = async ({ all }) =>
    (await node.want(200, 'POST', '/v1/audit/hash', { token: all, body: { text: 'secret' } })).hash;
  assert.equal(await of(tenants.alpha), await of(tenants.alpha));
  assert.notEqual(await of(tenants.alpha), await of(tenants.beta));
});

test('ids of another tenant are 404, as ids that never were; its lists, searches, users are empty', async () => {
  const { alpha, beta } = tenants;
  const log = await auditOf(node, 'alpha');
  await park(node, 'alpha');
  for (const token of [beta.tokens.cleo, beta.tokens.dan, beta.all])
    for (const action of onAMemory)
      for (const id of [...alpha.items.ada, ...alpha.items.bob]) {
        const answer = await attempt(action, id, 'ada', token);
        const never = await attempt(action, UNKNOWN_ID, 'ada', token);
        assert.equal(answer.status, 404, `${action}: ${answer.text}`);
        checkProblem(answer, 404, 'not_found');
        assert.equal(withoutTrace(answer), withoutTrace(never), 'as an id that never was');
        assert.equal(headWithoutTrace(answer), headWithoutTrace(never));
        saysNothingOf(alpha, answer, action);
      }
  await namesOfAnotherTenant(alpha, [beta.tokens.cleo, beta.all]);
  for (const query of ['secret', 'ada', 'alpha', 'secret event of ada of alpha'])
    for (const token of [beta.tokens.cleo, beta.all])
      for (const target of ['/v1/memories/search', '/v1/search']) {
        const found = await node.http('POST', target, { token, body: { query } });
        assert.equal(found.status, 200);
        saysNothingOf(alpha, found, `search for ${query}`);
      }
  for (const target of ['/v1/memories', '/v1/memories?user_id=ada', '/v1/memories?user_id=ada&session_id=session-ada',
                        '/v1/tenant', '/v1/documents', '/v1/documents?prefix=paper-alpha', '/v1/objects',
                        '/v1/objects?prefix=files/alpha/', '/v1/objects?delimiter=/', '/v1/audit',
                        '/v1/audit?subject=ada', '/v1/audit/checkpoint', '/v1/audit/export']) {
    const answer = await node.http('GET', target, { token: beta.all });
    assert.equal(answer.status, 200);
    saysNothingOf(alpha, answer, target);
  }
  const forgotten = await node.want(200, 'DELETE', '/v1/memories?user_id=ada', { token: beta.all });
  assert.deepEqual(forgotten, { deleted: 0 });
  const { cells } = await node.status();
  assert.deepEqual(cells.map((cell) => cell.tenant_id), [beta.id], 'only the cell of who asked runs');
  assert.deepEqual(await auditOf(node, 'alpha'), log, "not a line in the other tenant's log");
  await nothingHasChanged();
});

test('cursors of one tenant or user mean nothing to another', async () => {
  const { alpha, beta } = tenants;
  const lists = { '/v1/memories': [alpha.tokens.bob, beta.tokens.cleo, beta.all, alpha.all],
                  '/v1/documents': [beta.tokens.cleo, beta.all], '/v1/objects': [beta.tokens.cleo, beta.all],
                  '/v1/audit': [alpha.tokens.bob, beta.tokens.cleo, beta.all] };
  for (const [list, others] of Object.entries(lists)) {
    const page = await node.want(200, 'GET', `${list}?limit=2`, { token: alpha.tokens.ada });
    assert.ok(page.next_cursor);
    const target = `${list}?limit=2&cursor=${encodeURIComponent(page.next_cursor)}`;
    for (const token of others) {
      const answer = await node.problem(400, 'bad_field', 'GET', target, { token });
      saysNothingOf(alpha, answer, 'a cursor');
    }
    await node.want(200, 'GET', target, { token: alpha.tokens.ada });
    for (const other of Object.keys(lists).filter((one) => one !== list))
      await node.problem(400, 'bad_field', 'GET', `${other}?limit=2&cursor=${encodeURIComponent(page.next_cursor)}`,
                         { token: alpha.tokens.ada });
  }
  const body = { query: 'secret', limit: 1 };
  const { next_cursor: cursor } = await node.want(200, 'POST', '/v1/search', { token: alpha.tokens.ada, body });
  assert.ok(cursor);
  for (const token of [beta.tokens.cleo, beta.all])
    await node.problem(400, 'bad_field', 'POST', '/v1/search', { token, body: { ...body, cursor } });
  await node.want(200, 'POST', '/v1/search', { token: alpha.tokens.bob, body: { ...body, cursor } });
});

// Documents and objects are the tenant's: its users share them, and only clearance divides them. What is each
// user's own besides memories: what an Idempotency-Key answered.
test('an Idempotency-Key of one user is not another\'s', async () => {
  const { alpha } = tenants;
  const headers = { 'idempotency-key': 'the-same' };
  const ask = (token) => node.http('POST', '/v1/memories/search', { token, headers, body: { query: 'secret' } });
  const hers = await ask(alpha.tokens.ada), his = await ask(alpha.tokens.bob);
  assert.equal(hers.headers.get('idempotent-replayed'), null);
  assert.equal(his.headers.get('idempotent-replayed'), null, 'not even that it was used');
  saysNothingOf({ markers: ['of ada', ...alpha.items.ada] }, his, 'a search under her key');
  assert.equal((await ask(alpha.tokens.ada)).headers.get('idempotent-replayed'), 'true');
  saysNothingOf({ markers: ['of bob', ...alpha.items.bob] }, await ask(alpha.tokens.ada), 'and the other way');
});

test('another user of the same tenant: 404 for items, 403 for naming the user, and the log has it', async () => {
  const { alpha } = tenants;
  const token = alpha.tokens.bob;
  const hers = { markers: ['of ada', 'session-ada', 'agent-of-ada', ...alpha.items.ada] };
  const log = await auditOf(node, 'alpha');
  let count = 0;
  for (const action of onAMemory)
    for (const id of alpha.items.ada) {
      const answer = await attempt(action, id, 'ada', token);
      const never = await attempt(action, UNKNOWN_ID, 'ada', token);
      assert.equal(answer.status, 404, `${action}: ${answer.text}`);
      assert.equal(withoutTrace(answer), withoutTrace(never), 'as an id that never was');
      saysNothingOf(hers, answer, action);
      count += 1;
    }
  const naming = [
    ['GET', '/v1/memories?user_id=ada'], ['DELETE', '/v1/memories?user_id=ada'],
    ['POST', '/v1/memories', { text: 'x', user_id: 'ada' }],
    ['POST', '/v1/memories/search', { query: 'secret', user_id: 'ada' }],
  ];
  for (const [method, target, body] of naming) {
    const answer = await node.problem(403, 'forbidden_scope', method, target, { token, body });
    saysNothingOf(hers, answer, target);
    assert.match(answer.body.detail, /memory:any-user/);
  }
  for (const [method, target, body] of [
    ['GET', '/v1/memories'], ['GET', '/v1/memories?session_id=session-ada'], ['GET', '/v1/tenant'],
    ['POST', '/v1/memories/search', { query: 'secret ada' }],
    ['POST', '/v1/memories/search', { query: 'secret', session_id: 'session-ada' }]]) {
    const answer = await node.http(method, target, { token, body });
    assert.equal(answer.status, 200, answer.text);
    saysNothingOf(hers, answer, target);
  }
  await nothingHasChanged();
  const denied = (await auditOf(node, 'alpha')).slice(log.length)
    .filter((entry) => entry.subject === 'bob' && entry.decision === 'deny');
  assert.equal(denied.length, count + naming.length, 'each attempt on what is hers is a denial');
});

test('each log names its own tenant and users only', async () => {
  for (const [name, tenant] of Object.entries(tenants)) {
    const log = await auditOf(node, name);
    assert.ok(log.length >= 20);
    for (const entry of log) {
      assert.equal(entry.tenant_id, tenant.id);
      assert.ok([...tenant.users, 'platform', null].includes(entry.subject), JSON.stringify(entry));
    }
  }
});

test('unknown, erased and paused tenants and a wrong signature read alike, byte by byte', async () => {
  const created = {};
  for (const name of ['gamma', 'delta']) {
    created[name] = await node.createBusyTenant(name);
    created[name].token = await node.token(name, 'eve', { scope: EVERY_SCOPE });
    await node.want(201, 'POST', '/v1/memories',
                    { token: created[name].token, body: { text: `of ${name}` } });
  }
  await node.ok('tenant', 'erase', 'gamma');
  await node.ok('tenant', 'pause', 'delta');
  const broken = (token) => `${token.slice(0, -12)}AAAA${token.slice(-8)}`;
  const tokens = {
    'an erased tenant, a sound token': created.gamma.token,
    'an erased tenant, a wrong signature': broken(created.gamma.token),
    'a paused tenant, a wrong signature': broken(created.delta.token),
    'an active tenant, a wrong signature': broken(tenants.alpha.tokens.ada),
    'no token': undefined,
  };
  for (const action of Object.keys(actions)) {
    const seen = new Map();
    for (const [what, token] of Object.entries(tokens)) {
      const answer = await eventually('what was cached is forgotten', async () => {
        const got = await attempt(action, UNKNOWN_ID, 'eve', token);
        return got.status === 401 && got;
      }, { within: 3000 });
      seen.set(withoutTrace(answer) + headWithoutTrace(answer), what);
    }
    assert.equal(seen.size, 1, `${action}: ${[...seen].join('\n')}`);
  }
  const own = await attempt('memory.list', '', '', created.delta.token);
  assert.equal(own.status, 423, 'who belongs there is told that it is paused');
  checkProblem(own, 423, 'tenant_paused');
  assert.equal(await node.cell(created.delta.id), undefined);
});

test('what was denied stands in the ledger as a count, without a word of the client', async () => {
  const entries = await eventually('the ledger tells of denials', async () => {
    const found = (await verifyLedger(node)).filter((entry) => entry.event === 'requests.denied');
    return found.length > 0 && found;
  }, { within: 90000, every: 1000 });
  const text = JSON.stringify(entries);
  for (const tenant of Object.values(tenants))
    for (const marker of tenant.markers.slice(1)) assert.ok(!text.includes(marker), marker);
  assert.ok(!text.includes('127.0.0.1'), 'addresses are hashed');
});
