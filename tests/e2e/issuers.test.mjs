// The operator's side of foreign issuers: adding, rotating, listing and removing, and what is refused.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { eventually, nodeOfSuite } from './harness.mjs';

const IN_FORCE = { within: 1000, every: 20 };
const ISS = 'https://idp.example/realm';

const keyOf = (kid, kind = 'ed25519', options = undefined) => {
  const pair = crypto.generateKeyPairSync(kind, options);
  const alg = { ed25519: 'EdDSA', ec: 'ES256', rsa: 'RS256' }[kind];
  return { kid, alg, private: pair.privateKey, jwk: { ...pair.publicKey.export({ format: 'jwk' }), kid, alg, use: 'sig' } };
};
const encode = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
const sign = (key, claims) => {
  const now = Math.floor(Date.now() / 1000);
  const signed = `${encode({ alg: key.alg, kid: key.kid, typ: 'at+jwt' })}.${encode({
    iss: ISS, aud: 'bulkhead', sub: 'ada', scope: 'memory:read memory:write', iat: now, exp: now + 300,
    jti: crypto.randomUUID(), ...claims })}`;
  const options = { ed25519: [null, key.private], ec: ['sha256', { key: key.private, dsaEncoding: 'ieee-p1363' }],
                    rsa: ['sha256', key.private] }[key.private.asymmetricKeyType];
  return `${signed}.${crypto.sign(options[0], Buffer.from(signed), options[1]).toString('base64url')}`;
};

describe('issuers', () => {
  const node = nodeOfSuite({ before, after }, { tenants: ['acme', 'beta'] });
  const file = (content) => {
    const name = path.join(node.directory, `keys-${crypto.randomUUID()}.json`);
    fs.writeFileSync(name, typeof content === 'string' ? content : JSON.stringify(content));
    return name;
  };
  const jwks = (...keys) => file({ keys: keys.map(({ jwk }) => jwk) });
  const status = async (token) => (await node.http('GET', '/v1/memories', { token })).status;
  const serves = (what, token) => eventually(what, async () => await status(token) === 200, IN_FORCE);
  const refuses = (what, token) => eventually(what, async () => await status(token) === 401, IN_FORCE);
  const first = keyOf('first'), second = keyOf('second', 'ec', { namedCurve: 'P-256' }),
        third = keyOf('third', 'rsa', { modulusLength: 2048 });

  test('keys rotate: added, both, removed, each in force within a second', async () => {
    const of = (key) => sign(key, { tenant_id: node.tenants.acme.id });
    assert.equal(await status(of(first)), 401);
    const added = await node.json('issuer', 'add', 'acme', '--iss', ISS, '--jwks', jwks(first));
    assert.deepEqual([added.replaced, added.keys_added, added.keys_removed], [false, ['first'], []]);
    await serves('the first key', of(first));
    assert.equal(await status(of(second)), 401, 'a key that was not added');
    const both = await node.json('issuer', 'add', 'acme', '--iss', ISS, '--jwks', jwks(first, second));
    assert.deepEqual([both.replaced, both.keys_added, both.keys_removed], [true, ['second'], []]);
    await serves('the second key', of(second));
    assert.equal(await status(of(first)), 200);
    const rotated = await node.json('issuer', 'add', 'acme', '--iss', ISS, '--jwks', jwks(second, third));
    assert.deepEqual([rotated.keys_added, rotated.keys_removed], [['third'], ['first']]);
    await serves('the third key', of(third));
    await refuses('the first key is gone', of(first));
    const { data: [issuer] } = await node.json('issuer', 'list', 'acme');
    assert.deepEqual(issuer.keys, [{ kid: 'second', alg: 'ES256' }, { kid: 'third', alg: 'RS256' }]);
    assert.deepEqual((await node.json('issuer', 'list', 'beta')).data, []);
  });

  test('an issuer of one tenant vouches for no other', async () => {
    assert.equal(await status(sign(third, { tenant_id: node.tenants.beta.id })), 401);
    assert.equal(await status(sign(third, { tenant_id: 'beta' })), 401);
  });

  test('what is said of it stays when only its keys are replaced', async () => {
    await node.ok('issuer', 'add', 'acme', '--iss', ISS, '--jwks', jwks(third), '--aud', 'api', '--tenant-claim', 'org',
                  '--user-claim', 'email', '--scope-claim', 'scp', '--skew', '5', '--max-lifetime', '10m');
    await node.ok('issuer', 'add', 'acme', '--iss', ISS, '--jwks', jwks(second, third));
    const { data: [issuer] } = await node.json('issuer', 'list', 'acme');
    assert.deepEqual({ ...issuer, keys: issuer.keys.length },
      { iss: ISS, aud: 'api', tenant_claim: 'org', user_claim: 'email', scope_claim: 'scp', clearance_claim: 'clearance',
        once: false, max_lifetime_seconds: 600, skew_seconds: 5, keys: 2 });
    const mapped = { aud: 'api', org: node.tenants.acme.id, email: 'ada@acme.example', sub: undefined,
                     scope: undefined, scp: 'memory:read' };
    await serves('claims under other names', sign(third, mapped));
    assert.equal(await status(sign(third, { tenant_id: node.tenants.acme.id })), 401, 'the names of before');
    assert.equal(await status(sign(third, { ...mapped, exp: Math.floor(Date.now() / 1000) + 700 })), 401, 'too long');
  });

  test('one of the platform vouches for every tenant until it is removed', async () => {
    const iss = 'https://platform.example';
    await node.ok('issuer', 'add', '--platform', '--iss', iss, '--jwks', jwks(first));
    for (const name of ['acme', 'beta'])
      await serves(name, sign(first, { iss, tenant_id: node.tenants[name].id }));
    await node.ok('issuer', 'remove', '--platform', '--iss', iss);
    for (const name of ['acme', 'beta'])
      await refuses(name, sign(first, { iss, tenant_id: node.tenants[name].id }));
    assert.match(await node.refused('issuer', 'remove', '--platform', '--iss', iss), /no such issuer/);
  });

  test('one issuer may be the platform\'s and a tenant\'s, each for its own audience', async () => {
    const iss = 'https://both.example', { acme, beta } = node.tenants;
    await node.ok('issuer', 'add', '--platform', '--iss', iss, '--jwks', jwks(first));
    await node.ok('issuer', 'add', 'acme', '--iss', iss, '--jwks', jwks(first), '--aud', 'acme-api');
    await serves('the platform\'s', sign(first, { iss, tenant_id: beta.id }));
    await serves('the tenant\'s', sign(first, { iss, tenant_id: acme.id, aud: 'acme-api' }));
    assert.equal(await status(sign(first, { iss, tenant_id: acme.id })), 200);
    assert.equal(await status(sign(first, { iss, tenant_id: beta.id, aud: 'acme-api' })), 401);
    assert.equal(await status(sign(first, { iss, tenant_id: acme.id, aud: 'other' })), 401);
    await node.ok('issuer', 'remove', 'acme', '--iss', iss);
    await node.ok('issuer', 'remove', '--platform', '--iss', iss);
  });

  test('a token of before does not name the next tenant of that name', async () => {
    const iss = 'https://names.example', second_ = Math.floor(Date.now() / 1000);
    const { id: former } = await node.createTenant('again');
    await node.ok('issuer', 'add', '--platform', '--iss', iss, '--jwks', jwks(first));
    const ahead = sign(first, { iss, tenant_id: 'again', iat: second_ + 59 }); // its issuer's clock may be
    await serves('the former', ahead);
    await serves('the former, by a clock that is right', sign(first, { iss, tenant_id: 'again' }));
    await node.ok('tenant', 'erase', 'again');
    const { id } = await node.createTenant('again');
    assert.notEqual(id, former);
    await serves('the new one by its id', sign(first, { iss, tenant_id: id }));
    assert.equal(await status(ahead), 401);
    assert.equal(await status(sign(first, { iss, tenant_id: 'again', iat: second_ })), 401);
    assert.equal(await status(sign(first, { iss, tenant_id: former })), 401);
    await node.ok('issuer', 'remove', '--platform', '--iss', iss);
  });

  test('a token that serves once serves once', async () => {
    const iss = 'https://once.example';
    await node.ok('issuer', 'add', 'beta', '--iss', iss, '--jwks', jwks(first), '--once');
    const once = () => sign(first, { iss, tenant_id: node.tenants.beta.id });
    await serves('a fresh one each time', once());
    const token = once();
    assert.equal(await status(token), 200);
    assert.equal(await status(token), 401);
    assert.equal(await status(sign(first, { iss, tenant_id: node.tenants.beta.id, jti: undefined })), 401);
  });

  test('keys that are none, too weak, private or too many are refused, and nothing changes', async () => {
    const before_ = await node.json('issuer', 'list', 'acme');
    const weak = keyOf('weak', 'rsa', { modulusLength: 1024 });
    const secret = { ...first.private.export({ format: 'jwk' }), kid: 'secret', alg: 'EdDSA' };
    for (const [content, pattern] of [
      ['', /jwks|JSON|bytes/i], ['[]', /./], ['{"keys":[]}', /./], ['{"keys":{}}', /./], ['{"keys":[1]}', /./],
      [{ keys: [weak.jwk] }, /./], [{ keys: [secret] }, /private/], [{ keys: [first.jwk, first.jwk] }, /kid/],
      [{ keys: [{ kty: 'oct', k: 'AAAA', kid: 'o', alg: 'HS256' }] }, /./], [{ keys: [{ ...first.jwk, kid: undefined }] }, /kid/],
      [{ keys: Array.from({ length: 9 }, (_, i) => ({ ...first.jwk, kid: `k${i}` })) }, /./],
      [' '.repeat(70000), /bytes|large/]])
      assert.match(await node.refused('issuer', 'add', 'acme', '--iss', ISS, '--jwks', file(content)), pattern);
    await node.refused('issuer', 'add', 'acme', '--iss', ISS, '--jwks', '/nonexistent');
    await node.refused('issuer', 'add', 'acme', '--iss', ISS, '--jwks', node.directory);
    assert.deepEqual(await node.json('issuer', 'list', 'acme'), before_);
  });

  test('names and numbers out of bounds are refused', async () => {
    const keys = jwks(first);
    for (const [words, pattern] of [
      [['--iss', 'bulkhead'], /built-in/], [['--iss', 'a\nb'], /iss/], [['--iss', 'x'.repeat(256)], /iss/],
      [['--iss', ISS, '--aud', 'x'.repeat(256)], /aud/], [['--iss', ISS, '--user-claim', 'client_id'], /./],
      [['--iss', ISS, '--skew', '61'], /skew/], [['--iss', ISS, '--max-lifetime', '25h'], /max_lifetime/],
      [['--iss', ISS, '--tenant-claim', 'x'.repeat(64)], /tenant_claim/]])
      assert.match(await node.refused('issuer', 'add', 'beta', ...words, '--jwks', keys), pattern, words.join(' '));
    assert.match(await node.refused('issuer', 'add', 'nobody', '--iss', ISS, '--jwks', keys), /no tenant/);
    assert.match(await node.refused('issuer', 'add', 'beta', '--iss', ISS, '--jwks', 'https://idp.example/keys'),
                 /fetch it yourself/);
  });

  test('the claim that names one tenant is in no other tenant\'s way', async () => {
    const [acme, beta] = ['acme', 'beta'].map((name) => `https://${name}.example/claims`);
    const ada = () => sign(second, { iss: beta, team: node.tenants.beta.id, sub: 'ada', tenant_id: 'elsewhere' });
    await node.ok('issuer', 'add', 'beta', '--iss', beta, '--jwks', jwks(second), '--tenant-claim', 'team');
    await serves('before', ada());
    await node.ok('issuer', 'add', 'acme', '--iss', acme, '--jwks', jwks(first), '--tenant-claim', 'sub');
    await serves('the other tenant', sign(first, { iss: acme, sub: 'acme' }));
    assert.equal(await status(ada()), 200);
    assert.equal(await status(sign(first, { iss: acme, sub: 'beta', team: 'beta', tenant_id: 'beta' })), 401);
    assert.equal(await status(sign(second, { iss: beta, team: 'acme', sub: 'acme', tenant_id: 'acme' })), 401);
    await node.ok('issuer', 'remove', 'acme', '--iss', acme);
    await node.ok('issuer', 'remove', 'beta', '--iss', beta);
  });

  test('sixteen issuers and sixteen names of claims are as many as there may be', async () => {
    const keys = jwks(first);
    await node.createTenant('many');
    for (let i = 0; i < 16; i++)
      await node.ok('issuer', 'add', 'many', '--iss', `https://${i}.example`, '--jwks', keys);
    assert.match(await node.refused('issuer', 'add', 'many', '--iss', 'https://16.example', '--jwks', keys), /at most 16/);
    const used = new Set(['org', 'tenant_id']);
    for (let i = 0; used.size < 16; i++) {
      used.add(`claim${i}`);
      await node.ok('issuer', 'add', 'many', '--iss', `https://${i}.example`, '--jwks', keys, '--tenant-claim', `claim${i}`);
    }
    assert.match(await node.refused('issuer', 'add', 'many', '--iss', 'https://15.example', '--jwks', keys,
                                    '--tenant-claim', 'one-more'), /tenant_claim/);
    await node.ok('tenant', 'erase', 'many');
    await node.ok('issuer', 'add', 'beta', '--iss', 'https://later.example', '--jwks', keys, '--tenant-claim', 'one-more');
  });

  test('the ledger says which keys came and went, and keeps no key', async () => {
    const lines = (await node.ok('ledger', 'export')).trim().split('\n').map((line) => JSON.parse(line));
    const entries = lines.filter(({ entry }) => entry?.event === 'issuer.add' && entry.tenant_name === 'acme');
    assert.deepEqual(entries.slice(0, 3).map(({ entry }) => [entry.detail.keys_added, entry.detail.keys_removed]),
                     [[['first'], []], [['second'], []], [['third'], ['first']]]);
    assert.ok(lines.some(({ entry }) => entry?.event === 'issuer.remove'));
    assert.ok(!JSON.stringify(lines).includes(first.jwk.x));
  });
});
