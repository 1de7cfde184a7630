// The command line: what it refuses, how it says so, and when `serve` will not start.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { build, bulkhead, freePort, Node, nodeOfSuite, run } from './harness.mjs';

describe('commands', () => {
  const node = nodeOfSuite({ before, after }, { tenants: ['acme'] });

  for (const words of [[], ['frobnicate'], ['tenant'], ['tenant', 'create'], ['tenant', 'adopt', 'acme'],
                       ['tenant', 'show', 'acme', 'surplus'], ['tenant', 'list', '--color'], ['token'],
                       ['token', 'acme'], ['token', 'acme', '--user'], ['token', 'acme', '--user', 'a', '--ttl', 'soon'],
                       ['tenant', 'create', 'a', '--retention', 'x'], ['tenant', 'update'],
                       ['tenant', 'update', 'acme', '--quota', 'x'], ['tenant', 'update', 'acme', '--token-lifetime', 'x'],
                       ['tenant', 'update', 'acme', '--require-clearance', '--no-require-clearance'],
                       ['token', 'acme', '--platform', '--user', 'a'], ['issuer'], ['issuer', 'add', 'acme'],
                       ['issuer', 'list'], ['issuer', 'list', 'acme', '--platform'], ['issuer', 'remove', 'acme'],
                       ['revoke'], ['revoke', 'acme'], ['revoke', 'acme', '--user', 'a', '--jti', 'b'], ['revoke', 'list'],
                       ['route'], ['route', 'add', 'acme', 'host'], ['route', 'remove', 'host'],
                       ['audit'], ['audit', 'export'],
                       ['audit', 'verify'], ['receipt', 'verify'], ['ledger'], ['status', 'surplus'], ['--bogus']])
    test(`usage, exit 2: bulkhead ${words.join(' ')}`, async () => {
      const { code, stdout, stderr } = await node.cli(...words);
      assert.equal(code, 2, stdout + stderr);
      assert.match(stderr, /^bulkhead: [^\n]+\n$/);
      assert.equal(stdout, '');
    });

  test('help and version are there without a node', async () => {
    const help = await bulkhead('help');
    assert.equal(help.code, 0);
    for (const word of ['serve', 'tenant', 'token', 'issuer', 'revoke', 'route', 'audit', 'receipt',
                        'ledger', 'status', 'prove'])
      assert.match(help.stdout, new RegExp(`bulkhead ${word}`));
    assert.match((await bulkhead('version')).stdout, /^\d+\.\d+\.\d+\n$/);
  });

  test('BULKHEAD_DATA says where, --data anywhere on the line wins', async () => {
    const env = { ...process.env, BULKHEAD_DATA: node.data };
    const program = path.join(build, 'bulkhead');
    const named = await run(program, ['tenant', 'show', 'acme', '--json'], { env });
    assert.equal(JSON.parse(named.stdout).name, 'acme');
    const first = await run(program, ['--data', node.data, 'tenant', 'show', 'acme', '--json'],
                            { env: { ...env, BULKHEAD_DATA: '/nonexistent' } });
    assert.equal(first.code, 0, first.stderr);
  });

  test('without a node every command says so and fails', async () => {
    for (const words of [['status'], ['tenant', 'list'], ['token', 'a', '--user', 'b'], ['platform-key']]) {
      const { code, stderr } = await bulkhead(...words, '--data', path.join(node.directory, 'nobody'));
      assert.equal(code, 1);
      assert.match(stderr, /nobody serves/);
    }
  });

  test('only root and the owner of the data may speak to it', async (t) => {
    if (process.getuid() !== 0) return t.skip('needs root, to become somebody else');
    const { code, stderr } = await run('setpriv',
      ['--reuid', '65534', '--regid', '65534', '--clear-groups', path.join(build, 'bulkhead'), 'status',
       '--data', node.data]);
    assert.equal(code, 1, stderr);
  });

  const serve = async (...words) => {
    const other = new Node();
    try {
      const port = await freePort(), ops = await freePort();
      return await run(path.join(build, 'bulkhead'),
        ['serve', ...(words.includes('--data') ? [] : ['--data', other.data]), '--listen', `127.0.0.1:${port}`, '--ops', `127.0.0.1:${ops}`, ...words],
        { timeout: 15000 });
    } finally {
      await other.destroy();
    }
  };
  const refusedStart = async (pattern, ...words) => {
    const { code, stdout, stderr } = await serve(...words);
    assert.ok(code === 1 || code === 2, `started? ${stdout}`);
    assert.equal(stdout, '');
    assert.match(stderr, pattern);
  };

  test('serve refuses an address beyond this machine without TLS or a proxy', () =>
    refusedStart(/--behind-proxy/, '--listen', '0.0.0.0:7117'));
  test('serve refuses a certificate that is not there, or has no key', async () => {
    await refusedStart(/--tls-cert \/nonexistent/, '--tls-cert', '/nonexistent', '--tls-key', '/nonexistent');
    await refusedStart(/one without the other/, '--tls-cert', '/nonexistent');
  });
  test('serve refuses operations beyond this machine', () => refusedStart(/--ops/, '--ops', '0.0.0.0:7118'));
  test('serve refuses addresses that are none', () => refusedStart(/--listen/, '--listen', 'localhost'));
  test('serve refuses unknown options', () => refusedStart(/option/, '--frobnicate'));
  test('serve refuses a configuration that is not there', () =>
    refusedStart(/--config/, '--config', '/nonexistent'));

  test('serve refuses unknown and impossible settings', async () => {
    const file = path.join(node.directory, 'bad.json');
    for (const [text, pattern] of [['{"idle": 3}', /idle/], ['{"idle_seconds": 0}', /idle_seconds/],
                                   ['{', /--config/], ['{"gateways": 1000}', /gateways/]]) {
      fs.writeFileSync(file, text);
      await refusedStart(pattern, '--config', file);
    }
  });

  test('serve refuses keys inside the data', async () => {
    const other = path.join(node.directory, 'other');
    for (const keys of [other, `${other}/keys`, `${other}/./keys`, `${other}/x/../keys`]) {
      const { code, stderr } = await run(path.join(build, 'bulkhead'),
        ['serve', '--data', other, '--keys', keys, '--listen', `127.0.0.1:${await freePort()}`,
         '--ops', `127.0.0.1:${await freePort()}`], { timeout: 15000 });
      assert.ok(code === 1 || code === 2);
      assert.match(stderr, /--keys/);
    }
  });

  test('serve refuses a port that is taken and data that are served already', async () => {
    await refusedStart(new RegExp(`127.0.0.1:${node.port}`), '--listen', `127.0.0.1:${node.port}`);
    const { code, stderr } = await serve('--data', node.data);
    assert.equal(code, 1);
    assert.match(stderr, /serves this data directory already/);
    await node.ok('status');
  });

  test('what cannot be done is refused, not ignored', async () => {
    await node.refused('tenant', 'update', 'nobody', '--retention', '5');
    assert.match(await node.refused('tenant', 'create', 'b', '--quota', 'colour=5'), /requests_per_second/);
    assert.match(await node.refused('tenant', 'create', 'b', '--quota', 'bytes_stored=-1'), /bytes_stored/);
    assert.match(await node.refused('issuer', 'add', 'acme', '--iss', 'https://a.example', '--jwks',
                                    'https://a.example/keys'), /dials out/);
  });
});
