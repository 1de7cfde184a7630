// model: random operations on documents, objects and memories against a plain model in memory, with kill -9 in the
// middle of them and a data key that is rotated meanwhile. Whatever was acknowledged holds; whatever was not happened
// whole or not at all; an Idempotency-Key answers the same for ever.
//   BULKHEAD_CRASH_ROUNDS  how many (40)      BULKHEAD_SEED  the order of things, printed
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import { after, before, test } from 'node:test';

import { Node, eventually, sleep } from '../e2e/harness.mjs';
import { EVERY_SCOPE, auditOf, randomFrom } from '../attack/support.mjs';

const rounds = Math.ceil(Number(process.env.BULKHEAD_CRASH_ROUNDS ?? 40) / 4);
const seed = Number(process.env.BULKHEAD_SEED ?? Date.now() % 1000000), random = randomFrom(seed);
const KEYS = 12, ACTORS = 2;
const node = new Node({ config: { idle_seconds: 1, blank_cells: 3 } });
const tenants = ['acme', 'bolt'].map((name) => ({ name }));

before(async () => {
  console.log(`# seed ${seed}, ${rounds} rounds`);
  await node.start();
  for (const tenant of tenants) {
    tenant.id = (await node.createBusyTenant(tenant.name)).id;
    tenant.token = await node.token(tenant.name, 'ada', { scope: EVERY_SCOPE, ttl: '4h' });
  }
});
after(() => node.destroy());

// What may be stored under a name: one value when the last change was acknowledged, several when one was not. A value
// is the text of it, or null where nothing is.
class Slot {
  constructor() {
    this.possible = new Set([null]);
  }

  // The change is tried; `known` yields true (done), false (refused: nothing happened), or throws (who knows).
  async change(value, attempt) {
    const before_ = new Set(this.possible);
    this.possible.add(value);
    if (await attempt()) this.possible = new Set([value]);
    else this.possible = before_;
  }
}

const word = (number) => `w${number.toString(36)}x`;
const bytesOf = (value) => Buffer.alloc(20000 + (value.length * 977) % 150000, `${value} `);

class Actor {
  constructor(tenant, number) {
    this.tenant = tenant;
    this.number = number;
    this.documents = Array.from({ length: KEYS }, () => new Slot());
    this.objects = Array.from({ length: KEYS }, () => new Slot());
    this.memories = []; // {key, text, id}: id once it is known
    this.serial = 0;
  }

  name(i) {
    return `a${this.number}-${i}`;
  }

  async ask(method, target, options = {}) {
    const answer = await node.http(method, target, { token: this.tenant.token, timeout: 20000, ...options });
    if (answer.status >= 500 || answer.status === 408) throw new Error(`${answer.status} ${answer.text}`);
    return answer;
  }

  async putDocument(i) {
    const value = word(this.tenant.serial = (this.tenant.serial ?? 0) + 1) + word(random(1 << 30));
    const text = `${value}. ${'A sentence of it. '.repeat(random(400))}`;
    await this.documents[i].change(text, async () => {
      const { status } = await this.ask('PUT', `/v1/documents/${this.name(i)}`, { body: { text } });
      assert.ok([200, 201].includes(status), status);
      return true;
    });
  }

  async deleteDocument(i) {
    await this.documents[i].change(null, async () => {
      assert.ok([204, 404].includes((await this.ask('DELETE', `/v1/documents/${this.name(i)}`)).status));
      return true;
    });
  }

  async putObject(i) {
    const value = `${word(random(1 << 30))}${'.'.repeat(random(60))}`;
    await this.objects[i].change(value, async () => {
      const { status } = await this.ask('PUT', `/v1/objects/of/${this.name(i)}`,
        { body: bytesOf(value), headers: { 'content-type': 'application/octet-stream' } });
      assert.ok([200, 201].includes(status), status);
      return true;
    });
  }

  async deleteObject(i) {
    await this.objects[i].change(null, async () => {
      assert.ok([204, 404].includes((await this.ask('DELETE', `/v1/objects/of/${this.name(i)}`)).status));
      return true;
    });
  }

  // With a key of its own, until it is known: however often it is asked, there is one memory.
  async remember() {
    const memory = { key: crypto.randomUUID(), text: `memory ${this.name(this.serial++)} ${word(random(1 << 30))}` };
    this.memories.push(memory);
    await this.repeat(memory);
  }

  async repeat(memory) {
    const { status, body, text } = await this.ask('POST', '/v1/memories',
      { body: { text: memory.text }, headers: { 'idempotency-key': memory.key } });
    assert.equal(status, 201, text);
    assert.equal(body.text, memory.text);
    memory.id ??= body.id;
    assert.equal(body.id, memory.id, 'a key that made two');
  }

  async step() {
    const i = random(KEYS);
    const steps = [() => this.putDocument(i), () => this.putDocument(i), () => this.deleteDocument(i),
                   () => this.putObject(i), () => this.putObject(i), () => this.deleteObject(i),
                   () => this.remember(),
                   () => this.memories.length && this.repeat(this.memories[random(this.memories.length)])];
    await steps[random(steps.length)]();
  }

  async run(load) {
    while (!load.over) {
      try {
        await this.step();
        load.done++;
      } catch (error) {
        if (error instanceof assert.AssertionError) throw error;
        await sleep(5);
      }
    }
  }

  async stored(target, status, read) {
    return eventually(`${this.tenant.name} answers`, async () => {
      const answer = await fetch(node.url + target, { headers: { authorization: `Bearer ${this.tenant.token}` },
                                                      signal: AbortSignal.timeout(20000) });
      if (answer.status >= 500) throw new Error(`${answer.status} ${await answer.text()}`);
      if (answer.status === 404) {
        await answer.arrayBuffer();
        return { value: null };
      }
      assert.equal(answer.status, status);
      return { value: await read(answer) };
    }, { within: 30000, every: 20 });
  }

  async check() {
    for (let i = 0; i < KEYS; i++) {
      const document = await this.stored(`/v1/documents/${this.name(i)}`, 200, async (one) => (await one.json()).text);
      const { possible } = this.documents[i];
      assert.ok(possible.has(document.value), `document ${this.name(i)}: ${String(document.value).slice(0, 60)}`);
      const object = await this.stored(`/v1/objects/of/${this.name(i)}`, 200, async (one) => Buffer.from(await one.arrayBuffer()));
      const known = [...this.objects[i].possible];
      assert.ok(known.some((value) => (value === null ? object.value === null
        : object.value !== null && object.value.equals(bytesOf(value)))), `object ${this.name(i)}`);
    }
    for (const memory of this.memories.slice(-20)) {
      await eventually('the key is answered', async () => {
        try {
          await this.repeat(memory);
          return true;
        } catch (error) {
          if (error instanceof assert.AssertionError) throw error;
          return false;
        }
      }, { within: 30000, every: 20 });
    }
  }
}

const killings = {
  cell: async () => killOne((await eventually('status', () => node.status())).cells),
  gateway: async () => killOne(await services(/^gateway/)),
  kms: async () => killOne(await services(/^kms$/)),
  control: async () => killOne(await services(/^control$/)),
  'the whole node': async () => {
    await node.crash();
    await node.start();
  },
};
const weights = ['cell', 'cell', 'cell', 'gateway', 'kms', 'control', 'the whole node'];

async function services(pattern) {
  return (await eventually('status', () => node.status())).services.filter(({ name }) => pattern.test(name));
}

async function killOne(candidates) {
  if (candidates.length === 0) return;
  try {
    await node.kill(candidates[random(candidates.length)].pid);
  } catch (error) {
    if (error.code !== 'ESRCH' && !/is no process of this node/.test(error.message)) throw error;
  }
}

const actors = tenants.flatMap((tenant) => Array.from({ length: ACTORS }, (_, i) => new Actor(tenant, i)));

test(`${rounds} rounds of random operations and kill -9 agree with the model`, { timeout: 2 * 3600 * 1000 }, async () => {
  let done = 0;
  for (let round = 0; round < rounds; round++) {
    const load = { over: false, done: 0 };
    const running = actors.map((actor) => actor.run(load));
    const victim = weights[random(weights.length)];
    try {
      if (round % 3 === 1) await node.cli('tenant', 'update', tenants[random(tenants.length)].name, '--rotate-dek');
      await sleep(50 + random(400));
      await killings[victim]();
      await sleep(random(200));
    } finally {
      load.over = true;
      await Promise.all(running);
    }
    done += load.done;
    try {
      for (const actor of actors) await actor.check();
    } catch (error) {
      error.message = `round ${round}, ${victim}, seed ${seed}: ${error.message}`;
      throw error;
    }
  }
  console.log(`# ${done} operations acknowledged`);
  assert.ok(done >= rounds * 4, 'the load was a load');
});

test('what the model knows is listed and found, nothing else, and every silo is sound', async () => {
  await eventually('all that was killed is there again', async () =>
    (await node.status()).services.every(({ state }) => state === 'serving'));
  for (const tenant of tenants) {
    const of = actors.filter((actor) => actor.tenant === tenant);
    const listed = new Set((await node.want(200, 'GET', '/v1/documents?limit=500', { token: tenant.token })).data.map(({ id }) => id));
    for (const actor of of) {
      for (const [i, { possible }] of actor.documents.entries()) {
        if (possible.size > 1) continue;
        const [text] = possible;
        assert.equal(listed.has(actor.name(i)), text !== null, actor.name(i));
        if (text === null) continue;
        const { data } = await node.want(200, 'POST', '/v1/search',
                                         { token: tenant.token, body: { query: text.slice(0, text.indexOf('.')) } });
        assert.equal(data[0]?.document_id, actor.name(i), 'its word finds it');
      }
    }
    const known = of.flatMap((actor) => actor.memories.filter(({ id }) => id));
    const added = (await auditOf(node, tenant.name)).filter(({ action, code }) => action === 'memory.add' && code === 'ok');
    assert.ok(added.length >= known.length);
    const { report } = await node.json('tenant', 'check', tenant.name);
    assert.equal(report.ok, true, JSON.stringify(report));
  }
});
