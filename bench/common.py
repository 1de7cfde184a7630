"""common.py: what every measurement shares: where things are, statistics, the load generator."""
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BUILD = os.path.abspath(os.environ.get('BULKHEAD_BUILD', os.path.join(ROOT, 'build')))
QUICK = os.environ.get('BENCH_QUICK', '') not in ('', '0')

# Everything durable of every side lies below one directory, so on one disk.
_base = os.environ.get('BENCH_DIR', '/var/tmp')


def make_directory():
    directory = tempfile.mkdtemp(prefix='bulkhead-bench-', dir=_base)
    os.chmod(directory, 0o755)  # cells and PostgreSQL reach theirs under other uids
    return directory


def remove_directory(directory):
    shutil.rmtree(directory, ignore_errors=True)


def say(text):
    print(f'[{time.monotonic() - _began:6.1f} s] {text}', file=sys.stderr, flush=True)


_began = time.monotonic()


def quantile(values, part):
    ordered = sorted(values)
    return ordered[int((len(ordered) - 1) * part)]


def median(values):
    return quantile(values, .5)


def latencies(seconds):
    """Of a list of durations in seconds: what the tables show, in milliseconds."""
    return {'count': len(seconds), 'p50_ms': round(quantile(seconds, .5) * 1e3, 3),
            'p99_ms': round(quantile(seconds, .99) * 1e3, 3),
            'max_ms': round(max(seconds) * 1e3, 3)}


def over_rounds(rounds):
    """Several rounds of the same numbers: the median, and the spread as [least, greatest]."""
    merged = {}
    for name in rounds[0]:
        values = [one[name] for one in rounds]
        merged[name] = median(values)
        if len(values) > 1 and min(values) != max(values):
            merged[name + '_spread'] = [min(values), max(values)]
    return merged


def run(*words, **options):
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if done.returncode != 0:
        raise RuntimeError(f'{" ".join(words)}: exit {done.returncode}: {done.stdout}{done.stderr}')
    return done.stdout


def request_bytes(method, target, token=None, body=None):
    lines = [f'{method} {target} HTTP/1.1', 'Host: bench']
    if token:
        lines.append(f'Authorization: Bearer {token}')
    payload = b''
    if body is not None:
        payload = json.dumps(body).encode()
        lines += ['Content-Type: application/json', f'Content-Length: {len(payload)}']
    return '\r\n'.join(lines).encode() + b'\r\n\r\n' + payload


def write_requests(directory, requests):
    """The file that bench-load reads."""
    fd, path = tempfile.mkstemp(dir=directory, suffix='.requests')
    with os.fdopen(fd, 'wb') as file:
        for one in requests:
            file.write(b'%d\n' % len(one) + one)
    return path


def load(port, connections, seconds, status, path, *rate):
    return json.loads(run(os.path.join(BUILD, 'bench/bench-load'), str(port), str(connections),
                          str(seconds), str(status), path, *map(str, rate)))


# Text as agents keep it: some 200 bytes of words whose frequencies fall as in a language.
_words = [''.join(random.Random(i).choices('aeioubcdfglmnprst', k=3 + i % 7)) for i in range(4000)]
_weights = [1 / (i + 1) for i in range(4000)]


def sentence(seed, words=32):
    return ' '.join(random.Random(seed).choices(_words, _weights, k=words))


def memory(seed, user='ada'):
    return {'text': sentence(seed), 'kind': 'fact', 'user_id': user, 'session_id': f's{seed % 50}',
            'metadata': {'source': 'bench', 'n': seed}}


def disk_bytes(path):
    return int(run('du', '-s', '-B1', path).split()[0])


def private_kib(pid):
    """(private, resident): what would be free if this process ended, but for memory that it shares on
    purpose (PostgreSQL's buffers); and all that it has mapped in."""
    private = resident = 0
    shared = False
    with open(f'/proc/{pid}/smaps') as file:
        for line in file:
            words = line.split()
            if not words[0].endswith(':'):
                shared = words[1].endswith('s')
            elif words[0] == 'Rss:':
                resident += int(words[1])
            elif words[0] in ('Private_Clean:', 'Private_Dirty:') and not shared:
                private += int(words[1])
    return private, resident


def free_port():
    import socket
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]
