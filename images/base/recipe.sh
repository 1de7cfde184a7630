#!/bin/sh
# recipe.sh: the files of the image `base`, from Debian packages and the agent. Called by `bulkhead image build`, which
# makes the folders, cuts the kernel, writes manifest.json and puts the whole into place.
#
#   HERE       the folder of this recipe
#   PACKAGES   the folder of downloaded packages: what it has is not fetched
#   AGENT      bulkhead-agent
#   WORK       an empty folder of scratch
#   OUT        an empty folder: gets vmlinux (uncut), initramfs, root.erofs, root/, scratch.img
# The same packages, tools and agent give the same bytes: names are sorted, times and ids fixed.
# stdout: a line `package NAME VERSION FILE` for each one used, and `kernel RELEASE`.
set -eu
export LC_ALL=C TZ=UTC PATH=/usr/sbin:/usr/bin:/sbin:/bin
umask 022
root_uuid=b01c4ead-0000-4000-8000-000000000001
scratch_uuid=b01c4ead-0000-4000-8000-000000000002
scratch_mib=16    # grows in the guest
scratch_inodes=8192
user=sandbox

fail() {
    echo "recipe: $*" >&2
    exit 1
}

# Several builds may share PACKAGES: what lies there under its name is whole.
fetch() {
    find "$PACKAGES" -maxdepth 1 -name '.fetch.*' -mmin +60 -exec rm -rf {} + # of one that was killed
    fetched=$(mktemp -d "$PACKAGES/.fetch.XXXXXX")
    # the index may be older than the archive, and only root can renew it
    if (cd "$fetched" && apt-get download -qq -o Acquire::Retries=0 "$1" >&2) || {
        [ "$(id -u)" != 0 ] || apt-get update -qq -o Acquire::Retries=0 >&2 || true
        (cd "$fetched" && apt-get download -qq -o Acquire::Retries=0 "$1" >&2)
    }; then
        mv "$fetched"/*.deb "$PACKAGES"
        rmdir "$fetched"
    else
        rm -rf "$fetched"
        fail "package $1 cannot be fetched; without a network, put it into $PACKAGES"
    fi
}

# the newest package of that name in PACKAGES, fetched when there is none
package() {
    file=$(find "$PACKAGES" -maxdepth 1 -name "$1_*.deb" | sort -V | tail -n 1)
    if [ -z "$file" ]; then
        fetch "$1"
        file=$(find "$PACKAGES" -maxdepth 1 -name "$1_*.deb" | sort -V | tail -n 1)
    fi
    [ -n "$file" ] || fail "package $1: not where it was put"
    dpkg-deb --fsys-tarfile "$file" >"$WORK/package.tar" || fail "$file: damaged"
    echo "package $1 $(dpkg-deb -f "$file" Version) $(basename "$file")"
}

# which kernel the archive offers, or the one that is there already
kernel_package() {
    there=$(find "$PACKAGES" -maxdepth 1 -name 'linux-image-*-cloud-amd64_*.deb' | sort -V | tail -n 1)
    [ -z "$there" ] || { basename "$there" | cut -d_ -f1; return; }
    apt-cache depends linux-image-cloud-amd64 2>/dev/null | awk '/Depends: linux-image/ {print $2; exit}'
}

# a field of the setup header (boot protocol 2.08 on): payload_offset, payload_length
setup_word() {
    od -An -t u4 -j "$1" -N 4 "$WORK/boot/vmlinuz" | tr -d ' '
}

# The kernel as an ELF file: it is unpacked here once and not at every boot.
unpack_kernel() {
    tar -xf "$WORK/package.tar" -C "$WORK" ./boot ./lib/modules
    release=$(basename "$WORK"/lib/modules/*)
    mv "$WORK/boot/vmlinuz-$release" "$WORK/boot/vmlinuz"
    echo "kernel $release"
    sectors=$(od -An -t u1 -j 497 -N 1 "$WORK/boot/vmlinuz" | tr -d ' ')
    from=$(((sectors + 1) * 512 + $(setup_word 584)))
    bytes=$(($(setup_word 588) - 4)) # behind the LZ4 stream stands its unpacked size
    tail -c +$((from + 1)) "$WORK/boot/vmlinuz" | head -c "$bytes" | lz4 -dcq >"$OUT/vmlinux" ||
        fail "the kernel's payload is not LZ4"
}

# Modules without debugging data and without the signature, which costs five times the loading.
make_initramfs() {
    tree=$WORK/initramfs
    mkdir -p "$tree/dev" "$tree/proc" "$tree/sys" "$tree/run" "$tree/root" "$tree/etc" "$tree/lib/modules"
    loaded=" "
    while IFS= read -r path; do
        module=$WORK/lib/modules/$release/$path
        name=$(basename "$path" .ko)
        [ -f "$module" ] || fail "this kernel has no module $path"
        for needed in $(modinfo -F depends "$module" | tr ',' ' '); do
            case $loaded in
            *" $(echo "$needed" | tr - _) "*) ;;
            *) fail "module $name needs $needed before it" ;;
            esac
        done
        loaded="$loaded$(echo "$name" | tr - _) "
        objcopy --strip-debug -R .BTF -R .comment -R .note.gnu.build-id "$module" "$tree/lib/modules/$name.ko"
        chmod 644 "$tree/lib/modules/$name.ko"
        echo "/lib/modules/$name.ko" >>"$tree/etc/modules"
    done <"$HERE/modules"
    objcopy --strip-all "$AGENT" "$tree/init"
    chmod 755 "$tree/init"
    find "$tree" -exec touch -h -d @0 {} +
    (cd "$tree" && find . | sort | cpio -o -H newc -R 0:0 --reproducible --quiet) >"$OUT/initramfs"
}

make_root() {
    tree=$OUT/root
    (mkdir "$tree" && cd "$tree" && mkdir -p bin sbin usr/bin usr/sbin dev proc sys run mnt root tmp etc var/log \
        var/tmp home/sandbox)
    printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' "sandbox:x:1000:1000:sandbox:/home/$user:/bin/sh" \
        'nobody:x:65534:65534:nobody:/:/bin/false' >"$tree/etc/passwd"
    printf '%s\n' 'root:x:0:' 'tty:x:5:' 'sandbox:x:1000:' 'nogroup:x:65534:' >"$tree/etc/group"
    printf '%s\n' sandbox >"$tree/etc/hostname"
    printf '%s\n' '127.0.0.1 localhost sandbox' '::1 localhost' >"$tree/etc/hosts"
    printf '%s\n' 'passwd: files' 'group: files' 'hosts: files dns' >"$tree/etc/nsswitch.conf"
    printf '%s\n' /bin/sh >"$tree/etc/shells"
    printf '%s\n' 'export PATH=/bin:/sbin:/usr/bin:/usr/sbin' >"$tree/etc/profile"
    printf '%s\n' 'NAME="Bulkhead base"' 'ID=bulkhead-base' >"$tree/etc/os-release"
    tar -xf "$WORK/package.tar" -C "$WORK" ./bin/busybox
    cp "$WORK/bin/busybox" "$tree/bin/busybox"
    "$tree/bin/busybox" --list-full | while IFS= read -r applet; do
        [ -e "$tree/$applet" ] || ln -s /bin/busybox "$tree/$applet"
    done
    find "$tree" -type d -exec chmod 755 {} + -o -type f -exec chmod 644 {} +
    chmod 755 "$tree/bin/busybox"
    chmod 1777 "$tree/tmp" "$tree/var/tmp"
    find "$tree" -exec touch -h -d @0 {} +
}

# Owners as they are in the guest; who is not root pretends to be.
make_erofs() {
    pretend=
    [ "$(id -u)" = 0 ] || pretend=fakeroot
    # shellcheck disable=SC2086
    $pretend sh -c 'chown -hR 0:0 "$1/root" && chown 1000:1000 "$1/root/home/sandbox" && touch -h -d @0 "$1/root/home/sandbox" &&
        mkfs.erofs -T 0 -U "$2" -x -1 --quiet "$1/root.erofs" "$1/root" >&2' sh "$OUT" "$root_uuid" ||
        fail "mkfs.erofs"
    truncate -s %4096 "$OUT/root.erofs"
}

# An empty file system without a journal: what is in it dies with the sandbox. It can grow to 1 TiB while mounted.
make_scratch() {
    truncate -s "${scratch_mib}M" "$OUT/scratch.img"
    E2FSPROGS_FAKE_TIME=1 mke2fs -q -t ext4 -b 4096 -m 0 -N "$scratch_inodes" -I 256 -U "$scratch_uuid" -M / \
        -O '^has_journal,^metadata_csum,^64bit,uninit_bg,resize_inode,extent,dir_index,filetype,sparse_super' \
        -E "hash_seed=$scratch_uuid,lazy_itable_init=1,nodiscard,root_owner=0:0,resize=268435456" "$OUT/scratch.img" >&2
}

for tool in apt-get apt-cache dpkg-deb lz4 objcopy modinfo cpio mkfs.erofs mke2fs; do
    command -v "$tool" >/dev/null || fail "$tool is needed (see scripts/setup.sh)"
done
[ "$(id -u)" = 0 ] || command -v fakeroot >/dev/null || fail "fakeroot is needed where root does not build"
[ -x "$AGENT" ] || fail "$AGENT is needed"
kernel=$(kernel_package)
[ -n "$kernel" ] || fail "the package index has no kernel: run apt-get update, or put the packages into $PACKAGES"
package "$kernel"
unpack_kernel
make_initramfs
package busybox-static
make_root
make_erofs
make_scratch
