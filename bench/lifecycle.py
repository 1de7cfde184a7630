"""lifecycle.py: what a tenant costs: to create, to wake, to keep awake, to keep parked, to erase."""
import os
import sqlite3
import time

from common import (QUICK, disk_bytes, latencies, make_directory, median, private_kib,
                    remove_directory, request_bytes, say, sentence)
from node import Client, Node
from peers import Postgres

LARGE = 1000 if QUICK else 10000
WAKES = 60 if QUICK else 1000
COLD_WAKES = 10 if QUICK else 100
WAKE_TENANTS = 2 if QUICK else 4
AWAKE = 10 if QUICK else 50
ERASED = 10 if QUICK else 50
ERASED_LARGE = 2 if QUICK else 10
TENANT = '6b0e4a3c-7d51-4a0e-9b52-0c6f5a1d2e3f'


def _drop_cache(directory):
    """The files leave the page cache, so that they must come from the disk."""
    for place, _, names in os.walk(directory):
        for name in names:
            fd = os.open(os.path.join(place, name), os.O_RDONLY)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(fd)


def _timed(action):
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


class Sleeper:
    """A tenant with many memories that is parked and woken again."""

    def __init__(self, node, name):
        self.node, self.name = node, name
        self.id = node.create(name)
        token = node.token(name)
        ids = node.fill(token, LARGE)
        self.request = request_bytes('GET', f'/v1/memories/{ids[len(ids) // 2]}', token)

    def park(self):
        self.node.park(self.name, self.id)
        self.node.call('tenant.resume', name=self.name)

    def wake(self, client):
        return _timed(lambda: client.ask(self.request))


def _await_blanks(node):
    while node.status()['blanks_ready'] < 4:
        time.sleep(.005)


def wakes(node):
    sleepers = [Sleeper(node, f'sleeper-{i}') for i in range(WAKE_TENANTS)]
    say(f'{WAKE_TENANTS} tenants with {LARGE} memories each')
    client = Client(node.port)
    warm, burst, cold, parks = [], [], [], []
    for i in range(WAKES):
        sleeper = sleepers[i % len(sleepers)]
        parks.append(_timed(sleeper.park))
        _await_blanks(node)
        warm.append(sleeper.wake(client))
    for i in range(COLD_WAKES):
        sleeper = sleepers[i % len(sleepers)]
        sleeper.park()
        burst.append(sleeper.wake(client))
    for i in range(COLD_WAKES):
        sleeper = sleepers[i % len(sleepers)]
        sleeper.park()
        _drop_cache(node.silo(sleeper.id))
        _await_blanks(node)
        cold.append(sleeper.wake(client))
    awake = [sleeper.wake(client) for sleeper in sleepers * 25]
    sleepers[0].park()
    running = sleepers[0].id in node.cells()
    client.close()
    say(f'{WAKES} wakes: done')
    return {'memories': LARGE, 'warm': latencies(warm), 'without_waiting_for_blanks': latencies(burst),
            'files_not_cached': latencies(cold), 'park_and_resume': latencies(parks),
            'already_awake': latencies(awake), 'processes_of_a_parked_tenant': int(running),
            'disk_bytes': disk_bytes(node.silo(sleepers[0].id))}


def _plain_sqlite(path, rows):
    """The same tables in plain SQLite."""
    db = sqlite3.connect(path)
    db.executescript('''PRAGMA journal_mode = WAL;
CREATE TABLE memories (n INTEGER PRIMARY KEY, id TEXT NOT NULL, user_id TEXT, session_id TEXT,
  agent_id TEXT, kind INTEGER, classification INTEGER, version INTEGER, created_at INTEGER,
  updated_at INTEGER, expires_at INTEGER, metadata TEXT, text TEXT);
CREATE UNIQUE INDEX memories_by_id ON memories (id);
CREATE INDEX memories_by_user ON memories (user_id, id);
CREATE INDEX memories_by_session ON memories (user_id, session_id, id);
CREATE VIRTUAL TABLE words USING fts5(text, content='');''')
    for n in range(rows):
        text = sentence(n)
        db.execute('INSERT INTO memories VALUES (?, ?, ?, ?, NULL, 1, 1, 1, 0, 0, NULL, ?, ?)',
                   (n + 1, f'{n:026d}', 'ada', f's{n % 50}', '{"source":"bench"}', text))
        db.execute('INSERT INTO words (rowid, text) VALUES (?, ?)', (n + 1, text))
    db.commit()
    db.execute('PRAGMA wal_checkpoint(TRUNCATE)')
    db.close()
    return disk_bytes(path)


def sqlite_starts(directory):
    """The nearest thing without a server: start the sqlite3 program, open, read one row, end."""
    path = os.path.join(directory, 'plain.db')
    _plain_sqlite(path, LARGE)
    nothing = os.open(os.devnull, os.O_WRONLY)
    words = ['/usr/bin/sqlite3', path, f"SELECT * FROM memories WHERE id = '{LARGE // 2:026d}'"]

    def start():
        pid = os.posix_spawn(words[0], words, {}, file_actions=[(os.POSIX_SPAWN_DUP2, nothing, 1)])
        if os.waitpid(pid, 0)[1] != 0:
            raise RuntimeError('sqlite3 failed')
    times = [_timed(start) for _ in range(WAKES // 4)]
    os.close(nothing)
    return latencies(times)


def postgres_starts(postgres):
    """The nearest thing with a server: connect (which forks a backend), name the tenant, read one row.
    The server's caches are warm and stay in memory, which a parked tenant's do not."""
    values = ','.join(f"('{TENANT}','ada',1,1,'{sentence(n)}')" for n in range(LARGE))
    postgres.sql('TRUNCATE memories; INSERT INTO memories (tenant_id, user_id, kind, classification, text)'
                 f' VALUES {values}; ANALYZE memories;')
    one = postgres.sql(f'SELECT id FROM memories OFFSET {LARGE // 2} LIMIT 1')

    def start():
        backend = postgres.backend()
        if backend.query(f"BEGIN; SET LOCAL app.tenant = '{TENANT}'; SELECT * FROM memories "
                         f"WHERE tenant_id = '{TENANT}' AND id = '{one}'; COMMIT") != 1:
            raise RuntimeError('the row is missing')
        return backend
    times = []
    for _ in range(WAKES):
        begin = time.perf_counter()
        backend = start()
        times.append(time.perf_counter() - begin)
        backend.close()
    return latencies(times), start


def _spread(values):
    return {'median_kib': median(values), 'max_kib': max(values)}


def awake_cells(node):
    client = Client(node.port)
    ids = []
    for i in range(AWAKE):
        ids.append(node.create(f'awake-{i}'))
        token = node.token(f'awake-{i}')
        items = node.fill(token, 20, 4)
        client.ask(request_bytes('GET', f'/v1/memories/{items[0]}', token))
        client.ask(request_bytes('POST', '/v1/memories/search', token,
                                 {'query': sentence(3, 2), 'limit': 5}))
    time.sleep(3)  # an idle cell gives its caches back
    cells = node.cells()
    mine = [cells[one] for one in ids]
    measured = [private_kib(cell['pid']) for cell in mine]
    client.close()
    node.fill(token, LARGE // 2)
    time.sleep(3)
    written = private_kib(mine[-1]['pid'])[0]
    services = {service['name']: private_kib(service['pid'])[0]
                for service in node.status()['services']}
    return {'cells': AWAKE, 'private': _spread([private for private, _ in measured]),
            'resident': _spread([resident for _, resident in measured]),
            'private_as_status_says': _spread([cell['jail']['private_kib'] for cell in mine]),
            'after_writes': {'writes': LARGE // 2, 'private_kib': written},
            'services_private_kib': services}


def postgres_backends(start):
    backends = [start() for _ in range(AWAKE)]
    measured = [private_kib(backend.pid) for backend in backends]
    for backend in backends:
        backend.close()
    return {'backends': AWAKE, 'private': _spread([private for private, _ in measured]),
            'resident': _spread([resident for _, resident in measured])}


def disk(node, postgres, directory):
    count = 20
    keys_before = disk_bytes(node.keys)
    ids = [node.create(f'empty-{i}') for i in range(count)]
    empty = [disk_bytes(node.silo(one)) for one in ids]
    keys = (disk_bytes(node.keys) - keys_before) / count
    for i in range(count):
        node.fill(node.token(f'empty-{i}'), 1)
        node.park(f'empty-{i}', ids[i])
    used = [disk_bytes(node.silo(one)) for one in ids]
    size = 'SELECT pg_database_size(current_database())'
    postgres.sql('CHECKPOINT')
    before = int(postgres.sql(size))
    for i in range(count):
        _make_schema(postgres, f'empty_{i}', 0)
    postgres.sql('CHECKPOINT')
    schema = (int(postgres.sql(size)) - before) / count
    return {'bulkhead_empty_silo_bytes': median(empty), 'bulkhead_empty_keys_bytes': round(keys),
            'bulkhead_one_memory_parked_bytes': median(used),
            'sqlite_empty_bytes': _plain_sqlite(os.path.join(directory, 'empty.db'), 0),
            'postgres_schema_bytes': round(schema)}


def _make_schema(postgres, name, rows):
    text = f'CREATE SCHEMA {name}; SET search_path TO {name};' + Postgres.SCHEMA.format(s='')
    if rows:
        values = ','.join(f"('{TENANT}','ada',1,1,'{sentence(n)}')" for n in range(rows))
        text += f'INSERT INTO memories (tenant_id, user_id, kind, classification, text) VALUES {values};'
    postgres.sql(text)


def _erase_series(node, postgres, count, rows, prefix):
    """Ours and the peer's in turns: what is asked of the disk disturbs both alike."""
    calls, drops = [], []
    admin = postgres.backend('postgres')
    for i in range(count):
        name = f'{prefix}-{i}'
        tenant_id = node.create(name)
        node.fill(node.token(name), rows)
        node.park(name, tenant_id)
        _make_schema(postgres, name.replace('-', '_'), rows)
        calls.append(_timed(lambda: node.call('tenant.erase', name=name)))

        def drop():
            admin.query(f'DROP SCHEMA {name.replace("-", "_")} CASCADE')
            admin.query('CHECKPOINT')
        drops.append(_timed(drop))
    admin.close()
    return latencies(calls), latencies(drops)


def erasures(node, postgres):
    small, small_drops = _erase_series(node, postgres, ERASED, 100, 'small')
    say(f'{ERASED} tenants erased')
    large, large_drops = _erase_series(node, postgres, ERASED_LARGE, LARGE, 'large')
    say(f'{ERASED_LARGE} tenants of {LARGE} memories erased')
    commands, awake = [], []
    for i in range(ERASED // 2):
        tenant_id = node.create(f'command-{i}')
        node.fill(node.token(f'command-{i}'), 100)
        node.park(f'command-{i}', tenant_id)
        commands.append(_timed(lambda: node.cli('tenant', 'erase', f'command-{i}')))
        node.create(f'busy-{i}')
        node.fill(node.token(f'busy-{i}'), 100)
        awake.append(_timed(lambda: node.call('tenant.erase', name=f'busy-{i}')))
    return {'memories_100': small, 'memories_large': large, 'large': LARGE,
            'awake_100': latencies(awake), 'command_line_100': latencies(commands),
            'postgres_drop_schema_100': small_drops, 'postgres_drop_schema_large': large_drops}


def control_calls(node):
    count = 20 if QUICK else 200
    creates = [_timed(lambda i=i: node.create(f'made-{i}')) for i in range(count)]
    mints = [_timed(lambda: node.token('made-0')) for _ in range(count)]
    return {'create': latencies(creates), 'mint': latencies(mints)}


def measure(postgres):
    directory = make_directory()
    node = None
    try:
        node = Node(directory, {'idle_seconds': 3600})
        found = {'wake': wakes(node)}
        found['wake']['sqlite_process'] = sqlite_starts(directory)
        found['wake']['postgres_connection'], start = postgres_starts(postgres)
        say('wakes of the peers: done')
        found['memory'] = awake_cells(node)
        found['memory']['postgres'] = postgres_backends(start)
        found['disk'] = disk(node, postgres, directory)
        say('memory and disk: done')
        found['erase'] = erasures(node, postgres)
        found['control'] = control_calls(node)
        return found
    finally:
        if node:
            node.stop()
        remove_directory(directory)
