// Sandboxes as an operator uses them, in whatever tiers work on this machine: each test asks `status` which those are,
// and names what it leaves out. What is refused, and what the ledger says of it, is tested everywhere.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { build, eventually, nodeOfSuite, run } from './harness.mjs';

const STRENGTH = ['container', 'gvisor', 'microvm'];
const BUILD_MS = 300000;

describe('sandboxes', () => {
  const node = nodeOfSuite({ before, after }, { tenants: ['acme', 'other'] });
  let imageMissing;
  let tiers = [];

  const ledger = async () => (await node.ok('ledger', 'export')).trim().split('\n').map((line) => JSON.parse(line))
    .filter(({ entry }) => entry).map(({ entry }) => entry);
  const entriesOf = async (event) => (await ledger()).filter((entry) => entry.event === event);
  const alive = async () => (await node.json('sandbox', 'ps')).data;
  const strongest = () => tiers.find(({ works }) => works)?.tier;

  // {code, signal, stdout, stderr} of `sandbox run`, in bytes; input: a Buffer. during: called with the process.
  function sandbox(options, command, { input, during } = {}) {
    return new Promise((resolve, reject) => {
      const child = spawn(path.join(build, 'bulkhead'),
                          ['sandbox', 'run', '--data', node.data, ...options, '--', ...command]);
      const out = [], err = [];
      child.stdout.on('data', (piece) => out.push(piece));
      child.stderr.on('data', (piece) => err.push(piece));
      child.stdin.on('error', () => {});
      child.on('error', reject);
      child.on('close', (code, signal) => resolve({
        code, signal, bytes: Buffer.concat(out), stdout: Buffer.concat(out).toString('utf8'),
        stderr: Buffer.concat(err).toString('utf8') }));
      if (during) during(child);
      else child.stdin.end(input ?? '');
    });
  }

  const shell = (options, text, more) => sandbox(options, ['/bin/sh', '-c', text], more);

  async function refused(options, pattern) {
    const { code, stdout, stderr } = await shell(options, 'echo never');
    assert.equal(code, 125, stderr);
    assert.equal(stdout, '');
    assert.match(stderr, /^bulkhead: [^\n]+\n$/, 'one clear line');
    assert.match(stderr, pattern);
  }

  // The weakest tier that still lets the strongest that works here run it; skips where none does.
  function here(t) {
    if (imageMissing) t.skip(`no image: ${imageMissing}`);
    else if (!strongest())
      t.skip(`no tier works here: ${tiers.map(({ tier, reason }) => `${tier}: ${reason}`).join('; ')}`);
    else return ['--tier', strongest()];
    return null;
  }

  test('a line that is wrong is usage and starts nothing', async () => {
    for (const words of [[], ['sh'], ['--'], ['--mem', '--', 'sh'], ['--mem', '1', '--', 'sh'], ['--mem'],
                         ['--timeout', '25h', '--', 'sh'], ['--tier', 'vm', '--', 'sh'], ['--net', 'host', '--', 'sh'],
                         ['--colour', '--', 'sh']]) {
      const { code, stdout, stderr } = await run(path.join(build, 'bulkhead'),
                                                 ['sandbox', 'run', '--data', node.data, ...words]);
      assert.equal(code, 2, `${words.join(' ')}: ${stderr}`);
      assert.equal(stdout, '');
      assert.match(stderr, /^bulkhead: [^\n]+\n$/);
    }
    assert.match((await node.cli('sandbox', 'frob')).stderr, /run, ps or kill/);
    assert.deepEqual(await entriesOf('sandbox.start'), []);
    assert.deepEqual(await entriesOf('sandbox.refused'), []);
  });

  test('an image that is not there is named, and the refusal is in the ledger without the command', async () => {
    await refused([], /image base/);
    const [entry] = await entriesOf('sandbox.refused');
    assert.equal(entry.operator_uid, process.getuid());
    assert.equal(entry.detail.code, 'not_found');
    assert.equal(entry.detail.image, 'base');
    const words = ['/bin/sh', '-c', 'echo never'].map((word) => `${word}\0`).join('');
    assert.equal(entry.detail.argv_sha256, createHash('sha256').update(words).digest('hex'));
    assert.ok(!JSON.stringify(await ledger()).includes('echo never'));
  });

  test('the image is built and the tiers are found out', { timeout: 600000 }, async (t) => {
    const built = await run(path.join(build, 'bulkhead'), ['image', 'build', 'base', '--data', node.data],
                            { timeout: BUILD_MS });
    if (built.code !== 0) {
      imageMissing = built.stderr.trim();
      t.skip(`no image: ${imageMissing}`);
      return;
    }
    const tried = await shell(['--tier', 'microvm', '--timeout', '60s'], 'exit 9'); // boots once, to see whether that works
    tiers = (await node.status()).sandboxes.tiers.sort((a, b) => STRENGTH.indexOf(b.tier) - STRENGTH.indexOf(a.tier));
    assert.deepEqual(tiers.map(({ tier }) => tier), ['microvm', 'gvisor', 'container']);
    const { works, reason } = tiers[0];
    assert.equal(tried.code, works ? 9 : 125, tried.stderr);
    if (!works) {
      assert.ok(reason.length > 0);
      assert.ok(tried.stderr.includes(reason), `${tried.stderr} says why: ${reason}`);
    }
    t.diagnostic(tiers.map((one) => `${one.tier}: ${one.works ? 'works' : one.reason}`).join('; '));
  });

  test('a posture is never loosened, and where it cannot be kept nothing runs', async () => {
    await node.createTenant('bank', '--tier', 'regulated', '--retention', '1');
    await refused(['--tenant', 'bank', '--tier', 'gvisor'], /posture demands microvm/);
    await refused(['--tenant', 'acme', '--tier', 'container'], /posture demands gvisor/);
    await refused(['--tenant', 'nobody'], /no tenant of this name/);
    assert.match(await node.refused('tenant', 'update', 'bank', '--sandbox', 'container'), /microvm/);
    const denied = (await entriesOf('sandbox.refused')).filter(({ detail }) => detail.code === 'forbidden_policy');
    assert.ok(denied.some(({ tenant_name: name }) => name === 'bank'));
    assert.ok(denied.some(({ tenant_name: name }) => name === 'acme'));
    if (imageMissing) return;
    const { code, stderr } = await shell(['--tenant', 'bank'], 'exit 3');
    if (tiers[0].works) assert.equal(code, 3, stderr);
    else assert.match(stderr, /^bulkhead: microvm[^\n]*\n$/);
  });

  test('a tenant that is not active runs nothing', async () => {
    await node.ok('tenant', 'pause', 'other');
    await refused(['--tenant', 'other'], /not active/);
    await node.ok('tenant', 'resume', 'other');
  });

  test('a quota on memory refuses what would pass it, by name', async () => {
    await node.createTenant('small', '--quota', 'sandbox_memory_mib=100');
    await refused(['--tenant', 'small'], /sandbox_memory_mib.*at most 100/);
    const [entry] = (await entriesOf('sandbox.refused')).filter(({ tenant_name: name }) => name === 'small');
    assert.equal(entry.detail.code, 'quota_exceeded');
  });

  test('an id that is nobody\'s is not found', async () => {
    assert.match(await node.refused('sandbox', 'kill', '00000000000000ff'), /no sandbox of this id/);
    assert.match(await node.refused('sandbox', 'kill', '1'), /16 hexadecimal digits/);
    assert.deepEqual(await alive(), []);
  });

  test('the exit status is the command\'s, its streams are ours', async (t) => {
    const options = here(t);
    if (!options) return;
    for (const [text, code, stdout, stderr] of [
      ['exit 0', 0, '', ''], ['exit 77', 77, '', ''], ['kill -9 $$', 137, '', ''], ['kill -15 $$', 143, '', ''],
      ['echo out; echo err >&2', 0, 'out\n', 'err\n'], ['cat', 0, '', ''], ['seq 1 5 | grep 3 | wc -l', 0, '1\n', '']]) {
      const ran = await shell(options, text);
      assert.deepEqual([ran.code, ran.stdout, ran.stderr], [code, stdout, stderr], text);
    }
    const missing = await sandbox(options, ['/no/such/program']);
    assert.equal(missing.code, 125);
    assert.match(missing.stderr, /could not be started/);
    const placed = await sandbox([...options, '--env', 'COLOUR=deep blue', '--workdir', '/tmp'],
                                 ['/bin/sh', '-c', 'echo "$COLOUR"; pwd']);
    assert.equal(placed.stdout, 'deep blue\n/tmp\n', placed.stderr);
    const user = await sandbox([...options, '--user', '1000'], ['/bin/sh', '-c', 'id -u']);
    if (strongest() === 'microvm') assert.equal(user.stdout, '1000\n', user.stderr);
    else assert.match(user.stderr, /only user 0/, 'a container has one id');
  });

  test('64 MiB pass both ways, to the byte', { timeout: 280000 }, async (t) => {
    const options = here(t);
    if (!options) return;
    const input = randomBytes(64 * 2 ** 20);
    const ran = await sandbox([...options, '--timeout', '4m'], ['/bin/cat'], { input });
    assert.equal(ran.stderr, '');
    assert.equal(ran.code, 0);
    assert.ok(ran.bytes.equals(input));
  });

  test('the ledger has who, what tier, which limits, and how it ended; the report the same', async (t) => {
    const options = here(t);
    if (!options) return;
    const file = path.join(node.directory, 'report');
    await node.ok('tenant', 'update', 'acme', '--sandbox', 'container');
    const ran = await shell(['--tenant', 'acme', '--mem', '96M', '--processes', '64', '--report', file, '--verbose', ...options],
                            'echo secret words; exit 6');
    assert.equal(ran.code, 6, ran.stderr);
    const report = JSON.parse(fs.readFileSync(file, 'utf8'));
    assert.equal(report.exit_status, 6);
    assert.deepEqual([report.command.how, report.command.code], ['code', 6]);
    assert.equal(report.sandbox.tier, strongest());
    assert.match(ran.stderr, new RegExp(`sandbox ${report.sandbox.id} runs, tier ${strongest()}`));
    const start = (await entriesOf('sandbox.start')).find(({ detail }) => detail.sandbox === report.sandbox.id);
    assert.equal(start.tenant_name, 'acme');
    assert.equal(start.operator_uid, process.getuid());
    assert.deepEqual([start.detail.tier, start.detail.memory_mib, start.detail.processes, start.detail.image],
                     [strongest(), 96, 64, 'base']);
    const end = (await entriesOf('sandbox.end')).find(({ detail }) => detail.sandbox === report.sandbox.id);
    assert.equal(end.tenant_name, 'acme');
    assert.equal(typeof end.detail.cpu_seconds, 'number');
    assert.equal(end.detail.end, report.end.end);
    assert.ok(!JSON.stringify(await ledger()).includes('secret words'));
  });

  test('a command beyond its time is ended', async (t) => {
    const options = here(t);
    if (!options) return;
    const ran = await shell([...options, '--timeout', '1s'], 'echo begun; sleep 600 & sleep 600');
    assert.deepEqual([ran.code, ran.stdout], [124, 'begun\n'], ran.stderr);
    assert.deepEqual(await alive(), []);
  });

  test('ps shows it, kill ends it, and so does the end of who ran it', async (t) => {
    const options = here(t);
    if (!options) return;
    const killed = {};
    killed.ended = shell([...options, '--timeout', '2m'], 'echo up; sleep 100', { during: (child) => { killed.process = child; } });
    const [row] = await eventually('it is listed', async () => {
      const rows = (await alive()).filter(({ state }) => state === 'running');
      return rows.length ? rows : null;
    }, { within: 60000 });
    assert.equal(row.tier, strongest());
    assert.equal(row.tenant, null);
    await node.ok('sandbox', 'kill', row.id);
    assert.deepEqual(await alive(), []);
    const ran = await killed.ended;
    assert.equal(ran.code, 137, ran.stderr);
    const orphan = {};
    orphan.ended = shell([...options, '--timeout', '2m'], 'echo up; sleep 100', { during: (child) => { orphan.process = child; } });
    await eventually('it runs', async () => (await alive()).some(({ state }) => state === 'running'), { within: 60000 });
    orphan.process.kill('SIGKILL');
    await orphan.ended;
    await eventually('it is gone', async () => (await alive()).length === 0);
  });

  test('a quota on their number holds while they live; pausing the tenant ends them', async (t) => {
    const options = here(t);
    if (!options) return;
    await node.createTenant('few', '--quota', 'sandboxes=1', '--sandbox', 'container');
    const one = shell(['--tenant', 'few', '--timeout', '2m', ...options], 'sleep 100', { during: () => {} });
    await eventually('it runs', async () => (await alive()).some(({ state, tenant }) => state === 'running' && tenant === 'few'),
                     { within: 60000 });
    await refused(['--tenant', 'few', ...options], /sandboxes: the tenant has 1 alive, at most 1/);
    await node.ok('tenant', 'pause', 'few');
    assert.deepEqual((await alive()).filter(({ tenant }) => tenant === 'few'), []);
    assert.equal((await one).code, 137);
    await node.ok('tenant', 'resume', 'few');
    assert.equal((await shell(['--tenant', 'few', ...options], 'exit 2')).code, 2);
  });

  test('a signal reaches the command', async (t) => {
    const options = here(t);
    if (!options) return;
    const ran = await shell([...options, '--timeout', '1m'],
      'trap "echo caught; exit 7" TERM; echo up; while :; do sleep 0.1; done',
      { during: (child) => child.stdout.once('data', () => child.kill('SIGTERM')) });
    assert.deepEqual([ran.code, ran.stdout], [7, 'up\ncaught\n'], ran.stderr);
  });

  test('a control that is killed takes every sandbox with it', async (t) => {
    const options = here(t);
    if (!options) return;
    const ended = shell([...options, '--timeout', '2m'], 'sleep 100', { during: () => {} });
    await eventually('it runs', async () => (await alive()).some(({ state }) => state === 'running'), { within: 60000 });
    const { pid } = await node.service('control');
    await node.kill(pid);
    assert.notEqual((await ended).code, 0);
    await eventually('control is back, and counts none', async () => (await alive()).length === 0, { within: 20000 });
    assert.equal((await node.status()).sandboxes.alive, 0);
  });
});
