// http-exchange: many requests on one connection: pipelines with a bad one among them, Expect, HEAD, connections that
// end in the middle, floods. Answers come in order, each to its own request, or the connection ends.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { answersOf, checkRefusal, frontOfSuite, lines, statusesOf, talk } from './support-http.mjs';

const front = frontOfSuite({ before, after });
const CLOSE = 'Connection: close';
const query = '{"query":"stays"}';
const none = (...headers) => lines('GET /v1/memories HTTP/1.1', 'Host: a', ...headers);
const search = (...headers) => front.search(`Content-Length: ${query.length}`, ...headers) + query;
const other = () => front.line('GET /v1/tenant HTTP/1.1');

test('pipelined requests are answered in order, each with its own token', async () => {
  const answers = await front.answered([200, 401, 200, 200, 404, 405, 200, 401],
    front.get() + none() + other() + search() + front.line('GET /none HTTP/1.1') + front.line('PUT /v1/memories HTTP/1.1')
    + front.get() + none(CLOSE));
  assert.equal(JSON.parse(answers[0].body).data.length, 2);
  assert.equal(JSON.parse(answers[2].body).name, 'acme');
  assert.deepEqual(answers.slice(0, -1).map(({ headers }) => headers.connection), Array(7).fill(undefined));
  assert.equal(answers[7].headers.connection, 'close');
});

test('what stands behind a close is not answered', async () => {
  await front.answered([200], front.get(CLOSE) + front.smuggled());
  await front.answered([401], none(CLOSE) + front.smuggled());
  await front.answered([404], front.line('GET /none HTTP/1.1', CLOSE) + front.smuggled());
});

test('a bad one among pipelined requests ends the connection there', async () => {
  const bad = front.get('X : a');
  for (const before of [0, 1, 5]) {
    const { text, closed } = await front.talk([front.get().repeat(before) + bad + front.get().repeat(3) + front.smuggled()]);
    assert.deepEqual(statusesOf(text), [...Array(before).fill(200), 400]);
    assert.ok(closed);
  }
  await front.neighbour.ask();
});

test('three hundred requests at once are answered all, in order', async () => {
  const requests = Array.from({ length: 300 }, (_, i) => (i % 3 ? front.get() : none()));
  const { text } = await front.talk([requests.join('') + none(CLOSE)], { limit: 20000 });
  assert.deepEqual(statusesOf(text), [...requests.map((_, i) => (i % 3 ? 200 : 401)), 401]);
});

test('requests byte by byte are understood as they are, and so is a refused one', async () => {
  const good = await front.talk([...(front.get() + search(CLOSE))], { limit: 20000 });
  assert.deepEqual(statusesOf(good.text), [200, 200]);
  const bad = await front.talk([...front.post('Content-Length: 5', 'Transfer-Encoding: chunked')], { limit: 20000 });
  assert.deepEqual(statusesOf(bad.text), [400]);
});

test('every cut of a pipeline gives the same answers', async () => {
  const bytes = front.get() + search() + none() + search(CLOSE);
  for (let cut = 1; cut < bytes.length; cut += 53) {
    const { text } = await front.talk([bytes.slice(0, cut), bytes.slice(cut)], { pause: 1 });
    assert.deepEqual(statusesOf(text), [200, 200, 401, 200], `cut at ${cut}`);
  }
});

test('Expect: 100-continue is answered once the head is found good, and only then', async () => {
  const head = front.search(`Content-Length: ${query.length}`, 'Expect: 100-Continue', CLOSE);
  const { text } = await front.talk([head], { until: (so_far) => so_far.endsWith('\r\n\r\n') });
  assert.equal(text, 'HTTP/1.1 100 Continue\r\n\r\n');
  await front.answered([100, 200], [head, query], { pause: 100 });
  const chunked = front.search('Transfer-Encoding: chunked', 'Expect: 100-continue', CLOSE);
  await front.answered([100, 200], [chunked, `${query.length.toString(16)}\r\n${query}\r\n0\r\n\r\n`], { pause: 100 });
  await front.answered([200], front.get('Expect: 100-continue', CLOSE)); // there is no body to wait for
  await front.answered([200], front.search(`Content-Length: ${query.length}`, 'Expect: 100-continue')
    .replace('HTTP/1.1', 'HTTP/1.0') + query); // RFC 9110 10.1.1: not on 1.0
});

test('who waits for 100 Continue and is refused gets the refusal at once', async () => {
  const refused = (status, ...headers) => front.answered([status],
    [lines('POST /v1/memories HTTP/1.1', 'Host: a', ...headers, 'Expect: 100-continue', CLOSE)]);
  checkRefusal((await refused(401, 'Content-Length: 5'))[0], 401);
  checkRefusal((await refused(413, front.bearer(), 'Content-Length: 1000000'))[0], 413);
});

test('HEAD is GET without a body', async () => {
  const head = (target, ...headers) => front.line(`HEAD ${target} HTTP/1.1`, ...headers);
  const targets = ['/v1/memories', '/v1/tenant', `/v1/memories/${front.original.memories[0].id}`, '/v1/none', '/v1/memories?limit=0'];
  for (const target of targets) {
    const [got] = await front.answered([...[200, 200, 200, 404, 400].slice(targets.indexOf(target)).slice(0, 1)],
                                       front.line(`GET ${target} HTTP/1.1`, CLOSE));
    const [asked, next] = await front.answered([got.status, 200], head(target) + front.get(CLOSE), { heads: [0] });
    assert.equal(asked.headers['content-type'], got.headers['content-type'], target);
    assert.ok(Number(asked.headers['content-length']) > 0);
    assert.equal(JSON.parse(next.body).data.length, 2, 'what follows is the next answer');
  }
  await front.answered([405, 200], head('/v1/memories/search') + front.get(CLOSE), { heads: [0] });
  const [unknown] = await front.answered([401, 200], lines('HEAD /v1/memories HTTP/1.1', 'Host: a') + front.get(CLOSE), { heads: [0] });
  assert.equal(unknown.headers['www-authenticate'], 'Bearer');
});

test('405 names what is allowed, HEAD with GET', async () => {
  const [answer] = await front.answered([405], front.line('PUT /v1/memories HTTP/1.1', CLOSE));
  assert.deepEqual(answer.headers.allow.split(', ').sort(), ['DELETE', 'GET', 'HEAD', 'POST']);
});

test('connections that end in the middle of anything leave nothing behind', async () => {
  const bytes = front.post('Content-Length: 19') + '{"text":"smuggled"}';
  for (let cut = 0; cut < bytes.length - 1; cut += 41) {
    const { text } = await front.talk([bytes.slice(0, cut)], { half: true });
    assert.equal(text, '', `cut at ${cut}`);
  }
  const chunked = `${front.post('Transfer-Encoding: chunked')}13\r\n{"text":"smuggled"}\r\n0\r\n\r\n`;
  for (let cut = chunked.indexOf('\r\n\r\n'); cut < chunked.length; cut++) {
    const { text } = await front.talk([chunked.slice(0, cut)], { half: true });
    assert.equal(text, '', `cut at ${cut}`);
  }
  await front.neighbour.ask();
});

test('a thousand connections that come and go cost no one anything', async () => {
  const one = (i) => talk(front.port, [['', 'G', 'GET / HTTP/1.1\r\n', '\0\r\n\r\n', none(CLOSE)][i % 5]], { half: i % 5 < 3 });
  for (let round = 0; round < 10; round++) {
    const all = await Promise.all(Array.from({ length: 100 }, (_, i) => one(i)));
    all.forEach(({ text }, i) => assert.deepEqual(statusesOf(text), [[], [], [], [400], [401]][i % 5]));
    await front.neighbour.ask();
  }
});

test('answers never carry what the client wrote into their heads', async () => {
  const marks = ['evil-method', 'evil-path', 'evil-query', 'evil-value'];
  const { text } = await front.talk([lines('EVIL-METHOD /evil-path?evil-query=1 HTTP/1.1', 'Host: evil-value', front.bearer(),
                                           'X-One: evil-value', 'Origin: http://evil-value', CLOSE)]);
  const [{ headers }] = answersOf(text);
  for (const mark of marks) assert.ok(!JSON.stringify(headers).toLowerCase().includes(mark), mark);
});

test('after all this the data is as it was, and nothing has died', () => front.isAsItWas());
