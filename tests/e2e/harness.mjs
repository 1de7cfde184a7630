// harness.mjs: one Bulkhead node for one test: fresh directory, free ports, every step bounded in time, and
// nothing left behind however the test ends. Needs Node.js 18 or newer and no package.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export { sleep };

export const build = path.resolve(
  process.env.BULKHEAD_BUILD ?? fileURLToPath(new URL('../../build', import.meta.url)));
const program = path.join(build, 'bulkhead');

// Emulated and sanitized builds are slower: one factor for every limit.
const patience = Number(process.env.BULKHEAD_PATIENCE ?? 1);
const START_MS = 30000 * patience;
const STOP_MS = 25000 * patience;
const CLI_MS = 60000 * patience;
const HTTP_MS = 30000 * patience;

const living = new Set();
const tails = [];

// Whatever ends this process ends its nodes; the children of a node die with its supervisor.
process.on('exit', (code) => {
  for (const node of living) node.destroyNow();
  if (code !== 0)
    for (const tail of tails) process.stderr.write(`--- log of the node\n${tail}\n`);
});
for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP']) process.on(signal, () => process.exit(1));

function isFree(port) {
  return new Promise((resolve) => {
    const server = net.createServer();
    server.once('error', () => resolve(false));
    server.listen(port, '127.0.0.1', () => server.close(() => resolve(true)));
  });
}

// Below the range from which the kernel hands out ports, so that no client's socket takes it meanwhile.
export async function freePort() {
  for (let attempt = 0; attempt < 100; attempt++) {
    const port = 12000 + Math.floor(Math.random() * 18000);
    if (await isFree(port)) return port;
  }
  throw new Error('no free port was found');
}

// Runs a program to its end. Never throws for its exit status: {code, signal, stdout, stderr}.
export function run(file, args, { input, env, cwd, timeout = CLI_MS } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(file, args, { cwd, env: env ?? process.env, stdio: ['pipe', 'pipe', 'pipe'] });
    const out = [], err = [];
    const timer = setTimeout(() => {
      child.kill('SIGKILL');
      reject(new Error(`${file} ${args.join(' ')} took more than ${timeout} ms`));
    }, timeout);
    child.stdout.on('data', (piece) => out.push(piece));
    child.stderr.on('data', (piece) => err.push(piece));
    child.stdin.on('error', () => {}); // it may end without reading
    child.on('error', (error) => { clearTimeout(timer); reject(error); });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      resolve({
        code, signal,
        stdout: Buffer.concat(out).toString('utf8'), stderr: Buffer.concat(err).toString('utf8'),
      });
    });
    child.stdin.end(input ?? '');
  });
}

// The command line without a node: offline verification, usage.
export function bulkhead(...args) {
  return run(program, args);
}

// Waits until check() yields something true; the last failure is the message when it never does.
export async function eventually(what, check, { within = 15000, every = 50 } = {}) {
  const end = Date.now() + within * patience;
  let last;
  do {
    try {
      const value = await check();
      if (value) return value;
      last = undefined;
    } catch (error) {
      last = error;
    }
    await sleep(every);
  } while (Date.now() < end);
  throw new Error(`${what}: not within ${within * patience} ms${last ? ` (${last.message})` : ''}`);
}

function statOf(pid) {
  try {
    const text = fs.readFileSync(`/proc/${pid}/stat`, 'latin1');
    const rest = text.slice(text.lastIndexOf(')') + 2).split(' ');
    return { pid: Number(pid), state: rest[0], parent: Number(rest[1]), started: rest[19] };
  } catch {
    return null; // it ended meanwhile
  }
}

// All processes below this one, as {pid, started}: together they name a process for ever.
export function descendants(root) {
  const all = fs.readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(statOf).filter(Boolean);
  const found = [];
  const queue = [root];
  while (queue.length > 0) {
    const parent = queue.shift();
    for (const process_ of all)
      if (process_.parent === parent) {
        found.push(process_);
        queue.push(process_.pid);
      }
  }
  return found;
}

export function isAlive({ pid, started }) {
  const now = statOf(pid);
  return now !== null && now.started === started && now.state !== 'Z' && now.state !== 'X';
}

export class Node {
  // config: an object for --config. args: more words for `serve`. programs: where the executables lie.
  constructor({ config, args = [], env = {}, programs = build } = {}) {
    this.directory = fs.mkdtempSync(path.join(os.tmpdir(), 'bulkhead-e2e-'));
    fs.chmodSync(this.directory, 0o755); // cells reach their silo under other uids
    this.data = path.join(this.directory, 'data');
    this.keys = `${this.data}.keys`;
    this.log = path.join(this.directory, 'log');
    this.config = config;
    this.args = args;
    this.program = path.join(programs, 'bulkhead');
    this.env = { ...process.env, ...env };
    this.child = null;
    living.add(this);
  }

  async start() {
    assert.equal(this.child, null, 'the node runs already');
    this.port ??= await freePort();
    this.opsPort ??= await freePort();
    const scheme = this.config?.tls_cert || this.args.includes('--tls-cert') ? 'https' : 'http';
    this.url = `${scheme}://127.0.0.1:${this.port}`;
    this.opsUrl = `http://127.0.0.1:${this.opsPort}`;
    const words = ['serve', '--data', this.data, '--listen', `127.0.0.1:${this.port}`, '--ops',
                   `127.0.0.1:${this.opsPort}`];
    if (this.config) {
      const file = path.join(this.directory, 'config.json');
      fs.writeFileSync(file, JSON.stringify(this.config));
      words.push('--config', file);
    }
    const log = fs.openSync(this.log, 'a');
    this.child = spawn(this.program, [...words, ...this.args],
                       { stdio: ['ignore', 'pipe', log], env: this.env });
    fs.closeSync(log);
    this.ended = new Promise((resolve) => {
      this.child.on('error', () => resolve({ code: null, signal: null }));
      this.child.on('exit', (code, signal) => resolve({ code, signal }));
    });
    this.started = Date.now();
    await this.#awaitReady();
    this.startMs = Date.now() - this.started;
    return this;
  }

  async #awaitReady() {
    let text = '';
    const ready = new Promise((resolve) => {
      this.child.stdout.on('data', (piece) => {
        text += piece;
        if (text.includes('\n')) resolve('ready');
      });
    });
    const timer = new AbortController();
    const outcome = await Promise.race([
      ready, this.ended.then(({ code, signal }) => `ended (${signal ?? code})`),
      sleep(START_MS, `not ready within ${START_MS} ms`, { signal: timer.signal }),
    ]);
    timer.abort();
    if (outcome !== 'ready') {
      const tail = this.logTail();
      await this.destroy();
      throw new Error(`bulkhead serve: ${outcome}\n${tail}`);
    }
    assert.equal(text, `bulkhead ready ${this.url}\n`);
  }

  get pid() {
    return this.child.pid;
  }

  logText() {
    try {
      return fs.readFileSync(this.log, 'utf8');
    } catch {
      return '';
    }
  }

  logTail(lines = 30) {
    return this.logText().split('\n').slice(-lines).join('\n');
  }

  // Runs `bulkhead ARGS --data DATA`.
  cli(...args) {
    return run(this.program, [...args, '--data', this.data], { env: this.env });
  }

  // The same, and it must succeed; yields what it printed.
  async ok(...args) {
    const { code, signal, stdout, stderr } = await this.cli(...args);
    assert.equal(code, 0, `bulkhead ${args.join(' ')}: ${signal ?? code}: ${stderr}`);
    return stdout;
  }

  async json(...args) {
    const text = await this.ok(...args, '--json');
    return text.trim() === '' ? null : JSON.parse(text);
  }

  // The same, and it must be refused: exit 1, one clear line on stderr, which it yields.
  async refused(...args) {
    const { code, stdout, stderr } = await this.cli(...args);
    assert.equal(code, 1, `bulkhead ${args.join(' ')} was not refused: ${stdout}${stderr}`);
    assert.match(stderr, /^bulkhead: [^\n]+\n$/, 'one clear line');
    return stderr;
  }

  createTenant(name, ...options) {
    return this.json('tenant', 'create', name, ...options);
  }

  // One whose load is the test's matter, not its quotas.
  createBusyTenant(name, ...options) {
    return this.createTenant(name, '--quota', 'requests_per_second=0', '--quota', 'concurrent_requests=0', ...options);
  }

  async token(name, user = 'ada', { agent, scope, clearance, ttl } = {}) {
    const words = ['token', name, '--user', user];
    if (agent !== undefined) words.push('--agent', agent);
    if (scope !== undefined) words.push('--scope', scope);
    if (clearance !== undefined) words.push('--clearance', clearance);
    if (ttl !== undefined) words.push('--ttl', ttl);
    const text = await this.ok(...words);
    assert.match(text, /^[\w-]+\.[\w-]+\.[\w-]+\n$/, 'a JWT and nothing else');
    return text.trim();
  }

  // body: an object is sent as JSON, a string or bytes as they are.
  async http(method, target, { token, body, headers = {}, base = this.url, timeout = HTTP_MS } = {}) {
    const all = { ...headers };
    if (token !== undefined) all.authorization = `Bearer ${token}`;
    let payload = body;
    if (body !== undefined && typeof body !== 'string' && !(body instanceof Uint8Array)) {
      payload = JSON.stringify(body);
      all['content-type'] ??= 'application/json';
    }
    const response = await fetch(base + target, {
      method, headers: all, body: payload, redirect: 'manual', signal: AbortSignal.timeout(timeout),
    });
    const text = await response.text();
    const type = response.headers.get('content-type') ?? '';
    const parsed = /^application\/(problem\+)?json\b/.test(type) ? JSON.parse(text) : undefined;
    return { status: response.status, headers: response.headers, type, text, body: parsed };
  }

  // One that must be answered with this status; yields the body.
  async want(status, method, target, options) {
    const answer = await this.http(method, target, options);
    assert.equal(answer.status, status, `${method} ${target}: ${answer.text}`);
    return answer.body;
  }

  // An error must be a whole problem document (RFC 9457) with this code; yields the answer.
  async problem(status, code, method, target, options) {
    const answer = await this.http(method, target, options);
    assert.equal(answer.status, status, `${method} ${target}: ${answer.text}`);
    checkProblem(answer, status, code);
    return answer;
  }

  status() {
    return this.json('status');
  }

  async tenant(name) {
    return this.json('tenant', 'show', name);
  }

  async awaitParked(name, within = 20000) {
    await eventually(`${name} parks`, async () => !(await this.tenant(name)).awake, { within });
  }

  // The running cell of a tenant, as `status` shows it; undefined while parked.
  async cell(id) {
    return (await this.status()).cells.find((cell) => cell.tenant_id === id);
  }

  async service(name) {
    return (await this.status()).services.find((service) => service.name === name);
  }

  // Kills one process of this node and waits until it is gone.
  async kill(pid, signal = 'SIGKILL') {
    const mine = descendants(this.pid).find((process_) => process_.pid === pid);
    assert.ok(mine, `${pid} is no process of this node`);
    process.kill(pid, signal);
    await eventually(`${pid} ends`, () => !isAlive(mine), { every: 5 });
  }

  // SIGTERM: must exit 0 in time and leave no process.
  async stop() {
    const processes = descendants(this.pid);
    const child = this.child;
    const timer = new AbortController();
    child.kill('SIGTERM');
    const outcome = await Promise.race([this.ended,
                                        sleep(STOP_MS, null, { signal: timer.signal })]);
    timer.abort();
    assert.ok(outcome, `SIGTERM: the node was still there after ${STOP_MS} ms\n${this.logTail()}`);
    this.child = null;
    assert.deepEqual(outcome, { code: 0, signal: null }, `SIGTERM: ended badly\n${this.logTail()}`);
    const ends = this.logText().split('"node.stopping"').at(-1).match(/"service.ended","detail":"[^"]*"/g) ?? [];
    assert.ok(ends.length >= 3 && ends.every((line) => line.endsWith(': exit 0"')), ends.join('\n'));
    await eventually('every process is gone', () => !processes.some(isAlive), { within: 2000 });
  }

  // As a power cut for the processes: SIGKILL for the supervisor, with which its children die.
  async crash() {
    const processes = descendants(this.pid);
    this.child.kill('SIGKILL');
    await this.ended;
    this.child = null;
    await eventually('every process is gone', () => !processes.some(isAlive), { within: 5000 });
  }

  async destroy() {
    if (!living.delete(this)) return;
    const child = this.child;
    const processes = child ? descendants(child.pid) : [];
    this.child = null;
    if (child && child.exitCode === null && child.signalCode === null) {
      child.kill('SIGKILL');
      await this.ended;
    }
    for (const process_ of processes) endIfAlive(process_);
    await eventually('every process is gone', () => !processes.some(isAlive), { within: 5000 });
    this.#remove();
  }

  destroyNow() {
    const child = this.child;
    const processes = child ? descendants(child.pid) : [];
    child?.kill('SIGKILL');
    for (const process_ of processes) endIfAlive(process_);
    this.#remove();
  }

  #remove() {
    tails.push(this.logTail(60));
    if (process.env.BULKHEAD_KEEP) {
      process.stderr.write(`kept: ${this.directory}\n`);
      return;
    }
    fs.rmSync(this.directory, { recursive: true, force: true, maxRetries: 5 });
  }
}

function endIfAlive(process_) {
  if (!isAlive(process_)) return;
  try {
    process.kill(process_.pid, 'SIGKILL');
  } catch {
    // it was quicker
  }
}

export function checkProblem(answer, status, code) {
  const { body } = answer;
  assert.match(answer.type, /^application\/problem\+json$/, 'RFC 9457');
  assert.equal(body.status, status);
  assert.equal(body.code, code, answer.text);
  for (const name of ['type', 'title', 'detail', 'trace_id'])
    assert.equal(typeof body[name], 'string', `${name} is a string: ${answer.text}`);
  assert.match(body.trace_id, /^[0-9a-f]{32}$/);
  const trace = answer.headers.get('traceparent');
  assert.match(trace ?? '', /^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$/);
  assert.equal(trace.slice(3, 35), body.trace_id, 'one trace id in head and body');
}

// A node for one test or suite (t has after()): started here, destroyed after it.
export async function startNode(t, options) {
  const node = new Node(options);
  t.after(() => node.destroy());
  return node.start();
}

// A node for a whole suite (describe): started before its tests, stopped in order after them.
// tenants: names to create. Yields the node; its members are there once the tests run.
export function nodeOfSuite({ before, after }, { tenants = [], ...options } = {}) {
  const node = new Node(options);
  before(async () => {
    await node.start();
    node.tenants = {};
    for (const name of tenants) node.tenants[name] = await node.createTenant(name);
  });
  after(async () => {
    try {
      if (node.child) await node.stop();
    } finally {
      await node.destroy();
    }
  });
  return node;
}
