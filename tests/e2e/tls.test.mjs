// TLS as clients and operators meet it: who gets in, what a reload changes, what outlives a gateway.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import https from 'node:https';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import tls from 'node:tls';
import { bulkhead, eventually, freePort, nodeOfSuite, run, sleep } from './harness.mjs';

const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'bulkhead-tls-'));
after(() => fs.rmSync(directory, { recursive: true, force: true }));
const file = (name) => path.join(directory, name);

async function openssl(...words) {
  const { code, stderr, stdout } = await run('openssl', words);
  assert.equal(code, 0, `openssl ${words.join(' ')}: ${stderr}`);
  return stdout;
}

const kinds = { ec: ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256'], rsa: ['rsa:2048'], weak: ['rsa:1024'],
                ed25519: ['ed25519'] };

// NAME.pem and NAME.key, signed by the throwaway CA of this file.
async function issue(name, { kind = 'ec', days = 30 } = {}) {
  const [algorithm, ...options] = kinds[kind];
  await openssl('req', '-new', '-newkey', algorithm, ...options, '-nodes', '-subj', `/CN=${name}`,
                '-keyout', file(`${name}.key`), '-out', file(`${name}.csr`));
  fs.writeFileSync(file('names'), 'subjectAltName=DNS:node.example,DNS:*.node.example,IP:127.0.0.1\n');
  await openssl('x509', '-req', '-in', file(`${name}.csr`), '-CA', file('ca.pem'), '-CAkey', file('ca.key'),
                '-CAcreateserial', '-days', String(days), '-extfile', file('names'), '-out', file(`${name}.pem`));
  fs.chmodSync(file(`${name}.key`), 0o600);
}

function install(name, node) {
  for (const ending of ['pem', 'key']) {
    fs.copyFileSync(file(`${name}.${ending}`), file(`new.${ending}`));
    fs.renameSync(file(`new.${ending}`), file(`node.${ending}`));
  }
  if (node) process.kill(node.pid, 'SIGHUP');
}

before(async () => {
  await openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-subj', '/CN=ca',
                '-keyout', file('ca.key'), '-out', file('ca.pem'), '-days', '30');
  for (const name of ['first', 'second']) await issue(name);
  await issue('third', { kind: 'rsa' });
  await issue('old', { days: -1 });
  install('first');
});

const words = ['--tls-cert', file('node.pem'), '--tls-key', file('node.key')];

describe('TLS', () => {
  const node = nodeOfSuite({ before, after }, { tenants: ['acme'], args: words, config: { gateways: 2 } });
  let token;
  const ca = () => fs.readFileSync(file('ca.pem'));
  before(async () => {
    token = await node.token('acme', 'ada');
  });

  const connect = (options = {}) => new Promise((resolve, reject) => {
    const socket = tls.connect({ host: '127.0.0.1', port: node.port, ca: ca(), servername: 'node.example', ...options },
                               () => resolve(socket));
    socket.on('error', reject);
  });
  const serial = (socket) => socket.getPeerCertificate().subject.CN;
  const serves = async () => {
    const socket = await connect();
    const name = serial(socket);
    socket.destroy();
    return name;
  };
  const curl = (...more) => run('curl', ['-s', '--max-time', '20', '--cacert', file('ca.pem'), '-H',
                                         `authorization: Bearer ${token}`, ...more]);
  // A request over a connection that stays open.
  const ask = (agent, target = '/v1/memories') => new Promise((resolve, reject) => {
    https.get(node.url + target, { agent, ca: ca(), headers: { authorization: `Bearer ${token}` } }, (answer) => {
      answer.resume();
      answer.on('end', () => resolve(answer.statusCode));
    }).on('error', reject);
  });

  test('curl is served over HTTP/2 and HTTP/1.1, by TLS 1.3 and 1.2', async () => {
    for (const [version, expected] of [['--http1.1', '1.1'], ['--http2', '2']])
      for (const limit of ['1.2', '1.3']) {
        const shown = await curl(version, '--tls-max', limit, '-w', '%{http_version} %{http_code}', '-o', '/dev/null',
                                 `${node.url}/v1/memories`);
        assert.equal(shown.stdout, `${expected} 200`, shown.stderr);
      }
    const made = await curl('-X', 'POST', '-H', 'content-type: application/json', '-d', '{"text":"sealed"}',
                            `${node.url}/v1/memories`);
    assert.match(made.stdout, /"id":/);
  });

  test('old versions and old ciphers are refused', async () => {
    for (const version of ['TLSv1', 'TLSv1.1'])
      await assert.rejects(connect({ minVersion: version, maxVersion: version, ciphers: 'ALL:@SECLEVEL=0' }),
                           /alert protocol version/, version);
    for (const ciphers of ['AES256-GCM-SHA384', 'ECDHE-ECDSA-AES128-SHA', 'ECDHE-ECDSA-AES256-SHA384'])
      await assert.rejects(connect({ maxVersion: 'TLSv1.2', ciphers: `${ciphers}:@SECLEVEL=0` }),
                           /alert handshake failure/, ciphers);
    await assert.rejects(connect({ ALPNProtocols: ['h3', 'http/1.0'] }), /alert no application protocol/);
    assert.equal(await serves(), 'first');
  });

  test('renegotiation ends the connection', async () => {
    const socket = await connect({ maxVersion: 'TLSv1.2' });
    socket.removeAllListeners('error');
    const ended = new Promise((resolve) => {
      socket.on('error', resolve);
      socket.on('close', resolve);
    });
    socket.renegotiate({}, () => {});
    await ended;
    const shown = await run('openssl', ['s_client', '-connect', `127.0.0.1:${node.port}`, '-tls1_2', '-CAfile',
                                        file('ca.pem')], { input: 'R\nGET /v1/memories HTTP/1.1\r\nHost: a\r\n\r\n' });
    assert.match(shown.stdout + shown.stderr, /RENEGOTIATING/);
    assert.ok(!shown.stdout.includes('HTTP/1.1'), shown.stdout);
  });

  test('a client that asks for another name, or trusts another CA, goes away', async () => {
    const wrong = await curl('--resolve', `other.example:${node.port}:127.0.0.1`, `https://other.example:${node.port}/`);
    assert.equal(wrong.code, 60, wrong.stderr);
    const right = await curl('--resolve', `a.node.example:${node.port}:127.0.0.1`, '-o', '/dev/null', '-w', '%{http_code}',
                             `https://a.node.example:${node.port}/v1/memories`);
    assert.equal(right.code, 0, right.stderr);
    await assert.rejects(connect({ ca: [fs.readFileSync(file('second.pem'))] }));
    assert.equal(await serves(), 'first');
  });

  test('what is no TLS is cut off, and disturbs nobody', async () => {
    const say = (bytes) => new Promise((resolve) => {
      let answer = Buffer.alloc(0);
      const socket = net.connect(node.port, '127.0.0.1', () => socket.write(bytes));
      socket.on('data', (piece) => { answer = Buffer.concat([answer, piece]); });
      socket.on('error', () => {});
      socket.on('close', () => resolve(answer));
    });
    for (const bytes of ['GET /v1/memories HTTP/1.1\r\nHost: a\r\n\r\n', 'SSH-2.0-OpenSSH_9.2\r\n', Buffer.alloc(64),
                         Buffer.from([0x16, 3, 1, 0, 4, 1, 1, 0xff, 0]), Buffer.from([0x80, 0x2e, 1, 3, 3, 0, 0x15, 0, 0])]) {
      const answer = await say(bytes);
      assert.ok(!answer.includes('HTTP/1.1 2') && !answer.includes('memories'), answer.toString('latin1'));
    }
    assert.equal(await serves(), 'first');
  });

  // TLS 1.3: the ticket comes after the handshake.
  const ticket = async (options) => {
    const socket = await connect(options);
    const session = await new Promise((resolve) => socket.once('session', resolve));
    socket.destroy();
    return session;
  };
  const resumed = async (session, count) => {
    let reused = 0;
    for (let i = 0; i < count; i++) {
      const socket = await connect({ session });
      reused += socket.isSessionReused();
      socket.destroy();
    }
    return reused;
  };

  test('a session is resumed at every gateway, and outlives one of them', async () => {
    const session = await ticket();
    assert.equal(await resumed(session, 16), 16, 'whichever gateway the kernel chose');
    const victim = await node.service('gateway-0');
    await node.kill(victim.pid);
    await eventually('the gateway is back', async () => {
      const now = await node.service('gateway-0');
      return now.state === 'serving' && now.pid !== victim.pid;
    });
    assert.equal(await resumed(session, 16), 16);
  });

  test('SIGHUP: new connections get the new certificate, open ones live on', async () => {
    const agent = new https.Agent({ keepAlive: true, maxSockets: 1, ca: ca() });
    assert.equal(await ask(agent), 200);
    const [open] = Object.values(agent.freeSockets)[0];
    const session = await ticket();
    install('second', node);
    await eventually('the new certificate is served', async () => {
      for (let i = 0; i < 8; i++) if ((await serves()) !== 'second') return false;
      return true;
    });
    assert.equal(await ask(agent), 200);
    assert.equal(Object.values(agent.freeSockets)[0][0], open, 'the same connection');
    assert.equal(serial(open), 'first');
    agent.destroy();
    assert.equal(await resumed(session, 4), 4, 'the ticket key before still opens');
    const fingerprint = (await openssl('x509', '-in', file('second.pem'), '-noout', '-fingerprint', '-sha256'))
      .split('=')[1].replaceAll(':', '').trim().toLowerCase();
    assert.ok(node.logText().includes(`certificate of SHA-256 ${fingerprint}`));
    assert.ok((await node.status()).tls.includes(fingerprint));
    install('third', node); // RSA; and the ticket key is gone
    await eventually('the third is served', async () => (await serves()) === 'third');
    assert.equal(await resumed(session, 4), 0);
  });

  test('SIGHUP with files that do not fit: the old certificate stays, also in a gateway that starts anew', async () => {
    const serving = await serves();
    const refusals = () => node.logText().split('"tls.refused"').length - 1;
    const breakages = [
      () => fs.copyFileSync(file('first.key'), file('node.key')),
      () => fs.writeFileSync(file('node.pem'), 'no certificate'),
      () => fs.rmSync(file('node.pem')),
      () => fs.chmodSync(file('node.key'), 0o644),
    ];
    for (const damage of breakages) {
      install(serving);
      const before_ = refusals();
      damage();
      process.kill(node.pid, 'SIGHUP');
      await eventually('it is logged', () => refusals() > before_);
      assert.equal(await serves(), serving);
    }
    const victim = await node.service('gateway-1');
    await node.kill(victim.pid);
    await eventually('the gateway is back', async () => {
      const now = await node.service('gateway-1');
      return now.state === 'serving' && now.pid !== victim.pid;
    });
    for (let i = 0; i < 8; i++) assert.equal(await serves(), serving);
    install('first', node);
    await eventually('mended', async () => (await serves()) === 'first');
  });

  test('requests go on while certificates are reloaded again and again', async () => {
    let done = false;
    const asked = { count: 0 };
    const clients = Array.from({ length: 4 }, async () => {
      while (!done) {
        assert.equal(await ask(new https.Agent({ ca: ca() })), 200);
        asked.count++;
      }
    });
    for (let i = 0; i < 20; i++) {
      install(i % 2 ? 'first' : 'second', node);
      await sleep(20);
    }
    done = true;
    await Promise.all(clients);
    assert.ok(asked.count > 4);
    await eventually('the last one is served', async () => (await serves()) === 'first');
  });

  test('an expired certificate serves, and is said to be expired', async () => {
    install('old', node);
    await eventually('it is logged', () => node.logText().includes('"tls.expired"'));
    await assert.rejects(connect(), /expired/);
    install('first', node);
    await eventually('mended', async () => (await serves()) === 'first');
  });

  test('the private key is in no line of the log', () => {
    const secret = fs.readFileSync(file('first.key'), 'utf8').split('\n')[1];
    assert.ok(!node.logText().includes(secret.slice(0, 20)));
  });
});

describe('TLS at the start', () => {
  const start = async (pattern, certificate, key) => {
    const data = fs.mkdtempSync(path.join(directory, 'start-'));
    fs.chmodSync(data, 0o755);
    const { code, stdout, stderr } = await bulkhead(
      'serve', '--data', path.join(data, 'data'), '--listen', `127.0.0.1:${await freePort()}`, '--ops',
      `127.0.0.1:${await freePort()}`, '--tls-cert', file(certificate), '--tls-key', file(key));
    assert.equal(code, 1, stdout + stderr);
    assert.equal(stdout, '', 'never announced');
    const said = stderr.split('\n').filter((line) => line.startsWith('bulkhead serve: '));
    assert.equal(said.length, 1, stderr);
    assert.match(said[0], pattern);
  };

  test('a key of another certificate', () => start(/--tls-key .*second\.key: key: it is not the key/, 'first.pem', 'second.key'));
  test('an encrypted key', async () => {
    await openssl('pkcs8', '-topk8', '-in', file('first.key'), '-out', file('sealed.key'), '-passout', 'pass:x');
    fs.chmodSync(file('sealed.key'), 0o600);
    await start(/--tls-key .*sealed\.key: key: it is encrypted/, 'first.pem', 'sealed.key');
  });
  test('a key that all may read', async () => {
    fs.copyFileSync(file('first.key'), file('open.key'));
    fs.chmodSync(file('open.key'), 0o644);
    await start(/--tls-key .*open\.key: open to everybody/, 'first.pem', 'open.key');
  });
  test('a weak key', async () => {
    await issue('weak', { kind: 'weak' });
    await start(/--tls-key .*weak\.key: key: RSA of 1024 bits/, 'weak.pem', 'weak.key');
  });
  test('a file that holds no certificate', () => start(/--tls-cert .*first\.key: certificate: no cert/, 'first.key', 'first.key'));
  test('a file that is none', () => start(/--tls-cert .*nothing\.pem: No such file/, 'nothing.pem', 'first.key'));
});
