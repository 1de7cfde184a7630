// A memory past its time is gone: deleted, on time, also while its tenant is parked.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { eventually, nodeOfSuite, sleep } from './harness.mjs';

describe('expiry', () => {
  const node = nodeOfSuite({ before, after }, { tenants: ['awake', 'parked'], config: { idle_seconds: 1 } });

  const entries = async (name) => (await node.ok('audit', 'export', name)).trim().split('\n')
    .map((line) => JSON.parse(line)).filter((line) => line.entry).map(({ entry }) => entry);

  test('an item past its ttl is gone from every endpoint of an awake tenant', async () => {
    const token = await node.token('awake', 'ada');
    const item = await node.want(201, 'POST', '/v1/memories',
                                 { token, body: { text: 'the ephemeral quokka', ttl_seconds: 2 } });
    await node.want(201, 'POST', '/v1/memories', { token, body: { text: 'the lasting quokka' } });
    await node.want(200, 'GET', `/v1/memories/${item.id}`, { token });
    await sleep(Date.parse(item.expires_at) - Date.now() + 20);
    await node.problem(404, 'not_found', 'GET', `/v1/memories/${item.id}`, { token });
    await node.problem(404, 'not_found', 'GET', `/v1/memories/${item.id}/history`, { token });
    const found = await node.want(200, 'POST', '/v1/memories/search', { token, body: { query: 'quokka' } });
    assert.deepEqual(found.data.map(({ text }) => text), ['the lasting quokka']);
    const { data } = await node.want(200, 'GET', '/v1/memories', { token });
    assert.equal(data.length, 1);
    await eventually('the log has the deletion', async () =>
      (await entries('awake')).some(({ action }) => action === 'memory.expire'));
  });

  test('a ttl can be prolonged and taken away', async () => {
    const token = await node.token('awake', 'bob');
    const make = () => node.want(201, 'POST', '/v1/memories', { token, body: { text: 'x', ttl_seconds: 2 } });
    const [longer, endless, gone] = [await make(), await make(), await make()];
    await node.want(200, 'PATCH', `/v1/memories/${longer.id}`, { token, body: { ttl_seconds: 600 } });
    await node.want(200, 'PATCH', `/v1/memories/${endless.id}`, { token, body: { ttl_seconds: null } });
    await sleep(Date.parse(gone.expires_at) - Date.now() + 50);
    const { data } = await node.want(200, 'GET', '/v1/memories', { token });
    assert.deepEqual(data.map(({ id }) => id).sort(), [longer.id, endless.id].sort());
  });

  test('a parked tenant is woken to delete on time, with nobody asking', async () => {
    const token = await node.token('parked', 'ada');
    const item = await node.want(201, 'POST', '/v1/memories',
                                 { token, body: { text: 'gone while parked', ttl_seconds: 4 } });
    await node.awaitParked('parked');
    assert.ok(Date.now() < Date.parse(item.expires_at), 'it parked before the item was due');
    await sleep(Date.parse(item.expires_at) - Date.now() + 2500);
    const asked = new Date();
    const expired = (await entries('parked')).filter(({ action }) => action === 'memory.expire');
    assert.equal(expired.length, 1);
    assert.equal(expired[0].count, 1);
    assert.ok(new Date(expired[0].time) < asked, 'deleted before anybody looked');
    assert.ok(new Date(expired[0].time) - Date.parse(item.expires_at) < 2400, 'and on time');
    await node.problem(404, 'not_found', 'GET', `/v1/memories/${item.id}`, { token });
  });

  test('a tenant\'s retention bounds the life of every item', async () => {
    await node.createTenant('keeper', '--retention', '30');
    const token = await node.token('keeper', 'ada');
    const days = 24 * 3600 * 1000;
    const life = ({ created_at: from, expires_at: to }) => Date.parse(to) - Date.parse(from);
    const add = (body) => node.want(201, 'POST', '/v1/memories', { token, body });
    assert.equal(life(await add({ text: 'no ttl' })), 30 * days);
    assert.equal(life(await add({ text: 'longer', ttl_seconds: 3600 * 24 * 365 })), 30 * days);
    assert.equal(life(await add({ text: 'shorter', ttl_seconds: 60 })), 60000);
    assert.equal((await node.want(200, 'GET', '/v1/tenant', { token })).posture.retention_days, 30);
  });
});
