#!/bin/sh
# guests.sh: in the lab: the same kernel, initramfs, root, disk and agent under QEMU's microvm machine and under ours.
#   guests.sh ROUNDS [warm | EXCHANGE]   both side by side, by turns; warm: each is booted once before that is
#                                        measured; EXCHANGE: that one only
# Lines of JSON on stdout, those after the last boot of each count; the files lie in /bench.
set -eu
memory=128 disk=256
line='panic=-1 pci=off 8250.nr_uarts=0 quiet cryptomgr.notests random.trust_cpu=on swiotlb=noforce no_timer_check tsc=reliable rcupdate.rcu_expedited=1'
ours="ours /bench/bench-vmm-boot --kernel /bench/image/vmlinux --initramfs /bench/image/initramfs --memory $memory
    --root /bench/image/root.erofs --scratch /bench/image/scratch.img --disk $disk --agent-fd 3 --seconds 3600"
# QEMU at its quickest: no firmware but qboot, nothing emulated that this kernel would look at in vain. Without a clock
# chip the kernel polls for one for a second, so it has that. Of vsock it has the host kernel's only (vhost).
qemu="qemu /usr/bin/qemu-system-x86_64 -L /bench/qemu -bios qboot.rom
    -M microvm,accel=kvm,pit=off,pic=off,rtc=on,isa-serial=off,x-option-roms=off -cpu host -m $memory -smp 1
    -nodefaults -no-user-config -display none -no-reboot -kernel /bench/image/vmlinux -initrd /bench/image/initramfs
    -global virtio-mmio.force-legacy=off
    -drive id=root,file=/bench/image/root.erofs,format=raw,if=none,readonly=on -device virtio-blk-device,drive=root
    -drive id=disk,file=/tmp/disk,format=raw,if=none,cache=writeback -device virtio-blk-device,drive=disk
    -device vhost-vsock-device,guest-cid=3 -device virtio-rng-device
    -device virtio-balloon-device,free-page-reporting=on"
# shellcheck disable=SC2086
peer() {
    cp /bench/image/scratch.img /tmp/disk # ours does without: what is written goes to a file beside it
    truncate -s ${disk}M /tmp/disk
    /bench/bench-vmm-peer --rounds $1 $ours --append "reboot=k $line" / $qemu -append "reboot=t $line"
}
case ${2:-} in
'') peer "$1" ;;
warm)
    peer 0
    peer "$1"
    ;;
*) peer "$1 --only $2" ;;
esac
