"""serving.py: requests: governed reads beside nginx, durable writes beside PostgreSQL, denials."""
from common import (QUICK, load, make_directory, memory, over_rounds, remove_directory, request_bytes,
                    say, sentence, write_requests)
from node import Client, Node
from peers import Nginx

CONNECTIONS = (1, 8, 64)
ROUNDS = 1 if QUICK else 5
SECONDS = .6 if QUICK else 2
WRITE_ROUNDS = 1 if QUICK else 3
WRITE_SECONDS = 1 if QUICK else 3
MEMORIES = 200 if QUICK else 1000
TENANTS = 8


class Tenants:
    """A node with tenants that hold memories, and the files of requests for them."""

    def __init__(self, directory):
        self.node = Node(directory, {'idle_seconds': 3600})
        gets, denied, posts = [], [], []
        for t in range(TENANTS):
            name = f'tenant-{t}'
            self.node.create(name)
            token, blind = self.node.token(name), self.node.token(name, scope='tenant:read')
            ids = self.node.fill(token, MEMORIES)
            gets.append([request_bytes('GET', f'/v1/memories/{one}', token) for one in ids])
            posts.append([request_bytes('POST', '/v1/memories', token, memory(i))
                          for i in range(MEMORIES)])
            denied.append(request_bytes('GET', f'/v1/memories/{ids[0]}', blind))
        client = Client(self.node.port)
        self.body = client.ask(gets[0][0])
        client.close()
        mixed = [one for group in zip(*gets) for one in group]
        mixed_posts = [one for group in zip(*posts) for one in group]
        self.get_one = write_requests(directory, gets[0])
        self.get_all = write_requests(directory, mixed)
        self.post_one = write_requests(directory, posts[0])
        self.post_all = write_requests(directory, mixed_posts)
        self.denied = write_requests(directory, denied)


def _flat(answer):
    return {name: answer[name] for name in ('per_second', 'p50_us', 'p99_us', 'p999_us')}


def reads(tenants, nginx):
    sides = {'nginx_direct': (nginx.upstream_port, tenants.get_one),
             'nginx_proxy': (nginx.proxy_port, tenants.get_one),
             'bulkhead': (tenants.node.port, tenants.get_one),
             'bulkhead_8_tenants': (tenants.node.port, tenants.get_all)}
    found = {}
    for connections in CONNECTIONS:
        rounds = {side: [] for side in sides}
        added = {side: [] for side in ('nginx_proxy', 'bulkhead')}
        for _ in range(ROUNDS):
            for side, (port, path) in sides.items():
                rounds[side].append(_flat(load(port, connections, SECONDS, 200, path)))
            for side, list_ in added.items():
                direct = rounds['nginx_direct'][-1]
                list_.append({name: round(rounds[side][-1][name] - direct[name], 2)
                              for name in ('p50_us', 'p99_us')})
        found[str(connections)] = {side: over_rounds(r) for side, r in rounds.items()}
        for side, list_ in added.items():
            found[str(connections)][side + '_added'] = over_rounds(list_)
        say(f'reads at {connections} connections: done')
    return found


RATE = 1000


def reads_at_a_rate(tenants, nginx):
    """Requests that come whether or not the last one was answered: stalls count for all they delay."""
    sides = {'nginx_proxy': (nginx.proxy_port, tenants.get_one),
             'bulkhead': (tenants.node.port, tenants.get_one),
             'bulkhead_8_tenants': (tenants.node.port, tenants.get_all)}
    rounds = {side: [] for side in sides}
    for _ in range(ROUNDS):
        for side, (port, path) in sides.items():
            rounds[side].append(_flat(load(port, 32, SECONDS, 200, path, RATE)))
    say(f'reads, {RATE} a second: done')
    return {'rate': RATE, **{side: over_rounds(r) for side, r in rounds.items()}}


TENANT = '6b0e4a3c-7d51-4a0e-9b52-0c6f5a1d2e3f'


def _insert_script(with_audit):
    audit = f"""INSERT INTO audit (tenant_id, entry) VALUES ('{TENANT}', jsonb_build_object('action',
 'memory.create', 'user', 'ada', 'time', now(), 'outcome', 'success', 'n', cast(:n AS int)));
""" if with_audit else ''
    return f"""\\set n random(1, 1000)
\\startpipeline
BEGIN;
SET LOCAL app.tenant = '{TENANT}';
INSERT INTO memories (tenant_id, user_id, session_id, kind, classification, metadata, text)
 SELECT '{TENANT}', 'ada', 's' || (n % 50), 1, 1, jsonb_build_object('source', 'bench', 'n', n), text
 FROM corpus WHERE n = cast(:n AS int) RETURNING id, created_at;
{audit}COMMIT;
\\endpipeline
"""


def make_corpus(postgres):
    """The texts that the writers store: pgbench has no variables of text."""
    values = ','.join(f"({i}, '{sentence(i)}')" for i in range(1, 1001))
    postgres.sql('CREATE TABLE corpus (n int PRIMARY KEY, text text NOT NULL);'
                 f'INSERT INTO corpus VALUES {values}; GRANT SELECT ON corpus TO app; ANALYZE corpus;')


def writes(tenants, postgres):
    node = tenants.node
    found = {}
    for connections in CONNECTIONS:
        sides = {
            'bulkhead': lambda: _flat(load(node.port, connections, WRITE_SECONDS, 201,
                                           tenants.post_one)),
            'bulkhead_8_tenants': lambda: _flat(load(node.port, connections, WRITE_SECONDS, 201,
                                                     tenants.post_all)),
            'postgres': lambda: postgres.bench(_insert_script(False), connections, WRITE_SECONDS),
            'postgres_with_audit_row': lambda: postgres.bench(_insert_script(True), connections,
                                                              WRITE_SECONDS)}
        rounds = {side: [] for side in sides}
        for _ in range(WRITE_ROUNDS):
            for side, measure in sides.items():
                rounds[side].append(measure())
        found[str(connections)] = {side: over_rounds(r) for side, r in rounds.items()}
        say(f'writes at {connections} connections: done')
    return found


def denials(tenants):
    """Requests of a caller without the scope: decided by the gateway, no cell is asked."""
    rounds = [_flat(load(tenants.node.port, 64, SECONDS, 403, tenants.denied))
              for _ in range(ROUNDS)]
    return over_rounds(rounds)


def measure(postgres):
    directory = make_directory()
    tenants = nginx = None
    try:
        tenants = Tenants(directory)
        say(f'{TENANTS} tenants with {MEMORIES} memories each')
        make_corpus(postgres)
        nginx = Nginx(directory, tenants.body)
        return {'read': reads(tenants, nginx), 'read_at_a_rate': reads_at_a_rate(tenants, nginx),
                'denial': {'64': denials(tenants)}, 'write': writes(tenants, postgres),
                'answer_bytes': len(tenants.body)}
    finally:
        if nginx:
            nginx.stop()
        if tenants:
            tenants.node.stop()
        remove_directory(directory)
