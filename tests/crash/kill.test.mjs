// kill: kill -9 of random processes under a load of writes. After each round every write that was
// acknowledged can be read, every silo opens; at the end every log verifies and has an entry for each.
//   BULKHEAD_CRASH_ROUNDS  how many (40)      BULKHEAD_SEED  the order of the victims, printed
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { Node, eventually, sleep } from '../e2e/harness.mjs';
import { EVERY_SCOPE, auditOf, randomFrom, verifyLedger } from '../attack/support.mjs';

const rounds = Number(process.env.BULKHEAD_CRASH_ROUNDS ?? 40);
const seed = Number(process.env.BULKHEAD_SEED ?? Date.now() % 1000000), random = randomFrom(seed);
const WRITERS = 6, READ_BACK = 40;
const node = new Node({ config: { idle_seconds: 1, blank_cells: 3 } });
const tenants = ['acme', 'bolt', 'corn'].map((name) => ({ name, written: new Map(), attempted: 0 }));

async function mint() {
  for (const tenant of tenants)
    tenant.token = await node.token(tenant.name, 'ada', { scope: EVERY_SCOPE, ttl: '4h' });
}

before(async () => {
  console.log(`# seed ${seed}, ${rounds} rounds`);
  await node.start();
  for (const tenant of tenants) tenant.id = (await node.createBusyTenant(tenant.name)).id;
  await mint();
});
after(() => node.destroy());

// One client: writes until it is told to stop. Only what came back as 201 counts as written.
async function write(load, number) {
  for (let i = 0; !load.over; i++) {
    const tenant = tenants[(number + i) % tenants.length];
    const text = `round ${load.round} writer ${number} note ${i} ${'abc '.repeat(i % 200)}`;
    tenant.attempted++;
    try {
      const answer = await node.http('POST', '/v1/memories',
                                     { token: tenant.token, body: { text }, timeout: 20000 });
      if (answer.status === 201) {
        assert.equal(answer.body.text, text);
        tenant.written.set(answer.body.id, text);
        load.acknowledged++;
      } else {
        assert.ok([503, 500, 408].includes(answer.status), `${answer.status} ${answer.text}`);
        await sleep(5);
      }
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
      await sleep(5); // the connection broke off: not acknowledged
    }
  }
}

const killings = {
  cell: async () => killOne((await status()).cells),
  'a cell a moment later': async () => killOne((await status()).cells, 'a moment later'),
  gateway: async () => killOne(await services(/^gateway/)),
  kms: async () => killOne(await services(/^kms$/)),
  control: async () => killOne(await services(/^control$/)),
  'kms and a cell': async () => {
    await killOne(await services(/^kms$/));
    await killings.cell();
  },
  'control and a cell': async () => {
    const { cells } = await status();
    await killOne(await services(/^control$/));
    await killOne(cells);
  },
  'the whole node': async () => {
    await node.crash();
    await node.start();
  },
};
const weights = ['cell', 'cell', 'cell', 'cell', 'a cell a moment later', 'gateway', 'gateway', 'kms', 'kms',
                 'control', 'control', 'kms and a cell', 'control and a cell', 'the whole node', 'the whole node'];

// Where control has just been killed it cannot answer at once.
const status = () => eventually('status', () => node.status());

async function services(pattern) {
  return (await status()).services.filter((service) => pattern.test(service.name));
}

async function killOne(candidates, when) {
  if (candidates.length === 0) return;
  if (when) await sleep(random(30));
  const { pid } = candidates[random(candidates.length)];
  try {
    process.kill(pid, 0);
    await node.kill(pid);
  } catch (error) {
    if (error.code !== 'ESRCH' && !/is no process of this node/.test(error.message)) throw error;
  }
}

async function readable(tenant, ids) {
  for (const id of ids) {
    const item = await eventually(`${tenant.name} answers`, async () => {
      const answer = await node.http('GET', `/v1/memories/${id}`, { token: tenant.token });
      assert.ok(answer.status === 200 || answer.status >= 500, `${id}: ${answer.status} ${answer.text}`);
      return answer.status === 200 && answer.body;
    }, { within: 30000, every: 20 });
    assert.equal(item.text, tenant.written.get(id));
  }
}

async function allIds(tenant) {
  const found = new Map();
  for (let cursor = ''; cursor !== null;) {
    const page = await node.want(200, 'GET', `/v1/memories?limit=500${cursor}`, { token: tenant.token });
    assert.equal(page.damaged, undefined);
    for (const row of page.data) found.set(row.id, row.text);
    cursor = page.next_cursor === null ? null : `&cursor=${encodeURIComponent(page.next_cursor)}`;
  }
  return found;
}

// Every tenant is served again, and of what this round wrote nothing is missing.
async function check(known) {
  for (const tenant of tenants) {
    const fresh = [...tenant.written.keys()].slice(known.get(tenant) ?? 0);
    const some = fresh.length <= READ_BACK ? fresh : fresh.slice(-READ_BACK);
    if (some.length === 0 && tenant.written.size > 0) some.push([...tenant.written.keys()].at(-1));
    await readable(tenant, some);
    await eventually(`${tenant.name} is read whole`, async () => {
      const found = await allIds(tenant);
      for (const id of fresh) assert.equal(found.get(id), tenant.written.get(id), `${id} is lost`);
      return true;
    }, { within: 10000 });
    known.set(tenant, tenant.written.size);
  }
}

test(`${rounds} rounds of kill -9 lose nothing that was acknowledged`, { timeout: 4 * 3600 * 1000 }, async () => {
  const known = new Map();
  const counts = {};
  for (let round = 0; round < rounds; round++) {
    const load = { round, over: false, acknowledged: 0 };
    const writers = Array.from({ length: WRITERS }, (_, number) => write(load, number));
    const victim = weights[random(weights.length)];
    try {
      await sleep(30 + random(250));
      await killings[victim]();
      await sleep(random(150));
    } finally {
      load.over = true;
      await Promise.all(writers);
    }
    counts[victim] = (counts[victim] ?? 0) + 1;
    try {
      await check(known);
    } catch (error) {
      error.message = `round ${round}, ${victim}, seed ${seed}: ${error.message}`;
      throw error;
    }
  }
  console.log(`# ${JSON.stringify(counts)}, written: ${tenants.map((tenant) => tenant.written.size)}`);
  assert.ok(tenants.every((tenant) => tenant.written.size >= rounds), 'the load was a load');
});

test('every write of all rounds is there, and nothing that was not asked for', async () => {
  for (const tenant of tenants) {
    const found = await allIds(tenant);
    for (const [id, text] of tenant.written) assert.equal(found.get(id), text, `${id} is lost`);
    assert.ok(found.size <= tenant.attempted);
  }
});

test('every audit log verifies and has an entry for each write; so does the ledger', async () => {
  for (const tenant of tenants) {
    const added = (await auditOf(node, tenant.name))
      .filter((entry) => entry.action === 'memory.add' && entry.code === 'ok').length;
    assert.ok(added >= tenant.written.size, `${added} entries for ${tenant.written.size} writes`);
    assert.equal(added, (await allIds(tenant)).size, 'an entry for each item, an item for each entry');
  }
  const ledger = await verifyLedger(node);
  assert.equal(ledger.filter((entry) => entry.event === 'tenant.create').length, tenants.length);
});

test('parked, started again: all of it is still there', async () => {
  await node.stop();
  await node.start();
  for (const tenant of tenants) {
    const found = await allIds(tenant);
    for (const [id, text] of tenant.written) assert.equal(found.get(id), text, `${id} is lost`);
  }
});
