"""front.py: the front door: TLS handshakes, and governed reads over TLS by HTTP/1.1 and HTTP/2, beside nginx
with the same certificate: nginx alone with a static answer, and nginx ending TLS before a Bulkhead without."""
import os
import re
import subprocess
import tempfile

from common import (QUICK, make_directory, median, over_rounds, quantile,
                    remove_directory, run, say)
from node import Node
from peers import NginxTls

ROUNDS = 1 if QUICK else 5
SECONDS = 1 if QUICK else 3
REQUESTS = 2000 if QUICK else 20000
CLIENTS = 2  # openssl s_time uses one core each


def make_certificate(directory):
    certificate, key = (os.path.join(directory, name) for name in ('tls.crt', 'tls.key'))
    run('openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
        '-keyout', key, '-out', certificate, '-days', '2', '-subj', '/CN=localhost',
        '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1')
    os.chmod(key, 0o600)
    return certificate, key


def _handshakes(port, version, kind):
    """New connections a second: each a handshake, one request, the answer, the end."""
    words = ['openssl', 's_time', '-connect', f'127.0.0.1:{port}', version, kind, '-www', '/v1/tenant',
             '-time', str(SECONDS)]
    clients = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
               for _ in range(CLIENTS)]
    total = 0.0
    for client in clients:
        text = client.communicate()[0]
        found = re.findall(r'^(\d+) connections in (\d+) real seconds', text, re.MULTILINE)
        if client.returncode != 0 or not found:
            raise RuntimeError(f'{" ".join(words)}: {text[-500:]}')
        total += int(found[-1][0]) / max(int(found[-1][1]), 1)
    return {'per_second': round(total, 1)}


def handshakes(ports):
    found = {}
    for name, version, kind in (('tls13_new', '-tls1_3', '-new'), ('tls13_resumed', '-tls1_3', '-reuse'),
                                ('tls12_new', '-tls1_2', '-new'), ('tls12_resumed', '-tls1_2', '-reuse')):
        rounds = {side: [] for side in ports}
        for _ in range(ROUNDS):
            for side, port in ports.items():
                rounds[side].append(_handshakes(port, version, kind))
        found[name] = {side: over_rounds(r) for side, r in rounds.items()}
        say(f'handshakes, {name}: done')
    return found


def _requests(port, target, token, words):
    with tempfile.NamedTemporaryFile(suffix='.h2load') as log:
        text = run('h2load', *words, '-n', str(REQUESTS), '--log-file', log.name, '-H',
                   f'Authorization: Bearer {token}', f'https://localhost:{port}{target}')
        if f'{REQUESTS} succeeded' not in text:
            raise RuntimeError(text)
        seconds = re.search(r'finished in ([\d.]+)(m?s)', text)
        rows = [line.split() for line in log.read().decode().splitlines()]
    if any(row[1] != '200' for row in rows):
        raise RuntimeError('an answer was not 200')
    times = [int(row[2]) for row in rows]
    took = float(seconds[1]) / (1000 if seconds[2] == 'ms' else 1)
    return {'per_second': round(REQUESTS / took, 1), 'p50_us': median(times),
            'p99_us': quantile(times, .99)}


def requests(sides, target, token):
    found = {}
    for name, words in (('http1_1', ['--h1', '-c', '1']), ('http1_64', ['--h1', '-c', '64']),
                        ('http2_1', ['-c', '1', '-m', '1']), ('http2_8x8', ['-c', '8', '-m', '8'])):
        rounds = {side: [] for side in sides}
        for _ in range(ROUNDS):
            for side, port in sides.items():
                rounds[side].append(_requests(port, target, token, words))
        found[name] = {side: over_rounds(r) for side, r in rounds.items()}
        say(f'reads over TLS, {name}: done')
    return found


def measure():
    directory = make_directory()
    started = []
    try:
        certificate, key = make_certificate(directory)
        node = Node(directory, {'idle_seconds': 3600, 'tls_cert': certificate, 'tls_key': key})
        started.append(node)
        plain_directory = os.path.join(directory, 'plain')
        os.mkdir(plain_directory)
        os.chmod(plain_directory, 0o755)
        plain = Node(plain_directory, {'idle_seconds': 3600})
        started.append(plain)
        token, target = {}, {}
        for name, one in (('bulkhead', node), ('plain', plain)):
            one.create('acme')
            token[name] = one.token('acme')
            target[name] = '/v1/memories/' + one.fill(token[name], 1)[0]
        body = plain.get(target['plain'], token['plain'])
        nginx = NginxTls(directory, body, certificate, key, plain.port)
        started.append(nginx)
        shakes = handshakes({'bulkhead': node.port, 'nginx': nginx.static_port})
        found = requests({'bulkhead': node.port, 'nginx_static': nginx.static_port},
                         target['bulkhead'], token['bulkhead'])
        behind = requests({'nginx_before_bulkhead': nginx.proxy_port}, target['plain'], token['plain'])
        for name, figures in behind.items():
            found[name].update(figures)
        return {'handshakes': shakes, 'read': found}
    finally:
        for one in reversed(started):
            one.stop()
        remove_directory(directory)
