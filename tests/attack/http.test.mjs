// http: bytes that two readers of HTTP could understand differently, sent over raw sockets. Each must be
// answered with its one code, once, and the connection closed: what follows is never taken for a request.
import assert from 'node:assert/strict';
import net from 'node:net';
import { after, before, test } from 'node:test';

import { Node } from '../e2e/harness.mjs';
import { EVERY_SCOPE, everything } from './support.mjs';

const node = new Node();
const LIMIT_MS = 5000;
let token, original;

before(async () => {
  await node.start();
  await node.createTenant('acme');
  token = await node.token('acme', 'ada', { scope: EVERY_SCOPE, ttl: '1h' });
  await node.want(201, 'POST', '/v1/memories', { token, body: { text: 'stays as it is' } });
  original = await everything(node, token);
});
after(() => node.destroy());

// Sends the pieces and reads until the other end closes; {text, closed}.
function talk(pieces, { limit = LIMIT_MS, pause = 0, half = false } = {}) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(node.port, '127.0.0.1');
    const got = [];
    let over = false;
    const end = (closed) => {
      if (over) return;
      over = true;
      clearTimeout(timer);
      socket.destroy();
      resolve({ text: Buffer.concat(got).toString('latin1'), closed });
    };
    const timer = setTimeout(() => end(false), limit);
    socket.on('data', (piece) => got.push(piece));
    socket.on('end', () => end(true));
    socket.on('close', () => end(true));
    socket.on('error', (error) => (error.code === 'ECONNREFUSED' ? reject(error) : end(true)));
    socket.on('connect', async () => {
      for (const piece of pieces) {
        if (over) return;
        socket.write(typeof piece === 'string' ? Buffer.from(piece, 'latin1') : piece);
        if (pause) await new Promise((go) => setTimeout(go, pause));
      }
      if (half) socket.end();
    });
  });
}

const statuses = (text) => [...text.matchAll(/HTTP\/1\.1 (\d{3}) /g)].map((match) => Number(match[1]));
const lines = (...all) => `${all.join('\r\n')}\r\n\r\n`;
const bearer = () => `Authorization: Bearer ${token}`;
// What must never be carried out: it would delete everything.
const smuggled = () => lines('DELETE /v1/memories?user_id=ada HTTP/1.1', 'Host: b', bearer());
const json = '{"text":"smuggled"}';
const post = (...headers) => lines('POST /v1/memories HTTP/1.1', 'Host: a', bearer(),
                                   'Content-Type: application/json', ...headers);
const get = (...headers) => lines('GET /v1/memories HTTP/1.1', 'Host: a', bearer(), ...headers);
const long = (count) => 'x'.repeat(count);

// name: [code, bytes]. A request that would do harm follows each.
const cases = {
  'Content-Length and Transfer-Encoding': [400, () => post('Content-Length: 5', 'Transfer-Encoding: chunked') + '0\r\n\r\n'],
  'Transfer-Encoding and Content-Length': [400, () => post('Transfer-Encoding: chunked', 'Content-Length: 5') + '0\r\n\r\n'],
  'two Content-Length that differ': [400, () => post('Content-Length: 19', 'Content-Length: 0') + json],
  'two Content-Length alike': [400, () => post('Content-Length: 19', 'Content-Length: 19') + json],
  'a list as Content-Length': [400, () => post('Content-Length: 19, 19') + json],
  'Content-Length with a sign': [400, () => post('Content-Length: +19') + json],
  'a negative Content-Length': [400, () => post('Content-Length: -1') + json],
  'Content-Length in hexadecimal': [400, () => post('Content-Length: 0x13') + json],
  'Content-Length with a zero in front': [400, () => post('Content-Length: 019') + json],
  'Content-Length with a blank inside': [400, () => post('Content-Length: 1 9') + json],
  'an empty Content-Length': [400, () => post('Content-Length:') + json],
  'a Content-Length beyond 64 bits': [413, () => post('Content-Length: 18446744073709551635') + json],
  'a Content-Length of a gigabyte': [413, () => post('Content-Length: 1073741824') + json],
  'Transfer-Encoding: identity': [400, () => post('Transfer-Encoding: identity') + json],
  'Transfer-Encoding: xchunked': [400, () => post('Transfer-Encoding: xchunked') + '0\r\n\r\n'],
  'Transfer-Encoding: Chunked': [400, () => post('Transfer-Encoding: Chunked') + '0\r\n\r\n'],
  'Transfer-Encoding: gzip, chunked': [400, () => post('Transfer-Encoding: gzip, chunked') + '0\r\n\r\n'],
  'Transfer-Encoding: chunked, identity': [400, () => post('Transfer-Encoding: chunked, identity') + '0\r\n\r\n'],
  'two Transfer-Encoding': [400, () => post('Transfer-Encoding: chunked', 'Transfer-Encoding: identity') + '0\r\n\r\n'],
  'Transfer-Encoding behind a vertical tab': [400, () => post('Transfer-Encoding:\x0bchunked') + '0\r\n\r\n'],
  'Transfer-Encoding with a blank before the colon': [400, () => post('Transfer-Encoding : chunked') + '0\r\n\r\n'],
  'chunked on HTTP/1.0': [400, () => post('Transfer-Encoding: chunked').replace('HTTP/1.1', 'HTTP/1.0') + '0\r\n\r\n'],
  'a folded header': [400, () => get('X-One: a', ' b')],
  'a folded Transfer-Encoding': [400, () => post('Transfer-Encoding:', ' chunked') + '0\r\n\r\n'],
  'a first header that begins with a blank': [400, () => lines('GET /v1/memories HTTP/1.1', ' Host: a')],
  'bare LF after the request line': [400, () => `GET /v1/memories HTTP/1.1\nHost: a\r\n${bearer()}\r\n\r\n`],
  'bare LF between headers': [400, () => `GET /v1/memories HTTP/1.1\r\nHost: a\n${bearer()}\r\n\r\n`],
  'bare LF as the empty line': [400, () => `GET /v1/memories HTTP/1.1\r\nHost: a\r\n${bearer()}\r\n\n`],
  'bare CR inside a header': [400, () => get('X-One: a\rContent-Length: 5')],
  'NUL in a value': [400, () => get('X-One: a\0b')],
  'NUL in a name': [400, () => get('X-O\0ne: a')],
  'NUL in the target': [400, () => lines('GET /v1/mem\0ories HTTP/1.1', 'Host: a', bearer())],
  'a control byte in a value': [400, () => get('X-One: a\x1bb')],
  'no Host': [400, () => lines('GET /v1/memories HTTP/1.1', bearer())],
  'two Host': [400, () => get('Host: b')],
  'Host with a path': [400, () => lines('GET /v1/memories HTTP/1.1', 'Host: a/b', bearer())],
  'a header without a colon': [400, () => get('nothing')],
  'a header without a name': [400, () => get(': a')],
  'an absolute target': [400, () => lines('GET http://a/v1/memories HTTP/1.1', 'Host: a', bearer())],
  'CONNECT': [400, () => lines('CONNECT a:80 HTTP/1.1', 'Host: a', bearer())],
  'an asterisk': [400, () => lines('OPTIONS * HTTP/1.1', 'Host: a', bearer())],
  'two blanks in the request line': [400, () => lines('GET  /v1/memories HTTP/1.1', 'Host: a', bearer())],
  'a tab in the request line': [400, () => lines('GET\t/v1/memories HTTP/1.1', 'Host: a', bearer())],
  'HTTP/0.9': [400, () => 'GET /v1/memories\r\n\r\n'],
  'HTTP/1.2': [400, () => lines('GET /v1/memories HTTP/1.2', 'Host: a', bearer())],
  'the preface of HTTP/2': [400, () => 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'],
  'a TLS hello': [400, () => '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n'],
  'two empty lines first': [400, () => `\r\n\r\n${get()}`],
  'a long request line': [431, () => lines(`GET /v1/memories?x=${long(9000)} HTTP/1.1`, 'Host: a', bearer())],
  'long header lines': [431, () => get(`X-One: ${long(33 * 1024)}`)],
  'many headers': [431, () => get(...Array.from({ length: 80 }, (_, i) => `X-${i}: a`))],
  'a chunk size that is no number': [400, () => `${post('Transfer-Encoding: chunked')}zz\r\n${json}\r\n0\r\n\r\n`],
  'a chunk size with a sign': [400, () => `${post('Transfer-Encoding: chunked')}-13\r\n${json}\r\n0\r\n\r\n`],
  'a chunk size with 0x': [400, () => `${post('Transfer-Encoding: chunked')}0x13\r\n${json}\r\n0\r\n\r\n`],
  'a chunk size beyond 64 bits': [400, () => `${post('Transfer-Encoding: chunked')}${'f'.repeat(17)}\r\n${json}\r\n0\r\n\r\n`, 413],
  'a chunk of a gigabyte': [413, () => `${post('Transfer-Encoding: chunked')}40000000\r\n${json}`],
  'a chunk extension': [400, () => `${post('Transfer-Encoding: chunked')}13;a=b\r\n${json}\r\n0\r\n\r\n`],
  'a chunk longer than it says': [400, () => `${post('Transfer-Encoding: chunked')}5\r\n${json}\r\n0\r\n\r\n`],
  'a chunk that ends in a bare LF': [400, () => `${post('Transfer-Encoding: chunked')}13\r\n${json}\n0\r\n\r\n`],
  'a chunk size that ends in a bare LF': [400, () => `${post('Transfer-Encoding: chunked')}13\n${json}\r\n0\r\n\r\n`],
  'a folded trailer': [400, () => `${post('Transfer-Encoding: chunked')}13\r\n${json}\r\n0\r\nX: a\r\n b\r\n\r\n`],
  'a long trailer': [400, () => `${post('Transfer-Encoding: chunked')}13\r\n${json}\r\n0\r\nX: ${long(9000)}\r\n\r\n`, 431],
};

for (const [name, [code, bytes, orElse]] of Object.entries(cases))
  test(`${name}: ${code}, then closed`, async () => {
    const { text, closed } = await talk([bytes() + smuggled()]);
    const [first, ...more] = statuses(text);
    assert.ok(first === code || first === orElse, `answered ${text.slice(0, 300)}`);
    assert.deepEqual(more, [], `only one answer: ${text}`);
    assert.ok(closed, 'the connection is closed');
    assert.match(text, /\r\n[Cc]onnection: close\r\n/);
    assert.match(text, /application\/problem\+json/);
    assert.ok(!text.includes(token.slice(-40)), 'nothing of the token comes back');
  });

test('a body on a request that takes none does not become a request', async () => {
  for (const method of ['GET', 'DELETE']) {
    const hidden = smuggled();
    const { text } = await talk([lines(`${method} /v1/memories/0 HTTP/1.1`, 'Host: a', bearer(),
      `Content-Length: ${hidden.length}`) + hidden], { limit: 1500 });
    assert.deepEqual(statuses(text), [400], text);
  }
});

test('the rest of a refused body is not taken for a request', async () => {
  const hidden = smuggled();
  const head = lines('POST /v1/memories HTTP/1.1', 'Host: a', 'Authorization: Bearer x',
                     'Content-Type: application/json', `Content-Length: ${hidden.length}`);
  const { text } = await talk([head, hidden], { limit: 1500, pause: 50 });
  assert.deepEqual(statuses(text), [401], text);
});

test('two Authorization are refused: no guess which one counts', async () => {
  const { text } = await talk([get(bearer(), 'Connection: close')]);
  assert.deepEqual(statuses(text), [400], text);
});

test('pipelined requests are answered in order, each with its own token', async () => {
  const none = lines('GET /v1/memories HTTP/1.1', 'Host: a');
  const { text } = await talk([get() + none + get() + none.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n')]);
  assert.deepEqual(statuses(text), [200, 401, 200, 401]);
});

test('a request byte by byte is understood as it is, and so is a refused one', async () => {
  const good = await talk([...get('Connection: close')], { limit: 20000 });
  assert.deepEqual(statuses(good.text), [200]);
  const bad = await talk([...post('Content-Length: 5', 'Transfer-Encoding: chunked')], { limit: 20000 });
  assert.deepEqual(statuses(bad.text), [400]);
});

test('paths in another form than the normal one find nothing', async () => {
  const { id } = original.memories[0];
  for (const target of [`/v1/memories/../memories/${id}`, `/v1//memories/${id}`, `/v1/memories/./${id}`,
                        `/v1/memories%2f${id}`, `/v1/%6demories/../${id}`, `/v1/memories\\${id}`,
                        `/v1/memories/${id}%00`, `/v1/memories/${id}/`, `/V1/memories/${id}`,
                        `/v1/memories/%2e%2e/tenant`, `/v1/memories/${id};a=b`]) {
    const { text } = await talk([lines(`GET ${target} HTTP/1.1`, 'Host: a', bearer(), 'Connection: close')]);
    assert.ok([400, 404].includes(statuses(text)[0]), `${target}: ${text.slice(0, 200)}`);
    assert.ok(!text.includes('stays as it is'), target);
  }
});

test('a head that never ends is given up, and others are served meanwhile', { timeout: 60000 }, async () => {
  const slow = Array.from({ length: 200 }, () =>
    talk(['GET /v1/memories HTTP/1.1\r\nHost: a\r\n', ...Array(40).fill('X: a\r\n')],
         { limit: 25000, pause: 600 }));
  for (let i = 0; i < 20; i++) await node.want(200, 'GET', '/v1/memories', { token, timeout: 2000 });
  for (const { text, closed } of await Promise.all(slow)) {
    assert.ok(closed, 'not closed within 25 s');
    assert.deepEqual(statuses(text), [408]);
  }
});

test('a body that never comes is given up', { timeout: 60000 }, async () => {
  const { text, closed } = await talk([post('Content-Length: 100'), '{'], { limit: 45000 });
  assert.ok(closed);
  assert.deepEqual(statuses(text), [408]);
});

test('after all this the data is as it was, and nothing has died', async () => {
  assert.deepEqual(await everything(node, token), original);
  for (const service of (await node.status()).services) assert.equal(service.restarts, 0, service.name);
});
