// `tenant check`: a silo in use is read and verified whole; what is damaged is named.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import path from 'node:path';
import { after, before, describe, test } from 'node:test';
import { nodeOfSuite } from './harness.mjs';

const PAGE = 4096;

describe('check', () => {
  const node = nodeOfSuite({ before, after }, { config: { idle_seconds: 1 } });
  const tokens = {};
  const silo = (name, file) => path.join(node.data, 'silos', node.tenants[name].id, file);

  async function verdict(name) {
    const { code, stdout } = await node.cli('tenant', 'check', name, '--json');
    return { code, ...JSON.parse(stdout) };
  }

  test('a sound silo is well, all of it', async () => {
    for (const name of ['acme', 'globex']) {
      node.tenants[name] = await node.createBusyTenant(name);
      tokens[name] = await node.token(name);
      for (let i = 0; i < 60; i++)
        await node.want(201, 'POST', '/v1/memories', { token: tokens[name], body: { text: `memory ${i} of ${'x'.repeat(6000)}` } });
    }
    const { code, name, report } = await verdict('acme');
    assert.equal(code, 0);
    assert.equal(name, 'acme');
    assert.ok(report.ok && report.root_ok && report.length_ok && report.checkpoint_ok);
    assert.equal(report.damaged, 0);
    assert.ok(report.pages >= 2 && report.tables > 5 && report.indexes >= 1, JSON.stringify(report));
    assert.ok(report.entries >= 60);
  });

  test('it answers requests meanwhile', async () => {
    const checks = [verdict('acme'), verdict('globex')];
    await node.want(201, 'POST', '/v1/memories', { token: tokens.acme, body: { text: 'meanwhile' } });
    for (const { code } of await Promise.all(checks)) assert.equal(code, 0);
    assert.match(await node.ok('tenant', 'check', 'acme'), /^acme: all is well \(\d+ pages, .* s\)\n$/);
  });

  test('a flipped bit in a page is found, and the page named', async () => {
    await node.awaitParked('globex');
    const file = silo('globex', 'silo.db');
    const bytes = fs.readFileSync(file);
    const pages = bytes.length / PAGE;
    const flip = (page) => {
      bytes[(page - 1) * PAGE + 100] ^= 1;
      fs.writeFileSync(file, bytes);
    };
    let page = Math.floor(pages / 2), code, report;
    for (let tries = 0; tries < 8; tries++, page++) { // some pages no cell wakes without
      flip(page);
      const answer = await node.cli('tenant', 'check', 'globex', '--json');
      if (answer.stdout) {
        ({ code, report } = { code: answer.code, ...JSON.parse(answer.stdout) });
        break;
      }
      flip(page);
    }
    assert.equal(code, 1);
    assert.equal(report.ok, false);
    assert.deepEqual(report.damaged_pages, [page]);
    assert.equal(report.pages, pages, 'the rest was read as well');
    const { code: again, stdout, stderr } = await node.cli('tenant', 'check', 'globex');
    assert.equal(again, 1);
    assert.match(stdout, new RegExp(`damaged pages: ${page}\\b`));
    assert.match(stderr, /^bulkhead: globex: the silo is damaged\n$/);
  });

  test('--all goes on behind a damaged one', async () => {
    const { code, stdout } = await node.cli('tenant', 'check', '--all', '--json');
    assert.equal(code, 1);
    const reports = Object.fromEntries(stdout.trim().split('\n').map((line) => JSON.parse(line)).map(({ name, report }) => [name, report.ok]));
    assert.deepEqual(reports, { acme: true, globex: false });
  });

  test('a check is in the tenant\'s own log', async () => {
    const file = path.join(node.directory, 'audit');
    await node.ok('audit', 'export', 'acme', '-o', file);
    assert.match(fs.readFileSync(file, 'utf8'), /silo\.check/);
  });

  test('who does not exist is not checked', async () => {
    assert.match(await node.refused('tenant', 'check', 'nobody'), /no tenant/);
  });
});
