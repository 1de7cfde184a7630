// Objects over HTTP against a running node: large bodies both ways, parts, conditions, listings, clients that go
// away, what is left on the disk.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { eventually, nodeOfSuite } from './harness.mjs';

const MIB = 1024 * 1024;
const CHUNK = 65536;

// The same bytes each time, without holding them: piece i of the stream that a seed names.
function* pieces(seed, length, size = MIB) {
  for (let at = 0; at < length; at += size) {
    const cipher = crypto.createCipheriv('aes-128-ctr', crypto.createHash('md5').update(`${seed} ${at}`).digest(),
                                         Buffer.alloc(16));
    yield cipher.update(Buffer.alloc(Math.min(size, length - at)));
  }
}
const digest = (parts) => {
  const hash = crypto.createHash('sha256');
  for (const part of parts) hash.update(part);
  return hash.digest('hex');
};

describe('objects', () => {
  const node = nodeOfSuite({ before, after }, { tenants: ['acme'] });
  let token, chief, directory;

  const scope = 'objects:read objects:write';
  const put = (key, body, headers = {}, use = token) => node.http('PUT', `/v1/objects/${key}`, {
    token: use, body, headers: { 'content-type': 'text/plain', ...headers } });
  const read = (key, headers = {}, use = token) => fetch(`${node.url}/v1/objects/${key}`, {
    headers: { authorization: `Bearer ${use}`, ...headers } });
  const files = () => (fs.existsSync(directory)
    ? fs.readdirSync(directory).filter((name) => /^[0-9a-f]{32}$/.test(name)) : []);

  before(async () => {
    token = await node.token('acme', 'ada', { scope, ttl: '1h' });
    chief = await node.token('acme', 'chief', { scope, clearance: 'restricted', ttl: '1h' });
    directory = path.join(node.data, 'silos', (await node.tenant('acme')).id, 'objects');
  });

  test('64 MiB up and down, whole and in parts', async () => {
    const length = 64 * MIB + 12345;
    const answer = await fetch(`${node.url}/v1/objects/large/one.bin`, {
      method: 'PUT', duplex: 'half', body: ReadableStream.from(pieces('large', length)),
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/x-large' },
    });
    assert.equal(answer.status, 201);
    const made = await answer.json();
    assert.equal(made.bytes, length);
    const whole = await read('large/one.bin');
    assert.equal(whole.status, 200);
    assert.equal(whole.headers.get('content-type'), 'application/x-large');
    assert.equal(whole.headers.get('content-length'), String(length));
    assert.equal(whole.headers.get('etag'), made.etag);
    assert.equal(whole.headers.get('content-disposition'), 'attachment');
    const hash = crypto.createHash('sha256');
    for await (const part of whole.body) hash.update(part);
    assert.equal(hash.digest('hex'), digest(pieces('large', length)));
    const from = 3 * MIB - 10;
    const part = await read('large/one.bin', { range: `bytes=${from}-${from + 19}` });
    assert.equal(part.status, 206);
    assert.equal(part.headers.get('content-range'), `bytes ${from}-${from + 19}/${length}`);
    const all = [...pieces('large', length)];
    assert.deepEqual(Buffer.from(await part.arrayBuffer()),
                     Buffer.concat([all[2].subarray(MIB - 10), all[3].subarray(0, 10)]));
    assert.equal(files().length, 1);
    const size = fs.statSync(path.join(directory, files()[0])).size;
    assert.equal(size, length + 16 * Math.ceil(length / CHUNK));
  });

  test('an object is stored, listed, replaced and deleted', async () => {
    const first = await put('a/b.txt', 'hello');
    assert.equal(first.status, 201, first.text);
    assert.equal(first.body.user_id, 'ada');
    const head = await node.http('HEAD', '/v1/objects/a/b.txt', { token });
    assert.deepEqual([head.status, head.headers.get('content-length'), head.text], [200, '5', '']);
    assert.equal((await put('a/b.txt', 'hello again')).status, 200);
    assert.equal(await (await read('a/b.txt')).text(), 'hello again');
    assert.equal((await put('a/c/d', '')).status, 201);
    assert.equal(await (await read('a/c/d')).text(), '');
    const list = await node.want(200, 'GET', '/v1/objects?prefix=a/&delimiter=/', { token });
    assert.deepEqual(list.data.map(({ key }) => key), ['a/b.txt']);
    assert.deepEqual(list.prefixes, ['a/c/']);
    await node.want(204, 'DELETE', '/v1/objects/a/b.txt', { token });
    await node.problem(404, 'not_found', 'GET', '/v1/objects/a/b.txt', { token });
  });

  test('conditions and ranges', async () => {
    const { body: { etag } } = await put('cond', '0123456789');
    assert.equal((await read('cond', { 'if-none-match': etag })).status, 304);
    assert.equal((await put('cond', 'x', { 'if-none-match': '*' })).body.code, 'precondition_failed');
    assert.equal((await put('cond', 'x', { 'if-match': '"other"' })).status, 412);
    const behind = await read('cond', { range: 'bytes=10-' });
    assert.deepEqual([behind.status, behind.headers.get('content-range')], [416, 'bytes */10']);
    assert.equal((await behind.json()).code, 'range_not_satisfiable');
    assert.equal(await (await read('cond', { range: 'bytes=-3', 'if-range': etag })).text(), '789');
    assert.equal((await put('cond', 'abc', { 'if-match': etag })).status, 200);
    assert.equal(await (await read('cond')).text(), 'abc');
  });

  test('what is above the clearance is not there', async () => {
    assert.equal((await put('k?classification=restricted', 'secret', {}, chief)).status, 201);
    await node.problem(404, 'not_found', 'GET', '/v1/objects/k', { token });
    assert.equal((await put('k', 'plain')).status, 201);
    assert.equal(await (await read('k')).text(), 'plain');
    assert.equal(await (await read('k', {}, chief)).text(), 'secret');
    await node.problem(403, 'forbidden_clearance', 'PUT', '/v1/objects/k?classification=restricted',
                       { token, body: 'x' });
  });

  test('paths that are no keys', async () => {
    for (const key of ['', 'a//b', 'a/', 'a%2Fb', 'a%5Cb', 'a%0Ab', 'x'.repeat(1025)])
      assert.ok([400, 404, 405].includes((await put(key, 'x')).status), key);
    assert.equal((await put('x'.repeat(1024), 'x')).status, 201);
  });

  test('an upload that breaks off leaves nothing', async () => {
    const had = files().length;
    const { port } = new URL(node.url);
    await new Promise((resolve) => {
      const request = http.request({ port, host: '127.0.0.1', method: 'PUT', path: '/v1/objects/broken',
                                     headers: { authorization: `Bearer ${token}`, 'content-length': 64 * MIB } });
      request.on('error', resolve);
      request.write(Buffer.alloc(8 * MIB, 1), () => setTimeout(() => request.destroy(), 200));
      request.on('close', resolve);
    });
    await eventually('its file is gone', () => files().length === had);
    await node.problem(404, 'not_found', 'GET', '/v1/objects/broken', { token });
  });

  test('a slow reader gets the bytes it began with, whatever is done to the object', async () => {
    const length = 12 * MIB;
    assert.equal((await put('slow', Buffer.concat([...pieces('slow', length)]))).status, 201);
    const answer = await read('slow');
    const reader = answer.body.getReader();
    const hash = crypto.createHash('sha256');
    hash.update((await reader.read()).value);
    await node.want(204, 'DELETE', '/v1/objects/slow', { token });
    await node.problem(404, 'not_found', 'GET', '/v1/objects/slow', { token });
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      hash.update(value);
    }
    assert.equal(hash.digest('hex'), digest(pieces('slow', length)));
  });

  test('parked and woken, all is there; erased, nothing is', async () => {
    await put('stays', 'here');
    await node.ok('tenant', 'pause', 'acme');
    assert.ok(!fs.existsSync(path.join(directory, 'open')), 'left in order');
    await node.ok('tenant', 'resume', 'acme');
    assert.equal(await (await read('stays')).text(), 'here');
    await node.ok('tenant', 'erase', 'acme');
    assert.ok(!fs.existsSync(path.dirname(directory)));
  });
});
