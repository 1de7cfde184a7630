"""vmm.py: microVMs beside QEMU's microvm machine, in the lab's emulated host: the same kernel, initramfs, disks and
agent; and natively what needs no guest kernel. Once with time counted in instructions (one each nanosecond), on one
processor: the load of the machine that measures does not show, and two runs agree to a thousandth. And once by the
clock, on two, where the monitor's threads run beside the guest as they do in life. What an instruction costs on real
processors, and an exit above all, differs: the ratios are what both are about."""
import json
import os
import subprocess

import common
import monitors

LAB = os.path.join(common.ROOT, 'tests/lab/lab.sh')
GUESTS = os.path.join(common.ROOT, 'bench/vmm/guests.sh')
FIRMWARE = '/usr/share/qemu'
IMAGE = ('vmlinux', 'initramfs', 'root.erofs', 'scratch.img')
COUNTED = {'LAB_ACCEL': '-accel tcg,thread=single -icount shift=0,sleep=off', 'LAB_CPUS': '1'}
# QEMU 7.2 may race with itself where each processor has a thread (tests/lab/lab.sh); such a lab is tried once more.
CLOCKED = {'LAB_ACCEL': '-accel tcg,thread=multi', 'LAB_CPUS': '2'}
LIMIT_S = {'counted': 300, 'clock': 240}  # twice what they take on an idle machine
ATTEMPTS = 2
END_S = 60  # beyond its limit, for the lab itself


def _program(name):
    return f'{common.BUILD}/bench/bench-vmm-{name}'


def _image(directory, cache):
    packages = os.path.join(cache, 'packages')
    os.makedirs(packages, exist_ok=True)
    common.run(f'{common.BUILD}/bulkhead', 'image', 'build', 'base', '--data', directory, '--packages', packages)
    return os.path.join(directory, 'images/base')


def _words(image, limit_s, *words):
    put = [f'{_program(name)}:/bench/bench-vmm-{name}' for name in ('boot', 'peer')]
    put += [f'{image}/{name}:/bench/image/{name}' for name in IMAGE]
    put += [f'{FIRMWARE}/{name}:/bench/qemu/{name}' for name in ('qboot.rom', 'kvmvapic.bin')]
    put += [f'{GUESTS}:/bench/guests.sh', '/usr/bin/qemu-system-x86_64']
    files = [word for one in put for word in ('-f', one)]
    return [LAB, '-t', str(limit_s), '-s', 'vhost_vsock', *files, '--', f'sh /bench/guests.sh {" ".join(words)}']


def _run_lab(words, limit_s, environment):
    """What it said; and how it failed, or ''."""
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors='replace',
                              timeout=limit_s + END_S, env={**os.environ, **environment})
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b'').decode(errors='replace'), f'not over after {limit_s + END_S} s'
    why = {0: '', 124: f'not over after {limit_s} s, or the emulated host never came up'}
    return done.stdout, why.get(done.returncode, f'exit {done.returncode}: {done.stderr[-500:]}')


def _figures(said):
    lines = [json.loads(line) for line in said.splitlines() if line.startswith('{"monitor"')]
    last = {line['monitor']: line for line in lines}
    return last if set(last) == {'ours', 'qemu'} else None


def _lab(name, image, cache, environment, *words):
    """The figures of both sides. A lab that stands still is ended at its limit and tried once more."""
    limit_s = LIMIT_S[name]
    for attempt in range(ATTEMPTS):
        said, why = _run_lab(_words(image, limit_s, *words), limit_s, {'LAB_CACHE': cache, **environment})
        figures = None if why else _figures(said)
        if figures:
            for side in figures.values():
                if side['silent']:
                    common.say(f'{side["monitor"]} fell silent: what it was asked after that is left out')
            return figures
        tail = '\n    '.join(said.splitlines()[-6:])
        common.say(f'the lab ({name}) failed: {why or "no figures"}; the last that it said:\n    {tail}')
    raise RuntimeError(f'the lab ({name}) failed {ATTEMPTS} times')


def _native(directory):
    figures = {'vsock': json.loads(common.run(_program('vsock'))),
               'block': json.loads(common.run(_program('block'), '256', directory))}
    lacking = monitors.why_not()
    if lacking:
        common.say(f'no machines natively: {lacking}')
        return figures
    common.say('empty virtual machines, monitors, and sandboxes, natively')
    figures['create'] = json.loads(common.run(_program('create'), '60'))
    figures['started'] = monitors.started(directory)
    figures['sandboxes'] = monitors.sandboxes(directory)
    return figures


def measure(directory):
    place = os.path.join(directory, 'vmm')
    os.makedirs(place)
    cache = os.environ.get('LAB_CACHE', os.path.join(common.ROOT, 'build/lab'))
    common.say('devices, natively')
    figures = _native(place)
    image = _image(place, cache)
    common.say('microVMs in the lab, time counted in instructions')
    figures['counted'] = _lab('counted', image, cache, COUNTED, '1' if common.QUICK else '3', 'warm')
    common.say('microVMs in the lab, by the clock')
    figures['clock'] = _lab('clock', image, cache, CLOCKED, '1' if common.QUICK else '7')
    return figures
