// Every error that docs/api/openapi.yaml documents for an operation, provoked at a running node: right
// status, documented code, whole problem document, documented headers.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { eventually, nodeOfSuite } from './harness.mjs';
import { faultOf, follow, operations } from './openapi.mjs';

// 507 needs a full disk: tests/attack/full.test.mjs. 500 is the damaged item below, of the reads that meet it.
const ELSEWHERE = new Set(['500', '507']);
const BODIES = {
  'memory.add': { text: 'a' }, 'memory.update': { text: 'b' }, 'memory.search': { query: 'a' },
  'knowledge.put': { text: 'a' }, 'knowledge.search': { query: 'a' },
  'audit.hash': { text: 'a' }, 'object.put': 'bytes',
};
const QUERIES = {
  'memory.forget_user': '?user_id=ada', 'audit.proof': '?index=0', 'audit.consistency': '?from=0',
};
const ABSENT = '0'.repeat(26);
const bodied = operations.filter(({ requestBody }) => requestBody?.content['application/json']);
const BODY_MAX = { 'knowledge.put': 6 * 1024 * 1024 };
const streamed = operations.filter(({ requestBody }) => requestBody && !requestBody.content['application/json']);
const ofTenants = operations.filter(({ path: path_ }) => !path_.startsWith('/v1/routes'));
const scopeOf = ({ security }) => security[0].bearer[0];

describe('documented errors', () => {
  const node = nodeOfSuite({ before, after }, {
    tenants: ['acme', 'still'], config: { region: 'eu', idle_seconds: 600 },
  });
  const provoked = new Set();
  const every = 'memory:read memory:write knowledge:read knowledge:write tenant:read audit:read objects:read objects:write';
  let token, platform;

  function check(one, status, answer, code) {
    assert.equal(answer.status, status, `${one.operationId}: ${answer.text}`);
    const documented = follow(one.responses[status]
                              ?? assert.fail(`${one.operationId}: ${status} is not documented`));
    assert.equal(answer.type, 'application/problem+json');
    assert.equal(faultOf(documented.content[answer.type].schema, answer.body), undefined, answer.text);
    assert.ok(documented['x-codes'].includes(answer.body.code), `${one.operationId}: ${answer.body.code}`);
    if (code) assert.equal(answer.body.code, code, one.operationId);
    for (const [header, described] of Object.entries(documented.headers ?? {})) {
      const value = answer.headers.get(header);
      assert.ok(value, `${one.operationId}, ${status}: ${header}`);
      const { type } = follow(described).schema;
      if (type === 'integer') assert.match(value, /^[1-9]\d*$/, header);
    }
    provoked.add(`${one.operationId} ${status}`);
  }

  const targetOf = (one) => one.path.replace('{id}', ABSENT).replace('{key}', 'ab/sent').replace('{kind}', 'customer')
    .replace('{value}', 'nobody') + (QUERIES[one.operationId] ?? '');
  const tokenOf = (one) => (one.path.startsWith('/v1/routes') ? platform : token);
  const ask = (one, options = {}) => node.http(one.method, options.target ?? targetOf(one), {
    token: tokenOf(one), body: BODIES[one.operationId], ...options });

  // One request whose body never comes whole.
  function dribble(one) {
    const { port } = new URL(node.url);
    return new Promise((resolve, reject) => {
      let text = '';
      const socket = net.connect(Number(port), '127.0.0.1', () => socket.write(
        `${one.method} ${targetOf(one)} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${token}\r\n`
        + 'Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{'));
      socket.on('data', (piece) => { text += piece; });
      socket.on('error', reject);
      socket.on('close', () => {
        const [head, body] = text.split('\r\n\r\n');
        const lines = head.split('\r\n').slice(1).map((line) => line.split(': '));
        resolve({ status: Number(head.split(' ')[1]), text, body: JSON.parse(body),
                  type: 'application/problem+json', headers: new Headers(lines) });
      });
    });
  }

  before(async () => {
    token = await node.token('acme', 'ada', { scope: every, ttl: '1h' });
    platform = (await node.ok('token', '--platform', '--user', 'switchboard', '--scope', 'routes:read')).trim();
  });

  test('400: what is not allowed', async () => {
    for (const one of operations)
      check(one, 400, await ask(one, { target: `${targetOf(one).split('?')[0]}?colour=red` }), 'bad_field');
    const made = await node.want(201, 'POST', '/v1/memories', { token, body: { text: 'a' } });
    for (const one of bodied) {
      const headers = { 'content-type': 'application/json' };
      const target = targetOf(one).replace(ABSENT, made.id);
      check(one, 400, await ask(one, { target, body: '{', headers }), 'bad_json');
      check(one, 400, await ask(one, { target, body: { ...BODIES[one.operationId], colour: 1 } }),
            'bad_field');
    }
  });

  test('401: without a token, and with one that does not verify', async () => {
    for (const one of operations)
      for (const bad of [undefined, `${tokenOf(one).slice(0, -4)}AAAA`])
        check(one, 401, await ask(one, { token: bad }));
  });

  test('403: without the scope', async () => {
    const scopes = [...new Set(ofTenants.map(scopeOf))];
    for (const missing of scopes) {
      const left = scopes.filter((scope) => scope !== missing).join(' ');
      const less = await node.token('acme', 'ada', { scope: left });
      for (const one of ofTenants.filter((other) => scopeOf(other) === missing))
        check(one, 403, await ask(one, { token: less }), 'forbidden_scope');
    }
    for (const one of operations.filter((other) => !ofTenants.includes(other)))
      check(one, 403, await ask(one, { token }), 'forbidden_scope');
  });

  test('404: what is not there', async () => {
    for (const one of operations.filter(({ responses }) => responses[404]))
      check(one, 404, await ask(one));
  });

  test('408: a body that stands still', async () => {
    const slow = operations.filter(({ requestBody, responses }) => requestBody && responses[408]);
    const answers = await Promise.all(slow.map(dribble));
    slow.forEach((one, i) => check(one, 408, answers[i]));
  });

  test('412, 416: conditions and ranges that an object does not meet', async () => {
    const target = '/v1/objects/there';
    await node.want(201, 'PUT', target, { token, body: 'text', headers: { 'content-type': 'text/plain' } });
    for (const one of operations.filter(({ responses }) => responses[412]))
      check(one, 412, await ask(one, { target, headers: { 'if-match': '"other"' } }));
    check(operations.find(({ operationId }) => operationId === 'object.get'), 416,
          await node.http('GET', target, { token, headers: { range: 'bytes=4-' } }));
  });

  test('409: a key used for something else', async () => {
    for (const one of operations.filter(({ responses }) => responses[409])) {
      const headers = { 'idempotency-key': `one of ${one.operationId}`.replaceAll(' ', '-') };
      const first = await ask(one, { headers });
      assert.ok(first.status < 300, first.text);
      check(one, 409, await ask(one, { headers, body: { ...BODIES[one.operationId], text: 'another' } }));
    }
  });

  test('413, 415, 431: bodies and heads that are not taken', async () => {
    const headers = { 'content-type': 'application/json' };
    for (const one of bodied) {
      check(one, 413, await ask(one, { body: ' '.repeat((BODY_MAX[one.operationId] ?? 1024 * 1024) + 1), headers }));
      check(one, 415, await ask(one, { body: 'text', headers: { 'content-type': 'text/plain' } }));
    }
    for (const one of streamed.filter(({ responses }) => responses[415]))
      check(one, 415, await ask(one, { body: 'text', headers: { 'content-type': 'text/plain' } }));
    for (const one of operations)
      check(one, 431, await ask(one, { headers: { 'x-filler': 'a'.repeat(40000) } }));
  });

  test('421: a tenant of another region', async () => {
    await node.createTenant('abroad', '--region', 'us');
    const theirs = await node.token('abroad', 'ada', { scope: every });
    for (const one of ofTenants) check(one, 421, await ask(one, { token: theirs }));
  });

  test('423: a paused tenant', async () => {
    const theirs = await node.token('still', 'ada', { scope: every });
    await node.ok('tenant', 'pause', 'still');
    for (const one of ofTenants) check(one, 423, await ask(one, { token: theirs }));
  });

  test('429: over the quota', async () => {
    await node.createTenant('small', '--quota', 'requests_per_second=1');
    const theirs = await node.token('small', 'ada', { scope: every });
    for (const one of ofTenants)
      check(one, 429, await eventually(`${one.operationId} is over the quota`, async () => {
        const answer = await ask(one, { token: theirs });
        return answer.status === 429 && answer;
      }, { every: 1 }));
  });

  test('429: more questions for routes than the ledger should hold', async () => {
    const route = operations.find(({ operationId }) => operationId === 'route.read');
    const refused = await eventually('a question is one too many', async () => {
      const answers = await Promise.all(Array.from({ length: 300 }, () => ask(route)));
      for (const { status } of answers) assert.ok([404, 429].includes(status), `${status}`);
      return answers.find(({ status }) => status === 429);
    }, { every: 1 });
    check(route, 429, refused);
  });

  test('501: what this version does not have', async () => {
    for (const one of operations.filter(({ responses }) => responses[501]))
      check(one, 501, await ask(one, { body: { query: 'a', vector: [1] } }));
  });

  // Parks the tenant, gives its database to change, and lets it be woken again.
  async function damage(name, change) {
    const { id } = await node.tenant(name);
    await node.ok('tenant', 'pause', name);
    const file = path.join(node.data, 'silos', id, 'silo.db');
    const bytes = fs.readFileSync(file);
    change(bytes);
    fs.writeFileSync(file, bytes);
    await node.ok('tenant', 'resume', name);
  }

  test('500: a damaged item', async () => {
    await node.createTenant('worn');
    const theirs = await node.token('worn', 'ada', { scope: every });
    const ids = [];
    for (let i = 0; i < 60; i++)
      ids.push((await node.want(201, 'POST', '/v1/memories',
                                { token: theirs, body: { text: `${i} ${'lorem ipsum '.repeat(800)}` } })).id);
    const read = operations.find(({ operationId }) => operationId === 'memory.read');
    let broken = [];
    for (let part = 0.3; part < 0.9 && broken.length === 0; part += 0.1) {
      let at; // one page; if no item lies there, it is put back and another one is taken
      const flip = (bytes) => {
        at ??= Math.floor(bytes.length * part / 4096) * 4096 + 100;
        bytes[at] ^= 1;
      };
      await damage('worn', flip);
      const answers = await Promise.all(ids.map((one) => node.http('GET', `/v1/memories/${one}`,
                                                                   { token: theirs })));
      broken = answers.filter(({ status }) => status === 500);
      if (broken.length === 0) await damage('worn', flip);
    }
    assert.ok(broken.length > 0);
    for (const answer of broken) check(read, 500, answer);
  });

  test('503: a cell that cannot be woken', async () => {
    await node.createTenant('broken');
    const theirs = await node.token('broken', 'ada', { scope: every });
    await node.want(201, 'POST', '/v1/memories', { token: theirs, body: { text: 'a' } });
    await damage('broken', (bytes) => {
      for (let at = 100; at < bytes.length; at += 4096) bytes[at] ^= 1;
    });
    for (const one of ofTenants) check(one, 503, await ask(one, { token: theirs }));
    const route = operations.find(({ operationId }) => operationId === 'route.read');
    await node.kill((await node.service('control')).pid);
    check(route, 503, await ask(route));
  });

  test('there is no other', () => {
    const missing = operations.flatMap(({ operationId, responses }) => Object.keys(responses)
      .filter((status) => Number(status) >= 400 && !ELSEWHERE.has(status))
      .map((status) => `${operationId} ${status}`)).filter((pair) => !provoked.has(pair));
    assert.deepEqual(missing, []);
    assert.ok(provoked.has('memory.read 500'));
  });
});
