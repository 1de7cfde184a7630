// A tenant's posture: set at its creation, changed while it runs, in force within a second and after a restart,
// each change in the ledger.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { bulkhead, eventually, nodeOfSuite, sleep } from './harness.mjs';

// What an operator set, without what was used of it.
const withoutUse = ({ usage, cost, ...rest }) => rest;

const IN_FORCE = { within: 1000, every: 20 };

describe('posture', () => {
  const node = nodeOfSuite({ before, after }, { tenants: ['acme', 'calm'] });
  const add = (token, text) => node.http('POST', '/v1/memories', { token, body: { text } });
  const ledger = async () => (await node.ok('ledger', 'export')).trim().split('\n').map((line) => JSON.parse(line))
    .filter(({ entry }) => entry).map(({ entry }) => entry);
  const entriesOf = async (name, event) =>
    (await ledger()).filter((entry) => entry.tenant_name === name && entry.event === event);

  test('create takes the whole posture and show tells it', async () => {
    const made = await node.createTenant('full', '--tier', 'regulated', '--region', 'eu-central', '--retention', '30',
      '--quota', 'requests_per_second=50', '--quota', 'user_requests_per_second=5', '--token-lifetime', '2m');
    assert.deepEqual(
      { tier: made.tier, region: made.region, retention_days: made.retention_days, audit: made.audit,
        clearance_required: made.clearance_required, token_lifetime_seconds: made.token_lifetime_seconds,
        quotas: made.quotas, charter_sequence: made.charter_sequence },
      { tier: 'regulated', region: 'eu-central', retention_days: 30, audit: 'strict', clearance_required: true,
        token_lifetime_seconds: 120, charter_sequence: 1,
        quotas: { requests_per_second: 50, concurrent_requests: 256, bytes_stored: 10 * 2 ** 30,
                  user_requests_per_second: 5, sandboxes: 16, sandbox_memory_mib: 4096 } });
    assert.equal(made.sandbox, 'microvm');
    const { key, ...shown } = await node.tenant('full');
    assert.deepEqual(withoutUse(shown), withoutUse(made));
    assert.match(key.kek_fingerprint, /^[0-9a-f]{64}$/);
    const [entry] = await entriesOf('full', 'tenant.create');
    assert.equal(entry.detail.tier, 'regulated');
    assert.equal(entry.detail.quotas.requests_per_second, 50);
  });

  test('an update says what changed, in show and in one ledger entry', async () => {
    const before_ = await node.tenant('acme');
    const changed = await node.json('tenant', 'update', 'acme', '--retention', '90', '--region', 'eu',
                                    '--quota', 'bytes_stored=0');
    assert.equal(changed.retention_days, 90);
    assert.equal(changed.region, 'eu');
    assert.equal(changed.quotas.bytes_stored, 0);
    assert.equal(changed.charter_sequence, before_.charter_sequence + 1);
    const [entry, ...more] = await entriesOf('acme', 'tenant.update');
    assert.deepEqual(more, []);
    assert.deepEqual(entry.detail.changes, {
      region: { old: null, new: 'eu' }, retention_days: { old: null, new: 90 },
      bytes_stored: { old: 10 * 2 ** 30, new: 0 } });
    assert.equal(entry.operator_uid, process.getuid());
    await node.json('tenant', 'update', 'acme', '--retention', '90');
    assert.equal((await entriesOf('acme', 'tenant.update')).length, 1, 'what changes nothing is no change');
    const back = await node.json('tenant', 'update', 'acme', '--retention', '0', '--region', '');
    assert.deepEqual([back.retention_days, back.region], [null, null]);
  });

  test('what cannot be is refused by name and changes nothing', async () => {
    const before_ = await node.tenant('acme');
    for (const [words, pattern] of [
      [['--tier', 'gold'], /tier/], [['--region', 'E U'], /region/], [['--retention', '-1'], /retention_days/],
      [['--retention', '36501'], /retention_days/], [['--quota', 'colour=1'], /requests_per_second.*bytes_stored/],
      [['--quota', 'bytes_stored=-5'], /bytes_stored/], [['--audit', 'lax'], /audit/],
      [['--sandbox', 'vm'], /sandbox: microvm, gvisor or container/],
      [['--token-lifetime', '25h'], /token_lifetime_seconds/], [['--tier', 'regulated'], /retention/]])
      assert.match(await node.refused('tenant', 'update', 'acme', ...words), pattern, words.join(' '));
    assert.deepEqual(await node.tenant('acme'), before_);
  });

  test('a tier is raised with all that it demands, and never lowered or loosened', async () => {
    await node.createTenant('rising', '--audit', 'strict', '--sandbox', 'container');
    assert.equal((await node.tenant('rising')).sandbox, 'container');
    const risen = await node.json('tenant', 'update', 'rising', '--tier', 'regulated', '--retention', '10');
    assert.deepEqual(
      [risen.tier, risen.audit, risen.clearance_required, risen.token_lifetime_seconds, risen.sandbox],
      ['regulated', 'strict', true, 300, 'microvm']);
    for (const [words, pattern] of [
      [['--tier', 'standard'], /a tier can be raised, not lowered/], [['--audit', 'standard'], /audit/],
      [['--no-require-clearance'], /clearance/], [['--token-lifetime', '10m'], /token_lifetime/],
      [['--token-lifetime', '0'], /token_lifetime/], [['--sandbox', 'gvisor'], /microvm/], [['--retention', '0'], /retention/]])
      assert.match(await node.refused('tenant', 'update', 'rising', ...words), pattern, words.join(' '));
    const tighter = await node.json('tenant', 'update', 'rising', '--token-lifetime', '60');
    assert.equal(tighter.token_lifetime_seconds, 60);
  });

  test('a clearance that is required is asked for within a second, of a cell that is awake', async () => {
    const bare = await node.token('calm', 'ada');
    const cleared = await node.token('calm', 'ada', { clearance: 'internal' });
    assert.equal((await add(bare, 'before')).status, 201);
    await node.ok('tenant', 'update', 'calm', '--require-clearance');
    await eventually('a token without clearance is refused',
                     async () => (await add(bare, 'after')).status === 403, IN_FORCE);
    assert.equal((await add(cleared, 'after')).status, 201);
    await node.ok('tenant', 'update', 'calm', '--no-require-clearance');
    await eventually('and serves again', async () => (await add(bare, 'again')).status === 201, IN_FORCE);
  });

  test('a cap on the life of tokens holds for those that are out already', async () => {
    await node.createTenant('capped');
    const long = await node.token('capped', 'ada', { ttl: '1h' });
    assert.equal((await add(long, 'before')).status, 201);
    await node.ok('tenant', 'update', 'capped', '--token-lifetime', '5m');
    await eventually('it is refused', async () => (await add(long, 'after')).status === 403, IN_FORCE);
    const short = await node.token('capped', 'ada');
    assert.equal((await add(short, 'a default that fits')).status, 201);
    assert.match(await node.refused('token', 'capped', '--user', 'ada', '--ttl', '6m'), /at most 300/);
  });

  test('a quota of requests bites within a second and goes with 0', async () => {
    await node.createTenant('slow');
    const token = await node.token('slow', 'ada');
    const many = async () => {
      const answers = await Promise.all(Array.from({ length: 12 }, () => node.http('GET', '/v1/memories', { token })));
      return answers.map(({ status }) => status);
    };
    assert.ok((await many()).every((status) => status === 200));
    await node.ok('tenant', 'update', 'slow', '--quota', 'requests_per_second=2');
    await eventually('some are too many', async () => (await many()).includes(429), IN_FORCE);
    const answer = (await Promise.all(Array.from({ length: 12 }, () =>
      node.http('GET', '/v1/memories', { token })))).find(({ status }) => status === 429);
    assert.equal(answer.body.code, 'quota_exceeded');
    assert.match(answer.body.detail, /requests_per_second/);
    assert.match(answer.headers.get('retry-after'), /^\d+$/);
    await node.ok('tenant', 'update', 'slow', '--quota', 'requests_per_second=0');
    await eventually('none is', async () => (await many()).every((status) => status === 200), { within: 2500 });
  });

  test('posture and revocations survive a restart and a crash', async () => {
    await node.createTenant('lasting', '--token-lifetime', '10m');
    await node.ok('tenant', 'update', 'lasting', '--retention', '7', '--require-clearance');
    const bare = await node.token('lasting', 'ada');
    const eve = await node.token('lasting', 'eve', { clearance: 'internal' });
    await node.ok('revoke', 'lasting', '--user', 'eve');
    const shown = await node.tenant('lasting');
    for (const end of ['stop', 'crash']) {
      await node[end]();
      await node.start();
      assert.deepEqual({ ...(await node.tenant('lasting')), awake: false, usage: 0 },
                       { ...shown, awake: false, usage: 0 }, end);
      await node.problem(403, 'forbidden_policy', 'GET', '/v1/memories', { token: bare });
      await node.problem(401, 'unauthenticated', 'GET', '/v1/memories', { token: eve });
    }
  });

  test('a revoked user is out within a second, and others stay', async () => {
    await node.createTenant('leaving');
    const token = await node.token('leaving', 'ada');
    const other = await node.token('leaving', 'bob');
    assert.equal((await add(token, 'mine')).status, 201);
    const { revoked: [entry] } = await node.json('revoke', 'leaving', '--user', 'ada');
    assert.equal(entry.user, 'ada');
    await eventually('it is refused', async () => (await add(token, 'no')).status === 401, IN_FORCE);
    assert.equal((await add(other, 'mine')).status, 201);
    // Clocks of issuers may be a minute ahead: what is dated so soon after could be older than it says.
    await node.problem(401, 'unauthenticated', 'GET', '/v1/memories', { token: await node.token('leaving', 'ada') });
  });

  test('a single token is revoked by its file, by standard input and by its jti', async () => {
    await node.createTenant('losing');
    const tokens = [];
    for (let i = 0; i < 4; i++) tokens.push(await node.token('losing', 'ada'));
    for (const token of tokens) assert.equal((await add(token, 'before')).status, 201);
    const file = path.join(node.directory, 'token');
    fs.writeFileSync(file, `${tokens[0]}\n`);
    await node.ok('revoke', 'losing', '--token-file', file);
    const { jti } = JSON.parse(Buffer.from(tokens[1].split('.')[1], 'base64url'));
    await node.ok('revoke', '--platform', '--jti', jti);
    const tampered = tokens[2].split('.');
    tampered[2] = 'AAAA';
    fs.writeFileSync(file, tampered.join('.'));
    await node.ok('revoke', 'losing', '--token-file', file);
    for (const token of tokens.slice(0, 3))
      await eventually('it is refused', async () => (await add(token, 'no')).status === 401, IN_FORCE);
    assert.equal((await add(tokens[3], 'another of the same user')).status, 201);
    assert.equal((await node.json('revoke', 'list', 'losing')).data.length, 2);
    assert.equal((await node.json('revoke', 'list', '--platform')).data.length, 1);
    for (const text of ['', 'x', 'a.b.c', 'e30.e30.AAAA', 'x'.repeat(40000)]) {
      fs.writeFileSync(file, text);
      assert.match(await node.refused('revoke', 'losing', '--token-file', file), /--token-file/);
    }
    await node.refused('revoke', 'losing', '--token-file', '/nonexistent');
  });

  test('no user and no token stands in the ledger', async () => {
    const text = await node.ok('ledger', 'export');
    assert.match(text, /token\.revoke/);
    for (const word of ['"ada"', '"eve"', 'eyJ']) assert.ok(!text.includes(word), word);
    const file = path.join(node.directory, 'ledger');
    fs.writeFileSync(file, text);
    assert.equal((await bulkhead('ledger', 'verify', file)).code, 0);
  });

  test('a killed control or kms in the middle of changes leaves a tenant that works and one more change', async () => {
    const { id } = await node.createTenant('torn');
    const token = await node.token('torn', 'ada');
    assert.equal((await add(token, 'before')).status, 201);
    for (const name of ['control', 'kms', 'control', 'kms']) {
      const changes = Array.from({ length: 6 }, (_, i) =>
        node.cli('tenant', 'update', 'torn', '--retention', String(100 + i)));
      const { pid } = await node.service(name);
      await sleep(20);
      await node.kill(pid);
      for (const { code, stderr } of await Promise.all(changes))
        assert.ok(code === 0 || (code === 1 && /^bulkhead: [^\n]+\n$/.test(stderr)), stderr);
      await eventually('it can be changed again', async () =>
        (await node.cli('tenant', 'update', 'torn', '--retention', '50')).code === 0, { within: 20000 });
      assert.equal((await node.tenant('torn')).retention_days, 50);
      await eventually('it serves', async () => (await add(token, 'after')).status === 201, { within: 20000 });
    }
    const sequences = (await ledger()).filter((entry) => entry.tenant_id === id && entry.detail?.charter_sequence)
      .map((entry) => entry.detail.charter_sequence);
    assert.deepEqual(sequences, sequences.map((_, i) => i + 1), 'one entry for each charter, in order');
    assert.equal((await node.tenant('torn')).charter_sequence, sequences.length);
  });
});
