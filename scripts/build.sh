#!/bin/sh
# Builds everything into build/: scripts/build.sh [--tests]   (--tests: the test programs as well)
set -eu
cd "$(dirname "$0")/.."
tests=false
[ "${1:-}" != --tests ] || tests=true
if [ ! -f build/build.ninja ]; then
    meson setup build -Dtests=$tests >build.log 2>&1 || { cat build.log >&2; exit 1; }
    mv build.log build/setup.log
elif [ $tests = true ]; then
    meson configure build -Dtests=true >/dev/null
fi
# quiet when it works, everything when it does not
ninja -C build >build/ninja.log || { cat build/ninja.log >&2; exit 1; }
