// slow: clients that take their time: a handshake or a head that never ends, a body that hardly comes, an answer that
// nobody takes, a connection on which nothing happens; over HTTP/1.1, HTTP/2 and TLS. All at once; others are served
// meanwhile, memory stays bounded, and each is cut off by its own limit of time (src/base/limits.h, docs/http.md).
import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before, test } from 'node:test';
import tls from 'node:tls';

import { Node, run, sleep } from '../e2e/harness.mjs';
import * as h2 from './support-h2.mjs';
import { lines, long, statusesOf } from './support-http.mjs';

const front = new h2.FrontH2();
const HEAD_MS = 10000, BODY_MS = 30000, WRITE_MS = 30000; // of the gateway
const LATE_MS = 12000 * Number(process.env.BULKHEAD_PATIENCE ?? 1); // more, on a machine that does much else
const SLOW = 80, UNREAD = 24, IDLE = 200; // all from one address: below its cap
const MEMORY_MAX = 96 * 1024 * 1024; // of all gateways together, more than before

const gateways = async () => (await front.node.status()).services.filter(({ name }) => /^gateway/.test(name));

async function resident() {
  let bytes = 0;
  for (const { pid } of await gateways())
    bytes += 1024 * Number(/VmRSS:\s+(\d+) kB/.exec(fs.readFileSync(`/proc/${pid}/status`, 'latin1'))[1]);
  return bytes;
}

// A client that sends the first bytes, then one drop after the other, until it is cut off; {text, ms}.
function dribble(first, drop, every, limit, port = front.port) {
  return new Promise((resolve) => {
    const started = Date.now();
    const got = [];
    const socket = net.connect(port, '127.0.0.1', () => socket.write(first));
    const dripping = setInterval(() => socket.write(drop), every);
    const end = (cut) => {
      clearInterval(dripping);
      clearTimeout(timer);
      socket.destroy();
      resolve({ text: Buffer.concat(got).toString('latin1'), ms: Date.now() - started, cut });
    };
    const timer = setTimeout(() => end(false), limit);
    socket.on('data', (piece) => got.push(piece));
    socket.on('end', () => end(true));
    socket.on('error', () => {}); // written to after the end: the close follows
    socket.on('close', () => end(true));
  });
}

// Asks for large answers again and again and takes nothing of them; resolves to when it was cut off.
function unread(limit) {
  return new Promise((resolve) => {
    const started = Date.now();
    const socket = net.connect({ port: front.port, host: '127.0.0.1' });
    const timer = setTimeout(() => socket.destroy(), limit);
    let cut = false;
    socket.pause(); // nothing is read from the kernel: its buffers fill, then the gateway's
    socket.on('connect', () => socket.write(front.line('GET /v1/memories?limit=500 HTTP/1.1').repeat(60)));
    socket.on('error', () => { cut = true; });
    socket.on('close', () => {
      clearTimeout(timer);
      resolve({ ms: Date.now() - started, cut });
    });
    // A socket that is not read does not learn of its end: writing to it does.
    const probe = setInterval(() => {
      if (socket.destroyed) clearInterval(probe);
      else if (Date.now() - started > WRITE_MS) socket.write('G');
    }, 500);
  });
}

function idle() {
  return new Promise((resolve, reject) => {
    const socket = net.connect(front.port, '127.0.0.1', () => resolve(socket));
    socket.on('error', reject);
  });
}

// A connection of HTTP/2 on which act() does something slow, again and again until it is cut off or its stream ends.
async function slowly(act, every, limit, options) {
  const connection = await h2.H2.open(front.port, options);
  const started = Date.now();
  act(connection, 0);
  for (let i = 1; !connection.closed && !Object.hasOwn(connection, 'over') && Date.now() - started < limit; i++) {
    await sleep(every);
    act(connection, i);
    const stream = connection.streams.get(1);
    if (stream?.ended || stream?.reset !== undefined) connection.over = true;
  }
  const { closed, goaway, over } = connection;
  connection.close();
  return { ms: Date.now() - started, cut: closed || over === true, goaway, stream: connection.stream(1) };
}

const slowH2 = {
  'a preface byte by byte': [HEAD_MS, (connection, i) => connection.send(h2.PREFACE.slice(i, i + 1)), { first: '' }],
  'settings that are never acknowledged': [HEAD_MS, () => {}, { ack: false }],
  'a header block byte by byte': [HEAD_MS, (connection, i) => connection.send(
    i ? 'x' : h2.frame(h2.HEADERS, h2.END_STREAM | h2.END_HEADERS, 1, h2.block(...front.fields('GET', '/')), { length: 8000 }))],
  'a header block without its end': [HEAD_MS, (connection, i) => i || connection.send(front.ask(1, '/', [], h2.END_STREAM))],
  'DATA of one byte': [BODY_MS, (connection, i) => connection.send(i ? h2.data(1, ' ', 0) : front.find(1))],
  'a frame of DATA byte by byte': [BODY_MS, (connection, i) => connection.send(
    i ? ' ' : Buffer.concat([front.find(1), h2.frame(h2.DATA, 0, 1, '', { length: 8000 })]))],
  'a window that stays shut': [WRITE_MS, (connection, i) => i || connection.send(front.ask(1)),
                               { settings: [[h2.INITIAL_WINDOW_SIZE, 0]], grow: false }],
  'a window that opens byte by byte': [WRITE_MS, (connection, i) => connection.send(
    i ? h2.windowUpdate(1, 1) : front.ask(1, '/v1/memories?limit=500')), { settings: [[h2.INITIAL_WINDOW_SIZE, 0]], grow: false }],
};

// A node with TLS, and a hello as a client would send it.
const secure = new Node({ config: { gateways: 1 } });
const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'bulkhead-slow-'));
const file = (name) => path.join(directory, name);

async function startSecure() {
  const made = await run('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=node',
                                     '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', file('key'), '-out', file('cert'), '-days', '2']);
  assert.equal(made.code, 0, made.stderr);
  fs.chmodSync(file('key'), 0o600);
  secure.args = ['--tls-cert', file('cert'), '--tls-key', file('key')];
  await secure.start();
}

function helloOf() {
  return new Promise((resolve) => {
    const server = net.createServer((socket) => socket.once('data', (bytes) => {
      socket.destroy();
      server.close(() => resolve(bytes));
    })).listen(0, '127.0.0.1', () => tls.connect(server.address().port, '127.0.0.1').on('error', () => {}));
  });
}

// A whole exchange over TLS, on a connection of its own.
function askSecure() {
  return new Promise((resolve, reject) => {
    const socket = tls.connect({ port: secure.port, host: '127.0.0.1', rejectUnauthorized: false }, () =>
      socket.write(lines('GET /v1/tenant HTTP/1.1', 'Host: a', 'Connection: close')));
    let text = '';
    socket.on('data', (piece) => { text += piece.toString('latin1'); });
    socket.on('error', reject);
    socket.on('end', () => resolve(text));
  });
}

const within = ({ ms, cut }, expected, what) => {
  assert.ok(cut, `${what} was not cut off`);
  assert.ok(ms >= expected - 500, `${what}: cut off after ${ms} ms, ${expected} are allowed`);
};

let outcomes, peak = 0, base, answered = 0, idlers, handshakes;
const outcomesH2 = {};

before(async () => {
  await front.start();
  for (let i = 0; i < 30; i++) // 30 * 60 KiB: a large answer
    await front.node.want(201, 'POST', '/v1/memories', { token: front.token, body: { text: long(60000) } });
  await startSecure();
  const hello = await helloOf();
  base = await resident();
  idlers = await Promise.all(Array.from({ length: IDLE }, idle));
  const many = (count, make) => Promise.all(Array.from({ length: count }, make));
  let over = false;
  const all = Promise.all([
    many(SLOW, () => dribble('GET /v1/memories HTTP/1.1\r\nHost: a\r\n', 'X: a\r\n', 600, HEAD_MS + LATE_MS)),
    many(SLOW, () => dribble('G', 'E', 600, HEAD_MS + LATE_MS)),
    many(SLOW, () => dribble(front.search('Content-Length: 1000'), ' ', 600, BODY_MS + LATE_MS)),
    many(SLOW, () => dribble(`${front.search('Transfer-Encoding: chunked')}1\r\n `, '\r\n1\r\n ', 600, BODY_MS + LATE_MS)),
    many(UNREAD, () => unread(WRITE_MS + 2 * LATE_MS)),
    ...Object.entries(slowH2).map(async ([name, [expected, act, options]]) => {
      outcomesH2[name] = await many(SLOW / 8, () => slowly(act, 600, expected + LATE_MS, options));
    }),
    (async () => {
      handshakes = await many(SLOW, (_, i) => dribble(i % 2 ? hello.subarray(0, hello.length - 40) : '', hello.subarray(0, i % 2), 600,
                                                      HEAD_MS + LATE_MS, secure.port));
    })(),
  ]).finally(() => { over = true; });
  while (!over) {
    await front.neighbour.ask();
    await front.node.want(200, 'GET', '/v1/tenant', { token: front.token });
    await front.works();
    assert.match(await askSecure(), /^HTTP\/1\.1 401 /);
    answered++;
    peak = Math.max(peak, await resident());
    await Promise.race([all, sleep(250)]);
  }
  outcomes = await all;
});

after(async () => {
  idlers?.forEach((socket) => socket.destroy());
  await front.destroy();
  await secure.destroy();
  fs.rmSync(directory, { recursive: true, force: true });
});

test('others are served all the while', () => {
  assert.ok(answered >= 10, `${answered} times`);
});

test('memory stays bounded', () => {
  assert.ok(peak - base < MEMORY_MAX, `${Math.round((peak - base) / 1024)} KiB more than before`);
});

for (const [at, what, expected] of [[0, 'a head line by line', HEAD_MS], [1, 'a request line byte by byte', HEAD_MS],
                                    [2, 'a body byte by byte', BODY_MS], [3, 'chunks of one byte', BODY_MS]])
  test(`${what} is given up with 408`, () => {
    for (const outcome of outcomes[at]) {
      within(outcome, expected, what);
      assert.deepEqual(statusesOf(outcome.text), [408]);
      assert.match(outcome.text, /\r\nConnection: close\r\n/);
    }
  });

test('an answer that nobody takes is given up', () => {
  for (const outcome of outcomes[4]) within(outcome, WRITE_MS, 'an unread answer');
});

for (const [name, [expected]] of Object.entries(slowH2))
  test(`HTTP/2: ${name}: given up`, () => {
    for (const outcome of outcomesH2[name]) {
      within(outcome, expected, name);
      assert.equal(outcome.stream.status, /DATA/.test(name) ? 408 : /window/.test(name) ? 200 : 0);
    }
  });

test('a handshake that does not come on is given up', () => {
  for (const outcome of handshakes) within(outcome, HEAD_MS, 'a handshake');
});

test('a connection that does nothing yet is kept, and still of use', async () => {
  for (const socket of idlers.slice(0, 20)) {
    const answer = new Promise((resolve, reject) => {
      socket.once('data', (piece) => resolve(piece.toString('latin1')));
      socket.once('close', () => reject(new Error('it was closed')));
    });
    socket.write(lines('GET /v1/memories HTTP/1.1', 'Host: a'));
    assert.match(await answer, /^HTTP\/1\.1 401 /);
  }
});

test('nothing has died, and all memory is given back', async () => {
  for (const service of (await front.node.status()).services) assert.equal(service.restarts, 0, service.name);
  const { text } = await front.talk([front.get('Connection: close')]);
  assert.match(text, /^HTTP\/1\.1 200 /);
});
