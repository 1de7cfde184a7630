// What a tenant uses, as it sees it itself and as the operator does, and what it costs.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { bulkhead, eventually, nodeOfSuite, startNode } from './harness.mjs';

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'bulkhead-prices-'));
after(() => fs.rmSync(directory, { recursive: true, force: true }));
const file = path.join(directory, 'prices.json');
const prices = (request) => fs.writeFileSync(file, JSON.stringify({
  currency: 'EUR', prices: { request, cpu_second: 0.01, gib_stored_month: 100 },
}));
const month = new Date().toISOString().slice(0, 8) + '01';

async function used(node, name, check) {
  return eventually('the figures are in the registry', async () => {
    const tenant = await node.tenant(name);
    return check(tenant.usage.month) && tenant;
  }, { within: 20000, every: 200 });
}

describe('usage', () => {
  prices(0.5);
  const node = nodeOfSuite({ before, after }, {
    tenants: ['acme', 'idle'], config: { idle_seconds: 1 }, args: ['--prices', file],
  });
  let token;

  test('a tenant sees its own requests, bytes, time and cost', async () => {
    token = await node.token('acme', 'ada', { scope: 'memory:read memory:write tenant:read' });
    await node.want(201, 'POST', '/v1/memories', { token, body: { text: 'hello' } });
    await node.want(200, 'POST', '/v1/memories/search', { token, body: { query: 'hello' } });
    await node.problem(404, 'not_found', 'GET', '/v1/memories/00000000000000000000000000', { token });
    const { usage } = await node.want(200, 'GET', '/v1/tenant', { token });
    for (const period of [usage.month, usage.today]) {
      assert.equal(period.requests, 3, 'all before this one');
      assert.equal(period.refused, 1);
      assert.deepEqual(period.by_action['memory.add'], { requests: 1, refused: 0 });
      assert.deepEqual(period.by_action['memory.read'], { requests: 1, refused: 1 });
      assert.equal(period.bytes_in, 16 + 17);
      assert.ok(period.bytes_out > 200);
      assert.ok(period.cpu_seconds > 0 && period.awake_seconds > 0);
      assert.ok(period.peak_memory_bytes > 1024 * 1024);
      assert.ok(period.bytes_stored >= 4096 && period.bytes_stored_peak >= period.bytes_stored);
      assert.equal(period.cost.currency, 'EUR');
      assert.equal(period.cost.by.request, 1);
    }
    assert.equal(usage.month.from, month);
  });

  test('what it sees outlives its parking', async () => {
    await node.awaitParked('acme');
    const { usage } = await node.want(200, 'GET', '/v1/tenant', { token });
    assert.equal(usage.month.requests, 4);
    assert.deepEqual(usage.month.by_action['tenant.read'], { requests: 1, refused: 0 });
    assert.ok(usage.month.awake_seconds >= 1, `${usage.month.awake_seconds}`);
  });

  test('the operator sees the same counts, and what the kernel measured', async () => {
    await node.awaitParked('acme');
    const tenant = await used(node, 'acme', ({ requests }) => requests === 5);
    const { month: sum, today } = tenant.usage;
    assert.deepEqual(sum.by_action['memory.add'], { requests: 1, refused: 0 });
    assert.equal(sum.refused, 1);
    assert.ok(sum.awake_seconds >= 2 && sum.awake_seconds < 60, `${sum.awake_seconds}`);
    assert.ok(sum.cpu_seconds > 0 && sum.cpu_seconds < sum.awake_seconds);
    assert.ok(sum.peak_memory_bytes > 1024 * 1024 && sum.peak_memory_bytes < 100 * 1024 * 1024);
    assert.deepEqual(today.by_action, sum.by_action);
    assert.equal(sum.cost.by.request, 2);
    const total = Object.values(sum.cost.by).reduce((all, one) => all + Math.round(one * 1e6), 0);
    assert.equal(Math.round(sum.cost.total * 1e6), total, 'the parts are the sum');
    assert.deepEqual(tenant.cost, sum.cost);
  });

  test('a tenant nobody uses costs nothing', async () => {
    const { usage, cost } = await node.tenant('idle');
    assert.equal(usage.month.requests, 0);
    assert.equal(usage.month.cpu_seconds, 0);
    assert.equal(cost.total, 0);
  });

  test('day by day, the newest first, and for people', async () => {
    const { usage } = await node.json('tenant', 'show', 'acme', '--days', '3');
    assert.equal(usage.days.length, 3);
    assert.equal(usage.days[0].from, new Date().toISOString().slice(0, 10));
    assert.equal(usage.days[0].requests, 5);
    assert.equal(usage.days[2].requests, 0);
    const text = await node.ok('tenant', 'show', 'acme', '--days', '2');
    assert.match(text, /this month, \d{4}-\d\d-01 to /);
    assert.match(text, /memory\.add +1, refused 0/);
    assert.match(text, /cost +\d+\.\d{6} EUR/);
    await node.refused('tenant', 'show', 'acme', '--days', '401');
  });

  test('the list has the cost of each and of all', async () => {
    const { data, cost } = await node.json('tenant', 'list');
    const sum = data.reduce((all, { cost: one }) => all + Math.round(one.total * 1e6), 0);
    assert.equal(Math.round(cost.total * 1e6), sum);
    assert.ok(sum > 0);
    assert.match(await node.ok('tenant', 'list'), /COST OF THE MONTH/);
  });

  test('the price file is read again on SIGHUP; a bad one is named and changes nothing', async () => {
    fs.writeFileSync(file, '{"currency":"EUR","prices":{"request":-1}}');
    process.kill(node.pid, 'SIGHUP');
    await eventually('it is named', () => /"prices.refused","detail":"--prices [^"]*prices.request/.test(node.logText()));
    assert.equal((await node.tenant('acme')).cost.by.request, 2);
    prices(1.25);
    process.kill(node.pid, 'SIGHUP');
    await eventually('the new price counts', async () => (await node.tenant('acme')).cost.by.request === 5);
  });

  test('a cell that is killed has used what it had used', async () => {
    await node.want(200, 'GET', '/v1/tenant', { token });
    const before_ = (await node.tenant('acme')).usage.month;
    const { pid } = await node.cell(node.tenants.acme.id);
    await node.kill(pid);
    await used(node, 'acme', ({ cpu_seconds: cpu }) => cpu > before_.cpu_seconds);
  });

  test('usage outlives a restart of the node', async () => {
    const before_ = (await node.tenant('acme')).usage.month;
    await node.stop();
    prices(0.5);
    await node.start();
    const after_ = (await node.tenant('acme')).usage.month;
    assert.ok(after_.requests >= before_.requests);
    assert.ok(after_.cpu_seconds >= before_.cpu_seconds);
  });
});

test('without a price file there is no cost', async (t) => {
  const node = await startNode(t, { config: { idle_seconds: 1 } });
  await node.createTenant('acme');
  const token = await node.token('acme', 'ada', { scope: 'tenant:read' });
  const { usage } = await node.want(200, 'GET', '/v1/tenant', { token });
  assert.equal(usage.month.cost, null);
  assert.equal((await node.tenant('acme')).cost, null);
  assert.equal((await node.json('tenant', 'list')).cost, null);
});

test('a bad price file keeps the node from starting', async () => {
  fs.writeFileSync(file, '{"currency":"EUR","prices":{"requests":1}}');
  const { code, stderr } = await bulkhead('serve', '--data', path.join(directory, 'data'), '--prices', file);
  assert.equal(code, 1);
  assert.match(stderr, /--prices .*requests/);
});
