// http-smuggling: bodies whose end two readers could see in different places (CL.TE, TE.CL, TE.TE, CL.0, chunks). A front
// proxy may have let these through: here each is one request or none, and what hides inside is never carried out.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { answersOf, frontOfSuite, lines, long, statusesOf } from './support-http.mjs';

const front = frontOfSuite({ before, after });
const { bearer, get, post, search, smuggled } = Object.fromEntries(
  ['bearer', 'get', 'post', 'search', 'smuggled'].map((name) => [name, (...args) => front[name](...args)]));
const json = '{"text":"smuggled"}';
const query = '{"query":"smuggled"}';
const CHUNKED = 'Transfer-Encoding: chunked';
const CLOSE = 'Connection: close';
const END = '0\r\n\r\n';
const length = (value) => post(`Content-Length: ${value}`) + json;
const coded = (...values) => post(...values.map((value) => `Transfer-Encoding:${value}`)) + END;
const chunks = (bytes) => post(CHUNKED) + bytes;
const hidden = () => smuggled();

// name: bytes. Each is 400; [status, bytes] where it is another. A request that would do harm follows each.
const refused = {
  // CL.TE and TE.CL
  'Content-Length and Transfer-Encoding': () => post('Content-Length: 5', CHUNKED) + END,
  'Transfer-Encoding and Content-Length': () => post(CHUNKED, 'Content-Length: 5') + END,
  'CL.TE: the rest is a request': () => post(`Content-Length: ${5 + hidden().length}`, CHUNKED) + END + hidden(),
  'TE.CL: the chunk is a request': () => post('Content-Length: 4', CHUNKED)
    + `${hidden().length.toString(16)}\r\n${hidden()}\r\n${END}`,
  'Content-Length: 0 and chunked': () => post('Content-Length: 0', CHUNKED) + END,
  'both on a GET': () => get('Content-Length: 5', CHUNKED) + END,
  'Content-Length and a coding nobody knows': () => post('Content-Length: 5', 'Transfer-Encoding: x') + END,
  'Content-Length and an empty Transfer-Encoding': () => post('Content-Length: 5', 'Transfer-Encoding:') + END,
  // Content-Length
  'two Content-Length that differ': () => post('Content-Length: 19', 'Content-Length: 0') + json,
  'two Content-Length alike': () => post('Content-Length: 19', 'Content-Length: 19') + json,
  'two Content-Length in two cases': () => post('Content-Length: 19', 'content-length: 0') + json,
  'a list as Content-Length': () => length('19, 19'),
  'a list of two lengths': () => length('19,0'),
  'a length with a comma': () => length('19,'),
  'a length with a sign': () => length('+19'),
  'a negative length': () => length('-19'),
  'a negative zero': () => length('-0'),
  'a length in hexadecimal': () => length('0x13'),
  'a length in bare hexadecimal': () => length('1f'),
  'a length with a zero in front': () => length('019'),
  'a length of zeros': () => length('00'),
  'a length with a blank inside': () => length('1 9'),
  'a length with a tab inside': () => length('1\t9'),
  'a length with a fraction': () => length('19.0'),
  'a length with an exponent': () => length('1e1'),
  'a length in quotes': () => length('"19"'),
  'a length with an underscore': () => length('1_9'),
  'a length with a semicolon': () => length('19;a=b'),
  'a length with a vertical tab': () => length('\x0b19'),
  'a length with a form feed behind': () => length('19\x0c'),
  'a length with NUL behind': () => length('19\0'),
  'a length in Arabic digits': () => length('\xd9\xa1\xd9\xa9'),
  'a length in full-width digits': () => length('\xef\xbc\x91\xef\xbc\x99'),
  'an empty length': () => length(''),
  'a length that is a word': () => length('chunked'),
  'a length beyond 64 bits': () => [413, length('18446744073709551635')],
  'a length of 2^64 + 19 digits long': () => [413, length('9'.repeat(400))],
  'a length beyond 64 bits that is no number': () => length(`${'9'.repeat(40)}x`),
  'a length of a gigabyte': () => [413, length('1073741824')],
  'a folded length': () => post('Content-Length:', ' 19') + json,
  'a length with a blank before the colon': () => post('Content-Length : 19') + json,
  // TE.TE
  'identity': () => coded(' identity'),
  'xchunked': () => coded(' xchunked'),
  'chunkedx': () => coded(' chunkedx'),
  'chunke': () => coded(' chunke'),
  'chunked with NUL': () => coded(' chunked\0'),
  'chunked behind a vertical tab': () => coded('\x0bchunked'),
  'chunked behind a blank and a vertical tab': () => coded(' \x0bchunked'),
  'chunked before a form feed': () => coded(' chunked\x0c'),
  'chunked behind a byte from 0x80': () => coded(' \xa0chunked'),
  'chunked behind a byte order mark': () => coded(' \xef\xbb\xbfchunked'),
  'chunked in quotes': () => coded(' "chunked"'),
  'chunked in single quotes': () => coded(" 'chunked'"),
  'chunked with a parameter': () => coded(' chunked;q=1'),
  'chunked with a comma': () => coded(' chunked,'),
  'chunked behind a comma': () => coded(' , chunked'),
  'chunked twice in a list': () => coded(' chunked, chunked'),
  'chunked twice in lines': () => coded(' chunked', ' chunked'),
  'chunked not last': () => coded(' chunked, gzip'),
  'chunked and identity': () => coded(' chunked, identity'),
  'chunked and identity in lines': () => coded(' chunked', ' identity'),
  'identity and chunked in lines': () => coded(' identity', ' chunked'),
  'a coding and chunked in lines': () => coded(' gzip', ' chunked'),
  'chunked and an empty line of it': () => coded(' chunked', ''),
  'chunked and one that is no token': () => coded(' gz ip, chunked'),
  'gzip alone': () => coded(' gzip'),
  'an empty coding': () => coded(''),
  'gzip, then chunked': () => [501, coded(' gzip, chunked')],
  'identity, then chunked': () => [501, coded(' identity, chunked')],
  'x, then Chunked': () => [501, coded(' x , Chunked')],
  'a blank before the colon': () => post('Transfer-Encoding : chunked') + END,
  'a tab before the colon': () => post('Transfer-Encoding\t: chunked') + END,
  'a blank before the name': () => post(' Transfer-Encoding: chunked') + END,
  'a line feed before the name': () => post('X: x\nTransfer-Encoding: chunked') + END,
  'a carriage return before the name': () => post('X: x\rTransfer-Encoding: chunked') + END,
  'a line feed behind the name': () => post('Transfer-Encoding\n: chunked') + END,
  'a line break behind the name': () => post('Transfer-Encoding\r\n : chunked') + END,
  'folded': () => post('Transfer-Encoding:', ' chunked') + END,
  'folded with a tab': () => post('Transfer-Encoding:', '\tchunked') + END,
  'a byte from 0x80 in the name': () => post('Transfer-Encod\xc4\xb1ng: chunked') + END,
  'NUL in the name': () => post('Transfer\0-Encoding: chunked') + END,
  'NUL behind the name': () => post('Transfer-Encoding\0: chunked') + END,
  'no colon': () => post('Transfer-Encoding chunked') + END,
  'an equals sign for the colon': () => post('Transfer-Encoding= chunked') + END,
  'chunked on HTTP/1.0': () => (post(CHUNKED) + END).replace('HTTP/1.1', 'HTTP/1.0'),
  // chunks (RFC 9112 7.1)
  'a chunk size that is no number': () => chunks(`zz\r\n${json}\r\n${END}`),
  'an empty chunk size': () => chunks(`\r\n${json}\r\n${END}`),
  'a chunk size with a sign': () => chunks(`-13\r\n${json}\r\n${END}`),
  'a chunk size with a plus': () => chunks(`+13\r\n${json}\r\n${END}`),
  'a chunk size with 0x': () => chunks(`0x13\r\n${json}\r\n${END}`),
  'a chunk size behind a blank': () => chunks(` 13\r\n${json}\r\n${END}`),
  'a chunk size before a blank': () => chunks(`13 \r\n${json}\r\n${END}`),
  'a chunk size before a tab': () => chunks(`13\t\r\n${json}\r\n${END}`),
  'a chunk size with a blank inside': () => chunks(`1 3\r\n${json}\r\n${END}`),
  'a chunk size with an underscore': () => chunks(`1_3\r\n${json}\r\n${END}`),
  'a chunk size with NUL': () => chunks(`13\0\r\n${json}\r\n${END}`),
  'a chunk size of nine digits': () => chunks(`000000013\r\n${json}\r\n${END}`),
  'a chunk size beyond 32 bits': () => chunks(`100000013\r\n${json}\r\n${END}`),
  'a chunk size beyond 64 bits': () => chunks(`10000000000000013\r\n${json}\r\n${END}`),
  'a chunk size of a thousand zeros': () => chunks(`${'0'.repeat(1000)}13\r\n${json}\r\n${END}`),
  'the largest chunk size': () => [413, chunks(`ffffffff\r\n${json}`)],
  'a chunk of a gigabyte': () => [413, chunks(`40000000\r\n${json}`)],
  'chunks that together are too much': () => [413, chunks(`1\r\n{\r\nffffff\r\n${json}`)],
  'a chunk longer than it says': () => chunks(`5\r\n${json}\r\n${END}`),
  'a chunk shorter than it says': () => chunks(`14\r\n${json}\r\n${END}`),
  'a chunk without its CRLF': () => chunks(`13\r\n${json}${END}`),
  'a chunk that ends in a bare LF': () => chunks(`13\r\n${json}\n${END}`),
  'a chunk that ends in a bare CR': () => chunks(`13\r\n${json}\r${END}`),
  'a chunk size that ends in a bare LF': () => chunks(`13\n${json}\r\n${END}`),
  'a chunk size that ends in a bare CR': () => chunks(`13\r${json}\r\n${END}`),
  'a last chunk that ends in a bare LF': () => chunks(`13\r\n${json}\r\n0\n\r\n`),
  'an end that is a bare LF': () => chunks(`13\r\n${json}\r\n0\r\n\n`),
  'no end': () => chunks(`13\r\n${json}\r\n`),
  // extensions (7.1.1)
  'an extension without a name': () => chunks(`13;\r\n${json}\r\n${END}`),
  'an extension behind a blank': () => chunks(`13 ;a=b\r\n${json}\r\n${END}`),
  'an extension with a blank': () => chunks(`13; a=b\r\n${json}\r\n${END}`),
  'an extension with a bare LF': () => chunks(`13;a\n${json}\r\n${END}`),
  'an extension with a bare CR': () => chunks(`13;a\r${json}\r\n${END}`),
  'an extension with a line feed in quotes': () => chunks(`13;a="\n"\r\n${json}\r\n${END}`),
  'an extension whose quotes stay open': () => chunks(`13;a="b\r\n${json}\r\n${END}`),
  'an extension with an escaped line break': () => chunks(`13;a="\\\r\n"\r\n${json}\r\n${END}`),
  'an extension without a value': () => chunks(`13;a=\r\n${json}\r\n${END}`),
  'an extension with bytes behind its quotes': () => chunks(`13;a="b"c\r\n${json}\r\n${END}`),
  'an extension with a colon': () => chunks(`13;a:b\r\n${json}\r\n${END}`),
  'an extension with NUL': () => chunks(`13;a\0\r\n${json}\r\n${END}`),
  'an extension that is long': () => [431, chunks(`13;${long(9000)}\r\n${json}\r\n${END}`)],
  'many extensions, each short': () => [431, chunks(`1;${long(200)}\r\n \r\n`.repeat(60) + END)],
  // trailers (7.1.2)
  'a folded trailer': () => chunks(`13\r\n${json}\r\n0\r\nX: a\r\n b\r\n\r\n`),
  'a trailer without a colon': () => chunks(`13\r\n${json}\r\n0\r\nnothing\r\n\r\n`),
  'a trailer without a name': () => chunks(`13\r\n${json}\r\n0\r\n: a\r\n\r\n`),
  'a trailer with a blank before the colon': () => chunks(`13\r\n${json}\r\n0\r\nX : a\r\n\r\n`),
  'a trailer with a control byte': () => chunks(`13\r\n${json}\r\n0\r\nX: \x1b\r\n\r\n`),
  'a trailer that ends in a bare LF': () => chunks(`13\r\n${json}\r\n0\r\nX: a\n\r\n`),
  'a request for a trailer': () => chunks(`13\r\n${json}\r\n0\r\n${hidden()}`),
  'a long trailer': () => [431, chunks(`13\r\n${json}\r\n0\r\nX: ${long(9000)}\r\n\r\n`)],
  'many trailers': () => [431, chunks(`13\r\n${json}\r\n0\r\n${'a:b\r\n'.repeat(3000)}\r\n`)],
};

for (const [name, make] of Object.entries(refused))
  test(`${name}: refused and closed`, async () => {
    const made = make();
    const [status, bytes] = Array.isArray(made) ? made : [400, made];
    await front.refused(status, bytes);
  });

// name: [statuses, bytes]: what is odd and yet one body with one end. A search changes nothing.
const taken = {
  'chunked in any case': () => [[200], `${search('Transfer-Encoding: cHuNkEd', CLOSE)}14\r\n${query}\r\n${END}`],
  'chunked between tabs': () => [[200], `${search('Transfer-Encoding:\tchunked\t', CLOSE)}14\r\n${query}\r\n${END}`],
  'a size with zeros in front': () => [[200], `${search(CHUNKED, CLOSE)}00000014\r\n${query}\r\n000\r\n\r\n`],
  'chunks of one byte': () => [[200],
    search(CHUNKED, CLOSE) + [...query].map((byte) => `1\r\n${byte}\r\n`).join('') + END],
  'extensions': () => [[200], `${search(CHUNKED, CLOSE)}14;a;b=c;d="e;\\""\r\n${query}\r\n0;last\r\n\r\n`],
  'trailers': () => [[200], `${search(CHUNKED, CLOSE, 'Trailer: X-Sum')}14\r\n${query}\r\n0\r\nX-Sum: 1\r\n\r\n`],
  'trailers that would change the request': () => [[200, 200], `${search(CHUNKED)}14\r\n${query}\r\n0\r\n`
    + 'Content-Length: 5\r\nTransfer-Encoding: chunked\r\nHost: b\r\nAuthorization: Bearer x\r\n'
    + `Content-Type: text/plain\r\nConnection: close\r\n\r\n${get(CLOSE)}`],
  'a token that comes as a trailer': () => [[401, 401],
    lines('GET /v1/memories HTTP/1.1', 'Host: a') + lines('POST /v1/memories/search HTTP/1.1', 'Host: a', CHUNKED, CLOSE)
    + `14\r\n${query}\r\n0\r\n${bearer()}\r\n\r\n`],
  'chunks that hold a request': () => [[400, 200], `${search(CHUNKED)}${hidden().length.toString(16)}\r\n${hidden()}\r\n`
    + END + get(CLOSE)],
  'a length of zero': () => [[200, 200], get('Content-Length: 0') + get(CLOSE)],
  'no body at all': () => [[400, 200], search() + get(CLOSE)],
  'an empty chunked body on a GET': () => [[200, 200], get(CHUNKED) + END + get(CLOSE)],
  'a body that ends in CRLF': () => [[200, 200], `${search(`Content-Length: ${query.length}`)}${query}\r\n${get(CLOSE)}`],
  'Content-Length and Transfer-Encoding by other names': () => [[200, 200],
    `${search(`Content-Length: ${query.length}`, 'Content_Length: 0', 'X-Transfer-Encoding: chunked',
              'Transfer-Encoding-: chunked')}${query}${get(CLOSE)}`],
};

for (const [name, make] of Object.entries(taken))
  test(`${name}: taken for what it is`, async () => {
    const [statuses, bytes] = make();
    await front.answered(statuses, bytes);
    await front.neighbour.ask();
  });

test('CL.0: a body on a request that takes none does not become a request', async () => {
  for (const target of ['GET /v1/memories', 'GET /v1/tenant', 'DELETE /v1/memories/0', 'GET /none', 'OPTIONS /v1/memories']) {
    const { text } = await front.talk([lines(`${target} HTTP/1.1`, 'Host: a', bearer(),
                                             `Content-Length: ${hidden().length}`) + hidden() + get(CLOSE)]);
    const statuses = statusesOf(text);
    assert.ok([400, 404, 405].includes(statuses[0]), text.slice(0, 200));
    assert.ok(statuses.length === 1 || (statuses.length === 2 && statuses[1] === 200), `${target}: ${statuses}`);
  }
});

test('the rest of a refused body is not taken for a request, whoever asks', async () => {
  for (const [status, ...headers] of [[401, 'Authorization: Bearer x'], [401], [400, front.bearer(), 'Expect: 100-continue'],
                                      [404, front.bearer()]]) {
    const target = status === 404 ? '/v1/none' : '/v1/memories';
    const head = lines(`POST ${target} HTTP/1.1`, 'Host: a', ...headers, 'Content-Type: application/json',
                       `Content-Length: ${hidden().length}`);
    const { text } = await front.talk([head, hidden(), get(CLOSE)], { pause: 50 });
    const finals = answersOf(text).filter((answer) => answer.status >= 200).map((answer) => answer.status);
    assert.equal(finals[0], status);
    assert.ok(finals.length === 1 || (finals.length === 2 && finals[1] === 200), `${finals}`);
  }
});

test('a chunked body that is refused closes: its end is not looked for', async () => {
  const head = lines('POST /v1/memories HTTP/1.1', 'Host: a', 'Content-Type: application/json', CHUNKED);
  await front.refused(401, `${head}${hidden().length.toString(16)}\r\n${hidden()}\r\n${END}`);
});

test('a refused request is understood as it is, however its bytes are cut', async () => {
  for (const make of ['CL.TE: the rest is a request', 'TE.CL: the chunk is a request', 'chunked behind a vertical tab'].map(
    (name) => refused[name])) {
    const bytes = make() + smuggled();
    for (let cut = 1; cut < bytes.length; cut += 97) {
      const { text, closed } = await front.talk([bytes.slice(0, cut), bytes.slice(cut)], { pause: 1 });
      assert.deepEqual(statusesOf(text), [400], `cut at ${cut}`);
      assert.ok(closed);
    }
  }
});

test('after all this the data is as it was, and nothing has died', () => front.isAsItWas());
