// Idle tenants cost nothing and wake in milliseconds; what they know is still there.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { descendants, eventually, nodeOfSuite, sleep } from './harness.mjs';

describe('parking', () => {
  const edge = Array.from({ length: 10 }, (_, i) => `edge-${i}`);
  const node = nodeOfSuite({ before, after }, {
    tenants: ['acme', 'globex', ...edge], config: { idle_seconds: 1, gateways: 2 },
  });
  let token, item;

  test('a request wakes a cell; without requests it parks and its process is gone', async () => {
    const { id } = node.tenants.acme;
    token = await node.token('acme', 'ada');
    assert.equal(await node.cell(id), undefined, 'nobody asked yet');
    item = await node.want(201, 'POST', '/v1/memories', { token, body: { text: 'still here' } });
    const { pid, jail_state: jail } = await node.cell(id);
    assert.equal(jail, 'verified');
    assert.equal((await node.tenant('acme')).awake, true);
    await node.awaitParked('acme');
    await eventually('its process is gone', () => !fs.existsSync(`/proc/${pid}`));
    assert.equal(await node.cell(id), undefined);
  });

  test('the next request wakes it again, quickly, with all it knows', async () => {
    const times = [];
    for (let round = 0; round < 3; round++) {
      await node.awaitParked('acme');
      const from = performance.now();
      assert.deepEqual(await node.want(200, 'GET', `/v1/memories/${item.id}`, { token }), item);
      times.push(performance.now() - from);
    }
    assert.ok(Math.min(...times) < 1000, `a wake took ${times.map((ms) => ms.toFixed(1))} ms`);
  });

  test('many requests at once wake it once', async () => {
    await node.awaitParked('acme');
    const answers = await Promise.all(Array.from({ length: 50 }, () =>
      node.http('GET', `/v1/memories/${item.id}`, { token })));
    assert.deepEqual(new Set(answers.map(({ status }) => status)), new Set([200]));
    const { cells } = await node.status();
    assert.equal(cells.filter(({ tenant_id: id }) => id === node.tenants.acme.id).length, 1);
  });

  test('requests that meet the parking itself are answered, and those that change something act once', async () => {
    const end = Date.now() + 10000;
    const ask = async (token_, texts) => {
      await sleep(Math.random() * 8); // through this gateway or the other, before or behind the drain
      const text = `met ${texts.length}`;
      texts.push(text);
      await node.want(201, 'POST', '/v1/memories', { token: token_, body: { text } });
    };
    await Promise.all(edge.map(async (name) => {
      const token_ = await node.token(name, 'ada'), texts = [];
      do {
        await Promise.all([ask(token_, texts), ask(token_, texts), ask(token_, texts)]);
        await sleep(985 + Math.random() * 40);
      } while (Date.now() < end);
      const { data } = await node.want(200, 'GET', '/v1/memories?limit=500', { token: token_ });
      assert.deepEqual(data.map(({ text }) => text).sort(), texts.sort());
    }));
  });

  test('a refused token wakes nobody', async () => {
    await node.awaitParked('acme');
    const [head, payload, signature] = token.split('.');
    const forged = `${head}.${payload}.${'A'.repeat(signature.length)}`;
    for (let i = 0; i < 5; i++)
      await node.problem(401, 'unauthenticated', 'GET', '/v1/memories', { token: forged });
    const scopeless = await node.token('acme', 'ada', { scope: 'tools:call' });
    await node.problem(403, 'forbidden_scope', 'GET', '/v1/memories', { token: scopeless });
    assert.equal(await node.cell(node.tenants.acme.id), undefined);
  });

  test('two tenants have two processes, of two users, with nothing shared', async () => {
    const other = await node.token('globex', 'ada');
    await Promise.all([node.want(200, 'GET', '/v1/memories', { token }),
                       node.want(200, 'GET', '/v1/memories', { token: other })]);
    const [one, two] = [await node.cell(node.tenants.acme.id), await node.cell(node.tenants.globex.id)];
    assert.notEqual(one.pid, two.pid);
    const status = await node.status();
    if (process.getuid() === 0) {
      assert.notEqual(one.jail.uid, two.jail.uid);
      assert.equal(status.identity, 'one uid a tenant');
    }
    const namespaces = (pid, kind) => fs.readlinkSync(`/proc/${pid}/ns/${kind}`);
    for (const kind of ['user', 'mnt', 'pid', 'net', 'ipc'])
      assert.notEqual(namespaces(one.pid, kind), namespaces(two.pid, kind), kind);
    const below = descendants(node.pid).map(({ pid }) => pid);
    assert.ok(below.includes(one.pid) && below.includes(two.pid));
  });

  test('a stop parks every cell; a restart of the node keeps every tenant\'s data', async () => {
    await node.want(200, 'GET', `/v1/memories/${item.id}`, { token });
    await node.stop();
    await node.start();
    assert.deepEqual(await node.want(200, 'GET', `/v1/memories/${item.id}`, { token }), item,
                     'the same item, with the same token');
    assert.deepEqual((await node.json('tenant', 'list')).data.map(({ name }) => name).sort(),
                     Object.keys(node.tenants).sort());
  });

  test('a crash of the whole node loses nothing that was answered', async () => {
    const ids = [];
    for (let i = 0; i < 20; i++)
      ids.push((await node.want(201, 'POST', '/v1/memories', { token, body: { text: `kept ${i}` } })).id);
    await node.crash();
    await node.start();
    const { data } = await node.want(200, 'GET', '/v1/memories?limit=500', { token });
    const known = new Set(data.map(({ id }) => id));
    for (const id of ids) assert.ok(known.has(id), id);
  });
});
