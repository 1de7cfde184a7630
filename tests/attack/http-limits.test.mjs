// http-limits: what is too long, too much or not in its normal form, to the last byte that is allowed and the first that
// is not; and paths and queries that could be read in two ways.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { checkRefusal, frontOfSuite, lines, long } from './support-http.mjs';

const front = frontOfSuite({ before, after });
const CLOSE = 'Connection: close';
const LINE_MAX = 8 * 1024, HEADERS_MAX = 32 * 1024, COUNT_MAX = 64, BODY_MAX = 1024 * 1024, SEARCH_BODY_MAX = 128 * 1024;

// A request line of so many bytes, its CRLF included.
const lineOf = (bytes) => {
  const [start, end] = ['GET /v1/memories?cursor=', ' HTTP/1.1\r\n'];
  return `${start}${long(bytes - start.length - end.length)}${end}Host: a\r\n${front.bearer()}\r\n${CLOSE}\r\n\r\n`;
};
// Header lines of so many bytes together, the empty one included.
const headersOf = (bytes) => {
  const given = `Host: a\r\n${front.bearer()}\r\n${CLOSE}\r\n`;
  return `GET /v1/memories HTTP/1.1\r\n${given}X: ${long(bytes - given.length - 'X: \r\n\r\n'.length)}\r\n\r\n`;
};
const countOf = (count) => front.get(CLOSE, ...Array.from({ length: count - 3 }, (_, i) => `X-${i}: a`));

test('a request line has a limit, and a query that is too long has another', async () => {
  const [answer] = await front.answered([400], lineOf(LINE_MAX));
  checkRefusal(answer, 400, 'bad_field'); // understood: it is no cursor
  await front.refused(431, lineOf(LINE_MAX + 1));
  await front.refused(431, lineOf(10 * LINE_MAX));
});

test('header lines have a limit together', async () => {
  await front.answered([200], headersOf(HEADERS_MAX));
  await front.refused(431, headersOf(HEADERS_MAX + 1));
  await front.refused(431, headersOf(10 * HEADERS_MAX));
});

test('the number of headers has a limit', async () => {
  await front.answered([200], countOf(COUNT_MAX));
  await front.refused(431, countOf(COUNT_MAX + 1));
  await front.refused(431, countOf(2000));
});

test('lines without any end are given up at the limit, not at the last byte', async () => {
  for (const bytes of [long(LINE_MAX + 1), `GET /${long(LINE_MAX)}`, `GET / HTTP/1.1\r\nX: ${long(HEADERS_MAX)}`,
                       `GET / HTTP/1.1\r\n${'X: a\r\n'.repeat(HEADERS_MAX / 6 + 1)}`]) {
    const { text, closed } = await front.talk([bytes]);
    assert.match(text, /^HTTP\/1\.1 431 /);
    assert.ok(closed);
  }
});

test('a token has a limit and a header that holds a larger one is still HTTP', async () => {
  for (const length of [16 * 1024, 16 * 1024 + 1, 20 * 1024])
    await front.answered([401], lines('GET /v1/memories HTTP/1.1', 'Host: a', `Authorization: Bearer ${long(length)}`, CLOSE));
});

test('a body has a limit, by its length and by its chunks, and less is read of what is more', async () => {
  const { token } = front;
  const body = (size) => '{"query":"x"}'.padEnd(size, ' ');
  const by = (size) => front.search(`Content-Length: ${size}`, CLOSE);
  await front.answered([200], by(SEARCH_BODY_MAX) + body(SEARCH_BODY_MAX));
  for (const size of [SEARCH_BODY_MAX + 1, BODY_MAX])
    checkRefusal((await front.answered([413], by(size)))[0], 413); // before a byte of it
  for (const size of [BODY_MAX + 1, 2 ** 31, 2 ** 32 + 1, '9'.repeat(30)])
    await front.refused(413, by(size));
  const chunked = (size) => `${front.search('Transfer-Encoding: chunked', CLOSE)}8000\r\n${body(0x8000)}\r\n`
    + Array.from({ length: 3 }, () => `8000\r\n${' '.repeat(0x8000)}\r\n`).join('') + (size ? '1\r\n \r\n' : '');
  await front.answered([200], `${chunked(0)}0\r\n\r\n`);
  await front.refused(413, chunked(1));
  await front.node.want(200, 'GET', '/v1/memories', { token });
});

test('bodies that are no JSON, or not said to be', async () => {
  const ask = (type, body) => lines('POST /v1/memories/search HTTP/1.1', 'Host: a', front.bearer(), ...type,
                                    `Content-Length: ${body.length}`, CLOSE) + body;
  const json = ['Content-Type: application/json'];
  const good = '{"query":"x"}';
  for (const [status, code, type, body] of [
    [400, 'bad_json', json, '{'], [400, 'bad_json', json, '{"query":"x"} x'], [400, 'bad_json', json, 'nul'],
    [400, 'bad_json', json, '{"query":"x","query":"y"}'], [400, 'bad_json', json, '{"query":"\xff"}'],
    [400, 'bad_json', json, '\xef\xbb\xbf{"query":"x"}'], [400, 'bad_json', json, '{"query":"\\ud800"}'],
    [400, 'bad_field', json, '[]'], [400, 'bad_field', json, '{"query":"a\\u0000b"}'],
    [400, 'bad_field', json, '{"query":"x","other":1}'],
    [415, 'unsupported_media', [], good], [415, 'unsupported_media', ['Content-Type: text/plain'], good],
    [415, 'unsupported_media', ['Content-Type: application/jsonp'], good],
    [400, 'bad_request', ['Content-Type:'], good],
    [415, 'unsupported_media', ['Content-Type: application/x-www-form-urlencoded'], good],
    [415, 'unsupported_media', [...json, 'Content-Encoding: gzip'], good],
    [415, 'unsupported_media', [...json, 'Content-Encoding: identity, gzip'], good],
    [415, 'unsupported_media', [...json, 'Content-Encoding:'], good],
    [400, 'bad_request', [...json, 'Content-Encoding: identity', 'Content-Encoding: identity'], good],
    [415, 'unsupported_media', ['Content-Type: multipart/form-data; boundary=x'], good],
  ]) {
    const [answer] = await front.answered([status], ask(type, body));
    checkRefusal(answer, status, code);
  }
  // RFC 8259 11: a charset here has no effect on those who comply
  for (const type of ['application/json; charset=utf-8', 'application/json; charset=utf-16', 'Application/JSON', 'application/json;charset="UTF-8"'])
    await front.answered([200], ask([`Content-Type: ${type}`], good));
  await front.answered([200], ask([...json, 'Content-Encoding: identity'], good));
});

test('paths in another form than the normal one are refused or name nothing', async () => {
  const [{ id }] = await front.node.want(200, 'GET', '/v1/memories', { token: front.token }).then(({ data }) => data);
  const of = (target) => lines(`GET ${target} HTTP/1.1`, 'Host: a', front.bearer(), CLOSE);
  await front.answered([200], of(`/v1/memories/${id}`));
  await front.answered([200], of(`/v1/%6d%65mories/${id}`)); // decoded once, and that is the path
  for (const target of [
    `/v1/memories/../memories/${id}`, `/v1/./memories/${id}`, `/v1//memories/${id}`, `//v1/memories/${id}`,
    `/v1/memories/%2e%2e/memories/${id}`, `/v1/memories/%2E./memories/${id}`, `/v1/memories/.%2e/memories/${id}`,
    `/v1/%2e/memories/${id}`, `/v1/memories%2f${id}`, `/v1/memories%2F${id}`, `/v1%5cmemories/${id}`,
    `/v1/memories/${id}%00`, `/v1/memories/${id}%0a`, `/v1/memories/${id}%0d%0aX:%20y`, `/v1/memories/${id}%7f`,
    `/v1/memories/${id}%`, `/v1/memories/${id}%2`, `/v1/memories/${id}%zz`, `/v1/memories/${id}%u0041`,
    `/v1/memories/${id}%c0%af`, `/v1/memories/${id}%c0%80`, `/v1/memories/${id}%e0%80%af`, `/v1/memories/${id}%ff`,
    `/v1/memories/${id}%ed%a0%80`, `/v1/memories/${id}%f4%90%80%80`, '/v1/memories/..', '/v1/memories/.', '/..', '/%2e',
    '/v1/memories/%2e%2e', `/v1/memories/%2e%2e%2f${id}`,
  ]) {
    const [answer] = await front.answered([400], of(target));
    checkRefusal(answer, 400);
  }
  for (const target of [
    `/v1/memories/${id}/`, `/v1/memories/${id}.`, `/v1/memories/${id}..`, `/v1/memories/${id};a=b`, `/v1/memories;a=b/${id}`,
    `/V1/memories/${id}`, `/v1/Memories/${id}`, `/v1/memories/${id}%20`, `/v1/memories/%20${id}`, `/v1/memories/${id}+`,
    `/v1/%256demories/${id}`, `/v1/memories/%252e%252e`, `/v1/memories/${id}%252f`, `/v1/memories/${id}%2500`, '/', '/v1', '/v1/',
    `/v1/memories/${id}.json`, `/v1/memories/${id}%23`, `/v1/memories/${id}%3flimit=1`, `/v1/memories/${id}&a=b`, '/v1/memories/...',
    `/v1/memories/${id.toLowerCase()}x`, `/v1/mem%C3%B6ries/${id}`, '/.git/config', '/metrics', '/healthz', '/v1/%2a',
  ]) {
    const [answer] = await front.answered([404], of(target));
    checkRefusal(answer, 404);
    assert.ok(!answer.body.includes('stays as it is'), target);
  }
});

test('queries have one form', async () => {
  const of = (query) => lines(`GET /v1/memories?${query} HTTP/1.1`, 'Host: a', front.bearer(), CLOSE);
  for (const query of ['limit=5', 'limit=5&kind=event', 'limit=%35', 'l%69mit=5', '', 'user_id=a+b', 'user_id=a%20b'])
    await front.answered([200], of(query));
  for (const query of ['limit=5&limit=5', 'limit=5&limit=6', 'limit=5&l%69mit=6', 'limit', '=5', '&', 'limit=5&', '&limit=5',
                       'limit=5&&kind=event', 'limit=%', 'limit=%3', 'limit=%zz', 'user_id=%00', 'user_id=%ff', 'user_id=%c0%af',
                       'user_id=%0d%0a', 'user_id=%ed%a0%80', 'limit[]=5', 'other=1', 'limit=5&other=1', 'LIMIT=5', 'limit=5;kind=event',
                       'limit=', 'limit=x', 'limit=0', 'limit=-1', 'limit=501', 'limit=5.0', 'limit=0x5', 'limit=+5', 'limit=%205',
                       'limit=18446744073709551621', 'kind=none', 'cursor=x', 'session_id=', 'limit==5', '?limit=5',
                       Array.from({ length: 33 }, (_, i) => `a${i}=b`).join('&')]) {
    const [answer] = await front.answered([400], of(query));
    assert.equal(answer.headers['content-type'], 'application/problem+json', query);
    assert.match(JSON.parse(answer.body).code, /^bad_(request|field)$/);
  }
});

test('after all this the data is as it was, and nothing has died', () => front.isAsItWas());
