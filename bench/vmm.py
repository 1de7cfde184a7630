"""vmm.py: microVMs beside QEMU's microvm machine, in the lab's emulated host: the same kernel, initramfs, disks and
agent. Time there is counted in instructions (one each nanosecond), so that the load of the machine that measures does
not show, and two runs agree to a thousandth. What an instruction costs on real processors, and an exit above all,
differs: the ratios are what it is about."""
import json
import os
import subprocess

import common

LAB = os.path.join(common.ROOT, 'tests/lab/lab.sh')
GUESTS = os.path.join(common.ROOT, 'bench/vmm/guests.sh')
FIRMWARE = '/usr/share/qemu'
IMAGE = ('vmlinux', 'initramfs', 'root.erofs', 'scratch.img')


def _image(directory, cache):
    packages = os.path.join(cache, 'packages')
    os.makedirs(packages, exist_ok=True)
    common.run(f'{common.BUILD}/bulkhead', 'image', 'build', 'base', '--data', directory, '--packages', packages)
    return os.path.join(directory, 'images/base')


def _lab(image, cache, rounds):
    put = [f'{common.BUILD}/bench/bench-vmm-{name}:/bench/bench-vmm-{name}' for name in ('boot', 'peer')]
    put += [f'{image}/{name}:/bench/image/{name}' for name in IMAGE]
    put += [f'{FIRMWARE}/{name}:/bench/qemu/{name}' for name in ('qboot.rom', 'kvmvapic.bin')]
    put += [f'{GUESTS}:/bench/guests.sh', '/usr/bin/qemu-system-x86_64']
    files = [word for one in put for word in ('-f', one)]
    done = subprocess.run([LAB, '-c', '1', '-m', '1536', '-t', '3000', '-s', 'vhost_vsock', *files, '--',
                           f'sh /bench/guests.sh {rounds}'], stdout=subprocess.PIPE, text=True, check=True,
                          env={**os.environ, 'LAB_CACHE': cache,
                               'LAB_ACCEL': '-accel tcg,thread=single -icount shift=0,sleep=off'})
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"monitor"')]


def measure(directory):
    cache = os.environ.get('LAB_CACHE', os.path.join(common.ROOT, 'build/lab'))
    common.say('microVMs in the lab, beside QEMU')
    image = _image(os.path.join(directory, 'vmm'), cache)
    runs = _lab(image, cache, 4 if common.QUICK else 20)
    ours = [run for run in runs if run['monitor'] == 'ours']
    qemu = [run for run in runs if run['monitor'] == 'qemu']
    return {'ours': ours[1], 'ours_mapped': ours[2], 'qemu': qemu[1]}
