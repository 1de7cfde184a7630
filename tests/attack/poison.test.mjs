// poison: documents, batches and objects made to hurt whoever reads them: without end, of one word, of nothing but
// headings, nested, not UTF-8. Each is stored or refused with a clear error; nothing else of the node notices.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import http from 'node:http';
import { after, before, test } from 'node:test';

import { Node } from '../e2e/harness.mjs';

const node = new Node({ config: { idle_seconds: 600 } });
const SCOPE = 'knowledge:read knowledge:write objects:read objects:write memory:read memory:write';
const GIB = 2 ** 30;
let token, neighbour, id;

before(async () => {
  await node.start();
  id = (await node.createBusyTenant('poisoned', '--quota', 'bytes_stored=0')).id;
  await node.createTenant('neighbour');
  token = await node.token('poisoned', 'mallory', { scope: SCOPE, ttl: '1h' });
  neighbour = await node.token('neighbour', 'nina', { scope: SCOPE, ttl: '1h' });
  await put('sound', { text: 'A sound document about herring.' }, 201);
});
after(() => node.destroy());

const put = (name, body, status) => node.want(status, 'PUT', `/v1/documents/${name}`, { token, body });

// What the poisoned tenant knew before, and what its neighbour asks, is answered.
async function unharmed() {
  const { data } = await node.want(200, 'POST', '/v1/search', { token, body: { query: 'herring' } });
  assert.equal(data[0].document_id, 'sound');
  await node.want(200, 'GET', '/v1/documents', { token: neighbour });
}

// The most memory that a process of the node ever had, in MiB.
async function peaks() {
  const { services, cells } = await node.status();
  const peak = ({ pid }) => Number(/VmHWM:\s+(\d+)/.exec(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))[1]) / 1024;
  return { cell: peak(cells.find((cell) => cell.tenant_id === id)),
           gateway: Math.max(...services.filter(({ name }) => name.startsWith('gateway')).map(peak)) };
}

// Sends up to `bytes` of `pattern` between `head` and `tail`, stops when answered: {status, text, sent}.
function stream(method, target, type, { head = '', pattern, tail = '', bytes }) {
  const block = Buffer.alloc(1 << 20, pattern);
  return new Promise((resolve, reject) => {
    const request = http.request(node.url + target, { method, agent: false, headers: {
      authorization: `Bearer ${token}`, 'content-type': type, 'transfer-encoding': 'chunked' } });
    let sent = 0, answered = false;
    request.on('response', (response) => {
      let text = ''; // a batch is answered while it is sent
      response.setEncoding('utf8');
      response.on('data', (piece) => { text += piece; });
      response.on('end', () => { answered = true; request.destroy(); resolve({ status: response.statusCode, text, sent }); });
      response.on('error', reject);
    });
    request.on('error', (error) => { if (!answered) reject(error); });
    const more = () => {
      while (!answered && sent < bytes) {
        sent += block.length;
        if (!request.write(block)) { request.once('drain', more); return; }
      }
      if (!answered) request.end(tail);
    };
    request.write(head);
    more();
  });
}

test('a document of 1 GB of one word is refused before it has come, for what it is', async () => {
  const answer = await stream('PUT', '/v1/documents/endless', 'application/json',
                              { head: '{"text":"', pattern: 'x', tail: '"}', bytes: GIB });
  assert.equal(answer.status, 413);
  assert.equal(JSON.parse(answer.text).code, 'too_large');
  assert.ok(answer.sent < GIB, 'it was not read to its end');
  await node.problem(404, 'not_found', 'GET', '/v1/documents/endless', { token });
  await unharmed();
});

test('a batch with a line of 1 GB: that line fails alone, the one after it is taken', async () => {
  const answer = await stream('POST', '/v1/documents/batch', 'application/x-ndjson', {
    head: '{"id":"before","text":"before"}\n{"id":"endless","text":"', pattern: 'word', bytes: GIB,
    tail: '"}\n{"id":"behind","text":"behind"}\n' });
  assert.equal(answer.status, 200, answer.text);
  const lines = answer.text.trim().split('\n').map((line) => JSON.parse(line));
  assert.deepEqual(lines.map(({ line, status }) => [line, status]), [[1, 201], [2, 413], [3, 201]]);
  assert.equal(lines[1].code, 'too_large');
  await unharmed();
});

test('an object of 1 GB takes its disk and next to no memory', async () => {
  const answer = await stream('PUT', '/v1/objects/big', 'text/plain', { pattern: 'word ', bytes: GIB });
  assert.equal(answer.status, 201, answer.text);
  const { cell, gateway } = await peaks();
  assert.ok(cell < 160 && gateway < 160, `cell ${cell} MiB, gateway ${gateway} MiB`);
  await node.want(204, 'DELETE', '/v1/objects/big', { token }).catch(async () => {
    assert.equal((await node.http('GET', '/v1/objects/big', { token })).status, 404);
  });
  await unharmed();
});

test('the longest document of one word, of blanks, of line ends, of headings: cut, stored, given back to the byte', async () => {
  const length = 1 << 20;
  const texts = {
    word: 'x'.repeat(length), snow: '☃'.repeat(length / 4), blanks: `a${' '.repeat(length - 2)}b`, lines: `a${'\n'.repeat(length - 2)}b`,
    headings: Array.from({ length: 100000 }, (_, i) => `# ${i % 7}`).join('\n'), dots: 'a. '.repeat(length / 3),
    underlines: 'a\n=\n'.repeat(length / 4), controls: 'a\u0001\u001f\u007f\u0085\u2028b '.repeat(10000),
    combining: `e${'\u0301'.repeat(200000)}`, rtl: '\u202Eabc\u202C '.repeat(50000),
  };
  for (const [name, text] of Object.entries(texts)) {
    const made = await put(`poison-${name}`, { text }, 201);
    assert.ok(made.chunks >= 1 && made.chunks <= text.length, name);
    assert.equal((await node.want(200, 'GET', `/v1/documents/poison-${name}`, { token })).text, text, name);
  }
  await unharmed();
  for (const name of Object.keys(texts))
    assert.equal((await node.http('DELETE', `/v1/documents/poison-${name}`, { token })).status, 204);
  await unharmed();
});

test('not UTF-8, broken surrogates, nested JSON, twice the same member: refused, each naming what it is', async () => {
  const bad = [
    Buffer.concat([Buffer.from('{"text":"'), Buffer.of(0xC3, 0x28), Buffer.from('"}')]),
    Buffer.concat([Buffer.from('{"text":"'), Buffer.of(0xED, 0xA0, 0x80), Buffer.from('"}')]),
    '{"text":"\\ud800"}', '{"text":"a","text":"b"}', `{"text":"a","metadata":${'{"a":'.repeat(200)}1${'}'.repeat(200)}}`,
    `{"text":"a","metadata":${'['.repeat(100000)}}`, '{"text":"a"} trailing', '', '[]', '{"text":1}', '{"text":""}',
    '{"text":"a","metadata":[]}', '{"text":"a","classification":"cosmic"}', '{"text":"a","chunk":{"bytes":1}}', '{"text":"a","surplus":1}',
  ];
  for (const body of bad) {
    const answer = await node.http('PUT', '/v1/documents/bad', { token, body, headers: { 'content-type': 'application/json' } });
    const deep = String(body).includes('[[') || String(body).includes('{"a":{');
    assert.equal(answer.status, deep ? 413 : 400, `${String(body).slice(0, 60)}: ${answer.text}`);
    assert.ok((deep ? ['too_large'] : ['bad_json', 'bad_field', 'bad_request']).includes(answer.body.code));
    assert.ok(answer.body.detail.length > 5);
  }
  await node.problem(404, 'not_found', 'GET', '/v1/documents/bad', { token });
  const lines = [...bad.filter((body) => !String(body).includes('\n') && String(body) !== ''), '{"id":"good","text":"good"}'];
  const answer = await node.http('POST', '/v1/documents/batch', { token, headers: { 'content-type': 'application/x-ndjson' },
    body: Buffer.concat(lines.map((line) => Buffer.concat([Buffer.from(line), Buffer.from('\n')]))) });
  const results = answer.text.trim().split('\n').map((line) => JSON.parse(line));
  assert.equal(results.length, lines.length);
  assert.ok(results.slice(0, -1).every(({ status }) => status === 400 || status === 413));
  assert.equal(results.at(-1).status, 201);
  await unharmed();
});

test('ten thousand lines of garbage between two documents: a result for each', async () => {
  const lines = ['{"id":"first","text":"first"}', ...Array.from({ length: 10000 }, (_, i) => `garbage ${i}`),
                 '{"id":"last","text":"last"}'];
  const answer = await node.http('POST', '/v1/documents/batch', { token, body: lines.join('\n'), timeout: 60000,
                                                                   headers: { 'content-type': 'application/x-ndjson' } });
  const results = answer.text.trim().split('\n').map((line) => JSON.parse(line));
  assert.equal(results.length, lines.length);
  assert.deepEqual(results.map(({ line }) => line), lines.map((_, i) => i + 1));
  assert.equal(results[0].status, 201);
  assert.equal(results.at(-1).status, 201);
  assert.ok(results.slice(1, -1).every(({ status, code }) => status === 400 && code === 'bad_json'));
  await unharmed();
});

test('queries and filters made to hurt: answered or refused by name', async () => {
  const search = (body) => node.http('POST', '/v1/search', { token, body });
  for (const query of ['"', '* OR NEAR(', 'herring AND NOT', 'text : x', '{who} : "u1"', 'a'.repeat(1000), '☃ '.repeat(200), '-', '^herring'])
    assert.equal((await search({ query })).status, 200, query);
  let nested = { a: 1 };
  for (let i = 0; i < 20; i++) nested = { $not: nested };
  for (const filter of [nested, { $or: Array.from({ length: 200 }, (_, i) => ({ a: i })) }, { a: { $regex: '.*' } }, { $and: {} }, { a: { $in: 1 } }]) {
    const answer = await search({ query: 'herring', filter });
    assert.equal(answer.status, 400, JSON.stringify(filter).slice(0, 60));
    assert.match(answer.body.detail, /^filter/);
  }
  await unharmed();
});
