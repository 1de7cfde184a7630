// The whole way of a microVM, really run: command line, control, supervisor, jailed monitor, KVM, and a guest of our own
// in place of a kernel and its agent.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { descendants, eventually, isAlive, Node, sleep } from './harness.mjs';
import { makeTinyImage, noTinyGuests, sandbox } from './tiny.mjs';

describe('microVMs', { skip: noTinyGuests() }, () => {
  let node;

  before(async () => {
    node = new Node({ config: { sandbox_boot_seconds: 10 } });
    for (const [name, mode] of [['base', 'tiny'], ['silent', 'silent'], ['panicked', 'panic'], ['away', 'off']])
      makeTinyImage(node.data, name, mode);
    await node.start();
    await eventually('the tier works', async () =>
      (await node.status()).sandboxes.tiers.find(({ tier }) => tier === 'microvm').works, { within: 60000 });
    await node.createTenant('bank', '--tier', 'regulated', '--retention', '1');
    await node.createTenant('acme', '--quota', 'sandboxes=2', '--quota', 'sandbox_memory_mib=256');
  });
  after(async () => {
    try {
      if (node?.child) await node.stop();
    } finally {
      await node?.destroy();
    }
  });

  const alive = async () => (await node.json('sandbox', 'ps')).data;
  const running = async () => (await node.status()).sandboxes.list.filter(({ state }) => state === 'running');
  const runs = (count) => eventually(`${count} run`, async () => {
    const list = await running();
    return list.length === count && list;
  }, { within: 60000 });
  const gone = () => eventually('none is left', async () => (await alive()).length === 0);
  const monitors = () => descendants(node.pid).filter(({ pid }) => {
    try {
      return fs.readFileSync(`/proc/${pid}/cmdline`, 'latin1').startsWith('bulkhead-vmm');
    } catch {
      return false;
    }
  });
  const held = () => sandbox(node, ['--timeout', '2m'], ['sleep', '100']);

  // The command's end, and the sandbox's as the report has it.
  async function ending(options, command, more) {
    const report = path.join(node.directory, 'report');
    const ran = await sandbox(node, ['--report', report, ...options], command, more);
    return { ...ran, report: JSON.parse(fs.readFileSync(report)) };
  }

  test('words, exit status, what is not there', async () => {
    assert.equal((await sandbox(node, [], ['echo', 'two', 'words'])).stdout, 'two words\n');
    assert.equal((await sandbox(node, [], ['exit', '77'])).code, 77);
    const missing = await sandbox(node, [], ['nothing']);
    assert.equal(missing.code, 125);
    assert.match(missing.stderr, /could not be started/);
  });

  test('bytes pass both ways as they are; a reader that is slow holds up its guest alone', async () => {
    const input = randomBytes(16 << 20);
    const ran = await sandbox(node, ['--timeout', '5m'], ['cat'], { input });
    assert.equal(ran.code, 0, ran.stderr);
    assert.ok(ran.bytes.equals(input));
    const slow = await sandbox(node, ['--timeout', '5m'], ['flood', '8'], { during: async (child) => {
      child.stdin.end();
      child.stdout.pause();
      const other = await sandbox(node, [], ['echo', 'other']);
      assert.equal(other.stdout, 'other\n');
      child.stdout.resume();
    } });
    assert.equal(slow.bytes.length, 8 << 20);
  });

  test('each end is told apart', async () => {
    for (const [command, end, told] of [
      ['off', 'shutdown', /switched itself off/], ['reset', 'reset', /restarted/], ['panic', 'panic', /panicked/],
      ['triple', 'faulted', /cannot run/]]) {
      const ran = await ending([], [command]);
      assert.deepEqual([ran.code, ran.report.end.end], [125, end], command);
      assert.match(ran.stderr, told);
    }
    for (const [lie, told] of [['id', /which nobody chose/], ['length', /a frame of/], ['twice', /id 0, which nobody chose/],
                               ['early', /before the end of the output/]]) {
      const ran = await ending([], ['lie', lie]);
      assert.deepEqual([ran.code, ran.report.end.end], [125, 'closed'], lie);
      assert.match(ran.stderr, /broke its protocol/);
      assert.match(ran.stderr, told);
    }
    const late = await ending(['--timeout', '1s'], ['sleep', '60']);
    assert.deepEqual([late.code, late.report.command.how], [124, 'timeout']);
    const deaf = await ending(['--timeout', '1s'], ['spin']); // beyond its agent's reach
    assert.deepEqual([deaf.code, deaf.report.end.end], [124, 'lifetime']);
    const busy = await ending(['--cpu-time', '1s'], ['spin']);
    assert.deepEqual([busy.code, busy.report.end.end], [152, 'cpu_time']);
    assert.ok(busy.report.end.cpu_seconds >= 1);
    await gone();
  });

  test('what a guest said on its console is there however it ended, and was not touched where none was made', async () => {
    const file = path.join(node.directory, 'console');
    const words = () => fs.readFileSync(file, 'latin1');
    for (const [options, command] of [
      [[], ['echo', 'x']], [[], ['off']], [[], ['reset']], [[], ['panic']], [[], ['triple']], [['--disk', '0'], ['exit', '3']],
      [['--timeout', '1s'], ['spin']], [['--cpu-time', '1s'], ['spin']], [['--image', 'silent'], ['never']]]) {
      fs.writeFileSync(file, 'of an earlier run, and longer than what comes');
      await sandbox(node, ['--console', file, ...options], command);
      assert.equal(words(), 'a tiny guest\n', `${options} ${command}`);
    }
    fs.rmSync(file);
    const refused = await sandbox(node, ['--console', file, '--image', 'absent'], ['echo', 'x']);
    assert.deepEqual([refused.code, fs.existsSync(file)], [125, false]);
    const killed = sandbox(node, ['--console', file], ['sleep', '100']);
    const id = await eventually('it has an id', async () => (await alive())[0]?.id);
    assert.equal(fs.statSync(file).mode & 0o777, 0o600);
    await node.ok('sandbox', 'kill', id);
    assert.deepEqual([(await killed).code, words()], [137, 'a tiny guest\n']);
    await gone();
  });

  test('a guest that never dials, or ends before it does, is an answer', async () => {
    for (const [image, told] of [['silent', /did not dial in time/], ['panicked', /booted \(panic\)/],
                                 ['away', /booted \(shutdown\)/]]) {
      const ran = await sandbox(node, ['--image', image], ['echo', 'never']);
      assert.deepEqual([ran.code, ran.stdout], [125, ''], image);
      assert.match(ran.stderr, told);
    }
    await gone();
  });

  test('memory, disk and processors are those that were asked for', async () => {
    assert.equal((await sandbox(node, ['--mem', '256M'], ['touch-memory', '200'])).code, 0);
    assert.equal((await sandbox(node, ['--mem', '128M'], ['touch-memory', '200'])).code, 12, 'it has no more');
    const disk = await sandbox(node, ['--disk', '64M'], ['disk']);
    assert.deepEqual([disk.code, disk.stdout], [0, 'S\n'], 'what the image has, then what was written');
    assert.equal((await sandbox(node, ['--disk', '64M'], ['disk'])).stdout, 'S\n', 'and nothing of another\'s');
    assert.equal((await sandbox(node, ['--disk', '0'], ['disk'])).code, 1);
    for (const count of [1, 2, 32])
      assert.equal((await sandbox(node, ['--cpus', String(count)], ['cpus'])).stdout, `${count}\n`);
    const net = fs.existsSync('/dev/net/tun') ? ['--net', 'isolated'] : [];
    for (const options of [net, ['--huge-pages'], [...net, '--huge-pages', '--cpus', '3', '--disk', '0']])
      assert.equal((await sandbox(node, options, ['echo', 'x'])).stdout, 'x\n', 'what is asked of KVM is in the list');
  });

  test('a tenant that demands microVMs has them; its quotas hold', async () => {
    assert.equal((await sandbox(node, ['--tenant', 'bank'], ['exit', '3'])).code, 3);
    const both = [1, 2].map(() => sandbox(node, ['--tenant', 'acme', '--timeout', '2m', '--mem', '64M'], ['sleep', '100']));
    await runs(2);
    const third = await sandbox(node, ['--tenant', 'acme', '--mem', '64M'], ['echo', 'never']);
    assert.equal(third.code, 125);
    assert.match(third.stderr, /2 alive, at most 2/);
    for (const { id } of await alive()) await node.ok('sandbox', 'kill', id);
    for (const { code } of await Promise.all(both)) assert.equal(code, 137);
    const large = await sandbox(node, ['--tenant', 'acme', '--mem', '320M'], ['echo', 'never']);
    assert.match(large.stderr, /sandbox_memory_mib/);
    await gone();
  });

  test('two tenants\' guests run side by side under ids of their own, each in a jail', async () => {
    const both = ['bank', 'acme'].map((tenant) => sandbox(node, ['--tenant', tenant, '--timeout', '2m', '--cpus', '4'],
                                                          ['sleep', '100']));
    const list = await runs(2);
    const namespaces = ['user', 'mnt', 'pid', 'net', 'ipc', 'uts'];
    const seen = new Set([0]);
    for (const { pid } of list) {
      const text = fs.readFileSync(`/proc/${pid}/status`, 'utf8');
      const uid = Number(/^Uid:\s+(\d+)/m.exec(text)[1]);
      assert.ok(!seen.has(uid), 'an id of its own');
      seen.add(uid);
      for (const name of namespaces)
        assert.notEqual(fs.readlinkSync(`/proc/${pid}/ns/${name}`), fs.readlinkSync(`/proc/self/ns/${name}`));
      const threads = fs.readdirSync(`/proc/${pid}/task`);
      assert.ok(threads.length >= 5);
      for (const thread of threads) {
        const one = fs.readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8');
        assert.match(one, /^Seccomp:\s+2$/m);
        assert.match(one, /^NoNewPrivs:\s+1$/m);
        assert.match(one, /^CapEff:\s+0+$/m);
        assert.match(one, /^CapBnd:\s+0+$/m);
      }
    }
    for (const { id } of await alive()) await node.ok('sandbox', 'kill', id);
    await Promise.all(both);
    await gone();
  });

  test('a monitor that is killed at whatever moment leaves nothing', { timeout: 240000 }, async () => {
    const before = fs.readdirSync(`/proc/${node.pid}/fd`).length;
    for (let i = 0; i < 40; i++) {
      const ended = sandbox(node, ['--timeout', '1m'], ['echo', 'x']);
      await sleep(Math.random() * 120);
      for (const { pid } of monitors())
        try {
          process.kill(pid, 'SIGKILL');
        } catch {
          // it had ended
        }
      const { code, stdout } = await ended;
      assert.ok(code === 125 || (code === 0 && stdout === 'x\n'), `${code}`);
    }
    await gone();
    assert.deepEqual(fs.readdirSync(path.join(node.data, 'sandboxes')), []);
    await eventually('no descriptor is left', () => fs.readdirSync(`/proc/${node.pid}/fd`).length <= before + 8);
    assert.equal((await sandbox(node, [], ['echo', 'well'])).stdout, 'well\n');
  });

  test('who runs it, or control, is killed: the guest ends', async () => {
    let mine;
    const ran = sandbox(node, ['--timeout', '2m'], ['sleep', '100'], { during: (child) => { mine = child; } });
    const [{ pid }] = await runs(1);
    const [monitor] = monitors().filter((one) => one.pid === pid);
    mine.kill('SIGKILL');
    await ran;
    await eventually('its monitor is gone', () => !isAlive(monitor));
    const other = held();
    await runs(1);
    await node.kill((await node.service('control')).pid);
    assert.notEqual((await other).code, 0);
    await gone();
  });

  test('a hundred one after another, sixteen at once, leak nothing', { timeout: 240000 }, async () => {
    const pids = [node.pid, (await node.service('control')).pid];
    const open = () => pids.map((pid) => fs.readdirSync(`/proc/${pid}/fd`).length);
    const kib = () => pids.map((pid) => Number(/^RssAnon:\s+(\d+)/m.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))[1]));
    const many = async (count) => {
      for (let i = 0; i < count; i++) assert.equal((await sandbox(node, [], ['exit', '5'])).code, 5);
    };
    const settled = (was) => eventually('descriptors are back', () => open().every((count, i) => count <= was[i]));
    await many(10);
    await gone();
    await sleep(1000);
    const [was, memory] = [open(), kib()];
    await many(100);
    const all = await Promise.all(Array.from({ length: 16 }, () => sandbox(node, ['--mem', '64M'], ['echo', 'x'])));
    for (const { code, stderr } of all) assert.equal(code, 0, stderr);
    await gone();
    await settled(was);
    kib().forEach((now, i) => assert.ok(now < memory[i] + 1024, `${pids[i]}: ${memory[i]} KiB, then ${now}`));
  });

  test('the node stops while they run', async () => {
    const ended = [held(), held()];
    await runs(2);
    await node.stop();
    for (const { code } of await Promise.all(ended)) assert.notEqual(code, 0);
  });
});
