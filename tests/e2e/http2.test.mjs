// HTTP/2 with the clients that people use: curl, nghttp, h2load and Node's own.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import http2 from 'node:http2';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { nodeOfSuite, run, sleep } from './harness.mjs';

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'bulkhead-http2-'));
after(() => fs.rmSync(directory, { recursive: true, force: true }));
const config = { idle_seconds: 60 };

describe('HTTP/2', () => {
  const node = nodeOfSuite({ before, after }, { config });
  let token, session;
  before(async () => {
    await node.createBusyTenant('acme');
    token = await node.token('acme');
    session = http2.connect(node.url);
    session.on('error', () => {});
  });
  after(() => session.close());

  function ask(method, target, { body, headers = {}, on = session } = {}) {
    return new Promise((resolve, reject) => {
      const stream = on.request({ ':method': method, ':path': target, authorization: `Bearer ${token}`, ...headers },
                                { endStream: body === undefined });
      const pieces = [];
      let head;
      stream.on('response', (fields) => { head = fields; });
      stream.on('data', (piece) => pieces.push(piece));
      stream.on('end', () => resolve({ status: head?.[':status'], head, text: Buffer.concat(pieces).toString() }));
      stream.on('error', reject);
      if (body !== undefined) stream.end(body);
    });
  }
  const json = { 'content-type': 'application/json' };

  test('curl by prior knowledge reads and writes', async () => {
    const file = path.join(directory, 'body.json');
    fs.writeFileSync(file, JSON.stringify({ text: 'x'.repeat(60000), metadata: { a: 'b'.repeat(12000) } }));
    const curl = (...words) => run('curl', ['-sS', '--http2-prior-knowledge', '-H', `Authorization: Bearer ${token}`,
      '-w', '\n%{http_code} %{http_version}', ...words]);
    const made = await curl('-H', 'Content-Type: application/json', '--data-binary', `@${file}`,
                            `${node.url}/v1/memories`);
    assert.match(made.stdout, /\n201 2$/, made.stderr);
    const { id } = JSON.parse(made.stdout.split('\n')[0]);
    const got = await curl(`${node.url}/v1/memories/${id}`);
    assert.match(got.stdout, /\n200 2$/, got.stderr);
    assert.equal(JSON.parse(got.stdout.split('\n')[0]).text.length, 60000);
  });

  test('curl is told 413 while it still sends', async () => {
    const file = path.join(directory, 'large');
    fs.writeFileSync(file, Buffer.alloc(3 << 20, 'x'));
    const told = await run('curl', ['-sS', '--http2-prior-knowledge', '-H', `Authorization: Bearer ${token}`,
      '-H', 'Content-Type: application/json', '--data-binary', `@${file}`, '-w', '\n%{http_code}',
      `${node.url}/v1/memories`]);
    assert.match(told.stdout, /"code":"too_large".*\n413$/s, told.stderr);
  });

  test('an upgrade from HTTP/1.1 is not made', async () => {
    const asked = await run('curl', ['-sS', '--http2', '-o', '/dev/null', '-w', '%{http_code} %{http_version}',
      '-H', `Authorization: Bearer ${token}`, `${node.url}/v1/memories`]);
    assert.equal(asked.stdout, '200 1.1', asked.stderr);
  });

  test('nghttp, and what it asks for in its own way: priorities, padding, a window of its own', async () => {
    const { code, stdout, stderr } = await run('nghttp', ['-nv', '-b', '64', '-w', '20', '-W', '20', '-m', '20',
      '-H', `authorization: Bearer ${token}`, `${node.url}/v1/memories`]);
    assert.equal(code, 0, stderr);
    assert.equal(stdout.match(/:status: 200/g)?.length, 20);
    assert.match(stdout, /SETTINGS_MAX_CONCURRENT_STREAMS\(0x03\):100/);
  });

  test('h2load: twenty thousand requests, many at once, none is lost', async () => {
    const { stdout } = await run('h2load', ['-n', '20000', '-c', '20', '-m', '50',
      '-H', `authorization: Bearer ${token}`, `${node.url}/v1/memories?limit=1`]);
    assert.match(stdout, /20000 succeeded, 0 failed, 0 errored, 0 timeout/, stdout);
    assert.match(stdout, /20000 2xx/, stdout);
  });

  test('HTTP/1.1 and HTTP/2 answer alike', async () => {
    const cases = [['GET', '/v1/memories?limit=1'], ['GET', '/nowhere'], ['PUT', '/v1/memories'],
                   ['GET', '/v1/memories?limit=x'], ['GET', '/v1/a%2fb'], ['GET', '/v1/tenant']];
    for (const [method, target] of cases) {
      const one = await node.http(method, target, { token });
      const two = await ask(method, target);
      assert.equal(two.status, one.status, `${method} ${target}`);
      for (const name of ['content-type', 'allow'])
        assert.equal(two.head[name] ?? null, one.headers.get(name), `${method} ${target}: ${name}`);
      assert.match(two.head.traceparent, /^00-[0-9a-f]{32}-[0-9a-f]{16}-01$/);
      if (two.status >= 400) assert.equal(JSON.parse(two.text).code, one.body.code);
    }
  });

  test('a trace is continued', async () => {
    const trace = '0af7651916cd43dd8448eb211c80319c';
    const { head } = await ask('GET', '/v1/memories',
                               { headers: { traceparent: `00-${trace}-b7ad6b7169203331-01` } });
    assert.equal(head.traceparent.split('-')[1], trace);
  });

  test('a hundred requests at once on one connection, written and read back', async () => {
    const made = await Promise.all(Array.from({ length: 100 }, (_, i) => ask('POST', '/v1/memories',
      { body: JSON.stringify({ text: `note ${i}` }), headers: json })));
    assert.deepEqual(new Set(made.map(({ status }) => status)), new Set([201]));
    const read = await Promise.all(made.map(({ text }) => ask('GET', `/v1/memories/${JSON.parse(text).id}`)));
    assert.deepEqual(read.map(({ text }) => JSON.parse(text).text), made.map((_, i) => `note ${i}`));
  });

  test('a reader that pauses holds up itself alone', async () => {
    const slow = http2.connect(node.url, { settings: { initialWindowSize: 1024 } });
    const stream = slow.request({ ':path': '/v1/memories?limit=500', authorization: `Bearer ${token}` });
    stream.pause();
    await sleep(300);
    assert.equal((await ask('GET', '/v1/memories?limit=1')).status, 200);
    const pieces = [];
    stream.on('data', (piece) => pieces.push(piece));
    stream.resume();
    await new Promise((resolve) => stream.on('end', resolve));
    assert.ok(JSON.parse(Buffer.concat(pieces).toString()).data.length > 0);
    slow.close();
  });

  test('a stream that its client gives up leaves the others be', async () => {
    const stream = session.request({ ':path': '/v1/memories', authorization: `Bearer ${token}` });
    stream.on('error', () => {});
    stream.close(http2.constants.NGHTTP2_CANCEL);
    assert.equal((await ask('GET', '/v1/memories?limit=1')).status, 200);
  });

  test('a stop says GOAWAY', async () => {
    const last = http2.connect(node.url);
    last.on('error', () => {});
    await ask('GET', '/v1/memories?limit=1', { on: last });
    const goaway = new Promise((resolve) => last.on('goaway', resolve));
    await node.stop();
    assert.equal(await goaway, http2.constants.NGHTTP2_NO_ERROR);
  });
});
