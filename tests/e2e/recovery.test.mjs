// Any process of a node may die at any moment: clients see 503 with Retry-After at most, then all is well.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { eventually, nodeOfSuite, sleep } from './harness.mjs';

describe('recovery', () => {
  const node = nodeOfSuite({ before, after }, { tenants: ['acme', 'globex'] });
  let token, other, item;
  before(async () => {
    token = await node.token('acme', 'ada');
    other = await node.token('globex', 'ada');
    item = await node.want(201, 'POST', '/v1/memories', { token, body: { text: 'survives' } });
    await node.want(200, 'GET', '/v1/memories', { token: other });
  });

  // Asks all the while; between the kill and health only 503 with Retry-After is allowed, and for a dead
  // gateway its broken connections.
  const askUntilWell = async (mayBreak) => {
    let well = 0, refusals = 0;
    await eventually('the node is well again', async () => {
      let answer;
      try {
        answer = await node.http('GET', `/v1/memories/${item.id}`, { token });
      } catch (error) {
        assert.ok(mayBreak, `a connection broke: ${error.cause ?? error}`);
        well = 0;
        return false;
      }
      if (answer.status === 503) {
        assert.equal(answer.body.code, 'unavailable');
        assert.match(answer.headers.get('retry-after') ?? '', /^\d+$/);
        well = 0;
        refusals++;
      } else {
        assert.equal(answer.status, 200, answer.text);
        assert.deepEqual(answer.body, item);
        well++;
      }
      return well >= 5;
    }, { within: 20000, every: 20 });
    return refusals;
  };

  const wholeAgain = async () => {
    const fresh = await eventually('tokens are minted', () => node.token('acme', 'ada'));
    const made = await node.want(201, 'POST', '/v1/memories', { token: fresh, body: { text: 'after' } });
    await node.want(204, 'DELETE', `/v1/memories/${made.id}`, { token: fresh });
    await eventually('every jail is verified', async () => {
      const { services, cells } = await node.status();
      return [...services, ...cells].every(({ jail_state: jail }) => jail === 'verified');
    });
  };

  for (const name of ['kms', 'control'])
    test(`kill -9 of ${name}: started again, and nothing is lost`, async () => {
      const { pid, restarts } = await node.service(name);
      await node.kill(pid);
      await askUntilWell(false);
      const now = await eventually(`${name} is back`, async () => {
        const service = await node.service(name);
        return service?.state === 'serving' && service;
      });
      assert.notEqual(now.pid, pid);
      assert.equal(now.restarts, restarts + 1);
      await wholeAgain();
      await node.want(200, 'GET', '/v1/memories', { token: other });
    });

  test('kill -9 of every gateway in turn: new connections are served', async () => {
    const gateways = (await node.status()).services.filter(({ name }) => name.startsWith('gateway'));
    assert.ok(gateways.length >= 1);
    for (const { name, pid } of gateways) {
      await node.kill(pid);
      await askUntilWell(true);
      await eventually(`${name} is back`, async () => (await node.service(name))?.state === 'serving');
    }
    await wholeAgain();
  });

  test('kill -9 of a cell: the next request wakes another, with all that was answered', async () => {
    const { id } = node.tenants.acme;
    for (let round = 0; round < 3; round++) {
      const made = await node.want(201, 'POST', '/v1/memories', { token, body: { text: `round ${round}` } });
      const { pid } = await node.cell(id);
      await node.kill(pid);
      await askUntilWell(false);
      assert.notEqual((await node.cell(id)).pid, pid);
      assert.deepEqual(await node.want(200, 'GET', `/v1/memories/${made.id}`, { token }), made);
    }
  });

  test('the death of one tenant\'s cell is not noticed by another', async () => {
    await node.want(200, 'GET', '/v1/memories', { token: other });
    const { pid } = await node.cell(node.tenants.acme.id);
    let asked = 0, done = false;
    const neighbour = (async () => {
      while (!done) {
        await node.want(200, 'GET', '/v1/memories', { token: other });
        asked++;
      }
    })();
    await sleep(50);
    await node.kill(pid);
    await askUntilWell(false);
    done = true;
    await neighbour;
    assert.ok(asked > 3);
  });

  test('writes that race a dying cell are either answered and kept, or not answered as done', async () => {
    const { id } = node.tenants.acme;
    const writer = await node.token('acme', 'racer');
    const acknowledged = [];
    const writing = Promise.all(Array.from({ length: 4 }, async (_, lane) => {
      for (let i = 0; i < 25; i++) {
        const answer = await node.http('POST', '/v1/memories', { token: writer, body: { text: `${lane}-${i}` } });
        if (answer.status === 201) acknowledged.push(answer.body.id);
        else assert.equal(answer.status, 503, answer.text);
      }
    }));
    for (let i = 0; i < 3; i++) {
      await sleep(15);
      const cell = await node.cell(id);
      if (cell) await node.kill(cell.pid).catch(() => {});
    }
    await writing;
    await askUntilWell(false);
    const { data } = await node.want(200, 'GET', '/v1/memories?limit=500', { token: writer });
    const kept = new Set(data.map((each) => each.id));
    for (const each of acknowledged) assert.ok(kept.has(each), `${each} was answered with 201 and is gone`);
  });
});
