#!/bin/bash
# lab.sh: runs a command in an emulated host: a stock Debian kernel under QEMU, with cgroup v2, Landlock and, by TCG's
# emulation of AMD's SVM, a /dev/kvm that boots stock kernels. What the machine at hand may lack. No hardware
# virtualisation, no network.
#
#   lab.sh [-n] [-m MIB] [-c CPUS] [-t SECONDS] [-s MODULE]... [-f PATH[:GUEST_PATH]]... -- COMMAND
#
#   -f  puts a file or folder into the host's root file system; a program brings its shared libraries
#   -n  a stock kernel is to boot in it: see accelerator() for what that changes
#   -s  also loads this kernel module, with what it depends on (kvm-amd always is)
# COMMAND runs as root under busybox sh; / is a RAM disk that others can enter, as on a real host. Exit status: the
# command's; 124 when it ran past -t or the host never came up. The kernel and its modules are fetched with apt once
# and kept in LAB_CACHE (default: build/lab). LAB_CPUS, LAB_CPU, LAB_ACCEL, LAB_APPEND, LAB_QEMU: other processors,
# another QEMU accelerator, more for the kernel's command line, more of QEMU's options (say, a monitor). With
# LAB_ACCEL='-accel tcg,thread=single -icount shift=0,sleep=off' and -c 1, time is counted in instructions: nothing that
# others do on the machine shows in a measured time, and a sleep costs none; it takes two to three times as long
# otherwise. The processors lack what KVM's emulation of SVM
# gets wrong (MPX, PKU: a nested kernel warns of an XSAVE size that is none) and a level of page tables that costs.
set -euo pipefail
nested=false memory=1536 cpus=${LAB_CPUS:-2} limit=900 files=() modules=(kvm-amd)
while getopts nm:c:t:f:s: option; do
    case $option in
    n) nested=true ;;
    m) memory=$OPTARG ;;
    c) cpus=$OPTARG ;;
    t) limit=$OPTARG ;;
    f) files+=("$OPTARG") ;;
    s) modules+=("$OPTARG") ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
[ $# -gt 0 ] || { sed -n '2,20s/^# \{0,1\}//p' "$0"; exit 2; }
top=$(cd "$(dirname "$0")/../.." && pwd)
cache=${LAB_CACHE:-$top/build/lab}

# Debian's cloud kernel and its modules in the cache: kernel/vmlinuz, kernel/lib/modules/VERSION
fetch_kernel() {
    local work package lock
    mkdir -p "$cache"
    exec {lock}>"$cache/lock"
    flock "$lock" # several labs may start at once
    [ ! -d "$cache/kernel" ] || { exec {lock}>&-; return 0; } # or the emulator would hold it
    work=$(mktemp -d "$cache/fetch.XXXXXX")
    (
        cd "$work"
        package=$(apt-cache depends linux-image-cloud-amd64 | awk '/Depends: linux-image/ {print $2; exit}')
        [ -n "$package" ] || { apt-get update -qq && package=$(apt-cache depends linux-image-cloud-amd64 |
            awk '/Depends: linux-image/ {print $2; exit}'); }
        # the package index may be older than the archive
        apt-get download -qq "$package" 2>/dev/null || { apt-get update -qq && apt-get download -qq "$package"; }
        mkdir kernel
        dpkg-deb --fsys-tarfile "$package"_*.deb | tar -x -C kernel --wildcards './boot/vmlinuz-*' './lib/modules'
        mv kernel/boot/vmlinuz-* kernel/vmlinuz
        depmod -b kernel "$(basename kernel/lib/modules/*)"
    ) >&2
    mv "$work/kernel" "$cache/kernel"
    rm -rf "$work"
    exec {lock}>&-
}

# a module and what it depends on, in the order of loading
put_module() {
    local version file name
    version=$(basename "$cache"/kernel/lib/modules/*)
    modprobe -d "$cache/kernel" -S "$version" --show-depends "$1" | awk '$1 == "insmod" {print $2}' >"$scratch/depends"
    while IFS= read -r file; do
        name=$(basename "$file")
        [ ! -e "$root/lib/modules/$name" ] || continue
        install -D -m 644 "$file" "$root/lib/modules/$name"
        echo "$name" >>"$root/modules"
    done <"$scratch/depends"
}

# the shared libraries of one program, at the places where its loader looks for them
put_libraries() {
    local library
    for library in $(ldd "$1" 2>/dev/null | grep -oE '/[^ ]+' || true); do
        [ -e "$root$library" ] || install -D -m 755 "$library" "$root$library"
    done
}

put_file() {
    local from=${1%%:*} to=${1#*:} program
    mkdir -p "$root$(dirname "$to")"
    cp -aL "$from" "$root$to"
    while IFS= read -r -d '' program; do put_libraries "$program"; done \
        < <(find "$root$to" -type f -perm -u+x -print0)
}

make_root() {
    local applet
    mkdir -p "$root"/{bin,dev,proc,sys,tmp,run,etc,root}
    cp "$(command -v busybox)" "$root/bin/busybox"
    for applet in $("$root/bin/busybox" --list); do
        [ "$applet" = busybox ] || ln -sf busybox "$root/bin/$applet"
    done
    printf 'root:x:0:0::/root:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n' >"$root/etc/passwd"
    printf 'root:x:0:\nnogroup:x:65534:\n' >"$root/etc/group"
    printf '127.0.0.1 localhost\n' >"$root/etc/hosts"
    printf '%s\n' "$*" >"$root/command"
    cat >"$root/init" <<'INIT'
#!/bin/busybox sh
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=755 tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" >/sys/fs/cgroup/cgroup.subtree_control
done 2>/dev/null
while read -r module; do
    insmod "/lib/modules/$module" || echo "lab: $module does not load" >/dev/console
done </modules
ip link set lo up
hostname lab
echo '=== lab: up'
sh /command </dev/null
echo "=== lab: exit $?"
poweroff -f
INIT
    chmod 755 "$root/init" "$root"
}

# QEMU before 8.1 translates code while another thread of it changes that code, and keeps what it read: when the only VM
# comes or goes the kernel patches its scheduler, and now and then a processor trapped for ever on a breakpoint that was
# gone from memory (`singlestep on` in the monitor, which translates anew, set it free). One thread for all processors
# cannot race. But on one thread stock kernels that are nested stop in three boots of ten (one was seen to wait, with
# interrupts off, for a lock that what it had interrupted held), which some fifty with a thread for each did not; a
# node always has some VM, so that there the kernel hardly ever patches.
accelerator() {
    local version
    version=$(qemu-system-x86_64 --version | sed -n 's/^QEMU emulator version \([0-9]*\.[0-9]*\).*/\1/p')
    if $nested || [ "$(printf '%s\n' 8.1 "$version" | sort -V | head -n 1)" = 8.1 ]; then
        echo '-accel tcg,thread=multi'
    else
        echo '-accel tcg,thread=single'
    fi
}

# A host that locks up panics, and so ends.
run_host() {
    local more
    read -ra more <<<"${LAB_ACCEL:-$(accelerator)} ${LAB_QEMU:-}"
    timeout "$limit" qemu-system-x86_64 -M q35 "${more[@]}" -cpu "${LAB_CPU:-max,-la57,-mpx,-pku}" -smp "$cpus" \
        -m "$memory" -nographic -no-reboot -nic none -kernel "$cache/kernel/vmlinuz" -initrd "$scratch/initrd" \
        -append "console=ttyS0 quiet panic=-1 watchdog_thresh=60 softlockup_panic=1 ${LAB_APPEND:-}" </dev/null 2>&1 |
        sed -u 's/\r//g' | tee "$scratch/console" | sed -u -n '/=== lab: up/,/=== lab: exit/ { /=== lab:/!p }' || true
}

PATH=$PATH:/usr/sbin:/sbin # depmod and modprobe are administrators' tools
for tool in qemu-system-x86_64 busybox cpio depmod modprobe; do
    command -v "$tool" >/dev/null || { echo "lab.sh: $tool is needed; see scripts/setup.sh test" >&2; exit 1; }
done
fetch_kernel
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
root=$scratch/root
make_root "$@"
for module in "${modules[@]}"; do put_module "$module"; done
for file in ${files[@]+"${files[@]}"}; do put_file "$file"; done
(cd "$root" && find . | cpio -o -H newc -R 0:0 --quiet) >"$scratch/initrd"
rm -rf "$root"
run_host
if grep -aq 'not syncing: softlockup' "$scratch/console"; then
    echo 'lab.sh: the emulated host locked up; it is started once more' >&2
    run_host
fi
status=$(sed -n 's/^=== lab: exit \([0-9]*\)$/\1/p' "$scratch/console" | tail -n 1)
if [ -z "$status" ]; then
    echo "lab.sh: the host did not finish; the end of its console:" >&2
    tail -n 20 "$scratch/console" >&2
fi
exit "${status:-124}"
