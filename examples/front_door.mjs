// front_door.mjs: the second half of `make demo`: a node with a certificate of its own, a tenant with an identity
// provider of its own, rules that change while requests run. Each promise is tried with real clients.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';
import { eventually, Node, run } from '../tests/e2e/harness.mjs';

const ISSUER = 'https://login.acme.example';

// What a company's own identity provider does: it signs with a key that never leaves it.
class IdentityProvider {
  constructor() {
    const { publicKey, privateKey } = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' });
    this.privateKey = privateKey;
    this.jwks = { keys: [{ ...publicKey.export({ format: 'jwk' }), kid: 'spring', alg: 'ES256', use: 'sig' }] };
  }

  token(claims) {
    const now = Math.floor(Date.now() / 1000);
    const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url');
    const signed = `${part({ alg: 'ES256', typ: 'at+jwt', kid: 'spring' })}.${part({
      iss: ISSUER, aud: 'bulkhead', iat: now, exp: now + 300, jti: crypto.randomUUID(),
      scope: 'memory:read memory:write', ...claims })}`;
    const signature = crypto.sign('sha256', signed, { key: this.privateKey, dsaEncoding: 'ieee-p1363' });
    return `${signed}.${signature.toString('base64url')}`;
  }
}

async function openssl(...args) {
  const { code, stderr } = await run('openssl', args);
  assert.equal(code, 0, stderr);
}

async function makeCertificate(directory) {
  const file = (name) => path.join(directory, name);
  await openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
                '-keyout', file('tls.key'), '-out', file('tls.crt'), '-subj', '/CN=agents.example',
                '-addext', 'subjectAltName=DNS:*.agents.example,DNS:agents.example');
  fs.chmodSync(file('tls.key'), 0o600);
  return { cert: file('tls.crt'), key: file('tls.key') };
}

// One request by curl, to a name that leads here: {status, version, headers, body}.
async function curl(node, host, target, token, ...more) {
  const { code, stdout, stderr } = await run('curl', [
    '-sS', '-i', '--cacert', node.certificate, '--resolve', `${host}:${node.port}:127.0.0.1`,
    '--config', '-', ...more, `https://${host}:${node.port}${target}`],
  { input: token ? `header = "Authorization: Bearer ${token}"\n` : '' }); // not in argv
  if (code !== 0) return { code, error: stderr.trim() };
  const [head, ...body] = stdout.split('\r\n\r\n');
  const [first, ...lines] = head.split('\r\n');
  return { code, version: first.split(' ')[0], status: Number(first.split(' ')[1]), body: body.join('\r\n\r\n'),
           headers: new Headers(lines.map((line) => line.split(/: (.*)/s).slice(0, 2))) };
}

async function answered(node, status, ...request) {
  const answer = await curl(node, ...request);
  assert.equal(answer.status, status, answer.error ?? answer.body);
  return answer;
}

async function untilAnswered(node, status, ...request) {
  const from = performance.now();
  const answer = await eventually(`an answer ${status}`, async () => {
    const one = await curl(node, ...request);
    return one.status === status && one;
  }, { every: 5 });
  return [answer, performance.now() - from];
}

async function encryption(node, fact) {
  const token = await node.token('acme', 'ann');
  const two = await answered(node, 200, 'agents.example', '/v1/tenant', token);
  const one = await answered(node, 200, 'agents.example', '/v1/tenant', token, '--http1.1');
  assert.deepEqual([two.version, one.version], ['HTTP/2', 'HTTP/1.1']);
  fact(`curl: ${two.version} and ${one.version} over TLS, the same answer to both`);
  const old = await run('openssl', ['s_client', '-connect', `127.0.0.1:${node.port}`, '-tls1_1',
                                    '-cipher', 'ALL:@SECLEVEL=0']);
  assert.match(old.stdout + old.stderr, /alert|no protocols|unsupported protocol/i);
  const wrong = await curl(node, 'bank.example', '/v1/tenant', token);
  assert.equal(wrong.code, 60);
  fact('TLS 1.1: refused; a name that the certificate does not have: refused by the client');
}

async function ownIdentityProvider(node, fact) {
  const provider = new IdentityProvider(), thief = new IdentityProvider();
  const jwks = path.join(node.directory, 'acme.jwks');
  const host = 'agents.example', target = '/v1/memories';
  const good = provider.token({ sub: 'ann@acme', tenant_id: 'acme' });
  await answered(node, 401, host, target, good);
  fs.writeFileSync(jwks, JSON.stringify(provider.jwks));
  await node.ok('issuer', 'add', 'acme', '--iss', ISSUER, '--jwks', jwks);
  const [, ms] = await untilAnswered(node, 200, host, target, good);
  fact(`bulkhead issuer add acme: a token (ES256) of acme's own provider gets in, ${Math.round(ms)} ms after the command`);
  await answered(node, 401, host, target, provider.token({ sub: 'ann@acme', tenant_id: 'bolt' }));
  fact('the same provider vouches for bolt: 401; it was registered for acme and can name nobody else');
  await answered(node, 401, host, target, thief.token({ sub: 'ann@acme', tenant_id: 'acme' }));
  fact('another key under its name: 401');
  return { provider, good };
}

async function hosts(node, fact) {
  const [acme, bolt] = await Promise.all(['acme', 'bolt'].map((name) => node.token(name, 'ann')));
  await answered(node, 200, 'acme.agents.example', '/v1/memories', acme);
  await answered(node, 401, 'acme.agents.example', '/v1/memories', bolt);
  fact('https://acme.agents.example: acme\'s token opens it, bolt\'s does not');
  await node.ok('route', 'add', 'bolt', 'phone', '+4930901820');
  const desk = (await node.ok('token', '--platform', '--user', 'switchboard', '--scope', 'routes:read')).trim();
  const { body } = await answered(node, 200, 'agents.example', '/v1/routes/phone/+4930901820', desk);
  assert.equal(JSON.parse(body).tenant, 'bolt');
  await answered(node, 403, 'agents.example', '/v1/routes/phone/+4930901820', acme);
  await answered(node, 403, 'agents.example', '/v1/memories', desk);
  fact('a call comes in: the platform\'s token learns whose number it is, and opens nothing else');
}

async function revoke(node, { provider, good }, fact) {
  const host = 'agents.example', target = '/v1/memories';
  const { code, stderr } = await run(path.join(process.env.BULKHEAD_BUILD ?? 'build', 'bulkhead'),
    ['revoke', 'acme', '--token-file', '-', '--data', node.data], { input: good });
  assert.equal(code, 0, stderr);
  const [, ms] = await untilAnswered(node, 401, host, target, good);
  fact(`bulkhead revoke acme --token-file -: that token is refused ${Math.round(ms)} ms after the command; others are not`);
  const other = provider.token({ sub: 'ann@acme', tenant_id: 'acme' });
  await answered(node, 200, host, target, other);
  await node.ok('revoke', 'acme', '--user', 'ann@acme');
  await untilAnswered(node, 401, host, target, other);
  await node.awaitParked('acme');
  await answered(node, 401, host, target, other);
  fact('revoke --user: all her tokens so far; also after the cell has parked');
}

async function quota(node, fact) {
  const token = await node.token('bolt', 'ben');
  await node.ok('tenant', 'update', 'bolt', '--quota', 'requests_per_second=2');
  const [refused, ms] = await untilAnswered(node, 429, 'agents.example', '/v1/memories', token);
  const { detail } = JSON.parse(refused.body);
  fact(`bulkhead tenant update bolt --quota requests_per_second=2: in force within ${Math.round(ms)} ms of asking`);
  fact(`   HTTP 429, Retry-After: ${refused.headers.get('retry-after')}: ${detail}`);
  await node.ok('tenant', 'update', 'bolt', '--quota', 'requests_per_second=0');
  const file = path.join(node.directory, 'ledger');
  await node.ok('ledger', 'export', '-o', file);
  await node.ok('ledger', 'verify', file);
  const text = fs.readFileSync(file, 'utf8');
  for (const event of ['issuer', 'revo', 'quota']) assert.ok(text.includes(event), event);
  fact('each of these changes is an entry of the platform\'s ledger, which verifies');
}

export async function frontDoor(chapter, fact) {
  const node = new Node({ config: { idle_seconds: 1, domain: 'agents.example' } });
  try {
    const { cert, key } = await makeCertificate(node.directory);
    node.certificate = cert;
    node.args = ['--tls-cert', cert, '--tls-key', key];
    await node.start();
    for (const name of ['acme', 'bolt']) await node.createTenant(name);
    chapter('Another node, with a certificate: the front door');
    await encryption(node, fact);
    await hosts(node, fact);
    chapter('A customer brings its own identity provider');
    const issued = await ownIdentityProvider(node, fact);
    await revoke(node, issued, fact);
    chapter('Rules change while it runs');
    await quota(node, fact);
    await node.stop();
  } finally {
    await node.destroy();
  }
}
