// Ten thousand clients that do nothing: each costs little, and a client that does something is served beside
// them. Fewer where this process may not have so many descriptors.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import net from 'node:net';
import { after, before, describe, test } from 'node:test';
import { descendants, nodeOfSuite } from './harness.mjs';

const WANTED = 10000;
const BYTES_EACH = 32 * 1024; // of a gateway's memory, at most
const preface = Buffer.concat([Buffer.from('PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n'),
                               Buffer.from([0, 0, 0, 4, 0, 0, 0, 0, 0]), Buffer.from([0, 0, 0, 4, 1, 0, 0, 0, 0])]);

function descriptors() {
  const [, soft] = fs.readFileSync('/proc/self/limits', 'latin1').match(/Max open files\s+(\d+)/);
  return Number(soft);
}

function gateways(node) {
  return descendants(node.pid).filter(({ pid }) => {
    try {
      return fs.readFileSync(`/proc/${pid}/comm`, 'latin1').startsWith('bulkhead-gatew');
    } catch {
      return false;
    }
  });
}

function residentBytes(processes) {
  return processes.reduce((sum, { pid }) => {
    const [, kib] = fs.readFileSync(`/proc/${pid}/status`, 'latin1').match(/VmRSS:\s+(\d+) kB/);
    return sum + Number(kib) * 1024;
  }, 0);
}

// One after another, a few at a time: the backlog is not what is measured.
async function dial(port, count, hello) {
  const sockets = [];
  const one = () => new Promise((resolve, reject) => {
    const socket = net.connect(port, '127.0.0.1', () => {
      if (!hello) { resolve(); return; }
      socket.write(hello);
      socket.once('data', () => resolve());
    });
    socket.on('error', reject);
    sockets.push(socket);
  });
  for (let left = count; left > 0; left -= 100)
    await Promise.all(Array.from({ length: Math.min(100, left) }, one));
  return sockets;
}

for (const [name, hello] of [['HTTP/1.1', undefined], ['HTTP/2', preface]])
  describe(`idle connections of ${name}`, () => {
    const node = nodeOfSuite({ before, after }, { config: { connections_per_address: 0 }, tenants: ['acme'] });
    test('cost little, and others are served beside them', async (t) => {
      const count = Math.min(WANTED, descriptors() - 500);
      const token = await node.token('acme');
      await node.want(200, 'GET', '/v1/memories', { token });
      const processes = gateways(node);
      assert.ok(processes.length > 0);
      const before_ = residentBytes(processes);
      const sockets = await dial(Number(new URL(node.url).port), count, hello);
      let closed = 0;
      for (const socket of sockets) socket.on('close', () => closed++);
      const each = (residentBytes(processes) - before_) / count;
      t.diagnostic(`${count} connections, ${Math.round(each)} bytes each`);
      assert.ok(each < BYTES_EACH, `${each} bytes each`);
      await node.want(200, 'GET', '/v1/memories', { token });
      assert.equal(closed, 0, 'all are still there');
      for (const socket of sockets) socket.destroy();
    });
  });
