// The memory endpoints: every one, every field, every refusal a client can meet.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { nodeOfSuite, sleep } from './harness.mjs';

const TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/;
const MEMBERS = ['agent_id', 'classification', 'created_at', 'expires_at', 'id', 'kind', 'metadata',
                 'session_id', 'text', 'updated_at', 'user_id', 'version'];
const KINDS = ['event', 'fact', 'preference', 'summary', 'episode'];

describe('memories', () => {
  const node = nodeOfSuite({ before, after }, { tenants: ['acme'] });
  let ada, bob, backend;
  before(async () => {
    ada = await node.token('acme', 'ada');
    bob = await node.token('acme', 'bob');
    backend = await node.token('acme', 'platform',
                               { scope: 'memory:read memory:write memory:any-user' });
  });

  const add = (body, token = ada, options = {}) =>
    node.want(201, 'POST', '/v1/memories', { token, body, ...options });
  const fresh = async (name) => node.token('acme', `${name}-${Math.random().toString(36).slice(2)}`);

  test('a text alone makes a memory, with the documented defaults', async () => {
    const item = await add({ text: 'the office closes at six' });
    assert.deepEqual(Object.keys(item).sort(), MEMBERS);
    const { id, created_at: createdAt, ...rest } = item;
    assert.match(id, /^\S+$/);
    assert.match(createdAt, TIME);
    assert.ok(Math.abs(Date.parse(createdAt) - Date.now()) < 60000);
    assert.deepEqual(rest, {
      text: 'the office closes at six', kind: 'event', user_id: 'ada', session_id: null, agent_id: null,
      metadata: {}, classification: 'internal', version: 1, updated_at: createdAt, expires_at: null,
    });
  });

  test('every field given comes back, from POST and from GET alike', async () => {
    const body = {
      text: 'prefers tea', kind: 'preference', user_id: 'ada', session_id: 's-1', agent_id: 'concierge',
      metadata: { role: 'user', turn: 3, tags: ['drink', 'ünïcode'], deep: { yes: true, none: null } },
      ttl_seconds: 3600, classification: 'public',
    };
    const item = await add(body);
    const { ttl_seconds: ttl, ...given } = body;
    for (const [name, value] of Object.entries(given)) assert.deepEqual(item[name], value, name);
    assert.equal(Date.parse(item.expires_at) - Date.parse(item.created_at), ttl * 1000);
    assert.deepEqual(await node.want(200, 'GET', `/v1/memories/${item.id}`, { token: ada }), item);
  });

  test('the agent of an item is the token\'s', async () => {
    const token = await node.token('acme', 'ada', { agent: 'support-7' });
    assert.equal((await add({ text: 'by an agent' }, token)).agent_id, 'support-7');
    await node.problem(403, 'forbidden_scope', 'POST', '/v1/memories',
                       { token, body: { text: 'as another', agent_id: 'support-8' } });
  });

  test('each kind is taken and listed by', async () => {
    const token = await fresh('kinds');
    for (const kind of KINDS) assert.equal((await add({ text: kind, kind }, token)).kind, kind);
    for (const kind of KINDS) {
      const { data } = await node.want(200, 'GET', `/v1/memories?kind=${kind}`, { token });
      assert.deepEqual(data.map((item) => item.text), [kind]);
    }
  });

  test('texts of every language and of the largest size come back unchanged', async () => {
    for (const text of ['żółw \u{1F422} 東京 עִבְרִית', 'line\nbreak\ttab "quote" \\', 'x'.repeat(65536)]) {
      const item = await add({ text });
      assert.equal((await node.want(200, 'GET', `/v1/memories/${item.id}`, { token: ada })).text, text);
    }
  });

  const refusals = [
    ['no text', {}, 'bad_field', /text/],
    ['an empty text', { text: '' }, 'bad_field', /text/],
    ['a text that is none', { text: 5 }, 'bad_field', /text/],
    ['a text over 64 KiB', { text: 'x'.repeat(65537) }, 'bad_field', /text/],
    ['an unknown field', { text: 'a', texts: 'b' }, 'bad_field', /texts/],
    ['an unknown kind', { text: 'a', kind: 'rumour' }, 'bad_field', /kind/],
    ['metadata that are no object', { text: 'a', metadata: [1] }, 'bad_field', /metadata/],
    ['metadata over 16 KiB', { text: 'a', metadata: { m: 'x'.repeat(16400) } }, 'bad_field', /metadata/],
    ['a ttl of zero', { text: 'a', ttl_seconds: 0 }, 'bad_field', /ttl_seconds/],
    ['a negative ttl', { text: 'a', ttl_seconds: -1 }, 'bad_field', /ttl_seconds/],
    ['a broken ttl', { text: 'a', ttl_seconds: 1.5 }, 'bad_field', /ttl_seconds/],
    ['a ttl as text', { text: 'a', ttl_seconds: '60' }, 'bad_field', /ttl_seconds/],
    ['an endless ttl', { text: 'a', ttl_seconds: 1e12 }, 'bad_field', /ttl_seconds/],
    ['a session with a control character', { text: 'a', session_id: 'a\u0007' }, 'bad_field', /session_id/],
    ['a session too long', { text: 'a', session_id: 'x'.repeat(256) }, 'bad_field', /session_id/],
    ['an empty user', { text: 'a', user_id: '' }, 'bad_field', /user_id/],
    ['an unknown classification', { text: 'a', classification: 'secret' }, 'bad_field', /classification/],
    ['an array', '[1]', 'bad_field', /object/],
    ['half a document', '{"text":', 'bad_json', /./],
    ['two members of one name', '{"text":"a","text":"b"}', 'bad_json', /./],
    ['bytes that are no UTF-8', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), 'bad_json', /./],
    ['nothing', '', 'bad_json', /./],
  ];
  for (const [what, body, code, detail] of refusals)
    test(`refused: ${what}`, async () => {
      const answer = await node.problem(400, code, 'POST', '/v1/memories',
        { token: ada, body, headers: { 'content-type': 'application/json' } });
      assert.match(answer.body.detail, detail, 'the detail names the field');
    });

  test('refused: another media type, and a body over the limit', async () => {
    await node.problem(415, 'unsupported_media', 'POST', '/v1/memories',
      { token: ada, body: '{"text":"a"}', headers: { 'content-type': 'text/plain' } });
    await node.problem(413, 'too_large', 'POST', '/v1/memories',
      { token: ada, body: JSON.stringify({ text: 'x'.repeat(2 * 1024 * 1024) }),
        headers: { 'content-type': 'application/json' } });
  });

  test('an unknown item is not found, whatever its id looks like', async () => {
    for (const id of ['01ARZ3NDEKTSV4RRFFQ69G5FAV', 'x', '%2e%2e', 'a'.repeat(300)]) {
      await node.problem(404, 'not_found', 'GET', `/v1/memories/${id}`, { token: ada });
      await node.problem(404, 'not_found', 'DELETE', `/v1/memories/${id}`, { token: ada });
    }
    await node.problem(404, 'not_found', 'PATCH', '/v1/memories/01ARZ3NDEKTSV4RRFFQ69G5FAV',
                       { token: ada, body: { text: 'b' } });
  });

  test('PATCH makes a new version; the history keeps the old ones, newest first', async () => {
    const item = await add({ text: 'first', metadata: { n: 1 }, ttl_seconds: 900 });
    const target = `/v1/memories/${item.id}`;
    await sleep(5);
    const second = await node.want(200, 'PATCH', target, { token: ada, body: { text: 'second' } });
    assert.deepEqual(second, { ...item, text: 'second', version: 2, updated_at: second.updated_at });
    assert.ok(second.updated_at > item.updated_at);
    const third = await node.want(200, 'PATCH', target,
                                  { token: ada, body: { metadata: { n: 2 }, ttl_seconds: null } });
    assert.deepEqual([third.version, third.text, third.metadata, third.expires_at],
                     [3, 'second', { n: 2 }, null]);
    assert.deepEqual(await node.want(200, 'GET', target, { token: ada }), third);
    const history = await node.want(200, 'GET', `${target}/history`, { token: ada });
    assert.equal(history.next_cursor, null);
    assert.deepEqual(history.data.map(({ version, text, metadata }) => ({ version, text, metadata })), [
      { version: 3, text: 'second', metadata: { n: 2 } },
      { version: 2, text: 'second', metadata: { n: 1 } },
      { version: 1, text: 'first', metadata: { n: 1 } },
    ]);
    const page = await node.want(200, 'GET', `${target}/history?limit=2`, { token: ada });
    const rest = await node.want(200, 'GET',
      `${target}/history?limit=2&cursor=${encodeURIComponent(page.next_cursor)}`, { token: ada });
    assert.deepEqual([...page.data, ...rest.data], history.data);
    assert.equal(rest.next_cursor, null);
  });

  test('PATCH refuses what it cannot change', async () => {
    const { id } = await add({ text: 'stays' });
    for (const body of [{}, { kind: 'fact' }, { user_id: 'bob' }, { classification: 'public' }, { text: '' }])
      await node.problem(400, 'bad_field', 'PATCH', `/v1/memories/${id}`, { token: ada, body });
    assert.equal((await node.want(200, 'GET', `/v1/memories/${id}`, { token: ada })).version, 1);
  });

  test('what is deleted is gone from every endpoint', async () => {
    const token = await fresh('deleted');
    const { id } = await add({ text: 'a zyzzyva is a weevil' }, token);
    await node.want(200, 'PATCH', `/v1/memories/${id}`, { token, body: { text: 'the zyzzyva again' } });
    const gone = await node.http('DELETE', `/v1/memories/${id}`, { token });
    assert.deepEqual([gone.status, gone.text], [204, '']);
    for (const [method, target, body] of [['GET', `/v1/memories/${id}`], ['DELETE', `/v1/memories/${id}`],
                                          ['PATCH', `/v1/memories/${id}`, { text: 'b' }],
                                          ['GET', `/v1/memories/${id}/history`]])
      await node.problem(404, 'not_found', method, target, { token, body });
    assert.deepEqual((await node.want(200, 'GET', '/v1/memories', { token })).data, []);
    assert.deepEqual((await node.want(200, 'POST', '/v1/memories/search',
                                      { token, body: { query: 'zyzzyva' } })).data, []);
  });

  test('a list comes in pages, newest first, each item once', async () => {
    const token = await fresh('pages');
    const ids = [];
    for (let i = 0; i < 7; i++)
      ids.unshift((await add({ text: `item ${i}`, session_id: i % 2 ? 'odd' : 'even' }, token)).id);
    const seen = [];
    let target = '/v1/memories?limit=3';
    for (let pages = 0; target; pages++) {
      assert.ok(pages < 4);
      const { data, next_cursor: cursor } = await node.want(200, 'GET', target, { token });
      assert.ok(data.length <= 3);
      seen.push(...data.map((item) => item.id));
      target = cursor ? `/v1/memories?limit=3&cursor=${encodeURIComponent(cursor)}` : null;
    }
    assert.deepEqual(seen, ids);
    const odd = await node.want(200, 'GET', '/v1/memories?session_id=odd', { token });
    assert.deepEqual(odd.data.map((item) => item.text), ['item 5', 'item 3', 'item 1']);
  });

  test('a list refuses limits, names and cursors that are not its own', async () => {
    const token = await fresh('cursors');
    for (let i = 0; i < 3; i++) await add({ text: `c${i}` }, token);
    const { next_cursor: cursor } = await node.want(200, 'GET', '/v1/memories?limit=1', { token });
    assert.equal(typeof cursor, 'string');
    for (const query of ['limit=0', 'limit=501', 'limit=x', 'page=2', 'kind=rumour',
                         'session_id=', 'cursor=abc', `kind=fact&cursor=${encodeURIComponent(cursor)}`])
      await node.problem(400, 'bad_field', 'GET', `/v1/memories?${query}`, { token });
    await node.problem(400, 'bad_field', 'GET', `/v1/memories?limit=1&cursor=${encodeURIComponent(cursor)}`,
                       { token: ada });
  });

  test('one user neither sees nor changes another\'s items', async () => {
    const { id } = await add({ text: 'private to ada' });
    const unknown = await node.problem(404, 'not_found', 'GET', '/v1/memories/01ARZ3NDEKTSV4RRFFQ69G5FAV',
                                       { token: bob });
    for (const [method, tail, body] of [['GET', ''], ['DELETE', ''], ['PATCH', '', { text: 'b' }],
                                        ['GET', '/history']]) {
      const answer = await node.problem(404, 'not_found', method, `/v1/memories/${id}${tail}`,
                                        { token: bob, body });
      assert.equal(answer.body.detail, unknown.body.detail, 'reads like an unknown item');
    }
    const { data } = await node.want(200, 'GET', '/v1/memories?limit=500', { token: bob });
    assert.ok(data.every((item) => item.user_id === 'bob'));
    await node.problem(403, 'forbidden_scope', 'GET', '/v1/memories?user_id=ada', { token: bob });
    await node.problem(403, 'forbidden_scope', 'POST', '/v1/memories',
                       { token: bob, body: { text: 'forged', user_id: 'ada' } });
    await node.problem(403, 'forbidden_scope', 'DELETE', '/v1/memories?user_id=ada', { token: bob });
    assert.equal((await node.want(200, 'GET', `/v1/memories/${id}`, { token: ada })).version, 1);
  });

  test('a back end with memory:any-user acts for its users', async () => {
    const item = await add({ text: 'written for carol', user_id: 'carol' }, backend);
    assert.equal(item.user_id, 'carol');
    const { data } = await node.want(200, 'GET', '/v1/memories?user_id=carol', { token: backend });
    assert.deepEqual(data, [item]);
    const carol = await node.token('acme', 'carol');
    assert.deepEqual(await node.want(200, 'GET', `/v1/memories/${item.id}`, { token: carol }), item);
    const all = await node.want(200, 'GET', '/v1/memories?limit=500', { token: backend });
    assert.ok(new Set(all.data.map(({ user_id: user }) => user)).size > 1, 'all users, when none is named');
  });

  test('DELETE with a user deletes all of that user and says how many', async () => {
    for (let i = 0; i < 4; i++) await add({ text: `of dave ${i}`, user_id: 'dave' }, backend);
    const kept = await add({ text: 'of erin', user_id: 'erin' }, backend);
    const answer = await node.want(200, 'DELETE', '/v1/memories?user_id=dave', { token: backend });
    assert.deepEqual(answer, { deleted: 4 });
    const dave = await node.token('acme', 'dave');
    assert.deepEqual((await node.want(200, 'GET', '/v1/memories', { token: dave })).data, []);
    assert.deepEqual(await node.want(200, 'DELETE', '/v1/memories?user_id=dave', { token: dave }),
                     { deleted: 0 });
    await node.want(200, 'GET', `/v1/memories/${kept.id}`, { token: backend });
    await node.problem(400, 'bad_field', 'DELETE', '/v1/memories', { token: ada });
  });

  test('the same Idempotency-Key gives the first answer again', async () => {
    const headers = { 'idempotency-key': `k-${Math.random()}` };
    const body = { text: 'only once' };
    const first = await add(body, ada, { headers });
    assert.deepEqual(await add(body, ada, { headers }), first);
    await node.want(200, 'PATCH', `/v1/memories/${first.id}`, { token: ada, body: { text: 'changed' } });
    assert.deepEqual(await add(body, ada, { headers }), first, 'the first answer, though it changed since');
    await node.problem(409, 'conflict', 'POST', '/v1/memories',
                       { token: ada, headers, body: { text: 'something else' } });
    assert.notEqual((await add(body, bob, { headers })).id, first.id, 'a key is of one user');
  });

  test('an item above the caller\'s clearance does not exist for the caller', async () => {
    const cleared = await node.token('acme', 'ada', { clearance: 'restricted' });
    const item = await add({ text: 'the merger is called Kestrel', classification: 'restricted' }, cleared);
    await node.problem(404, 'not_found', 'GET', `/v1/memories/${item.id}`, { token: ada });
    await node.problem(404, 'not_found', 'DELETE', `/v1/memories/${item.id}`, { token: ada });
    const { data } = await node.want(200, 'GET', '/v1/memories?limit=500', { token: ada });
    assert.ok(!data.some(({ id }) => id === item.id));
    assert.equal((await node.want(200, 'GET', `/v1/memories/${item.id}`, { token: cleared })).id, item.id);
    await node.problem(403, 'forbidden_clearance', 'POST', '/v1/memories',
                       { token: ada, body: { text: 'too high', classification: 'confidential' } });
  });

  test('a hundred writes at once are a hundred items', async () => {
    const token = await fresh('burst');
    const made = await Promise.all(Array.from({ length: 100 }, (_, i) => add({ text: `burst ${i}` }, token)));
    assert.equal(new Set(made.map(({ id }) => id)).size, 100);
    const { data } = await node.want(200, 'GET', '/v1/memories?limit=500', { token });
    assert.deepEqual(new Set(data.map(({ id }) => id)), new Set(made.map(({ id }) => id)));
  });

  test('paths and methods outside the API are told apart', async () => {
    await node.problem(404, 'not_found', 'GET', '/v1/nothing', { token: ada });
    await node.problem(404, 'not_found', 'GET', '/v1/memories/', { token: ada });
    const wrong = await node.problem(405, 'method_not_allowed', 'PUT', '/v1/memories',
                                     { token: ada, body: { text: 'a' } });
    assert.deepEqual(wrong.headers.get('allow').split(', ').sort(), ['DELETE', 'GET', 'HEAD', 'POST']);
  });

  test('GET /v1/tenant tells posture and usage', async () => {
    const own = await node.want(200, 'GET', '/v1/tenant', { token: ada });
    const { id, name } = node.tenants.acme;
    assert.deepEqual([own.id, own.name, own.state], [id, name, 'active']);
    assert.deepEqual(own.posture, {
      tier: 'standard', audit: 'standard', region: null, retention_days: null,
      clearance_required: false, token_lifetime_seconds: null,
      quotas: { requests_per_second: 1000, concurrent_requests: 256, bytes_stored: 10 * 2 ** 30,
                user_requests_per_second: 0 },
    });
    assert.equal(own.charter_sequence, 1);
    assert.ok(own.usage.bytes_stored > 0 && own.usage.memories > 100 && own.usage.audit_entries > 100);
  });
});
