// charters.test.mjs: a registry that was written over and a control process in an attacker's hands get nobody in.
//
// Control is the genuine program, linked so that what it tells cells and gateways passes through the attacker
// (hostile_control.c); the supervisor starts it in the genuine one's place, in the same jail. The attacker is a
// tenant of this node with an issuer of its own, or a partner whose issuer was removed, or a user whose tokens
// were revoked. Whatever control says, nobody of them is served, and once control is honest again all is as
// before. Needs root.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';

import { build, eventually, Node } from '../e2e/harness.mjs';
import { charterBytes, charterMessage, Issuer, readCharter, signCharter } from '../e2e/issuer.mjs';
import { verifyLedger } from './support.mjs';

const SECRET = 'the third pier is mined';
const PLATFORM = '0'.repeat(32);
const TOKEN_MINT = 0x0323, CHARTER_SIGN = 0x0324;

// All executables, control being the hostile one.
function hostilePrograms() {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'bulkhead-hostile-'));
  process.on('exit', () => fs.rmSync(directory, { recursive: true, force: true })); // however it ends
  fs.chmodSync(directory, 0o755);
  for (const name of ['bulkhead', 'bulkheadd', 'bulkhead-kms', 'bulkhead-gateway', 'bulkhead-cell', 'bulkhead-hostile'])
    fs.copyFileSync(path.join(build, name), path.join(directory, name));
  fs.copyFileSync(path.join(build, 'tests/attack/bulkhead-control-hostile'),
                  path.join(directory, 'bulkhead-control'));
  return directory;
}

// start() destroys what does not become ready; here the directory must live on.
async function startQuietly(node) {
  const keep = node.destroy;
  node.destroy = async () => {
    node.child?.kill('SIGKILL');
    await node.ended;
    node.child = null;
  };
  try {
    await node.start();
  } finally {
    node.destroy = keep;
  }
}

const u32 = (value) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value);
  return bytes;
};

describe('a control process in hostile hands', { skip: process.getuid() !== 0 && 'needs root' }, () => {
  const programs = hostilePrograms();
  const node = new Node({ programs });
  const inside = (name) => path.join(node.data, 'control', name);
  const mallory = new Issuer('https://mallory.example'), partner = new Issuer('https://partner.example');
  let acme, other, honest, eve, outcasts;

  const seen = (id, sequence) => readCharter(fs.readFileSync(inside(`seen.${id}.${sequence}`)));
  const newest = (id) => seen(id, Math.max(...fs.readdirSync(path.join(node.data, 'control'))
    .filter((name) => name.startsWith(`seen.${id}.`)).map((name) => Number(name.split('.').at(-1)))));
  const forge = (id, charter) =>
    fs.writeFileSync(inside(`forged.${id}`), charter === null ? 'none' : charterBytes(charter));

  // A gateway to which control talks nonsense ends its channel, and itself: then there is no answer.
  const cut = { status: 0, text: '', body: {} };
  const read = (token) => node.http('GET', '/v1/memories', { token }).catch(() => cut);
  const write = (token) => node.http('POST', '/v1/memories', { token, body: { text: 'planted' } }).catch(() => cut);
  const REFUSED = [0, 401, 403, 503];

  // Every cell and every gateway learns anew what control says, and has seen nothing newer.
  async function forgetAll() {
    await node.crash();
    await node.start();
  }

  async function nobodyGetsIn(what) {
    for (let round = 0; round < 3; round++)
      for (const [who, token] of Object.entries(outcasts)) {
        const got = await read(token);
        assert.ok(REFUSED.includes(got.status), `${what}: ${who}: ${got.status} ${got.text}`);
        assert.ok(!got.text.includes(SECRET), `${what}: ${who} read it`);
        const written = await write(token);
        assert.ok(REFUSED.includes(written.status), `${what}: ${who}: ${written.status}`);
        const honestly = await read(honest); // served under the cell's own copy, or not at all
        assert.ok([200, ...REFUSED].includes(honestly.status), `${what}: ${honestly.status} ${honestly.text}`);
      }
  }

  async function allIsWellAgain() {
    for (const name of fs.readdirSync(path.join(node.data, 'control')))
      if (name.startsWith('forged.') || name === 'alias') fs.rmSync(inside(name));
    await forgetAll();
    await eventually('acme is served', async () => (await read(honest)).status === 200);
    const memories = await node.want(200, 'GET', '/v1/memories', { token: honest });
    assert.deepEqual(memories.data.map(({ text }) => text), [SECRET], 'nothing was planted');
    for (const [who, token] of Object.entries(outcasts))
      assert.ok([401, 403].includes((await read(token)).status), `${who} is refused by a whole node`);
  }

  async function attack(what, forgeries) {
    forgeries();
    await forgetAll();
    try {
      await nobodyGetsIn(what);
    } finally {
      await allIsWellAgain();
    }
  }

  before(async () => {
    await node.start();
    acme = await node.createTenant('acme');
    other = await node.createTenant('mallory');
    honest = await node.token('acme');
    await node.want(201, 'POST', '/v1/memories', { token: honest, body: { text: SECRET } });
    await node.ok('issuer', 'add', 'mallory', '--iss', mallory.iss, '--jwks', mallory.jwks(node));
    const own = mallory.token({ tenant_id: other.id, sub: 'mallory' });
    await node.want(200, 'GET', '/v1/memories', { token: own }); // its tokens are as they must be
    await node.ok('issuer', 'add', 'acme', '--iss', partner.iss, '--jwks', partner.jwks(node));
    const former = partner.token({ tenant_id: acme.id, sub: 'partner' });
    await node.want(200, 'GET', '/v1/memories', { token: former });
    await node.ok('issuer', 'remove', 'acme', '--iss', partner.iss);
    eve = await node.token('acme', 'eve');
    await node.want(200, 'GET', '/v1/memories', { token: eve });
    await forgetAll(); // so that the charter in which eve still counts is seen
    await node.want(200, 'GET', '/v1/memories', { token: eve });
    await node.ok('revoke', 'acme', '--user', 'eve');
    await forgetAll();
    await node.want(200, 'GET', '/v1/memories', { token: honest });
    await node.want(200, 'GET', '/v1/memories', { token: own });
    outcasts = {
      'mallory for acme': mallory.token({ tenant_id: acme.id, sub: 'ada' }),
      'mallory for acme by name': mallory.token({ tenant_id: 'acme', sub: 'ada' }),
      'the partner of yesterday': former,
      'a user who was revoked': eve,
    };
  });

  after(() => node.destroy());

  // acme's charter as it would be, were mallory's issuer in it.
  function withMallorysIssuer(sequence) {
    const genuine = newest(acme.id);
    const document = JSON.parse(genuine.document), theirs = JSON.parse(newest(other.id).document);
    assert.equal(theirs.issuers.length, 1);
    return {
      ...genuine, sequence,
      document: JSON.stringify({ ...document, sequence: Number(sequence), issuers: theirs.issuers }),
    };
  }

  test('the outcasts are refused and the honest are served to begin with', async () => {
    await nobodyGetsIn('nothing');
    await allIsWellAgain();
  });

  test('a charter with an issuer of the attacker, under the attacker\'s signature', async () => {
    for (const step of [0n, 1n, 1000n])
      await attack(`sequence + ${step}`, () => forge(acme.id, signCharter(
        withMallorysIssuer(newest(acme.id).sequence + step), mallory.privateKey)));
  });

  test('the same under the genuine signature of the charter in force', async () => {
    await attack('a stolen signature', () => forge(acme.id, withMallorysIssuer(newest(acme.id).sequence)));
  });

  test('every older genuine charter: before issuers were removed and users revoked', async () => {
    const { sequence } = newest(acme.id);
    const older = fs.readdirSync(path.join(node.data, 'control'))
      .filter((name) => name.startsWith(`seen.${acme.id}.`)).map((name) => BigInt(name.split('.').at(-1)))
      .filter((number) => number < sequence);
    assert.ok(older.length >= 2, `${older}`);
    const trusted = older.filter((number) => JSON.parse(seen(acme.id, number).document).issuers.length > 0);
    assert.ok(trusted.length >= 1, 'one of them names the partner');
    for (const number of older)
      await attack(`charter ${number} of ${sequence}`, () => forge(acme.id, seen(acme.id, number)));
  });

  test('the charter of another tenant, as it is and under this one\'s id', async () => {
    await attack('of another tenant', () => forge(acme.id, newest(other.id)));
    await attack('relabelled', () => forge(acme.id, { ...newest(other.id), id: newest(acme.id).id }));
  });

  test('no charter at all, and garbage', async () => {
    await attack('none', () => forge(acme.id, null));
    const genuine = newest(acme.id);
    await attack('an empty one', () => forge(acme.id, { ...genuine, document: '' }));
    await attack('garbage', () => forge(acme.id, signCharter({ ...genuine, document: 'x'.repeat(28672) },
                                                             mallory.privateKey)));
    await attack('cut', () => forge(acme.id, { ...genuine, document: genuine.document.slice(0, -1) }));
  });

  test('a charter of the platform that nobody signed, though every tenant would obey it', async () => {
    const { document } = newest(other.id);
    const charter = {
      id: Buffer.alloc(16), sequence: 1n,
      document: JSON.stringify({ ...JSON.parse(document), id: PLATFORM, sequence: 1, posture: undefined }),
    };
    await attack('a platform charter', () => forge(PLATFORM, signCharter(charter, mallory.privateKey)));
    await attack('a tenant\'s as the platform\'s', () => forge(PLATFORM, newest(other.id)));
    await attack('both', () => {
      forge(PLATFORM, signCharter(charter, mallory.privateKey));
      forge(acme.id, signCharter(withMallorysIssuer(99n), mallory.privateKey));
    });
  });

  test('a genuine platform charter from before its issuer was removed', async () => {
    const broker = new Issuer('https://broker.example');
    const token = broker.token({ tenant_id: acme.id, sub: 'broker' });
    await node.ok('issuer', 'add', '--platform', '--iss', broker.iss, '--jwks', broker.jwks(node));
    await node.want(200, 'GET', '/v1/memories', { token });
    await forgetAll();
    await node.want(200, 'GET', '/v1/memories', { token });
    const { sequence } = newest(PLATFORM);
    await node.ok('issuer', 'remove', '--platform', '--iss', broker.iss);
    await node.problem(401, 'unauthenticated', 'GET', '/v1/memories', { token });
    outcasts['the broker of yesterday'] = token;
    await attack('an older platform charter', () => forge(PLATFORM, seen(PLATFORM, sequence)));
    await attack('no platform charter', () => forge(PLATFORM, null));
  });

  test('one tenant shown as another: the way to a cell is not the way into it', async () => {
    const builtin = await node.token('mallory', 'mallory');
    await node.want(200, 'GET', '/v1/memories', { token: builtin });
    fs.writeFileSync(inside('alias'), Buffer.concat([Buffer.from(other.id, 'hex'), Buffer.from(acme.id, 'hex')]));
    await forgetAll();
    for (let round = 0; round < 5; round++)
      for (const token of [builtin, mallory.token({ tenant_id: other.id, sub: 'mallory' })]) {
        const got = await read(token);
        assert.ok(!got.text.includes(SECRET), got.text);
        assert.ok(REFUSED.includes(got.status), `${got.status} ${got.text}`);
      }
    await allIsWellAgain();
    await node.want(200, 'GET', '/v1/memories', { token: builtin });
  });

  test('control by itself has nothing new signed and no token minted', async () => {
    const ask = async (type, body) => {
      fs.rmSync(inside('answer'), { force: true });
      fs.writeFileSync(inside('ask'), Buffer.concat([u32(type), body]));
      await node.ok('tenant', 'pause', 'acme');
      await node.ok('tenant', 'resume', 'acme');
      await eventually('control asked', async () => {
        await read(honest);
        return fs.existsSync(inside('answer'));
      });
      return fs.readFileSync(inside('answer'), 'utf8');
    };
    const present = newest(acme.id);
    assert.equal(await ask(CHARTER_SIGN, charterMessage(withMallorysIssuer(present.sequence + 1n))), 'conflict');
    assert.equal(await ask(CHARTER_SIGN, charterMessage(withMallorysIssuer(present.sequence))), 'conflict');
    assert.equal(await ask(CHARTER_SIGN, charterMessage(seen(acme.id, 1n))), 'conflict');
    assert.equal(await ask(CHARTER_SIGN, charterMessage(present)), 'ok', 'the newest, which it has already');
    await allIsWellAgain();
    const field = (text) => Buffer.concat([u32(text.length), Buffer.from(text)]);
    const mint = Buffer.concat([Buffer.from(acme.id, 'hex'), field('ada'), field(''), field('memory:read'),
                                field(''), u32(600)]);
    assert.equal(await ask(TOKEN_MINT, mint), 'closed', 'that ends the channel');
    await eventually('control is there again', async () => (await node.cli('tenant', 'show', 'acme')).code === 0);
    await allIsWellAgain();
  });

  test('control ends while a charter is signed: the change has happened or has not, and the tenant goes on', async () => {
    for (const when of ['before', 'after']) {
      const user = `carl-${when}`;
      const token = await node.token('acme', user);
      await node.want(200, 'GET', '/v1/memories', { token });
      fs.writeFileSync(inside('die'), when);
      assert.notEqual((await node.cli('revoke', 'acme', '--user', user)).code, 0, 'nobody was told that it is done');
      assert.ok(!fs.existsSync(inside('die')), 'it ended there');
      await eventually('control is there again', async () => (await node.cli('tenant', 'show', 'acme')).code === 0);
      const list = (await node.json('revoke', 'list', 'acme')).data;
      const happened = when === 'after';
      assert.equal(list.some((entry) => entry.user === user), happened, when);
      await eventually('acme is served', async () => (await read(honest)).status === 200);
      assert.equal((await read(token)).status, happened ? 401 : 200, when);
      await node.ok('revoke', 'acme', '--user', user); // and can be said again
      assert.equal((await read(token)).status, 401, when);
    }
    await allIsWellAgain();
    await verifyLedger(node);
  });

  test('what an operator has signed lets the same tokens in: nothing else was in their way', async () => {
    await node.ok('issuer', 'add', 'acme', '--iss', mallory.iss, '--jwks', mallory.jwks(node));
    await node.want(200, 'GET', '/v1/memories', { token: mallory.token({ tenant_id: acme.id, sub: 'ada' }) });
    await node.want(200, 'GET', '/v1/memories', { token: outcasts['mallory for acme'] });
  });

  test('a registry that was written over by an older one is refused', async () => {
    const control = path.join(node.data, 'control');
    const files = () => fs.readdirSync(control).filter((name) => name.startsWith('silo.'));
    await node.stop();
    const older = files().map((name) => [name, fs.readFileSync(inside(name))]);
    await node.start();
    await node.ok('issuer', 'remove', 'acme', '--iss', mallory.iss);
    await node.problem(401, 'unauthenticated', 'GET', '/v1/memories', { token: outcasts['mallory for acme'] });
    await node.stop();
    const present = files().map((name) => [name, fs.readFileSync(inside(name))]);
    for (const [name, bytes] of older) fs.writeFileSync(inside(name), bytes); // whose owner stays
    await assert.rejects(startQuietly(node), /the silo has \d+ commits, anchored were/);
    for (const [name, bytes] of present) fs.writeFileSync(inside(name), bytes);
    await node.start();
    assert.equal((await read(outcasts['mallory for acme'])).status, 401);
    await node.want(200, 'GET', '/v1/memories', { token: honest });
  });
});
