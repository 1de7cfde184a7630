// names: keys of objects, ids of documents, header values and questions of auditors as an attacker writes them:
// bytes that are sent as they stand, never cleaned by a client.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import http from 'node:http';
import { after, before, test } from 'node:test';

import { Node } from '../e2e/harness.mjs';
import { EVERY_SCOPE, filesBelow } from './support.mjs';
import { lines, talk } from './support-http.mjs';

const node = new Node({ config: { idle_seconds: 600 } });
let token, other, port, files;

before(async () => {
  await node.start();
  await node.createBusyTenant('acme');
  token = await node.token('acme', 'ada', { scope: EVERY_SCOPE, ttl: '1h' });
  other = await node.token('acme', 'bob', { scope: EVERY_SCOPE, ttl: '1h' });
  port = Number(new URL(node.url).port);
  await node.want(201, 'POST', '/v1/memories', { token, body: { text: 'the first' } });
  files = filesBelow(node.directory).filter((file) => !file.includes('/silos/')).sort();
});
after(() => node.destroy());

// As fetch, but the path goes out as it is.
function raw(method, path, { body = '', headers = {} } = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request({ host: '127.0.0.1', port, method, path, agent: false, insecureHTTPParser: true,
      headers: { authorization: `Bearer ${token}`, 'content-length': Buffer.byteLength(body), ...headers } });
    request.on('error', reject);
    request.on('response', async (answer) => {
      const got = [];
      for await (const piece of answer) got.push(piece);
      const text = Buffer.concat(got).toString();
      resolve({ status: answer.statusCode, headers: answer.headers, text,
                body: method === 'PUT' && text ? JSON.parse(text) : undefined });
    });
    request.end(body);
  });
}

const typed = { 'content-type': 'text/plain' };
const keysOf = async (query = '') =>
  (await node.want(200, 'GET', `/v1/objects${query}`, { token })).data.map(({ key }) => key);

test('paths that lead elsewhere, are cut or are no text name nothing', async () => {
  const bad = ['..', '../x', 'a/../b', 'a/..', './a', 'a/./b', '%2e%2e/x', '%2E%2E', 'a/%2e%2e/b', 'a/.%2e', '%2e', 'a//b',
               '/a', 'a/', 'a%2Fb', 'a%2f..%2fb', '..%2f..%2fetc%2fpasswd', 'a%5Cb', '..%5c..%5cx', 'a%00', 'a%00b', '%00',
               'a%0Ab', 'a%0D%0AX-Evil:%20y', 'a%09b', 'a%7Fb', 'a%C2%85b', 'a%1Bb', '%FF', '%C0%AE%C0%AE/x', '%C0%AF',
               '%ED%A0%80', '%F4%90%80%80', '%E0%80%AF', '%', '%2', 'a%zz', 'a%u002f', 'x'.repeat(1025), '%C3%A9'.repeat(513),
               'a/'.repeat(512) + 'b'];
  for (const key of bad)
    for (const [method, options] of [['PUT', { body: 'x', headers: typed }], ['GET', {}], ['HEAD', {}], ['DELETE', {}]]) {
      const answer = await raw(method, `/v1/objects/${key}`, options);
      assert.ok([400, 404].includes(answer.status), `${method} ${key.slice(0, 40)}: ${answer.status} ${answer.text}`);
      assert.equal(answer.headers['x-evil'], undefined);
    }
  for (const id of ['..', 'a%2Fb', 'a%00b', '%FF', 'a/b', 'x'.repeat(256), '%2e%2e', 'a%0Ab'])
    for (const method of ['PUT', 'GET', 'DELETE']) {
      const answer = await raw(method, `/v1/documents/${id}`, method === 'PUT'
        ? { body: '{"text":"x"}', headers: { 'content-type': 'application/json' } } : {});
      assert.ok([400, 404].includes(answer.status), `${method} ${id}: ${answer.status} ${answer.text}`);
    }
  assert.deepEqual(await keysOf(), []);
  assert.deepEqual((await node.want(200, 'GET', '/v1/documents', { token })).data, []);
  assert.deepEqual(filesBelow(node.directory).filter((file) => !file.includes('/silos/')).sort(), files);
});

test('what is a name is kept as it is, each for itself', async () => {
  const keys = ['%25', 'a%252Fb', '%25%32%65', '...', '.a', 'a/..b', 'a/b..', 'caf%C3%A9', 'cafe%CC%81', 'A', 'a', '%F0%9F%92%BE',
                'x'.repeat(1024), '%C3%A9'.repeat(512), `${'a/'.repeat(511)}b`, 'p%25q_r', 'pAAq_r', 'p%25qxr', 'p*', 'p%3F',
                'a%20b', 'a+b', '%22%3E%3Cscript%3E', "'%3B--", '%E2%80%AE', 'silo.db', '.tmp', '-rf', '~', '%24%28id%29'];
  for (const key of keys) {
    const answer = await raw('PUT', `/v1/objects/${key}`, { body: `bytes of ${key}`, headers: typed });
    assert.equal(answer.status, 201, `${key.slice(0, 40)}: ${answer.text}`);
    assert.equal(answer.body.key, decodeURIComponent(key));
  }
  for (const key of keys) assert.equal((await raw('GET', `/v1/objects/${key}`)).text, `bytes of ${key}`);
  const bytewise = (one, two) => Buffer.compare(Buffer.from(one), Buffer.from(two));
  assert.deepEqual(await keysOf('?limit=500'), keys.map(decodeURIComponent).sort(bytewise));
  assert.deepEqual(await keysOf('?prefix=p%25'), ['p%q_r', 'p%qxr']);
  assert.deepEqual(await keysOf('?prefix=p%25q_'), ['p%q_r']);
  assert.deepEqual(await keysOf('?prefix=p*'), ['p*']);
  assert.deepEqual(await keysOf('?prefix=%25'), ['%', '%2e']);
  assert.deepEqual(await keysOf('?prefix=_'), []);
  assert.deepEqual(await keysOf(`?prefix=${encodeURIComponent("' OR 1=1 --")}`), []);
  for (const query of ['?prefix=%FF', '?delimiter=%80', '?delimiter=', '?prefix=a&prefix=b', '?cursor=x', '?limit=0', '?limit=501',
                       `?prefix=${'x'.repeat(1025)}`, '?delimiter=%CC', '?prefix=%00'])
    assert.equal((await node.http('GET', `/v1/objects${query}`, { token })).status, 400, query);
  for (const key of keys) assert.equal((await raw('DELETE', `/v1/objects/${key}`)).status, 204, key);
});

test('what a browser gets of a tenant does not run, whatever its type says', async () => {
  for (const type of ['text/html; charset=utf-8', 'image/svg+xml', 'text/javascript', 'application/json', 'multipart/mixed; boundary=x',
                      'text/event-stream', 'nonsense', 'text/plain, text/html', `text/x; a="${'y'.repeat(200)}"`]) {
    assert.ok((await raw('PUT', '/v1/objects/page', { body: '<script>1</script>', headers: { 'content-type': type } })).status < 202, type);
    for (const [method, headers, status] of [['GET', {}, 200], ['GET', { range: 'bytes=0-3' }, 206], ['HEAD', {}, 200]]) {
      const answer = await raw(method, '/v1/objects/page', { headers });
      assert.equal(answer.status, status);
      assert.equal(answer.headers['content-type'], type);
      assert.equal(answer.headers['x-content-type-options'], 'nosniff');
      assert.match(answer.headers['content-security-policy'], /sandbox; default-src 'none'/);
      assert.equal(answer.headers['content-disposition'], 'attachment');
      assert.equal(answer.headers['access-control-allow-origin'], undefined);
    }
  }
});

test('header values that would be more than a value', async () => {
  const pids = (await node.status()).cells.map(({ pid }) => pid);
  const head = (fields, method = 'PUT') => lines(`${method} /v1/objects/evil HTTP/1.1`, 'Host: x', `Authorization: Bearer ${token}`,
                                                 ...fields, 'Connection: close');
  const bad = ['text/plain\rX-Evil: 1', 'text/plain\nX-Evil: 1', 'text/plain\0', 'text/\x80', 'caf\xe9/x', 'text/\x1b[2J', '\x7f',
               'x'.repeat(256), 'x'.repeat(4000), '\t\x0b'];
  for (const value of bad)
    for (const name of ['Content-Type', 'If-Match', 'If-None-Match', 'Range', 'If-Range', 'If-Modified-Since', 'Idempotency-Key']) {
      const { text } = await talk(port, [head([`${name}: ${value}`, 'Content-Length: 1'], 'PUT') + 'x']);
      assert.match(text, /^HTTP\/1\.1 (200|201|400|412|431) /, `${name}: ${JSON.stringify(value.slice(0, 30))}: ${text.slice(0, 60)}`);
      assert.doesNotMatch(text, /^X-Evil/im);
      const got = await talk(port, [head([`${name}: ${value}`], 'GET')]);
      assert.match(got.text, /^HTTP\/1\.1 (200|206|304|400|404|412|416|431) /, `${name}: ${got.text.slice(0, 60)}`);
      assert.doesNotMatch(got.text, /^X-Evil/im);
    }
  for (const value of ['"', 'W/', '"a', 'a', '"a" "b"', '"a",,', ',', '*,*', `${'"a",'.repeat(50)}"b"`]) {
    const answer = await raw('GET', '/v1/objects/page', { headers: { 'if-match': value } });
    assert.ok([400, 412].includes(answer.status), `${value}: ${answer.status}`);
  }
  for (const value of ['bytes=', 'bytes=-', 'bytes=a-b', 'bytes=0-0,2-2', 'bytes=99999999999999999999-', 'bytes=-99999999999999999999',
                       'bytes=18446744073709551615-18446744073709551616', 'bytes=5-2', 'lines=0-1', 'bytes=--1', 'bytes=0x0-1', 'bytes= 0 - 1']) {
    const answer = await raw('GET', '/v1/objects/page', { headers: { range: value } });
    assert.ok([200, 206, 416].includes(answer.status), `${value}: ${answer.status}`);
  }
  assert.deepEqual((await node.status()).cells.map(({ pid }) => pid), pids, 'the same process all the time');
});

test('keys of repeats: bounds, bytes, paths, both at once', async () => {
  const add = (key, path = '/v1/memories', body = { text: 'once' }, use = token) =>
    node.http('POST', path, { token: use, body, headers: { 'idempotency-key': key } });
  assert.equal((await add('k'.repeat(255))).status, 201);
  assert.equal((await add('k'.repeat(255))).headers.get('idempotent-replayed'), 'true');
  for (const key of ['k'.repeat(256), 'a b', 'a\tb', '\xe9']) assert.equal((await add(key)).status, 400, JSON.stringify(key));
  assert.equal((await add('two-paths')).status, 201);
  for (const path of ['/v1/memories/search', '/v1/search', '/v1/audit/hash'])
    assert.equal((await add('two-paths', path, path.endsWith('hash') ? { text: 'once' } : { query: 'once' })).status, 409, path);
  const many = await Promise.all(Array.from({ length: 24 }, () => add('at-once', '/v1/memories', { text: 'at once' })));
  assert.deepEqual([...new Set(many.map(({ status }) => status))], [201]);
  assert.equal(new Set(many.map(({ body }) => body.id)).size, 1, 'one effect');
  assert.equal(many.filter(({ headers }) => headers.get('idempotent-replayed') === 'true').length, 23);
  const his = await add('at-once', '/v1/memories', { text: 'at once' }, other);
  assert.equal(his.headers.get('idempotent-replayed'), null);
  assert.notEqual(his.body.id, many[0].body.id);
  await node.want(204, 'DELETE', `/v1/memories/${many[0].body.id}`, { token });
  const gone = await add('at-once', '/v1/memories', { text: 'at once' });
  assert.equal(gone.status, 409);
  assert.ok(!gone.text.includes(many[0].body.id));
  const narrow = await node.token('acme', 'ada', { scope: 'memory:write', clearance: 'public' });
  const again = await add('two-paths', '/v1/memories', { text: 'once' }, narrow);
  assert.equal(again.status, 409, 'not for fewer rights');
  assert.ok(!again.text.includes('once"'));
});

test('a batch is answered again without what was deleted meanwhile, and each line for itself', async () => {
  const headers = { 'content-type': 'application/x-ndjson', 'idempotency-key': 'batch' };
  const body = [1, 2, 3].map((i) => JSON.stringify({ id: `b${i}`, text: `content ${i}` })).join('\n');
  const send = async (text = body) => (await node.http('POST', '/v1/documents/batch', { token, headers, body: text })).text;
  const first = await send();
  assert.deepEqual(first.trim().split('\n').map((line) => JSON.parse(line).status), [201, 201, 201]);
  await node.want(204, 'DELETE', '/v1/documents/b2', { token });
  const again = await send();
  assert.ok(!again.includes('content'), again);
  await node.problem(404, 'not_found', 'GET', '/v1/documents/b2', { token });
  const changed = (await send(body.replace('content 3', 'other'))).trim().split('\n').map((line) => JSON.parse(line).status);
  assert.equal(changed[2], 409);
});

test('questions of auditors', async () => {
  const get = (query) => node.http('GET', `/v1/audit${query}`, { token });
  const { size } = await node.want(200, 'GET', '/v1/audit/checkpoint', { token })
    .then(() => node.want(200, 'GET', '/v1/audit?limit=1', { token }));
  const huge = ['9007199254740991', '9007199254740992', '9999999999999999', '18446744073709551615', '18446744073709551616',
                '-1', '+1', '01', '0x1', '1e3', '1.0', '', '%20', '%00', "1'--", 'NaN'];
  for (const value of huge)
    for (const query of [`?from=${value}`, `?limit=${value}`, `/proof?index=${value}`, `/proof?index=0&size=${value}`,
                         `/consistency?from=${value}`, `/consistency?from=1&to=${value}`]) {
      const answer = await get(query);
      if (query.startsWith('?from') && answer.status === 200) assert.deepEqual(answer.body.data, [], query);
      else assert.equal(answer.status, 400, `${query}: ${answer.text}`);
    }
  for (const query of ['?since=x', '?since=2026-13-01T00:00:00Z', '?since=0000-00-00T00:00:00Z', '?until=%00', '?action=%27', '?action=*',
                       '?action=a%25', `?action=${'a'.repeat(65)}`, `?subject=${'x'.repeat(2000)}`, '?subject=', '?decision=maybe',
                       '?cursor=AAAA', '?unknown=1', '?from=1&from=2', '?since=2026-01-01', '?subject=%FF', '/proof', '/consistency',
                       `/proof?index=${size + 1000}`, '/proof?index=1&size=1', '/proof?index=0&size=0',
                       `/consistency?from=2&to=1`])
    assert.equal((await get(query)).status, 400, query);
  for (const subject of ['"', '\\', '"}', 'ada","decision":"deny', '%', '_', 'ada%00'.slice(0, 3) + '"'])
    assert.deepEqual((await get(`?subject=${encodeURIComponent(subject)}`)).body.data, [], subject);
  const one = await get('/proof?index=0&size=1');
  assert.deepEqual([one.status, one.body.hashes], [200, []]);
  const { size: now } = (await get('?limit=1')).body;
  assert.equal((await get(`/proof?index=${now + 50}`)).status, 400, 'beyond what is there');
  const none = await get('/consistency?from=0');
  assert.ok(none.status === 200 ? none.body.hashes.length === 0 : none.status === 400, none.text);
  const same = await get('/consistency?from=1&to=1');
  assert.deepEqual([same.status, same.body.hashes], [200, []]);
  const leaf = crypto.createHash('sha256').update(Buffer.concat([Buffer.from([0]), Buffer.from(one.body.salt, 'base64'),
    Buffer.from(JSON.stringify(one.body.entry))])).digest('base64');
  assert.equal(one.body.leaf_hash, leaf);
});
