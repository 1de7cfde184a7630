// charters.test.mjs: what an operator changes is in force when the command returns, and stays so: at a cell that is
// awake, after parking, after a restart, after a crash.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';

import { eventually, startNode } from './harness.mjs';
import { Issuer } from './issuer.mjs';

const claimsOf = (token) => JSON.parse(Buffer.from(token.split('.')[1], 'base64url').toString('utf8'));
const read = (node, token) => node.http('GET', '/v1/memories', { token });

async function park(node, name) {
  await node.ok('tenant', 'pause', name);
  await node.ok('tenant', 'resume', name);
}

// Each ends with another way to begin anew, which no revocation may fall behind.
async function allWaysToBeginAnew(node, check) {
  await check('at the cell that is awake');
  await park(node, 'acme');
  await check('after parking');
  await node.kill((await node.service('kms')).pid);
  await eventually('the kms is there again', async () => (await node.service('kms')).state === 'serving');
  await check('after the end of the kms');
  await node.kill((await node.service('control')).pid);
  await eventually('control is there again', async () => (await node.cli('tenant', 'show', 'acme')).code === 0);
  await check('after the end of control');
  await node.stop();
  await node.start();
  await check('after a restart');
  await node.crash();
  await node.start();
  await check('after a crash');
}

test('a revoked token and a revoked user are refused from the moment the command returns', async (t) => {
  const node = await startNode(t);
  await node.createTenant('acme');
  await node.createTenant('globex');
  const ada = await node.token('acme'), bob = await node.token('acme', 'bob'), twin = await node.token('acme');
  const elsewhere = await node.token('globex', 'bob');
  for (const token of [ada, bob, twin, elsewhere]) assert.equal((await read(node, token)).status, 200);
  const { pid } = (await node.status()).cells[0];
  const file = path.join(node.directory, 'token');
  fs.writeFileSync(file, ada);
  await node.ok('revoke', 'acme', '--token-file', file);
  assert.equal((await read(node, ada)).status, 401);
  assert.equal((await read(node, bob)).status, 200);
  await node.ok('revoke', 'acme', '--user', 'bob');
  assert.equal((await read(node, bob)).status, 401);
  assert.ok((await node.status()).cells.some((cell) => cell.pid === pid), 'no cell ended for it');
  await allWaysToBeginAnew(node, async (when) => {
    await eventually('acme is served', async () => (await read(node, twin)).status === 200);
    assert.equal((await read(node, ada)).status, 401, `the token, ${when}`);
    assert.equal((await read(node, bob)).status, 401, `the user, ${when}`);
    assert.equal((await read(node, elsewhere)).status, 200, `the other tenant's, ${when}`);
  });
});

test('a revocation for the platform is in force in every cell at once', async (t) => {
  const node = await startNode(t);
  const tokens = {};
  for (const name of ['acme', 'globex', 'initech']) {
    await node.createTenant(name);
    tokens[name] = { eve: await node.token(name, 'eve'), ada: await node.token(name) };
    assert.equal((await read(node, tokens[name].eve)).status, 200);
  }
  await node.ok('revoke', '--platform', '--user', 'eve');
  for (const { eve, ada } of Object.values(tokens)) {
    assert.equal((await read(node, eve)).status, 401);
    assert.equal((await read(node, ada)).status, 200);
  }
  const { ada } = tokens.acme;
  await node.ok('revoke', '--platform', '--jti', claimsOf(ada).jti);
  assert.equal((await read(node, ada)).status, 401);
  const other = await node.token('acme');
  await allWaysToBeginAnew(node, async (when) => {
    await eventually('acme is served', async () => (await read(node, other)).status === 200);
    assert.equal((await read(node, ada)).status, 401, `the token, ${when}`);
    for (const { eve } of Object.values(tokens)) assert.equal((await read(node, eve)).status, 401, when);
  });
});

test('an issuer counts from the moment it is added until it is removed', async (t) => {
  const node = await startNode(t);
  const { id } = await node.createTenant('acme');
  const own = await node.token('acme');
  const partner = new Issuer('https://partner.example');
  const token = partner.token({ tenant_id: id, sub: 'grace' });
  assert.equal((await read(node, token)).status, 401);
  assert.equal((await read(node, own)).status, 200);
  await node.ok('issuer', 'add', 'acme', '--iss', partner.iss, '--jwks', partner.jwks(node));
  assert.equal((await read(node, token)).status, 200);
  await node.ok('issuer', 'remove', 'acme', '--iss', partner.iss);
  assert.equal((await read(node, token)).status, 401);
  await allWaysToBeginAnew(node, async (when) => {
    await eventually('acme is served', async () => (await read(node, own)).status === 200);
    assert.equal((await read(node, token)).status, 401, when);
  });
});

// It may have been about to answer under the charters of before: it must not.
test('a cell that was stopped while a token was revoked does not serve it afterwards', async (t) => {
  const node = await startNode(t);
  const { id } = await node.createTenant('acme');
  const ada = await node.token('acme'), bob = await node.token('acme', 'bob');
  for (const token of [ada, bob]) assert.equal((await read(node, token)).status, 200);
  const { pid } = await node.cell(id);
  process.kill(pid, 'SIGSTOP');
  await node.ok('revoke', 'acme', '--user', 'bob'); // which does not wait for it
  const waiting = read(node, bob);
  process.kill(pid, 'SIGCONT');
  assert.equal((await waiting).status, 401);
  assert.equal((await read(node, ada)).status, 200);
});
