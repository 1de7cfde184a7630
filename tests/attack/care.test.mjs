// Keys, backups and restores as bad luck, careless operators and hostile files meet them.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { eventually, nodeOfSuite, sleep } from '../e2e/harness.mjs';

const SCOPE = 'memory:read memory:write objects:read objects:write audit:read tenant:read';

describe('care', () => {
  const node = nodeOfSuite({ before, after }, {});
  const target = (name) => path.join(node.directory, name);
  const add = (token, text) => node.want(201, 'POST', '/v1/memories', { token, body: { text } });
  const texts = async (token) => (await node.want(200, 'GET', '/v1/memories?limit=500', { token })).data
    .map((memory) => memory.text).sort();
  const put = async (token, key, bytes) => {
    const { status, text } = await node.http('PUT', `/v1/objects/${key}`,
      { token, body: bytes, headers: { 'content-type': 'text/plain' } });
    assert.ok([200, 201].includes(status), text);
  };
  const tenantOf = async (name) => {
    const { id } = await node.createBusyTenant(name);
    const token = await node.token(name, 'ada', { scope: SCOPE });
    await add(token, 'first');
    return { id, token, to: target(name), silo: path.join(node.data, 'silos', id) };
  };
  const rotated = async (name) => {
    await node.ok('tenant', 'update', name, '--rotate-dek');
    await eventually('the rotation ends', async () => !(await node.tenant(name)).key.rotating, { within: 30000 });
  };

  test('a chain over a restore holds: an object that went, came back, and changed', async () => {
    const { token, to } = await tenantOf('branch');
    await put(token, 'a', 'the first a');
    await put(token, 'b', 'always there');
    await node.ok('tenant', 'backup', 'branch', '--to', to);
    await node.want(204, 'DELETE', '/v1/objects/a', { token });
    await add(token, 'second');
    await node.ok('tenant', 'backup', 'branch', '--to', to);
    await node.ok('tenant', 'restore', 'branch', '--from', to, '--at', '1');
    await add(token, 'third');
    const last = await node.json('tenant', 'backup', 'branch', '--to', to);
    assert.equal(last.sequence, 3);
    await put(token, 'a', 'another a');
    await node.ok('tenant', 'restore', 'branch', '--from', to);
    assert.deepEqual(await texts(token), ['first', 'third']);
    assert.equal((await node.http('GET', '/v1/objects/a', { token })).text, 'the first a');
    assert.equal((await node.http('GET', '/v1/objects/b', { token })).text, 'always there');
    await node.ok('tenant', 'restore', 'branch', '--from', to, '--at', '2');
    assert.deepEqual(await texts(token), ['first', 'second']);
    await node.problem(404, 'not_found', 'GET', '/v1/objects/a', { token });
    await node.ok('tenant', 'check', 'branch');
  });

  test('after a rotation a backup is a full one by itself; one from before says why it is dead', async () => {
    const { token, to } = await tenantOf('turned');
    await node.ok('tenant', 'backup', 'turned', '--to', to);
    await rotated('turned');
    assert.match(await node.refused('tenant', 'restore', 'turned', '--from', to),
      /made before the data key was rotated.*version 1.*--rotate-dek/);
    assert.equal((await node.json('tenant', 'backup', 'turned', '--to', to)).full, true);
    await add(token, 'second');
    assert.equal((await node.json('tenant', 'backup', 'turned', '--to', to)).full, false);
    await node.ok('tenant', 'update', 'turned', '--rotate-kek');
    assert.match(await node.refused('tenant', 'restore', 'turned', '--from', to),
      /wrapped under a KEK that is no more.*--rotate-kek/);
    assert.equal((await node.json('tenant', 'backup', 'turned', '--to', to)).full, true);
    await add(token, 'third');
    await node.ok('tenant', 'restore', 'turned', '--from', to);
    assert.deepEqual(await texts(token), ['first', 'second']);
  });

  test('what is no file among the backups is refused, and waits for nobody', async () => {
    const { id, token, to } = await tenantOf('odd');
    await node.ok('tenant', 'backup', 'odd', '--to', to);
    const file = (number) => path.join(to, id, `00000${number}.bhb`);
    const secret = target('secret');
    fs.writeFileSync(secret, 'not a backup');
    const makers = [() => execFileSync('mkfifo', [file(2)]), () => fs.symlinkSync(file(1), file(2)),
                    () => fs.symlinkSync(secret, file(2)), () => fs.mkdirSync(file(2))];
    for (const make of makers) {
      make();
      assert.match(await node.refused('tenant', 'restore', 'odd', '--from', to), /000002\.bhb/);
      assert.match(await node.refused('tenant', 'backup', 'odd', '--to', to), /000002\.bhb|backup before/);
      fs.rmSync(file(2), { recursive: true });
    }
    assert.deepEqual(await texts(token), ['first']);
    fs.writeFileSync(`${file(2)}.tmp`, 'what a crash left');
    assert.equal((await node.json('tenant', 'backup', 'odd', '--to', to)).sequence, 2);
    assert.deepEqual(fs.readdirSync(path.join(to, id)).sort(), ['000001.bhb', '000002.bhb']);
  });

  test('two at once: one is done, the other refused or done after it', async () => {
    const { id, token, to } = await tenantOf('twice');
    for (let i = 0; i < 10; i++) await put(token, `o${i}`, Buffer.alloc(500000, `${i} `));
    const pair = async (...words) => {
      const done = await Promise.all([node.cli(...words), node.cli(...words)]);
      for (const { code, stderr } of done)
        if (code !== 0) assert.match(stderr, /^bulkhead: [^\n]+\n$/);
      assert.ok(done.some(({ code }) => code === 0), done.map(({ stderr }) => stderr).join());
    };
    await pair('tenant', 'backup', 'twice', '--to', to);
    await pair('tenant', 'backup', 'twice', '--to', target('elsewhere'), '--full');
    await pair('tenant', 'restore', 'twice', '--from', to);
    assert.deepEqual(await texts(token), ['first']);
    assert.deepEqual(fs.readdirSync(path.join(to, id)).filter((name) => name.endsWith('.tmp')), []);
  });

  test('requests during a restore get an answer of before or after it, 423 or 503', async () => {
    const { token, to } = await tenantOf('busy');
    await node.ok('tenant', 'backup', 'busy', '--to', to);
    await add(token, 'second');
    let over = false;
    const seen = new Set();
    const load = Array.from({ length: 6 }, async () => {
      while (!over) {
        const { status, body, text } = await node.http('GET', '/v1/memories', { token });
        seen.add(status === 200 ? body.data.map((one) => one.text).sort().join() : status);
        assert.ok([200, 423, 503].includes(status), `${status} ${text}`);
      }
    });
    await node.ok('tenant', 'restore', 'busy', '--from', to);
    over = true;
    await Promise.all(load);
    assert.deepEqual(await texts(token), ['first']);
    for (const one of seen) assert.ok(['first', 'first,second', 423, 503].includes(one), String(one));
  });

  test('a backup while the key is rotated is whole, and so is a restore of it', async () => {
    const { token, to } = await tenantOf('both');
    for (let i = 0; i < 30; i++) await add(token, `${i} ${'words that fill pages '.repeat(300)}`);
    for (let i = 0; i < 4; i++) {
      const [, backup] = await Promise.all([node.cli('tenant', 'update', 'both', '--rotate-dek'),
        node.json('tenant', 'backup', 'both', '--to', to), node.ok('tenant', 'check', 'both')]);
      assert.equal(backup.sequence, i + 1);
    }
    await eventually('the rotation ends', async () => !(await node.tenant('both')).key.rotating, { within: 30000 });
    const kept = await texts(token);
    await node.ok('tenant', 'backup', 'both', '--to', to);
    await node.ok('tenant', 'restore', 'both', '--from', to);
    assert.deepEqual(await texts(token), kept);
    await node.ok('tenant', 'check', 'both');
  });

  test('a withdrawn key: everything refuses by name, nothing spins, the others work', async () => {
    const { token, to } = await tenantOf('taken');
    const other = await tenantOf('other');
    await node.ok('tenant', 'backup', 'taken', '--to', to);
    await node.ok('tenant', 'key', 'taken', 'disable');
    assert.equal((await node.tenant('taken')).key.withdrawn, true);
    for (const words of [['backup', 'taken', '--to', to], ['check', 'taken'], ['restore', 'taken', '--from', to]])
      assert.match(await node.refused('tenant', ...words), /withdrawn by its owner/, words.join(' '));
    assert.match(await node.refused('audit', 'export', 'taken'), /withdrawn by its owner/);
    const failed = () => (node.logText().match(/"cell.gone"/g) ?? []).length;
    const before_ = failed(), began = Date.now();
    let asked = 0;
    await Promise.all(Array.from({ length: 8 }, async () => {
      for (let i = 0; i < 40; i++, asked++)
        assert.match((await node.problem(503, 'unavailable', 'GET', '/v1/memories', { token })).body.detail,
          /withdrawn by its owner/);
    }));
    const cells = failed() - before_, tried = Math.ceil((Date.now() - began) / 300) + 1;
    assert.ok(cells <= tried, `${asked} requests burnt ${cells} cells in ${Date.now() - began} ms`);
    await add(other.token, 'unharmed');
    await node.ok('tenant', 'key', 'taken', 'enable');
    assert.deepEqual(await texts(token), ['first'], 'at once: what control remembers is forgotten');
  });

  test('who dies during a restore leaves the old silo or the new one, and the operator is told why', async () => {
    const { token, to } = await tenantOf('shot');
    await node.ok('tenant', 'backup', 'shot', '--to', to);
    const served = () => eventually('it serves', async () => {
      const { status, body } = await node.http('GET', '/v1/memories', { token });
      assert.equal(status, 200);
      return { texts: body.data.map((one) => one.text).sort().join() };
    });
    for (let i = 0; i < 24; i++) {
      const victim = ['kms', 'control', 'cell'][i % 3];
      if ((await served()).texts === 'first') await add(token, 'second');
      const restoring = node.cli('tenant', 'restore', 'shot', '--from', to);
      await sleep(i * 5);
      const { pid } = victim === 'cell' ? (await node.status()).cells[0] ?? {} : await node.service(victim);
      if (pid) await node.kill(pid).catch(() => {}); // it may have ended by itself
      const { code, stderr } = await restoring;
      if (code !== 0) assert.match(stderr, /^bulkhead: [^\n]+\n$/, `${victim} after ${5 * i} ms`);
      const { texts: left } = await served();
      assert.ok(['first', 'first,second'].includes(left), `${victim} after ${5 * i} ms: ${left}`);
      if (code === 0) assert.equal(left, 'first');
    }
    await node.ok('tenant', 'check', 'shot');
    await eventually('nothing is left over', () =>
      !fs.readdirSync(path.join(node.data, 'silos')).some((name) => name.includes('.')));
  });

  test('a pipe in the place of a file of a silo stops nobody', async () => {
    const { token, silo, to } = await tenantOf('piped');
    await put(token, 'a', Buffer.alloc(100000, 'a'));
    await node.ok('tenant', 'pause', 'piped');
    const blobs = path.join(silo, 'objects');
    const object = path.join(blobs, fs.readdirSync(blobs).find((name) => name.length > 30));
    const piped = async (file, during) => {
      const { uid, gid } = fs.statSync(file);
      fs.renameSync(file, `${target('kept')}`);
      execFileSync('mkfifo', [file]);
      fs.chownSync(file, uid, gid);
      await node.ok('tenant', 'resume', 'piped');
      await during();
      await node.ok('tenant', 'pause', 'piped');
      fs.rmSync(file);
      fs.renameSync(target('kept'), file);
    };
    await piped(object, async () => {
      assert.equal((await node.cli('tenant', 'check', 'piped')).code, 1);
      await node.refused('tenant', 'backup', 'piped', '--to', to);
      assert.deepEqual(await texts(token), ['first']);
    });
    for (const name of ['silo.keys', 'silo.db'])
      await piped(path.join(silo, name), () => node.problem(503, 'unavailable', 'GET', '/v1/memories', { token }));
    await node.ok('tenant', 'resume', 'piped');
    assert.deepEqual(await texts(token), ['first']);
    await node.ok('tenant', 'check', 'piped');
  });
});
