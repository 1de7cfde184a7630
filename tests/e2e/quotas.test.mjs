// Quotas and region of a tenant, on a running node: never exceeded by requests in parallel, told with their name
// and Retry-After, changed without a restart, and no way to flood the audit log.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { checkProblem, eventually, nodeOfSuite, sleep } from './harness.mjs';

const TEXT = 'a text of sixty thousand bytes. '.repeat(1875);

describe('quotas', () => {
  const node = nodeOfSuite({ before, after }, { tenants: ['neighbour'], config: { idle_seconds: 4 } });
  const tokens = {};

  async function tenant(name, ...quotas) {
    await node.createTenant(name, ...quotas.flatMap((quota) => ['--quota', quota]));
    for (const user of ['ada', 'bob'])
      tokens[`${name}/${user}`] = await node.token(name, user, { scope: 'memory:read memory:write tenant:read' });
  }
  const token = (name, user = 'ada') => tokens[`${name}/${user}`];
  const list = (name, user) => node.http('GET', '/v1/memories?limit=1', { token: token(name, user) });
  const add = (name, text) =>
    node.http('POST', '/v1/memories', { token: token(name), body: { text } });
  const own = (name) => node.want(200, 'GET', '/v1/tenant', { token: token(name) });

  // How many passed; each refusal must be a whole 429 that names the quota.
  function tally(answers, quota) {
    for (const answer of answers.filter(({ status }) => status === 429)) {
      checkProblem(answer, 429, 'quota_exceeded');
      assert.match(answer.body.detail, new RegExp(`^${quota}: at most \\d+`));
      assert.match(answer.headers.get('retry-after'), /^[1-9]\d*$/);
    }
    assert.ok(answers.every(({ status }) => [200, 201, 429].includes(status)),
              `statuses ${[...new Set(answers.map(({ status }) => status))]}`);
    return answers.filter(({ status }) => status !== 429).length;
  }

  test('in a second pass as many as the quota says, however many come at once', async () => {
    await tenant('hasty', 'requests_per_second=10');
    await list('hasty'); // awake
    await sleep(1100);   // and the second's worth is whole again
    const since = performance.now();
    const passed = tally(await Promise.all(Array.from({ length: 80 }, () => list('hasty'))),
                         'requests_per_second');
    const seconds = (performance.now() - since) / 1000;
    assert.ok(passed >= 10, `${passed} passed`);
    assert.ok(passed <= 10 + Math.ceil(10 * seconds), `${passed} passed in ${seconds} s`);
    await eventually('a second later some pass again', async () => (await list('hasty')).status === 200);
  });

  test('a user who floods takes nothing from another', async () => {
    await tenant('shared', 'user_requests_per_second=5');
    await list('shared');
    const flood = Promise.all(Array.from({ length: 60 }, () => list('shared', 'ada')));
    for (let i = 0; i < 5; i++) assert.equal((await list('shared', 'bob')).status, 200);
    assert.ok(tally(await flood, 'user_requests_per_second') < 60);
  });

  // An upload that has begun and not ended; yields what ends it and yields its status.
  function upload(name) {
    return new Promise((resolve, reject) => {
      const request = http.request(`${node.url}/v1/memories`, {
        method: 'POST', agent: false,
        headers: { authorization: `Bearer ${token(name)}`, 'content-type': 'application/json' },
      });
      const answered = new Promise((done) => request.on('response', (response) => {
        response.resume();
        response.on('end', () => done(response.statusCode));
      }));
      request.on('error', reject);
      // more than one fragment: before that, a gateway troubles no cell
      request.write(`{"text":"${TEXT}`, () => resolve(() => { request.end('"}'); return answered; }));
    });
  }

  test('what is in flight is counted from the first byte to the answer', async () => {
    await tenant('busy', 'concurrent_requests=3');
    await list('busy');
    const ends = await Promise.all([upload('busy'), upload('busy'), upload('busy')]);
    const refused = await eventually('the slots are taken', async () => {
      const answer = await list('busy');
      return answer.status === 429 && answer;
    });
    checkProblem(refused, 429, 'quota_exceeded');
    assert.match(refused.body.detail, /^concurrent_requests: at most 3/);
    assert.equal((await node.http('GET', '/v1/memories', { token: await node.token('neighbour') })).status, 200);
    assert.equal(await ends[0](), 201);
    assert.equal((await list('busy')).status, 200);
    assert.equal(await ends[1](), 201);
    assert.equal(await ends[2](), 201);
  });

  test('a silo does not grow beyond its bytes, also when many add at once; deleting makes room', async () => {
    const quota = 2 * 2 ** 20;
    await tenant('full', `bytes_stored=${quota}`);
    const answers = await Promise.all(Array.from({ length: 60 }, () => add('full', TEXT)));
    const passed = tally(answers, 'bytes_stored');
    assert.ok(passed > 5 && passed < 60, `${passed} passed`);
    const { usage } = await own('full');
    assert.ok(usage.bytes_stored < quota + 60 * 2 * TEXT.length, `${usage.bytes_stored} bytes`);
    assert.equal((await add('full', 'small')).status, 429);
    let stored = 0;
    for (;; stored++) {
      const { data } = await node.want(200, 'GET', '/v1/memories?limit=1', { token: token('full') });
      if (data.length === 0) break;
      await node.want(204, 'DELETE', `/v1/memories/${data[0].id}`, { token: token('full') });
    }
    assert.equal(stored, passed);
    await eventually('what was deleted is not counted any more',
                     async () => (await add('full', 'small')).status === 201);
  });

  test('a quota that is changed is in force for the next request, in the same cell', async () => {
    await tenant('moving');
    assert.equal(tally(await Promise.all(Array.from({ length: 30 }, () => list('moving'))), 'none'), 30);
    const { id } = await node.tenant('moving');
    const { pid } = await node.cell(id);
    await node.ok('tenant', 'update', 'moving', '--quota', 'requests_per_second=2');
    // the cell had been told before the command ended
    const passed = tally(await Promise.all(Array.from({ length: 30 }, () => list('moving'))),
                         'requests_per_second');
    assert.ok(passed < 30, `${passed} passed`);
    await node.ok('tenant', 'update', 'moving', '--quota', 'requests_per_second=0');
    await eventually('it is lifted', async () => {
      const answers = await Promise.all(Array.from({ length: 30 }, () => list('moving')));
      return answers.every(({ status }) => status === 200);
    });
    assert.equal((await node.cell(id)).pid, pid);
    const { posture, charter_sequence: sequence } = await own('moving');
    assert.equal(posture.quotas.requests_per_second, 0);
    assert.equal(sequence, 3);
  });

  test('a flood of refusals is a few entries that count them', async () => {
    await tenant('noisy', 'bytes_stored=1');
    await add('noisy', 'the first goes in: an empty silo holds nothing');
    const since = performance.now();
    let refused = 0;
    for (let round = 0; round < 10; round++) {
      const answers = await Promise.all(Array.from({ length: 40 }, () => add('noisy', 'more')));
      refused += answers.filter(({ status }) => status === 429).length;
    }
    const seconds = (performance.now() - since) / 1000;
    assert.equal(refused, 400);
    await node.awaitParked('noisy', 40000);
    const file = path.join(node.directory, 'noisy.export');
    await node.ok('audit', 'export', 'noisy', '-o', file);
    await node.ok('audit', 'verify', file);
    const entries = fs.readFileSync(file, 'utf8').split('\n').filter(Boolean).map(JSON.parse)
      .map((line) => line.entry ?? line).map((entry) => typeof entry === 'string' ? JSON.parse(entry) : entry)
      .filter(({ action }) => action === 'quota.bytes_stored');
    assert.ok(entries.length >= 1 && entries.length <= seconds + 2, `${entries.length} in ${seconds} s`);
    for (const entry of entries)
      assert.deepEqual([entry.decision, entry.code, entry.subject], ['deny', 'quota_exceeded', 'ada']);
    assert.equal(entries.reduce((sum, { count }) => sum + count, 0), refused);
  });
});

describe('region', () => {
  const node = nodeOfSuite({ before, after }, { args: ['--region', 'eu-central'] });

  test('a tenant of another region is served there only, and only its own callers are told', async () => {
    await node.createTenant('here', '--region', 'eu-central');
    await node.createTenant('there', '--region', 'us-east');
    await node.createTenant('anywhere');
    const token = {};
    for (const name of ['here', 'there', 'anywhere']) token[name] = await node.token(name);
    await node.want(200, 'GET', '/v1/memories', { token: token.here });
    await node.want(200, 'GET', '/v1/memories', { token: token.anywhere });
    await node.problem(421, 'wrong_region', 'GET', '/v1/memories', { token: token.there });
    await node.problem(401, 'unauthenticated', 'GET', '/v1/memories', { token: `${token.there}x` });
    await node.ok('tenant', 'update', 'there', '--region', 'eu-central');
    await eventually('it has moved here', async () =>
      (await node.http('GET', '/v1/memories', { token: token.there })).status === 200);
  });
});
