// clearance: two tenants that are alike but for what is above a caller's clearance. Whatever the caller asks, both
// answer the same bytes: codes, heads, bodies, orders, scores, ids, versions, pages.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Node } from '../e2e/harness.mjs';
import { withoutTrace } from './support.mjs';

const scope = 'knowledge:read knowledge:write objects:read objects:write memory:read memory:write';
const node = new Node({ config: { idle_seconds: 600 } });
const twins = { bare: {}, full: {} };
const ndjson = { 'content-type': 'application/x-ndjson' };
const plain = { 'content-type': 'text/plain' };
const words = ['amber', 'birch', 'cedar', 'dune', 'ember', 'fjord'];

before(async () => {
  await node.start();
  for (const [name, twin] of Object.entries(twins)) {
    await node.createBusyTenant(name);
    twin.low = await node.token(name, 'ada', { scope, ttl: '1h' });
    twin.high = await node.token(name, 'chief', { scope, clearance: 'restricted', ttl: '1h' });
  }
});
after(() => node.destroy());

// What differs between any two silos: times, and random names in the order in which they are seen.
function normalizer() {
  const seen = new Map();
  const named = (kind) => (value) => {
    if (!seen.has(value)) seen.set(value, `${kind}${seen.size}`);
    return seen.get(value);
  };
  return (text) => text
    .replace(/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z/g, 'TIME')
    .replace(/\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT/g, 'DATE')
    .replace(/"next_cursor":"([^"]+)"/g, (_, cursor) => `"next_cursor":"${cursor.length}"`)
    .replace(/"trace_id":"[0-9a-f]+"/g, '"trace_id":"TRACE"')
    .replace(/\b00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}\b/g, 'TRACEPARENT')
    .replace(/\b[0-9a-f]{32}\b/g, named('blob'))
    .replace(/\b[0-9a-hjkmnp-tv-zA-HJKMNP-TV-Z]{26}\b/g, named('id'));
}

// As node.http, also where a head promises a body that does not come.
async function ask(method, target, options) {
  if (method !== 'HEAD') return node.http(method, target, options);
  const answer = await fetch(node.url + target, { method, headers: { authorization: `Bearer ${options.token}` } });
  return { status: answer.status, headers: answer.headers, text: await answer.text() };
}

// In both; yields what each answered. steps: [method, target, body, headers], or a function of the answer before.
async function compare(...steps) {
  for (const step of steps) {
    const answers = [];
    for (const twin of Object.values(twins)) {
      const normalize = twin.normalize ??= normalizer();
      const [method, target, body, headers] = typeof step === 'function' ? step(twin.last) : step;
      const answer = await ask(method, target, { token: twin.low, body, headers });
      twin.last = answer;
      answers.push({ what: `${method} ${normalize(target.replace(/cursor=.*/, 'cursor'))}`, status: answer.status,
                     head: normalize(JSON.stringify([...answer.headers])), text: normalize(answer.text) });
    }
    assert.deepEqual(answers[1], answers[0]);
  }
  return Object.values(twins).map(({ last }) => last);
}

// By who may see it all: in the tenant that has hidden items only.
const hide = async (status, method, target, body, headers) => {
  const answer = await node.http(method, target, { token: twins.full.high, body, headers });
  assert.equal(answer.status, status, answer.text);
};
const sentence = (i) => `${words[i % 6]} ${words[(i * 5 + 1) % 6]} report number ${i} about ${words[i % 5]}`;
const batch = (from, to, more) => Array.from({ length: to - from }, (_, i) => `${JSON.stringify({
  id: `doc-${String(from + i).padStart(4, '0')}`, title: `on ${words[i % 3]}`, text: sentence(from + i),
  metadata: { n: i % 7 }, ...more })}\n`).join('');

test('documents: hidden ones before, between and after, under names of their own and under the same', async () => {
  await hide(200, 'POST', '/v1/documents/batch', batch(0, 300, { classification: 'restricted' }), ndjson);
  await compare(['GET', '/v1/documents'], ['GET', '/v1/documents/doc-0001'], ['DELETE', '/v1/documents/doc-0001'],
                ['GET', '/v1/documents?classification=restricted'], ['POST', '/v1/search', { query: 'amber report' }],
                ['POST', '/v1/documents/batch', batch(100, 160), ndjson]);
  await hide(200, 'POST', '/v1/documents/batch', batch(400, 500, { classification: 'confidential' }), ndjson);
  await compare(['POST', '/v1/documents/batch', batch(150, 220), ndjson],
                ['PUT', '/v1/documents/doc-0300', { text: sentence(300) }],
                ['PUT', '/v1/documents/doc-0001', { text: sentence(1) }],
                ['PUT', '/v1/documents/doc-0001', { text: `${sentence(1)} again` }],
                ['PUT', '/v1/documents/doc-0002', { text: 'x', classification: 'restricted' }],
                ['PUT', '/v1/documents/nothing', { text: 'x', classification: 'restricted' }],
                ['GET', '/v1/documents/doc-0001'], ['HEAD', '/v1/documents/doc-0001'],
                ['HEAD', '/v1/documents/doc-0003'], ['PATCH', '/v1/documents/doc-0003'],
                ['DELETE', '/v1/documents/doc-0150'], ['GET', '/v1/documents/doc-0150'],
                ['DELETE', '/v1/documents/doc-0150']);
});

test('lists and searches, page by page', async () => {
  for (const limit of [1, 7, 500]) {
    const next = (target) => (last) =>
      ['GET', `${target}${target.includes('?') ? '&' : '?'}limit=${limit}&cursor=${last.body.next_cursor}`];
    for (const target of ['/v1/documents', '/v1/documents?prefix=doc-01', '/v1/documents?classification=internal']) {
      let [{ body }] = await compare(['GET', `${target}${target.includes('?') ? '&' : '?'}limit=${limit}`]);
      for (let i = 0; i < 12 && body.next_cursor; i++) [{ body }] = await compare(next(target));
    }
  }
  for (const query of [...words, 'amber cedar report', 'report number about', 'secret', 'number 17']) {
    const body = { query, limit: 9, filter: { n: { $lte: 5 } } };
    let [{ body: page }] = await compare(['POST', '/v1/search', { query, limit: 500 }], ['POST', '/v1/search', body]);
    for (let i = 0; i < 5 && page.next_cursor; i++)
      [{ body: page }] = await compare((last) => ['POST', '/v1/search', { ...body, cursor: last.body.next_cursor }]);
  }
});

test('answers that are given again', async () => {
  const key = { 'idempotency-key': 'the-key' };
  await hide(200, 'POST', '/v1/search', { query: 'birch' }, key);
  await compare(['POST', '/v1/search', { query: 'birch' }, key], ['POST', '/v1/search', { query: 'birch' }, key]);
  await hide(201, 'PUT', '/v1/documents/hidden-later', { text: 'birch birch', classification: 'restricted' });
  await compare(['POST', '/v1/search', { query: 'birch' }, key]);
  await compare(['POST', '/v1/documents/batch', batch(600, 603), { ...ndjson, 'idempotency-key': 'b' }],
                ['POST', '/v1/documents/batch', batch(600, 603), { ...ndjson, 'idempotency-key': 'b' }]);
});

test('a stored answer that hidden changes take away is answered alike', async () => {
  const key = { 'idempotency-key': 'until-a-change' };
  await compare(['POST', '/v1/search', { query: 'fjord' }, key]);
  await hide(200, 'PUT', '/v1/documents/hidden-later', { text: 'fjord', classification: 'restricted' });
  await hide(204, 'DELETE', '/v1/documents/hidden-later');
  await compare(['POST', '/v1/search', { query: 'fjord' }, key]);
});

test('objects: conditions, parts, heads, lists', async () => {
  for (const name of ['a/1', 'a/b/2', 'h/only', 'k', 'z'])
    await hide(201, 'PUT', `/v1/objects/${name}?classification=restricted`, `secret ${name}`, plain);
  for (const name of ['h/only', 'k', 'never'])
    await compare(['GET', `/v1/objects/${name}`], ['HEAD', `/v1/objects/${name}`], ['DELETE', `/v1/objects/${name}`],
                  ['GET', `/v1/objects/${name}`, undefined, { 'if-none-match': '*' }],
                  ['GET', `/v1/objects/${name}`, undefined, { 'if-match': '*' }],
                  ['GET', `/v1/objects/${name}`, undefined, { range: 'bytes=0-1' }],
                  ['GET', `/v1/objects/${name}`, undefined, { range: 'bytes=900-' }],
                  ['DELETE', `/v1/objects/${name}`, undefined, { 'if-match': '*' }],
                  ['PUT', `/v1/objects/${name}`, 'x', { ...plain, 'if-match': '*' }],
                  ['PUT', `/v1/objects/${name}?classification=restricted`, 'x', plain]);
  await compare(['PUT', '/v1/objects/k', '0123456789', { ...plain, 'if-none-match': '*' }],
                ['PUT', '/v1/objects/k', '0123456789', { ...plain, 'if-none-match': '*' }],
                ['GET', '/v1/objects/k'], ['HEAD', '/v1/objects/k'],
                (last) => ['GET', '/v1/objects/k', undefined, { 'if-none-match': last.headers.get('etag') }],
                ['GET', '/v1/objects/k', undefined, { range: 'bytes=-3' }],
                ['GET', '/v1/objects/k', undefined, { range: 'bytes=10-' }],
                ['PUT', '/v1/objects/a/2', 'x', plain], ['PUT', '/v1/objects/a/b/1', 'x', plain]);
  for (const target of ['/v1/objects', '/v1/objects?prefix=a/', '/v1/objects?delimiter=/', '/v1/objects?prefix=h/',
                        '/v1/objects?delimiter=/&prefix=a/', '/v1/objects?limit=1', '/v1/objects?limit=2'])
    await compare(['GET', target]);
  await compare(['GET', '/v1/objects?limit=1'], (last) => ['GET', `/v1/objects?limit=1&cursor=${last.body.next_cursor}`],
                ['DELETE', '/v1/objects/k'], ['GET', '/v1/objects/k'], ['PUT', '/v1/objects/k', 'x', plain]);
});

test('what was hidden and is made plain tells nothing of its past', async () => {
  await hide(201, 'PUT', '/v1/documents/plain-now', { text: 'was hidden', classification: 'restricted' });
  await hide(201, 'PUT', '/v1/objects/plain-now?classification=restricted', 'was hidden', plain);
  for (const { high } of Object.values(twins)) {
    await node.http('PUT', '/v1/documents/plain-now', { token: high, body: { text: 'plain', classification: 'internal' } });
    await node.http('PUT', '/v1/objects/plain-now', { token: high, body: 'plain', headers: plain });
  }
  const seen = await compare(['GET', '/v1/documents/plain-now'], ['GET', '/v1/documents?prefix=plain-now']);
  for (const { body } of seen) assert.equal(body.data[0].created_at, body.data[0].updated_at);
  for (const { body } of await compare(['GET', '/v1/objects?prefix=plain-now']))
    assert.equal(body.data[0].created_at, body.data[0].updated_at);
});

test('memories of the same user, some of them above its clearance today', async () => {
  const high = await node.token('full', 'ada', { scope, clearance: 'restricted' });
  const made = [];
  for (let i = 0; i < 20; i++) {
    const body = { text: `${sentence(i)} hidden`, classification: i % 2 ? 'restricted' : 'confidential', session_id: 's' };
    made.push(await node.want(201, 'POST', '/v1/memories', { token: high, body }));
    if (i % 4 === 0) await compare(['POST', '/v1/memories', { text: sentence(i), session_id: 's' }]);
  }
  const key = { 'idempotency-key': 'm' };
  await compare(['POST', '/v1/memories/search', { query: 'amber birch' }, key]);
  await node.want(204, 'DELETE', `/v1/memories/${made[0].id}`, { token: high });
  await node.want(200, 'PATCH', `/v1/memories/${made[1].id}`, { token: high, body: { text: 'amber' } });
  await compare(['POST', '/v1/memories/search', { query: 'amber birch' }, key],
                ['GET', '/v1/memories'], ['GET', '/v1/memories?limit=2'], ['GET', '/v1/memories?session_id=s&limit=5'],
                (last) => ['GET', `/v1/memories?session_id=s&limit=5&cursor=${last.body.next_cursor}`],
                ['POST', '/v1/memories/search', { query: 'amber report', limit: 3 }]);
  for (const method of ['GET', 'DELETE'])
    for (const { id } of made.slice(2, 4)) {
      const [at, never] = [`/v1/memories/${id}`, `/v1/memories/${'0'.repeat(26)}`];
      const there = await node.problem(404, 'not_found', method, at, { token: twins.full.low });
      const not = await node.problem(404, 'not_found', method, never, { token: twins.full.low });
      assert.equal(withoutTrace(there), withoutTrace(not));
    }
});

// Kolmogorov and Smirnov: the greatest distance of two distributions, and what it is at most in one of 1000 pairs
// of samples of one distribution. Printed, not judged: time on a shared machine proves nothing.
function distance(left, right) {
  const a = [...left].sort((x, y) => x - y), b = [...right].sort((x, y) => x - y);
  let i = 0, j = 0, most = 0;
  while (i < a.length && j < b.length) {
    const at = Math.min(a[i], b[j]);
    while (i < a.length && a[i] <= at) i++;
    while (j < b.length && b[j] <= at) j++;
    most = Math.max(most, Math.abs(i / a.length - j / b.length));
  }
  return { most, critical: 1.949 * Math.sqrt((a.length + b.length) / (a.length * b.length)), middle: [a, b].map(
    (all) => all[all.length >> 1].toFixed(3)) };
}

test('how long it takes (printed)', async (t) => {
  const questions = {
    'GET of a document that is hidden or not there': ['GET', '/v1/documents/doc-0009'],
    'DELETE of an object that is hidden or not there': ['DELETE', '/v1/objects/h/only'],
    'a search': ['POST', '/v1/search', { query: 'amber cedar report' }],
    'a list': ['GET', '/v1/documents?limit=50'],
  };
  for (const [what, [method, target, body]] of Object.entries(questions)) {
    const times = { bare: [], full: [] };
    for (let i = 0; i < 400; i++)
      for (const name of i % 2 ? ['bare', 'full'] : ['full', 'bare']) {
        const from = performance.now();
        await node.http(method, target, { token: twins[name].low, body });
        times[name].push(performance.now() - from);
      }
    const { most, critical, middle } = distance(times.bare, times.full);
    t.diagnostic(`${what}: medians ${middle.join(' and ')} ms, distance ${most.toFixed(3)} (0.1 %: ${critical.toFixed(3)})`);
  }
});
