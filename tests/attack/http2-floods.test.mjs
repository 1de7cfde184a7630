// http2-floods: HTTP/2 in quantities: floods of frames that cost the sender nothing, streams that are reset as fast as they
// are opened, header blocks that never end or burst, windows that stay shut. Each flood is ended or costs nothing, memory stays
// bounded, and others are served while it lasts.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, test } from 'node:test';

import * as h2 from './support-h2.mjs';
import { long } from './support-http.mjs';

const { END_STREAM, END_HEADERS, HEADERS, CONTINUATION, DATA, PRIORITY, PADDED, ACK } = h2;
const { block, data, frame, headers, indexed, ping, remembered, reset, settings, tableSize, windowUpdate } = h2;
const { ENHANCE_YOUR_CALM, INTERNAL_ERROR, PROTOCOL_ERROR, COMPRESSION_ERROR } = h2;

const front = new h2.FrontH2();
const FLOOD = 20000, BATCH = 500;
const MEMORY_MAX = 64 * 1024 * 1024; // of all gateways together, more than before
// Asked for by another tenant: what one tenant's clients leave unread may hold up that tenant, and nobody else.
let stranger;
const others = () => front.node.want(200, 'GET', '/v1/tenant', { token: stranger });
before(async () => {
  await front.start();
  await front.node.createBusyTenant('zeta');
  stranger = await front.node.token('zeta', 'zoe', { scope: 'tenant:read', ttl: '1h' });
});
after(() => front.destroy());

const query = '{"query":"stays"}';
const odd = (i) => 2 * i + 1;

async function resident() {
  let bytes = 0;
  for (const { name, pid } of (await front.node.status()).services)
    if (name.startsWith('gateway'))
      bytes += 1024 * Number(/VmRSS:\s+(\d+) kB/.exec(fs.readFileSync(`/proc/${pid}/status`, 'latin1'))[1]);
  return bytes;
}

// Sends make(0), make(1), ... until the connection ends or there are enough; others are asked meanwhile.
async function flood(make, { count = FLOOD, options, first } = {}) {
  const base = await resident();
  const connection = await front.open(options);
  if (first) connection.send(first());
  let sent = 0;
  while (sent < count && !connection.closed) {
    await connection.sent(...Array.from({ length: BATCH }, () => make(sent++)));
    if (sent % (8 * BATCH) === 0) await front.works();
  }
  await front.works();
  const more = await resident() - base;
  assert.ok(more < MEMORY_MAX, `${Math.round(more / 1024)} KiB more than before`);
  return { connection, sent };
}

// What must be ended, by the code of those who have enough, within a small part of the flood.
const ended = {
  'PING': () => ping(),
  'PING acknowledgements': () => ping(ACK),
  'SETTINGS': () => settings([[h2.INITIAL_WINDOW_SIZE, 65535]]),
  'empty SETTINGS': () => settings(),
  'SETTINGS that change the window': (i) => settings([[h2.INITIAL_WINDOW_SIZE, i % 65536]]),
  'SETTINGS with many values': () => settings(Array.from({ length: 100 }, (_, i) => [0xff00 + i, i])),
  'PRIORITY': (i) => frame(PRIORITY, 0, odd(i), Buffer.from([0, 0, 0, 0, 7])),
  'WINDOW_UPDATE of one': () => windowUpdate(0, 1),
  'rapid reset': (i) => Buffer.concat([front.ask(odd(i)), reset(odd(i))]),
  'rapid reset of uploads': (i) => Buffer.concat([front.find(odd(i)), reset(odd(i))]),
  'rapid reset, the other way: WINDOW_UPDATE of 0': (i) => Buffer.concat([front.find(odd(i)), windowUpdate(odd(i), 0)]),
  'rapid reset, the other way: a window too large': (i) => Buffer.concat([front.find(odd(i)), windowUpdate(odd(i), 2 ** 31 - 1)]),
  'rapid reset, the other way: DATA behind the end': (i) => Buffer.concat([front.ask(odd(i)), data(odd(i), 'x')]),
  'rapid reset, the other way: content-length': (i) => front.find(odd(i), [['content-length', '5']], END_STREAM | END_HEADERS),
  'malformed requests': (i) => headers(odd(i), [[':method', 'GET']]),
};

for (const [name, make] of Object.entries(ended))
  test(`a flood of ${name} is ended`, async () => {
    const { connection, sent } = await flood(make);
    await connection.until(() => connection.closed, 'its end');
    assert.ok(sent < FLOOD, 'before all of it was sent');
    // a reset of the connection may take GOAWAY away with it
    if (connection.goaway)
      assert.ok([ENHANCE_YOUR_CALM, INTERNAL_ERROR, PROTOCOL_ERROR, h2.STREAM_CLOSED].includes(connection.goaway.code), `${connection}`);
  });

test('floods on a stream that is open are ended', async () => {
  for (const make of [() => data(1, '', 0), () => frame(DATA, PADDED, 1, Buffer.from([3, 0, 0, 0])), () => windowUpdate(1, 1),
                      () => frame(PRIORITY, 0, 1, Buffer.from([0, 0, 0, 0, 7]))]) {
    const { connection, sent } = await flood(make, { first: () => front.find(1) });
    await connection.until(() => connection.closed, 'its end');
    assert.ok(sent < FLOOD);
  }
});

test('a flood of unknown frames costs nothing', async () => {
  const { connection } = await flood((i) => frame(0xbe, 0, i % 3, long(i % 10)), { first: () => front.find(1) });
  if (!connection.closed) {
    connection.send(data(1, query));
    assert.equal((await connection.answer(1)).status, 200);
  }
  connection.close();
});

test('a flood of HEADERS for streams that are over is ended', async () => {
  const { connection, sent } = await flood((i) => front.ask(odd(i % 1000)), { first: () => front.ask(2001) });
  await connection.until(() => connection.closed, 'its end');
  assert.ok(sent < FLOOD);
});

test('a block that never ends is ended, of empty parts, of small ones, of whole ones', async () => {
  for (const part of ['', 'x', Buffer.alloc(1), block(['x', long(100)]), block(['x', long(16000)]), indexed(2)]) {
    const { connection, sent } = await flood(() => frame(CONTINUATION, 0, 1, part), {
      first: () => front.ask(1, '/v1/memories', [], END_STREAM) });
    await connection.until(() => connection.closed, 'its end');
    assert.ok(sent < FLOOD);
    assert.equal(connection.stream(1).status, 0);
  }
});

test('a small block that becomes a large list is refused, and its memory is not kept', async () => {
  const bomb = (id, times) => frame(HEADERS, END_STREAM, id, Buffer.concat([block(...front.fields('GET', '/v1/memories')),
    id === 1 ? remembered('x', long(4000)) : Buffer.alloc(0)].concat(Array.from({ length: times }, () => indexed(62)))));
  const end = (id) => frame(CONTINUATION, END_HEADERS, id, '');
  for (const times of [100, 1000, 10000]) {
    const base = await resident();
    const connection = await front.open();
    connection.send(bomb(1, times), end(1));
    for (let id = 3; id < 41 && !connection.closed; id += 2) await connection.sent(bomb(id, times), end(id));
    await connection.until(() => connection.closed || (connection.stream(39).ended || connection.stream(39).reset !== undefined), 'refusals');
    for (const [id, stream] of connection.streams)
      assert.ok([0, 431].includes(stream.status), `${id}: ${stream.status}`);
    if (connection.closed && connection.goaway)
      assert.ok([ENHANCE_YOUR_CALM, COMPRESSION_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR].includes(connection.goaway.code), `${connection}`);
    connection.close();
    assert.ok(await resident() - base < MEMORY_MAX);
    await front.works();
  }
});

test('a block of nothing but table sizes, or of empty fields, is no request and costs nothing', async () => {
  for (const field of [tableSize(0), Buffer.from([0, 0, 0])]) {
    const connection = await front.open();
    connection.send(frame(HEADERS, END_STREAM | END_HEADERS, 1, Buffer.concat(Array.from({ length: Math.floor(16000 / field.length) }, () => field))));
    await connection.until(() => connection.closed || connection.stream(1).reset !== undefined || connection.stream(1).ended, 'its end');
    assert.ok([0, 400, 431].includes(connection.stream(1).status), `${connection}`);
    connection.close();
  }
  await front.works();
});

test('answers wait for a window that stays shut, without much memory, and others are served', async () => {
  for (let i = 0; i < 20; i++) // 1.2 MB: a large answer
    await front.node.want(201, 'POST', '/v1/memories', { token: front.token, body: { text: long(60000) } });
  const base = await resident();
  const shut = await Promise.all(Array.from({ length: 20 }, () =>
    front.open({ settings: [[h2.INITIAL_WINDOW_SIZE, 0]], grow: false })));
  for (let i = 0; i < 50; i++) {
    for (const connection of shut) connection.send(front.ask(odd(i), '/v1/memories?limit=500'));
    if (i % 10 === 0) await others();
  }
  await others();
  await front.works(); // nor is anybody else of the same tenant kept waiting
  const more = await resident() - base;
  assert.ok(more < 2 * MEMORY_MAX, `${Math.round(more / 1024)} KiB more than before`); // 20 * 50 * 1.2 MB were asked for
  for (const connection of shut)
    for (const [, stream] of connection.streams) assert.equal(stream.body, '', 'nothing came through a shut window');
  for (const connection of shut) connection.close();
  await front.works();
});

test('a window that opens byte by byte gives the answer byte by byte', async () => {
  const connection = await front.open({ settings: [[h2.INITIAL_WINDOW_SIZE, 0]], grow: false });
  connection.send(front.ask(1, '/v1/memories?session_id=none'));
  const stream = connection.stream(1);
  await connection.until(() => stream.status === 200, 'the head');
  const length = Number(stream.headers['content-length']);
  assert.equal(stream.body, '');
  for (let at = 1; at <= length; at++) {
    connection.send(windowUpdate(1, 1));
    await connection.until(() => stream.body.length === at || connection.closed, `byte ${at}`);
  }
  await connection.until(() => stream.ended, 'the end');
  assert.deepEqual(JSON.parse(stream.body).data, []);
  await connection.pong();
  connection.close();
});

test('a window that shrinks below what is in flight holds the answer until it is open again', async () => {
  const connection = await front.open({ settings: [[h2.INITIAL_WINDOW_SIZE, 1000]], grow: false });
  connection.send(front.ask(1, '/v1/memories?limit=500'));
  const stream = connection.stream(1);
  await connection.until(() => stream.body.length === 1000, 'what fits');
  connection.send(settings([[h2.INITIAL_WINDOW_SIZE, 0]]), windowUpdate(1, 999)); // 1 byte short
  await connection.pong();
  assert.equal(stream.body.length, 1000);
  connection.send(windowUpdate(1, 11));
  await connection.until(() => stream.body.length === 1010, 'ten bytes more');
  connection.send(settings([[h2.INITIAL_WINDOW_SIZE, 2 ** 24]]), windowUpdate(0, 2 ** 24));
  await connection.until(() => stream.ended, 'the rest');
  assert.equal(stream.body.length, Number(stream.headers['content-length']));
  connection.close();
});

test('the window of the connection holds all streams together, not the answers without a body', async () => {
  const connection = await front.open({ settings: [[h2.INITIAL_WINDOW_SIZE, 2 ** 24]], grow: false });
  connection.send(front.ask(1, '/v1/memories?limit=500'));
  await connection.until(() => connection.stream(1).body.length === 65535, 'what the connection allows');
  connection.send(front.ask(3, '/v1/tenant', [[':method', 'HEAD']]), front.ask(5, '/v1/tenant'));
  assert.equal((await connection.answer(3)).status, 200);
  await connection.pong();
  assert.equal(connection.stream(5).body, '');
  connection.send(windowUpdate(0, 2 ** 24));
  await connection.until(() => connection.stream(1).ended && connection.stream(5).ended, 'both');
  connection.close();
});

test('all streams with bodies that do not come on', async () => {
  const base = await resident();
  const connections = await Promise.all(Array.from({ length: 20 }, () => front.open()));
  for (let i = 0; i < 90; i++)
    for (const connection of connections) connection.send(front.find(odd(i)), data(odd(i), Buffer.alloc(16000, ' '), 0));
  for (const connection of connections) await connection.pong();
  await front.works();
  const more = await resident() - base;
  assert.ok(more < 2 * MEMORY_MAX, `${Math.round(more / 1024)} KiB more than before`); // 28.8 MB were sent
  for (let i = 0; i < 90; i++) connections[0].send(data(odd(i), query));
  for (let i = 0; i < 90; i++) assert.equal((await connections[0].answer(odd(i))).status, 200);
  for (const connection of connections) connection.close();
  await front.works();
});

test('who sends and does not read is cut off or waits, and costs no one anything', async () => {
  const base = await resident();
  const connections = await Promise.all(Array.from({ length: 10 }, () => front.open()));
  for (const connection of connections) connection.socket.pause();
  for (const connection of connections)
    for (let i = 0; i < 90; i++) connection.send(front.ask(odd(i), '/v1/memories?limit=500'), ping());
  await others();
  await others();
  const more = await resident() - base;
  assert.ok(more < 2 * MEMORY_MAX, `${Math.round(more / 1024)} KiB more than before`);
  for (const connection of connections) connection.close();
  await front.works();
});

test('nothing has died, and all that was open is closed', async () => {
  for (const service of (await front.node.status()).services) assert.equal(service.restarts, 0, service.name);
  await front.works();
});
