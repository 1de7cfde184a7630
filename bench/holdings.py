"""holdings.py: what a tenant holds: documents and their search beside PostgreSQL's full-text search with
row-level security, objects beside nginx and beside plain AES-GCM files, backups, checks, erasure."""
import http.client
import json
import math
import os
import random
import re
import shutil
import subprocess
import time

import corpus
from common import (BUILD, QUICK, latencies, make_directory, over_rounds, remove_directory, request_bytes,
                    run, say)
from node import Client, Node
from peers import NginxDav

SCOPE = 'memory:read memory:write knowledge:read knowledge:write objects:read objects:write audit:read tenant:read'
TENANT = '6b0e4a3c-7d51-4a0e-9b52-0c6f5a1d2e3f'
OBJECT_BYTES = (64 if QUICK else 2048) << 20
STORED = 4 if QUICK else 16  # objects of 64 MiB: 1 GiB
ROUNDS = 1 if QUICK else 2
TITLES = 20 if QUICK else 200  # of each corpus
STOP = set('the of and a to in for is on with by an as at from or be are it that this'.split())


def _seconds(action):
    begin = time.perf_counter()
    value = action()
    return value, time.perf_counter() - begin


# ---- documents ----

SCHEMA = '''
CREATE TABLE documents (tenant_id uuid NOT NULL, id text NOT NULL, title text, body text NOT NULL,
  words tsvector GENERATED ALWAYS AS (setweight(to_tsvector('english', coalesce(title, '')), 'A') ||
                                      to_tsvector('english', body)) STORED, PRIMARY KEY (tenant_id, id));
CREATE INDEX ON documents USING gin (words);
'''


def _quoted(text):
    return "'" + text.replace("'", "''") + "'"


def _batch(node, token, documents):
    """All of them by POST /v1/documents/batch; seconds."""
    lines = b''.join(json.dumps(one).encode() + b'\n' for one in documents)

    def send():
        connection = http.client.HTTPConnection('127.0.0.1', node.port, timeout=600)
        connection.request('POST', '/v1/documents/batch', lines, {
            'Authorization': f'Bearer {token}', 'Content-Type': 'application/x-ndjson'})
        answer = connection.getresponse()
        results = [json.loads(line) for line in answer.read().splitlines()]
        connection.close()
        if answer.status != 200 or any(one['status'] != 201 for one in results) \
                or len(results) != len(documents):
            raise RuntimeError(f'batch: {answer.status}: {results[:3]}')
    return _seconds(send)[1]


def _insert(postgres, documents, at_once=100):
    """The same into PostgreSQL, so many rows a durable transaction, over one connection; seconds."""
    backend = postgres.backend()
    statements = []
    for at in range(0, len(documents), at_once):
        rows = ','.join(f"('{TENANT}',{_quoted(one['id'])},{_quoted(one.get('title') or '')},"
                        f"{_quoted(one['text'])})" for one in documents[at:at + at_once])
        statements.append(f"BEGIN; SET LOCAL app.tenant = '{TENANT}';"
                          f'INSERT INTO documents (tenant_id, id, title, body) VALUES {rows}; COMMIT')

    def send():
        for one in statements:
            backend.query(one)
    took = _seconds(send)[1]
    backend.close()
    return took


def _ingest(node, postgres, documents):
    size = sum(len(one['text'].encode()) for one in documents)
    rounds = {'bulkhead': [], 'postgres': []}
    for i in range(ROUNDS):
        node.create(f'ingest-{i}')
        took = _batch(node, node.token(f'ingest-{i}', SCOPE), documents)
        rounds['bulkhead'].append({'per_second': len(documents) / took, 'mb_per_second': size / took / 1e6})
        postgres.sql('TRUNCATE documents')
        took = _insert(postgres, documents)
        rounds['postgres'].append({'per_second': len(documents) / took, 'mb_per_second': size / took / 1e6})
    say('ingest: done')
    return {'documents': len(documents), 'bytes': size,
            **{side: over_rounds(r) for side, r in rounds.items()}}


def _words(text):
    found = [word for word in re.findall(r'[^\W_]+', text.lower()) if word not in STOP]
    return list(dict.fromkeys(found))[:32]


def _ask_bulkhead(client, token, text, limit):
    body = {'query': text[:1000], 'limit': limit}
    begin = time.perf_counter()
    answer = client.ask(request_bytes('POST', '/v1/search', token, body))
    took = time.perf_counter() - begin
    return [hit['document_id'] for hit in json.loads(answer)['data']], took


def _ask_postgres(backend, text, limit):
    query = ' | '.join(word for word in _words(text)) or 'nothing'
    begin = time.perf_counter()
    rows = backend.rows(f"BEGIN; SET LOCAL app.tenant = '{TENANT}'; SELECT id FROM documents, "
                        f"to_tsquery('english', {_quoted(query)}) q WHERE words @@ q "
                        f'ORDER BY ts_rank(words, q, 1) DESC, id LIMIT {limit}; COMMIT')
    return rows, time.perf_counter() - begin


def _gains(found, wanted):
    """(nDCG@10, recall@10) of one query: `found` pages in order, `wanted` the right ones."""
    first = list(dict.fromkeys(found))[:10]
    gain = sum(1 / math.log2(i + 2) for i, one in enumerate(first) if one in wanted)
    best = sum(1 / math.log2(i + 2) for i in range(min(10, len(wanted))))
    return gain / best, sum(one in wanted for one in first) / min(10, len(wanted))


def _mean(values):
    return sum(values) / len(values)


def _ask_all(ask, pages):
    """Titles of pages as queries: {"ndcg_10", "recall_10"} and the times."""
    wanted = {}
    for page in pages:
        wanted.setdefault(page['title'], set()).add(page['id'])
    titles = sorted(wanted)
    random.Random(1).shuffle(titles)
    gains, times = [], []
    for title in titles[:TITLES]:
        found, took = ask(title)
        gains.append(_gains(found, wanted[title]))
        times.append(took)
    return {'queries': len(gains), 'ndcg_10': round(_mean([gain for gain, _ in gains]), 4),
            'recall_10': round(_mean([recall for _, recall in gains]), 4)}, times


def _quality(node, postgres, corpora):
    """Title -> page, the titles given to the index or withheld from it."""
    client, backend = node.client(), postgres.backend()
    found, times = {}, {'bulkhead': [], 'postgres': []}
    for withheld in (False, True):
        for name, pages in corpora.items():
            tenant = f'{name}-{"plain" if withheld else "titled"}'
            given = [{key: one[key] for key in one if key != 'title'} for one in pages] if withheld else pages
            node.create(tenant)
            token = node.token(tenant, SCOPE)
            _batch(node, token, given)
            postgres.sql('TRUNCATE documents')
            _insert(postgres, given)
            postgres.sql('ANALYZE documents')
            sides = {'bulkhead': lambda title: _ask_bulkhead(client, token, title, 50),
                     'postgres': lambda title: _ask_postgres(backend, title, 10)}
            for side, ask in sides.items():
                figures, took = _ask_all(ask, pages)
                found.setdefault('title_withheld' if withheld else 'title_given', {}) \
                     .setdefault(name, {})[side] = figures
                times[side] += took
    client.close()
    backend.close()
    say('search quality: done')
    return found, {side: latencies(took) for side, took in times.items()}


def _search_speed(node, postgres, documents):
    """All corpora in one tenant; the ten best of a question."""
    node.create('library')
    token = node.token('library', SCOPE)
    _batch(node, token, documents)
    postgres.sql('TRUNCATE documents')
    _insert(postgres, documents)
    postgres.sql('VACUUM ANALYZE documents')
    client, backend = node.client(), postgres.backend()
    questions = [one['title'] for one in random.Random(2).sample(documents, min(len(documents), 500))]
    sides = {'bulkhead': [], 'postgres': []}
    for question in questions:  # in turns
        sides['bulkhead'].append(_ask_bulkhead(client, token, question, 10)[1])
        sides['postgres'].append(_ask_postgres(backend, question, 10)[1])
    client.close()
    backend.close()
    say('search speed: done')
    return {side: latencies(took) for side, took in sides.items()}


def knowledge(node, postgres):
    corpora = corpus.load()
    everything = [{**one, 'id': f'{name}/{one["id"]}'.replace('/', '~')}
                  for name, pages in corpora.items() for one in pages]
    postgres.sql(SCHEMA + postgres.POLICY.format(t='documents'))
    found = {'ingest': _ingest(node, postgres, everything),
             'search': _search_speed(node, postgres, everything)}
    found['quality'], found['quality_times'] = _quality(node, postgres, corpora)
    return found


# ---- objects ----

class Bytes:
    """So many bytes as a file to send, without a disk: one random block over and over."""

    BLOCK = os.urandom(1 << 20)

    def __init__(self, length):
        self.left = length

    def read(self, size):
        size = min(size, self.left, len(self.BLOCK))
        self.left -= size
        return self.BLOCK[:size] if size else b''


def _put(port, target, length, headers, status):
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=600, blocksize=1 << 20)
    connection.request('PUT', target, Bytes(length), {'Content-Length': str(length), **headers})
    answer = connection.getresponse()
    text = answer.read()
    connection.close()
    if answer.status not in status:
        raise RuntimeError(f'PUT {target}: {answer.status}: {text[:300]}')


def _get(port, target, length, headers):
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=600)
    connection.request('GET', target, headers=headers)
    answer = connection.getresponse()
    buffer, got = bytearray(1 << 20), 0
    while True:
        count = answer.readinto(buffer)
        if not count:
            break
        got += count
    connection.close()
    if answer.status != 200 or got != length:
        raise RuntimeError(f'GET {target}: {answer.status}, {got} bytes')


def _first_byte(port, target, headers):
    """A range of one byte in the middle."""
    connection = http.client.HTTPConnection('127.0.0.1', port, timeout=60)
    times = []
    for i in range(20 if QUICK else 200):
        at = (i * 7919 << 16) % OBJECT_BYTES
        begin = time.perf_counter()
        connection.request('GET', target, headers={**headers, 'Range': f'bytes={at}-{at}'})
        answer = connection.getresponse()
        body = answer.read()
        times.append(time.perf_counter() - begin)
        if answer.status != 206 or len(body) != 1:
            raise RuntimeError(f'range: {answer.status}')
    connection.close()
    return latencies(times)


def _rate(action):
    return {'mb_per_second': round(OBJECT_BYTES / 1e6 / _seconds(action)[1], 1)}


def objects(node, directory):
    node.create('objects')
    auth = {'Authorization': f'Bearer {node.token("objects", SCOPE)}'}
    typed = {**auth, 'Content-Type': 'application/octet-stream'}
    nginx = NginxDav(directory)
    rounds = {'put': {'bulkhead': [], 'nginx': []}, 'get': {'bulkhead': [], 'nginx': []}}
    try:
        for _ in range(ROUNDS):
            rounds['put']['bulkhead'].append(_rate(
                lambda: _put(node.port, '/v1/objects/big', OBJECT_BYTES, typed, (200, 201))))
            rounds['put']['nginx'].append(_rate(
                lambda: _put(nginx.port, '/big', OBJECT_BYTES, {}, (201, 204))))
            rounds['get']['bulkhead'].append(_rate(
                lambda: _get(node.port, '/v1/objects/big', OBJECT_BYTES, auth)))
            rounds['get']['nginx'].append(_rate(lambda: _get(nginx.port, '/big', OBJECT_BYTES, {})))
        ranges = {'bulkhead': _first_byte(node.port, '/v1/objects/big', auth),
                  'nginx': _first_byte(nginx.port, '/big', {})}
    finally:
        nginx.stop()
    node.call('tenant.erase', name='objects')
    blob = json.loads(run(os.path.join(BUILD, 'bench/bench-blob'), directory,
                          str(OBJECT_BYTES >> 20), str(ROUNDS)))
    say('objects: done')
    return {'bytes': OBJECT_BYTES, 'range': ranges, 'engine': blob,
            **{way: {side: over_rounds(r) for side, r in sides.items()} for way, sides in rounds.items()}}


# ---- care ----

def _fill_gigabyte(node, name, documents):
    tenant_id = node.create(name)
    token = node.token(name, SCOPE)
    typed = {'Authorization': f'Bearer {token}', 'Content-Type': 'application/octet-stream'}
    for i in range(STORED):
        _put(node.port, f'/v1/objects/part-{i}', 64 << 20, typed, (201,))
    _batch(node, token, documents)
    return tenant_id, token


def _megabytes(path):
    return sum(os.path.getsize(os.path.join(place, name))
               for place, _, names in os.walk(path) for name in names) / 1e6


def _copy(source, target):
    shutil.copytree(source, target)
    run('sync', '-f', target)


def care(node, directory, documents):
    tenant_id, token = _fill_gigabyte(node, 'kept', documents)
    target = os.path.join(directory, 'backups')
    os.makedirs(target)
    silo = node.silo(tenant_id)
    size = _megabytes(silo)
    _, full = _seconds(lambda: node.cli('tenant', 'backup', 'kept', '--to', target))
    _, copied = _seconds(lambda: _copy(silo, os.path.join(directory, 'copy')))
    shutil.rmtree(os.path.join(directory, 'copy'))
    _batch(node, token, [{**one, 'id': f'more-{i}'} for i, one in enumerate(documents[:50])])
    before = _megabytes(target)
    _, next_ = _seconds(lambda: node.cli('tenant', 'backup', 'kept', '--to', target))
    grown = _megabytes(target) - before
    _, checked = _seconds(lambda: node.cli('tenant', 'check', 'kept'))
    _, restored = _seconds(lambda: node.cli('tenant', 'restore', 'kept', '--from', target))
    say('backup, check, restore: done')
    erased, removed = [], []
    for i in range(ROUNDS):
        name = f'heavy-{i}'
        silo_id, _ = _fill_gigabyte(node, name, documents[:50])
        _copy(node.silo(silo_id), os.path.join(directory, 'copy'))
        erased.append(_seconds(lambda: node.call('tenant.erase', name=name))[1])
        removed.append(_seconds(lambda: run('rm', '-r', os.path.join(directory, 'copy')))[1])
    say('erasures of a gigabyte: done')
    return {'stored_mb': round(size), 'backup_mb_per_second': round(size / full, 1),
            'copy_mb_per_second': round(size / copied, 1),
            'incremental': {'seconds': round(next_, 3), 'mb': round(grown, 2)},
            'check_mb_per_second': round(size / checked, 1),
            'restore_mb_per_second': round(size / restored, 1),
            'erase_1_gb': latencies(erased), 'rm_1_gb': latencies(removed)}


def proofs(directory):
    entries = '50000' if QUICK else '1000000'
    return json.loads(run(os.path.join(BUILD, 'bench/bench-audit'), directory, entries, '1000'))


def measure(postgres):
    directory = make_directory()
    node = None
    try:
        node = Node(directory, {'idle_seconds': 3600})
        documents = [one for pages in corpus.load().values() for one in pages]
        distinct = list({one['id']: one for one in documents}.values())
        return {'knowledge': knowledge(node, postgres), 'objects': objects(node, directory),
                'care': care(node, directory, distinct), 'audit_large': proofs(directory)}
    finally:
        if node:
            node.stop()
        remove_directory(directory)
