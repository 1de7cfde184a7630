// support-h2.mjs: HTTP/2 (RFC 9113) frame by frame, and HPACK (RFC 7541) byte by byte: a client that may say anything,
// and that reads what it is answered strictly.
import assert from 'node:assert/strict';
import net from 'node:net';

import { Front, checkRefusal } from './support-http.mjs';

const LIMIT_MS = 10000 * Number(process.env.BULKHEAD_PATIENCE ?? 1);

export const PREFACE = 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n';
export const DATA = 0, HEADERS = 1, PRIORITY = 2, RST_STREAM = 3, SETTINGS = 4, PUSH_PROMISE = 5, PING = 6, GOAWAY = 7,
  WINDOW_UPDATE = 8, CONTINUATION = 9;
export const END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8, PRIORITIZED = 32;
export const NO_ERROR = 0, PROTOCOL_ERROR = 1, INTERNAL_ERROR = 2, FLOW_CONTROL_ERROR = 3, STREAM_CLOSED = 5,
  FRAME_SIZE_ERROR = 6, REFUSED_STREAM = 7, CANCEL = 8, COMPRESSION_ERROR = 9, ENHANCE_YOUR_CALM = 11;
export const HEADER_TABLE_SIZE = 1, ENABLE_PUSH = 2, MAX_CONCURRENT_STREAMS = 3, INITIAL_WINDOW_SIZE = 4, MAX_FRAME_SIZE = 5,
  MAX_HEADER_LIST_SIZE = 6;

// ---- frames ----

export function frame(type, flags, stream, payload = '', { length } = {}) {
  const body = typeof payload === 'string' ? Buffer.from(payload, 'latin1') : Buffer.from(payload);
  const head = Buffer.alloc(9);
  head.writeUIntBE(length ?? body.length, 0, 3);
  head[3] = type;
  head[4] = flags;
  head.writeUInt32BE(stream >>> 0, 5);
  return Buffer.concat([head, body]);
}

export const u32 = (value) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
};

// pairs: [[id, value], ...]
export const settings = (pairs = [], flags = 0, stream = 0) => frame(SETTINGS, flags, stream, Buffer.concat(
  pairs.map(([id, value]) => Buffer.concat([Buffer.from([id >> 8, id & 255]), u32(value)]))));
export const windowUpdate = (stream, increment) => frame(WINDOW_UPDATE, 0, stream, u32(increment));
export const reset = (stream, code = CANCEL) => frame(RST_STREAM, 0, stream, u32(code));
export const ping = (flags = 0, payload = 'bulkhead') => frame(PING, flags, 0, payload);
export const goaway = (last = 0, code = NO_ERROR) => frame(GOAWAY, 0, 0, Buffer.concat([u32(last), u32(code)]));

// ---- HPACK, writing ----

// RFC 7541 5.1; first: the bits in front of the prefix.
export function integer(value, prefix, first = 0) {
  const most = 2 ** prefix - 1;
  if (value < most) return Buffer.from([first | value]);
  const bytes = [first | most];
  for (value -= most; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
  return Buffer.from([...bytes, value]);
}

export const plain = (text) => {
  const bytes = Buffer.from(text, 'latin1');
  return Buffer.concat([integer(bytes.length, 7), bytes]);
};
// Bytes that say that they are Huffman coded.
export const coded = (bytes) => Buffer.concat([integer(bytes.length, 7, 0x80), Buffer.from(bytes)]);
export const indexed = (index) => integer(index, 7, 0x80);
export const tableSize = (size) => integer(size, 5, 0x20);
// A literal with a new name, that enters no table; the same, and it enters it.
export const literal = (name, value) => Buffer.concat([Buffer.from([0]), plain(name), plain(value)]);
export const remembered = (name, value) => Buffer.concat([Buffer.from([0x40]), plain(name), plain(value)]);
// fields: [name, value] or bytes.
export const block = (...fields) => Buffer.concat(
  fields.map((field) => (Buffer.isBuffer(field) ? field : literal(...field))));

export const headers = (stream, fields, flags = END_STREAM | END_HEADERS) =>
  frame(HEADERS, flags, stream, block(...fields));
export const data = (stream, payload, flags = END_STREAM) => frame(DATA, flags, stream, payload);

// ---- HPACK, reading ----

// RFC 7541 appendix B: the code is canonical, so the lengths say it all. 256: EOS.
const CODE_LENGTHS = [
  ...[13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28],
  ...[6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12, 10],
  ...[13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6],
  ...[15, 5, 6, 5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28],
  ...[20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24],
  ...[22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23],
  ...[26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27],
  ...[20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26],
  30];

const CODES = (() => {
  const symbols = CODE_LENGTHS.map((length, symbol) => ({ length, symbol }))
    .sort((a, b) => a.length - b.length || a.symbol - b.symbol);
  const codes = new Map();
  let code = 0, length = symbols[0].length;
  for (const one of symbols) {
    code *= 2 ** (one.length - length);
    length = one.length;
    codes.set(code.toString(2).padStart(length, '0'), one.symbol);
    code++;
  }
  return codes;
})();

function uncoded(bytes) {
  const bits = [...bytes].map((byte) => byte.toString(2).padStart(8, '0')).join('');
  const symbols = [];
  let start = 0;
  for (let end = 5; end <= bits.length; end++) {
    const symbol = CODES.get(bits.slice(start, end));
    if (symbol === undefined) continue;
    symbols.push(symbol);
    start = end;
    end += 4;
  }
  assert.match(bits.slice(start), /^1{0,7}$/, 'the end of a coded string');
  return Buffer.from(symbols).toString('latin1');
}

const STATIC = [null, [':authority', ''], [':method', 'GET'], [':method', 'POST'], [':path', '/'], [':path', '/index.html'],
  [':scheme', 'http'], [':scheme', 'https'], [':status', '200'], [':status', '204'], [':status', '206'], [':status', '304'],
  [':status', '400'], [':status', '404'], [':status', '500'], ['accept-charset', ''], ['accept-encoding', 'gzip, deflate'],
  ...['accept-language', 'accept-ranges', 'accept', 'access-control-allow-origin', 'age', 'allow', 'authorization', 'cache-control',
    'content-disposition', 'content-encoding', 'content-language', 'content-length', 'content-location', 'content-range',
    'content-type', 'cookie', 'date', 'etag', 'expect', 'expires', 'from', 'host', 'if-match', 'if-modified-since', 'if-none-match',
    'if-range', 'if-unmodified-since', 'last-modified', 'link', 'location', 'max-forwards', 'proxy-authenticate',
    'proxy-authorization', 'range', 'referer', 'refresh', 'retry-after', 'server', 'set-cookie', 'strict-transport-security',
    'transfer-encoding', 'user-agent', 'vary', 'via', 'www-authenticate'].map((name) => [name, ''])];
assert.equal(STATIC.length, 62);

// Reads blocks in the order in which they come. Our settings leave the table its 4096 bytes.
class Decoder {
  #table = [];

  #size() {
    return this.#table.reduce((sum, [name, value]) => sum + name.length + value.length + 32, 0);
  }

  #remember(field) {
    this.#table.unshift(field);
    while (this.#size() > 4096) this.#table.pop();
  }

  #entry(index) {
    const entry = index < STATIC.length ? STATIC[index] : this.#table[index - STATIC.length];
    assert.ok(entry, `the index ${index}`);
    return entry;
  }

  read(bytes) {
    const fields = [];
    let at = 0;
    const number = (prefix) => {
      const most = 2 ** prefix - 1;
      let value = bytes[at++] & most;
      if (value < most) return value;
      for (let scale = 1; ; scale *= 128) {
        value += (bytes[at] & 127) * scale;
        if (!(bytes[at++] & 128)) return value;
      }
    };
    const text = () => {
      const isCoded = bytes[at] & 128;
      const length = number(7);
      const part = bytes.subarray(at, at += length);
      assert.equal(part.length, length, 'a string ends before its length');
      return isCoded ? uncoded(part) : part.toString('latin1');
    };
    const named = (prefix) => {
      const index = number(prefix);
      const name = index ? this.#entry(index)[0] : text();
      return [name, text()];
    };
    while (at < bytes.length) {
      const first = bytes[at];
      if (first & 0x80) {
        fields.push(this.#entry(number(7)));
      } else if (first & 0x40) {
        fields.push(named(6));
        this.#remember(fields.at(-1));
      } else if (first & 0x20) {
        assert.ok(number(5) <= 4096);
      } else {
        fields.push(named(4));
      }
    }
    return fields;
  }
}

// ---- a connection ----

// What was answered on a stream. status 0: nothing yet.
class Stream {
  constructor() {
    Object.assign(this, { status: 0, interim: [], headers: {}, body: '', ended: false, reset: undefined, frames: 0 });
  }
}

export class H2 {
  constructor() {
    this.streams = new Map();
    this.pongs = [];
    this.acks = 0;
    this.goaway = undefined;
    this.closed = false;
    this.settings = null;
    this.frames = 0;
    this.#decoder = new Decoder();
  }

  #decoder;
  #buffer = Buffer.alloc(0);
  #block = null;
  #looks = new Set();
  #fault = null;

  // settings: pairs, or null to send no preface and no SETTINGS. ack: of the server's SETTINGS. grow: windows are opened
  // again as data comes.
  static async open(port, { settings: pairs = [], first = null, ack = true, grow = true, awaits = true } = {}) {
    const connection = new H2();
    connection.ack = ack;
    connection.grow = grow;
    connection.socket = net.connect(port, '127.0.0.1');
    connection.socket.setNoDelay(true);
    await new Promise((resolve, reject) => {
      connection.socket.once('connect', resolve);
      connection.socket.once('error', reject);
    });
    connection.socket.on('data', (piece) => connection.#take(piece));
    const end = () => {
      connection.closed = true;
      connection.#look();
    };
    connection.socket.on('end', end);
    connection.socket.on('close', end);
    connection.socket.on('error', () => {}); // written to after the end: the close follows
    connection.send(first ?? Buffer.concat([Buffer.from(PREFACE), settings(pairs)]));
    if (awaits && first === null) await connection.until(() => connection.settings, 'the settings of the server');
    return connection;
  }

  #take(piece) {
    this.#buffer = Buffer.concat([this.#buffer, piece]);
    try {
      while (this.#buffer.length >= 9 && this.#buffer.length >= 9 + this.#buffer.readUIntBE(0, 3)) {
        const length = this.#buffer.readUIntBE(0, 3);
        this.#frame(this.#buffer[3], this.#buffer[4], this.#buffer.readUInt32BE(5), this.#buffer.subarray(9, 9 + length));
        this.#buffer = this.#buffer.subarray(9 + length);
      }
    } catch (fault) {
      this.#fault ??= fault;
    }
    this.#look();
  }

  #frame(type, flags, id, payload) {
    this.frames++;
    assert.ok(payload.length <= 16384, 'no frame is larger than we allow');
    assert.equal(id >>> 31, 0, 'the reserved bit');
    if (this.#block) assert.equal(type, CONTINUATION, 'nothing comes between a block\'s frames');
    switch (type) {
      case DATA: return this.#data(flags, id, payload);
      case HEADERS:
        assert.equal(flags & (PADDED | PRIORITIZED), 0, 'not used here');
        this.#block = { id, flags, parts: [payload] };
        return flags & END_HEADERS ? this.#headers() : undefined;
      case CONTINUATION:
        assert.equal(this.#block?.id, id);
        this.#block.parts.push(payload);
        return flags & END_HEADERS ? this.#headers() : undefined;
      case RST_STREAM:
        assert.ok(id > 0 && payload.length === 4);
        this.stream(id).reset = payload.readUInt32BE(0);
        return undefined;
      case SETTINGS: return this.#settings(flags, id, payload);
      case PING:
        assert.ok(id === 0 && payload.length === 8);
        if (flags & ACK) this.pongs.push(payload.toString('latin1'));
        else this.send(ping(ACK, payload));
        return undefined;
      case GOAWAY:
        assert.ok(id === 0 && payload.length >= 8);
        this.goaway = { last: payload.readUInt32BE(0), code: payload.readUInt32BE(4) };
        return undefined;
      case WINDOW_UPDATE:
        assert.ok(payload.length === 4 && payload.readUInt32BE(0) > 0);
        return undefined;
      default:
        assert.fail(`a frame of type ${type}`);
    }
  }

  #data(flags, id, payload) {
    const stream = this.stream(id);
    assert.ok(id > 0 && stream.status >= 200 && !stream.ended, 'DATA where there can be none');
    assert.equal(flags & PADDED, 0, 'not used here');
    stream.body += payload.toString('latin1');
    stream.frames++;
    if (flags & END_STREAM) stream.ended = true;
    if (this.grow && payload.length > 0) {
      this.send(windowUpdate(0, payload.length));
      if (!stream.ended) this.send(windowUpdate(id, payload.length));
    }
  }

  #headers() {
    const { id, flags, parts } = this.#block;
    const stream = this.stream(id);
    this.#block = null;
    const fields = this.#decoder.read(Buffer.concat(parts));
    assert.ok(id % 2 === 1 && !stream.ended, 'HEADERS where there can be none');
    const [[name, status]] = fields.splice(0, 1);
    assert.equal(name, ':status');
    assert.match(status, /^[1-5]\d\d$/);
    for (const [field] of fields) assert.match(field, /^[a-z0-9-]+$/, 'names are in lower case, and no pseudo-header follows');
    if (status < 200) {
      stream.interim.push(Number(status));
      return;
    }
    assert.equal(stream.status, 0, 'one answer');
    stream.status = Number(status);
    stream.headers = Object.fromEntries(fields);
    assert.equal(Object.keys(stream.headers).length, fields.length, 'each header once');
    for (const forbidden of ['connection', 'transfer-encoding', 'keep-alive', 'upgrade', 'proxy-connection'])
      assert.equal(stream.headers[forbidden], undefined, 'RFC 9113 8.2.2');
    stream.ended = (flags & END_STREAM) !== 0;
  }

  #settings(flags, id, payload) {
    assert.equal(id, 0);
    if (flags & ACK) {
      assert.equal(payload.length, 0);
      this.acks++;
      return;
    }
    assert.equal(payload.length % 6, 0);
    this.settings ??= {};
    for (let at = 0; at < payload.length; at += 6) this.settings[payload.readUInt16BE(at)] = payload.readUInt32BE(at + 2);
    if (this.ack) this.send(settings([], ACK));
  }

  #look() {
    for (const look of this.#looks) look();
  }

  stream(id) {
    if (!this.streams.has(id)) this.streams.set(id, new Stream());
    return this.streams.get(id);
  }

  send(...frames) {
    if (this.socket.writable) this.socket.write(Buffer.concat(frames.map((one) => Buffer.from(one, 'latin1'))));
  }

  // All has left this process: what comes after is not read by it, if it does not read.
  async sent(...frames) {
    if (!this.socket.writable) return;
    await new Promise((resolve) => {
      this.socket.write(Buffer.concat(frames.map((one) => Buffer.from(one, 'latin1'))), resolve);
      this.socket.once('close', resolve);
    });
  }

  // Resolves once check() is true; what is wrong with an answer is found here, too.
  until(check, what, limit = LIMIT_MS) {
    return new Promise((resolve, reject) => {
      const finish = (settle, value) => {
        clearTimeout(timer);
        this.#looks.delete(look);
        settle(value);
      };
      const look = () => {
        if (this.#fault) finish(reject, this.#fault);
        else if (check()) finish(resolve);
      };
      const timer = setTimeout(() => finish(reject, new Error(`${what}: not within ${limit} ms; ${this.toString()}`)), limit);
      this.#looks.add(look);
      look();
    });
  }

  toString() {
    const streams = [...this.streams].slice(-5).map(([id, { status, ended, reset: code, body }]) =>
      `${id}: ${status}${ended ? ' ended' : ''}${code === undefined ? '' : ` reset ${code}`} ${body.slice(0, 200)}`);
    return `${this.closed ? 'closed' : 'open'}, goaway ${JSON.stringify(this.goaway)}, ${streams.join('; ')}`;
  }

  async answer(id, limit) {
    const stream = this.stream(id);
    await this.until(() => stream.ended || stream.reset !== undefined || this.closed, `an answer on ${id}`, limit);
    return stream;
  }

  // The connection is of use: a PING comes back.
  async pong() {
    const payload = String(Math.random()).padEnd(10, '0').slice(2, 10);
    this.send(ping(0, payload));
    await this.until(() => this.pongs.includes(payload) || this.closed, 'a PING');
    assert.ok(!this.closed, `closed instead of answering PING: ${this}`);
  }

  close() {
    this.socket.destroy();
  }
}

// ---- a node ----

// A node whose connections are HTTP/2 by prior knowledge; each case has one of its own and must hurt no other.
export class FrontH2 extends Front {
  async start() {
    await super.start();
    this.beside = await this.open();
    this.besideId = 1;
  }

  async destroy() {
    for (const connection of this.all) connection.close();
    await super.destroy();
  }

  all = new Set(); // also those of tests that failed

  async open(options) {
    const connection = await H2.open(this.port, options);
    this.all.add(connection);
    connection.socket.once('close', () => this.all.delete(connection));
    return connection;
  }

  // The fields of a request. more: further ones; a later one replaces a pseudo-header of its name, null leaves it out.
  fields(method, path, more = []) {
    const pseudo = new Map([[':method', method], [':scheme', 'http'], [':authority', 'a'], [':path', path]]);
    const regular = [['authorization', `Bearer ${this.token}`]];
    for (const field of more) {
      if (!Buffer.isBuffer(field) && pseudo.has(field[0])) pseudo.set(...field);
      else regular.push(field);
    }
    return [...[...pseudo].filter(([, value]) => value !== null), ...regular];
  }

  ask(id, path = '/v1/memories', more = [], flags = undefined) {
    return headers(id, this.fields('GET', path, more), flags);
  }

  // A search: a POST that changes nothing.
  find(id, more = [], flags = END_HEADERS) {
    return headers(id, this.fields('POST', '/v1/memories/search', [['content-type', 'application/json'], ...more]), flags);
  }

  // Others do not notice: those that were there, and those that come.
  async works() {
    const id = this.besideId;
    this.besideId += 2;
    this.beside.send(this.ask(id));
    assert.equal((await this.beside.answer(id)).status, 200, `the neighbour: ${this.beside}`);
    await this.neighbour.ask();
    const fresh = await this.open();
    fresh.send(this.ask(1));
    assert.equal((await fresh.answer(1)).status, 200, 'a new connection');
    fresh.close();
  }

  // The connection ends, with one of these codes.
  async dies(codes, act, options) {
    const connection = await this.open(options);
    await act(connection);
    await connection.until(() => connection.closed, 'its end');
    assert.ok(connection.goaway, `GOAWAY before the end: ${connection}`);
    assert.ok(codes.includes(connection.goaway.code), `${connection.goaway.code} is not in ${codes}`);
    connection.close();
    await this.works();
    return connection;
  }

  // The stream ends with one of these codes, and the connection is of use; or all of it ends with one of them, which
  // RFC 9113 5.4 allows.
  async resets(id, codes, act, options) {
    const connection = await this.open(options);
    await act(connection);
    const stream = connection.stream(id);
    await connection.until(() => stream.reset !== undefined || stream.ended || connection.closed, `the end of stream ${id}`);
    assert.equal(stream.status, 0, `no answer: ${connection}`);
    const code = stream.reset ?? connection.goaway?.code;
    assert.ok(codes.includes(code), `${code} is not in ${codes}: ${connection}`);
    if (stream.reset !== undefined && !connection.goaway) await connection.pong();
    else await connection.until(() => connection.closed, 'its end');
    connection.close();
    await this.works();
    return connection;
  }

  // Not a request (RFC 9113 8.1.1): the stream is reset, or answered with 400.
  async malformed(id, act, options) {
    const connection = await this.open(options);
    await act(connection);
    const stream = await connection.answer(id);
    if (stream.status) this.#checkProblem(stream, 400);
    else assert.equal(stream.reset ?? connection.goaway?.code, PROTOCOL_ERROR, `${connection}`);
    if (!connection.goaway) await connection.pong();
    connection.close();
    await this.works();
  }

  // Answered with this, and the connection is of use.
  async answers(id, status, act, { code, ...options } = {}) {
    const connection = await this.open(options);
    await act(connection);
    const stream = await connection.answer(id);
    assert.equal(stream.status, status, `${connection}`);
    if (status >= 400) this.#checkProblem(stream, status, code);
    if (!connection.closed) await connection.pong();
    connection.close();
    await this.works();
    return stream;
  }

  #checkProblem(stream, status, code) {
    checkRefusal(stream, status, code);
    assert.ok(!stream.body.includes(this.token.slice(-40)), 'nothing of the token comes back');
  }
}

// Registers start and end.
export function frontH2OfSuite({ before, after }, options) {
  const front = new FrontH2(options);
  before(() => front.start());
  after(() => front.destroy());
  return front;
}
