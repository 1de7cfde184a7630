// hostile_guest: images whose kernel is the guest of tests/guests/hostile.c, run by the way that every sandbox goes: in
// a monitor that is jailed. It attacks every device and the machine; the node is as it was, and says what became of it.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { build, descendants, eventually, isAlive, Node, sleep } from '../e2e/harness.mjs';
import { makeTinyImage, noTinyGuests, sandbox } from '../e2e/tiny.mjs';

const guest = path.join(build, 'tests/guests/hostile_guest');
const BROKEN = /\(hostile\): its drivers broke the rules of virtio 64 times, at last /;

// What the guest is told to do, and what its host is told of its end.
const attacks = {
  'every-device': ['rounds=2 connections=0', BROKEN],
  disk: ['rounds=2 only=1', new RegExp(`${BROKEN.source}block's`)],
  vsock: ['rounds=2 only=2 connections=0', new RegExp(`${BROKEN.source}vsock's`)],
  rng: ['rounds=2 only=3', new RegExp(`${BROKEN.source}rng's`)],
  balloon: ['rounds=2 only=4', new RegExp(`${BROKEN.source}balloon's`)],
  net: ['rounds=2 only=5', new RegExp(`${BROKEN.source}net's`)],
  platform: ['rounds=2 only=99', /\(shutdown\)/],
  fault: ['only=99 platform=0 ending=1', /\(faulted\)/],
  panic: ['only=99 platform=0 ending=2', /\(panic\)/],
  reset: ['only=99 platform=0 ending=3', /\(reset\)/],
  window: ['only=99 platform=0 ending=9', /\(faulted\)/],
  // it dials as an agent does, so it is one, until it is asked something
  dials: ['rounds=2 only=2', /broke its protocol|went on breaking rules|switched itself off|\(hostile\)/],
};

describe('a hostile guest', { skip: noTinyGuests() }, () => {
  let node, token;

  before(async () => {
    node = new Node({ config: { sandbox_boot_seconds: 60 } });
    makeTinyImage(node.data, 'base');
    for (const [name, [options]] of Object.entries(attacks)) {
      makeTinyImage(node.data, name, `hostile ${options}`);
      fs.copyFileSync(guest, path.join(node.data, 'images', name, 'vmlinux'));
    }
    await node.start();
    await eventually('the tier works', async () =>
      (await node.status()).sandboxes.tiers.find(({ tier }) => tier === 'microvm').works, { within: 60000 });
    await node.createBusyTenant('acme');
    token = await node.token('acme', 'ada');
  });
  after(async () => {
    try {
      if (node?.child) await node.stop();
    } finally {
      await node?.destroy();
    }
  });

  // {code, stderr, answered: requests of the tenant meanwhile}
  async function attack(image) {
    let over = false, answered = 0;
    const ran = sandbox(node, ['--image', image, '--tenant', 'acme', '--cpus', '2', '--mem', '64M', '--timeout', '2m',
                               '--net', 'isolated'], ['true']).finally(() => { over = true; });
    do {
      await node.want(200, 'GET', '/v1/memories', { token });
      answered++;
      await sleep(250); // or the guest has no processor
    } while (!over);
    const { code, stdout, stderr } = await ran;
    assert.equal(stdout, '');
    assert.match(stderr, /^bulkhead: [^\n]+\n$/, 'one clear line');
    return { code, stderr, answered };
  }

  // Only what stays: neither descriptors of requests, nor a monitor that is being made.
  const held = () => JSON.stringify({
    descriptors: fs.readdirSync(`/proc/${node.pid}/fd`).map((fd) => {
      try {
        return fs.readlinkSync(`/proc/${node.pid}/fd/${fd}`).replace(/\d+/g, 'N');
      } catch {
        return '';
      }
    }).sort(),
    processes: descendants(node.pid).filter(isAlive).length,
    files: fs.readdirSync(path.join(node.data, 'sandboxes')),
  });

  async function unhurt() {
    await node.want(200, 'GET', '/v1/memories', { token });
    assert.equal((await sandbox(node, ['--tenant', 'acme'], ['echo', 'well'])).stdout, 'well\n');
    assert.deepEqual((await node.json('sandbox', 'ps')).data, []);
  }

  test('every attack, in a jailed monitor, while its tenant is served; nothing is left of it', { timeout: 540000 }, async (t) => {
    await attack('dials'); // what is made once is made now
    await unhurt();
    for (let i = 0; i < 40; i++) await node.json('sandbox', 'ps'); // the newest callers are remembered, so many of them
    let before_;
    await eventually('the node is at rest', () => {
      const now = held(), same = now === before_;
      before_ = now;
      return same;
    }, { every: 1500, within: 60000 });
    for (const [image, [, told]] of Object.entries(attacks)) {
      const { code, stderr, answered } = await attack(image);
      t.diagnostic(`${image}: ${answered} requests; ${stderr}`);
      assert.equal(code, 125, `${image}: ${stderr}`);
      assert.ok(answered > 0);
      assert.match(stderr, told, image);
    }
    await unhurt();
    await eventually('nothing more is held than before', () => held() === before_, { every: 500, within: 60000 })
      .catch((error) => assert.equal(held(), before_, error.message));
  });

  test('the ledger has the reason', async () => {
    const refused = (await node.ok('ledger', 'export')).trim().split('\n').filter((line) => line.includes('sandbox.refused'));
    assert.equal(refused.filter((line) => BROKEN.test(line)).length, 6);
  });

  test('no attack reached a call that is forbidden, or killed a monitor', () => {
    assert.match(node.logText(), /"sandbox.gone"/);
    assert.doesNotMatch(node.logText(), /SIGSYS|SIGSEGV|SIGABRT|signal (6|7|11|31)\b|"monitor.died"/);
  });
});
