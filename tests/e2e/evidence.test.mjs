// Logs that show every change made to them: exports, verified offline by the file alone.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { bulkhead, nodeOfSuite, sleep } from './harness.mjs';

describe('evidence', () => {
  const node = nodeOfSuite({ before, after }, { tenants: ['acme'] });
  const marker = 'the-secret-word-is-xylophone';
  const file = (name) => path.join(node.directory, name);
  let lines, first;

  const verify = async (text, ...options) => {
    fs.writeFileSync(file('candidate'), text);
    return bulkhead('audit', 'verify', file('candidate'), ...options);
  };
  const rejected = async (list, what, ...options) => {
    const { code, stderr } = await verify(list.join(''), ...options);
    assert.equal(code, 1, `${what} was not noticed`);
    assert.match(stderr, /^bulkhead: [^\n]+\n$/, what);
    return stderr;
  };
  const exported = async (name) => {
    await node.ok('audit', 'export', 'acme', '-o', file(name));
    return fs.readFileSync(file(name), 'utf8').match(/[^\n]*\n/g);
  };
  const checkpointOf = (list) => JSON.parse(list.at(-1)).checkpoint;

  before(async () => {
    const token = await node.token('acme', 'ada', { agent: 'helper-1' });
    const reader = await node.token('acme', 'ada', { scope: 'memory:read' });
    const { id } = await node.want(201, 'POST', '/v1/memories', { token, body: { text: marker } });
    await node.want(200, 'GET', `/v1/memories/${id}`, { token });
    await node.want(200, 'POST', '/v1/memories/search', { token, body: { query: 'xylophone' } });
    await node.want(200, 'PATCH', `/v1/memories/${id}`, { token, body: { text: `${marker}-2` } });
    await node.problem(404, 'not_found', 'GET', '/v1/memories/01ARZ3NDEKTSV4RRFFQ69G5FAV', { token });
    await node.want(204, 'DELETE', `/v1/memories/${id}`, { token });
    await node.problem(403, 'forbidden_scope', 'POST', '/v1/memories', { token: reader, body: { text: 'a' } });
    first = await exported('first');
    for (let i = 0; i < 5; i++) await node.want(200, 'GET', '/v1/memories', { token });
    lines = await exported('second');
  });

  test('an export has one entry for each thing that happened, in order, and no content', () => {
    const entries = first.slice(1, -1).map((line) => JSON.parse(line).entry);
    const done = entries.filter(({ subject }) => subject === 'ada').map(({ action, decision }) => `${action} ${decision}`);
    for (const wanted of ['memory.add allow', 'memory.read allow', 'memory.search allow', 'memory.update allow',
                          'memory.delete allow'])
      assert.ok(done.includes(wanted), `${wanted} is missing in ${done}`);
    entries.forEach(({ index }, at) => assert.equal(index, at));
    const written = entries.find(({ action }) => action === 'memory.add');
    assert.equal(written.agent, 'helper-1');
    assert.equal(written.tenant_id, node.tenants.acme.id);
    assert.equal(written.code, 'ok');
    assert.match(written.trace_id, /^[0-9a-f]{32}$/);
    assert.ok(!lines.join('').includes('xylophone'), 'hashes and counts only');
  });

  test('an export verifies, with the platform\'s key demanded and from standard input, too', async () => {
    const key = (await node.ok('platform-key')).trim();
    const good = await verify(lines.join(''));
    assert.equal(good.code, 0, good.stderr);
    assert.match(good.stdout, new RegExp(`valid: ${lines.length - 2} entries`));
    assert.equal((await verify(lines.join(''), '--key', key)).code, 0);
    const other = Buffer.alloc(32, 3).toString('base64');
    assert.match(await rejected(lines, 'another key', '--key', other), /key/);
    const json = await verify(lines.join(''), '--json');
    assert.equal(JSON.parse(json.stdout).entries, lines.length - 2);
  });

  test('a changed, removed, repeated, moved or added line is found', async () => {
    const middle = Math.floor(lines.length / 2);
    const changed = (at, from, to) => lines.map((line, i) => {
      if (i !== at) return line;
      assert.ok(line.includes(from), `${from} in ${line}`);
      return line.replace(from, to);
    });
    await rejected(changed(1, '"subject":"ada"', '"subject":"eve"'), 'a changed subject');
    await rejected(changed(middle, '"decision":"allow"', '"decision":"deny"'), 'a changed decision');
    await rejected(changed(1, /"salt":"./.exec(lines[1])[0], lines[1].includes('"salt":"A') ? '"salt":"B' : '"salt":"A'),
                   'a changed salt');
    await rejected(lines.filter((_, i) => i !== middle), 'a removed entry');
    await rejected(lines.flatMap((line, i) => (i === middle ? [line, line] : [line])), 'a repeated entry');
    const moved = [...lines];
    [moved[1], moved[2]] = [moved[2], moved[1]];
    await rejected(moved, 'two entries that changed places');
    await rejected([...lines.slice(0, -1), lines[1], lines.at(-1)], 'an added entry');
    await rejected(lines.slice(0, -1), 'a missing checkpoint');
    await rejected(lines.slice(1), 'a missing header');
    await rejected([...lines, lines.at(-1)], 'a line after the end');
    await rejected([lines.join('').slice(0, -40)], 'a cut end');
    await rejected([''], 'an empty file');
  });

  test('a cut tail is found with a checkpoint kept elsewhere', async () => {
    const shorter = first.join('');
    assert.equal((await verify(shorter)).code, 0, 'by itself an older export is whole');
    fs.writeFileSync(file('new.checkpoint'), checkpointOf(lines));
    fs.writeFileSync(file('old.checkpoint'), checkpointOf(first));
    const continued = await verify(lines.join(''), '--checkpoint', file('old.checkpoint'));
    assert.equal(continued.code, 0, continued.stderr);
    assert.match(continued.stdout, /continues the checkpoint/);
    await rejected(first, 'a tail cut before the checkpoint', '--checkpoint', file('new.checkpoint'));
    fs.writeFileSync(file('other.checkpoint'), checkpointOf((await node.ok('ledger', 'export')).match(/[^\n]*\n/g)));
    await rejected(lines, 'another log\'s checkpoint', '--checkpoint', file('other.checkpoint'));
  });

  test('a checkpoint is a signed note with the tenant\'s own origin', () => {
    const [origin, size, root] = checkpointOf(lines).split('\n');
    assert.equal(origin, `bulkhead/silo/${node.tenants.acme.id}`);
    assert.equal(Number(size), lines.length - 2);
    assert.equal(Buffer.from(root, 'base64').length, 32);
  });

  test('the platform\'s own ledger tells the life of tenants and verifies', async () => {
    await node.createTenant('brief');
    await node.ok('tenant', 'pause', 'brief');
    await node.ok('tenant', 'resume', 'brief');
    await node.ok('tenant', 'erase', 'brief');
    await node.ok('ledger', 'export', '-o', file('ledger'));
    const text = fs.readFileSync(file('ledger'), 'utf8');
    const events = text.trim().split('\n').slice(1, -1).map((line) => JSON.parse(line).entry)
      .filter(({ tenant_name: name }) => name === 'brief').map(({ event }) => event);
    assert.deepEqual(events, ['tenant.create', 'tenant.pause', 'tenant.resume', 'tenant.erase']);
    const good = await bulkhead('ledger', 'verify', file('ledger'));
    assert.equal(good.code, 0, good.stderr);
    fs.writeFileSync(file('ledger'), text.replace('"tenant.pause"', '"tenant.peace"'));
    assert.equal((await bulkhead('ledger', 'verify', file('ledger'))).code, 1);
  });

  test('denied calls that can be tied to no tenant are counted in the ledger, hashed', async () => {
    for (let i = 0; i < 3; i++) await node.problem(401, 'unauthenticated', 'GET', '/v1/memories', { token: 'x.y.z' });
    await sleep(1500); // a gateway tells of them once a second
    await node.stop(); // an entry a minute at most; a stop leaves none behind
    await node.start();
    const ledger = await node.ok('ledger', 'export');
    const denied = ledger.split('\n').filter((line) => line.includes('"requests.denied"'))
      .map((line) => JSON.parse(line).entry.detail);
    assert.equal(denied.length, 1, ledger);
    assert.ok(Object.values(denied[0].by_reason).includes(3), JSON.stringify(denied));
    assert.match(denied[0].client_sample, /^[0-9a-f]{64}$/);
    assert.ok(!ledger.includes('127.0.0.1'), 'no address in clear');
  });

  test('audit tail shows the last entries', async () => {
    const tail = (await node.ok('audit', 'tail', 'acme')).trim().split('\n');
    assert.ok(tail.length >= 5 && tail.length <= 20);
    for (const line of tail) assert.equal(typeof JSON.parse(line).entry.action, 'string');
  });

  // What an auditor has: a token, the platform's public key, and this code. Nothing of the project's.
  const sha = (...parts) => crypto.createHash('sha256').update(Buffer.concat(parts)).digest();
  const nodeHash = (left, right) => sha(Buffer.of(1), left, right);

  function openNote(note, key) {
    const [text, signature] = note.split('\n\n');
    const [origin, size, root] = text.split('\n');
    const [, name, tagged] = /^\u2014 (\S+) (\S+)\n$/.exec(signature);
    const id = sha(Buffer.from(`${name}\n\x01`), key).subarray(0, 4);
    const bytes = Buffer.from(tagged, 'base64');
    assert.deepEqual(bytes.subarray(0, 4), id);
    const der = Buffer.concat([Buffer.from('302a300506032b6570032100', 'hex'), key]);
    const publicKey = crypto.createPublicKey({ key: der, format: 'der', type: 'spki' });
    assert.ok(crypto.verify(null, Buffer.from(`${text}\n`), publicKey, bytes.subarray(4)), 'the signature holds');
    return { origin, size: Number(size), root };
  }

  // RFC 9162, 2.1.3.2.
  function rootOf(leaf, index, size, hashes) {
    let [at, last, hash] = [index, size - 1, leaf];
    for (const sibling of hashes.map((one) => Buffer.from(one, 'base64'))) {
      assert.ok(last > 0, 'the proof is not too long');
      if (at % 2 === 1 || at === last) {
        hash = nodeHash(sibling, hash);
        while (at % 2 === 0 && at !== 0) [at, last] = [at >> 1, last >> 1];
      } else {
        hash = nodeHash(hash, sibling);
      }
      [at, last] = [at >> 1, last >> 1];
    }
    assert.equal(last, 0, 'the proof is not too short');
    return hash.toString('base64');
  }

  // The bytes of an entry as they stand in an answer: the hash covers them, not what they mean.
  const rawEntry = (text) => Buffer.from(/"entry":(\{.*\})\}$/s.exec(text)[1]);

  test('an auditor proves over HTTP, with its token and the public key alone, that entries are in the log', async () => {
    const key = Buffer.from((await node.ok('platform-key')).trim(), 'base64');
    const token = await node.token('acme', 'auditor', { scope: 'audit:read' });
    const user = await node.token('acme', 'ada', {});
    await node.want(200, 'POST', '/v1/memories/search', { token: user, body: { query: 'who is it' } });
    const answer = await node.http('GET', '/v1/audit/checkpoint', { token });
    assert.equal(answer.type, 'text/plain; charset=utf-8');
    const checkpoint = openNote(answer.text, key);
    assert.equal(checkpoint.origin, `bulkhead/silo/${node.tenants.acme.id}`);
    const { hash } = await node.want(200, 'POST', '/v1/audit/hash', { token, body: { text: 'who is it' } });
    const { data } = await node.want(200, 'GET', '/v1/audit?action=memory.search&limit=500', { token });
    const mine = data.find(({ entry }) => entry.prompt_hash === hash);
    assert.ok(mine, 'the search is found by the hash of its query');
    assert.ok(mine.index < checkpoint.size, 'what was answered before is covered');
    for (const index of [0, 1, mine.index, checkpoint.size - 1]) {
      const proof = await node.http('GET', `/v1/audit/proof?index=${index}&size=${checkpoint.size}`, { token });
      assert.equal(proof.status, 200, proof.text);
      const leaf = sha(Buffer.of(0), Buffer.from(proof.body.salt, 'base64'), rawEntry(proof.text));
      assert.equal(leaf.toString('base64'), proof.body.leaf_hash);
      assert.equal(rootOf(leaf, index, checkpoint.size, proof.body.hashes), checkpoint.root);
      const changed = Buffer.from(leaf);
      changed[0] ^= 1;
      assert.notEqual(rootOf(changed, index, checkpoint.size, proof.body.hashes), checkpoint.root);
    }
    await node.problem(400, 'bad_field', 'GET', '/v1/audit/proof?index=999999', { token });
    await node.problem(403, 'forbidden_scope', 'GET', '/v1/audit', {
      token: await node.token('acme', 'ada', { scope: 'memory:read' }) });
  });

  test('checkpoints kept by a witness find a cut tail', async () => {
    const key = (await node.ok('platform-key')).trim();
    const token = await node.token('acme', 'auditor', { scope: 'audit:read' });
    fs.writeFileSync(file('note'), (await node.http('GET', '/v1/audit/checkpoint', { token })).text);
    const early = (await node.http('GET', '/v1/audit/export', { token })).text;
    const kept = await bulkhead('audit', 'witness', file('witness'), '--note', file('note'), '--key', key);
    assert.equal(kept.code, 0, kept.stderr);
    assert.match((await bulkhead('audit', 'witness', file('witness'), '--note', file('note'))).stdout, /already/);
    await node.want(201, 'POST', '/v1/memories', { token: await node.token('acme', 'ada'), body: { text: 'later' } });
    await node.ok('audit', 'witness', file('witness'), '--tenant', 'acme');
    const late = (await node.http('GET', '/v1/audit/export', { token })).text;
    const good = await verify(late, '--witness', file('witness'), '--key', key);
    assert.equal(good.code, 0, good.stderr);
    assert.match(good.stdout, /continues the 2 checkpoints/);
    assert.equal((await verify(early)).code, 0);
    assert.match(await rejected([early], 'a cut tail', '--witness', file('witness')), /line 3/);
    const before = fs.readFileSync(file('witness'), 'utf8');
    const shrunk = await bulkhead('audit', 'witness', file('witness'), '--note', file('note'));
    assert.equal(shrunk.code, 1);
    assert.match(shrunk.stderr, /shrunk/);
    assert.equal(fs.readFileSync(file('witness'), 'utf8'), before);
    fs.writeFileSync(file('witness'), before.replace('checkpoint":"bulkhead', 'checkpoint":"bulkhaed'));
    assert.match((await bulkhead('audit', 'witness', file('witness'), '--note', file('note'))).stderr, /line 2/);
  });

  test('exports of what is not there are refused', async () => {
    await node.refused('audit', 'export', 'nobody');
    await node.refused('audit', 'tail', 'nobody');
  });
});
