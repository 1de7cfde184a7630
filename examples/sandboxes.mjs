// sandboxes.mjs: the fourth part of `make demo`: code that a model wrote, in a microVM where this machine can run one,
// else in the strongest tier that works here and that the tenant's posture allows.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { build, eventually, Node, run } from '../tests/e2e/harness.mjs';

const PACKAGES = path.join(build, 'packages');
const FOUND_OUT_MS = 120000;

const seconds = (since) => `${((performance.now() - since) / 1000).toFixed(1)} s`;

const sandbox = (node, options, command, input) =>
  run(path.join(build, 'bulkhead'), ['sandbox', 'run', '--data', node.data, ...options, '--', ...command], { input });

async function makeImage(node, fact) {
  const began = performance.now();
  fs.mkdirSync(PACKAGES, { recursive: true });
  const made = await run(path.join(build, 'bulkhead'),
                         ['image', 'build', 'base', '--data', node.data, '--packages', PACKAGES], { timeout: 300000 });
  assert.equal(made.code, 0, made.stderr);
  fact(`image base: Debian's stock cloud kernel, a busybox root, our agent as init; from Debian packages in ${seconds(began)}`);
}

async function tiersOf(node, fact) {
  const tiers = await eventually('what works here is known', async () => {
    const found = JSON.parse(await node.ok('status', '--json')).sandboxes.tiers;
    return found.every(({ works, reason }) => works || reason !== 'being found out') && found;
  }, { within: FOUND_OUT_MS });
  for (const { tier, works, reason } of tiers) fact(`${tier.padEnd(9)}  ${works ? 'works' : reason}`);
  const best = tiers.find(({ works }) => works); // the strongest stands first
  assert.ok(best, 'no tier works here');
  return best.tier;
}

async function ordinary(node, fact) {
  const report = await sandbox(node, ['--tenant', 'atlas', '--json'], ['sh', '-c', 'seq 1 100000 | grep -c 7; exit 3']);
  assert.equal(report.code, 3, report.stderr);
  const { sandbox: ran, command } = JSON.parse(report.stderr);
  fact(`seq 1 100000 | grep -c 7   -> ${report.stdout.trim()}, exit status 3, ${ran.tier}, CPU ${command.cpu_seconds} s`);
  const bytes = crypto.randomBytes(8 << 20);
  const echoed = await run('sh', ['-c', '"$0" sandbox run --data "$1" -- sha256sum', path.join(build, 'bulkhead'), node.data],
                           { input: bytes });
  assert.equal(echoed.stdout.split(' ')[0], crypto.createHash('sha256').update(bytes).digest('hex'));
  fact('8 MiB of binary stdin arrived as they were');
}

async function hostile(node, fact) {
  const left = await sandbox(node, ['--tenant', 'atlas'], ['sh', '-c', 'echo secret > /tmp/note; cat /tmp/note']);
  assert.equal(left.stdout, 'secret\n');
  const next = await sandbox(node, ['--tenant', 'atlas'], ['cat', '/tmp/note']);
  assert.notEqual(next.code, 0);
  fact('a file written in one sandbox is not in the next');
  const bomb = await sandbox(node, ['--timeout', '3s', '--processes', '64'],
                             ['sh', '-c', 'b() { b | b & b; }; b 2>/dev/null; sleep 60']);
  assert.notEqual(bomb.code, 0);
  fact(`a fork bomb: exit status ${bomb.code}, the node answers as before`);
  const loop = await sandbox(node, ['--timeout', '1s'], ['sh', '-c', 'while :; do :; done']);
  assert.equal(loop.code, 124, loop.stderr);
  fact('a loop without end: exit status 124 after its second');
  const wire = await sandbox(node, [], ['sh', '-c', 'ls /sys/class/net; wget -T 2 -O - http://192.0.2.1/ 2>&1']);
  assert.notEqual(wire.code, 0);
  fact(`a way out: ${wire.stdout.trim().split('\n').pop()}`);
}

// Who runs it goes away: so does the sandbox.
async function abandoned(node, fact) {
  const child = spawn(path.join(build, 'bulkhead'), ['sandbox', 'run', '--data', node.data, '--', 'sleep', '600']);
  const alive = async () => JSON.parse(await node.ok('sandbox', 'ps', '--json')).data.length;
  await eventually('it runs', async () => (await alive()) === 1);
  child.kill('SIGKILL');
  await eventually('it ends', async () => (await alive()) === 0);
  fact('its command line killed with SIGKILL: the sandbox is gone');
}

async function posture(node, best, fact) {
  const regulated = await sandbox(node, ['--tenant', 'borealis'], ['true']);
  if (best === 'microvm') {
    assert.equal(regulated.code, 0, regulated.stderr);
    fact('a regulated tenant: in a microVM');
  } else {
    assert.equal(regulated.code, 125);
    fact(`a regulated tenant, whose posture demands a microVM: refused, not downgraded: ${regulated.stderr.trim()}`);
  }
  const weaker = await sandbox(node, ['--tenant', 'atlas', '--tier', 'container'], ['true']);
  assert.equal(weaker.code, 125);
  fact(`less than the posture allows: ${weaker.stderr.replace(/^bulkhead: /, '').trim()}`);
  const ledger = await node.ok('ledger', 'export');
  const starts = ledger.split('\n').filter((line) => line.includes('"event":"sandbox.start"'));
  assert.ok(starts.length >= 6 && starts.every((line) => line.includes(`"tier":"${best}"`) && !line.includes('grep')));
  fact(`the ledger has each start, end and refusal, with the tier that ran and a hash of the command`);
}

export async function sandboxes(chapter, fact) {
  const node = new Node();
  try {
    chapter('Code that a model wrote');
    await makeImage(node, fact);
    await node.start();
    const best = await tiersOf(node, fact);
    await node.createTenant('atlas');
    await node.ok('tenant', 'create', 'borealis', '--tier', 'regulated', '--retention', '30');
    await ordinary(node, fact);
    await hostile(node, fact);
    await abandoned(node, fact);
    chapter('Which wall stands is never silent');
    await posture(node, best, fact);
    await node.stop();
  } finally {
    await node.destroy();
  }
}
