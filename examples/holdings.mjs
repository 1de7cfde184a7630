// holdings.mjs: the third part of `make demo`: what a tenant holds, documents and objects, who may see which, the proof
// of what was done, keys that change and are withdrawn, a backup, and a restore beside a neighbour that was erased.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { bulkhead, eventually, Node } from '../tests/e2e/harness.mjs';
import { loadDocs } from './load_docs.mjs';

const LIBRARIES = {
  atlas: { docs: '/usr/share/doc/postgresql-doc-15/html', question: 'how does VACUUM reclaim the space of dead rows?' },
  borealis: { docs: '/usr/share/doc/sqlite3', question: 'what does a checkpoint of the write-ahead log do?' },
};
const PAGES = 300, SECRETS = 300;
const OBJECT_BYTES = 64 << 20;
const SCOPE = 'knowledge:read knowledge:write objects:read objects:write audit:read tenant:read memory:write';
const NDJSON = { 'content-type': 'application/x-ndjson' };

const count = (value) => value.toLocaleString('en-US');
const cut = (text, columns = 72) => (text.length > columns ? `${text.slice(0, columns - 1)}…` : text);
const seconds = (since) => `${((performance.now() - since) / 1000).toFixed(1)} s`;
const sha256 = (...parts) => parts.reduce((hash, part) => hash.update(part), crypto.createHash('sha256')).digest();

// The pages of a documentation: {id, title, text}, a Markdown heading before each page's text.
function pagesOf(directory) {
  const pages = new Map();
  for (const { title, text, page } of loadDocs(directory)) {
    if (!pages.has(page)) pages.set(page, { id: page, title: title || page, text: `# ${title || page}` });
    pages.get(page).text += `\n\n${text}`;
  }
  assert.ok(pages.size >= 100, `${directory}: only ${pages.size} pages; run scripts/setup.sh demo`);
  return [...pages.values()].slice(0, PAGES);
}

async function batch(node, token, documents, headers = {}) {
  const body = documents.map((one) => (typeof one === 'string' ? one : JSON.stringify(one))).join('\n');
  const answer = await node.http('POST', '/v1/documents/batch', { token, body, headers: { ...NDJSON, ...headers } });
  assert.equal(answer.status, 200, answer.text);
  return { lines: answer.text.trimEnd().split('\n').map((line) => JSON.parse(line)), headers: answer.headers };
}

const search = (node, token, query, more = {}) =>
  node.http('POST', '/v1/search', { token, body: { query, limit: 5, ...more } });

// The hits as they were sent, without the cursor, which is sealed anew each time.
const hitsOf = ({ text }) => text.slice(0, text.lastIndexOf('"next_cursor"'));
const hits = async (node, token, query) => hitsOf(await search(node, token, query));

async function moveIn(node, fact) {
  for (const [name, library] of Object.entries(LIBRARIES)) {
    library.id = (await node.createBusyTenant(name)).id;
    library.token = await node.token(name, 'librarian', { scope: SCOPE, clearance: 'internal' });
    library.pages = pagesOf(library.docs);
    const began = performance.now();
    const { lines } = await batch(node, library.token, [...library.pages, '{"id":"broken","text":']);
    assert.ok(lines.slice(0, -1).every(({ status }) => status === 201), JSON.stringify(lines.find((l) => l.status !== 201)));
    assert.equal(lines.at(-1).status, 400);
    fact(`${name}: ${library.pages.length} pages in one NDJSON stream, a result a line, in ${seconds(began)}; a broken line fails ` +
         `alone (${lines.at(-1).code})`);
  }
  for (const [name, { token, question }] of Object.entries(LIBRARIES)) {
    const { body } = await search(node, token, question);
    assert.ok(body.data.length > 0);
    fact(`"${question}"`);
    fact(`   ${name.padEnd(9)} ${body.data[0].document_id}: ${cut(body.data[0].snippet.text.replace(/\s+/g, ' '))}`);
  }
}

async function clearances(node, fact) {
  const { token, question, pages } = LIBRARIES.atlas;
  const high = await node.token('atlas', 'director', { scope: SCOPE, clearance: 'restricted' });
  const before = await hits(node, token, question);
  const secrets = Array.from({ length: SECRETS }, (_, i) => (
    { ...pages[i % pages.length], id: `secret-${i}`, classification: 'restricted' }));
  await batch(node, high, secrets);
  assert.equal(await hits(node, token, question), before, 'a hidden document shows');
  const seen = (await search(node, high, question, { limit: 50 })).body.data;
  assert.ok(seen.some(({ classification }) => classification === 'restricted'));
  await node.problem(404, 'not_found', 'GET', '/v1/documents/secret-1', { token });
  await node.want(201, 'PUT', '/v1/documents/secret-1', { token, body: { text: 'A note of the librarian\'s.' } });
  assert.equal((await node.want(200, 'GET', '/v1/documents/secret-1', { token: high })).classification, 'restricted');
  assert.equal((await node.http('DELETE', '/v1/documents/secret-1', { token })).status, 204);
  assert.equal((await node.want(200, 'GET', '/v1/documents/secret-1', { token: high })).classification, 'restricted');
  fact(`${SECRETS} restricted documents about the same come in: the internal caller\'s answer stays the same to the byte:`);
  fact('   hits, scores, order; it may even use the id of a hidden one, and learns nothing. The director finds them all');
  const filtered = await search(node, high, question, { limit: 50, filter: { '$not': { none: { '$exists': true } } } });
  assert.equal(filtered.status, 200, filtered.text);
}

async function objects(node, fact) {
  const { token, id } = LIBRARIES.atlas;
  const marker = Buffer.from('the blueprint of the lighthouse ');
  const bytes = Buffer.alloc(OBJECT_BYTES, marker);
  crypto.randomFillSync(bytes, 0, 1 << 20);
  const target = '/v1/objects/plans/lighthouse.bin';
  let began = performance.now();
  await node.want(201, 'PUT', target, { token, body: bytes, headers: { 'content-type': 'application/octet-stream' } });
  const put = seconds(began);
  began = performance.now();
  const answer = await fetch(node.url + target, { headers: { authorization: `Bearer ${token}` } });
  const back = Buffer.from(await answer.arrayBuffer());
  assert.ok(back.equals(bytes));
  fact(`an object of ${count(OBJECT_BYTES)} bytes: up in ${put}, down in ${seconds(began)}, sealed in chunks of 64 KiB`);
  const range = await fetch(node.url + target, { headers: { authorization: `Bearer ${token}`, range: 'bytes=33554431-33554434' } });
  assert.equal(range.status, 206);
  assert.ok(Buffer.from(await range.arrayBuffer()).equals(bytes.subarray(33554431, 33554435)));
  const etag = answer.headers.get('etag');
  const same = await fetch(node.url + target, { headers: { authorization: `Bearer ${token}`, 'if-none-match': etag } });
  assert.equal(same.status, 304);
  fact(`four bytes of its middle: HTTP 206 ${range.headers.get('content-range')}; with If-None-Match: 304`);
  const directory = path.join(node.data, 'silos', id, 'objects');
  const files = fs.readdirSync(directory).map((name) => path.join(directory, name));
  for (const file of files) assert.ok(!fs.readFileSync(file).includes(marker), 'plaintext on the disk');
  const fd = fs.openSync(files[0], 'r+');
  const byte = Buffer.alloc(1), at = OBJECT_BYTES >> 1;
  fs.readSync(fd, byte, 0, 1, at);
  const flip = () => { byte[0] ^= 1; fs.writeSync(fd, byte, 0, 1, at); };
  flip();
  const cutOff = await fetch(node.url + target, { headers: { authorization: `Bearer ${token}` } })
    .then((one) => one.arrayBuffer()).then(() => 'whole', () => 'cut');
  flip();
  fs.closeSync(fd);
  assert.equal(cutOff, 'cut');
  fact('none of its text on the disk; with one bit flipped there the download breaks off, it never ends as if whole');
}

async function again(node, fact) {
  const { token } = LIBRARIES.atlas;
  const headers = { 'idempotency-key': 'monday-import' };
  const documents = Array.from({ length: 3 }, (_, i) => ({ id: `import-${i}`, text: `Line ${i} of the import.` }));
  const first = await batch(node, token, documents.slice(0, 2), headers); // it "broke off" here
  const whole = await batch(node, token, documents, headers);
  assert.deepEqual(whole.lines.slice(0, 2), first.lines);
  assert.equal(whole.lines[2].status, 201);
  const other = [{ ...documents[0], text: 'another text' }];
  assert.equal((await batch(node, token, other, headers)).lines[0].status, 409);
  fact('an import that broke off is sent whole again with its Idempotency-Key: the first lines are answered as before,');
  fact('   only the rest is done; another body under that key: 409');
}

// Ed25519 public keys as Node.js takes them: the DER frame of RFC 8410 around the 32 bytes.
const publicKey = (raw) => crypto.createPublicKey(
  { key: Buffer.concat([Buffer.from('302a300506032b6570032100', 'hex'), raw]), format: 'der', type: 'spki' });

// RFC 6962 2.1.1: the root from a leaf and its path.
function rootOf(leaf, index, size, hashes) {
  const path_ = [...hashes];
  const walk = (at, width, hash) => {
    if (width === 1) return hash;
    const left = 2 ** Math.floor(Math.log2(width - 1));
    const sibling = path_.pop();
    return at < left ? sha256(Buffer.of(1), walk(at, left, hash), sibling)
                     : sha256(Buffer.of(1), sibling, walk(at - left, width - left, hash));
  };
  return walk(index, size, leaf);
}

async function auditor(node, fact) {
  const token = await node.token('atlas', 'auditor', { scope: 'audit:read' });
  const key = Buffer.from((await node.json('platform-key')).public_key, 'base64');
  const note = (await node.http('GET', '/v1/audit/checkpoint', { token })).text;
  const [signed, signature] = [note.slice(0, note.indexOf('\n\n') + 1), note.slice(note.indexOf('\n\n') + 2)];
  const raw = Buffer.from(signature.trim().split(' ')[2], 'base64').subarray(4);
  assert.ok(crypto.verify(null, Buffer.from(signed), publicKey(key), raw), 'the checkpoint is the platform\'s');
  const [, size, root] = signed.split('\n');
  const { data } = await node.want(200, 'GET', '/v1/audit?action=object.*&limit=1', { token });
  const proof = await node.want(200, 'GET', `/v1/audit/proof?index=${data[0].index}&size=${size}`, { token });
  const leaf = sha256(Buffer.of(0), Buffer.from(data[0].salt, 'base64'), Buffer.from(JSON.stringify(data[0].entry)));
  const hashes = proof.hashes.map((hash) => Buffer.from(hash, 'base64'));
  assert.equal(rootOf(leaf, data[0].index, Number(size), hashes).toString('base64'), root);
  fact(`an auditor with nothing but a token and the platform's public key: entry ${data[0].index} (${data[0].entry.action}) is in`);
  fact(`   the signed log of ${count(Number(size))}: ${hashes.length} hashes lead to its root`);
  const file = (name) => path.join(node.directory, name);
  fs.writeFileSync(file('note'), note);
  await node.ok('audit', 'witness', file('witness'), '--note', file('note'), '--key', key.toString('base64'));
  const log = await node.http('GET', '/v1/audit/export', { token });
  fs.writeFileSync(file('log'), log.text);
  const good = await bulkhead('audit', 'verify', file('log'), '--witness', file('witness'), '--json');
  assert.equal(good.code, 0, good.stderr);
  fact(`its export of ${count(JSON.parse(good.stdout).entries)} entries verifies offline, and against the checkpoint it kept elsewhere`);
  assert.ok(!log.text.includes('lighthouse') && !log.text.includes('VACUUM'), 'content in the log');
  const { hash } = await node.want(200, 'POST', '/v1/audit/hash', { token, body: { text: LIBRARIES.atlas.question } });
  const asked = log.text.split('\n').filter((line) => line.includes(hash)).length;
  assert.ok(asked > 0);
  fact(`the log holds hashes only; who knows a question can find it: that of chapter one was asked ${asked} times`);
}

// The key versions under which the pages of a parked silo are sealed: the last four bytes of each.
function versionsOf(file) {
  const bytes = fs.readFileSync(file), versions = new Set();
  for (let at = 4096; at <= bytes.length; at += 4096)
    if (bytes.subarray(at - 44, at).some((byte) => byte)) versions.add(bytes.readUInt32BE(at - 4));
  return [...versions].sort();
}

async function keys(node, fact) {
  const { token, id, question } = LIBRARIES.atlas;
  const silo = path.join(node.data, 'silos', id);
  const before = await hits(node, token, question);
  const old = fs.readFileSync(path.join(silo, 'silo.keys'));
  const began = performance.now();
  await node.ok('tenant', 'update', 'atlas', '--rotate-dek');
  await eventually('every page is sealed under the new key', async () => {
    assert.equal(await hits(node, token, question), before); // it is served meanwhile
    return !fs.readFileSync(path.join(silo, 'silo.keys')).includes(old.subarray(0, 84));
  }, { within: 60000 });
  const took = seconds(began);
  await node.awaitParked('atlas');
  assert.deepEqual(versionsOf(path.join(silo, 'silo.db')), [2]);
  fact(`a new data key for atlas: ${took} later, under requests, each page is sealed under version 2 and the old key is gone`);
  await node.ok('tenant', 'update', 'atlas', '--rotate-kek');
  assert.equal(await hits(node, token, question), before);
  await node.ok('tenant', 'key', 'atlas', 'disable');
  const from = performance.now();
  const refused = await eventually('it is shut', async () => {
    const answer = await search(node, token, question);
    return answer.status === 503 && answer;
  });
  fact(`its key is withdrawn: HTTP 503 after ${Math.round(performance.now() - from)} ms: ${refused.body.detail}`);
  await node.ok('tenant', 'key', 'atlas', 'enable');
  await eventually('it is back', async () => await hits(node, token, question) === before);
  fact('and given back: it is served again, as before');
}

async function care(node, fact) {
  const { atlas, borealis } = LIBRARIES;
  const backups = path.join(node.directory, 'backups');
  fs.mkdirSync(backups);
  let began = performance.now();
  await node.ok('tenant', 'backup', '--all', '--to', backups);
  await batch(node, atlas.token, [{ id: 'late.html', title: 'Late', text: 'A page that came after the first backup.' }]);
  const first = seconds(began);
  began = performance.now();
  await node.ok('tenant', 'backup', 'atlas', '--to', backups);
  const sizes = fs.readdirSync(path.join(backups, atlas.id)).sort()
    .map((name) => fs.statSync(path.join(backups, atlas.id, name)).size);
  fact(`both backed up while in use, sealed as they lie: ${first}; atlas again after one page more: ${count(sizes[1])} bytes ` +
       `instead of ${count(sizes[0])}`);
  const { report } = await node.json('tenant', 'check', 'atlas');
  assert.equal(report.ok, true);
  fact(`checked: ${count(report.pages)} pages, ${count(report.chunks)} chunks, ${count(report.entries)} entries of the log, all sound`);
  await node.ok('tenant', 'erase', 'borealis');
  await node.refused('tenant', 'restore', 'borealis', '--from', backups);
  fact('borealis is erased; its backup is noise from that moment on: restore refuses it');
  const before = await hits(node, atlas.token, atlas.question);
  await node.ok('tenant', 'pause', 'atlas');
  const silo = path.join(node.data, 'silos', atlas.id);
  for (const name of fs.readdirSync(silo)) fs.rmSync(path.join(silo, name), { recursive: true });
  await node.ok('tenant', 'resume', 'atlas');
  assert.equal((await search(node, atlas.token, atlas.question)).status, 503);
  began = performance.now();
  await node.ok('tenant', 'restore', 'atlas', '--from', backups);
  assert.equal(await hits(node, atlas.token, atlas.question), before);
  await node.want(200, 'GET', '/v1/documents/late.html', { token: atlas.token });
  fact(`atlas loses its disk and is restored in ${seconds(began)}, every page and chunk verified: it answers as before,`);
  fact('   and the platform\'s ledger says that its time was set back, from which state to which');
}

async function usage(node, fact) {
  const { usage: { month } } = await node.want(200, 'GET', '/v1/tenant', { token: LIBRARIES.atlas.token });
  assert.equal(month.cost.currency, 'EUR');
  assert.ok(Number(month.cost.total) > 0);
  fact(`what atlas cost this month: ${month.cost.total} ${month.cost.currency}, from requests, CPU seconds the kernel counted, bytes`);
}

export async function holdings(chapter, fact) {
  const node = new Node({ config: { idle_seconds: 1 } });
  const prices = path.join(node.directory, 'prices.json');
  fs.writeFileSync(prices, `{"currency":"EUR","prices":{"request":0.0000004,"cpu_second":0.00002,
    "awake_second":0.000001,"gib_stored_month":0.023,"gib_in":0.01,"gib_out":0.05}}`);
  node.args = ['--prices', prices];
  try {
    await node.start();
    chapter('A third node: two libraries');
    await moveIn(node, fact);
    chapter('Who may not see it does not see that it is there');
    await clearances(node, fact);
    chapter('Objects');
    await objects(node, fact);
    await again(node, fact);
    chapter('An auditor of the tenant\'s');
    await auditor(node, fact);
    chapter('Keys change, and are withdrawn');
    await keys(node, fact);
    chapter('Backup; one is erased, its neighbour is restored');
    await care(node, fact);
    await usage(node, fact);
    await node.stop();
  } finally {
    await node.destroy();
  }
}
