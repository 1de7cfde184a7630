// http-framing: request lines, targets and headers that are not exactly HTTP/1.1, or not read alike by everybody. Each
// is answered with its one code, once, and the connection closed: what follows is never taken for a request.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { frontOfSuite, lines, statusesOf, talk } from './support-http.mjs';

const front = frontOfSuite({ before, after });
const { bearer, get, line } = Object.fromEntries(
  ['bearer', 'get', 'line'].map((name) => [name, (...args) => front[name](...args)]));
const withHost = (...hosts) => lines('GET /v1/memories HTTP/1.1', ...hosts.map((host) => `Host: ${host}`), bearer());
const v = (version) => line(`GET /v1/memories ${version}`);
const at = (target) => line(`GET ${target} HTTP/1.1`);

// name: bytes. Each is 400; [status, bytes] where it is another.
const refused = {
  // RFC 9112 2.2: lines
  'bare LF after the request line': () => `GET /v1/memories HTTP/1.1\nHost: a\r\n${bearer()}\r\n\r\n`,
  'bare LF between headers': () => `GET /v1/memories HTTP/1.1\r\nHost: a\n${bearer()}\r\n\r\n`,
  'bare LF as the empty line': () => `GET /v1/memories HTTP/1.1\r\nHost: a\r\n${bearer()}\r\n\n`,
  'bare LF everywhere': () => get().replaceAll('\r\n', '\n'),
  'bare CR everywhere': () => `${get().replaceAll('\r\n', '\r')}\r\n`,
  'bare CR inside a header': () => get('X-One: a\rContent-Length: 5'),
  'bare CR before the CRLF': () => get('X-One: a\r'),
  'bare CR before the request': () => `\r${get()}`,
  'LF CR': () => `GET /v1/memories HTTP/1.1\r\nHost: a\n\r${bearer()}\r\n\r\n`,
  'two empty lines first': () => `\r\n\r\n${get()}`,
  'a bare LF first': () => `\n${get()}`,
  'a blank before the request': () => ` ${get()}`,
  'NUL before the request': () => `\0${get()}`,
  'a byte order mark before the request': () => `\xef\xbb\xbf${get()}`,
  'a first header that begins with a blank': () => lines('GET /v1/memories HTTP/1.1', ' Host: a', bearer()),
  'a first header that begins with a tab': () => lines('GET /v1/memories HTTP/1.1', '\tHost: a', bearer()),
  // 2.3, 3: versions, request lines
  'HTTP/0.9': () => 'GET /v1/memories\r\n\r\n',
  'HTTP/0.9 with headers': () => lines('GET /v1/memories', 'Host: a', bearer()),
  'version 0.9': () => v('HTTP/0.9'),
  'version 1.2': () => v('HTTP/1.2'),
  'version 1.10': () => v('HTTP/1.10'),
  'version 1': () => v('HTTP/1'),
  'version 01.1': () => v('HTTP/01.1'),
  'version 2.0': () => v('HTTP/2.0'),
  'version 3.0': () => v('HTTP/3.0'),
  'a version in lower case': () => v('http/1.1'),
  'a version of another protocol': () => v('ICY/1.1'),
  'no version': () => line('GET /v1/memories '),
  'a byte behind the version': () => v('HTTP/1.1x'),
  'a blank behind the version': () => v('HTTP/1.1 '),
  'two blanks before the target': () => line('GET  /v1/memories HTTP/1.1'),
  'two blanks before the version': () => line('GET /v1/memories  HTTP/1.1'),
  'a tab before the target': () => line('GET\t/v1/memories HTTP/1.1'),
  'a tab before the version': () => line('GET /v1/memories\tHTTP/1.1'),
  'a blank in the target': () => at('/v1/memories /x'),
  'no method': () => line(' /v1/memories HTTP/1.1'),
  'a method that is no token': () => line('G(T /v1/memories HTTP/1.1'),
  'a method with bytes from 0x80': () => line('GÉT /v1/memories HTTP/1.1'),
  'a control byte in the method': () => line('GE\x01T /v1/memories HTTP/1.1'),
  'NUL behind the method': () => line('GET\0 /v1/memories HTTP/1.1'),
  'a TLS hello': () => '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n',
  'a line of SSH': () => 'SSH-2.0-OpenSSH_9.2\r\n\r\n',
  'the header of PROXY': () => `PROXY TCP4 10.0.0.1 10.0.0.2 1 2\r\n${get()}`,
  // 3.2: targets
  'no target': () => line('GET  HTTP/1.1'),
  'a target without a slash': () => at('v1/memories'),
  'a target that is a query': () => at('?limit=5'),
  'a fragment': () => at('/v1/memories#x'),
  'a fragment in the query': () => at('/v1/memories?limit=5#x'),
  'NUL in the target': () => at('/v1/mem\0ories'),
  'a control byte in the target': () => at('/v1/mem\x01ories'),
  'DEL in the target': () => at('/v1/mem\x7fories'),
  'UTF-8 in the target': () => at('/v1/mem\xc3\xb6ries'),
  'a backslash in the target': () => at('/v1\\memories'),
  'quotes in the query': () => at('/v1/memories?limit="5"'),
  'angles in the target': () => at('/v1/<memories>'),
  'an absolute target of another host': () => at('http://b/v1/memories'),
  'an absolute target with another port': () => at('http://a:81/v1/memories'),
  'an absolute target with a user': () => at('http://a@b/v1/memories'),
  'an absolute target with the user of Host': () => at('http://u:p@a/v1/memories'),
  'an absolute target without a host': () => at('http:///v1/memories'),
  'an absolute target of another scheme': () => at('ftp://a/v1/memories'),
  'an absolute target with a backslash': () => at('http://a\\@b/v1/memories'),
  'an absolute target without Host': () => lines('GET http://a/v1/memories HTTP/1.1', bearer()),
  'an absolute target and two Host': () => at('http://a/v1/memories').replace('Host: a', 'Host: a\r\nHost: a'),
  'a target of file': () => at('file:///etc/passwd'),
  'CONNECT': () => line('CONNECT a:80 HTTP/1.1'),
  'CONNECT with a path': () => [405, line('CONNECT /v1/memories HTTP/1.1', 'Connection: close')],
  'GET of an authority': () => at('a:80'),
  'an asterisk': () => line('OPTIONS * HTTP/1.1'),
  'an asterisk for GET': () => at('*'),
  // 3.2: Host
  'no Host': () => lines('GET /v1/memories HTTP/1.1', bearer()),
  'two Host': () => withHost('a', 'b'),
  'two Host alike': () => withHost('a', 'a'),
  'Host in another case, twice': () => withHost('a').replace('Host:', 'Host: a\r\nhost:'),
  'an empty Host': () => withHost(''),
  'Host with a user': () => withHost('u@a'),
  'Host with a path': () => withHost('a/b'),
  'Host with a query': () => withHost('a?b'),
  'Host with a fragment': () => withHost('a#b'),
  'Host with a scheme': () => withHost('http://a'),
  'Host with a list': () => withHost('a, b'),
  'Host with a blank': () => withHost('a b'),
  'Host with an escape': () => withHost('%61'),
  'Host with UTF-8': () => withHost('\xc3\xa4'),
  'Host with a backslash': () => withHost('a\\b'),
  'Host with an empty port': () => withHost('a:'),
  'Host with a port that is none': () => withHost('a:80x'),
  'Host with a port too high': () => withHost('a:65536'),
  'Host with two ports': () => withHost('a:80:80'),
  'Host that is only a port': () => withHost(':80'),
  'Host with an open bracket': () => withHost('[::1'),
  'Host with a zone': () => withHost('[fe80::1%25eth0]'),
  'Host with an address that is none': () => withHost('[::g]'),
  'Host with two dots': () => withHost('a..b'),
  'Host that is too long': () => withHost('a'.repeat(256)),
  'Host folded': () => lines('GET /v1/memories HTTP/1.1', 'Host:', ' a', bearer()),
  // 5: header lines
  'a folded header': () => get('X-One: a', ' b'),
  'a header folded with a tab': () => get('X-One: a', '\tb'),
  'a folded Authorization': () => lines('GET /v1/memories HTTP/1.1', 'Host: a', 'Authorization: Bearer',
                                        ` ${front.token}`),
  'a line of blanks': () => get(' '),
  'a blank before the colon': () => get('X-One : a'),
  'a tab before the colon': () => get('X-One\t: a'),
  'a blank in the name': () => get('X One: a'),
  'a header without a colon': () => get('nothing'),
  'a header without a name': () => get(': a'),
  'a name in quotes': () => get('"X-One": a'),
  'a name with bytes from 0x80': () => get('X-\xc3\xb6: a'),
  'a name with a slash': () => get('X/One: a'),
  'NUL in a name': () => get('X-O\0ne: a'),
  'NUL in a value': () => get('X-One: a\0b'),
  'NUL as a value': () => get('X-One: \0'),
  'a control byte in a value': () => get('X-One: a\x1bb'),
  'a vertical tab in a value': () => get('X-One: a\x0bb'),
  'a form feed in a value': () => get('X-One: a\x0cb'),
  'a backspace in a value': () => get('X-One: a\x08'),
  'DEL in a value': () => get('X-One: a\x7f'),
  'two Authorization': () => get(bearer(), 'Connection: close'),
  'two Content-Type': () => front.search('Content-Type: application/json', 'Content-Length: 2', 'Connection: close') + '{}',
  'two Idempotency-Key': () => front.post('Idempotency-Key: a', 'Idempotency-Key: b', 'Content-Length: 2', 'Connection: close') + '{}',
  'Connection that is no list': () => get('Connection: clo se'),
  'Expect that nobody knows': () => front.post('Expect: 200-ok', 'Content-Length: 2') + '{}',
  'Expect twice': () => front.post('Expect: 100-continue', 'Expect: 100-continue', 'Content-Length: 2') + '{}',
  'Expect with more': () => front.post('Expect: 100-continue, x', 'Content-Length: 2') + '{}',
};

for (const [name, make] of Object.entries(refused))
  test(`${name}: refused and closed`, async () => {
    const made = make();
    const [status, bytes] = Array.isArray(made) ? made : [400, made];
    await front.refused(status, bytes);
  });

const CLOSE = 'Connection: close';

// name: [statuses, bytes]: what is odd and yet HTTP.
const taken = {
  'one empty line first': () => [[200], `\r\n${get(CLOSE)}`],
  'an empty line between two requests': () => [[200, 200], `${get()}\r\n${get(CLOSE)}`],
  'an absolute target of this host': () => [[200], line('GET http://a/v1/memories HTTP/1.1', CLOSE)],
  'an absolute target in another case': () => [[200], line('GET HTTP://A/v1/memories HTTP/1.1', CLOSE)],
  'an absolute target with https': () => [[200], line('GET https://a/v1/memories?limit=5 HTTP/1.1', CLOSE)],
  'an absolute target without a path': () => [[404], line('GET http://a HTTP/1.1', CLOSE)],
  'an absolute target on 1.0 without Host': () => [[200], lines('GET http://a/v1/memories HTTP/1.0', bearer())],
  '1.0 without Host': () => [[200], lines('GET /v1/memories HTTP/1.0', bearer())],
  '1.0 is served once': () => [[200], line('GET /v1/memories HTTP/1.0', 'Connection: keep-alive') + get()],
  'Host with a port': () => [[200], withHost('a:7117').replace('\r\n\r\n', `\r\n${CLOSE}\r\n\r\n`)],
  'Host that is an address': () => [[200], withHost('[::1]:7117').replace('\r\n\r\n', `\r\n${CLOSE}\r\n\r\n`)],
  'blanks around a value': () => [[200], get('X-One: \t a \t ', CLOSE)],
  'no blank behind the colon': () => [[200], get().replaceAll(': ', ':').replace('\r\n\r\n', `\r\n${CLOSE}\r\n\r\n`)],
  'an empty value': () => [[200], get('X-One:', CLOSE)],
  'bytes from 0x80 in a value': () => [[200], get('X-One: \xc3\xb6\xff', CLOSE)],
  'names in any case': () => [[200], get().replace('Host', 'hOST').replace('Authorization', 'AUTHORIZATION')
    .replace('\r\n\r\n', '\r\ncOnNeCtIoN: CLOSE\r\n\r\n')],
  'an unknown header twice': () => [[200], get('X-One: a', 'X-One: b', CLOSE)],
  'underscores are not dashes': () => [[200], get('Content_Length: 5', 'Transfer_Encoding: chunked', 'Host_: b', CLOSE)],
  'Connection naming other headers': () => [[200], get('Connection: authorization, host, x-one', 'X-One: a', CLOSE)],
  'Connection with empty places': () => [[200], get('Connection: , ,close,')],
  'Connection in two lines': () => [[200], get('Connection: x', CLOSE)],
  'Upgrade to h2c is ignored': () => [[200], get('Connection: Upgrade, HTTP2-Settings, close', 'Upgrade: h2c',
                                                 'HTTP2-Settings: AAMAAABkAAQAAP__')],
  'Upgrade to websocket is ignored': () => [[200], get('Connection: Upgrade, close', 'Upgrade: websocket',
                                                       'Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==')],
  'TE is ignored': () => [[200], get('TE: trailers, deflate;q=0.5', CLOSE)],
  'Range is ignored': () => [[200], get('Range: bytes=0-1', CLOSE)],
  'If-None-Match is ignored': () => [[200], get('If-None-Match: *', CLOSE)],
  'a method in lower case': () => [[405], line('get /v1/memories HTTP/1.1', CLOSE)],
  'a method that nobody knows': () => [[405], line('BREW /v1/memories HTTP/1.1', CLOSE)],
  'TRACE': () => [[405], line('TRACE /v1/memories HTTP/1.1', CLOSE)],
  'OPTIONS of a path': () => [[405], line('OPTIONS /v1/memories HTTP/1.1', CLOSE)],
  'a method of 100 letters': () => [[405], line(`${'A'.repeat(100)} /v1/memories HTTP/1.1`, CLOSE)],
  'headers that name another method or target': () => [[200], get('X-HTTP-Method-Override: DELETE', 'X-Method: DELETE',
    'X-Original-URL: /v1/tenant', 'X-Rewrite-URL: /v1/tenant', 'X-Forwarded-Host: b', 'Forwarded: host=b', CLOSE)],
};

for (const [name, make] of Object.entries(taken))
  test(`${name}: ${make.toString().match(/\[\[([\d, ]+)\]/)[1]}`, async () => {
    const [statuses, bytes] = make();
    await front.answered(statuses, bytes);
    await front.neighbour.ask();
  });

test('TRACE does not send the token back', async () => {
  const { text } = await front.talk([line('TRACE /v1/memories HTTP/1.1', CLOSE)]);
  assert.ok(!text.includes(front.token.slice(-40)));
});

test('the listener of operations reads as strictly', async () => {
  for (const bytes of ['GET /healthz HTTP/1.1\nHost: a\r\n\r\n', 'GET /healthz HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n',
                       'GET /healthz HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n', 'GET http://b/healthz HTTP/1.1\r\nHost: a\r\n\r\n',
                       'POST /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}'])
    await front.refused(400, bytes, { port: front.node.opsPort });
  const { text } = await talk(front.node.opsPort, ['GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n']);
  assert.deepEqual(statusesOf(text), [200]);
});

test('after all this the data is as it was, and nothing has died', () => front.isAsItWas());
