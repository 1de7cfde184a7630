#!/bin/sh
# Runs the fuzz targets: scripts/fuzz.sh [SECONDS [NAME...]]   (30 seconds each, all of them)
# Builds with clang-19 in its own directory (FUZZ_BUILD, default build-fuzz). What the fuzzer learns
# stays in that directory; the checked-in corpus is only read. Findings: FUZZ_BUILD/findings.
# Exit 1 on any.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-30}
[ $# -gt 0 ] && shift
build=${FUZZ_BUILD:-build-fuzz}
names=${*:-$(sed -n "s/.*'name': '\([a-z0-9_]*\)'.*/\1/p" tests/fuzz/meson.build)}

if [ ! -f "$build/build.ninja" ]; then
    CC=${FUZZ_CC:-clang-19} meson setup "$build" -Dfuzz=true -Db_sanitize=address,undefined \
        -Db_lundef=false -Dc_args='-fsanitize=fuzzer-no-link -fno-sanitize-recover=all'
fi
targets=
for name in $names; do targets="$targets tests/fuzz/fuzz_$name"; done
# shellcheck disable=SC2086 # one word a target
ninja -C "$build" $targets

# one target: its last line, or what it found
fuzz_one() {
    name=$1
    learnt=$build/learnt/$name
    mkdir -p "$learnt" "$build/findings"
    log=$build/findings/$name.log
    rm -f "$log.found"
    if "$build/tests/fuzz/fuzz_$name" -max_total_time="$seconds" -max_len=16384 -timeout=10 \
        -rss_limit_mb=2048 -artifact_prefix="$build/findings/$name-" \
        "$learnt" "tests/fuzz/corpus/$name" >"$log" 2>&1; then
        echo "$name: $(tail -n 1 "$log")"
    else
        : >"$log.found"
        echo "$name: FOUND something, see $log:"
        tail -n 30 "$log"
    fi
}

# as many at once as there are processors: a target has one thread
running=0
for name in $names; do
    fuzz_one "$name" &
    running=$((running + 1))
    [ $((running % $(nproc))) -ne 0 ] || wait
done
wait
failed=
for name in $names; do
    [ ! -e "$build/findings/$name.log.found" ] || failed="$failed $name"
done
[ -z "$failed" ] || { echo "findings in:$failed" >&2; exit 1; }
