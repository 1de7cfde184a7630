"""vmm.py: microVMs beside QEMU's microvm machine, in the lab's emulated host: the same kernel, initramfs, disks and
agent; and natively what needs no guest kernel. Once with time counted in instructions (one each nanosecond), on one
processor: the load of the machine that measures does not show, and two runs agree to a thousandth. And once by the
clock, on two, where the monitor's threads run beside the guest as they do in life. What an instruction costs on real
processors, and an exit above all, differs: the ratios are what both are about."""
import json
import os
import subprocess

import common

LAB = os.path.join(common.ROOT, 'tests/lab/lab.sh')
GUESTS = os.path.join(common.ROOT, 'bench/vmm/guests.sh')
FIRMWARE = '/usr/share/qemu'
IMAGE = ('vmlinux', 'initramfs', 'root.erofs', 'scratch.img')
COUNTED = {'LAB_ACCEL': '-accel tcg,thread=single -icount shift=0,sleep=off', 'LAB_CPUS': '1'}


def _program(name):
    return f'{common.BUILD}/bench/bench-vmm-{name}'


def _image(directory, cache):
    packages = os.path.join(cache, 'packages')
    os.makedirs(packages, exist_ok=True)
    common.run(f'{common.BUILD}/bulkhead', 'image', 'build', 'base', '--data', directory, '--packages', packages)
    return os.path.join(directory, 'images/base')


def _lab(image, cache, environment, *words):
    put = [f'{_program(name)}:/bench/bench-vmm-{name}' for name in ('boot', 'peer')]
    put += [f'{image}/{name}:/bench/image/{name}' for name in IMAGE]
    put += [f'{FIRMWARE}/{name}:/bench/qemu/{name}' for name in ('qboot.rom', 'kvmvapic.bin')]
    put += [f'{GUESTS}:/bench/guests.sh', '/usr/bin/qemu-system-x86_64']
    files = [word for one in put for word in ('-f', one)]
    done = subprocess.run([LAB, '-t', '1800', '-s', 'vhost_vsock', *files, '--', f'sh /bench/guests.sh {" ".join(words)}'],
                          stdout=subprocess.PIPE, text=True, check=True,
                          env={**os.environ, 'LAB_CACHE': cache, **environment})
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"monitor"')]
    return {side: [line for line in lines if line['monitor'] == side][-1] for side in ('ours', 'qemu')}


def _native():
    figures = {name: json.loads(common.run(_program(name))) for name in ('block', 'vsock')}
    if os.access('/dev/kvm', os.R_OK | os.W_OK):
        figures['create'] = json.loads(common.run(_program('create'), '60'))
    return figures


def measure(directory):
    cache = os.environ.get('LAB_CACHE', os.path.join(common.ROOT, 'build/lab'))
    common.say('devices and empty virtual machines, natively')
    figures = _native()
    image = _image(os.path.join(directory, 'vmm'), cache)
    common.say('microVMs in the lab, time counted in instructions')
    figures['counted'] = _lab(image, cache, COUNTED, '1' if common.QUICK else '3', 'warm')
    common.say('microVMs in the lab, by the clock')
    figures['clock'] = _lab(image, cache, {}, '1' if common.QUICK else '7')
    return figures
