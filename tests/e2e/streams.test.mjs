// Bodies that nobody holds whole, over real HTTP: NDJSON both ways at once.
import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, describe, test } from 'node:test';
import { checkProblem, nodeOfSuite } from './harness.mjs';

// A batch whose body is written and whose answer is read as they come.
class Batch {
  constructor(node, token, contentType = 'application/x-ndjson') {
    this.text = '';
    this.lines = [];
    this.waiting = [];
    this.request = http.request(`${node.url}/v1/documents/batch`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': contentType },
    });
    this.answer = new Promise((resolve, reject) => {
      this.request.on('error', reject);
      this.request.on('response', (response) => {
        response.setEncoding('utf8');
        response.on('data', (piece) => this.#take(piece));
        response.on('end', () => this.#end());
        resolve(response);
      });
    });
    this.ended = new Promise((resolve) => { this.over = resolve; });
    this.request.flushHeaders();
  }

  #take(piece) {
    this.text += piece;
    const complete = this.text.split('\n');
    this.text = complete.pop();
    for (const line of complete) this.lines.push(JSON.parse(line));
    this.waiting = this.waiting.filter(({ count, resolve }) => this.lines.length < count || resolve());
  }

  #end() {
    this.over(this.lines);
  }

  write(text) {
    return new Promise((resolve) => this.request.write(text, resolve));
  }

  results(count) {
    return new Promise((resolve) => {
      this.waiting.push({ count, resolve: () => resolve(this.lines) });
      this.#take('');
    });
  }

  async end(text = '') {
    this.request.end(text);
    return this.ended;
  }
}

const document = (id, text = `about ${id}`) => `${JSON.stringify({ id, text })}\n`;

describe('streams', () => {
  const node = nodeOfSuite({ before, after }, { tenants: ['acme'] });
  let token;

  before(async () => {
    token = await node.token('acme', 'ada', { scope: 'knowledge:read knowledge:write' });
  });

  test('a line is answered before the next one is sent', async () => {
    const batch = new Batch(node, token);
    for (let i = 1; i <= 3; i++) {
      await batch.write(document(`d${i}`));
      const results = await batch.results(i);
      assert.equal(results[i - 1].line, i);
      assert.equal(results[i - 1].status, 201);
    }
    const response = await batch.answer;
    assert.equal(response.statusCode, 200);
    assert.equal(response.headers['content-type'], 'application/x-ndjson');
    assert.equal((await batch.end()).length, 3);
    const { text } = await node.want(200, 'GET', '/v1/documents/d2', { token });
    assert.equal(text, 'about d2');
  });

  test('a bad line fails alone', async () => {
    const batch = new Batch(node, token);
    const body = `${document('e1')}{"id":\n\n${JSON.stringify({ id: 'e4' })}\n${document('e5')}`;
    const results = await batch.end(body.trimEnd());
    assert.deepEqual(results.map(({ line, status }) => [line, status]),
                     [[1, 201], [2, 400], [4, 400], [5, 201]]);
    assert.equal(results[1].code, 'bad_json');
    assert.equal(results[2].code, 'bad_field');
    assert.match(results[2].detail, /text/);
  });

  test('a line longer than the window passes, one beyond its bound fails alone', async () => {
    const batch = new Batch(node, token);
    await batch.write(document('long', 'word '.repeat(700_000)));
    await batch.write(document('longer', 'word '.repeat(2_000_000)));
    const results = await batch.end(document('after'));
    assert.deepEqual(results.map(({ line, status }) => [line, status]),
                     [[1, 201], [2, 413], [3, 201]]);
    assert.equal(results[1].code, 'too_large');
  });

  test('thousands of lines share commits and keep their order', async () => {
    const batch = new Batch(node, token);
    const count = 5000;
    for (let i = 0; i < count; i += 100) {
      let piece = '';
      for (let k = i; k < i + 100; k++) piece += document(`many${k}`);
      await batch.write(piece);
    }
    const results = await batch.end();
    assert.equal(results.length, count);
    results.forEach(({ line, status }, i) => assert.deepEqual([line, status], [i + 1, 201]));
  });

  test('another content type is refused before the body', async () => {
    const batch = new Batch(node, token, 'application/json');
    const response = await batch.answer;
    assert.equal(response.statusCode, 415);
    batch.request.destroy();
    checkProblem(await node.http('POST', '/v1/documents/batch', { token, body: { id: 'x' } }),
                 415, 'unsupported_media');
  });

  test('a body without lines has an empty answer', async () => {
    const batch = new Batch(node, token);
    assert.deepEqual(await batch.end('\n\n'), []);
    assert.equal((await batch.answer).statusCode, 200);
  });
});
