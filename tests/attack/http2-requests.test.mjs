// http2-requests: requests over HTTP/2 that are none, or that two readers could understand differently; and those that
// are: the same status, code and body as over HTTP/1.1.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import * as h2 from './support-h2.mjs';
import { answersOf, checkRefusal, lines, long } from './support-http.mjs';

const { END_STREAM, END_HEADERS, HEADERS, PROTOCOL_ERROR, ENHANCE_YOUR_CALM, COMPRESSION_ERROR } = h2;
const { block, data, frame, headers, plain } = h2;

const front = h2.frontH2OfSuite({ before, after });
const query = '{"query":"stays"}';
const one = (fields, flags) => (connection) => connection.send(headers(1, fields, flags));
// A GET with more fields, or with other pseudo-headers.
const get = (...more) => one(front.fields('GET', '/v1/memories', more));
const named = (name, value = 'x') => get([name, value]);
const path = (value) => get([':path', value]);
const post = (...more) => (connection) => connection.send(front.find(1, more), data(1, query));
const ordered = (...names) => () => {
  const fields = Object.fromEntries(front.fields('GET', '/v1/memories'));
  return one(names.map((name) => (typeof name === 'string' ? [name, fields[name]] : name)));
};
// A GET without its token.
const pseudo = () => front.fields('GET', '/v1/memories').slice(0, 4);
const PSEUDO = [':method', ':scheme', ':authority', ':path'];

// name: what is sent. Each is malformed (RFC 9113 8.1.1): reset with PROTOCOL_ERROR, or 400.
const malformed = {
  'no :method': () => get([':method', null]),
  'no :path': () => get([':path', null]),
  'no :scheme': () => get([':scheme', null]),
  'neither :authority nor Host': () => get([':authority', null]),
  'no field at all but the token': ordered('authorization'),
  ':method twice': ordered(...PSEUDO, [':method', 'GET'], 'authorization'),
  ':path twice': ordered(...PSEUDO, [':path', '/v1/tenant'], 'authorization'),
  ':scheme twice': ordered(...PSEUDO, [':scheme', 'https'], 'authorization'),
  ':authority twice': ordered(...PSEUDO, [':authority', 'a'], 'authorization'),
  'a pseudo-header behind a header': ordered(':method', ':scheme', ':path', 'authorization', ':authority'),
  'an unknown pseudo-header': ordered(...PSEUDO, [':user', 'ada'], 'authorization'),
  ':status': ordered(...PSEUDO, [':status', '200'], 'authorization'),
  'a pseudo-header without a name': ordered(...PSEUDO, [':', 'x'], 'authorization'),
  'a pseudo-header in upper case': ordered(':method', ':scheme', ':authority', [':Path', '/v1/memories'], 'authorization'),
  ':protocol, which was not offered': ordered([':method', 'CONNECT'], ':scheme', ':authority', ':path', [':protocol', 'websocket'], 'authorization'),
  'an empty :method': () => get([':method', '']),
  'a :method that is no token': () => get([':method', 'G T']),
  'a :method with a line break': () => get([':method', 'GET / HTTP/1.1\r\nX: y']),
  'an empty :path': () => path(''),
  'a :path without a slash': () => path('v1/memories'),
  'an asterisk as :path': () => path('*'),
  'an absolute :path': () => path('http://a/v1/memories'),
  'an absolute :path of another host': () => path('http://b/v1/memories'),
  'a fragment': () => path('/v1/memories#x'),
  'a blank in :path': () => path('/v1/memories /x'),
  'a line break in :path': () => path('/v1/memories HTTP/1.1\r\nX: y'),
  'NUL in :path': () => path('/v1/mem\0ories'),
  'UTF-8 in :path': () => path('/v1/mem\xc3\xb6ries'),
  'a backslash in :path': () => path('/v1\\memories'),
  'two dots in :path': () => path('/v1/memories/../memories'),
  'escaped dots in :path': () => path('/v1/memories/%2e%2e/memories'),
  'an escaped slash in :path': () => path('/v1%2fmemories'),
  'an escaped NUL in :path': () => path('/v1/memories/%00'),
  'two slashes in :path': () => path('//v1/memories'),
  'a scheme that nobody speaks': () => get([':scheme', 'ftp']),
  'an empty :scheme': () => get([':scheme', '']),
  'a :scheme with a line break': () => get([':scheme', 'http\r\n']),
  ':authority with a user': () => get([':authority', 'u@a']),
  ':authority with a path': () => get([':authority', 'a/b']),
  ':authority with a line break': () => get([':authority', 'a\r\nx: y']),
  'an empty :authority': () => get([':authority', '']),
  ':authority with a port that is none': () => get([':authority', 'a:x']),
  'Host that is another': () => named('host', 'b'),
  'Host with another port': () => named('host', 'a:80'),
  'two Host': () => get(['host', 'a'], ['host', 'a']),
  'two Host without :authority': () => get([':authority', null], ['host', 'a'], ['host', 'a']),
  'an empty Host': () => get([':authority', null], ['host', '']),
  'CONNECT': ordered([':method', 'CONNECT'], [':authority', 'a:80'], 'authorization'),
  'CONNECT with a path': () => get([':method', 'CONNECT']),
  'a name in upper case': () => named('X-One'),
  'one letter in upper case': () => named('x-onE'),
  'an empty name': () => named(''),
  'a name with a blank': () => named('x one'),
  'a name with a blank behind': () => named('x-one '),
  'a name with a colon inside': () => named('x:one'),
  'a name with NUL': () => named('x\0one'),
  'a name with a line break': () => named('x-one: y\r\nx-two'),
  'a name with bytes from 0x80': () => named('x-\xc3\xb6ne'),
  'a name with DEL': () => named('x\x7f'),
  'a name in quotes': () => named('"x"'),
  'a value with a line feed': () => named('x-one', 'y\nx-two: z'),
  'a value with a carriage return': () => named('x-one', 'y\rz'),
  'a value with both': () => named('x-one', 'y\r\ntransfer-encoding: chunked'),
  'a value with NUL': () => named('x-one', 'y\0z'),
  'a value with a control byte': () => named('x-one', 'y\x01z'),
  'a value with DEL': () => named('x-one', 'y\x7f'),
  'a value behind a blank': () => named('x-one', ' y'),
  'a value before a tab': () => named('x-one', 'y\t'),
  'Connection': () => named('connection', 'close'),
  'Connection: keep-alive': () => named('connection', 'keep-alive'),
  'Keep-Alive': () => named('keep-alive', 'timeout=5'),
  'Proxy-Connection': () => named('proxy-connection', 'keep-alive'),
  'Transfer-Encoding': () => named('transfer-encoding', 'chunked'),
  'Transfer-Encoding on a body': () => post(['transfer-encoding', 'chunked']),
  'Upgrade': () => named('upgrade', 'h2c'),
  'TE that is not trailers': () => named('te', 'gzip'),
  'TE with more than trailers': () => named('te', 'trailers, gzip'),
  'two content-length that differ': () => post(['content-length', '17'], ['content-length', '18']),
  'two content-length alike': () => post(['content-length', '17'], ['content-length', '17']),
  'content-length with a sign': () => post(['content-length', '+17']),
  'content-length that is a list': () => post(['content-length', '17,17']),
  'content-length in hexadecimal': () => post(['content-length', '0x11']),
  'an empty content-length': () => post(['content-length', '']),
  'two Authorization': () => named('authorization', 'Bearer x'),
  'two Content-Type': () => post(['content-type', 'application/json']),
  'two Idempotency-Key': () => post(['idempotency-key', 'x'], ['idempotency-key', 'y']),
  'Expect that nobody knows': () => post(['expect', '200-ok']),
};

for (const [name, make] of Object.entries(malformed))
  test(`${name}: is no request`, () => front.malformed(1, (connection) => make()(connection)));

// name: [status, what is sent, code]
const answered = {
  'GET': [200, () => get()],
  'GET with an escaped letter': [200, () => path('/v1/%6demories')],
  'GET with a query': [200, () => path('/v1/memories?limit=1')],
  'HEAD': [200, () => get([':method', 'HEAD'])],
  'https as scheme': [200, () => get([':scheme', 'https'])],
  'Host that is the authority': [200, () => named('host', 'a')],
  'Host without :authority': [200, () => get([':authority', null], ['host', 'a'])],
  ':authority with a port': [200, () => get([':authority', 'a:7117'])],
  ':authority that is an address': [200, () => get([':authority', '[::1]:7117'])],
  'pseudo-headers in another order': [200, ordered(':path', ':authority', ':scheme', ':method', 'authorization')],
  'TE: trailers': [200, () => named('te', 'trailers')],
  'Cookie in parts': [200, () => get(['cookie', 'a=b'], ['cookie', 'c=d'])],
  'an unknown header twice': [200, () => get(['x', 'y'], ['x', 'z'])],
  'an empty value': [200, () => named('x', '')],
  'bytes from 0x80 in a value': [200, () => named('x', '\xc3\xb6\xff')],
  'a token that must not be remembered': [200, () => (connection) => {
    const [token, ...rest] = front.fields('GET', '/v1/memories').reverse();
    connection.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, Buffer.concat([block(...rest.reverse()), Buffer.from([0x10]),
                                                                               plain(token[0]), plain(token[1])])));
  }],
  'headers of HTTP/1.1 tricks': [200, () => get(['x-http-method-override', 'DELETE'], ['x-original-url', '/v1/tenant'],
                                                ['http2-settings', 'AAMAAABkAAQAAP__'], ['x-forwarded-host', 'b'])],
  'POST': [200, () => post()],
  'POST with its length': [200, () => post(['content-length', '17'])],
  'Expect: 100-continue': [200, () => post(['expect', '100-continue'])],
  'no token': [401, () => one(pseudo()), 'unauthenticated'],
  'a token that is none': [401, () => one([...pseudo(), ['authorization', 'Bearer x']]), 'unauthenticated'],
  'a token too long, in two frames': [401, () => (connection) => {
    const fields = block(...pseudo(), ['authorization', `Bearer ${long(16 * 1024 + 20)}`]);
    connection.send(frame(HEADERS, END_STREAM, 1, fields.subarray(0, 16000)),
                    frame(h2.CONTINUATION, END_HEADERS, 1, fields.subarray(16000)));
  }, 'unauthenticated'],
  'a path that names nothing': [404, () => path('/v1/none'), 'not_found'],
  'a path in upper case': [404, () => path('/V1/memories'), 'not_found'],
  'a path with a closing slash': [404, () => path('/v1/memories/'), 'not_found'],
  'a path escaped twice': [404, () => path('/v1/%256demories'), 'not_found'],
  'a method that the path has not': [405, () => get([':method', 'PUT']), 'method_not_allowed'],
  'a method in lower case': [405, () => get([':method', 'get']), 'method_not_allowed'],
  'OPTIONS': [405, () => get([':method', 'OPTIONS']), 'method_not_allowed'],
  'TRACE': [405, () => get([':method', 'TRACE']), 'method_not_allowed'],
  'PRI': [405, () => get([':method', 'PRI']), 'method_not_allowed'],
  'a query that names a parameter twice': [400, () => path('/v1/memories?limit=1&limit=2'), 'bad_request'],
  'a query with a parameter nobody knows': [400, () => path('/v1/memories?other=1'), 'bad_field'],
  'a body on a request that takes none': [400, () => (connection) => connection.send(
    headers(1, front.fields('GET', '/v1/memories'), END_HEADERS), data(1, 'x')), 'bad_request'],
  'a body that is no JSON': [400, () => (connection) => connection.send(front.find(1), data(1, '{')), 'bad_json'],
  'a body of another type': [415, () => (connection) => connection.send(
    headers(1, front.fields('POST', '/v1/memories/search', [['content-type', 'text/plain']]), END_HEADERS), data(1, query)), 'unsupported_media'],
  'a body that is packed': [415, () => post(['content-encoding', 'gzip']), 'unsupported_media'],
  'a body that is announced too large': [413, () => (connection) => connection.send(front.find(1, [['content-length', '1000000']])), 'too_large'],
  'a body beyond all': [413, () => (connection) => connection.send(front.find(1, [['content-length', '9000000000000']])), 'too_large'],
  'a body that becomes too large': [413, () => async (connection) => {
    connection.send(front.find(1));
    const stream = connection.stream(1);
    for (let sent = 0; sent < 40 && !stream.ended && stream.reset === undefined; sent++) {
      connection.send(data(1, Buffer.alloc(8000, ' '), 0));
      await new Promise((go) => setTimeout(go, 5));
    }
  }, 'too_large'],
  'a path of 9000 bytes': [431, () => path(`/v1/memories?cursor=${long(9000)}`), 'headers_too_large'],
  'eighty headers': [431, () => get(...Array.from({ length: 80 }, (_, i) => [`x-${i}`, 'y'])), 'headers_too_large'],
};

for (const [name, [status, make, code]] of Object.entries(answered))
  test(`${name}: ${status}`, () => front.answers(1, status, (connection) => make()(connection), { code }));

test('a header list over what was announced is refused', async () => {
  for (const size of [33 * 1024, 60 * 1024, 100 * 1024, 1024 * 1024]) {
    const connection = await front.open();
    const bytes = block(...front.fields('GET', '/v1/memories'), ['x', long(size)]);
    const parts = [];
    for (let at = 0; at < bytes.length; at += 16384) parts.push(bytes.subarray(at, at + 16384));
    connection.send(...parts.map((part, i) => frame(i ? h2.CONTINUATION : HEADERS, (i ? 0 : END_STREAM)
      | (i === parts.length - 1 ? END_HEADERS : 0), 1, part)));
    const stream = connection.stream(1);
    await connection.until(() => connection.closed || stream.ended || stream.reset !== undefined, 'a refusal');
    if (stream.status) checkRefusal(stream, 431);
    else assert.ok([PROTOCOL_ERROR, ENHANCE_YOUR_CALM, COMPRESSION_ERROR, h2.INTERNAL_ERROR].includes(stream.reset ?? connection.goaway?.code), `${connection}`);
    connection.close();
  }
  await front.works();
});

test('answers are those of HTTP/1.1, but for trace and date', async () => {
  const without = ({ status, headers: fields, body }) => {
    const kept = Object.entries(fields).filter(([name]) => !['date', 'traceparent', 'connection'].includes(name)).sort();
    return [status, kept, body.replace(/"trace_id":"[0-9a-f]{32}"/, '')];
  };
  const ask = (method, target, token = front.token) => ({ method, target, token });
  for (const { method, target, token } of [
    ask('GET', '/v1/memories'), ask('GET', '/v1/none'), ask('PUT', '/v1/memories'), ask('GET', '/v1/memories', 'x'),
    ask('GET', '/v1/memories?limit=x'), ask('GET', '/v1/memories/../x'), ask('DELETE', '/v1/memories/none'), ask('HEAD', '/v1/memories'),
    ask('HEAD', '/v1/none'), ask('GET', `/v1/memories/${front.original.memories[0].id}`),
  ]) {
    const { text } = await front.talk([lines(`${method} ${target} HTTP/1.1`, 'Host: a', `Authorization: Bearer ${token}`,
                                             'Connection: close')]);
    const [first] = answersOf(text, { heads: method === 'HEAD' ? [0] : [] });
    const connection = await front.open();
    connection.send(headers(1, [...front.fields(method, target).slice(0, 4), ['authorization', `Bearer ${token}`]]));
    const second = await connection.answer(1);
    connection.close();
    assert.deepEqual(without(second), without(first), `${method} ${target}`);
  }
});

test('streams of one connection have each their own token', async () => {
  await front.node.createBusyTenant('zeta');
  const other = await front.node.token('zeta', 'zoe', { scope: 'memory:read memory:write tenant:read' });
  const tokens = { acme: front.token, zeta: other };
  const connection = await front.open();
  const ids = Array.from({ length: 60 }, (_, i) => 2 * i + 1);
  const whose = (id) => ['acme', 'zeta', 'nobody'][((id - 1) / 2) % 3];
  for (const id of ids)
    connection.send(headers(id, [...front.fields('GET', '/v1/tenant').slice(0, 4), ['authorization', `Bearer ${tokens[whose(id)] ?? 'x'}`]]));
  for (const id of ids) {
    const { status, body } = await connection.answer(id);
    assert.equal(status, whose(id) === 'nobody' ? 401 : 200);
    if (status === 200) assert.equal(JSON.parse(body).name, whose(id));
  }
  connection.close();
});

test('the table of fields is of its connection: another cannot name what is in it', async () => {
  const first = await front.open();
  first.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, Buffer.concat([block(...pseudo()),
    h2.remembered('authorization', `Bearer ${front.token}`)])));
  assert.equal((await first.answer(1)).status, 200);
  const thief = await front.open();
  thief.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, Buffer.concat([block(...pseudo()),
    h2.indexed(62)])));
  await thief.until(() => thief.closed, 'its end');
  assert.equal(thief.goaway.code, COMPRESSION_ERROR);
  first.send(frame(HEADERS, END_STREAM | END_HEADERS, 3, Buffer.concat([block(...pseudo()),
    h2.indexed(62)])));
  assert.equal((await first.answer(3)).status, 200);
  first.close();
});

test('a thousand requests on one connection', async () => {
  const connection = await front.open();
  for (let id = 1; id < 2000; id += 100) {
    for (let next = id; next < id + 100; next += 2) connection.send(front.ask(next));
    for (let next = id; next < id + 100; next += 2) assert.equal((await connection.answer(next)).status, 200);
  }
  connection.close();
});

test('after all this the data is as it was, and nothing has died', () => front.isAsItWas());
