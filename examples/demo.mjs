// demo.mjs: the story of `make demo`: two tenants that compete in one field, on real documentation, on one node;
// then every promise is tried. Exit 0 only if every step held. Leaves nothing behind.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { bulkhead, eventually, Node, sleep } from '../tests/e2e/harness.mjs';
import { frontDoor } from './front_door.mjs';
import { holdings } from './holdings.mjs';
import { sandboxes } from './sandboxes.mjs';
import { loadDocs } from './load_docs.mjs';

const TENANTS = {
  elephantine: {
    docs: '/usr/share/doc/postgresql-doc-15/html', source: 'postgresql-doc-15', user: 'erika',
    codeword: 'project-tusk-41927',
    talk: ['user: We run orders on a cluster named mammoth, port 5433.',
           'assistant: Noted: cluster mammoth, port 5433.',
           'user: The nightly dump of mammoth starts at 02:30, and never on the last day of a quarter.'],
  },
  quillbase: {
    docs: '/usr/share/doc/sqlite3', source: 'sqlite3-doc', user: 'quentin', codeword: 'project-feather-70361',
    talk: ['user: Our app keeps its database in a file named nest.db on each phone.',
           'assistant: Noted: nest.db, one per phone.',
           'user: The nightly dump of nest.db starts at 04:15, on wifi only.'],
  },
};
const QUESTIONS = [
  'how does VACUUM reclaim the space of deleted rows?',
  'what does the write-ahead log do when a checkpoint runs?',
  'how do I make a backup of a running database?',
  'which isolation does a transaction have?',
  'when does the nightly dump start?',
];
const PARAGRAPHS = 2000; // of each documentation, spread over all of it
const AT_ONCE = 32;

const node = new Node({ config: { idle_seconds: 1 } });
const began = performance.now();
let chapters = 0;

const say = (text = '') => console.log(text);
const chapter = (title) => say(`\n${++chapters}. ${title}`);
const fact = (text) => say(`   ${text}`);
const ms = (value) => `${value < 10 ? value.toFixed(1) : Math.round(value)} ms`;
const count = (value) => value.toLocaleString('en-US');
const cut = (text, columns = 88) => (text.length > columns ? `${text.slice(0, columns - 1)}…` : text);
const hex = (text) => `${text.slice(0, 16)}…`;

async function timed(work) {
  const from = performance.now();
  const value = await work();
  return [value, performance.now() - from];
}

// Runs work(item) over all items, AT_ONCE at a time.
async function each(items, work) {
  let next = 0;
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    while (next < items.length) await work(items[next++]);
  }));
}

const filesOf = (id) => path.join(node.data, 'silos', id);
const bytesOf = (directory) => fs.readdirSync(directory, { recursive: true })
  .map((name) => path.join(directory, name)).filter((file) => fs.statSync(file).isFile())
  .map((file) => fs.readFileSync(file));

async function start() {
  await node.start();
  const { services, blanks_ready: blanks, kernel } = await node.status();
  fact(`bulkhead serve: ready after ${ms(node.startMs)} on Linux ${kernel}, in a temporary directory`);
  fact(`${services.length} services and ${blanks} blank cells, each a process in a jail of its own; every jail was`);
  fact('read back from the kernel before it was trusted');
  for (const { jail_state: state } of services) assert.equal(state, 'verified');
}

async function moveIn(name, tenant) {
  const [created, createMs] = await timed(() => // a bulk load: no bound on its rate
    node.createTenant(name, '--quota', 'requests_per_second=0'));
  tenant.id = created.id;
  tenant.token = await node.token(name, tenant.user, { agent: 'demo-agent' });
  const all = loadDocs(tenant.docs);
  assert.ok(all.length >= PARAGRAPHS, `${tenant.docs}: only ${all.length} paragraphs; run scripts/setup.sh demo`);
  tenant.paragraphs = Array.from({ length: PARAGRAPHS }, (_, i) => all[Math.floor((i * all.length) / PARAGRAPHS)]);
  tenant.ids = [];
  const add = async (body) => {
    const item = await node.want(201, 'POST', '/v1/memories', { token: tenant.token, body });
    tenant.ids.push(item.id);
  };
  const [, loadMs] = await timed(() => each(tenant.paragraphs, ({ title, text, page }) =>
    add({ text, kind: 'fact', metadata: { source: tenant.source, title, page } })));
  for (const turn of tenant.talk) {
    const [role, ...words] = turn.split(': ');
    await add({ text: words.join(': '), kind: 'event', session_id: 'monday', metadata: { source: tenant.source, role } });
  }
  await add({ text: `The next release is called ${tenant.codeword}.`, kind: 'fact', classification: 'internal',
              metadata: { source: tenant.source } });
  fact(`${name}: created in ${ms(createMs)}; remembers ${count(PARAGRAPHS)} of the ${count(all.length)} paragraphs of ` +
       `${tenant.source},`);
  fact(`   a conversation and a secret: ${count(Math.round(PARAGRAPHS / (loadMs / 1000)))} writes/s, each durable, sealed, ` +
       'indexed and in the audit log');
}

async function ask() {
  let hits = 0;
  const times = [];
  for (const query of QUESTIONS) {
    fact(`"${query}"`);
    for (const [name, tenant] of Object.entries(TENANTS)) {
      const [{ data }, took] = await timed(() => node.want(200, 'POST', '/v1/memories/search',
        { token: tenant.token, body: { query, limit: 10 } }));
      times.push(took);
      assert.ok(data.length > 0, `${name} has an answer to "${query}"`);
      for (const { metadata, id } of data) {
        assert.equal(metadata.source, tenant.source, 'an answer of the other tenant');
        assert.ok(tenant.ids.includes(id));
      }
      hits += data.length;
      fact(`   ${name.padEnd(12)}${cut(data[0].text, 84)}`);
    }
  }
  times.sort((one, two) => one - two);
  fact(`${hits} hits, each from the asker's own silo; a search took ${ms(times[times.length >> 1])} (median, client's view)`);
}

async function trespass() {
  const { elephantine, quillbase } = TENANTS;
  const stranger = await node.token('quillbase', quillbase.user, {
    scope: 'memory:read memory:write memory:any-user audit:read tenant:read', clearance: 'restricted' });
  const [, took] = await timed(() => each(elephantine.ids, async (id) => {
    const answer = await node.http('GET', `/v1/memories/${id}`, { token: stranger });
    assert.equal(answer.status, 404, 'a door stood open');
    assert.ok(!answer.text.includes('PostgreSQL'));
  }));
  fact(`quillbase's strongest token asks for each of elephantine's ${count(elephantine.ids.length)} items by its id: ` +
       `0 opened (${ms(took)})`);
  const unknown = await node.problem(404, 'not_found', 'GET', '/v1/memories/01ARZ3NDEKTSV4RRFFQ69G5FAV', { token: stranger });
  const real = await node.problem(404, 'not_found', 'GET', `/v1/memories/${elephantine.ids[0]}`, { token: stranger });
  assert.equal(real.body.detail, unknown.body.detail);
  fact('an item of the other and an item that never was read alike');
  for (const [method, body] of [['PATCH', { text: 'defaced' }], ['DELETE', undefined]])
    await node.problem(404, 'not_found', method, `/v1/memories/${elephantine.ids[0]}`, { token: stranger, body });
  const { data } = await node.want(200, 'POST', '/v1/memories/search',
                                   { token: stranger, body: { query: elephantine.codeword } });
  assert.ok(!data.some(({ text }) => text.includes('tusk')));
  const [head, , signature] = stranger.split('.');
  const forged = `${head}.${elephantine.token.split('.')[1]}.${signature}`;
  await node.problem(401, 'unauthenticated', 'GET', '/v1/memories', { token: forged });
  fact('changing, deleting, searching the other\'s secret, and a token with swapped claims: refused');
  const [one, two] = await eventually('both are awake', async () => {
    await Promise.all([elephantine, quillbase].map(({ token }) => // one may have parked meanwhile
      node.want(200, 'GET', '/v1/memories?limit=1', { token })));
    const { cells } = await node.status();
    const both = [elephantine, quillbase].map(({ id }) => cells.find((cell) => cell.tenant_id === id));
    return both.every((cell) => cell?.jail_state === 'verified') && both;
  });
  for (const [name, cell] of [['elephantine', one], ['quillbase', two]]) {
    fact(`${name.padEnd(12)}pid ${cell.pid}, uid ${cell.jail.uid}, ${cell.jail.private_kib} KiB private, network ` +
         `${cell.jail.namespaces.net}, Landlock ${cell.jail.landlock}`);
  }
  assert.notEqual(one.pid, two.pid);
  for (const name of Object.keys(one.jail.namespaces))
    assert.notEqual(one.jail.namespaces[name], two.jail.namespaces[name], name);
}

async function parkAndWake() {
  const { token, id, ids } = TENANTS.elephantine;
  const wakes = [];
  for (let round = 0; round < 5; round++) {
    const { pid } = await node.cell(id) ?? { pid: 0 };
    await node.awaitParked('elephantine');
    assert.ok(pid === 0 || !fs.existsSync(`/proc/${pid}`), 'a parked tenant has no process');
    const [, took] = await timed(() => node.want(200, 'GET', `/v1/memories/${ids[round]}`, { token }));
    wakes.push(took);
  }
  wakes.sort((one, two) => one - two);
  fact(`after 1 s without requests a cell parks: 0 processes, 0 bytes of memory (the default is 15 s)`);
  fact(`the next request wakes it; first answer after ${wakes.map(ms).join(', ')} (key released, jail verified)`);
}

function flipBit(file, at) {
  const fd = fs.openSync(file, 'r+');
  const byte = Buffer.alloc(1);
  fs.readSync(fd, byte, 0, 1, at);
  byte[0] ^= 1;
  fs.writeSync(fd, byte, 0, 1, at);
  fs.closeSync(fd);
}

// A byte in the middle may lie in a free page: then the next place is tried.
async function damageOnePage(file, ids, token) {
  for (const part of [0.6, 0.5, 0.7, 0.8, 0.4]) {
    const at = Math.floor(fs.statSync(file).size * part);
    flipBit(file, at);
    const answers = await Promise.all(ids.map((id) => node.http('GET', `/v1/memories/${id}`, { token })));
    if (answers.some(({ status }) => status !== 200)) return { at, answers };
    await node.awaitParked('canary');
    flipBit(file, at);
  }
  throw new Error('no flipped byte met a page that is read');
}

async function tamper() {
  const { id } = await node.createTenant('canary');
  const token = await node.token('canary', 'carol');
  const ids = [];
  for (let i = 0; i < 8; i++) {
    const text = `report ${i}: ${'a line of the ledger of this quarter; '.repeat(1600)}`;
    ids.push((await node.want(201, 'POST', '/v1/memories', { token, body: { text } })).id);
  }
  await node.awaitParked('canary');
  const file = path.join(filesOf(id), 'silo.db');
  const { at, answers } = await damageOnePage(file, ids, token);
  const refused = answers.filter(({ status }) => status !== 200);
  fact(`one bit of the parked silo.db of a third tenant is flipped, at byte ${count(at)} of ${count(fs.statSync(file).size)}`);
  for (const { status, text } of refused) {
    assert.equal(status, 500);
    assert.ok(!text.includes('report'));
  }
  fact(`   the item there:  HTTP ${refused[0].status} ${refused[0].body.code}; the ${ids.length - refused.length} others are answered, unchanged`);
  const log = node.logText().split('\n').filter((line) => line.includes('silo.damaged')).at(-1);
  assert.ok(log, 'the log tells of the damage');
  fact(`   in the log:      ${JSON.parse(log).level} ${JSON.parse(log).event}: ${JSON.parse(log).detail.replace(id, hex(id))}`);
  const line = await eventually('the status tells of the damage', async () => {
    await Promise.all(ids.map((each_) => node.http('GET', `/v1/memories/${each_}`, { token })));
    return (await node.ok('status')).split('\n').find((text) => text.includes('DAMAGED'));
  });
  fact(`   in the status:   ${line.match(/DAMAGED[^t]*/)[0].trim()}`);
  await node.awaitParked('canary');
  flipBit(file, at);
  for (const each_ of ids) await node.want(200, 'GET', `/v1/memories/${each_}`, { token });
  fact('   flipped back:    all 8 are answered again');
  await node.awaitParked('canary');
  flipBit(file, 100);
  const shut = await node.problem(503, 'unavailable', 'GET', '/v1/memories', { token });
  fact(`a bit in its first page: the cell does not open it at all: HTTP ${shut.status} ${shut.body.code}`);
  flipBit(file, 100);
}

async function erase() {
  const { quillbase } = TENANTS;
  const file = (name) => path.join(node.directory, name);
  await node.awaitParked('quillbase');
  fs.cpSync(filesOf(quillbase.id), file('stolen'), { recursive: true });
  const stolen = bytesOf(file('stolen'));
  const size = stolen.reduce((sum, bytes) => sum + bytes.length, 0);
  const markers = [quillbase.codeword, 'feather', 'SQLite', 'nest.db', 'database', ...QUESTIONS];
  for (const bytes of stolen)
    for (const marker of markers) assert.ok(!bytes.includes(marker), `"${marker}" in clear`);
  fact(`before: somebody copies quillbase's directory (${count(size)} bytes); ${markers.length} marker texts ` +
       '("SQLite", the secret, …): in no byte of it');
  const [receipt, took] = await timed(() => node.json('tenant', 'erase', 'quillbase', '--receipt', file('receipt')));
  fact(`bulkhead tenant erase quillbase: ${ms(took)}, command line and all: key ${hex(receipt.receipt.kek_fingerprint)} destroyed,`);
  fact(`   ${receipt.receipt.destroyed.files} files, ${count(receipt.receipt.destroyed.bytes)} bytes removed`);
  const good = await bulkhead('receipt', 'verify', file('receipt'));
  assert.equal(good.code, 0, good.stderr);
  fs.writeFileSync(file('altered'), fs.readFileSync(file('receipt'), 'utf8').replace('quillbase', 'quillbasf'));
  assert.equal((await bulkhead('receipt', 'verify', file('altered'))).code, 1);
  fact('the receipt verifies offline, by the file alone; with one letter changed it does not');
  await node.problem(401, 'unauthenticated', 'GET', '/v1/memories', { token: quillbase.token });
  fact('its tokens: HTTP 401, like any stranger\'s');
  const again = await node.createTenant('quillbase');
  const home = filesOf(again.id), { uid, gid } = fs.statSync(home);
  for (const name of fs.readdirSync(file('stolen'))) {
    fs.copyFileSync(path.join(file('stolen'), name), path.join(home, name));
    fs.chownSync(path.join(home, name), uid, gid);
  }
  const thief = await node.token('quillbase', quillbase.user);
  const answer = await node.problem(503, 'unavailable', 'GET', '/v1/memories', { token: thief });
  fact(`the copy put back under the same name, with a fresh token: HTTP ${answer.status} ${answer.body.code}; nothing opens it`);
  await node.ok('tenant', 'erase', 'quillbase');
}

async function evidence() {
  const file = path.join(node.directory, 'elephantine.ndjson');
  const [, exportMs] = await timed(() => node.ok('audit', 'export', 'elephantine', '-o', file));
  const [good, verifyMs] = await timed(() => bulkhead('audit', 'verify', file, '--json'));
  assert.equal(good.code, 0, good.stderr);
  const { entries, root } = JSON.parse(good.stdout);
  assert.ok(entries > PARAGRAPHS);
  fact(`elephantine's audit log: ${count(entries)} entries, exported in ${ms(exportMs)}, verified offline in ${ms(verifyMs)}, ` +
       `root ${hex(root)}`);
  const lines = fs.readFileSync(file, 'utf8').split('\n');
  assert.ok(!lines.some((line) => line.includes('tusk') || line.includes('VACUUM')), 'content in the log');
  lines.splice(Math.floor(lines.length / 2), 1);
  fs.writeFileSync(file, lines.join('\n'));
  const bad = await bulkhead('audit', 'verify', file);
  assert.equal(bad.code, 1);
  fact(`one entry removed: ${bad.stderr.replace(/^bulkhead: /, '').trim()}`);
}

async function main() {
  say('Bulkhead: two tenants, one field, one node');
  chapter('A node starts');
  await start();
  chapter('Two competitors move in');
  for (const [name, tenant] of Object.entries(TENANTS)) await moveIn(name, tenant);
  chapter('Both ask the same questions, and get their own answers');
  await ask();
  chapter('One tries the other\'s doors');
  await trespass();
  chapter('Nobody asks: they park');
  await parkAndWake();
  chapter('Somebody writes into a silo');
  await tamper();
  chapter('One tenant leaves');
  await erase();
  chapter('What happened can be proved');
  await evidence();
  chapter('The node stops');
  const [, took] = await timed(() => node.stop());
  fact(`SIGTERM: cells parked, keys closed, every process gone, exit 0: ${ms(took)}`);
  await frontDoor(chapter, fact);
  await holdings(chapter, fact);
  await sandboxes(chapter, fact);
}

try {
  await main();
  await node.destroy();
  say(`\nEvery step held (${((performance.now() - began) / 1000).toFixed(1)} s). To start it for real:\n`);
  say('   build/bulkhead serve --data ./bulkhead-data');
  say('   build/bulkhead tenant create acme');
  say('   TOKEN=$(build/bulkhead token acme --user ann)');
  say('   curl -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" \\');
  say('        -d \'{"text":"prefers invoices in March"}\' http://127.0.0.1:7117/v1/memories');
} catch (error) {
  say(`\nNOT HELD: ${error.stack}`);
  process.exitCode = 1;
  await sleep(0);
  await node.destroy();
}
