// support.mjs: what the attacks share: forged tokens, parking at will, whole views of a tenant, its log, chance.
import assert from 'node:assert/strict';
import crypto from 'node:crypto';
import fs from 'node:fs';
import path from 'node:path';

import { bulkhead, eventually, sleep } from '../e2e/harness.mjs';

export const EVERY_SCOPE = 'memory:read memory:write memory:any-user knowledge:read knowledge:write objects:read ' +
                           'objects:write tenant:read audit:read';
export const PLAIN_SCOPE = 'memory:read memory:write knowledge:read knowledge:write objects:read objects:write tenant:read audit:read';

// mulberry32: random(below) is 0 to below - 1, the same again for the same seed.
export function randomFrom(seed) {
  let state = seed;
  return function random(below) {
    state = (state + 0x6D2B79F5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) % below;
  };
}

const toBase64 = (value) => Buffer.from(value).toString('base64url');

export function tokenParts(token) {
  const [header, payload, signature] = token.split('.');
  return { header, payload, signature };
}

export const claimsOf = (token) =>
  JSON.parse(Buffer.from(tokenParts(token).payload, 'base64url').toString('utf8'));
export const headerOf = (token) =>
  JSON.parse(Buffer.from(tokenParts(token).header, 'base64url').toString('utf8'));

// Another character at one place, of the same alphabet. Not the last one: it may hold unused bits.
function altered(part, at = Math.floor(part.length / 2)) {
  const other = part[at] === 'A' ? 'B' : 'A';
  return part.slice(0, at) + other + part.slice(at + 1);
}

function signed(header, payload, key) {
  const body = `${toBase64(JSON.stringify(header))}.${toBase64(JSON.stringify(payload))}`;
  return `${body}.${toBase64(crypto.sign(null, Buffer.from(body), key))}`;
}

// Every way of not having a token of this tenant, by name. token and foreign verify, each for its own.
export function forgeries(token, foreign, platformKey) {
  const { header, payload, signature } = tokenParts(token);
  const other = tokenParts(foreign);
  const head = headerOf(token), claims = claimsOf(token), theirs = claimsOf(foreign);
  const { privateKey, publicKey } = crypto.generateKeyPairSync('ed25519');
  const jwk = publicKey.export({ format: 'jwk' });
  const hmac = (fields, key) => {
    const body = `${toBase64(JSON.stringify({ ...head, ...fields }))}.${payload}`;
    return `${body}.${crypto.createHmac('sha256', key).update(body).digest('base64url')}`;
  };
  const unsigned = (fields, tail = '') =>
    `${toBase64(JSON.stringify({ ...head, ...fields }))}.${payload}.${tail}`;
  return {
    'the empty token': '',
    'one word': 'token',
    'two parts': `${header}.${payload}`,
    'five parts': `${header}.${payload}.${signature}.${payload}.${signature}`,
    'no signature': `${header}.${payload}.`,
    'a cut signature': `${header}.${payload}.${signature.slice(0, -4)}`,
    'a longer signature': `${header}.${payload}.${signature}AAAA`,
    'a padded signature': `${header}.${payload}.${signature}==`,
    'bytes behind it': `${token}.`,
    'an altered header': `${altered(header)}.${payload}.${signature}`,
    'an altered payload': `${header}.${altered(payload)}.${signature}`,
    'an altered signature': `${header}.${payload}.${altered(signature)}`,
    'an altered first byte of the signature': `${header}.${payload}.${altered(signature, 0)}`,
    'the payload of another tenant': `${header}.${other.payload}.${signature}`,
    'the signature of another tenant': `${header}.${payload}.${other.signature}`,
    'another tenant written in': `${header}.${toBase64(JSON.stringify(
      { ...claims, tenant_id: theirs.tenant_id }))}.${signature}`,
    'a scope written in': `${header}.${toBase64(JSON.stringify(
      { ...claims, scope: EVERY_SCOPE }))}.${signature}`,
    'alg none': unsigned({ alg: 'none' }),
    'alg None': unsigned({ alg: 'None' }, signature),
    'no alg': unsigned({ alg: undefined }, signature),
    'alg HS256 under the public key': hmac({ alg: 'HS256' }, Buffer.from(platformKey, 'base64')),
    'alg HS256 under its text': hmac({ alg: 'HS256' }, platformKey),
    'another key': signed(head, claims, privateKey),
    'another key that it brings along': signed({ ...head, jwk }, claims, privateKey),
    'another key and no kid': signed({ ...head, kid: undefined }, claims, privateKey),
    'another key at a url': signed({ ...head, jku: 'http://127.0.0.1:1/' }, claims, privateKey),
    'a critical extension': signed({ ...head, crit: ['b64'], b64: false }, claims, privateKey),
    'another issuer': signed(head, { ...claims, iss: 'https://issuer.example' }, privateKey),
  };
}

// Parks a cell now. The tenant is active again when this returns.
export async function park(node, name) {
  await node.ok('tenant', 'pause', name);
  await eventually(`${name} parks`, async () => !(await node.tenant(name)).awake);
  const { id } = await node.tenant(name);
  await eventually(`${name} has no cell`, async () => !(await node.cell(id)));
  await node.ok('tenant', 'resume', name);
}

async function pages(node, target, token) {
  const all = [];
  for (let cursor = ''; cursor !== null;) {
    const joint = target.includes('?') ? '&' : '?';
    const page = await node.want(200, 'GET', `${target}${joint}limit=500${cursor}`, { token });
    assert.equal(page.damaged, undefined, 'nothing is damaged');
    all.push(...page.data);
    cursor = page.next_cursor === null ? null : `&cursor=${encodeURIComponent(page.next_cursor)}`;
  }
  return all;
}

// Everything that a tenant can be asked for, with a token that may read every user.
export async function everything(node, token) {
  const memories = await pages(node, '/v1/memories', token);
  const histories = {};
  for (const { id } of memories) histories[id] = await pages(node, `/v1/memories/${id}/history`, token);
  const documents = await pages(node, '/v1/documents', token);
  for (const one of documents)
    one.read = await node.want(200, 'GET', `/v1/documents/${encodeURIComponent(one.id)}`, { token });
  const objects = await pages(node, '/v1/objects', token);
  for (const one of objects) {
    const path = one.key.split('/').map(encodeURIComponent).join('/');
    one.read = (await node.http('GET', `/v1/objects/${path}`, { token })).text;
  }
  return { memories, histories, documents, objects };
}

// The entries of a tenant's log, of a file that verifies; without the header and the checkpoint.
export async function auditOf(node, name) {
  const file = path.join(node.directory, `audit-${name}-${crypto.randomUUID()}`);
  await sleep(200); // entries of reads are durable within 100 ms, and only what is durable is exported
  await node.ok('audit', 'export', name, '-o', file);
  const verified = await bulkhead('audit', 'verify', file);
  assert.equal(verified.code, 0, `the log of ${name}: ${verified.stderr}`);
  const lines = fs.readFileSync(file, 'utf8').trim().split('\n').map((line) => JSON.parse(line));
  fs.rmSync(file);
  return lines.slice(1, -1).map((line) => line.entry);
}

export async function verifyLedger(node) {
  const file = path.join(node.directory, `ledger-${crypto.randomUUID()}`);
  await node.ok('ledger', 'export', '-o', file);
  const verified = await bulkhead('ledger', 'verify', file);
  assert.equal(verified.code, 0, `the ledger: ${verified.stderr}`);
  const lines = fs.readFileSync(file, 'utf8').trim().split('\n').map((line) => JSON.parse(line));
  fs.rmSync(file);
  return lines.slice(1, -1).map((line) => line.entry);
}

// A body without what is new in each answer.
export const withoutTrace = ({ text, body }) =>
  body?.trace_id ? text.replace(body.trace_id, 'TRACE') : text;

// The head of an answer without what is new in each.
export function headWithoutTrace({ headers }) {
  const kept = [...headers].filter(([name]) => name !== 'traceparent' && name !== 'date');
  return JSON.stringify(kept);
}

// All files below a directory, as paths.
export function filesBelow(directory) {
  const found = [];
  for (const entry of fs.readdirSync(directory, { withFileTypes: true })) {
    const inside = path.join(directory, entry.name);
    if (entry.isDirectory()) found.push(...filesBelow(inside));
    else if (entry.isFile()) found.push(inside);
  }
  return found;
}
