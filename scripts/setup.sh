#!/bin/sh
# Installs what building, testing and measuring need on Debian 12. Quick when all of it is there.
#   scripts/setup.sh [build|demo|test|bench]...      (default: build)
set -eu
# what `bulkhead image build` calls
image="apt dpkg lz4 binutils kmod cpio erofs-utils e2fsprogs fakeroot"
build="gcc make meson ninja-build pkg-config libc6-dev linux-libc-dev libssl-dev libsqlite3-dev libseccomp-dev libnghttp2-dev $image"
demo="crun runsc curl openssl nodejs sqlite3-doc postgresql-doc-15"
test="$demo acpica-tools libcmocka-dev libjansson-dev nghttp2-client clang-19 clang-tidy-19 libclang-rt-19-dev jq git python3 python3-yaml qemu-system-x86 busybox-static cpio kmod"
bench="$demo nginx-light nghttp2-client postgresql-15 postgresql-client-15 sqlite3 python3 linux-perf strace"
wanted=""
for part in "${@:-build}"; do
    case $part in
    build) wanted="$wanted $build" ;;
    demo) wanted="$wanted $build $demo" ;;
    test) wanted="$wanted $build $test" ;;
    bench) wanted="$wanted $build $test $bench" ;;
    *) echo "setup.sh: unknown part \"$part\"; known: build, demo, test, bench" >&2; exit 2 ;;
    esac
done
missing=""
for package in $wanted; do
    # a program that came another way (Node.js from its own archive) is as good as the package
    [ "$package" = nodejs ] && command -v node >/dev/null && continue
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
[ "$(id -u)" = 0 ] || { echo "setup.sh: these Debian packages are missing; install them as root:$missing" >&2; exit 1; }
echo "installing:$missing" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
# shellcheck disable=SC2086
apt-get install -y -qq --no-install-recommends $missing >/dev/null
