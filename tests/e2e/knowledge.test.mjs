// Documents over HTTP: put, read, listed, searched page by page, sent as a batch, deleted.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { faultOf, operation } from './openapi.mjs';
import { nodeOfSuite } from './harness.mjs';

const NDJSON = { 'content-type': 'application/x-ndjson' };

describe('knowledge', () => {
  const node = nodeOfSuite({ before, after }, { tenants: ['acme', 'globex'] });
  let ada, chief, stranger;
  const fits = (name, status, body, type = 'application/json') =>
    assert.equal(faultOf(operation(name).responses[status].content[type].schema, body), undefined);
  const search = async (body, token = ada) => {
    const answer = await node.want(200, 'POST', '/v1/search', { token, body });
    fits('knowledge.search', 200, answer);
    return answer;
  };
  const found = async (body, token) => (await search(body, token)).data.map((hit) => hit.document_id);

  before(async () => {
    const scope = 'knowledge:read knowledge:write';
    ada = await node.token('acme', 'ada', { scope });
    chief = await node.token('acme', 'chief', { scope, clearance: 'restricted' });
    stranger = await node.token('globex', 'eve', { scope });
  });

  test('a document is put, read, replaced and deleted', async () => {
    const body = { title: 'Guide', text: '# Install\n\nUnpack the zebra.', metadata: { team: 'a' } };
    const made = await node.want(201, 'PUT', '/v1/documents/guide', { token: ada, body });
    fits('knowledge.put', 201, made);
    const read = await node.want(200, 'GET', '/v1/documents/guide', { token: ada });
    fits('knowledge.read', 200, read);
    assert.equal(read.text, body.text);
    await node.problem(404, 'not_found', 'GET', '/v1/documents/guide', { token: stranger });
    assert.deepEqual(await found({ query: 'zebra' }), ['guide']);
    const changed = await node.want(200, 'PUT', '/v1/documents/guide', { token: ada, body: { text: 'Of lions.' } });
    assert.equal(changed.version, 2);
    assert.deepEqual(await found({ query: 'zebra' }), []);
    await node.want(204, 'DELETE', '/v1/documents/guide', { token: ada });
    await node.problem(404, 'not_found', 'DELETE', '/v1/documents/guide', { token: ada });
  });

  test('what is above the clearance does not exist', async () => {
    const secret = { text: 'a secret giraffe', classification: 'restricted' };
    await node.want(201, 'PUT', '/v1/documents/plan', { token: chief, body: secret });
    await node.problem(404, 'not_found', 'GET', '/v1/documents/plan', { token: ada });
    await node.want(201, 'PUT', '/v1/documents/plan', { token: ada, body: { text: 'a plain giraffe' } });
    assert.equal((await search({ query: 'giraffe' })).data.length, 1);
    assert.equal((await search({ query: 'giraffe' }, chief)).data.length, 2);
    await node.problem(403, 'forbidden_clearance', 'PUT', '/v1/documents/p', { token: ada, body: secret });
  });

  test('a batch is answered line by line, and a bad line fails alone', async () => {
    const lines = Array.from({ length: 60 }, (_, i) => JSON.stringify(
      { id: `b${i}`, text: `tapir number${i}`, metadata: { n: i, tags: i % 2 ? ['odd'] : ['even'] } }));
    lines.splice(10, 0, '{"id":', '{"id":"a/b","text":"x"}');
    const answer = await node.http('POST', '/v1/documents/batch',
                                   { token: ada, headers: NDJSON, body: `${lines.join('\n')}\n` });
    assert.equal(answer.status, 200, answer.text);
    const results = answer.text.trim().split('\n').map((line) => JSON.parse(line));
    assert.equal(results.length, 62);
    assert.deepEqual(results.filter(({ status }) => status !== 201).map(({ line }) => line), [11, 12]);
    for (const result of results.filter(({ status }) => status === 201))
      fits('knowledge.batch', 200, result, 'application/x-ndjson');
  });

  test('filters are applied in the search, and pages go to the end', async () => {
    const seen = [];
    const body = { query: 'tapir', limit: 7, filter: { tags: 'odd', n: { $gte: 10 } } };
    for (let cursor; cursor !== null; ) {
      const page = await search({ ...body, cursor });
      seen.push(...page.data.map((hit) => hit.document_id));
      cursor = page.next_cursor;
    }
    assert.equal(new Set(seen).size, seen.length);
    assert.deepEqual(new Set(seen), new Set(Array.from({ length: 25 }, (_, i) => `b${11 + 2 * i}`)));
    const list = await node.want(200, 'GET', '/v1/documents?prefix=b&limit=2', { token: ada });
    fits('knowledge.list', 200, list);
    assert.deepEqual(list.data.map(({ id }) => id), ['b0', 'b1']);
    for (const mode of ['hybrid', 'vector'])
      await node.problem(501, 'not_implemented', 'POST', '/v1/search', { token: ada, body: { query: 'a', mode } });
  });
});
