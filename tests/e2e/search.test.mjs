// Search over memories: what is found, in which order, and what never is.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { nodeOfSuite } from './harness.mjs';

describe('search', () => {
  const node = nodeOfSuite({ before, after }, { tenants: ['acme', 'globex'] });
  let ada, bob, backend;
  const items = {};
  const corpus = {
    vacuum: { text: 'VACUUM reclaims the storage of dead tuples', kind: 'fact', metadata: { topic: 'storage', n: 1 } },
    autovacuum: { text: 'autovacuum runs VACUUM by itself; VACUUM is its whole job', kind: 'summary',
                  metadata: { topic: 'storage', n: 2 } },
    journal: { text: 'the write-ahead journal is synced before the page', kind: 'fact', session_id: 's-1' },
    tea: { text: 'ich trinke gern Tee, crème brûlée dazu', kind: 'preference', session_id: 's-1' },
  };
  const search = async (body, token = ada) =>
    (await node.want(200, 'POST', '/v1/memories/search', { token, body })).data;
  const texts = async (body, token) => (await search(body, token)).map(({ text }) => text);

  before(async () => {
    ada = await node.token('acme', 'ada');
    bob = await node.token('acme', 'bob');
    backend = await node.token('acme', 'platform', { scope: 'memory:read memory:any-user' });
    for (const [name, body] of Object.entries(corpus))
      items[name] = await node.want(201, 'POST', '/v1/memories', { token: ada, body });
    await node.want(201, 'POST', '/v1/memories', { token: bob, body: { text: 'bob knows VACUUM, too' } });
  });

  test('hits are whole memories with a score, the best first', async () => {
    const hits = await search({ query: 'vacuum' });
    assert.deepEqual(hits.map(({ id }) => id).sort(), [items.vacuum.id, items.autovacuum.id].sort());
    for (const { score, ...item } of hits) {
      assert.equal(typeof score, 'number');
      assert.deepEqual(item, item.id === items.vacuum.id ? items.vacuum : items.autovacuum);
    }
    assert.ok(hits[0].score >= hits[1].score);
  });

  test('any word may match; case and accents do not matter', async () => {
    assert.equal((await texts({ query: 'nothing JOURNAL' })).length, 1);
    assert.deepEqual(await texts({ query: 'creme' }), [corpus.tea.text]);
    assert.deepEqual(await texts({ query: 'absent words only' }), []);
  });

  test('limit, kinds, session and filter narrow it', async () => {
    assert.equal((await search({ query: 'vacuum', limit: 1 })).length, 1);
    assert.deepEqual(await texts({ query: 'vacuum', kinds: ['fact'] }), [corpus.vacuum.text]);
    assert.deepEqual(await texts({ query: 'vacuum journal tee', session_id: 's-1', kinds: ['fact', 'event'] }),
                     [corpus.journal.text]);
    assert.deepEqual(await texts({ query: 'vacuum', filter: { topic: 'storage', n: 2 } }),
                     [corpus.autovacuum.text]);
    assert.deepEqual(await texts({ query: 'vacuum', filter: { topic: 'other' } }), []);
  });

  test('the words of a query are never a query language', async () => {
    for (const query of ['"', '*', 'vacuum*', 'NEAR(vacuum', 'text:vacuum', 'vacuum" OR "1', '{who} : "u1"',
                         'vacuum AND NOT', '(', '-', '\u0001', '\'; DROP TABLE memories; --'])
      assert.ok(Array.isArray(await search({ query })), query);
    assert.deepEqual(await texts({ query: '?!' }), []);
    assert.equal((await texts({ query: 'vacuum' })).length, 2, 'all is still there');
  });

  test('another user\'s items are not found, but by a back end that may', async () => {
    assert.deepEqual(await texts({ query: 'vacuum' }, bob), ['bob knows VACUUM, too']);
    await node.problem(403, 'forbidden_scope', 'POST', '/v1/memories/search',
                       { token: bob, body: { query: 'vacuum', user_id: 'ada' } });
    assert.equal((await search({ query: 'vacuum' }, backend)).length, 3);
    assert.equal((await search({ query: 'vacuum', user_id: 'ada' }, backend)).length, 2);
  });

  test('another tenant finds nothing', async () => {
    assert.deepEqual(await texts({ query: 'vacuum' }, await node.token('globex', 'ada')), []);
  });

  test('a hit above the caller\'s clearance takes no place and moves no score', async () => {
    const cleared = await node.token('acme', 'ada', { clearance: 'restricted' });
    const before_ = await search({ query: 'vacuum' });
    const hidden = await node.want(201, 'POST', '/v1/memories', {
      token: cleared, body: { text: 'vacuum vacuum vacuum', classification: 'restricted' } });
    assert.deepEqual(await search({ query: 'vacuum' }), before_);
    assert.equal((await search({ query: 'vacuum', limit: 2 })).length, 2);
    assert.equal((await search({ query: 'vacuum' }, cleared)).length, 3);
    await node.want(204, 'DELETE', `/v1/memories/${hidden.id}`, { token: cleared });
  });

  test('a changed text is found by its new words only', async () => {
    const { id } = await node.want(201, 'POST', '/v1/memories', { token: ada, body: { text: 'aardvark' } });
    await node.want(200, 'PATCH', `/v1/memories/${id}`, { token: ada, body: { text: 'pangolin' } });
    assert.deepEqual(await texts({ query: 'aardvark' }), []);
    assert.deepEqual(await texts({ query: 'pangolin' }), ['pangolin']);
  });

  for (const [what, body, status, code, detail] of [
    ['no query', {}, 400, 'bad_field', /query/],
    ['an empty query', { query: '' }, 400, 'bad_field', /query/],
    ['a query over 1 KiB', { query: 'x'.repeat(1025) }, 400, 'bad_field', /query/],
    ['a limit of zero', { query: 'a', limit: 0 }, 400, 'bad_field', /limit/],
    ['a limit over 500', { query: 'a', limit: 501 }, 400, 'bad_field', /limit/],
    ['no kinds', { query: 'a', kinds: [] }, 400, 'bad_field', /kinds/],
    ['an unknown kind', { query: 'a', kinds: ['rumour'] }, 400, 'bad_field', /kinds/],
    ['a filter that is no object', { query: 'a', filter: 'b' }, 400, 'bad_field', /filter/],
    ['a filter with an object', { query: 'a', filter: { a: {} } }, 400, 'bad_field', /filter/],
    ['an unknown field', { query: 'a', top_k: 3 }, 400, 'bad_field', /top_k/],
    ['a vector', { query: 'a', vector: [1, 2] }, 501, 'not_implemented', /vector/],
  ])
    test(`refused: ${what}`, async () => {
      const answer = await node.problem(status, code, 'POST', '/v1/memories/search', { token: ada, body });
      assert.match(answer.body.detail, detail);
    });
});
