// What an operator and a second client see: health, metrics, traces, status, curl.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { nodeOfSuite, run, startNode } from './harness.mjs';

describe('operations', () => {
  const node = nodeOfSuite({ before, after }, { tenants: ['acme'] });
  const marker = 'content-that-is-nobodys-business';
  let token;
  before(async () => {
    token = await node.token('acme', 'ada');
    await node.want(201, 'POST', '/v1/memories', { token, body: { text: marker } });
  });
  const ops = (target) => node.http('GET', target, { base: node.opsUrl });

  test('the operations listener answers health and readiness', async () => {
    for (const target of ['/healthz', '/readyz']) assert.equal((await ops(target)).status, 200, target);
    assert.equal((await ops('/nothing')).status, 404);
    assert.equal((await ops('/v1/memories')).status, 404, 'no tenant\'s path here');
  });

  test('operations and tenants do not share a listener', async () => {
    for (const target of ['/healthz', '/readyz', '/metrics'])
      assert.ok([401, 404].includes((await node.http('GET', target)).status), target);
  });

  test('metrics are in the format of Prometheus, count requests, and hold no content and no name', async () => {
    const sum = (text) => [...text.matchAll(/^bulkhead_\w*requests\w*(?:\{[^}]*\})? (\d+)/gm)]
      .reduce((total, match) => total + Number(match[1]), 0);
    const before_ = await ops('/metrics');
    assert.equal(before_.status, 200);
    assert.match(before_.type, /^text\/plain/);
    for (const line of before_.text.trim().split('\n'))
      assert.match(line, /^(# (HELP|TYPE) \w+ .+|[a-zA-Z_:][\w:]*(\{[^}]*\})? (NaN|[+-]?Inf|[-+.\deE]+))$/, line);
    for (let i = 0; i < 5; i++) await node.want(200, 'GET', '/v1/memories', { token });
    const after_ = await ops('/metrics');
    assert.ok(sum(after_.text) >= sum(before_.text) + 5, after_.text);
    const gauge = (name) => Number(new RegExp(`^${name} (\\d+)$`, 'm').exec(after_.text)?.[1]);
    assert.equal(gauge('bulkhead_cells_awake'), 1);
    assert.ok(gauge('bulkhead_blanks_ready') >= 1);
    assert.ok(gauge('bulkhead_wakes_total') >= 1);
    const labels = (metric) => [...after_.text.matchAll(new RegExp(`^${metric}\\{([^}]*)\\} (\\d+)$`, 'gm'))]
      .map(([, words, count]) => [words, Number(count)]);
    const exact = Object.fromEntries(labels('bulkhead_requests_total'));
    assert.equal(exact['action="memory.add",status="201"'], 1);
    assert.ok(exact['action="memory.list",status="200"'] >= 5);
    const ids = Object.fromEntries(labels('bulkhead_tenant_requests_total'));
    assert.ok(ids[`tenant="${node.tenants.acme.id}",status="2xx"`] >= 6, 'by id');
    for (const queue of ['lookup', 'wake', 'cells', 'control'])
      assert.equal(Object.fromEntries(labels('bulkhead_queue_depth'))[`queue="${queue}"`], 0, queue);
    for (const word of [marker, 'acme', 'ada"']) assert.ok(!after_.text.includes(word), word);
  });

  test('a client\'s trace is continued, in answers, errors and the audit log', async () => {
    const trace = '4bf92f3577b34da6a3ce929d0e0e4736';
    const headers = { traceparent: `00-${trace}-00f067aa0ba902b7-01` };
    const good = await node.http('GET', '/v1/memories', { token, headers });
    assert.match(good.headers.get('traceparent'), new RegExp(`^00-${trace}-[0-9a-f]{16}-01$`));
    assert.notEqual(good.headers.get('traceparent').slice(36, 52), '00f067aa0ba902b7', 'a span of its own');
    const bad = await node.problem(401, 'unauthenticated', 'GET', '/v1/memories', { headers });
    assert.equal(bad.body.trace_id, trace);
    const later = 'a'.repeat(31) + 'b'; // of a version that is still to come
    await node.want(201, 'POST', '/v1/memories', {
      token, body: { text: marker }, headers: { traceparent: `01-${later}-00f067aa0ba902b7-01-more` } });
    const log = await node.ok('audit', 'export', 'acme');
    for (const one of [trace, later]) assert.ok(log.includes(`"trace_id":"${one}"`), one);
  });

  test('a trace that is none is replaced, never repeated', async () => {
    for (const traceparent of ['00-0-0-0', `00-${'0'.repeat(32)}-00f067aa0ba902b7-01`, 'x'.repeat(200),
                               `ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`,
                               `00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01`,
                               `00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01`,
                               `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more`]) {
      const answer = await node.http('GET', '/v1/memories', { token, headers: { traceparent } });
      assert.equal(answer.status, 200);
      const mine = answer.headers.get('traceparent');
      assert.match(mine, /^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/);
      assert.ok(!traceparent.toLowerCase().includes(mine.slice(3, 35)));
    }
  });

  test('status tells of every process the jail that the kernel confirms', async () => {
    const status = await node.status();
    assert.equal(typeof status.version, 'string');
    assert.equal(status.listen, `127.0.0.1:${node.port}`);
    assert.match(status.key_store_promise, /overwritten/);
    const names = status.services.map(({ name }) => name);
    for (const name of ['kms', 'control']) assert.ok(names.includes(name), name);
    assert.ok(names.some((name) => name.startsWith('gateway')));
    for (const { name, pid, state, jail_state: jail_state, jail } of [...status.services, ...status.cells]) {
      assert.equal(state, 'serving', name);
      assert.equal(jail_state, 'verified', name);
      const kernel = fs.readFileSync(`/proc/${pid}/status`, 'utf8');
      const line = (field) => new RegExp(`^${field}:\\s+(.+)$`, 'm').exec(kernel)[1];
      assert.equal(line('NoNewPrivs'), '1', name);
      assert.equal(line('Seccomp'), '2', name);
      assert.match(line('CapEff'), /^0+$/, name);
      assert.equal(Number(line('Uid').split('\t')[0]), jail.uid, name);
      assert.ok(jail.seccomp_filters >= 1 && /^ABI [1-9]/.test(jail.landlock), name);
    }
    const text = await node.ok('status');
    assert.match(text, /kms .*verified.*landlock ABI \d+ \(probed\), seccomp filters 2/);
  });

  test('nothing that leaves a cell as log holds content or a token', () => {
    const log = node.logText();
    assert.ok(!log.includes(marker) && !log.includes(token));
    assert.ok(!log.includes('ERROR') && !log.includes('"error"'), log);
  });

  test('curl is served like any client', async () => {
    const curl = async (...args) => {
      const { code, stdout, stderr } = await run('curl', ['-sS', '-i', '--max-time', '20', ...args]);
      assert.equal(code, 0, stderr);
      const [head, ...rest] = stdout.split('\r\n\r\n');
      return { status: Number(head.split(' ')[1]), head, body: rest.join('\r\n\r\n') };
    };
    const bearer = ['-H', `Authorization: Bearer ${token}`];
    const json = ['-H', 'Content-Type: application/json'];
    const made = await curl(...bearer, ...json, '-d', '{"text":"from curl"}', `${node.url}/v1/memories`);
    assert.equal(made.status, 201, made.body);
    const { id } = JSON.parse(made.body);
    const read = await curl(...bearer, `${node.url}/v1/memories/${id}`);
    assert.equal(JSON.parse(read.body).text, 'from curl');
    const chunked = await curl(...bearer, ...json, '-H', 'Transfer-Encoding: chunked', '-d', '{"text":"in chunks"}',
                               `${node.url}/v1/memories`);
    assert.equal(chunked.status, 201, chunked.body);
    const large = JSON.stringify({ text: 'y'.repeat(60000) });
    const expect = await curl(...bearer, ...json, '-H', 'Expect: 100-continue', '-d', large,
                              `${node.url}/v1/memories`);
    assert.match(expect.head + expect.body, /201/);
    const gone = await curl(...bearer, '-X', 'DELETE', `${node.url}/v1/memories/${id}`);
    assert.equal(gone.status, 204);
    assert.equal(gone.body, '');
    const old = await curl('--http1.0', ...bearer, `${node.url}/v1/memories`);
    assert.ok([200, 400, 505].includes(old.status), old.head);
    const two = await curl(...bearer, `${node.url}/v1/memories?limit=1`, '--next', '-sS', '-i', ...bearer,
                           `${node.url}/v1/memories?limit=2`);
    assert.match(two.body, /HTTP\/1.1 200/, 'one connection, two requests');
  });
});

test('tenant labels can be switched off', async (t) => {
  const node = await startNode(t, { config: { tenant_labels: false } });
  const { id } = await node.createTenant('acme');
  await node.want(200, 'GET', '/v1/memories', { token: await node.token('acme', 'ada') });
  const { text } = await node.http('GET', '/metrics', { base: node.opsUrl });
  assert.match(text, /^bulkhead_requests_total\{action="memory.list",status="200"\} 1$/m);
  assert.ok(!text.includes(id) && !text.includes('tenant='));
});
