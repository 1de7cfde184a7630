// prove: the assume-breach battery against running nodes, as an operator runs it.
import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { test } from 'node:test';

import { eventually, startNode } from '../e2e/harness.mjs';

const program = path.join(process.env.BULKHEAD_BUILD, 'bulkhead');
const groups = ['system calls', 'files', 'supervisor', 'key service', 'gateway', 'resources'];

// Nothing of the throwaway tenants is left: no name, no silo, no cell.
async function assertTracesGone(node, kept) {
  const names = (await node.json('tenant', 'list')).data.map(({ name }) => name);
  assert.deepEqual(names, kept.map(({ name }) => name), 'the throwaway tenants are erased');
  const silos = fs.readdirSync(path.join(node.data, 'silos'));
  assert.deepEqual(silos.sort(), kept.map(({ id }) => id).sort(), 'and their silos');
  await eventually('no hostile cell is left', async () =>
    (await node.status()).cells.every(({ tenant_id: id }) => kept.some((tenant) => tenant.id === id)));
}

async function pids(node) {
  const { services, supervisor_pid: supervisor } = await node.status();
  return { supervisor, ...Object.fromEntries(services.map(({ name, pid }) => [name, pid])) };
}

test('every attempt is stopped, by the very thing that should stop it', async (t) => {
  const node = await startNode(t, { config: { gateways: 2, idle_seconds: 600 } });
  const bystander = await node.createTenant('bystander');
  const token = await node.token('bystander');
  const memory = await node.want(201, 'POST', '/v1/memories', { token, body: { text: 'kept' } });
  const before = await pids(node);
  const { pid: cell } = await node.cell(bystander.id);

  const { code, stdout, stderr } = await node.cli('prove', '--json');
  const report = JSON.parse(stdout);
  const failed = report.results.filter(({ held, skipped }) => !held && skipped === undefined);
  assert.deepEqual(failed, []);
  assert.equal(report.trouble, undefined);
  assert.equal(report.passed, true);
  assert.equal(code, 0, stderr);

  assert.ok(report.attempts >= 70, `${report.attempts} attempts`);
  assert.equal(report.held, report.attempts);
  assert.equal(report.failed, 0);
  assert.equal(report.results.length, report.attempts + report.not_run);
  assert.deepEqual([...new Set(report.results.map(({ group }) => group))], groups);
  const names = report.results.map(({ group, name }) => `${group}: ${name}`);
  assert.equal(new Set(names).size, names.length, 'each attempt is another');
  const skipped = report.results.filter(({ skipped: why }) => why && !/sanitized build/.test(why));
  if (process.getuid() === 0) assert.deepEqual(skipped, [], 'root can plant all');
  assert.ok(report.neighbour.requests >= 2);
  assert.equal(report.neighbour.answered, report.neighbour.requests);

  assert.deepEqual(await pids(node), before, 'nobody was restarted');
  assert.equal((await node.cell(bystander.id)).pid, cell, 'another tenant stayed awake');
  assert.equal((await node.want(200, 'GET', `/v1/memories/${memory.id}`, { token })).text, 'kept');
  await assertTracesGone(node, [bystander]);
  assert.ok(fs.statSync(node.log).size < 512 * 1024, 'floods do not fill the log');
  for (const line of node.logText().trimEnd().split('\n'))
    assert.doesNotThrow(() => JSON.parse(line), `every line of the log is whole: ${line}`);
});

test('for people it is a table and a sum', async (t) => {
  const node = await startNode(t);
  const { code, stdout } = await node.cli('prove');
  assert.equal(code, 0, stdout);
  assert.match(stdout, /\n(\d{2,}) attempts, \1 held, 0 FAILED[^\n]*\n$/);
  for (const group of groups) assert.match(stdout, new RegExp(`^${group} \\(`, 'm'));
  await assertTracesGone(node, []);
});

test('interrupted, it leaves nothing behind and does not claim success', async (t) => {
  const node = await startNode(t);
  const child = spawn(program, ['prove', '--json', '--data', node.data], { stdio: ['ignore', 'pipe', 'pipe'] });
  let text = '';
  child.stdout.on('data', (piece) => { text += piece; });
  const ended = new Promise((resolve) => child.on('close', (code) => resolve(code)));
  await eventually('the battery has begun', () => node.logText().includes('child.killed'), { every: 5 });
  child.kill('SIGINT');
  assert.equal(await ended, 1);
  const report = JSON.parse(text);
  assert.equal(report.passed, false);
  assert.match(report.trouble, /interrupted/);
  await assertTracesGone(node, []);
  await eventually('it can be run again', async () => (await node.cli('prove')).code === 0,
                   { within: 60000, every: 1000 });
});
