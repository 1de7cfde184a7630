// plaintext: a workload of unique markers in every field. None of them, in no coding and not in pieces of
// eight bytes, no token and no key may lie in a file of DATA, in a log, in the environment or arguments
// of a process, or in a core file: awake, after a kill -9, parked.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';

import { Node, descendants, eventually, isAlive, sleep } from '../e2e/harness.mjs';
import { EVERY_SCOPE, filesBelow, headerOf, park, tokenParts } from './support.mjs';

const PIECE = 8;
const node = new Node({ config: { idle_seconds: 600 } });
const markers = [];
const tokens = [];
let id;

// Random, so that eight bytes of it stand nowhere by chance; letters, so that it may be a word anywhere.
function marker(what) {
  const text = what + crypto.randomBytes(18).toString('hex').replace(/\d/g, (digit) => 'ghijklmnop'[digit]);
  markers.push(text);
  return text;
}

// Every spelling in which bytes may lie around: as they are, UTF-16, hexadecimal, base64 at each offset.
function spellings(bytes) {
  const all = [bytes, Buffer.from(bytes.toString('latin1'), 'utf16le'), Buffer.from(bytes.toString('hex')),
               Buffer.from(bytes.toString('hex').toUpperCase()), Buffer.from(bytes).reverse()];
  for (let skip = 0; skip < 3; skip++) { // whole groups of three, so that the neighbours do not matter
    const part = bytes.subarray(skip, skip + 3 * Math.floor((bytes.length - skip) / 3));
    all.push(Buffer.from(part.toString('base64')), Buffer.from(part.toString('base64url')));
  }
  return all;
}

// name -> pieces: all windows of eight bytes of each spelling, by their first four.
class Scanner {
  constructor(secrets) {
    this.windows = new Map();
    for (const [name, bytes] of secrets)
      for (const spelling of spellings(bytes))
        for (let at = 0; at + PIECE <= spelling.length; at++) {
          const window = spelling.subarray(at, at + PIECE).toString('latin1');
          this.windows.set(window, name);
        }
    this.fronts = new Set([...this.windows.keys()].map((window) => Buffer.from(window, 'latin1').readUInt32LE(0)));
  }

  find(bytes) {
    for (let at = 0; at + PIECE <= bytes.length; at++) {
      if (!this.fronts.has(bytes.readUInt32LE(at))) continue;
      const name = this.windows.get(bytes.toString('latin1', at, at + PIECE));
      if (name) return { name, at };
    }
    return null;
  }
}

let scanner, keyScanner;

// Documents, objects, searches, batches; some stay, some are replaced or deleted.
async function fillLibrary(token) {
  for (let i = 0; i < 6; i++) {
    const id_ = marker('document'), key = `${marker('folder')}/${marker('object')}`;
    const document = () => ({ title: marker('title'), text: `# ${marker('heading')}\n\n${marker('text')} ${marker('word')}`,
                              metadata: { [marker('key')]: [marker('value')] } });
    await node.want(201, 'PUT', `/v1/documents/${id_}`, { token, body: document() });
    await node.want(200, 'PUT', `/v1/documents/${id_}`, { token, body: document() });
    await node.want(200, 'POST', '/v1/search', { token, headers: { 'idempotency-key': marker('idempotency') },
      body: { query: marker('query'), filter: { [marker('field')]: marker('wanted') } } });
    const lines = `${JSON.stringify({ id: marker('document'), ...document() })}\n{"id":"${marker('broken')}`;
    const batch = await node.http('POST', '/v1/documents/batch', { token, body: lines, headers: {
      'content-type': 'application/x-ndjson', 'idempotency-key': marker('idempotency') } });
    assert.equal(batch.status, 200, batch.text);
    const bytes = Buffer.alloc(200000, `${marker('bytes')} `);
    const put = await node.http('PUT', `/v1/objects/${key}`, { token, body: bytes, headers: { 'content-type': 'text/plain' } });
    assert.equal(put.status, 201, put.text);
    await node.want(200, 'GET', `/v1/objects?prefix=${marker('prefix')}`, { token });
    if (i % 3 !== 0) continue;
    for (const target of [`/v1/documents/${id_}`, `/v1/objects/${key}`])
      assert.equal((await node.http('DELETE', target, { token })).status, 204);
  }
  await node.want(200, 'POST', '/v1/audit/hash', { token, body: { text: marker('guess') } });
}

before(async () => {
  await node.start();
  id = (await node.createBusyTenant('acme')).id;
  const user = marker('user'), agent = marker('agent');
  const token = await node.token('acme', user, { agent, scope: EVERY_SCOPE, ttl: '1h' });
  tokens.push(token);
  for (let i = 0; i < 12; i++) {
    const body = { text: `${marker('text')} ${marker('word')}`, session_id: marker('session'),
                   agent_id: marker('agentid'), user_id: marker('userid'),
                   metadata: { [marker('key')]: marker('value'), deep: [{ [marker('inner')]: marker('leaf') }] },
                   kind: i % 2 ? 'fact' : 'event', classification: 'internal' };
    const item = await node.want(201, 'POST', '/v1/memories',
                                 { token, body, headers: { 'idempotency-key': marker('idempotency') } });
    markers.push(item.id);
    await node.want(200, 'PATCH', `/v1/memories/${item.id}`, { token, body: { text: marker('updated') } });
    await node.want(200, 'POST', '/v1/memories/search', { token, body: { query: marker('query') } });
    await node.want(200, 'GET', `/v1/memories?user_id=${marker('asked')}`, { token });
    if (i % 3 === 0) await node.want(204, 'DELETE', `/v1/memories/${item.id}`, { token });
  }
  await fillLibrary(token);
  await node.problem(400, 'bad_field', 'POST', '/v1/memories', { token, body: { text: 'x', kind: marker('kind') } });
  await node.problem(400, 'bad_field', 'POST', '/v1/memories', { token, body: { text: 'x', [marker('member')]: 1 } });
  await node.http('GET', `/v1/${marker('path')}`, { token });
  await node.http('GET', `/v1/memories?${marker('parameter')}=1`, { token });
  await node.http('POST', '/v1/memories', { token, body: `{"text":"${marker('broken')}`,
                                           headers: { 'content-type': 'application/json' } });
  await node.http('GET', '/v1/memories', { token: `${token}x`, headers: { 'x-other': marker('header') } });
  const other = await node.token('acme', marker('second'), { scope: EVERY_SCOPE });
  tokens.push(other);
  await node.want(200, 'GET', '/v1/memories', { token: other });
  const secrets = markers.map((text) => [text, Buffer.from(text)]);
  for (const [i, text] of tokens.entries()) {
    // its header is the same for all and public
    assert.ok(headerOf(text).alg);
    const { payload, signature } = tokenParts(text);
    secrets.push([`payload of token ${i}`, Buffer.from(payload.slice(24))],
                 [`signature of token ${i}`, Buffer.from(signature)],
                 [`raw signature of token ${i}`, Buffer.from(signature, 'base64url')]);
  }
  scanner = new Scanner(secrets.filter(([name]) => !/payload/.test(name)));
  // a payload's claims have common parts: whole, not in pieces
  scanner.payloads = tokens.map((text) => tokenParts(text).payload);
  keyScanner = new Scanner(fs.readdirSync(node.keys).filter((name) => /\.(key|seed|kek)$/.test(name))
    .map((name) => {
      const bytes = fs.readFileSync(path.join(node.keys, name));
      return [name, bytes.length > 64 ? bytes.subarray(53) : bytes]; // the sealed part
    }));
});
after(() => node.destroy());

function look(what, bytes) {
  for (const one of [scanner, keyScanner]) {
    const found = one.find(bytes);
    assert.equal(found, null, `${what} holds a piece of ${found?.name} at ${found?.at}`);
  }
  for (const payload of scanner.payloads)
    assert.ok(!bytes.includes(payload), `${what} holds the payload of a token`);
}

function lookEverywhere(when) {
  let count = 0, total = 0;
  for (const file of filesBelow(node.data)) {
    const bytes = fs.readFileSync(file);
    look(`${when}: ${path.relative(node.data, file)}`, bytes);
    count += bytes.length > 0;
    total += bytes.length;
  }
  assert.ok(count >= 5 && total > 100000, `only ${count} files with ${total} bytes were there`);
  look(`${when}: the log`, fs.readFileSync(node.log));
  const processes = descendants(node.pid);
  assert.ok(processes.length >= 5);
  for (const { pid } of [{ pid: node.pid }, ...processes])
    for (const name of ['cmdline', 'environ']) {
      let bytes;
      try {
        bytes = fs.readFileSync(`/proc/${pid}/${name}`);
      } catch {
        continue; // it ended meanwhile
      }
      look(`${when}: ${name} of ${pid}`, bytes);
      if (name === 'environ' && pid !== node.pid) assert.equal(bytes.length, 0, `${pid} has an environment`);
    }
}

function cores() {
  const pattern = fs.readFileSync('/proc/sys/kernel/core_pattern', 'utf8').trim();
  const places = [node.directory, process.cwd(), '/', path.isAbsolute(pattern) ? path.dirname(pattern) : '/'];
  return places.flatMap((place) => fs.readdirSync(place).filter((name) => /^core(\.|$)/.test(name))
    .map((name) => path.join(place, name))).filter((file) => fs.statSync(file).isFile());
}

test('the scanner finds what is planted, in every spelling and by eight bytes', () => {
  const noise = () => crypto.randomBytes(5000);
  for (const text of [markers[3], markers.at(-1)]) {
    const bytes = Buffer.from(text);
    for (const planted of [...spellings(bytes), bytes.subarray(7, 15), bytes.subarray(-8)])
      assert.throws(() => look('planted', Buffer.concat([noise(), planted, noise()])), /holds a piece/);
  }
  const root = fs.readFileSync(path.join(node.keys, 'root.key'));
  assert.throws(() => look('planted', Buffer.concat([noise(), root.subarray(9, 17), noise()])), /root\.key/);
  assert.throws(() => look('planted', Buffer.from(tokens[0])), /holds/);
  const file = path.join(node.data, 'silos', id, 'planted');
  fs.writeFileSync(file, `xx${markers[5]}xx`);
  try {
    assert.throws(() => lookEverywhere('planted'), /planted holds a piece/);
  } finally {
    fs.rmSync(file);
  }
  look('noise', noise());
});

test('awake, nothing lies around', async () => {
  assert.ok(await node.cell(id));
  await sleep(300);
  lookEverywhere('awake');
});

test('what the operator is shown holds nothing of it', async () => {
  for (const words of [['status'], ['status', '--json'], ['tenant', 'list', '--json'], ['tenant', 'show', 'acme', '--json'],
                       ['ledger', 'export'], ['platform-key', '--json']])
    look(words.join(' '), Buffer.from(await node.ok(...words)));
  for (const target of ['/metrics', '/healthz', '/readyz'])
    look(target, Buffer.from((await node.http('GET', target, { base: node.opsUrl })).text));
});

// A fault of its own, not a signal from outside, which the first process of a namespace would not take:
// what its waiting call returns to becomes zeros.
function breakStack(pid) {
  const [stack] = fs.readFileSync(`/proc/${pid}/syscall`, 'utf8').trim().split(' ').slice(-2);
  const memory = fs.openSync(`/proc/${pid}/mem`, 'r+');
  try {
    fs.writeSync(memory, Buffer.alloc(256), 0, 256, Number(stack));
  } finally {
    fs.closeSync(memory);
  }
}

test('a cell that dies of a fault leaves no core, and nothing in the files', async (t) => {
  if (process.getuid() !== 0) return t.skip('needs root to break a process');
  const before_ = cores();
  const { pid } = await node.cell(id);
  const cell = descendants(node.pid).find((process_) => process_.pid === pid);
  breakStack(pid);
  await node.http('GET', '/v1/memories?limit=1', { token: tokens[0], timeout: 5000 }).catch(() => {});
  await eventually('the cell dies', () => !isAlive(cell));
  await eventually('the log says how', () => /"cell\.gone","detail":"tenant \w+, exit 1(39|34)/.test(node.logText()));
  assert.deepEqual(cores(), before_, 'a core file');
  lookEverywhere('after the fault');
  await eventually('it is served again', async () =>
    (await node.http('GET', '/v1/memories?limit=1', { token: tokens[0] })).status === 200);
});

test('after kill -9 of the cell and of the gateway, nothing lies around', async () => {
  await node.want(200, 'GET', '/v1/memories?limit=1', { token: tokens[0] });
  await node.kill((await node.cell(id)).pid);
  await node.kill((await node.service('gateway-0')).pid);
  lookEverywhere('killed');
});

test('parked, nothing lies around', async () => {
  await eventually('the gateway is back', async () => // connections to the one before it may break
    (await node.http('GET', '/v1/memories?limit=1', { token: tokens[0] })).status === 200);
  await park(node, 'acme');
  lookEverywhere('parked');
});
