// streams: hostile clients of bodies that nobody holds whole: uploads that trickle, stop, are cut at any byte or come
// all at once; downloads that nobody takes; batches whose results nobody reads; processes killed in the middle. Nothing
// is left of them, memory stays bounded, others are served, and nothing cut looks whole.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import http2 from 'node:http2';
import net from 'node:net';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { checkProblem, eventually, nodeOfSuite, sleep } from '../e2e/harness.mjs';

const SCOPE = 'memory:read memory:write knowledge:read knowledge:write objects:read objects:write';
const UPLOADS_MAX = 32, DOWNLOADS_MAX = 64; // of a cell
const MIB = 1024 * 1024;
const CHUNK = 65536;

describe('streams under attack', () => {
  const node = nodeOfSuite({ before, after });
  const tenants = {}, tokens = {};
  const pattern = Buffer.alloc(32 * MIB);
  for (let i = 0; i < pattern.length; i += 4) pattern.writeUInt32LE((i * 2654435761) >>> 0, i);

  before(async () => {
    for (const name of ['acme', 'calm']) {
      tenants[name] = await node.createBusyTenant(name);
      tokens[name] = await node.token(name, 'ada', { scope: SCOPE });
    }
    await node.want(201, 'PUT', '/v1/objects/kept', { token: tokens.acme, body: pattern });
    tokens.memory = (await node.want(201, 'POST', '/v1/memories', { token: tokens.calm, body: { text: 'calm' } })).id;
  });

  const objects = () => {
    const directory = path.join(node.data, 'silos', tenants.acme.id, 'objects');
    return fs.readdirSync(directory).filter((name) => name !== 'open');
  };
  const onlyKept = () => eventually('nothing is left', () => objects().length === 1);
  const memoryOf = (pid, line = 'VmRSS') =>
    1024 * Number(new RegExp(`${line}:\\s+(\\d+) kB`).exec(fs.readFileSync(`/proc/${pid}/status`, 'latin1'))[1]);
  const gateways = async () => (await node.status()).services.filter(({ name }) => /^gateway/.test(name));
  const gatewayBytes = async () => (await gateways()).reduce((sum, { pid }) => sum + memoryOf(pid), 0);
  const cellOf = async (name) => node.cell(tenants[name].id);
  const calmIsServed = async () => {
    const { text } = await node.want(200, 'GET', `/v1/memories/${tokens.memory}`, { token: tokens.calm });
    assert.equal(text, 'calm');
  };

  // The head of an upload; more is written by the caller. answer: status and text, or how it was cut.
  function upload(key, length, { method = 'PUT', target = `/v1/objects/${key}`, type = 'application/octet-stream' } = {}) {
    const request = http.request(node.url + target, {
      method, agent: new http.Agent(),
      headers: { authorization: `Bearer ${tokens.acme}`, 'content-type': type,
                 ...(length === undefined ? {} : { 'content-length': length }) },
    });
    const answer = new Promise((resolve) => {
      request.on('error', (fault) => resolve({ status: 0, fault }));
      request.on('response', (response) => {
        let text = '';
        response.on('data', (piece) => { text += piece; });
        response.on('end', () => resolve({ status: response.statusCode, text }));
        response.on('error', (fault) => resolve({ status: 0, fault }));
      });
    });
    request.flushHeaders();
    return { request, answer };
  }

  // A GET over a socket of its own of which nothing is read once `bytes` have come.
  function download(key, bytes = 0) {
    return new Promise((resolve, reject) => {
      const socket = net.connect(node.port, '127.0.0.1');
      let got = Buffer.alloc(0), head;
      socket.on('connect', () => socket.write(`GET /v1/objects/${key} HTTP/1.1\r\nHost: localhost\r\n` +
                                              `Authorization: Bearer ${tokens.acme}\r\n\r\n`));
      socket.on('data', (piece) => {
        if (head) return;
        got = Buffer.concat([got, piece]);
        const end = got.indexOf('\r\n\r\n');
        if (end < 0 || got.length < end + bytes) return;
        head = got.subarray(0, end).toString('latin1');
        socket.pause();
        resolve({ socket, status: Number(head.split(' ')[1]) });
      });
      socket.on('error', reject);
    });
  }

  test('an upload cancelled at any byte leaves nothing', async () => {
    const { pid } = await cellOf('acme');
    const length = 5 * CHUNK + 17;
    const cuts = [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK + 16, 4 * CHUNK, length - 1];
    for (let round = 0; round < 4; round++)
      await Promise.all(cuts.map(async (cut) => {
        const { request } = upload('cut', length);
        await new Promise((resolve) => request.write(pattern.subarray(0, cut || 0), resolve));
        if (round % 2) await sleep(30); // the cell has all of it by then
        request.destroy();
      }));
    await onlyKept();
    await node.problem(404, 'not_found', 'GET', '/v1/objects/cut', { token: tokens.acme });
    assert.equal((await cellOf('acme')).pid, pid);
  });

  test('a large upload that is cut is cleared away piece by piece, and nobody waits', async () => {
    const { request } = upload('large', 200 * MIB);
    for (let i = 0; i < 6; i++) await new Promise((resolve) => request.write(pattern, resolve));
    await eventually('most of it has come', () => objects().some((name) =>
      fs.statSync(path.join(node.data, 'silos', tenants.acme.id, 'objects', name)).size > 128 * MIB));
    request.destroy();
    await onlyKept();
    const answer = await node.http('GET', '/v1/objects/kept', { token: tokens.acme });
    assert.equal(answer.status, 200);
  });

  test('too many uploads at once are told so; the others go on, and another tenant is served', async () => {
    const flows = Array.from({ length: 64 }, (_, i) => upload(`many${i}`, 2 * CHUNK));
    for (const { request } of flows) request.write(pattern.subarray(0, CHUNK));
    const early = await Promise.all(flows.map(({ answer }) => Promise.race([answer, sleep(1500)])));
    const refused = early.filter((answer) => answer);
    await calmIsServed();
    assert.equal(refused.length, 64 - UPLOADS_MAX);
    for (const { status, text } of refused) {
      assert.equal(status, 503, text);
      assert.equal(JSON.parse(text).code, 'unavailable');
    }
    flows.forEach(({ request }, i) => { if (!early[i]) request.end(pattern.subarray(0, CHUNK)); });
    for (const [i, { answer }] of flows.entries())
      if (!early[i]) assert.equal((await answer).status, 201);
    for (let i = 0; i < 64; i++) await node.http('DELETE', `/v1/objects/many${i}`, { token: tokens.acme });
    await onlyKept();
  });

  test('uploads that stop at the last byte hold a slot each and no more', async () => {
    const flows = Array.from({ length: UPLOADS_MAX }, (_, i) => upload(`last${i}`, CHUNK + 1));
    for (const { request } of flows) request.write(pattern.subarray(0, CHUNK));
    await eventually('all slots are taken', () => objects().length === 1 + UPLOADS_MAX);
    const { request: beyond, answer: refusal } = upload('more', 1);
    beyond.end('x');
    assert.equal((await refusal).status, 503);
    await calmIsServed();
    await node.want(200, 'GET', '/v1/memories', { token: tokens.acme });
    for (const { request } of flows) request.destroy();
    await eventually('the slots are free', async () => {
      const { request, answer } = upload('more', 1);
      request.end('x');
      return (await answer).status < 300;
    });
    await node.want(204, 'DELETE', '/v1/objects/more', { token: tokens.acme });
    await onlyKept();
  });

  test('a hundred downloads that nobody takes: bounded memory, 503 beyond the limit', async (t) => {
    const cell = await cellOf('acme');
    const before = { gateways: await gatewayBytes(), cell: memoryOf(cell.pid) };
    const all = await Promise.all(Array.from({ length: 100 }, () => download('kept')));
    const statuses = all.map(({ status }) => status);
    await calmIsServed();
    await sleep(500);
    const more = { gateways: await gatewayBytes() - before.gateways, cell: memoryOf(cell.pid) - before.cell };
    t.diagnostic(`100 downloads unread: gateways ${(more.gateways / MIB).toFixed(1)} MiB more, ` +
                 `cell ${(more.cell / MIB).toFixed(1)} MiB more`);
    for (const { socket } of all) socket.destroy();
    assert.equal(statuses.filter((status) => status === 200).length, DOWNLOADS_MAX);
    assert.equal(statuses.filter((status) => status === 503).length, 100 - DOWNLOADS_MAX);
    assert.ok(more.gateways < 100 * MIB, `${more.gateways}`); // a window each, and what lies in buffers of TLS and HTTP
    assert.ok(more.cell < 32 * MIB, `${more.cell}`);
    await eventually('their slots are free', async () => {
      const { socket, status } = await download('kept');
      socket.destroy();
      return status === 200;
    });
  });

  test('many streams of one HTTP/2 connection upload at once, and are reset in the middle', async (t) => {
    const before = await gatewayBytes();
    const session = http2.connect(node.url, { maxSessionMemory: 1000 }); // in MB: of this client
    const faults = [];
    session.on('error', (fault) => faults.push(fault));
    const streams = Array.from({ length: 60 }, (_, i) => {
      const stream = session.request({ ':method': 'PUT', ':path': `/v1/objects/h${i}`, authorization: `Bearer ${tokens.acme}` });
      const answer = new Promise((resolve) => {
        stream.on('response', (head) => resolve(head[':status']));
        stream.on('error', () => resolve(0));
        stream.on('close', () => resolve(0));
      });
      stream.write(pattern.subarray(0, MIB));
      return { stream, answer };
    });
    await sleep(500);
    t.diagnostic(`60 uploads of one connection: gateways ${((await gatewayBytes() - before) / MIB).toFixed(1)} MiB more`);
    await calmIsServed();
    streams.forEach(({ stream }, i) => (i % 2 ? stream.close(http2.constants.NGHTTP2_CANCEL) : stream.end()));
    const statuses = await Promise.all(streams.map(({ answer }) => answer));
    session.destroy();
    statuses.forEach((status, i) => assert.ok((i % 2 ? [0, 503] : [201, 503]).includes(status), `${i}: ${status}`));
    assert.ok(statuses.filter((status) => status === 201).length >= UPLOADS_MAX / 2 - 1, `${statuses}`);
    assert.deepEqual(faults, []);
    for (let i = 0; i < 60; i++) await node.http('DELETE', `/v1/objects/h${i}`, { token: tokens.acme });
    await onlyKept();
  });

  test('a batch whose results nobody reads stops, and only that', async (t) => {
    const cell = await cellOf('acme');
    const before = { gateways: await gatewayBytes(), cell: memoryOf(cell.pid) };
    const socket = net.connect(node.port, '127.0.0.1');
    socket.pause();
    socket.on('error', () => {});
    socket.write('POST /v1/documents/batch HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n' +
                 `Content-Type: application/x-ndjson\r\nAuthorization: Bearer ${tokens.acme}\r\n\r\n`);
    const piece = '{}\n'.repeat(4000); // each a refusal of some 100 bytes
    let taken = 0;
    for (let i = 0; i < 2000; i++) {
      const all = socket.write(`${piece.length.toString(16)}\r\n${piece}\r\n`);
      if (!all && !await Promise.race([new Promise((resolve) => socket.once('drain', () => resolve(true))), sleep(3000)]))
        break;
      taken += piece.length;
    }
    const more = { gateways: await gatewayBytes() - before.gateways, cell: memoryOf(cell.pid) - before.cell };
    t.diagnostic(`a batch unread: ${taken} bytes taken, gateways ${(more.gateways / MIB).toFixed(1)} MiB more, ` +
                 `cell ${(more.cell / MIB).toFixed(1)} MiB more`);
    assert.ok(taken < 8 * MIB, `${taken} bytes of it were taken`);
    assert.ok(more.cell < 32 * MIB && more.gateways < 32 * MIB);
    await node.want(200, 'GET', '/v1/documents', { token: tokens.acme });
    socket.destroy();
    await calmIsServed();
  });

  // The whole answer, or how it broke.
  function whole(target) {
    return new Promise((resolve) => {
      const request = http.get(node.url + target, { agent: new http.Agent(), headers: { authorization: `Bearer ${tokens.acme}` } });
      request.on('error', (fault) => resolve({ complete: false, fault }));
      request.on('response', (response) => {
        let bytes = 0;
        response.on('data', (piece) => {
          bytes += piece.length;
          response.pause();
          setTimeout(() => response.resume(), 2);
        });
        response.on('error', (fault) => resolve({ complete: false, fault }));
        response.on('end', () => resolve({ status: response.statusCode, complete: response.complete, bytes }));
      });
    });
  }

  for (const what of ['cell', 'gateway'])
    test(`a ${what} killed in the middle: nothing cut looks whole, and no file stays`, async () => {
      const flows = Array.from({ length: 4 }, (_, i) => upload(`killed${i}`, 64 * MIB));
      for (const { request } of flows) request.write(pattern.subarray(0, 8 * MIB));
      const unknown = upload('unknown');
      unknown.request.write(pattern.subarray(0, 8 * MIB));
      const downloads = Array.from({ length: 4 }, () => whole('/v1/objects/kept'));
      await eventually('uploads have files', () => objects().length === 6);
      await sleep(50);
      const pids = what === 'cell' ? [(await cellOf('acme')).pid] : (await gateways()).map(({ pid }) => pid);
      for (const pid of pids) await node.kill(pid);
      for (const { answer } of [...flows, unknown]) {
        const { status } = await answer;
        assert.ok(status === 0 || status >= 500, `${status}`);
      }
      for (const answer of await Promise.all(downloads))
        if (answer.complete && answer.status === 200) assert.equal(answer.bytes, pattern.length);
      await eventually('the tenant is served again', async () => {
        try {
          return (await node.http('GET', '/v1/objects?limit=1', { token: tokens.acme })).status === 200;
        } catch {
          return false;
        }
      });
      await onlyKept();
      for (const key of ['killed0', 'unknown'])
        await node.problem(404, 'not_found', 'GET', `/v1/objects/${key}`, { token: tokens.acme });
      const answer = await whole('/v1/objects/kept');
      assert.deepEqual([answer.status, answer.complete, answer.bytes], [200, true, pattern.length]);
      await calmIsServed();
    });

  test('a body shorter than announced is no object', async () => {
    const socket = net.connect(node.port, '127.0.0.1');
    socket.on('error', () => {});
    socket.end(`PUT /v1/objects/short HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nAuthorization: Bearer ${tokens.acme}` +
               `\r\n\r\n${'x'.repeat(99)}`);
    await new Promise((resolve) => socket.on('close', resolve).resume());
    checkProblem(await node.http('GET', '/v1/objects/short', { token: tokens.acme }), 404, 'not_found');
    await onlyKept();
  });
});
