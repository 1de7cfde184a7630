// The tiers below microvm, each on a node that has nothing stronger: Debian's runsc and crun, really run. What a
// convict with every system call at hand cannot do is tests/unit/runner's; here is what a caller sees.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { createHash, randomBytes } from 'node:crypto';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { build, bulkhead, descendants, eventually, isAlive, Node } from './harness.mjs';

const packages = path.join(process.env.LAB_CACHE ?? path.join(build, 'lab'), 'packages');
const HIDDEN = { gvisor: ['/dev/kvm'], container: ['/dev/kvm', '/usr/bin/runsc'] };
let top;

// A folder like the build's, whose `bulkhead serve` does not find what is hidden: /dev/null lies over it.
function programsWithout(name, hidden) {
  const folder = path.join(top, name);
  fs.mkdirSync(folder);
  for (const file of fs.readdirSync(build))
    if (/^bulkhead/.test(file) && file !== 'bulkhead' && fs.statSync(path.join(build, file)).isFile())
      fs.symlinkSync(path.join(build, file), path.join(folder, file));
  const covers = hidden.filter((file) => fs.existsSync(file)).map((file) => `mount --bind /dev/null ${file};`).join(' ');
  fs.writeFileSync(path.join(folder, 'bulkhead'), `#!/bin/sh
[ "$1" = serve ] || exec '${build}/bulkhead' "$@"
exec unshare -m /bin/sh -ec '${covers} exec "${build}/bulkhead" "$@"' sh "$@"
`, { mode: 0o755 });
  return folder;
}

before(async () => {
  top = fs.mkdtempSync(path.join(os.tmpdir(), 'bulkhead-tiers-'));
  fs.mkdirSync(packages, { recursive: true });
  const { code, stderr } = await bulkhead('image', 'build', 'base', '--data', path.join(top, 'made'), '--packages', packages);
  assert.equal(code, 0, stderr);
});
after(() => fs.rmSync(top, { recursive: true, force: true }));

for (const tier of ['gvisor', 'container'])
  describe(tier, { skip: process.getuid() !== 0 && 'needs root, to hide the stronger tiers' }, () => {
    let node;

    function sandbox(options, command, { input, during } = {}) {
      return new Promise((resolve, reject) => {
        const child = spawn(path.join(build, 'bulkhead'),
                            ['sandbox', 'run', '--data', node.data, '--tier', tier, ...options, '--', ...command]);
        const out = [], err = [];
        child.stdout.on('data', (piece) => { out.push(piece); if (during) during(child, String(piece)); });
        child.stderr.on('data', (piece) => err.push(piece));
        child.stdin.on('error', () => {});
        child.on('error', reject);
        child.on('close', (code) => resolve({ code, bytes: Buffer.concat(out), stdout: Buffer.concat(out).toString(),
                                              stderr: Buffer.concat(err).toString() }));
        if (!during) child.stdin.end(input ?? '');
      });
    }
    const shell = (text, options = [], more) => sandbox(options, ['/bin/sh', '-c', text], more);
    const runners = () => descendants(node.pid).filter(({ pid }) => {
      try {
        return /^bulkhead-runner/.test(fs.readFileSync(`/proc/${pid}/cmdline`, 'latin1'));
      } catch {
        return false;
      }
    });

    before(async () => {
      node = new Node({ programs: programsWithout(tier, HIDDEN[tier]) });
      fs.mkdirSync(path.join(node.data, 'images'), { recursive: true });
      fs.cpSync(path.join(top, 'made/images/base'), path.join(node.data, 'images/base'),
                { recursive: true, verbatimSymlinks: true });
      await node.start();
      await node.createTenant('acme', '--sandbox', tier);
      await node.createTenant('strict', '--sandbox', 'microvm');
    });
    after(async () => { if (node) await node.destroy(); });

    test('status says what works, and why the stronger does not', async () => {
      const { sandboxes } = await eventually('the tiers are found out', async () => {
        const status = await node.status();
        return status.sandboxes.tiers.find((one) => one.tier === tier).works && status;
      }, { within: 60000 });
      for (const one of sandboxes.tiers)
        if ((tier === 'container' && one.tier === 'gvisor') || one.tier === 'microvm') {
          assert.equal(one.works, false);
          assert.match(one.reason, /^absent/);
        }
    });

    test('streams, exit status and the tier that ran are told', async () => {
      const bytes = randomBytes(4 << 20);
      const { code, bytes: back } = await sandbox([], ['cat'], { input: bytes });
      assert.equal(code, 0);
      assert.equal(createHash('sha256').update(back).digest('hex'), createHash('sha256').update(bytes).digest('hex'));
      const report = path.join(top, `${tier}.json`);
      const answer = await shell('echo out; echo err >&2; exit 7', ['--report', report]);
      assert.equal(answer.code, 7, answer.stderr);
      assert.equal(answer.stdout, 'out\n');
      assert.equal(answer.stderr, 'err\n');
      assert.equal(JSON.parse(fs.readFileSync(report)).sandbox.tier, tier);
    });

    test('who demands a microVM is refused, not given less', async () => {
      const { code, stdout, stderr } = await new Promise((resolve, reject) => {
        const child = spawn(path.join(build, 'bulkhead'), ['sandbox', 'run', '--data', node.data, '--tenant', 'strict', '--',
                                                           'echo', 'never']);
        let out = '', err = '';
        child.stdout.on('data', (piece) => { out += piece; });
        child.stderr.on('data', (piece) => { err += piece; });
        child.on('error', reject);
        child.on('close', (status) => resolve({ code: status, stdout: out, stderr: err }));
        child.stdin.end();
      });
      assert.equal(code, 125, stderr);
      assert.equal(stdout, '');
      assert.match(stderr, /microvm: absent/);
    });

    test('nothing of the host is in sight', async () => {
      const secret = path.join(top, 'secret');
      fs.writeFileSync(secret, 'of the host');
      const tries = [`cat ${secret}`, 'cat /etc/shadow', 'ls /proc/1/root/bundle', 'cat /bundle/config.json',
                     'mount -t tmpfs none /mnt', 'mount -o remount,rw /proc/sys', 'chroot /proc/1/root /bin/sh -c true',
                     'nsenter -t 1 -m true', 'ping -c 1 -w 1 192.0.2.1', 'nc -w 1 192.0.2.1 80', 'ip link add x type dummy',
                     'echo 0 > /proc/sys/kernel/core_pattern', 'echo c > /.bulkhead-agent', 'insmod /bin/busybox',
                     'hostname other', 'swapoff -a /dev/null', 'cat /dev/mem', 'cat /dev/kvm',
                     'kill -0 999999'];
      if (tier === 'container') tries.push('mknod /tmp/null c 1 3', 'unshare -U true', 'unshare -n true');
      for (const command of tries) {
        const { code, stdout } = await shell(`${command} </dev/null`);
        assert.ok(code !== 0 && code !== 125, `${command}: exit ${code}, ${stdout}`);
        assert.ok(!stdout.includes('of the host'));
      }
      const { stdout } = await shell('ls -d /proc/[0-9]* | wc -l; ls /sys/class/net /sys/block 2>/dev/null | grep -c eth; ' +
                                     'cat /proc/net/dev | grep -vc "lo:\\||"');
      const [processes, links, devices] = stdout.trim().split('\n').map(Number);
      assert.ok(processes < 10, `${processes} processes in sight`);
      assert.deepEqual([links, devices], [0, 0]);
    });

    test('two tenants side by side do not see each other', { timeout: 120000 }, async () => {
      let other;
      const first = shell('echo mine > /tmp/note; echo up; read line; cat /tmp/note', ['--tenant', 'acme'], {
        during: (child, piece) => {
          if (piece !== 'up\n') return;
          other = shell('ls /tmp; kill -9 -1; true').then((answer) => { child.stdin.end('go\n'); return answer; });
        },
      });
      const { code, stdout } = await first;
      const answer = await other;
      assert.equal(stdout, 'up\nmine\n');
      assert.equal(code, 0);
      assert.equal(answer.stdout.includes('note'), false);
    });

    test('disk, processes, memory and time are bounded', { timeout: 200000 }, async () => {
      const disk = await shell('dd if=/dev/zero of=/tmp/full bs=1M count=200 2>/dev/null; wc -c < /tmp/full', ['--disk', '24M']);
      assert.ok(Number(disk.stdout) < 24 << 20 && Number(disk.stdout) > 12 << 20, disk.stdout);
      if (tier === 'container') {
        const bomb = await shell('n=0; while [ $n -lt 200 ]; do sleep 30 & n=$((n+1)); done; echo all', ['--processes', '32']);
        assert.equal(bomb.stdout.includes('all'), false, 'a fork was refused');
      }
      const report = path.join(top, `${tier}-end.json`);
      // each within its own limit, all of them together far beyond
      await shell('i=0; while [ $i -lt 12 ]; do awk \'BEGIN { s = sprintf("%1000000s", ""); ' +
                  'for (i = 0; i < 40; i++) a[i] = s i; system("sleep 20") }\' & i=$((i+1)); done; wait',
                  ['--mem', '64M', '--report', report]);
      assert.equal(JSON.parse(fs.readFileSync(report)).end.end, 'memory');
      const late = await shell('sleep 60', ['--timeout', '2s']);
      assert.equal(late.code, 124);
    });

    test('the account is of all that ran, also of what was killed', async () => {
      const spin = 'i=0; while [ $i -lt 30000000 ]; do i=$((i+1)); done';
      const file = path.join(top, `${tier}-account.json`);
      const timed = await shell(`(${spin}) & ${spin}`, ['--timeout', '3s', '--report', file]);
      assert.equal(timed.code, 124, timed.stderr);
      const { end } = JSON.parse(fs.readFileSync(file));
      assert.ok(end.cpu_seconds > 0.3 && end.peak_kib > 2000, JSON.stringify(end));
    });

    test('a fork bomb ends by a limit that is told, or is outlived', { timeout: 60000 }, async () => {
      const { code, stderr } = await shell('f() { f | f & }; f; f; sleep 2', ['--processes', '64', '--timeout', '10s']);
      assert.ok(code !== 125 || /limit of \d+ threads/.test(stderr), `${code}: ${stderr.slice(-300)}`);
    });

    test('a closed descriptor of the caller is nobody else\'s', async () => {
      const closed = (which) => new Promise((resolve) => {
        const line = `exec ${path.join(build, 'bulkhead')} sandbox run --data ${node.data} --tier ${tier} -- cat ${which}`;
        const child = spawn('/bin/sh', ['-c', line], { stdio: ['pipe', 'pipe', 'pipe'] });
        let out = '', err = '';
        child.stdout.on('data', (piece) => { out += piece; });
        child.stderr.on('data', (piece) => { err += piece; });
        child.stdin.on('error', () => {});
        child.on('close', (code) => resolve({ code, out, err }));
        child.stdin.end('words\n');
      });
      assert.deepEqual(await closed('<&-'), { code: 0, out: '', err: '' });
      const deaf = await closed('>&-');
      assert.equal(deaf.code, 125);
      assert.match(deaf.err, /standard output: Bad file descriptor/);
    });

    test('a runner that is killed takes everything with it, and the node goes on', { timeout: 60000 }, async () => {
      let mine;
      const { code } = await shell('sleep 1000 & echo up; wait', [], {
        during: () => {
          mine = runners().flatMap((runner) => [runner, ...descendants(runner.pid)]);
          for (const runner of runners()) process.kill(runner.pid, 'SIGKILL');
        },
      });
      assert.equal(code, 125);
      assert.ok(mine.length > 2, 'a runner, its runtime, the agent');
      await eventually('all of it is gone', () => !mine.some(isAlive));
      const again = await shell('echo well');
      assert.equal(again.stdout, 'well\n');
      assert.deepEqual((await node.json('sandbox', 'ps')).data, []);
    });
  });
