// support-http.mjs: HTTP/1.1 as bytes: raw sockets, a strict reader of answers, and a node whose data must be at
// the end what it was at the start.
import assert from 'node:assert/strict';
import net from 'node:net';

import { Node } from '../e2e/harness.mjs';
import { EVERY_SCOPE, everything } from './support.mjs';

const LIMIT_MS = 5000 * Number(process.env.BULKHEAD_PATIENCE ?? 1);

export const lines = (...all) => `${all.join('\r\n')}\r\n\r\n`;
export const long = (count) => 'x'.repeat(count);

// Sends the pieces and reads until the other end closes or the limit is over; {text, closed}. half: says that no
// more will come. until: ends early once it is true of the text so far.
export function talk(port, pieces, { limit = LIMIT_MS, pause = 0, half = false, until } = {}) {
  return new Promise((resolve, reject) => {
    const socket = net.connect(port, '127.0.0.1');
    const got = [];
    let over = false;
    const text = () => Buffer.concat(got).toString('latin1');
    const end = (closed) => {
      if (over) return;
      over = true;
      clearTimeout(timer);
      socket.destroy();
      resolve({ text: text(), closed });
    };
    const timer = setTimeout(() => end(false), limit);
    socket.setNoDelay(true);
    socket.on('data', (piece) => {
      got.push(piece);
      if (until?.(text())) end(false);
    });
    socket.on('end', () => end(true));
    socket.on('close', () => end(true));
    socket.on('error', (error) => (error.code === 'ECONNREFUSED' ? reject(error) : end(true)));
    socket.on('connect', async () => {
      for (const piece of pieces) {
        if (over) return;
        socket.write(typeof piece === 'string' ? Buffer.from(piece, 'latin1') : piece);
        if (pause) await new Promise((go) => setTimeout(go, pause));
      }
      if (half) socket.end();
    });
  });
}

// One answer from the front of the text, by its own framing; {answer, rest}, or null when it is not whole.
function takeAnswer(text, toHead) {
  const end = text.indexOf('\r\n\r\n');
  if (end < 0) return null;
  const [statusLine, ...fields] = text.slice(0, end).split('\r\n');
  const status = /^HTTP\/1\.1 ([1-5]\d\d) [\x20-\x7e]+$/.exec(statusLine);
  assert.ok(status, `a status line: ${JSON.stringify(text.slice(0, 200))}`);
  const headers = {};
  for (const field of fields) {
    const parts = /^([A-Za-z0-9-]+): ([\x20-\x7e]*)$/.exec(field);
    assert.ok(parts, `a header line: ${JSON.stringify(field)}`);
    assert.equal(headers[parts[1].toLowerCase()], undefined, `${parts[1]} once`);
    headers[parts[1].toLowerCase()] = parts[2];
  }
  const answer = { status: Number(status[1]), headers, body: '' };
  const rest = text.slice(end + 4);
  if (answer.status < 200) {
    assert.deepEqual(headers, {}, 'an interim answer has no headers here');
    return { answer, rest };
  }
  if (answer.status === 204 || answer.status === 304) {
    assert.equal(headers['content-length'], undefined, 'RFC 9110 8.6');
    return { answer, rest };
  }
  assert.match(headers['content-length'] ?? '', /^(0|[1-9]\d*)$/, 'answers here have a length');
  if (toHead) return { answer, rest };
  const length = Number(headers['content-length']);
  if (rest.length < length) return null;
  answer.body = rest.slice(0, length);
  return { answer, rest: rest.slice(length) };
}

// All answers of a connection: nothing may be between or behind them. heads: which requests (from 0) were HEAD.
export function answersOf(text, { heads = [] } = {}) {
  const answers = [];
  for (let finals = 0; text !== '';) {
    const taken = takeAnswer(text, heads.includes(finals));
    assert.ok(taken, `an answer that is not whole: ${JSON.stringify(text.slice(0, 300))}`);
    if (taken.answer.status >= 200) finals++;
    answers.push(taken.answer);
    text = taken.rest;
  }
  return answers;
}

export const statusesOf = (text, options) => answersOf(text, options).map(({ status }) => status);

const CODES = { 400: 'bad_request', 401: 'unauthenticated', 404: 'not_found', 405: 'method_not_allowed', 408: 'timeout',
                413: 'too_large', 431: 'headers_too_large', 501: 'not_implemented' };

export function checkRefusal(answer, status, code = CODES[status]) {
  assert.equal(answer.status, status, answer.body);
  assert.equal(answer.headers['content-type'], 'application/problem+json');
  const problem = JSON.parse(answer.body);
  assert.equal(problem.status, status);
  assert.equal(problem.code, code);
  assert.ok(answer.headers.traceparent.includes(problem.trace_id));
}

// A connection that lives beside the others and must not notice anything of them.
class Neighbour {
  constructor(front) {
    this.request = front.get();
    this.text = '';
    this.socket = net.connect(front.port, '127.0.0.1');
    this.socket.on('data', (piece) => {
      this.text += piece.toString('latin1');
      this.#look();
    });
    this.socket.on('close', () => this.wanted?.reject(new Error('the neighbour was cut off')));
    this.socket.on('error', () => {});
  }

  #look() {
    const taken = this.text && takeAnswer(this.text, false);
    if (!taken || !this.wanted) return;
    this.text = taken.rest;
    this.wanted.resolve(taken.answer);
    this.wanted = null;
  }

  async ask() {
    assert.ok(this.socket.writable && !this.socket.readableEnded, 'the neighbour was cut off before');
    const answered = new Promise((resolve, reject) => { this.wanted = { resolve, reject }; });
    this.socket.write(this.request);
    const { status } = await answered;
    assert.equal(status, 200, 'the neighbour');
  }
}

// A node with a tenant and some data; its requests as bytes.
export class Front {
  constructor(options) {
    this.node = new Node(options);
  }

  async start() {
    await this.node.start();
    await this.node.createBusyTenant('acme');
    this.port = this.node.port;
    this.token = await this.node.token('acme', 'ada', { scope: EVERY_SCOPE, ttl: '1h' });
    for (const text of ['stays as it is', 'and so does this'])
      await this.node.want(201, 'POST', '/v1/memories', { token: this.token, body: { text } });
    this.original = await everything(this.node, this.token);
    this.neighbour = new Neighbour(this);
  }

  async destroy() {
    this.neighbour?.socket.destroy();
    await this.node.destroy();
  }

  bearer() {
    return `Authorization: Bearer ${this.token}`;
  }

  get(...headers) {
    return lines('GET /v1/memories HTTP/1.1', 'Host: a', this.bearer(), ...headers);
  }

  // A request for another target, or in another way.
  line(line, ...headers) {
    return lines(line, 'Host: a', this.bearer(), ...headers);
  }

  post(...headers) {
    return lines('POST /v1/memories HTTP/1.1', 'Host: a', this.bearer(), 'Content-Type: application/json', ...headers);
  }

  // A search: a POST that changes nothing.
  search(...headers) {
    return lines('POST /v1/memories/search HTTP/1.1', 'Host: a', this.bearer(), 'Content-Type: application/json',
                 ...headers);
  }

  // What must never be carried out: it would delete everything.
  smuggled() {
    return lines('DELETE /v1/memories?user_id=ada HTTP/1.1', 'Host: b', this.bearer());
  }

  talk(pieces, options) {
    return talk(this.port, pieces, options);
  }

  // Sent with a harmful request behind: answered once, with this, and closed; nobody else notices.
  async refused(status, bytes, { code, port = this.port } = {}) {
    const { text, closed } = await talk(port, [bytes + this.smuggled()]);
    const answers = answersOf(text);
    assert.equal(answers.length, 1, `one answer: ${text.slice(0, 600)}`);
    checkRefusal(answers[0], status, code);
    assert.equal(answers[0].headers.connection, 'close');
    assert.ok(closed, 'the connection is closed');
    assert.ok(!text.includes(this.token.slice(-40)), 'nothing of the token comes back');
    await this.neighbour.ask();
  }

  // Sent as it is: answered with these and no more. The last request closes, or the bytes are the last ones.
  async answered(statuses, bytes, options = {}) {
    const { text } = await talk(this.port, [bytes].flat(),
                                { until: (so_far) => this.#isWhole(so_far, statuses.length, options), ...options });
    const answers = answersOf(text, options);
    assert.deepEqual(answers.map(({ status }) => status), statuses, text.slice(0, 600));
    return answers;
  }

  #isWhole(text, count, { heads = [] }) {
    let finals = 0, seen = 0;
    for (let taken; text !== '' && (taken = takeAnswer(text, heads.includes(finals))); text = taken.rest) {
      if (taken.answer.status >= 200) finals++;
      seen++;
    }
    return seen > count; // more than it should: no need to wait
  }

  async isAsItWas() {
    assert.deepEqual(await everything(this.node, this.token), this.original);
    for (const service of (await this.node.status()).services) assert.equal(service.restarts, 0, service.name);
    await this.neighbour.ask();
  }
}

// Registers start, end and the last word of a suite.
export function frontOfSuite({ before, after }, options) {
  const front = new Front(options);
  before(() => front.start());
  after(() => front.destroy());
  return front;
}
