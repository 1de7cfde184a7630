// `tenant export`: everything of a tenant in open formats, unpacked by the system's own tar.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { eventually, nodeOfSuite, run, sleep } from './harness.mjs';

const SCOPE = 'memory:read memory:write memory:any-user knowledge:read knowledge:write objects:read objects:write tenant:read';
const CLASSES = ['public', 'internal', 'confidential', 'restricted'];

// Keys that would like to leave, to hide, to collide, to be a terminal's commands.
const KEYS = ['..', '../../etc/passwd', '.', '.hidden', 'a', 'a/b', 'a//b', 'a/./b', '..%', '..%2Fx', '%2E%2E/x', '-rf',
              '~000001', 'a\\..\\b', 'gr\u00fc\u00dfe/\u20ac\u{1F600}', ' space ', '"quotes\'$(id)', 'A', 'CON', 'k'.repeat(1000),
              `${'k'.repeat(999)}l`, '/'.repeat(300), '\u00e4'.repeat(500), 'x'.repeat(200), 'x'.repeat(201), 'x'.repeat(100)];

const lines = (directory, kind) => fs.readdirSync(directory).sort().filter((name) => name.startsWith(`${kind}-`))
  .flatMap((name) => fs.readFileSync(path.join(directory, name), 'utf8').trimEnd().split('\n').map((line) => JSON.parse(line)));
const byName = (name) => (left, right) => (left[name] < right[name] ? -1 : 1);

function everyFile(directory) {
  return fs.readdirSync(directory, { withFileTypes: true }).flatMap((entry) => {
    const name = path.join(directory, entry.name);
    if (entry.isDirectory()) return everyFile(name);
    assert.ok(entry.isFile(), `${name} is a file`);
    return [name];
  });
}

describe('tenant export', () => {
  const node = nodeOfSuite({ before, after }, {});
  let token, id, out;
  const memories = new Map(), documents = [], objects = [];
  let unpacked = 0;

  async function unpack(archive) {
    const outer = path.join(node.directory, `unpacked-${++unpacked}`);
    const inner = path.join(outer, 'a', 'b', 'c');
    fs.mkdirSync(inner, { recursive: true });
    const done = await run('tar', ['-xf', archive, '-C', inner]);
    assert.deepEqual([done.code, done.stderr], [0, ''], 'tar finds nothing to say');
    assert.deepEqual(fs.readdirSync(outer), ['a']);
    assert.deepEqual(fs.readdirSync(path.join(outer, 'a')), ['b']);
    assert.deepEqual(fs.readdirSync(path.join(outer, 'a', 'b')), ['c']);
    return inner;
  }

  before(async () => {
    out = path.join(node.directory, 'acme.tar');
    id = (await node.createBusyTenant('acme')).id;
    await node.createBusyTenant('globex');
    await node.want(201, 'POST', '/v1/memories', { token: await node.token('globex'), body: { text: 'a secret of globex' } });
    token = await node.token('acme', 'ada', { scope: SCOPE, clearance: 'restricted', ttl: '1h' });
    for (let i = 0; i < 60; i++) {
      const memory = await node.want(201, 'POST', '/v1/memories', { token, body: {
        text: `memory ${i}\nwith "lines" \u2028 ${'m'.repeat(i === 7 ? 60000 : 10)}`, kind: i % 2 ? 'fact' : 'event',
        user_id: `user ${i % 5}`, classification: CLASSES[i % 4], metadata: { i, deep: { list: [1, 2.5, null] } } } });
      memories.set(memory.id, { ...memory, history: [] });
    }
    // JSON over several lines is stored as it came
    const spread = await node.want(201, 'POST', '/v1/memories', { token,
      headers: { 'content-type': 'application/json' }, body: '{"text": "spread",\n "metadata": {\r\n  "a":\n 1}\n}' });
    memories.set(spread.id, { ...spread, history: [] });
    for (const memory of [...memories.values()].slice(0, 10))
      for (let version = 0; version < 3; version++) {
        const now = memories.get(memory.id);
        const { text, metadata, updated_at } = now;
        const next = await node.want(200, 'PATCH', `/v1/memories/${memory.id}`,
                                     { token, body: { text: `${memory.text} v${version}` } });
        memories.set(memory.id, { ...next, history: [{ version: now.version, text, metadata, updated_at }, ...now.history] });
      }
    for (let i = 0; i < 12; i++)
      for (const classification of CLASSES.slice(0, 1 + (i % 4)).reverse()) { // from above: a put replaces what it covers
        const name = i === 3 ? 'a.doc:\u00e9' : `doc-${i}`;
        const body = { title: `title ${i}`, classification, metadata: { i },
                       text: `# ${classification}\n\n${`paragraph ${i} of words. `.repeat(i * 40)}` };
        await upper(classification, async (use) => {
          const made = await node.want(201, 'PUT', `/v1/documents/${encodeURIComponent(name)}`, { token: use, body });
          documents.push({ ...made, text: body.text });
        });
      }
    const taken = [];
    for (const key of KEYS)
      if (await putObject(key, 'internal', Buffer.from(`bytes of ${key}`))) taken.push(key);
    for (const key of ['a', 'a/b', '..%', '-rf', '~000001', 'k'.repeat(1000), 'A']) assert.ok(taken.includes(key), key);
    for (const classification of [...CLASSES].reverse())
      assert.ok(await putObject('every', classification, Buffer.from(classification)));
    assert.ok(await putObject('empty', 'public', Buffer.alloc(0)));
    assert.ok(await putObject('large', 'restricted', crypto.randomBytes(3000001)));
  });

  // A token of just that clearance, so that what is above it stays beside what is put.
  async function upper(clearance, use) {
    return use(await node.token('acme', 'ada', { scope: SCOPE, clearance, ttl: '1h' }));
  }

  // Not by fetch, which would make "%2E%2E" a step upwards itself.
  function send(target, use, bytes) {
    return new Promise((resolve, reject) => {
      const request = http.request({ host: '127.0.0.1', port: node.port, method: 'PUT', path: target, headers: {
        authorization: `Bearer ${use}`, 'content-type': 'application/x-thing', 'content-length': bytes.length } }, (answer) => {
        const parts = [];
        answer.on('data', (part) => parts.push(part));
        answer.on('end', () => resolve({ status: answer.statusCode, text: Buffer.concat(parts).toString() }));
      });
      request.on('error', reject);
      request.end(bytes);
    });
  }

  // True when there is such a key; some of the hostile ones no path can name.
  async function putObject(key, classification, bytes) {
    return upper(classification, async (use) => {
      const target = `/v1/objects/${encodeURIComponent(key).replaceAll('%2F', '/').replaceAll('.', '%2E')}?classification=${classification}`;
      const answer = await send(target, use, bytes);
      if (answer.status === 201) objects.push({ ...JSON.parse(answer.text), bytes_there: bytes });
      else assert.ok(answer.status === 400 || answer.status === 404, `${target}: ${answer.status} ${answer.text}`);
      return answer.status === 201;
    });
  }

  test('all of it comes out as it went in', async () => {
    const report = await node.json('tenant', 'export', 'acme', '-o', out);
    assert.equal(report.damaged, 0);
    assert.equal(fs.statSync(out).mode & 0o777, 0o600, 'nobody else may read it');
    assert.equal(fs.statSync(out).size, report.bytes);
    const directory = await unpack(out);
    const tenant = JSON.parse(fs.readFileSync(path.join(directory, 'tenant.json'), 'utf8'));
    assert.equal(tenant.id, id);
    assert.equal(tenant.usage.memories, memories.size);
    assert.match(fs.readFileSync(path.join(directory, 'README.txt'), 'utf8'), /^bulkhead-tenant\/1\ntenant acme \(/);
    assert.deepEqual(lines(directory, 'memories').sort(byName('id')), [...memories.values()].sort(byName('id')));
    const name = (one) => `${one.classification} ${one.id ?? one.key}`;
    const order = (left, right) => (name(left) < name(right) ? -1 : 1);
    assert.deepEqual(lines(directory, 'documents').sort(order), documents.sort(order));
    const listed = lines(directory, 'objects').sort(order);
    assert.deepEqual(listed.map(({ file, ...rest }) => rest), objects.sort(order).map(({ bytes_there, ...rest }) => rest));
    const files = new Set();
    listed.forEach((line, i) => {
      assert.ok(line.file.startsWith(`objects/${line.classification}/`), line.file);
      assert.match(line.file, /^objects\/[a-z]+\/[A-Za-z0-9_%~][A-Za-z0-9_%.-]*$/);
      assert.deepEqual(fs.readFileSync(path.join(directory, line.file)), objects[i].bytes_there, line.key);
      files.add(path.join(directory, line.file));
    });
    assert.equal(files.size, listed.length, 'no two have one file');
    const others = everyFile(directory).filter((file) => !files.has(file)).map((file) => path.relative(directory, file)).sort();
    assert.deepEqual(others, ['README.txt', 'audit.ndjson', 'damaged.ndjson', 'documents-0001.ndjson', 'memories-0001.ndjson',
                              'objects-0001.ndjson', 'tenant.json']);
    assert.equal(fs.statSync(path.join(directory, 'damaged.ndjson')).size, 0);
    for (const file of everyFile(directory))
      assert.ok(!fs.readFileSync(file).includes('secret of globex'), file);
  });

  test('the audit log in it is verified, and says that all of it left', async () => {
    const directory = await unpack(out);
    const audit = path.join(directory, 'audit.ndjson');
    const key = (await node.ok('platform-key')).trim();
    await node.ok('audit', 'verify', audit, '--key', key);
    const entries = fs.readFileSync(audit, 'utf8').trimEnd().split('\n').slice(1, -1).map((line) => JSON.parse(line).entry);
    assert.equal(entries.filter((entry) => entry.action === 'tenant.exported').length, 1, 'before the first byte');
    const bytes = fs.readFileSync(audit);
    bytes[Math.floor(bytes.length / 2)] ^= 1;
    fs.writeFileSync(audit, bytes);
    await node.refused('audit', 'verify', audit, '--key', key);
    const ledger = path.join(node.directory, 'ledger');
    await node.ok('ledger', 'export', '-o', ledger);
    const exported = fs.readFileSync(ledger, 'utf8').trimEnd().split('\n').slice(1, -1).map((line) => JSON.parse(line).entry)
      .filter((entry) => entry.event === 'tenant.export');
    assert.deepEqual(exported.map((entry) => entry.tenant_id), [id]);
  });

  test('to a pipe it goes as well, and what is there is not overwritten', async () => {
    const archive = path.join(node.directory, 'piped.tar');
    const to = fs.openSync(archive, 'w');
    const child = spawn(node.program, ['tenant', 'export', 'acme', '--data', node.data], { stdio: ['ignore', to, 'inherit'] });
    const code = await new Promise((resolve) => child.on('exit', resolve));
    fs.closeSync(to);
    assert.equal(code, 0);
    assert.equal(lines(await unpack(archive), 'memories').length, memories.size);
    const size = fs.statSync(out).size;
    assert.match(await node.refused('tenant', 'export', 'acme', '-o', out), /is there already/);
    assert.equal(fs.statSync(out).size, size);
  });

  test('while it runs the tenant reads, writes and deletes; what stays is in it once', async () => {
    const archive = path.join(node.directory, 'busy.tar');
    for (let i = 0; i < 40; i++) await putObject(`busy ${i}`, 'internal', crypto.randomBytes(200000));
    const stays = objects.filter((one) => !one.key.startsWith('busy'));
    // A reader that takes little at a time: the export lasts as long as the changes do.
    const child = spawn(node.program, ['tenant', 'export', 'acme', '--data', node.data], { stdio: ['ignore', 'pipe', 'inherit'] });
    const pieces = [];
    let changing = true;
    const reading = (async () => {
      for await (const piece of child.stdout) {
        pieces.push(piece);
        if (changing) await sleep(2);
      }
    })();
    const ended = new Promise((resolve) => child.on('exit', resolve));
    for (let i = 0; i < 40; i += 2) {
      await node.want(204, 'DELETE', `/v1/objects/busy%20${i}`, { token });
      const [first] = memories.keys();
      await node.want(200, 'PATCH', `/v1/memories/${first}`, { token, body: { text: `busy ${i}` } });
      await node.want(200, 'PUT', '/v1/objects/large?classification=restricted', {
        token, body: crypto.randomBytes(300000), headers: { 'content-type': 'application/x-thing' } });
    }
    changing = false;
    await reading;
    assert.equal(await ended, 0);
    fs.writeFileSync(archive, Buffer.concat(pieces));
    const directory = await unpack(archive);
    const names = lines(directory, 'objects').map((one) => `${one.classification} ${one.key}`);
    assert.equal(new Set(names).size, names.length, 'none twice');
    for (const one of stays) assert.ok(names.includes(`${one.classification} ${one.key}`), one.key);
    for (let i = 1; i < 40; i += 2) assert.ok(names.includes(`internal busy ${i}`));
    for (const one of lines(directory, 'objects'))
      assert.equal(fs.statSync(path.join(directory, one.file)).size, one.bytes, one.key);
    assert.deepEqual(lines(directory, 'memories').map((one) => one.id).sort(), [...memories.keys()].sort());
  });

  test('a reader that is gone ends its export, and nothing else', async () => {
    const child = spawn(node.program, ['tenant', 'export', 'acme', '--data', node.data], { stdio: ['ignore', 'pipe', 'inherit'] });
    await new Promise((resolve) => child.stdout.once('data', resolve));
    child.kill('SIGKILL');
    await eventually('the cell sees that it is gone', () => node.logText().includes('export.dropped'));
    await node.want(200, 'GET', '/v1/tenant', { token });
    const archive = path.join(node.directory, 'again.tar');
    await node.ok('tenant', 'export', 'acme', '-o', archive);
    assert.equal(lines(await unpack(archive), 'memories').length, memories.size);
  });

  test('an archive without its end is refused, and leaves no file', async () => {
    const archive = path.join(node.directory, 'cut.tar');
    await putObject('endless', 'internal', crypto.randomBytes(64 * 1024 * 1024));
    const exporting = node.cli('tenant', 'export', 'acme', '-o', archive);
    await eventually('it has begun', () => fs.existsSync(`${archive}.tmp`) && fs.statSync(`${archive}.tmp`).size > 0, { every: 1 });
    await node.kill((await node.cell(id)).pid);
    const { code, stderr } = await exporting;
    assert.equal(code, 1);
    assert.match(stderr, /^bulkhead: the export was cut short[^\n]*\n$/);
    assert.ok(!fs.existsSync(archive) && !fs.existsSync(`${archive}.tmp`));
    await node.want(204, 'DELETE', '/v1/objects/endless', { token });
  });

  test('an empty tenant has an archive, too', async () => {
    const archive = path.join(node.directory, 'empty.tar');
    await node.createTenant('empty');
    await node.ok('tenant', 'export', 'empty', '-o', archive);
    assert.deepEqual(fs.readdirSync(await unpack(archive)).sort(), ['README.txt', 'audit.ndjson', 'damaged.ndjson', 'tenant.json']);
  });

  test('a damaged object is left out, named and told; the rest is there', async () => {
    const archive = path.join(node.directory, 'damaged.tar');
    const directory = path.join(node.data, 'silos', id, 'objects');
    const sealed = fs.readdirSync(directory).filter((name) => fs.statSync(path.join(directory, name)).size === 300000 + 5 * 16);
    assert.equal(sealed.length, 1);
    const file = path.join(directory, sealed[0]);
    const bytes = fs.readFileSync(file);
    bytes[290000] ^= 1; // in its last chunk
    fs.writeFileSync(file, bytes);
    const { code, stderr } = await node.cli('tenant', 'export', 'acme', '-o', archive);
    assert.equal(code, 1);
    assert.match(stderr, /^bulkhead: acme: 1 damaged items are missing: damaged\.ndjson names them\n$/);
    const unpackedTo = await unpack(archive);
    const [damaged] = fs.readFileSync(path.join(unpackedTo, 'damaged.ndjson'), 'utf8').trimEnd().split('\n').map((line) => JSON.parse(line));
    assert.deepEqual([damaged.kind, damaged.classification], ['object', 'restricted']);
    const reader = await node.token('acme', 'auditor', { scope: 'audit:read' });
    const { hash } = await node.want(200, 'POST', '/v1/audit/hash', { token: reader, body: { text: 'large' } });
    assert.equal(damaged.resource_hash, hash);
    const keys = lines(unpackedTo, 'objects').map((one) => one.key);
    assert.ok(!keys.includes('large') && keys.includes('every') && !fs.existsSync(path.join(unpackedTo, 'objects/restricted/large')));
  });

  test('paused, with its key withdrawn, unknown: refused, and the ledger says nothing of an export', async () => {
    const archive = path.join(node.directory, 'refused.tar');
    const count = async () => {
      const ledger = path.join(node.directory, 'ledger-again');
      await node.ok('ledger', 'export', '-o', ledger);
      return fs.readFileSync(ledger, 'utf8').split('"tenant.export"').length;
    };
    const before_ = await count();
    await node.ok('tenant', 'key', 'acme', 'disable');
    assert.match(await node.refused('tenant', 'export', 'acme', '-o', archive), /key is withdrawn/);
    await node.ok('tenant', 'key', 'acme', 'enable');
    await node.ok('tenant', 'pause', 'acme');
    assert.match(await node.refused('tenant', 'export', 'acme', '-o', archive), /not active/);
    await node.ok('tenant', 'resume', 'acme');
    await node.refused('tenant', 'export', 'nobody', '-o', archive);
    assert.ok(!fs.existsSync(archive) && !fs.existsSync(`${archive}.tmp`));
    assert.equal(await count(), before_);
    assert.equal((await node.cli('tenant', 'export')).code, 2);
    assert.equal((await node.cli('tenant', 'export', 'acme', '--what')).code, 2);
  });
});
