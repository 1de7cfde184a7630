"""run.py [engine|front|serving|lifecycle|holdings|vmm]...: measures, prints the table, writes bench/results.json.

BENCH_QUICK=1: a small run that shows that all of it works; its figures mean little and go to bench-quick.json in the
build directory. Of a run of some parts only, those take the place of the same parts in bench/results.json, with their
own date and machine. BENCH_DIR: where data is kept while measuring (default /var/tmp: a disk)."""
import datetime
import json
import os
import platform
import subprocess
import sys
import time

import common
import engine
import front
import holdings
import lifecycle
import peers
import serving
import table
import vmm

PARTS = ('engine', 'front', 'serving', 'lifecycle', 'holdings', 'vmm')


def _sync_times(directory):
    path = os.path.join(directory, 'sync')
    times = []
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    for _ in range(200):
        begin = time.perf_counter()
        os.write(fd, b'x' * 4096)
        os.fdatasync(fd)
        times.append(time.perf_counter() - begin)
    os.close(fd)
    os.unlink(path)
    return common.latencies(times)


def _first(path, name):
    with open(path) as file:
        for line in file:
            if line.startswith(name):
                return line.split(':', 1)[1].strip()
    return 'unknown'


def _machine(directory):
    flags = _first('/proc/cpuinfo', 'flags').split()
    postgres = common.run(f'{peers.PG_BIN}/postgres', '--version').split()[2]
    sqlite = common.run('/usr/bin/sqlite3', '--version').split()[0]
    versions = f'Peers: {_nginx_version()}, PostgreSQL {postgres}, SQLite {sqlite}'
    return {'cpus': os.cpu_count(), 'cpu': _first('/proc/cpuinfo', 'model name'),
            'virtual': 'virtual' if 'hypervisor' in flags else 'bare metal',
            'memory_mib': int(_first('/proc/meminfo', 'MemTotal').split()[0]) // 1024,
            'kernel': platform.release(), 'realtime': os.sched_getscheduler(0) == os.SCHED_RR,
            'versions': versions,
            'filesystem': common.run('df', '--output=fstype', directory).split()[-1],
            'load_before': os.getloadavg()[0], 'sync_4k': {'before': _sync_times(directory)}}


def _nginx_version():
    done = subprocess.run(['/usr/sbin/nginx', '-v'], stderr=subprocess.PIPE, text=True)
    return done.stderr.strip().split(': ')[-1]


def _measure(parts, directory):
    figures = {}
    if 'engine' in parts:
        figures['engine'] = engine.measure()
    if 'front' in parts:
        figures['front'] = front.measure()
    if 'vmm' in parts:
        figures['vmm'] = vmm.measure(directory)
    if {'serving', 'lifecycle', 'holdings'} & set(parts):
        postgres = peers.Postgres(directory)
        try:
            if 'serving' in parts:
                figures['serving'] = serving.measure(postgres)
            if 'lifecycle' in parts:
                figures['lifecycle'] = lifecycle.measure(postgres)
            if 'holdings' in parts:
                figures['holdings'] = holdings.measure(postgres)
        finally:
            postgres.stop()
    return figures


def _write(path, results):
    with open(path, 'w') as file:
        json.dump(results, file, indent=1)
        file.write('\n')


def _merge(path, fresh):
    """What was measured now stands for what was before."""
    with open(path) as file:
        results = json.load(file)
    parts = fresh['runs'][0]['parts']
    results['figures'].update(fresh['figures'])
    for run in results['runs']:
        run['parts'] = [part for part in run['parts'] if part not in parts]
    results['runs'] = [run for run in results['runs'] if run['parts']] + fresh['runs']
    _write(path, results)


def main():
    parts = sys.argv[1:] or PARTS
    unknown = [part for part in parts if part not in PARTS]
    if unknown or os.geteuid() != 0:
        sys.exit(f'run.py: needs root, and knows the parts {", ".join(PARTS)}')
    directory = common.make_directory()
    try:
        run = {'when': datetime.datetime.now(datetime.timezone.utc).strftime('%Y-%m-%d'),
               'parts': [part for part in PARTS if part in parts], 'machine': _machine(directory)}
        figures = _measure(parts, directory)
        run['machine']['sync_4k']['after'] = _sync_times(directory)
        run['machine']['load_after'] = os.getloadavg()[0]
    finally:
        common.remove_directory(directory)
    results = {'runs': [run], 'figures': figures}
    path = os.path.join(common.BUILD, 'bench-quick.json')
    if common.QUICK:
        _write(path, results)
    else:
        path = os.path.join(common.ROOT, 'bench/results.json')
        _merge(path, results)
    print(table.plain(results))
    print()
    print(table.machine(results))
    print(f'all figures: {os.path.relpath(path)}')


main()
