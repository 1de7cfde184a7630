"""vmm.py: microVMs beside QEMU's microvm machine, in the lab's emulated host: the same kernel, initramfs, disks and
agent; and natively what needs no guest kernel. Once with time counted in instructions (one each nanosecond), on one
processor: the load of the machine that measures does not show, and two runs agree to a thousandth. And once by the
clock, on two, where the monitor's threads run beside the guest as they do in life. What an instruction costs on real
processors, and an exit above all, differs: the ratios are what both are about."""
import json
import os
import selectors
import signal
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
LIMIT_S = {'counted': 360, 'clock': 240}  # twice what they take on an idle machine
ATTEMPTS = 2
SILENT_S = 100  # the longest between two lines of a lab that gets on, on a busy machine
END_S = 60  # for what is left to be done at its end
LAST = 'busy_echo_worst_us'  # the last exchange of a round


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


def _listen(lab, said):
    """Until it ends or says nothing for so long: then how that is to be told, else ''."""
    waiting = selectors.DefaultSelector()
    waiting.register(lab.stdout, selectors.EVENT_READ)
    while waiting.select(SILENT_S):
        line = lab.stdout.readline()
        if not line:
            return ''
        said.append(line)
    return f'it said nothing for {SILENT_S} s'


def _end_session(session):
    """lab.sh, which removes its files, and its emulator, which is in a process group of its own."""
    for pid in (int(name) for name in os.listdir('/proc') if name.isdigit()):
        try:
            if os.getsid(pid) == session:
                os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            pass


def _run_lab(words, limit_s, environment):
    """What it said, in lines; and how it failed, or ''."""
    said = []
    with subprocess.Popen(words, stdout=subprocess.PIPE, bufsize=0, start_new_session=True,
                          env={**os.environ, **environment}) as lab:
        try:
            why = _listen(lab, said)
        finally:
            if lab.poll() is None and why:
                _end_session(lab.pid)
        code = lab.wait(END_S)
    if not why and code == 124:
        why = f'not over after {limit_s} s, or the emulated host never came up'
    elif not why and code:
        why = f'exit {code}'
    return [line.decode(errors='replace').strip() for line in said], why


def _figures(said):
    """Medians since the last boot of each; None while one of the exchanges was not had with both."""
    taken = {}
    for line in said:
        if not line.startswith('{"monitor"'):
            continue
        told = json.loads(line)
        side = told.pop('monitor')
        if 'hello_us' in told:
            taken[side] = {}
        for name, value in told.items():
            taken[side].setdefault(name, []).append(value)
    if set(taken) != {'ours', 'qemu'} or not all(LAST in side or 'silent' in side for side in taken.values()):
        return None
    return {side: {name: values[0] if name == 'silent' else common.median(values) for name, values in figures.items()}
            for side, figures in taken.items()}


def _lab(name, image, cache, environment, *words):
    """The figures of both sides. A lab that stands still is ended; with no round over, it is tried once more."""
    limit_s = LIMIT_S[name]
    for _ in range(ATTEMPTS):
        said, why = _run_lab(_words(image, limit_s, *words), limit_s, {'LAB_CACHE': cache, **environment})
        figures = _figures(said)
        if why:
            worth = 'what it had told until then counts' if figures else 'nothing of it counts'
            tail = '\n    '.join(said[-4:])
            common.say(f'the lab ({name}) failed: {why}; {worth}; the last that it said:\n    {tail}')
        if figures:
            for side, its in figures.items():
                if 'silent' in its:
                    common.say(f'{side} fell silent at {its["silent"]}')
            return figures
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
    if not os.path.isdir(os.path.join(cache, 'kernel')):
        common.say('the lab: its kernel is fetched')  # which may take as long as the network does
        common.run(LAB, '--', 'true', env={**os.environ, 'LAB_CACHE': cache})
    common.say('microVMs in the lab, time counted in instructions')
    figures['counted'] = _lab('counted', image, cache, COUNTED, '1' if common.QUICK else '3', 'warm')
    common.say('microVMs in the lab, by the clock')
    figures['clock'] = _lab('clock', image, cache, CLOCKED, '1' if common.QUICK else '5')
    return figures
