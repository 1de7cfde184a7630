// Logs that show every change made to them: exports, verified offline by the file alone.
import assert from 'node:assert/strict';
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

  test('exports of what is not there are refused', async () => {
    await node.refused('audit', 'export', 'nobody');
    await node.refused('audit', 'tail', 'nobody');
  });
});
