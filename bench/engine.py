"""engine.py: the parts below a cell, each beside itself without what makes it safe."""
import json
import os

from common import BUILD, QUICK, make_directory, over_rounds, remove_directory, run, say

ENTRIES = 20000 if QUICK else 200000
ROUNDS = 1 if QUICK else 3
BATCHES = (1000, 64)


def _program(name, *words):
    return json.loads(run(os.path.join(BUILD, 'bench', name), *words))


def sealing(directory):
    return _program('bench-seal', directory, '2' if QUICK else '9')


def audit(directory):
    found = {}
    for batch in BATCHES:
        entries = str(ENTRIES if batch == 1000 else ENTRIES // 5 // batch * batch)
        ours, plain = [], []
        for _ in range(ROUNDS):
            ours.append(_program('bench-audit', directory, entries, str(batch)))
            plain.append(_program('bench-plain-log', directory, entries, str(batch)))
        found[f'batch_{batch}'] = {'bulkhead': over_rounds(ours), 'plain_sqlite': over_rounds(plain)}
    return found


def measure():
    directory = make_directory()
    try:
        found = {'sealing': sealing(directory)}
        say('sealing: done')
        found['audit'] = audit(directory)
        say('audit log: done')
        return found
    finally:
        remove_directory(directory)
