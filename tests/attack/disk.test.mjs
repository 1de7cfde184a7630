// disk: somebody who may write the disk. Bytes changed, moved, cut, taken from another tenant or from an
// earlier time, files missing: each time an error for the client, a line in the log, nothing for the
// neighbour, never other data; and with the right bytes back, the right data.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, test } from 'node:test';

import { Node, bulkhead, eventually, sleep } from '../e2e/harness.mjs';
import { EVERY_SCOPE, everything, park, randomFrom } from './support.mjs';

const PAGE = 4096;
const FRAME = PAGE + 24, FRAMES_AT = 2 * PAGE; // of the WAL
const seed = Number(process.env.BULKHEAD_SEED ?? Date.now() % 1000000), random = randomFrom(seed);
const words = ['harbour', 'lantern', 'meadow', 'granite', 'thistle', 'orchard', 'cobalt', 'saffron'];
const node = new Node({ config: { idle_seconds: 600 } });
const victim = { name: 'victim' }, neighbour = { name: 'neighbour' };
let older; // the victim's files, parked, of an earlier time

async function remember(tenant, count) {
  for (let i = 0; i < count; i++) {
    const text = `${tenant.name} ${words[i % words.length]} ${i} ${'lorem ipsum '.repeat(60)}`;
    const { id } = await node.want(201, 'POST', '/v1/memories', { token: tenant.token, body: {
      text, user_id: `user-${i % 3}`, metadata: { number: i } } });
    if (i % 4 === 0)
      await node.want(200, 'PATCH', `/v1/memories/${id}`,
                      { token: tenant.token, body: { text: `${text}, again` } });
  }
  tenant.truth = await everything(node, tenant.token);
}

before(async () => {
  console.log(`# seed ${seed}`);
  await node.start();
  for (const tenant of [victim, neighbour]) {
    tenant.id = (await node.createBusyTenant(tenant.name)).id;
    tenant.token = await node.token(tenant.name, 'ada', { scope: EVERY_SCOPE, ttl: '2h' });
    tenant.directory = path.join(node.data, 'silos', tenant.id);
    await remember(tenant, 12);
  }
  await park(node, victim.name);
  older = filesOf(victim.directory);
  await remember(victim, 24);
  await remember(neighbour, 12);
});
after(() => node.destroy());

// ---- files ----

function filesOf(directory) {
  const files = new Map();
  for (const name of fs.readdirSync(directory)) files.set(name, fs.readFileSync(path.join(directory, name)));
  return files;
}

// Owner and mode stay what they are: it is the bytes that are at stake.
function putFile(directory, name, bytes) {
  const file = path.join(directory, name);
  const { uid, gid } = fs.statSync(directory);
  fs.writeFileSync(file, bytes, { mode: 0o600 });
  fs.chownSync(file, uid, gid);
}

function putFiles(directory, files) {
  for (const name of fs.readdirSync(directory)) if (!files.has(name)) fs.rmSync(path.join(directory, name));
  for (const [name, bytes] of files) putFile(directory, name, bytes);
}

const same = (left, right) => left === right || (left && right && left.equals(right));

// What was altered is put right again; what the cell itself has written since stays.
function putRight(directory, right, wrong) {
  const now = filesOf(directory);
  for (const name of new Set([...right.keys(), ...wrong.keys()])) {
    if (same(right.get(name), wrong.get(name))) continue;
    if (same(now.get(name), wrong.get(name))) {
      if (right.has(name)) putFile(directory, name, right.get(name));
      else fs.rmSync(path.join(directory, name));
    } else if (name === 'silo.db') {
      const bytes = Buffer.from(now.get(name));
      for (let at = 0; at + PAGE <= bytes.length; at += PAGE) {
        const [before_, altered, present] = [right, wrong, now].map((set) => set.get(name).subarray(at, at + PAGE));
        const hole = altered.length === 0 && present.every((byte) => byte === 0); // it had been cut off
        if (!before_.equals(altered) && (hole || present.equals(altered))) before_.copy(bytes, at);
      }
      putFile(directory, name, bytes);
    }
  }
}

const copyOf = (files) => new Map([...files].map(([name, bytes]) => [name, Buffer.from(bytes)]));

function flipped(files, name, at) {
  const copy = copyOf(files);
  copy.get(name)[at] ^= 1 << random(8);
  return copy;
}

function replaced(files, name, bytes) {
  const copy = copyOf(files);
  if (bytes === undefined) copy.delete(name);
  else copy.set(name, Buffer.from(bytes));
  return copy;
}

// ---- what a client sees ----

const isRefusal = ({ status }) => status === 500 || status === 503;

function checkList(answer, rows, what) {
  const known = new Map(rows.map((row) => [row.id, row]));
  for (const row of answer.body.data) assert.deepEqual(row, known.get(row.id), `${what}: a wrong row`);
  const missing = rows.length - answer.body.data.length;
  if (missing > 0) assert.equal(answer.body.damaged, missing, `${what}: rows are missing in silence`);
  return missing;
}

function checkHits(answer, rows, what) {
  const known = new Map(rows.map((row) => [row.id, row]));
  for (const { score, ...row } of answer.body.data) {
    assert.equal(typeof score, 'number');
    assert.deepEqual(row, known.get(row.id), `${what}: a wrong hit`);
  }
}

// Asks for everything. Each answer is right or an error. Yields how many were errors, of how many.
async function view(tenant, what) {
  const { token, truth } = tenant;
  const found = { asked: 0, errors: 0, damaged: 0 };
  const ask = async (method, target, body) => {
    const answer = await node.http(method, target, { token, body });
    found.asked++;
    if (answer.status === 200) {
      if (answer.body.damaged) found.damaged++;
      return answer;
    }
    assert.ok(isRefusal(answer), `${what}: ${method} ${target}: ${answer.status} ${answer.text}`);
    assert.ok(!/silo\.db|page \d|WAL|anchor/i.test(answer.text), `${what}: says too much: ${answer.text}`);
    found.errors++;
    return null;
  };
  const list = await ask('GET', '/v1/memories?limit=500');
  if (list) checkList(list, truth.memories, what);
  if (!list && !(await node.cell(tenant.id))) return found; // it was not let open at all
  for (const row of truth.memories) {
    const item = await ask('GET', `/v1/memories/${row.id}`);
    if (item) assert.deepEqual(item.body, row, `${what}: a wrong item`);
    const history = await ask('GET', `/v1/memories/${row.id}/history?limit=500`);
    if (history && !history.body.damaged)
      assert.deepEqual(history.body.data, truth.histories[row.id], `${what}: a wrong history`);
  }
  for (const query of words) {
    const hits = await ask('POST', '/v1/memories/search', { query, limit: 100 });
    if (!hits) continue;
    checkHits(hits, truth.memories, what);
    // an index begun anew beside damaged items cannot know them: then the log and status must tell
    if (hits.body.data.length < truth.memories.filter((row) => row.text.includes(query)).length)
      found.damaged++;
  }
  return found;
}

async function viewLog(tenant, what) {
  const file = path.join(node.directory, 'disk.audit');
  const exported = await node.cli('audit', 'export', tenant.name, '-o', file);
  if (exported.code !== 0) return false;
  const verified = await bulkhead('audit', 'verify', file);
  assert.equal(verified.code, 0, `${what}: an export that does not verify: ${verified.stderr}`);
  return true;
}

async function isRight(tenant, what) {
  assert.deepEqual(await everything(node, tenant.token), tenant.truth, what);
}

// One attack on the victim's files, which lie parked or as a kill left them. Yields what was seen.
async function attack(right, wrong, what) {
  putFiles(victim.directory, wrong);
  try {
    return await watch(what);
  } finally {
    if (await node.cell(victim.id)) await park(node, victim.name);
    putRight(victim.directory, right, wrong);
  }
}

async function watch(what) {
  const logged = node.logText().length;
  const seen = await view(victim, what);
  const cell = await node.cell(victim.id);
  seen.opened = cell !== undefined;
  if (seen.opened && !(await viewLog(victim, what))) seen.errors++;
  if (seen.errors || seen.damaged) {
    await eventually(`${what}: a line in the log`, () => node.logText().slice(logged).split('\n')
      .some((line) => /"level":"(warn|error)"/.test(line) && line.includes(victim.id)), { within: 3000 });
    const after_ = await node.cell(victim.id);
    if (after_) assert.ok(after_.damaged_pages > 0, `${what}: status does not tell`);
  } else {
    assert.ok(seen.opened, what);
  }
  await node.want(200, 'GET', '/v1/memories?limit=3', { token: neighbour.token });
  return seen;
}

// Must not be let open: nothing of it is right.
async function refused(right, wrong, what) {
  const seen = await attack(right, wrong, what);
  assert.ok(!seen.opened && seen.errors === seen.asked, `${what}: was let open: ${JSON.stringify(seen)}`);
}

async function parkedFiles() {
  if (await node.cell(victim.id)) await park(node, victim.name);
  return filesOf(victim.directory);
}

// ---- parked ----

test('a flipped bit in each page of silo.db is an error or is not needed, never other data', async () => {
  const pages = (await parkedFiles()).get('silo.db').length / PAGE;
  assert.ok(pages > 20 && Number.isInteger(pages));
  let noticed = 0;
  for (let page = 0; page < pages; page++) {
    const right = await parkedFiles();
    const at = page * PAGE + random(PAGE);
    const seen = await attack(right, flipped(right, 'silo.db', at), `byte ${at} of silo.db`);
    noticed += seen.errors + seen.damaged > 0 ? 1 : 0;
  }
  console.log(`# ${noticed} of ${pages} pages were noticed`);
  assert.ok(noticed > pages / 2, `only ${noticed} of ${pages} damaged pages were noticed`);
  await isRight(victim, 'with the right bytes back');
});

test('pages of silo.db swapped', async () => {
  for (let i = 0; i < 8; i++) {
    const right = await parkedFiles();
    const wrong = copyOf(right), bytes = wrong.get('silo.db');
    const [left, other] = [0, 1].map(() => random(bytes.length / PAGE));
    if (left === other) continue;
    const page = Buffer.from(bytes.subarray(left * PAGE, (left + 1) * PAGE));
    bytes.copy(bytes, left * PAGE, other * PAGE, (other + 1) * PAGE);
    page.copy(bytes, other * PAGE);
    await attack(right, wrong, `pages ${left} and ${other} swapped`);
  }
  await isRight(victim, 'with the right bytes back');
});

test('each page of silo.db as it was earlier', async () => {
  const now = (await parkedFiles()).get('silo.db'), before_ = older.get('silo.db');
  let count = 0;
  for (let at = 0; at + PAGE <= before_.length; at += PAGE) {
    const right = await parkedFiles();
    const wrong = copyOf(right);
    if (before_.subarray(at, at + PAGE).equals(right.get('silo.db').subarray(at, at + PAGE))) continue;
    before_.copy(wrong.get('silo.db'), at, at, at + PAGE);
    await attack(right, wrong, `page ${at / PAGE} as it was`);
    count++;
  }
  assert.ok(count > 5 && now.length > before_.length);
  await isRight(victim, 'with the right bytes back');
});

test('silo.db cut or lengthened is refused', async () => {
  const right = await parkedFiles(), bytes = right.get('silo.db');
  for (const length of [0, 1, 100, PAGE, bytes.length / 2, bytes.length - PAGE, bytes.length - 1])
    await refused(right, replaced(right, 'silo.db', bytes.subarray(0, length)), `silo.db cut to ${length}`);
  for (const more of [Buffer.alloc(PAGE), bytes.subarray(0, PAGE), Buffer.alloc(1)])
    await refused(right, replaced(right, 'silo.db', Buffer.concat([bytes, more])),
                  `silo.db with ${more.length} bytes more`);
  await isRight(victim, 'with the right bytes back');
});

test('the page map and the key file, flipped and cut, are refused', async () => {
  for (const name of ['silo.db-map', 'silo.keys']) {
    const right = await parkedFiles(), bytes = right.get(name);
    const places = 24;
    for (let i = 0; i < places; i++) {
      const at = Math.floor(i * bytes.length / places) + random(Math.floor(bytes.length / places));
      await refused(right, flipped(right, name, at), `byte ${at} of ${name}`);
    }
    for (const length of [0, 1, Math.floor(bytes.length / 2), bytes.length - 1])
      await refused(right, replaced(right, name, bytes.subarray(0, length)), `${name} cut to ${length}`);
    await refused(right, replaced(right, name, Buffer.concat([bytes, bytes])), `${name} twice`);
  }
  await isRight(victim, 'with the right bytes back');
});

test("files of another tenant in the victim's place are refused, one by one and all together", async () => {
  const right = await parkedFiles();
  await park(node, neighbour.name);
  const theirs = filesOf(neighbour.directory);
  for (const name of ['silo.db', 'silo.db-map', 'silo.keys'])
    await refused(right, replaced(right, name, theirs.get(name)), `${name} of the neighbour`);
  await refused(right, theirs, 'the whole silo of the neighbour');
  const half = copyOf(theirs);
  half.set('silo.keys', right.get('silo.keys'));
  await refused(right, half, "the neighbour's silo under the victim's key");
  await isRight(victim, 'with the right bytes back');
  await isRight(neighbour, 'untouched');
});

test('older files of the same silo are refused, one by one and all together', async () => {
  const right = await parkedFiles();
  for (const names of [['silo.db'], ['silo.db-map'], ['silo.db', 'silo.db-map']]) {
    const wrong = copyOf(right);
    for (const name of names) wrong.set(name, older.get(name));
    await refused(right, wrong, `older ${names.join(' and ')}`);
  }
  await refused(right, older, 'the whole silo as it was');
  await isRight(victim, 'with the right bytes back');
});

test('missing files are refused, and nothing new is begun in their place', async () => {
  const right = await parkedFiles();
  for (const name of ['silo.db', 'silo.db-map', 'silo.keys'])
    await refused(right, replaced(right, name, undefined), `no ${name}`);
  await refused(right, new Map(), 'an empty directory');
  const keys = new Map([['silo.keys', right.get('silo.keys')]]);
  await refused(right, keys, 'the key file alone');
  const away = `${victim.directory}.away`;
  fs.renameSync(victim.directory, away);
  const answer = await node.http('GET', '/v1/memories', { token: victim.token });
  assert.equal(answer.status, 503, answer.text);
  assert.ok(!fs.existsSync(victim.directory), 'no new directory is made');
  fs.renameSync(away, victim.directory);
  await isRight(victim, 'with the right bytes back');
});

test('links and other owners in place of the directory or its files lead nowhere', async () => {
  const right = await parkedFiles();
  const target = path.join(node.directory, 'elsewhere');
  fs.writeFileSync(target, right.get('silo.db'), { mode: 0o666 });
  fs.rmSync(path.join(victim.directory, 'silo.db'));
  fs.symlinkSync(target, path.join(victim.directory, 'silo.db'));
  assert.equal((await node.http('GET', '/v1/memories', { token: victim.token })).status, 503, 'a link');
  fs.rmSync(path.join(victim.directory, 'silo.db'));
  fs.rmSync(target);
  putFiles(victim.directory, right);
  const { uid, gid } = fs.statSync(victim.directory);
  fs.chownSync(victim.directory, uid + 1, gid + 1);
  assert.equal((await node.http('GET', '/v1/memories', { token: victim.token })).status, 503, 'another owner');
  fs.chownSync(victim.directory, uid, gid);
  fs.chmodSync(victim.directory, 0o755);
  assert.equal((await node.http('GET', '/v1/memories', { token: victim.token })).status, 503, 'open to others');
  fs.chmodSync(victim.directory, 0o700);
  await isRight(victim, 'as it was');
});

// ---- killed: the newest commits are in the WAL, and the anchor has moved ----

async function killedFiles() {
  await remember(victim, 6);
  const halfway = fs.readFileSync(path.join(victim.directory, 'silo.db-wal'));
  await remember(victim, 6);
  await sleep(1400); // the anchor moves within a second
  await node.kill((await node.cell(victim.id)).pid);
  const right = filesOf(victim.directory);
  assert.ok(right.get('silo.db-wal').length > halfway.length);
  return { right, halfway };
}

test('after kill -9 a WAL that is flipped, cut, older, foreign or gone is refused', async () => {
  await node.want(200, 'GET', '/v1/memories?limit=1', { token: victim.token });
  const { right, halfway } = await killedFiles();
  const wal = right.get('silo.db-wal');
  const cuts = [0, 1, 32, Math.floor(wal.length / 2), wal.length - 1, wal.length - FRAME, wal.length - 3 * FRAME];
  for (const length of cuts)
    await refused(right, replaced(right, 'silo.db-wal', wal.subarray(0, length)), `the WAL cut to ${length}`);
  await refused(right, replaced(right, 'silo.db-wal', halfway), 'an older WAL');
  await refused(right, replaced(right, 'silo.db-wal', undefined), 'no WAL');
  await refused(right, replaced(right, 'silo.db-map', older.get('silo.db-map')), 'an older map');
  await refused(right, older, 'the whole silo as it was');
  const swapped = copyOf(right), bytes = swapped.get('silo.db-wal');
  const frame = wal.length - FRAME, other = wal.length - 2 * FRAME;
  wal.copy(bytes, frame, other, frame);
  wal.copy(bytes, other, frame);
  await refused(right, swapped, 'the last two frames swapped');
  await isRight(victim, 'with the right bytes back');
});

test('after kill -9 an older silo.db beside the right WAL: its pages are errors, each', async () => {
  const { right } = await killedFiles();
  const seen = await attack(right, replaced(right, 'silo.db', older.get('silo.db')), 'older silo.db');
  assert.ok(seen.errors + seen.damaged > 0);
  await isRight(victim, 'with the right bytes back');
});

test('after kill -9 a flipped bit in a frame of the WAL is refused', async () => {
  const { right } = await killedFiles();
  const wal = right.get('silo.db-wal');
  assert.equal((wal.length - FRAMES_AT) % FRAME, 0);
  const frames = (wal.length - FRAMES_AT) / FRAME, tried = Math.min(frames, 24);
  for (let i = 0; i < tried; i++) { // evenly spread, another offset in each
    const place = FRAMES_AT + Math.floor(i * frames / tried) * FRAME + random(FRAME);
    await refused(right, flipped(right, 'silo.db-wal', place), `byte ${place} of the WAL`);
  }
  const pages = right.get('silo.db').length / PAGE;
  for (let i = 0; i < 8; i++) {
    const at = random(pages) * PAGE + random(PAGE);
    const seen = await attack(right, flipped(right, 'silo.db', at), `byte ${at} of silo.db beside a WAL`);
    if (seen.opened) break; // it has moved on
  }
  await isRight(victim, 'with the right bytes back');
});

// ---- the registry and the key store ----

async function refusesToStart(what, pattern) {
  const before_ = node.logText().length;
  const starting = startQuietly();
  const failed = assert.rejects(starting, undefined, `${what}: it became ready`);
  await eventually(`${what}: a clear line in the log`, () => pattern.test(node.logText().slice(before_)));
  await sleep(300); // it may try again
  const answer = await node.http('GET', '/v1/memories', { token: victim.token, timeout: 500 })
    .catch(() => null);
  assert.ok(answer === null || answer.status === 503, `${what}: let in: ${answer?.status}`);
  node.child.kill('SIGKILL');
  await failed;
}

// start() destroys what does not become ready; here the directory must live on.
async function startQuietly() {
  const keep = node.destroy;
  node.destroy = async () => {
    if (!node.child) return;
    if (node.child.exitCode === null && node.child.signalCode === null) node.child.kill('SIGKILL');
    await node.ended;
    node.child = null;
  };
  try {
    await node.start();
  } finally {
    node.destroy = keep;
  }
}

test('a registry that is flipped, older, foreign or gone lets nobody in', { timeout: 300000 }, async () => {
  await node.stop();
  const directory = path.join(node.data, 'control');
  const earlier = filesOf(directory);
  await node.start();
  await node.createBusyTenant('later');
  await node.stop();
  const right = filesOf(directory);
  const attempts = [['the whole registry as it was', earlier], ['an empty one', new Map()]];
  for (const name of right.keys()) {
    if (right.get(name).length === 0) continue;
    attempts.push([`no ${name}`, replaced(right, name, undefined)]);
    attempts.push([`a flipped bit in ${name}`, flipped(right, name, random(Math.min(PAGE, right.get(name).length)))]);
    if (!same(right.get(name), earlier.get(name)))
      attempts.push([`${name} as it was`, replaced(right, name, earlier.get(name))]);
  }
  for (const [what, wrong] of attempts) {
    putFiles(directory, wrong);
    await refusesToStart(what, /"level":"error".*(control|registry|silo)/);
    putFiles(directory, right);
  }
  await node.start();
  await isRight(victim, 'with the right bytes back');
  await node.tenant('later');
});

test('a damaged key shuts out its tenant alone; damaged seeds and root shut out everybody', { timeout: 300000 }, async () => {
  await node.stop();
  const right = filesOf(node.keys);
  const kek = `${victim.id}.kek`;
  for (const wrong of [flipped(right, kek, random(101)), replaced(right, kek, right.get(kek).subarray(0, 50)),
                       replaced(right, kek, right.get(`${neighbour.id}.kek`)),
                       replaced(right, kek, undefined)]) {
    putFiles(node.keys, wrong);
    const before_ = node.logText().length;
    await node.start();
    assert.equal((await node.http('GET', '/v1/memories', { token: victim.token })).status, 503);
    await isRight(neighbour, 'the neighbour does not notice');
    assert.match(node.logText().slice(before_), new RegExp(`"level":"(error|warn)".*${victim.id}`));
    await node.stop();
    putFiles(node.keys, new Map([...filesOf(node.keys), [kek, right.get(kek)]]));
  }
  const now = filesOf(node.keys);
  for (const name of ['root.key', 'platform.seed', 'issuer.seed'])
    for (const wrong of [flipped(now, name, random(now.get(name).length)), replaced(now, name, undefined)]) {
      putFiles(node.keys, wrong);
      await refusesToStart(`${name} ${wrong.has(name) ? 'flipped' : 'gone'}`, /"level":"error".*(kms|key)/);
      putFiles(node.keys, now);
    }
  await node.start();
  await isRight(victim, 'with the right bytes back');
  await isRight(neighbour, 'with the right bytes back');
});

test('a damaged anchor shuts out its tenant alone', { timeout: 120000 }, async () => {
  await node.stop();
  const right = filesOf(node.keys);
  const wrong = copyOf(right), anchors = wrong.get('anchors');
  const id = Buffer.from(victim.id, 'hex');
  let count = 0;
  for (let at = anchors.indexOf(id); at >= 0; at = anchors.indexOf(id, at + 1), count++) anchors[at + 60] ^= 4;
  assert.ok(count >= 1);
  putFiles(node.keys, wrong);
  await node.start();
  assert.equal((await node.http('GET', '/v1/memories', { token: victim.token })).status, 503);
  await isRight(neighbour, 'the neighbour does not notice');
});
