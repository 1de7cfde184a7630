#!/usr/bin/env python3
"""profile.py [SECONDS]: where the time of a request goes. Runs a node, loads it with reads and writes at 1
and 64 connections, and prints for each, of the gateways and one cell: samples by process and library,
the functions on the stack (perf, by processor clock: works in virtual machines too), and the system calls
(strace). As root, after `make` and bench/run.sh. Keeps the recordings, for `perf report -i`."""
import os
import signal
import subprocess
import sys
import time

sys.dont_write_bytecode = True
os.environ['BENCH_QUICK'] = '1'
import common  # noqa: E402
import serving  # noqa: E402


def lines(text, count):
    kept = [line.rstrip() for line in text.split('\n') if line.strip() and line[0] != '#']
    return '\n'.join(kept[:count])


def report(recording, *words):
    return subprocess.run(['perf', 'report', '-i', recording, '-g', 'none', *words],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout


def sample(kept, name, pids, port, connections, status, requests, seconds):
    recording = os.path.join(kept, f'{name}.perf')
    recorder = subprocess.Popen(
        ['perf', 'record', '-q', '-e', 'cpu-clock', '-F', '2000', '--call-graph', 'dwarf,8192', '-o',
         recording, '-p', ','.join(map(str, pids)), '--', 'sleep', str(seconds)],
        stderr=subprocess.DEVNULL)
    answer = common.load(port, connections, seconds + .5, status, requests)
    recorder.wait()
    print(f'\n== {name}: {answer["per_second"]:.0f} a second while recorded ({recording})')
    print(lines(report(recording, '--no-children', '--sort', 'comm,dso'), 12))
    for comm in ('bulkhead-gatewa', 'bulkhead-cell'):
        print(f'-- {comm}: with what it calls; itself')
        print(lines(report(recording, '--children', '--comm', comm, '--sort', 'symbol'), 50))


def calls(kept, name, pid, port, status, requests):
    path = os.path.join(kept, f'{name}.strace')
    tracer = subprocess.Popen(['strace', '-c', '-o', path, '-p', str(pid)],
                              stderr=subprocess.DEVNULL)
    time.sleep(.5)
    common.load(port, 1, 2, status, requests)
    tracer.send_signal(signal.SIGINT)
    tracer.wait()
    with open(path) as file:
        print(f'\n== system calls of {name} at 1 connection\n{file.read()}')


def main():
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 2
    kept = common.make_directory()
    data = common.make_directory()
    tenants = serving.Tenants(data)
    node = tenants.node
    try:
        gateways = [service['pid'] for service in node.status()['services']
                    if service['name'].startswith('gateway')]
        cell = node.cells()[node.call('tenant.show', name='tenant-0')['id']]['pid']
        sorts = (('read', 200, tenants.get_one), ('write', 201, tenants.post_one))
        for name, status, requests in sorts:
            for connections in (1, 64):
                sample(kept, f'{name}-{connections}', gateways + [cell], node.port, connections,
                       status, requests, seconds)
        for name, status, requests in sorts:
            calls(kept, f'{name}, cell', cell, node.port, status, requests)
            for i, gateway in enumerate(gateways):
                calls(kept, f'{name}, gateway {i}', gateway, node.port, status, requests)
    finally:
        node.stop()
        common.remove_directory(data)
    print(f'recordings: {kept}')


main()
