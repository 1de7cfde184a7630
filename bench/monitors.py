"""monitors.py: monitors started a second, natively, with a guest of a few instructions (tests/guests/tiny.c), which any
KVM runs: alone, from the start of the process over the guest's first instructions to the end of the last process;
beside QEMU's microvm machine with the same guest; and whole sandboxes through `bulkhead sandbox run`."""
import concurrent.futures
import json
import os
import subprocess
import time

import common
import node

QEMU = '/usr/bin/qemu-system-x86_64'
GUEST = f'{common.BUILD}/tests/guests/tiny_guest'
AT_ONCE = (1, 2, 8)
PATIENCE_S = 120


def why_not():
    """Why this machine cannot; empty: it can."""
    if not os.access('/dev/kvm', os.R_OK | os.W_OK):
        return 'no /dev/kvm'
    return '' if os.path.exists(GUEST) else 'no guest for this processor'


def _start(count, jobs, *words):
    """Fails, with the program's own words, when one of the monitors does not end as it should."""
    return json.loads(common.run(f'{common.BUILD}/bench/bench-vmm-start', str(count), str(jobs), *words,
                                 timeout=PATIENCE_S))


def _commands(directory):
    initramfs = os.path.join(directory, 'initramfs')
    with open(initramfs, 'w') as file:
        file.write('triple\n')
    boot = [f'{common.BUILD}/bench/bench-vmm-boot', '--kernel', GUEST, '--initramfs', initramfs,
            '--memory', '128', '--disk', '256', '--vsock']
    machine = 'microvm,accel=kvm,pit=off,pic=off,rtc=on,isa-serial=off,x-option-roms=off'
    qemu = [QEMU, *f'-bios qboot.rom -M {machine} -cpu host -m 128 -smp 1 -nodefaults -no-user-config -display none '
                   '-no-reboot'.split(), '-kernel', GUEST, '-initrd', initramfs]
    return {'jailed': ['jailed', f'{common.BUILD}/bulkhead-vmm', GUEST], 'unjailed': ['any', '3', *boot],
            'qemu': ['any', '0', *qemu]}


def started(directory):
    """By turns; {side: {jobs: figures}}."""
    count, rounds = (8, 1) if common.QUICK else (40, 3)
    commands = _commands(directory)
    taken = {side: {jobs: [] for jobs in AT_ONCE} for side in commands}
    for _ in range(rounds):
        for jobs in AT_ONCE:
            for side, words in commands.items():
                taken[side][jobs].append(_start(count, jobs, *words))
    return {side: {str(jobs): common.over_rounds(figures) for jobs, figures in by_jobs.items()}
            for side, by_jobs in taken.items()}


# ---- whole sandboxes ----

def _make_image(data):
    image = os.path.join(data, 'images/base')
    os.makedirs(image)
    with open(GUEST, 'rb') as file:
        guest = file.read()
    for name, content in (('vmlinux', guest), ('initramfs', b'tiny\n'), ('root.erofs', bytes(65536)),
                          ('scratch.img', bytes(65536))):
        with open(os.path.join(image, name), 'wb') as file:
            file.write(content)


def _run_one(data):
    begun = time.perf_counter()
    done = subprocess.run([f'{common.BUILD}/bulkhead', 'sandbox', 'run', '--data', data, '--tier', 'microvm', '--',
                           'echo', 'here'], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          text=True, timeout=PATIENCE_S)
    if done.returncode != 0 or done.stdout != 'here\n':
        raise RuntimeError(f'sandbox run: exit {done.returncode}: {done.stdout}{done.stderr}')
    return time.perf_counter() - begun


def _run_many(data, count, jobs):
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        begun = time.perf_counter()
        times = list(pool.map(_run_one, [data] * count))
        return {'per_second': round(count / (time.perf_counter() - begun), 1), **common.latencies(times)}


def _await_tier(served):
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        tiers = {tier['tier']: tier for tier in served.status()['sandboxes']['tiers']}
        if tiers['microvm']['works']:
            return
        time.sleep(.1)
    raise RuntimeError(f'no microVM works here: {tiers["microvm"]}')


def sandboxes(directory):
    """{jobs: figures}: a command in a sandbox of its own, from the command line's start to its end."""
    place = os.path.join(directory, 'sandboxes')
    os.makedirs(place)
    _make_image(os.path.join(place, 'data'))
    count, rounds = (6, 1) if common.QUICK else (40, 3)
    taken = {jobs: [] for jobs in AT_ONCE}
    served = node.Node(place, {'sandbox_boot_seconds': 20})
    try:
        _await_tier(served)
        for _ in range(rounds):
            for jobs in AT_ONCE:
                taken[jobs].append(_run_many(served.data, count, jobs))
    finally:
        served.stop()
    return {str(jobs): common.over_rounds(figures) for jobs, figures in taken.items()}
