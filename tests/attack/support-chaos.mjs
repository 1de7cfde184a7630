// support-chaos: everything a network may do, by dice, over HTTP/1.1 and HTTP/2, plain and under TLS, while cells and gateways are
// killed. Meanwhile and afterwards honest clients are answered, and truly; no process ends that was not killed, and what the
// storm made gateways take in memory they give back. BULKHEAD_SEED repeats a run, BULKHEAD_CHAOS_MS prolongs one.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import tls from 'node:tls';

import { Node, descendants, eventually, run, sleep } from '../e2e/harness.mjs';
import * as h2 from './support-h2.mjs';

const seed = Number(process.env.BULKHEAD_SEED ?? 20261121);
const STORM_MS = Number(process.env.BULKHEAD_CHAOS_MS ?? 6000);
const VISITORS = 40, TENANTS = 3;
// KiB of one gateway, after the storm against after a first, shorter one; a sanitizer keeps what was freed.
const GROWTH_MAX = 48 * 1024 * Number(process.env.BULKHEAD_PATIENCE ?? 1);
const { CANCEL, END_HEADERS, END_STREAM, PREFACE } = h2;

// Numerical Recipes' generator: the same storm for the same seed, as far as the kernel plays along.
let state = seed >>> 0;
function dice(sides) {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return (state >>> 8) % sides;
}
const noise = (length) => Buffer.from(Array.from({ length }, () => dice(256)));

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'bulkhead-chaos-'));
after(() => fs.rmSync(directory, { recursive: true, force: true }));
const certificate = path.join(directory, 'node.pem'), key = path.join(directory, 'node.key');

before(async () => {
  const { code, stderr } = await run('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=node.example',
    '-addext', 'subjectAltName=IP:127.0.0.1', '-keyout', key, '-out', certificate, '-days', '30']);
  assert.equal(code, 0, stderr);
  fs.chmodSync(key, 0o600);
});

// ---- one visitor: a connection, and what it does next ----

const targets = ['/v1/memories', '/v1/tenant', '/v1/memories?limit=500', '/v1/nowhere', '/v1/memories/%2e%2e'];

function fields(storm, method) {
  const token = dice(8) ? storm.tokens[dice(TENANTS)] : 'none.at.all';
  return [[':method', method], [':scheme', 'http'], [':path', targets[dice(targets.length)]], [':authority', 'x'],
          ['authorization', `Bearer ${token}`], ['content-type', 'application/json']];
}

const heads = (storm) => fields(storm, 'GET').filter(([name]) => name === 'authorization')
  .map(([name, value]) => `${name}: ${value}\r\n`).join('');

const said1 = [
  (storm) => `GET ${targets[dice(targets.length)]} HTTP/1.1\r\nHost: x\r\n${heads(storm)}\r\n`,
  (storm) => `GET /v1/memories?limit=500 HTTP/1.1\r\nHost: x\r\n${heads(storm)}\r\n`.repeat(1 + dice(9)),
  (storm) => `POST /v1/memories/search HTTP/1.1\r\nHost: x\r\n${heads(storm)}Content-Type: application/json\r\n`
    + 'Content-Length: 18\r\n\r\n{"query": "stays"}',
  (storm) => `POST /v1/memories HTTP/1.1\r\nHost: x\r\n${heads(storm)}Content-Length: 900000\r\n\r\n${'x'.repeat(dice(80000))}`,
  (storm) => `POST /v1/memories HTTP/1.1\r\nHost: x\r\n${heads(storm)}Transfer-Encoding: chunked\r\n\r\n`
    + `${dice(99999).toString(16)}\r\n${'x'.repeat(dice(20000))}`,
  (storm) => `POST /v1/memories HTTP/1.1\r\nHost: x\r\n${heads(storm)}Expect: 100-continue\r\nContent-Length: 9\r\n\r\n`,
  () => `GET / HTTP/1.1\r\nHost: x\r\nX-${'y'.repeat(dice(20000))}: `,
  () => PREFACE.slice(0, dice(PREFACE.length)),
  () => noise(dice(600)),
];

const said2 = [
  (storm, visitor) => h2.headers(visitor.next(), fields(storm, 'GET')),
  (storm, visitor) => Buffer.concat(Array.from({ length: 1 + dice(30) },
                                               () => h2.headers(visitor.next(), fields(storm, 'GET')))),
  (storm, visitor) => h2.headers(visitor.next(), fields(storm, 'POST'), END_HEADERS),
  (storm, visitor) => h2.headers(visitor.next(), fields(storm, 'POST'), 0),
  (storm, visitor) => h2.data(visitor.some(), 'x'.repeat(dice(16384)), dice(2) ? END_STREAM : 0),
  (storm, visitor) => h2.reset(visitor.some(), dice(14)),
  (storm, visitor) => Buffer.concat(Array.from({ length: 1 + dice(20) }, () => {
    const id = visitor.next();
    return Buffer.concat([h2.headers(id, fields(storm, 'GET')), h2.reset(id, CANCEL)]);
  })),
  (storm, visitor) => h2.windowUpdate(dice(2) * visitor.some(), dice(4) ? 1 + dice(70000) : dice(2 ** 31)),
  () => h2.settings([[h2.INITIAL_WINDOW_SIZE, dice(70000)]]),
  () => h2.settings([], h2.ACK),
  () => h2.ping(),
  () => h2.goaway(),
  () => h2.frame(dice(14), dice(256), dice(60), noise(dice(60))),
  () => noise(dice(200)),
];

class Visitor {
  constructor(storm) {
    this.storm = storm;
    this.http2 = dice(2) === 1;
    this.stream = -1;
    this.over = false;
    const options = { host: '127.0.0.1', port: storm.node.port, allowHalfOpen: true };
    const shakes = storm.sealed && dice(6) > 0; // else plain bytes where TLS is spoken, too
    this.socket = shakes
      ? tls.connect({ ...options, rejectUnauthorized: false, ALPNProtocols: [this.http2 ? 'h2' : 'http/1.1'],
                      maxVersion: dice(2) ? 'TLSv1.3' : 'TLSv1.2' })
      : net.connect(options);
    storm.sockets.add(this.socket);
    this.socket.on('error', () => { this.over = true; });
    this.socket.on('close', () => { this.over = storm.sockets.delete(this.socket); });
    this.socket.on('data', () => {});
    if (this.http2)
      this.socket.write(Buffer.concat([Buffer.from(PREFACE, 'latin1'),
                                       h2.settings(dice(2) ? [] : [[h2.INITIAL_WINDOW_SIZE, dice(2000)]])]));
  }

  next() {
    this.stream += 2;
    return this.stream;
  }

  some() {
    return Math.max(1, this.stream - 2 * dice(20));
  }

  // With a reset, or properly, or leaving the other half open. One that was ended is not reset: libuv never closes
  // such a handle, and Node.js then waits for it for ever at its exit.
  leave(how = dice(3)) {
    const { encrypted, writableEnded, connecting } = this.socket;
    if (how === 0) this.socket.destroy();
    else if (how === 1 && !encrypted && !writableEnded && !connecting) this.socket.resetAndDestroy?.();
    else this.socket.end();
  }

  act() {
    const move = dice(20);
    if (move === 0) this.leave();
    else if (move === 1) this.socket.pause();
    else if (move === 2) this.socket.resume();
    else if (move === 3 && this.socket.encrypted) this.socket.renegotiate?.({}, () => {});
    else {
      const said = this.http2 ? said2 : said1;
      this.socket.write(said[dice(said.length)](this.storm, this));
    }
  }
}

// ---- a storm ----

class Storm {
  constructor(sealed) {
    this.sealed = sealed;
    this.sockets = new Set();
    this.killed = 0; // gateways
    this.answered = 0;
  }

  async start() {
    const args = this.sealed ? ['--tls-cert', certificate, '--tls-key', key] : [];
    this.node = new Node({ args, config: { gateways: 2 } });
    await this.node.start();
    this.tokens = [];
    for (let i = 0; i < TENANTS; i++) {
      await this.node.createBusyTenant(`tenant-${i}`);
      this.tokens.push(await this.node.token(`tenant-${i}`, 'ada', {
        scope: 'memory:read memory:write tenant:read', ttl: '1h' }));
    }
    await this.node.createBusyTenant('calm');
    this.calm = await this.node.token('calm', 'zoe', { scope: 'memory:read memory:write', ttl: '1h' });
    this.memory = await this.ask('POST', '/v1/memories', '{"text":"stays calm"}');
    assert.equal(this.memory.status, 201, this.memory.text);
    for (let i = 0; i < TENANTS; i++)
      for (let j = 0; j < 20; j++)
        await this.ask('POST', '/v1/memories', JSON.stringify({ text: `of tenant ${i} ${'x'.repeat(4000)}` }), this.tokens[i]);
  }

  // By curl: another implementation, and a connection of its own each time.
  async ask(method, target, body, token = this.calm) {
    const words = ['-sk', '--max-time', '20', '-X', method, '-H', `authorization: Bearer ${token}`, '-w', '\n%{http_code}'];
    if (body !== undefined) words.push('-H', 'content-type: application/json', '--data-binary', body);
    const { stdout } = await run('curl', [...words, this.node.url + target]);
    const at = stdout.lastIndexOf('\n');
    return { status: Number(stdout.slice(at + 1)), text: stdout.slice(0, at) };
  }

  // Truly answered. The gateway that has the connection may be one that is killed: asked again then.
  async honest() {
    await eventually('an honest client is answered', async () => {
      const { status, text } = await this.ask('GET', `/v1/memories/${JSON.parse(this.memory.text).id}`);
      if (status === 0 || status === 503) return false;
      assert.equal(status, 200, text);
      assert.equal(JSON.parse(text).text, 'stays calm');
      return true;
    });
    this.answered++;
  }

  async gateways() {
    return (await this.node.status()).services.filter(({ name }) => name.startsWith('gateway'));
  }

  async resident() {
    const kib = {};
    for (const { name, pid } of await this.gateways())
      kib[name] = Number(/VmRSS:\s+(\d+) kB/.exec(fs.readFileSync(`/proc/${pid}/status`, 'latin1'))[1]);
    return kib;
  }

  // A cell of one of the tenants that the storm is about; a gateway more rarely.
  async kill(gateway) {
    const status = await this.node.status();
    const calm = (await this.node.tenant('calm')).id;
    const cells = status.cells.filter(({ tenant_id: id }) => id !== calm);
    const victims = gateway ? status.services.filter(({ name }) => name.startsWith('gateway')) : cells;
    if (victims.length === 0) return;
    const { pid } = victims[dice(victims.length)];
    if (!descendants(this.node.pid).some((process_) => process_.pid === pid)) return; // it was quicker
    await this.node.kill(pid);
    if (gateway) this.killed++;
  }

  async rage(ms, { gateways }) {
    const visitors = [];
    const end = Date.now() + ms;
    let nextKill = Date.now() + 500, kills = 0;
    const witness = (async () => {
      while (Date.now() < end) await this.honest();
    })();
    while (Date.now() < end) {
      for (let i = 0; i < 30; i++) {
        const at = dice(VISITORS);
        if (!visitors[at] || visitors[at].over) visitors[at] = new Visitor(this);
        else visitors[at].act();
      }
      if (Date.now() > nextKill) {
        await this.kill(gateways && ++kills % 4 === 0);
        nextKill = Date.now() + 500;
      }
      await sleep(2);
    }
    for (const socket of this.sockets) socket.destroy();
    await witness;
  }

  // Nothing ended by itself, or complained.
  checkLog() {
    const log = this.node.logText();
    const ends = [...log.matchAll(/"service\.ended","detail":"([^"]*)"/g)].map(([, detail]) => detail);
    for (const end of ends) assert.match(end, /^gateway-\d+: exit 137$/, 'nothing ends that was not killed');
    assert.equal(ends.length, this.killed);
    assert.doesNotMatch(log, /Sanitizer|runtime error|Assertion|service\.lost/);
  }
}

export function stormOfSuite(sealed) {
  describe(sealed ? 'under TLS' : 'in plain', () => {
    const storm = new Storm(sealed);
    before(() => storm.start());
    after(() => storm.node?.destroy());

    test(`honest clients are served in a storm, and memory is given back (seed ${seed})`, async () => {
      await storm.rage(STORM_MS / 3, { gateways: false });
      await storm.honest();
      const base = await storm.resident();
      await storm.rage(STORM_MS, { gateways: false });
      await eventually('the connections are over', async () => {
        const text = await (await fetch(`${storm.node.opsUrl}/metrics`)).text();
        const open = [...text.matchAll(/^bulkhead_connections_open[^ ]* (\d+)$/gm)];
        assert.ok(open.length > 0, text.slice(0, 2000));
        return open.every(([, count]) => Number(count) <= 1);
      });
      const now = await storm.resident();
      for (const name of Object.keys(base))
        assert.ok(now[name] - base[name] < GROWTH_MAX, `${name}: ${base[name]} KiB, then ${now[name]} KiB`);
      storm.checkLog();
    });

    test(`honest clients are served while gateways are killed, too (seed ${seed})`, async () => {
      await storm.rage(STORM_MS / 2, { gateways: true });
      await storm.honest();
      storm.checkLog();
      assert.ok(storm.answered > 5, `${storm.answered} answers`);
      await storm.node.stop();
    });
  });
}
