#!/bin/sh
# guests.sh: in the lab: the same kernel, initramfs, root, disk and agent under QEMU's microvm machine and under ours.
#   guests.sh ROUNDS     a line of JSON each on stdout; the files lie in /bench
set -eu
rounds=$1
memory=128 disk=256
line='panic=-1 pci=off 8250.nr_uarts=0 quiet cryptomgr.notests random.trust_cpu=on swiotlb=noforce no_timer_check tsc=reliable rcupdate.rcu_expedited=1'
# QEMU at its quickest: no firmware but qboot, nothing emulated that this kernel would look at in vain. Without a clock
# chip the kernel polls for one for a second, so it has that.
qemu() {
    cp /bench/image/scratch.img /tmp/disk
    truncate -s ${disk}M /tmp/disk
    /bench/bench-vmm-peer qemu --rounds "$1" -- /usr/bin/qemu-system-x86_64 -L /bench/qemu -bios qboot.rom \
        -M microvm,accel=kvm,pit=off,pic=off,rtc=on,isa-serial=off,x-option-roms=off -cpu host -m $memory -smp 1 \
        -nodefaults -no-user-config -display none -no-reboot -kernel /bench/image/vmlinux -initrd /bench/image/initramfs \
        -append "reboot=t $line" -global virtio-mmio.force-legacy=off \
        -drive id=root,file=/bench/image/root.erofs,format=raw,if=none,readonly=on -device virtio-blk-device,drive=root \
        -drive id=disk,file=/tmp/disk,format=raw,if=none,cache=writeback -device virtio-blk-device,drive=disk \
        -device vhost-vsock-device,guest-cid=3 -device virtio-rng-device \
        -device virtio-balloon-device,free-page-reporting=on
    rm -f /tmp/disk
}
ours() {
    /bench/bench-vmm-peer ours --rounds "$1" -- /bench/bench-vmm-boot --kernel /bench/image/vmlinux \
        --initramfs /bench/image/initramfs --append "reboot=k $line" --memory $memory --root /bench/image/root.erofs \
        --scratch /bench/image/scratch.img --disk $disk --agent-fd 3 --seconds 600 $2
}
# the first of each warms up what the host keeps of the files
ours 0 ''
ours "$rounds" ''
ours 0 --map
qemu 0
qemu "$rounds"
