// docs/api/openapi.yaml against the code and a running node: each row of the action table is there with its
// scope and bound, each documented operation exists, and answers look as documented, errors included.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { nodeOfSuite } from './harness.mjs';
import { METHODS, api, at, faultOf, follow, operation, operations, source } from './openapi.mjs';

// Every node of the document that satisfies wanted, wherever it stands.
function* nodesOf(value, wanted) {
  if (value === null || typeof value !== 'object') return;
  if (wanted(value)) yield value;
  for (const child of Object.values(value)) yield* nodesOf(child, wanted);
}

// The rows of the action table, as the code has them.
function rows() {
  const files = ['src/silo', 'src/gateway'].flatMap((room) => fs.readdirSync(at(room))
    .filter((name) => name.endsWith('_actions.c')).map((name) => `${room}/${name}`));
  return files.flatMap((name) => {
    const text = source(name);
    const lists = Object.fromEntries([...text.matchAll(/(\w+)\[\] = \{([^}]*)NULL\}/g)].map(
      ([, list, words]) => [list, [...words.matchAll(/"(\w+)"/g)].map(([, word]) => word)]));
    return [...text.matchAll(/\[\w+\] = \{\s*\.name[\s\S]*?\n {4}\},/g)].map(([row]) => ({
      name: row.match(/\.name = "([^"]+)"/)[1],
      method: row.match(/\.method = "([^"]+)"/)[1],
      path: row.match(/\.path = "([^"]+)"/)[1].replace('...}', '}'),
      scope: row.match(/\.scope = (\w+)/)[1],
      body: /\.body = /.test(row),
      query: lists[row.match(/\.query = (\w+)/)?.[1]] ?? [],
    }));
  });
}

// { NAME: number } of base/limits.h.
function limits() {
  const text = source('src/base/limits.h');
  return Object.fromEntries([...text.matchAll(/^ {4}(\w+) = ([^,]+),/gm)].map(([, name, value]) => {
    const plain = value.replace(/KIB\((\d+)\)/g, '($1*1024)').replace(/MIB\((\d+)\)/g, '($1*1048576)');
    assert.match(plain, /^[\d\s*()<+]+$/, name);
    return [name, Function(`return ${plain}`)()];
  }));
}

test('the document and the action table are the same list', () => {
  const scopes = Object.fromEntries([...source('src/authz/scope.c').matchAll(
    /\[(SCOPE_\w+)\] = "([^"]+)"/g)].map(([, name, text]) => [name, text]));
  const table = rows();
  assert.ok(table.length >= 9, 'the rows were found in the sources');
  assert.deepEqual(operations.map(({ operationId }) => operationId).sort(),
                   table.map(({ name }) => name).sort());
  for (const row of table) {
    const { path, method, security, requestBody, parameters } = operation(row.name);
    assert.deepEqual({ path, method }, { path: row.path, method: row.method }, row.name);
    assert.deepEqual(security, [{ bearer: [scopes[row.scope]] }], row.name);
    assert.equal(requestBody !== undefined, row.body, `${row.name}: a body`);
    assert.deepEqual(parameters.filter((one) => one.in === 'query').map(({ name }) => name).sort(),
                     [...row.query].sort(), `${row.name}: its query`);
  }
});

test('bounds and error codes are those of the code', () => {
  const known = limits();
  const bounded = [...nodesOf(api, (node) => typeof node['x-limit'] === 'string')];
  assert.ok(bounded.length > 10);
  for (const schema of bounded)
    assert.equal(schema.maxLength ?? schema.maximum, known[schema['x-limit']], schema['x-limit']);
  const codes = Object.fromEntries([...source('src/base/status.c').matchAll(
    /\{(\d+), "(\w+)"\}/g)].map(([, status, code]) => [code, status]));
  for (const code of api.components.schemas.Problem.properties.code.enum)
    assert.ok(codes[code], `${code} exists`);
  for (const { operationId, responses } of operations)
    for (const [status, response] of Object.entries(responses))
      for (const code of follow(response)['x-codes'] ?? [])
        assert.equal(codes[code], status, `${operationId}: ${code}`);
});

describe('a running node answers as documented', () => {
  const node = nodeOfSuite({ before, after }, { tenants: ['acme'] });
  let token, id;

  async function call(name, { target, body, headers, expect, use = token } = {}) {
    const { path, method, responses } = operation(name);
    const answer = await node.http(method, target ?? path.replace('{id}', id),
                                   { token: use, body, headers });
    const documented = follow(responses[answer.status]
                              ?? assert.fail(`${name}: ${answer.status} is not documented`));
    const [type] = Object.keys(documented.content ?? {});
    assert.equal(answer.status, expect, `${name}: ${answer.text}`);
    assert.equal(answer.type, type ?? '', name);
    if (type) {
      const schema = follow(documented.content[type].schema);
      const lines = type === 'application/x-ndjson' && schema.type !== 'string';
      for (const value of lines ? answer.text.trimEnd().split('\n').map((line) => JSON.parse(line)) : [answer.body ?? answer.text])
        assert.equal(faultOf(schema, value), undefined, name);
    }
    for (const [header, described] of Object.entries(documented.headers ?? {})) {
      const value = answer.headers.get(header);
      assert.ok(value, `${name}: ${header}`);
      const fault = follow(described).schema.type === 'string'
        && faultOf(follow(described).schema, value, header);
      assert.ok(!fault, fault);
    }
    if (documented['x-codes'])
      assert.ok(documented['x-codes'].includes(answer.body.code), `${name}: ${answer.body.code}`);
    return answer.body ?? answer.text;
  }

  before(async () => {
    token = await node.token('acme', 'ada', { agent: 'helper' });
  });

  test('each operation', async () => {
    const made = await call('memory.add', {
      expect: 201, headers: { 'idempotency-key': 'one' },
      body: { text: 'the first text', kind: 'fact', metadata: { a: 1 }, session_id: 's', ttl_seconds: 60,
              classification: 'public' },
    });
    id = made.id;
    await call('memory.add', { expect: 201, body: { text: 'text with nothing else' } });
    await call('memory.read', { expect: 200 });
    await call('memory.update', { expect: 200, body: { text: 'another text', ttl_seconds: null } });
    const history = await call('memory.history', { expect: 200 });
    assert.equal(history.data.length, 2);
    const list = await call('memory.list', { expect: 200, target: '/v1/memories?limit=1' });
    assert.equal(typeof list.next_cursor, 'string');
    const found = await call('memory.search', { expect: 200, body: { query: 'text' } });
    assert.equal(found.data.length, 2);
    await call('tenant.read', { expect: 200 });
    const page = await call('audit.list', { expect: 200, target: '/v1/audit?limit=2' });
    assert.equal(page.data.length, 2);
    await call('audit.checkpoint', { expect: 200 });
    await call('audit.proof', { expect: 200, target: '/v1/audit/proof?index=1' });
    await call('audit.consistency', { expect: 200, target: '/v1/audit/consistency?from=1' });
    await call('audit.export', { expect: 200 });
    await call('audit.hash', { expect: 200, body: { text: 'a' } });
    const document = '/v1/documents/first';
    await call('knowledge.put', { expect: 201, target: document, body: { title: 'A', text: 'text', metadata: { a: 1 } } });
    await call('knowledge.put', { expect: 200, target: document, body: { text: 'another text' } });
    await call('knowledge.read', { expect: 200, target: document });
    await call('knowledge.batch', { expect: 200, body: '{"id":"second","text":"text"}\nnothing\n',
                                    headers: { 'content-type': 'application/x-ndjson' } });
    await call('knowledge.list', { expect: 200, target: '/v1/documents?limit=1' });
    const hits = await call('knowledge.search', { expect: 200, body: { query: 'another', filter: { b: { $exists: false } } } });
    assert.equal(hits.data.length, 1);
    await call('knowledge.delete', { expect: 204, target: document });
    const key = '/v1/objects/a/b';
    const stored = await call('object.put', { expect: 201, target: key, body: 'bytes',
                                              headers: { 'content-type': 'text/plain' } });
    await call('object.put', { expect: 200, target: key, body: '' });
    await call('object.list', { expect: 200, target: '/v1/objects?delimiter=/' });
    assert.equal((await node.http('GET', key, { token })).status, 200);
    assert.equal((await node.http('GET', key, { token, headers: { 'if-none-match': stored.etag } })).status, 200);
    await call('object.delete', { expect: 204, target: key });
    await call('memory.delete', { expect: 204 });
    await node.ok('route', 'add', 'acme', 'phone', '+4930123456');
    const platform = (await node.ok('token', '--platform', '--user', 'switchboard', '--scope',
                                    'routes:read')).trim();
    const route = await call('route.read', { expect: 200, use: platform,
                                             target: '/v1/routes/phone/+4930123456' });
    assert.equal(route.tenant, 'acme');
    const gone = await call('memory.forget_user', { expect: 200, target: '/v1/memories?user_id=ada' });
    assert.equal(gone.deleted, 1);
    const text = await (await fetch(`${node.opsUrl}/metrics`)).text();
    const counted = new Set([...text.matchAll(/action="([^"]+)",status="2\d\d"/g)].map(([, action]) => action));
    assert.deepEqual([...counted].sort(), operations.map(({ operationId }) => operationId).sort());
  });

  test('each method that is not documented is 405 and names those that are', async () => {
    for (const path of Object.keys(api.paths)) {
      const here = operations.filter((one) => one.path === path).map(({ method }) => method);
      if (here.includes('GET')) here.push('HEAD'); // as the description says, for all of them
      for (const method of METHODS.map((one) => one.toUpperCase()).filter((one) => !here.includes(one))) {
        const answer = await fetch(node.url + path.replace('{id}', '0'.repeat(26))
          .replace('{key}', 'a/b').replace('{kind}/{value}', 'phone/+49'), {
          method, headers: { authorization: `Bearer ${token}` } });
        const text = await answer.text();
        assert.equal(answer.status, 405, `${method} ${path}`);
        assert.deepEqual(answer.headers.get('allow').split(', ').sort(), here.sort(), path);
        if (method !== 'HEAD')
          assert.equal(faultOf(api.components.schemas.Problem, JSON.parse(text)), undefined);
      }
    }
    await node.problem(404, 'not_found', 'GET', '/v1/nothing', { token });
  });

  test('refusals', async () => {
    const add = (body, expect, more) => call('memory.add', { body, expect, ...more });
    await add('{', 400, { headers: { 'content-type': 'application/json' } });
    await add({ text: 'a', colour: 1 }, 400);
    await add({ text: 'a'.repeat(65537) }, 400);
    await add({ text: 'a' }, 401, { use: 'no.token.atall' });
    await add({ text: 'a', user_id: 'eve' }, 403);
    await add({ text: 'a', classification: 'restricted' }, 403);
    await add({ text: 'a' }, 403, { use: await node.token('acme', 'ada', { scope: 'memory:read' }) });
    await add({ text: 'a' }, 201, { headers: { 'idempotency-key': 'k' } });
    await add({ text: 'b' }, 409, { headers: { 'idempotency-key': 'k' } });
    await add(' '.repeat(600000), 413, { headers: { 'content-type': 'application/json' } });
    await add('text', 415, { headers: { 'content-type': 'text/plain' } });
    await call('memory.search', { body: { query: 'a', vector: [1] }, expect: 501 });
    await call('memory.list', { target: '/v1/memories?limit=501', expect: 400 });
    await call('memory.forget_user', { expect: 400 });
    id = '0'.repeat(26);
    await call('memory.read', { expect: 404 });
    await call('memory.update', { body: { text: 'a' }, expect: 404 });
    await node.ok('tenant', 'pause', 'acme');
    await add({ text: 'a' }, 423);
    await node.ok('tenant', 'resume', 'acme');
  });
});
